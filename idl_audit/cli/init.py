"""idl-audit init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.show import command
from idl_audit.commands.init import starter
from idl_audit.config.finding import FILE
from idl_audit.report.wording import plain
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_distinct, check_new_file, write_whole


@command
def init(
    model: o.ModelArgument,
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Samples and labels: .npz, .npy, .csv, .safetensors, .pt, or a folder of images.", show_default=False
        ),
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("-d", "--data", help="The same as DATA, as in other commands.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the configuration.")] = Path(FILE),
    output_name: o.OutputNameOption = None,
    threshold: o.ThresholdOption = None,
    arch: o.ArchOption = None,
    input_shape: o.InputShapeOption = None,
    allow_code_execution: o.AllowCodeOption = False,
    force: o.ForceOption = False,
    quiet: o.NotesOption = False,
) -> None:
    """Write a commented configuration for a model and its samples: radii and valid range guessed from the data."""
    if samples is not None:
        if data not in (None, samples):
            raise OptionError(f"samples are named twice, {data} and --data {samples}; leave one out")
        data = samples
    check_distinct((model, data), (output,))
    check_new_file(output, force=force)
    reading = o.model_options(
        output_name,
        None,
        arch=arch,
        input_shape=input_shape,
        allow_code_execution=allow_code_execution,
        threshold=threshold,
    )
    text = starter(model, data, reading, folder=output.parent)
    write_whole(output, lambda file: file.write(text.encode("utf-8")))
    if not quiet:
        typer.echo(f"{plain(output)} is written; look through it, then: idl-audit run")
