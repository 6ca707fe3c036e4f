"""idl-audit convert-property."""

from __future__ import annotations

import gzip
from pathlib import Path

import typer

from idl_audit.cli.show import print_document
from idl_audit.commands.convert_property import convert_property as run
from idl_audit.commands.options.models import ConvertProperty
from idl_audit.report.wording import plain
from idl_audit.values.files import check_distinct, check_new_file, write_whole

STANDARD_OUTPUT = Path("-")


def convert_property(asked: ConvertProperty) -> None:
    """Do `convert-property`."""
    output = None if asked.output == STANDARD_OUTPUT else asked.output
    check_distinct((asked.property, asked.onnx), (output,))
    if output is not None:
        check_new_file(output, force=asked.force)
    text = run(asked.property, onnx=asked.onnx, element=asked.element)
    if output is None:
        print_document(text)
        return
    content = text.encode("utf-8")
    if output.suffix.lower() == ".gz":
        content = gzip.compress(content, mtime=0)
    write_whole(output, lambda file: file.write(content))
    if not asked.quiet:
        typer.echo(f"{plain(output)} is written")
