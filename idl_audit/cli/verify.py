"""idl-audit verify."""

from __future__ import annotations

import typer

from idl_audit.cli.exits import Exit
from idl_audit.cli.show import check_output, show, written
from idl_audit.commands.options.models import Verify
from idl_audit.commands.verify import verify as run


def verify(asked: Verify) -> None:
    """Do `verify`."""
    printing = asked.printing
    check_output(printing.output, force=printing.force, read=(asked.file, asked.model, asked.second, asked.property))
    report = written(run(asked.file, asked.model, asked.reading, asked.property, asked.second), printing.output)
    if printing.format == "json" or not printing.quiet:
        show(report, printing)
    if report.verification is not None and not report.verification.accepted:
        raise typer.Exit(Exit.REFUSED)
