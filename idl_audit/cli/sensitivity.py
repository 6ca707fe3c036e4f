"""idl-audit sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.analysis.centre_radius import METHODS
from idl_audit.audit.sensitivity import SensitivityOptions, audit_sensitivity
from idl_audit.cli import options as o
from idl_audit.cli.show import check_output, command, deliver
from idl_audit.data.preprocessing import parse_preprocessing


@command
def sensitivity(
    model: o.ModelArgument,
    method: Annotated[
        str, typer.Option("--method", help=f"How to bound S: {', '.join(METHODS)}; all are valid.", metavar="NAME")
    ] = "best",
    top: Annotated[int, typer.Option("--top", help="Inputs to list for each output.", metavar="K")] = 5,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write S to this .npz file.", show_default=False, rich_help_panel=o.OUTPUT),
    ] = None,
    output_name: o.OutputNameOption = None,
    arch: o.ArchOption = None,
    input_shape: o.InputShapeOption = None,
    allow_code_execution: o.AllowCodeOption = False,
    scale: o.ScaleOption = None,
    mean: o.MeanOption = None,
    std: o.StdOption = None,
    format: o.FormatOption = o.Format.TABLE,
    output: o.OutputOption = None,
    force: o.ForceOption = False,
    verbose: o.VerboseOption = False,
    max_memory: o.MaxMemoryOption = None,
    seed: o.SeedOption = 0,
) -> None:
    """Bound how far each output moves when each input moves: the sensitivity matrix S, for all inputs at once.

    |y(u) - y(v)| <= S |u - v| holds for every pair of inputs u, v, in the units of the data.
    """
    check_output(output, read=(model,), written=(save,))
    chosen = SensitivityOptions(
        method=method,
        top=top,
        save=save,
        force=force,
        preprocessing=parse_preprocessing(scale=scale, mean=mean, std=std),
        model=o.model_options(
            output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
        ),
        seed=seed,
    )
    deliver(audit_sensitivity(model, chosen), format=format, output=output, verbose=verbose)
