"""idl-audit verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.exits import Exit
from idl_audit.cli.show import check_output, command, deliver
from idl_audit.commands.verify import verify as run


@command
def verify(
    file: Annotated[
        Path, typer.Argument(help="Witness or certificate that --witness or --certificates wrote.", metavar="FILE")
    ],
    model: o.ModelArgument,
    property: Annotated[
        Path | None,
        typer.Argument(
            help="A VNN-LIB property that the certificate must be about; without it, FILE says what it proves.",
            metavar="PROPERTY",
            show_default=False,
        ),
    ] = None,
    output_name: o.OutputNameOption = None,
    arch: o.ArchOption = None,
    input_shape: o.InputShapeOption = None,
    allow_code_execution: o.AllowCodeOption = False,
    format: o.FormatOption = o.Format.TABLE,
    output: o.OutputOption = None,
    quiet: o.AnswerOption = False,
    verbose: o.VerboseOption = False,
    max_memory: o.MaxMemoryOption = None,
) -> None:
    """Check a witness or a certificate against its model, in float64 rounded outward: no search, no solver."""
    check_output(output, read=(file, model, property))
    options = o.model_options(
        output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
    )
    report = run(file, model, options, property)
    deliver(report, format=format, output=output, verbose=verbose, quiet=quiet)
    if report.verification is not None and not report.verification.accepted:
        raise typer.Exit(Exit.REFUSED)
