"""Proofs by a tree of LPs, in the form in which they are checked again: a box of states, leaves, multipliers.

For each functional of y that must be positive there are leaves, phases of some states and one vector of multipliers
each. A leaf is proved by the certificate over the polygons that its phases leave, whether its LP had a solution or not:
where a ray lam shows p(lam; 0, 0) > 0, a large multiple of it proves any bound. The box is what the search used; it is
proved anew by the same ladder of state bounds, which must come out within it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import leaves_at_once, with_phases
from idl_audit.proof.cover import Phases
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.sensitivity_witness import ProofWitness
from idl_audit.values.arrays import Float32Array, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.rounding import down, up

WIDER = 1e-9
"""The box of a chain is wider than the proved one by this share, so that another machine's rounding stays inside."""
LEAVES_AT_ONCE = 256


@dataclass(eq=False)
class LpLeaves:
    """The leaves of one functional's tree."""

    phases: Phases
    """(m, n): +1 where z >= 0, -1 where z <= 0, 0 where both; states in the flat order."""
    multipliers: Float32Array
    """(m, n)."""
    row: int = 0
    """Which row of its alternative, or sum of rows (`proof.rows.groups`), they bound."""
    weights: Float32Array | None = None
    """(m, r): each leaf's own weights of the alternative's rows, in place of one row for all."""

    def some(self, rows: IntArray) -> LpLeaves:
        """Return some of the leaves."""
        if rows.size == len(self.phases):
            return self
        own = None if self.weights is None else self.weights[rows]
        return LpLeaves(self.phases[rows], self.multipliers[rows], self.row, own)


@dataclass(eq=False)
class LpChain:
    """What proves that some functionals of y are positive over a box, beside the model and the box."""

    z: dict[int, Interval] = field(default_factory=dict)
    """Block -> bounds of z, (1, n_k): the box that the leaves speak of."""
    trees: dict[int, LpLeaves] = field(default_factory=dict)
    """Number of the functional -> its leaves."""
    proofs: dict[int, ProofWitness] = field(default_factory=dict)
    """Block -> why its loop has one state for every input."""


def widened(bounds: StateBounds) -> StateBounds:
    """Return bounds of z that are wider by 1e-9 of their size, and only those."""
    z = {}
    for k, known in bounds.z.items():
        reach = WIDER * (1e-3 + known.largest)
        z[k] = Interval(down(known.lo - reach), up(known.hi + reach))
    return StateBounds(z)


def given(model: ImplicitModel, multipliers: FloatArray | Float32Array) -> Multipliers:
    """Return multipliers of m leaves, (m, n) in the flat order, block by block."""
    offsets, values = model.offsets, multipliers.astype(np.float64)

    def choose(k: int, v: FloatArray) -> FloatArray:
        return np.broadcast_to(values[:, None, offsets[k] : offsets[k + 1]], v.shape)

    return choose


def leaf_bounds(model: ImplicitModel, bounds: StateBounds, phases: Phases) -> StateBounds:
    """Return the bounds of z in leaves of one box, from phases of all states in the flat order, (m, n)."""
    parts = {k: phases[:, model.offsets[k] : model.offsets[k + 1]] for k in range(len(model.blocks))}
    return with_phases(model, bounds, parts, len(phases))


def prove_leaves(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    functional: FloatArray,
    leaves: LpLeaves,
    *,
    check: Check = unchecked,
) -> FloatArray:
    """Return a proved lower bound of functional . y in every leaf, shape (m,)."""
    found = []
    at_once = min(LEAVES_AT_ONCE, leaves_at_once(model))
    for start in range(0, len(leaves.phases), at_once):
        rows = slice(start, start + at_once)
        here = leaf_bounds(model, bounds, leaves.phases[rows])
        choose = given(model, leaves.multipliers[rows])
        seeds = Functionals.of_outputs(model, functional[None])
        boxes = inputs.repeated(len(leaves.phases[rows]))
        found.append(lower_bound(model, boxes, here, seeds, choose, check=check)[:, 0])
    return np.concatenate(found) if found else np.zeros(0)
