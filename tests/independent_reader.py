"""What independent_checker.py reads: the arrays of a proof file, and an ONNX model as exact numbers.

Coefficients are exact fractions first, then integers times a power of two with a bound of what was cut off (`Fixed`).
Products of matrices are split into limbs of at most 22 bits, so that every partial sum is an integer below 2**53, which
float64 holds exactly; all else is int64 below 2**62, or Python's integers. What must be rounded is rounded outward.
"""

import functools
import gzip
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

Array = np.ndarray
Row = dict[int, Fraction]  # an affine form: factors of inputs and states, and those two keys:
CONSTANT, ERROR = -1, -2  # its constant, and a bound of what each of its numbers may be off by
PADDING: Row = {}
LARGEST = 1 << 30  # bytes that a proof may unpack to
LOADED: dict[tuple[Path, str], "Network"] = {}  # networks that were read, by path and what a proof says of them


class Refused(Exception):
    """The proof is not accepted; the text says why."""


def demand(condition: object, reason: str) -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise Refused(reason)


class Arrays(dict[str, Array]):
    """The arrays of a proof file; each is taken once, with the type and shape that it must have."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            demand(sum(info.file_size for info in archive.infolist()) <= LARGEST, "the file unpacks to too much")
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                demand(name + ".npy" == info.filename and name not in self, f"entry {info.filename!r}")
                self[name] = self.parse(name, archive.open(info).read(LARGEST))

    @staticmethod
    def parse(name: str, data: bytes) -> Array:
        """One array of the archive, without pickles and without trusting its header."""
        stream, lib = io.BytesIO(data), np.lib.format
        readers = {(1, 0): lib.read_array_header_1_0, (2, 0): lib.read_array_header_2_0}
        shape, fortran, dtype = readers[lib.read_magic(stream)](stream)
        text = name == "meta" and dtype.str.startswith("<U")
        demand(text or dtype.str in ("<i8", "<f8", "<f4", "|i1", "|u1"), f"{name}: type {dtype.str}")
        right = len(data) - stream.tell() == math.prod(shape) * dtype.itemsize
        demand(right and all(type(n) is int and n >= 0 for n in shape), f"{name}: shape {shape}")
        return np.ndarray(shape, dtype, data, stream.tell(), order="F" if fortran else "C")

    def take(self, name: str, kind: str, *shape: int | None) -> Array:
        """The array of that name; None in the shape stands for any length."""
        demand(name in self, f"no array {name}")
        array = self.pop(name)
        right = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        demand(array.dtype.str == kind and right, f"{name} has type {array.dtype.str} and shape {array.shape}")
        demand(array.dtype.kind != "f" or np.isfinite(array).all(), f"{name} holds a number that is not finite")
        return array

    def indices(self, name: str, below: int, ascending: bool = True) -> Array:
        """Integers from 0 to below what is given."""
        array = self.take(name, "<i8", None)
        demand(((array >= 0) & (array < below)).all(), f"{name} is not within 0 to {below - 1}")
        demand(not ascending or (array[1:] > array[:-1]).all(), f"{name} does not ascend")
        return array


def members(value: Any, names: str) -> list[Any]:
    """The members of a JSON object that must have exactly these keys."""
    demand(isinstance(value, dict) and set(value) == set(names.split()), f"meta: the keys are not {names}")
    return [value[name] for name in names.split()]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated keys."""
    demand(len({key for key, _ in pairs}) == len(pairs), "meta: repeated keys")
    return dict(pairs)


def number(value: Any) -> Fraction:
    """A JSON number; Fraction raises for NaN and infinities."""
    demand(type(value) in (int, float), f"meta: {value!r} is not a number")
    return Fraction(value)


def combine(coefficients: Iterable[Any], rows: Iterable[Row]) -> Row:
    """The weighted sum of rows."""
    total: Row = {}
    for c, row in zip(coefficients, rows, strict=True):
        for key, x in row.items() if c else ():
            term = abs(c) * x if key == ERROR else c * x
            total[key] = total[key] + term if key in total else term
    return {key: x for key, x in total.items() if x}


def tensor(values: Iterable[Any], *shape: int) -> Array:
    """An object array, of rows for example."""
    return np.fromiter(values, dtype=object).reshape(shape)


def exact(array: Array) -> Array:
    """The weights of a file as fractions."""
    return tensor(map(Fraction, array.ravel().tolist()), *array.shape)


def added(x: Array, y: Array, sign: int = 1) -> Array:
    """x + sign y, where one of them may be constants."""
    x, y = (z if z.dtype == object else tensor(({CONSTANT: c} for c in exact(z).flat), *z.shape) for z in (x, y))
    return np.frompyfunc(lambda r, s: combine((1, sign), (r, s)), 2, 1)(x, y)


def weighted(scale: Array, x: Array) -> Array:
    """Each row times its factor, which may be broadcast."""
    return np.frompyfunc(lambda c, row: combine((c,), (row,)), 2, 1)(scale, x)


def places(a: dict, x: Array, kernel: Iterable[int]) -> tuple[list[Array], list[int]]:
    """What a kernel sees at each of its places, and the height and width of the result."""
    demand(x.ndim == 4 and a.get("auto_pad", b"NOTSET") == b"NOTSET" and not a.get("ceil_mode"), "other windows")
    (_, c, m, n), (top, left, bottom, right) = x.shape, a.get("pads", [0] * 4)
    padded = tensor([PADDING] * (c * (m + top + bottom) * (n + left + right)), c, m + top + bottom, n + left + right)
    padded[:, top : top + m, left : left + n] = x[0]
    (dy, dx), steps = a.get("dilations", [1, 1]), a.get("strides", [1, 1])
    tall, wide = ((k - 1) * d + 1 for k, d in zip(kernel, (dy, dx), strict=True))
    ys, xs = (range(0, m - k + 1, s) for m, k, s in zip(padded.shape[1:], (tall, wide), steps, strict=True))
    return [padded[:, i : i + tall : dy, j : j + wide : dx] for i in ys for j in xs], [len(ys), len(xs)]


class Block(NamedTuple):
    """States x = phi(z): the rows of z times `scales`, the slopes of phi, and what each state is the maximum of."""

    rows: list[Row]
    scales: list[Fraction]
    below: Fraction
    above: Fraction
    windows: list[list[Row]]


class Graph:
    """Walks an ONNX graph; a tensor that depends on the input is an array of rows over inputs and states."""

    def __init__(self, model: onnx.ModelProto, output: Any, units: Any, threshold: Any) -> None:
        self.blocks, self.softmax, values = list[Block](), False, {"": None}
        values |= {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        (entry,) = (i for i in model.graph.input if i.name not in values)
        batch, *shape = (d.dim_value for d in entry.type.tensor_type.shape.dim)
        demand(batch in (0, 1) and min(shape) > 0, f"input of shape {[batch, *shape]}")
        self.inputs = self.states = math.prod(shape)
        values[entry.name] = self.entry([1, *shape], *members(units, "scale mean std"))
        names = [o.name for o in model.graph.output]
        output = names[0] if output is None and len(names) == 1 else output
        demand(output in names, f"output {output!r}")
        for node in model.graph.node:
            a = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            x = [values[name] for name in node.input]
            last = node.op_type in ("Softmax", "LogSoftmax") and node.output[0] == output
            if last and x[0].shape == (1, x[0].size) and a.get("axis", -1) in (1, -1):
                self.softmax, values[output] = True, x[0]
            else:
                demand(node.op_type in OPERATORS and not node.domain, f"operator {node.op_type}")
                values[node.output[0]] = OPERATORS[node.op_type](self, a, *x)
        self.outputs = list(values[output].flat)
        if threshold is not None:
            (y,) = self.outputs
            self.outputs = [{}, combine((1, -1), (y, {CONSTANT: number(threshold)}))]

    def entry(self, shape: list[int], scale: Any, mean: Any, std: Any) -> Array:
        """The network's input in data units: (u scale - mean) / std."""
        channels = (-1, *[1] * (len(shape) - 2))
        shift = tensor(({CONSTANT: -number(m)} for m in mean or [0]), *channels)
        factor = tensor((1 / number(s) for s in std or [1]), *channels)
        x = tensor(({j: number(scale)} for j in range(self.inputs)), *shape)
        demand(type(mean) is type(std) is list and {factor.size, shift.size} <= {1, x.shape[1]}, "meta: preprocessing")
        return weighted(factor, added(x, shift))

    def block(self, x: Array, below: Any, above: Any, windows: Any = ()) -> Array:
        """Make states of the entries of a tensor; what is far below 1 is scaled by a power of two."""
        demand(-1 <= below <= 1 == above, "slopes outside [-1, 1]")
        sizes = [math.frexp(max(map(abs, row.values()), default=1))[1] for row in x.flat]
        scales, start = [Fraction(2) ** -min(n + 20, 0) for n in sizes], self.states
        rows = [combine((scale,), (row,)) for scale, row in zip(scales, x.flat, strict=True)]
        self.blocks.append(Block(rows, scales, Fraction(below), Fraction(above), list(windows)))
        self.states += x.size
        return tensor(({start + i: 1 / scale} for i, scale in enumerate(scales)), *x.shape)

    def linear(self, x: Array, count: int, function: Callable[[Array], Array]) -> Array:
        """Apply a linear map of so many weights; an identity block stands before it where the product has more."""
        result = function(x)
        if sum(map(len, result.flat)) > count + sum(map(len, x.flat)):
            result = function(self.block(x, 1, 1))
        return result

    def matmul(self, a: dict, x: Array, y: Array, bias: Any = None) -> Array:
        """MatMul and Gemm, the constant on the right."""
        demand(not a.get("transA") and a.get("alpha", 1.0) == a.get("beta", 1.0) == 1.0, "Gemm with factors")
        demand(x.dtype == object and y.ndim == 2, "MatMul of other shapes")
        columns = exact(y if a.get("transB") else y.T)
        result = self.linear(x, np.count_nonzero(y), lambda x: tensor(
            (combine(c, r) for r in x.reshape(-1, x.shape[-1]) for c in columns), *x.shape[:-1], len(columns)))
        return result if bias is None else added(result, bias)

    def conv(self, a: dict, x: Array, w: Array, bias: Any = None) -> Array:
        """A convolution, perhaps of groups of channels."""
        kernels, groups = exact(w).reshape(len(w), -1), a.get("group", 1)

        def apply(x: Array) -> Array:
            seen, shape = places(a, x, w.shape[2:])
            cells = [[p.ravel() for p in np.split(place, groups)] for place in seen]
            return tensor((combine(k, c[o * groups // len(w)]) for o, k in enumerate(kernels) for c in cells),
                          1, len(w), *shape)

        result = self.linear(x, np.count_nonzero(w) * x[0, 0].size, apply)
        return result if bias is None else added(result, bias.reshape(1, -1, 1, 1))

    def norm(self, a: dict, x: Array, *weights: Array) -> Array:
        """Batch-norm at inference; its root is irrational, and the factor has a relative error below 2**-140."""
        scale, shift, mean, variance = (w.reshape(-1, *[1] * (x.ndim - 2)) for w in weights)
        variance = exact(variance) + Fraction(a.get("epsilon", float(np.float32(1e-5))))
        demand((variance > 2**-100).all() and not a.get("training_mode"), "variances near 0")
        roots = np.frompyfunc(lambda v: Fraction(math.isqrt(math.floor(v * 2**400)), 2**200), 1, 1)(variance)
        x = weighted(exact(scale) / roots, added(x, mean, -1))
        for row in x.flat:
            row[ERROR] = row.get(ERROR, Fraction(0)) + max(map(abs, row.values()), default=Fraction(0)) / 2**140
        return added(x, shift)

    def average(self, a: dict, x: Array, axes: Iterable[int] = (2, 3)) -> Array:
        """Averages over windows, or over height and width: a convolution of each channel."""
        demand(sorted(i % 4 for i in axes) == [2, 3] and not any(a.get("pads", [])), "other averages")
        kernel = a.get("kernel_shape", x.shape[2:])
        weights = np.full((x.shape[1], 1, *kernel), Fraction(1, math.prod(kernel)), object)
        result = self.conv({**a, "group": x.shape[1]}, x, weights)
        return result if a.get("keepdims", 1) else result[:, :, 0, 0]

    def maxpool(self, a: dict, x: Array) -> Array:
        """Tournaments of max(s, t) = (s + t)/2 + |s - t|/2, and an identity block."""
        seen, shape = places(a, x, a["kernel_shape"])
        windows = [[r for r in p[c].flat if r is not PADDING] for c in range(x.shape[1]) for p in seen]
        cells, half = windows, Fraction(1, 2)
        while max(map(len, cells)) > 1:
            pairs = [list(zip(w[::2], w[1::2], strict=False)) for w in cells]
            order = [(i, n) for i in range(max(map(len, pairs))) for n, w in enumerate(pairs) if i < len(w)]
            z = tensor((combine((half, -half), pairs[n][i]) for i, n in order), -1)
            state = dict(zip(order, self.block(z, -1, 1), strict=True))
            cells = [[combine((half, half, 1), (*p, state[i, n])) for i, p in enumerate(pairs[n])] + w[len(w) & ~1 :]
                     for n, w in enumerate(cells)]
        return self.block(tensor((w[0] for w in cells), 1, x.shape[1], *shape), 1, 1, windows)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Constant": lambda g, a: onnx.numpy_helper.to_array(a["value"]), "Identity": lambda g, a, x: x,
    "Flatten": lambda g, a, x: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1),
    "Reshape": lambda g, a, x, shape: x.reshape([n or x.shape[i] for i, n in enumerate(shape.tolist())]),
    "Squeeze": lambda g, a, x, axes=None: x.squeeze(tuple(a["axes"] if axes is None else axes.tolist())),
    "Unsqueeze": lambda g, a, x, axes=None: np.expand_dims(x, tuple(a["axes"] if axes is None else axes.tolist())),
    "Transpose": lambda g, a, x: x.transpose(a.get("perm")),
    "Add": lambda g, a, x, y: added(x, y), "Sub": lambda g, a, x, y: added(x, y, -1),
    "Mul": lambda g, a, x, y: weighted(exact(y), x) if x.dtype == object else weighted(exact(x), y),
    "Relu": lambda g, a, x: g.block(x, 0, 1), "Div": lambda g, a, x, y: weighted(1 / exact(y), x),
    "LeakyRelu": lambda g, a, x: g.block(x, a.get("alpha", float(np.float32(0.01))), 1),
    "MatMul": Graph.matmul, "Gemm": Graph.matmul, "Conv": Graph.conv, "BatchNormalization": Graph.norm,
    "AveragePool": Graph.average, "GlobalAveragePool": Graph.average, "MaxPool": Graph.maxpool,
    "ReduceMean": lambda g, a, x, axes=None: g.average(a, x, a["axes"] if axes is None else axes.tolist()),
}


def bits(*arrays: Array) -> int:
    """The length of the largest integer."""
    return max(int(np.abs(a).max(initial=0)) for a in arrays).bit_length()


def shifted(x: Any, up: int) -> Any:
    """floor(x 2**up)."""
    return x << up if up >= 0 else x >> -up


def limbs(ints: Array, width: int, count: int) -> list[Array]:
    """Integers as sums of limb_i 2**(width i), the lower ones within 2**(width - 1) of 0."""
    if count == 1:
        return [ints.astype(float)]
    low = ((ints + (1 << width - 1)) & (1 << width) - 1) - (1 << width - 1)
    return [low.astype(float), *limbs(ints - low >> width, width, count - 1)]


@dataclass
class Fixed:
    """Numbers within err of ints, all times 2**-exp."""

    ints: Array
    exp: int
    err: int = 0

    limbs = functools.cached_property(lambda self: limbs(self.ints, 18, 3))  # of integers below 2**53

    def at(self, exp: int) -> "Fixed":
        """The same numbers with another exponent."""
        up = min(max(exp - self.exp, -63), 63)
        return Fixed(shifted(self.ints, up), exp, shifted(self.err, exp - self.exp) + 2 * (up < 0))


def together(f: Fixed, g: Fixed) -> tuple[Fixed, Fixed]:
    """Both with one exponent, below 2**59."""
    exp = min(f.exp + 59 - bits(f.ints), g.exp + 59 - bits(g.ints), max(f.exp, g.exp))
    return f.at(exp), g.at(exp)


def plus(f: Fixed, g: Fixed) -> Fixed:
    """The sum."""
    f, g = together(f, g)
    return Fixed(f.ints + g.ints, f.exp, f.err + g.err)


def rounded(real: Array) -> Fixed:
    """What is chosen, as integers of 42 bits."""
    real = np.where(np.isfinite(real), real, 0.0)
    exp = 42 - math.frexp(np.abs(real).max(initial=0))[1]
    return Fixed(np.rint(np.ldexp(real, exp)).astype(np.int64), exp)


def pull(lam: Fixed, m: Fixed) -> Fixed:
    """lam times the matrix m: lam is exact and has 42 bits, m has 52, and there are fewer than 2**14 terms."""
    terms = [(a @ w, 22 * i + 18 * j) for i, a in enumerate(limbs(lam.ints, 22, 2)) for j, w in enumerate(m.limbs)]
    cut = max(0, sum(int(np.abs(p).max(initial=0)) << s for p, s in terms).bit_length() - 59)
    total = sum(shifted(p.astype(np.int64), max(s - cut, -63)) for p, s in terms)
    off = m.err * int(np.abs(lam.ints).sum(axis=-1).max(initial=0))
    return Fixed(total, lam.exp + m.exp - cut, (off >> cut) + 7)


def product(a: Array, b: Array, cut: int) -> Array:
    """floor(a b / 2**cut) for a, b below 2**61, cut >= 31 and results below 2**62."""
    a1, a0, b1, b0 = a >> 31, a & 0x7FFFFFFF, b >> 31, b & 0x7FFFFFFF
    middle = a1 * b0 + a0 * b1 + (a0 * b0 >> 31)
    return (a1 * b1 << 62 - cut) + (middle >> cut - 31) if cut <= 62 else a1 * b1 + (middle >> 31) >> cut - 62


class Network:
    """Blocks, newest first, with matrices from older blocks; number `depth` stands for the inputs and a 1 behind."""

    def __init__(self, graph: Graph, kept: dict[int, Array]) -> None:
        self.graph, self.depth, self.inputs, start = graph, len(graph.blocks), graph.inputs, graph.inputs
        self.place = {j: (self.depth, j) for j in range(self.inputs)} | {CONSTANT: (self.depth, self.inputs)}
        self.blocks, self.sizes = list[Block](), [self.inputs + 1]
        for k, b in zip(range(self.depth)[::-1], graph.blocks, strict=True):
            index = kept.get(k, np.arange(len(b.rows))).tolist()
            self.place |= {start + i: (k, n) for n, i in enumerate(index)}
            rows, scales = ([each[i] for i in index] for each in (b.rows, b.scales))
            self.blocks.insert(0, b._replace(rows=rows, scales=scales))
            self.sizes.insert(0, len(index))
            start += len(b.rows)
        demand(max(self.sizes) < 1 << 14, "a block of more states than fit the arithmetic")
        self.maps = [self.compiled(b.rows) for b in self.blocks]

    def compiled(self, rows: list[Row]) -> dict[int, Fixed]:
        """Rows as matrices, one for each block that they read; states that are not kept are 0."""
        entries: dict[int, list[tuple[int, int, Fraction]]] = {self.depth: []}
        for r, row in enumerate(rows):
            for key, value in row.items():
                if key in self.place:
                    entries.setdefault(self.place[key][0], []).append((r, self.place[key][1], value))
        off = max((row.get(ERROR, Fraction(0)) for row in rows), default=Fraction(0))
        return {k: self.matrix((len(rows), self.sizes[k]), e, off) for k, e in entries.items()}

    @staticmethod
    def matrix(shape: tuple[int, int], entries: list[tuple[int, int, Fraction]], off: Fraction) -> Fixed:
        """One matrix: its largest entry has 51 bits, and the others are rounded where they need more."""
        exp = 51 - math.frexp(max((abs(value) for _, _, value in entries), default=0))[1]
        ints, inexact = np.zeros(shape, np.int64), False
        for r, i, value in entries:
            ints[r, i], rest = divmod(value.numerator << max(exp, 0), value.denominator << max(-exp, 0))
            inexact |= rest != 0
        return Fixed(ints, exp, inexact + math.ceil(off * Fraction(2) ** exp))


def load(path: Path, about: dict[str, Any]) -> Network:
    """The network of a model file with the digest that is told; that of several files is of their digests, as lines."""
    sha256, output, units, threshold = members(about, "sha256 output_name preprocessing threshold")
    data = path.read_bytes()
    model = onnx.load_model_from_string(gzip.decompress(data) if path.suffix == ".gz" else data)
    beside = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    files = [data, *((path.parent / name).read_bytes() for name in sorted(beside))]
    digests = [hashlib.sha256(each).hexdigest() for each in files]
    whole = digests[0] if len(files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    demand(sha256 == whole, "another model file")
    if (key := (path, json.dumps(about))) not in LOADED:
        onnx.load_external_data_for_model(model, str(path.parent))
        LOADED[key] = Network(Graph(model, output, units, threshold), {})
    return LOADED[key]
