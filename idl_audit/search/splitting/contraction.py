"""Contraction: a box without the slabs at its faces where every alternative of a query is refuted.

A row's linear lower bound over the box, B its least value and w its normal, says row >= B + sum_j |w_j| |u_j - q_j|, q
the corner where it is least. A counterexample needs row <= 0, hence |u_j - q_j| <= -B / |w_j|: what lies further is a
slab, and each slab is then refuted by a proof of its own. A slab whose proof fails stays in the box.

Elsewhere: domain contraction, clipping of the input box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import IN_CACHE, BoxBounds, RowBounds
from idl_audit.proof.rows import Rows
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray

LEAST_GAIN = 0.02
"""Of an input's interval: thinner slabs are not worth a proof."""
SHARE = 1 + 1e-7
"""How much further than the formula a slab begins, for the roundings that its proof pays for."""


@dataclass(frozen=True, eq=False)
class Slabs:
    """Parts of boxes at their faces: input j of box i, from its lower or upper end to `cut`."""

    boxes: IntArray
    inputs: IntArray
    at_upper: BoolArray
    cuts: FloatArray


def contracted(
    found: BoxBounds, rows: Rows, bounds: RowBounds, is_open: BoolArray
) -> tuple[Interval, BoolArray, FloatArray]:
    """Return the boxes without the slabs that are proved to hold no counterexample, and which hold none at all.

    The third are the least proved bounds of the alternatives over those slabs, shape (a,).

    Args:
        found: the boxes and their bounds.
        rows: the query's rows.
        bounds: those of the rows over the boxes.
        is_open: which alternatives are not refuted over each box, shape (m, a).
    """
    lo, hi = found.inputs.lo.copy(), found.inputs.hi.copy()
    slabs = _candidates(found, rows, bounds, is_open)
    if not slabs.boxes.size:
        return Interval(lo, hi), np.zeros(len(lo), np.bool_), np.full(is_open.shape[1], np.inf)
    proved, lowers = _refuted(found, rows, is_open, slabs)
    for at_upper, ends in ((False, lo), (True, hi)):
        some = proved & (slabs.at_upper == at_upper)
        ends[slabs.boxes[some], slabs.inputs[some]] = slabs.cuts[some]
    # Slabs that meet leave nothing of their box: they cover it.
    cut_below, cut_above = lo > found.inputs.lo, hi < found.inputs.hi
    return Interval(lo, hi), np.asarray((cut_below & cut_above & (lo >= hi)).any(axis=1)), lowers


def _candidates(found: BoxBounds, rows: Rows, bounds: RowBounds, is_open: BoolArray) -> Slabs:
    """Return the slabs outside the hull of what the rows leave of each box, over its open alternatives."""
    lo, hi = found.inputs.lo, found.inputs.hi
    w = bounds.normals
    gap = np.maximum(-rows.shifted(bounds.lower), 0.0)[:, :, None]
    with np.errstate(over="ignore", invalid="ignore"):
        reach = np.divide(gap * SHARE, np.abs(w), out=np.full_like(w, np.inf), where=np.abs(w) > 0)
        row_lo = np.where(w < 0, hi[:, None, :] - reach, -np.inf)
        row_hi = np.where(w > 0, lo[:, None, :] + reach, np.inf)
    new_lo, new_hi = np.full_like(lo, np.inf), np.full_like(hi, -np.inf)
    for a, members in enumerate(rows.members):
        some = is_open[:, a]
        new_lo[some] = np.minimum(new_lo[some], row_lo[some][:, members].max(axis=1, initial=-np.inf))
        new_hi[some] = np.maximum(new_hi[some], row_hi[some][:, members].min(axis=1, initial=np.inf))
    least = LEAST_GAIN * (hi - lo)
    lower = (new_lo > lo) & (new_lo - lo >= least) & (new_lo < hi)
    upper = (new_hi < hi) & (hi - new_hi >= least) & (new_hi > lo)
    (low_box, low_input), (high_box, high_input) = np.nonzero(lower), np.nonzero(upper)
    return Slabs(
        np.concatenate([low_box, high_box]),
        np.concatenate([low_input, high_input]),
        np.repeat([False, True], [low_box.size, high_box.size]),
        np.concatenate([new_lo[lower], new_hi[upper]]),
    )


def _refuted(found: BoxBounds, rows: Rows, is_open: BoolArray, slabs: Slabs) -> tuple[BoolArray, FloatArray]:
    """Return which slabs are proved to hold no counterexample, and the least bounds of the alternatives there."""
    lo, hi = found.inputs.lo[slabs.boxes], found.inputs.hi[slabs.boxes]
    each = np.arange(slabs.boxes.size)
    hi[each, slabs.inputs] = np.where(slabs.at_upper, hi[each, slabs.inputs], slabs.cuts)
    lo[each, slabs.inputs] = np.where(slabs.at_upper, slabs.cuts, lo[each, slabs.inputs])
    widest = max([block.size for block in found.model.blocks], default=1)
    at_once = max(1, IN_CACHE // (widest * len(rows.functionals)))
    proved, least = np.zeros(each.size, np.bool_), np.full(is_open.shape[1], np.inf)
    for start in range(0, each.size, at_once):
        some = slice(start, start + at_once)
        own = slabs.boxes[some]
        lower = found.over(own, Interval(lo[some], hi[some]), rows.functionals)
        best = np.where(is_open[own], rows.best(rows.shifted(lower)), np.inf)
        proved[some] = (best > 0).all(axis=1)
        least = np.minimum(least, best[proved[some]].min(axis=0, initial=np.inf))
    return proved, least
