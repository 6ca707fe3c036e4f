"""idl-audit init."""

from __future__ import annotations

import typer

from idl_audit.commands.init import REPORT, starter
from idl_audit.commands.options.models import Init
from idl_audit.report.wording import plain
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_distinct, check_new_file, write_whole


def init(asked: Init) -> None:
    """Do `init`."""
    model, data, output = asked.model, asked.data or asked.samples, asked.output
    if asked.samples not in (None, data):
        raise OptionError(f"samples are named twice, {data} and --data {asked.samples}; leave one out")
    check_distinct((model, data), (output,))
    check_new_file(output, force=asked.force)
    text = starter(model, data, asked.reading, folder=output.parent)
    write_whole(output, lambda file: file.write(text.encode("utf-8")))
    if not asked.quiet:
        there = (output.parent / REPORT).exists()
        more = f" --force, which replaces {REPORT}, or -o OTHER.json" if there else ""
        typer.echo(f"{plain(output)} is written; look through it, then: idl-audit run{more}")
