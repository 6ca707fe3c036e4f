"""idl-audit sensitivity."""

from __future__ import annotations

from idl_audit.cli.console import progress_bar
from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, deliver, teller
from idl_audit.commands.options.measures import Sensitivity
from idl_audit.commands.sensitivity import audit_sensitivity


def sensitivity(asked: Sensitivity) -> None:
    """Do `sensitivity`."""
    chosen, quiet = asked.matrix, asked.printing.quiet
    samples = () if chosen.local is None else (chosen.local.data.path, chosen.local.data.labels)
    check_output(
        asked.printing.output,
        force=asked.printing.force,
        read=(asked.model, *samples),
        written=(chosen.save, chosen.witness),
    )
    with progress_bar("sensitivity", quiet=quiet or chosen.local is None) as watch:
        report = audit_sensitivity(asked.model, chosen, watch=watch, tell=teller(quiet=quiet))
    deliver(report, asked.printing)
    leave(report)
