"""idl-audit compress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.compress import CompressOptions
from idl_audit.commands.compress import compress as run
from idl_audit.commands.shared.smaller import WriteOptions
from idl_audit.data.numbers import parse_number
from idl_audit.data.preprocessing import parse_preprocessing
from idl_audit.values.errors import OptionError


@command
def compress(
    model: o.ModelArgument,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", "--out", help="The .npz file to write.", show_default=False)
    ] = None,
    data: o.OptionalDataOption = None,
    prune: Annotated[
        str | None,
        typer.Option(
            "--prune",
            help="Leave out coefficients below T times the largest of their matrix or kernel.",
            metavar="T",
            show_default=False,
        ),
    ] = None,
    quantize: Annotated[
        int | None,
        typer.Option(
            "--quantize", help="2^BITS - 1 levels for each matrix or kernel.", metavar="BITS", show_default=False
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            "--rank",
            help="Matrices of rank K, stored as two factors where that is less.",
            metavar="K",
            show_default=False,
        ),
    ] = None,
    by_block: Annotated[
        bool, typer.Option("--report", help="List the blocks by the drift that compressing each alone causes.")
    ] = False,
    output_name: o.OutputNameOption = None,
    threshold: o.ThresholdOption = None,
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
    """Make the model smaller and prove how far its outputs can move by that.

    Proved are: for all inputs u a bound offset + slope max|u_j|; one number for the box of inputs (--bounds, or the
    least box around the samples of -d); one at the samples themselves. The largest difference that was measured stands
    beside them. Bounds are in units of the outputs, for the numbers that the network reads.
    """
    check_output(json_report, read=(model, data, labels), written=(out,))
    if out is None and not by_block:
        raise OptionError("give -o OUT.npz for the smaller model, or --report to see only what compressing would do")
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
            output_name,
            max_memory,
            arch=arch,
            input_shape=input_shape,
            allow_code_execution=allow_code_execution,
            threshold=threshold,
        ),
        seed=seed,
        preprocessing=preprocessing,
    )
    asked = CompressOptions(
        prune=None if prune is None else parse_number(prune, option="--prune"),
        quantize=quantize,
        rank=rank,
        by_block=by_block,
    )
    report = run(model, asked, chosen, given, tell=teller(quiet=quiet))
    deliver(report, format=format, output=json_report, verbose=verbose)
