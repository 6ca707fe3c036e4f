"""idl-audit sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, command, deliver, progress_bar, teller
from idl_audit.commands.sensitivity import audit_sensitivity
from idl_audit.commands.shared.samples import DataOptions
from idl_audit.commands.shared.sensitivity_options import LocalOptions, SensitivityOptions
from idl_audit.data.groups import SPECS
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import parse_preprocessing
from idl_audit.measure.centre_radius import METHODS
from idl_audit.measure.local_sensitivity import STATE_BOUNDS
from idl_audit.values.errors import OptionError

OptionalEpsOption = Annotated[
    str | None,
    typer.Option(
        "-e",
        "--eps",
        help="With -d: radius of the box around each sample, in data units (before --scale): 8/255 or 0.03.",
        metavar="EPS",
        show_default=False,
    ),
]


@command
def sensitivity(
    model: o.ModelArgument,
    data: o.OptionalDataOption = None,
    eps: OptionalEpsOption = None,
    method: Annotated[
        str,
        typer.Option("--method", help=f"How to bound S: {', '.join(METHODS)}; all are valid bounds.", metavar="NAME"),
    ] = "best",
    state_bounds: Annotated[
        str,
        typer.Option(
            "--state-bounds",
            help=f"With -d: how states are bounded in a box: {' or '.join(STATE_BOUNDS)} (tighter, slower).",
            metavar="NAME",
        ),
    ] = "interval",
    top: Annotated[int, typer.Option("--top", help="Inputs to list for each output.", metavar="K")] = 5,
    label: Annotated[
        int | None,
        typer.Option(
            "--class",
            min=0,
            help="Also bound the differences of this output to all others.",
            metavar="K",
            show_default=False,
        ),
    ] = None,
    sparse: Annotated[
        int | None,
        typer.Option(
            "--sparse",
            help="Also bound the outputs where at most K inputs change, by EPS (or 1) each.",
            metavar="K",
            show_default=False,
            envvar=["IDL_AUDIT_SENSITIVITY_SPARSE", "IDL_AUDIT_SENSITIVITY_CARDINALITY"],
            show_envvar=False,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            help=f"Also sum S over groups of inputs: {SPECS}, or a file with one label per input.",
            metavar="NAME|FILE",
            show_default=False,
        ),
    ] = None,
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
    output: o.OutputOption = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            help="Write S (and what else was asked for) to this .npz file.",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    witness: Annotated[
        Path | None,
        typer.Option(
            "--witness",
            help="Write what `verify` checks the global S and well-posedness by to this .npz file.",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Draw each output's row of S as a PNG in this folder.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    image_shape: o.ImageShapeOption = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    max_memory: o.MaxMemoryOption = None,
    seed: o.SeedOption = 0,
) -> None:
    """Bound how far each output moves when each input moves: the sensitivity matrix S, for all inputs at once.

    |y(u) - y(v)| <= S |u - v| holds for every pair of inputs u, v, in the units of the data. With -d and -e it is made
    for pairs in the box around one of the samples, where S is much smaller.
    """
    check_output(output, read=(model, data, labels), written=(save, witness))
    local = None
    preprocessing = parse_preprocessing(scale=scale, mean=mean, std=std)
    if data is None:
        _refuse_without_data(eps, labels, limit, index, bounds, layout)
    else:
        given = o.data_options(
            data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
        )
        local, preprocessing = _local(given, eps, state_bounds), given.preprocessing
    chosen = SensitivityOptions(
        method=method,
        top=top,
        label=label,
        sparse=sparse,
        groups=groups,
        local=local,
        image_shape=o.parse_image_shape(image_shape),
        save=save,
        witness=witness,
        images=images,
        force=force,
        preprocessing=preprocessing,
        model=o.model_options(
            output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
        ),
        seed=seed,
    )
    with progress_bar("sensitivity", quiet=quiet or local is None) as watch:
        report = audit_sensitivity(model, chosen, watch=watch, tell=teller(quiet=quiet))
    deliver(report, format=format, output=output, verbose=verbose)
    leave(report)


def _local(data: DataOptions, eps: str | None, state_bounds: str) -> LocalOptions:
    radii = () if eps is None else parse_eps(eps)
    if len(radii) != 1:
        raise OptionError("with -d, S is made for boxes of one radius: give it with --eps, such as -e 8/255")
    return LocalOptions(data, radii[0], state_bounds)


def _refuse_without_data(
    eps: str | None,
    labels: Path | None,
    limit: int | None,
    index: str | None,
    bounds: str | None,
    layout: o.LayoutName,
) -> None:
    native = None if layout is o.LayoutName.NATIVE else layout
    given = {
        "--eps": eps,
        "--labels": labels,
        "--limit": limit,
        "--index": index,
        "--bounds": bounds,
        "--layout": native,
    }
    for name, value in given.items():
        if value is not None:
            raise OptionError(
                f"{name} speaks of samples; give them with --data, or leave it out for all inputs at once"
            )
