"""idl-audit bounds."""

from __future__ import annotations

from idl_audit.cli.console import progress_bar
from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, deliver, teller
from idl_audit.commands.bounds import audit_bounds
from idl_audit.commands.options.measures import Bounds


def bounds(asked: Bounds) -> None:
    """Do `bounds`."""
    chosen, quiet = asked.asked, asked.printing.quiet
    check_output(
        asked.printing.output,
        force=asked.printing.force,
        read=(asked.model, chosen.data.path, chosen.sigma),
        written=(chosen.save,),
    )
    with progress_bar("bounds", quiet=quiet) as watch:
        report = audit_bounds(asked.model, chosen, watch=watch, tell=teller(quiet=quiet))
    deliver(report, asked.printing)
    leave(report)
