"""What several commands are asked for: constants, readers, fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from idl_audit.data.numbers import Eps, parse_eps, parse_number, parse_number_list
from idl_audit.graph.torch_options import shape_like
from idl_audit.values.columns import GroupColumn
from idl_audit.values.errors import OptionError
from idl_audit.values.norms import NORMS
from idl_audit.values.options import PATH, REQUIRED, SECONDS, SWITCH, Declared, Reader, one_of, option, whole

SET: Final = "What may change"
"""Sets of inputs beside the box of EPS around a sample."""
QUESTION: Final = "What is asked"
"""Questions beside the class of a sample."""
NETWORK: Final = "Network"
DATA: Final = "Data"
OUTPUT: Final = "Output"
LIMITS: Final = "Limits"
TRAINING: Final = "Training"

METHODS: Final = (
    "interval",
    "random",
    "sign",
    "sensitivity",
    "gradient",
    "quick",
    "pgd",
    "apgd-ce",
    "apgd-t",
    "fmn",
    "square",
    "linear",
    "attack",
    "split",
    "lp",
    "branch",
    "exact",
    "mip",
)
"""Names of `idl_audit.decide.ladder.METHODS`, in the order of cost."""
AUTO: Final = ("apgd-ce", "apgd-t", "fmn", "square")
"""What `auto` stands for: `idl_audit.search.ensemble.MEMBERS`."""
ATTACKS: Final = ("auto", "random", "sign", "sensitivity", "gradient", "pgd", *AUTO, "lp", "mip")
USUAL_ATTACKS: Final = ("sign", "pgd", "lp")
SEARCHES: Final = ("pgd", "lp")
OBJECTIVES: Final = ("l1", "state")
BOUNDS: Final = ("norm", "sensitivity", "interval", "linear")
MATRICES: Final = ("paper", "half-step", "centre-radius", "monotone", "gains", "best")
STATE_BOUNDS: Final = ("interval", "linear")
STEPS: Final = ("sensitivity", "bounds", "everywhere", "certify", "attack")
"""What `run` can do, in the order it is done in: verdicts, the slowest, come last and can be resumed."""
ARITHMETICS: Final = ("real", "float64", "float32", "float16", "bfloat16")
FORMS: Final = ("table", "html", "markdown", "junit", "github", "sarif")
KINDS: Final = ("cascade", "sum", "concat", "feedback")


def _is_radii(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(entry, Eps) for entry in value)


def _one_radius(text: str, flag: str) -> Eps:
    radii = parse_eps(text)
    if len(radii) != 1:
        raise OptionError(f"{flag} must be one radius such as 0.03 or '8/255', not {text!r}")
    return radii[0]


EPS: Final = Reader(lambda text, _: parse_eps(text), was_read=_is_radii)
EPS_OR_ZERO: Final = Reader(lambda text, _: parse_eps(text, zero=True), was_read=_is_radii)
ONE_EPS: Final = Reader(_one_radius, was_read=lambda value: isinstance(value, Eps))
NUMBER: Final = Reader(lambda text, flag: parse_number(text, option=flag))
NUMBERS: Final = Reader(
    lambda text, flag: parse_number_list(text, option=flag), was_read=lambda value: isinstance(value, tuple)
)


def given(name: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return when there is a group: where this option is given."""
    return lambda given: name in given


def model(default: Any = REQUIRED, help: str = "", **more: Any) -> Any:
    usual = "An ONNX file, a PyTorch file, or an .npz with an implicit model, such as `convert` writes."
    return option(default, PATH, help or usual, positional=True, **more)


def eps(default: Any = REQUIRED, reader: Reader = EPS, help: str = "", **more: Any) -> Any:
    usual = "How far every input may move, in data units (before --scale): 8/255, 0.03, a list, or start:stop:count."
    return option(default, reader, help or usual, "-e", metavar="EPS", rank=-8, **more)


def method(names: str | None, reader: Reader, help: str, metavar: str = "LIST") -> Any:
    return option(names, reader, help, metavar=metavar, rank=-7, name="method")


def sparse() -> Any:
    help = "At most K inputs change at once, each by at most EPS; without it, all of them may."
    return option(None, whole(1), help, metavar="K", panel=SET)


def sigma() -> Any:
    help = (
        "One radius for each input, multiplied by EPS; 0 holds it fixed. .npy, .npz (array sigma) or .csv. certify and "
        "attack take those of each sample, too: an array eps, or rows of sigma. With --norm l2 or l1 changes are "
        "measured in units of these radii."
    )
    return option(None, PATH, help, metavar="FILE", panel=SET)


def _features(text: str, flag: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise OptionError(f"{flag} must list inputs by number or name, each once, such as 0,3 or age, not {text!r}")
    return names


FEATURES: Final = Reader(_features, was_read=lambda value: isinstance(value, tuple))


def ignore() -> Any:
    help = (
        "Inputs by number or name, such as 0,3: may any change of them within --bounds change the class, whatever the "
        "others do within EPS? With --eps 0 nothing but these moves."
    )
    return option(None, FEATURES, help, metavar="LIST", panel=SET)


def _group_column(text: str, flag: str) -> GroupColumn:
    name, mark, path = (part.strip() for part in text.partition("="))
    if not name or (mark and not path):
        raise OptionError(f"{flag} must be COLUMN, or COLUMN=FILE, not {text!r}")
    if name.lower() == "class":
        raise OptionError(f"{flag} {name}: verdicts are counted by class anyway; call a column of the data otherwise")
    if any(mark in name for mark in "[]"):
        raise OptionError(f"{flag} {name}: rules of `gate` name columns within brackets; call it otherwise")
    return GroupColumn(name, Path(path) if mark else None)


GROUP_COLUMN: Final = Reader(
    _group_column,
    was_read=lambda value: isinstance(value, GroupColumn),
    placed=lambda value, folder: value if value.path is None else replace(value, path=folder / value.path),
)


def group_by() -> Any:
    help = (
        "Count verdicts by what a column (or array) of the data says of each sample, too, or one of a table beside it: "
        "COLUMN=FILE.csv. Again for others. By class they are counted anyway."
    )
    return option((), GROUP_COLUMN, help, metavar="COLUMN", panel=DATA, several=True)


def features() -> Any:
    help = (
        "features.toml: names, kinds, ranges and categories of the inputs of a table. Whole numbers and categories "
        "move as such, each feature by at most EPS times its radius, and only a valid row falsifies."
    )
    return option(None, PATH, help, metavar="FILE", rank=3, panel=SET)


NORM: Final = one_of("linf", *NORMS, noun="norm")


def norm() -> Any:
    help = (
        "What EPS bounds: linf, the change of each input; l2, the root of the sum of their squares; l1, the sum of "
        "their sizes. Inputs stay within --bounds."
    )
    return option("linf", NORM, help, metavar="NAME", panel=SET)


def _perturbation(text: str, flag: str) -> Any:
    from idl_audit.data.perturbations import parse_perturbation  # imports numpy: --help does without

    return parse_perturbation(text, option=flag)


def _is_perturbation(value: object) -> bool:
    from idl_audit.values.perturbations import Perturbation

    return isinstance(value, Perturbation)


PERTURBATION: Final = Reader(_perturbation, was_read=_is_perturbation)


def perturb() -> Any:
    help = (
        "What changes, in place of every input by EPS: brightness=0.1, contrast=0.8:1.2, fog=0.3, tint=ff8800:0.3, "
        "colour=0.05, blur=gauss3:0.5, or several, joined by commas; of series whose first (or last) axis is time "
        "offset=first:0.1 and drift=first:0.1, each sensor's own; or patch=4x4, any values in a rectangle anywhere; or "
        "dropout=first:3, any values of one sensor for 3 steps; "
        "or translate=1, shifts by up to a pixel; or rotate=5, turns by up to 5 degrees (bilinear). "
        "EPS, 1 unless given, multiplies all ranges. Inputs saturate at the ends of --bounds."
    )
    return option(None, PERTURBATION, help, metavar="LIST", panel=SET)


def directions() -> Any:
    help = (
        "Change the inputs along the rows of a file, (k, ...): .npz (arrays directions, low, high) or .npy. "
        "With --perturb both add up."
    )
    return option(None, PATH, help, metavar="FILE", panel=SET)


def threshold() -> Any:
    return option(
        None,
        NUMBER,
        "Of a network with one output: class 1 is where it is above T, class 0 elsewhere. 0.5 after a sigmoid, else 0, "
        "unless given.",
        metavar="T",
        rank=9,
        panel=NETWORK,
    )


DEVICES: Final = ("auto", "cpu", "cuda", "mps")


def device() -> Any:
    return option(
        "auto",
        one_of(*DEVICES),
        "Where searches compute, and large products of proofs: cpu, or an accelerator that torch knows, cuda or mps. "
        "auto is cpu.",
        metavar="NAME",
        panel=LIMITS,
        rank=8,
    )


def file(help: str, *flags: str, **more: Any) -> Any:
    return option(None, PATH, help, *flags, panel=OUTPUT, **more)


def adversarial() -> Any:
    return file(
        "Write the adversarial inputs to this .npz file (inputs, labels, predictions, eps, indices, originals), rows "
        "in the model's own order, whatever --layout says."
    )


def new_model(default: Any = REQUIRED) -> Any:
    return option(default, PATH, "The .npz file to write.", "-o", "--out", name="output", in_file=False, rank=-9)


PICTURE: Final = shape_like("28,28 or 3,32,32")


def image_shape() -> Any:
    help = "Shape of an input as an image, where the model reads it flat: 28,28 or 3,32,32."
    return option(None, PICTURE, help, metavar="SHAPE", panel=OUTPUT)


def force() -> Any:
    return option(False, SWITCH, "Overwrite files that exist.", panel=OUTPUT, rank=7, in_file=False)


def time_limit() -> Any:
    return option(
        60.0,
        SECONDS,
        "Seconds for one sample at one radius: search and proof, once model and libraries are loaded. A certificate "
        "gets as much again.",
        metavar="SECONDS",
        panel=LIMITS,
    )


def max_nodes() -> Any:
    return option(
        None,
        whole(1),
        "Leaves of trees, parts of boxes and linear programs, at most, for one sample at one radius: every machine "
        "then does the same, and --time-limit is a safety net.",
        metavar="N",
        panel=LIMITS,
    )


def arithmetic(help: str = "") -> Any:
    usual = (
        "What certified and unsat are proved for: real numbers, or the floats that the network computes in, mostly "
        "float32: what a runtime computes, however it adds, fuses and folds, for all such inputs of the set."
    )
    return option("real", one_of(*ARITHMETICS, noun="arithmetic"), help or usual, metavar="NAME")


def jobs(help: str = "Samples decided at the same time, in processes.") -> Any:
    return option(1, whole(1), help, metavar="N", panel=LIMITS, rank=8)


@dataclass(frozen=True)
class Scheduler:
    """Where a Dask scheduler is: its address, or how many processes of this machine one of our own has."""

    address: str | None
    workers: int | None = None

    def __str__(self) -> str:
        return f"local:{self.workers}" if self.address is None else self.address


def _scheduler(text: str, flag: str) -> Scheduler:
    name, colon, rest = text.strip().partition(":")
    if name == "local" and colon and rest.isascii() and rest.isdecimal() and int(rest) > 0:
        return Scheduler(None, int(rest))
    host, last, port = rest.removeprefix("//").rpartition(":")
    if name in ("tcp", "tls", "ws", "wss") and rest.startswith("//") and host and last and port.isdecimal():
        return Scheduler(text.strip())
    raise OptionError(f"{flag} must be an address such as tcp://10.0.0.5:8786, or local:N with N from 1, not {text!r}")


SCHEDULER: Final = Reader(_scheduler, was_read=lambda value: isinstance(value, Scheduler))


def scheduler() -> Any:
    help = (
        "Work on the machines of a Dask scheduler of yours: tcp://HOST:PORT, or local:N for one with N processes of "
        "this machine, in place of --jobs. Its workers run what they are sent (pip install 'idl-audit\\[distributed]')."
    )
    return option(
        None,
        SCHEDULER,
        help,
        metavar="ADDRESS",
        panel=LIMITS,
        rank=8,
        in_file=False,
        in_environment=False,  # whoever answers there can run code here: it is named by whoever sits here
    )


def worker_timeout() -> Any:
    return option(
        None,
        SECONDS,
        "With --scheduler: where all its workers are gone, wait so long for others, and end then with what is decided; "
        "300 unless given.",
        metavar="SECONDS",
        panel=LIMITS,
        rank=8,
    )


def check_hands(
    jobs: int, scheduler: Scheduler | None, device: str = "auto", worker_timeout: float | None = None
) -> None:
    """Refuse processes, or a device, of this machine beside those of a scheduler. Raises OptionError."""
    if scheduler is None and worker_timeout is not None:
        raise OptionError("--worker-timeout is about the workers of --scheduler; give both, or leave it out")
    if scheduler is not None and jobs > 1:
        raise OptionError("--jobs is about processes of this machine alone; leave it out beside --scheduler")
    if scheduler is not None and device not in ("auto", "cpu"):
        raise OptionError("--device is about this machine alone, and workers search on their CPUs; leave it out")


def resume(help: str) -> Any:
    return option(False, SWITCH, help, panel=OUTPUT, rank=10, in_file=False)


def seed() -> Any:
    return option(0, whole(0), "Seed of every random choice.", metavar="N", panel=LIMITS, rank=9)


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
    output: Path | None = file(
        "Write the report (JSON) to this file; with -f json nothing else is printed.", "-o", rank=-1, in_file=False
    )
    force: bool = force()
    quiet: bool = option(
        False, SWITCH, "No progress, notes or warnings on stderr.", "-q", panel=OUTPUT, rank=8, in_file=False
    )
    verbose: bool = option(False, SWITCH, "Print every row of long tables.", "-v", panel=OUTPUT, rank=9, in_file=False)


@dataclass(frozen=True)
class Watching(Declared):
    """What a long run says of itself while it goes on."""

    progress: str = option(
        "auto",
        one_of("auto", "plain", "none"),
        "How far the work is, on stderr: a bar on a terminal and lines elsewhere (auto), lines with the time left "
        "(plain), nothing (none).",
        panel=OUTPUT,
        rank=8,
    )
    log_json: bool = option(
        False, SWITCH, "Progress and warnings on stderr as lines of JSON.", panel=OUTPUT, rank=8, in_file=False
    )
    metrics: Path | None = file(
        "Keep this file up to date with counts, times and memory, as OpenMetrics text.", rank=8, in_file=False
    )


@dataclass(frozen=True)
class Answer(Printing):
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


def notes() -> Any:
    help = "No notes, and no word of what was written."
    return option(False, SWITCH, help, "-q", panel=OUTPUT, rank=8, in_file=False)


CONFIG: Final = "The configuration; without it idl-audit.toml, or \\[tool.idl-audit] in pyproject.toml, of this folder."
