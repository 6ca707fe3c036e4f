"""idl-audit convert."""

from __future__ import annotations

from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.convert import convert as run
from idl_audit.commands.options import Convert


@command
def convert(asked: Convert) -> None:
    """Turn a network into its implicit model A, B, C, D, b, d and check that it gives the same outputs.

    The model x = phi(Ax + Bu + b), y = Cx + Du + d (phi: the activations) is compared with the network on 20
    random inputs, or on --data.
    """
    chosen, data = asked.options, asked.data
    read = (asked.model, *(() if data is None else (data.path, data.labels)))
    check_output(asked.printing.output, read=read, written=(asked.out, chosen.spy, chosen.witness))
    report = run(asked.model, asked.out, chosen, data, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
