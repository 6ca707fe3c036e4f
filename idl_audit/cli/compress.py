"""idl-audit compress."""

from __future__ import annotations

from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.compress import compress as run
from idl_audit.commands.options import Compress
from idl_audit.values.errors import OptionError


@command
def compress(asked: Compress) -> None:
    """Make the model smaller and prove how far its outputs can move by that.

    Proved are: for all inputs u a bound offset + slope max|u_j|; one number for the box of inputs (--bounds, or the
    least box around the samples of -d); one at the samples themselves. The largest difference that was measured stands
    beside them. Bounds are in units of the outputs, for the numbers that the network reads.
    """
    data, out = asked.data, asked.options.out
    read = (asked.model, *(() if data is None else (data.path, data.labels)))
    check_output(asked.printing.output, read=read, written=(out,))
    if out is None and not asked.asked.by_block:
        raise OptionError("give -o OUT.npz for the smaller model, or --report to see only what compressing would do")
    report = run(asked.model, asked.asked, asked.options, data, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
