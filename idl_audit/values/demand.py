"""What may be demanded of the outputs at every point of a set around a sample, beside one class.

`Limits`: outputs stay on their side of numbers (a regression moves by at most so much, a score stays above T, each of
several labels stays what it is). `AmongFirst`: a class stays among the k with the largest outputs. `PixelClasses`: each
pixel of a segmentation keeps its class. What consists of several statements has *parts*, numbered as the outputs or
pixels are; each part has a verdict of its own.

Elsewhere: output specification, top-k robustness, multi-label robustness, pixel-wise certified accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb
from typing import Final, TypeAlias

import numpy as np

from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import rivals
from idl_audit.values.query import Conjunction, Exactly, SampleQuery
from idl_audit.values.rounding import LEAST

MOST_COMBINATIONS: Final = 512
"""Combinations of k rivals that a query names; where there are more, nothing is proved of them."""
MOST_ENTRIES: Final = 2**22
"""Of the rows of one query: parts beyond it wait for the next one, and combinations of rivals are too many."""
MOST_IN_A_CLAIM: Final = 2**25
"""Of the rows of all queries that a certificate is about."""


@dataclass(frozen=True, eq=False)
class PartedQuery(SampleQuery):
    """A query whose counterexamples break one of several statements."""

    of: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of each alternative, the number of the part that it breaks, shape (a,)."""

    def broken(self, outputs: FloatArray) -> IntArray:
        """Return the numbers of the parts that one output vector, shape (q,), breaks, ascending."""
        raise NotImplementedError

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs, shape (m, q), whether it breaks a part."""
        return np.asarray([self.broken(row).size > 0 for row in outputs], np.bool_)


# --- limits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Limits:
    """Each named output y stays on its side of a number v: y >= v or y <= v, where it is strict y > v or y < v.

    A part is an output. One that is no number is on no side.
    """

    outputs: IntArray
    """Shape (m,); an output may have one limit on each side."""
    sides: IntArray
    """+1 for y >= v, -1 for y <= v."""
    values: FloatArray
    """v, finite."""
    strict: BoolArray
    """Whether y = v breaks it."""

    @property
    def parts(self) -> IntArray:
        """The outputs that have a limit, ascending."""
        return np.unique(self.outputs)

    def only(self, parts: IntArray) -> Limits:
        """Return the limits of some outputs."""
        some = np.isin(self.outputs, parts)
        return Limits(self.outputs[some], self.sides[some], self.values[some], self.strict[some])

    def query(self, inputs: InputSet, n_outputs: int) -> LimitsQuery:
        """Return the query for a point where an output is beyond its limit: side (y - v) < 0, or <= 0."""
        rows = np.zeros((self.outputs.size, n_outputs))
        rows[np.arange(self.outputs.size), self.outputs] = self.sides
        offsets = -self.sides * self.values
        alternatives = tuple(
            Conjunction(row[None], offset[None], (), np.array([not strict]))
            for row, offset, strict in zip(rows, offsets, self.strict, strict=True)
        )
        return LimitsQuery(inputs, alternatives, self.outputs, self)

    def entries(self, parts: int, n_outputs: int) -> int:
        """Return how many numbers the rows of a query about so many parts have, at most: two limits on each side."""
        return 4 * parts * n_outputs

    def interval(self, lowers: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return between which numbers each part is proved to stay, (parts,) each; infinite where nothing is known.

        Args:
            lowers: proved lower bounds of side (y - v) for each limit, (m,): y >= v + lower, or y <= v - lower.
        """
        places = np.searchsorted(self.parts, self.outputs)
        least, greatest = np.full(self.parts.size, -np.inf), np.full(self.parts.size, np.inf)
        with np.errstate(invalid="ignore"):
            below = np.nextafter(self.values + np.where(np.isnan(lowers), -np.inf, lowers), -np.inf)
            above = np.nextafter(self.values - np.where(np.isnan(lowers), -np.inf, lowers), np.inf)
        up = self.sides > 0
        np.maximum.at(least, places[up], below[up])
        np.minimum.at(greatest, places[~up], above[~up])
        return least, greatest


@dataclass(frozen=True, eq=False)
class LimitsQuery(PartedQuery):
    """Is there a point where an output is beyond its limit?"""

    limits: Limits | None = None

    def _kept(self, outputs: FloatArray) -> BoolArray:
        """Return which limits outputs keep, (m, q) -> (m, limits); a comparison with what is no number is false."""
        assert self.limits is not None
        beyond = self._room(outputs)
        return np.where(self.limits.strict, beyond > 0, beyond >= 0)

    def _room(self, outputs: FloatArray) -> FloatArray:
        """Return side (y - v), whose sign is exact."""
        assert self.limits is not None
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(self.limits.sides * (outputs[:, self.limits.outputs] - self.limits.values))

    def broken(self, outputs: FloatArray) -> IntArray:
        """Return the outputs beyond a limit."""
        return np.unique(self.of[~self._kept(outputs[None])[0]])

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs whether one is beyond its limit."""
        return np.asarray(~self._kept(outputs).all(axis=1))

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return the least room, shape (m,): above 0 where all limits are kept."""
        assert self.limits is not None
        room = self._room(outputs)
        return np.asarray(np.where(~self.limits.strict & (room == 0), LEAST, room).min(axis=1))


def within(reference: FloatArray, delta: float, outputs: IntArray) -> Limits:
    """Return that outputs stay between reference - delta and reference + delta, ends included.

    The ends are rounded inward to float64: no float64 number lies between them and the exact ones.
    """
    low, high = _end(reference[outputs], -delta), _end(reference[outputs], delta)
    sides = np.repeat([1, -1], outputs.size)
    ends = np.concatenate([low, high])
    return Limits(np.tile(outputs, 2), sides, ends, np.zeros(ends.size, np.bool_))


def _end(values: FloatArray, change: float) -> FloatArray:
    """Return values + change, rounded towards the values."""
    total = values + change
    virtual = total - values
    error = (values - (total - virtual)) + (change - virtual)  # exact: total + error = values + change (Knuth)
    past = error < 0 if change > 0 else error > 0
    return np.where(past, np.nextafter(total, -np.inf if change > 0 else np.inf), total)


def labels_kept(labels: IntArray, threshold: float) -> Limits:
    """Return that every output stays on the side of the threshold that its label says: 1 above it, 0 not."""
    on = labels > 0
    n = labels.size
    return Limits(np.arange(n), np.where(on, 1, -1), np.full(n, threshold), np.asarray(on, np.bool_))


# --- top k -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AmongFirst:
    """Fewer than k other classes come before the label: have a larger output, or an equal one and a smaller number.

    With the rivals `below`, each of which is proved to stay below the label everywhere, it is enough that no k of the
    others reach it at once (docs/mathematics.md, section 7.9).
    """

    label: int
    k: int
    below: tuple[int, ...] = ()

    def others(self, n_outputs: int) -> IntArray:
        """Return the rivals that may reach the label."""
        return np.setdiff1d(rivals(n_outputs, self.label), self.below)

    def is_small(self, n_outputs: int) -> bool:
        """Return whether all combinations of k rivals that may reach the label at once are few enough to be named."""
        most = min(MOST_COMBINATIONS, MOST_ENTRIES // (self.k * n_outputs))
        return comb(self.others(n_outputs).size, self.k) <= most

    def query(
        self, inputs: InputSet, n_outputs: int, most: int = MOST_COMBINATIONS, nearest: FloatArray | None = None
    ) -> TopQuery:
        """Return the query: each rival of `below` reaching the label, and each combination of k others doing so.

        Args:
            inputs: the set.
            n_outputs: q.
            most: combinations that are named; refuting those that are says nothing where there are more.
            nearest: outputs at a point, of which the largest are combined first; None: in the order of their numbers.
        """
        others = self.others(n_outputs)
        if nearest is not None:
            others = others[np.argsort(-nearest[others], kind="stable")]
        margin = np.zeros((n_outputs, n_outputs))
        margin[:, self.label] += 1
        margin -= np.eye(n_outputs)
        few = [(j,) for j in self.below]
        for number, some in enumerate(combinations(others.tolist(), self.k)):
            if number == most:
                break
            few.append(some)
        alternatives = tuple(Conjunction(margin[list(some)], np.zeros(len(some))) for some in few)
        return TopQuery(inputs, alternatives, self.label, self.k)


@dataclass(frozen=True, eq=False)
class TopQuery(SampleQuery):
    """Is there a point where the label is not among the k largest outputs, of equal ones those of smaller number?

    Where an output is no number there is no order, and the label is not among the first.
    """

    label: int
    k: int

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs, shape (m, q), whether k others come before the label."""
        own = outputs[:, [self.label]]
        before = (outputs > own) | ((outputs == own) & (np.arange(outputs.shape[1]) < self.label))
        return np.asarray((before.sum(axis=1) >= self.k) | ~np.isfinite(outputs).all(axis=1))

    def holds_between(self, lo: Exactly, hi: Exactly) -> bool | None:
        """Return whether k others come before the label at all outputs between lo and hi, or at none; else None."""
        one, q = self.label, len(lo)
        surely = sum(lo[j] > hi[one] or (lo[j] >= hi[one] and j < one) for j in range(q) if j != one)
        perhaps = sum(hi[j] > lo[one] or (hi[j] >= lo[one] and j < one) for j in range(q) if j != one)
        return True if surely >= self.k else False if perhaps < self.k else None

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return y_label minus the k-th largest of the others, shape (m,)."""
        others = np.sort(np.delete(outputs, self.label, axis=1), axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(outputs[:, self.label] - others[:, -self.k])

    def nearest(self, outputs: FloatArray, count: int) -> IntArray:
        """Return the numbers of the points where it is not among the first, then of the nearest ones to it."""
        distance = self.distance(outputs)
        far = np.where(np.isfinite(distance), distance, np.inf)
        order: IntArray = np.lexsort((far, ~self.holds(outputs)))
        return order[:count]


# --- segmentation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PixelClasses:
    """Each pixel keeps its class: the largest of its C outputs, of equal ones the first; output c P + p is class c.

    A part is a pixel.
    """

    labels: IntArray
    """Of all P pixels, (P,)."""
    classes: int
    """C."""
    parts: IntArray
    """The pixels that are asked about, ascending."""

    def only(self, parts: IntArray) -> PixelClasses:
        """Return the demand on some pixels."""
        return replace(self, parts=np.sort(parts))

    def entries(self, parts: int, n_outputs: int) -> int:
        """Return how many numbers the rows of a query about so many parts have."""
        return parts * (self.classes - 1) * n_outputs

    def query(self, inputs: InputSet, n_outputs: int) -> PixelQuery:
        """Return the query for a point where a pixel has another class: an alternative for each pixel and rival."""
        size, of, alternatives = self.labels.size, [], []
        for pixel in self.parts.tolist():
            label = int(self.labels[pixel])
            for rival in rivals(self.classes, label).tolist():
                row = np.zeros((1, n_outputs))
                row[0, label * size + pixel], row[0, rival * size + pixel] = 1.0, -1.0
                alternatives.append(Conjunction(row, np.zeros(1)))
                of.append(pixel)
        return PixelQuery(inputs, tuple(alternatives), np.asarray(of, np.int64), self)


@dataclass(frozen=True, eq=False)
class PixelQuery(PartedQuery):
    """Is there a point where a pixel has another class? Where an output of a pixel is no number, it has none."""

    pixels: PixelClasses | None = None

    def _of_parts(self, outputs: FloatArray) -> FloatArray:
        """Return the outputs of the pixels that are asked about, (m, q) -> (m, C, parts)."""
        assert self.pixels is not None
        return outputs.reshape(len(outputs), self.pixels.classes, -1)[:, :, self.pixels.parts]

    def _wrong(self, outputs: FloatArray) -> BoolArray:
        assert self.pixels is not None
        own = self._of_parts(outputs)
        labels = self.pixels.labels[self.pixels.parts]
        return np.asarray((own.argmax(axis=1) != labels) | ~np.isfinite(own).all(axis=1))

    def broken(self, outputs: FloatArray) -> IntArray:
        """Return the pixels of another class."""
        assert self.pixels is not None
        return np.asarray(self.pixels.parts[self._wrong(outputs[None])[0]])

    def holds(self, outputs: FloatArray) -> BoolArray:
        """Return for each row of outputs whether a pixel has another class."""
        return np.asarray(self._wrong(outputs).any(axis=1))

    def holds_between(self, lo: Exactly, hi: Exactly) -> bool | None:
        """Return whether a pixel has another class at all outputs between lo and hi, or at none; None if unknown."""
        assert self.pixels is not None
        size, found = self.pixels.labels.size, []
        for pixel in self.pixels.parts.tolist():
            places = range(pixel, size * self.pixels.classes, size)
            found.append(_another([lo[i] for i in places], [hi[i] for i in places], int(self.pixels.labels[pixel])))
        return True if True in found else None if None in found else False

    def distance(self, outputs: FloatArray) -> FloatArray:
        """Return the least margin of a pixel, shape (m,)."""
        assert self.pixels is not None
        own = self._of_parts(outputs)
        labels = self.pixels.labels[self.pixels.parts][None, None]
        right = np.take_along_axis(own, np.broadcast_to(labels, (len(own), 1, labels.shape[-1])), axis=1)[:, 0]
        others = np.where(np.arange(self.pixels.classes)[None, :, None] == labels, -np.inf, own).max(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray((right - others).min(axis=1))

    def nearest(self, outputs: FloatArray, count: int) -> IntArray:
        """Return the numbers of the points where a pixel has another class, then of the nearest ones to it."""
        distance = self.distance(outputs)
        far = np.where(np.isfinite(distance), distance, np.inf)
        order: IntArray = np.lexsort((far, ~self.holds(outputs)))
        return order[:count]


def _another(lo: Exactly, hi: Exactly, label: int) -> bool | None:
    """Return whether the largest of some outputs, of equal ones the first, is surely not the label's, or surely is."""
    others = [j for j in range(len(lo)) if j != label]
    if any(lo[j] > hi[label] or (lo[j] >= hi[label] and j < label) for j in others):
        return True
    wins = all(lo[label] > hi[j] or (lo[label] >= hi[j] and label < j) for j in others)
    return False if wins else None


Parted: TypeAlias = Limits | PixelClasses
Demand: TypeAlias = Limits | AmongFirst | PixelClasses


def in_groups(demand: Parted, parts: IntArray, n_outputs: int) -> Sequence[IntArray]:
    """Return parts in groups of which each makes one query of a size that fits."""
    each = max(1, MOST_ENTRIES // demand.entries(1, n_outputs))
    return [parts[at : at + each] for at in range(0, parts.size, each)]
