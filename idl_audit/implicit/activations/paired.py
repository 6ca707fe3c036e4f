"""Two networks' states beside each other: pairs (z', dz) -> (phi(z'), phi(z' + dz) - phi(z')).

x' is the state of one network, dx = x - x' how far the other's is from it. Where the slopes of phi between z' and
z' + dz lie in [a, g], dx = s dz with s in [a, g] (docs/mathematics.md, section 9.6). For dz in [p, q] with p < 0 < q

    (a q - g p) (dz - p) / (q - p) + g p <= dx <= (g q - a p) (dz - p) / (q - p) + a p,

and a dz and g dz are the sides where dz has one sign. For fixed v and lam, v s dz - lam dz is linear in s and in dz, so
that its least value is at a corner: the proof takes any multipliers.

Elsewhere: ReluDiff, NeuroDiff.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.activations.base import Activation
from idl_audit.implicit.activations.coupled import Coupled, Plane
from idl_audit.implicit.activations.kinked import relu
from idl_audit.implicit.activations.product import paired
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.rounding import TINY, UNDERFLOW, down, gamma, up


@dataclass(frozen=True, eq=False)
class Paired(Coupled):
    """phi(z', dz) = (phi(z'), phi(z' + dz) - phi(z')), pair by pair, phi a function of one variable."""

    base: Activation = field(default_factory=relu)
    width: int = 2
    name: str = "paired"

    @property
    def lipschitz(self) -> float | FloatArray:
        """The largest l_inf slope of a difference: 3 times that of phi."""
        steep = np.asarray(self.base.lipschitz) * (3.0 * (1 + gamma(4)))
        return float(steep) if steep.ndim == 0 else np.repeat(steep, 2)

    def _parts(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        return values[..., 0::2], values[..., 1::2]

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return (phi(z'), phi(z' + dz) - phi(z'))."""
        other, dz = self._parts(z)
        at = self.base(other)
        return paired(at, self.base(other + dz) - at)

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return the diagonal of the Jacobian: phi'(z') and phi'(z' + dz)."""
        other, dz = self._parts(z)
        return paired(self.base.derivative(other), self.base.derivative(other + dz))

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return (v1 phi'(z') + v2 (phi'(z' + dz) - phi'(z')), v2 phi'(z' + dz))."""
        (other, dz), (v1, v2) = self._parts(z), self._parts(v)
        at, beyond = self.base.derivative(other), self.base.derivative(other + dz)
        return paired(v1 * at + v2 * (beyond - at), v2 * beyond)

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r: |change of x'| <= L |change of z'|, |change of dx| <= 2 L |...| + L |change of dz|."""
        r1, r2 = self._parts(r)
        steep = self.base.lipschitz
        return paired(steep * (r1 + 2.0 * r2), steep * r2) * (1 + gamma(8))

    def moved(self, e: FloatArray) -> FloatArray:
        """Return Gamma e."""
        e1, e2 = self._parts(e)
        steep = self.base.lipschitz
        return paired(steep * e1, steep * (2.0 * e1 + e2)) * (1 + gamma(8))

    def within(self, lo: FloatArray, hi: FloatArray) -> Activation:
        """Return the same function."""
        return self

    def _steep(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (a, g): the least and greatest slope of phi between z' and z' + dz."""
        (low, p), (high, q) = self._parts(lo), self._parts(hi)
        with np.errstate(invalid="ignore", over="ignore"):
            return self.base.slopes(np.minimum(low, down(low + p)), np.maximum(high, up(high + q)))

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of the diagonal slopes."""
        a, g = self._steep(lo, hi)
        (low, _), (high, _) = self._parts(lo), self._parts(hi)
        own = self.base.slopes(low, high)
        return paired(own[0], a), paired(own[1], g)

    def bends(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return where a pair has more than one slope; a difference that is 0 has none."""
        a, g = self._steep(lo, hi)
        (low, p), (high, q) = self._parts(lo), self._parts(hi)
        moves = (p < 0) | (q > 0)
        both = np.stack(np.broadcast_arrays(self.base.bends(low, high) | ((a < g) & moves), (a < g) & moves), axis=-1)
        return both.reshape(*both.shape[:-2], -1)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of phi(z'), and the least and greatest s dz at the corners, rounded outward."""
        a, g = self._steep(lo, hi)
        (low, p), (high, q) = self._parts(lo), self._parts(hi)
        ends = self.base.interval(low, high)
        with np.errstate(invalid="ignore", over="ignore"):
            corners = np.stack([_times(s, end) for s in (a, g) for end in (p, q)])
            least, most = corners.min(axis=0), corners.max(axis=0)
        exact = (_is_unit(a) & _is_unit(g)) | ((p == 0) & (q == 0))
        return paired(ends[0], np.where(exact, least, down(least))), paired(ends[1], np.where(exact, most, up(most)))

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam of the usual lines of phi for z', and of those above for dz; nothing is chosen."""
        (v1, v2), (low, p), (high, q) = self._parts(v), self._parts(lo), self._parts(hi)
        below, above = slopes_of_lines(*self._steep(lo, hi), p, q)
        return paired(self.base.multipliers(v1, low, high), np.maximum(v2, 0.0) * below + np.minimum(v2, 0.0) * above)

    def planes(self, lo: FloatArray, hi: FloatArray) -> list[Plane]:
        """Return the lines around phi, and those around the difference."""
        (low, p), (high, q) = self._parts(lo), self._parts(hi)
        a, g = self._steep(lo, hi)
        found = []
        for is_lower, lines in zip((True, False), self.base.lines(low, high), strict=True):
            found += [Plane(0, np.stack([s, 0 * s], axis=-1), at, is_lower) for s, at in lines]
        for is_lower, slope in zip((True, False), slopes_of_lines(a, g, p, q), strict=True):
            ends = [_times(s, end) - slope * end for s in (a, g) for end in (p, q)]
            at = np.minimum.reduce(ends) if is_lower else np.maximum.reduce(ends)
            found.append(Plane(1, np.stack([0 * slope, slope], axis=-1), at, is_lower))
        return found

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least of v1 phi(z') - lam1 z', and the least of (v2 s - lam2) dz at the corners."""
        (v1, v2), (e1, e2), (lam1, lam2) = self._parts(v), self._parts(v_error), self._parts(lam)
        (low, p), (high, q) = self._parts(lo), self._parts(hi)
        a, g = self._steep(lo, hi)
        with np.errstate(invalid="ignore", over="ignore"):
            slopes = v2 * a - lam2, v2 * g - lam2
            corners = [_times(slope, end) for slope in slopes for end in (p, q)]
            least = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
            steep, far = np.maximum(np.abs(a), np.abs(g)), np.maximum(np.abs(p), np.abs(q))
            size = _times(np.abs(v2) * steep + np.abs(lam2), far)
            doubt = _times(e2 * steep, far) * (1 + gamma(8)) + (1 + far) * UNDERFLOW + TINY
            own = least - (doubt + gamma(12) * size)
            first = self.base.lower_support(v1, e1, lam1, low, high)
        return paired(first, np.where(np.isnan(own), -np.inf, own))


def _times(slope: FloatArray, end: FloatArray) -> FloatArray:
    """Return the product of a slope and an end of dz; 0 where the end is 0, however steep."""
    return np.asarray(np.where(end == 0, 0.0, slope * end))


def _is_unit(slope: FloatArray) -> BoolArray:
    """Return where products with a slope are exact."""
    return np.asarray((slope == 0) | (np.abs(slope) == 1))


def slopes_of_lines(a: FloatArray, g: FloatArray, p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the slopes of the lines below and above dx as a function of dz; any are sound."""
    with np.errstate(all="ignore"):
        width = np.maximum(q - p, TINY)
        below, above = (a * q - g * p) / width, (g * q - a * p) / width
    below = np.where(p >= 0, a, np.where(q <= 0, g, below))
    above = np.where(p >= 0, g, np.where(q <= 0, a, above))
    return np.where(np.isfinite(below), below, 0.0), np.where(np.isfinite(above), above, 0.0)
