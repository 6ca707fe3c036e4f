"""What harden is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idl_audit.commands.options import common as c
from idl_audit.commands.options.common import TRAINING
from idl_audit.commands.options.reading import DataOptions, SearchedModel
from idl_audit.data.numbers import Eps, parse_number
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_new_file
from idl_audit.values.options import PATH, REQUIRED, TEXT, Declared, Reader, group, one_of, option

METHODS = ("auto", "mtl", "ibp", "sabr", "adversarial", "S", "rho", "columns", "mtl+S", "mtl+rho")


def _share(text: str, flag: str) -> float:
    """Return a share of 1: 0.5% or 0.005."""
    value = parse_number(text.removesuffix("%").strip(), option=flag) / (100 if text.endswith("%") else 1)
    if not 0 <= value < 1:
        raise OptionError(f"{flag} must be a share such as 0.5% or 0.005, not {text!r}")
    return value


def _minutes(text: str, flag: str) -> float:
    value = parse_number(text, option=flag)
    if not 0 < value <= 10_000:
        raise OptionError(f"{flag} must be a number of minutes above 0, not {text!r}")
    return value


@dataclass(frozen=True)
class Holdout:
    """What the weights are chosen by: a share of the samples, or a file of others."""

    share: float | None = None
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.share:g}" if self.path is None else str(self.path)


def _holdout(text: str, flag: str) -> Holdout:
    try:
        share = _share(text, flag)
    except OptionError:
        if not text.strip():
            raise
        return Holdout(path=Path(text))
    if not 0.01 <= share <= 0.9:
        raise OptionError(f"{flag} must be a share from 1% to 90%, or a file of samples, not {text!r}")
    return Holdout(share=share)


def _placed(value: Holdout, folder: Path) -> Holdout:
    return value if value.path is None else Holdout(path=folder / value.path)


def _was_holdout(value: object) -> bool:
    return isinstance(value, Holdout)


SHARE = Reader(_share)
MINUTES = Reader(_minutes, schema={"type": "number", "exclusiveMinimum": 0})
HOLDOUT = Reader(_holdout, was_read=_was_holdout, placed=_placed)


@dataclass(frozen=True)
class HardenOptions(Declared):
    """How weights are to be changed, and what must stay."""

    eps: Eps = c.eps(reader=c.ONE_EPS)
    data: DataOptions = group(DataOptions)
    out: Path = option(REQUIRED, PATH, "The ONNX file to write.", "-o", "--out", name="output", in_file=False, rank=-9)
    minutes: float = option(
        "5", MINUTES, "How much training, in minutes of one core; the choice by proofs comes on top.", panel=TRAINING
    )
    keep_clean: float = option(
        "0.5%", SHARE, "How much clean accuracy may be lost on the samples kept apart.", metavar="SHARE", panel=TRAINING
    )
    method: str = option(
        "auto",
        one_of(*METHODS),
        "What is trained for: mtl (attacked points and intervals, the weight of the latter chosen), ibp, sabr, "
        "adversarial; S, rho or columns, the paper's penalties, the first two also with mtl; auto is mtl.",
    )
    holdout: Holdout = option(
        "10%",
        HOLDOUT,
        "Samples kept apart to choose by: a share of --data or, better, a file of samples that the network has not "
        "been trained on.",
        metavar="SHARE|FILE",
        panel=TRAINING,
    )
    audit: Path | None = option(
        None,
        PATH,
        "Samples that neither training nor choice has seen: verdicts on them, before and after.",
        metavar="FILE",
        panel=TRAINING,
    )
    adversarial: Path | None = option(
        None, PATH, "Adversarial inputs of `attack --save`, trained on as well.", metavar="FILE"
    )
    freeze: tuple[str, ...] = option(
        (),
        TEXT,
        "Initializers that stay: a name or a pattern. Again for others.",
        metavar="GLOB",
        several=True,
        panel=TRAINING,
    )
    time_limit: float = c.time_limit()
    jobs: int = c.jobs("Samples of --audit decided at the same time, in processes.")
    seed: int = c.seed()
    resume: bool = c.resume("Go on from what an interrupted run with the same options has reached (OUT.run).")
    force: bool = c.force()
    model: SearchedModel = group(SearchedModel, without=("input_name", "fix", "threshold", "device"))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_new_file(self.out, force=self.force)


@dataclass(frozen=True)
class Printed(c.Printing):
    """-o is the new model's; the report has --json."""

    output: Path | None = c.file("Write the report (JSON) to this file.", name="json", rank=-1, in_file=False)


@dataclass(frozen=True)
class Harden(Declared):
    """Fine-tune the weights of an ONNX file until more of its samples can be certified, and write it as a new file.

    The new file has the same graph, names, operators and types; only numbers differ. Several trade-offs are trained
    and judged by idl-audit's own proofs on samples kept apart; the one that certifies most and keeps clean accuracy is
    written. Where none does, nothing is written. Nothing is claimed from training: --audit has the verdicts of
    `certify`, before and after, on samples that neither training nor choice has seen.
    """

    model: Path = c.model(help="An ONNX file with at least two outputs.")
    options: HardenOptions = group(HardenOptions)
    printing: c.Printing = group(Printed)
