"""idl-audit convert."""

from __future__ import annotations

from idl_audit.cli.show import check_output, deliver, teller
from idl_audit.commands.convert import convert as run
from idl_audit.commands.options.models import Convert


def convert(asked: Convert) -> None:
    """Do `convert`."""
    chosen, data = asked.options, asked.data
    read = (asked.model, *(() if data is None else (data.path, data.labels)))
    check_output(
        asked.printing.output, force=asked.printing.force, read=read, written=(asked.out, chosen.spy, chosen.witness)
    )
    report = run(asked.model, asked.out, chosen, data, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
