"""Families of inputs with few parameters: {clip(u0 + M t + r e) : t in a box, |e| <= 1}, clip entry by entry.

What moves is t; u0, M and r >= 0 are float64 numbers, which define the family: nothing is rounded in it. Where there is
a valid range, inputs that would leave it saturate at its ends, so that the family holds the set {u0 + M t + r e} cut
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
        u = self.offset + t[:, : self.k].astype(np.float64) @ self.matrix.T
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
        radius = (radius + TINY) * (1 + gamma(self.k + 16)) + gamma(4) * np.abs(centre)
        least, most = down(centre - radius), up(centre + radius)
        if self.clip is None:
            return least, most
        return np.clip(least, *self.clip), np.clip(most, *self.clip)

    @property
    def hull(self) -> Box:
        """A box around the family, rounded outward."""
        return Box.between(*self.enclosed(self.parameters.lo, self.parameters.hi))
