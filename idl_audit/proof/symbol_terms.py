"""What symbols do to the values of a block, kept for the values that they reach alone, and taken through linear maps.

A zonotope of many symbols is a matrix of a row a value. Rows that are zero are not kept: values that no symbol of a
group reaches, and states that are one number over the box. A convolution then is a product for each pixel of its
output, of the kernel's entries for what the pixel reads and is there with these rows: dead states, padding and what is
outside of a symbol's window cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.check import Check


@dataclass(frozen=True, eq=False)
class Terms:
    """The coefficients of a group of s symbols in n values."""

    place: IntArray
    """(n,): the row of each value; -1 where no symbol of the group reaches it."""
    rows: FloatArray
    """(r, s)."""

    @classmethod
    def of(cls, n: int, values: IntArray, rows: FloatArray) -> Terms:
        """Return rows, (r, s), of some of n values, (r,)."""
        place = np.full(n, -1, np.int64)
        place[values] = np.arange(values.size)
        return cls(place, rows)

    @property
    def reached(self) -> BoolArray:
        """Which values have a row, (n,)."""
        return self.place >= 0

    @property
    def count(self) -> int:
        """s."""
        return int(self.rows.shape[1])

    @property
    def sums(self) -> FloatArray:
        """Sums of absolute values, up to their rounding, (n,)."""
        total = np.zeros(self.place.size)
        values = np.flatnonzero(self.reached)
        at_once = max(1, NUMBERS_AT_ONCE // max(1, self.count))
        for start in range(0, values.size, at_once):
            some = values[start : start + at_once]
            total[some] = np.abs(self.rows[self.place[some]]).sum(axis=1)
        return total

    def scaled(self, factors: FloatArray, kept: BoolArray) -> Terms:
        """Return those of factors * value for the values that are kept; these terms are used up."""
        place = np.where(kept, self.place, -1)
        bent = np.flatnonzero((place >= 0) & (factors != 1))
        self.rows[place[bent]] *= factors[bent, None]
        return Terms(place, self.rows)


NUMBERS_AT_ONCE: Final = 2**17
"""Numbers of rows that are looked at a time: what stays near the cache."""


def summed(one: Terms, other: Terms) -> Terms:
    """Return the terms of a sum; the first are used up."""
    values = np.flatnonzero(other.reached)
    new = values[one.place[values] < 0]
    if new.size:
        place = one.place.copy()
        place[new] = len(one.rows) + np.arange(new.size)
        one = Terms(place, np.concatenate([one.rows, np.zeros((new.size, one.count))]))
    values = values[np.argsort(one.place[values])]
    at_once = max(1, NUMBERS_AT_ONCE // max(1, one.count))
    for start in range(0, values.size, at_once):
        some = values[start : start + at_once]
        one.rows[one.place[some]] += other.rows[other.place[some]]
    return one


def pushed(
    linear_map: LinearMap, groups: Sequence[Terms], wanted: BoolArray, most: int, check: Check
) -> list[Terms] | None:
    """Return the terms of W x from those of x for the values that are wanted, (n_out,); none shares memory with x's.

    Each number is a sum of `row_terms` products, some of which are left out as they are 0. None where there would be
    more than `most` numbers.
    """
    if isinstance(linear_map, Convolution):
        return _through_convolution(linear_map, groups, wanted, most, check)
    if isinstance(linear_map, Reindexed):
        return _through_factors(linear_map, groups, wanted, most, check)
    readers = linear_map.column_terms if isinstance(linear_map, Selection) else wanted.size
    count = int(np.count_nonzero(wanted))
    if sum(terms.count * min(count, len(terms.rows) * readers) for terms in groups) > most:
        return None
    made = []
    for terms in groups:
        check()
        if isinstance(linear_map, Selection):
            made.append(_through_selection(linear_map, terms, wanted))
        else:
            made.append(_through_matrix(linear_map, terms, wanted))
    return made


def _through_selection(selection: Selection, terms: Terms, wanted: BoolArray) -> Terms:
    index = np.where(wanted, selection.index, -1)
    row = np.where(index >= 0, terms.place[index], -1)
    values = np.flatnonzero(row >= 0)
    rows = terms.rows[row[values]]
    if selection.weights is not None:
        rows *= selection.weights[values, None]
    return Terms.of(wanted.size, values, rows)


def _through_factors(
    linear_map: Reindexed, groups: Sequence[Terms], wanted: BoolArray, most: int, check: Check
) -> list[Terms] | None:
    left, core, right = linear_map.left, linear_map.core, linear_map.right
    inner = np.zeros(core.n_out, np.bool_)
    read = left.index[wanted]
    inner[read[read >= 0]] = True
    found: list[Terms] | None = list(groups)
    for step, of in ((right, np.ones(right.n_out, np.bool_)), (core, inner), (left, wanted)):
        found = None if found is None else pushed(step, found, of, most, check)
    return found


def _through_matrix(linear_map: LinearMap, terms: Terms, wanted: BoolArray) -> Terms:
    values, sources = np.flatnonzero(wanted), np.flatnonzero(terms.reached)
    rows = terms.rows[terms.place[sources]]
    if isinstance(linear_map, Dense):
        return Terms.of(wanted.size, values, linear_map.matrix[np.ix_(values, sources)] @ rows)
    part = sp.csr_array(linear_map.to_sparse()[values][:, sources])
    reached: BoolArray = np.asarray(np.diff(part.indptr) > 0)
    return Terms.of(wanted.size, values[reached], np.asarray(part[reached] @ rows))


def _through_convolution(
    convolution: Convolution, groups: Sequence[Terms], wanted: BoolArray, most: int, check: Check
) -> list[Terms] | None:
    reads = convolution.reads
    made = [_room(convolution, reads, terms, wanted) for terms in groups]
    if sum(terms.rows.size for terms in made) > most:
        return None
    image = wanted.reshape(convolution.groups, -1, len(reads))
    there = np.zeros(convolution.n_in, np.bool_)
    for terms in groups:
        there |= terms.reached
    kernels = np.ascontiguousarray(convolution.kernel_rows.transpose(0, 2, 1))
    channels_in = int(convolution.kernel.shape[1])
    for pixel, (taps, spots) in enumerate(_inside(reads)):
        check()
        for group, kernel in enumerate(kernels):
            channels = np.flatnonzero(image[group, :, pixel])
            if not channels.size:
                continue
            inner = np.arange(channels_in)
            sources = ((group * channels_in + inner) * convolution.pixels_in + spots[:, None]).ravel()
            alive = there[sources]
            sources = sources[alive]
            weights = kernel[(taps[:, None] * channels_in + inner).ravel()[alive]]
            if channels.size < weights.shape[1]:
                weights = weights[:, channels]
            first = (group * image.shape[1] + channels[0]) * len(reads) + pixel
            for terms, result in zip(groups, made, strict=True):
                start = result.place[first]
                if start >= 0:
                    _multiply(weights, terms, sources, result.rows[start : start + channels.size])
    return made


def _multiply(weights: FloatArray, terms: Terms, sources: IntArray, into: FloatArray) -> None:
    """Put weights^T (rows of the sources), (channels, s), into an array."""
    places = terms.place[sources]
    if places.min(initial=0) < 0:
        there = places >= 0
        weights, places = weights[there], places[there]
    np.matmul(weights.T, terms.rows[places], out=into)


def _room(convolution: Convolution, reads: IntArray, terms: Terms, wanted: BoolArray) -> Terms:
    """Return zeros for the values that a group reaches, pixel after pixel, the channels of each in a row."""
    before: BoolArray = np.asarray(terms.reached.reshape(convolution.channels_in, -1).any(axis=0))
    after: BoolArray = np.asarray((before[reads] & (reads >= 0)).any(axis=1))
    pixels, channels = np.nonzero(wanted.reshape(convolution.channels_out, -1).T & after[:, None])
    return Terms.of(wanted.size, channels * len(reads) + pixels, np.zeros((pixels.size, terms.count)))


def _inside(reads: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Return for each pixel the taps that read the image, and what they read."""
    return [(taps, spots[taps]) for spots in reads for taps in [np.flatnonzero(spots >= 0)]]
