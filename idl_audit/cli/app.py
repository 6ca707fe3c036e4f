"""The commands on one screen."""

from __future__ import annotations

from typing import Annotated

import typer

from idl_audit import __version__
from idl_audit.cli import convert, inspect, robustness, schema, sensitivity

app = typer.Typer(
    name="idl-audit",
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
app.command("convert")(convert.convert)
app.command("inspect")(inspect.inspect)
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
