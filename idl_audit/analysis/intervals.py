"""Interval bounds (mathematics 6.1): l = A+ x_lo + A- x_hi + ..., block by block, rounded outward."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.arrays import FloatArray
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.rounding import TINY, gamma


def interval_bounds(model: ImplicitModel, inputs: Interval) -> StateBounds:
    """Return bounds of every state over each of m input boxes, l = A+ x_lo + A- x_hi + B+ u_lo + B- u_hi + b.

    Args:
        model: a feed-forward model.
        inputs: the boxes, arrays of shape (m, p).
    """
    bounds = StateBounds()
    for k in model.evaluation_order:
        bounds = bounds.with_block(k, model.blocks[k], block_interval(model, k, bounds, inputs))
    return bounds


def block_interval(model: ImplicitModel, k: int, bounds: StateBounds, inputs: Interval) -> Interval:
    """Return bounds of block k's pre-activation from those of the blocks before it; maxima know their windows too."""
    z = affine_interval(model.rows[k], bounds.x, inputs)
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
    for linear_map, interval in parts:
        middle, half = centre_and_radius(interval)
        centre += linear_map.apply(middle)
        relative = linear_map.relative
        radius += linear_map.magnitude.apply(half * (1 + 2 * relative) + (rounding + 2 * relative) * np.abs(middle))
        if linear_map.slack is not None:
            radius += linear_map.slack.apply(interval.largest)
    radius *= 1 + 2 * rounding
    known = np.isfinite(centre) & np.isfinite(radius)  # after an overflow nothing is known
    with np.errstate(invalid="ignore"):
        lo, hi = np.nextafter(centre - radius, -np.inf), np.nextafter(centre + radius, np.inf)
    return Interval(np.where(known, lo, -np.inf), np.where(known, hi, np.inf))


def centre_and_radius(interval: Interval) -> tuple[FloatArray, FloatArray]:
    """Return (c, r) with [lo, hi] inside [c - r, c + r] in exact arithmetic."""
    centre = interval.lo / 2 + interval.hi / 2
    return centre, np.nextafter(np.maximum(interval.hi - centre, centre - interval.lo), np.inf)


def row_terms(row: Affine) -> int:
    """Return how many numbers are added up for one entry of an affine map, at most."""
    return sum(linear_map.row_terms + 1 for linear_map in row.maps) + 1
