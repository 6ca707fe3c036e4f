"""Exact numbers, many at a time: whole numbers over one denominator, and the products of linear maps with them.

A float64 number is a whole number over a power of two, so that W x is one of whole numbers: entries of W and x are
multiplied and added as Python's integers, of any length. What a map's bounds leave open has no exact product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.linear_maps import LinearMap, Reindexed, Selection
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray

ENTRIES_AT_ONCE: Final = 2**18
"""Products that are held at a time."""
MANTISSA: Final = 53


class Inexact(Exception):
    """A number that the file does not hold: computed from others and rounded."""


@dataclass(frozen=True, eq=False)
class Exact:
    """The numbers tops / bottom, or several of each: what is done to vectors is done to the columns of matrices."""

    tops: AnyArray
    """Python's integers, (n,) or (n, columns)."""
    bottom: int
    """Above 0."""

    @classmethod
    def of_floats(cls, values: FloatArray) -> Exact:
        """Return finite float64 numbers as they are."""
        tops, shift = whole_numbers(values)
        return cls(tops, 1 << shift)

    @classmethod
    def of_fractions(cls, values: Sequence[Fraction]) -> Exact:
        """Return fractions over their least common denominator."""
        bottom = math.lcm(*(value.denominator for value in values))
        return cls(_objects([value.numerator * (bottom // value.denominator) for value in values]), bottom)

    @property
    def fractions(self) -> tuple[Fraction, ...]:
        """The same as fractions."""
        return tuple(Fraction(top, self.bottom) for top in self.tops.tolist())

    def over(self, bottom: int) -> AnyArray:
        """Return the tops over a multiple of the denominator."""
        factor = bottom // self.bottom
        return self.tops if factor == 1 else self.tops * factor

    def plus(self, other: Exact) -> Exact:
        """Return the sums."""
        bottom = math.lcm(self.bottom, other.bottom)
        return Exact(self.over(bottom) + other.over(bottom), bottom)

    def times(self, factors: FloatArray) -> Exact:
        """Return the products with float64 numbers, (n,), entry by entry."""
        whole, shift = whole_numbers(factors)
        return Exact(self.tops * whole.reshape(-1, *(1,) * (self.tops.ndim - 1)), self.bottom << shift)


def whole_numbers(values: FloatArray) -> tuple[AnyArray, int]:
    """Return (n, s) with values = n / 2^s, n of Python's integers and s >= 0 the least such.

    Raises:
        Inexact: where one is infinite or no number.
    """
    if not np.isfinite(values).all():
        raise Inexact
    mantissa, exponent = np.frexp(values)
    digits = np.ldexp(mantissa, MANTISSA).astype(np.int64)
    trailing = np.frexp((digits & -digits).astype(np.float64))[1] - 1
    odd = digits >> np.where(digits == 0, 0, trailing)
    lowest = np.where(digits == 0, 0, exponent - MANTISSA + trailing)
    shift = max(0, -int(lowest.min(initial=0)))
    left = np.where(digits == 0, 0, lowest + shift)
    if (np.abs(values) < 2.0 ** (62 - shift)).all() if shift < 1000 else False:
        return (odd << left).astype(object), shift
    return np.left_shift(odd.astype(object), left.astype(object)), shift


def product(linear_map: LinearMap, x: Exact) -> Exact:
    """Return W x.

    Raises:
        Inexact: where the map's own bounds leave W open.
    """
    if linear_map.relative or linear_map.slack is not None:
        raise Inexact
    if isinstance(linear_map, Reindexed):  # whose entries are products
        return product(linear_map.left, product(linear_map.core, product(linear_map.right, x)))
    if isinstance(linear_map, Selection):
        taken = _selected(x.tops, linear_map.index)
        chosen = Exact(taken, x.bottom)
        return chosen if linear_map.weights is None else chosen.times(linear_map.row_weights)
    return _matrix_product(linear_map.to_sparse(), x)


def _selected(tops: AnyArray, index: IntArray) -> AnyArray:
    if not len(tops):
        return zeros((index.size, *tops.shape[1:]))
    taken = tops[np.maximum(index, 0)]
    taken[index < 0] = 0
    return np.asarray(taken)


def _matrix_product(matrix: sp.csr_array, x: Exact) -> Exact:
    """Return the products of rows with x, entries that meet a 0 left out."""
    read = np.flatnonzero((x.tops != 0).reshape(len(x.tops), -1).any(axis=1))
    if read.size < len(x.tops):
        matrix, x = sp.csr_array(matrix[:, read]), Exact(x.tops[read], x.bottom)
    shift = whole_numbers(matrix.data)[1] if matrix.nnz <= ENTRIES_AT_ONCE else _shift_of(matrix.data)
    parts = [_rows_product(matrix[some], x.tops, shift) for some in _row_blocks(matrix)]
    return Exact(np.concatenate([zeros((0, *x.tops.shape[1:])), *parts]), x.bottom << shift)


def _shift_of(data: FloatArray) -> int:
    """Return the least s >= 0 for which all numbers times 2^s are whole."""
    return max(whole_numbers(data[at : at + ENTRIES_AT_ONCE])[1] for at in range(0, data.size, ENTRIES_AT_ONCE))


def _row_blocks(matrix: sp.csr_array) -> Iterator[slice]:
    """Yield rows that have about so many entries together."""
    n_rows = matrix.shape[0]
    start = 0
    while start < n_rows:
        end = int(np.searchsorted(matrix.indptr, matrix.indptr[start] + ENTRIES_AT_ONCE, side="right")) - 1
        end = min(n_rows, max(end, start + 1))
        yield slice(start, end)
        start = end


def _rows_product(rows: sp.csr_array, tops: AnyArray, shift: int) -> AnyArray:
    own, least = whole_numbers(rows.data)
    each = own.reshape(-1, *(1,) * (tops.ndim - 1)) * tops[rows.indices]
    total = zeros((rows.shape[0], *tops.shape[1:]))
    filled = np.flatnonzero(np.diff(rows.indptr))
    if filled.size:
        total[filled] = np.add.reduceat(each, rows.indptr[filled], axis=0)
    return total if shift == least else total * (1 << (shift - least))


def zeros(shape: tuple[int, ...]) -> AnyArray:
    """Return Python's integer 0, many times."""
    made = np.empty(shape, object)
    made[...] = 0
    return made


def _objects(values: list[Any]) -> AnyArray:
    made = np.empty(len(values), object)
    made[:] = values
    return made
