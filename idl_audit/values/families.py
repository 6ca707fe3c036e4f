"""Families of inputs with few parameters: {clip(u0 + M t + c t_0 t_1 + r e) : t in a box, |e| <= 1}, clip by entries.

What moves is t; u0, M, c and r >= 0 are float64 numbers, which define the family: nothing is rounded in it. Where there
is a valid range, inputs that would leave it saturate at its ends, so that the family holds the set {u0 + M t + r e} cut
with the range. r is for families that only enclose the set that is meant (docs/mathematics.md, section 14).

Elsewhere: semantic perturbation, parametrised specification, zonotope input set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError
from idl_audit.values.rounding import TINY, down, gamma, up


@dataclass(frozen=True, eq=False)
class Family:
    """A family of inputs, flat vectors in data units."""

    offset: FloatArray
    """u0, (p,)."""
    matrix: FloatArray
    """M, (p, k), k >= 1."""
    parameters: Box
    """Of t, (k,); with `spread` of t and e, (k + p,), e from -1 to 1."""
    clip: tuple[float, float] | None = None
    """The valid range."""
    spread: FloatArray | None = None
    """r, (p,); zeros where it is left out."""
    product: FloatArray | None = None
    """c, (p,): what the product of the first two parameters moves; zeros where it is left out."""

    def __post_init__(self) -> None:
        p, k = self.matrix.shape
        moving = k if self.spread is None else k + p
        if self.offset.shape != (p,) or self.parameters.size != moving or not k:
            raise DataError("a family needs one direction for each of its parameters, and one number for each input")
        parts = (self.offset, self.matrix) if self.spread is None else (self.offset, self.matrix, self.spread)
        if not all(np.isfinite(part).all() for part in parts):
            raise DataError("a family needs finite directions; found NaN or infinity")
        if self.spread is not None and not (self.spread >= 0).all():
            raise DataError("what a family leaves open of an input must be 0 or more")
        if self.product is not None and (self.product.shape != (p,) or k < 2 or not np.isfinite(self.product).all()):
            raise DataError("a family with a product needs two parameters, and one finite number for each input")

    @property
    def size(self) -> int:
        """Number of inputs p."""
        return int(self.offset.size)

    @property
    def k(self) -> int:
        """Number of parameters, e left out."""
        return int(self.matrix.shape[1])

    def members(self, t: FloatArray | Float32Array) -> FloatArray:
        """Return about clip(u0 + M t) for each row of t, shape (m, k or more) -> (m, p); what follows t is ignored."""
        own = t[:, : self.k].astype(np.float64)
        u = self.offset + own @ self.matrix.T
        if self.product is not None:
            u = u + (own[:, 0] * own[:, 1])[:, None] * self.product
        return u if self.clip is None else np.clip(u, *self.clip)

    def enclosed(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of every member with lo <= (t, e) <= hi, rounded outward, shape (p,) each."""
        t = lo / 2 + hi / 2
        half = up(hi - lo) / 2 * (1 + gamma(8)) + np.spacing(np.abs(t)) + TINY
        size = np.abs(self.matrix)
        centre = self.offset + self.matrix @ t[: self.k]
        radius = size @ half[: self.k] + gamma(self.k + 8) * (np.abs(self.offset) + size @ np.abs(t[: self.k]))
        if self.spread is not None:
            centre = centre + self.spread * t[self.k :]
            radius = radius + self.spread * (half[self.k :] + gamma(self.k + 8) * np.abs(t[self.k :]))
        if self.product is not None:
            middle, width = _products(lo, hi)
            centre = centre + self.product * middle
            radius = radius + np.abs(self.product) * (width + gamma(self.k + 8) * abs(middle))
        radius = (radius + TINY) * (1 + gamma(self.k + 16)) + gamma(4) * np.abs(centre)
        least, most = down(centre - radius), up(centre + radius)
        if self.clip is None:
            return least, most
        return np.clip(least, *self.clip), np.clip(most, *self.clip)

    @property
    def hull(self) -> Box:
        """A box around the family, rounded outward."""
        return Box.between(*self.enclosed(self.parameters.lo, self.parameters.hi))


def _products(lo: FloatArray, hi: FloatArray) -> tuple[float, float]:
    """Return (c, r) with |t_0 t_1 - c| <= r for all lo <= t <= hi, rounded outward."""
    ends = np.array([a * b for a in (lo[0], hi[0]) for b in (lo[1], hi[1])])
    least, most = float(down(ends.min())), float(up(ends.max()))
    middle = least / 2 + most / 2
    return middle, float(up(np.asarray(max(most - middle, middle - least)))) + TINY
