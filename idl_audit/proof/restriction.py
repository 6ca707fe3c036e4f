"""The model over one box without the states that are dead there: the same outputs, smaller matrices.

A ReLU whose z is proved to be at most 0 has x = 0, so its row and its column can go. What is left is an implicit model
of its own, for inputs of this box only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.values.arrays import FloatArray, IntArray

MOST_NUMBERS = 2**25
"""A map with more entries stays as it is, and so do the blocks that it joins."""

SPARSE = 0.1
"""Below this share of nonzeros a matrix stays sparse."""

Kept = Mapping[int, IntArray]
"""Block -> its states that stay, ascending; blocks that are not named stay whole."""


def living_states(model: ImplicitModel, bounds: StateBounds) -> dict[int, IntArray]:
    """Return the states that are not dead over the only box of `bounds`, of the blocks that lose some."""
    sizes = [block.size for block in model.blocks]
    whole = _whole_blocks(model)
    kept = {}
    for k in range(len(model.blocks)):
        if k in whole or k not in bounds.z or not _drops(model, k):
            continue
        alive = np.flatnonzero(~(bounds.z[k].hi[0] <= 0))  # NaN proves nothing
        if alive.size < sizes[k]:
            kept[k] = alive if alive.size else np.zeros(1, np.int64)
    return kept


def is_dead_elsewhere(model: ImplicitModel, bounds: StateBounds, kept: Kept) -> bool:
    """Return whether every state that is not kept is proved dead over the only box of `bounds`."""
    whole = _whole_blocks(model)
    for k, states in kept.items():
        if not 0 <= k < len(model.blocks) or k in whole or not _drops(model, k):
            return False
        if states.ndim != 1 or not states.size or not (np.diff(states) > 0).all():
            return False
        if not (states[0] >= 0 and states[-1] < model.blocks[k].size):
            return False
        gone = np.setdiff1d(np.arange(model.blocks[k].size), states)
        if not (bounds.z[k].hi[0, gone] <= 0).all():
            return False
    return True


def _whole_blocks(model: ImplicitModel) -> set[int]:
    """Return the blocks that stay whole: those beside a map that `_part` would round, or make too large."""
    whole: set[int] = set()
    for i, row in enumerate([*model.rows, model.output]):
        whole |= {side for k, linear_map in row.states.items() if not _can_shrink(linear_map) for side in (i, k)}
        if row.input is not None and not _can_shrink(row.input):
            whole.add(i)
    return whole


def _can_shrink(linear_map: LinearMap) -> bool:
    """Return whether a map's entries are numbers of its own, not products, and few enough."""
    return not isinstance(linear_map, Reindexed) and linear_map.n_in * linear_map.n_out <= MOST_NUMBERS


def _drops(model: ImplicitModel, k: int) -> bool:
    """Return whether a state with z <= 0 has x = 0 in this block."""
    phi = model.blocks[k].activation
    return isinstance(phi, Kinked) and bool((np.asarray(phi.below) == 0).all()) and k not in model.loops


def restricted(model: ImplicitModel, kept: Kept) -> ImplicitModel:
    """Return the model with the kept states alone."""
    if not kept:
        return model
    blocks = []
    for k, block in enumerate(model.blocks):
        phi = block.activation
        if k not in kept:  # windows may point at states that go; bounds know what they know
            blocks.append(replace(block, maximum=None))
            continue
        assert isinstance(phi, Kinked)  # by `_drops`
        above: float | FloatArray = phi.above if np.ndim(phi.above) == 0 else np.asarray(phi.above)[kept[k]]
        own = replace(phi, below=0.0, above=above)
        exponent = block.exponent if np.ndim(block.exponent) == 0 else np.asarray(block.exponent)[kept[k]]
        blocks.append(replace(block, activation=own, shape=(len(kept[k]),), maximum=None, exponent=exponent))
    rows = tuple(_restricted_row(row, kept.get(k), kept) for k, row in enumerate(model.rows))
    output = _restricted_row(model.output, None, kept)
    return replace(model, blocks=tuple(blocks), rows=rows, output=output, scaling=None)


def _restricted_row(row: Affine, own: IntArray | None, kept: Kept) -> Affine:
    if own is None and not any(k in kept for k in row.states):
        return row
    return replace(
        row,
        states={k: _part(linear_map, own, kept.get(k)) for k, linear_map in row.states.items()},
        input=None if row.input is None else _part(row.input, own, None),
        constant=row.constant if own is None else row.constant[own],
    )


def _part(linear_map: LinearMap, rows: IntArray | None, columns: IntArray | None) -> LinearMap:
    """Return a part of a map as a matrix, what is uncertain in it included."""
    if rows is None and columns is None:
        return linear_map
    matrix = _matrix(linear_map)
    matrix = matrix if rows is None else matrix[rows]
    matrix = matrix if columns is None else matrix[:, columns]
    slack = None if linear_map.slack is None else _part(linear_map.slack, rows, columns)
    if matrix.nnz < SPARSE * math.prod(matrix.shape):
        return Sparse(matrix=sp.csr_array(matrix), relative=linear_map.relative, slack=slack)
    return Dense(matrix=matrix.toarray(), relative=linear_map.relative, slack=slack)


@lru_cache(maxsize=32)
def _matrix(linear_map: LinearMap) -> sp.csr_array:
    return linear_map.to_sparse()


def restricted_bounds(bounds: StateBounds, kept: Kept) -> StateBounds:
    """Return the bounds of the kept states, as those of the restricted model."""

    def parts(values: Mapping[int, Interval]) -> dict[int, Interval]:
        return {k: Interval(v.lo[:, kept[k]], v.hi[:, kept[k]]) if k in kept else v for k, v in values.items()}

    return StateBounds(parts(bounds.z), parts(bounds.x))
