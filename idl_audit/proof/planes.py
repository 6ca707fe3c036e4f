"""Upper planes: states of a convex kink bounded from above by a plane over the box of the inputs, not by their chord.

The chord over [l, h] forgets where in the box z = w.u + b comes from: it allows x = phi(z) to be large at points u
where z is as low as it gets for that z. For any numbers r (one for each input; r in [0, 1] is where the good ones lie)

    phi(w.u + b) <= a.u + c(a),   a = (below + r (above - below)) w,
    c(a) = max over slopes s in (below, above) of max over the box of (s w - a).u + s b,

since phi(z) = max(below z, above z): two linear functions, each maximised over the box in closed form. With r the
chord's slope throughout this is the chord; over all r it is the upper side of the hull of {(u, phi(w.u + b))}, which
for ReLU has exponentially many facets (Anderson et al., *Strong mixed-integer programming formulations for trained
neural networks*). See docs/mathematics.md, section 7.6.

A functional that holds v x with v < 0 then has v x >= v a.u + v c: the plane's coefficients go to the inputs.

Elsewhere: beyond the triangle, multi-neuron, hull constraints, PRIMA, Anderson's facets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.composition import SMALL, least_entry
from idl_audit.implicit.linear_maps import LinearMap, Reindexed
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.values.arrays import BoolArray, ByteArray, FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma

PARTS = 255
"""Shares are whole numbers of such parts: a byte each, in memory and in certificates."""


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes for some states of one block."""

    states: IntArray
    """(t,), ascending."""
    shares: ByteArray
    """r in 255ths: (m, t, q) in the order of `Reads`, for m boxes that differ in nothing but the phases of states."""

    def rows(self, rows: slice | IntArray) -> Planes:
        """Return the planes of some of the m."""
        return Planes(self.states, self.shares[rows])


AllPlanes = Mapping[int, Planes]
"""Block -> planes of its states."""


@dataclass(frozen=True, eq=False)
class Reads:
    """What some states read of the inputs that move: q is the greatest number that one of them reads."""

    index: IntArray
    """Numbers of inputs, (t, q); ascending in a row, which ends in zeros where the state reads fewer."""
    weights: FloatArray
    """(t, q); 0 where the state reads fewer."""
    at_rest: FloatArray
    """What the inputs that do not move, and the constant, add to z; (t,)."""
    error: FloatArray
    """Bound on |z - weights.u - at_rest|, over the box, for what rounding did to weights and sums; (t,)."""

    @classmethod
    def of(cls, model: ImplicitModel, k: int, states: IntArray, inputs: Interval) -> Reads:
        """Read the rows of some states of a block that `can_have_planes`, over the box that is first in `inputs`."""
        row = model.rows[k]
        assert row.input is not None
        moves = inputs.lo[0] < inputs.hi[0]
        matrix = _matrix(row.input)[states]
        resting = matrix[:, ~moves]
        at_rest = row.constant[states] + resting @ inputs.lo[0, ~moves]
        magnitude = np.abs(row.constant[states]) + abs(resting) @ np.abs(inputs.lo[0, ~moves])
        error = _uncertain_rows(row.input, inputs.largest[:1])[states] + row.constant_error
        error = (error + gamma(resting.shape[1] + 8) * magnitude) * (1 + gamma(8)) + TINY
        reading = sp.csr_array(matrix[:, moves])
        counts = np.diff(reading.indptr)
        place = np.arange(counts.max(initial=1)) < counts[:, None]
        index, weights = np.zeros(place.shape, np.int64), np.zeros(place.shape)
        index[place], weights[place] = np.flatnonzero(moves)[reading.indices], reading.data
        return cls(index, weights, at_rest, error)


def can_have_planes(model: ImplicitModel, k: int) -> bool:
    """Return whether the states of block k read the inputs alone and bend upward at 0."""
    row, phi = model.rows[k], model.blocks[k].activation
    if row.states or row.input is None or not isinstance(phi, Kinked):
        return False
    if isinstance(row.input, Reindexed) and least_entry(row.input) < SMALL:  # entries of its CSR form may underflow
        return False
    return bool((np.asarray(phi.above) >= np.asarray(phi.below)).all())


def slopes_of(model: ImplicitModel, k: int, states: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the slopes of some states of a block that `can_have_planes`, below 0 and above: (t,)."""
    phi = model.blocks[k].activation
    assert isinstance(phi, Kinked)
    size = model.blocks[k].size
    below, above = (np.broadcast_to(np.asarray(side, np.float64), size)[states] for side in (phi.below, phi.above))
    return below, above


def why_no_planes(model: ImplicitModel, inputs: Interval, m: int, planes: AllPlanes) -> str:
    """Return what keeps planes from being choices for m leaves of one box; empty where nothing does."""
    for k, own in planes.items():
        if not 0 <= k < len(model.blocks) or not can_have_planes(model, k):
            return f"planes for block {k}, whose states have none"
        states = own.states
        within = (states >= 0) & (states < model.blocks[k].size)
        if states.ndim != 1 or not (np.diff(states) > 0).all() or not within.all():
            return f"planes for states that block {k} does not have"
        if (
            own.shares.dtype != np.uint8
            or own.shares.ndim != 3
            or own.shares.shape[:2] != (m, states.size)
            or own.shares.shape[2] > model.n_inputs
        ):
            return f"planes of another shape for block {k}"
        if own.shares.shape[2] != Reads.of(model, k, states, inputs).index.shape[1]:
            return f"planes of another shape for block {k}"
    return ""


class PlaneSupport:
    """What the planes of one block add to a backward pass: proved summands, and coefficients of the inputs."""

    def __init__(self, model: ImplicitModel, k: int, inputs: Interval, planes: Planes) -> None:
        """Take the rows of the states; `inputs` are the boxes, (m, p), all with the same ends."""
        if not ((inputs.lo == inputs.lo[:1]) & (inputs.hi == inputs.hi[:1])).all():
            raise ValueError("planes are for leaves of one box")
        self.planes = planes
        self._reads = Reads.of(model, k, planes.states, inputs)
        self._lo, self._hi = inputs.lo[0, self._reads.index], inputs.hi[0, self._reads.index]
        self._slopes = slopes_of(model, k, planes.states)
        flat = self._reads.index.reshape(-1)
        ones, columns = np.ones(flat.size), np.arange(flat.size)
        self._to_inputs = sp.csr_array((ones, (columns, flat)), shape=(flat.size, inputs.lo.shape[1]))
        self._terms = int(np.bincount(flat, minlength=1).max())

    def without(self, lam: FloatArray, v: FloatArray, z: Interval) -> tuple[FloatArray, BoolArray]:
        """Return multipliers that are 0 where a plane takes their place, and where that is.

        A plane helps where the functional wants x large and x bends.

        Args:
            lam, v: multipliers, and coefficients of the states, (m, R, n).
            z: bounds of z, (m, n).

        Returns:
            The multipliers; which of the states with planes use them, (m, R, t).
        """
        states = self.planes.states
        on = (v[..., states] < 0) & ((z.lo < 0) & (z.hi > 0))[:, None, states]
        lam = np.array(lam)
        lam[..., states] = np.where(on, 0.0, lam[..., states])
        return lam, on

    def replace(
        self, summands: FloatArray, v: FloatArray, v_error: FloatArray, on: BoolArray, z: Interval
    ) -> tuple[FloatArray, FloatArray]:
        """Put what planes prove in place of lower bounds of v x in `summands`, (m, R, n).

        Returns:
            The coefficients that go to the inputs, (m, R, p), and a bound on their rounding errors.
        """
        states = self.planes.states
        least, total, error = self.lower(v[..., states], v_error[..., states], on, z.largest[:, None, states])
        summands[..., states] = np.where(on, least, summands[..., states])
        return total, error

    def lower(
        self, v: FloatArray, v_error: FloatArray, on: BoolArray, largest: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return proved lower bounds of v' x - g.u over the box, |v' - v| <= v_error, and the sum of all g.

        Args:
            v, v_error: (m, R, t).
            on: which states take part, (m, R, t).
            largest: of |z|, (m, 1, t).

        Returns:
            The bounds, (m, R, t), 0 where a state takes no part; the sum of g over the states, (m, R, p); and a bound
            on what rounding did to the sum.
        """
        m, n_rows, _ = v.shape
        below, above = self._slopes
        weights, at_rest = self._reads.weights, self._reads.at_rest
        v = np.where(on, v, 0.0)
        shares = self.planes.shares[:, None] / float(PARTS)
        tilt = v[..., None] * ((below[:, None] + shares * (above - below)[:, None]) * weights)
        least = np.full(v.shape, np.inf)
        terms = weights.shape[1] + 8
        reach = np.maximum(np.abs(self._lo), np.abs(self._hi))
        for slope in self._slopes:
            scaled = v * slope
            pulled = scaled[..., None] * weights
            rest = pulled - tilt
            ends = np.where(rest >= 0, rest * self._lo, rest * self._hi)
            # a weight may be a product of three (`Reindexed`); what underflows in `pulled` is multiplied by the inputs
            lost = gamma(8) * ((np.abs(pulled) + np.abs(tilt)) * reach).sum(axis=-1) + TINY * reach.sum(axis=-1)
            lost += gamma(terms) * (np.abs(ends).sum(axis=-1) + np.abs(scaled * at_rest))
            own = ends.sum(axis=-1) + scaled * at_rest
            least = np.minimum(least, own - lost * (1 + gamma(terms + 8)))
        steep = np.maximum(np.abs(below), np.abs(above))
        doubt = (v_error * largest + np.abs(v) * self._reads.error) * steep * (1 + gamma(8)) + TINY * (1 + largest)
        least = np.where(on, least - doubt - gamma(4) * (np.abs(least) + doubt), 0.0)
        flat = np.reshape(tilt, (m * n_rows, -1))
        total, magnitude = (np.reshape(part @ self._to_inputs, (m, n_rows, -1)) for part in (flat, np.abs(flat)))
        return least, total, gamma(self._terms + 4) * magnitude * (1 + gamma(self._terms + 8)) + TINY


@lru_cache(maxsize=4)
def _matrix(linear_map: LinearMap) -> sp.csr_array:
    return linear_map.to_sparse()


def _uncertain_rows(linear_map: LinearMap, largest: FloatArray) -> FloatArray:
    """Return a bound of |(W_true - W) u| over |u| <= largest, (1, p), for each row: (n_out,)."""
    result = np.zeros(linear_map.n_out)
    largest = largest * (1 + gamma(4))
    if linear_map.relative:
        result = linear_map.relative * linear_map.magnitude.apply(largest)[0] * (1 + gamma(linear_map.row_terms + 4))
    if linear_map.slack is not None:
        result = result + linear_map.slack.apply(largest)[0] * (1 + gamma(linear_map.slack.row_terms + 4))
    return result
