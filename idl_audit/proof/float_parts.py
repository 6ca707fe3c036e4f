"""Rows over parts of a set as they are computed: what roundings may change over a part is less than over the whole.

Where the set is split, rows are bounded over each part in exact arithmetic. A part is closed where such a bound exceeds
what roundings may change in the row over that part, by bounds of the states that hold there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.float_margins import FloatMargins
from idl_audit.proof.rows import Rows
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.query import Misclassification, Query
from idl_audit.values.rounding import down


@dataclass(frozen=True, eq=False)
class FloatParts:
    """The rows of a query over parts of its set."""

    margins: FloatMargins
    query: Query
    """As it is asked: its offsets are not lowered."""

    @cached_property
    def rows(self) -> Rows:
        """The rows and sums of rows of all alternatives."""
        return Rows.of(self.query)

    def best(
        self,
        lower: FloatArray,
        wanted: BoolArray,
        inputs: Interval,
        states: StateBounds,
        *,
        check: Check = unchecked,
    ) -> FloatArray:
        """Return for each part the best lower bound of each alternative's computed rows, (m, a).

        Where real arithmetic leaves an alternative that is wanted open, it is that of the exact rows, and not positive.
        What roundings may change is bounded coarsely first.

        Args:
            lower: of the rows and sums in real arithmetic, offsets left out, (m, R).
            wanted: the alternatives that are to be refuted in each part, (m, a).
            inputs: the parts, (m, p).
            states: proved bounds over the parts of all states of the model of `margins`.
            check: called between parts of the finer bounds.
        """
        shifted = self.rows.shifted(lower)
        best = self.rows.best(shifted)
        found, in_real = np.minimum(best, 0.0), wanted & (best > 0)
        left = np.flatnonzero(in_real.any(axis=1))
        for sharp in (False, True) if self.margins.can_be_sharp else (False,):
            if not left.size:
                break
            errors = self.margins.over(inputs.rows(left), states.of_boxes(left), sharp=sharp, check=check)
            slack = errors.of(self.rows.functionals, ranked=isinstance(self.query, Misclassification))
            computed = self.rows.best(down(shifted[left] - slack))
            found[left] = np.fmax(found[left], computed)
            left = left[(in_real[left] & ~(found[left] > 0)).any(axis=1)]
        return found
