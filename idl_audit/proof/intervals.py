"""Interval bounds (interval bound propagation, IBP): l = A+ x_lo + A- x_hi + ..., block by block, rounded outward.

See docs/mathematics.md, section 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel, Loop
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.loops import narrowed
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import TINY, down, gamma, up


def interval_bounds(model: ImplicitModel, inputs: Interval, *, check: Check = unchecked) -> StateBounds:
    """Return bounds of every state over each of m input boxes, l = A+ x_lo + A- x_hi + B+ u_lo + B- u_hi + b.

    Args:
        model: the model; one with loops needs proofs that bound them.
        inputs: the boxes, arrays of shape (m, p).
        check: called between small units of work; what it raises ends the work.

    Raises:
        UnsupportedModelError: where nothing bounds a loop.
    """
    bounds = StateBounds()
    for k in model.evaluation_order:
        bounds = with_interval(model, k, bounds, inputs, check=check)
    return bounds


def with_interval(
    model: ImplicitModel, k: int, bounds: StateBounds, inputs: Interval, *, check: Check = unchecked
) -> StateBounds:
    """Return the bounds with block k's put in, from those of the blocks before it."""
    block = model.blocks[k]
    check()
    if k not in model.loops:
        return bounds.with_block(k, block, block_interval(model, k, bounds, inputs))
    loop = model.loops[k]
    drive = affine_interval(loop.drive, bounds.x, inputs)
    x = loop_interval(loop, drive, check=check)
    for _ in range(LOOP_STEPS):
        bounds = bounds.with_block(k, block, affine_interval(model.rows[k], {**bounds.x, k: x}, inputs), x)
        x = bounds.x[k]
    return bounds.with_block(k, block, *narrowed(model, k, bounds.z[k], x, bounds.x, inputs, check=check))


LOOP_STEPS = 4
"""How often a loop's own interval goes through it once more."""


def loop_interval(loop: Loop, drive: Interval, *, check: Check = unchecked) -> Interval:
    """Return bounds of x = phi(A x + i) for i in m boxes, shape (m, n) (docs/mathematics.md, section 6.1).

    |x - x0| <= N |i - i0| around the equilibrium x0 at the middle i0 of the box (`Loop.reach`). For any z and delta = z
    - A phi(z) - i0, phi(z) is the equilibrium of i0 + delta, so that |phi(z) - x0| <= N |delta| pays for the solver's
    residual.

    Raises:
        UnsupportedModelError: where nothing bounds the loop.
    """
    if loop.gain is None:
        raise UnsupportedModelError(
            (f"nothing proves that the loop '{loop.block.name}' has one state for every input",)
        )
    middle, radius = centre_and_radius(drive)
    if not (np.isfinite(middle).all() and np.isfinite(radius).all()):
        raise UnsupportedModelError((f"what drives the loop '{loop.block.name}' has no finite bounds over the box",))
    z = loop.solve(middle, check=check).z
    x = Interval(*loop.block.interval(z, z))
    through = _loop_affine(loop, x, Interval(middle, middle))
    delta = np.maximum(np.abs(z - through.lo), np.abs(z - through.hi)) * (1 + gamma(4))
    off, reach = loop.reach(delta), loop.reach(radius)
    assert off is not None
    assert reach is not None
    return _around(x, (off + reach) * (1 + gamma(4)))


def _around(x: Interval, reach: FloatArray) -> Interval:
    return Interval(down(x.lo - reach), up(x.hi + reach))


def _loop_affine(loop: Loop, x: Interval, drive: Interval) -> Interval:
    """Return bounds of A x + i."""
    middle, radius = centre_and_radius(x)
    size = loop.A.magnitude if loop.A.error is None else loop.A.magnitude + loop.A.error
    rounding = gamma(len(size) + 8)
    centre = middle @ loop.A.matrix.T
    reach = radius @ size.T + rounding * (np.abs(middle) @ size.T)
    if loop.A.error is not None:
        reach = reach + np.abs(middle) @ loop.A.error.T
    reach = reach * (1 + 2 * rounding) + gamma(4) * (np.abs(centre) + np.abs(drive.lo) + np.abs(drive.hi)) + TINY
    return Interval(down(centre + drive.lo - reach), up(centre + drive.hi + reach))


LARGEST_SIGNED = 2**24
"""Entries of a map whose signs are told apart (some 400 MB)."""


def block_interval(model: ImplicitModel, k: int, bounds: StateBounds, inputs: Interval) -> Interval:
    """Return bounds of block k's pre-activation from those of the blocks before it; maxima know their windows too."""
    z = affine_interval(model.rows[k], bounds.x, inputs)
    if model.blocks[k].activation.forbidden and all(w.nnz <= LARGEST_SIGNED for w in model.rows[k].maps):
        z = z.intersected(_by_own_terms(model.rows[k], bounds.x, inputs))
    maximum = model.blocks[k].maximum
    if maximum is None:
        return z
    source = bounds.x[maximum.source]
    outside = maximum.windows < 0
    lo = np.where(outside, -np.inf, source.lo[:, maximum.windows]).max(axis=-1)
    hi = np.where(outside, -np.inf, source.hi[:, maximum.windows]).max(axis=-1)
    return z.intersected(Interval(lo, hi))


def affine_interval(row: Affine, states: Mapping[int, Interval], inputs: Interval) -> Interval:
    """Return bounds of sum_k P_k x_k + Q u + r, as centre and radius.

    centre = W c + r and radius = |W| (rad + gamma |c|) + gamma |r| + (errors of the coefficients), where gamma covers
    all roundings of one entry, so that [centre - radius, centre + radius] holds the exact value.
    """
    parts = [(row.states[k], states[k]) for k in sorted(row.states, reverse=True)]
    if row.input is not None:
        parts.append((row.input, inputs))
    m = len(inputs.lo)
    rounding = gamma(row_terms(row) + 4)
    centre = np.broadcast_to(row.constant, (m, row.size)).copy()
    radius = np.broadcast_to(rounding * np.abs(row.constant) + row.constant_error + TINY, (m, row.size)).copy()
    with np.errstate(invalid="ignore", over="ignore"):  # what is unknown before stays so
        for linear_map, interval in parts:
            middle, half = centre_and_radius(interval)
            centre += linear_map.apply(middle)
            relative = linear_map.relative
            radius += linear_map.magnitude.apply(
                half * (1 + 2 * relative) + (rounding + 2 * relative) * np.abs(middle) + TINY
            )
            radius += 2 * linear_map.row_loss
            if linear_map.slack is not None:
                radius += linear_map.slack.apply(interval.largest) * (1 + gamma(linear_map.slack.row_terms + 4))
                radius += linear_map.slack.row_loss
        radius *= 1 + 2 * rounding
        known = np.isfinite(centre) & np.isfinite(radius)  # after an overflow nothing is known
        lo, hi = down(centre - radius), up(centre + radius)
    return Interval(np.where(known, lo, -np.inf), np.where(known, hi, np.inf))


def _by_own_terms(row: Affine, states: Mapping[int, Interval], inputs: Interval) -> Interval:
    """Return bounds of sum_k P_k x_k + Q u + r whose ends are rounded by the sizes of their own terms alone.

    By centre and radius the least sum of squares is a little below 0, where a root has no value.
    """
    parts = [(row.states[k], states[k]) for k in sorted(row.states, reverse=True)]
    if row.input is not None:
        parts.append((row.input, inputs))
    mirrored = [(linear_map, Interval(-interval.hi, -interval.lo)) for linear_map, interval in parts]
    return Interval(_least_sum(row, row.constant, parts), -_least_sum(row, -row.constant, mirrored))


def _least_sum(row: Affine, constant: FloatArray, parts: Sequence[tuple[LinearMap, Interval]]) -> FloatArray:
    """Return W+ lo - W- hi + r, rounded downward; at least 0 where no term is negative, not even by rounding."""
    m = len(parts[0][1].lo) if parts else 1
    total = np.broadcast_to(constant, (m, row.size)).copy()
    size, lost = np.abs(total), np.full((m, row.size), row.constant_error + TINY)
    none_below = np.broadcast_to(constant >= row.constant_error, (m, row.size)).copy()
    rounding = gamma(row_terms(row) + 16)
    with np.errstate(invalid="ignore", over="ignore"):
        for linear_map, interval in parts:
            rising, falling = _signed(linear_map)
            total += interval.lo @ rising - interval.hi @ falling
            own = np.abs(interval.lo) @ rising + np.abs(interval.hi) @ falling
            size += own
            lost += 2 * linear_map.relative * own + 2 * linear_map.row_loss
            none_below &= ~(interval.lo >= 0) @ (rising > 0) + ~(interval.hi <= 0) @ (falling > 0) == 0
            none_below &= linear_map.relative < 1 and not np.any(linear_map.row_loss)
            if linear_map.slack is not None:
                lost += linear_map.slack.apply(interval.largest) * (1 + gamma(linear_map.slack.row_terms + 4))
                lost += linear_map.slack.row_loss
                none_below[:] = False
        least = down(total - (rounding * size + lost) * (1 + 2 * rounding))
        least = np.where(none_below, np.fmax(least, 0.0), least)
    return np.where(np.isfinite(least), least, -np.inf)


@lru_cache(maxsize=64)
def _signed(linear_map: LinearMap) -> tuple[sp.csr_array, sp.csr_array]:
    """Return the positive entries of a map and the sizes of the negative ones, transposed, (n_in, n_out)."""
    entries = sp.csr_array(linear_map.to_sparse().T)
    halves = sp.csr_array(entries.maximum(0)), sp.csr_array((-entries).maximum(0))
    for half in halves:
        half.eliminate_zeros()
    return halves


def centre_and_radius(interval: Interval) -> tuple[FloatArray, FloatArray]:
    """Return (c, r) with [lo, hi] inside [c - r, c + r] in exact arithmetic; NaN where nothing is known."""
    with np.errstate(invalid="ignore"):
        centre = interval.lo / 2 + interval.hi / 2
        return centre, up(np.maximum(interval.hi - centre, centre - interval.lo))


def row_terms(row: Affine) -> int:
    """Return how many numbers are added up for one entry of an affine map, at most."""
    return sum(linear_map.row_terms + 1 for linear_map in row.maps) + 1
