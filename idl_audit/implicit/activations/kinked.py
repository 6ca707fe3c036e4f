"""Kinked activations: phi(z) = below * z for z <= 0 and above * z for z >= 0.

These are the positively homogeneous functions of one variable: ReLU, leaky ReLU, PReLU, abs, the identity. The hull of
the graph over [l, h] has the vertices (l, phi(l)), (h, phi(h)) and, where l < 0 < h, (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idl_audit.implicit.activations.base import Activation, Line
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, UNDERFLOW, down, gamma, up

NEARLY = 1 + 2.0**-40
"""Sides whose lengths are equal but for rounding are told apart the same way in whatever arithmetic."""


@dataclass(frozen=True, eq=False)
class Kinked(Activation):
    """phi(z) = below * z for z <= 0, above * z for z >= 0."""

    name: str
    below: float | FloatArray
    above: float | FloatArray
    positively_homogeneous: bool = True
    piecewise_linear: bool = True

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """alpha of a leaky ReLU; the others have none."""
        return {"alpha": self.below} if self.name == "leaky_relu" else {}

    @property
    def lipschitz(self) -> float | FloatArray:
        """max(|below|, |above|)."""
        largest = np.maximum(np.abs(self.below), np.abs(self.above))
        return float(largest) if largest.ndim == 0 else largest

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        if self._is_relu:
            return np.maximum(z, 0.0)
        return np.asarray(np.where(z >= 0, self.above * z, self.below * z))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return the slope at z, that of the right side at 0."""
        return np.asarray(np.where(z >= 0, self.above, self.below) + np.zeros_like(z))

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the smaller and the larger of the slopes that occur on [lo, hi]."""
        at_lo, at_hi = np.where(lo >= 0, self.above, self.below), np.where(hi > 0, self.above, self.below)
        return np.minimum(at_lo, at_hi), np.maximum(at_lo, at_hi)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of phi over [lo, hi]: its values at the ends and, where it lies between them, at 0."""
        at_lo, at_hi = self._of_end(lo), self._of_end(hi)
        low, high = np.minimum(at_lo, at_hi), np.maximum(at_lo, at_hi)
        if self._is_relu:
            return low, high
        inside = (lo < 0) & (hi > 0)
        low, high = np.where(inside, np.minimum(low, 0.0), low), np.where(inside, np.maximum(high, 0.0), high)
        if self._products_are_exact:
            return low, high
        return down(low), up(high)

    def _of_end(self, z: FloatArray) -> FloatArray:
        """Return phi(z), 0 where its slope is, also for infinite z; NaN stays NaN."""
        if self._is_relu:
            return np.maximum(z, 0.0)
        with np.errstate(invalid="ignore"):
            level = (np.where(z >= 0, self.above, self.below) == 0) & ~np.isnan(z)
            return np.where(level, 0.0, self(z))

    def preimage(
        self, x_lo: FloatArray, x_hi: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the tighter bounds where phi(z) = z above 0 and phi(z) <= 0 below."""
        known = (np.asarray(self.above) == 1) & (np.asarray(self.below) >= 0)
        return (
            np.where(known & (x_lo > 0), np.maximum(lo, x_lo), lo),
            np.where(known, np.minimum(hi, np.maximum(x_hi, 0.0)), hi),
        )

    @cached_property
    def _is_relu(self) -> bool:
        """Whether every state is a ReLU, of which values and intervals cost one operation."""
        return bool(np.all(np.equal(self.below, 0.0)) and np.all(np.equal(self.above, 1.0)))

    @cached_property
    def _products_are_exact(self) -> bool:
        """Whether both slopes are -1, 0 or 1; asked for every interval and every vertex."""
        return all(bool(np.isin(slope, (-1.0, 0.0, 1.0)).all()) for slope in (self.below, self.above))

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the chord's slope for the side where the graph bends away, the nearer side's slope for the other."""
        at_lo, at_hi = np.where(lo >= 0, self.above, self.below), np.where(hi > 0, self.above, self.below)
        width = np.maximum(hi - lo, TINY)
        chord = np.where(at_lo == at_hi, at_hi, (at_hi * hi - at_lo * lo) / width)
        tangent = np.where(hi > -lo * NEARLY, at_hi, at_lo)
        convex = at_hi >= at_lo
        return np.where(convex, tangent, chord), np.where(convex, chord, tangent)

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the sides of the hull: both slopes through 0, and the chord on the other side."""
        at_lo, at_hi = np.where(lo >= 0, self.above, self.below), np.where(hi > 0, self.above, self.below)
        chord = np.where(at_lo == at_hi, at_hi, (at_hi * hi - at_lo * lo) / np.maximum(hi - lo, TINY))
        at_ends: Line = chord, np.where(at_lo == at_hi, 0.0, (at_hi - chord) * hi)
        zero = np.zeros_like(chord)
        left, right = (at_lo + zero, zero), (at_hi + zero, zero)
        convex = at_hi >= at_lo
        sides = [tuple(np.where(convex, a, b) for a, b in zip(side, at_ends, strict=True)) for side in (left, right)]
        others = [tuple(np.where(convex, b, a) for a, b in zip(side, at_ends, strict=True)) for side in (left, right)]
        return [(s[0], s[1]) for s in sides], [(s[0], s[1]) for s in others]

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least of (v phi(z) - lam z) at the hull's vertices: the ends and, where l < 0 < h, 0."""
        at_lo, at_hi = self._vertex(v, v_error, lam, lo), self._vertex(v, v_error, lam, hi)
        least = np.minimum(at_lo, at_hi)
        return np.where((lo < 0) & (hi > 0), np.minimum(least, 0.0), least)

    def _vertex(self, v: FloatArray, v_error: FloatArray, lam: FloatArray, z: FloatArray) -> FloatArray:
        x = self(z)
        rounding = gamma(6) * (np.abs(v * x) + np.abs(lam * z)) + TINY
        if not self._products_are_exact:  # what underflows in x is multiplied by v
            rounding = rounding + (np.abs(v) + v_error) * UNDERFLOW
        return v * x - lam * z - (v_error * np.abs(x) * (1 + gamma(6)) + rounding)


def identity() -> Kinked:
    """Return phi(z) = z."""
    return Kinked("identity", 1.0, 1.0)


def relu() -> Kinked:
    """Return phi(z) = max(z, 0)."""
    return Kinked("relu", 0.0, 1.0)


def leaky_relu(alpha: float | FloatArray = 0.01) -> Kinked:
    """Return phi(z) = z for z >= 0 and alpha z below; alpha may differ from state to state (PReLU)."""
    return Kinked("leaky_relu", alpha, 1.0)


def absolute() -> Kinked:
    """Return phi(z) = |z|."""
    return Kinked("abs", -1.0, 1.0)
