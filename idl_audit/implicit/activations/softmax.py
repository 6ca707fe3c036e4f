"""Softmax inside a network: x_i = exp(z_i) / sum_j exp(z_j) within every `width` neighbouring states.

With d_j = z_j - z_i and s = 1 + sum over j <> i of exp(d_j), x_i = 1 / s. Planes in z around the graph over a box
(Wei, Wu, Wu, Chen, Barrett and Farchi 2023, *Convex bounds on the softmax function*; docs/mathematics.md, section 6.8):

    below   1 / s >= 2 tau - tau^2 s for any tau, and exp(d) lies below its chord
    above   1 / s <= max over the ends of (1 / s + rho s) - rho s for any rho >= 0, and exp(d) lies above its tangents

The states of a group add up to 1: v may be moved by any number c, as v . x = c + (v - c) . x.

Entrywise |d x_i / d z_j| <= 1/4, and the norm constant in l_inf is 1/2 (not 1, as the paper has it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.activations.base import Activation
from idl_audit.implicit.activations.coupled import Coupled, Plane
from idl_audit.implicit.activations.curve import LIBRARY_ERROR
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.rounding import TINY, UNDERFLOW, down, gamma, up

EXPONENT_ERROR = 2.0**-42
"""What rounding a difference of up to 745 does to its exponential, relative."""
MOST_SLOPES = 2**22
"""Slopes of the planes of all groups over one box."""


@dataclass(frozen=True, eq=False)
class SoftmaxPlanes:
    """Planes slopes . z + intercept of each state of each group: (..., groups, width, width) and (..., groups, width).

    slopes[..., i, j] is that of x_i by z_j; what the graph is above, or below, for all z of the box.
    """

    below: FloatArray
    at_below: FloatArray
    above: FloatArray
    at_above: FloatArray


@dataclass(frozen=True, eq=False)
class Softmax(Coupled):
    """phi(z)_i = exp(z_i) / sum_j exp(z_j) within every `width` neighbouring states."""

    width: int
    name: str = "softmax"
    ranges_suffice = True

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """The number of states that compete."""
        return {"width": float(self.width)}

    @property
    def lipschitz(self) -> float:
        """1/2: the l_inf norm of z -> phi(z)."""
        return 0.5

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z), groups along the last axis."""
        groups = self.grouped(z)
        weights = np.exp(groups - groups.max(axis=-1, keepdims=True))
        return np.asarray((weights / weights.sum(axis=-1, keepdims=True)).reshape(z.shape))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return the diagonal of the Jacobian, x (1 - x)."""
        x = self(z)
        return x * (1 - x)

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return (diag(x) - x x^T) v within each group."""
        x = self.grouped(self(z))
        groups = self.grouped(v)
        return np.asarray((x * (groups - (x * groups).sum(axis=-1, keepdims=True))).reshape(v.shape))

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r, Gamma = 1/4 within each group."""
        groups = self.grouped(r)
        total = 0.25 * groups.sum(axis=-1, keepdims=True) * (1 + gamma(self.width + 2))
        return np.broadcast_to(total, groups.shape).reshape(r.shape).copy()

    def norm_constants(self, size: int, norm: float) -> FloatArray:
        """Return 1/2 for every l_p: rows and columns of diag(x) - x x^T add up to 2 x_i (1 - x_i) at most."""
        return np.full(size // self.width, 0.5)

    def gradient_steepness(self, size: int) -> FloatArray | None:
        """Return 1/2: the gradient of log sum exp, whose second derivative lies between 0 and I/2."""
        return np.full(size, 0.5)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of the diagonal slopes, 0 and 1/4; the states are never stable."""
        shape = np.broadcast_shapes(lo.shape, hi.shape)
        return np.zeros(shape), np.full(shape, 0.25)

    def within(self, lo: FloatArray, hi: FloatArray) -> Activation:
        """Return the same: its slopes are bounded everywhere."""
        return self

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return phi_i where i is lowest and the others are highest, and the other way round, rounded outward."""
        error = LIBRARY_ERROR * (self.width + 4) + EXPONENT_ERROR
        low, high = self._extreme(lo, hi) * (1 - error), self._extreme(hi, lo) * (1 + error)
        return np.maximum(low - TINY, 0.0), np.minimum(high + TINY, 1.0)

    def _extreme(self, own: FloatArray, others: FloatArray) -> FloatArray:
        """Return 1 / (1 + sum over j <> i of exp(others_j - own_i))."""
        mine, rest = self.grouped(own), self.grouped(others)
        spread = np.zeros(np.broadcast_shapes(mine.shape, rest.shape))
        for i in range(self.width):
            # beyond 700 the value is below 1e-300: the exponent is cut off, and TINY pays for it
            exponents = np.clip(np.delete(rest, i, axis=-1) - mine[..., i : i + 1], -745.0, 700.0)
            spread[..., i] = np.exp(exponents).sum(axis=-1)
        return np.asarray((1.0 / (1.0 + spread)).reshape(own.shape))

    # --- planes -------------------------------------------------------------------------------------------------------

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam = sum over i of (v_i - c) times the plane below x_i, or above it where v_i < c.

        Groups whose planes would be too many numbers have ranges alone: 0.
        """
        if not self._has_planes(v):
            return np.zeros(np.broadcast_shapes(v.shape, lo.shape))
        planes = self.softmax_planes(lo, hi)
        _, w = self._moved(v, lo, hi)
        return self._pulled(planes, w).reshape(v.shape)

    def _has_planes(self, v: FloatArray) -> bool:
        return bool(v.shape[-1] * self.width <= MOST_SLOPES)

    def _moved(self, v: FloatArray, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return c, (..., groups, 1), and about v - c: c is the mean of v by the states in the middle of the box."""
        with np.errstate(invalid="ignore", over="ignore"):
            x = self.grouped(self(np.nan_to_num(lo / 2 + hi / 2, posinf=0.0, neginf=0.0)))
        groups = self.grouped(v)
        c = (groups * x).sum(axis=-1, keepdims=True)
        return c, groups - c

    @staticmethod
    def _pulled(planes: SoftmaxPlanes, w: FloatArray) -> FloatArray:
        """Return sum_i of w_i times the plane of x_i that its sign asks for, (..., groups, width)."""
        rising, falling = np.maximum(w, 0.0), np.minimum(w, 0.0)
        return _of_groups(rising, planes.below) + _of_groups(falling, planes.above)

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return summands of a lower bound of v . x - lam . z: c, planes for v - c, the box for what is left of lam.

        Where planes are no better, v . x >= its least value over the ranges of the states.
        """
        by_ranges = self._by_ranges(v, v_error, lam, lo, hi)
        best = by_ranges.sum(axis=-1) - gamma(self.width + 4) * np.abs(by_ranges).sum(axis=-1)
        if self._has_planes(v):
            best = np.fmax(best, self._by_planes(v, v_error, lam, lo, hi))
        return self.as_first_summands(best)

    def _by_planes(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return lower bounds of v . x - lam . z over each group by planes, (..., groups)."""
        planes = self.softmax_planes(lo, hi)
        c, w = self._moved(v, lo, hi)
        low, high = self.grouped(lo), self.grouped(hi)
        with np.errstate(invalid="ignore", over="ignore"):
            rest = self._pulled(planes, w) - self.grouped(lam)
            ends = np.minimum(rest * low, rest * high)
            heights = np.maximum(w, 0.0) * planes.at_below + np.minimum(w, 0.0) * planes.at_above
            largest = np.maximum(np.abs(low), np.abs(high))
            steep = np.maximum(np.abs(planes.below), np.abs(planes.above))
            reach = _of_groups(np.abs(w), steep) + np.abs(self.grouped(lam))
            tall = np.abs(w) * np.maximum(np.abs(planes.at_below), np.abs(planes.at_above))
            # v - c is rounded, and so is what it is multiplied by; a state is at most 1
            size = reach * largest + np.abs(ends) + tall + np.abs(w) + np.abs(self.grouped(v)) + np.abs(c)
            doubt = gamma(2 * self.width + 16) * size + self.grouped(v_error) * (1 + gamma(8)) + TINY
            doubt = doubt + 2 * self.width * UNDERFLOW * largest  # products of v and slopes, times z
            least = c[..., 0] + (ends + heights).sum(axis=-1) - doubt.sum(axis=-1) * (1 + gamma(self.width + 8))
        return np.asarray(np.where(np.isfinite(least), least, -np.inf))

    def _by_ranges(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return min(v x) over each state's range minus max(lam z) over [lo, hi], (..., groups, width)."""
        low, high = self.interval(lo, hi)
        least = np.where(v >= 0, v * low, v * high) - np.where(lam >= 0, lam * hi, lam * lo)
        size = np.abs(v) * high + np.abs(lam) * np.maximum(np.abs(lo), np.abs(hi))
        return self.grouped(np.asarray(least - v_error * (high * (1 + gamma(4))) - gamma(8) * size - TINY))

    def planes(self, lo: FloatArray, hi: FloatArray) -> list[Plane]:
        """Return a plane below and one above each state of a group; none where they would be too many numbers."""
        if not self._has_planes(lo):
            return []
        found = self.softmax_planes(lo, hi)
        sides = (found.below, found.at_below, True), (found.above, found.at_above, False)
        return [
            Plane(i, slopes[..., i, :], intercepts[..., i], is_lower)
            for i in range(self.width)
            for slopes, intercepts, is_lower in sides
        ]

    def softmax_planes(self, lo: FloatArray, hi: FloatArray) -> SoftmaxPlanes:
        """Return planes below and above every state over [lo, hi], proved; constant ones where differences are wide.

        Those of groups that would be too many numbers are constant, too, and take no memory.
        """
        low, high = self.interval(lo, hi)
        x_lo, x_hi = self.grouped(low), self.grouped(high)
        if not self._has_planes(lo):
            flat = np.broadcast_to(0.0, (*x_lo.shape, self.width))
            return SoftmaxPlanes(flat, x_lo, flat, x_hi)
        least, most = self._differences(lo, hi)
        with np.errstate(all="ignore"):
            grown = LIBRARY_ERROR + 2 * gamma(4)
            at_least, at_most = np.exp(least) * (1 - grown), np.exp(most) * (1 + grown)
            largest = np.maximum(np.abs(self.grouped(lo)), np.abs(self.grouped(hi)))
            below = self._of_differences(*self._below(least, most, at_most), largest, -1.0)
            above = self._of_differences(*self._above(least, most, at_least, at_most), largest, 1.0)
            middle = self.grouped(lo / 2 + hi / 2)
            parts = []
            for (slopes, intercept), constant, side in ((below, x_lo, 1.0), (above, x_hi, -1.0)):
                tall = side * ((slopes * middle[..., None, :]).sum(axis=-1) + intercept)
                usable = (tall > side * constant) & np.isfinite(slopes).all(axis=-1) & np.isfinite(intercept)
                parts += [np.where(usable[..., None], slopes, 0.0), np.where(usable, intercept, constant)]
        return SoftmaxPlanes(*parts)

    def _differences(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of z_j - z_i, (..., groups, i, j), rounded outward; those of i itself are 0."""
        low, high = self.grouped(lo), self.grouped(hi)
        with np.errstate(invalid="ignore"):
            least = down(low[..., None, :] - high[..., :, None])
            most = up(high[..., None, :] - low[..., :, None])
        itself = np.eye(self.width, dtype=np.bool_)
        return np.where(itself, 0.0, least), np.where(itself, 0.0, most)

    def _below(self, least: FloatArray, most: FloatArray, at_most: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return slopes and intercepts of planes below x_i in z_j - z_i: 2 tau - k (1 + chords of exp), k >= tau^2.

        With floating-point numbers tau, k and a_j chosen, k exp(d) - a_j d is greatest at an end of [least, most].
        """
        width = np.maximum(most - least, TINY)
        rough = np.exp(least)
        chord = (at_most - rough) / width
        tau = 1.0 / (1.0 + (self._others(rough + chord * (width / 2))).sum(axis=-1))
        k = up(tau * tau)[..., None]
        a = self._others(k * chord)
        grown = LIBRARY_ERROR + gamma(16)
        ends = [k * np.exp(d) - a * d + grown * (k * np.exp(d) + np.abs(a * d)) for d in (least, most)]
        tops = self._others(np.maximum(*ends))
        total = tops.sum(axis=-1)
        doubt = gamma(self.width + 16) * (2 * tau + k[..., 0] + np.abs(tops).sum(axis=-1)) + TINY
        return -a, 2 * tau - k[..., 0] - total - doubt

    def _above(
        self, least: FloatArray, most: FloatArray, at_least: FloatArray, at_most: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return those above x_i: max over the ends of (1/s + r s) - r (1 + sum of tangents).

        With floating-point numbers r, a_j and a place m, r exp(d) - a_j d >= r exp(m) (1 + d - m) - a_j d for every d.
        """
        rounding = 1 + gamma(self.width + 4)
        first = down(1.0 + self._others(at_least).sum(axis=-1) / rounding)
        last = up(1.0 + self._others(at_most).sum(axis=-1) * rounding)
        r = 1.0 / (first * last)
        greatest = up(np.maximum(1.0 / first + r * first, 1.0 / last + r * last) * (1 + gamma(8)))
        m = least / 2 + most / 2
        at_middle = np.exp(m)
        a = self._others(r[..., None] * at_middle)
        reach = np.maximum(np.abs(least), np.abs(most))
        # r exp(m) is a_j but for rounding, which counts (1 + |d| + |m|) times
        doubt = (LIBRARY_ERROR + gamma(16)) * np.abs(a) * (1 + 4 * reach)
        tangents = self._others(a * (1 - m) - doubt)
        total = greatest - r - tangents.sum(axis=-1)
        rounded = gamma(self.width + 16) * (greatest + r + np.abs(tangents).sum(axis=-1)) + TINY
        return -a, total + rounded

    def _others(self, values: FloatArray) -> FloatArray:
        """Return the values (..., i, j) with 0 where j is i."""
        return np.where(np.eye(self.width, dtype=np.bool_), 0.0, values)

    @staticmethod
    def _of_differences(
        slopes: FloatArray, intercept: FloatArray, largest: FloatArray, side: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return slopes and intercepts in z from those in z_j - z_i; the rounding of their sum counts |z_i| times.

        `side` is 1 where the plane lies above the graph, -1 below.
        """
        width = slopes.shape[-1]
        total = slopes.sum(axis=-1)
        lost = gamma(width + 4) * np.abs(slopes).sum(axis=-1) * largest * (1 + gamma(4)) + TINY
        shifted = intercept + side * lost
        shifted = up(shifted) if side > 0 else down(shifted)
        itself = np.eye(width, dtype=np.bool_)
        return np.where(itself, -total[..., None], slopes), shifted


def _of_groups(w: FloatArray, matrices: FloatArray) -> FloatArray:
    """Return w M for every group, (..., R, groups, width) and (..., R or 1, groups, width, width).

    Where the matrices are the same for all rows, those of a group go through one product.
    """
    if w.ndim > 2 and matrices.shape[-4] == 1:
        return np.asarray(np.swapaxes(np.matmul(np.swapaxes(w, -2, -3), matrices[..., 0, :, :, :]), -2, -3))
    return np.asarray(np.matmul(w[..., None, :], matrices)[..., 0, :])


def softmax(width: float) -> Softmax:
    """Return the softmax of every `width` neighbouring states."""
    return Softmax(int(width))
