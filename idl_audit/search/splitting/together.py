"""Boxes refuted by several rows together: weights of the rows, box by box, from their linear lower bounds.

Over a box with centre m and radii r, rows have linear lower bounds w_r . u + c_r. For weights mu >= 0 that sum to 1

    sum_r mu_r row_r  >=  D(mu) = sum_r mu_r (w_r . m + c_r) - |sum_r mu_r w_r| . r,

a concave function of mu. It is raised towards one row after the other, by the best of some steps; where it gets above 0
the sum itself is bounded anew, and that bound alone counts (docs/mathematics.md, section 8.8).

Elsewhere: Lagrangian of the output constraints, cutting planes over the input box.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, RowBounds
from idl_audit.proof.intervals import affine_interval
from idl_audit.proof.proof import Refused
from idl_audit.proof.rows import Rows
from idl_audit.proof.sums import Sum, per_weight, weighable
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.query import Query
from idl_audit.values.rounding import down

ROUNDS = 5
STEPS = np.array([0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0])
"""Of the way to a row alone."""
MOST_ROWS = 64
"""Rows of an alternative up to which boxes weigh them; sums of more would cost more than they gain."""


@dataclass(frozen=True, eq=False)
class Weighed:
    """Weights of the rows of one alternative over some boxes."""

    alternative: int
    boxes: IntArray
    weights: FloatArray
    """(m, r), float32 numbers."""
    value: FloatArray
    """(m,): what the sums are about above."""


class Weighing:
    """The rows of a query's alternatives that boxes may weigh."""

    def __init__(self, query: Query, rows: Rows) -> None:
        """Take the alternatives with several rows, all of whose numbers are finite."""
        self._alternatives = query.alternatives
        self._firsts = [int(members.min(initial=0)) for members in rows.members]
        self._several = [a for a, own in enumerate(query.alternatives) if len(own.rows) <= MOST_ROWS and weighable(own)]

    @property
    def has_several(self) -> bool:
        """Whether any alternative has several rows."""
        return bool(self._several)

    def weighed(self, inputs: Interval, bounds: RowBounds, shifted: FloatArray, is_open: BoolArray) -> list[Weighed]:
        """Return for each such alternative the boxes where it is open, the best weights there, and D of these."""
        found = []
        for a in self._several:
            boxes = np.flatnonzero(is_open[:, a])
            if boxes.size:
                rows = slice(self._firsts[a], self._firsts[a] + len(self._alternatives[a].rows))
                radii = (inputs.hi / 2 - inputs.lo / 2)[boxes]
                with np.errstate(all="ignore"):
                    slopes = bounds.normals[boxes, rows] * radii[:, None]
                    weights, value = raised(shifted[boxes, rows], slopes)
                found.append(Weighed(a, boxes, weights, value))
        return found

    def closed(
        self, found: BoxBounds, bounds: RowBounds, shifted: FloatArray, is_open: BoolArray
    ) -> tuple[dict[int, Float32Array], FloatArray]:
        """Return the boxes all of whose open alternatives are refuted so, each with the weights of all rows in order.

        The second are what one row of each alternative is proved to be above, (m, a); -inf where nothing is.
        """
        lower, weights = np.full(is_open.shape, -np.inf), dict[int, Float32Array]()
        for own in self.weighed(found.inputs, bounds, shifted, is_open):
            above = lower[own.boxes, own.alternative] = self.proved(found, own)
            for i in np.flatnonzero(above > 0):
                box, more = int(own.boxes[i]), self.in_order(own.alternative, own.weights[i])
                weights[box] = weights[box] + more if box in weights else more
        left = set(np.nonzero(is_open & ~(lower > 0))[0].tolist())
        return {box: own for box, own in weights.items() if box not in left}, lower

    def proved(self, found: BoxBounds, own: Weighed) -> FloatArray:
        """Return what one row at least is proved to be above in each box, (m,): above 0, none has a counterexample.

        The sum is at most the greatest row times the sum of the weights.
        """
        lower = np.full(own.boxes.size, -np.inf)
        some = np.flatnonzero(own.value > 0)
        if not some.size:
            return lower
        alternative = self._alternatives[own.alternative]
        try:
            sums = [Sum.of(alternative, weights) for weights in own.weights[some]]
        except Refused:
            return lower
        largest = cache(lambda: affine_interval(found.model.output, found.states.x, found.inputs).largest.max(axis=0))
        shifts = np.array([one.shift(largest) for one in sums])
        seeds = np.stack([one.seed for one in sums])[:, None]
        bound = down(found.own_outputs(own.boxes[some], seeds)[:, 0] + shifts)
        lower[some] = per_weight(bound, own.weights[some])
        return lower

    def in_order(self, alternative: int, weights: FloatArray) -> Float32Array:
        """Return weights of one alternative's rows as those of all rows, in order."""
        parts = [np.zeros(len(one.rows), np.float32) for one in self._alternatives]
        parts[alternative] = weights.astype(np.float32)
        return np.concatenate(parts)


def raised(lower: FloatArray, slopes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return weights mu, (m, r), and D(mu), (m,).

    Args:
        lower: the least value of each row's linear bound over each box, (m, r).
        slopes: its coefficients times the radii, (m, r, p).
    """
    middle = np.nan_to_num(lower + np.abs(slopes).sum(axis=2), nan=-np.inf)
    m, count = lower.shape
    mu = np.zeros_like(lower)
    mu[np.arange(m), np.nan_to_num(lower, nan=-np.inf).argmax(axis=1)] = 1.0
    value = np.nan_to_num(lower.max(axis=1), nan=-np.inf)
    for _ in range(ROUNDS):
        at, tilt = (mu * middle).sum(axis=1), np.einsum("mr,mrp->mp", mu, slopes)
        step = STEPS[None, None, :, None]
        tilts = tilt[:, None, None] * (1 - step) + slopes[:, :, None] * step  # (m, r, steps, p)
        values = at[:, None, None] * (1 - STEPS) + middle[:, :, None] * STEPS - np.abs(tilts).sum(axis=3)
        flat = np.nan_to_num(values.reshape(m, -1), nan=-np.inf)
        best = flat.argmax(axis=1)
        gained = flat[np.arange(m), best] > value
        if not gained.any():
            break
        row, size = best // STEPS.size, STEPS[best % STEPS.size]
        towards = mu * (1 - size[:, None]) + size[:, None] * (np.arange(count) == row[:, None])
        mu = np.where(gained[:, None], towards, mu)
        value = np.where(gained, flat[np.arange(m), best], value)
    mu = mu.astype(np.float32).astype(np.float64)
    return mu, value
