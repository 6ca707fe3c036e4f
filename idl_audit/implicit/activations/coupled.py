"""Coupled activations: blocks whose states depend on each other's pre-activations. Softmax is the one that is known.

Entrywise |d softmax_i / d z_j| <= 1/4, and the norm constant in l_inf is 1/2 (not 1, as the paper has it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.activations.base import Activation, Line
from idl_audit.implicit.activations.curve import LIBRARY_ERROR
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, gamma

EXPONENT_ERROR = 2.0**-42
"""What rounding a difference of up to 745 does to its exponential, relative."""


@dataclass(frozen=True, eq=False)
class Softmax(Activation):
    """phi(z)_i = exp(z_i) / sum_j exp(z_j) within every `width` neighbouring states."""

    width: int
    name: str = "softmax"
    positively_homogeneous: bool = False
    piecewise_linear: bool = False
    coupled: bool = True

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """The number of states that compete."""
        return {"width": float(self.width)}

    @property
    def lipschitz(self) -> float:
        """1/2: the l_inf norm of z -> phi(z)."""
        return 0.5

    def _grouped(self, values: FloatArray) -> FloatArray:
        return values.reshape(*values.shape[:-1], values.shape[-1] // self.width, self.width)

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z), groups along the last axis."""
        groups = self._grouped(z)
        weights = np.exp(groups - groups.max(axis=-1, keepdims=True))
        return np.asarray((weights / weights.sum(axis=-1, keepdims=True)).reshape(z.shape))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return the diagonal of the Jacobian, x (1 - x)."""
        x = self(z)
        return x * (1 - x)

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return (diag(x) - x x^T) v within each group."""
        x = self._grouped(self(z))
        groups = self._grouped(v)
        return np.asarray((x * (groups - (x * groups).sum(axis=-1, keepdims=True))).reshape(v.shape))

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r, Gamma = 1/4 within each group."""
        groups = self._grouped(r)
        total = 0.25 * groups.sum(axis=-1, keepdims=True) * (1 + gamma(self.width + 2))
        return np.broadcast_to(total, groups.shape).reshape(r.shape).copy()

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of the diagonal slopes, 0 and 1/4; the states are never stable."""
        return np.zeros_like(lo + hi), np.full_like(lo + hi, 0.25)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return phi_i where i is lowest and the others are highest, and the other way round, rounded outward."""
        error = LIBRARY_ERROR * (self.width + 4) + EXPONENT_ERROR
        low, high = self._extreme(lo, hi) * (1 - error), self._extreme(hi, lo) * (1 + error)
        return np.maximum(low - TINY, 0.0), np.minimum(high + TINY, 1.0)

    def _extreme(self, own: FloatArray, others: FloatArray) -> FloatArray:
        """Return 1 / (1 + sum over j <> i of exp(others_j - own_i))."""
        mine, rest = self._grouped(own), self._grouped(others)
        spread = np.zeros(np.broadcast_shapes(mine.shape, rest.shape))
        for i in range(self.width):
            # beyond 700 the value is below 1e-300: the exponent is cut off, and TINY pays for it
            exponents = np.clip(np.delete(rest, i, axis=-1) - mine[..., i : i + 1], -745.0, 700.0)
            spread[..., i] = np.exp(exponents).sum(axis=-1)
        return np.asarray((1.0 / (1.0 + spread)).reshape(own.shape))

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return 0 and 0: constant bounds."""
        zero = np.zeros_like(lo + hi)
        return zero, zero

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the constant lines at the ends of the range."""
        low, high = self.interval(lo, hi)
        return [(np.zeros_like(low), low)], [(np.zeros_like(high), high)]

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return min(v x) over the state's range minus max(lam z) over [lo, hi], state by state."""
        low, high = self.interval(lo, hi)
        least = np.where(v >= 0, v * low, v * high) - np.where(lam >= 0, lam * hi, lam * lo)
        size = np.abs(v) * high + np.abs(lam) * np.maximum(np.abs(lo), np.abs(hi))
        return np.asarray(least - v_error * (high * (1 + gamma(4))) - gamma(8) * size - TINY)


def softmax(width: float) -> Softmax:
    """Return the softmax of every `width` neighbouring states."""
    return Softmax(int(width))
