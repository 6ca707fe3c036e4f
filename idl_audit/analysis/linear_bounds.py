"""Backward linear bounds (mathematics 6.4; known as CROWN or DeepPoly) of states and outputs, proved as they are made.

Each nonlinearity is replaced by a line below or above its graph over [l, h], and the functional is pushed backwards to
the inputs. In the terms of `certificate`: lam = slope of the line * v. Every value returned is that module's proof.
"""

from __future__ import annotations

import numpy as np

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.analysis.certificate import Functionals, Multipliers, lower_bound
from idl_audit.analysis.intervals import block_interval
from idl_audit.arrays import FloatArray, IntArray
from idl_audit.implicit.model import ImplicitModel

ROWS_AT_ONCE = 2**24
"""Numbers that one array of a backward pass may hold (128 MB of float64)."""


def line_multipliers(model: ImplicitModel, bounds: StateBounds) -> Multipliers:
    """Return lam = s v where v >= 0 and t v where v < 0, s and t the slopes of the lines below and above."""

    def choose(k: int, v: FloatArray) -> FloatArray:
        below, above = model.blocks[k].relaxation_slopes(bounds.z[k].lo, bounds.z[k].hi)
        return v * np.where(v >= 0, below[:, None, :], above[:, None, :])

    return choose


def backward_state_bounds(model: ImplicitModel, inputs: Interval) -> StateBounds:
    """Return bounds of all states over each of m boxes: intervals, then backward bounds of those still unstable.

    Block by block, oldest first; each bound is intersected with the interval that follows from the ones before it.
    """
    bounds = StateBounds()
    for k in model.evaluation_order:
        block = model.blocks[k]
        bounds = bounds.with_block(k, block, block_interval(model, k, bounds, inputs))
        if not model.rows[k].states:
            continue  # an affine map of the box: the interval is exact
        bending = np.flatnonzero(bounds.unstable(k, block).any(axis=0))
        if bending.size:
            bounds = bounds.with_block(k, block, _tightened(model, k, bending, bounds, inputs))
    return bounds


def _tightened(model: ImplicitModel, k: int, states: IntArray, bounds: StateBounds, inputs: Interval) -> Interval:
    m = len(inputs.lo)
    widest = max([model.n_inputs, *(block.size for block in model.blocks)])
    at_once = max(1, ROWS_AT_ONCE // (widest * m))
    lo, hi = bounds.z[k].lo.copy(), bounds.z[k].hi.copy()
    for start in range(0, states.size, at_once):
        some = states[start : start + at_once]
        least, most = (
            lower_bound(
                model,
                inputs,
                bounds,
                Functionals.of_pre_activations(model, k, some, sign),
                line_multipliers(model, bounds),
            )
            for sign in (1.0, -1.0)
        )
        lo[:, some] = np.fmax(lo[:, some], least)
        hi[:, some] = np.fmin(hi[:, some], -most)
    return Interval(lo, hi)


def output_lower_bounds(
    model: ImplicitModel, inputs: Interval, bounds: StateBounds, functionals: FloatArray
) -> FloatArray:
    """Return proved lower bounds of functionals . y, (R, q) -> (m, R), over each of m boxes."""
    seeds = Functionals.of_outputs(model, functionals)
    return lower_bound(model, inputs, bounds, seeds, line_multipliers(model, bounds))
