"""Lower bounds of rows of outputs in exact rational arithmetic: what holds down to the last number.

Bounds in float64 are rounded outward, so that they never show y <= 1 for y = u on [0, 1]. Here only the intervals of
the states are floats, whose ends are often exact (0 of a ReLU, 1 of a sigmoid or a comparison), and inputs are exact:

    f y + c >= sum over states and inputs of min(g lo, g hi) + c,    g = f C and f D, exactly.

Coefficients that are known within a rounding only give no bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from idl_audit.implicit.activations.jumping import Step
from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.values.arrays import FloatArray
from idl_audit.values.query import Conjunction

MOST_TERMS: Final = 2**16
"""Coefficients of the outputs that are looked at, in all."""

Ends = Sequence[Fraction | None]
"""Of each input; None where there is no bound."""


@dataclass(frozen=True, eq=False)
class ExactRanges:
    """What is known of the outputs of a model over one box."""

    model: ImplicitModel
    states: Mapping[int, Interval]
    """Block -> bounds of its x, (1, n)."""
    lo: Ends
    hi: Ends

    def refutes(self, alternative: Conjunction, slack: FloatArray) -> bool:
        """Return whether one row of an alternative holds nowhere, computed with errors up to its slack, (k,)."""
        if _is_uncertain(self.model.output) or alternative.rows.size > MOST_TERMS:
            return False
        rows = zip(alternative.rows, alternative.exactly, alternative.strict, slack.tolist(), strict=True)
        for row, offset, strict, error in rows:
            least = self.least(row) if error < np.inf else None
            if least is None:
                continue
            above = least + offset - Fraction(error)
            if above >= 0 if strict else above > 0:
                return True
        return False

    def least(self, row: FloatArray) -> Fraction | None:
        """Return a lower bound of row . y; None where there is none."""
        return self._least(self.model.output, row)

    def _least(self, affine: Affine, row: FloatArray) -> Fraction | None:
        total = Fraction(0)
        for (source, place), coefficient in self._coefficients(affine, row).items():
            if source == _CONSTANT:
                total += coefficient
            elif coefficient:
                end = self._end(source, place, lower=coefficient > 0)
                if end is None:
                    return None
                total += coefficient * end
        return total

    def _coefficients(self, affine: Affine, row: FloatArray) -> Mapping[tuple[int, int], Fraction]:
        """Return what is multiplied by what in row . (an affine map): entries of blocks and inputs, and 1."""
        found: dict[tuple[int, int], Fraction] = {}
        for j in np.flatnonzero(row).tolist():
            weight = Fraction(float(row[j]))
            key = (_CONSTANT, 0)
            found[key] = found.get(key, Fraction(0)) + weight * Fraction(float(affine.constant[j]))
            for source, linear_map in _maps(affine):
                for place, value in _entries(linear_map, j):
                    key = (source, place)
                    found[key] = found.get(key, Fraction(0)) + weight * Fraction(value)
        return found

    def _end(self, source: int, place: int, *, lower: bool) -> Fraction | None:
        """Return an end of a state or an input; None where there is none."""
        if source == INPUT:
            return (self.lo if lower else self.hi)[place]
        block = self.model.blocks[source]
        if isinstance(block.activation, Step) and not np.any(block.exponent):
            side = self._side(source, block.activation, place)
            if side is not None:
                return side
        ends = self.states[source].lo if lower else self.states[source].hi
        value = float(ends[0, place])
        return Fraction(value) if np.isfinite(value) else None

    def _side(self, block: int, step: Step, place: int) -> Fraction | None:
        """Return the value of a step, both of whose sides are level, where z is known to be on one of them."""
        below, above, jump, share = (
            np.broadcast_to(one, self.model.blocks[block].size)[place]
            for one in (step.below, step.above, step.jump, step.share)
        )
        row = self.model.rows[block]
        if below or above or _is_uncertain(row):
            return None
        one = np.zeros(row.size)
        one[place] = 1.0
        least, most = self._least(row, one), self._least(row, -one)
        if least is not None and (least >= 0 if share else least > 0):
            return Fraction(float(jump))
        if most is not None and (-most < 0 if share else -most <= 0):
            return Fraction(0)
        return None


def _maps(row: Affine) -> Iterator[tuple[int, LinearMap]]:
    yield from row.states.items()
    if row.input is not None:
        yield INPUT, row.input


def _is_uncertain(row: Affine) -> bool:
    uncertain = any(w.relative or w.slack is not None or w.nnz > MOST_TERMS for w in row.maps)
    return bool(row.constant_error) or uncertain


_CONSTANT: Final = -2
"""The source of the numbers that do not depend on the input."""


def _entries(linear_map: LinearMap, row: int) -> Iterator[tuple[int, float]]:
    """Yield the places and values of the entries in one row of a map."""
    matrix = linear_map.to_sparse()
    start, end = matrix.indptr[row], matrix.indptr[row + 1]
    yield from zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True)
