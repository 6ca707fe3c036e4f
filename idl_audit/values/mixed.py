"""Sets of rows of a table: some inputs move within intervals, others take certain values alone, together or apart.

A `Choice` is a feature with finitely many values: a whole number, one column of them, or a category, one column each of
which one is 1. A `Cell` allows some values of each choice. Its hull is the least box around it; where one value of each
choice is left, the hull has valid rows alone.

Elsewhere: tabular data, mixed-integer perturbations, one-hot features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.linear_rules import LinearRule, kept, towards

MOST_ROWS: Final = 2**40
"""Beyond which nobody counts."""


@dataclass(frozen=True, eq=False)
class Choice:
    """A feature with finitely many values, each a row of float32 numbers for its inputs."""

    columns: tuple[int, ...]
    values: FloatArray
    """Shape (m, columns), all rows different; of one column ascending."""

    def half(self, first: bool) -> Choice:
        """Return the choice of one half of the values."""
        middle = len(self.values) // 2
        return replace(self, values=self.values[:middle] if first else self.values[middle:])


@dataclass(frozen=True, eq=False)
class Cell:
    """Rows whose other inputs lie in a box, and whose choices are among these."""

    box: Box
    """What it says of the inputs of choices does not count."""
    choices: tuple[Choice, ...]
    rules: tuple[LinearRule, ...] = ()
    """What rows satisfy beside: the hull is around more."""

    @property
    def hull(self) -> Box:
        """The least box around the cell."""
        ends = [self.box.lo.copy(), self.box.hi.copy(), self.box.inner_lo.copy(), self.box.inner_hi.copy()]
        for choice in self.choices:
            where = list(choice.columns)
            least, greatest = choice.values.min(axis=0), choice.values.max(axis=0)
            ends[0][where] = ends[2][where] = least
            ends[1][where] = ends[3][where] = greatest
        lo, hi, inner_lo, inner_hi = ends
        return Box(lo, hi, inner_lo, inner_hi, self.box.point_type)

    @property
    def is_settled(self) -> bool:
        """Whether each choice has one value left: the hull is the cell."""
        return all(len(choice.values) == 1 for choice in self.choices)

    @property
    def n_choices(self) -> int:
        """Combinations of values, counted up to `MOST_ROWS`."""
        return min(MOST_ROWS, math.prod(len(choice.values) for choice in self.choices))

    def halves(self, number: int) -> tuple[Cell, Cell]:
        """Return the two cells that a choice's values make, half of them each."""
        one, other = (
            replace(
                self, choices=(*self.choices[:number], self.choices[number].half(first), *self.choices[number + 1 :])
            )
            for first in (True, False)
        )
        return one, other

    def contains(self, points: Float32Array) -> BoolArray:
        """Return which points, (m, p), are rows of the cell, exactly."""
        moved = np.array(points, np.float64)
        inside = np.ones(len(points), np.bool_)
        for choice in self.choices:
            where = list(choice.columns)
            inside &= (moved[:, None, where] == choice.values[None]).all(axis=2).any(axis=1)
            moved[:, where] = self.box.inner_lo[where]
        inside &= self.box.contains(moved)
        where_ = np.flatnonzero(inside) if self.rules else np.zeros(0, np.int64)
        inside[where_] = kept(self.rules, points[where_])
        return np.asarray(inside)

    def mended(self, rows: Float32Array) -> Float32Array:
        """Return rows moved towards the rules, by inputs without values of their own."""
        if not self.rules:
            return rows
        frozen = np.zeros(self.box.size, np.bool_)
        for choice in self.choices:
            frozen[list(choice.columns)] = True
        return towards(self.rules, rows, self.box, frozen)

    def rows(self, points: FloatArray, picks: Sequence[IntArray]) -> Float32Array:
        """Return rows of the cell near points, (m, p), with the chosen values, one number (m,) for each choice."""
        made = self.box.project(points)
        for choice, pick in zip(self.choices, picks, strict=True):
            made[:, list(choice.columns)] = choice.values[pick]
        return made

    def nearest(self, points: FloatArray) -> Float32Array:
        """Return for each point the row of the cell whose choices are nearest to it."""
        picks = []
        for choice in self.choices:
            far = np.abs(points[:, None, list(choice.columns)] - choice.values[None]).sum(axis=2)
            picks.append(far.argmin(axis=1))
        return self.rows(points, picks)
