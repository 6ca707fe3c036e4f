"""idl-audit bounds."""

from __future__ import annotations

from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, command, deliver, progress_bar, teller
from idl_audit.commands.bounds import audit_bounds
from idl_audit.commands.options import Bounds


@command
def bounds(asked: Bounds) -> None:
    """Bound every state and output of the network when a sample's inputs change by at most EPS.

    Each method starts from what those before it proved: sensitivity (one
    matrix for all inputs), interval (layer by layer), linear (backward from
    each state and output, the tightest). norm, the coarse bound by norms
    alone, is there to compare with. All bounds are rounded outward: they hold
    in exact arithmetic for the weights in the file. No labels are needed.
    """
    chosen, quiet = asked.asked, asked.printing.quiet
    check_output(asked.printing.output, read=(asked.model, chosen.data.path, chosen.sigma), written=(chosen.save,))
    with progress_bar("bounds", quiet=quiet) as watch:
        report = audit_bounds(asked.model, chosen, watch=watch, tell=teller(quiet=quiet))
    deliver(report, asked.printing)
    leave(report)
