"""Growth of a recorded tree of boxes until each leaf is refuted by bounds over its own box.

A search knows more than its record says: bounds over larger boxes, slabs that were cut off. Where a leaf needs them, it
is split further.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, bounded
from idl_audit.proof.rows import Rows
from idl_audit.proof.split_tree import NO_INPUT, SplitTree
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.check import Check
from idl_audit.values.query import Query

BOXES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class _Box:
    node: int
    lo: FloatArray
    hi: FloatArray
    alternatives: BoolArray
    """Those that are not refuted over a larger box."""
    states: tuple[FloatArray, ...] | None = None
    """Bounds of the pre-activations over the parent, lower and upper of each block."""


def grown(model: ImplicitModel, query: Query, tree: SplitTree, budget: Budget) -> SplitTree | None:
    """Split the leaves of a tree that bounds of their own boxes do not refute; None where the budget is spent first.

    Args:
        model: the model.
        query: the box and the alternatives.
        tree: what a search recorded; it grows in place.
        budget: until when.

    Raises:
        BudgetError: where the time is over between the blocks of a pass.
    """
    rows = Rows.of(query)
    box = query.box
    widths = np.where(box.hi > box.lo, box.hi - box.lo, np.inf)
    waiting = [_Box(0, box.lo, box.hi, np.ones(len(rows.members), np.bool_))]
    while waiting:
        if budget.is_spent:
            return None
        batch, waiting = waiting[-BOXES_AT_ONCE:], waiting[:-BOXES_AT_ONCE]
        with np.errstate(over="ignore", invalid="ignore"):  # after an overflow nothing is refuted
            found, is_open = _bounds(model, rows, batch, budget.check)
        for i in np.flatnonzero(is_open.any(axis=1)):
            one = batch[i]
            if tree.inputs[one.node] == NO_INPUT:
                j = int(np.argmax((one.hi - one.lo) / widths))
                middle = float(one.lo[j] / 2 + one.hi[j] / 2)
                if not one.lo[j] < middle < one.hi[j]:
                    return None  # a leaf is too small to be split
                tree.split(one.node, j, middle)
            j, cut, first = tree.inputs[one.node], tree.cuts[one.node], tree.children[one.node]
            states = tuple(
                end[i] for k in range(len(model.blocks)) for end in (found.states.z[k].lo, found.states.z[k].hi)
            )
            low_hi, high_lo = one.hi.copy(), one.lo.copy()
            low_hi[j] = high_lo[j] = cut
            waiting.append(_Box(first, one.lo, low_hi, is_open[i], states))
            waiting.append(_Box(first + 1, high_lo, one.hi, is_open[i], states))
    return tree


def _bounds(model: ImplicitModel, rows: Rows, batch: list[_Box], check: Check) -> tuple[BoxBounds, BoolArray]:
    """Return the bounds over some boxes, and which alternatives stay open."""
    inputs = Interval(np.stack([one.lo for one in batch]), np.stack([one.hi for one in batch]))
    states = [one.states for one in batch if one.states is not None]
    known = None
    if len(states) == len(batch):
        ends = [np.stack([state[e] for state in states]) for e in range(2 * len(model.blocks))]
        known = {k: Interval(ends[2 * k], ends[2 * k + 1]) for k in range(len(model.blocks))}
    found = bounded(model, inputs, np.zeros(0, np.int64), known, check=check)
    best = rows.best(rows.shifted(found.outputs(rows.functionals).lower))
    return found, np.stack([one.alternatives for one in batch]) & ~(best > 0)
