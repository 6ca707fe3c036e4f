"""An independent checker of proof files, written from docs/proof-format.md alone: it shares no code with idl_audit.

    python independent_checker.py MODEL.onnx PROOF.npz

Of a linear operator, onnx's reference implementation tells the matrix, by what it makes of unit vectors: products with
0 and 1, and sums with 0, are exact. Rows over inputs and states are fractions. Their matrices are integers times a
power of two with a bound of what was cut off (`Fixed`); products of them are split into limbs of at most 22 bits, so
that every partial sum is an integer below 2**53, which float64 holds exactly. All else is int64 below 2**62, or
Python's integers. What must be rounded is rounded outward; floating point only *chooses* multipliers, and any choice is
sound (part 5 of the format). States that a proof does not keep stay in the network: `kept` only says which states its
numbers speak of.

A file is accepted or `Refused`. Loops, S, few inputs that change (U_card) and thresholds are not supported.
"""

import functools
import hashlib
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.reference

Array = np.ndarray
Arrays = Mapping[str, Array]
Bounds = list[tuple[Array, Array]]  # ends of each block's z, then of the inputs and a 1: one row, or one for each node
Row = dict[int, Fraction]  # an affine form: factors of inputs and states, and its constant under this key:
CONSTANT = -1
LIMIT = 1 << 60  # ends are integers up to this
GRID = 160  # bounds of functionals are integers times 2**-GRID
CHUNK = 1 << 18  # entries of an array at a time


class Refused(Exception):
    """The proof is not accepted; the text says why."""


def demand(condition: object, reason: str) -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise Refused(reason)


def combine(coefficients: Iterable[Any], rows: Iterable[Row]) -> Row:
    """The weighted sum of rows."""
    total: Row = {}
    for c, row in zip(coefficients, rows, strict=False):
        for key, x in row.items() if c else ():
            total[key] = total[key] + c * x if key in total else c * x
    return {key: x for key, x in total.items() if x}


def tensor(values: Iterable[Any], *shape: int) -> Array:
    """An array of rows, or of fractions."""
    return np.fromiter(values, dtype=object).reshape(shape)


def added(x: Array, y: Array, sign: int = 1) -> Array:
    """x + sign y, where y may be constants."""
    y = y if y.dtype == object else tensor(({CONSTANT: Fraction(c)} for c in y.ravel().tolist()), *y.shape)
    return np.frompyfunc(lambda r, s: combine((1, sign), (r, s)), 2, 1)(x, y)


def times(matrix: Array, x: Array) -> list[Row]:
    """The rows that a matrix makes of rows."""
    pairs, rows = ((m, np.flatnonzero(m)) for m in matrix), x.reshape(-1)
    return [combine(map(Fraction, m[some].tolist()), rows[some]) for m, some in pairs]


class Block(NamedTuple):
    """States x = phi(z): rows of z, the slope of phi below 0 (it is 1 above), and what each state is the maximum of."""

    rows: list[Row]
    below: int
    windows: list[list[Row]]


class Graph:
    """Walks an ONNX graph; a tensor that depends on the input is an array of rows."""

    def __init__(self, model: onnx.ModelProto, output: str | None, scale: Any, mean: Any, std: Any) -> None:
        self.opsets, self.blocks = {each.domain: each.version for each in model.opset_import}, list[Block]()
        demand(self.opsets.get("", 0) >= 7, "an opset before 7, which broadcasts otherwise")
        values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        (entry,) = (i for i in model.graph.input if i.name not in values)
        batch, *shape = (d.dim_value for d in entry.type.tensor_type.shape.dim)
        demand(batch in (0, 1) and min(shape) > 0, f"input of shape {[batch, *shape]}")
        demand({len(mean), len(std)} <= {0, 1, shape[0]}, "meta: preprocessing")
        self.inputs = self.states = math.prod(shape)
        inputs = tensor(({j: Fraction(scale)} for j in range(self.inputs)), 1, *shape)
        units = (tensor(map(Fraction, each), -1, *[1] * (len(shape) - 1)) for each in (mean or [0], std or [1]))
        normal = np.frompyfunc(lambda u, m, s: combine((1 / s, -m / s), (u, {CONSTANT: Fraction(1)})), 3, 1)
        values[entry.name] = normal(inputs, *units)
        for node in model.graph.node:
            values[node.output[0]] = self.apply(node, *(values[name] for name in node.input))
        names = [o.name for o in model.graph.output]
        demand(output in names or (output is None and len(names) == 1), f"output {output!r}")
        self.outputs = list(values[output or names[0]].flat)

    def apply(self, node: onnx.NodeProto, x: Array, *more: Array) -> Array:
        """What a node makes of a tensor of rows, and of constants."""
        kind, attributes = node.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        demand(x.dtype == object and not node.domain, f"operator {kind} of a constant")
        if kind == "Relu":
            return self.block(x, 0)
        if kind in ("Flatten", "Reshape"):
            shape = more[0].tolist() if more else [attributes.get("axis", 1), -1]
            demand(shape in ([1, -1], [1, x.size], [-1, x.size]), f"{kind} to another shape")
            return x.reshape(1, -1)
        if kind in ("Add", "Sub"):
            return added(x, more[0], 1 if kind == "Add" else -1)
        weighs = kind in ("Gemm", "MatMul", "Conv")
        demand(weighs or kind in ("AveragePool", "ReduceMean", "MaxPool"), f"operator {kind}")
        demand(kind != "MatMul" or more[0].ndim == 2, "a stack of matrices")
        demand(not attributes.get("transA") and attributes.get("alpha", 1) == attributes.get("beta", 1) == 1, "factors")
        bare = onnx.helper.make_node(kind, node.input[:2], ["made"])
        bare.attribute.extend(node.attribute)
        units = np.eye(x.size + 1, x.size, dtype=more[0].dtype if weighs else float).reshape(-1, *x.shape[1:])
        feeds = dict(zip(node.input[:2], (units, *more), strict=False))
        (made,) = onnx.reference.ReferenceEvaluator(bare, self.opsets).run(None, feeds)
        demand(len(made) == len(units) and not made[-1].any(), f"{kind} over several samples")
        matrix, shape = made[:-1].reshape(x.size, -1).T, (1, *made.shape[1:])
        if kind == "MaxPool":
            return self.maxpool(x, matrix > 0, shape)
        demand(weighs or (np.frexp(matrix[matrix != 0])[0] == 0.5).all(), "means of numbers other than 2**n")
        rows, most = times(matrix, x), np.count_nonzero(matrix) + sum(map(len, x.flat))
        if sum(map(len, rows)) > most:  # an identity block stands where the product has more numbers
            rows = times(matrix, self.block(x, 1))
        bias = more[1].reshape(-1, *[1] * (len(shape) - 2)) if weighs and len(more) > 1 else np.zeros(1)
        return added(tensor(rows, *shape), bias)

    def block(self, x: Array, below: int, windows: Iterable[list[Row]] = ()) -> Array:
        """Make states of the entries of a tensor."""
        self.blocks.append(Block(list(x.flat), below, list(windows)))
        self.states += x.size
        return tensor(({j: Fraction(1)} for j in range(self.states - x.size, self.states)), *x.shape)

    def maxpool(self, x: Array, places: Array, shape: tuple[int, ...]) -> Array:
        """Tournaments of max(s, t) = (s + t)/2 + |s - t|/2, and an identity block."""
        if any(len(row) > 1 or min(row) < self.inputs or set(row.values()) != {1} for row in x.flat):
            x = self.block(x, 1)
        cells, half = [list(x.reshape(-1)[place]) for place in places], Fraction(1, 2)
        demand(len(set(map(len, windows := cells))) == 1, "padded windows")
        while (n := len(cells[0])) > 1:
            pairs = [(w[i], w[i + 1]) for i in range(0, n - 1, 2) for w in cells]
            played = self.block(tensor((combine((half, -half), pair) for pair in pairs), -1), -1)
            best = [combine((half, half, 1), (*pair, state)) for pair, state in zip(pairs, played, strict=True)]
            cells = [best[i :: len(cells)] + w[n & ~1 :] for i, w in enumerate(cells)]
        return self.block(tensor((w[0] for w in cells), *shape), 1, windows)


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
    """Numbers within err of ints, all times 2**-exp; ints are below 2**58, and those of matrices below 2**53."""

    ints: Array
    exp: int
    err: int = 0

    limbs = functools.cached_property(lambda self: limbs(self.ints, 18, 3))

    def coarser(self, cut: int) -> "Fixed":
        """The same numbers without some of their bits."""
        return Fixed(self.ints >> min(cut, 63), self.exp - cut, (self.err >> cut) + 2)

    def __add__(self, other: "Fixed") -> "Fixed":
        """The sum, with one bit less than the coarser of the two."""
        exp = min(self.exp, other.exp) - 1
        f, g = self.coarser(self.exp - exp), other.coarser(other.exp - exp)
        return Fixed(f.ints + g.ints, exp, f.err + g.err)


def trimmed(ints: Array) -> tuple[Array, int]:
    """Integers of 42 bits, and how many bits are cut off."""
    cut = max(0, bits(ints) - 42)
    return ints >> cut, cut


def pull(few: Array, exp: int, m: Fixed) -> Fixed:
    """few 2**-exp times the matrix m, where few has 42 bits, and sums have fewer than 2**14 terms."""
    terms = [(a @ w, 22 * i + 18 * j) for i, a in enumerate(limbs(few, 22, 2)) for j, w in enumerate(m.limbs)]
    cut = max(0, sum(int(np.abs(p).max(initial=0)) << s for p, s in terms).bit_length() - 58)
    total = sum(shifted(p.astype(np.int64), max(s - cut, -63)) for p, s in terms)
    off = m.err * int(np.abs(few).sum(axis=-1).max(initial=0))
    return Fixed(total, exp + m.exp - cut, (off >> cut) + 7)


def product(a: Array, b: Array, cut: int) -> Array:
    """floor(a b / 2**cut) for a, b below 2**60, cut >= 31 and results below 2**62."""
    a1, a0, b1, b0 = a >> 31, a & 0x7FFFFFFF, b >> 31, b & 0x7FFFFFFF
    middle = a1 * b0 + a0 * b1 + (a0 * b0 >> 31)
    return (a1 * b1 << 62 - cut) + (middle >> cut - 31) if cut <= 62 else a1 * b1 + (middle >> 31) >> cut - 62


def least(up: int, err: int, *pairs: tuple[Array, Array]) -> Array:
    """A lower bound of 2**up times the sum, over the last axis, of the least product of pairs: a within err, and b."""
    n, reach = pairs[0][0].shape[-1], bits(*(b for _, b in pairs))
    cut = max(31, bits(*(a for a, _ in pairs)) + reach + n.bit_length() - 61)
    sums = functools.reduce(np.minimum, (product(a, b, cut) for a, b in pairs)).sum(axis=-1)
    return shifted(sums.astype(object), up + cut) + shifted(-(err * n << reach), up)


class Network:
    """Blocks, newest first, with matrices from older blocks; number `depth` stands for the inputs and a 1 behind."""

    def __init__(self, graph: Graph) -> None:
        self.inputs, self.outputs, self.depth = graph.inputs, graph.outputs, len(graph.blocks)
        self.blocks, older = graph.blocks[::-1], graph.inputs
        self.sizes = [*(len(block.rows) for block in self.blocks), self.inputs + 1]
        self.place = {j: (self.depth, j) for j in range(self.inputs)} | {CONSTANT: (self.depth, self.inputs)}
        for k in reversed(range(self.depth)):
            self.place |= {older + i: (k, i) for i in range(self.sizes[k])}
            older += self.sizes[k]
        self.width = max(self.sizes)
        demand(self.width < 1 << 14, "a block of more states than fit the arithmetic")
        self.maps = [self.matrices(block.rows) for block in self.blocks]
        self.windows = [self.matrices([row for window in block.windows for row in window]) for block in self.blocks]

    def matrices(self, rows: list[Row]) -> dict[int, Fixed]:
        """Rows as matrices, one for each block that they read, and always one for the inputs."""
        entries: dict[int, dict[tuple[int, int], Fraction]] = {self.depth: {}}
        for r, row in enumerate(rows):
            for key, value in row.items():
                k, i = self.place[key]
                entries.setdefault(k, {})[r, i] = value
        return {k: self.matrix((len(rows), self.sizes[k]), some) for k, some in entries.items()}

    @staticmethod
    def matrix(shape: tuple[int, int], entries: dict[tuple[int, int], Fraction]) -> Fixed:
        """One matrix: its largest entry has 51 bits, and the others are rounded where they need more."""
        exp, ints = 51 - math.frexp(max(map(abs, entries.values()), default=2**-999))[1], np.zeros(shape, np.int64)
        scale = Fraction(2) ** exp
        for place, value in entries.items():
            ints[place] = math.floor(value * scale)
        return Fixed(ints, exp, int(any(value * scale % 1 for value in entries.values())))


@functools.lru_cache
def load(path: Path, sha256: str, output: str | None, units: str) -> Network:
    """The network of a model file with the digest that is told; that of several files is of their digests, as lines."""
    model, names = onnx.load_model(path, load_external_data=False), [path.name]
    names += [e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"]
    digests = [hashlib.sha256((path.parent / name).read_bytes()).hexdigest() for name in dict.fromkeys(names)]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    demand(sha256 == whole, "another model file")
    onnx.load_external_data_for_model(model, str(path.parent))
    return Network(Graph(model, output, *json.loads(units)))


def take(arrays: Arrays, name: str, kind: str, *shape: int | None) -> Array:
    """The array of that name, type and shape, in which None stands for any length."""
    array = arrays[name]
    right = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    demand(right and array.dtype.str == kind, f"{name} has type {array.dtype.str} and shape {array.shape}")
    return array


class Forest:
    """Trees of a proof, and what is chosen in their leaves."""

    def __init__(self, arrays: Arrays, name: str, goals: int, network: Network, kept: list[Array]) -> None:
        self.roots = take(arrays, name + "roots", "<i8", goals)
        self.variable = take(arrays, name + "variable", "<i8", None)
        self.child, self.cut = (take(arrays, name + end, kind, len(self.variable))
                                for end, kind in (("child", "<i8"), ("cut", "<f8")))
        self.inner, places = self.variable >= 0, [np.arange(network.inputs), *kept]
        nodes = np.concatenate([self.roots, first := self.child[self.inner], first + 1])
        demand(np.array_equal(np.sort(nodes), np.arange(len(self.variable))), f"{name}: nodes that are not of one tree")
        demand((first > np.flatnonzero(self.inner)).all(), f"{name}child")
        self.leaf, leaves = np.cumsum(~self.inner) - 1, np.count_nonzero(~self.inner)
        self.state = np.concatenate(places)[self.variable]
        self.block = np.repeat([network.depth, *range(network.depth)], [*map(len, places)])[self.variable]
        self.choices: dict[tuple[str, int], tuple[Array, Array]] = {}
        self.planes: dict[int, tuple[Array, Array, Array]] = {}
        for k, kind in itertools.product(range(network.depth), ("slopes", "multipliers", "duals", "planes")):
            if (own := f"{name}{kind}.{k}.") + "leaves" not in arrays:
                continue
            some, index = take(arrays, own + "leaves", "<i8", None), np.full(leaves, -1)
            index[some] = np.arange(len(some))
            if kind == "planes":
                states = kept[k][take(arrays, own + "states", "<i8", None)]
                self.planes[k] = index, states, take(arrays, own + "shares", "|u1", len(some), len(states), None)
            else:
                self.choices[kind, k] = index, np.full((len(some) + 1, network.sizes[k]), np.nan)
                self.choices[kind, k][1][:-1, kept[k]] = take(arrays, own + "values", "<f4", len(some), len(kept[k]))

    def pick(self, k: int, leaves: Any, kind: str, default: Any) -> Any:
        """What is chosen for the states of a block in some leaves, or else the default."""
        if (kind, k) not in self.choices:
            return default
        index, values = self.choices[kind, k]
        return np.where(np.isnan(chosen := values[index[leaves]]), default, chosen)


class Part:
    """One part of a proof: no point of a box makes one of the alternatives hold."""

    def __init__(self, arrays: Arrays, name: str, network: Network, lo: list[Fraction], hi: list[Fraction]) -> None:
        self.arrays, self.name, self.network, self.depth = arrays, name, network, network.depth
        demand(all(x <= y for x, y in zip(lo, hi, strict=True)), "an empty box")
        exp = 57 - math.ceil(max(1, *map(abs, lo), *map(abs, hi))).bit_length()
        demand(exp > 0, "a box that does not fit the arithmetic")
        self.exps: list[Any] = [None] * network.depth + [exp]
        self.box = tuple(np.array([[*(rounding(x * 2**exp) for x in end), 2**exp]], np.int64)
                         for end, rounding in ((lo, math.floor), (hi, math.ceil)))
        self.moves = {j for j, (x, y) in enumerate(zip(lo, hi, strict=True)) if x < y}

    def lower(self, maps: dict[int, Fixed], rows: Array, signs: Array, b: Bounds, lines: str = "usual",
              forest: Forest | None = None, leaves: Any = None) -> Array:
        """Lower bounds of signs * rows of affine maps times 2**GRID: the inequality of part 5."""
        parts = {k: Fixed(m.ints[rows] * signs[:, None], m.exp, m.err) for k, m in maps.items()}
        total = np.zeros(len(rows), object)
        for k in (k for k in range(self.depth) if k in parts):
            v, (lo, hi), none = parts.pop(k), b[k], np.array(lines == "none")
            if forest and k in forest.planes:
                v, none, factors, constant = self.tilted(k, v, lo, hi, *forest.planes[k], leaves)
                parts[self.depth], total = parts[self.depth] + factors, total + constant
            lam = self.multipliers(k, v, lo, hi, none, lines == "chords", forest, leaves)
            v = v.coarser(min(max(0, math.frexp(abs(lam).max())[1] + v.exp - 58), 63))
            few, cut = trimmed(np.rint(np.ldexp(lam, v.exp)).astype(np.int64))
            total += self.states(k, v, few << cut, lo, hi)
            for j, m in self.network.maps[k].items() if few.any() else ():
                pulled = pull(few, v.exp - cut, m)
                parts[j] = parts[j] + pulled if j in parts else pulled
        w, (lo, hi) = parts[self.depth], b[self.depth]
        return total + least(GRID - w.exp - self.exps[-1], w.err, (w.ints, lo), (w.ints, hi))

    def multipliers(self, k: int, v: Fixed, lo: Array, hi: Array, none: Array, chords: bool, forest: Forest | None,
                    leaves: Any) -> Array:
        """The multipliers lam that the format tells, 0 for some, in floating point: any numbers are sound."""
        below, bends, real = self.network.blocks[k].below, (lo < 0) & (hi > 0), np.ldexp(v.ints.astype(float), -v.exp)
        pick = functools.partial(forest.pick, k, leaves) if forest else lambda _, default: default
        with np.errstate(all="ignore"):
            stable = np.where(lo >= 0, 1, below)
            s = np.where(bends, pick("slopes", np.where(hi > -lo - (lo >> 40), 1, below)), stable)
            t = np.where(bends, (hi - below * lo.astype(float)) / (hi.astype(float) - lo), stable)
            lam = pick("duals", np.where((real >= 0) & (not chords), s, t) * real - pick("multipliers", 0.0))
            return np.where(none | ~(abs(lam) < 2.0 ** (120 - v.exp)), 0.0, lam)

    def states(self, k: int, v: Fixed, lam: Array, lo: Array, hi: Array) -> Array:
        """The sum over states of the minimum of v phi(z) - lam z over [lo, hi]."""
        steep, kink = v.ints * self.network.blocks[k].below, np.where((lo < 0) & (hi > 0), 0, lo)
        at_l, at_h = (np.where(low, steep, v.ints) - lam for low in (lo < 0, hi <= 0))
        return least(GRID - v.exp - self.exps[k], v.err, (at_l, lo), (at_h, hi), (at_l, kink))

    def tilted(self, k: int, v: Fixed, lo: Array, hi: Array, index: Array, states: Array, shares: Array,
               leaves: Any) -> Any:
        """Planes, v (a . u + c) for v phi(z): what is left of v, where, the factors of u, and the constant."""
        (rows, below, _), m = self.network.blocks[k], self.network.maps[k][self.depth]
        demand(below < 1 == len(self.network.maps[k]), "planes of a block of another kind")
        use, w = np.zeros(v.ints.shape, bool), m.ints[states]
        slope = np.zeros((len(leaves), *w.shape))
        use[:, states] = True
        use &= (lo < 0) & (hi > 0) & (v.ints < 0) & (index[leaves] >= 0)[:, None]
        for i, state in enumerate(states):
            reads = sorted(self.moves.intersection(rows[state]))
            slope[:, i, reads] = shares[index[leaves], i, : len(reads)]
        a = np.rint((below + slope / 255 * (1 - below)) * w).astype(np.int64)
        c = np.maximum(*(-least(0, m.err, *((f, end) for end in self.box)) for f in (a - below * w, a - w)))
        taken, cut = trimmed(np.where(use, v.ints, 0))
        some, exp = taken[:, states], v.exp - cut
        pulled = pull(some[:, None], exp, Fixed(a, m.exp))
        factors, left = Fixed(pulled.ints[:, 0], pulled.exp, pulled.err), Fixed(v.ints - (taken << cut), v.exp, v.err)
        return left, use, factors, shifted((some.astype(object) * c).sum(axis=1), GRID - exp - m.exp - self.exps[-1])

    def meet(self, k: int, b: Bounds, states: Array, signs: Array, values: Array) -> None:
        """Intersect the bounds of a block with lower bounds of signs * z; the first ones are of all its states.

        They are rounded outward by a hair more than they must: an end that is 0 is beyond it for who writes in float64.
        """
        if self.exps[k] is None:
            self.exps[k] = 57 - (max(map(abs, values)) >> GRID).bit_length()
        new = np.clip(shifted(values, self.exps[k] - GRID) - 1024, -LIMIT, LIMIT).astype(np.int64)
        (lo, hi), low = (end.copy() for end in b[k]), signs > 0
        np.maximum.at(lo[0], states[low], new[low])
        np.minimum.at(hi[0], states[~low], -new[~low])
        b[k] = lo, hi

    def refine(self, k: int, b: Bounds, every: bool = False) -> None:
        """Bounds of a block by intervals and the usual lines: of states that bend or, after chords, of every one."""
        (_, below, windows), maps, step = self.network.blocks[k], self.network.maps[k], 1 + CHUNK // self.network.width
        kinds = ("none", *("chords",) * every, "usual")[: None if len(maps) > 1 and below < 1 else 1]
        for lines in kinds:
            some = np.tile(np.flatnonzero((b[k][0][0] < 0) & (b[k][1][0] > 0) | every | (lines == "none")), 2)
            signs = np.repeat(np.array([1, -1]), len(some) // 2)
            found = [self.lower(maps, some[i : i + step], signs[i : i + step], b, lines)
                     for i in range(0, len(some), step)]
            self.meet(k, b, some, signs, np.concatenate([np.zeros(0, object), *found]))
        starts = np.cumsum([0, *map(len, windows)])  # maxima lie between the largest lower and upper ends
        for sign, best in ((1, np.maximum), (-1, np.minimum)) if windows else ():
            signs = np.full(starts[-1], sign)
            ends = self.lower(self.network.windows[k], np.arange(starts[-1]), signs, b, "none")
            self.meet(k, b, np.arange(len(windows)), signs[: len(windows)], best.reduceat(ends, starts[:-1]))

    def children(self, forest: Forest, node: int, b: Bounds) -> Iterator[tuple[int, Bounds]]:
        """The two children of a node, and their bounds."""
        k, j, child = forest.block[node], forest.state[node], int(forest.child[node])
        cut, (lo, hi) = Fraction(forest.cut[node].item()) * Fraction(2) ** self.exps[k], b[k]
        demand(k < self.depth or lo[0, j] <= cut <= hi[0, j], "a cut outside its box")
        below, above = hi.copy(), lo.copy()
        below[0, j] = min(hi[0, j], max(math.ceil(cut), -LIMIT))
        above[0, j] = max(lo[0, j], min(math.floor(cut), LIMIT))
        for node, ends in ((child, (lo, below)), (child + 1, (above, hi))):
            inside = [*b[:k], ends, *b[k + 1 :]]
            for older in range(self.depth)[::-1] if k == self.depth else ():
                self.refine(older, inside, every=True)
            yield node, inside

    def leaves(self, forest: Forest, node: int, b: Bounds) -> Iterator[tuple[int, Bounds]]:
        """The leaves of a tree, and their bounds."""
        if forest.inner[node]:
            for child, inside in self.children(forest, node, b):
                yield from self.leaves(forest, child, inside)
        else:
            yield node, b

    def proved(self, maps: dict[int, Fixed], rows: Array, signs: Array, forest: Forest, trees: Any, b: Bounds) -> Array:
        """A lower bound of signs * rows for each of some trees: that of its worst leaf."""
        worst = np.full(len(rows), 1 << 400, object)
        found = ((i, *leaf) for i, tree in enumerate(trees) for leaf in self.leaves(forest, forest.roots[tree], b))
        planes = max((len(states) for _, states, _ in forest.planes.values()), default=1)
        while some := [*itertools.islice(found, 1 + CHUNK // (self.network.width * planes))]:
            which, nodes, inside = zip(*some, strict=True)
            each = [tuple(map(np.concatenate, zip(*ends, strict=True))) for ends in zip(*inside, strict=True)]
            own, leaves = list(which), forest.leaf[list(nodes)]
            np.minimum.at(worst, own, self.lower(maps, rows[own], signs[own], each, "usual", forest, leaves))
        return worst

    def stage(self, name: str, b: Bounds, kept: list[Array]) -> None:
        """The bounds of a stage: for each block those of the format, and what the trees of its lemmas prove."""
        blocks = take(self.arrays, name + "blocks", "<i8", None)
        for k in reversed(range(self.depth)):
            self.refine(k, b)
            for own in (f"{name}lemma.{j}." for j in np.flatnonzero(blocks == k)):
                states = kept[k][take(self.arrays, own + "states", "<i8", None)]
                signs = take(self.arrays, own + "signs", "|i1", len(states)).astype(np.int64)
                forest = Forest(self.arrays, own, len(states), self.network, kept)
                split = forest.block[forest.inner]
                right = ((split > k) & (split < self.depth)).all() and (abs(signs) == 1).all()
                demand(right, f"{own}variable or signs")
                values = self.proved(self.network.maps[k], states, signs, forest, range(len(states)), b)
                self.meet(k, b, states, signs, values)

    def check(self, alternatives: list[list[Row]]) -> None:
        """Refuse unless the goals refute each of the alternatives."""
        ends = [np.full((1, n), LIMIT) for n in self.network.sizes[:-1]]
        b, kept, stages = [*((-end, end) for end in ends), self.box], [np.arange(e.size) for e in ends], list[Bounds]()
        while not stages or f"{self.name}stage.{len(stages)}.blocks" in self.arrays:
            self.stage(f"{self.name}stage.{len(stages)}.", b, kept)
            stages.append(list(b))
            for k, name in ((k, f"{self.name}kept.{k}") for k in range(self.depth) if len(stages) == 1):
                kept[k] = take(self.arrays, name, "<i8", None) if name in self.arrays else kept[k]
        missing, rest = set(range(len(alternatives))), list[tuple[Forest, int, Bounds]]()
        for g in itertools.takewhile(lambda g: f"{self.name}goals.{g}.stage" in self.arrays, itertools.count()):
            name = f"{self.name}goals.{g}."
            b = stages[take(self.arrays, name + "stage", "<i8", 1)[0]]
            numbers = take(self.arrays, name + "alternatives", "<i8", None)
            weights = take(self.arrays, name + "weights", "<f8", len(numbers), None)
            forest = Forest(self.arrays, name, len(numbers), self.network, kept)
            rest += [(forest, node, b) for node in forest.roots[numbers < 0]]
            trees = np.flatnonzero(numbers >= 0)
            sums = [combine(map(Fraction, weights[i].tolist()), alternatives[numbers[i]]) for i in trees]
            maps = self.network.matrices(sums)
            values = self.proved(maps, np.arange(len(trees)), np.ones(len(trees), np.int64), forest, trees, b)
            demand((weights >= 0).all() and (values > 0).all(), f"{name}weights, or a leaf that is not closed")
            missing -= set(numbers[trees].tolist())
        demand(not missing or rest, "alternatives that no goal refutes")
        lengths = {a: {1, 2 * (len(alternatives[a]) <= 12), len(alternatives[a])} - {0} for a in missing}
        groups = [(a, some) for a in missing for n in lengths[a] for some in itertools.combinations(alternatives[a], n)]
        maps = self.network.matrices([combine([1] * len(some), some) for _, some in groups])
        for tree in rest if missing else ():
            self.refute(*tree, maps, [a for a, _ in groups], missing)

    def refute(self, forest: Forest, node: int, b: Bounds, maps: dict[int, Fixed], whose: list[int],
               missing: set[int]) -> None:
        """Refuse unless each leaf, or a node above it, refutes each alternative that is missing, by one of its sums."""
        rows = np.array([r for r, a in enumerate(whose) if a in missing])
        values = self.lower(maps, rows, np.ones(len(rows), np.int64), b)
        if missing := missing.difference(whose[r] for r in rows[values > 0]):
            demand(forest.inner[node], "a leaf that is not closed")
            for child, inside in self.children(forest, node, b):
                self.refute(forest, child, inside, maps, whose, missing)


def members(value: Any, names: str) -> list[Any]:
    """The members of a JSON object that must have exactly these keys."""
    demand(isinstance(value, dict) and set(value) == set(names.split()), f"meta: the keys are not {names}")
    return [value[name] for name in names.split()]


def parts(arrays: Arrays, network: Network, claim: Any) -> Iterator[tuple[str, Any, Any, list[list[Row]]]]:
    """The boxes of a claim, and the alternatives of which none may hold in them."""
    outputs, p = network.outputs, network.inputs
    if claim["kind"] == "sample":
        _, _, label, eps, clip, cardinality = members(claim, "kind index label eps clip cardinality")
        demand(cardinality is None, "sets of few inputs (U_card) are not supported")
        demand(type(label) is int and 0 <= label < len(outputs) > 1 and eps > 0, "meta: claim")
        sigma = take(arrays, "sigma", "<f8", p).tolist() if "sigma" in arrays else [1] * p
        least, most = (-math.inf, math.inf) if clip is None else map(Fraction, clip)
        centre, radii = take(arrays, "centre", "<f8", p).tolist(), [Fraction(eps) * Fraction(s) for s in sigma]
        lo = [max(Fraction(c) - r, least) for c, r in zip(centre, radii, strict=True)]
        hi = [min(Fraction(c) + r, most) for c, r in zip(centre, radii, strict=True)]
        yield "part.0.", lo, hi, [[combine((1, -1), (outputs[label], y))] for j, y in enumerate(outputs) if j != label]
        return
    demand(claim["kind"] == "property" and members(claim, "kind name sha256"), f"claims of kind {claim['kind']}")
    for key in itertools.takewhile(lambda key: key + "lo" in arrays, (f"part.{i}." for i in itertools.count())):
        lo, hi = ([*map(Fraction, take(arrays, key + end, "<f8", p).tolist())] for end in ("lo", "hi"))
        alternatives = list[list[Row]]()
        while (own := f"{key}alternative.{len(alternatives)}.") + "rows" in arrays:
            rows = take(arrays, own + "rows", "<f8", None, len(outputs)).tolist()
            offsets = take(arrays, own + "offsets", "<f8", len(rows)).tolist()
            numbers = ((*row, offset) for row, offset in zip(rows, offsets, strict=True))
            alternatives.append([combine(map(Fraction, each), (*outputs, {CONSTANT: Fraction(1)})) for each in numbers])
        demand(alternatives, f"{key}: no alternative")
        yield key, lo, hi, alternatives


def check(model: Path, proof: Path) -> str:
    """The claim of a proof file that is right about a model; Refused otherwise, whatever the file holds."""
    try:
        with np.load(proof) as arrays:
            meta = json.loads(str(take(arrays, "meta", arrays["meta"].dtype.str)))
            *head, _, about, arithmetic, claim = members(meta, "schema_version kind tool model arithmetic claim")
            demand([*head, arithmetic] == ["2.0", "proof", "real"], "not a proof of format 2.0")
            sha256, output, units, threshold = members(about, "sha256 output_name preprocessing threshold")
            demand(threshold is None, "thresholds are not supported")
            network = load(model, sha256, output, json.dumps(members(units, "scale mean std")))
            demand(found := list(parts(arrays, network, claim)), "a claim of nothing")
            for name, lo, hi, alternatives in found:
                Part(arrays, name, network, lo, hi).check(alternatives)
            centre = hashlib.sha256(arrays["centre"].tobytes()).hexdigest()[:16] if "centre" in arrays else None
            return f"{json.dumps(claim)}, centre {centre}, of {model.name} {json.dumps(about)}"
    except Exception as error:
        raise error if isinstance(error, Refused) else Refused(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    print("accepted:", check(*map(Path, sys.argv[1:])))
