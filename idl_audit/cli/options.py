"""From the declared options of a command to its command line: names, help, variables of the environment."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import filterfalse
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from idl_audit.commands.options import asked_of
from idl_audit.commands.options.common import DATA, LIMITS, NETWORK, OUTPUT, QUESTION, SET, TRAINING
from idl_audit.graph.torch_options import PANEL
from idl_audit.values.options import OTHER_NAMES, Declared, Option, build, options_of

PREFIX: Final = "IDL_AUDIT"
"""IDL_AUDIT_CERTIFY_EPS=8/255 stands for certify --eps 8/255."""

_PANELS: Final = (None, SET, QUESTION, DATA, NETWORK, PANEL, TRAINING, OUTPUT, LIMITS)


@dataclass(frozen=True)
class Given:
    """What a command is given, by option: on the command line, in the environment or by a configuration."""

    kind: type[Declared]
    values: Mapping[str, Any]
    typed: frozenset[str]
    """Those on the command line."""
    configured: frozenset[str] = frozenset()
    """Those of a configuration."""

    def build(self, **more: Any) -> Any:
        """Return the options, with `more` that follows from others. Raises OptionError where they make no sense."""
        return build(self.kind, {**self.values, **more}, self.typed)


def parameter_of(name: str) -> str:
    """Return what the parameter of an option is called."""
    return f"{name}_" if keyword.iskeyword(name) else name


def variables_of(command: str, one: Option) -> list[str]:
    """Return the variables of the environment that stand for an option."""
    if one.positional or not one.in_environment:
        return []
    names = [one.key, *(other for other, name in OTHER_NAMES.items() if name == one.name)]
    return [f"{PREFIX}_{command}_{name}".upper().replace("-", "_") for name in names]


def signature_of(command: str) -> inspect.Signature:
    """Return the parameters of a command as typer reads them."""
    declared = [one for one in options_of(asked_of(command)).values() if one.typed]
    declared.sort(key=lambda one: (not one.positional, _PANELS.index(one.panel), one.rank))
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return inspect.Signature([context, *(_parameter(command, one) for one in declared)])


def given_to(ctx: typer.Context) -> Given:
    """Return what is given to the command of a context."""
    command = str(ctx.info_name)
    kind = asked_of(command)
    sources = {}
    for name in options_of(kind):
        source = ctx.get_parameter_source(parameter_of(name))
        if source is not None and source.name != "DEFAULT":
            sources[name] = source.name
    values = {name: ctx.params[parameter_of(name)] for name in sources}
    typed, configured = (
        frozenset(name for name, source in sources.items() if source == place)
        for place in ("COMMANDLINE", "DEFAULT_MAP")
    )
    return Given(kind, values, typed, configured)


def _is_short(flag: str) -> bool:
    return not flag.startswith("--")


def codes_from(incomplete: str) -> list[str]:
    """Return the codes and words of verdicts that go on from what is typed, for the shell."""
    from idl_audit.report.codes import CODES, WORDS

    return [name for name in (*CODES, *WORDS) if name.lower().startswith(incomplete.lower())]


def _parameter(command: str, one: Option) -> inspect.Parameter:
    reader = one.reader
    kind = Literal[reader.choices] if reader.choices else list[str] if one.several else reader.kind
    said: dict[str, Any] = {
        "help": one.help,
        "metavar": one.metavar or ("<path>" if reader.kind is Path and not one.positional else None),
        "show_default": not (one.default is None or one.default is False or one.default == ()),
        "rich_help_panel": one.panel,
        "min": reader.least,
    }
    if reader.kind is not bool and not one.several and not (one.positional and reader.kind is Path):
        said["parser"] = one.read
    if one.name == "config":
        from idl_audit.cli.defaults import take

        said |= {"is_eager": True, "callback": take}
    if command == "explain":
        said["autocompletion"] = codes_from
    if one.positional:
        made = typer.Argument(**said)
    else:
        off = f"/{one.off}" if one.off else ""
        variables = variables_of(command, one)
        flags = (*filter(_is_short, one.flags), f"--{one.key}{off}", *filterfalse(_is_short, one.flags))
        made = typer.Option(*flags, **said, envvar=variables, show_envvar=False)
    default = inspect.Parameter.empty if one.required else None if one.default == () else one.default
    return inspect.Parameter(
        parameter_of(one.name),
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, made],
    )
