"""An independent checker of proof files, written from docs/proof-format.md alone: it shares no code with idl_audit.

    python -m tests.independent_checker MODEL.onnx PROOF.npz

Numbers are integers times powers of two, and exact; bounds are rounded outward to multiples of 2**-GRID. Floating point
multiplies integers below 2**20, exactly, and else only *chooses* multipliers: any are sound (part 5 of the format).
States that a proof does not keep stay in the network: `kept` only says what its numbers speak of. Block 0 is the
constant 1, block 1 the inputs as the network reads them, and then the oldest states come first.

A file is accepted or `Refused`. Loops, S, few inputs that change (U_card) and thresholds are not supported.
"""

import functools
import hashlib
import itertools
import json
import math
import operator
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.reference

from tests.independent_files import Array, Arrays, Choices, Forest, Proof, demand, numbered, numbers, read, take

Maps = dict[int, "Exact"]  # of each block that is read: the matrix
Bounds = list[Array]  # of each block, times 2**GRID: lower ends of z, and of -z
GRID = 160
CHUNK = 1 << 18  # entries of an array at a time
ratio = np.frompyfunc(operator.methodcaller("as_integer_ratio"), 1, 2)


@dataclass
class Exact:
    """Python's integers times 2**-exp, exp >= 0."""

    ints: Array
    exp: int

    @staticmethod
    def of(numbers: Array) -> "Exact":
        """Floats as they are; of one that is not finite there is no ratio."""
        ints, places = np.zeros(numbers.shape, object), numbers != 0
        over, under = ratio(numbers[places])
        whole = under.max(initial=1)
        ints[places] = over * (whole // under)
        return Exact(ints, whole.bit_length() - 1)

    @functools.cached_property
    def limbs(self) -> list[Array]:
        """The integers as sums of limb_i 2**(20 i), where limbs are within 2**19 of 0."""
        found, rest = list[Array](), self.ints.astype(int if abs(self.ints).max(initial=0) < 1 << 62 else object)
        while not found or rest.any():
            low = (rest + 2**19 & 2**20 - 1) - 2**19
            found, rest = [*found, low.astype(float)], rest - low >> 20
        return found

    def floats(self) -> Array:
        """The numbers nearest to these."""
        return (self.ints / (1 << self.exp)).astype(float)

    def times(self, factors: Any, rows: Any = slice(None)) -> "Exact":
        """Some rows, times integers."""
        return Exact(self.ints[rows] * factors, self.exp)

    def __add__(self, other: "Exact") -> "Exact":
        exp = max(self.exp, other.exp)
        return Exact((self.ints << exp - self.exp) + (other.ints << exp - other.exp), exp)

    def __sub__(self, other: "Exact") -> "Exact":
        return self + other.times(-1)

    def __matmul__(self, other: "Exact") -> "Exact":
        """The product of matrices; sums of 2**14 products of limbs are integers that float64 holds exactly."""
        demand(self.ints.shape[-1] <= 1 << 14, "more terms of a sum than fit the arithmetic")
        pairs = itertools.product(enumerate(self.limbs), enumerate(other.limbs))
        total = sum((a @ b).astype(int).astype(object) << 20 * (i + j) for (i, a), (j, b) in pairs)
        return Exact(total, self.exp + other.exp)


def added(one: Maps, two: Maps) -> Maps:
    """The sum of two affine maps."""
    return one | {t: one[t] + m if t in one else m for t, m in two.items()}


def least(below: Exact, above: Exact, bounds: Array) -> Array:
    """The sums of rows of minima of z times a factor, of two for z < 0 and z > 0, times 2**GRID: at an end or at 0."""
    lo, hi = bounds[0], -bounds[1]
    ends = np.minimum(*(np.where(z < 0, below.ints, above.ints) * z for z in (lo, hi)))
    return np.where((lo < 0) & (hi > 0), np.minimum(ends, 0), ends).sum(axis=1) >> above.exp


class Tensor(NamedTuple):
    """An affine map of blocks; None stands for a block as it is."""

    shape: tuple[int, ...]
    maps: dict[int, Exact | None]


def linear(matrix: Array, x: Tensor) -> Tensor:
    """The vector that a matrix makes of a tensor."""
    made = Exact.of(matrix)
    return Tensor((len(matrix),), {t: made @ m if m else made for t, m in x.maps.items()})


class Network:
    """The blocks of an ONNX graph: the slope of phi below 0 (it is 1 above), and the matrices that make z.

    Of those that are maxima, `windows` has the matrices of what they are the maxima of.
    """

    def __init__(self, path: Path, sha256: str, output: str | None, units: str) -> None:
        self.path, files = path, {path.name: 0}
        model = onnx.load_model(path, load_external_data=False)
        files |= {e.value: 0 for t in model.graph.initializer for e in t.external_data if e.key == "location"}
        digests = [hashlib.sha256((path.parent / name).read_bytes()).hexdigest() for name in files]
        whole = digests[0] if len(files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        demand(sha256 == whole, "another model file")
        onnx.load_external_data_for_model(model, str(path.parent))
        self.opsets = {each.domain: each.version for each in model.opset_import}
        demand(self.opsets.get("", 0) >= 7, "an opset before 7, which broadcasts otherwise")
        values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        (entry,) = (i for i in model.graph.input if i.name not in values)
        batch, *shape = (d.dim_value for d in entry.type.tensor_type.shape.dim)
        demand(batch in (0, 1) and min(shape) > 0, f"input of shape {[batch, *shape]}")
        scale, *channels = json.loads(units)
        demand({*map(len, channels)} <= {0, 1, shape[0]}, "meta: preprocessing")
        full = (np.resize(numbers(each or [i]), shape[0]) for i, each in enumerate(channels))
        mean, std = (np.repeat(each, math.prod(shape[1:])) for each in full)
        self.scale, self.shift = numbers([scale])[0] / std, -mean / std
        demand((self.scale > 0).all(), "meta: preprocessing")
        self.below, self.maps, self.windows, self.sizes = [1, 1], list[Maps]([{}, {}]), [{}, {}], [1, len(mean)]
        values[entry.name] = Tensor((1, *shape), {1: None})
        for node in model.graph.node:
            values[node.output[0]] = self.apply(node, *(values[name] for name in node.input))
        names = [o.name for o in model.graph.output]
        demand(output in names or (output is None and len(names) == 1), f"output {output!r}")
        self.output = values[output or names[0]]

    def apply(self, node: onnx.NodeProto, x: Any, *more: Any) -> Tensor:
        """What a node makes of a tensor, and of constants: by what onnx's reference makes of 0 and of unit vectors."""
        kind, attributes = node.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        demand(isinstance(x, Tensor) and not node.domain and x.shape[0] == 1, f"operator {kind} of a constant")
        if kind == "Relu":
            return self.block(x, 0)
        if kind in ("Add", "Sub"):
            return self.plus(x, more[0], 1 if kind == "Add" else -1)
        weighs = kind in ("Gemm", "MatMul", "Conv")
        same = kind in ("Flatten", "Identity", "Reshape")
        demand(weighs or same or kind in ("AveragePool", "ReduceMean", "MaxPool"), f"operator {kind}")
        demand(not attributes.get("transA") and attributes.get("alpha", 1) == attributes.get("beta", 1) == 1, "factors")
        zero = self.run(node, np.zeros(x.shape, more[0].dtype if weighs else float), *more)
        if same:
            return Tensor(zero.shape, x.maps)
        units = np.eye(math.prod(x.shape), dtype=zero.dtype).reshape(-1, *x.shape[1:])
        made = self.run(node, units, *more[:1], *(0 * bias for bias in more[1:]))
        demand(made.shape == (len(units), *zero.shape[1:]), f"{kind} over several samples")
        matrix = made.reshape(len(units), -1).T
        if kind == "MaxPool":
            return self.maxpool(x, matrix > 0, zero.shape)
        demand(weighs or (np.frexp(matrix[matrix != 0])[0] == 0.5).all(), "means of numbers other than 2**n")
        known, full = [m.ints != 0 for t, m in x.maps.items() if m and t], kind in ("Gemm", "MatMul")
        made = (some.shape[1] * len(matrix) if full else np.count_nonzero((matrix != 0) * 1.0 @ some) for some in known)
        if sum(made) > np.count_nonzero(matrix) + sum(map(np.count_nonzero, known)):  # an identity block saves numbers
            return self.apply(node, self.block(x, 1), *more)
        return self.plus(Tensor(zero.shape, linear(matrix, x).maps), zero)

    def run(self, node: onnx.NodeProto, *feeds: Array) -> Array:
        """What onnx's reference implementation makes of the inputs of a node."""
        names = dict(zip(node.input, feeds, strict=True))
        return onnx.reference.ReferenceEvaluator(node, self.opsets).run(None, names)[0]

    def plus(self, x: Tensor, y: Any, sign: int = 1) -> Tensor:
        """x + sign y, where y may be of constants."""
        more = {0: Exact.of(np.broadcast_to(y, x.shape).reshape(-1, 1))} if isinstance(y, Array) else self.full(y)
        demand(isinstance(y, Array) or x.shape == y.shape, "a sum of tensors of several shapes")
        return Tensor(x.shape, added(self.full(x), {t: m.times(sign) for t, m in more.items()}))

    def full(self, x: Tensor) -> Maps:
        """The matrices of a tensor, and one of constants always."""
        zeros = Exact.of(np.zeros((math.prod(x.shape), 1)))
        return {0: zeros} | {t: m or Exact.of(np.eye(self.sizes[t])) for t, m in x.maps.items()}

    def block(self, x: Tensor, below: int, windows: Any = None) -> Tensor:
        """Make states of the entries of a tensor."""
        self.below.append(below)
        self.maps.append(self.full(x))
        self.windows.append(windows and self.full(windows))
        self.sizes.append(math.prod(x.shape))
        return Tensor(x.shape, {len(self.maps) - 1: None})

    def maxpool(self, x: Tensor, places: Array, shape: tuple[int, ...]) -> Tensor:
        """Tournaments of max(s, t) = (s + t)/2 + |s - t|/2, and an identity block; rows of all windows go together."""
        if any(x.maps.values()) or 1 in x.maps:
            x = self.block(x, 1)
        n, m = (cells := np.array([np.flatnonzero(place) for place in places]).T).shape
        windows = x = linear(np.eye(places.shape[1])[cells.ravel()], x)
        while n > 1:
            one, even = np.eye(n * m), n // 2 * 2 * m
            first, second = (one[:even].reshape(-1, 2, m, n * m)[:, i].reshape(-1, n * m) for i in (0, 1))
            means, n = np.concatenate([(first + second) / 2, one[even:]]), n - n // 2
            played = self.block(linear((first - second) / 2, x), -1)
            x = self.plus(linear(means, x), linear(np.eye(n * m, len(first)), played))
        return self.block(Tensor(shape, x.maps), 1, windows)


def picked(chosen: Choices, t: int, shape: tuple[int, ...], kind: str, otherwise: Array | float) -> Array:
    """What is chosen for states of a block, and other numbers elsewhere."""
    numbers = np.zeros(shape) + otherwise
    states, values = chosen.get((kind, t), ([], 0))
    numbers[:, states] = values
    return numbers


class Part:
    """One part of a proof: no point of a box makes one of the alternatives hold."""

    def __init__(self, arrays: Arrays, name: str, network: Network, lo: Array, hi: Array) -> None:
        demand((lo <= hi).all(), "an empty box")
        self.arrays, self.name, self.network, self.moves = arrays, name, network, (lo < hi).astype(bool)
        ends = np.array([lo * network.scale + network.shift, -(hi * network.scale + network.shift)])
        self.box = [np.array([[1], [-1]], object) << GRID, np.frompyfunc(math.floor, 1, 1)(ends * (1 << GRID))]
        self.hairs = dict[int, int]()

    def lower(self, maps: Maps, rows: Array, b: Bounds, lines: str = "usual", chosen: Choices | None = None) -> Array:
        """Lower bounds of rows of affine maps, times 2**GRID: the inequality of part 5; row n + i is minus row i."""
        n, total, chosen = len(maps[0].ints), np.zeros(len(rows), object), chosen or {}
        parts = {t: m.times(np.where(rows < n, 1, -1)[:, None], rows % n) for t, m in maps.items()}
        for t in (t for t in range(len(b) - 1, 1, -1) if t in parts):
            v, lo, hi = parts.pop(t), b[t][0], -b[t][1]
            real = np.zeros(v.ints.shape) if lines == "none" else self.multipliers(t, v, lo, hi, lines, chosen)
            if ("planes", t) in chosen:
                v, real, factors, constant = self.tilted(t, v, real, (lo < 0) & (hi > 0), *chosen["planes", t])
                parts, total = added(parts, {1: factors}), total + constant
            real[~(abs(real) < 2.0**60)] = 0.0
            exp = max(0, 39 - math.frexp(abs(real).max(initial=0))[1])
            lam = Exact(np.rint(np.ldexp(real, exp)).astype(int).astype(object), exp)
            total = total + self.states(t, v, lam, b[t])
            if lines != "none":  # duals may prove a leaf empty whatever the functional is
                parts = added(parts, {j: lam @ m for j, m in self.network.maps[t].items()})
        return total + sum(self.rest(t, w, b) for t, w in parts.items())

    def rest(self, t: int, w: Exact, b: Bounds) -> Array:
        """The least that what is read of the constant or of the inputs adds."""
        return least(w, w, b[t])

    def states(self, t: int, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The sum over states of the minimum of v phi(z) - lam z, times 2**GRID."""
        return least(v.times(self.network.below[t]) - lam, v - lam, bounds)

    def bends(self, t: int, b: Bounds) -> Array:
        """Which states are still worth a line."""
        return (b[t] < 0).all(axis=0)

    def place(self, t: int, j: int, cut: Fraction) -> Fraction:
        """Where an input or a state is cut, in the units that it is held in."""
        return cut * self.network.scale[j] + self.network.shift[j] if t == 1 else cut

    def multipliers(self, t: int, v: Exact, lo: Array, hi: Array, lines: str, chosen: Choices) -> Array:
        """The multipliers lam that the format tells, in floating point: any numbers are sound."""
        pick = functools.partial(picked, chosen, t, v.ints.shape)
        below, bends, real = self.network.below[t], (lo < 0) & (hi > 0), v.floats()
        low, high = Exact(lo, GRID).floats(), Exact(hi, GRID).floats()
        with np.errstate(all="ignore"):
            stable = np.where(lo >= 0, 1.0, below)
            s = np.where(bends, pick("slopes", np.where(hi > -lo - (lo >> 40), 1.0, below)), stable)
            above = np.where(bends, (high - below * low) / (high - low), stable)
            lam = np.where((real >= 0) & (lines != "chords"), s, above) * real
            return pick("duals", lam - pick("multipliers", 0.0))

    def tilted(self, t: int, v: Exact, lam: Array, bends: Array, states: Array, shares: Array) -> Any:
        """Planes, v (a . u + c) for v phi(z): what is left of v and of lam, the factors of u, and the constant."""
        below, maps = self.network.below[t], {j: m.times(1, states) for j, m in self.network.maps[t].items()}
        demand(below < 1 and {*maps} == {0, 1}, "planes of a block of another kind")
        w, use = maps[1], np.isin(np.arange(v.ints.shape[1]), states) & bends & (v.ints < 0)
        slopes = np.full(w.ints.shape, 255 * below, object)  # times 255
        for own, reads, share in zip(slopes, (w.ints != 0) & self.moves, shares.astype(object), strict=True):
            own[reads] += (1 - below) * share[: np.count_nonzero(reads)]
        a, few = slopes * w.ints // 255, np.where(use, v.ints, 0)
        gaps = ((maps[0].times(-s), Exact(a, w.exp) - w.times(s)) for s in (below, 1))
        c = -np.minimum(*(sum(least(g, g, z) for g, z in zip(gap, self.box, strict=True)) for gap in gaps))
        factors, constant = Exact(few[:, states], v.exp) @ Exact(a, w.exp), (few[:, states] * c).sum(axis=1) >> v.exp
        return Exact(v.ints - few, v.exp), np.where(use, 0.0, lam), factors, constant

    def meet(self, t: int, b: Bounds, rows: Array, values: Array) -> None:
        """Intersect the bounds of a block with lower bounds of z and -z; the first ones are of all its states."""
        b[t] = b[t].copy()
        np.maximum.at(b[t].reshape(-1), rows, values - self.hair(t, values))

    def hair(self, t: int, values: Array) -> int:
        """How much further ends are taken: one that is 0 is beyond it for who writes in float64."""
        return self.hairs.setdefault(t, 1 + (abs(values).max(initial=0) >> 47))

    def refine(self, t: int, b: Bounds, every: bool = False) -> None:
        """Bounds of a block by intervals and the usual lines: of states that bend or, after chords, of every one."""
        maps, windows, n = self.network.maps[t], self.network.windows[t], self.network.sizes[t]
        bent = max(maps) > 1 and self.network.below[t] < 1
        for lines in ("none", *("chords",) * every, "usual")[: None if bent else 1]:
            some = np.flatnonzero(np.tile(self.bends(t, b) | every | (lines == "none"), 2))
            pieces = np.array_split(some, 1 + len(some) * max(self.network.sizes) // CHUNK)
            self.meet(t, b, some, np.concatenate([self.lower(maps, rows, b, lines) for rows in pieces]))
        if windows:  # maxima lie between the largest lower and upper ends
            cells = np.arange(2 * len(windows[0].ints))
            least, most = self.lower(windows, cells, b, "none").reshape(2, -1, n)
            self.meet(t, b, np.arange(2 * n), np.concatenate([least.max(axis=0), most.min(axis=0)]))

    def leaves(self, forest: Forest, node: int, b: Bounds, left: Any = None, still: Any = None) -> Iterator[Any]:
        """The leaves of a tree and their bounds, where something is still left to prove there and at nodes above."""
        leaf = int(forest.leaf[node])
        if left and not (still := left(still, leaf, b)):
            return
        if leaf >= 0:
            yield leaf, b
            return
        t, j, child = forest.block[node], forest.state[node], forest.child[node]
        cut = self.place(t, j, Fraction(forest.cut[node].item())) * (1 << GRID)
        for side, node, end in ((1, child, -cut), (0, child + 1, cut)):
            inside = [*b[:t], b[t].copy(), *b[t + 1 :]]
            inside[t][side, j] = max(b[t][side, j], math.floor(end))
            for block in range(2, len(b)) if t == 1 else ():
                self.refine(block, inside, every=True)
            yield from self.leaves(forest, node, inside, left, still)

    def stage(self, name: str, b: Bounds, kept: list[Array]) -> None:
        """The bounds of a stage: for each block those of the format, and what the trees of its lemmas prove."""
        blocks = take(self.arrays, name + "blocks", "<i8", None)
        for t in range(2, len(b)):
            self.refine(t, b)
            for own in (f"{name}lemma.{j}." for j in np.flatnonzero(blocks == len(b) - 1 - t)):
                states = kept[t][take(self.arrays, own + "states", "<i8", None)]
                rows = states + self.network.sizes[t] * (take(self.arrays, own + "signs", "|i1", len(states)) < 0)
                forest, values = Forest(self.arrays, own, len(rows), kept), np.zeros(len(rows), object)
                for i, root in enumerate(forest.roots):
                    each = self.leaves(forest, root, b)
                    few = ((inside, "usual", forest.choices[leaf]) for leaf, inside in each)
                    values[i] = min(self.lower(self.network.maps[t], rows[[i]], *leaf)[0] for leaf in few)
                self.meet(t, b, rows, values)

    def check(self, rows: Array, offsets: Array, whose: Array) -> None:
        """Refuse unless the goals refute each alternative, one of whose rows y + offsets must be above 0."""
        network, stages, whole = self.network, list[Bounds](), [*map(np.arange, self.network.sizes)]
        b = [*self.box, *(np.full((2, n), -math.inf, object) for n in network.sizes[2:])]
        names = ((f"{self.name}kept.{len(b) - 1 - t}", states) for t, states in enumerate(whole))
        kept = [states[take(self.arrays, n, "<i8", None)] if n in self.arrays else states for n, states in names]
        for name in numbered(self.arrays, f"{self.name}stage.", "blocks"):
            self.stage(name, b, kept if stages else whole)
            stages.append([*b])
        goals, missing, rest = network.plus(linear(rows, network.output), offsets), set(whose.tolist()), []
        for name in numbered(self.arrays, f"{self.name}goals.", "stage"):
            b = stages[take(self.arrays, name + "stage", "<i8", 1)[0]]
            numbers, own = take(self.arrays, name + "alternatives", "<i8", None), dict[int, Array]()
            weights = take(self.arrays, name + "weights", "<f8", len(numbers), None)
            forest = Forest(self.arrays, name, len(numbers), kept)
            if name + "own.leaves" in self.arrays:
                leaves = take(self.arrays, name + "own.leaves", "<i8", None).tolist()
                own = dict(zip(leaves, take(self.arrays, name + "own.weights", "<f4", len(leaves), None), strict=True))
            for a, root, some in zip(numbers.tolist(), forest.roots, weights, strict=True):
                for leaf, inside in self.leaves(forest, root, b) if a >= 0 else ():
                    sums = self.sums(goals, whose == a, own.get(leaf, some))
                    closed = self.lower(sums, np.arange(1), inside, "usual", forest.choices[leaf]) > 0
                    demand(closed, f"{name}: a leaf that is not closed")
            rest += [(forest, root, b, own) for root in forest.roots[numbers < 0]]
            missing -= set(numbers.tolist())
        demand(not missing or rest, "alternatives that no goal refutes")
        sizes = ((r, {1, 2 * (len(r) <= 12), len(r)} - {0}) for r in (np.flatnonzero(whose == a) for a in missing))
        groups = [group for r, some in sizes for n in some for group in itertools.combinations(r, n)]
        sums = np.array([np.isin(np.arange(len(whose)), group) for group in groups], float).reshape(-1, len(whose))
        maps = linear(sums, goals).maps
        for forest, root, b, own in rest if missing else ():
            left = functools.partial(self.left, goals, whose, own, maps, whose[[group[0] for group in groups]])
            demand(not any(True for _ in self.leaves(forest, root, b, left, missing)), "a leaf that is not closed")

    def left(self, goals: Any, whose: Array, own: Any, maps: Maps, of: Array, still: set[int], *place: Any) -> set[int]:
        """The alternatives that are left at a node: no row, no sum of rows and no sum of the leaf's own is above 0."""
        leaf, b = place
        rows = np.flatnonzero(np.isin(of, [*still]))
        still = still.difference(of[rows[self.lower(maps, rows, b) > 0]].tolist())
        sums = {a: self.sums(goals, whose == whose, np.where(whose == a, own[leaf], 0)) for a in still if leaf in own}
        return {a for a in still if a not in sums or not self.lower(sums[a], np.arange(1), b) > 0}

    def sums(self, goals: Tensor, mine: Array, weights: Array) -> Maps:
        """The sum of some rows of an alternative with weights."""
        row = np.zeros((1, len(mine)))
        row[0, mine] = weights[: np.count_nonzero(mine)]
        demand((row >= 0).all(), "weights below 0")
        return linear(row, goals).maps


load = functools.lru_cache(Network)


def prove(network: Network, arrays: Arrays, name: str, lo: Array, hi: Array, *alternatives: Array) -> None:
    """Refuse unless a part is proved."""
    Part(arrays, name, network, lo, hi).check(*alternatives)


def check(model: Path, proof: Proof) -> str:
    """The claim of a proof file that is right about a model; Refused otherwise, whatever the file holds."""
    return read(model, proof, "real", load, prove)


if __name__ == "__main__":
    print("accepted:", check(*map(Path, sys.argv[1:])))
