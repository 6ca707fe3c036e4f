"""idl-audit train."""

from __future__ import annotations

from collections import Counter

from idl_audit.cli.console import progress_bar
from idl_audit.cli.show import check_output, deliver
from idl_audit.commands.options.models_from_data import Train
from idl_audit.commands.shared.progress import Progress
from idl_audit.commands.train import train_model
from idl_audit.training.schedule import Step


def train(asked: Train) -> None:
    """Do `train`."""
    chosen, printing = asked.options, asked.printing
    check_output(
        printing.output,
        force=printing.force,
        read=(chosen.data, chosen.labels, chosen.holdout.path),
        written=(chosen.out,),
    )
    with progress_bar("train", quiet=printing.quiet) as watch:
        report = train_model(chosen, heard=lambda step: watch(_told(step)))
    deliver(report, printing)


def _told(step: Step) -> Progress:
    """Return how far training has come; its loss stands where verdicts do."""
    return Progress(step.step, step.steps, Counter({f"steps, loss {step.loss:.4g}": step.step}))
