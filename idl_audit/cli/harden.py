"""idl-audit harden."""

from __future__ import annotations

from collections import Counter

import typer

from idl_audit.cli.console import progress_bar
from idl_audit.cli.exits import Exit
from idl_audit.cli.show import check_output, deliver
from idl_audit.commands.harden import harden_model
from idl_audit.commands.options.training import Harden
from idl_audit.commands.shared.progress import Progress
from idl_audit.training.schedule import Step


def harden(asked: Harden) -> None:
    """Do `harden`."""
    chosen, printing = asked.options, asked.printing
    read = (asked.model, chosen.data.path, chosen.data.labels, chosen.holdout.path, chosen.audit, chosen.adversarial)
    check_output(printing.output, force=printing.force, read=read, written=(chosen.out,))
    with progress_bar("harden", quiet=printing.quiet) as watch:
        report = harden_model(asked.model, chosen, heard=lambda name: lambda step: watch(_told(name, step)))
    deliver(report, printing)
    if report.hardening is not None and report.hardening.chosen is None:
        raise typer.Exit(Exit.REFUSED)


def _told(name: str, step: Step) -> Progress:
    """Return how far a run has come; its name stands where verdicts do."""
    return Progress(step.step, step.steps, Counter({f"of {name}": step.step}))
