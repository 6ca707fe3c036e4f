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

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, SparseInputs, StateBounds
from idl_audit.proof.cover import LeafPhases, Phases
from idl_audit.proof.intervals import with_interval
from idl_audit.proof.leaves import prove_leaves, prove_states
from idl_audit.proof.linear_bounds import tightened_by_lines
from idl_audit.proof.planes import Planes, why_no_planes
from idl_audit.proof.restriction import is_dead_elsewhere, restricted, restricted_bounds
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.query import Conjunction, Query


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

    def some(self, rows: IntArray) -> StateTrees:
        """Return the same with some of the leaves."""
        phases = {j: own[rows] for j, own in self.phases.items()}
        slopes, multipliers = ({j: own[rows] for j, own in some.items()} for some in (self.slopes, self.multipliers))
        planes = {j: own.rows(rows) for j, own in self.planes.items()}
        return StateTrees(self.block, self.states, self.signs, self.owner[rows], phases, slopes, multipliers, planes)


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
        own = [step for step in steps if step.block == k]
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
    if model.rows[k].states or isinstance(inputs, SparseInputs):  # else an affine map of the box: intervals are exact
        bending = np.flatnonzero(bounds.unstable(k, block).any(axis=0))
        if bending.size:
            found = tightened_by_lines(model, k, bending, bounds, inputs, check=check)
            bounds = bounds.with_block(k, block, found, bounds.x[k])
    return bounds


LEAVES_AT_ONCE = 4096
NUMBERS_AT_ONCE = 2**24
"""Numbers that the bounds of all states in such leaves may be (128 MB)."""


def leaves_at_once(model: ImplicitModel) -> int:
    """Return how many leaves of one box are proved together."""
    return max(1, min(LEAVES_AT_ONCE, NUMBERS_AT_ONCE // (2 * (model.n_states + model.n_inputs))))


def proved_by_trees(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, trees: StateTrees, *, check: Check = unchecked
) -> Interval:
    """Return the bounds of z of a block that the leaves prove over one box; `bounds` hold all blocks up to it.

    The bound of an objective is that of its worst leaf; its leaves must cover the box (`why_no_trees`).
    """
    k = trees.block
    worst = np.full(trees.states.size, np.inf)
    at_once = leaves_at_once(model)
    for start in range(0, trees.owner.size, at_once):
        rows = slice(start, start + at_once)
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
            inputs.repeated(m),
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
    why = _why_no_choices(model, m, trees.phases, trees.slopes, trees.multipliers, older_than=k)
    why = why or why_no_planes(model, inputs, m, trees.planes)
    if why:
        return why
    if any(j <= k for j in trees.planes):
        return "a tree of states that depends on later blocks"
    return ""


def covering_trees(model: ImplicitModel, trees: StateTrees) -> StateTrees | None:
    """Return the trees with the leaves that cover the box for each state; None where they do not for some."""
    found = LeafPhases.of([(0, model.offsets[j], own) for j, own in trees.phases.items()], trees.owner.size)
    if found is None:
        return None
    order = np.argsort(trees.owner, kind="stable")
    parts = np.split(order, np.searchsorted(trees.owner[order], np.arange(1, trees.states.size)))
    needed = [found.covering(leaves) for leaves in parts]
    rows = np.concatenate([np.zeros(0, np.int64), *(part for part in needed if part is not None)])
    if any(part is None for part in needed):
        return None
    return trees if rows.size == trees.owner.size else trees.some(np.sort(rows))


def _why_no_choices(
    model: ImplicitModel,
    m: int,
    phases: Mapping[int, Phases],
    *choices: Mapping[int, Float32Array],
    older_than: int = -1,
) -> str:
    """Return what keeps tables from being phases, slopes or multipliers of m leaves; empty where nothing does.

    A table under a number that is no block's, or of another shape than (m, n_k), would not mean the same wherever it
    is used: it is refused, never made to fit.
    """
    named: list[tuple[int, AnyArray]] = [*phases.items(), *(pair for values in choices for pair in values.items())]
    for k, table in named:
        if not 0 <= k < len(model.blocks):
            return f"choices for block {k}, which the model does not have"
        if k <= older_than:
            return "a tree of states that depends on later blocks"
        if table.shape != (m, model.blocks[k].size):
            return f"choices of the shape {table.shape} for {m} leaves and block {k}"
    if any(table.dtype != np.int8 or not (np.abs(table) <= 1).all() for table in phases.values()):
        return "phases that are no signs"
    return ""


def _why_no_step(model: ImplicitModel, step: StateStep) -> str:
    """Return what keeps slopes from being those of bounds of some states; empty where nothing does."""
    k = step.block
    if not 0 <= k < len(model.blocks) or step.sign not in (1.0, -1.0):
        return "slopes for bounds without block or sign"
    if not _are_numbers(step.states, model.blocks[k].size):
        return f"slopes for states that block {k} does not have"
    return _why_no_choices(model, step.states.size, {}, step.slopes, older_than=k)


def _are_numbers(values: IntArray, limit: int) -> bool:
    return values.ndim == 1 and bool(((values >= 0) & (values < limit)).all())


def check_chain(model: ImplicitModel, query: Query, chain: Chain) -> list[str]:
    """Return why a chain does not prove that no point of the box satisfies an alternative; empty where it does."""
    inputs = Interval.of_boxes(query.box)
    why = next(filter(None, (_why_no_step(model, step) for step in chain.steps)), "")
    if why:
        return [why]
    bounds = checked_bounds(model, inputs, chain.steps)
    if not is_dead_elsewhere(model, bounds, chain.kept):
        return ["it leaves out states that are not proved dead"]
    model = restricted(model, chain.kept)
    stages = [restricted_bounds(bounds, chain.kept)]
    for trees in chain.rounds:
        found = _after_round(model, inputs, stages[-1], trees)
        if isinstance(found, str):
            return [found]
        stages.append(found)
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


def _after_round(
    model: ImplicitModel, inputs: Interval, known: StateBounds, trees: list[StateTrees]
) -> StateBounds | str:
    """Return the bounds that a round of trees proves from those before it, or why it proves none."""
    if any(not 0 <= own.block < len(model.blocks) for own in trees):
        return "a tree of states of no block"
    bounds = StateBounds()
    for k in model.evaluation_order:
        bounds = retightened(model, k, bounds, known, inputs)
        for own in (tree for tree in trees if tree.block == k):
            why = why_no_trees(model, inputs, own)
            if why:
                return why
            leaves = covering_trees(model, own)
            if leaves is None:
                return f"the leaves of states of block {k} do not cover the box"
            found = proved_by_trees(model, inputs, bounds, leaves)
            bounds = bounds.with_block(k, model.blocks[k], found, bounds.x[k])
    return bounds


def _why_open(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, alternative: Conjunction, leaves: Leaves | None
) -> str:
    if leaves is None or not 0 <= leaves.row < len(alternative.rows):
        return "the chain has no leaves for it"
    for phases, slopes, multipliers, planes, m in _batches(leaves):
        if m < 0 or (m > 1 and not any((phases, slopes, multipliers, planes))):
            return "leaves that nothing is said of"
        why = _why_no_choices(model, m, phases, slopes, multipliers)
        if why:
            return why
    needed = _covering(model, leaves)
    if needed is None:
        return "its leaves do not cover the box"
    why = next(filter(None, (why_no_planes(model, inputs, batch[-1], batch[3]) for batch in _batches(leaves))), "")
    if why:
        return why
    seed, offset = alternative.rows[leaves.row], float(alternative.offsets[leaves.row])
    first = 0
    for batch in _batches(leaves):
        own = needed[slice(*np.searchsorted(needed, (first, first + batch[-1])))] - first
        first += batch[-1]
        for start in range(0, own.size, leaves_at_once(model)):
            rows = own[start : start + leaves_at_once(model)]
            lower = np.nextafter(_proved(model, inputs, bounds, seed, batch, rows) + offset, -np.inf)
            if not (lower > 0).all():
                return f"a leaf has the lower bound {float(np.nanmin(lower)):.3g}"
    return ""


Batch = tuple[dict[int, Phases], dict[int, Float32Array], dict[int, Float32Array], dict[int, Planes], int]
"""Phases, slopes, multipliers, planes, and how many leaves."""


def _batches(leaves: Leaves) -> list[Batch]:
    return list(zip(leaves.phases, leaves.slopes, leaves.multipliers, leaves.planes, leaves.sizes, strict=True))


def _proved(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, seed: FloatArray, batch: Batch, rows: IntArray
) -> FloatArray:
    """Return proved lower bounds of seed . y in some leaves of a batch."""
    m = rows.size
    leaves = with_phases(model, bounds, {k: own[rows] for k, own in batch[0].items()}, m)
    slopes, multipliers = ({k: own[rows] for k, own in values.items()} for values in batch[1:3])
    planes = {k: own.rows(rows) for k, own in batch[3].items()}
    seeds = np.tile(seed, (m, 1))
    return prove_leaves(model, inputs.repeated(m), leaves, seeds, slopes, multipliers, planes=planes)


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


def _covering(model: ImplicitModel, leaves: Leaves) -> IntArray | None:
    """Return the leaves, counted through all batches, that cover the box by the phases they are proved with."""
    firsts = np.cumsum([0, *leaves.sizes]).tolist()
    parts = [
        (first, model.offsets[k], own)
        for first, phases in zip(firsts, leaves.phases, strict=False)
        for k, own in phases.items()
    ]
    found = LeafPhases.of(parts, firsts[-1])
    return None if found is None else found.covering(np.arange(firsts[-1]))


def rows_of(values: Mapping[int, FloatArray | Float32Array], rows: IntArray) -> dict[int, Float32Array]:
    """Return some rows of every array, as they are stored."""
    return {k: np.ascontiguousarray(value[rows], np.float32) for k, value in values.items()}
