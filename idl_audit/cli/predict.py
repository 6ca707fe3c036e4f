"""idl-audit predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.predict import PredictOptions
from idl_audit.commands.predict import predict as run


@command
def predict(
    model: o.ModelArgument,
    data: o.DataOption,
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
    output: o.OutputOption = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            help="Write outputs and states to this .npz file (outputs, predictions, states, blocks, indices).",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    max_memory: o.MaxMemoryOption = None,
) -> None:
    """Compute the outputs of the implicit model: y = Cx + Du + d with the state x = phi(Ax + Bu + b).

    For a model with loops, the table has the steps to each sample's state and the residual max|x - phi(Ax + Bu + b)|;
    above it stands the proof that there is no other state.
    """
    check_output(output, read=(model, data, labels), written=(save,))
    given = o.data_options(
        data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
    )
    chosen = PredictOptions(
        save=save,
        force=force,
        model=o.model_options(
            output_name,
            max_memory,
            arch=arch,
            input_shape=input_shape,
            allow_code_execution=allow_code_execution,
            threshold=threshold,
        ),
    )
    deliver(run(model, given, chosen, tell=teller(quiet=quiet)), format=format, output=output, verbose=verbose)
