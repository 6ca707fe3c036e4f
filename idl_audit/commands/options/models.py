"""What the commands that read, write and check models are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from idl_audit.commands.options import common as c
from idl_audit.commands.options.reading import ANY_OUTPUTS, IDLE, DataOptions, ModelOptions, NamedFile, named_file
from idl_audit.data.numbers import Eps, parse_number
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.values.errors import OptionError
from idl_audit.values.options import (
    PATH,
    REQUIRED,
    SWITCH,
    Declared,
    Reader,
    group,
    one_of,
    option,
    options_of,
    several_of,
    whole,
)


@dataclass(frozen=True)
class _Beside(c.Printing):
    """Of the commands whose -o is a model: the report beside it."""

    output: Path | None = c.file("Also write the report (JSON) to this file.", name="json", in_file=False)


@dataclass(frozen=True)
class _ReportBeside(_Beside):
    """With its older name."""

    output: Path | None = c.file("Also write the report (JSON) to this file.", "--report", name="json", in_file=False)


@dataclass(frozen=True)
class ConvertOptions(Declared):
    """What convert is asked for."""

    kappa: float = option(0.5, c.NUMBER, "Rescale so that ||A||_inf is at most this.", metavar="<float>")
    rescale: bool = option(True, SWITCH, "Rescale the states.", off="--no-rescale")
    flat: bool = option(False, SWITCH, "Also store A, B, C, D as one CSR matrix each.")
    force: bool = c.force()
    witness: Path | None = c.file("Write what `verify` checks S and well-posedness by.")
    """An .npz file; it speaks of the written model."""
    spy: Path | None = c.file("Draw the structure of A, B, C, D into this PNG file.")
    model: ModelOptions = group(ModelOptions, without=(*ANY_OUTPUTS, "runtime_optimisation"))
    seed: int = c.seed()


@dataclass(frozen=True)
class Convert(Declared):
    """Turn a network into its implicit model A, B, C, D, b, d and check that it gives the same outputs.

    The model x = phi(Ax + Bu + b), y = Cx + Du + d (phi: the activations) is compared with the network on 20
    random inputs, or on --data.
    """

    model: Path = c.model()
    out: Path = c.new_model()
    data: DataOptions | None = group(
        DataOptions, when=c.given("data"), otherwise=f"{IDLE} (the converted model reads what the network itself reads)"
    )
    options: ConvertOptions = group(ConvertOptions)
    printing: c.Printing = group(_ReportBeside)


@dataclass(frozen=True)
class ConvertProperty(Declared):
    """Translate a property from VNN-LIB 1 to VNN-LIB 2.0: one network N with the input X and the output Y.

    The result has the same boxes, alternatives and rows, with exact numbers and no exponents. Version 1 speaks of real
    numbers, and so does the result, unless --element asks for another type.
    """

    property: Path = c.model(help="A VNN-LIB property of version 1: .vnnlib or .vnnlib.gz.")
    output: Path | None = option(
        None,
        PATH,
        "Write to this file, gzipped where its name ends in .gz; without it, or with -, print the result.",
        "-o",
        rank=-9,
    )
    onnx: Path | None = option(
        None,
        PATH,
        "X and Y have the shapes of this model's input and output, open dimensions as 1; without it, X and Y are flat.",
        metavar="MODEL.onnx",
    )
    element: str = option(
        "real",
        one_of("real", "float32"),
        "Element type of X and Y; in a query about float32, numbers are rounded to it, and so is the network's "
        "arithmetic.",
    )
    force: bool = c.force()
    quiet: bool = c.notes()


@dataclass(frozen=True)
class PredictOptions(Declared):
    """What predict is asked for."""

    save: Path | None = c.file(
        "Write outputs and states to this .npz file (outputs, predictions, states, blocks, indices)."
    )
    force: bool = c.force()
    model: ModelOptions = group(ModelOptions)


@dataclass(frozen=True)
class Predict(Declared):
    """Compute the outputs of the implicit model: y = Cx + Du + d with the state x = phi(Ax + Bu + b).

    For a model with loops, the table has the steps to each sample's state and the residual max|x - phi(Ax + Bu + b)|;
    above it stands the proof that there is no other state.
    """

    model: Path = c.model()
    data: DataOptions = group(DataOptions)
    options: PredictOptions = group(PredictOptions)
    printing: c.Printing = group(c.Printing)


@dataclass(frozen=True)
class WriteOptions(Declared):
    """Where the new model goes, and how the old one is read."""

    out: Path | None = c.new_model(None)
    force: bool = c.force()
    model: ModelOptions = group(ModelOptions)
    seed: int = c.seed()
    preprocessing: Preprocessing = group(Preprocessing)
    """Also of --bounds where there are no samples."""


@dataclass(frozen=True)
class Reduce(Declared):
    """Remove the states that change no output: constant, dead and unobserved ones. The outputs stay the same.

    Without --bounds the smaller model is the same function everywhere; with --bounds 0,1 it is the same on inputs
    within them, and more states may be dead there. Both models are compared before anything is written.
    """

    model: Path = c.model()
    out: Path = c.new_model()
    data: DataOptions | None = group(DataOptions, when=c.given("data"), otherwise=IDLE)
    options: WriteOptions = group(WriteOptions, without=ANY_OUTPUTS)
    printing: c.Printing = group(_Beside)


@dataclass(frozen=True)
class KeepCertified:
    """How many samples must stay certified: so many, or a share of those that are before."""

    count: int | None = None
    share: float | None = None

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{100 * self.share:g}%"

    def least(self, before: int) -> int:
        """Return the number, where `before` samples are certified by the model as it is."""
        return self.count if self.count is not None else math.ceil((self.share or 0.0) * before - 1e-9)


def _keep_certified(text: str, flag: str) -> KeepCertified:
    value = parse_number(text.removesuffix("%").strip(), option=flag)
    if text.endswith("%"):
        if not 0 < value <= 100:
            raise OptionError(f"{flag} must be a share from 0% to 100%, or a number of samples, not {text!r}")
        return KeepCertified(share=value / 100)
    if value < 1 or value != int(value):
        raise OptionError(f"{flag} must be a number of samples, 1 or more, or a share such as 95%, not {text!r}")
    return KeepCertified(count=int(value))


def _was_kept(value: object) -> bool:
    return isinstance(value, KeepCertified)


KEEP_CERTIFIED = Reader(_keep_certified, was_read=_was_kept)


@dataclass(frozen=True)
class CompressOptions(Declared):
    """Which compression, and what is asked about it; exactly one of the three is given."""

    prune: float | None = option(
        None, c.NUMBER, "Leave out coefficients below T times the largest of their matrix or kernel.", metavar="T"
    )
    quantize: int | None = option(None, whole(), "2^BITS - 1 levels for each matrix or kernel.", metavar="BITS")
    rank: int | None = option(
        None, whole(), "Matrices of rank K, stored as two factors where that is less.", metavar="K"
    )
    of: tuple[str, ...] = option(
        ("A", "B", "C", "D"),
        several_of(("A", "B", "C", "D"), "matrix"),
        "Which matrices: A (states to states), B (input to states), C and D (both to the outputs).",
        metavar="A,B,C,D",
    )
    by_block: bool = option(
        False, SWITCH, "List the blocks by the drift that compressing each alone causes.", name="report"
    )
    keep_certified: KeepCertified | None = option(
        None,
        KEEP_CERTIFIED,
        "Compress only as far as K samples of -d, or P% of those that are certified before, are certified at -e EPS: "
        "T, BITS or K of the other option is how far to go at most.",
        metavar="K|P%",
    )
    eps: Eps | None = c.eps(
        None, c.ONE_EPS, "Of --keep-certified: how far every input may move, in data units (before --scale)."
    )
    time_limit: float = c.time_limit()
    max_nodes: int | None = c.max_nodes()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.keep_certified is None) != (self.eps is None):
            raise OptionError("--keep-certified and -e EPS go together: give both")


@dataclass(frozen=True)
class Compress(Declared):
    """Make the model smaller and prove how far its outputs can move by that.

    Proved are: for all inputs u a bound offset + slope max|u_j|; one number for the box of inputs (--bounds, or the
    least box around the samples of -d); one at the samples themselves. The largest difference that was measured stands
    beside them. Bounds are in units of the outputs, for the numbers that the network reads. With --keep-certified the
    setting is the furthest at which `certify` still proves so many samples; where none does, nothing is written.
    """

    model: Path = c.model()
    data: DataOptions | None = group(DataOptions, when=c.given("data"), otherwise=IDLE)
    asked: CompressOptions = group(CompressOptions)
    options: WriteOptions = group(WriteOptions)
    printing: c.Printing = group(_Beside)


@dataclass(frozen=True)
class Compose(Declared):
    """Put models f (FIRST), g (SECOND) and any number of others (MORE) together into one implicit model.

    cascade: y = g(f(u)). sum: y = f(u) + g(u), or with --weights a f(u) + b g(u). concat: y = (f(u), g(u)).
    feedback, of two models: y = f(u + g(y)), refused where nothing proves that the loop has one state for every input.
    Every command takes the result.
    """

    kind: str = option(REQUIRED, one_of(*c.KINDS), "How they are put together.", positional=True)
    first: Path = c.model(help="An ONNX file, or an .npz with an implicit model, such as `convert` writes.")
    second: Path = c.model(help="The other model.")
    out: Path = c.new_model()
    more: tuple[Path, ...] = option(
        (), PATH, "Further models, in a cascade behind the others.", positional=True, several=True, in_file=False
    )
    weights: tuple[float, ...] | None = option(
        None, c.NUMBERS, "Of a sum, one number for each model: 0.5,0.5 for the mean of two.", metavar="LIST"
    )
    options: WriteOptions = group(WriteOptions, without=[*options_of(ModelOptions), *options_of(Preprocessing)])
    printing: c.Printing = group(_Beside, without=("quiet",))


@dataclass(frozen=True)
class Inspect(Declared):
    """Look at a model file without running it: operators, shapes, states, memory, and what is unsupported."""

    model: Path = c.model()
    check: bool = option(False, SWITCH, "Exit with 1 where something in the file is unsupported.", in_file=False)
    reading: ModelOptions = group(ModelOptions, without=(*options_of(TorchOptions), *ANY_OUTPUTS))
    printing: c.Printing = group(c.Printing)


@dataclass(frozen=True)
class Verify(Declared):
    """Check a witness or a certificate against its model, in float64 rounded outward: no search, no solver.

    The proof of a VNN-LIB 2 query is checked against the query: FILE MODEL QUERY where it is about one network, else
    FILE --query QUERY with --network NAME=MODEL for each of them.

    A folder in the place of FILE stands for all .npz files in it, and --also for others: they are checked with one
    start, each has its line, and the exit code is 1 where one is refused.
    """

    file: Path = c.model(help="Witness or certificate that --witness, --certificates or --proof wrote, or a folder.")
    model: Path | None = c.model(
        None, help="Its model: ONNX, PyTorch, or an .npz with an implicit model. None where networks are given by name."
    )
    property: Path | None = c.model(
        None, help="A VNN-LIB property that the certificate must be about; without it, FILE says what it proves."
    )
    query: Path | None = option(
        None, PATH, "The VNN-LIB 2 query that the certificate is about, the same as PROPERTY.", metavar="QUERY"
    )
    network: tuple[NamedFile, ...] = option(
        (),
        named_file("a network of the query and its model"),
        "The model of a network of the query. Again for others.",
        metavar="NAME=FILE",
        several=True,
    )
    also: tuple[Path, ...] = option(
        (), PATH, "Another file or folder of the same model. Again for others.", metavar="FILE", several=True
    )
    jobs: int = c.jobs("Files checked at the same time, in processes.")
    second: Path | None = option(
        None, PATH, "The other network, where the certificate is about two (`compare --certificates`).", metavar="MODEL"
    )
    reading: ModelOptions = group(ModelOptions, without=ANY_OUTPUTS)
    printing: c.Printing = group(c.Answer)


@dataclass(frozen=True)
class Demo(Declared):
    """Audit a small network that comes with the package: verdicts, proofs, a report and a page, in some seconds.

    Everything is written into one folder, network and samples included, so that every other command can be tried there.
    """

    folder: Path = option("idl-audit-demo", PATH, "The folder to write; it is made.", positional=True, in_file=False)
    force: bool = c.force()
    printing: c.Printing = group(c.Printing, without=("format", "output"))

    @property
    def quiet(self) -> bool:
        """Whether nothing is said."""
        return self.printing.quiet


@dataclass(frozen=True)
class Init(Declared):
    """Write a commented configuration for a model and its samples: radii and valid range guessed from the data."""

    model: Path = c.model()
    data: Path | None = c.model(
        None, help="Samples and labels: .npz, .npy, .csv, .parquet, .safetensors, .pt, or a folder of images."
    )
    samples: Path | None = option(None, PATH, "The same as DATA, as in other commands.", "-d", name="data_")
    output: Path = option("idl-audit.toml", PATH, "Where to write the configuration.", "-o")
    reading: ModelOptions = group(ModelOptions, without=("max_memory",))
    force: bool = c.force()
    quiet: bool = c.notes()
