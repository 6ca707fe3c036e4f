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
from idl_audit.cli import (
    bench,
    bounds,
    compose,
    compress,
    convert,
    explain,
    inspect,
    predict,
    reduce,
    robustness,
    schema,
    sensitivity,
    verify,
)
from idl_audit.cli.first_steps import examples_of, what_next
from idl_audit.cli.show import EXIT_INTERRUPTED, EXIT_USAGE
from idl_audit.report.wording import plain


class _Group(TyperGroup):
    """Tells wrong usage like every other error: one sentence on stderr, exit code 2."""

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
        try:
            code = run(**extra)
        except typer.TyperException as error:
            told = error.format_message() if hasattr(error, "format_message") else str(error)
            message = " ".join(str(told).split())
            if message:
                typer.echo(f"error: {plain(message, longest=1000)} (see --help)", err=True)
            sys.exit(EXIT_USAGE)
        except typer.Abort:
            sys.exit(EXIT_INTERRUPTED)
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
        """Return a command, with its examples below its help."""
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            found.epilog = examples_of(cmd_name)
        return found


app = typer.Typer(
    name="idl-audit",
    cls=_Group,
    help="How robust is the neural network in a file? Bounds, sensitivities, attacks and checked proofs, on a CPU.",
    epilog="Start with: idl-audit certify MODEL.onnx -d DATA.npz -e 0.03 --bounds 0,1",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("certify")(robustness.certify)
app.command("attack")(robustness.attack)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("bounds")(bounds.bounds)
app.command("bench")(bench.bench)
app.command("convert")(convert.convert)
app.command("predict")(predict.predict)
app.command("reduce")(reduce.reduce)
app.command("compress")(compress.compress)
app.command("compose")(compose.compose)
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("explain")(explain.explain)
app.command("schema")(schema.schema)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"idl-audit {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass
