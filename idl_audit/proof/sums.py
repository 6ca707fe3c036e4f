"""Sums of rows with weights >= 0: positive at every point, they refute the alternative whose rows they are of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from idl_audit.proof.proof import Refused
from idl_audit.values.arrays import FloatArray
from idl_audit.values.query import Conjunction
from idl_audit.values.rounding import down, gamma


@dataclass(frozen=True, eq=False)
class Sum:
    """A sum of rows with weights >= 0: positive everywhere, it refutes their alternative.

    It does where it is never below 0, if a strict row has a weight above 0.
    """

    seed: FloatArray
    """(q,)."""
    error: FloatArray
    """(q,): a bound on |exact seed - seed|."""
    offset: float
    """Rounded downward."""
    strict: bool

    @classmethod
    def of(cls, alternative: Conjunction, weights: FloatArray) -> Sum:
        """Return the sum for some weights. Raises Refused where they are not those of the rows."""
        if weights.size < len(alternative.rows) or weights[len(alternative.rows) :].any():
            raise Refused("it weighs rows that an alternative does not have")
        some = np.flatnonzero(weights)
        strict = bool(alternative.strict[some].any())
        if some.size == 1 and weights[some[0]] == 1:
            row = alternative.rows[some[0]]
            return cls(row, np.zeros(row.size), float(alternative.offsets[some[0]]), strict)
        weights, rows = weights[some], alternative.rows[some]
        exact = [_exact_sum(weights, rows[:, j]) for j in range(rows.shape[1])]
        offset = _exact_sum(weights, alternative.offsets[some])
        if not all(abs(value) <= np.finfo(np.float64).max for value in (*exact, offset)):
            raise Refused("it weighs rows by more than float64 holds")
        seed = np.array([float(value) for value in exact])
        error = np.array([_upward(abs(value - Fraction(float(s)))) for value, s in zip(exact, seed, strict=True)])
        return cls(seed, error, -_upward(-offset), strict)

    def shift(self, largest: Callable[[], FloatArray]) -> float:
        """Return what is to be added to a lower bound of seed . y for one of the exact sum.

        `largest` makes bounds of |y|, (q,).
        """
        if not self.error.any():
            return self.offset
        doubt = float((self.error * largest()).sum()) * (1 + gamma(self.error.size + 8))
        return float(down(np.asarray(self.offset - doubt)))


def weighable(alternative: Conjunction) -> bool:
    """Return whether an alternative has several rows, whose sums with weights up to 1 float64 holds."""
    if len(alternative.rows) < 2:
        return False
    with np.errstate(over="ignore"):
        sizes = np.abs(alternative.rows).sum() + np.abs(alternative.offsets).sum()
    return bool(sizes < MOST)


MOST = 1e300


def per_weight(lower: FloatArray, weights: FloatArray) -> FloatArray:
    """Return lower bounds of the greatest row from positive ones of sums of rows, (m,), by their weights, (m, r)."""
    total = weights.sum(axis=1) * (1 + gamma(weights.shape[1] + 8))
    return np.where(lower > 0, down(lower / total), lower)


LEAST_PRODUCT = 2**2148
"""One divided by the least product of two float64 numbers: every sum of such products is a multiple of that."""


def _exact_sum(weights: FloatArray, values: FloatArray) -> Fraction:
    total = 0
    some = np.flatnonzero(values)
    for weight, value in zip(weights[some].tolist(), values[some].tolist(), strict=True):
        (a, b), (c, d) = weight.as_integer_ratio(), value.as_integer_ratio()
        total += a * c * (LEAST_PRODUCT // (b * d))
    return Fraction(total, LEAST_PRODUCT)


def _upward(value: Fraction) -> float:
    nearest = float(value)
    return float(np.nextafter(nearest, np.inf)) if Fraction(nearest) < value else nearest
