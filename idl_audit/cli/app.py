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
from idl_audit.cli import bench, bounds, convert, inspect, report, robustness, schema, sensitivity, verify
from idl_audit.cli.show import ARGUMENTS, EXIT_INTERRUPTED, EXIT_USAGE
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
        ARGUMENTS.set(tuple(sys.argv[1:] if args is None else args))
        try:
            code = run(**extra)
        except typer.TyperException as error:
            told = error.format_message() if hasattr(error, "format_message") else str(error)
            message = " ".join(str(told).split())
            if message:  # a bare `idl-audit` shows its help and has nothing to say
                typer.echo(f"error: {plain(message, longest=1000)} (see --help)", err=True)
            sys.exit(EXIT_USAGE)
        except typer.Abort:
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="idl-audit",
    cls=_Group,
    add_completion=False,
    help="How robust is the neural network in a file? Bounds, sensitivities, attacks and checked proofs, on a CPU.",
    epilog="Start with: idl-audit certify MODEL.onnx -d DATA.npz -e 0.03 --bounds 0,1",
    no_args_is_help=True,
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
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("report")(report.report)
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
