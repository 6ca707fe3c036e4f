"""A network without an implicit form, as attacks see it: outputs are its own, slopes are torch's or differences.

Nothing can be proved of such a network. Attacks need outputs and slopes alone, and the judge asks the network itself.

A slope by differences is taken across the input set, not at a point: a network of trees or of rounded numbers is flat
nearly everywhere, and what moves it is where it jumps. With few inputs each of them is moved by itself,

    g_i = (f(u + h_i e_i) - f(u - h_i e_i)) / (2 h_i);

with many, all of them are moved together by K random signs s, and g_i = mean_k s_ki (f(u + h s_k) - f(u - h s_k)) / (2
h_i), whose mean is the same to first order (Spall, simultaneous perturbation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from idl_audit.search.fast_gradients import Weights, in_batches
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.check import Check, unchecked
from idl_audit.values.network import Network, Pulled

EACH_INPUT: Final = 64
"""Inputs up to which each is moved by itself."""
DIRECTIONS: Final = 32
"""Ways in which many inputs are moved together."""
SHARE: Final = 0.25
"""Of half the width of the set, that a difference moves an input by to either side."""
BATCH: Final = 256
"""Points that the network is asked about at a time."""


@dataclass(frozen=True, eq=False)
class Opaque:
    """A network in data units with what attacks need of it; it says nothing that could prove anything."""

    network: Network
    n_outputs: int
    input_shape: tuple[int, ...]
    """Of one sample."""
    pulled: Pulled | None = None
    """Slopes by torch, where it has a copy of the network."""
    box: Box | None = None
    """The set across which differences are taken."""
    count: Callable[[int], None] = field(default=lambda points: None)
    """Told at how many points the network is evaluated."""
    seed: int = 0

    def within(self, box: Box, count: Callable[[int], None]) -> Opaque:
        """Return the network whose differences stay inside a set."""
        return replace(self, box=box, count=count)

    @property
    def batch(self) -> int:
        """How many points to ask for at a time."""
        return BATCH

    def outputs(self, points: FloatArray, *, check: Check = unchecked) -> FloatArray:
        """Return y for each row of points, shape (m, p) -> (m, q)."""
        self.count(len(points))
        with np.errstate(all="ignore"):
            return in_batches(self.network, points.astype(np.float32), BATCH, check)

    def slopes(
        self, points: FloatArray, weights: Weights, *, check: Check = unchecked
    ) -> tuple[FloatArray, FloatArray]:
        """Return y and about d(w . y)/du, w = weights(y): by torch, and by differences where that finds no slope."""
        y = self.outputs(points, check=check)
        w = weights(y)
        slopes = np.zeros(points.shape)
        if self.pulled is not None:
            self.count(len(points))
            found = self.pulled(points, w)
            slopes = np.where(np.isfinite(found), found, 0.0)
        flat = ~slopes.any(axis=1)
        for row in np.flatnonzero(flat):
            check()
            slopes[row] = self._differences(points[row], w[row], check)
        return y, slopes

    def _differences(self, point: FloatArray, w: FloatArray, check: Check) -> FloatArray:
        """Return the slope at one point, (p,), both ends of every difference inside the set."""
        assert self.box is not None  # `within` says it
        lo, hi = self.box.lo, self.box.hi
        steps = SHARE * (hi - lo) / 2
        p = point.size
        signs = np.eye(p)
        if p > EACH_INPUT:
            signs = np.random.default_rng(self.seed).choice([-1.0, 1.0], size=(DIRECTIONS, p))
        ahead = np.clip(point + steps * signs, lo, hi)
        behind = np.clip(point - steps * signs, lo, hi)
        y = self.outputs(np.concatenate([ahead, behind]), check=check)
        rise = (y[: len(signs)] - y[len(signs) :]) @ w
        moved = ahead - behind
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(moved != 0, rise[:, None] / moved, 0.0)
        total = np.where(np.isfinite(each), each, 0.0).sum(axis=0)
        return np.asarray(total if p <= EACH_INPUT else total / len(signs))
