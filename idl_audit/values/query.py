"""Queries (specifications): is there an input of a box whose outputs satisfy one of several systems of inequalities?

A robustness margin asks for y_label - y_j <= 0 for some rival j; a VNN-LIB property asks the same in general: a
counterexample is a point u of the box with rows y(u) + offsets <= 0, all rows of one of the alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.box import Box, InputSet, SparseBall
from idl_audit.values.margins import margin_functionals


@dataclass(frozen=True, eq=False)
class Conjunction:
    """All of rows y + offsets <= 0: one alternative of a query."""

    rows: FloatArray
    """Shape (k, q), exact numbers."""
    offsets: FloatArray
    """Shape (k,), rounded downward: rows y + offsets > 0 proves that the exact row is violated."""
    exact_offsets: tuple[Fraction, ...] = ()
    """The offsets as they were written; those above where left out."""

    def holds(self, outputs: FloatArray) -> bool:
        """Return whether one output vector, shape (q,), satisfies every row, in exact arithmetic."""
        if not np.isfinite(outputs).all():
            return False
        offsets = self.exact_offsets or tuple(Fraction(float(c)) for c in self.offsets)
        y = [Fraction(float(value)) for value in outputs]
        return all(
            sum((Fraction(float(g)) * y[j] for j, g in enumerate(row) if g), offset) <= 0
            for row, offset in zip(self.rows, offsets, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Query:
    """The set and the alternatives of a counterexample."""

    box: Box
    alternatives: tuple[Conjunction, ...]
    sparse: SparseBall | None = None
    """The set itself where it is U_card; the box is then the least one around it."""

    @classmethod
    def misclassification(cls, inputs: InputSet, n_outputs: int, label: int) -> Query:
        """Return the query whose counterexamples lie in the set and have y_label <= y_j for some other j."""
        rows = margin_functionals(n_outputs, label)
        alternatives = tuple(Conjunction(row[None], np.zeros(1)) for row in rows)
        return cls(inputs.hull, alternatives, None if isinstance(inputs, Box) else inputs)

    @property
    def inputs(self) -> InputSet:
        """The set that a counterexample lies in."""
        return self.box if self.sparse is None else self.sparse

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs, shape (m, q), whether it makes its point a counterexample, exactly."""
        return np.asarray([any(c.holds(row) for c in self.alternatives) for row in outputs], np.bool_)

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return min over alternatives of max over rows of (rows y + offsets), shape (m,): to be made <= 0."""
        worst = [(outputs @ c.rows.T + c.offsets).max(axis=1) for c in self.alternatives]
        return np.asarray(np.min(worst, axis=0))
