"""Arrays whose rows are read when they are asked for: in memory, in an open file, or in several one behind the other.

A row is p numbers that lie together: sample i of an array in C order is the numbers [i p, (i + 1) p).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from idl_audit.values.arrays import AnyArray, IntArray


class Store(Protocol):
    """An array of samples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, samples first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type."""

    def take(self, places: IntArray, p: int) -> AnyArray:
        """Return rows of p numbers, shape (m, p); float64 where one is missing and the number type has no NaN."""


def whole(store: Store) -> AnyArray:
    """Return all of an array, in its shape."""
    if isinstance(store, Memory):
        return store.array
    n, *rest = store.shape or (1,)
    return store.take(np.arange(n), math.prod(rest)).reshape(store.shape)


@dataclass(frozen=True, eq=False)
class Memory:
    """An array that is there as a whole, in C order."""

    array: AnyArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its number type."""
        return self.array.dtype

    def take(self, places: IntArray, p: int) -> AnyArray:
        """Return rows."""
        rows: AnyArray = self.array.reshape(-1, p)[places]
        return rows


@dataclass(frozen=True, eq=False)
class Filed:
    """An array in a file, in C order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], bytes]
    """(first byte of the array, how many) -> the bytes, all of them. Raises DataError where they are not there."""

    def take(self, places: IntArray, p: int) -> AnyArray:
        """Return rows, those that lie together read at once."""
        size = p * self.dtype.itemsize
        parts = [self.read(first * size, count * size) for first, count in runs(places)]
        return np.frombuffer(b"".join(parts), self.dtype).reshape(len(places), p)


@dataclass(frozen=True, eq=False)
class Chained:
    """Arrays of equal samples, one behind the other."""

    parts: tuple[Store, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all of them."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type that holds those of all."""
        return np.result_type(*(part.dtype for part in self.parts))

    def take(self, places: IntArray, p: int) -> AnyArray:
        """Return rows."""
        ends = np.cumsum([part.shape[0] for part in self.parts])
        owners = np.searchsorted(ends, places, side="right")
        taken = []
        for owner in np.unique(owners):
            part, chosen = self.parts[owner], owners == owner
            taken.append((chosen, part.take(places[chosen] - (ends[owner] - part.shape[0]), p)))
        rows = np.empty((len(places), p), np.result_type(self.dtype, *(found.dtype for _, found in taken)))
        for chosen, found in taken:
            rows[chosen] = found
        return rows


def runs(places: Sequence[int] | IntArray) -> Iterator[tuple[int, int]]:
    """Yield (first, how many) for the stretches of places that follow one another."""
    array = np.asarray(places, np.int64)
    breaks = np.flatnonzero(np.diff(array) != 1) + 1
    for part in np.split(array, breaks):
        if part.size:
            yield int(part[0]), int(part.size)
