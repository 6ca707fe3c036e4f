"""idl-audit inspect."""

from __future__ import annotations

from idl_audit.cli.show import check_output, deliver
from idl_audit.commands.inspect import inspect as run
from idl_audit.commands.options.models import Inspect


def inspect(asked: Inspect) -> None:
    """Do `inspect`."""
    check_output(asked.printing.output, force=asked.printing.force, read=(asked.model,))
    deliver(run(asked.model, asked.reading), asked.printing)
