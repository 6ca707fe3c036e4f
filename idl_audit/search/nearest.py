"""The nearest point of another class: steps in a ball around the sample that shrinks where one is found.

The ball's radius d follows the boundary: before a point is found it is where the slope says that the boundary lies,
|u - c| + L / |g|; from then on it falls by a share where the last point was one, and grows by a share where not. The
steps are along the steepest descent of the norm; shares and steps shrink with the cosine.

Elsewhere: fast minimum-norm attack, FMN (Pintor, Roli, Brendel, Biggio 2021); DeepFool, FAB; minimal adversarial
perturbation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.search.pack import Loss, Pack
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray

FIRST_STEP: Final = 0.5
"""Of the ball's radius."""
LAST_STEP: Final = 0.01
FIRST_SHARE: Final = 0.1
LAST_SHARE: Final = 0.001
BEYOND: Final = 1.02
"""The first point is looked for a little behind the boundary that the slope shows."""
ENTRIES: Final = 0.05
"""Share of the inputs over which a step in an l1 ball is spread."""


def to_aims() -> Loss:
    """Return y_label - y_aim; towards a goal the largest of the others less the goal's."""

    def value(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
        rows = np.arange(len(y))
        return np.asarray(y[rows, way] - y[rows, aims])

    def weights(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
        rows, found = np.arange(len(y)), np.zeros_like(y)
        found[rows, way] = 1.0
        found[rows, aims] = -1.0
        return found

    return Loss(value, weights)


@dataclass(eq=False)
class _State:
    points: FloatArray
    radius: FloatArray
    """Of the ball in which each row looks."""
    best: FloatArray
    least: FloatArray
    """The distance of `best` that looks like a counterexample; inf where there is none."""

    def rows(self, some: BoolArray) -> _State:
        return _State(**{name: array[some] for name, array in vars(self).items()})


def nearest_points(pack: Pack, steps: int, *, until_found: bool) -> tuple[Pack, FloatArray, FloatArray]:
    """Return for each row the nearest point that looks like a counterexample, (m, p), with its distance, (m,).

    Args:
        pack: the rows; those whose sample has a counterexample are dropped.
        steps: queries a row.
        until_found: whether what looks like a counterexample is shown to its judge at once, and any is enough.

    Raises:
        BudgetError: where the time is over.
    """
    m = len(pack)
    centre = pack.regions.centre
    state = _State(centre.copy(), np.zeros(m), centre.copy(), np.full(m, np.inf))
    loss = to_aims()
    for step in range(steps if m else 0):
        outputs, slopes = pack.slopes(state.points, loss)
        with np.errstate(all="ignore"):
            value = loss.value(outputs, pack.in_the_way(outputs), pack.aims)
            holds = pack.short_of(outputs) < 0
        distance = pack.regions.distance(state.points)
        better = holds & (distance < state.least)
        state.best[better] = state.points[better]
        state.least = np.where(better, distance, state.least)
        if until_found and better.any():
            going = pack.show(state.points, better)
            pack, state = pack.rows(going), state.rows(going)
            slopes, value, distance, holds = slopes[going], value[going], distance[going], holds[going]
        if not len(pack) or step == steps - 1:
            break
        _step(pack, state, slopes, value, holds, distance, (1 + np.cos(np.pi * step / max(1, steps - 1))) / 2)
    return pack, state.best, state.least


def _step(
    pack: Pack,
    state: _State,
    slopes: FloatArray,
    value: FloatArray,
    holds: BoolArray,
    distance: FloatArray,
    warmth: float,
) -> None:
    """Move the ball's end, then every row along the slope, into the ball."""
    regions = pack.regions
    share = LAST_SHARE + (FIRST_SHARE - LAST_SHARE) * warmth
    size = LAST_STEP + (FIRST_STEP - LAST_STEP) * warmth
    dual = regions.dual(slopes)
    with np.errstate(all="ignore"):
        ahead = distance + BEYOND * np.maximum(value, 0.0) / dual
    ahead = np.where(np.isfinite(ahead), ahead, regions.radius)
    known = np.isfinite(state.least)
    inward = np.minimum(state.radius, state.least) * (1 - share)
    radius = np.where(holds, inward, np.where(known, state.radius * (1 + share), np.maximum(ahead, state.radius)))
    state.radius = np.minimum(radius, regions.radius)
    entries = np.full(len(pack), max(1.0, ENTRIES * regions.centre.shape[1]))
    downhill = regions.ahead(state.points, slopes, size * state.radius, entries)
    state.points = regions.onto(np.where(holds[:, None], state.points, downhill), state.radius)
