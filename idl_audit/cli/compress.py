"""idl-audit compress."""

from __future__ import annotations

import typer

from idl_audit.cli.exits import Exit
from idl_audit.cli.show import check_output, deliver, teller
from idl_audit.commands.compress import compress as run
from idl_audit.commands.options.models import Compress
from idl_audit.values.errors import OptionError


def compress(asked: Compress) -> None:
    """Do `compress`. Raises Exit(REFUSED) where no level keeps enough samples certified."""
    data, out = asked.data, asked.options.out
    read = (asked.model, *(() if data is None else (data.path, data.labels)))
    check_output(asked.printing.output, force=asked.printing.force, read=read, written=(out,))
    if out is None and not asked.asked.by_block:
        raise OptionError("give -o OUT.npz for the smaller model, or --report to see only what compressing would do")
    report = run(asked.model, asked.asked, asked.options, data, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
    kept = None if report.compression is None else report.compression.kept_certified
    if kept is not None and not any(level.kept for level in kept.levels):
        raise typer.Exit(Exit.REFUSED)
