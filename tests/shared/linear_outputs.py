"""Backward linear bounds of outputs."""

from __future__ import annotations

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.linear_bounds import line_multipliers
from idl_audit.values.arrays import FloatArray


def output_lower_bounds(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    functionals: FloatArray,
    choose: Multipliers | None = None,
) -> FloatArray:
    """Return proved lower bounds of functionals . y, (R, q) -> (m, R), by the lines' multipliers or others."""
    choose = line_multipliers(model, bounds) if choose is None else choose
    return lower_bound(model, inputs, bounds, Functionals.of_outputs(model, functionals), choose)
