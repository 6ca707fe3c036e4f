"""Training from Python: `idl_audit.harden` and `idl_audit.train`, with the options of the commands and their reports.

They are apart from `idl_audit.api` because they need torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from idl_audit.commands.harden import harden_model
from idl_audit.commands.options.models_from_data import TrainOptions
from idl_audit.commands.options.training import HardenOptions
from idl_audit.commands.train import train_model
from idl_audit.report.schema import Report
from idl_audit.training.schedule import Step
from idl_audit.values.options import asking, build, by_keywords

Heard: TypeAlias = Callable[[str, Step], None]
"""Told after every step of training: the name of the run, and how far it has come."""


@asking(HardenOptions, without=("data",))
def harden(model: str | Path, data: str | Path, *, heard: Heard = lambda name, step: None, **options: Any) -> Report:
    """Fine-tune the weights of a classifier until more of its samples can be certified; return the report.

    The options are those of `idl-audit harden`: `eps`, `output` (the file to write), `minutes`, `keep_clean`,
    `method`, `holdout`, `audit`, ... The new file is written where `report.hardening.chosen` is not None;
    `report.hardening.front` has every trade-off that was judged.

    Args:
        model: an ONNX file, or a state dict or safetensors with `arch`, `input_shape` and `allow_code_execution`.
        data: samples with labels, to train on.
        heard: called with the name of a run and a `Step` (step, steps, loss) after each of its steps. A
            KeyboardInterrupt that it raises ends training as Ctrl-C does: the best so far is written.
        options: of the command.

    Raises:
        InvalidInputError: where the model, the samples or an option is refused; nothing is written.
        AgreementError: where the trained network is not the one in the file.
    """
    given = by_keywords(HardenOptions, options, "harden")
    asked = build(HardenOptions, given | {"data": data})
    return harden_model(Path(model), asked, heard=lambda name: lambda step: heard(name, step))


@asking(TrainOptions, without=("data",))
def train(data: str | Path, *, heard: Callable[[Step], None] = lambda step: None, **options: Any) -> Report:
    """Make an implicit model from data, write it, and return the report.

    The options are those of `idl-audit train`: `output`, `states`, `kappa`, `well_posed`, `loss`, `penalty`, `solver`,
    `structure`, `eps`, `select`, `minutes`, `holdout`, ...

    Args:
        data: samples with class numbers (labels) or numbers (targets).
        heard: called with a `Step` (step, steps, loss) after every step.
        options: of the command.

    Raises:
        InvalidInputError: where the data or an option is refused; nothing is written.
        AgreementError: where the model in the file is not the one that was trained.
    """
    given = by_keywords(TrainOptions, options, "train")
    return train_model(build(TrainOptions, given | {"data": data}), heard=heard)
