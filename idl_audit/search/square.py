"""Random search for a counterexample that sees the outputs of the original network alone, no slopes.

From a random corner of the set, a square of pixels (of inputs that are no picture: some of them at random) goes to one
of its ends; what comes nearer to another class is kept. Squares shrink as the search goes on. In a ball of the norm l2
or l1 a square gets a share of the radius, and what was changed elsewhere is scaled down to make room.

Elsewhere: Square attack (Andriushchenko, Croce, Flammarion, Hein 2020), score-based black-box attack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from idl_audit.search.fast_gradients import in_batches
from idl_audit.search.pack import Pack
from idl_audit.search.regions import Regions
from idl_audit.values.arrays import BoolArray, FloatArray

FIRST_SHARE: Final = 0.8
"""Of the inputs that a first move changes."""
HALVED_AT: Final = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of all queries after which the moves are halved."""


def square_search(pack: Pack, queries: int) -> None:
    """Look for a counterexample with so many queries to the original network, a row for each sample.

    Raises:
        BudgetError: where the time is over.
    """
    if not len(pack):
        return
    shape, best = pack.quarries[0].target.picture, np.empty(0)
    least = np.full(len(pack), np.inf)
    for turn in range(queries):
        drawn = _chance(pack, shape)
        if turn:
            share = FIRST_SHARE / 2 ** sum(turn > at * queries for at in HALVED_AT)
            tried = _moved(pack.regions, best, drawn, share, shape)
        else:
            tried = best = _corner(pack.regions, drawn, shape)
        value, going = _asked(pack, tried)
        better = value < least
        best, least = np.where(better[:, None], tried, best), np.where(better, value, least)
        if not going.all():
            pack, best, least = pack.rows(going), best[going], least[going]
        if not len(pack):
            return


def _asked(pack: Pack, points: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return how far each row's point is from a counterexample, by the network itself, and which rows go on.

    What seems to be one is proposed to the judge, who puts it into the set exactly.
    """
    judge = pack.quarries[pack.owner[0]].target.judge
    pack.count()
    with np.errstate(all="ignore"):
        outputs = in_batches(judge.network, points.astype(np.float32), judge.batch, judge.budget.check)
        value = pack.short_of(outputs)
    seems = value <= 0
    return value, pack.show(points, seems) if seems.any() else np.ones(len(pack), np.bool_)


def _chance(pack: Pack, shape: Sequence[int]) -> FloatArray:
    """Return numbers from 0 to 1 for each row, drawn by its sample: place, signs, and how much is to move."""
    count = 3 + shape[0] * (1 + shape[2]) if shape else 1 + 2 * pack.regions.centre.shape[1]
    return np.stack([pack.quarries[k].rng.random(count) for k in pack.owner])


def _signs(drawn: FloatArray) -> FloatArray:
    return np.where(drawn < 0.5, -1.0, 1.0)


def _corner(regions: Regions, drawn: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Return a corner of each row's set, (m, p): one sign a column of each channel of a picture."""
    m, p = regions.centre.shape
    signs = _signs(drawn[:, p : 2 * p]) if not shape else _columns(drawn, shape).reshape(m, p)
    return regions.onto(regions.centre + regions.radius[:, None] * regions.unit * signs)


def _columns(drawn: FloatArray, shape: Sequence[int]) -> FloatArray:
    channels, height, width = shape
    signs = _signs(drawn[:, 2 + channels : -1]).reshape(-1, channels, 1, width)
    return np.broadcast_to(signs, (len(drawn), channels, height, width))


def _moved(regions: Regions, best: FloatArray, drawn: FloatArray, share: float, shape: Sequence[int]) -> FloatArray:
    """Return each row's best point with a square of it at an end, (m, p)."""
    window = _window(drawn, share, shape, regions.centre.shape[1])
    radius = regions.radius[:, None]
    change = best - regions.centre
    if regions.norm == "linf":
        ends = radius * regions.unit * window
        return regions.onto(regions.centre + np.where(window != 0, ends, change))
    order = 2 if regions.norm == "l2" else 1
    length = np.linalg.norm(window, order, axis=1, keepdims=True)
    part = share if regions.norm == "l2" else drawn[:, -1:]
    kept, taken = (1 - part) ** (1 / order), part ** (1 / order)
    return regions.onto(regions.centre + kept * change + taken * radius * regions.unit * window / length)


def _window(drawn: FloatArray, share: float, shape: Sequence[int], size: int) -> FloatArray:
    """Return signs in a square of every channel, 0 elsewhere, (m, p); else at some inputs."""
    if not shape:
        chosen = (drawn[:, :size] < share) | (drawn[:, :size] == drawn[:, :size].min(axis=1, keepdims=True))
        return np.where(chosen, _signs(drawn[:, size : 2 * size]), 0.0)
    channels, height, width = shape
    side = min(max(1, round(math.sqrt(share * height * width))), height, width)
    top = np.floor(drawn[:, :1] * (height - side + 1))
    left = np.floor(drawn[:, 1:2] * (width - side + 1))
    down, across = np.arange(height) - top, np.arange(width) - left
    rows, columns = (down >= 0) & (down < side), (across >= 0) & (across < side)
    signs = _signs(drawn[:, 2 : 2 + channels])[:, :, None, None]
    return (signs * (rows[:, None, :, None] & columns[:, None, None, :])).reshape(len(drawn), size)
