"""Products of states: pairs (z1, z2) -> (z1 z2, z2); gates, attention, quotients and norms are made of them.

Over la <= z1 <= ha, lb <= z2 <= hb the hull of x = z1 z2 is four planes (McCormick 1976; docs/mathematics.md, section
6.8):

    below   x >= lb z1 + la z2 - la lb,   x >= hb z1 + ha z2 - ha hb
    above   x <= hb z1 + la z2 - la hb,   x <= lb z1 + ha z2 - ha lb

and any share eta in [0, 1] of the first and 1 - eta of the second of a side is one, too. For a fixed v and lam the
function v z1 z2 - lam1 z1 - lam2 z2 is linear in each factor, so that its least value over the box is at a corner: the
proof takes any multipliers.

Elsewhere: bilinear term, McCormick envelope.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.activations.base import Activation
from idl_audit.implicit.activations.coupled import Coupled, Plane
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import TINY, UNDERFLOW, down, gamma, up


@dataclass(frozen=True, eq=False)
class Product(Coupled):
    """phi(z1, z2) = (z1 z2, z2), pair by pair.

    The second state hands its factor on, so that linear programs have a column for it.
    """

    width: int = 2
    name: str = "product"

    @property
    def lipschitz(self) -> float | FloatArray:
        """No number: infinity."""
        return np.inf

    def _factors(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        return values[..., 0::2], values[..., 1::2]

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return (z1 z2, z2) for every pair."""
        x = np.array(z)
        x[..., 0::2] *= z[..., 1::2]
        return x

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return the diagonal of the Jacobian: z2 and 1."""
        diagonal = np.ones_like(z)
        diagonal[..., 0::2] = z[..., 1::2]
        return diagonal

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return (v1 z2, v1 z1 + v2)."""
        (z1, z2), (v1, v2) = self._factors(z), self._factors(v)
        return paired(v1 * z2, v1 * z1 + v2)

    def spread(self, r: FloatArray) -> FloatArray:
        """Refuse: no number bounds the slope of a product everywhere."""
        raise UnsupportedModelError(
            (
                "a product of two states has no bounded slope over all inputs; over a box it has: ask for local "
                "sensitivity, or for certify, attack and bounds",
            )
        )

    def read_by(self, found: BoolArray) -> BoolArray:
        """Return both factors of the first states, and the second states' own."""
        first, second = found[..., 0::2], found[..., 1::2]
        both = np.stack([first, first | second], axis=-1)
        return both.reshape(found.shape)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of the diagonal slopes: of z2, and 1."""
        least, most = np.ones_like(lo + hi), np.ones_like(lo + hi)
        least[..., 0::2], most[..., 0::2] = lo[..., 1::2], hi[..., 1::2]
        return least, most

    def bends(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return where both factors move; a product with a number is linear."""
        width = self.grouped(hi) > self.grouped(lo)
        return np.repeat(width.all(axis=-1), 2, axis=-1)

    def within(self, lo: FloatArray, hi: FloatArray) -> Activation:
        """Return the products of factors that stay within [lo, hi]."""
        (la, lb), (ha, hb) = self._factors(lo), self._factors(hi)
        return BoundedProduct(first=np.maximum(np.abs(la), np.abs(ha)), second=np.maximum(np.abs(lb), np.abs(hb)))

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest product of ends, rounded outward; of the second state its own ends."""
        (la, lb), (ha, hb) = self._factors(lo), self._factors(hi)
        with np.errstate(invalid="ignore", over="ignore"):
            corners = np.stack(np.broadcast_arrays(la * lb, la * hb, ha * lb, ha * hb))
        return paired(down(corners.min(axis=0)), lb), paired(up(corners.max(axis=0)), hb)

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam of the plane with the chosen share of a pair's first state; usually one as good as the interval.

        An infinite end leaves no plane: 0.
        """
        (v1, v2), (la, lb), (ha, hb) = self._factors(v), self._factors(lo), self._factors(hi)
        with np.errstate(invalid="ignore", over="ignore"):
            low = np.where(v1 >= 0, lb, hb)
            high = np.where(v1 >= 0, hb, lb)
            share = usual_shares(la, ha, low, high)
            if chosen is not None:
                share = np.where(np.isnan(chosen[..., 0::2]), share, chosen[..., 0::2])
            first, second = share * low + (1 - share) * high, share * la + (1 - share) * ha
            lam = paired(v1 * first, v1 * second + v2)
        return np.where(np.isfinite(lam), lam, 0.0)

    def planes(self, lo: FloatArray, hi: FloatArray) -> list[Plane]:
        """Return the four planes of the hull, and the second state as it is."""
        (la, lb), (ha, hb) = self._factors(lo), self._factors(hi)
        ends = ((lb, la, True), (hb, ha, True), (hb, la, False), (lb, ha, False))
        hull = [Plane(0, np.stack([b, a], axis=-1), -a * b, is_lower) for b, a, is_lower in ends]
        itself = np.broadcast_to([0.0, 1.0], (la.size, 2))
        return [*hull, *(Plane(1, itself, np.zeros(la.size), is_lower) for is_lower in (True, False))]

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least of v1 z1 z2 + v2 z2 - lam1 z1 - lam2 z2 at the corners, as the first summand of a pair."""
        (v1, v2), (e1, e2), (lam1, lam2) = self._factors(v), self._factors(v_error), self._factors(lam)
        (la, lb), (ha, hb) = self._factors(lo), self._factors(hi)
        with np.errstate(invalid="ignore", over="ignore"):
            corners = [_corner(v1, v2, lam1, lam2, z1, z2) for z1 in (la, ha) for z2 in (lb, hb)]
            first, second = np.maximum(np.abs(la), np.abs(ha)), np.maximum(np.abs(lb), np.abs(hb))
            reach = first * second  # endless where z1 z2 is at a corner: no other order of these products would be
            doubt = (e1 * reach + e2 * second) * (1 + gamma(8)) + (np.abs(v1) + e1) * UNDERFLOW + TINY
            size = np.abs(v1) * reach + (np.abs(v2) + np.abs(lam2)) * second + np.abs(lam1) * first
            least = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
            least = least - (doubt + gamma(12) * size)
        return paired(least, np.zeros_like(least))


def _corner(
    v1: FloatArray, v2: FloatArray, lam1: FloatArray, lam2: FloatArray, z1: FloatArray, z2: FloatArray
) -> FloatArray:
    return np.asarray(v1 * (z1 * z2) + (v2 - lam2) * z2 - lam1 * z1)


def usual_shares(la: FloatArray, ha: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the share eta for which the lower plane of z1 z2 is highest at its lowest corner: that of the interval.

    A plane's lowest value over the box is concave in eta and bends where one of its slopes is 0: the best of these
    places and the ends, in the middle of those that are equally good.

    Args:
        la, ha: ends of z1.
        low, high: those of z2; the other way round, the share is that of the upper plane.
    """
    with np.errstate(all="ignore"):
        places = [np.zeros(1), np.ones(1), high / (high - low), ha / (ha - la)]
        shape = np.broadcast_shapes(la.shape, ha.shape, low.shape, high.shape)
        shares = np.stack([np.clip(np.nan_to_num(np.broadcast_to(p, shape), nan=0.5), 0.0, 1.0) for p in places])
        first, second = shares * low + (1 - shares) * high, shares * la + (1 - shares) * ha
        side = np.sign(high - low)  # -1 of upper planes: z2 stands for -z2 there, and so does the plane
        least = np.minimum(side * first * la, side * first * ha) + np.minimum(side * second * low, side * second * high)
        least -= side * (shares * la * low + (1 - shares) * ha * high)
        best = least >= least.max(axis=0) - 1e-12 * np.abs(least).max(axis=0)
    largest = np.where(best, shares, -1.0).max(axis=0)
    smallest = np.where(best, shares, 2.0).min(axis=0)
    return np.asarray(np.where(best.any(axis=0), (largest + smallest) / 2, 0.5))


@dataclass(frozen=True, eq=False)
class BoundedProduct(Product):
    """Products whose factors are bounded: |z1| <= first, |z2| <= second, (pairs,) each."""

    first: FloatArray = field(default_factory=lambda: np.zeros(0))
    second: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def lipschitz(self) -> FloatArray:
        """The largest l_inf slope of each state."""
        return paired(np.asarray(up(self.first + self.second)), np.ones_like(self.second))

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r: |dx1| <= second |dz1| + first |dz2|, |dx2| = |dz2|."""
        r1, r2 = self._factors(r)
        with np.errstate(invalid="ignore"):  # an endless factor behind what nothing reads
            reach = [np.where(r1 > 0, r1 * bound, 0.0) for bound in (self.second, self.first)]
        return paired(reach[0], reach[1] + r2) * (1 + gamma(4))

    def moved(self, e: FloatArray) -> FloatArray:
        """Return Gamma e: |dx1| <= second |dz1| + first |dz2|, |dx2| = |dz2|."""
        e1, e2 = self._factors(e)
        with np.errstate(invalid="ignore"):
            parts = [np.where(err > 0, err * bound, 0.0) for err, bound in ((e1, self.second), (e2, self.first))]
        return paired((parts[0] + parts[1]) * (1 + gamma(4)), e2)


def paired(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return first and second of every pair beside each other, (..., n) each -> (..., 2 n)."""
    shape = np.broadcast_shapes(first.shape, second.shape)
    both = np.stack([np.broadcast_to(first, shape), np.broadcast_to(second, shape)], axis=-1)
    return both.reshape(*shape[:-1], 2 * shape[-1])


def product() -> Product:
    """Return the products of neighbouring states."""
    return Product()
