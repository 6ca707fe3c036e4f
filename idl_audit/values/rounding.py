"""Outward rounding in float64: what turns a computed number into a proved bound.

With unit roundoff u = 2^-53, a sum of k products, evaluated in any order and with or without fused multiply-add,
differs from its true value by at most gamma_k sum |a_i b_i|, gamma_k = k u / (1 - k u), as long as nothing underflows
(Higham, *Accuracy and Stability of Numerical Algorithms*, chapter 3). `TINY` pays for underflow.
See docs/mathematics.md, section 1.4.

Elsewhere: floating-point soundness, directed rounding.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from idl_audit.values.arrays import FloatArray

UNIT_ROUNDOFF = 2.0**-53
TINY = 2.0**-1000
"""Far above what a billion underflowing products can lose (each at most 2^-1074), far below any weight that matters."""
LOST = 2.0**-1060
"""Above what thousands of underflowing products can lose, where it is multiplied by large numbers afterwards."""

LEAST = 2.0**-1074
"""The least positive number."""
UNDERFLOW = 2.0**-1073
"""More than a product that underflows can lose."""


@lru_cache(maxsize=1024)
def gamma(k: int) -> float:
    """Return gamma_k = k u / (1 - k u), rounded upward: the relative error of a sum of k products.

    Raises:
        ValueError: where k u >= 1/2, so that no such bound is of use.
    """
    if not 0 <= k * UNIT_ROUNDOFF < 0.5:
        raise ValueError(f"gamma_k needs 0 <= k u < 1/2, not k = {k}")
    return math.nextafter(k * UNIT_ROUNDOFF / (1.0 - k * UNIT_ROUNDOFF), math.inf) * (1.0 + 8 * UNIT_ROUNDOFF)


def down(value: FloatArray) -> FloatArray:
    """Return the next float64 below each entry: at most the true result of one correctly rounded operation."""
    return np.nextafter(value, -np.inf)


def up(value: FloatArray) -> FloatArray:
    """Return the next float64 above each entry: at least the true result of one correctly rounded operation."""
    return np.nextafter(value, np.inf)


def proved(least: FloatArray) -> FloatArray:
    """Return lower bounds, -inf where one is no finite number: the least of infinity and another would be the other."""
    return np.asarray(np.where(np.isfinite(least), least, -np.inf))


def float_below(value: Fraction) -> float:
    """Return the greatest float64 that is at most a number."""
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)


def float_above(value: Fraction) -> float:
    """Return the least float64 that is at least a number."""
    near = float(value)
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)
