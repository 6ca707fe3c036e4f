"""Bounds of many samples at once: the cheap proofs over a batch of boxes, in which no sample depends on the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from idl_audit.decide.case import Case
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers, rows_at_once, zero_multipliers
from idl_audit.values.budget import Budget


def intervals(cases: Sequence[Case], budget: Budget) -> None:
    """Intervals forward; the margins by the last layer's interval (multipliers 0)."""
    bounds = interval_bounds(cases[0].proved_model, _boxes(cases), check=budget.check)
    _bound_margins(cases, bounds, lambda model, part: zero_multipliers, budget)


def lines(cases: Sequence[Case], budget: Budget) -> None:
    """Backward linear bounds of states and margins."""
    bounds = backward_state_bounds(cases[0].proved_model, _boxes(cases), check=budget.check)
    for i, case in enumerate(cases):
        case.know(bounds.of_boxes(np.array([i])))
    _bound_margins(cases, bounds, line_multipliers, budget)


def _boxes(cases: Sequence[Case]) -> Interval:
    return Interval.of_boxes([case.query.box for case in cases])


def _bound_margins(
    cases: Sequence[Case],
    bounds: StateBounds,
    multipliers: Callable[[ImplicitModel, StateBounds], Multipliers],
    budget: Budget,
) -> None:
    """Bound every alternative, one row each, of every sample: all samples have as many."""
    model, inputs = cases[0].proved_model, _boxes(cases)
    seeds = np.stack([np.concatenate([one.rows for one in case.query.alternatives]) for case in cases])
    at_once = max(1, rows_at_once(model) // seeds.shape[1])
    for start in range(0, len(cases), at_once):
        some = np.arange(start, min(start + at_once, len(cases)))
        part = bounds.of_boxes(some)
        functionals = Functionals.of_outputs(model, seeds[some])
        lowers = lower_bound(model, inputs.rows(some), part, functionals, multipliers(model, part), check=budget.check)
        for i, own in zip(some, lowers, strict=True):
            cases[i].raise_lowers(range(len(own)), own.tolist())
