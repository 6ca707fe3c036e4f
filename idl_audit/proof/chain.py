"""Chains: what a search chose, in the order in which it must be evaluated again to prove the same.

See docs/mathematics.md, sections 7.8 and 8.1.

A chain holds no bound, only choices: slopes for the bounds of hidden states, block after block, and for each
alternative of the query the leaves of a tree with their phases, slopes and split multipliers. `convert` makes
a proof of it, which `check` evaluates with the certificate alone.

Elsewhere: decision, activation pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, SetInputs, StateBounds
from idl_audit.proof.cover import Phases
from idl_audit.proof.forms import Form
from idl_audit.proof.intervals import with_interval
from idl_audit.proof.leaves import prove_leaves
from idl_audit.proof.linear_bounds import tightened_by_lines
from idl_audit.proof.planes import Planes
from idl_audit.proof.zonotopes import Zonotopes, left_to_lines
from idl_audit.values.arrays import Float32Array, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked


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
    weights: list[Float32Array] = field(default_factory=list)
    """Of the rows of the alternative, (m, r) a batch, in place of one row; none where it is one row's tree."""


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


def retightened(
    model: ImplicitModel,
    k: int,
    bounds: StateBounds,
    known: StateBounds | None,
    inputs: Interval,
    *,
    form: Form | None = None,
    by_lines: bool = True,
    zonotopes: Zonotopes | None = None,
    check: Check = unchecked,
) -> StateBounds:
    """Return bounds with block k's put in: its interval and its backward lines, intersected with what is known.

    `form` is an affine form of its pre-activations over the boxes; `zonotopes`, of the whole pass over one box, are for
    what is dear by lines.
    """
    block = model.blocks[k]
    bounds = with_interval(model, k, bounds, inputs, check=check)
    if known is not None:
        bounds = bounds.with_block(k, block, bounds.z[k].intersected(known.z[k]), bounds.x[k].intersected(known.x[k]))
    if form is not None:
        bounds = bounds.with_block(k, block, bounds.z[k].intersected(form.interval), bounds.x[k])
    is_exact = not model.rows[k].states and not isinstance(inputs, SetInputs)  # an affine map of the box
    if by_lines and not is_exact:
        bounds, bends = left_to_lines(model, k, bounds, zonotopes, check=check)
        if bends.any():
            found = tightened_by_lines(model, k, bends, bounds, inputs, check=check)
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


def cut_points(block: StateBlock, z: Interval) -> FloatArray:
    """Return where the two phases of each state meet, shape (n,): at the kink, or where phi turns, if z gets there.

    A state of a smooth activation that stays on one side of 0 is cut in the middle of its interval, one that jumps at a
    threshold.
    """
    lo, hi = z.lo[0], z.hi[0]
    threshold = block.threshold(lo, hi)
    if threshold is not None:
        return threshold
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
            below, above = model.blocks[k].sides(cut_points(model.blocks[k], known))
            lo = np.where(phases[k] > 0, np.maximum(lo, above), lo)
            hi = np.where(phases[k] < 0, np.minimum(hi, below), hi)
        z[k] = Interval(lo, hi)
    return StateBounds(z)


def rows_of(values: Mapping[int, FloatArray | Float32Array], rows: IntArray) -> dict[int, Float32Array]:
    """Return some rows of every array, as they are stored."""
    return {k: np.ascontiguousarray(value[rows], np.float32) for k, value in values.items()}
