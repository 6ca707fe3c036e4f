"""What all curves share: pieces between turns, where any line touches them, lines that are best in the middle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.activations.base import Activation
from idl_audit.values.arrays import FloatArray

CUTS = 5
"""Cutting planes for the slope of a line, which may be any."""

Function = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Piece:
    """How phi bends between two neighbouring turns."""

    bend: int
    """1 where it is convex, -1 where it is concave, 0 where it is straight."""
    touch: Function
    """Slope -> about where phi has it; any place is sound."""


class Curved(Activation):
    """A smooth function of one variable: a line of any slope touches its graph from below, and one from above."""

    function: Function
    slope: Function
    given: Mapping[str, float]
    positively_homogeneous = False
    piecewise_linear = False

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """What the constructor was given."""
        return dict(self.given)

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        return np.asarray(self.function(z))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return phi'(z)."""
        return np.asarray(self.slope(z))

    @abstractmethod
    def farthest(self, side: FloatArray | float, k: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return about where in [lo, hi] side (phi(z) - k z) is least; used to search, never to prove."""

    def tried_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return finite ends of the slopes that are worth a try over [lo, hi]; used to search, never to prove."""
        return self.slopes(lo, hi)

    def _best_slopes(self, lo: FloatArray, hi: FloatArray, least: FloatArray, most: FloatArray) -> FloatArray:
        """Return about the slopes of the line below that is highest in the middle and of that above, (2, n).

        With side = 1 below and -1 above, side times the height in the middle is concave in the slope k:
        side k middle + min over z of side (phi(z) - k z). Cutting planes from both ends find where it is greatest.
        """
        side, middle = np.array([[1.0], [-1.0]]), lo + 0.5 * (hi - lo)

        def looked_at(k: FloatArray) -> FloatArray:
            """Return (k, side height, its derivative)."""
            z = self.farthest(side, k, lo, hi)
            return np.stack([k, side * (self.function(z) + k * (middle - z)), side * (middle - z)])

        low, high = (looked_at(np.broadcast_to(k, (2, lo.size))) for k in (least, most))
        for _ in range(CUTS):
            fall = low[2] - high[2]
            rise = (high[1] - high[2] * high[0]) - (low[1] - low[2] * low[0])
            cut = np.divide(rise, fall, out=0.5 * (low[0] + high[0]), where=fall > 0)
            new = looked_at(np.clip(cut, low[0], high[0]))
            low, high = np.where(new[2] > 0, new, low), np.where(new[2] < 0, new, high)
        return np.asarray(np.where(low[1] > high[1], low[0], high[0]))
