"""idl-audit compose."""

from __future__ import annotations

from idl_audit.cli.show import check_output, command, deliver
from idl_audit.commands.compose import compose as run
from idl_audit.commands.options import Compose


@command
def compose(asked: Compose) -> None:
    """Put two models f (FIRST) and g (SECOND) together into one implicit model.

    cascade: y = g(f(u)). sum: y = f(u) + g(u). concat: y = (f(u), g(u)). feedback: y = f(u + g(y)), refused where
    nothing proves that the loop has one state for every input. Every command takes the result.
    """
    check_output(asked.printing.output, read=(asked.first, asked.second), written=(asked.out,))
    deliver(run(asked.kind, asked.first, asked.second, asked.options), asked.printing)
