"""idl-audit reduce."""

from __future__ import annotations

from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.compress import reduce as run
from idl_audit.commands.options import Reduce


@command
def reduce(asked: Reduce) -> None:
    """Remove the states that change no output: constant, dead and unobserved ones. The outputs stay the same.

    Without --bounds the smaller model is the same function everywhere; with --bounds 0,1 it is the same on inputs
    within them, and more states may be dead there. Both models are compared before anything is written.
    """
    data = asked.data
    read = (asked.model, *(() if data is None else (data.path, data.labels)))
    check_output(asked.printing.output, read=read, written=(asked.out,))
    report = run(asked.model, asked.options, data, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
