"""The sets of many samples as rows of arrays: what attacks on all of them at once step and project with.

In floating point, to search with: the judge alone puts a point into its set exactly (`search.judge`). A box is a ball
of the norm linf whose unit is, for each input, how far it moves at most; so that per-input radii need no case. In a
ball of another norm the units are the inputs' radii, and everything happens to (u - centre) / unit.

Elsewhere: projection onto the l1 ball within bounds (Croce, Hein 2021), steepest descent in a norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.search.pgd import Units
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.box import Box, largest_entries
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.verdicts import NormName

HALVINGS: Final = 30
"""Steps in which the threshold of the l1 ball is found."""


@dataclass(frozen=True)
class Regions:
    """{u : |(u - centre) / unit| <= radius, lo <= u <= hi} for each row, in one norm."""

    norm: NormName
    centre: FloatArray
    """Shape (m, p), as are `lo`, `hi` and `unit`."""
    lo: FloatArray
    """Float32 numbers inside the valid range and the box around the set."""
    hi: FloatArray
    unit: FloatArray
    """How far each input moves for a distance of 1, >= 0."""
    radius: FloatArray
    """Shape (m,)."""

    @classmethod
    def of(cls, sets: Sequence[InputSet], centres: Sequence[FloatArray]) -> Regions:
        """Return boxes, or balls of one norm, around their centres; lo > hi where an interval holds no float32 number.

        Raises:
            ValueError: where a set is something else, or norms differ.
        """
        norms = {_norm_of(one) for one in sets}
        if len(norms) != 1 or None in norms:
            raise ValueError(f"attacks on many samples at once are for boxes or balls of one norm, not {sets[0]!r}")
        units = [Units.of_float32(one.hull) for one in sets]
        lo, hi = np.stack([one.lo for one in units]), np.stack([one.hi for one in units])
        centre = np.stack([np.asarray(one, np.float64) for one in centres])
        unit, radius = np.ones_like(lo), np.ones(len(sets))
        norm: NormName = "linf"
        if all(isinstance(one, NormBall) for one in sets):
            radius = np.array([one.eps for one in sets if isinstance(one, NormBall)])
            norm = next(one.norm for one in sets if isinstance(one, NormBall))
            unit = np.stack([unit[0] if one.sigma is None else one.sigma for one in sets if isinstance(one, NormBall)])
        else:
            unit = np.maximum(np.maximum(centre - lo, hi - centre), 0.0)
        return cls(norm, centre, lo, hi, unit, radius)

    @property
    def can_be_asked(self) -> BoolArray:
        """Which sets hold a float32 number in each interval, shape (m,)."""
        return np.asarray((self.lo <= self.hi).all(axis=1))

    def rows(self, places: IntArray | BoolArray) -> Regions:
        """Return some of the rows."""
        one = (self.centre, self.lo, self.hi, self.unit, self.radius)
        return Regions(self.norm, *(array[places] for array in one))

    def distance(self, points: FloatArray) -> FloatArray:
        """Return |(u - centre) / unit| of each row, (m, p) -> (m,)."""
        shares = np.abs(self._shares(points))
        if self.norm == "l2":
            return np.asarray(np.sqrt(np.einsum("mp,mp->m", shares, shares)))
        return np.asarray(shares.sum(axis=1) if self.norm == "l1" else shares.max(axis=1, initial=0.0))

    def _shares(self, points: FloatArray) -> FloatArray:
        """Return (u - centre) / unit; 0 where a unit is."""
        change = points - self.centre
        return np.divide(change, self.unit, out=np.zeros_like(change), where=self.unit > 0)

    @property
    def _ends(self) -> tuple[FloatArray, FloatArray]:
        """How far each input falls, <= 0, and rises in its unit."""
        return self._shares(self.lo), self._shares(self.hi)

    def dual(self, slopes: FloatArray) -> FloatArray:
        """Return by how much each row's function falls for a distance of 1, to first order, (m, p) -> (m,)."""
        if self.norm == "linf":
            return np.asarray(np.einsum("mp,mp->m", np.abs(slopes), self.unit))
        size = np.abs(slopes) * self.unit
        if self.norm == "l2":
            return np.asarray(np.sqrt(np.einsum("mp,mp->m", size, size)))
        return np.asarray(size.max(axis=1, initial=0.0))

    def onto(self, points: FloatArray, radius: FloatArray | None = None) -> FloatArray:
        """Return points of each row's set near the given ones, (m, p); of a smaller radius where one is given."""
        r = (self.radius if radius is None else np.minimum(radius, self.radius))[:, None]
        if self.norm == "linf":
            near = np.clip(points, self.centre - r * self.unit, self.centre + r * self.unit)
            return np.asarray(np.clip(near, self.lo, self.hi))
        change, (low, high) = self._shares(points), self._ends
        if self.norm == "l2":
            change = np.clip(change, low, high)
            length = np.sqrt(np.einsum("mp,mp->m", change, change))[:, None]
            change = change * np.where(length > r, r / np.maximum(length, r), 1.0)
        else:
            change = _onto_l1(change, r, low, high)
        return np.asarray(self.centre + self.unit * change)

    def ahead(
        self, points: FloatArray, slopes: FloatArray, size: FloatArray, count: FloatArray | None = None
    ) -> FloatArray:
        """Return where a step of a size (m,) along the steepest descent of the norm leads, sets left aside.

        Args:
            points: shape (m, p).
            slopes: shape (m, p).
            size: the distance, shape (m,).
            count: of l1 alone: over how many entries a step is spread, shape (m,); those that are already at the end
                which the slope points to are left out.
        """
        if self.norm == "linf":
            return np.asarray(points - size[:, None] * self.unit * np.sign(slopes))
        if self.norm == "l2":
            length = self.dual(slopes)[:, None]
            return np.asarray(points - size[:, None] * self.unit**2 * slopes / np.where(length > 0, length, 1.0))
        room = np.where(slopes > 0, points > self.lo, points < self.hi)
        steep = np.abs(slopes) * self.unit * room
        most = np.maximum(1, np.ones(len(points)) if count is None else count).astype(np.int64)
        chosen = np.zeros(points.shape, np.bool_)
        for number in np.unique(most):
            of = most == number
            chosen[of] = largest_entries(steep[of], int(number)) & (steep[of] > 0)
        spread = size / np.maximum(chosen.sum(axis=1), 1)
        return np.asarray(points - spread[:, None] * self.unit * np.sign(slopes) * chosen)

    def corner(self, slopes: FloatArray) -> FloatArray:
        """Return where slopes . u is about least over each set, (m, p): in an l1 ball a point at its surface."""
        if self.norm != "l1":
            return self.onto(self.ahead(self.centre, slopes, self.radius))
        low, high = self._ends
        far = np.where(slopes > 0, -low, high)
        order = np.argsort(-np.abs(slopes) * self.unit, axis=1, kind="stable")
        ordered = np.take_along_axis(far, order, axis=1)
        used = np.clip(self.radius[:, None] - (np.cumsum(ordered, axis=1) - ordered), 0.0, ordered)
        step = np.zeros_like(slopes)
        np.put_along_axis(step, order, used, axis=1)
        return np.asarray(self.centre - self.unit * step * np.sign(slopes))

    def drawn(self, rng: np.random.Generator) -> FloatArray:
        """Return a random point of each set, at its surface but for what the bounds cut off, (m, p)."""
        if self.norm == "linf":
            shares = rng.uniform(-1.0, 1.0, self.centre.shape)
            return self.onto(self.centre + self.radius[:, None] * self.unit * shares)
        shares = rng.normal(size=self.centre.shape) if self.norm == "l2" else rng.laplace(size=self.centre.shape)
        order = 2 if self.norm == "l2" else 1
        length = np.linalg.norm(shares, order, axis=1, keepdims=True)
        return self.onto(self.centre + self.radius[:, None] * self.unit * shares / np.where(length > 0, length, 1.0))


def _onto_l1(change: FloatArray, r: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the nearest change of the l1 ball within bounds, (m, p): entries fall by one number, then are clipped."""
    size = np.abs(change)

    def fallen(by: FloatArray) -> FloatArray:
        return np.asarray(np.clip(np.sign(change) * np.maximum(size - by, 0.0), low, high))

    least, most = np.zeros_like(r), size.max(axis=1, keepdims=True, initial=0.0)
    if (np.abs(fallen(least)).sum(axis=1, keepdims=True) <= r).all():
        return fallen(least)
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        outside = np.abs(fallen(middle)).sum(axis=1, keepdims=True) > r
        least, most = np.where(outside, middle, least), np.where(outside, most, middle)
    inside = np.abs(fallen(np.zeros_like(r))).sum(axis=1, keepdims=True) <= r
    return fallen(np.where(inside, 0.0, most))


def _norm_of(inputs: InputSet) -> NormName | None:
    if isinstance(inputs, NormBall):
        return inputs.norm
    return "linf" if isinstance(inputs, Box) else None
