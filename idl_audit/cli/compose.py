"""idl-audit compose."""

from __future__ import annotations

from idl_audit.cli.show import check_output, deliver
from idl_audit.commands.compose import compose as run
from idl_audit.commands.options.models import Compose


def compose(asked: Compose) -> None:
    """Do `compose`."""
    paths = (asked.first, asked.second, *asked.more)
    check_output(asked.printing.output, force=asked.printing.force, read=paths, written=(asked.out,))
    deliver(run(asked.kind, paths, asked.options, asked.weights), asked.printing)
