"""idl-audit compose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.show import check_output, command, deliver
from idl_audit.commands.compose import compose as run
from idl_audit.commands.shared.smaller import WriteOptions


class Kind(StrEnum):
    """How two models are put together."""

    CASCADE = "cascade"
    SUM = "sum"
    CONCAT = "concat"
    FEEDBACK = "feedback"


_MODEL_HELP = "An ONNX file, or an .npz with an implicit model, such as `convert` writes."


@command
def compose(
    kind: Annotated[Kind, typer.Argument(help="How they are put together.", show_default=False)],
    first: Annotated[Path, typer.Argument(help=_MODEL_HELP, show_default=False)],
    second: Annotated[Path, typer.Argument(help="The other model.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--output", "--out", help="The .npz file to write.", show_default=False)],
    format: o.FormatOption = o.Format.TABLE,
    json_report: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the report (JSON) to this file.", rich_help_panel=o.OUTPUT),
    ] = None,
    force: o.ForceOption = False,
    verbose: o.VerboseOption = False,
    seed: o.SeedOption = 0,
) -> None:
    """Put two models f (FIRST) and g (SECOND) together into one implicit model.

    cascade: y = g(f(u)). sum: y = f(u) + g(u). concat: y = (f(u), g(u)). feedback: y = f(u + g(y)), refused where
    nothing proves that the loop has one state for every input. Every command takes the result.
    """
    check_output(json_report, read=(first, second), written=(out,))
    report = run(kind.value, first, second, WriteOptions(out=out, force=force, seed=seed))
    deliver(report, format=format, output=json_report, verbose=verbose)
