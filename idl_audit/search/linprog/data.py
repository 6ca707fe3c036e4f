"""Linear programs as a solver is to have them: nothing but numbers, in sizes that it neither drops nor takes for more.

HiGHS takes NaN without a word, ignores costs up to 1e-8, drops entries up to 1e-12, reads 1e20 as infinity and calls
boxes feasible that are crossed by up to 1e-8. So rows far from 1 and all costs are multiplied by powers of two here,
and what has no meaning is refused. Points stay as they are; multipliers of rows are turned back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import SolverError

INFINITE = 1e20
"""Bounds from here on are infinite to the solver."""
DROPPED = 1e-12
"""Entries up to this, in rows of size 1, are left out."""
USUAL = 2.0**10
"""Rows whose largest entry is between 1 / USUAL and USUAL stay as they are."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """lo <= value <= hi, shape (n,), as the solver takes them."""

    lo: FloatArray
    hi: FloatArray

    @property
    def is_crossed(self) -> bool:
        """Whether no number lies between two of the ends."""
        return bool((self.lo > self.hi).any())

    @property
    def in_order(self) -> tuple[FloatArray, FloatArray]:
        """The ends with crossed ones exchanged: for a solver to hold, not to solve with."""
        return np.minimum(self.lo, self.hi), np.maximum(self.lo, self.hi)


@dataclass(frozen=True, eq=False)
class Rows:
    """The matrix of a program, its rows multiplied by powers of two."""

    matrix: sp.csr_array
    factors: FloatArray
    """What each row was multiplied by, shape (rows,)."""

    def bounds(self, lo: FloatArray, hi: FloatArray) -> Bounds:
        """Return bounds of the rows as they are here."""
        checked_bounds(lo, hi, "rows")  # before an overflow could hide anything
        with np.errstate(over="ignore"):
            return checked_bounds(lo * self.factors, hi * self.factors, "rows")

    def multipliers(self, values: FloatArray) -> FloatArray:
        """Return multipliers of the rows as they were."""
        return values * self.factors


def scaled_rows(matrix: sp.csr_array) -> Rows:
    """Return a matrix whose rows have a largest entry near 1, without the entries that are nothing beside it.

    Raises:
        SolverError: where an entry is no number, or infinite.
    """
    _refuse_unless_finite(matrix.data, "coefficients")
    counts = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), counts)
    largest = np.zeros(matrix.shape[0])
    np.maximum.at(largest, row, np.abs(matrix.data))
    unusual = (largest > 0) & ((largest < 1 / USUAL) | (largest > USUAL))
    factors = np.where(unusual, _power_towards_one(largest), 1.0)
    data = matrix.data * factors[row]
    kept = np.abs(data) > DROPPED
    starts = np.concatenate([[0], np.cumsum(np.bincount(row[kept], minlength=matrix.shape[0]))])
    return Rows(sp.csr_array((data[kept], matrix.indices[kept], starts), shape=matrix.shape), factors)


def scaled_cost(cost: FloatArray) -> tuple[FloatArray, float]:
    """Return a cost times a power of two that brings its largest entry near 1, and that power.

    Raises:
        SolverError: where an entry is no number, or infinite.
    """
    _refuse_unless_finite(cost, "costs")
    largest = float(np.abs(cost).max(initial=0.0))
    factor = float(_power_towards_one(np.array([largest]))[0]) if largest > 0 else 1.0
    return cost * factor, factor


def checked_bounds(lo: FloatArray, hi: FloatArray, what: str = "columns") -> Bounds:
    """Return bounds with infinity in place of what the solver takes for it.

    Raises:
        SolverError: where an end is no number, or leaves only infinity.
    """
    if np.isnan(lo).any() or np.isnan(hi).any():
        raise SolverError(f"a linear program has bounds of {what} that are no numbers")
    if (lo >= INFINITE).any() or (hi <= -INFINITE).any():
        raise SolverError(f"a linear program has bounds of {what} beyond {INFINITE:g}, which the solver calls infinite")
    return Bounds(np.where(lo <= -INFINITE, -np.inf, lo), np.where(hi >= INFINITE, np.inf, hi))


def _power_towards_one(sizes: FloatArray) -> FloatArray:
    """Return powers of two, finite ones, that bring positive sizes into [1, 2) or as near as they can."""
    exponent = np.frexp(sizes)[1] - 1
    return np.asarray(np.ldexp(1.0, np.clip(-exponent, -1000, 1000)))


def _refuse_unless_finite(values: FloatArray, what: str) -> None:
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise SolverError(f"a linear program has {count} {what} that are no finite numbers")
