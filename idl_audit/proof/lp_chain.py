"""Proofs by a tree of LPs, in the form in which they are checked again: a box of states, leaves, multipliers.

For each functional of y that must be positive there are leaves, phases of some states and one vector of multipliers
each. A leaf is proved by the certificate over the polygons that its phases leave, whether its LP had a solution or not:
where a ray lam shows p(lam; 0, 0) > 0, a large multiple of it proves any bound. The box is what the search used; it is
proved anew by the same ladder of state bounds, which must come out within it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import leaves_at_once, repeated, with_phases
from idl_audit.proof.cover import LeafPhases, Phases
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers
from idl_audit.proof.sensitivity_witness import ProofWitness, loop_witnesses, why_not_well_posed
from idl_audit.values.arrays import Float32Array, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked

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
    """Of the alternative's rows and sums of rows, that which is proved."""

    def some(self, rows: IntArray) -> LpLeaves:
        """Return some of the leaves."""
        return self if rows.size == len(self.phases) else LpLeaves(self.phases[rows], self.multipliers[rows], self.row)


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
        z[k] = Interval(np.nextafter(known.lo - reach, -np.inf), np.nextafter(known.hi + reach, np.inf))
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
        boxes = repeated(inputs, len(leaves.phases[rows]))
        found.append(lower_bound(model, boxes, here, seeds, choose, check=check)[:, 0])
    return np.concatenate(found) if found else np.zeros(0)


def line_leaf(model: ImplicitModel, inputs: Interval, bounds: StateBounds, functional: FloatArray) -> LpLeaves:
    """Return the only leaf of a tree without splits: the multipliers of the backward linear bound."""
    choose, chosen = line_multipliers(model, bounds), np.zeros((1, model.n_states), np.float32)

    def recorded(k: int, v: FloatArray) -> FloatArray:
        lam = choose(k, v)
        chosen[0, model.offsets[k] : model.offsets[k + 1]] = lam[0, 0]
        return lam

    lower_bound(model, inputs, bounds, Functionals.of_outputs(model, functional[None]), recorded)
    return LpLeaves(np.zeros((1, model.n_states), np.int8), chosen)


def complete(model: ImplicitModel, inputs: Interval, functionals: FloatArray, chain: LpChain) -> None:
    """Add what a chain lacks and closed forms provide: loops' proofs, the box, leaves of the backward linear bounds."""
    there = without_self_feedback(model)
    chain.proofs |= loop_witnesses(model)
    if not chain.z:
        chain.z |= widened(backward_state_bounds(there, inputs)).z
    bounds = StateBounds(dict(chain.z))
    for number, functional in enumerate(functionals):
        if number not in chain.trees:
            chain.trees[number] = line_leaf(there, inputs, bounds, functional)


def check_lp_chain(model: ImplicitModel, inputs: Interval, functionals: FloatArray, chain: LpChain) -> list[str]:
    """Return why a chain does not prove functionals . y > 0, (R, q), over one box; empty where it does."""
    if (chain.proofs.keys() - model.loops.keys()) or (chain.trees.keys() - set(range(len(functionals)))):
        return ["it speaks of loops or alternatives that there are not"]
    open_loops = [why for k in model.loops if (why := why_not_well_posed(model, k, chain.proofs.get(k)))]
    if open_loops:
        return [f"nothing proves that the model has one state for every input: {open_loops[0]}"]
    there = without_self_feedback(model)
    proved = backward_state_bounds(there, inputs)
    outside = _outside(there, proved, chain.z)
    if outside:
        return [outside]
    bounds = StateBounds(dict(chain.z))
    refused = []
    for number, functional in enumerate(functionals):
        why = _why_open(there, inputs, bounds, functional, chain.trees.get(number))
        if why:
            refused.append(f"alternative {number}: {why}")
    return refused


def _outside(model: ImplicitModel, proved: StateBounds, claimed: Mapping[int, Interval]) -> str:
    """Say where the bounds that can be proved leave the claimed box, or what keeps it from being one."""
    if claimed.keys() - set(range(len(model.blocks))):
        return "it has a box for a block that the model does not have"
    for k, block in enumerate(model.blocks):
        if k not in claimed or claimed[k].lo.shape != (1, block.size) or claimed[k].hi.shape != (1, block.size):
            return f"it has no box for the states of '{block.name}'"
        inside = (claimed[k].lo <= proved.z[k].lo) & (proved.z[k].hi <= claimed[k].hi)  # NaN lies nowhere
        if not inside.all():
            return f"its box of the states of '{block.name}' is smaller than what can be proved"
    return ""


def _why_open(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, functional: FloatArray, leaves: LpLeaves | None
) -> str:
    if leaves is None or leaves.phases.shape != leaves.multipliers.shape or leaves.phases.ndim != 2:
        return "the chain has no leaves for it"
    if leaves.phases.shape[1] != model.n_states or leaves.phases.dtype != np.int8:
        return "its phases do not fit the model"
    if not (np.abs(leaves.phases) <= 1).all():
        return "its phases are no signs"
    found = LeafPhases.of([(0, 0, leaves.phases)], len(leaves.phases))
    needed = None if found is None else found.covering(np.arange(len(leaves.phases)))
    if needed is None:
        return "its leaves do not cover the box"
    lower = prove_leaves(model, inputs, bounds, functional, leaves.some(needed))
    if not (lower > 0).all():
        return f"a leaf has the lower bound {float(np.nanmin(lower)):.3g}"
    return ""
