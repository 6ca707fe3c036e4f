"""Exact numbers: integers times a power of two, which every float64 is and sums and products of such stay.

What is proved with them holds without any rounding: that a number is at least 0, where it may be 0 itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.errors import UnsupportedModelError

DIGITS = 53
"""Binary ones of a float64."""


@dataclass(frozen=True, eq=False)
class Dyadic:
    """values 2^-shift, an array of Python's integers."""

    values: np.ndarray[Any, np.dtype[np.object_]]
    shift: int

    @classmethod
    def of(cls, numbers: FloatArray) -> Dyadic:
        """Return float64 numbers. Raises UnsupportedModelError where one is not finite."""
        if not np.isfinite(numbers).all():
            raise UnsupportedModelError(["a bound is no finite number, and exact arithmetic has no other"])
        mantissa, exponent = np.frexp(np.asarray(numbers, np.float64))
        whole = (mantissa * 2.0**DIGITS).astype(np.int64)
        lowest = int(exponent[whole != 0].min()) if whole.any() else 0
        places = np.where(whole != 0, exponent - lowest, 0)
        return cls(whole.astype(object) * (2 ** places.astype(object)), DIGITS - lowest)

    def at(self, shift: int) -> np.ndarray[Any, np.dtype[np.object_]]:
        """Return the integers for a shift that is no smaller than this one's."""
        return np.asarray(self.values * (1 << (shift - self.shift)), dtype=object)

    def _both(self, other: Dyadic) -> tuple[Any, Any, int]:
        shift = max(self.shift, other.shift)
        return self.at(shift), other.at(shift), shift

    def __add__(self, other: Dyadic) -> Dyadic:
        one, two, shift = self._both(other)
        return Dyadic(one + two, shift)

    def __sub__(self, other: Dyadic) -> Dyadic:
        one, two, shift = self._both(other)
        return Dyadic(one - two, shift)

    def __mul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.values * other.values, self.shift + other.shift)

    def __matmul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.values @ other.values, self.shift + other.shift)

    def least(self, other: Dyadic) -> Dyadic:
        """Return the smaller of both, entry by entry."""
        one, two, shift = self._both(other)
        return Dyadic(np.minimum(one, two), shift)

    def greatest(self, other: Dyadic) -> Dyadic:
        """Return the larger of both, entry by entry."""
        one, two, shift = self._both(other)
        return Dyadic(np.maximum(one, two), shift)

    @property
    def size(self) -> Dyadic:
        """Absolute values."""
        return Dyadic(np.abs(self.values), self.shift)

    @property
    def positive(self) -> Dyadic:
        """The entries above 0; 0 elsewhere."""
        return Dyadic(np.maximum(self.values, 0), self.shift)

    @property
    def negative(self) -> Dyadic:
        """The entries below 0; 0 elsewhere."""
        return Dyadic(np.minimum(self.values, 0), self.shift)

    @property
    def total(self) -> Dyadic:
        """The sum over the last axis."""
        return Dyadic(np.asarray(self.values.sum(axis=-1), dtype=object), self.shift)

    @property
    def is_at_least_zero(self) -> BoolArray:
        """Entry by entry."""
        return np.asarray(self.values >= 0, np.bool_)

    def rounded(self, direction: float) -> FloatArray:
        """Return the nearest float64 below (-inf) or above (inf) each entry; the entry itself where it is one."""
        found = [_outward(int(value), self.shift, direction) for value in self.values.reshape(-1)]
        return np.asarray(found, np.float64).reshape(self.values.shape)


def _outward(value: int, shift: int, direction: float) -> float:
    """Round value 2^-shift: the digits that float64 has no room for are cut off downward, of minus it upward."""
    digits = value.bit_length()
    if not -1021 <= digits - shift <= 1023:  # beyond the normal numbers
        return _rounded(value / (Fraction(2) ** shift), direction)
    spare = digits - DIGITS
    if spare <= 0:
        return math.ldexp(value, -shift)
    kept = value >> spare if direction < 0 else -(-value >> spare)
    return math.ldexp(kept, spare - shift)


def _rounded(value: Fraction, direction: float) -> float:
    try:
        nearest = float(value)
    except OverflowError:
        largest = float(np.finfo(np.float64).max)
        outward = direction if (value > 0) == (direction > 0) else largest
        return outward if value > 0 else -largest if direction > 0 else direction
    off = Fraction(nearest) - value
    beyond = off > 0 if direction < 0 else off < 0
    return float(np.nextafter(nearest, direction)) if beyond else nearest
