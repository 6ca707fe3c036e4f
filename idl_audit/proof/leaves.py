"""The proof pass: what the search chose, evaluated by the certificate in float64 with outward rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.linear_bounds import rows_at_once
from idl_audit.proof.planes import AllPlanes
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked

SHARES_AT_ONCE = 2**21
"""Of planes, in one proof pass."""


def chosen_multipliers(
    model: ImplicitModel,
    bounds: StateBounds,
    slopes: Mapping[int, FloatArray | Float32Array],
    splits: Mapping[int, FloatArray | Float32Array],
    duals: Mapping[int, FloatArray] = MappingProxyType({}),
) -> Multipliers:
    """Return lam = v s - sigma beta: s the chosen slope where v >= 0 and that of the upper line where v < 0.

    For curves s is the chosen slope whatever the sign of v: a line of any slope touches the graph on either side. For
    coupled blocks what is chosen are shares of planes.

    Args:
        model: the model.
        bounds: bounds of the states, with phases: lo = 0 where a split says z >= 0, hi = 0 where it says z <= 0.
        slopes: block -> slopes of the rows, shape (m, R, n); the usual ones elsewhere, and where one is NaN.
        splits: block -> sigma beta, shape (m, R, n).
        duals: block -> lam itself, shape (m, R, n), in place of all that where it is not NaN.
    """

    def choose(k: int, v: FloatArray) -> FloatArray:
        block, z = model.blocks[k], bounds.z[k]
        if block.activation.coupled:
            lam = block.multipliers(v, z.lo[:, None, :], z.hi[:, None, :], slopes.get(k))
        else:
            lam = v * _slopes(block, z, v, slopes.get(k))
        lam = lam - splits[k] if k in splits else lam
        return np.where(np.isnan(duals[k]), lam, duals[k]) if k in duals else lam

    return choose


def _slopes(
    block: StateBlock, z: Interval, v: FloatArray, chosen: FloatArray | Float32Array | None
) -> FloatArray | Float32Array:
    """Return the slopes of the lines that v asks for, (m, R, n): the usual ones where none is chosen, or it is NaN."""
    is_known: BoolArray = np.zeros(1, np.bool_) if chosen is None else ~np.isnan(chosen)
    if not block.has_lines_of_any_slope:
        is_known = is_known & ((z.lo < 0) & (z.hi > 0))[:, None, :] & (v >= 0)
    elif chosen is not None and is_known.all():
        return chosen
    below, above = (side[:, None, :] for side in block.relaxation_slopes(z.lo, z.hi))
    usual = np.where(v >= 0, below, above)
    return usual if chosen is None else np.where(is_known, chosen, usual)


def prove_states(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    k: int,
    states: IntArray,
    sign: float,
    slopes: Mapping[int, FloatArray | Float32Array],
    *,
    check: Check = unchecked,
) -> FloatArray:
    """Return proved lower bounds of sign * z_i for some states i of block k over one box, shape (R,).

    `check` is called between small units of work.
    """
    at_once = rows_at_once(model)
    found = []
    for start in range(0, states.size, at_once):
        rows = slice(start, start + at_once)
        own = {j: value[rows].astype(np.float64)[None] for j, value in slopes.items()}
        functionals = Functionals.of_pre_activations(model, k, states[rows], sign)
        choose = chosen_multipliers(model, bounds, own, {})
        found.append(lower_bound(model, inputs, bounds, functionals, choose, check=check)[0])
    return np.concatenate(found) if found else np.zeros(0)


def prove_leaves(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    seeds: FloatArray,
    slopes: Mapping[int, FloatArray | Float32Array],
    splits: Mapping[int, FloatArray | Float32Array],
    block: int | None = None,
    planes: AllPlanes | None = None,
    *,
    duals: Mapping[int, FloatArray] = MappingProxyType({}),
    check: Check = unchecked,
) -> FloatArray:
    """Return proved lower bounds of one functional a leaf, shape (m,): of the outputs, or of z of a block.

    Args:
        model: the model.
        inputs: the box of every leaf, (m, p).
        bounds: bounds of the states in every leaf, its phases put in, (m, n).
        seeds: (m, q) or (m, n of the block), one functional a leaf.
        slopes, splits: block -> (m, n).
        block: whose z.
        planes: block -> planes of some of its states, in place of their chords.
        duals: block -> (m, n), multipliers in place of slopes and splits.
        check: called between small units of work.
    """
    planes = planes or {}
    shares = max([1, *(math.prod(own.shares.shape[1:]) for own in planes.values())])
    at_once = min(rows_at_once(model), max(1, SHARES_AT_ONCE // shares))
    found = []
    for start in range(0, len(seeds), at_once):
        rows = slice(start, start + at_once)
        here = StateBounds({k: Interval(z.lo[rows], z.hi[rows]) for k, z in bounds.z.items()})
        own = [
            {k: value[rows].astype(np.float64)[:, None, :] for k, value in values.items()}
            for values in (slopes, splits, duals)
        ]
        functionals = Functionals.of_block(model, block, seeds[rows][:, None, :])
        choose = chosen_multipliers(model, here, *own)
        chosen = {k: own.rows(rows) for k, own in planes.items()}
        found.append(lower_bound(model, inputs.rows(rows), here, functionals, choose, chosen, check=check)[:, 0])
    return np.concatenate(found) if found else np.zeros(0)
