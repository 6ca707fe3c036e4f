"""Where an option's default comes from: IDL_AUDIT_<COMMAND>_<OPTION>, then the configuration, then the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from idl_audit.cli.exits import Exit
from idl_audit.cli.show import say_error
from idl_audit.config.finding import find_configuration
from idl_audit.values.errors import InvalidInputError

if TYPE_CHECKING:
    from idl_audit.config.files import Configuration

ENVIRONMENT_PREFIX: Final = "IDL_AUDIT"
"""IDL_AUDIT_CERTIFY_EPS=8/255 stands for certify --eps 8/255."""

CONFIGURED: Final = frozenset({"certify", "attack", "sensitivity", "bounds", "convert", "inspect", "run", "gate"})
"""Commands that take defaults from a configuration in the current folder."""


def default_map(name: str, command: Any) -> tuple[Path | None, dict[str, Any]]:
    """Return this folder's configuration and the defaults that it has for a command's parameters, by their names.

    Raises:
        OptionError: where the configuration is refused.
    """
    path = find_configuration() if name in CONFIGURED else None
    if path is None:
        return None, {}
    from idl_audit.config.files import read_configuration

    return path, _by_parameter(read_configuration(path), name, command)


def _by_parameter(found: Configuration, name: str, command: Any) -> dict[str, Any]:
    options = found.options(name)
    values = {}
    for parameter in command.params:
        key = next((opt[2:] for opt in parameter.opts if opt.startswith("--")), parameter.name)
        if key in options:
            value = options[key]
            values[parameter.name] = list(value) if isinstance(value, tuple) else value
    return values


def is_typed(ctx: typer.Context, option: str) -> bool:
    """Return whether an option such as `--eps` is on the command line, not in the environment or the configuration."""
    source = ctx.get_parameter_source(option.removeprefix("--").replace("-", "_"))
    return source is not None and source.name == "COMMANDLINE"


def _take(ctx: typer.Context, value: Path | None) -> Path | None:
    """Replace the defaults by those of the file that -c names."""
    if value is not None and not ctx.resilient_parsing:
        from idl_audit.config.files import read_configuration

        try:
            ctx.default_map = _by_parameter(read_configuration(value), ctx.info_name or "", ctx.command)
        except InvalidInputError as error:
            say_error(error)
            raise typer.Exit(Exit.USAGE) from None
    return value


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        help="The configuration; without it idl-audit.toml, or \\[tool.idl-audit] in pyproject.toml, of this folder.",
        show_default=False,
        is_eager=True,
        callback=_take,
    ),
]
