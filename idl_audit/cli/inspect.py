"""idl-audit inspect."""

from __future__ import annotations

import typer

from idl_audit.cli.exits import Exit
from idl_audit.cli.show import check_output, deliver
from idl_audit.commands.inspect import inspect as run
from idl_audit.commands.options.models import Inspect


def inspect(asked: Inspect) -> None:
    """Do `inspect`."""
    check_output(asked.printing.output, force=asked.printing.force, read=(asked.model,))
    report = run(asked.model, asked.reading)
    deliver(report, asked.printing)
    if asked.check and report.model is not None and report.model.unsupported:
        raise typer.Exit(Exit.REFUSED)
