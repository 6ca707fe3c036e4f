"""Where an option's default comes from: IDL_AUDIT_<COMMAND>_<OPTION>, then the configuration, then the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from idl_audit.cli.options import parameter_of
from idl_audit.config.finding import CONFIGURED, find_configuration

if TYPE_CHECKING:
    from idl_audit.config.files import Configuration


def default_map(name: str) -> tuple[Path | None, dict[str, Any]]:
    """Return this folder's configuration and the defaults that it has for a command's parameters, by their names.

    Raises:
        OptionError: where the configuration is refused.
    """
    path = find_configuration() if name in CONFIGURED else None
    if path is None:
        return None, {}
    from idl_audit.config.files import read_configuration

    return path, _by_parameter(read_configuration(path), name)


def _by_parameter(found: Configuration, name: str) -> dict[str, Any]:
    return {parameter_of(key): value for key, value in found.options(name).items()}


def take(ctx: typer.Context, value: Path | None) -> Path | None:
    """Replace the defaults by those of the file that -c names. Raises OptionError where it is refused."""
    if value is not None and not ctx.resilient_parsing:
        from idl_audit.config.files import read_configuration

        ctx.default_map = _by_parameter(read_configuration(value), ctx.info_name or "")
    return value
