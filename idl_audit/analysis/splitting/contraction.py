"""Contraction: a box without the slabs at its faces where every alternative of a query is refuted.

A row's linear lower bound over the box, B its least value and w its normal, says row >= B + sum_j |w_j| |u_j - q_j|, q
the corner where it is least. A counterexample needs row <= 0, hence |u_j - q_j| <= -B / |w_j|: what lies further is a
slab, and each slab is then refuted by a proof of its own. A slab whose proof fails stays in the box.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from idl_audit.analysis.bounds import Interval
from idl_audit.analysis.query import Conjunction, Query
from idl_audit.analysis.splitting.box_bounds import IN_CACHE, BoxBounds, RowBounds
from idl_audit.arrays import BoolArray, FloatArray, IntArray
from idl_audit.rounding import down

LEAST_GAIN = 0.02
"""Of an input's interval: thinner slabs are not worth a proof."""
MOST_SUMMED = 12
"""Rows of an alternative up to which every two of them are added up as well."""
SHARE = 1 + 1e-7
"""How much further than the formula a slab begins, for the roundings that its proof pays for."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a query's alternatives, with sums of rows: they are <= 0 at a counterexample, too.

    Where two rows are violated on different parts of a box, their sum may be violated on all of it.
    """

    functionals: FloatArray
    """(R, q), exact numbers."""
    offsets: FloatArray
    """(R,), rounded downward."""
    members: tuple[IntArray, ...]
    """The rows and sums of each alternative."""

    @classmethod
    def of(cls, query: Query) -> Rows:
        """Return the rows of every alternative, the sums of two of them, and the sum of all."""
        parts = [with_sums(c) for c in query.alternatives]
        ends = np.cumsum([len(rows) for rows, _ in parts])
        members = tuple(np.arange(end - len(rows), end) for (rows, _), end in zip(parts, ends, strict=True))
        return cls(np.concatenate([rows for rows, _ in parts]), np.concatenate([c for _, c in parts]), members)

    def shifted(self, lower: FloatArray) -> FloatArray:
        """Return proved lower bounds of rows y + offsets from those of rows y, shape (m, R)."""
        return down(lower + self.offsets)

    def best(self, shifted: FloatArray) -> FloatArray:
        """Return the greatest lower bound of each alternative's rows, shape (m, a): above 0 it is refuted."""
        columns = [shifted[:, rows].max(axis=1, initial=-np.inf) for rows in self.members]
        return np.stack(columns, axis=1)


def with_sums(alternative: Conjunction) -> tuple[FloatArray, FloatArray]:
    """Return the rows and offsets with those sums of rows that are exact in float64."""
    rows, offsets = list(alternative.rows), list(alternative.offsets)
    for group in groups(alternative)[len(rows) :]:
        total, offset = alternative.rows[group[0]], alternative.offsets[group[0]]
        for i in group[1:]:
            total, offset = total + alternative.rows[i], down(offset + alternative.offsets[i])
        rows.append(total)
        offsets.append(offset)
    return np.reshape(rows, (len(rows), -1)), np.asarray(offsets, np.float64)


def groups(alternative: Conjunction) -> list[tuple[int, ...]]:
    """Return the rows, one a group, then those pairs, and all, whose sums are exact in float64 and not 0."""
    count = len(alternative.rows)
    several: list[tuple[int, ...]] = list(combinations(range(count), 2)) if count <= MOST_SUMMED else []
    if count > 2:
        several.append(tuple(range(count)))
    return [*((i,) for i in range(count)), *(group for group in several if _adds_up(alternative.rows, group))]


def _adds_up(rows: FloatArray, group: tuple[int, ...]) -> bool:
    total = rows[group[0]]
    for i in group[1:]:
        total, exactly = _sum(total, rows[i])
        if not exactly:
            return False
    return bool(total.any())


def _sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, bool]:
    """Return the sum and whether no entry was rounded (Knuth's two-sum)."""
    total = a + b
    rest = total - a
    return total, not ((a - (total - rest)) + (b - rest)).any()


@dataclass(frozen=True, eq=False)
class Slabs:
    """Parts of boxes at their faces: input j of box i, from its lower or upper end to `cut`."""

    boxes: IntArray
    inputs: IntArray
    at_upper: BoolArray
    cuts: FloatArray


def contracted(found: BoxBounds, rows: Rows, bounds: RowBounds, is_open: BoolArray) -> tuple[Interval, BoolArray]:
    """Return the boxes without the slabs that are proved to hold no counterexample, and which hold none at all.

    Args:
        found: the boxes and their bounds.
        rows: the query's rows.
        bounds: those of the rows over the boxes.
        is_open: which alternatives are not refuted over each box, shape (m, a).
    """
    lo, hi = found.inputs.lo.copy(), found.inputs.hi.copy()
    slabs = _candidates(found, rows, bounds, is_open)
    if not slabs.boxes.size:
        return Interval(lo, hi), np.zeros(len(lo), np.bool_)
    proved = _refuted(found, rows, is_open, slabs)
    for at_upper, ends in ((False, lo), (True, hi)):
        some = proved & (slabs.at_upper == at_upper)
        ends[slabs.boxes[some], slabs.inputs[some]] = slabs.cuts[some]
    # Slabs that meet leave nothing of their box: they cover it.
    cut_below, cut_above = lo > found.inputs.lo, hi < found.inputs.hi
    return Interval(lo, hi), np.asarray((cut_below & cut_above & (lo >= hi)).any(axis=1))


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


def _refuted(found: BoxBounds, rows: Rows, is_open: BoolArray, slabs: Slabs) -> BoolArray:
    """Return which slabs are proved to hold no counterexample."""
    lo, hi = found.inputs.lo[slabs.boxes], found.inputs.hi[slabs.boxes]
    each = np.arange(slabs.boxes.size)
    hi[each, slabs.inputs] = np.where(slabs.at_upper, hi[each, slabs.inputs], slabs.cuts)
    lo[each, slabs.inputs] = np.where(slabs.at_upper, slabs.cuts, lo[each, slabs.inputs])
    widest = max([block.size for block in found.model.blocks], default=1)
    at_once = max(1, IN_CACHE // (widest * len(rows.functionals)))
    proved = np.zeros(each.size, np.bool_)
    for start in range(0, each.size, at_once):
        some = slice(start, start + at_once)
        own = slabs.boxes[some]
        lower = found.over(own, Interval(lo[some], hi[some]), rows.functionals)
        refuted = (rows.best(rows.shifted(lower)) > 0) | ~is_open[own]
        proved[some] = refuted.all(axis=1)
    return proved
