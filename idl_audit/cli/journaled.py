"""How a command ends that keeps a journal beside its report."""

from __future__ import annotations

from pathlib import Path

from idl_audit.cli.exits import leave
from idl_audit.cli.show import show, tell_resume, written
from idl_audit.commands.options.common import Printing
from idl_audit.commands.shared.journal import drop_journal, kept_journal
from idl_audit.report.schema import Report


def deliver_and_leave(report: Report, printing: Printing, journal: Path | None) -> None:
    """Write and print a report, drop the journal of a complete one, say how an incomplete one goes on, and leave."""
    with kept_journal(journal):
        report = written(report, printing.output)
    drop_journal(journal, report)
    show(report, printing)
    if report.status == "incomplete" and journal is not None and journal.is_file():
        tell_resume(report)
    leave(report)
