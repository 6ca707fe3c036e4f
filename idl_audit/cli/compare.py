"""idl-audit compare."""

from __future__ import annotations

from idl_audit.cli.console import progress_bar
from idl_audit.cli.journaled import deliver_and_leave
from idl_audit.cli.options import Given
from idl_audit.cli.show import check_output, teller
from idl_audit.commands.compare import audit_comparison
from idl_audit.commands.options.comparing import Compare
from idl_audit.commands.shared.journal import journal_beside


def compare(given: Given) -> None:
    """Do `compare`."""
    asked: Compare = given.build(journal=journal_beside(given.values.get("output")))
    chosen, printing = asked.asked, asked.printing
    read = (asked.model, asked.second, chosen.data.path, chosen.sigma)
    check_output(printing.output, force=printing.force, read=read)
    with progress_bar("compare", quiet=printing.quiet) as watch:
        report = audit_comparison(asked.model, asked.second, chosen, watch=watch, tell=teller(quiet=printing.quiet))
    deliver_and_leave(report, printing, chosen.journal)
