"""idl-audit sensitivity."""

from __future__ import annotations

from idl_audit.cli.exits import leave
from idl_audit.cli.show import check_output, command, deliver, progress_bar, teller
from idl_audit.commands.options import Sensitivity
from idl_audit.commands.sensitivity import audit_sensitivity


@command
def sensitivity(asked: Sensitivity) -> None:
    """Bound how far each output moves when each input moves: the sensitivity matrix S, for all inputs at once.

    |y(u) - y(v)| <= S |u - v| holds for every pair of inputs u, v, in the units of the data. With -d and -e it is made
    for pairs in the box around one of the samples, where S is much smaller.
    """
    chosen, quiet = asked.matrix, asked.printing.quiet
    samples = () if chosen.local is None else (chosen.local.data.path, chosen.local.data.labels)
    check_output(asked.printing.output, read=(asked.model, *samples), written=(chosen.save, chosen.witness))
    with progress_bar("sensitivity", quiet=quiet or chosen.local is None) as watch:
        report = audit_sensitivity(asked.model, chosen, watch=watch, tell=teller(quiet=quiet))
    deliver(report, asked.printing)
    leave(report)
