"""idl-audit predict."""

from __future__ import annotations

from idl_audit.cli.show import check_output, deliver, teller
from idl_audit.commands.options.models import Predict
from idl_audit.commands.predict import predict as run


def predict(asked: Predict) -> None:
    """Do `predict`."""
    read = (asked.model, asked.data.path, asked.data.labels)
    check_output(asked.printing.output, force=asked.printing.force, read=read, written=(asked.options.save,))
    report = run(asked.model, asked.data, asked.options, tell=teller(quiet=asked.printing.quiet))
    deliver(report, asked.printing)
