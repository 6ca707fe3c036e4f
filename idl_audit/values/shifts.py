"""Shifts of a picture by up to one pixel along rows and columns, with bilinear resampling, edges repeated.

A shift by a pixels along rows and b along columns, 0 <= a, b <= 1, in directions s, t of +1 or -1, makes

    u = (1 - a)(1 - b) I + a (1 - b) I_s + (1 - a) b I_t + a b I_st
      = I + a (I_s - I) + b (I_t - I) + a b (I - I_s - I_t + I_st),

I the picture, I_s, I_t, I_st shifted by one whole pixel: the set is the union of four families with a product of two
parameters (docs/mathematics.md, section 14.4).

Elsewhere: translation, geometric perturbation, subpixel shift, bilinear interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.families import Family
from idl_audit.values.layouts import Layout
from idl_audit.values.rounding import float_above, float_below

QUADRANTS: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Directions along rows (down is +1) and along columns (right is +1)."""


@dataclass(frozen=True)
class Shift:
    """All shifts by at most so many pixels along rows, and along columns."""

    most: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.most) and 0 < self.most <= 1):
            raise OptionError(f"translate goes up to 1 pixel, not {self.most:g}; give a number above 0 and at most 1")

    @property
    def text(self) -> str:
        """How it is written: translate=1.0."""
        return f"translate={self.most!r}"

    def families(self, sample: FloatArray, layout: Layout, factor: float) -> Iterator[Family]:
        """Yield the family of each of `QUADRANTS`. Raises OptionError where the factor makes it more than a pixel."""
        reach = Fraction(self.most) * Fraction(factor)
        if not 0 <= reach <= 1:
            raise OptionError(f"{self.text} times {factor:g} is more than 1 pixel; give a smaller eps")
        if not np.isfinite(sample).all():
            raise DataError("a sample needs finite numbers to be shifted")
        planes = layout.planes(sample)
        least, hi, inner = np.zeros(2), np.full(2, float_above(reach)), np.full(2, float_below(reach))
        box = Box(least, hi, least, inner)
        for down, right in QUADRANTS:
            rows, columns = (_moved(planes, *way) for way in ((down, 0), (0, right)))
            both = _moved(planes, down, right)
            along = np.stack([layout.flat(rows) - sample, layout.flat(columns) - sample], axis=1)
            yield Family(sample, along, box, product=_cross(sample, *(map(layout.flat, (rows, columns, both)))))


def _moved(planes: FloatArray, down: int, right: int) -> FloatArray:
    """Return the picture moved by whole pixels, (channels, height, width), edges repeated."""
    height, width = planes.shape[1:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return planes[:, rows][:, :, columns]


def _cross(sample: FloatArray, rows: FloatArray, columns: FloatArray, both: FloatArray) -> FloatArray:
    """Return I - I_s - I_t + I_st."""
    return (sample - rows) + (both - columns)
