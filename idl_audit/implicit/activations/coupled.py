"""Coupled activations: groups of `width` neighbouring states, each of which may read the others' pre-activations.

A group is a function of R^width to itself, so that A stays square. Planes take the place of lines: the multipliers of a
group are those of planes around its graph, and the least value of v . phi(z) - lam . z is one of a group, not of a
state.

Elsewhere: multivariate nonlinearity.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.activations.base import Activation, Line
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.rounding import gamma


@dataclass(frozen=True, eq=False)
class Plane:
    """x of one state of every group lies above, or below, intercept + sum_j slopes_j z_j over its group."""

    state: int
    """Its place in the group."""
    slopes: FloatArray
    """(groups, width)."""
    intercept: FloatArray
    """(groups,)."""
    is_lower: bool


class Coupled(Activation):
    """A function of groups of `width` neighbouring states."""

    width: int
    positively_homogeneous = False
    piecewise_linear = False
    coupled = True
    ranges_suffice = False
    """Whether backward bounds of a state alone gain nothing over its range for the bounds of its group."""

    def grouped(self, values: FloatArray) -> FloatArray:
        """Return the values of every group, (..., n) -> (..., n / width, width)."""
        return values.reshape(*values.shape[:-1], values.shape[-1] // self.width, self.width)

    def felt(self, seen: BoolArray) -> BoolArray:
        """Return whole groups."""
        return np.repeat(seen.reshape(*seen.shape[:-1], -1, self.width).any(axis=-1), self.width, axis=-1)

    def norm_constants(self, size: int, norm: float) -> FloatArray:
        """Return the norms of Gamma, rounded upward: row sums for l_inf, column sums for l_1, their mean for l_2."""
        whole, count = self.spread(np.eye(size)), size // self.width
        own = np.abs(whole).reshape(count, self.width, count, self.width)[np.arange(count), :, np.arange(count), :]
        rows, columns = (own.sum(axis=axis).max(axis=1, initial=0.0) for axis in (2, 1))
        return np.asarray({np.inf: rows, 1.0: columns, 2.0: np.sqrt(rows) * np.sqrt(columns)}[norm]) * (
            1 + gamma(self.width + 8)
        )

    def gradient_steepness(self, size: int) -> FloatArray | None:
        """Return None: unless an activation says otherwise."""
        return None

    def fits(self, size: int) -> bool:
        """Return whether the parameters have a meaning, for a block of so many states."""
        return 1 <= self.width <= max(size, 1) and size % self.width == 0

    def unaided(self) -> Activation:
        """Return the same function, relying on nothing that other blocks do."""
        return self

    def as_first_summands(self, least: FloatArray) -> FloatArray:
        """Return one number a group as that of its first state, 0 for the others, (..., groups) -> (..., n)."""
        summands = np.zeros((*least.shape, self.width))
        summands[..., 0] = least
        return summands.reshape(*least.shape[:-1], least.shape[-1] * self.width)

    @abstractmethod
    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam = (the planes that v asks for)^T v."""

    @abstractmethod
    def planes(self, lo: FloatArray, hi: FloatArray) -> Iterable[Plane]:
        """Return planes that the graph lies between over one box, [lo, hi] of shape (n,); only solvers read them."""

    def plane_entries(self, size: int) -> int:
        """Return about how many coefficients the planes of so many states have, where they may be many."""
        return 0

    def read_alone(self) -> BoolArray:
        """Return which pre-activations of a group the planes read whether or not the state itself moves, (width,)."""
        return np.zeros(self.width, np.bool_)

    @abstractmethod
    def within(self, lo: FloatArray, hi: FloatArray) -> Activation:
        """Return the same function with the slopes that it has over one box, [lo, hi] of shape (n,)."""

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the constant lines at the ends of the range."""
        low, high = self.interval(lo, hi)
        return [(np.zeros_like(low), low)], [(np.zeros_like(high), high)]

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return 0 and 0: a state that is looked at by itself has constant bounds."""
        zero = np.zeros(np.broadcast_shapes(lo.shape, hi.shape))
        return zero, zero
