"""idl-audit reduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.compress import reduce as run
from idl_audit.commands.shared.smaller import WriteOptions
from idl_audit.data.preprocessing import parse_preprocessing


@command
def reduce(
    model: o.ModelArgument,
    out: Annotated[Path, typer.Option("-o", "--output", "--out", help="The .npz file to write.", show_default=False)],
    data: o.OptionalDataOption = None,
    output_name: o.OutputNameOption = None,
    arch: o.ArchOption = None,
    input_shape: o.InputShapeOption = None,
    allow_code_execution: o.AllowCodeOption = False,
    labels: o.LabelsOption = None,
    limit: o.LimitOption = None,
    index: o.IndexOption = None,
    scale: o.ScaleOption = None,
    mean: o.MeanOption = None,
    std: o.StdOption = None,
    layout: o.LayoutOption = o.LayoutName.NATIVE,
    bounds: o.BoundsOption = None,
    format: o.FormatOption = o.Format.TABLE,
    json_report: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the report (JSON) to this file.", rich_help_panel=o.OUTPUT),
    ] = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    max_memory: o.MaxMemoryOption = None,
    seed: o.SeedOption = 0,
) -> None:
    """Remove the states that change no output: constant, dead and unobserved ones. The outputs stay the same.

    Without --bounds the smaller model is the same function everywhere; with --bounds 0,1 it is the same on inputs
    within them, and more states may be dead there. Both models are compared before anything is written.
    """
    check_output(json_report, read=(model, data, labels), written=(out,))
    given = None
    preprocessing = parse_preprocessing(scale=scale, mean=mean, std=std, bounds=bounds)
    if data is None:
        o.refuse_without_data(labels=labels, limit=limit, index=index, layout=layout)
    else:
        given = o.data_options(
            data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
        )
    chosen = WriteOptions(
        out=out,
        force=force,
        model=o.model_options(
            output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
        ),
        seed=seed,
        preprocessing=preprocessing,
    )
    report = run(model, chosen, given, tell=teller(quiet=quiet))
    deliver(report, format=format, output=json_report, verbose=verbose)
