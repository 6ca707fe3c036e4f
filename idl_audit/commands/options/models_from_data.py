"""What train is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idl_audit.commands.options import common as c
from idl_audit.commands.options.common import TRAINING
from idl_audit.commands.options.training import HOLDOUT, MINUTES, Holdout, Printed
from idl_audit.data.numbers import Eps, parse_number
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_new_file
from idl_audit.values.options import PATH, REQUIRED, Declared, Reader, group, one_of, option, whole

PENALTIES = ("S", "rho", "columns", "l1")
LOSSES = ("auto", "squared", "cross-entropy")
SOLVERS = ("gradient", "bcd", "frank-wolfe")
LARGEST_KAPPA = 0.999
"""Beyond it the equilibrium takes thousands of steps."""


@dataclass(frozen=True)
class PenaltyWeights:
    """Weights of the penalties beside the mean loss."""

    S: float = 0.0
    rho: float = 0.0
    columns: float = 0.0
    l1: float = 0.0

    def __str__(self) -> str:
        given = ((name, getattr(self, name)) for name in PENALTIES)
        return ",".join(f"{name}={value:g}" for name, value in given if value)


def _penalties(text: str, flag: str) -> PenaltyWeights:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, mark, number = part.strip().partition("=")
        if name not in PENALTIES or not mark or name in found:
            raise OptionError(f"{flag} must be like S=1e-3,l1=1e-5, each of {', '.join(PENALTIES)} once, not {text!r}")
        found[name] = parse_number(number, option=flag)
        if not 0 <= found[name] <= 1e6:
            raise OptionError(f"{flag} needs weights from 0 to 1e6, not {part.strip()!r}")
    return PenaltyWeights(**found)


def _kappa(text: str, flag: str) -> float:
    value = parse_number(text, option=flag)
    if not 0 < value <= LARGEST_KAPPA:
        raise OptionError(f"{flag} must be a number above 0 and at most {LARGEST_KAPPA}, not {text!r}")
    return value


@dataclass(frozen=True)
class Structure:
    """What A looks like: anything, or layers."""

    layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"feed-forward:{','.join(map(str, self.layers))}" if self.layers else "free"


def _structure(text: str, flag: str) -> Structure:
    kind, mark, sizes = text.strip().partition(":")
    if kind == "free" and not mark:
        return Structure()
    layers = tuple(int(size) for size in sizes.split(",") if size.strip().isascii() and size.strip().isdecimal())
    if kind != "feed-forward" or len(layers) != len(sizes.split(",")) or not all(0 < size < 10**6 for size in layers):
        raise OptionError(f"{flag} must be free, or feed-forward:60,40 with the states of each layer, not {text!r}")
    return Structure(layers)


@dataclass(frozen=True)
class TrainOptions(Declared):
    """What model is wanted, and how it is found."""

    data: Path = option(
        REQUIRED,
        PATH,
        "Samples with class numbers (labels) or numbers (targets): .npz, .csv, .parquet, .safetensors or .pt.",
        positional=True,
    )
    out: Path = c.new_model()
    states: int | None = option(
        None,
        whole(1),
        "States of the model, n; needed unless --structure says how many.",
        metavar="N",
        rank=-8,
    )
    kappa: float = option(
        "0.95",
        Reader(_kappa, schema={"type": "number"}),
        "Well-posed by ||A||_inf <= KAPPA < 1.",
        metavar="KAPPA",
        rank=1,
    )
    well_posed: str = option(
        "norm",
        one_of("norm", "monotone"),
        "What makes the state unique: norm, ||A||_inf <= KAPPA, or monotone, I - (A + A^T) / 2 >= (1 - KAPPA) I.",
        rank=2,
    )
    loss: str = option(
        "auto",
        one_of(*LOSSES),
        "What is made small; auto: cross-entropy of classes, squared errors of numbers.",
        panel=TRAINING,
    )
    penalty: PenaltyWeights = option(
        "S=0",
        Reader(_penalties, was_read=lambda value: isinstance(value, PenaltyWeights)),
        "Weights of ||S||_inf, of the bound rho, of the column norms of (B; D), of all entries: S=1e-3,l1=1e-5.",
        metavar="LIST",
        panel=TRAINING,
    )
    solver: str = option(
        "gradient",
        one_of(*SOLVERS),
        "Projected gradients of batches, bcd (one block after the other, all samples at once), or frank-wolfe.",
        panel=TRAINING,
    )
    structure: Structure = option(
        "free",
        Reader(_structure, was_read=lambda value: isinstance(value, Structure)),
        "free, or feed-forward:60,40: A strictly upper block triangular, with so many states a layer.",
        metavar="SHAPE",
        panel=TRAINING,
    )
    eps: Eps | None = c.eps(
        None,
        reader=c.ONE_EPS,
        help="Train for boxes of this radius around the samples, in data units, by intervals of the equilibrium.",
    )
    select: int | None = option(
        None,
        whole(1),
        "Only K inputs act: all other columns of (B; D) are exactly zero.",
        metavar="K",
        panel=TRAINING,
    )
    shift: int | None = option(
        None,
        whole(1),
        "Move each image by up to K pixels along rows and columns, anew each time it is trained on, edges repeated.",
        metavar="K",
        panel=TRAINING,
    )
    minutes: float = option("1", MINUTES, "How much training, in minutes of one core, at most.", panel=TRAINING)
    holdout: Holdout = option(
        "10%",
        HOLDOUT,
        "Samples kept apart to judge by: a share of the data, or a file of others.",
        metavar="SHARE|FILE",
        panel=TRAINING,
    )
    labels: Path | None = option(None, PATH, "Labels or targets, where the data file has none.", "-y", panel=c.DATA)
    limit: int | None = option(None, whole(1), "Only the first N samples.", metavar="N", panel=c.DATA)
    preprocessing: Preprocessing = group(Preprocessing)
    seed: int = c.seed()
    force: bool = c.force()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_new_file(self.out, force=self.force, ending=".npz")
        layers = self.structure.layers
        if self.states is None and not layers:
            raise OptionError("--states is missing: give N, or --structure feed-forward:60,40")
        if layers and self.states not in (None, sum(layers)):
            raise OptionError(f"--states {self.states} are not the {sum(layers)} of --structure {self.structure}")
        if layers and self.penalty.rho:
            raise OptionError("--penalty rho is for a norm of A below 1, which layers need not have; use S")
        if self.select is not None and self.penalty.columns:
            raise OptionError("--select finds the weight of the columns itself; leave it out of --penalty")
        if self.solver == "bcd" and (self.eps is not None or self.penalty.S or self.penalty.rho):
            raise OptionError("--solver bcd takes the penalties columns and l1, and no --eps; use --solver gradient")
        if self.solver == "bcd" and self.shift is not None:
            raise OptionError("--solver bcd takes all samples at once, as they are; for --shift use --solver gradient")
        if self.solver == "frank-wolfe" and layers:
            raise OptionError(
                "--solver frank-wolfe is for a norm of A, which layers have none of; use --solver gradient"
            )

        if self.well_posed == "monotone":
            self._check_monotone()

    def _check_monotone(self) -> None:
        """Raise OptionError where an option needs a norm of A below 1."""
        told = {
            "--structure": bool(self.structure.layers),
            f"--solver {self.solver}": self.solver != "gradient",
            "--eps": self.eps is not None,
            "--penalty S": bool(self.penalty.S),
            "--penalty rho": bool(self.penalty.rho),
        }
        for flag, given in told.items():
            if given:
                raise OptionError(f"{flag} needs ||A||_inf < 1, or layers; leave --well-posed monotone out")

    @property
    def n_states(self) -> int:
        """n."""
        return sum(self.structure.layers) if self.states is None else self.states


@dataclass(frozen=True)
class Train(Declared):
    """Make an implicit model x = relu(A x + B u + b), y = C x + D u + d from data.

    A is well-posed by its norm, or by layers, and the model is a file for every other command. Inputs and targets are
    trained in units of their own and turned back: the model reads what the data has, after --scale, --mean and --std,
    which the other commands are given as well. Accuracy or error is told for the samples trained on and for others kept
    apart; robustness is for `certify` to tell.
    """

    options: TrainOptions = group(TrainOptions)
    printing: c.Printing = group(Printed)
