"""Queries about two networks with the outputs (y, y', y - y'): have both one class, and how far apart are they?

A counterexample of agreement is a point where the largest output of one is that of another class than of the other
one; of several equal outputs the first counts. In exact arithmetic such a point satisfies, for the classes i of y and
j of y', i <> j, and any class c,

    y_j - y_i <= 0,   y'_i - y'_j <= 0,   (y_j - y'_j) - (y_i - y'_i) <= 0,   y_c - y_i <= 0,   y'_c - y'_j <= 0,

the third being the sum of the first two. Classes i that y is known never to have need but the row y_c - y_i <= 0, which
stands for all j; and likewise for y'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.margins import predictions, rivals
from idl_audit.values.query import Conjunction, Exactly, Query


@dataclass(frozen=True, eq=False)
class Disagreement(Query):
    """Is there a point where two networks give different classes? Outputs that are no numbers have no class."""

    classes: int
    """q: outputs have 3 q entries."""

    @classmethod
    def of(cls, inputs: Box, classes: int, reference: int, first: Sequence[int], second: Sequence[int]) -> Disagreement:
        """Return the query with an alternative for each way in which classes may differ.

        Args:
            inputs: the set.
            classes: q.
            reference: c, such as the class of both at a sample.
            first: the classes that y may have; those of others are refuted by c alone. c is among them in any case.
            second: the same for y'.
        """
        return cls(inputs, tuple(_alternatives(classes, reference, {reference, *first}, {reference, *second})), classes)

    def _pair(self, outputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        return outputs[:, : self.classes], outputs[:, self.classes : 2 * self.classes]

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs, shape (m, 3 q), whether the two classes differ."""
        one, other = (predictions(y) for y in self._pair(outputs))
        return np.asarray(one != other)

    def holds_between(self, lo: Exactly, hi: Exactly) -> bool | None:
        """Return whether all outputs between lo and hi have two classes, or none; None if unknown.

        Alternatives do not say so: what holds at two classes may hold at one, too.
        """
        q = self.classes
        one, other = (_class_between(lo[s : s + q], hi[s : s + q]) for s in (0, q))
        return None if one is None or other is None else one != other

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return how much y and y' must move together for two classes, (m,): minus how firmly they differ."""
        one, other = self._pair(outputs)
        at = np.arange(len(outputs))
        with np.errstate(invalid="ignore"):
            mine, theirs = one.argmax(axis=1), other.argmax(axis=1)
            firmly = np.minimum(one[at, mine] - one[at, theirs], other[at, theirs] - other[at, mine])
            return np.where(mine != theirs, -firmly, np.minimum(_lead(one), _lead(other)))

    def nearest(self, outputs: FloatArray, count: int) -> IntArray:
        """Return the numbers of the points that hold, then of the nearest ones."""
        far = self.distance(outputs)
        order = np.lexsort((np.where(np.isfinite(far), far, np.inf), ~self.holds(outputs)))
        return np.asarray(order[:count])


def _class_between(lo: Exactly, hi: Exactly) -> int | None:
    """Return the class of all outputs between lo and hi; None where there are several."""
    best = max(range(len(lo)), key=lambda j: (lo[j], -j))
    others = [j for j in range(len(lo)) if j != best]
    return best if all(lo[best] > hi[j] or (lo[best] >= hi[j] and best < j) for j in others) else None


def _lead(outputs: FloatArray) -> FloatArray:
    """Return by how much the largest output leads, (m,)."""
    ordered = np.sort(outputs, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def _alternatives(q: int, c: int, first: set[int], second: set[int]) -> Iterator[Conjunction]:
    unit = np.eye(3 * q)
    for i in rivals(q, c):
        if i not in first:
            yield _rows(unit[c] - unit[i])
    for j in rivals(q, c):
        if j not in second:
            yield _rows(unit[q + c] - unit[q + j])
    for i in sorted(first):
        for j in sorted(second - {i}):
            apart = unit[2 * q + j] - unit[2 * q + i]
            rows = [apart, unit[j] - unit[i], unit[q + i] - unit[q + j]]
            rows += [unit[c] - unit[i]] if c not in (i, j) else []
            rows += [unit[q + c] - unit[q + j]] if c not in (i, j) else []
            yield _rows(*rows)


def _rows(*rows: FloatArray) -> Conjunction:
    return Conjunction(np.stack(rows), np.zeros(len(rows)))


def farther(inputs: Box, limits: FloatArray, equal: BoolArray) -> Query:
    """Return the query for a point with |y_i - y'_i| >= limits_i for some output i that is not known to be equal."""
    q = limits.size
    unit = np.eye(3 * q)[2 * q :]
    pairs = [(sign * unit[i], limits[i]) for i in np.flatnonzero(~equal) for sign in (-1.0, 1.0)]
    return Query(inputs, tuple(Conjunction(row[None], np.array([limit])) for row, limit in pairs))
