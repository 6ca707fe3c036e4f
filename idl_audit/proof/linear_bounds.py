"""Backward linear bounds (CROWN, DeepPoly) of states and outputs, proved as they are made.

See docs/mathematics.md, section 6.4.

Each nonlinearity is replaced by a line below or above its graph over [l, h], and the functional is pushed backwards to
the inputs. In the terms of `certificate`: lam = slope of the line * v. Every value returned is that module's proof.

Elsewhere: LiRPA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, SetInputs, StateBounds
from idl_audit.proof.crown import Crown, Targets, lines_suit
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.intervals import with_interval
from idl_audit.proof.zonotopes import left_to_lines, zonotopes_over
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import BudgetError

ROWS_AT_ONCE = 2**18
"""Numbers that one array of a backward pass may hold: what stays near the cache is up to twice as fast."""
PRODUCTS_AT_ONCE = 2**30
"""Products of one map with the rows of a pass, at most: about a second, in which nobody can look at the clock."""


OutputBounds = Callable[..., FloatArray]
"""(model, inputs, bounds, seeds, check=...) -> proved lower bounds of seeds . y over each box, (m, R)."""


def rows_at_once(model: ImplicitModel, boxes: int = 1) -> int:
    """Return how many functionals one backward pass over so many boxes takes."""
    numbers, products = _cost_of_row(model)
    return max(1, min(ROWS_AT_ONCE // numbers, PRODUCTS_AT_ONCE // products) // boxes)


@lru_cache(maxsize=4)
def _cost_of_row(model: ImplicitModel) -> tuple[int, int]:
    """Return the widest vector of a model and the most products that one of its maps takes."""
    widest = max([1, model.n_inputs, *(block.size for block in model.blocks)])
    return widest, max([1, *(linear_map.nnz for linear_map in model.maps)])


def zero_multipliers(k: int, v: FloatArray) -> FloatArray:
    """Return lam = 0: what is left of the bound is the interval of what the functionals read."""
    return np.zeros_like(v)


def line_multipliers(model: ImplicitModel, bounds: StateBounds) -> Multipliers:
    """Return lam = s v where v >= 0 and t v where v < 0, s and t the slopes of the lines below and above.

    In a loop v = (what arrives) + A^T lam depends on lam: the equilibrium of the adjoint model, found by policy
    iteration (solve with the slopes that the last signs of v chose, until the signs stay).
    """

    @cache
    def slopes(k: int) -> tuple[FloatArray, FloatArray]:
        below, above = model.blocks[k].relaxation_slopes(bounds.z[k].lo, bounds.z[k].hi)
        return below[:, None, :], above[:, None, :]

    def choose(k: int, v: FloatArray) -> FloatArray:
        if model.blocks[k].activation.coupled and k not in model.loops:
            return model.blocks[k].multipliers(v, bounds.z[k].lo[:, None, :], bounds.z[k].hi[:, None, :])
        below, above = slopes(k)
        if k not in model.loops:
            return np.maximum(v, 0.0) * below + np.minimum(v, 0.0) * above
        return _adjoint_equilibrium(model.loops[k].A.matrix, v, below, above)

    return choose


POLICY_STEPS = 12


def _adjoint_equilibrium(A: FloatArray, arriving: FloatArray, below: FloatArray, above: FloatArray) -> FloatArray:
    """Return lam with lam = D(v) v, v = arriving + A^T lam, as near as a few steps come; any lam is sound."""
    n = len(A)
    shape = arriving.shape
    flat = arriving.reshape(-1, n)
    low, high = (np.broadcast_to(side, shape).reshape(-1, n) for side in (below, above))
    lam = np.zeros_like(flat)
    at_once = max(1, ROWS_AT_ONCE // (n * n))
    for start in range(0, len(flat), at_once):
        rows = slice(start, start + at_once)
        v = flat[rows]
        slopes = np.where(v >= 0, low[rows], high[rows])
        for _ in range(POLICY_STEPS):
            try:
                lam[rows] = np.linalg.solve(np.eye(n) - slopes[:, :, None] * A.T, (slopes * flat[rows])[:, :, None])[
                    :, :, 0
                ]
            except np.linalg.LinAlgError:
                lam[rows] = 0.0
                break
            v = flat[rows] + lam[rows] @ A
            again = np.where(v >= 0, low[rows], high[rows])
            if np.array_equal(again, slopes):
                break
            slopes = again
    return np.asarray(np.nan_to_num(lam, nan=0.0, posinf=0.0, neginf=0.0).reshape(shape))


def backward_state_bounds(
    model: ImplicitModel,
    inputs: Interval,
    *,
    check: Check = unchecked,
    tighten: Check = unchecked,
    max_bytes: int | None = None,
) -> StateBounds:
    """Return bounds of all states over each of m boxes: intervals, then backward bounds of those still unstable.

    Block by block, oldest first; each bound is intersected with the interval that follows from the ones before it.
    Where lines for all that bends would be dear, zonotopes come before them, or in their place (`left_to_lines`).
    `check` and `tighten` are called between small units of work; once `tighten` raises BudgetError, the blocks that are
    left keep their intervals.
    """
    bounds, goes_on = StateBounds(), True
    zonotopes = zonotopes_over(model, inputs, max_bytes=max_bytes)

    def both() -> None:
        check()
        tighten()

    for k in model.evaluation_order:
        block = model.blocks[k]
        bounds = with_interval(model, k, bounds, inputs, check=check)
        is_exact = not model.rows[k].states and not isinstance(inputs, SetInputs)  # an affine map of the box
        if is_exact or not goes_on:
            continue
        try:
            bounds, bending = left_to_lines(model, k, bounds, zonotopes, check=both)
            if not bending.any():
                continue
            found = tightened_by_lines(model, k, bending, bounds, inputs, check=both)
        except BudgetError:
            check()
            goes_on = False
            continue
        bounds = bounds.with_block(k, block, found, bounds.x[k])
    return bounds


def tightened_by_lines(
    model: ImplicitModel, k: int, states: BoolArray, bounds: StateBounds, inputs: Interval, *, check: Check = unchecked
) -> Interval:
    """Return the bounds of block k's pre-activations, those of each box's own states, (m, n_k), tightened by lines.

    Of a state that turns out to keep its sign at a kink, no more than the sign is sought. No box depends on the others.
    """
    if not lines_suit(model, inputs):
        return _tightened_by_all(model, k, states, bounds, inputs, check)
    phi = model.blocks[k].activation
    targets = Targets.of_signs(model, k, states)
    if not isinstance(phi, Kinked) or np.array_equal(phi.below, phi.above):
        targets = replace(targets, until_settled=False)
    proved = Crown(model, inputs, check=check).lower_bound(bounds, targets).reshape(-1, 2)
    z, each = bounds.z[k], np.nonzero(states)
    lo, hi = z.lo.copy(), z.hi.copy()
    lo[each], hi[each] = np.fmax(lo[each], proved[:, 0]), np.fmin(hi[each], -proved[:, 1])
    return Interval(lo, hi)


def _tightened_by_all(
    model: ImplicitModel, k: int, states: BoolArray, bounds: StateBounds, inputs: Interval, check: Check
) -> Interval:
    """Return the same where the dual bound is all there is, of the same states over every box."""
    some = np.flatnonzero(states.any(axis=0))
    both, signs = np.tile(some, 2), np.repeat([1.0, -1.0], some.size)
    z = bounds.z[k]
    found = z.tightened(both, signs, state_lower_bounds(model, k, both, signs, bounds, inputs, check=check))
    return Interval(np.where(states, found.lo, z.lo), np.where(states, found.hi, z.hi))


def state_lower_bounds(
    model: ImplicitModel,
    k: int,
    states: IntArray,
    signs: FloatArray,
    bounds: StateBounds,
    inputs: Interval,
    *,
    check: Check = unchecked,
) -> FloatArray:
    """Return proved lower bounds of signs * z_i for states i of block k, (m, R), by backward linear bounds."""
    if lines_suit(model, inputs):
        return Crown(model, inputs, check=check).lower_bound(bounds, Targets.of_states(model, k, states, signs))

    def functionals(some: slice) -> Functionals:
        return Functionals.of_pre_activations(model, k, states[some], signs[some])

    return _in_parts(model, inputs, bounds, functionals, states.size, check)


def output_lower_bounds(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, seeds: FloatArray, *, check: Check = unchecked
) -> FloatArray:
    """Return proved lower bounds of seeds . y, (R, q) -> (m, R), by backward linear bounds.

    Where lines suit, each box may have rows of its own, (m, R, q).
    """
    if lines_suit(model, inputs):
        lower = Crown(model, inputs, check=check).lower_bound(bounds, Targets.of_outputs(model, seeds))
        return lower.reshape(len(inputs.lo), seeds.shape[-2])
    return _in_parts(model, inputs, bounds, lambda some: Functionals.of_outputs(model, seeds[some]), len(seeds), check)


def _in_parts(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    functionals: Callable[[slice], Functionals],
    count: int,
    check: Check,
) -> FloatArray:
    """Return the dual bound of so many functionals by the usual lines, (m, count), some at a time."""
    at_once, choose = rows_at_once(model, len(inputs.lo)), line_multipliers(model, bounds)
    found = [np.zeros((len(inputs.lo), 0))]
    for start in range(0, count, at_once):
        some = functionals(slice(start, start + at_once))
        found.append(lower_bound(model, inputs, bounds, some, choose, check=check))
    return np.concatenate(found, axis=1)


def output_intervals(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, seeds: FloatArray, *, check: Check = unchecked
) -> FloatArray:
    """Return proved lower bounds of seeds . y, (R, q) -> (m, R), by the interval of what the last layer reads."""
    functionals = Functionals.of_outputs(model, seeds)
    return lower_bound(model, inputs, bounds, functionals, zero_multipliers, check=check)
