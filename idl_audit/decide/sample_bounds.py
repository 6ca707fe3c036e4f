"""Bounds of many samples at once: the cheap proofs over a batch of boxes, in which no sample depends on the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idl_audit.decide.case import Case, shifted
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.float_margins import FloatMargins
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds, rows_at_once, zero_multipliers
from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import Budget


def intervals(cases: Sequence[Case], budget: Budget) -> None:
    """Intervals forward; the margins by the last layer's interval (multipliers 0)."""
    model, inputs, seeds = cases[0].proved_model, _boxes(cases), _rows(cases)
    bounds = interval_bounds(model, inputs, check=budget.check)
    at_once, found = max(1, rows_at_once(model) // seeds.shape[1]), []
    for start in range(0, len(cases), at_once):
        some = np.arange(start, min(start + at_once, len(cases)))
        functionals, part = Functionals.of_outputs(model, seeds[some]), bounds.of_boxes(some)
        found.append(lower_bound(model, inputs.rows(some), part, functionals, zero_multipliers, check=budget.check))
    _conclude(cases, bounds, np.concatenate(found), budget, is_last=False)


def lines(cases: Sequence[Case], budget: Budget) -> None:
    """Backward linear bounds of states and margins."""
    model, inputs = cases[0].proved_model, _boxes(cases)
    bounds = backward_state_bounds(model, inputs, check=budget.check)
    for i, case in enumerate(cases):
        case.know(bounds.of_boxes(np.array([i])))
    lowers = output_lower_bounds(model, inputs, bounds, _rows(cases), check=budget.check)
    _conclude(cases, bounds, lowers, budget, is_last=True)


def _boxes(cases: Sequence[Case]) -> Interval:
    return Interval.of_boxes([case.query.box for case in cases])


def _conclude(cases: Sequence[Case], bounds: StateBounds, lowers: FloatArray, budget: Budget, *, is_last: bool) -> None:
    """Take the bounds of every sample's alternatives, one row each, (m, a)."""
    if cases[0].arithmetic is None:
        _take(cases, lowers)
    else:
        _take_computed(cases, cases[0].arithmetic, bounds, lowers, budget, is_last=is_last)


def _rows(cases: Sequence[Case]) -> FloatArray:
    """Return the rows of each sample's alternatives, one each, (m, a, q)."""
    return np.stack([np.concatenate([one.rows for one in case.query.alternatives]) for case in cases])


def _take(cases: Sequence[Case], lowers: FloatArray) -> None:
    for case, own in zip(cases, lowers, strict=True):
        case.raise_lowers(range(len(own)), shifted(own, case.proved.alternatives).tolist())


def _take_computed(
    cases: Sequence[Case],
    arithmetic: FloatMargins,
    bounds: StateBounds,
    lowers: FloatArray,
    budget: Budget,
    *,
    is_last: bool,
) -> None:
    """Take bounds of margins as they are computed: what roundings may change in them is bounded coarsely first.

    Bounds of intervals are worth that for the samples that they certify in real arithmetic; others have better ones to
    come.
    """
    is_proved = (lowers > 0).all(axis=1)
    for some, sharp in ((np.arange(len(cases)) if is_last else np.flatnonzero(is_proved), False), (None, True)):
        if some is None:
            left = [bool(case.within_rounding(range(len(own)), own)) for case, own in zip(cases, lowers, strict=True)]
            some = np.flatnonzero(left) if is_last and arithmetic.can_be_sharp else np.arange(0)
        if not some.size:
            continue
        own = [cases[i] for i in some.tolist()]
        errors = arithmetic.over(_boxes(own), bounds.of_boxes(some), sharp=sharp, check=budget.check)
        for case, slack in zip(own, errors.of(_rows(own), ranked=True), strict=True):
            case.learn(range(len(slack)), list(slack[:, None]))
        _take(own, lowers[some])
