"""idl-audit predict."""

from __future__ import annotations

from idl_audit.cli.show import check_output, command, deliver, teller
from idl_audit.commands.options import Predict
from idl_audit.commands.predict import predict as run


@command
def predict(asked: Predict) -> None:
    """Compute the outputs of the implicit model: y = Cx + Du + d with the state x = phi(Ax + Bu + b).

    For a model with loops, the table has the steps to each sample's state and the residual max|x - phi(Ax + Bu + b)|;
    above it stands the proof that there is no other state.
    """
    read = (asked.model, asked.data.path, asked.data.labels)
    check_output(asked.printing.output, read=read, written=(asked.options.save,))
    report = run(asked.model, asked.data, asked.options, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
