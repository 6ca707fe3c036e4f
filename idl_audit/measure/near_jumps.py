"""Where a runtime may take either side of a jump, and what that makes of the outputs.

A runtime's z is off by some roundings. Where a threshold is that near, the network's own arithmetic decides which of
the two values follows, and exact arithmetic another way: no wrong reading of a file. The outputs that either side can
lead to form an interval; elsewhere it is a point, up to rounding.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.intervals import affine_interval, with_interval
from idl_audit.values.arrays import BoolArray, FloatArray

ROUNDINGS: Final = 4
"""Of the sizes that a pre-activation is added up from: sums in any order are off by about one."""


def outputs_near_jumps(model: ImplicitModel, inputs: FloatArray, unit: float) -> tuple[Interval, BoolArray]:
    """Return the outputs that a runtime may come to for each input, (m, q), and which are that near a jump, (m,).

    Args:
        model: a feed-forward model.
        inputs: (m, p).
        unit: the unit roundoff of the network's arithmetic.
    """
    points = Interval(inputs, inputs)
    bounds, near = StateBounds(), np.zeros(len(inputs), np.bool_)
    for k in model.evaluation_order:
        bounds, block = with_interval(model, k, bounds, points), model.blocks[k]
        if block.jumps:
            z, doubt = bounds.z[k], ROUNDINGS * unit * _size(model.rows[k], bounds, inputs)
            wide = Interval(z.lo - doubt, z.hi + doubt)
            least, most = block.slopes(wide.lo, wide.hi)
            near |= (np.isinf(least) | np.isinf(most)).any(axis=1)
            bounds = bounds.with_block(k, block, wide)
    return affine_interval(model.output, bounds.x, points), near


def _size(row: Affine, bounds: StateBounds, inputs: FloatArray) -> FloatArray:
    """Return |A| |x| + |B| |u| + |b|, (m, n)."""
    size = np.broadcast_to(np.abs(row.constant), (len(inputs), row.size)).copy()
    for k, linear_map in row.states.items():
        size += linear_map.magnitude.apply(bounds.x[k].largest)
    return size if row.input is None else size + row.input.magnitude.apply(np.abs(inputs))
