"""The input sets of a threat model: boxes (every input moves within its own interval)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.errors import DataError, OptionError
from idl_audit.rounding import down, up


@dataclass(frozen=True)
class Box:
    """The set {u : lo <= u <= hi}, flat vectors of float64 in data units.

    `lo` and `hi` enclose the exact set (rounded outward): bounds proved on the box hold on the set.
    `inner_lo` and `inner_hi` are enclosed by it (rounded inward): a point between them lies in the exact set.
    """

    lo: FloatArray
    hi: FloatArray
    inner_lo: FloatArray
    inner_hi: FloatArray

    def __post_init__(self) -> None:
        if self.lo.shape != self.hi.shape or self.lo.ndim != 1:
            raise DataError(f"a box needs two vectors of one length, not shapes {self.lo.shape} and {self.hi.shape}")
        if not (np.isfinite(self.lo).all() and np.isfinite(self.hi).all()):
            raise DataError("a box needs finite bounds; found NaN or infinity")
        if (self.lo > self.hi).any():
            where = int(np.argmax(self.lo > self.hi))
            raise DataError(f"the box is empty: input {where} has lower bound {self.lo[where]} > {self.hi[where]}")

    @classmethod
    def between(cls, lo: FloatArray, hi: FloatArray) -> Box:
        """Return the box whose exact bounds are the given float64 numbers."""
        lo, hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
        return cls(lo, hi, lo, hi)

    @classmethod
    def around(
        cls, centre: FloatArray, eps: float, *, valid_lo: float | None = None, valid_hi: float | None = None
    ) -> Box:
        """Return {u : |u - centre| <= eps, valid_lo <= u <= valid_hi}, the l_inf ball clipped to the data range.

        Raises:
            OptionError: where eps is not a positive finite number.
            DataError: where the centre lies outside the data range, or is not finite.
        """
        if not (np.isfinite(eps) and eps > 0):
            raise OptionError(f"eps must be a positive number, not {eps}")
        centre = np.asarray(centre, np.float64)
        low, low_error = _two_sum(centre, -eps)
        high, high_error = _two_sum(centre, eps)
        lo, inner_lo = np.where(low_error < 0, down(low), low), np.where(low_error > 0, up(low), low)
        hi, inner_hi = np.where(high_error > 0, up(high), high), np.where(high_error < 0, down(high), high)
        for name, limit, outside in (("below", valid_lo, np.less), ("above", valid_hi, np.greater)):
            if limit is not None and outside(centre, limit).any():
                where = int(np.argmax(outside(centre, limit)))
                raise DataError(
                    f"input {where} is {centre[where]}, {name} the valid data range's {limit}; "
                    "give the range of the data with --bounds LO,HI, or scale the data with --scale"
                )
        if valid_lo is not None:
            lo, inner_lo = np.maximum(lo, valid_lo), np.maximum(inner_lo, valid_lo)
        if valid_hi is not None:
            hi, inner_hi = np.minimum(hi, valid_hi), np.minimum(inner_hi, valid_hi)
        return cls(lo, hi, inner_lo, inner_hi)

    @property
    def size(self) -> int:
        """Number of inputs p."""
        return int(self.lo.size)

    @property
    def centre(self) -> FloatArray:
        """About the middle of the box; always inside it."""
        return np.clip(self.lo + (self.hi - self.lo) / 2, self.lo, self.hi)

    @property
    def radius(self) -> FloatArray:
        """Half widths, rounded upward so that |u - centre| <= radius for every u in the box."""
        centre = self.centre
        return up(np.maximum(self.hi - centre, centre - self.lo))

    def contains(self, points: FloatArray | Float32Array) -> BoolArray:
        """Return for each row of `points`, shape (..., p), whether it lies in the exact set."""
        return np.asarray(((points >= self.inner_lo) & (points <= self.inner_hi)).all(axis=-1))

    def float32_bounds(self) -> tuple[Float32Array, Float32Array]:
        """Return (lo, hi), the least and greatest float32 points inside the exact set; lo > hi where there is none."""
        lo, hi = self.inner_lo.astype(np.float32), self.inner_hi.astype(np.float32)
        lo = np.where(lo.astype(np.float64) < self.inner_lo, np.nextafter(lo, np.float32(np.inf)), lo)
        hi = np.where(hi.astype(np.float64) > self.inner_hi, np.nextafter(hi, np.float32(-np.inf)), hi)
        return lo, hi

    def project(self, points: FloatArray) -> Float32Array:
        """Return the float32 points inside the exact set that are nearest to `points`, shape (..., p).

        An input whose interval holds no float32 number gets the nearest one outside; `contains` tells.
        """
        lo, hi = self.float32_bounds()
        nearest = np.clip(points.astype(np.float32), np.minimum(lo, hi), np.maximum(lo, hi))
        return np.asarray(nearest, np.float32)


def _two_sum(a: FloatArray, b: float) -> tuple[FloatArray, FloatArray]:
    """Return (s, e) with s = fl(a + b) and a + b = s + e exactly (Knuth's two-sum)."""
    s = a + b
    a_part = s - b
    b_part = s - a_part
    return s, (a - a_part) + (b - b_part)
