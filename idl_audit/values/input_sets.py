"""Balls of the norms l2 and l1 within the valid range, and what an input set may be.

    {u : |(u - u0) / sigma|_p <= r, lo <= u <= hi},   p = 2 or 1

The greatest value of m . (u - u0) over it is at most that of m1 . (u - u0) over the ball plus that of m2 . (u - u0)
over the box, whatever m = m1 + m2 are; the best parts make it equal (docs/mathematics.md, section 14.2). Parts are
chosen in floating point, and evaluated rounded outward.

Elsewhere: l2 threat model, l1 threat model, Euclidean robustness radius; weighted norms, Mahalanobis distance with a
diagonal matrix, ellipsoids along the axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np

from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.box import Box, Centred, SparseBall, radii_of, set_support, total
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.norms import NORMS, Norm
from idl_audit.values.rounding import TINY, UNIT_ROUNDOFF, down, gamma, up

STEPS: Final = 6
"""In which the multiplier of the ball is found: each leaves out the entries at their ends, and there are few turns."""
SHRINKS: Final = 12
"""Tries to find float32 numbers inside the ball next to a point of it."""
SMALL: Final = 2.0**-500
"""What squares that underflow can take from a root, at most."""


@dataclass(frozen=True)
class NormBall(Centred):
    """The ball of radius `eps` around a centre, cut with a box around it."""

    centre: FloatArray
    eps: float
    norm: Norm
    box: Box
    """The least box around the set: of the same radius, clipped to the valid range."""
    sigma: FloatArray | None = None
    """How far each input alone moves for eps = 1, (p,), >= 0: |(u - centre) / sigma|_p <= eps; None stands for ones."""

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise OptionError(f"there is no norm {self.norm!r} for a ball; known are linf, {', '.join(NORMS)}")
        if not (np.isfinite(self.eps) and self.eps > 0):
            raise OptionError(f"eps must be a positive number, not {self.eps}")
        if self.centre.shape != self.box.lo.shape:
            raise DataError(f"the centre has shape {self.centre.shape}, and its box {self.box.lo.shape}")
        if not ((self.centre >= self.box.lo) & (self.centre <= self.box.hi)).all():
            raise DataError("the centre of a ball must lie in its box")
        if self.sigma is not None:
            radii_of(self.centre.size, self.sigma)

    @classmethod
    def around(
        cls,
        centre: FloatArray,
        eps: float,
        norm: Norm,
        *,
        sigma: FloatArray | None = None,
        valid_lo: float | None = None,
        valid_hi: float | None = None,
    ) -> NormBall:
        """Return {u : |(u - centre) / sigma|_p <= eps, valid_lo <= u <= valid_hi}; an input of radius 0 stays.

        Raises:
            OptionError: where eps is not a positive finite number, or sigma no radii.
            DataError: where the centre lies outside the data range or is not finite.
        """
        box = Box.around(centre, eps, sigma=sigma, valid_lo=valid_lo, valid_hi=valid_hi)
        own = None if sigma is None else np.asarray(sigma, np.float64)
        return cls(np.asarray(centre, np.float64), float(eps), norm, box, own)

    @cached_property
    def moves(self) -> tuple[FloatArray, FloatArray]:
        """How far each input falls and rises at most, both >= 0, rounded upward."""
        below = np.where(self.box.lo < self.centre, up(self.centre - self.box.lo), 0.0)
        return below, np.where(self.box.hi > self.centre, up(self.box.hi - self.centre), 0.0)

    @cached_property
    def room(self) -> Room:
        """How far each input moves in units of its radius."""
        below, above = self.moves
        if self.sigma is None:
            return Room.of(below, above, self.eps)
        return Room.of(_shares(below, self.sigma), _shares(above, self.sigma), self.eps)

    def in_radii(self, change: FloatArray) -> FloatArray:
        """Return a change of the inputs, (..., p), in units of their radii; 0 where an input has none."""
        return change if self.sigma is None else _shares(change, self.sigma)

    def rise(self, rows: FloatArray, error: FloatArray | float = 0.0) -> FloatArray:
        """Return max of m . (u - centre) over the set for each row m, shape (..., p) -> (...), rounded upward.

        It holds for every m' with |m' - m| <= error as well.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            found = self._rise_l2(rows) if self.norm == "l2" else self._rise_l1(rows)
        if np.any(error):
            found = up(found + self.reach(np.broadcast_to(np.asarray(error, np.float64), rows.shape)))
        return np.where(np.isnan(found), np.inf, found)

    def reach(self, magnitudes: FloatArray) -> FloatArray:
        """Return max of m . |u - centre| over the set for each row m >= 0, (..., p) -> (...), rounded upward."""
        radius = self.radius
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            by_box = total(np.where(radius > 0, magnitudes * radius, 0.0))
            scaled = self._scaled(magnitudes)
            by_ball = _norm(scaled) if self.norm == "l2" else up(scaled.max(axis=-1, initial=0.0) + TINY)
            found = np.fmin(by_box, up(by_ball * self.eps))
        return np.asarray(np.where(np.isnan(found), np.inf, found))

    def support(self, rows: FloatArray) -> FloatArray:
        """Return max of m . u over the set for each row m, shape (..., p) -> (...), rounded upward."""
        return set_support(self, rows)

    def _scaled(self, rows: FloatArray) -> FloatArray:
        """Return the rows as functionals of changes in units of radii, m sigma, up to one rounding an entry."""
        return rows if self.sigma is None else rows * self.sigma

    def _rise_l2(self, rows: FloatArray) -> FloatArray:
        first = self._in_ball(rows)
        return np.asarray(up(up(_norm(self._scaled(first)) * self.eps) + self._by_box(rows - first)))

    def _in_ball(self, rows: FloatArray) -> FloatArray:
        """Return the part m1 of each row that the ball is to bound: lam clip(m / lam, -below, above). Any is sound."""
        lam = self.room.multiplier(self._scaled(rows))[..., None]
        lam = np.where(np.isfinite(lam), lam, 0.0)
        below, above = self.room.below, self.room.above
        if self.sigma is not None:  # of the functional of inputs, not of that of their changes in units of radii
            below, above = _shares(below, self.sigma), _shares(above, self.sigma)
        return np.asarray(np.clip(rows, -lam * below, lam * above))

    def _rise_l1(self, rows: FloatArray) -> FloatArray:
        room, size = self.room, np.abs(rows)
        scaled = self._scaled(rows)
        lam = threshold(np.abs(scaled), np.where(rows > 0, room.above, room.below), self.eps)
        held = lam[..., None] if self.sigma is None else np.maximum(down(_shares(lam[..., None], self.sigma)), 0.0)
        rest = np.sign(rows) * np.where(size > held, up(size - held), 0.0)
        return np.asarray(up(up(lam * self.eps) + self._by_box(rest)))

    def _by_box(self, rows: FloatArray) -> FloatArray:
        """Return max of m . (u - centre) over the box, (..., p) -> (...), rounded upward.

        It holds for every m' with |m' - m| <= u |m|, u the unit roundoff: m may be a difference that was rounded.
        """
        below, above = self.moves
        further = UNIT_ROUNDOFF * np.maximum(below, above)
        found = np.maximum(rows, 0.0) @ (above + further) + np.maximum(-rows, 0.0) @ (below + further)
        return np.asarray(found * (1 + 2 * gamma(rows.shape[-1] + 12)) + TINY)

    def lowest(self, rows: FloatArray) -> FloatArray:
        """Return about where m . u is least over the set, for each row m, (..., p); used to search, never to prove."""
        room, m = self.room, -self._scaled(rows)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            if self.norm == "l2":
                lam = np.maximum(room.multiplier(m), 1e-300)[..., None]
                step = np.clip(m / lam, -room.below, room.above)
            else:
                far = np.where(m > 0, room.above, room.below)
                order = np.argsort(-np.abs(m), axis=-1, kind="stable")
                ordered = np.take_along_axis(far, order, axis=-1)
                used = np.clip(self.eps - (np.cumsum(ordered, axis=-1) - ordered), 0.0, ordered)
                step = np.zeros_like(m)
                np.put_along_axis(step, order, used, axis=-1)
                step = step * np.sign(m)
            step = self._scaled(step)
        return np.asarray(self.centre + np.where(np.isfinite(step), step, 0.0))

    def contains(self, points: FloatArray | Float32Array) -> BoolArray:
        """Return for each row of `points`, (..., p), whether it is known to lie in the exact set.

        Rounded so that a point is said to lie in it only where it does; one within 2^-40 of the sphere may not be.
        """
        change = np.abs(points.astype(np.float64) - self.centre)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            change = np.where(change > 0, up(change), 0.0)
            if self.sigma is not None:
                change = np.where(change > 0, up(_shares(change, self.sigma)), 0.0)
            inside = (total(change) if self.norm == "l1" else up(_norm(change))) <= self.eps
        return np.asarray(self.box.contains(points) & inside)

    def project(self, points: FloatArray) -> Float32Array:
        """Return float32 points of the exact set near the given ones, (..., p), where there are any.

        Onto the box, then towards the centre (l2) or onto the ball (l1), and inward by what float32 may change.
        """
        change = self.in_radii(np.clip(points, self.box.lo, self.box.hi) - self.centre)
        change = self._scaled(_shrunk(change, self.eps) if self.norm == "l2" else _onto_l1(change, self.eps))
        found = self.box.project(self.centre + change)
        for k in range(SHRINKS):
            outside = ~self.contains(found)
            if not outside.any():
                break
            again = self.box.project(self.centre + change * (1.0 - 2.0 ** (k - 24)))
            found = np.where(outside[..., None], again, found).astype(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class Room:
    """How far inputs move in units of their radii, in a ball of l2: floating point that parts are chosen by."""

    below: FloatArray
    """How far each falls at most, (p,), >= 0."""
    above: FloatArray
    eps: float
    least: FloatArray
    """-inf, or 0 for inputs that cannot fall: what of a row counts."""
    most: FloatArray
    few: IntArray
    """Inputs that the box may stop before the ball does: those that move by less than eps, and by more than 0."""
    others: FloatArray
    """1 for all others, 0 for these, (p,)."""

    @classmethod
    def of(cls, below: FloatArray, above: FloatArray, eps: float) -> Room:
        """Return the room between how far inputs fall and how far they rise."""
        stopped = ((below > 0) & (below < eps)) | ((above > 0) & (above < eps))
        least, most = np.where(below > 0, -np.inf, 0.0), np.where(above > 0, np.inf, 0.0)
        return cls(below, above, eps, least, most, np.flatnonzero(stopped), np.where(stopped, 0.0, 1.0))

    def multiplier(self, rows: FloatArray) -> FloatArray:
        """Return lam >= 0, (...), with which clip(m / lam, -below, above) fills the ball; 0 where nothing does.

        lam^2 = sum of m^2 over the entries that are not at their ends / (eps^2 - sum of the squares of those that are),
        with fewer entries inside from step to step. Only `few` can be at an end, and what cannot move adds nothing.
        """
        moved = np.clip(rows, self.least, self.most)
        squares, some = moved * moved, moved[..., self.few]
        ends = np.where(some > 0, self.above[self.few], self.below[self.few]) ** 2
        some = some * some
        outside, whole = squares @ self.others, self.eps * self.eps
        squared = (outside + some.sum(axis=-1)) / whole
        for _ in range(STEPS):
            at_end = some > squared[..., None] * ends
            if not at_end.any():
                break
            left = whole - np.where(at_end, ends, 0.0).sum(axis=-1)
            new = (outside + np.where(at_end, 0.0, some).sum(axis=-1)) / np.maximum(left, 1e-300)
            new = np.where((left > 0) & np.isfinite(new), np.minimum(new, squared), 0.0)
            if (new >= squared).all():
                break
            squared = new
        return np.asarray(np.sqrt(squared))


def _shares(change: FloatArray, sigma: FloatArray) -> FloatArray:
    """Return change / sigma, rounded; 0 where sigma is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.where(sigma > 0, change / sigma, 0.0))


def _norm(rows: FloatArray) -> FloatArray:
    """Return |m|_2 of each row, rounded upward; entries may be products that were rounded."""
    squares = np.einsum("...p,...p->...", rows, rows)
    return np.asarray(up(np.sqrt(squares) * (1 + gamma(rows.shape[-1] + 8))) + SMALL)


def threshold(size: FloatArray, far: FloatArray, r: float) -> FloatArray:
    """Return lam >= 0, (...): the entry at which the largest ones, each at its end, have used up r; 0 if none has."""
    order = np.argsort(-size, axis=-1, kind="stable")
    used = np.cumsum(np.take_along_axis(np.broadcast_to(far, size.shape), order, axis=-1), axis=-1)
    place = np.minimum((used < r).sum(axis=-1), size.shape[-1] - 1)
    lam = np.take_along_axis(size, np.take_along_axis(order, place[..., None], axis=-1), axis=-1)[..., 0]
    return np.asarray(np.where(used[..., -1] < r, 0.0, lam))


def _shrunk(change: FloatArray, r: float) -> FloatArray:
    largest = np.abs(change).max(axis=-1, keepdims=True, initial=0.0)
    shares = change / np.where(largest > 0, largest, 1.0)  # squares of what is far away would overflow
    length = np.sqrt((shares * shares).sum(axis=-1, keepdims=True)) * largest
    return np.asarray(change * np.where(length > r, r / np.maximum(length, r), 1.0))


def _onto_l1(change: FloatArray, r: float) -> FloatArray:
    """Return the nearest points of the l1 ball: entries fall by one number, to 0 at least."""
    size = np.abs(change)
    ordered = -np.sort(-size, axis=-1)
    spare = (np.cumsum(ordered, axis=-1) - r) / np.arange(1, size.shape[-1] + 1)
    last = np.maximum((ordered > spare).sum(axis=-1, keepdims=True) - 1, 0)
    by = np.maximum(np.take_along_axis(spare, last, axis=-1), 0.0)
    return np.asarray(np.sign(change) * np.maximum(size - by, 0.0))


InputSet: TypeAlias = Box | SparseBall | NormBall
"""What an input may become."""
