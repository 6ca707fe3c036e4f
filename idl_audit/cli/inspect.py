"""idl-audit inspect."""

from __future__ import annotations

from idl_audit.cli.show import check_output, command, deliver
from idl_audit.commands.inspect import inspect as run
from idl_audit.commands.options import Inspect


@command
def inspect(asked: Inspect) -> None:
    """Look at a model file without running it: operators, shapes, states, memory, and what is unsupported."""
    check_output(asked.printing.output, read=(asked.model,))
    deliver(run(asked.model, asked.reading), asked.printing)
