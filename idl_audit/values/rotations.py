"""Rotations of a picture about its centre by small angles, with bilinear resampling, edges repeated.

The pixel at row r and column c of the picture rotated by the angle a, counter-clockwise as it is seen, is I at

    y = cy + cos(a) (r - cy) + sin(a) (c - cx),    x = cx - sin(a) (r - cy) + cos(a) (c - cx),

cy = (H - 1) / 2, cx = (W - 1) / 2, I between whole pixels interpolated bilinearly, and beyond its edges the nearest
pixel of the edge. As a function of a it is continuous, and smooth but where (y, x) crosses a row or a column of pixels:

    u(a) = u(m) + s (a - m),   s between the least and the greatest slope on the way,

slope = dI/dy y' + dI/dx x', dI/dy a mean of the differences of the pixels about. Over an interval of angles that is a
family of one parameter, u(m) + s t + r e, |e| <= 1, that encloses the rotated pictures (docs/mathematics.md, section
14.5). Angles are in degrees; all ends are rounded outward.

Elsewhere: geometric certification, rotation robustness, DeepG.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np

from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.families import Family
from idl_audit.values.layouts import Layout
from idl_audit.values.rounding import TINY, UNIT_ROUNDOFF, down, float_above, float_below, gamma, up

MOST_DEGREES: Final = 45
LARGEST: Final = 1e150
"""Of a pixel: differences, times slopes, are far from the end of float64."""
TERMS: Final = 12
"""Of the series of sine and cosine, of which the next term bounds what is left out: (pi / 4)^24 / 24! < 2^-87."""
FINE: Final = 2**160
"""Angles in radians are rounded outward to parts of so many of 1."""
PI: Final = (
    Fraction(314159265358979323846264338327950288419, 10**38),
    Fraction(314159265358979323846264338327950288420, 10**38),
)
"""Numbers below and above pi."""

Ends = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Rotation:
    """All rotations by at most so many degrees, either way."""

    most: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.most) and 0 < self.most <= MOST_DEGREES):
            raise OptionError(
                f"rotate goes up to {MOST_DEGREES} degrees, not {self.most:g}; give a number above 0 and at most that"
            )

    @property
    def text(self) -> str:
        """How it is written: rotate=5.0."""
        return f"rotate={self.most!r}"

    def reach(self, factor: float) -> tuple[float, float]:
        """Return the largest angle, times a factor, rounded (inward, outward). Raises OptionError beyond 45 degrees."""
        largest = Fraction(self.most) * Fraction(factor)
        if not 0 <= largest <= MOST_DEGREES:
            raise OptionError(f"{self.text} times {factor:g} is more than {MOST_DEGREES} degrees; give a smaller eps")
        return float_below(largest), float_above(largest)

    def is_covered(self, angles: FloatArray, factor: float) -> bool:
        """Return whether intervals between neighbouring angles, ascending, hold all angles times a factor, exactly."""
        if not (angles.size > 1 and (np.abs(angles) <= MOST_DEGREES).all() and (np.diff(angles) > 0).all()):
            return False
        largest = Fraction(self.most) * Fraction(factor)
        return Fraction(float(angles[0])) <= -largest and largest <= Fraction(float(angles[-1]))


@lru_cache(maxsize=4096)
def sine_and_cosine(degrees: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return enclosures ((sin below, above), (cos below, above)) of an angle of at most 45 degrees either way."""
    if not abs(degrees) <= MOST_DEGREES:
        raise ValueError(f"angles go up to {MOST_DEGREES} degrees, not {degrees}")
    size = Fraction(abs(degrees)) / 180
    low = Fraction(math.floor(size * PI[0] * FINE), FINE)
    high = Fraction(math.ceil(size * PI[1] * FINE), FINE)
    sine = float_below(_series(low, 1, TERMS)), float_above(_series(high, 1, TERMS - 1))
    cosine = float_below(_series(high, 0, TERMS)), float_above(_series(low, 0, TERMS - 1))
    return (sine if degrees >= 0 else (-sine[1], -sine[0])), cosine


def _series(x: Fraction, first: int, terms: int) -> Fraction:
    """Return so many terms of x^first / first! - x^(first + 2) / (first + 2)! + ..., an even number below the whole.

    The terms fall, x < 1, so that partial sums are above and below by turns.
    """
    total, term = Fraction(0), x**first
    for k in range(terms):
        total += term if k % 2 == 0 else -term
        n = first + 2 * k
        term = term * x * x / ((n + 1) * (n + 2))
    return total


@dataclass(frozen=True, eq=False)
class Rotated:
    """A picture, and what its rotations by an interval of angles are between."""

    planes: FloatArray
    """(channels, height, width)."""
    layout: Layout

    @classmethod
    def of(cls, sample: FloatArray, layout: Layout) -> Rotated:
        """Take a sample, (p,). Raises DataError where it has numbers of which nothing could be computed."""
        if not (np.abs(sample) <= LARGEST).all():
            raise DataError(f"a sample needs finite numbers to be rotated, none above {LARGEST:g} either way")
        return cls(layout.planes(np.asarray(sample, np.float64)), layout)

    @property
    def _offsets(self) -> tuple[FloatArray, FloatArray]:
        """(r - cy, c - cx) of each pixel, halves of whole numbers: exact."""
        height, width = self.planes.shape[1:]
        rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
        down_, right = np.meshgrid(rows, columns, indexing="ij")
        return down_, right

    def _places(self, lo: float, hi: float) -> tuple[Ends, Ends]:
        """Return enclosures of y and x of each pixel, (height, width) each, for angles from lo to hi."""
        height, width = self.planes.shape[1:]
        sine, cosine = _over(lo, hi)
        below, right = self._offsets
        y, x = _sum(_times(cosine, below), _times(sine, right)), _sum(_times(cosine, right), _times(sine, -below))
        return _moved(y, (height - 1) / 2), _moved(x, (width - 1) / 2)

    def _slopes(self, lo: float, hi: float) -> tuple[Ends, Ends]:
        """Return enclosures of dy/da and dx/da, in pixels for a degree."""
        sine, cosine = _over(lo, hi)
        below, right = self._offsets
        degree = float_below(PI[0] / 180), float_above(PI[1] / 180)
        y = _sum(_times(sine, -below), _times(cosine, right))
        x = _sum(_times(cosine, -below), _times(sine, -right))
        return _product(y, degree), _product(x, degree)

    def enclosed(self, lo: float, hi: float) -> Ends:
        """Return bounds of every picture rotated by lo to hi degrees, rounded outward, shape (p,) each."""
        middle, half = _middle(lo, hi)
        value, error = self._value(middle)
        slopes = self._gains(lo, hi)
        reach = up(np.maximum(np.abs(slopes[0]), np.abs(slopes[1])) * half) + TINY
        least, most = down(value - up(reach + error)), up(value + up(reach + error))
        windows = self._windows(*self._places(lo, hi))
        least, most = np.maximum(least, windows[0]), np.minimum(most, windows[1])
        return self.layout.flat(least), self.layout.flat(most)

    def family(self, lo: float, hi: float) -> Family:
        """Return a family that holds every picture rotated by lo to hi degrees; its parameter goes from -1 to 1."""
        middle, half = _middle(lo, hi)
        value, error = self._value(middle)
        low, high = self._gains(lo, hi)
        slope = (low / 2 + high / 2) * half
        spare = up(np.maximum(high - low / 2 - high / 2, low / 2 + high / 2 - low) * (1 + gamma(8)) + TINY)
        lost = gamma(16) * half * (np.abs(low) + np.abs(high))
        spread = up(up(spare * half) + up(lost + error)) + TINY
        flat = self.layout.flat
        return Family(flat(value), flat(slope)[:, None], self.parameters, spread=flat(spread))

    @property
    def parameters(self) -> Box:
        """What moves in any family: t, and e of each input, from -1 to 1."""
        ends = np.ones(1 + self.planes.size)
        return Box.between(-ends, ends)

    def _value(self, angle: float) -> Ends:
        """Return about the picture at one angle, and how far each pixel may be from it, (channels, height, width)."""
        y, x = self._places(angle, angle)
        near = (y[0] / 2 + y[1] / 2, x[0] / 2 + x[1] / 2)
        rows, columns = (np.floor(place).astype(np.int64) for place in near)
        fy, fx = near[0] - rows, near[1] - columns
        corners = [self._pixels(rows + i, columns + j) for i in (0, 1) for j in (0, 1)]
        weights = [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]
        value = sum(weight * corner for weight, corner in zip(weights, corners, strict=True))
        largest = np.max(np.abs(corners), axis=0)
        by_row, by_column = self._differences(y, x)
        far = [up(place[1] - place[0]) + np.spacing(np.abs(place[1])) for place in (y, x)]
        steepest = [np.maximum(np.abs(one[0]), np.abs(one[1])) for one in (by_row, by_column)]
        error = steepest[0] * far[0] + steepest[1] * far[1] + 64 * UNIT_ROUNDOFF * largest
        return np.asarray(value), np.asarray(up(error * (1 + gamma(16)) + TINY))

    def _gains(self, lo: float, hi: float) -> Ends:
        """Return enclosures of du/da of each pixel over an interval of angles, in units for a degree."""
        by_row, by_column = self._differences(*self._places(lo, hi))
        y, x = self._slopes(lo, hi)
        return _sum(_product(by_row, y), _product(by_column, x))

    def _differences(self, y: Ends, x: Ends) -> tuple[Ends, Ends]:
        """Return between what dI/dy and dI/dx are where (y, x) may be, (channels, height, width) each.

        Between two rows and two columns dI/dy is a mean of the differences of the pixels below one another in both
        columns, weighed by where x is between them.
        """
        rows, columns = _each(*_cells(y)), _each(*_cells(x))
        pick = self._pixels

        def by_row(i: IntArray, j: IntArray) -> Ends:
            return _between(pick(i + 1, j) - pick(i, j), pick(i + 1, j + 1) - pick(i, j + 1), x, j)

        def by_column(i: IntArray, j: IntArray) -> Ends:
            return _between(pick(i, j + 1) - pick(i, j), pick(i + 1, j + 1) - pick(i + 1, j), y, i)

        return _extremes(by_row, rows, columns), _extremes(by_column, rows, columns)

    def _windows(self, y: Ends, x: Ends) -> Ends:
        """Return the least and the greatest pixel that a pixel may be a mean of."""
        (first, last), (left, right) = _cells(y), _cells(x)
        return _extremes(lambda i, j: (self._pixels(i, j),) * 2, _each(first, last + 1), _each(left, right + 1))

    def _pixels(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Return pixels, the nearest of an edge beyond it, (channels, ...)."""
        height, width = self.planes.shape[1:]
        return self.planes[:, np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]


def _middle(lo: float, hi: float) -> tuple[float, float]:
    """Return about the middle of an interval of angles, inside it, and how far its ends are from there at most."""
    middle = min(max(lo / 2 + hi / 2, lo), hi)
    return middle, float(up(np.asarray(max(hi - middle, middle - lo)))) if hi > lo else 0.0


def _over(lo: float, hi: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return enclosures of sine and cosine for angles from lo to hi: one rises, the other falls away from 0."""
    (sine_lo, cosine_lo), (sine_hi, cosine_hi) = sine_and_cosine(lo), sine_and_cosine(hi)
    top = 1.0 if lo <= 0 <= hi else max(cosine_lo[1], cosine_hi[1])
    return (sine_lo[0], sine_hi[1]), (min(cosine_lo[0], cosine_hi[0]), top)


def _times(factor: tuple[float, float], numbers: FloatArray) -> Ends:
    ends = [factor[0] * numbers, factor[1] * numbers]
    return down(np.minimum(*ends)), up(np.maximum(*ends))


def _sum(one: Ends, other: Ends) -> Ends:
    return down(one[0] + other[0]), up(one[1] + other[1])


def _moved(one: Ends, by: float) -> Ends:
    return down(one[0] + by), up(one[1] + by)


def _product(one: Ends, other: Ends | tuple[float, float]) -> Ends:
    ends = [a * b for a in one for b in other]
    return down(np.min(ends, axis=0)) - TINY, up(np.max(ends, axis=0)) + TINY


def _cells(places: Ends) -> tuple[IntArray, IntArray]:
    """Return the first and the last cell between whole pixels that a place may lie in."""
    first, last = (np.floor(end).astype(np.int64) for end in places)
    return first, last


def _each(first: IntArray, last: IntArray) -> list[IntArray]:
    """Return the whole numbers from first to last of each pixel, the last one again where others have more."""
    return [np.minimum(first + k, last) for k in range(int((last - first).max()) + 1)]


def _between(one: FloatArray, other: FloatArray, place: Ends, first: IntArray) -> Ends:
    """Return the ends of (1 - f) one + f other, f between 0 and 1 where a place beyond a whole pixel may be."""
    shares = [np.clip(end - first, 0.0, 1.0) for end in (down(place[0] - 1e-15), up(place[1] + 1e-15))]
    ends = [one + share * (other - one) for share in shares]
    lost = 16 * UNIT_ROUNDOFF * np.maximum(np.abs(one), np.abs(other)) + TINY
    return down(np.minimum(*ends) - lost), up(np.maximum(*ends) + lost)


def _extremes(values: Callable[[IntArray, IntArray], Ends], rows: list[IntArray], columns: list[IntArray]) -> Ends:
    """Return the least and the greatest that values may be at all rows and columns."""
    found = [values(i, j) for i in rows for j in columns]
    return np.min([one[0] for one in found], axis=0), np.max([one[1] for one in found], axis=0)
