"""Chains: what a search chose, in the order in which it must be evaluated again to prove the same.

See docs/mathematics.md, sections 7.8 and 8.1.

A chain holds no bound, only choices: slopes for the bounds of hidden states, block after block, and for each
alternative of the query the leaves of a tree with their phases, slopes and split multipliers. `check_chain` evaluates
it with the certificate alone, in float64 with outward rounding: no search, no solver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.analysis.branching.proof import prove_leaves, prove_states
from idl_audit.analysis.branching.restriction import is_dead_elsewhere, restricted, restricted_bounds
from idl_audit.analysis.intervals import with_interval
from idl_audit.analysis.linear_bounds import tightened_by_lines
from idl_audit.analysis.planes import Planes, why_no_planes
from idl_audit.analysis.query import Conjunction, Query
from idl_audit.arrays import Float32Array, FloatArray, IntArray
from idl_audit.budget import Check, unchecked
from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.model import ImplicitModel, StateBlock

Phases = npt.NDArray[np.int8]


@dataclass(eq=False)
class StateStep:
    """Slopes for the bounds of some states of a block, from one side."""

    block: int
    states: IntArray
    sign: float
    slopes: dict[int, Float32Array]
    """Block -> (R, n)."""


@dataclass(eq=False)
class StateTrees:
    """Leaves for the bounds of some states of a block: objective j is signs[j] * z of states[j]."""

    block: int
    states: IntArray
    signs: FloatArray
    owner: IntArray
    """The objective of each leaf."""
    phases: dict[int, Phases]
    """Block -> (leaves, n)."""
    slopes: dict[int, Float32Array]
    multipliers: dict[int, Float32Array]
    planes: dict[int, Planes] = field(default_factory=dict)


@dataclass(eq=False)
class Leaves:
    """Leaves whose phases cover the box, for one row of one alternative; arrays with one row a leaf."""

    row: int
    phases: list[dict[int, Phases]] = field(default_factory=list)
    """Batches: block -> (m, n)."""
    slopes: list[dict[int, Float32Array]] = field(default_factory=list)
    multipliers: list[dict[int, Float32Array]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """m of each batch."""
    planes: list[dict[int, Planes]] = field(default_factory=list)
    after: int = 0
    """Rounds whose bounds the leaves rely on."""


@dataclass(eq=False)
class Chain:
    """Everything that the proof of a query needs beside the model and the query."""

    steps: list[StateStep] = field(default_factory=list)
    kept: dict[int, IntArray] = field(default_factory=dict)
    """Block -> the states that are not dead by the bounds of `steps`; all that follows speaks of these alone."""
    rounds: list[list[StateTrees]] = field(default_factory=list)
    """Each goes through the blocks once, oldest first, and starts from the bounds of the one before it."""
    trees: dict[int, Leaves] = field(default_factory=dict)
    """Alternative -> its leaves."""


def checked_bounds(model: ImplicitModel, inputs: Interval, steps: list[StateStep]) -> StateBounds:
    """Return the bounds of all states that intervals, backward lines and the recorded slopes prove over one box."""
    bounds = StateBounds()
    for k in model.evaluation_order:
        block = model.blocks[k]
        bounds = retightened(model, k, bounds, None, inputs)
        own = [step for step in steps if step.block == k and step.sign in (1.0, -1.0)]
        if own and model.rows[k].states:
            z = bounds.z[k]
            for step in own:
                proved = prove_states(model, inputs, bounds, k, step.states, step.sign, step.slopes)
                z = z.tightened(step.states, step.sign, proved)
            bounds = bounds.with_block(k, block, z, bounds.x[k])
    return bounds


def retightened(
    model: ImplicitModel,
    k: int,
    bounds: StateBounds,
    known: StateBounds | None,
    inputs: Interval,
    *,
    check: Check = unchecked,
) -> StateBounds:
    """Return bounds with block k's put in: its interval and its backward lines, intersected with what is known."""
    block = model.blocks[k]
    bounds = with_interval(model, k, bounds, inputs, check=check)
    if known is not None:
        bounds = bounds.with_block(k, block, bounds.z[k].intersected(known.z[k]), bounds.x[k].intersected(known.x[k]))
    if model.rows[k].states:  # else an affine map of the box: the interval is exact
        bending = np.flatnonzero(bounds.unstable(k, block).any(axis=0))
        if bending.size:
            found = tightened_by_lines(model, k, bending, bounds, inputs, check=check)
            bounds = bounds.with_block(k, block, found, bounds.x[k])
    return bounds


LEAVES_AT_ONCE = 4096


def proved_by_trees(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, trees: StateTrees, *, check: Check = unchecked
) -> Interval:
    """Return the bounds of z of a block that the leaves prove over one box; `bounds` hold all blocks up to it.

    The bound of an objective is that of its worst leaf; its leaves must cover the box (`why_no_trees`).
    """
    k = trees.block
    worst = np.full(trees.states.size, np.inf)
    for start in range(0, trees.owner.size, LEAVES_AT_ONCE):
        rows = slice(start, start + LEAVES_AT_ONCE)
        owner = trees.owner[rows]
        m = owner.size
        seeds = np.zeros((m, model.blocks[k].size))
        seeds[np.arange(m), trees.states[owner]] = trees.signs[owner]
        here = {
            name: {j: value[rows] for j, value in values.items()}
            for name, values in (("slopes", trees.slopes), ("multipliers", trees.multipliers))
        }
        leaves = with_phases(model, bounds, {j: value[rows] for j, value in trees.phases.items()}, m)
        proved = prove_leaves(
            model,
            repeated(inputs, m),
            leaves,
            seeds,
            here["slopes"],
            here["multipliers"],
            block=k,
            planes={j: own.rows(rows) for j, own in trees.planes.items()},
            check=check,
        )
        np.minimum.at(worst, owner, np.where(np.isnan(proved), -np.inf, proved))
    return bounds.z[k].tightened(trees.states, trees.signs, worst)


def why_no_trees(model: ImplicitModel, inputs: Interval, trees: StateTrees) -> str:
    """Return what keeps leaves of hidden states from being a proof; empty where nothing does."""
    k, m = trees.block, trees.owner.size
    if not 0 <= k < len(model.blocks) or not np.isin(trees.signs, (1.0, -1.0)).all():
        return "a tree of states without block or sign"
    if trees.states.shape != trees.signs.shape or not _are_numbers(trees.states, model.blocks[k].size):
        return "a tree of states that the block does not have"
    if not _are_numbers(trees.owner, trees.states.size):
        return "leaves of no tree"
    if any(phases.dtype != np.int8 or len(phases) != m for phases in trees.phases.values()):
        return "phases that are no signs"
    if any(j <= k for values in (trees.phases, trees.slopes, trees.multipliers, trees.planes) for j in values):
        return "a tree of states that depends on later blocks"
    why = why_no_planes(model, inputs, m, trees.planes)
    if why:
        return why
    whole = np.concatenate([np.zeros((m, 0), np.int8), *trees.phases.values()], axis=1)
    for objective in range(trees.states.size):
        if not covers(whole[trees.owner == objective]):
            return f"the leaves of state {trees.states[objective]} of block {k} do not cover the box"
    return ""


def _are_numbers(values: IntArray, limit: int) -> bool:
    return values.ndim == 1 and bool(((values >= 0) & (values < limit)).all())


def check_chain(model: ImplicitModel, query: Query, chain: Chain) -> list[str]:
    """Return why a chain does not prove that no point of the box satisfies an alternative; empty where it does."""
    inputs = Interval.of_boxes(query.box)
    bounds = checked_bounds(model, inputs, chain.steps)
    if not is_dead_elsewhere(model, bounds, chain.kept):
        return ["it leaves out states that are not proved dead"]
    model = restricted(model, chain.kept)
    stages = [restricted_bounds(bounds, chain.kept)]
    for trees in chain.rounds:
        known, bounds = stages[-1], StateBounds()
        for k in model.evaluation_order:
            bounds = retightened(model, k, bounds, known, inputs)
            for own in (tree for tree in trees if tree.block == k):
                why = why_no_trees(model, inputs, own)
                if why:
                    return [why]
                found = proved_by_trees(model, inputs, bounds, own)
                bounds = bounds.with_block(k, model.blocks[k], found, bounds.x[k])
        stages.append(bounds)
    refused = []
    for number, alternative in enumerate(query.alternatives):
        leaves = chain.trees.get(number)
        if leaves is not None and not 0 <= leaves.after < len(stages):
            refused.append(f"alternative {number}: it relies on a round that the chain does not have")
            continue
        why = _why_open(model, inputs, stages[leaves.after if leaves else 0], alternative, leaves)
        if why:
            refused.append(f"alternative {number}: {why}")
    return refused


def _why_open(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, alternative: Conjunction, leaves: Leaves | None
) -> str:
    if leaves is None or not 0 <= leaves.row < len(alternative.rows):
        return "the chain has no leaves for it"
    if not covers(all_phases(model, leaves)):
        return "its leaves do not cover the box"
    seed, offset = alternative.rows[leaves.row], float(alternative.offsets[leaves.row])
    if any(array.dtype != np.int8 for phases in leaves.phases for array in phases.values()):
        return "its phases are no signs"
    batches = zip(leaves.phases, leaves.slopes, leaves.multipliers, leaves.planes, leaves.sizes, strict=True)
    for phases, slopes, multipliers, planes, m in batches:
        why = why_no_planes(model, inputs, m, planes)
        if why:
            return why
        proved = prove_leaves(
            model,
            repeated(inputs, m),
            with_phases(model, bounds, phases, m),
            np.tile(seed, (m, 1)),
            slopes,
            multipliers,
            planes=planes,
        )
        lower = np.nextafter(proved + offset, -np.inf)
        if not (lower > 0).all():
            return f"a leaf has the lower bound {float(np.nanmin(lower)):.3g}"
    return ""


def repeated(inputs: Interval, m: int) -> Interval:
    """Return m copies of one box."""
    return Interval(np.repeat(inputs.lo, m, axis=0), np.repeat(inputs.hi, m, axis=0))


def cut_points(block: StateBlock, z: Interval) -> FloatArray:
    """Return where the two phases of each state meet, shape (n,): at the kink, or where phi turns, if z gets there.

    A state of a smooth activation that stays on one side of 0 is cut in the middle of its interval.
    """
    lo, hi = z.lo[0], z.hi[0]
    if isinstance(block.activation, Kinked):
        return np.zeros(block.size)
    with np.errstate(over="ignore", invalid="ignore"):
        middle = lo + (hi - lo) / 2
    return np.where(((lo < 0) & (hi > 0)) | ~np.isfinite(middle), 0.0, middle)


def with_phases(model: ImplicitModel, bounds: StateBounds, phases: Mapping[int, Phases], m: int) -> StateBounds:
    """Return the bounds of z in m leaves of one box: above the cut where the phase is +1, below it where it is -1."""
    z = {}
    for k, known in bounds.z.items():
        lo, hi = np.repeat(known.lo, m, axis=0), np.repeat(known.hi, m, axis=0)
        if k in phases:
            cut = cut_points(model.blocks[k], known)
            lo = np.where(phases[k] > 0, np.maximum(lo, cut), lo)
            hi = np.where(phases[k] < 0, np.minimum(hi, cut), hi)
        z[k] = Interval(lo, hi)
    return StateBounds(z)


def all_phases(model: ImplicitModel, leaves: Leaves) -> Phases:
    """Return the phases of every leaf over all states, (number of leaves, n)."""
    parts = []
    for phases, m in zip(leaves.phases, leaves.sizes, strict=True):
        whole = np.zeros((m, model.n_states), np.int8)
        for k, own in phases.items():
            whole[:, model.offsets[k] : model.offsets[k + 1]] = own
        parts.append(whole)
    return np.concatenate(parts) if parts else np.zeros((0, model.n_states), np.int8)


def covers(phases: Phases) -> bool:
    """Return whether leaves with these phases cover everything: a state that all of them split, and both sides do.

    A leaf without phases covers all by itself.
    """
    waiting = [phases[:, (phases != 0).any(axis=0)] if len(phases) else phases]
    while waiting:
        here = waiting.pop()
        if not len(here):
            return False
        if not here.any(axis=1).all():
            continue  # one of the leaves has no phase left
        split = np.flatnonzero((here != 0).all(axis=0))
        if not split.size:
            return False
        first = int(split[0])
        rest = np.delete(here, first, axis=1)
        waiting += [rest[here[:, first] == side] for side in (1, -1)]
    return True


def rows_of(values: Mapping[int, FloatArray | Float32Array], rows: IntArray) -> dict[int, Float32Array]:
    """Return some rows of every array, as they are stored."""
    return {k: np.ascontiguousarray(value[rows], np.float32) for k, value in values.items()}
