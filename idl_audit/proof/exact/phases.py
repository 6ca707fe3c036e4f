"""Small queries decided in rational arithmetic: branching over the phases of the states that bend, exact programs.

Outward rounding never proves what holds with equality somewhere: y <= 1 for y = u on [0, 1]. Here every state is an
affine function of the inputs that move and of the states that may bend over the box, with whole numbers for
coefficients; a node of the tree is the program of its phases, of the hull of the states that are left, and of an
alternative's rows. Strict rows leave room: the greatest t with row + t <= 0 is above 0 where they can hold. A program
without a point refutes its node; its point is asked about at the network itself, exactly, and where it is no
counterexample one of the states there is off its graph, and is split (docs/mathematics.md, section 13).

Elsewhere: rational verification, boundary cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.exact.numbers import Exact, product, zeros
from idl_audit.proof.exact.point import exact_outputs
from idl_audit.proof.exact.simplex import maximise
from idl_audit.values.arrays import AnyArray, BoolArray
from idl_audit.values.box import Box
from idl_audit.values.check import Check, unchecked
from idl_audit.values.query import Conjunction, Query

MOST_BENDING: Final = 24
"""States that may bend over the box."""
MOST_VARIABLES: Final = 60
"""Inputs that move, and such states."""
MOST_PRODUCTS: Final = 2**24
"""Of coefficients with whole numbers, to write all states in the variables: some ten seconds."""

BELOW, ABOVE, FREE = -1, 1, 0
"""What is known of a state in a node: z <= 0, z >= 0, nothing."""


def fits(model: ImplicitModel) -> bool:
    """Return whether all activations of a model have two slopes and one kink, at 0."""
    return not model.loops and all(isinstance(block.activation, Kinked) for block in model.blocks)


def bending(model: ImplicitModel, bounds: StateBounds) -> dict[int, BoolArray]:
    """Return which states have more than one slope within their bounds, block by block."""
    return {k: model.blocks[k].bends(bounds.z[k].lo[0], bounds.z[k].hi[0]) for k in bounds.z}


def is_small(model: ImplicitModel, box: Box, bounds: StateBounds) -> bool:
    """Return whether the ends of a box are known, and few enough states may bend, and inputs move, over it."""
    ends = box.exact_ends
    if ends is None:
        return False
    states = sum(int(some.sum()) for some in bending(model, bounds).values())
    inputs = sum(lo < hi for lo, hi in zip(*ends, strict=True))
    return states <= MOST_BENDING and states + inputs <= MOST_VARIABLES


@dataclass(frozen=True, eq=False)
class Row:
    """coefficients . (variables, 1) <= 0, of whole numbers; < 0 where it is strict."""

    coefficients: AnyArray
    """(v + 1,), the constant last."""
    strict: bool = False


@dataclass(frozen=True, eq=False)
class Kink:
    """A state that may bend: x = below z for z <= 0, above z for z >= 0, with z in [lo, hi]."""

    state: int
    """Its number in the flat order."""
    variable: int
    """That stands for x."""
    z: tuple[Fraction, ...]
    """z as an affine function of the variables, (v + 1,)."""
    below: Fraction
    above: Fraction
    lo: Fraction
    hi: Fraction

    @property
    def least(self) -> Fraction:
        """The least x."""
        return min(self.below * self.lo, self.above * self.hi, Fraction(0))

    def rows(self, phase: int) -> list[Row]:
        """Return what holds of x and z in a phase; in none, the hull of the graph."""
        if phase != FREE:
            slope = self.below if phase == BELOW else self.above
            side = Row(whole([-phase * value for value in self.z]))
            return [self._row(1, slope, Fraction(0)), self._row(-1, slope, Fraction(0)), side]
        chord = (self.above * self.hi - self.below * self.lo) / (self.hi - self.lo)
        cut = self.below * self.lo - chord * self.lo
        bent = 1 if self.above >= self.below else -1  # convex: above both lines through 0, below the chord
        lines = [self._row(-bent, slope, Fraction(0)) for slope in (self.below, self.above)]
        return [*lines, self._row(bent, chord, cut)]

    def _row(self, side: int, slope: Fraction, cut: Fraction) -> Row:
        """Return side (x - slope z - cut) <= 0."""
        values = [-slope * value for value in self.z]
        values[self.variable] += 1
        values[-1] -= cut
        return Row(whole([side * value for value in values]))

    def missing(self, point: Sequence[Fraction]) -> Fraction:
        """Return how far x is from phi(z) at values of the variables."""
        z = sum((a * v for a, v in zip(self.z, point, strict=False) if a), self.z[-1])
        return abs(point[self.variable] - (self.above if z >= 0 else self.below) * z)


@dataclass(frozen=True, eq=False)
class Program:
    """What a query's set and a model's states are over a box, in variables: inputs that move, then states that bend."""

    fixed: tuple[Fraction, ...]
    """Every input, those that move at their lower end, (p,)."""
    moves: tuple[int, ...]
    widths: tuple[Fraction, ...]
    kinks: tuple[Kink, ...]
    outputs: Exact
    """(q, v + 1)."""

    @property
    def least(self) -> list[Fraction]:
        """The least value of each variable."""
        return [*(self.fixed[i] for i in self.moves), *(kink.least for kink in self.kinks)]

    def least_rows(self) -> Iterator[Row]:
        """Yield least_j <= v_j for all variables."""
        least = self.least
        for j, low in enumerate(least):
            values = [Fraction(0)] * (len(least) + 1)
            values[j], values[-1] = Fraction(-1), low
            yield Row(whole(values))

    def input_rows(self) -> Iterator[Row]:
        """Yield u_i <= hi_i for the inputs that move."""
        for j, (i, width) in enumerate(zip(self.moves, self.widths, strict=True)):
            values = [Fraction(0)] * (len(self.least) + 1)
            values[j], values[-1] = Fraction(1), -(self.fixed[i] + width)
            yield Row(whole(values))

    def alternative_rows(self, alternative: Conjunction) -> Iterator[Row]:
        """Yield the rows of an alternative in the variables."""
        for row, offset, strict in zip(alternative.rows, alternative.exactly, alternative.strict, strict=True):
            values = [Fraction(0)] * (len(self.least) + 1)
            for j in np.flatnonzero(row).tolist():
                g = Fraction(float(row[j])) / self.outputs.bottom
                values = [value + g * top for value, top in zip(values, self.outputs.tops[j].tolist(), strict=True)]
            values[-1] += offset
            yield Row(whole(values), bool(strict))

    def point(self, variables: Sequence[Fraction]) -> tuple[Fraction, ...]:
        """Return the inputs where the variables have some values."""
        found = list(self.fixed)
        for j, i in enumerate(self.moves):
            found[i] = variables[j]
        return tuple(found)


def program_of(model: ImplicitModel, box: Box, bounds: StateBounds, *, check: Check = unchecked) -> Program | None:
    """Return the program of an exact model over a box.

    None where the box's ends, or bounds of states, are not known, or it takes too many products.

    Args:
        model: a model of kinked states without uncertain coefficients.
        box: the box.
        bounds: proved bounds of all its states over it.
        check: called between blocks; what it raises ends the work.
    """
    ends = box.exact_ends
    if ends is None or not all(np.isfinite(z.lo).all() and np.isfinite(z.hi).all() for z in bounds.z.values()):
        return None
    lo, hi = ends
    moves = tuple(i for i in range(box.size) if lo[i] < hi[i])
    bends = bending(model, bounds)
    count = len(moves) + sum(int(some.sum()) for some in bends.values())
    if (count + 1) * model.nnz > MOST_PRODUCTS:
        return None
    inputs = _inputs(lo, moves, count)
    kinks: list[Kink] = []
    states: dict[int, Exact] = {}
    for k in model.evaluation_order:
        check()
        z = _affine(model.rows[k], states, inputs, count)
        states[k] = _through(model, k, z, bounds.z[k], bends[k], kinks, len(moves))
    outputs = _affine(model.output, states, inputs, count)
    return Program(lo, moves, tuple(hi[i] - lo[i] for i in moves), tuple(kinks), outputs)


def _inputs(lo: Sequence[Fraction], moves: Sequence[int], count: int) -> Exact:
    still = [Fraction(0) if i in set(moves) else value for i, value in enumerate(lo)]
    constants = Exact.of_fractions(still)
    tops = zeros((len(lo), count + 1))
    tops[:, -1] = constants.tops
    for j, i in enumerate(moves):
        tops[i, j] = constants.bottom
    return Exact(tops, constants.bottom)


def _affine(row: Affine, states: Mapping[int, Exact], inputs: Exact, count: int) -> Exact:
    constant = Exact.of_floats(row.constant)
    tops = zeros((row.size, count + 1))
    tops[:, -1] = constant.tops
    total = Exact(tops, constant.bottom)
    for k, linear_map in row.states.items():
        total = total.plus(product(linear_map, states[k]))
    return total if row.input is None else total.plus(product(row.input, inputs))


def _through(
    model: ImplicitModel, k: int, z: Exact, bounds: Interval, bends: BoolArray, kinks: list[Kink], first: int
) -> Exact:
    """Return x as functions of the variables; those that bend become variables of their own."""
    activation = model.blocks[k].activation
    assert isinstance(activation, Kinked)
    below, above = (
        np.broadcast_to(np.asarray(s, np.float64), bends.shape) for s in (activation.below, activation.above)
    )
    lo, hi = bounds.lo[0], bounds.hi[0]
    x = z.times(np.where(lo >= 0, above, below))
    for i in np.flatnonzero(bends).tolist():
        variable = first + len(kinks)
        form = tuple(Fraction(top, z.bottom) for top in z.tops[i].tolist())
        ends = (Fraction(float(value)) for value in (below[i], above[i], lo[i], hi[i]))
        kinks.append(Kink(int(model.offsets[k]) + i, variable, form, *ends))
        x.tops[i] = 0
        x.tops[i, variable] = x.bottom
    return x


def whole(values: Sequence[Fraction]) -> AnyArray:
    """Return a multiple above 0 of some numbers, all whole."""
    bottom = math.lcm(*(value.denominator for value in values))
    tops = [value.numerator * (bottom // value.denominator) for value in values]
    shared = math.gcd(*tops) or 1
    made = zeros((len(values),))
    made[:] = [top // shared for top in tops]
    return made


# --- the tree --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tree:
    """Why an alternative holds nowhere: phases are split, and at each leaf the rows add up to a contradiction.

    Children have greater numbers than their parent, the two of a node numbers that follow each other: BELOW, ABOVE.
    """

    split: tuple[int, ...]
    """Of each node, the number of the kink whose phases its children have; LEAF for a leaf."""
    child: tuple[int, ...]
    """The first child; 0 for a leaf."""
    leaves: tuple[Mapping[int, int], ...]
    """Of each leaf, in the order of nodes: row -> its multiplier, a whole number above 0."""


LEAF: Final = -1
"""In place of the number of a kink."""


@dataclass(frozen=True)
class Answer:
    """What is known of one alternative."""

    refuted: bool
    """Whether no point of the set satisfies it."""
    point: tuple[Fraction, ...] = ()
    """A counterexample of the query; nothing where there is none, or none was found."""
    tree: Tree | None = None
    """Where it is refuted: why."""


class Decider:
    """Decides the alternatives of a query over one box, one after the other."""

    def __init__(self, model: ImplicitModel, query: Query, program: Program, check: Check = unchecked) -> None:
        self._model, self._query, self._program, self._check = model, query, program, check
        self._rows = NodeRows.of(program)

    def decide(self, alternative: Conjunction) -> Answer:
        """Return a counterexample of the query, or that the alternative has none.

        What `check` raises, which is called at each pivot, ends the work.
        """
        asked = list(self._program.alternative_rows(alternative))
        split, child, leaves = [LEAF], [0], dict[int, Mapping[int, int]]()
        waiting: list[tuple[int, tuple[int, ...]]] = [(0, (FREE,) * len(self._program.kinks))]
        while waiting:
            node, phases = waiting.pop()
            found, multipliers = _maximised(self._rows.at(phases, asked), self._program.least, self._check)
            if found is None:
                leaves[node] = multipliers
                continue
            point = self._program.point(found)
            outputs = exact_outputs(self._model, point)
            if self._query.holds_between(outputs, outputs):
                return Answer(False, point)
            number = self._most_missing(phases, found)
            if number is None:  # every state is on its graph, so that the rows hold
                raise AssertionError("a point of an exact program is no counterexample")
            split[node], child[node] = number, len(split)
            for phase in (BELOW, ABOVE):
                waiting.append((len(split), with_phase(phases, number, phase)))
                split.append(LEAF)
                child.append(0)
        return Answer(True, tree=Tree(tuple(split), tuple(child), tuple(leaves[node] for node in sorted(leaves))))

    def _most_missing(self, phases: Sequence[int], found: Sequence[Fraction]) -> int | None:
        missing = [
            kink.missing(found) if phase == FREE else Fraction(0)
            for kink, phase in zip(self._program.kinks, phases, strict=True)
        ]
        worst = max(range(len(missing)), key=missing.__getitem__, default=None)
        return None if worst is None or not missing[worst] else worst


def with_phase(phases: Sequence[int], kink: int, phase: int) -> tuple[int, ...]:
    """Return phases with another one for one kink."""
    return (*phases[:kink], phase, *phases[kink + 1 :])


@dataclass(frozen=True, eq=False)
class NodeRows:
    """The rows of a program in the nodes of a tree."""

    inputs: Sequence[Row]
    kinks: Sequence[Mapping[int, Sequence[Row]]]
    """Of each kink, its rows by phase."""

    @classmethod
    def of(cls, program: Program) -> NodeRows:
        """Return those of a program."""
        kinks = [{phase: kink.rows(phase) for phase in (BELOW, ABOVE, FREE)} for kink in program.kinks]
        return cls(list(program.input_rows()), kinks)

    def at(self, phases: Sequence[int], asked: Sequence[Row]) -> list[Row]:
        """Return the rows of a node: of inputs, three of each kink, of the alternative."""
        of_kinks = [row for kink, phase in zip(self.kinks, phases, strict=True) for row in kink[phase]]
        return [*self.inputs, *of_kinks, *asked]


def _maximised(
    rows: Sequence[Row], least: Sequence[Fraction], check: Check
) -> tuple[list[Fraction] | None, dict[int, int]]:
    """Return a point with row <= 0, row + s t <= 0 for strict rows, t > 0, in variables not below their least values.

    s is the largest coefficient of the row, so that the point with the greatest t is well inside all of them.

    Where there is none, what multiplies rows, and behind them least_j - v_j <= 0, in a sum that is 0 v + c, c > 0, or
    c >= 0 with a strict row in it.
    """
    n = len(least)
    A, b, scales = zeros((len(rows) + 1, n + 1)), zeros((len(rows) + 1,)), []
    for i, row in enumerate(rows):
        shift = sum((a * low for a, low in zip(row.coefficients[:-1].tolist(), least, strict=True)), Fraction(0))
        right = -(shift + row.coefficients[-1])
        A[i, :n] = row.coefficients[:-1] * right.denominator
        A[i, n] = max(map(abs, A[i, :n]), default=1) or 1 if row.strict else 0
        b[i] = right.numerator
        scales.append(right.denominator)
    A[-1, n], b[-1] = 1, 1
    c = zeros((n + 1,))
    c[n] = 1
    found = maximise(c, A, b, check=check)
    if found.is_feasible and (found.value > 0 or not any(row.strict for row in rows)):
        return [low + value for low, value in zip(least, found.point, strict=False)], {}
    own, of_least = found.multipliers[: len(rows)], found.multipliers[len(rows) + 1 :]
    exact = [value * scale for value, scale in zip(own, scales, strict=True)]
    exact += [value / low.denominator for value, low in zip(of_least, least, strict=False)]
    return None, {i: top for i, top in enumerate(whole(exact).tolist()) if top}
