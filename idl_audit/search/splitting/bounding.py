"""How boxes are bounded: by affine forms alone, or by lines backwards for every state that bends as well.

Lines are tighter and cost a pass for each state that bends; forms cost a product for each input. Where forms leave rho
times the gap that lines leave, boxes must be about rho^(1/2) times narrower to be refuted (gaps go with the square of
the width), in each of f inputs, so that there are rho^(f/2) times as many: lines pay where that is more than what they
cost. A few boxes that stay open are bounded both ways, again and again as boxes become smaller. What is chosen changes
the time, no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.box_bounds import BoxBounds, bounded
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.check import Check

FORM = 3.0
"""What a number of a form costs, in numbers of a backward pass."""
MOST_TRIED = 4
"""Boxes of a trial."""
AGAIN = 4
"""There is a trial each time so many times as many boxes were bounded."""


class Bounding:
    """The bounds of one tree of boxes: forms to begin with."""

    def __init__(self, model: ImplicitModel, free: IntArray) -> None:
        """Take the model, and the inputs that move."""
        self._model, self._free = model, free
        self._next = 0.0
        self.by_lines = False

    def over(self, inputs: Interval, known: Mapping[int, Interval] | None, check: Check) -> BoxBounds:
        """Return bounds of all states over some boxes, (m, p), by what is chosen now."""
        return bounded(self._model, inputs, self._free, known, by_lines=self.by_lines, check=check)

    def otherwise(self, inputs: Interval, known: Mapping[int, Interval] | None, check: Check) -> BoxBounds:
        """Return bounds of all states over some boxes, (m, p), by what is not chosen now."""
        return bounded(self._model, inputs, self._free, known, by_lines=not self.by_lines, check=check)

    def to_try(self, boxes: int, states: StateBounds) -> int:
        """Return how many boxes are to be bounded both ways now; forms alone must have cost what a trial costs.

        Args:
            boxes: how many were bounded so far.
            states: the bounds over some of them.
        """
        if boxes < self._next:
            return 0
        affordable = boxes if self.by_lines else int(boxes / (2 * self._cost(states)))
        self._next = AGAIN * boxes if affordable else 2 * self._cost(states)
        return min(MOST_TRIED, affordable)

    def choose(self, own: BoxBounds, other: BoxBounds, own_gaps: FloatArray, other_gaps: FloatArray) -> None:
        """Choose by the gaps that both bounds leave of the same boxes, each (s,)."""
        (forms, by_forms), (_, by_lines) = (own, own_gaps), (other, other_gaps)
        if self.by_lines:
            (forms, by_forms), by_lines = (other, other_gaps), own_gaps
        rho = np.divide(by_forms, by_lines, out=np.ones_like(by_forms), where=by_lines > 0)
        more = float(np.median(rho)) ** (self._free.size / 2)
        self.by_lines = more > self._cost(forms.states)

    def _cost(self, states: StateBounds) -> float:
        """Return how many boxes forms bound while lines bound one: numbers of all backward passes by those of forms."""
        blocks, older, numbers = self._model.blocks, self._model.n_inputs, 0.0
        for k in self._model.evaluation_order:
            if self._model.rows[k].states:
                numbers += 2 * older * float(states.unstable(k, blocks[k]).sum(axis=1).mean())
            older += blocks[k].size
        return max(1.0, numbers) / (FORM * (3 + self._free.size) * older)
