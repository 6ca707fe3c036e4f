"""What sensitivity and bounds are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idl_audit.commands.options import common as c
from idl_audit.commands.options.reading import ANY_OUTPUTS, DataOptions, ModelOptions
from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.files import check_new_file, check_new_folder
from idl_audit.values.options import TEXT, Declared, group, one_of, option, several_of, whole
from idl_audit.values.verdicts import ArithmeticName, NormName


@dataclass(frozen=True)
class LocalOptions(Declared):
    """Where S is asked for: in boxes of one radius around samples."""

    data: DataOptions = group(DataOptions)
    eps: Eps = c.eps(
        reader=c.ONE_EPS,
        help="With -d: radius of the box around each sample, in data units (before --scale): 8/255 or 0.03.",
        own=True,
    )
    state_bounds: str = option(
        "interval",
        one_of(*c.STATE_BOUNDS, noun="kind of state bounds"),
        f"With -d: how states are bounded in a box: {' or '.join(c.STATE_BOUNDS)} (tighter, slower).",
        metavar="NAME",
        rank=-6,
    )


@dataclass(frozen=True)
class SensitivityOptions(Declared):
    """Which matrix, what to read off it, and what to write."""

    method: str = c.method(
        "best",
        one_of(*c.MATRICES, noun="method for S"),
        f"How to bound S: {', '.join(c.MATRICES)}; all are valid bounds.",
        metavar="NAME",
    )
    local: LocalOptions | None = group(
        LocalOptions,
        when=c.given("data"),
        otherwise="speaks of samples; give them with --data, or leave it out for all inputs at once",
        missing="with -d, S is made for boxes of one radius, such as -e 8/255",
    )
    top: int = option(5, whole(1), "Inputs to list for each output.", metavar="K", panel=c.QUESTION)
    label: int | None = option(
        None,
        whole(0),
        "Also bound the differences of this output to all others.",
        metavar="K",
        name="class",
        panel=c.QUESTION,
    )
    sparse: int | None = option(
        None,
        whole(1),
        "Also bound the outputs where at most K inputs change, by EPS (or 1) each.",
        metavar="K",
        panel=c.SET,
    )
    norm: NormName = option(
        "linf",
        c.NORM,
        "Also bound all outputs together by all inputs together, in this norm (l2, l1) of both, by that of S.",
        metavar="NAME",
        panel=c.SET,
    )
    groups: str | None = option(
        None,
        TEXT,
        "Also sum S over groups of inputs: rows, columns, channels or patches:HxW, or a file with one label per input.",
        metavar="NAME|FILE",
    )
    save: Path | None = c.file("Write S (and what else was asked for) to this .npz file.")
    witness: Path | None = c.file("Write what `verify` checks the global S and well-posedness by to this .npz file.")
    images: Path | None = c.file("Draw each output's row of S as a PNG in this folder.", metavar="DIR")
    image_shape: tuple[int, ...] | None = c.image_shape()
    """Shape of one input as a picture, where the model reads it flat."""
    force: bool = c.force()
    preprocessing: Preprocessing = group(Preprocessing, without=("bounds",))
    model: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)
    seed: int = c.seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local is not None:
            object.__setattr__(self, "preprocessing", self.local.data.preprocessing)
        for file in filter(None, (self.save, self.witness)):
            check_new_file(file, force=self.force, ending=".npz")
        if self.images is not None:
            check_new_folder(self.images, force=self.force)


@dataclass(frozen=True)
class Sensitivity(Declared):
    """Bound how far each output moves when each input moves: the sensitivity matrix S, for all inputs at once.

    |y(u) - y(v)| <= S |u - v| holds for every pair of inputs u, v, in the units of the data. With -d and -e it is made
    for pairs in the box around one of the samples, where S is much smaller.
    """

    model: Path = c.model()
    matrix: SensitivityOptions = group(SensitivityOptions)
    printing: c.Printing = group(c.Printing)


@dataclass(frozen=True)
class BoundsOptions(Declared):
    """What bounds is asked for."""

    eps: tuple[Eps, ...] = c.eps()
    data: DataOptions = group(DataOptions, without=("labels",))
    methods: tuple[str, ...] = c.method(
        ",".join(c.BOUNDS),
        several_of(c.BOUNDS, "method for bounds"),
        f"Which methods to use, a list of: {', '.join(c.BOUNDS)}.",
    )
    sparse: int | None = c.sparse()
    """At most so many inputs change; None stands for all of them."""
    sigma: Path | None = c.sigma()
    arithmetic: ArithmeticName = c.arithmetic(
        "What the outputs' bounds hold for: real numbers, or the floats that the network computes in, mostly float32: "
        "what a runtime computes, however it adds, fuses and folds."
    )
    time_limit: float = c.time_limit()
    """Seconds of backward bounds for one sample at one radius."""
    save: Path | None = c.file(
        "Write all bounds to this .npz file: outputs_lo, outputs_hi, and z0_lo, x0_lo, ... for each block."
    )
    force: bool = c.force()
    model: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save is not None:
            check_new_file(self.save, force=self.force, ending=".npz")


@dataclass(frozen=True)
class Bounds(Declared):
    """Bound every state and output of the network when a sample's inputs change by at most EPS.

    Each method starts from what those before it proved: sensitivity (one
    matrix for all inputs), interval (layer by layer), linear (backward from
    each state and output, the tightest). norm, the coarse bound by norms
    alone, is there to compare with. All bounds are rounded outward: they hold
    in exact arithmetic for the weights in the file, or those of the outputs
    in float32. No labels are needed.
    """

    model: Path = c.model()
    asked: BoundsOptions = group(BoundsOptions)
    printing: c.Printing = group(c.Printing)
