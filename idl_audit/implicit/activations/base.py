"""What analyses may ask of an activation: values, slopes on an interval, lines around its graph, proved bounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray

Line: TypeAlias = tuple[FloatArray, FloatArray]
"""(slope, intercept) of x = slope z + intercept, for each state."""

FAR = 1e300
"""Stands for the whole axis where slopes on all of it are asked for."""


class Activation(ABC):
    """A function phi of one variable applied to every state of a block, or (`coupled`) of a group of states."""

    name: str
    positively_homogeneous: bool
    piecewise_linear: bool
    coupled: bool = False
    """Whether states depend on each other's pre-activations."""
    forbidden: str = ""
    """Where phi is no number, as it goes on after "z may": empty where it is one for all z."""

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

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return Phi^T v, Phi the Jacobian of phi at z; used to search, never to prove."""
        return v * self.derivative(z)

    def felt(self, seen: BoolArray) -> BoolArray:
        """Return which pre-activations some states depend on, (n,), where the function itself reads them."""
        return seen

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r for r >= 0, where |phi(s) - phi(t)| <= Gamma |s - t| entrywise."""
        return r * self.lipschitz

    def moved(self, e: FloatArray) -> FloatArray:
        """Return Gamma e for e >= 0: how far phi moves where z does by e; as `spread` where Gamma is symmetric."""
        return self.spread(e)

    def read_by(self, found: BoolArray) -> BoolArray:
        """Return the pre-activations that some states depend on."""
        return np.asarray(self.spread(found.astype(np.float64)) > 0)

    def norm_constants(self, size: int, norm: float) -> FloatArray:
        """Return gamma, one a group, with ||dx_k||_p <= gamma_k ||dz_k||_p; `norm` is p: 1, 2 or infinity."""
        return np.zeros(size) + self.lipschitz

    def gradient_steepness(self, size: int) -> FloatArray | None:
        """Return g, (size,), one number a group, with dx . (dz - dx / g) >= 0 in each group; None where none is known.

        That holds where phi is the gradient of a convex function whose slopes do not exceed g.
        """
        least, most = self.slopes(np.full(size, -FAR), np.full(size, FAR))
        return most if bool((least >= 0).all()) else None

    @abstractmethod
    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (a, g) with a <= (phi(s) - phi(t)) / (s - t) <= g for all s <> t in [lo, hi]."""

    @abstractmethod
    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of phi over [lo, hi], rounded outward."""

    def inside(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return whether phi is a number at every z in [lo, hi]: nothing is said of phi, or proved, where it is not."""
        return np.ones(np.broadcast_shapes(lo.shape, hi.shape), np.bool_)

    def preimage(
        self, x_lo: FloatArray, x_hi: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return bounds within [lo, hi] of every z there with phi(z) in [x_lo, x_hi]; [lo, hi] where none are known."""
        return lo, hi

    @abstractmethod
    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (s, t): good slopes for a line below and a line above the graph over [lo, hi]; any are sound."""

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam for which min (v phi(z) - lam z) over [lo, hi] is good: v times the slopes of the usual lines.

        `chosen` are what coupled activations let a search choose, of the shape of v; the usual ones where it is NaN.
        """
        below, above = self.relaxation_slopes(lo, hi)
        return np.maximum(v, 0.0) * below + np.minimum(v, 0.0) * above

    def bends(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return which states have more than one slope within [lo, hi]."""
        least, most = self.slopes(lo, hi)
        return np.asarray(least < most)

    @abstractmethod
    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the lines that the relaxation over [lo, hi] lies above, and those it lies below."""

    @abstractmethod
    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return a proved lower bound of min over z in [lo, hi] of (v' phi(z) - lam z), for all |v' - v| <= v_error."""
