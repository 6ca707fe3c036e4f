"""Linear programs over the rationals: the simplex method on whole numbers, which rounds nothing.

max c . v over A v <= b, v >= 0, all entries whole. The dictionary holds basic variables as (b_i - sum_j a_ij v_j) / D
with one denominator D for all: pivoting on a_rs gives a_ij' = (a_ij a_rs - a_is a_rj) / D, which is whole, as entries
are minors of the first dictionary (Edmonds 1967; Bareiss 1968). Bland's rule ends it where pivots move nothing.

Pivots on long numbers are dear: float64 guesses the last dictionary first, which is a matter of a few pivots then. What
it is worth, whole numbers alone tell; a guess that is no feasible dictionary is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from idl_audit.proof.exact.numbers import zeros
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.check import Check, unchecked

STILL: Final = 8
"""Pivots that move nothing, one after the other, after which Bland's rule chooses."""
AUXILIARY: Final = -1
"""The number of the variable that makes the first dictionary feasible."""


@dataclass(frozen=True)
class Optimum:
    """A point where the greatest value is reached; or that there is no point at all."""

    is_feasible: bool
    value: Fraction = Fraction(0)
    point: tuple[Fraction, ...] = ()
    is_bounded: bool = True
    multipliers: tuple[Fraction, ...] = ()
    """>= 0, of the rows A v - b <= 0, then of -v <= 0: their sum is c . v - value for every v or, where there is no
    point, a number above 0."""


def maximise(c: AnyArray, A: AnyArray, b: AnyArray, *, check: Check = unchecked) -> Optimum:
    """Return the greatest c . v over A v <= b, v >= 0, and where it is.

    Args:
        c: Python's integers, (n,).
        A: likewise, (m, n).
        b: likewise, (m,).
        check: called at each pivot; what it raises ends the work.
    """
    tableau = _Tableau(c, A, b, check)
    if not tableau.move_to(guessed_basis(c, A, b)):
        tableau = _Tableau(c, A, b, check)
    if not tableau.make_feasible():
        return Optimum(False, multipliers=tableau.multipliers(tableau.phase))
    bounded = tableau.improve(tableau.goal)
    multipliers = tableau.multipliers(tableau.goal) if bounded else ()
    return Optimum(True, tableau.value(tableau.goal), tableau.point(), bounded, multipliers)


class _Tableau:
    """A dictionary: rows of basic variables, then that of c . v, then that of minus the auxiliary variable."""

    def __init__(self, c: AnyArray, A: AnyArray, b: AnyArray, check: Check) -> None:
        (m, n), self._check = A.shape, check
        self.n, self._m, self.goal, self.phase = n, m, m, m + 1
        self._rows, self._columns = list(range(n, n + m)), [*range(n), AUXILIARY]
        self._D = 1
        T = zeros((m + 2, n + 2))
        T[:m, :n], T[:m, n], T[:m, n + 1] = A, -1, b
        T[m, :n] = -c
        T[m + 1, n] = 1
        self._T = T

    def move_to(self, basis: set[int]) -> bool:
        """Make some variables the basic ones; tell whether that is a feasible dictionary."""
        for number in sorted(basis - set(self._rows)):
            self._check()
            column = self._columns.index(number)
            leaving = [i for i in range(self.goal) if self._rows[i] not in basis and self._T[i, column]]
            if not leaving:
                return False
            self._pivot(min(leaving, key=lambda i: abs(self._T[i, column])), column)
        return not any(value < 0 for value in self._T[: self.goal, -1])

    def make_feasible(self) -> bool:
        """Find a dictionary whose right sides are 0 or more; tell whether there is one."""
        right = self._T[: self.goal, -1]
        if len(right) and min(right) < 0:
            self._pivot(int(np.argmin(right)), self._columns.index(AUXILIARY))
        if AUXILIARY in self._rows:
            self.improve(self.phase)
            if self._T[self.phase, -1] < 0:
                return False
        self._drop_auxiliary()
        return True

    def _drop_auxiliary(self) -> None:
        if AUXILIARY in self._rows:  # at 0: another variable may stand for it
            row = self._rows.index(AUXILIARY)
            filled = np.flatnonzero(self._T[row, :-1] != 0)
            if filled.size:
                self._pivot(row, int(filled[0]))
            else:
                keep = [i for i in range(len(self._T)) if i != row]
                self._T, self._rows = self._T[keep], [*self._rows[:row], *self._rows[row + 1 :]]
                self.goal, self.phase = self.goal - 1, self.phase - 1
        if AUXILIARY in self._columns:
            column = self._columns.index(AUXILIARY)
            self._T = np.delete(self._T, column, axis=1)
            del self._columns[column]

    def improve(self, objective: int) -> bool:
        """Pivot until no variable improves an objective's row; tell whether that row has a greatest value."""
        still = 0
        while True:
            self._check()
            columns = np.flatnonzero(self._T[objective, :-1] < 0)
            if not columns.size:
                return True
            if still > STILL:
                column = min(columns.tolist(), key=lambda j: self._columns[j])
            else:
                column = int(columns[np.argmin(self._T[objective, columns])])
            row = self._leaving(column)
            if row is None:
                return False
            still = still + 1 if self._T[row, -1] == 0 else 0
            self._pivot(row, column)

    def _leaving(self, column: int) -> int | None:
        """Return the row that limits a variable first, of several that of the least variable; None where none does."""
        best: int | None = None
        for row in range(self.goal):
            a = self._T[row, column]
            if a <= 0:
                continue
            if best is None:
                best = row
                continue
            less = self._T[row, -1] * self._T[best, column] - self._T[best, -1] * a
            if less < 0 or (less == 0 and self._rows[row] < self._rows[best]):
                best = row
        return best

    def _pivot(self, row: int, column: int) -> None:
        old, p = self._T, self._T[row, column]
        new = (old * p - np.outer(old[:, column], old[row])) // self._D
        new[row] = old[row]
        new[:, column] = -old[:, column]
        new[row, column] = self._D
        self._T, self._D = (new, p) if p > 0 else (-new, -p)
        self._rows[row], self._columns[column] = self._columns[column], self._rows[row]

    def value(self, objective: int) -> Fraction:
        """Return what an objective's row is worth now."""
        return Fraction(self._T[objective, -1], self._D)

    def point(self) -> tuple[Fraction, ...]:
        """Return the values of the first n variables."""
        found = [Fraction(0)] * self.n
        for row, number in enumerate(self._rows):
            if 0 <= number < self.n:
                found[number] = Fraction(self._T[row, -1], self._D)
        return tuple(found)

    def multipliers(self, objective: int) -> tuple[Fraction, ...]:
        """Return what each row, and each variable, is worth to an objective that nothing improves."""
        found = [Fraction(0)] * (self._m + self.n)
        for column, number in enumerate(self._columns):
            if number != AUXILIARY:
                place = number - self.n if number >= self.n else self._m + number
                found[place] = Fraction(self._T[objective, column], self._D)
        return tuple(found)


# --- the guess -------------------------------------------------------------------------------------------------------

NEARLY_ZERO: Final = 1e-9
MOST_GUESSES: Final = 50
"""Pivots for each row."""
DIGITS: Final = 60


def guessed_basis(c: AnyArray, A: AnyArray, b: AnyArray) -> set[int]:
    """Return the basic variables of the last dictionary as float64 sees it; any set will do."""
    m, n = A.shape
    T = np.zeros((m + 2, n + 2))
    for i in range(m):
        T[i, [*range(n), n + 1]] = _as_floats([*A[i].tolist(), b[i]])
    T[:m, n] = -1.0
    T[m, :n] = _as_floats((-c).tolist())
    T[m + 1, n] = 1.0
    rows, columns = list(range(n, n + m)), [*range(n), AUXILIARY]
    with np.errstate(all="ignore"):
        if m and T[:m, -1].min() < 0:
            _swap(T, rows, columns, int(T[:m, -1].argmin()), n)
            _climb(T, rows, columns, m + 1)
            if AUXILIARY in rows:
                if T[m + 1, -1] < -NEARLY_ZERO:
                    return set(rows)
                row = rows.index(AUXILIARY)
                _swap(T, rows, columns, row, int(np.abs(T[row, :-1]).argmax()))
        T[:, columns.index(AUXILIARY)] = 0.0
        _climb(T, rows, columns, m)
    return set(rows)


def _as_floats(values: list[int]) -> FloatArray:
    """Return a multiple above 0 of whole numbers of any length, at most 1 in size."""
    longest = max((abs(value).bit_length() for value in values), default=0)
    shift = max(0, longest - DIGITS)
    return np.array([float(value >> shift) for value in values]) / 2.0 ** min(longest, DIGITS)


def _climb(T: FloatArray, rows: list[int], columns: list[int], objective: int) -> None:
    m = len(rows)
    for _ in range(MOST_GUESSES * (m + 1)):
        column = int(T[objective, :-1].argmin())
        if not T[objective, column] < -NEARLY_ZERO:
            return
        rising = T[:m, column] > NEARLY_ZERO
        if not rising.any():
            return
        ratios = np.where(rising, T[:m, -1] / np.where(rising, T[:m, column], 1.0), np.inf)
        _swap(T, rows, columns, int(ratios.argmin()), column)


def _swap(T: FloatArray, rows: list[int], columns: list[int], row: int, column: int) -> None:
    p, own, entering = T[row, column], T[row].copy(), T[:, column].copy()
    T -= np.outer(entering, own / p)
    T[row], T[:, column] = own / p, -entering / p
    T[row, column] = 1 / p
    rows[row], columns[column] = columns[column], rows[row]
