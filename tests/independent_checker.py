"""An independent checker of proof files, written from docs/proof-format.md alone: it shares no code with idl_audit.

    python independent_checker.py MODEL.onnx PROOF.npz

Numbers are fractions, or integers times a power of two with a bound of what was cut off (`Fixed`); what is rounded is
rounded outward. Floating point holds integers below 2**53 exactly, and else only *chooses* multipliers: any are sound
(part 5 of the format). States that a proof does not keep stay in the network: `kept` only says what its numbers speak
of. Block 0 is the constant 1, block 1 the inputs as the network reads them, and then the oldest states come first.

A file is accepted or `Refused`. Loops, S, few inputs that change (U_card) and thresholds are not supported.
"""

import functools
import hashlib
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.reference

Array = np.ndarray
Arrays = Mapping[str, Array]
Bounds = list[Array]  # of each block: lower ends of z, and of -z; one row for all functionals or for each
LIMIT = 1 << 57  # bounds of states are integers up to this
GRID = 160  # bounds of functionals are integers times 2**-GRID
CHUNK = 1 << 18  # entries of an array at a time
CHOICES = dict.fromkeys(("slopes", "multipliers", "duals"), ("values", "<f4")) | {"planes": ("shares", "|u1", None)}
exact = np.frompyfunc(Fraction, 1, 1)


class Refused(Exception):
    """The proof is not accepted; the text says why."""


def demand(condition: object, reason: str) -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise Refused(reason)


def shifted(x: Any, up: int) -> Any:
    """floor(x 2**up)."""
    return x << up if up >= 0 else x >> -up


def largest(ints: Array) -> int:
    """The largest absolute value."""
    return int(abs(ints).max(initial=0))


@dataclass
class Fixed:
    """Numbers within err of ints, all times 2**-exp; ints are below 2**59."""

    ints: Array
    exp: int
    err: int = 0

    @staticmethod
    def of(numbers: Array) -> "Fixed":
        """Floats as they are, but the largest has 51 bits, and what does not fit these is rounded away from 0."""
        demand(numbers.dtype.kind == "f" and np.isfinite(numbers).all(), "numbers that are not finite")
        exp = 51 - math.frexp(abs(numbers).max(initial=0) or 2.0**-999)[1]
        scaled = np.ldexp(numbers.astype(float), exp)
        ints = np.where(scaled < 0, np.floor(scaled), np.ceil(scaled))
        return Fixed(ints.astype(np.int64), exp, int((np.ldexp(ints, -exp) != numbers).any()))

    @functools.cached_property
    def limbs(self) -> list[Array]:
        """The integers as sums of limb_i 2**(20 i), where limbs are within 2**19 of 0."""
        found, rest = list[Array](), self.ints
        while not found or rest.any():
            low = (rest + 2**19 & 2**20 - 1) - 2**19
            found, rest = [*found, low.astype(float)], rest - low >> 20
        return found

    def signed(self, signs: Any, rows: Any = slice(None)) -> "Fixed":
        """Some rows, times 1 or -1."""
        return Fixed(self.ints[rows] * signs, self.exp, self.err)

    def coarser(self, cut: int) -> "Fixed":
        """The same numbers without some of their bits."""
        return Fixed(self.ints >> min(cut, 63), self.exp - cut, (self.err >> cut) + 2)

    def __add__(self, other: "Fixed") -> "Fixed":
        """The sum, with one bit less than the coarser of the two."""
        exp = min(self.exp, other.exp) - 1
        f, g = (x.coarser(x.exp - exp) for x in (self, other))
        return Fixed(f.ints + g.ints, exp, f.err + g.err)

    def __matmul__(self, other: "Fixed") -> "Fixed":
        """The product of matrices; sums of 2**14 products of limbs are integers that float64 holds exactly."""
        demand((n := self.ints.shape[-1]) <= 1 << 14, "more terms of a sum than fit the arithmetic")
        pairs = itertools.product(enumerate(self.limbs), enumerate(other.limbs))
        terms = [((a @ b).astype(np.int64), 20 * (i + j)) for (i, a), (j, b) in pairs]
        cut = max(0, sum(largest(x) << s for x, s in terms).bit_length() - 58)
        total = sum(shifted(x, max(s - cut, -63)) for x, s in terms)
        off = largest(self.ints) * other.err + self.err * (largest(other.ints) + other.err)
        return Fixed(total, self.exp + other.exp - cut, (n * off >> cut) + len(terms) + 1)

    def dot(self, places: Array, bounds: Array, exp: int) -> Array:
        """Lower bounds of the sums of rows, times 2**GRID; each number times its best place among bounds 2**-exp."""
        found = Fixed(self.ints[..., None, :], self.exp) @ Fixed(places[..., None], exp)
        off = self.ints.shape[-1] * self.err * largest(bounds)
        sums = shifted(found.ints[..., 0, 0].astype(object) - found.err, GRID - found.exp)
        return sums + shifted(-off, GRID - self.exp - exp)


class Tensor(NamedTuple):
    """An affine map of blocks: the matrices of those that it reads; None stands for a block as it is."""

    shape: tuple[int, ...]
    maps: dict[int, Any]


class Network:
    """The blocks of an ONNX graph: the slope of phi below 0 (it is 1 above), and the matrices that make z.

    Of those that are maxima, `windows` has the matrices of what they are the maxima of.
    """

    def __init__(self, path: Path, sha256: str, output: str | None, units: str) -> None:
        model, files = onnx.load_model(path, load_external_data=False), {path.name: 0}
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
        numbers = (np.resize([*map(Fraction, each or [i])], shape[0]) for i, each in enumerate(channels))
        mean, std = (np.repeat(each, math.prod(shape[1:])) for each in numbers)
        self.scale, self.shift = Fraction(scale) / std, -mean / std
        demand((self.scale > 0).all(), "meta: preprocessing")
        self.below, self.maps, self.windows, self.sizes = [1, 1], [{}, {}], [{}, {}], [1, len(mean)]
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
        demand(weighs or kind in ("Flatten", "Reshape", "AveragePool", "ReduceMean", "MaxPool"), f"operator {kind}")
        demand(not attributes.get("transA") and attributes.get("alpha", 1) == attributes.get("beta", 1) == 1, "factors")
        zero = self.run(node, np.zeros(x.shape, more[0].dtype if weighs else float), *more)
        if kind in ("Flatten", "Reshape"):
            return Tensor(zero.shape, x.maps)
        units = np.eye(math.prod(x.shape), dtype=zero.dtype).reshape(-1, *x.shape[1:])
        made = self.run(node, units, *more[:1], *(0 * bias for bias in more[1:]))
        demand(made.shape == (len(units), *zero.shape[1:]), f"{kind} over several samples")
        matrix = made.reshape(len(units), -1).T
        if kind == "MaxPool":
            return self.maxpool(x, matrix > 0, zero.shape)
        demand(weighs or (np.frexp(matrix[matrix != 0])[0] == 0.5).all(), "means of numbers other than 2**n")
        known = [m.ints != 0 for m in x.maps.values() if m]
        numbers = sum(np.count_nonzero((matrix != 0).astype(np.float32) @ some) for some in known)
        if numbers > np.count_nonzero(matrix) + sum(map(np.count_nonzero, known)):  # an identity block saves numbers
            return self.apply(node, self.block(x, 1), *more)
        return self.plus(Tensor(zero.shape, linear(matrix, x).maps), zero)

    def run(self, node: onnx.NodeProto, *feeds: Array) -> Array:
        """What onnx's reference implementation makes of the inputs of a node."""
        names = dict(zip(node.input, feeds, strict=True))
        return onnx.reference.ReferenceEvaluator(node, self.opsets).run(None, names)[0]

    def plus(self, x: Tensor, y: Any, sign: int = 1) -> Tensor:
        """x + sign y, where y may be of constants."""
        constant = isinstance(y, Array) and {0: Fixed.of(np.broadcast_to(y, x.shape).reshape(-1, 1))}
        demand(constant or x.shape == y.shape, "a sum of tensors of several shapes")
        maps = self.full(x)
        for t, m in (constant or self.full(y)).items():
            maps[t] = maps[t] + m.signed(sign) if t in maps else m.signed(sign)
        return Tensor(x.shape, maps)

    def full(self, x: Tensor) -> dict[int, Fixed]:
        """The matrices of a tensor, and one of constants always."""
        zeros = Fixed.of(np.zeros((math.prod(x.shape), 1)))
        return {0: zeros} | {t: m or Fixed.of(np.eye(self.sizes[t])) for t, m in x.maps.items()}

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


def linear(matrix: Array, x: Tensor) -> Tensor:
    """The vector that a matrix makes of a tensor."""
    made = Fixed.of(matrix)
    return Tensor((len(matrix),), {t: made @ m if m else made for t, m in x.maps.items()})


def take(arrays: Arrays, name: str, kind: str, *shape: int | None) -> Array:
    """The array of that name, type and shape, in which None stands for any length."""
    array = arrays[name]
    right = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    demand(right and array.dtype.str == kind, f"{name} has type {array.dtype.str} and shape {array.shape}")
    return array


class Forest:
    """Trees of a proof, and what is chosen in their leaves: for which states, and the numbers for these."""

    def __init__(self, arrays: Arrays, name: str, goals: int, kept: list[Array]) -> None:
        self.roots, variable = take(arrays, name + "roots", "<i8", goals), take(arrays, name + "variable", "<i8", None)
        self.child = take(arrays, name + "child", "<i8", len(variable))
        self.cut = take(arrays, name + "cut", "<f8", len(variable))
        self.inner, order = variable >= 0, [1, *range(2, len(kept))[::-1]]
        nodes = np.concatenate([self.roots, first := self.child[self.inner], first + 1])
        demand(np.array_equal(np.sort(nodes), np.arange(len(variable))), f"{name}: nodes that are not of one tree")
        self.state = np.concatenate([kept[t] for t in order])[variable]
        self.block = np.repeat(order, [len(kept[t]) for t in order])[variable]
        self.leaf, self.choices = np.cumsum(~self.inner) - 1, {}
        for t, (kind, (end, *form)) in itertools.product(order[1:], CHOICES.items()):
            if (own := f"{name}{kind}.{len(kept) - 1 - t}.") + "leaves" in arrays:
                leaves, index = take(arrays, own + "leaves", "<i8", None), np.full(len(variable), -1)
                index[leaves] = np.arange(len(leaves))
                states = kept[t][take(arrays, own + "states", "<i8", None)] if kind == "planes" else kept[t]
                values = take(arrays, own + end, form[0], len(leaves), len(states), *form[1:])
                self.choices[kind, t] = index, states, values

    def chosen(self, nodes: Array) -> dict[tuple[str, int], Any]:
        """What is chosen in some leaves, and in which of them."""
        some = ((key, index[self.leaf[nodes]], *rest) for key, (index, *rest) in self.choices.items())
        return {key: (i >= 0, states, values[i[i >= 0]]) for key, i, states, values in some}


class Part:
    """One part of a proof: no point of a box makes one of the alternatives hold."""

    def __init__(self, arrays: Arrays, name: str, network: Network, lo: Array, hi: Array) -> None:
        demand((lo <= hi).all(), "an empty box")
        self.arrays, self.name, self.network, self.moves = arrays, name, network, (lo < hi).astype(bool)
        box = np.array([lo * network.scale + network.shift, -(hi * network.scale + network.shift)])
        self.exps = [0, 55 - math.ceil(max(1, abs(box).max())).bit_length(), *[None] * (len(network.maps) - 2)]
        demand(self.exps[1] > 0, "a box that does not fit the arithmetic")
        ends = np.vectorize(math.floor, otypes=[np.int64])(box * 2 ** self.exps[1])
        self.box = [np.array([[[1]], [[-1]]]), ends[:, None]]

    def lower(self, maps: dict[int, Fixed], rows: Array, b: Bounds, lines: str = "usual", chosen: Any = None) -> Array:
        """Lower bounds of rows of affine maps, times 2**GRID: the inequality of part 5; row n + i is minus row i."""
        n, total, chosen = len(maps[0].ints), np.zeros(len(rows), object), chosen or {}
        parts = {t: m.signed(np.where(rows < n, 1, -1)[:, None], rows % n) for t, m in maps.items()}
        for t in (t for t in range(len(b) - 1, 1, -1) if t in parts):
            v, lo, hi, flat = parts.pop(t), b[t][0], -b[t][1], False
            if ("planes", t) in chosen:
                v, flat, factors, constant = self.tilted(t, v, (lo < 0) & (hi > 0), *chosen["planes", t])
                parts[1], total = parts[1] + factors if 1 in parts else factors, total + constant
            real = self.multipliers(t, v, lo, hi, lines, chosen) if lines != "none" else np.zeros(v.ints.shape)
            real[flat | ~(abs(real) < 2.0 ** (120 - v.exp))] = 0.0
            size = math.frexp(abs(real).max(initial=0))[1]
            v = v.coarser(max(0, size + v.exp - 57))
            cut = max(0, size + v.exp - 39)
            lam = Fixed(np.rint(np.ldexp(real, v.exp - cut)).astype(np.int64), v.exp - cut)
            total = total + self.states(t, v, lam.ints << cut, b[t])
            for j, m in self.network.maps[t].items() if lam.ints.any() else ():
                parts[j] = parts[j] + (lam @ m) if j in parts else lam @ m
        return total + self.inputs(parts, b)

    def inputs(self, parts: dict[int, Fixed], b: Bounds) -> Any:
        """The minimum of affine forms of the inputs over their box, times 2**GRID."""
        return sum(w.dot(np.where(w.ints >= 0, b[t][0], -b[t][1]), b[t], self.exps[t]) for t, w in parts.items())

    def states(self, t: int, v: Fixed, lam: Array, b: Array) -> Array:
        """The sum over states of the minimum of v phi(z) - lam z within bounds; floating point is off by 2**-50."""
        steep, lo, hi = v.ints * self.network.below[t], b[0], -b[1]
        at_lo, at_hi = (np.where(low, steep, v.ints) - lam for low in (lo < 0, hi <= 0))
        one, two = at_lo * lo.astype(float), at_hi * hi.astype(float)
        factors = np.where(one <= two, at_lo, at_hi)
        places = np.where((lo < 0) & (hi > 0) & (np.minimum(one, two) > 0), 0, np.where(one <= two, lo, hi))
        return Fixed(factors, v.exp, v.err + 1 + (largest(factors) >> 50)).dot(places, b, self.exps[t])

    def multipliers(self, t: int, v: Fixed, lo: Array, hi: Array, lines: str, chosen: Any) -> Array:
        """The multipliers lam that the format tells, in floating point: any numbers are sound."""

        def pick(kind: str, numbers: Array) -> Array:
            some, states, values = chosen.get((kind, t), ([], [], 0))
            numbers[np.ix_(some, states)] = values
            return numbers

        below, bends, real = self.network.below[t], (lo < 0) & (hi > 0), np.ldexp(v.ints.astype(float), -v.exp)
        with np.errstate(all="ignore"):
            stable, usual = np.where(lo >= 0, 1.0, below), np.where(hi > -lo - (lo >> 40), 1.0, below)
            s = np.where(bends, pick("slopes", usual), stable)
            above = np.where(bends, (hi - below * lo.astype(float)) / (hi.astype(float) - lo), stable)
            lam = np.where((real >= 0) & (lines != "chords"), s, above) * real
            return pick("duals", lam - pick("multipliers", np.zeros(lam.shape)))

    def tilted(self, t: int, v: Fixed, bends: Array, some: Array, states: Array, shares: Array) -> Any:
        """Planes, v (a . u + c) for v phi(z): what is left of v, where, the factors of u, and the constant."""
        below, maps = self.network.below[t], {j: m.signed(1, states) for j, m in self.network.maps[t].items()}
        demand(below < 1 and {*maps} == {0, 1}, "planes of a block of another kind")
        w, use, cut = maps[1], np.zeros(v.ints.shape, bool), max(0, largest(v.ints).bit_length() - 39)
        use[np.ix_(some, states)] = True
        use &= bends & (v.ints < 0)
        slope = np.zeros((len(some), *w.ints.shape))
        for i, reads in enumerate(w.ints.astype(bool) & self.moves):
            slope[np.ix_(some, [i], reads)] = shares[:, [i], : np.count_nonzero(reads)] / 255
        a = np.rint((below + slope * (1 - below)) * w.ints).astype(np.int64)
        gaps = ({0: maps[0].signed(-s), 1: Fixed(a - s * w.ints, w.exp, w.err)} for s in (below, 1))
        c = np.maximum(*(-self.inputs(gap, self.box) for gap in gaps))
        few = Fixed(np.where(use, v.ints, 0)[:, None, states] >> cut, v.exp - cut)  # what is cut off has phi > 0 behind
        pulled, constant = few @ Fixed(a, w.exp), (few.ints[:, 0].astype(object) * c).sum(axis=1)
        left, factors = Fixed(np.where(use, 0, v.ints), v.exp, v.err), Fixed(pulled.ints[:, 0], pulled.exp, pulled.err)
        return left, use, factors, shifted(constant, -few.exp)

    def meet(self, t: int, b: Bounds, rows: Array, values: Array) -> None:
        """Intersect the bounds of a block with lower bounds of z and -z; the first ones are of all its states.

        They are rounded outward by a hair more than they must: an end that is 0 is beyond it for who writes in float64.
        """
        if self.exps[t] is None:
            self.exps[t] = 55 - (max(map(abs, values)) >> GRID).bit_length()
        new = np.clip(shifted(values, self.exps[t] - GRID) - 256, -LIMIT, LIMIT).astype(np.int64)
        b[t] = b[t].copy()
        np.maximum.at(b[t].reshape(-1), rows, new)

    def refine(self, t: int, b: Bounds, every: bool = False) -> None:
        """Bounds of a block by intervals and the usual lines: of states that bend or, after chords, of every one."""
        maps, windows, n = self.network.maps[t], self.network.windows[t], self.network.sizes[t]
        bent = max(maps) > 1 and self.network.below[t] < 1
        for lines in ("none", *("chords",) * every, "usual")[: None if bent else 1]:
            some = np.flatnonzero(np.tile((b[t] < 0).all(axis=0) | every | (lines == "none"), 2))
            pieces = np.array_split(some, 1 + len(some) * max(self.network.sizes) // CHUNK)
            self.meet(t, b, some, np.concatenate([self.lower(maps, rows, b, lines) for rows in pieces]))
        if windows:  # maxima lie between the largest lower and upper ends
            cells = np.arange(2 * len(windows[0].ints))
            least, most = self.lower(windows, cells, b, "none").reshape(2, -1, n)
            self.meet(t, b, np.arange(2 * n), np.concatenate([least.max(axis=0), most.min(axis=0)]))

    def leaves(self, forest: Forest, node: int, b: Bounds, left: Any = None, still: Any = None) -> Iterator[Any]:
        """The leaves of a tree and their bounds, where something is still left to prove there and at nodes above."""
        if left and not (still := left(b, still, node)):
            return
        if not forest.inner[node]:
            yield node, b
            return
        t, j, child = forest.block[node], forest.state[node], int(forest.child[node])
        cut = Fraction(forest.cut[node].item())
        cut = (cut * self.network.scale[j] + self.network.shift[j] if t == 1 else cut) * Fraction(2) ** self.exps[t]
        for side, node, end in ((1, child, -cut), (0, child + 1, cut)):
            inside = [*b[:t], b[t].copy(), *b[t + 1 :]]
            inside[t][side, 0, j] = max(b[t][side, 0, j], min(math.floor(end), LIMIT))
            for block in range(2, len(b)) if t == 1 else ():
                self.refine(block, inside, every=True)
            yield from self.leaves(forest, node, inside, left, still)

    def proved(
        self, maps: dict[int, Fixed], rows: Array, forest: Forest, roots: Array, b: Bounds, instead: Any = None
    ) -> Array:
        """A lower bound of each row: that of the worst leaf of its tree, of another row in leaves that have one."""
        worst = np.full(len(rows), 1 << 400, object)
        found = ((i, *leaf) for i, root in enumerate(roots) for leaf in self.leaves(forest, root, b))
        planes = max([1, *(len(states) for (kind, _), (_, states, _) in forest.choices.items() if kind == "planes")])
        while some := [*itertools.islice(found, 1 + CHUNK // (max(self.network.sizes) * planes))]:
            own, nodes, inside = (list(each) for each in zip(*some, strict=True))
            each = [np.concatenate(bounds, axis=1) for bounds in zip(*inside, strict=True)]
            wanted = rows[own]
            if instead is not None:
                wanted = np.where(instead[forest.leaf[nodes]] >= 0, instead[forest.leaf[nodes]], wanted)
            np.minimum.at(worst, own, self.lower(maps, wanted, each, "usual", forest.chosen(nodes)))
        return worst

    def stage(self, name: str, b: Bounds, kept: list[Array]) -> None:
        """The bounds of a stage: for each block those of the format, and what the trees of its lemmas prove."""
        blocks = take(self.arrays, name + "blocks", "<i8", None)
        for t in range(2, len(b)):
            self.refine(t, b)
            for own in (f"{name}lemma.{j}." for j in np.flatnonzero(blocks == len(b) - 1 - t)):
                states = kept[t][take(self.arrays, own + "states", "<i8", None)]
                rows = states + self.network.sizes[t] * (take(self.arrays, own + "signs", "|i1", len(states)) < 0)
                forest = Forest(self.arrays, own, len(states), kept)
                self.meet(t, b, rows, self.proved(self.network.maps[t], rows, forest, forest.roots, b))

    def check(self, rows: Array, offsets: Array, whose: Array) -> None:
        """Refuse unless the goals refute each alternative, one of whose rows y + offsets must be above 0."""
        network, stages, whole = self.network, list[Bounds](), [*map(np.arange, self.network.sizes)]
        b = [*self.box, *(np.full((2, 1, n), -LIMIT) for n in network.sizes[2:])]
        names = ((f"{self.name}kept.{len(b) - 1 - t}", states) for t, states in enumerate(whole))
        kept = [states[take(self.arrays, n, "<i8", None)] if n in self.arrays else states for n, states in names]
        for name in numbered(self.arrays, f"{self.name}stage.", "blocks"):
            self.stage(name, b, kept if stages else whole)
            stages.append([*b])
        goals = network.plus(linear(rows, network.output), offsets)
        missing, rest = set(whose.tolist()), []
        for name in numbered(self.arrays, f"{self.name}goals.", "stage"):
            b = stages[take(self.arrays, name + "stage", "<i8", 1)[0]]
            numbers = take(self.arrays, name + "alternatives", "<i8", None)
            weights = take(self.arrays, name + "weights", "<f8", len(numbers), None)
            forest, some = Forest(self.arrays, name, len(numbers), kept), numbers >= 0
            index, own_weights = self.own_weights(name, forest)
            demand(index is None or len({*some.tolist()}) == 1, f"{name}own: for alternatives and for all")
            rest += [(forest, root, b, index, own_weights) for root in forest.roots[~some]]
            sums = np.zeros((len(numbers), len(rows)))
            for tree in np.flatnonzero(some):
                sums[tree, own] = weights[tree, : np.count_nonzero(own := whose == numbers[tree])]
            sums = sums[some]
            if index is not None and some.any():
                goal, more = self.goal_of_leaves(forest), np.zeros((len(own_weights), len(rows)))
                for leaf in np.flatnonzero(index >= 0):
                    own = whose == numbers[goal[leaf]]
                    more[index[leaf], own] = own_weights[index[leaf], : np.count_nonzero(own)]
                index, sums = np.where(index >= 0, index + len(sums), -1), np.concatenate([sums, more])
            maps, each = linear(sums, goals).maps, np.arange(some.sum())
            values = self.proved(maps, each, forest, forest.roots[some], b, index)
            demand((weights >= 0).all() and (values > 0).all(), f"{name}weights, or a leaf that is not closed")
            missing -= set(numbers[some].tolist())
        demand(not missing or rest, "alternatives that no goal refutes")
        if missing:
            own = [np.flatnonzero(whose == a) for a in missing]
            pairs = ((r, n) for r in own for n in {1, 2 * (len(r) <= 12), len(r)} - {0})
            groups = [group for r, n in pairs for group in itertools.combinations(r, n)]
            sums = np.array([np.isin(np.arange(len(whose)), group) for group in groups], float)
            maps, of_groups = linear(sums, goals).maps, whose[[group[0] for group in groups]]
            for forest, root, b, index, own_weights in rest:
                left = functools.partial(self.left, maps, of_groups, forest, index, own_weights, goals, whose)
                demand(not any(map(bool, self.leaves(forest, root, b, left, missing))), "a leaf that is not closed")

    def own_weights(self, name: str, forest: Forest) -> tuple[Any, Any]:
        """Of each leaf, which weights of its own it has, -1 for none, and all these weights; None without any."""
        if name + "own.leaves" not in self.arrays:
            return None, None
        leaves, index = take(self.arrays, name + "own.leaves", "<i8", None), np.full(forest.leaf[-1] + 1, -1)
        weights = take(self.arrays, name + "own.weights", "<f4", len(leaves), None).astype(float)
        demand((weights >= 0).all() and np.isfinite(weights).all(), f"{name}own.weights")
        index[leaves] = np.arange(len(leaves))
        return index, weights

    def goal_of_leaves(self, forest: Forest) -> Array:
        """The goal of each leaf; children have greater numbers than their parent."""
        goal = np.full(len(forest.inner), -1)
        goal[forest.roots] = np.arange(len(forest.roots))
        for node in np.flatnonzero(forest.inner):
            goal[forest.child[node]] = goal[forest.child[node] + 1] = goal[node]
        return goal[~forest.inner]

    def left(self, maps: Any, of_groups: Array, *more: Any) -> set[int]:
        """The alternatives that are left at a node: none of their rows of maps, nor of the leaf's own sums, is > 0."""
        forest, index, own_weights, goals, whose, b, still, node = more
        rows = np.flatnonzero(np.isin(of_groups, [*still]))
        still = still.difference(of_groups[rows[self.lower(maps, rows, b) > 0]].tolist())
        if still and index is not None and not forest.inner[node] and index[forest.leaf[node]] >= 0:
            weights, those = own_weights[index[forest.leaf[node]]], np.array([*still])
            sums = np.where(whose[None] == those[:, None], weights[None, : len(whose)], 0.0)
            still = {*those[~(self.lower(linear(sums, goals).maps, np.arange(len(those)), b) > 0)].tolist()}
        return still


def numbered(arrays: Arrays, prefix: str, end: str) -> Iterator[str]:
    """The names PREFIX0., PREFIX1., ... as far as an array of that end exists."""
    return itertools.takewhile(lambda name: name + end in arrays, (f"{prefix}{i}." for i in itertools.count()))


def members(value: Any, names: str) -> list[Any]:
    """The members of a JSON object that must have exactly these keys."""
    demand(isinstance(value, dict) and set(value) == set(names.split()), f"meta: the keys are not {names}")
    return [value[name] for name in names.split()]


def parts(arrays: Arrays, claim: Any, p: int, q: int) -> Iterator[tuple[Any, ...]]:
    """The boxes of a claim, the rows and offsets of the alternatives of which none may hold, and whose they are.

    Strict rows are refuted as if they were not: more is proved than is claimed.
    """
    if claim["kind"] == "sample":
        _, _, label, eps, clip, cardinality = members(claim, "kind index label eps clip cardinality")
        demand(cardinality is None, "sets of few inputs (U_card) are not supported")
        demand(type(label) is int and 0 <= label < q > 1 and eps > 0, "meta: claim")
        centre = exact(take(arrays, "centre", "<f8", p))
        radii = Fraction(eps) * exact(take(arrays, "sigma", "<f8", p) if "sigma" in arrays else np.ones(p))
        least, most = map(Fraction, clip) if clip is not None else (-math.inf, math.inf)
        rows = np.delete(np.eye(q)[label] - np.eye(q), label, axis=0)
        box = np.maximum(centre - radii, least), np.minimum(centre + radii, most)
        yield "part.0.", *box, rows, np.zeros(q - 1), np.arange(q - 1)
        return
    demand(claim["kind"] == "property" and members(claim, "kind name sha256"), f"claims of kind {claim['kind']}")
    for key in numbered(arrays, "part.", "lo"):
        box = (exact(take(arrays, key + end, "<f8", p)) for end in ("lo", "hi"))
        names = [*numbered(arrays, f"{key}alternative.", "rows")]
        rows = [take(arrays, name + "rows", "<f8", None, q) for name in names]
        offsets = [take(arrays, name + "offsets", "<f8", len(some)) for name, some in zip(names, rows, strict=True)]
        demand(rows and all(map(len, rows)), f"{key}: no alternative, or one without rows")
        whose = np.repeat(np.arange(len(rows)), [*map(len, rows)])
        yield key, *box, np.concatenate(rows), np.concatenate(offsets), whose


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
            found = list(parts(arrays, claim, network.sizes[1], math.prod(network.output.shape)))
            demand(found, "a claim of nothing")
            for name, lo, hi, *alternatives in found:
                Part(arrays, name, network, lo, hi).check(*alternatives)
            centre = hashlib.sha256(arrays["centre"].tobytes()).hexdigest()[:16] if "centre" in arrays else None
            return f"{json.dumps(claim)}, centre {centre}, of {model.name} {json.dumps(about)}"
    except Exception as error:
        raise error if isinstance(error, Refused) else Refused(f"{type(error).__name__}: {error}") from error


load = functools.lru_cache(Network)

if __name__ == "__main__":
    print("accepted:", check(*map(Path, sys.argv[1:])))
