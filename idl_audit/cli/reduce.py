"""idl-audit reduce."""

from __future__ import annotations

from idl_audit.cli.show import check_output, deliver, teller
from idl_audit.commands.compress import reduce as run
from idl_audit.commands.options.models import Reduce


def reduce(asked: Reduce) -> None:
    """Do `reduce`."""
    data = asked.data
    read = (asked.model, *(() if data is None else (data.path, data.labels)))
    check_output(asked.printing.output, force=asked.printing.force, read=read, written=(asked.out,))
    report = run(asked.model, asked.options, data, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
