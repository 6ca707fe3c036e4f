"""Rows of the alternatives of a query, and sums of them: what a proof shows to be positive."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.rounding import down

MOST_SUMMED = 12
"""Rows of an alternative up to which every two of them are added up as well."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a query's alternatives, with sums of rows: they are <= 0 at a counterexample, too.

    Where two rows are violated on different parts of a box, their sum may be violated on all of it.
    """

    functionals: FloatArray
    """(R, q), exact numbers."""
    offsets: FloatArray
    """(R,), rounded downward."""
    members: tuple[IntArray, ...]
    """The rows and sums of each alternative."""

    @classmethod
    def of(cls, query: Query) -> Rows:
        """Return the rows of every alternative, the sums of two of them, and the sum of all."""
        parts = [with_sums(c) for c in query.alternatives]
        ends = np.cumsum([len(rows) for rows, _ in parts])
        members = tuple(np.arange(end - len(rows), end) for (rows, _), end in zip(parts, ends, strict=True))
        return cls(np.concatenate([rows for rows, _ in parts]), np.concatenate([c for _, c in parts]), members)

    def shifted(self, lower: FloatArray) -> FloatArray:
        """Return proved lower bounds of rows y + offsets from those of rows y, shape (m, R)."""
        return down(lower + self.offsets)

    def best(self, shifted: FloatArray) -> FloatArray:
        """Return the greatest lower bound of each alternative's rows, shape (m, a): above 0 it is refuted."""
        columns = [shifted[:, rows].max(axis=1, initial=-np.inf) for rows in self.members]
        return np.stack(columns, axis=1)


@np.errstate(over="ignore", invalid="ignore")  # of what overflows, none is exact, and offsets are rounded downward
def with_sums(alternative: Conjunction) -> tuple[FloatArray, FloatArray]:
    """Return the rows and offsets with those sums of rows that are exact in float64."""
    rows, offsets = list(alternative.rows), list(alternative.offsets)
    for group in groups(alternative)[len(rows) :]:
        total, offset = alternative.rows[group[0]], alternative.offsets[group[0]]
        for i in group[1:]:
            total, offset = total + alternative.rows[i], down(offset + alternative.offsets[i])
        rows.append(total)
        offsets.append(offset)
    return np.reshape(rows, (len(rows), -1)), np.asarray(offsets, np.float64)


@np.errstate(over="ignore", invalid="ignore")
def groups(alternative: Conjunction) -> list[tuple[int, ...]]:
    """Return the rows, one a group, then those pairs, and all, whose sums are exact in float64 and not 0."""
    count = len(alternative.rows)
    several: list[tuple[int, ...]] = list(combinations(range(count), 2)) if count <= MOST_SUMMED else []
    if count > 2:
        several.append(tuple(range(count)))
    return [*((i,) for i in range(count)), *(group for group in several if _adds_up(alternative.rows, group))]


def weights_of(alternative: Conjunction, members: tuple[int, ...]) -> FloatArray:
    """Return the weights of the rows in the sum of some of them, (rows,): 1 for these, 0 elsewhere."""
    weights = np.zeros(len(alternative.rows))
    weights[list(members)] = 1.0
    return weights


def _adds_up(rows: FloatArray, group: tuple[int, ...]) -> bool:
    total = rows[group[0]]
    for i in group[1:]:
        total, exactly = _sum(total, rows[i])
        if not exactly:
            return False
    return bool(total.any())


def _sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, bool]:
    """Return the sum and whether no entry was rounded (Knuth's two-sum)."""
    total = a + b
    rest = total - a
    return total, not ((a - (total - rest)) + (b - rest)).any()
