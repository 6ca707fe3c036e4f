"""Projected gradient descent (PGD) by signs, in a box's own units t in [0, 1]^p, with momentum and shrinking steps.

Elsewhere: output-diversified initialisation, ODI; Frank-Wolfe, conditional gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from idl_audit.search.fast_gradients import Searched, Weights
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.input_sets import NormBall

MOMENTUM = 0.75
DIVERSIFYING_STEPS = 20
DIVERSIFYING_RATE = 0.25

Stop: TypeAlias = Callable[[FloatArray, FloatArray], bool]
"""Asked after every step with the points t (m, p) and their values (m,): whether that is enough."""


@dataclass(frozen=True)
class Units:
    """u = lo + t (hi - lo), for all rows of a batch (p,) or for each its own (m, p)."""

    lo: FloatArray
    hi: FloatArray

    @classmethod
    def of_float32(cls, box: Box) -> Units:
        """Return the units of the float32 points inside the exact box; lo > hi where an interval holds none."""
        lo, hi = box.float32_bounds()
        return cls(lo.astype(np.float64), hi.astype(np.float64))

    @property
    def width(self) -> FloatArray:
        """hi - lo."""
        return self.hi - self.lo

    def points(self, t: FloatArray) -> FloatArray:
        """Return u; its ends exactly at t = 0 and t = 1."""
        return np.where(t >= 1.0, self.hi, self.lo + t * self.width)

    def of_points(self, u: FloatArray) -> FloatArray:
        """Return t of points of the box; 1/2 where the interval is a point."""
        width = self.width
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(width > 0, np.clip((u - self.lo) / width, 0.0, 1.0), 0.5)


@dataclass(frozen=True)
class Objective:
    """What each row of a batch descends on: a function of the outputs and its slope there."""

    value: Callable[[FloatArray], FloatArray]
    """Outputs (m, q) -> (m,); at or below 0 where the row has what it looks for."""
    weights: Weights
    """Outputs (m, q) -> its derivative by the outputs, (m, q)."""


def sign_descent(
    model: Searched,
    units: Units,
    t: FloatArray,
    objective: Objective,
    *,
    steps: int,
    largest: float = 0.5,
    stop: Stop = lambda t, value: False,
) -> tuple[FloatArray, FloatArray]:
    """Return the best point of every row, (m, p), and its value, (m,), after so many steps from t.

    t <- clip(t - rate sign(v), 0, 1), v <- MOMENTUM v + g / |g|_1, g the slope by t; the rate shrinks from `largest`
    of the box to a fiftieth of that.
    """
    velocity = np.zeros_like(t)
    best, least = t.copy(), np.full(len(t), np.inf)
    for rate in (*np.geomspace(largest, largest / 50, steps), 0.0):
        y, slope = model.slopes(units.points(t), objective.weights)
        value = objective.value(y)
        better = value < least
        best[better], least[better] = t[better], value[better]
        if stop(t, value):
            break
        slope = slope * units.width
        size = np.abs(slope).sum(axis=1, keepdims=True)
        velocity = MOMENTUM * velocity + slope / np.where(size > 0, size, 1.0)
        t = np.clip(t - rate * np.sign(velocity), 0.0, 1.0)
    return best, least


def ball_descent(
    model: Searched, ball: NormBall, points: FloatArray, objective: Objective, *, steps: int, stop: Stop
) -> FloatArray:
    """Return the best point of every row, (m, p), after so many steps from points of a ball.

    u <- u + rate (s - u), s the point of the ball where v . s is least, v as in `sign_descent`: convex combinations
    stay inside, whatever the norm.
    """
    velocity = np.zeros_like(points)
    best, least = points.copy(), np.full(len(points), np.inf)
    for rate in (*np.geomspace(1.0, 0.05, steps), 0.0):
        y, slope = model.slopes(points, objective.weights)
        value = objective.value(y)
        better = value < least
        best[better], least[better] = points[better], value[better]
        if stop(points, value):
            break
        size = np.abs(slope).sum(axis=1, keepdims=True)
        velocity = MOMENTUM * velocity + slope / np.where(size > 0, size, 1.0)
        points = points + rate * (ball.lowest(velocity) - points)
    return best


def diversify(model: Searched, units: Units, t: FloatArray, directions: FloatArray) -> FloatArray:
    """Return where sign steps up directions . y lead, one direction (q,) a row: starts far apart in the output.

    Random points of a box in many dimensions all have about the output of its centre. Output-diversified
    initialisation (ODI; Tashiro, Song, Ermon 2020).
    """
    for _ in range(DIVERSIFYING_STEPS):
        _, slope = model.slopes(units.points(t), lambda y: directions)
        t = np.clip(t + DIVERSIFYING_RATE * np.sign(slope * units.width), 0.0, 1.0)
    return t
