"""What can be asked: the options of every command, each declared once.

From here come the command line (`idl_audit.cli.options`), the keys and the schema of configuration files
(`idl_audit.config.files`), the variables of the environment, and the keyword arguments of `idl_audit.api`. Importing
this loads neither a network's libraries nor a solver: `--help` and `gate` do not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from idl_audit.data.numbers import Eps, parse_eps, parse_number
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.gate.rules import EXAMPLE, MEANINGS
from idl_audit.graph.torch_options import TorchOptions, shape_like
from idl_audit.values.budget import Budget
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_new_file, check_new_folder
from idl_audit.values.options import (
    PATH,
    REQUIRED,
    SECONDS,
    SWITCH,
    TEXT,
    Declared,
    Reader,
    group,
    one_of,
    option,
    options_of,
    several_of,
    whole,
)

if TYPE_CHECKING:
    from idl_audit.data.samples import Layout
    from idl_audit.decide.verdicts import Options
    from idl_audit.report.schema import Report

DATA: Final = "Data"
OUTPUT: Final = "Output"
LIMITS: Final = "Limits"

METHODS: Final = (
    "interval",
    "random",
    "sign",
    "sensitivity",
    "gradient",
    "pgd",
    "linear",
    "lp",
    "branch",
    "exact",
    "mip",
)
"""Names of `idl_audit.decide.verdicts.METHODS`, in the order of cost."""
ATTACKS: Final = ("random", "sign", "sensitivity", "gradient", "pgd", "lp", "mip")
SEARCHES: Final = ("pgd", "lp")
OBJECTIVES: Final = ("l1", "state")
BOUNDS: Final = ("norm", "sensitivity", "interval", "linear")
MATRICES: Final = ("paper", "half-step", "centre-radius", "monotone", "gains", "best")
STATE_BOUNDS: Final = ("interval", "linear")
STEPS: Final = ("sensitivity", "bounds", "certify", "attack")
"""What `run` can do, in the order it is done in: verdicts, the slowest, come last and can be resumed."""
FORMS: Final = ("table", "html", "markdown", "junit", "github")
KINDS: Final = ("cascade", "sum", "concat", "feedback")


# --- readers ----------------------------------------------------------------------------------------------------------


def _one_radius(text: str, flag: str) -> Eps:
    radii = parse_eps(text)
    if len(radii) != 1:
        raise OptionError(f"{flag} must be one radius such as 0.03 or '8/255', not {text!r}")
    return radii[0]


def _share(text: str, flag: str) -> float:
    share = parse_number(text, option=flag)
    if not 0 < share <= 1:
        raise OptionError(f"{flag} must lie above 0 and be at most 1, not {text}")
    return share


def _index(text: str, flag: str) -> tuple[int, ...]:
    """Return the positions that `0,3,10-19` names, in that order."""
    positions: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not all(end.isascii() and end.isdecimal() for end in (first, last or first)) or (dash and not last):
            raise OptionError(f"{flag} must list positions such as 0,3,10-19, not {text!r}")
        stop = int(last) if dash else int(first)
        if not int(first) <= stop < int(first) + 10**7:
            raise OptionError(f"{flag} has the range {part.strip()}, which is empty or too long")
        positions.extend(range(int(first), stop + 1))
    return tuple(positions)


def _bytes(text: str, flag: str) -> int:
    """Return bytes for 1GB, 500MB, 2GiB, or a plain number of bytes."""
    units = {"GIB": 2**30, "MIB": 2**20, "KIB": 2**10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1}
    number = text.strip().upper().rstrip("BIKMG")
    try:
        size = float(number) * units[text.strip().upper()[len(number) :]]
    except (KeyError, ValueError):
        size = 0.0
    if not 1 <= size < 2**63:
        raise OptionError(f"{flag} must be a size such as 500MB or 1GB, not {text!r}")
    return int(size)


def _steps(text: str, flag: str) -> tuple[str, ...]:
    names: tuple[str, ...] = several_of(STEPS, "step").parse(text, flag)
    if {"certify", "attack"} <= set(names):
        raise OptionError(
            "one report has one set of verdicts: certify attacks as well, by the attacks in its method; "
            "leave certify or attack out of the steps"
        )
    return names


EPS: Final = Reader(lambda text, _: parse_eps(text))
ONE_EPS: Final = Reader(_one_radius)
NUMBER: Final = Reader(lambda text, flag: parse_number(text, option=flag))


def _given(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda given: name in given


# --- options that several commands have -------------------------------------------------------------------------------


def _model(default: Any = REQUIRED, help: str = "", **more: Any) -> Any:
    usual = "An ONNX file, a PyTorch file, or an .npz with an implicit model, such as `convert` writes."
    return option(default, PATH, help or usual, positional=True, **more)


def _eps(default: Any = REQUIRED, reader: Reader = EPS, help: str = "", **more: Any) -> Any:
    usual = "How far every input may move, in data units (before --scale): 8/255, 0.03, a list, or start:stop:count."
    return option(default, reader, help or usual, "-e", metavar="EPS", rank=-8, **more)


def _method(names: str, reader: Reader, help: str, metavar: str = "LIST") -> Any:
    return option(names, reader, help, metavar=metavar, rank=-7, name="method")


def _sparse() -> Any:
    help = "At most K inputs change at once, each by at most EPS; without it, all of them may."
    return option(None, whole(1), help, metavar="K")


def _sigma() -> Any:
    help = "One radius for each input, multiplied by EPS; 0 holds it fixed. .npy, .npz (array sigma) or .csv."
    return option(None, PATH, help, metavar="FILE")


def _threshold() -> Any:
    return option(
        None,
        NUMBER,
        "Of a network with one output: class 1 is where it is above T, class 0 elsewhere. 0.5 after a sigmoid, else 0, "
        "unless given.",
        metavar="T",
        rank=9,
    )


def _file(help: str, *flags: str, **more: Any) -> Any:
    return option(None, PATH, help, *flags, panel=OUTPUT, **more)


def _adversarial() -> Any:
    return _file(
        "Write the adversarial inputs to this .npz file (inputs, labels, predictions, eps, indices, originals)."
    )


def _new_model(default: Any = REQUIRED) -> Any:
    return option(default, PATH, "The .npz file to write.", "-o", "--out", name="output", in_file=False, rank=-9)


def _image_shape() -> Any:
    help = "Shape of an input as an image, where the model reads it flat: 28,28 or 3,32,32."
    return option(None, shape_like("28,28 or 3,32,32"), help, metavar="SHAPE", panel=OUTPUT)


def _force() -> Any:
    return option(False, SWITCH, "Overwrite files that exist.", panel=OUTPUT, rank=7, in_file=False)


def _time_limit() -> Any:
    return option(
        60.0,
        SECONDS,
        "Seconds for one sample at one radius: search and proof, after the model was read. A certificate gets as much "
        "again.",
        metavar="SECONDS",
        panel=LIMITS,
    )


def _max_nodes() -> Any:
    return option(
        None,
        whole(1),
        "Leaves of trees, parts of boxes and linear programs, at most, where --time-limit is for seconds: with enough "
        "of those, every machine finds the same.",
        metavar="N",
        panel=LIMITS,
    )


def _jobs(help: str = "Samples decided at the same time, in processes.") -> Any:
    return option(1, whole(1), help, metavar="N", panel=LIMITS, rank=8)


def _resume(help: str) -> Any:
    return option(False, SWITCH, help, panel=OUTPUT, rank=10, in_file=False)


def _seed() -> Any:
    return option(0, whole(0), "Seed of every random choice.", metavar="N", panel=LIMITS, rank=9)


@dataclass(frozen=True)
class ModelOptions(Declared):
    """How to read a model file."""

    output_name: str | None = option(
        None, TEXT, "Which output to audit, where there are several.", metavar="NAME", rank=8
    )
    max_bytes: int | None = option(
        None,
        Reader(_bytes),
        "Refuse what needs a larger matrix: 1GB, 500MB.",
        metavar="SIZE",
        panel=LIMITS,
        rank=7,
        name="max_memory",
    )
    threads: int = 1
    torch: TorchOptions = group(TorchOptions)
    threshold: float | None = _threshold()
    """Where classes are asked for; None: the usual one."""


ANY_OUTPUTS: Final = ("threshold",)
"""Not asked by commands to which classes are nothing."""


@dataclass(frozen=True)
class DataOptions(Declared):
    """Which samples, and how the network reads them."""

    path: Path = option(
        REQUIRED,
        PATH,
        "Samples: .npz (inputs, labels), .npy, .csv, .safetensors, .pt, or a folder of images.",
        "-d",
        name="data",
        rank=-9,
    )
    labels: Path | None = option(None, PATH, "Labels, where the data file has none.", "-y", panel=DATA)
    limit: int | None = option(None, whole(1), "Only the first N samples.", metavar="N", panel=DATA)
    index: tuple[int, ...] | None = option(
        None,
        Reader(_index),
        "Only these samples: numbers from 0 and ranges, such as 0,3,10-19.",
        metavar="LIST",
        panel=DATA,
    )
    preprocessing: Preprocessing = group(Preprocessing)
    layout: Layout = option(
        "native",
        one_of("native", "nchw", "nhwc", "flat"),
        "Order of the data's axes; native: the model's own.",
        panel=DATA,
    )


IDLE: Final = "says how to read samples, and there are none: give them with --data"


@dataclass(frozen=True)
class Printing(Declared):
    """How results are shown."""

    format: str = option(
        "table",
        one_of("table", "json"),
        "Print tables, or one JSON document.",
        "-f",
        panel=OUTPUT,
        rank=-2,
        in_file=False,
    )
    output: Path | None = _file(
        "Write the report (JSON) to this file; with -f json nothing else is printed.", "-o", rank=-1, in_file=False
    )
    quiet: bool = option(
        False, SWITCH, "No progress, notes or warnings on stderr.", "-q", panel=OUTPUT, rank=8, in_file=False
    )
    verbose: bool = option(False, SWITCH, "Print every row of long tables.", "-v", panel=OUTPUT, rank=9, in_file=False)


@dataclass(frozen=True)
class _Answer(Printing):
    """Of the commands whose exit code says it all."""

    quiet: bool = option(
        False,
        SWITCH,
        "Print no tables, only errors: the exit code is the answer. -f json and -o are still done.",
        "-q",
        panel=OUTPUT,
        rank=8,
        in_file=False,
    )


@dataclass(frozen=True)
class _Beside(Printing):
    """Of the commands whose -o is a model: the report beside it."""

    output: Path | None = _file("Also write the report (JSON) to this file.", name="json", in_file=False)


@dataclass(frozen=True)
class _ReportBeside(_Beside):
    """With its older name."""

    output: Path | None = _file("Also write the report (JSON) to this file.", "--report", name="json", in_file=False)


def _notes() -> Any:
    help = "No notes, and no word of what was written."
    return option(False, SWITCH, help, "-q", panel=OUTPUT, rank=8, in_file=False)


# --- certify and attack -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CertifyVerdicts(Declared):
    """How certify decides a sample."""

    methods: tuple[str, ...] = _method(
        "interval,sign,pgd,linear,branch",
        several_of(METHODS, "method", METHODS),
        f"Which methods to use, a list of: {', '.join(METHODS)}.",
    )
    time_limit: float = _time_limit()
    max_nodes: int | None = _max_nodes()
    seed: int = _seed()

    def made(self) -> Options:
        """Return it as the ladder takes it."""
        from idl_audit.decide.verdicts import Options

        return Options(self.methods, self.time_limit, seed=self.seed, max_nodes=self.max_nodes)


@dataclass(frozen=True)
class AttackVerdicts(CertifyVerdicts):
    """How attack decides a sample."""

    methods: tuple[str, ...] = _method(
        "sign,pgd,lp", several_of(ATTACKS, "attack", METHODS), f"Which attacks to use, a list of: {', '.join(ATTACKS)}."
    )
    fraction: float | None = option(
        None,
        Reader(_share),
        "Share of the inputs that sensitivity and gradient (0.1 unless given) and random (all) may change.",
        metavar="SHARE",
    )
    draws: int = option(
        100, whole(1), "Points that sensitivity, gradient and random try; 1 is the paper's.", metavar="N"
    )
    target: int | None = option(
        None,
        whole(),
        "Only this class counts: the network must predict it. Samples of the class itself are left out.",
        metavar="CLASS",
    )

    def made(self) -> Options:
        """Return it as the ladder takes it."""
        from idl_audit.search.attacks import AttackOptions

        hard = AttackOptions(fraction=self.fraction, samples=self.draws, target=self.target)
        return replace(super().made(), attack=hard)


@dataclass(frozen=True)
class RobustnessOptions(Declared):
    """What certify is asked for about samples; with `AttackedOptions`, what attack is."""

    eps: tuple[Eps, ...] = _eps()
    data: DataOptions = group(DataOptions)
    verdicts: Options = group(CertifyVerdicts, make=CertifyVerdicts.made)
    sparse: int | None = _sparse()
    """At most so many inputs change; None stands for all of them."""
    sigma: Path | None = _sigma()
    save: Path | None = _adversarial()
    certificates: Path | None = _file(
        "Write what proves each certified sample, or the PROPERTY, into this folder, for `verify`.", metavar="DIR"
    )
    images: Path | None = _file(
        "Draw sample, change (changed pixels in red) and adversarial input as PNGs in this folder.", metavar="DIR"
    )
    image_shape: tuple[int, ...] | None = _image_shape()
    force: bool = _force()
    model: ModelOptions = group(ModelOptions)
    jobs: int = _jobs()
    journal: Path | None = _file(
        "File that takes the samples as they are decided.", typed=False, in_file=False, in_environment=False
    )
    """Whoever writes the report removes it (`drop_journal`)."""
    resume: bool = _resume(
        "Go on from the samples that an interrupted run with the same -o has decided (OUTPUT.journal)."
    )
    """Files of the earlier run may be written again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.journal is None:
            raise OptionError("--resume goes on from the journal beside the report; name the report with -o FILE")
        force = self.force or self.resume
        if self.image_shape is not None and self.images is None:
            raise OptionError("--image-shape says how pictures are drawn; ask for them with --images DIR")
        if self.save is not None:
            check_new_file(self.save, force=force)
        for folder in filter(None, (self.images, self.certificates)):
            check_new_folder(folder, force=force)
        if self.certificates is not None:
            if self.sparse is not None or self.target is not None:
                raise OptionError("--certificates are written for boxes and for all rivals at once")
            object.__setattr__(self, "verdicts", replace(self.verdicts, record=True))

    @property
    def target(self) -> int | None:
        """The only class that counts as success; None stands for any but the label."""
        return self.verdicts.attack.target


@dataclass(frozen=True)
class AttackedOptions(RobustnessOptions):
    """What attack is asked for."""

    verdicts: Options = group(AttackVerdicts, make=AttackVerdicts.made)


@dataclass(frozen=True)
class PropertyOptions(Declared):
    """How a property is to be decided."""

    time_limit: float = _time_limit()
    """Seconds in all, reading and converting included."""
    max_nodes: int | None = _max_nodes()
    """Boxes, leaves of trees and starts of attacks, in all."""
    seed: int = _seed()
    model: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)
    certificates: Path | None = _file("Folder for the certificate of a property that is unsat.", metavar="DIR")
    force: bool = _force()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.certificates is not None:
            check_new_folder(self.certificates, force=self.force)

    @property
    def budget(self) -> Budget:
        """What the property may cost, from now on."""
        return Budget.of(self.time_limit, nodes=self.max_nodes, max_bytes=self.model.max_bytes)


@dataclass(frozen=True)
class Certify(Declared):
    """Decide for each sample whether any change of its inputs by at most EPS can change the predicted class.

    certified: proved that none can. falsified: one was found, and the original network confirms it.
    clean_wrong: the network is wrong without any change. unknown: neither, with the reason.

    With a PROPERTY in place of -d and -e: sat (the network violates it, with a witness), unsat (proved that it holds),
    unknown or timeout, on the first line; --time-limit is for the whole property, reading the model included.
    """

    model: Path = _model()
    property: Path | None = option(
        None,
        PATH,
        "A VNN-LIB property (.vnnlib or .vnnlib.gz) to decide, in place of samples.",
        positional=True,
        in_file=False,
    )
    samples: RobustnessOptions | None = group(
        RobustnessOptions,
        without=("sparse", "images", "image_shape"),
        when=lambda given: "property" not in given,
        otherwise="beside a property: it says itself what is asked; leave one or the other out; samples are given with "
        "--data",
        missing="give samples with -d DATA and a radius with -e EPS, or a PROPERTY",
    )
    rule: PropertyOptions | None = group(PropertyOptions, when=_given("property"))
    printing: Printing = group(Printing)


@dataclass(frozen=True)
class ObjectiveOptions(Declared):
    """What attack --objective is asked for."""

    objective: str = option(REQUIRED, TEXT, "One of OBJECTIVES, or the name of a file with c and perhaps w.")
    eps: tuple[Eps, ...] = _eps()
    data: DataOptions = group(DataOptions, without=("labels",))
    searches: tuple[str, ...] = _method(
        ",".join(SEARCHES), several_of(SEARCHES, "search for an objective", SEARCHES), "What looks for points."
    )
    sparse: int | None = _sparse()
    sigma: Path | None = _sigma()
    time_limit: float = _time_limit()
    seed: int = _seed()
    save: Path | None = _adversarial()
    force: bool = _force()
    model: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES and not Path(self.objective).is_file():
            raise OptionError(
                f"--objective must be margin, {', '.join(OBJECTIVES)} or a file with weights, not {self.objective}; "
                "save weights c of the outputs as .npy, .csv, or .npz with c and perhaps w for the states"
            )
        if self.save is not None:
            check_new_file(self.save, force=self.force)

    @property
    def budget(self) -> Budget:
        """What one sample and radius may cost, from now on."""
        return Budget.of(self.time_limit, max_bytes=self.model.max_bytes)


def _of_margins(given: Mapping[str, Any]) -> bool:
    return bool(given.get("objective", "margin") == "margin")


@dataclass(frozen=True)
class Attack(Declared):
    """Look for inputs within EPS of each sample that the network misclassifies, and let the network confirm them.

    The attack lp is the paper's: the minimiser of an LP relaxation; where
    its bound proves that there is no such input, the sample is certified.
    mip searches all activation patterns of small networks. With --sparse
    every attack changes at most K inputs: those that matter most.

    With --objective other than margin nothing is judged: the table says how
    far the objective moves, and how far it provably cannot. pgd and lp look
    for it; no labels are needed.
    """

    model: Path = _model()
    objective: str = option(
        "margin",
        TEXT,
        "What to look for: margin, a misclassified input; l1, the state with the least l1 norm; state, the one "
        "farthest from the sample's (l2); FILE (.npy, .csv, .npz with c and perhaps w), the largest c.y + w.x.",
        metavar="NAME|FILE",
        rank=-6,
    )
    samples: AttackedOptions | None = group(
        AttackedOptions,
        without=("certificates",),
        when=_of_margins,
        otherwise="goes with the objective margin: leave one or the other out",
    )
    measured: ObjectiveOptions | None = group(ObjectiveOptions, when=lambda given: not _of_margins(given))
    printing: Printing = group(Printing)


# --- sensitivity, bounds ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalOptions(Declared):
    """Where S is asked for: in boxes of one radius around samples."""

    data: DataOptions = group(DataOptions)
    eps: Eps = _eps(
        reader=ONE_EPS,
        help="With -d: radius of the box around each sample, in data units (before --scale): 8/255 or 0.03.",
        own=True,
    )
    state_bounds: str = option(
        "interval",
        one_of(*STATE_BOUNDS, noun="kind of state bounds"),
        f"With -d: how states are bounded in a box: {' or '.join(STATE_BOUNDS)} (tighter, slower).",
        metavar="NAME",
        rank=-6,
    )


@dataclass(frozen=True)
class SensitivityOptions(Declared):
    """Which matrix, what to read off it, and what to write."""

    method: str = _method(
        "best",
        one_of(*MATRICES, noun="method for S"),
        f"How to bound S: {', '.join(MATRICES)}; all are valid bounds.",
        metavar="NAME",
    )
    local: LocalOptions | None = group(
        LocalOptions,
        when=_given("data"),
        otherwise="speaks of samples; give them with --data, or leave it out for all inputs at once",
        missing="with -d, S is made for boxes of one radius, such as -e 8/255",
    )
    top: int = option(5, whole(1), "Inputs to list for each output.", metavar="K")
    label: int | None = option(
        None, whole(0), "Also bound the differences of this output to all others.", metavar="K", name="class"
    )
    sparse: int | None = option(
        None, whole(1), "Also bound the outputs where at most K inputs change, by EPS (or 1) each.", metavar="K"
    )
    groups: str | None = option(
        None,
        TEXT,
        "Also sum S over groups of inputs: rows, columns, channels or patches:HxW, or a file with one label per input.",
        metavar="NAME|FILE",
    )
    save: Path | None = _file("Write S (and what else was asked for) to this .npz file.")
    witness: Path | None = _file("Write what `verify` checks the global S and well-posedness by to this .npz file.")
    images: Path | None = _file("Draw each output's row of S as a PNG in this folder.", metavar="DIR")
    image_shape: tuple[int, ...] | None = _image_shape()
    """Shape of one input as a picture, where the model reads it flat."""
    force: bool = _force()
    preprocessing: Preprocessing = group(Preprocessing, without=("bounds",))
    model: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)
    seed: int = _seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local is not None:
            object.__setattr__(self, "preprocessing", self.local.data.preprocessing)
        for file in filter(None, (self.save, self.witness)):
            check_new_file(file, force=self.force)
        if self.images is not None:
            check_new_folder(self.images, force=self.force)


@dataclass(frozen=True)
class Sensitivity(Declared):
    """Bound how far each output moves when each input moves: the sensitivity matrix S, for all inputs at once.

    |y(u) - y(v)| <= S |u - v| holds for every pair of inputs u, v, in the units of the data. With -d and -e it is made
    for pairs in the box around one of the samples, where S is much smaller.
    """

    model: Path = _model()
    matrix: SensitivityOptions = group(SensitivityOptions)
    printing: Printing = group(Printing)


@dataclass(frozen=True)
class BoundsOptions(Declared):
    """What bounds is asked for."""

    eps: tuple[Eps, ...] = _eps()
    data: DataOptions = group(DataOptions, without=("labels",))
    methods: tuple[str, ...] = _method(
        ",".join(BOUNDS),
        several_of(BOUNDS, "method for bounds"),
        f"Which methods to use, a list of: {', '.join(BOUNDS)}.",
    )
    sparse: int | None = _sparse()
    """At most so many inputs change; None stands for all of them."""
    sigma: Path | None = _sigma()
    time_limit: float = _time_limit()
    """Seconds of backward bounds for one sample at one radius."""
    save: Path | None = _file(
        "Write all bounds to this .npz file: outputs_lo, outputs_hi, and z0_lo, x0_lo, ... for each block."
    )
    force: bool = _force()
    model: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save is not None:
            check_new_file(self.save, force=self.force)


@dataclass(frozen=True)
class Bounds(Declared):
    """Bound every state and output of the network when a sample's inputs change by at most EPS.

    Each method starts from what those before it proved: sensitivity (one
    matrix for all inputs), interval (layer by layer), linear (backward from
    each state and output, the tightest). norm, the coarse bound by norms
    alone, is there to compare with. All bounds are rounded outward: they hold
    in exact arithmetic for the weights in the file. No labels are needed.
    """

    model: Path = _model()
    asked: BoundsOptions = group(BoundsOptions)
    printing: Printing = group(Printing)


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvertOptions(Declared):
    """What convert is asked for."""

    kappa: float = option(0.5, NUMBER, "Rescale so that ||A||_inf is at most this.", metavar="<float>")
    rescale: bool = option(True, SWITCH, "Rescale the states.", off="--no-rescale")
    flat: bool = option(False, SWITCH, "Also store A, B, C, D as one CSR matrix each.")
    force: bool = _force()
    witness: Path | None = _file("Write what `verify` checks S and well-posedness by.")
    """An .npz file; it speaks of the written model."""
    spy: Path | None = _file("Draw the structure of A, B, C, D into this PNG file.")
    model: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)
    seed: int = _seed()


@dataclass(frozen=True)
class Convert(Declared):
    """Turn a network into its implicit model A, B, C, D, b, d and check that it gives the same outputs.

    The model x = phi(Ax + Bu + b), y = Cx + Du + d (phi: the activations) is compared with the network on 20
    random inputs, or on --data.
    """

    model: Path = _model()
    out: Path = _new_model()
    data: DataOptions | None = group(
        DataOptions, when=_given("data"), otherwise=f"{IDLE} (the converted model reads what the network itself reads)"
    )
    options: ConvertOptions = group(ConvertOptions)
    printing: Printing = group(_ReportBeside)


@dataclass(frozen=True)
class PredictOptions(Declared):
    """What predict is asked for."""

    save: Path | None = _file(
        "Write outputs and states to this .npz file (outputs, predictions, states, blocks, indices)."
    )
    force: bool = _force()
    model: ModelOptions = group(ModelOptions)


@dataclass(frozen=True)
class Predict(Declared):
    """Compute the outputs of the implicit model: y = Cx + Du + d with the state x = phi(Ax + Bu + b).

    For a model with loops, the table has the steps to each sample's state and the residual max|x - phi(Ax + Bu + b)|;
    above it stands the proof that there is no other state.
    """

    model: Path = _model()
    data: DataOptions = group(DataOptions)
    options: PredictOptions = group(PredictOptions)
    printing: Printing = group(Printing)


@dataclass(frozen=True)
class WriteOptions(Declared):
    """Where the new model goes, and how the old one is read."""

    out: Path | None = _new_model(None)
    force: bool = _force()
    model: ModelOptions = group(ModelOptions)
    seed: int = _seed()
    preprocessing: Preprocessing = group(Preprocessing)
    """Also of --bounds where there are no samples."""


@dataclass(frozen=True)
class Reduce(Declared):
    """Remove the states that change no output: constant, dead and unobserved ones. The outputs stay the same.

    Without --bounds the smaller model is the same function everywhere; with --bounds 0,1 it is the same on inputs
    within them, and more states may be dead there. Both models are compared before anything is written.
    """

    model: Path = _model()
    out: Path = _new_model()
    data: DataOptions | None = group(DataOptions, when=_given("data"), otherwise=IDLE)
    options: WriteOptions = group(WriteOptions, without=ANY_OUTPUTS)
    printing: Printing = group(_Beside)


@dataclass(frozen=True)
class CompressOptions(Declared):
    """Which compression, and what is asked about it; exactly one of the three is given."""

    prune: float | None = option(
        None, NUMBER, "Leave out coefficients below T times the largest of their matrix or kernel.", metavar="T"
    )
    quantize: int | None = option(None, whole(), "2^BITS - 1 levels for each matrix or kernel.", metavar="BITS")
    rank: int | None = option(
        None, whole(), "Matrices of rank K, stored as two factors where that is less.", metavar="K"
    )
    by_block: bool = option(
        False, SWITCH, "List the blocks by the drift that compressing each alone causes.", name="report"
    )


@dataclass(frozen=True)
class Compress(Declared):
    """Make the model smaller and prove how far its outputs can move by that.

    Proved are: for all inputs u a bound offset + slope max|u_j|; one number for the box of inputs (--bounds, or the
    least box around the samples of -d); one at the samples themselves. The largest difference that was measured stands
    beside them. Bounds are in units of the outputs, for the numbers that the network reads.
    """

    model: Path = _model()
    data: DataOptions | None = group(DataOptions, when=_given("data"), otherwise=IDLE)
    asked: CompressOptions = group(CompressOptions)
    options: WriteOptions = group(WriteOptions)
    printing: Printing = group(_Beside)


@dataclass(frozen=True)
class Compose(Declared):
    """Put two models f (FIRST) and g (SECOND) together into one implicit model.

    cascade: y = g(f(u)). sum: y = f(u) + g(u). concat: y = (f(u), g(u)). feedback: y = f(u + g(y)), refused where
    nothing proves that the loop has one state for every input. Every command takes the result.
    """

    kind: str = option(REQUIRED, one_of(*KINDS), "How they are put together.", positional=True)
    first: Path = _model(help="An ONNX file, or an .npz with an implicit model, such as `convert` writes.")
    second: Path = _model(help="The other model.")
    out: Path = _new_model()
    options: WriteOptions = group(WriteOptions, without=[*options_of(ModelOptions), *options_of(Preprocessing)])
    printing: Printing = group(_Beside, without=("quiet",))


@dataclass(frozen=True)
class Inspect(Declared):
    """Look at a model file without running it: operators, shapes, states, memory, and what is unsupported."""

    model: Path = _model()
    reading: ModelOptions = group(ModelOptions, without=(*options_of(TorchOptions), *ANY_OUTPUTS))
    printing: Printing = group(Printing)


@dataclass(frozen=True)
class Verify(Declared):
    """Check a witness or a certificate against its model, in float64 rounded outward: no search, no solver."""

    file: Path = _model(help="Witness or certificate that --witness or --certificates wrote.")
    model: Path = _model()
    property: Path | None = _model(
        None, help="A VNN-LIB property that the certificate must be about; without it, FILE says what it proves."
    )
    reading: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)
    printing: Printing = group(_Answer)


# --- many at once -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BenchOptions(Declared):
    """How the properties of a list are to be decided."""

    cap: float | None = option(
        None,
        SECONDS,
        "Seconds for a property at most; less where the row's timeout is. Without it, rows that have no timeout get "
        "60. It is for everything but reading the network, which neighbouring rows share; a process that has no answer "
        "5 seconds later is ended.",
        metavar="SECONDS",
        panel=LIMITS,
    )
    max_nodes: int | None = _max_nodes()
    """For a property, at most."""
    jobs: int = _jobs("Properties decided at the same time.")
    seed: int = _seed()
    earlier: Report | None = None
    """A report whose rows are kept and not decided again."""


@dataclass(frozen=True)
class Bench(Declared):
    """Decide every VNN-LIB property of a list, each in a process of its own, and compare with the truth.

    The report at -o is written after each row. A row that cannot be judged - files that are missing or refused, a
    process that dies, too little memory - does not end the run, but makes the report incomplete.
    """

    instances: Path = _model(
        help="CSV file with the columns onnx, vnnlib, timeout and perhaps truth; files relative to its folder."
    )
    options: BenchOptions = group(BenchOptions)
    printing: Printing = group(Printing)
    resume: bool = _resume(
        "Keep the rows that the report at -o has, by this version and on these files; decide the others."
    )


CONFIG: Final = "The configuration; without it idl-audit.toml, or \\[tool.idl-audit] in pyproject.toml, of this folder."


@dataclass(frozen=True)
class Run(Declared):
    """Do everything in the configuration and write one report: for CI.

    `idl-audit init MODEL DATA` writes a configuration. Options given here
    replace what it says.
    """

    model: Path | None = _model(None, help="The model file, where the configuration has none.")
    config: Path | None = option(None, PATH, CONFIG, "-c", rank=-10, in_file=False)
    data: DataOptions | None = group(DataOptions, when=_given("data"), otherwise=IDLE)
    eps: tuple[Eps, ...] | None = _eps(None)
    steps: tuple[str, ...] = option(
        "sensitivity,certify", Reader(_steps), f"What to do, a list of: {', '.join(STEPS)}.", metavar="LIST", own=True
    )
    reading: ModelOptions = group(ModelOptions)
    preprocessing: Preprocessing = group(Preprocessing)
    printing: Printing = group(Printing, without=("output",))
    output: Path | None = _file(
        "Write the report (JSON) to this file; with -f json nothing else is printed.", "-o", own=True, rank=-1
    )
    reports: tuple[Path, ...] = option(
        (),
        PATH,
        "Further files: .html, .md (Markdown), .xml (JUnit).",
        several=True,
        own=True,
        typed=False,
        in_environment=False,
    )
    force: bool = _force()
    time_limit: float = _time_limit()
    max_nodes: int | None = _max_nodes()
    jobs: int = _jobs()
    resume: bool = _resume(
        "Go on from the samples that an interrupted run with the same -o has decided (OUTPUT.journal)."
    )
    seed: int = _seed()


# --- reports ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate(Declared):
    """Judge a report by rules.

    An incomplete report fails. Counts are compared exactly: 899 of 1000 are
    less than 0.90. drop(clean_accuracy) and drop(certified_accuracy@2/255)
    compare with --baseline.
    """

    report: Path = _model(help="A report.json of certify, attack, sensitivity or run.", in_file=False)
    require: tuple[str, ...] = option(
        (),
        TEXT,
        f"A rule that must hold, such as '{EXAMPLE}', or with '90 %'; may be given several times. It is about "
        f"{', '.join(MEANINGS)}; 'drop <= 0.01' compares every certified accuracy with --baseline.",
        metavar="RULE",
        several=True,
    )
    warn: tuple[str, ...] = option((), TEXT, "A rule that only warns.", metavar="RULE", several=True)
    baseline: Path | None = option(
        None, PATH, "An earlier report on the same data under the same threat model.", metavar="FILE"
    )
    update_baseline: bool = option(
        False, SWITCH, "Where the gate passes, make the report the new baseline.", in_file=False
    )
    config: Path | None = option(None, PATH, CONFIG, "-c", in_file=False)
    printing: Printing = group(_Answer)


@dataclass(frozen=True)
class Diff(Declared):
    """Tell what changed from one report to the next: counts, and each sample with another verdict.

    The models may differ; data and threat model must not. Worse are: a sample
    with a worse verdict (certified, unknown, falsified, clean_wrong, from best
    to worst), a lower clean accuracy, an incomplete report.
    """

    old: Path = _model(help="The earlier report.json.")
    new: Path = _model(help="The later report.json, on the same data.")
    exit_code: bool = option(False, SWITCH, "Exit with 1 where the network got worse.")
    printing: Printing = group(Printing, without=("output", "quiet"))
    quiet: bool = option(
        False,
        SWITCH,
        "Print no tables, only errors: the exit code is the answer, as with --exit-code. -f json is still done.",
        "-q",
        panel=OUTPUT,
        rank=8,
    )


@dataclass(frozen=True)
class Rendering(Declared):
    """Make a page or a summary of a report: HTML, Markdown, JUnit XML, GitHub annotations. Nothing is computed anew.

    html: one self-contained file. markdown: for the summary of a job. junit: gate rules and samples as tests; where
    the report has a gate, only its rules can fail. github: ::error and ::warning lines for a workflow's log.
    """

    report: Path = _model(help="A report.json that a command wrote with -o.")
    format: str | None = option(
        None,
        one_of(*FORMS, noun="form"),
        f"What to make of it: {', '.join(FORMS)}; by default what the name of -o ends in (.html, .md, .xml, .txt), "
        "else tables.",
        "-f",
        metavar="FORM",
    )
    output: Path | None = option(None, PATH, "Write to this file.", "-o")
    adversarial: Path | None = option(
        None,
        PATH,
        "HTML: the .npz that --save wrote, for pictures of adversarial inputs. Found by itself beside the report.",
        metavar="ADV.npz",
    )
    matrix: Path | None = option(
        None,
        PATH,
        "HTML: the .npz that sensitivity --save wrote, for a heat map of each output. Found by itself, too.",
        metavar="S.npz",
    )
    image_shape: tuple[int, ...] | None = _image_shape()
    force: bool = _force()
    quiet: bool = _notes()
    verbose: bool = option(False, SWITCH, "Print every row of long tables.", "-v", panel=OUTPUT, rank=9)


@dataclass(frozen=True)
class Init(Declared):
    """Write a commented configuration for a model and its samples: radii and valid range guessed from the data."""

    model: Path = _model()
    data: Path | None = _model(
        None, help="Samples and labels: .npz, .npy, .csv, .safetensors, .pt, or a folder of images."
    )
    samples: Path | None = option(None, PATH, "The same as DATA, as in other commands.", "-d", name="data_")
    output: Path = option("idl-audit.toml", PATH, "Where to write the configuration.", "-o")
    reading: ModelOptions = group(ModelOptions, without=("max_memory",))
    force: bool = _force()
    quiet: bool = _notes()


@dataclass(frozen=True)
class Explain(Declared):
    """Say what a diagnostic code means, and what to do about it."""

    code: str | None = option(
        None, TEXT, "IDLnnn, from a report or an error; without it, all are listed.", positional=True
    )


@dataclass(frozen=True)
class Schema(Declared):
    """Print the JSON Schema of the reports, or of the configuration."""

    of: str = option(
        "report", one_of("report", "config"), "The reports, or the configuration.", positional=True, metavar="WHAT"
    )


COMMANDS: Final[Mapping[str, type[Declared]]] = MappingProxyType(
    {
        "certify": Certify,
        "attack": Attack,
        "sensitivity": Sensitivity,
        "bounds": Bounds,
        "bench": Bench,
        "convert": Convert,
        "predict": Predict,
        "reduce": Reduce,
        "compress": Compress,
        "compose": Compose,
        "inspect": Inspect,
        "verify": Verify,
        "init": Init,
        "run": Run,
        "gate": Gate,
        "diff": Diff,
        "report": Rendering,
        "explain": Explain,
        "schema": Schema,
    }
)
"""Command -> its options."""


# --- Python -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Audit(Declared):
    """What `idl_audit.audit` is asked for: the options of certify about samples."""

    samples: RobustnessOptions = group(RobustnessOptions, without=("sparse", "images", "image_shape"))


@dataclass(frozen=True)
class ArrayOptions(Declared):
    """What `idl_audit.certify` is asked for about arrays."""

    eps: Eps = _eps(reader=ONE_EPS)
    preprocessing: Preprocessing = group(Preprocessing, without=("scale", "mean", "std"))
    threshold: float | None = _threshold()
    verdicts: Options = group(CertifyVerdicts, make=CertifyVerdicts.made)


@dataclass(frozen=True)
class AttackedArrayOptions(ArrayOptions):
    """What `idl_audit.attack` is asked for about arrays."""

    verdicts: Options = group(AttackVerdicts, make=AttackVerdicts.made)
