"""ACTIVATIONS: what each nonlinearity does, its slopes on an interval, and sound bounds of v phi(z) - lam z.

Two families share all code:

- `Kinked`: phi(z) = below * z for z <= 0 and above * z for z >= 0 (ReLU, leaky ReLU, PReLU, abs, the identity): the
  positively homogeneous functions of one variable. The hull of the graph over [l, h] has the vertices (l, phi(l)),
  (h, phi(h)) and, where l < 0 < h, (0, 0).
- `Smooth`: everything else that has slopes in [a, g] on [l, h]. Its graph lies between the lines of slopes a and g
  through (l, phi(l)) and (h, phi(h)).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from scipy import special

from idl_audit.arrays import FloatArray
from idl_audit.rounding import TINY, gamma

LIBRARY_ERROR = 2.0**-48
"""Relative (and, below 1, absolute) error granted to exp, tanh and the like: 32 units in the last place."""


Line: TypeAlias = tuple[FloatArray, FloatArray]
"""(slope, intercept) of x = slope z + intercept, for each state."""


class Activation(ABC):
    """A function phi of one variable, applied to every state of a block."""

    name: str
    positively_homogeneous: bool
    piecewise_linear: bool

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """The keyword arguments that `ACTIVATIONS[name]` takes to make this one again."""
        return {}

    @property
    @abstractmethod
    def lipschitz(self) -> float | FloatArray:
        """gamma: the largest |slope| anywhere, for all states or for each."""

    @abstractmethod
    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""

    @abstractmethod
    def derivative(self, z: FloatArray) -> FloatArray:
        """Return a slope of phi at z (one of them at a kink); used to search, never to prove."""

    @abstractmethod
    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (a, g) with a <= (phi(s) - phi(t)) / (s - t) <= g for all s <> t in [lo, hi]."""

    @abstractmethod
    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of phi over [lo, hi], rounded outward."""

    @abstractmethod
    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (s, t): good slopes for a line below and a line above the graph over [lo, hi]; any are sound."""

    @abstractmethod
    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the lines that the relaxation over [lo, hi] lies above, and those it lies below."""

    @abstractmethod
    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return a proved lower bound of min over z in [lo, hi] of (v' phi(z) - lam z), for all |v' - v| <= v_error."""


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
        ends = np.stack(np.broadcast_arrays(self(lo), self(hi)))
        low, high = ends.min(axis=0), ends.max(axis=0)
        inside = (lo < 0) & (hi > 0)
        low, high = np.where(inside, np.minimum(low, 0.0), low), np.where(inside, np.maximum(high, 0.0), high)
        if self._products_are_exact:
            return low, high
        return np.nextafter(low, -np.inf), np.nextafter(high, np.inf)

    @property
    def _products_are_exact(self) -> bool:
        """Whether both slopes are -1, 0 or 1."""
        return all(bool(np.isin(slope, (-1.0, 0.0, 1.0)).all()) for slope in (self.below, self.above))

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the chord's slope for the side where the graph bends away, the nearer side's slope for the other."""
        at_lo, at_hi = np.where(lo >= 0, self.above, self.below), np.where(hi > 0, self.above, self.below)
        width = np.maximum(hi - lo, TINY)
        chord = np.where(at_lo == at_hi, at_hi, (at_hi * hi - at_lo * lo) / width)
        tangent = np.where(hi > -lo, at_hi, at_lo)
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
        return v * x - lam * z - (v_error * np.abs(x) * (1 + gamma(6)) + rounding)


@dataclass(frozen=True, eq=False)
class Smooth(Activation):
    """A monotone function with a bell-shaped derivative that peaks at 0, such as tanh or the sigmoid."""

    name: str
    function: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    largest_slope: float
    positively_homogeneous: bool = False
    piecewise_linear: bool = False

    @property
    def lipschitz(self) -> float:
        """The largest slope, which is the one at 0."""
        return self.largest_slope

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        return np.asarray(self.function(z))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return phi'(z)."""
        return np.asarray(self.slope(z))

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the derivative at the end that is farther from 0 and at the point nearest to it, rounded outward."""
        nearest = np.clip(0.0, lo, hi)
        ends = np.minimum(self.slope(lo), self.slope(hi))
        least = np.maximum(ends * (1 - LIBRARY_ERROR) - LIBRARY_ERROR, 0.0)
        return least, np.asarray(self.slope(nearest) * (1 + LIBRARY_ERROR) + LIBRARY_ERROR)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return phi at both ends, rounded outward."""
        return self._rounded(lo, np.float64(-1.0)), self._rounded(hi, np.float64(1.0))

    def _rounded(self, z: FloatArray, direction: FloatArray | np.float64) -> FloatArray:
        value = self.function(z)
        return np.asarray(value + direction * (LIBRARY_ERROR * (1.0 + np.abs(value))))

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return, for both lines, the smaller slope where the graph bends within [lo, hi], else chord and tangent."""
        least, _ = self.slopes(lo, hi)
        width = np.maximum(hi - lo, TINY)
        chord = (self.function(hi) - self.function(lo)) / width
        convex, concave = hi <= 0, lo >= 0
        return np.where(concave, chord, least), np.where(convex, chord, least)

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the lines of the least and greatest slope through both ends of the graph."""
        a, g = self.slopes(lo, hi)
        at_lo, at_hi = self.function(lo), self.function(hi)
        below: list[Line] = [(a, at_lo - a * lo), (g, at_hi - g * hi)]
        above: list[Line] = [(g, at_lo - g * lo), (a, at_hi - a * hi)]
        return below, above

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the bound that a convex combination of the two lines below (v >= 0) or above (v < 0) proves.

        For v >= 0: phi(z) >= phi(l) + a (z - l) and phi(z) >= phi(h) + g (z - h); for v < 0 exchange l and h.
        """
        a, g = self.slopes(lo, hi)
        anchor_a, anchor_g = np.where(v >= 0, lo, hi), np.where(v >= 0, hi, lo)
        outward = np.where(v >= 0, -1.0, 1.0)
        wanted = np.divide(lam, v, out=np.zeros_like(v + lam), where=np.abs(v) > TINY)
        share = np.clip(np.divide(g - wanted, g - a, out=np.ones_like(wanted), where=(g - a) > TINY), 0.0, 1.0)
        at_a, at_g = self._rounded(anchor_a, outward), self._rounded(anchor_g, outward)
        line_lo = share * (at_a + a * (lo - anchor_a)) + (1 - share) * (at_g + g * (lo - anchor_g))
        line_hi = share * (at_a + a * (hi - anchor_a)) + (1 - share) * (at_g + g * (hi - anchor_g))
        least = np.minimum(v * line_lo - lam * lo, v * line_hi - lam * hi)
        reach = np.maximum(np.abs(at_a), np.abs(at_g)) + g * (hi - lo)
        size = np.abs(v) * reach + np.abs(lam) * np.maximum(np.abs(lo), np.abs(hi))
        return np.asarray(least - (v_error * reach * (1 + gamma(16)) + gamma(32) * size + TINY))


def _sigmoid_slope(z: FloatArray) -> FloatArray:
    return np.asarray(special.expit(z) * special.expit(-z))


def _tanh_slope(z: FloatArray) -> FloatArray:
    return np.asarray(1.0 / np.cosh(np.clip(z, -350.0, 350.0)) ** 2)


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


def sigmoid() -> Smooth:
    """Return phi(z) = 1 / (1 + exp(-z))."""
    return Smooth("sigmoid", special.expit, _sigmoid_slope, 0.25)


def tanh() -> Smooth:
    """Return phi(z) = tanh(z)."""
    return Smooth("tanh", np.tanh, _tanh_slope, 1.0)


ACTIVATIONS: Final[Mapping[str, Callable[..., Activation]]] = MappingProxyType(
    {
        "identity": identity,
        "relu": relu,
        "leaky_relu": leaky_relu,
        "abs": absolute,
        "sigmoid": sigmoid,
        "tanh": tanh,
    }
)
"""Name -> constructor; the keyword arguments are what a converted model stores beside the name."""
