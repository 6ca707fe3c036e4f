"""idl-audit bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, command, deliver, progress_bar, teller
from idl_audit.commands.bounds import BoundsOptions, audit_bounds
from idl_audit.data.numbers import parse_eps
from idl_audit.measure.state_bounds import METHODS
from idl_audit.values.errors import OptionError


@command
def bounds(
    model: o.ModelArgument,
    data: o.DataOption,
    eps: o.EpsOption,
    sparse: Annotated[
        int | None,
        typer.Option(
            "--sparse",
            help="At most K inputs change at once, each by at most EPS; without it, all of them may.",
            metavar="K",
            show_default=False,
            envvar=["IDL_AUDIT_BOUNDS_SPARSE", "IDL_AUDIT_BOUNDS_CARDINALITY"],
            show_envvar=False,
        ),
    ] = None,
    sigma: Annotated[
        Path | None,
        typer.Option(
            "--sigma",
            help="One radius for each input, multiplied by EPS; 0 holds it fixed. .npy, .npz (array sigma) or .csv.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help=f"Which methods to use, a list of: {', '.join(METHODS)}.", metavar="LIST")
    ] = ",".join(METHODS),
    output_name: o.OutputNameOption = None,
    arch: o.ArchOption = None,
    input_shape: o.InputShapeOption = None,
    allow_code_execution: o.AllowCodeOption = False,
    limit: o.LimitOption = None,
    index: o.IndexOption = None,
    scale: o.ScaleOption = None,
    mean: o.MeanOption = None,
    std: o.StdOption = None,
    layout: o.LayoutOption = o.LayoutName.NATIVE,
    valid: o.BoundsOption = None,
    format: o.FormatOption = o.Format.TABLE,
    output: o.OutputOption = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            help="Write all bounds to this .npz file: outputs_lo, outputs_hi, and z0_lo, x0_lo, ... for each block.",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    time_limit: o.TimeLimitOption = 60.0,
    max_memory: o.MaxMemoryOption = None,
) -> None:
    """Bound every state and output of the network when a sample's inputs change by at most EPS.

    Each method starts from what those before it proved: sensitivity (one
    matrix for all inputs), interval (layer by layer), linear (backward from
    each state and output, the tightest). norm, the coarse bound by norms
    alone, is there to compare with. All bounds are rounded outward: they hold
    in exact arithmetic for the weights in the file. No labels are needed.
    """
    check_output(output, read=(model, data, sigma), written=(save,))
    names = tuple(name.strip() for name in method.split(",") if name.strip())
    for name in names:
        if name not in METHODS:
            raise OptionError(f"there is no method '{name}' for bounds; known are {', '.join(METHODS)}")
    given = o.data_options(
        data, labels=None, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=valid
    )
    chosen = BoundsOptions(
        eps=parse_eps(eps),
        data=given,
        methods=names,
        sparse=sparse,
        sigma=sigma,
        time_limit=time_limit,
        save=save,
        force=force,
        model=o.model_options(
            output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
        ),
    )
    with progress_bar("bounds", quiet=quiet) as watch:
        report = audit_bounds(model, chosen, watch=watch, tell=teller(quiet=quiet))
    deliver(report, format=format, output=output, verbose=verbose)
    leave(report)
