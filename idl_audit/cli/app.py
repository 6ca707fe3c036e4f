"""The commands on one screen."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from idl_audit import __version__
from idl_audit.cli.defaults import default_map
from idl_audit.cli.exits import Exit, exit_codes, exit_codes_of
from idl_audit.cli.first_steps import examples_of, what_next
from idl_audit.cli.loading import LazyCommands
from idl_audit.cli.show import ARGUMENTS, say, say_error
from idl_audit.report.wording import plain
from idl_audit.values.errors import InvalidInputError
from idl_audit.values.options import OTHER_NAMES

COMMANDS = {
    "certify": "robustness",
    "attack": "robustness",
    "sensitivity": "sensitivity",
    "bounds": "bounds",
    "compare": "compare",
    "bench": "bench",
    "convert": "convert",
    "convert-property": "convert_property",
    "predict": "predict",
    "reduce": "reduce",
    "compress": "compress",
    "compose": "compose",
    "train": "train",
    "harden": "harden",
    "inspect": "inspect",
    "verify": "verify",
    "demo": "demo",
    "init": "init",
    "run": "run",
    "gate": "gate",
    "diff": "diff",
    "merge": "merge",
    "report": "report",
    "history": "history",
    "explain": "explain",
    "schema": "schema",
}
"""Command -> the module of this package that has a function of that name, with underscores; imported when the command
is asked for."""


class _Group(TyperGroup):
    """Imports a command when it is asked for, gives it the defaults of the configuration, and tells wrong usage.

    Wrong usage is told like every other error: one sentence on stderr, exit code 2.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(COMMANDS, self.commands)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, without importing them."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is asked for; what its options are in the configuration becomes their default."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None and not {"-h", "--help"}.intersection(rest):
            source, found = default_map(name)
            if found:
                ctx.default_map = {name: found}
                if name not in ("run", "gate") and not {"-q", "--quiet"}.intersection(rest):
                    say(f"note: defaults are taken from {source}")
        return name, command, rest

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line."""
        run = functools.partial(
            super().main, args, prog_name, complete_var, standalone_mode=False, windows_expand_args=windows_expand_args
        )
        if not standalone_mode:
            return run(**extra)
        code = 0
        ARGUMENTS.set(tuple(sys.argv[1:] if args is None else args))
        try:
            code = run(**extra)
        except typer.TyperException as error:
            told = error.format_message() if hasattr(error, "format_message") else str(error)
            message = " ".join(str(told).replace("Value error, ", "").split())
            if message:
                say_error(f"{plain(message, longest=1000)} (see --help)")
            sys.exit(Exit.USAGE)
        except InvalidInputError as error:  # the configuration
            say_error(error)
            sys.exit(Exit.USAGE)
        except typer.Abort:
            sys.exit(Exit.INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say what to do next where nothing was asked for."""
        if not args and not ctx.resilient_parsing:
            typer.echo(what_next())
            ctx.exit()
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, with its examples and exit codes below its help."""
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            found.epilog = "\n\n".join(filter(None, (examples_of(cmd_name), exit_codes_of(cmd_name))))
        return found


app = typer.Typer(
    name="idl-audit",
    cls=_Group,
    help="How robust is the neural network in a file? Bounds, sensitivities, attacks and checked proofs, on a CPU.",
    epilog=f"Start with: idl-audit certify MODEL.onnx -d DATA.npz -e 0.03 --bounds 0,1\n\n{exit_codes()}",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: OTHER_NAMES.get(name, name),
    },
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"idl-audit {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_version, is_eager=True, allow_from_autoenv=False
        ),
    ] = False,
) -> None:
    pass
