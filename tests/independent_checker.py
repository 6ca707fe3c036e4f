"""An independent checker of proof files, written from docs/proof-format.md alone: it shares no code with idl_audit.

    python independent_checker.py MODEL.onnx PROOF.npz

Bounds are evaluated in integers times powers of two (independent_reader.py) and rounded outward. Floating point only
*chooses* multipliers: any choice is sound (part 5 of the format). Any file is either accepted or `Refused`.
"""

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from independent_reader import (CONSTANT, Array, Arrays, Fixed, Network, Refused, Row, bits, combine, demand,
                                load, members, number, plus, product, pull, rounded, shifted, together, unique)

GRID = 160  # bounds of functionals are integers times 2**-GRID
CHUNK, BATCH = 1 << 17, 256  # entries of an array and nodes at a time


@dataclass
class Bounds:
    """Ends of z for each block, and of the inputs, a row for each node; an array of one row is for all nodes."""

    lo: list[Array]
    hi: list[Array]

    def take(self, nodes: Array, whole: bool = False) -> "Bounds":
        """A copy for some of the nodes."""
        return Bounds(*([a[nodes] if len(a) > 1 else np.repeat(a, len(nodes) if whole else 1, 0) for a in side]
                        for side in (self.lo, self.hi)))

    def of(self, k: int, nodes: Array) -> list[Array]:
        """The ends of one block for some of the nodes."""
        return [side[k] if len(side[k]) == 1 else side[k][nodes] for side in (self.lo, self.hi)]


class Forest:
    """Trees of a proof, and what is chosen in their leaves."""

    def __init__(self, arrays: Arrays, name: str, goals: int, network: Network, newest: int) -> None:
        self.roots, self.variable = (arrays.take(name + n, "<i8", m) for n, m in (("roots", goals), ("variable", None)))
        n, sizes = len(self.variable), network.sizes
        self.child, self.cut = arrays.take(name + "child", "<i8", n), arrays.take(name + "cut", "<f8", n)
        leaf = self.variable == -1
        first, inner, ends = self.child[~leaf], np.flatnonzero(~leaf), np.cumsum([0, *sizes[:-1]])
        demand((self.child[leaf] == 0).all() and ((first > inner) & (first < n - 1)).all(), f"{name}child")
        nodes = np.concatenate([self.roots, first, first + 1])
        demand(len(nodes) == n and (np.sort(nodes) == np.arange(n)).all(), f"{name}: nodes that are not of one tree")
        demand(((self.variable >= -1) & (self.variable < network.inputs + ends[-1])).all(), f"{name}variable")
        self.block = np.searchsorted(ends, self.variable - network.inputs, "right") - 1
        self.state = np.where(self.block < 0, self.variable, self.variable - network.inputs - ends[self.block])
        self.block[self.block < 0] = network.depth
        self.tree, self.leaf, leaves = np.zeros(n, int), np.where(leaf, np.cumsum(leaf) - 1, -1), int(leaf.sum())
        self.tree[self.roots] = np.arange(goals)
        for i in inner:
            self.tree[self.child[i] : self.child[i] + 2] = self.tree[i]
        self.choices: dict[tuple[str, int], list[Array]] = {}
        kinds = itertools.product(("slopes", "multipliers", "duals", "planes"), range(newest, network.depth))
        for kind, k in ((kind, k) for kind, k in kinds if f"{name}{kind}.{k}.leaves" in arrays):
            own, index = f"{name}{kind}.{k}.", np.full(leaves + 1, -1)
            some = arrays.indices(own + "leaves", leaves)
            index[some] = np.arange(len(some))
            if kind == "planes":
                states = arrays.indices(own + "states", sizes[k])
                shares = arrays.take(own + "shares", "|u1", len(some), len(states), None)
                self.choices[kind, k] = [index, shares, states]
            else:
                self.choices[kind, k] = [index, arrays.take(own + "values", "<f4", len(some), sizes[k])]


class Part:
    """One part of a proof: no point of a box makes one of the alternatives hold."""

    def __init__(self, arrays: Arrays, name: str, network: Network, lo: list[Fraction], hi: list[Fraction]) -> None:
        self.arrays, self.name, self.network = arrays, name, network
        largest = max(1, *map(abs, lo), *map(abs, hi))
        demand(largest < 1 << 50, "a box that does not fit the arithmetic")
        self.exps: list[Any] = [None] * network.depth + [57 - math.frexp(largest)[1]]
        self.box = self.on_inputs(lo, math.floor), self.on_inputs(hi, math.ceil)
        self.moves, self.centre, self.cardinality = [x < y for x, y in zip(lo, hi, strict=True)], self.box, 0

    def on_inputs(self, values: list[Fraction], rounding: Callable[[Fraction], int]) -> Array:
        """Values of the inputs, and a 1, as integers."""
        scale = Fraction(2) ** self.exps[-1]
        return np.array([[*(rounding(x * scale) for x in values), int(scale)]], np.int64)

    def lower(self, maps: dict[int, Fixed], rows: Array, signs: Array, nodes: Array, b: Bounds,
              forest: Forest | None = None, leaves: Any = (), lines: str = "usual") -> Array:
        """Lower bounds of signs * rows of an affine map, each over its node of the bounds, times 2**GRID."""
        depth, choices = self.network.depth, forest.choices if forest else {}
        width = max(self.network.sizes) * max([1, *(len(c[2]) for c in choices.values() if len(c) == 3)])
        step, found = max(1, CHUNK // width), [np.zeros(0, object)]
        for c in (slice(i, i + step) for i in range(0, len(rows), step)):
            parts = {k: Fixed(m.ints[rows[c]] * signs[c, None], m.exp, m.err) for k, m in maps.items()}
            total = np.zeros(len(rows[c]), object)
            for k in (k for k in range(depth) if k in parts):
                v, (lo, hi) = parts.pop(k), b.of(k, nodes[c])
                lam, use = self.chosen(k, v, lo, hi, choices, leaves[c], lines)
                if use is not None:
                    v, more, extra = self.planes(k, v, use, *choices["planes", k], leaves[c])
                    total, parts[depth] = total + extra, plus(parts[depth], more)
                total += self.states(k, v, lam, lo, hi)
                for j, m in self.network.maps[k].items() if lam.ints.any() else ():
                    parts[j] = plus(parts[j], pull(lam, m)) if j in parts else pull(lam, m)
            found.append(total + self.inputs(parts[depth], *b.of(depth, nodes[c])))
        return np.concatenate(found)

    def chosen(self, k: int, v: Fixed, lo: Array, hi: Array, choices: dict, leaves: Array, lines: str) -> Any:
        """The multipliers of a block, and where planes are used, if any are: floating point may be wrong here."""
        block, real, bends = self.network.blocks[k], np.ldexp(v.ints.astype(float), -v.exp), (lo < 0) & (hi > 0)
        below, above, scales = float(block.below), float(block.above), np.array(block.scales, float)

        def pick(kind: str, default: Any, unit: Any = 1) -> Any:
            if (kind, k) not in choices:
                return default
            index, values = choices[kind, k]
            return np.where((index[leaves] >= 0)[:, None], values[index[leaves]] / unit, default)

        with np.errstate(all="ignore"):
            chord = (above * hi - below * lo) / (hi.astype(float) - lo)
        near, stable = np.where(hi > -lo, above, below), np.where(lo >= 0, above, below)
        if lines != "usual":
            return rounded(real * (np.where(bends, chord, stable) if lines == "chords" else 0.0)), None
        s, t = (np.where(bends, each, stable) for each in ((near, chord) if above >= below else (chord, near)))
        lam = np.where(real >= 0, np.where(bends, pick("slopes", s), s), t) * real - pick("multipliers", 0.0, scales)
        lam = pick("duals", lam, scales)
        if ("planes", k) not in choices:
            return rounded(lam), None
        index, _, states = choices["planes", k]
        use = bends & (real < 0) & (index[leaves] >= 0)[:, None] & np.isin(np.arange(real.shape[1]), states)
        return rounded(np.where(use, 0, lam)), use

    def states(self, k: int, v: Fixed, lam: Fixed, lo: Array, hi: Array) -> Array:
        """The sum over states of the minimum of v phi(z) - lam z over [lo, hi]."""
        v, lam = together(v, lam)
        block = self.network.blocks[k]
        below, above = (product(v.ints, np.int64(math.floor(s * 2**60)), 60) if s.denominator > 1 else v.ints * int(s)
                        for s in (block.below, block.above))
        at_l, at_h = (np.where(low, below, above) - lam.ints for low in (lo < 0, hi <= 0))
        cut = max(31, bits(at_l, at_h) + bits(lo, hi) + lo.shape[1].bit_length() - 61)
        least = np.minimum(product(at_l, lo, cut), product(at_h, hi, cut))
        least = np.where((lo < 0) & (hi > 0), np.minimum(least, 0), least)
        off, up = (v.err + lam.err + 2) * lo.shape[1] << bits(lo, hi), GRID - v.exp - self.exps[k]
        return shifted(least.sum(axis=1).astype(object), up + cut) + shifted(-off, up)

    def inputs(self, w: Fixed, lo: Array, hi: Array) -> Array:
        """The minimum of w . u, where at most `cardinality` inputs differ from the centre unless that is 0."""
        cut = max(31, bits(w.ints) + bits(lo, hi) + lo.shape[1].bit_length() - 60)
        low, high = self.centre if self.cardinality else (lo, hi)
        sums = product(w.ints, np.where(w.ints >= 0, low, high), cut).sum(axis=1)
        if self.cardinality:
            gains = np.minimum(product(w.ints, hi - low, cut), product(w.ints, lo - high, cut))
            sums += np.sort(np.minimum(gains, 0), axis=1)[:, : self.cardinality].sum(axis=1)
        off, up = w.err * lo.shape[1] << bits(lo, hi) + 2, GRID - w.exp - self.exps[-1]
        return shifted(sums.astype(object), up + cut) + shifted(-off, up)

    def planes(self, k: int, v: Fixed, use: Array, index: Array, shares: Array, states: Array, leaves: Array) -> Any:
        """v (a . u + c) in place of v phi(z) where used: what is left of v, the factor of u, and the constant."""
        block, m, (lo, hi) = self.network.blocks[k], self.network.maps[k][self.network.depth], self.box
        demand(block.below in (-1, 0) and len(self.network.maps[k]) == 1, "planes of a block of another kind")
        taken, w = rounded(np.where(use, np.ldexp(v.ints.astype(float), -v.exp), 0)), m.ints[states]
        slope, c = np.zeros((len(leaves), *w.shape)), None
        for i, state in enumerate(states):
            moving = sorted(j for j in block.rows[state] if j >= 0 and self.moves[j])
            slope[:, i, moving] = shares[index[leaves], i, : len(moving)]
        slope = int(block.below) + slope / 255 * int(block.above - block.below)
        a = np.rint(slope * w / (1 << 18)).astype(np.int64) << 18
        for s in (block.below, block.above):
            factor = int(s) * w - a
            cut = max(31, bits(factor) + bits(lo, hi) + w.shape[1].bit_length() - 61)
            most = -product(-factor, np.where(factor >= 0, hi, lo), cut).sum(axis=2).astype(object)
            most = shifted(most, cut) + (m.err * w.shape[1] << bits(lo, hi))
            c = most if c is None else np.maximum(c, most)
        some = taken.ints[:, states]
        more = pull(Fixed(some[:, None], taken.exp), Fixed(a, m.exp))
        constant = shifted((some.astype(object) * c).sum(axis=1), GRID - taken.exp - m.exp - self.exps[-1])
        return plus(v, Fixed(-taken.ints, taken.exp)), Fixed(more.ints[:, 0], more.exp, more.err), constant

    def meet(self, k: int, b: Bounds, nodes: Array, states: Array, signs: Array, values: Array) -> None:
        """Intersect the bounds of a block with lower bounds of signs * z."""
        if self.exps[k] is None:
            self.exps[k] = 57 - (max(map(abs, values)) >> GRID).bit_length()
        new = shifted(values, self.exps[k] - GRID)
        new = np.maximum(np.minimum(new, 1 << 60), -1 << 60).astype(np.int64)
        low = signs > 0
        np.maximum.at(b.lo[k], (nodes[low], states[low]), new[low])
        np.minimum.at(b.hi[k], (nodes[~low], states[~low]), -new[~low])

    def refine(self, k: int, b: Bounds, every: bool) -> None:
        """Bounds of a block by intervals and the usual lines: of states that bend or, after chords, of every one."""
        block, maps = self.network.blocks[k], self.network.maps[k]
        kinds = ("none", *("chords",) * every, "usual") if len(maps) > 1 or self.cardinality > 0 else ("none",)
        for lines in kinds:
            bends = (b.lo[k] < 0) & (b.hi[k] > 0) & (block.below != block.above)
            nodes, states = (np.tile(x, 2) for x in np.nonzero(bends | every | (lines == "none")))
            signs = np.repeat(np.array([1, -1]), len(nodes) // 2)
            self.meet(k, b, nodes, states, signs, self.lower(maps, states, signs, nodes, b, None, nodes, lines))
            if block.windows and lines == "none" and not every:
                self.maxima(k, b)

    def maxima(self, k: int, b: Bounds) -> None:
        """Bounds of maxima over windows: the largest lower and upper ends."""
        windows, scales = self.network.blocks[k].windows, self.network.blocks[k].scales
        maps = self.network.compiled([combine((c,), (r,)) for w, c in zip(windows, scales, strict=True) for r in w])
        starts = np.cumsum([0, *map(len, windows)])
        none, first = np.zeros(starts[-1], int), np.zeros(len(windows), int)
        for sign, best in ((1, np.maximum), (-1, np.minimum)):
            ends = self.lower(maps, np.arange(starts[-1]), none + sign, none, b, None, none, "none")
            self.meet(k, b, first, np.arange(len(windows)), first + sign, best.reduceat(ends, starts[:-1]))

    def walk(self, forest: Forest, b: Bounds, closed: Array) -> Iterator[tuple[Array, Bounds]]:
        """The nodes of a forest and their bounds; those below nodes that the caller closes are left out."""
        stack = [(forest.roots, b)]
        while stack:
            nodes, b = stack.pop()
            if len(nodes) > BATCH:
                stack += [(nodes[half], b.take(half)) for half in np.array_split(np.arange(len(nodes)), 2)]
                continue
            yield nodes, b
            opened, of_input = ~closed[nodes] & (forest.leaf[nodes] < 0), forest.block[nodes] == self.network.depth
            for kind in (of_input, ~of_input):
                if len(some := np.flatnonzero(opened & kind)):
                    stack.append(self.children(forest, nodes[some], b.take(np.tile(some, 2), of_input[some[0]])))

    def children(self, forest: Forest, nodes: Array, b: Bounds) -> tuple[Array, Bounds]:
        """The children of nodes, first and second ones, and their bounds: all are split in inputs, or all in states."""
        n, depth = len(nodes), self.network.depth
        for i, node in enumerate(nodes):
            k, j = forest.block[node], forest.state[node]
            scale = self.network.blocks[k].scales[j] if k < depth else 1
            cut = Fraction(forest.cut[node].item()) * scale * Fraction(2) ** self.exps[k]
            if len(b.lo[k]) == 1:
                b.lo[k], b.hi[k] = (np.repeat(side[k], 2 * n, 0) for side in (b.lo, b.hi))
            demand(k < depth or b.lo[k][i, j] <= cut <= b.hi[k][i, j], "a cut outside its box")
            b.hi[k][i, j] = min(b.hi[k][i, j], max(math.ceil(cut), -1 << 60))
            b.lo[k][i + n, j] = max(b.lo[k][i + n, j], min(math.floor(cut), 1 << 60))
        for k in range(depth)[::-1] if forest.block[nodes[0]] == depth else ():
            self.refine(k, b, every=True)
        return np.concatenate([forest.child[nodes], forest.child[nodes] + 1]), b

    def lemma(self, name: str, k: int, b: Bounds) -> None:
        """Bounds of states that trees over older states prove."""
        states, maps = self.arrays.indices(name + "states", self.network.sizes[k], False), self.network.maps[k]
        signs = self.arrays.take(name + "signs", "|i1", len(states)).astype(np.int64)
        forest = Forest(self.arrays, name, len(states), self.network, k + 1)
        split, worst = forest.block[forest.leaf < 0], np.full(len(states), 1 << 400, object)
        older = ((split > k) & (split < self.network.depth)).all()
        demand((abs(signs) == 1).all() and older, f"{name}signs or variable")
        for nodes, inside in self.walk(forest, b, np.zeros(len(forest.leaf), bool)):
            some = np.flatnonzero(forest.leaf[nodes] >= 0)
            tree, leaves = forest.tree[nodes[some]], forest.leaf[nodes[some]]
            values = self.lower(maps, states[tree], signs[tree], some, inside, forest, leaves)
            for i, value in zip(tree, values, strict=True):
                worst[i] = min(worst[i], value)
        self.meet(k, b, np.zeros(len(states), int), states, signs, worst)

    def stage(self, name: str, b: Bounds) -> None:
        """The bounds of a stage."""
        blocks = self.arrays.indices(name + "blocks", self.network.depth, False)
        for k in reversed(range(self.network.depth)):
            self.refine(k, b, every=False)
            for j in np.flatnonzero(blocks == k):
                self.lemma(f"{name}lemma.{j}.", k, b)

    def keep(self, b: Bounds) -> Bounds:
        """Leave out states that are 0."""
        kept = {}
        for k, block in enumerate(self.network.blocks):
            if f"{self.name}kept.{k}" in self.arrays:
                kept[k] = self.arrays.indices(f"{self.name}kept.{k}", self.network.sizes[k])
                gone = np.setdiff1d(np.arange(self.network.sizes[k]), kept[k])
                demand(not len(gone) or block.below == 0 >= b.hi[k][0, gone].max(), "a state that is not kept")
        self.network = Network(self.network.graph, kept) if kept else self.network
        return Bounds(*([a[:, kept[k]] if k in kept else a for k, a in enumerate(side)] for side in (b.lo, b.hi)))

    def check(self, alternatives: list[list[Row]]) -> None:
        """Refuse unless the goals refute each of the alternatives."""
        start = [np.full((1, n), 1 << 60, np.int64) for n in self.network.sizes[:-1]]
        b, stages, goals = Bounds([*(-a for a in start), self.box[0]], [*start, self.box[1]]), list[Bounds](), []
        while not stages or (name := f"{self.name}stage.{len(stages)}.") + "blocks" in self.arrays:
            self.stage(name if stages else f"{self.name}stage.0.", b := b.take(np.zeros(1, int)))
            stages.append(b := b if stages else self.keep(b))
        while (name := f"{self.name}goals.{len(goals)}.") + "stage" in self.arrays:
            (stage,) = self.arrays.take(name + "stage", "<i8", 1)
            numbers = self.arrays.take(name + "alternatives", "<i8", None).tolist()
            weights = self.arrays.take(name + "weights", "<f8", len(numbers), None)
            demand(0 <= stage < len(stages) and (weights >= 0).all(), f"{name}stage or weights")
            demand(all(-1 <= a < len(alternatives) for a in numbers), f"{name}alternatives")
            goals.append((stages[stage], numbers, weights, Forest(self.arrays, name, len(numbers), self.network, 0)))
        missing = set(range(len(alternatives))).difference(*(goal[1] for goal in goals))
        demand(not missing or any(-1 in goal[1] for goal in goals), "alternatives that no goal refutes")
        for goal in goals:
            self.goal(alternatives, missing, *goal)

    def goal(self, alternatives: list[list[Row]], missing: set[int], b: Bounds, numbers: list[int], weights: Array,
             forest: Forest) -> None:
        """Refuse unless leaves, or nodes above them, refute the alternative of their tree, or all that are missing."""
        rows, whose = list[Row](), list(numbers)
        for a, w in zip(numbers, weights.tolist(), strict=True):
            demand(a < 0 or len(w) == len(alternatives[a]), "weights of other rows")
            rows.append(combine(map(Fraction, w), alternatives[a]) if a >= 0 else {})
        for a, own in ((a, alternatives[a]) for a in missing):
            groups = [[row] for row in own] + [list(p) for p in itertools.combinations(own, 2) if len(own) <= 12]
            groups += [own] if len(own) > 2 else []
            rows, whose = rows + [combine([1] * len(g), g) for g in groups], whose + [a] * len(groups)
        todo = [[i] if a >= 0 else list(range(len(numbers), len(rows))) for i, a in enumerate(numbers)]
        wanted = [{a} if a >= 0 else missing for a in numbers]
        maps, closed = self.network.compiled(rows), np.zeros(len(forest.leaf), bool)
        refuted: list[set[int]] = [set() for _ in closed]
        for nodes, inside in self.walk(forest, b, closed):
            demand(not self.cardinality or (forest.block[nodes] < self.network.depth).all(), "split inputs")
            looked = [i for i, n in enumerate(nodes) if forest.leaf[n] >= 0 or numbers[forest.tree[n]] < 0]
            at, which = np.array([(i, r) for i in looked for r in todo[forest.tree[nodes[i]]]], int).reshape(-1, 2).T
            values = self.lower(maps, which, np.ones(len(at), np.int64), at, inside, forest, forest.leaf[nodes[at]])
            for i, r in zip(at[values > 0], which[values > 0], strict=True):
                refuted[nodes[i]].add(whose[r])
            for n in nodes:
                closed[n] = refuted[n] >= wanted[forest.tree[n]]
                demand(closed[n] or forest.leaf[n] < 0, "a leaf that is not closed")
                for child in range(forest.child[n], forest.child[n] + 2) if forest.leaf[n] < 0 else ():
                    refuted[child] |= refuted[n]


def check_sample(arrays: Arrays, network: Network, claim: dict[str, Any]) -> str:
    """Check the claim that an output is the largest around a sample."""
    _, index, label, eps, clip, cardinality = members(claim, "kind index label eps clip cardinality")
    outputs, p = network.graph.outputs, network.inputs
    right = type(index) is type(label) is int and 0 <= label < len(outputs) > 1 and index >= 0 and number(eps) > 0
    demand(right and (cardinality is None or (type(cardinality) is int and cardinality > 0)), "meta: claim")
    digest = hashlib.sha256((given := arrays.take("centre", "<f8", p)).tobytes()).hexdigest()[:16]
    centre = [Fraction(c) for c in given.tolist()]
    sigma = [Fraction(s) for s in (arrays.take("sigma", "<f8", p).tolist() if "sigma" in arrays else [1] * p)]
    demand(all(s >= 0 for s in sigma), "a sigma below 0")
    lo, hi = ([c + sign * number(eps) * s for c, s in zip(centre, sigma, strict=True)] for sign in (-1, 1))
    if clip is not None:
        least, most = map(number, clip)
        demand(type(clip) is list and all(least <= c <= most for c in centre), "a centre outside clip")
        lo, hi = [max(x, least) for x in lo], [min(x, most) for x in hi]
    part = Part(arrays, "part.0.", network, lo, hi)
    if cardinality is not None:
        part.centre, part.cardinality = [part.on_inputs(centre, r) for r in (math.floor, math.ceil)], cardinality
    part.check([[combine((1, -1), (outputs[label], y))] for j, y in enumerate(outputs) if j != label])
    return (f"class {label} for all inputs within {eps} of sample {index} (centre {digest}), clip {clip}, cardinality "
            f"{cardinality}{', sigma given' * any(s != 1 for s in sigma)}")


def check_property(arrays: Arrays, network: Network, claim: dict[str, Any]) -> str:
    """Check the claim that no input of some boxes makes one of their alternatives hold."""
    _, name, sha256 = members(claim, "kind name sha256")
    outputs, count, total = network.graph.outputs, 0, 0
    while (key := f"part.{count}.") + "lo" in arrays:
        lo, hi = ([*map(Fraction, arrays.take(key + end, "<f8", network.inputs).tolist())] for end in ("lo", "hi"))
        demand(all(x <= y for x, y in zip(lo, hi, strict=True)), f"{key}lo above hi")
        alternatives = list[list[Row]]()
        while (own := f"{key}alternative.{len(alternatives)}.") + "rows" in arrays:
            rows = arrays.take(own + "rows", "<f8", None, len(outputs)).tolist()
            offsets = arrays.take(own + "offsets", "<f8", len(rows)).tolist()
            fair = all(sum(r) == o == 0 and np.count_nonzero(r) == 2 for r, o in zip(rows, offsets, strict=True))
            demand(fair or not network.graph.softmax, "values of a softmax")
            alternatives.append([combine(map(Fraction, (*r, 1)), (*outputs, {CONSTANT: Fraction(o)}))
                                 for r, o in zip(rows, offsets, strict=True)])
        Part(arrays, key, network, lo, hi).check(alternatives)
        count, total = count + 1, total + len(alternatives)
    demand(total, "no alternative")
    return f"no input of {count} boxes makes one of {total} alternatives hold, said to be those of {name} ({sha256})"


def check(model: Path, proof: Path) -> str:
    """The claim of a proof file that is right about a model; Refused otherwise, whatever the file holds."""
    try:
        arrays = Arrays(proof)
        text = str(arrays.take("meta", arrays["meta"].dtype.str))
        meta = json.loads(text, object_pairs_hook=unique, parse_constant=number)
        version, kind, tool, about, arithmetic, claim = members(meta, "schema_version kind tool model arithmetic claim")
        demand([version, kind, arithmetic, type(tool)] == ["2.0", "proof", "real", str], "not a proof of format 2.0")
        claims = {"sample": check_sample, "property": check_property}
        result = claims[claim["kind"]](arrays, load(model, about), claim)
        demand(not arrays, f"arrays of no meaning: {', '.join(arrays)}")
        return f"{result}: {model.name} {json.dumps(about)}"
    except Exception as error:
        raise error if isinstance(error, Refused) else Refused(f"{type(error).__name__}: {error}") from error


def main() -> int:
    """Check one proof."""
    try:
        print(f"accepted: {check(Path(sys.argv[1]), Path(sys.argv[2]))}")
    except Refused as reason:
        print(f"refused: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
