"""Growth of a recorded tree of boxes until each leaf is refuted by bounds over its own box.

A search knows more than its record says: bounds over larger boxes, slabs that were cut off. Where a leaf needs them, it
is split further.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, flattened, of_flat
from idl_audit.proof.box_bounds import BoxBounds
from idl_audit.proof.check import part_stage
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.float_margins import FloatMargins
from idl_audit.proof.float_parts import FloatParts
from idl_audit.proof.forms import moving
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers
from idl_audit.proof.rows import Rows
from idl_audit.proof.split_tree import NO_INPUT, SplitTree
from idl_audit.search.splitting.together import Weighing
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.query import Query

BOXES_AT_ONCE = 64
ROOT = 0


@dataclass(frozen=True, eq=False)
class _Box:
    node: int
    lo: FloatArray
    hi: FloatArray
    alternatives: BoolArray
    """Those that are not refuted over a larger box."""
    z_lo: FloatArray
    """Bounds of all pre-activations over the parent, flat."""
    z_hi: FloatArray


def grown(
    model: ImplicitModel, query: Query, tree: SplitTree, budget: Budget, margins: FloatMargins | None = None
) -> SplitTree | None:
    """Split the leaves of a tree that bounds of their own boxes do not refute; None where the budget is spent first.

    Args:
        model: the model.
        query: the box and the alternatives.
        tree: what a search recorded; it grows in place.
        budget: until when.
        margins: for floating-point arithmetic, what bounds its roundings over each box.

    Raises:
        BudgetError: where the time is over between the blocks of a pass.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # after an overflow nothing is refuted
        return _Growth(model, query, tree, budget, margins).run()


class _Growth:
    """One tree, walked as the checker walks it: forms everywhere, lines in leaves that forms leave open."""

    def __init__(
        self, model: ImplicitModel, query: Query, tree: SplitTree, budget: Budget, margins: FloatMargins | None
    ) -> None:
        self._parts = None if margins is None else FloatParts(margins, query)
        self._model, self._box, self._tree, self._budget = model, query.box, tree, budget
        self._rows, self._apart = Rows.of(query), moving(Interval.of_boxes(query.box))
        self._weighing = Weighing(query, self._rows)
        self._widths = np.where(query.box.hi > query.box.lo, query.box.hi - query.box.lo, np.inf)

    def run(self) -> SplitTree | None:
        whole = Interval.of_boxes(self._box)
        bounds = backward_state_bounds(self._model, whole, check=self._budget.check)
        z_lo, z_hi = flattened(self._model, bounds)
        everything = np.ones(len(self._rows.members), np.bool_)
        waiting = [_Box(ROOT, self._box.lo, self._box.hi, everything, z_lo[0], z_hi[0])]
        while waiting:
            if self._budget.is_spent:
                return None
            batch, waiting = waiting[-BOXES_AT_ONCE:], waiting[:-BOXES_AT_ONCE]
            batch = self._left(batch, by_lines=False)
            leaves = [one for one in batch if self._is_leaf(one)]
            inner = [one for one in batch if not self._is_leaf(one)]
            for one in [*inner, *self._left(leaves, by_lines=True)]:
                if self._is_leaf(one) and not self._split(one):
                    return None  # a leaf is too small to be split
                waiting += self._children(one)
        return self._tree

    def _is_leaf(self, one: _Box) -> bool:
        return self._tree.inputs[one.node] == NO_INPUT

    def _left(self, batch: list[_Box], *, by_lines: bool) -> list[_Box]:
        """Return the boxes that stay open, with their own bounds; those of the root are by lines already."""
        if not batch:
            return []
        inputs = Interval(np.stack([one.lo for one in batch]), np.stack([one.hi for one in batch]))
        known = of_flat(self._model, np.stack([one.z_lo for one in batch]), np.stack([one.z_hi for one in batch]))
        check = self._budget.check
        if batch[0].node != ROOT:
            known = part_stage(self._model, inputs, known, self._apart, by_lines=by_lines, check=check)
        seeds = Functionals.of_outputs(self._model, self._rows.functionals)
        lower = lower_bound(self._model, inputs, known, seeds, line_multipliers(self._model, known), check=check)
        shifted, asked = self._rows.shifted(lower), np.stack([one.alternatives for one in batch])
        if self._parts is None:
            is_open = asked & ~(self._rows.best(shifted) > 0)
            leaves = np.array([self._is_leaf(one) for one in batch])
            self._weigh(batch, BoxBounds(self._model, inputs, self._apart, known, check=check), is_open, leaves)
        else:
            is_open = asked & ~(self._parts.best(lower, asked, inputs, known, check=check) > 0)
        z_lo, z_hi = flattened(self._model, known, len(batch))
        return [
            replace(batch[i], alternatives=is_open[i], z_lo=z_lo[i], z_hi=z_hi[i])
            for i in np.flatnonzero(is_open.any(axis=1))
        ]

    def _weigh(self, batch: list[_Box], found: BoxBounds, is_open: BoolArray, leaves: BoolArray) -> None:
        """Close leaves whose alternatives are refuted by their rows together; record the weights."""
        left = is_open & leaves[:, None]
        if self._weighing.has_several and left.any():
            bounds = found.outputs(self._rows.functionals)
            closed, _ = self._weighing.closed(found, bounds, self._rows.shifted(bounds.lower), left)
            for box, weights in closed.items():
                self._tree.weights[batch[box].node] = weights
                is_open[box] = False

    def _split(self, one: _Box) -> bool:
        """Split a leaf in the middle of its widest side; return whether a number lies there."""
        self._tree.weights.pop(one.node, None)
        j = int(np.argmax((one.hi - one.lo) / self._widths))
        middle = float(one.lo[j] / 2 + one.hi[j] / 2)
        if not one.lo[j] < middle < one.hi[j]:
            return False
        self._tree.split(one.node, j, middle)
        self._budget.spend(2)  # the walk over what was recorded costs nothing: it is as long as the search was
        return True

    def _children(self, one: _Box) -> list[_Box]:
        j, first = self._tree.inputs[one.node], self._tree.children[one.node]
        low_hi, high_lo = one.hi.copy(), one.lo.copy()
        low_hi[j] = high_lo[j] = self._tree.cuts[one.node]
        return [replace(one, node=first, hi=low_hi), replace(one, node=first + 1, lo=high_lo)]
