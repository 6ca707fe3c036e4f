"""idl-audit compare."""

from __future__ import annotations

from idl_audit.cli.console import progress_bar
from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, deliver, teller
from idl_audit.commands.compare import audit_comparison
from idl_audit.commands.options.comparing import Compare


def compare(asked: Compare) -> None:
    """Do `compare`."""
    chosen, quiet = asked.asked, asked.printing.quiet
    check_output(
        asked.printing.output,
        force=asked.printing.force,
        read=(asked.model, asked.second, chosen.data.path, chosen.sigma),
    )
    with progress_bar("compare", quiet=quiet) as watch:
        report = audit_comparison(asked.model, asked.second, chosen, watch=watch, tell=teller(quiet=quiet))
    deliver(report, asked.printing)
    leave(report)
