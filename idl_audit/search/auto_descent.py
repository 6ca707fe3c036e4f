"""Descent whose steps choose their own size: it halves where progress ends, and goes on from the best point.

u <- P(u + 0.75 (P(u - size d) - u) + 0.25 (u - u_before)), d the steepest descent of the norm, P onto the set. The size
is looked at a few times, more often towards the end: it halves where fewer than 3/4 of the steps since the last look
went down, or where the best value and the size are those of the last look.

Elsewhere: APGD on cross-entropy and on the targeted difference of logits ratio (Croce, Hein 2020, "Reliable evaluation
of adversarial robustness"), APGD for l1 (Croce, Hein 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.search.pack import Loss, Pack
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray

ONWARD: Final = 0.75
GOING_DOWN: Final = 0.75
FIRST_LOOK: Final = 0.22
"""Of all steps; later looks come sooner by `SOONER` each, and no sooner than `SOONEST`."""
SOONER: Final = 0.03
SOONEST: Final = 0.06
FIRST_ENTRIES: Final = 0.2
"""Share of the inputs over which the first steps in an l1 ball are spread."""
FEWER_ENTRIES: Final = 1.5
MOMENTUM: Final = 0.75
LAST_RATE: Final = 0.02
SMALLEST_STEP: Final = 0.1
"""Of the radius, in an l1 ball."""


def cross_entropy() -> Loss:
    """Return y_label - log sum exp y; towards a goal log sum exp y - y_goal."""
    return Loss(_likelihood, _likelihood_weights)


def _likelihood(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
    rows = np.arange(len(y))
    top = y.max(axis=1, keepdims=True)
    return np.asarray(y[rows, way] - top[:, 0] - np.log(np.exp(y - top).sum(axis=1)))


def _likelihood_weights(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
    """Return e_label - softmax(y), of length 1: the slopes of a sure network would vanish in float32."""
    rows = np.arange(len(y))
    shares = np.exp(y - y.max(axis=1, keepdims=True))
    shares[rows, way] = 0.0
    total = shares.sum(axis=1, keepdims=True)
    weights = -np.where(total > 0, shares / np.where(total > 0, total, 1.0), 1.0 / max(1, y.shape[1] - 1))
    weights[rows, way] = 1.0
    return np.asarray(weights)


def likelihood_of_aims() -> Loss:
    """Return log sum exp y - y_aim, for rows whose aim alone counts."""

    def value(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
        return -_likelihood(y, aims, aims)

    def weights(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
        return -_likelihood_weights(y, aims, aims)

    return Loss(value, weights)


def logits_ratio() -> Loss:
    """Return (y_label - y_aim) / (y_1 - (y_3 + y_4) / 2), y_k the k-th largest output: unchanged by scale and shift."""
    return Loss(_ratio, _ratio_weights)


def _ratio(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
    rows = np.arange(len(y))
    return np.asarray((y[rows, way] - y[rows, aims]) / _spread(y)[0])


def _spread(y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what the ratio is by, (m,), and its derivative by the outputs, (m, q); 1 for fewer than three classes."""
    rows, derivative = np.arange(len(y)), np.zeros_like(y)
    if y.shape[1] < 3:
        return np.ones(len(y)), derivative
    order = np.argsort(-y, axis=1, kind="stable")
    low = order[:, 2 : min(4, y.shape[1])]
    derivative[rows, order[:, 0]] = 1.0
    np.put_along_axis(derivative, low, -1.0 / low.shape[1], axis=1)
    by = y[rows, order[:, 0]] - np.take_along_axis(y, low, axis=1).mean(axis=1)
    is_flat = ~(by > 1e-12)
    derivative[is_flat] = 0.0
    return np.where(is_flat, 1e-12, by), derivative


def _ratio_weights(y: FloatArray, way: IntArray, aims: IntArray) -> FloatArray:
    """Return the ratio's derivative, times what it is by: the direction alone matters."""
    rows, weights = np.arange(len(y)), np.zeros_like(y)
    weights[rows, way] += 1.0
    weights[rows, aims] -= 1.0
    by, derivative = _spread(y)
    ratio = (y[rows, way] - y[rows, aims]) / by
    return np.asarray(weights - np.nan_to_num(ratio)[:, None] * derivative)


@dataclass(eq=False)
class _State:
    """What is known of each row; all arrays have a row each."""

    points: FloatArray
    before: FloatArray
    slopes: FloatArray
    best: FloatArray
    best_slopes: FloatArray
    least: FloatArray
    """The value at `best`."""
    size: FloatArray
    entries: FloatArray
    """Over how many entries steps in an l1 ball are spread."""
    last: FloatArray
    """The value at the last step."""
    shown: FloatArray
    """How short of a counterexample the point was that the judge saw last."""
    down: FloatArray
    """Steps since the last look that went down."""
    least_then: FloatArray
    """`least` at the last look."""
    halved: BoolArray
    """Whether the size was halved at the last look."""
    moved: FloatArray
    """Entries in which `best` differed from the centre at the last look."""

    def rows(self, some: BoolArray) -> _State:
        """Return the rows that go on."""
        return _State(**{name: array[some] for name, array in vars(self).items()})


def auto_descent(pack: Pack, points: FloatArray, loss: Loss, steps: int) -> None:
    """Descend from a point of each row's set, and show the judges what looks like a counterexample.

    Args:
        pack: the rows.
        points: where they begin, (m, p).
        loss: what they descend on.
        steps: queries a row.

    Raises:
        BudgetError: where the time is over.
    """
    if not len(pack):
        return
    state = _begun(pack, points)
    every, look = max(1, round(FIRST_LOOK * steps)), 0
    for step in range(steps):
        pack, state = _asked(pack, state, loss)
        if not len(pack) or step == steps - 1:
            return
        look += 1
        if look == every:
            _look(pack, state, every)
            every, look = max(every - max(1, round(SOONER * steps)), max(1, round(SOONEST * steps))), 0
        _step(pack, state, is_first=step == 0)


def corner_descent(pack: Pack, points: FloatArray, loss: Loss, steps: int) -> None:
    """Descend as `auto_descent` does, towards corners of the sets: u <- u + rate (corner - u), the rate shrinking.

    In an l1 ball, whose corners have few entries, it finds what spread steps do not.
    """
    velocity = np.zeros_like(points)
    shown = np.zeros(len(points))
    for rate in np.geomspace(1.0, LAST_RATE, steps):
        if not len(pack):
            return
        outputs, slopes = pack.slopes(points, loss)
        short = pack.short_of(outputs)
        is_new = short < shown
        shown = np.where(is_new, short, shown)
        size = np.abs(slopes).sum(axis=1, keepdims=True)
        velocity = MOMENTUM * velocity + slopes / np.where(size > 0, size, 1.0)
        if is_new.any():
            going = pack.show(points, is_new)
            pack, points, velocity, shown = pack.rows(going), points[going], velocity[going], shown[going]
        points = points + rate * (pack.regions.corner(velocity) - points)


def _begun(pack: Pack, points: FloatArray) -> _State:
    m, p = points.shape
    infinite, zeros = np.full(m, np.inf), np.zeros((m, p))
    is_l1 = pack.regions.norm == "l1"
    return _State(
        points=points,
        before=points,
        slopes=zeros,
        best=points.copy(),
        best_slopes=zeros.copy(),
        least=infinite.copy(),
        size=pack.regions.radius * (1.0 if is_l1 else 2.0),
        entries=np.full(m, max(1.0, FIRST_ENTRIES * p)),
        last=infinite.copy(),
        shown=np.zeros(m),
        down=np.zeros(m),
        least_then=infinite.copy(),
        halved=np.zeros(m, np.bool_),
        moved=np.full(m, float(p)),
    )


def _asked(pack: Pack, state: _State, loss: Loss) -> tuple[Pack, _State]:
    """Ask about all rows' points, keep the best, and drop what is found."""
    outputs, state.slopes = pack.slopes(state.points, loss)
    with np.errstate(all="ignore"):
        value = loss.value(outputs, pack.in_the_way(outputs), pack.aims)
        short = pack.short_of(outputs)
    value = np.where(np.isnan(value), np.inf, value)
    state.down += value < state.last
    state.last = value
    better = value < state.least
    state.best[better], state.best_slopes[better] = state.points[better], state.slopes[better]
    state.least = np.where(better, value, state.least)
    is_new = short < state.shown
    state.shown = np.where(is_new, short, state.shown)
    if is_new.any():
        going = pack.show(state.points, is_new)
        if not going.all():
            return pack.rows(going), state.rows(going)
    return pack, state


def _step(pack: Pack, state: _State, *, is_first: bool) -> None:
    regions = pack.regions
    onward = regions.onto(regions.ahead(state.points, state.slopes, state.size, state.entries))
    if not is_first and regions.norm != "l1":
        onward = state.points + ONWARD * (onward - state.points) + (1 - ONWARD) * (state.points - state.before)
        onward = regions.onto(onward)
    state.before, state.points = state.points, onward


def _look(pack: Pack, state: _State, since: int) -> None:
    """Halve the size of rows that make no progress, and take them back to their best points."""
    regions = pack.regions
    if regions.norm == "l1":
        moved = (np.abs(state.best - regions.centre) > 0).sum(axis=1).astype(np.float64)
        is_sparser = moved < 0.95 * state.moved
        smaller = np.maximum(state.size / FEWER_ENTRIES, SMALLEST_STEP * regions.radius)
        state.size = np.where(is_sparser, regions.radius, smaller)
        state.entries, state.moved = np.maximum(1.0, moved / FEWER_ENTRIES), moved
        _back(state, is_sparser)
        return
    stuck = ~state.halved & (state.least_then <= state.least)
    halve = (state.down < GOING_DOWN * since) | stuck
    state.size = np.where(halve, state.size / 2, state.size)
    state.halved, state.least_then, state.down = halve, state.least.copy(), np.zeros(len(halve))
    _back(state, halve)


def _back(state: _State, some: BoolArray) -> None:
    state.points = np.where(some[:, None], state.best, state.points)
    state.slopes = np.where(some[:, None], state.best_slopes, state.slopes)
