"""Models that `convert` has written, read by part 13 of docs/proof-format.md and never by idl_audit.

Block 0 is the constant 1 here, block 1 the inputs as the network reads them, and then the oldest states come first.
What coefficients may be off by is read with them, as a block of its own number below 0: `CurvedPart.rest` counts it.
"""

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tests.independent_calculus import CURVES
from tests.independent_checker import Exact, Maps, Tensor
from tests.independent_curves import HALF, Bent, CurvedNetwork, Jumps, Phi, Steps
from tests.independent_files import Array, Arrays, demand, numbers
from tests.independent_groups import Contractions, Group, Norms, Products, Softmaxes

CENTRES = {"round": Fraction(0), "floor": HALF, "ceil": -HALF}
KINKS = {"relu": 0, "identity": 1, "abs": -1}
NEARLY = Fraction(1, 1 << 40)
"""What rounding may change in a coefficient of a norm's own blocks, relative to its size."""
GROUPS = ("contraction", "normalised", "product", "softmax")
Row = dict[tuple[int, int], Fraction]  # of one entry: (block, state) and the coefficient; (0, 0) is the constant


class StoredNetwork(CurvedNetwork):
    """The blocks of a converted model."""

    def __init__(self, converted: Path, path: Path, sha256: str, output: str | None, units: str) -> None:
        self.path, self.phis, self.errors = path, {}, {}
        demand(sha256 == hashlib.sha256(path.read_bytes()).hexdigest(), "another model file")
        demand(output is None, "one of several outputs")
        with np.load(converted) as file:
            self.arrays: Arrays = dict(file)
        meta = json.loads(str(self.arrays["meta"]))
        demand(meta["schema_version"] == "1.0" and meta["scaling"] is None, "no converted model, or a scaled one")
        shape = [int(n) for n in meta["input_shape"]]
        p, channels = math.prod(shape), (*shape, 1, 1)[1]
        scale, *given = json.loads(units)
        demand({*map(len, given)} <= {0, 1, channels}, "meta: preprocessing")
        mean, std = (
            np.repeat(np.resize(numbers(each or [i]), channels), p // channels) for i, each in enumerate(given)
        )
        self.scale, self.shift = numbers([scale])[0] / std, -mean / std
        demand((self.scale > 0).all(), "meta: preprocessing")
        entries = list(reversed(list(zip(meta["blocks"], meta["rows"], strict=True))))
        self.last = len(entries) + 2
        self.sizes = [1, p, *(math.prod(entry["shape"]) for entry, _ in entries)]
        self.below, self.maps, self.windows = [1, 1], list[Maps]([{}, {}]), [{}] * self.last
        self.names = ["", ""]
        for t, (entry, row) in enumerate(entries, 2):
            k = self.last - 1 - t
            self.maps.append(self.row(str(k), row, t))
            self.names.append(entry["activation"])
            demand(entry["exponent"] == 0 and "parts" not in entry, f"block {k}: a scale, or several activations")
            self.below.append(self.activation(f"phi.{k}.", entry, t))
        self.output = Tensor(tuple(meta["output_shape"]), dict(self.row("y", meta["output"], self.last)))
        if path != converted:  # of a network the blocks of a norm are what its operator is, part 1
            for t, phi in self.phis.items():
                if isinstance(phi, Norms) and self.is_wired(t, phi):
                    self.phis[t] = Norms(*(getattr(phi, n) for n in NORM), aided=True)

    # --- maps ---------------------------------------------------------------------------------------------------------

    def row(self, name: str, meta: Any, t: int) -> Maps:
        """z of a block, or the outputs: a matrix of each block that is read, and what they are off by below 0."""
        letters = ("C", "D", "d") if name == "y" else (f"A.{name}", f"B.{name}", f"b.{name}")
        found: Maps = {0: Exact.of(self.floats(letters[2]).reshape(-1, 1))}
        sources = {self.last - 1 - int(k): (f"{letters[0]}.{k}", each) for k, each in meta["states"].items()}
        demand(all(1 < j < t for j in sources), "a block that reads itself, or a newer one")
        if meta["input"] is not None:
            sources[1] = letters[1], meta["input"]
        off: Maps = {}
        for j, (key, each) in sources.items():
            matrix, error = self.matrix(key, each), self.error(key, each)
            demand(matrix.ints.shape == (len(found[0].ints), self.sizes[j]), f"{key}: another shape")
            found[j] = matrix
            if error is not None:
                off[j] = error
        constant = Fraction(float(meta["constant_error"]))
        demand(constant >= 0, "an error below 0")
        if off or constant:
            self.errors[t] = off, constant
            found[-t] = Exact.of(np.eye(len(found[0].ints)))
        return found

    def floats(self, key: str) -> Array:
        """An array of finite numbers."""
        array = np.asarray(self.arrays[key], float)
        demand(np.isfinite(array).all(), f"{key} is not finite")
        return array

    def matrix(self, key: str, meta: Any) -> Exact:
        """The matrix of a linear map."""
        kinds: dict[str, Callable[[str, Any], Exact]] = {
            "selection": self.selection,
            "dense": lambda key, _: Exact.of(self.floats(f"{key}.matrix")),
            "sparse": self.sparse,
            "convolution": self.convolution,
            "transposed": lambda key, meta: turned(self.matrix(key, meta["of"])),
            "reindexed": self.reindexed,
        }
        return kinds[meta["kind"]](key, meta)

    def error(self, key: str, meta: Any) -> Exact | None:
        """relative |W| + slack; None where W is exact."""
        inner = [meta[name] for name in ("of", "left", "core", "right") if name in meta]
        demand(not any(one["relative"] or one["slack"] for one in inner), f"{key}: a part that is not exact")
        relative, found = float(meta["relative"]), None
        demand(relative >= 0, "an error below 0")
        if relative:
            matrix, factor = self.matrix(key, meta), Exact.of(np.array([relative]))
            found = Exact(abs(matrix.ints) * factor.ints[0], matrix.exp + factor.exp)
        if meta["slack"] is not None:
            slack = self.matrix(f"{key}.slack", meta["slack"])
            demand((slack.ints >= 0).all() and self.error(f"{key}.slack", meta["slack"]) is None, f"{key}.slack")
            found = slack if found is None else found + slack
        return found

    def selection(self, key: str, meta: Any) -> Exact:
        """weights_i x[index_i], 0 where the index is -1."""
        index = np.asarray(self.arrays[f"{key}.index"]).astype(int)
        weights = self.floats(f"{key}.weights") if meta["weighted"] else np.ones(len(index))
        demand(((index >= -1) & (index < meta["n_in"])).all(), f"{key}.index")
        matrix, there = np.zeros((len(index), int(meta["n_in"]))), index >= 0
        matrix[np.flatnonzero(there), index[there]] = weights[there]
        return Exact.of(matrix)

    def sparse(self, key: str, meta: Any) -> Exact:
        """Compressed rows."""
        data, columns, edges = (self.arrays[f"{key}.{name}"] for name in ("data", "indices", "indptr"))
        matrix = np.zeros([int(n) for n in meta["shape"]])
        demand(len(edges) == len(matrix) + 1 and len(data) == len(columns) == edges[-1], key)
        np.add.at(matrix, (np.repeat(np.arange(len(matrix)), np.diff(edges)), columns), data)
        demand(np.isfinite(matrix).all() and np.count_nonzero(matrix) == np.count_nonzero(data), f"{key}: repeated")
        return Exact.of(matrix)

    def convolution(self, key: str, meta: Any) -> Exact:
        """y[o, t] = sum over c, k of kernel[o, c, k] x[group(o) + c, stride t + dilation k - pads]."""
        kernel, groups = self.floats(f"{key}.kernel"), int(meta["groups"])
        sizes, strides, pads, dilations = (meta[n] for n in ("spatial_in", "strides", "pads", "dilations"))
        outs, ins, *taps = kernel.shape
        rank = range(len(taps))
        spans = [sizes[a] + pads[a] + pads[len(taps) + a] - dilations[a] * (taps[a] - 1) - 1 for a in rank]
        places = [span // stride + 1 for span, stride in zip(spans, strides, strict=True)]
        matrix = np.zeros((outs, *places, ins * groups, *sizes))
        for place, tap in itertools.product(np.ndindex(*places), np.ndindex(*taps)):
            x = [strides[a] * place[a] + dilations[a] * tap[a] - pads[a] for a in rank]
            if all(0 <= x[a] < sizes[a] for a in rank):
                for o, c in itertools.product(range(outs), range(ins)):
                    matrix[(o, *place, o // (outs // groups) * ins + c, *x)] += kernel[(o, c, *tap)]
        return Exact.of(matrix.reshape(outs * math.prod(places), -1))

    def reindexed(self, key: str, meta: Any) -> Exact:
        """left core right."""
        left, core, right = (self.matrix(f"{key}.{name}", meta[name]) for name in ("left", "core", "right"))
        return left @ core @ right

    # --- activations --------------------------------------------------------------------------------------------------

    def activation(self, key: str, entry: Any, t: int) -> int:
        """Note what a block's states are; the slope below 0 of those that tests.independent_checker knows."""
        name, n = entry["activation"], self.sizes[t]
        if name in KINKS:
            return KINKS[name]
        given = {
            what: self.floats(key + what).tolist() if value is None else [float(value)] * n
            for what, value in entry["parameters"].items()
        }
        demand(all(len(values) == n for values in given.values()), f"{key}: parameters of {n} states")
        if name in GROUPS:
            self.phis[t] = group_of(name, {what: Fraction(values[0]) for what, values in given.items()}, n)
            return 0
        states = [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)] or [{}] * n
        known = functools.cache(lambda items: phi_of(name, dict(items)))
        self.phis[t] = tuple(known(tuple(one.items())) for one in states)
        return 0

    # --- norms --------------------------------------------------------------------------------------------------------

    def read(self, t: int, i: int) -> Row:
        """What z of a state reads."""
        found = {}
        for j, m in self.maps[t].items():
            if j >= 0:
                found |= {(j, c): Fraction(x, 1 << m.exp) for c, x in enumerate(m.ints[i].tolist()) if x}
        return found

    def deep(self, row: Row) -> Row:
        """The same, where what identity blocks read stands in their place."""
        found: Row = {}
        for (j, c), x in row.items():
            parts = self.deep(self.read(j, c)) if j > 1 and self.names[j] == "identity" else {(j, c): Fraction(1)}
            for place, y in parts.items():
                found[place] = found.get(place, Fraction(0)) + x * y
        return found

    def is_wired(self, t: int, phi: Norms) -> bool:
        """Whether the last z of every group is 1 / s of the others, and their mean is 0 where it should be."""
        starts = range(0, self.sizes[t], phi.width)
        return all(self.is_factor(t, phi, start) for start in starts)

    def is_factor(self, t: int, phi: Norms, start: int) -> bool:
        """The same of one group, followed backwards: factor, perhaps a maximum, root, squares."""
        entries = [self.read(t, start + i) for i in range(phi.n)]
        if phi.centred:
            sums: Row = {}
            sizes: Row = {}
            for row in map(self.deep, entries):
                for place, x in row.items():
                    sums[place], sizes[place] = sums.get(place, 0) + x, sizes.get(place, 0) + abs(x)
            if any(abs(x) > NEARLY * sizes[place] for place, x in sums.items()):
                return False
        row, least = self.read(t, start + phi.n), phi.floor
        inner, has_root = self.one(row, Fraction(0), "rsqrt"), True
        if inner is None:
            inner, has_root = self.one(row, Fraction(0), "reciprocal"), False
        if inner is None:
            return False
        under = phi.under
        if has_root and least:
            rest = self.one(inner, least * least, "relu")
            if rest is None:
                return False
            inner, under = rest, under - least * least
        if not has_root:
            beside = phi.beside
            if least:
                rest = self.one(inner, least, "relu")
                if rest is None:
                    return False
                inner, beside = rest, beside - least
            root = self.one(inner, beside, "sqrt")
            if root is None:
                return False
            inner = root
        if has_root and phi.beside:
            return False
        squares = {place: x for place, x in inner.items() if place != (0, 0)}
        share = 1 / phi.count
        near = abs(inner.get((0, 0), Fraction(0)) - under) <= NEARLY * (phi.under + least * least)
        if not near or len(squares) > phi.n or any(abs(x - share) > NEARLY * share for x in squares.values()):
            return False
        if any(self.names[j] != "square" for j, _ in squares):
            return False
        found, wanted = ([row for row in rows if row] for rows in ((self.read(j, c) for j, c in squares), entries))
        return len(found) == len(wanted) and all(found.count(row) == wanted.count(row) for row in wanted)

    def one(self, row: Row, constant: Fraction, name: str) -> Row | None:
        """What the one state of an activation reads that a row is, with this constant; None where it is not so."""
        rest = {place: x for place, x in row.items() if place != (0, 0)}
        if abs(row.get((0, 0), Fraction(0)) - constant) > NEARLY * abs(constant) or [*rest.values()] != [1]:
            return None
        ((j, c),) = rest
        return self.read(j, c) if j > 1 and self.names[j] == name else None

    # --- the function -------------------------------------------------------------------------------------------------

    def __call__(self, u: Array) -> Array:
        """About the outputs at inputs as the network reads them, (m, p) -> (m, q)."""
        x = [np.ones((len(u), 1)), u]
        for t in range(2, self.last):
            z = sum(x[j] @ m.floats().T for j, m in self.maps[t].items() if j >= 0)
            if t not in self.phis:
                x.append(np.where(z >= 0, z, self.below[t] * z))
                continue
            phis = self.phis[t]
            if isinstance(phis, Group):
                x.append(phis(z))
            else:
                x.append(
                    np.array([[float(phi(one)) for phi, one in zip(phis, row, strict=True)] for row in z.tolist()])
                )
        return np.asarray(sum(x[j] @ m.floats().T for j, m in self.output.maps.items() if j >= 0 and m))


NORM = ("width", "count", "under", "beside", "floor", "centred")


def turned(matrix: Exact) -> Exact:
    """The transposed matrix."""
    return Exact(matrix.ints.T, matrix.exp)


def group_of(name: str, given: dict[str, Fraction], n: int) -> Group:
    """Groups of coupled states."""
    demand(all(value >= 0 for value in given.values()), f"{name}: a parameter below 0")
    sizes = {what: int(value) for what, value in given.items() if what in ("columns", "inner", "rows", "width")}
    demand(all(given[what] == value >= 1 for what, value in sizes.items()), f"{name}: sizes")
    made: Group
    if name == "product":
        made = Products()
    elif name == "contraction":
        made = Contractions(**sizes)
    elif name == "softmax":
        made = Softmaxes(**sizes)
    else:
        numbers = (given[what] for what in ("count", "under", "beside", "least"))
        made = Norms(sizes["width"], *numbers, bool(given["centred"]))
        demand(made.width >= 2 and made.count > 0, f"{name}: nothing to divide by")
    demand(n % made.width == 0, f"{name}: groups of {made.width} in {n} states")
    return made


def phi_of(name: str, given: dict[str, float]) -> Phi:
    """What one state is a function of."""
    if name == "leaky_relu":
        return Bent(below=Fraction(given["alpha"]), above=Fraction(1))
    if name == "step":
        return Steps(**{what: Fraction(given[what]) for what in ("below", "above", "jump")})
    if name in CENTRES:
        ends = {what: given[what] for what in ("lowest", "highest", "reach") if what in given}
        return Jumps(CENTRES[name], **ends)
    demand(name in CURVES, f"activation {name}")
    return CURVES[name](**given)
