"""Where activations have no values or no bounded slopes over a box, and the sentences that say so."""

from __future__ import annotations

import numpy as np

from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds


def why_outside(model: ImplicitModel, bounds: StateBounds) -> str:
    """Return which block, the oldest such one, may leave its domain in one box, and its interval; empty where none may.

    What reads it has no bounds either, and is not named.
    """
    for k in model.evaluation_order:
        if k in bounds.z and model.blocks[k].activation.forbidden:
            found = _why_left(model.blocks[k], bounds.z[k])
            if found:
                return found
    return ""


def why_unbounded(block: StateBlock, z: Interval) -> str:
    """Return why the slopes of a block have no bound in one box."""
    outside = _why_left(block, z)
    if outside:
        return outside
    least, most = block.slopes(z.lo[0], z.hi[0])
    worst = int(np.argmin(np.isfinite(least) & np.isfinite(most)))
    return (
        f"the slope of '{block.name}' ({block.op}) has no bound in this box: its input is in {_shown(block, z, worst)}"
    )


def _why_left(block: StateBlock, z: Interval) -> str:
    outside = np.flatnonzero(~block.inside(z.lo[0], z.hi[0]))
    if not (block.activation.forbidden and outside.size):
        return ""
    read = "divisor" if block.activation.name == "reciprocal" else "input"
    where = _shown(block, z, int(outside[0]))
    return f"the {read} of '{block.name}' ({block.op}) may {block.activation.forbidden} in this box: {where}"


def _shown(block: StateBlock, z: Interval, state: int) -> str:
    lo, hi = block.unscaled(z.lo[:1], z.hi[:1])
    return f"[{lo[0, state]:.3g}, {hi[0, state]:.3g}]"
