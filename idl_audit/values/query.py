"""Queries (specifications): is there an input of a box whose outputs satisfy one of several systems of inequalities?

A robustness margin asks for y_label - y_j <= 0 for some rival j; a VNN-LIB property asks the same in general: a
counterexample is a point u of the box with rows y(u) + offsets <= 0, all rows of one of the alternatives. Strict rows
say < 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.box import Box, SparseBall, is_whole
from idl_audit.values.errors import OptionError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import margin_functionals, margins, predictions, rivals
from idl_audit.values.rounding import LEAST

Exactly: TypeAlias = Sequence[Fraction]
"""Outputs in exact arithmetic, (q,)."""


@dataclass(frozen=True, eq=False)
class Conjunction:
    """All of rows y + offsets <= 0, of strict rows < 0: one alternative of a query."""

    rows: FloatArray
    """Shape (k, q), exact numbers."""
    offsets: FloatArray
    """Shape (k,), rounded downward: rows y + offsets > 0 proves that the exact row is violated."""
    exact_offsets: tuple[Fraction, ...] = ()
    """The offsets as they were written; those above where left out."""
    strict: BoolArray = field(default_factory=lambda: np.zeros(0, np.bool_))
    """Which rows are < 0 and not <= 0, shape (k,); none where left out."""

    def __post_init__(self) -> None:
        if not self.strict.size:
            object.__setattr__(self, "strict", np.zeros(len(self.rows), np.bool_))

    @property
    def exactly(self) -> tuple[Fraction, ...]:
        """The offsets as exact numbers."""
        return self.exact_offsets or tuple(Fraction(float(c)) for c in self.offsets)

    def part(self, some: slice) -> Conjunction:
        """Return some of the rows."""
        return Conjunction(self.rows[some], self.offsets[some], self.exact_offsets[some], self.strict[some])

    def holds(self, outputs: FloatArray) -> bool:
        """Return whether one output vector, shape (q,), satisfies every row, in exact arithmetic."""
        y = _exact(outputs)
        return y is not None and self.holds_between(y, y) is True

    def holds_between(self, lo: Exactly, hi: Exactly) -> bool | None:
        """Return whether all outputs between lo and hi satisfy every row, or none does; None where some may."""
        every = True
        for row, offset, strict in zip(self.rows, self.exactly, self.strict, strict=True):
            least = most = offset
            for j in np.flatnonzero(row).tolist():
                g = Fraction(float(row[j]))
                ends = (g * lo[j], g * hi[j]) if g > 0 else (g * hi[j], g * lo[j])
                least, most = least + ends[0], most + ends[1]
            if least >= 0 if strict else least > 0:
                return False
            every = every and (most < 0 if strict else most <= 0)
        return True if every else None

    def values(self, outputs: FloatArray) -> FloatArray:
        """Return rows y + offsets for outputs of shape (m, q), (m, k): above 0 where a row does not hold."""
        return violated(outputs @ self.rows.T + self.offsets, self.strict)


@dataclass(frozen=True, eq=False)
class Query:
    """The set and the alternatives of a counterexample."""

    inputs: InputSet
    alternatives: tuple[Conjunction, ...]

    @property
    def box(self) -> Box:
        """The set, or the least box around it."""
        return self.inputs.hull

    @property
    def sparse(self) -> SparseBall | None:
        """The set where it is U_card."""
        return self.inputs if isinstance(self.inputs, SparseBall) else None

    @property
    def is_box(self) -> bool:
        """Whether the set is a box, and can be split into boxes."""
        return isinstance(self.inputs, Box)

    @staticmethod
    def misclassification(inputs: InputSet, n_outputs: int, label: int, goal: int | None = None) -> Misclassification:
        """Return the query for a point with y_label <= y_j for some other j, or for the goal where there is one.

        Raises:
            OptionError: where the goal is no other class.
        """
        others = rivals(n_outputs, label)
        rows = margin_functionals(n_outputs, label)[np.full(len(others), True) if goal is None else others == goal]
        if goal is not None and not 0 <= goal < n_outputs:
            raise OptionError(f"there is no class {goal} to aim at; classes go from 0 to {n_outputs - 1}")
        if goal == label:
            raise OptionError(f"class {goal} is the sample's own; an attack aims at another one")
        alternatives = tuple(Conjunction(row[None], np.zeros(1)) for row in rows)
        return Misclassification(inputs, alternatives, label, goal)

    @staticmethod
    def prediction(inputs: InputSet, n_outputs: int, label: int) -> Query:
        """Return the query for a point of the class: y_label >= y_j for all j, > for those before it."""
        others = rivals(n_outputs, label)
        rows = -margin_functionals(n_outputs, label)
        return Query(inputs, (Conjunction(rows, np.zeros(len(rows)), (), others < label),))

    def holds_between(self, lo: Exactly, hi: Exactly) -> bool | None:
        """Return whether all outputs between lo and hi make their point a counterexample, or none; None if unknown."""
        found = [alternative.holds_between(lo, hi) for alternative in self.alternatives]
        return True if True in found else None if None in found else False

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs, shape (m, q), whether it makes its point a counterexample, exactly."""
        return np.asarray([any(c.holds(row) for c in self.alternatives) for row in outputs], np.bool_)

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return min over alternatives of max over rows of (rows y + offsets), shape (m,): to be made <= 0."""
        worst = [c.values(outputs).max(axis=1) for c in self.alternatives]
        return np.asarray(np.min(worst, axis=0))

    def nearest(self, outputs: FloatArray, count: int) -> IntArray:
        """Return the numbers of the rows of outputs that are counterexamples or nearest to one, the best first."""
        return _ranked(self.distance(outputs))[:count]


def plain(query: Query) -> Query:
    """Return the query as a file holds it: a box of numbers, offsets rounded downward.

    Its points stay whole numbers where a network reads no others.
    """
    if not query.is_box:
        return query
    box = Box.between(query.box.lo, query.box.hi)
    if is_whole(query.box.point_type):
        box = replace(box, point_type=query.box.point_type)
    alternatives = tuple(Conjunction(c.rows, c.offsets, (), c.strict) for c in query.alternatives)
    return Query(box, alternatives)


@dataclass(frozen=True, eq=False)
class SampleQuery(Query):
    """A query about a sample, of which there are more: one that no method decides is left before its time is over."""


@dataclass(frozen=True, eq=False)
class Misclassification(SampleQuery):
    """The query of a sample: its alternatives are margins, and a counterexample is a point of another class.

    The class is that of the largest output, of equal ones the first; where an output is no number there is none, which
    is not the label.
    """

    label: int
    goal: int | None = None
    """The class that is aimed at; None stands for any but the label."""

    def holds_between(self, lo: Exactly, hi: Exactly) -> bool | None:
        """Return whether the class of all outputs between lo and hi is another one, or the goal; None if unknown."""
        one = self.label if self.goal is None else self.goal
        others = [j for j in range(len(lo)) if j != one]
        wins = all(lo[one] > hi[j] or (lo[one] >= hi[j] and one < j) for j in others)
        loses = any(lo[j] > hi[one] or (lo[j] >= hi[one] and j < one) for j in others)
        if not (wins or loses):
            return None
        return loses if self.goal is None else wins

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs, shape (m, q), whether its class is not the label, or is the goal."""
        predicted = predictions(outputs)
        return np.asarray(predicted != self.label if self.goal is None else predicted == self.goal)

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return y_label - max over the others, with a goal max over the others - y_goal, shape (m,)."""
        with np.errstate(invalid="ignore"):
            return margins(outputs, self.label) if self.goal is None else -margins(outputs, self.goal)

    def nearest(self, outputs: FloatArray, count: int) -> IntArray:
        """Return the numbers of the points of another class, then of the nearest ones to it: at a tie margins err."""
        return _ranked(self.distance(outputs), ~self.holds(outputs))[:count]


def _exact(outputs: FloatArray) -> Exactly | None:
    """Return float64 outputs as fractions; None where one is infinite or no number."""
    return [Fraction(float(value)) for value in outputs] if np.isfinite(outputs).all() else None


def violated(values: FloatArray, strict: BoolArray) -> FloatArray:
    """Return values of rows, (..., k), or lower bounds of them, as numbers above 0 where they violate the row.

    A strict row is violated where it is 0, too: such a 0 is told as the least positive number.
    """
    return np.where(strict & (values == 0), LEAST, values)


def _ranked(distance: FloatArray, *first: BoolArray) -> IntArray:
    """Return the order of growing distance, those that are no numbers last; of what comes `first`, that before it."""
    return np.asarray(np.lexsort((np.where(np.isfinite(distance), distance, np.inf), *first)))


def alike(queries: Sequence[Query]) -> list[IntArray]:
    """Return the numbers of queries, those together that have the same rows; boxes and offsets may differ."""
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for number, query in enumerate(queries):
        groups.setdefault(tuple(c.rows.tobytes() for c in query.alternatives), []).append(number)
    return [np.asarray(numbers) for numbers in groups.values()]
