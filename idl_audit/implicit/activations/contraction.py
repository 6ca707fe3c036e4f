"""Contractions: matrix products of states, (X, Y) -> X Y for every group: attention's scores and its weighted values.

A group holds the entries of X, (rows, inner), then those of Y, (inner, columns), and gives those of X Y, (rows,
columns), in its first places; where one side has fewer states than the other, it is filled up with zeros. Around the
centres of the intervals, X = Xc + dX and Y = Yc + dY,

    X Y = Xc Y + X Yc - Xc Yc + dX dY,   |dX dY| <= rX rY  entry by entry,

which are the planes of each product of two numbers with equal shares (docs/mathematics.md, section 6.8), but with one
state for each sum in place of one for each of its terms.

Elsewhere: bilinear matrix product, attention scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.activations.base import Activation
from idl_audit.implicit.activations.coupled import Coupled, Plane
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import TINY, UNDERFLOW, down, gamma, up


@dataclass(frozen=True, eq=False)
class Contraction(Coupled):
    """phi(X, Y) = X Y within every group."""

    rows: int
    inner: int
    columns: int
    name: str = "contraction"

    @property
    def width(self) -> int:  # type: ignore[override]
        """States of a group."""
        return max((self.rows + self.columns) * self.inner, self.rows * self.columns)

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """The sizes of the matrices."""
        return {"rows": float(self.rows), "inner": float(self.inner), "columns": float(self.columns)}

    @property
    def lipschitz(self) -> float | FloatArray:
        """No number: infinity."""
        return np.inf

    def factors(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return X and Y of every group, (..., groups, rows, inner) and (..., groups, inner, columns)."""
        groups = self.grouped(values)
        first, both = self.rows * self.inner, (self.rows + self.columns) * self.inner
        return (
            groups[..., :first].reshape(*groups.shape[:-1], self.rows, self.inner),
            groups[..., first:both].reshape(*groups.shape[:-1], self.inner, self.columns),
        )

    def results(self, values: FloatArray) -> FloatArray:
        """Return what stands for X Y in every group, (..., groups, rows, columns)."""
        groups = self.grouped(values)
        return groups[..., : self.rows * self.columns].reshape(*groups.shape[:-1], self.rows, self.columns)

    def _joined(self, *parts: FloatArray) -> FloatArray:
        """Return the entries of matrices one after the other in every group, filled up with zeros, (..., n)."""
        lead = parts[0].shape[:-2]
        flat = [part.reshape(*lead, -1) for part in parts]
        missing = self.width - sum(part.shape[-1] for part in flat)
        joined = np.concatenate([*flat, np.zeros((*lead, missing))], axis=-1)
        return joined.reshape(*lead[:-1], lead[-1] * self.width)

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return X Y for every group."""
        x, y = self.factors(z)
        return self._joined(np.matmul(x, y))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return zeros: no state of a group is a function of its own pre-activation alone."""
        return np.zeros_like(z)

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return (V Y^T, X^T V)."""
        (x, y), v = self.factors(z), self.results(v)
        return self._joined(np.matmul(v, np.swapaxes(y, -1, -2)), np.matmul(np.swapaxes(x, -1, -2), v))

    def spread(self, r: FloatArray) -> FloatArray:
        """Refuse: no number bounds the slope of a product everywhere."""
        raise UnsupportedModelError(
            (
                "a product of two matrices of states has no bounded slope over all inputs; over a box it has: ask for "
                "local sensitivity, or for certify, attack and bounds",
            )
        )

    def read_by(self, found: BoolArray) -> BoolArray:
        """Return the rows of X and the columns of Y that the states found are made of."""
        r = self.results(found.astype(np.float64))
        read = np.matmul(r, np.ones((self.columns, self.inner))), np.matmul(np.ones((self.inner, self.rows)), r)
        return np.asarray(self._joined(*read) > 0)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return zeros: no state of a group is a function of its own pre-activation alone."""
        zero = np.zeros(np.broadcast_shapes(lo.shape, hi.shape))
        return zero, zero

    def bends(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return which entries of X and Y move."""
        return np.asarray(hi > lo)

    def within(self, lo: FloatArray, hi: FloatArray) -> Activation:
        """Return the products of matrices that stay within [lo, hi]."""
        x, y = self.factors(np.maximum(np.abs(lo), np.abs(hi)))
        return BoundedContraction(self.rows, self.inner, self.columns, first=x, second=y)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return sums of the least and greatest products of ends, rounded outward."""
        (la, lb), (ha, hb) = self.factors(lo), self.factors(hi)
        least, most = np.zeros(()), np.zeros(())
        size = np.matmul(np.maximum(np.abs(la), np.abs(ha)), np.maximum(np.abs(lb), np.abs(hb)))
        with np.errstate(invalid="ignore", over="ignore"):
            for k in range(self.inner):
                ends = [a[..., :, k, None] * b[..., None, k, :] for a in (la, ha) for b in (lb, hb)]
                least = least + np.minimum(np.minimum(ends[0], ends[1]), np.minimum(ends[2], ends[3]))
                most = most + np.maximum(np.maximum(ends[0], ends[1]), np.maximum(ends[2], ends[3]))
            doubt = gamma(self.inner + 8) * size + TINY
            return self._joined(down(least - doubt)), self._joined(up(most + doubt))

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam = (V Yc^T, Xc^T V), Xc and Yc the centres; 0 where one is endless."""
        with np.errstate(invalid="ignore", over="ignore"):
            lam = self._of_centres(v, lo, hi)
        return np.where(np.isfinite(lam), lam, 0.0)

    def _of_centres(self, v: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        (x, y), v = self.factors(lo / 2 + hi / 2), self.results(v)
        return self._joined(np.matmul(v, np.swapaxes(y, -1, -2)), np.matmul(np.swapaxes(x, -1, -2), v))

    def planes(self, lo: FloatArray, hi: FloatArray) -> Iterator[Plane]:
        """Yield, for each entry of X Y, the means of the four planes of its products: what `lower_support` evaluates.

        X_i Yc_j + Xc_i Y_j - Xc_i Yc_j -+ rX_i rY_j; one at a time, as each holds a number for every state of a group.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            (x, y), (rx, ry) = self.factors(lo / 2 + hi / 2), self.factors(hi / 2 - lo / 2)
            centre, radius = np.matmul(x, y), np.matmul(rx, ry)
        for i, j in np.ndindex(self.rows, self.columns):
            slopes, both = self.grouped(np.zeros_like(lo)), (self.rows + self.columns) * self.inner
            slopes[:, i * self.inner : (i + 1) * self.inner] = y[:, :, j]
            slopes[:, self.rows * self.inner + j : both : self.columns] = x[:, i, :]
            for sign in (-1.0, 1.0):
                ends = sign * radius[:, i, j] - centre[:, i, j]
                yield Plane(i * self.columns + j, slopes, ends, is_lower=sign < 0)

    def read_alone(self) -> BoolArray:
        """Return the places of the entries of X and Y."""
        return np.asarray(np.arange(self.width) < (self.rows + self.columns) * self.inner)

    def plane_entries(self, size: int) -> int:
        """Return how many coefficients all planes of so many states have."""
        return 2 * (size // self.width) * self.rows * self.columns * (1 + 2 * self.inner)

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the planes' constant and the box's least value of what they leave of lam, as the first summand.

        V . X Y - lam . z >= (lam0 - lam) . z - V . Xc Yc - |V| . rX rY, lam0 the planes' multipliers.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            middle = lo / 2 + hi / 2
            (x, y), (rx, ry) = self.factors(middle), self.factors(up(np.maximum(hi - middle, middle - lo)))
            largest = np.maximum(np.abs(lo), np.abs(hi))
            (ax, ay), own, doubt = self.factors(largest), self.results(v), self.results(v_error)
            size = np.abs(own)
            rest = self._of_centres(v, lo, hi) - lam  # endless after an overflow, which proves nothing
            ends = self.grouped(np.minimum(rest * lo, rest * hi)).sum(axis=-1)
            centre, radius, reach = np.matmul(x, y), np.matmul(rx, ry), np.matmul(ax, ay)
            constant = (own * centre + size * radius).sum(axis=(-1, -2))
            # every step of this is one of few products of numbers that these bound
            whole = (size * reach).sum(axis=(-1, -2)) + self.grouped(np.abs(lam) * largest).sum(axis=-1)
            terms = 2 * (self.rows + self.columns + self.inner + self.width) + 64
            unsure = (doubt * reach).sum(axis=(-1, -2)) * (1 + gamma(terms)) + 8 * gamma(terms) * whole
            # V Yc^T and Xc^T V lose what underflows, and it is multiplied by z
            unsure = unsure + (self.rows + self.columns) * UNDERFLOW * self.grouped(largest).sum(axis=-1)
            least = ends - constant - unsure - TINY * (1 + size.sum(axis=(-1, -2)) + doubt.sum(axis=(-1, -2)))
        return self.as_first_summands(least)


@dataclass(frozen=True, eq=False)
class BoundedContraction(Contraction):
    """Matrix products of factors that are bounded, entry by entry: |X| <= first, |Y| <= second."""

    first: FloatArray = field(default_factory=lambda: np.zeros(0))
    second: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def lipschitz(self) -> FloatArray:
        """The largest l_inf slope of each state."""
        sums = self.second.sum(axis=-2)[..., None, :] + self.first.sum(axis=-1)[..., :, None]
        return self._joined(sums * (1 + gamma(2 * self.inner + 4)))

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r: |d(XY)| <= |dX| second + first |dY|."""
        r = self.results(r)
        pulled = np.matmul(r, np.swapaxes(self.second, -1, -2)), np.matmul(np.swapaxes(self.first, -1, -2), r)
        return self._joined(*pulled) * (1 + gamma(self.rows + self.columns + 4))

    def moved(self, e: FloatArray) -> FloatArray:
        """Return Gamma e: |d(XY)| <= |dX| second + first |dY|."""
        x, y = self.factors(e)
        total = np.matmul(x, self.second) + np.matmul(self.first, y)
        return self._joined(total * (1 + gamma(2 * self.inner + 4)))


def contraction(rows: float, inner: float, columns: float) -> Contraction:
    """Return the products of (rows, inner) and (inner, columns) matrices."""
    return Contraction(int(rows), int(inner), int(columns))
