"""Which pre-activations backward bounds are made of: those that bend, but not the same number many times.

A factor of a product is most often a state that others read, too: its bounds are those of that state, however often it
is a factor. The state is tightened in its own block, whatever its activation, and its copies have their intervals.

Elsewhere: intermediate bounds, reference bounds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from idl_audit.implicit.activations import Coupled
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import StateBounds
from idl_audit.values.arrays import BoolArray, IntArray


def to_tighten(model: ImplicitModel, k: int, bounds: StateBounds) -> BoolArray:
    """Return of which states of block k backward bounds are of use over each of m boxes, (m, n_k)."""
    bends, copied = bounds.unstable(k, model.blocks[k]), _copied_states(model).get(k)
    read = _read_states(model).get(k)
    if read is not None:
        bends = bends & (read < 0)
    if copied is not None:
        bends = bends | (copied & (bounds.z[k].lo < bounds.z[k].hi))
    return bends


@lru_cache(maxsize=4)
def _read_states(model: ImplicitModel) -> dict[int, IntArray]:
    """Return of every coupled block the states whose copies its pre-activations are, as `_read` does."""
    return {k: _read(model, k) for k, block in enumerate(model.blocks) if block.activation.coupled}


@lru_cache(maxsize=4)
def _copied_states(model: ImplicitModel) -> dict[int, BoolArray]:
    """Return the states of each block that have such copies."""
    found: dict[int, BoolArray] = {}
    for k, read in _read_states(model).items():
        for source in model.rows[k].states:
            own = read[(read >= model.offsets[source]) & (read < model.offsets[source + 1])] - model.offsets[source]
            if own.size:
                found.setdefault(source, np.zeros(model.blocks[source].size, np.bool_))[own] = True
    return found


def _read(model: ImplicitModel, k: int) -> IntArray:
    """Return the flat number of the one state that each pre-activation copies; -1 where its own bounds may say more."""
    row = model.rows[k]
    state, count = np.full(row.size, -1, np.int64), np.zeros(row.size, np.int64)
    if row.input is not None or not all(isinstance(linear_map, Selection) for linear_map in row.states.values()):
        return state
    for source, linear_map in row.states.items():
        assert isinstance(linear_map, Selection)
        there = linear_map.index >= 0
        count += there
        phi = model.blocks[source].activation
        if not isinstance(phi, Coupled) or phi.ranges_suffice:
            state = np.where(there, model.offsets[source] + linear_map.index, state)
    return np.where(count == 1, state, -1)
