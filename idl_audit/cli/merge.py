"""idl-audit merge."""

from __future__ import annotations

from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, deliver
from idl_audit.commands.merge import merge as together
from idl_audit.commands.options.reports import Merge


def merge(asked: Merge) -> None:
    """Do `merge`."""
    check_output(asked.printing.output, force=asked.printing.force, read=asked.reports)
    report = together(asked.reports)
    deliver(report, asked.printing, new=not asked.printing.force)
    leave(report)
