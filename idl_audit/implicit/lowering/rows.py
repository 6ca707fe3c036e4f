"""The rows of a batch in one tensor: along which axis they lie, and which index of it belongs to which row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.values.arrays import AnyArray, IntArray

LARGEST_BATCH: Final = 2**24
"""Entries of a batch's tensor beyond which its positions are not followed."""


class MeetError(Exception):
    """The rows may meet here, or are not alike: the file is no batch as far as can be told."""


def meet() -> NoReturn:
    """Say that the rows may meet, or are not alike."""
    raise MeetError


@dataclass(frozen=True)
class Rows:
    """A tensor of the whole batch: index j of `axis` belongs to row `owner`[j], and every row has as many."""

    shape: tuple[int, ...]
    axis: int
    owner: IntArray

    @property
    def n(self) -> int:
        """The number N of rows."""
        return int(self.owner.max()) + 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row's part."""
        return self.with_axis(len(self.owner) // self.n)

    @property
    def whole(self) -> bool:
        """Whether the axis counts the rows and nothing else."""
        return len(self.owner) == self.n

    def with_axis(self, length: int) -> tuple[int, ...]:
        """Return the shape with another length of the rows' axis."""
        return (*self.shape[: self.axis], length, *self.shape[self.axis + 1 :])

    def positions(self) -> tuple[IntArray, IntArray]:
        """Return, for each entry of the tensor, its row and its flat position in that row's part; both flat."""
        along = [-1 if axis == self.axis else 1 for axis in range(len(self.shape))]
        row = np.broadcast_to(self.owner.reshape(along), self.shape)
        local = np.empty(self.shape, np.int64)
        for k in range(self.n):
            here = self.owner == k
            part = np.arange(math.prod(self.row_shape)).reshape(self.row_shape)
            local[(slice(None),) * self.axis + (here,)] = part
        return row.reshape(-1), local.reshape(-1)


Tensor: TypeAlias = AnyArray | Rows
Result: TypeAlias = tuple[list[Rows], dict[int, AnyArray]]
"""The node's outputs, and the constants that one row of the batch needs in place of the file's, by input."""
Rule: TypeAlias = Callable[[Node, Sequence[Tensor | None], int], Result]
"""What an operator does to rows: (node, inputs, operator set) -> result."""


def lying_along(owner: IntArray, n: int) -> Rows:
    """Return the axis along which entries with these owners (-1: none) lie row by row; as many for each of n rows."""
    for axis, length in enumerate(owner.shape):
        if not owner.size or length % n:
            continue
        lines = np.moveaxis(owner, axis, 0).reshape(length, -1)
        most = lines.max(axis=1)
        if ((lines == most[:, None]) | (lines < 0)).all() and (
            np.bincount(most[most >= 0], minlength=n) * n == length
        ).all():
            return Rows(owner.shape, axis, most)
    meet()


def row_part(constant: AnyArray, axis: int, owner: IntArray) -> AnyArray:
    """Return a constant's part for one row, the same for every row: itself where it does not reach along the axis."""
    if axis < 0 or constant.shape[axis] == 1:
        return constant
    if constant.shape[axis] != len(owner):
        meet()
    parts = [np.compress(owner == k, constant, axis=axis) for k in range(int(owner.max()) + 1)]
    if any(not np.array_equal(parts[0], other) for other in parts[1:]):
        meet()
    return parts[0]


def aligned(shape: tuple[int, ...], values: Sequence[Tensor]) -> Rows:
    """Return the rows of a tensor of this shape, to which the values are broadcast: theirs, if all agree."""
    found: list[Rows] = []
    for value in values:
        if isinstance(value, Rows):
            found.append(Rows(shape, value.axis + len(shape) - len(value.shape), value.owner))
    first = found[0]
    if any(other.axis != first.axis or not np.array_equal(other.owner, first.owner) for other in found):
        meet()
    if shape[first.axis] != len(first.owner):
        meet()
    return first
