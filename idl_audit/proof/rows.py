"""Rows of the alternatives of a query, and sums of them: what a proof shows to be positive."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np

from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.query import Conjunction, Query, violated
from idl_audit.values.rounding import LEAST, down

MOST_SUMMED = 12
"""Rows of an alternative up to which every two of them are added up as well."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a query's alternatives, with sums of rows: they are <= 0 at a counterexample, too.

    Where two rows are violated on different parts of a box, their sum may be violated on all of it. A sum is < 0 where
    one of its rows is.
    """

    functionals: FloatArray
    """(R, q), exact numbers."""
    offsets: FloatArray
    """(R,), rounded downward."""
    members: tuple[IntArray, ...]
    """The rows and sums of each alternative."""
    strict: BoolArray
    """(R,): which are < 0."""
    summed: FloatArray
    """(R,): of how many rows each is the sum."""

    @classmethod
    def of(cls, query: Query) -> Rows:
        """Return the rows of every alternative, the sums of two of them, and the sum of all."""
        found = [(c, groups(c)) for c in query.alternatives]
        summed = np.concatenate([_sizes(own) for _, own in found])
        parts = [_summed(*one) for one in found]
        ends = np.cumsum([len(part.rows) for part in parts])
        members = tuple(np.arange(end - len(part.rows), end) for part, end in zip(parts, ends, strict=True))
        rows, offsets = np.concatenate([part.rows for part in parts]), np.concatenate([part.offsets for part in parts])
        return cls(rows, offsets, members, np.concatenate([part.strict for part in parts]), summed)

    def shifted(self, lower: FloatArray) -> FloatArray:
        """Return proved lower bounds of rows y + offsets from those of rows y, shape (m, R): above 0 they refute."""
        return plus(lower, self.offsets, self.strict)

    def best(self, shifted: FloatArray) -> FloatArray:
        """Return lower bounds of the greatest row of each alternative, shape (m, a): above 0 it is refuted."""
        shifted = per_row(shifted, self.summed)
        columns = [shifted[:, rows].max(axis=1, initial=-np.inf) for rows in self.members]
        return np.stack(columns, axis=1)


def plus(lower: FloatArray, offsets: FloatArray, strict: BoolArray) -> FloatArray:
    """Return lower bounds with offsets added, rounded downward: above 0 they refute, for strict rows from 0 on."""
    with np.errstate(over="ignore", invalid="ignore"):
        return violated(np.where(offsets == 0, lower, down(lower + offsets)), strict)


def with_sums(alternative: Conjunction) -> Conjunction:
    """Return the alternative with those sums of its rows that are exact in float64: the same points satisfy it."""
    return _summed(alternative, groups(alternative))


@np.errstate(over="ignore", invalid="ignore")  # of what overflows, none is exact, and offsets are rounded downward
def _summed(alternative: Conjunction, found: list[tuple[int, ...]]) -> Conjunction:
    rows, offsets = list(alternative.rows), list(alternative.offsets)
    exact, strict = list(alternative.exact_offsets), list(alternative.strict)
    for group in found[len(rows) :]:
        total, offset = alternative.rows[group[0]], alternative.offsets[group[0]]
        for i in group[1:]:
            total, offset = total + alternative.rows[i], down(offset + alternative.offsets[i])
        rows.append(total)
        offsets.append(offset)
        strict.append(alternative.strict[list(group)].any())
        exact += [sum((alternative.exact_offsets[i] for i in group), Fraction(0))] if alternative.exact_offsets else []
    matrix = np.reshape(rows, (len(rows), -1))
    return Conjunction(matrix, np.asarray(offsets, np.float64), tuple(exact), np.asarray(strict, np.bool_))


@np.errstate(over="ignore", invalid="ignore")
def groups(alternative: Conjunction) -> list[tuple[int, ...]]:
    """Return the rows, one a group, then those pairs, and all, whose sums are exact in float64 and not 0."""
    count = len(alternative.rows)
    several: list[tuple[int, ...]] = list(combinations(range(count), 2)) if count <= MOST_SUMMED else []
    if count > 2:
        several.append(tuple(range(count)))
    return [*((i,) for i in range(count)), *(group for group in several if _adds_up(alternative.rows, group))]


def row_counts(alternative: Conjunction) -> FloatArray:
    """Return of how many rows each row of `with_sums` is the sum."""
    return _sizes(groups(alternative))


def _sizes(found: list[tuple[int, ...]]) -> FloatArray:
    return np.array([len(group) for group in found], np.float64)


def per_row(lower: FloatArray, summed: FloatArray) -> FloatArray:
    """Return lower bounds of the greatest row from those of sums of several, (m, R): what is positive stays so."""
    if (summed == 1).all():
        return lower
    with np.errstate(invalid="ignore"):
        return np.where(lower > 0, np.maximum(down(lower / summed), LEAST), lower)


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
