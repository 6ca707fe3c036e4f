"""idl-audit convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.convert import ConvertOptions
from idl_audit.commands.convert import convert as run
from idl_audit.values.errors import OptionError


def _refuse_without_data(
    labels: Path | None,
    limit: int | None,
    index: str | None,
    scale: str | None,
    mean: str | None,
    std: str | None,
    bounds: str | None,
    layout: o.LayoutName,
) -> None:
    """Refuse options that say how to read samples where there are none: they would silently do nothing."""
    given = {
        "--labels": labels,
        "--limit": limit,
        "--index": index,
        "--scale": scale,
        "--mean": mean,
        "--std": std,
        "--bounds": bounds,
        "--layout": None if layout is o.LayoutName.NATIVE else layout,
    }
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise OptionError(
            f"{named[0]} says how to read samples, and there are none: give them with --data "
            "(the converted model reads what the network itself reads)"
        )


@command
def convert(
    model: o.ModelArgument,
    out: Annotated[Path, typer.Option("-o", "--output", "--out", help="The .npz file to write.", show_default=False)],
    data: o.OptionalDataOption = None,
    kappa: Annotated[float, typer.Option("--kappa", help="Rescale so that ||A||_inf is at most this.")] = 0.5,
    rescale: Annotated[bool, typer.Option("--rescale/--no-rescale", help="Rescale the states.")] = True,
    flat: Annotated[bool, typer.Option("--flat", help="Also store A, B, C, D as one CSR matrix each.")] = False,
    spy: Annotated[
        Path | None,
        typer.Option(
            "--spy",
            help="Draw the structure of A, B, C, D into this PNG file.",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    witness: Annotated[
        Path | None,
        typer.Option(
            "--witness",
            help="Write what `verify` checks S and well-posedness by.",
            show_default=False,
            rich_help_panel=o.OUTPUT,
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
    report: Annotated[
        Path | None,
        typer.Option("--json", "--report", help="Also write the report (JSON) to this file.", rich_help_panel=o.OUTPUT),
    ] = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    max_memory: o.MaxMemoryOption = None,
    seed: o.SeedOption = 0,
) -> None:
    """Turn a network into its implicit model A, B, C, D, b, d and check that it gives the same outputs.

    The model x = phi(Ax + Bu + b), y = Cx + Du + d (phi: the activations) is compared with the network on 20
    random inputs, or on --data.
    """
    check_output(report, read=(model, data, labels), written=(out, spy, witness))
    given = None
    if data is None:
        _refuse_without_data(labels, limit, index, scale, mean, std, bounds, layout)
    else:
        given = o.data_options(
            data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
        )
    chosen = ConvertOptions(
        kappa=kappa,
        rescale=rescale,
        flat=flat,
        force=force,
        spy=spy,
        witness=witness,
        model=o.model_options(
            output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
        ),
        seed=seed,
    )
    converted = run(model, out, chosen, given, tell=teller(quiet=quiet))
    deliver(converted, format=format, output=report, verbose=verbose)
