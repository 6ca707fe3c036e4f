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

from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import ImplicitModel
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

    def refutes(self, alternative: Conjunction) -> bool:
        """Return whether one row of an alternative holds nowhere."""
        if self._is_uncertain or alternative.rows.size > MOST_TERMS:
            return False
        rows = zip(alternative.rows, alternative.exactly, alternative.strict, strict=True)
        for row, offset, strict in rows:
            least = self.least(row)
            if least is not None and (least + offset >= 0 if strict else least + offset > 0):
                return True
        return False

    def least(self, row: FloatArray) -> Fraction | None:
        """Return a lower bound of row . y; None where there is none."""
        total = Fraction(0)
        for (source, place), coefficient in self._coefficients(row).items():
            if source == _CONSTANT:
                total += coefficient
                continue
            ends = (self.lo, self.hi) if source == INPUT else self._ends(source)
            end = ends[0][place] if coefficient > 0 else ends[1][place]
            if coefficient and end is None:
                return None
            total += coefficient * (end or Fraction(0))
        return total

    def _coefficients(self, row: FloatArray) -> Mapping[tuple[int, int], Fraction]:
        """Return what row . y is multiplied by: entries of blocks and inputs, and 1."""
        found: dict[tuple[int, int], Fraction] = {}
        constant = self.model.output.constant
        for j in np.flatnonzero(row).tolist():
            weight = Fraction(float(row[j]))
            key = (_CONSTANT, 0)
            found[key] = found.get(key, Fraction(0)) + weight * Fraction(float(constant[j]))
            for source, linear_map in self._maps():
                for place, value in _entries(linear_map, j):
                    key = (source, place)
                    found[key] = found.get(key, Fraction(0)) + weight * Fraction(value)
        return found

    def _ends(self, block: int) -> tuple[Ends, Ends]:
        found = self.states[block]
        lo, hi = ([Fraction(v) if np.isfinite(v) else None for v in ends[0].tolist()] for ends in (found.lo, found.hi))
        return lo, hi

    def _maps(self) -> Iterator[tuple[int, LinearMap]]:
        yield from self.model.output.states.items()
        if self.model.output.input is not None:
            yield INPUT, self.model.output.input

    @property
    def _is_uncertain(self) -> bool:
        maps = [linear_map for _, linear_map in self._maps()]
        uncertain = any(w.relative or w.slack is not None or w.nnz > MOST_TERMS for w in maps)
        return bool(self.model.output.constant_error) or uncertain


_CONSTANT: Final = -2
"""The source of the numbers that do not depend on the input."""


def _entries(linear_map: LinearMap, row: int) -> Iterator[tuple[int, float]]:
    """Yield the places and values of the entries in one row of a map."""
    matrix = linear_map.to_sparse()
    start, end = matrix.indptr[row], matrix.indptr[row + 1]
    yield from zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True)
