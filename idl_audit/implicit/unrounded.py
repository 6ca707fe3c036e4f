"""Which outputs of a network are computed without any rounding: numbers that are moved, negated, chosen, cut off at 0.

Of these what is proved in exact arithmetic holds in floats as it is, down to the last bit: `Relu(X) < 0` never.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.as_written import AsWritten, Rounding
from idl_audit.implicit.kernels import EXACT
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine
from idl_audit.implicit.upward import patterns
from idl_audit.values.arrays import BoolArray


def unrounded_outputs(written: AsWritten) -> BoolArray:
    """Return for each output whether every runtime gives the exact number where the inputs are exact, (q,)."""
    model = written.model
    rounded: dict[int, BoolArray] = {INPUT: np.zeros(model.n_inputs, np.bool_)}
    for k in model.evaluation_order:
        block, rounding = model.blocks[k], written.roundings[k]
        found = _read(model.rows[k], rounding, rounded)
        mixes = block.activation.coupled or block.maximum is not None or found.size != block.size
        if rounding.is_state and rounding.kernel is not EXACT:
            found = np.ones(block.size, np.bool_)
        elif mixes:
            found = np.full(block.size, bool(found.any()))
        rounded[k] = found
    return ~_read(model.output, written.output, rounded)


def _read(row: Affine, rounding: Rounding, rounded: dict[int, BoolArray]) -> BoolArray:
    """Return which entries of an affine map of tensors are rounded, or read what is."""
    if rounding.share or rounding.parts is not None or row.constant_error:
        return np.ones(row.size, np.bool_)
    found = np.zeros(row.size, np.bool_)
    for source, linear_map in _maps(row):
        if linear_map.relative or linear_map.slack is not None:
            return np.ones(row.size, np.bool_)
        ones = rounded[source].astype(np.float64)[None]
        for pattern in patterns(linear_map):
            found |= pattern.apply(ones)[0] > 0.5
    return found


def _maps(row: Affine) -> Iterable[tuple[int, LinearMap]]:
    yield from row.states.items()
    if row.input is not None:
        yield INPUT, row.input
