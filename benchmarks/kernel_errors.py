"""How far float32 kernels are from the functions: `python -m benchmarks.kernel_errors [--every 64] [--only tanh,exp]`.

Every activation of one variable that is computed by a library function, as its operator and as the chains that
exporters write, in onnxruntime without and with its optimisations and in torch, and as recurrent layers have it
(`benchmarks.recurrent_kernels`), on all 2^32 float32 inputs or every
N-th of them. The reference is the activation itself in float64 (`idl_audit.implicit.activations`), which proofs are
about; a test compares it with mpmath. Where torch's float64 kernel of the same function is faster, it takes its
place for each 2^16 inputs on every 64th of which the two agree to 2^-44. The inputs are cut into 1,024 bins of 2^22
neighbouring numbers, half an octave each, those around 1 first; of each bin the greatest |error|, |error| / |z| and
|error| / |phi(z)| are kept.

Results depend on the position in the tensor: a vector's body is measured with 2^16 inputs at a time, its tail with
tensors of 1 to 64 inputs at 16 alignments, on a sample of every bin.

What is measured is kept in --state, a file a function, and a later run adds to it: a bin is replaced by a finer
measurement only. --write makes benchmarks/kernels.json, reports/kernels.md and idl_audit/implicit/kernel_table.py.

On another machine, or with other versions, --check measures (a quick one with --every 1024) and tells what is above the
bounds that proofs take; its exit code is then 1.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks import recurrent_kernels
from benchmarks.kernel_tables import BINS, COLUMNS, LARGEST, Bins, Fit, beyond, distance, is_finite, summary, written
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.kernels import RECURRENT, measured
from idl_audit.values.arrays import Float32Array, FloatArray

BIN: Final = 2**22
BLOCK: Final = 2**16
TAILS: Final = 2**11
"""Inputs of a bin that are run in short tensors too."""
SPOTS: Final = 2**10
"""Inputs of a block at which the reference is the activation itself."""
AGREEMENT: Final = 2.0**-44
"""A float64 kernel is a reference where it is that close to the activation, of the value."""
OPSET: Final = 21
Kernel = Callable[[Float32Array], Float32Array]


@dataclass(frozen=True)
class Form:
    """One way in which a function is computed."""

    name: str
    run: Kernel


@dataclass(frozen=True)
class Function:
    """An activation and what computes it."""

    name: str
    exact: Callable[[FloatArray], FloatArray]
    chains: Mapping[str, Callable[[], onnx.ModelProto]]
    in_torch: Callable[[torch.Tensor], torch.Tensor]
    values: tuple[float, float] = (-math.inf, math.inf)
    """Between which its values lie."""
    rises: int = 0
    """1 or -1 where it is monotone."""
    layers: Mapping[str, Kernel] = field(default_factory=dict)
    """Places within layers at which it is applied, besides."""

    has_faster: bool = False
    """Whether torch's float64 kernel is faster than the activation itself."""

    def with_faster(self) -> Function:
        """Return the function, told whether torch's float64 kernel is faster."""
        z = _inputs(order()[0], 1, slice(BLOCK)).astype(np.float64)
        seconds = []
        for faster in (False, True):
            trial = replace(self, has_faster=faster)
            trial.reference(z)
            start = time.process_time()
            for _ in range(8):
                trial.reference(z)
            seconds.append(time.process_time() - start)
        return replace(self, has_faster=seconds[1] < seconds[0])

    def reference(self, z: FloatArray) -> FloatArray:
        """Return phi(z) in float64: by torch, where that is the activation itself as far as every 64th value tells."""
        if not self.has_faster:
            return self.exact(z)
        with torch.inference_mode():
            values = np.asarray(self.in_torch(torch.from_numpy(z)).numpy())
        some = np.s_[:: -(-len(z) // SPOTS)]
        exact = self.exact(z[some])
        return values if _agree(values[some], exact) else self.exact(z)

    def forms(self) -> list[Form]:
        """Return every way in which it is computed here, those that give the same bits only once."""
        every = [
            Form(f"onnxruntime {name}, {level}", _session(make(), level))
            for name, make in self.chains.items()
            for level in LEVELS
        ]
        every.append(Form(f"torch, {torch.backends.cpu.get_cpu_capability()}", self._torch))
        every += [Form(place, run) for place, run in self.layers.items()]
        return _distinct(every)

    def _torch(self, x: Float32Array) -> Float32Array:
        with torch.inference_mode():
            return np.asarray(self.in_torch(torch.from_numpy(x)).numpy())


def _agree(values: FloatArray, exact: FloatArray) -> bool:
    """Whether values are the exact ones but for float64 rounding; NaN agrees with NaN alone."""
    close = np.abs(values - exact) <= AGREEMENT * np.abs(exact)
    return bool((close | (values == exact) | (np.isnan(values) & np.isnan(exact))).all())


LEVELS: Final = MappingProxyType(
    {
        "as written": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "optimised": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
)


def _session(model: onnx.ModelProto, level: str) -> Kernel:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level, options.graph_optimization_level = 3, LEVELS[level]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(x: Float32Array) -> Float32Array:
        return np.asarray(session.run(None, {"x": x})[0])

    return run


def _distinct(forms: Sequence[Form]) -> list[Form]:
    """Return the forms without those that give the same bits as an earlier one on 2^17 inputs and in short tensors."""
    sample = np.concatenate([_inputs(number, 2**15) for number in range(BINS)])
    found: dict[bytes, Form] = {}
    for form in forms:
        body, tails = form.run(sample), [form.run(sample[k : k + n]) for n, k in _cuts(len(sample))]
        bits = np.concatenate([body, *tails])
        bits[np.isnan(bits)] = np.nan
        same = bits.tobytes()
        if same in found:
            first = found[same]
            found[same] = Form(f"{first.name}; {form.name}", first.run)
        else:
            found[same] = form
    return list(found.values())


def _cuts(n: int) -> Iterator[tuple[int, int]]:
    """Yield lengths and starts of short tensors."""
    for length in range(1, 65):
        yield length, (length * 7919) % (n - 64)


# --- functions --------------------------------------------------------------------------------------------------------

Step = tuple[Any, ...]
"""(operator, inputs, output, attributes): inputs are names, or numbers for constants."""


def _model(steps: Sequence[Step], opset: int = OPSET) -> onnx.ModelProto:
    constants: dict[str, float] = {}
    nodes = []
    for op, inputs, output, *attributes in steps:
        names = []
        for one in inputs:
            if not isinstance(one, str):
                constants[f"c{len(constants)}"] = one
            names.append(one if isinstance(one, str) else f"c{len(constants) - 1}")
        nodes.append(helper.make_node(op, names, [output], **(attributes[0] if attributes else {})))
    entry, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y"))
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [entry], [last], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 22 else 11)


def _chain(*steps: Step, opset: int = OPSET) -> Callable[[], onnx.ModelProto]:
    return lambda: _model(steps, opset)


def _one(op: str, **attributes: Any) -> Callable[[], onnx.ModelProto]:
    return _chain((op, ("x",), "y", attributes))


ROOT_HALF, CUBIC = math.sqrt(2 / math.pi), 0.044715
GELU = (("Erf", ("a",), "b"), ("Add", ("b", 1.0), "c"))
GELU_TANH = (
    ("Mul", ("a", CUBIC), "b"),
    ("Add", ("x", "b"), "c"),
    ("Mul", ("c", ROOT_HALF), "d"),
    ("Tanh", ("d",), "e"),
    ("Add", ("e", 1.0), "f"),
    ("Mul", ("x", "f"), "g"),
    ("Mul", ("g", 0.5), "y"),
)
CHAINS: Final[Mapping[str, Mapping[str, Callable[[], onnx.ModelProto]]]] = MappingProxyType(
    {
        "sigmoid": {"Sigmoid": _one("Sigmoid")},
        "tanh": {"Tanh": _one("Tanh")},
        "erf": {"Erf": _one("Erf")},
        "gelu": {
            "Gelu": _one("Gelu"),
            "x / sqrt(2), Erf": _chain(
                ("Div", ("x", math.sqrt(2)), "a"), *GELU, ("Mul", ("x", "c"), "d"), ("Mul", ("d", 0.5), "y")
            ),
            "x sqrt(.5), Erf, halved first": _chain(
                ("Mul", ("x", math.sqrt(0.5)), "a"), *GELU, ("Mul", ("x", 0.5), "d"), ("Mul", ("d", "c"), "y")
            ),
        },
        "gelu_tanh": {
            "Gelu": _one("Gelu", approximate="tanh"),
            "x^3, Tanh": _chain(("Pow", ("x", 3.0), "a"), *GELU_TANH),
            "x x x, Tanh": _chain(("Mul", ("x", "x"), "q"), ("Mul", ("q", "x"), "a"), *GELU_TANH),
        },
        "silu": {
            "x Sigmoid(x)": _chain(("Sigmoid", ("x",), "a"), ("Mul", ("x", "a"), "y")),
            "Swish": _chain(("Swish", ("x",), "y"), opset=24),
        },
        "softplus": {
            "Softplus": _one("Softplus"),
            "Where(x > 20, x, Softplus(x))": _chain(
                ("Greater", ("x", 20.0), "a"), ("Softplus", ("x",), "b"), ("Where", ("a", "x", "b"), "y")
            ),
        },
        "mish": {
            "Mish": _one("Mish"),
            "x Tanh(Softplus(x))": _chain(("Softplus", ("x",), "a"), ("Tanh", ("a",), "b"), ("Mul", ("x", "b"), "y")),
        },
        "softsign": {
            "Softsign": _one("Softsign"),
            "x / (1 + |x|)": _chain(("Abs", ("x",), "a"), ("Add", ("a", 1.0), "b"), ("Div", ("x", "b"), "y")),
        },
        "elu": {"Elu": _one("Elu")},
        "selu": {"Selu": _one("Selu")},
        "celu": {"Celu": _one("Celu")},
        "hard_swish": {
            "HardSwish": _one("HardSwish"),
            "x HardSigmoid(x)": _chain(
                ("HardSigmoid", ("x",), "a", {"alpha": 1 / 6, "beta": 0.5}), ("Mul", ("x", "a"), "y")
            ),
            "x Clip(x + 3, 0, 6) / 6": _chain(
                ("Add", ("x", 3.0), "a"),
                ("Clip", ("a", 0.0, 6.0), "b"),
                ("Mul", ("x", "b"), "c"),
                ("Div", ("c", 6.0), "y"),
            ),
        },
        "exp": {"Exp": _one("Exp")},
        "log": {"Log": _one("Log")},
        "sqrt": {"Sqrt": _one("Sqrt"), "x^.5": _chain(("Pow", ("x", 0.5), "y"))},
        "reciprocal": {
            "Reciprocal": _one("Reciprocal"),
            "1 / x": _chain(("Div", (1.0, "x"), "y")),
            "x^-1": _chain(("Pow", ("x", -1.0), "y")),
        },
        "rsqrt": {
            "Sqrt, Reciprocal": _chain(("Sqrt", ("x",), "a"), ("Reciprocal", ("a",), "y")),
            "1 / Sqrt": _chain(("Sqrt", ("x",), "a"), ("Div", (1.0, "a"), "y")),
            "x^-.5": _chain(("Pow", ("x", -0.5), "y")),
        },
        "square": {"x x": _chain(("Mul", ("x", "x"), "y")), "x^2": _chain(("Pow", ("x", 2.0), "y"))},
        **{
            name: {name.capitalize(): _one(name.capitalize())}
            for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")
        },
    }
)
EXPONENTS: Final = (3.0, 4.0, 5.0, 6.0, -2.0, -3.0, 1.5, 2.5, 0.25, 0.75, -0.75, -1.5)
"""Of powers that have no name of their own."""
IN_TORCH: Final[Mapping[str, Callable[[torch.Tensor], torch.Tensor]]] = MappingProxyType(
    {
        **{
            name: getattr(torch, name)
            for name in (
                *("sigmoid", "tanh", "erf", "exp", "log", "sqrt", "reciprocal", "rsqrt", "square", "sin", "cos"),
                *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"),
            )
        },
        **{
            name: getattr(torch.nn.functional, name)
            for name in ("gelu", "silu", "softplus", "mish", "softsign", "elu", "selu", "celu")
        },
        "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "hard_swish": torch.nn.functional.hardswish,
    }
)
RISING: Final = frozenset(
    {
        *("sigmoid", "tanh", "erf", "softplus", "softsign", "elu", "selu", "celu", "exp", "log", "sqrt", "asin"),
        *("atan", "sinh", "asinh", "acosh", "atanh"),
    }
)
FALLING: Final = frozenset({"acos", "rsqrt"})
VALUES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        **dict.fromkeys(("tanh", "erf", "softsign", "sin", "cos"), (-1.0, 1.0)),
        "sigmoid": (0.0, 1.0),
        **dict.fromkeys(("exp", "softplus", "sqrt", "rsqrt", "square"), (0.0, math.inf)),
        "cosh": (1.0, math.inf),
    }
)


def functions() -> dict[str, Function]:
    """Return every function that is measured, by its name in the table."""
    found = {
        name: Function(
            name,
            ACTIVATIONS[name](),
            chains,
            IN_TORCH[name],
            VALUES.get(name, (-math.inf, math.inf)),
            int(name in RISING) - int(name in FALLING),
        )
        for name, chains in CHAINS.items()
    }
    for exponent in EXPONENTS:
        name = f"power {exponent:g}"
        chains = {f"Pow {exponent:g}": _chain(("Pow", ("x", exponent), "y"))}
        exact = ACTIVATIONS["power"](exponent=exponent)
        found[name] = Function(name, exact, chains, _to_the(exponent))
    for name in recurrent_kernels.FUNCTIONS:
        layers = {**recurrent_kernels.in_onnxruntime(name), **recurrent_kernels.in_torch(name)}
        found[f"{RECURRENT}{name}"] = replace(found[name], name=f"{RECURRENT}{name}", rises=0, layers=layers)
    return found


def _to_the(exponent: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.pow(x, exponent)


# --- measuring --------------------------------------------------------------------------------------------------------


def order() -> list[int]:
    """Return the bins' numbers, those of numbers next to 1 first; a bin without finite numbers is left out."""
    return sorted(filter(is_finite, range(BINS)), key=lambda number: (distance(number), number))


def _inputs(number: int, every: int, part: slice = slice(None)) -> Float32Array:
    """Return every N-th float32 number of a bin, shifted a little from bin to bin."""
    start = number * BIN
    patterns = np.arange(start + (number * 37) % every, start + BIN, every, dtype=np.uint32)[part]
    return patterns.view(np.float32)


@dataclass
class _Seen:
    """What is kept of one form on one bin."""

    numbers: FloatArray = field(default_factory=lambda: np.zeros(COLUMNS))

    def add(self, function: Function, x: Float32Array, y: Float32Array, exact: _Exact) -> None:
        """Take what a kernel makes of inputs into account."""
        off = y.astype(np.float64)
        off -= exact.values
        np.abs(off, out=off)
        if exact.counts is not None:
            off = np.where(exact.counts, off, 0.0)
        largest = float(off.max())
        if math.isnan(largest):
            off, largest = np.where(np.isnan(off), np.inf, off), math.inf
        for column, sizes in enumerate((None, exact.inputs, exact.sizes)):
            # what is divided by is at least sizes.least: most blocks cannot raise a maximum
            if sizes is not None and not _quotient(largest, sizes.least) > self.numbers[column]:
                continue
            values = off if sizes is None else np.divide(off, sizes.all, out=np.zeros_like(off), where=off > 0)
            if (greatest := values.max()) > self.numbers[column]:
                self.numbers[column], self.numbers[column + 3] = greatest, x[values.argmax()]
        for end, side in zip(function.values, (-1.0, 1.0), strict=True):
            if side * (float(y.max() if side > 0 else y.min()) - end) <= self.numbers[6]:
                continue
            past = np.where(True if exact.counts is None else exact.counts, side * (y - end), 0.0)
            self.numbers[6] = max(self.numbers[6], float(past.max(initial=0.0)))
        self.numbers[7] += len(x)

    def steps(self, function: Function, x: Float32Array, y: Float32Array, exact: _Exact) -> None:
        """Count where a monotone function's results go the wrong way from one input to the next."""
        if not function.rises:
            return
        rises = (function.rises > 0) != np.signbit(x[-1])
        wrong = y[1:] < y[:-1] if rises else y[1:] > y[:-1]
        if wrong.any():
            if exact.counts is not None:
                wrong &= exact.counts[1:] & exact.counts[:-1]
            self.numbers[8] += np.count_nonzero(wrong)
            ulps = np.abs(y[1:][wrong] - y[:-1][wrong]) / np.spacing(np.abs(y[1:][wrong]))
            self.numbers[9] = max(self.numbers[9], float(ulps.max(initial=0.0)))


@dataclass(frozen=True)
class _Sizes:
    """|v| of some numbers v."""

    all: FloatArray
    least: float
    all_count: bool
    """Whether all are numbers below 2^127."""

    @classmethod
    def of(cls, numbers: FloatArray) -> _Sizes:
        """Return the sizes of some numbers."""
        sizes = np.abs(numbers)
        least = float(sizes.min())
        if math.isnan(least):
            least = float(np.fmin.reduce(sizes))
        return cls(sizes, least, bool(sizes.max() < LARGEST))


def _quotient(a: float, b: float) -> float:
    """Return a / b for a, b >= 0: 0 / 0 is 0, as no error is none of whatever size."""
    return a / b if b > 0 else math.inf if a > 0 else 0.0


@dataclass(frozen=True)
class _Exact:
    """The exact values at some inputs, and what errors are divided by."""

    values: FloatArray
    counts: np.ndarray[Any, np.dtype[np.bool_]] | None
    """Where phi is a number, and no overflow is near: bounds refuse what reaches 2^127. None: everywhere."""
    inputs: _Sizes
    sizes: _Sizes

    @classmethod
    def of(cls, function: Function, x: Float32Array) -> _Exact:
        """Return the exact values at some inputs."""
        z = x.astype(np.float64)
        values = function.reference(z)
        inputs, sizes = _Sizes.of(z), _Sizes.of(values)
        everywhere = inputs.all_count and sizes.all_count
        return cls(values, None if everywhere else (sizes.all < LARGEST) & (inputs.all < LARGEST), inputs, sizes)


def measure_bin(function: Function, forms: Sequence[Form], number: int, every: int) -> tuple[FloatArray, float]:
    """Return the numbers that `Bins` keeps for each form on every N-th input of a bin, and min |phi|."""
    with np.errstate(all="ignore"):
        return _measured_bin(function, forms, number, every)


def _measured_bin(function: Function, forms: Sequence[Form], number: int, every: int) -> tuple[FloatArray, float]:
    found = [_Seen() for _ in forms]
    least = math.inf
    n = len(range((number * 37) % every, BIN, every))
    for start in range(0, n, BLOCK):
        x = _inputs(number, every, slice(start, start + BLOCK))
        exact = _Exact.of(function, x)
        if exact.counts is not None and not exact.counts.any():
            for one in found:
                one.numbers[7] += len(x)
            continue
        least = min(least, exact.sizes.least if exact.counts is None else float(exact.sizes.all[exact.counts].min()))
        for form, one in zip(forms, found, strict=True):
            y = form.run(x)
            one.add(function, x, y, exact)
            one.steps(function, x, y, exact)
    x = np.ascontiguousarray(_inputs(number, every)[:: max(1, n // TAILS)])
    exact = _Exact.of(function, x)
    if exact.counts is None or exact.counts.any():
        for form, one in zip(forms, found, strict=True):
            one.add(function, x, _in_short_tensors(form.run, x), exact)
    return np.stack([one.numbers for one in found]), least


def _in_short_tensors(run: Kernel, x: Float32Array) -> Float32Array:
    """Return a kernel's results for tensors of 1, 2, ..., 64 inputs, one behind the other, at changing alignments."""
    y, start, length = np.empty_like(x), 0, 1
    while start < len(x):
        some = slice(start, start + length)
        y[some] = run(x[some])
        start, length = some.stop, length % 64 + 1
    return y


def measure(function: Function, every: int, state: Path, *, seconds: float = math.inf) -> Bins:
    """Measure a function, bin by bin, and keep what is found in a file; what is there is not measured again.

    Args:
        function: what is measured.
        every: 1 for all inputs.
        state: the folder of such files.
        seconds: of the processor, after which it stops between two bins.
    """
    function = function.with_faster()
    forms = function.forms()
    bins = Bins.read(state, function.name)
    start = time.process_time()
    for count, number in enumerate(order()):
        if bins.every[number] and bins.every[number] <= every and bins.has([form.name for form in forms], number):
            continue
        bins.put([form.name for form in forms], number, every, *measure_bin(function, forms, number, every))
        if count % 64 == 63:
            bins.write(state)
        if time.process_time() - start > seconds:
            break
    bins.seconds += time.process_time() - start
    bins.write(state)
    return bins


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="measure every N-th input")
    parser.add_argument("--only", default="", metavar="NAMES", help="functions, separated by commas")
    parser.add_argument("--state", type=Path, default=Path("build/kernels"), metavar="DIR", help="where results are")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of the processor, for each function")
    parser.add_argument("--write", action="store_true", help="write the table and the report of what is measured")
    parser.add_argument("--check", action="store_true", help="compare with the bounds that proofs take; writes nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    named = functions()
    chosen = given.only.split(",") if given.only else [] if given.write else list(named)
    if given.check:
        above = [name for name in chosen if _is_above(named[name], given.every)]
        sys.exit(1 if above else 0)
    for name in chosen:
        bins = measure(named[name], given.every, given.state, seconds=given.seconds)
        told = summary(bins)
        bound = ", ".join(f"{key} {told[key]:.3g}" for key in ("absolute", "relative", "of_value"))
        print(f"{name}: {bins.seconds:.0f} s of processor time, dense to 2^{bins.dense}; {bound}", flush=True)
    if given.write:
        written(given.state, list(named))


def _is_above(function: Function, every: int) -> bool:
    """Measure a function anew, and tell what is above the bound that proofs take; return whether anything is."""
    with tempfile.TemporaryDirectory() as state:
        bins = measure(function, every, Path(state))
    kernel = measured(function.name)
    told = beyond(bins, Fit(kernel.absolute, float(kernel.relative), kernel.of_value, kernel.within))
    print(f"{function.name}: {'; '.join(told) or 'within its bound'}", flush=True)
    return bool(told)


if __name__ == "__main__":
    main()
