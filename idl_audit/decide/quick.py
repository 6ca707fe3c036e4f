"""The quick attack, and the look that says whether it is worth its time before linear bounds; many queries at once.

Many random points of a box with many inputs all have about the outputs of its centre, so that they are tried with few
inputs alone; with many, signed gradient steps start at the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.decide.case import Case
from idl_audit.implicit.model import ImplicitModel
from idl_audit.search.fast_gradients import CheckedSearch, Searched, SlowNetwork, batch_size, searched
from idl_audit.search.judge import propose_together
from idl_audit.search.query_attacks import FEW_INPUTS
from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.query import Conjunction

RANDOM_POINTS: Final = 1000
CHEAP_BATCH: Final = 64
"""A model that takes fewer points at a time is worth loading torch for."""
SIGN_STEPS: Final = 5
NEAREST: Final = 16
"""Alternatives that the quick attack aims at."""
MOST_ROWS: Final = 64
"""Rows whose slopes are looked at: where there are more, an attack is as cheap as the look."""


def looks_safe(cases: Sequence[Case], budget: Budget) -> list[bool]:
    """Return for each case whether, to first order at its centre, no open alternative holds anywhere in the set.

    With g the slope of row . y at the centre c, the row's least value is about row . y + offset - max of -g . (u - c).
    What looks safe is more likely to be proved than attacked, and the other way round.
    """
    asked = [case for case in cases if 0 < sum(len(one.rows) for one in case.open_query.alternatives) <= MOST_ROWS]
    if not asked:
        return [False] * len(cases)
    opened = {id(case): case.open_query.alternatives for case in asked}
    rows = [np.concatenate([one.rows for one in opened[id(case)]]) for case in asked]
    centres = np.repeat(np.stack([case.centre for case in asked]), [len(own) for own in rows], axis=0)
    weights = np.concatenate(rows)
    y, slopes = _searched(asked[0].model, budget).slopes(centres, lambda y: weights)
    at_centre = np.einsum("rq,rq->r", weights, y) - np.einsum("rp,rp->r", slopes, centres)
    ends = np.cumsum([len(own) for own in rows])[:-1]
    safe = {}
    for case, values, own in zip(asked, np.split(at_centre, ends), np.split(slopes, ends), strict=True):
        safe[id(case)] = _all_fail(opened[id(case)], values - case.query.inputs.support(-own))
    return [safe.get(id(case), False) for case in cases]


def _all_fail(alternatives: Sequence[Conjunction], values: FloatArray) -> bool:
    """Return whether each alternative has a row whose value, its offset left out, keeps it from holding."""
    parts = _split(values, [one.rows for one in alternatives])
    return all(float((part + one.offsets).max()) > 0 for part, one in zip(parts, alternatives, strict=True))


@dataclass(eq=False)
class _Hunt:
    """One query, the alternatives that are aimed at, and a point for each."""

    case: Case
    aims: Sequence[Conjunction]
    points: FloatArray

    @classmethod
    def of(cls, case: Case, points: FloatArray, y: FloatArray) -> _Hunt:
        """Begin at the best point for each of the alternatives that are nearest to holding."""
        open_ = case.open_query.alternatives
        far = np.stack([one.values(y).max(axis=1) for one in open_], axis=1)
        aims = np.argsort(far.min(axis=0), kind="stable")[:NEAREST]
        return cls(case, [open_[k] for k in aims], points[far[:, aims].argmin(axis=0)])

    def worst_rows(self, y: FloatArray) -> FloatArray:
        """Return for each point the row of its alternative with the greatest value there."""
        return np.stack(
            [
                one.rows[int(np.argmax(one.rows @ v + one.offsets)) if len(one.rows) > 1 else 0]
                for one, v in zip(self.aims, y, strict=True)
            ]
        )

    def step(self, slope: FloatArray, size: float) -> None:
        """Go down along the signs of the slopes by a share of the box."""
        box = self.case.query.box
        self.points = np.clip(self.points - size * (box.hi - box.lo) * np.sign(slope), box.lo, box.hi)


def quick(cases: Sequence[Case], budget: Budget) -> None:
    """Signed gradient steps on the row that is furthest from holding; with few inputs, random points and corners first.

    The cases are about one model. What one of them finds does not depend on the others.
    """
    cases = [case for case in cases if case.judge.can_be_asked]
    starts = [_starts(case) for case in cases]
    hunting = _propose(cases, starts, budget)
    if not any(hunting):
        return
    model = _searched(cases[0].model, budget)
    pairs = [pair for pair, goes_on in zip(zip(cases, starts, strict=True), hunting, strict=True) if goes_on]
    y = _split(model.outputs(np.concatenate([points for _, points in pairs])), [points for _, points in pairs])
    hunts = [_Hunt.of(case, points, own) for (case, points), own in zip(pairs, y, strict=True)]
    for size in np.geomspace(1.0, 0.1, SIGN_STEPS):
        _step(hunts, model, float(size))
        goes_on = _propose([hunt.case for hunt in hunts], [hunt.points for hunt in hunts], budget)
        hunts = [hunt for hunt, more in zip(hunts, goes_on, strict=True) if more]
        if not hunts:
            return


def _step(hunts: Sequence[_Hunt], model: Searched, size: float) -> None:
    points = [hunt.points for hunt in hunts]

    def weights(y: FloatArray) -> FloatArray:
        return np.concatenate([hunt.worst_rows(own) for hunt, own in zip(hunts, _split(y, points), strict=True)])

    _, slopes = model.slopes(np.concatenate(points), weights)
    for hunt, own in zip(hunts, _split(slopes, points), strict=True):
        hunt.step(own, size)


def _propose(cases: Sequence[Case], points: Sequence[FloatArray], budget: Budget) -> list[bool]:
    """Propose each case's points to its judge; tell which cases have no counterexample yet."""
    won = propose_together([case.judge.within(budget) for case in cases], points, budget.check)
    return [not one for one in won]


def _starts(case: Case) -> FloatArray:
    """Return the centre; with few inputs, random points and corners, too."""
    box, width = case.query.box, case.query.box.hi - case.query.box.lo
    if (width > 0).sum() > FEW_INPUTS:
        return box.centre[None]
    shape = (RANDOM_POINTS // 2, box.size)
    points = np.vstack([box.centre, box.lo + case.rng.random(shape) * width])
    return np.vstack([points, box.lo + case.rng.integers(0, 2, shape) * width])


def _split(values: FloatArray, like: Sequence[FloatArray]) -> list[FloatArray]:
    return np.split(values, np.cumsum([len(one) for one in like])[:-1])


def _searched(model: ImplicitModel, budget: Budget) -> CheckedSearch:
    found: Searched = SlowNetwork(model) if batch_size(model) >= CHEAP_BATCH else searched(model)
    return CheckedSearch(found, budget.check)
