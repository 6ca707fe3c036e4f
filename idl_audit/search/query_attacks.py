"""Attacks on queries: the search for a point of the box whose outputs satisfy one of the alternatives.

With few free inputs: many random points and corners, a few sign descents, then random neighbours of the better points,
then descent by Adam in the box's own units on the sum over the rows of max(row y + offset + margin, 0), one alternative
a run. With many: signed gradient steps with momentum that shrink, from the centre, from random points, and from where
20 steps along a random direction of the output lead (output-diversified starts: a network that saturates near the
centre shows no slope there). The model only proposes, to the judge.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.search.adam import Adam
from idl_audit.search.fast_gradients import CheckedSearch, Searched, searched
from idl_audit.search.judge import Judge
from idl_audit.search.pgd import Objective, Units, diversify, sign_descent
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, OptionError
from idl_audit.values.query import Query

FEW_INPUTS = 30
"""Up to so many free inputs, random points are worth their time."""

SAMPLES = 20_000
CORNERS = 1024
CHUNK = 2048
CHEAP_BATCH = 256
"""A network whose batches are smaller gets fewer random points."""
LINEAGES = 128
CHILDREN = 16
ROUNDS = 16
RUNS = 512
"""Descents in low dimension at effort 1; fewer for each alternative where there are more than four."""
STEPS = 100
SIGN_RUNS = 8
"""Sign descents for an alternative in low dimension: they reach corners, which Adam's small steps do not."""
ROUND = 36
"""Starts of a round: what it has found says which alternatives the next one aims at."""
THIRDS = 3
"""Rounds by turns aim at all alternatives, at the nearest third of them, and at the nearest ninth."""
JUDGED = 16
"""Points that the original network is asked about at a time."""
MARGIN = 1e-3
"""By how much descent overshoots each row, in standard deviations of the row's value over the box."""


def attack_query(
    model: ImplicitModel,
    query: Query,
    judge: Judge,
    *,
    budget: Budget,
    rng: np.random.Generator,
    effort: int = 1,
    briefly: bool = False,
    starts: FloatArray | None = None,
) -> bool:
    """Look for a counterexample; return whether the judge knows one.

    Args:
        model: the implicit model of the network: it proposes.
        query: the box and the alternatives that are worth a search.
        judge: asks the original network: it decides.
        budget: when to give up; a start of a descent is a node.
        rng: where chance comes from; the same generator and effort give the same search.
        effort: 1, 2, ...: how hard to try; a greater one has more starts and steps, and chance of its own.
        briefly: with few free inputs, without the many descents by Adam; with many, nothing.
        starts: points worth a look, (s, p): minimisers of a relaxation, nodes of a tree. They are tried first.

    Raises:
        OptionError: where effort is below 1.
    """
    if effort < 1:
        raise OptionError(f"the effort of an attack must be 1 or more, not {effort}")
    if not query.alternatives or not judge.can_be_asked:
        return judge.has_won
    search = CheckedSearch(searched(model), budget.check)
    hunt = _Hunt(query, search, judge.within(budget), budget, rng)
    with suppress(BudgetError):
        if starts is not None and len(starts):
            _search_nearby(hunt, starts)
        if not hunt.is_over:
            if (hunt.units.width > 0).sum() <= FEW_INPUTS:
                _search_low_dimension(hunt, effort, briefly=briefly)
            elif not briefly:
                _search_high_dimension(hunt, effort)
    return judge.has_won


@dataclass
class _Hunt:
    """One search: points are t in [0, 1]^p, u = lo + t width, and each row of a batch aims at one alternative."""

    query: Query
    model: Searched
    judge: Judge
    budget: Budget
    rng: np.random.Generator
    units: Units = field(init=False)
    scale: FloatArray = field(init=False)
    """Standard deviation over the box of every alternative's rows, (n, k)."""

    def __post_init__(self) -> None:
        self.units = Units.of_float32(self.query.box)
        longest = max(1, *(len(one.rows) for one in self.query.alternatives))
        n, q = len(self.query.alternatives), self.query.alternatives[0].rows.shape[1]
        self._rows, self._offsets = np.zeros((n, longest, q)), np.full((n, longest), -np.inf)
        for k, one in enumerate(self.query.alternatives):
            self._rows[k, : len(one.rows)], self._offsets[k, : len(one.rows)] = one.rows, one.offsets
        self.scale = np.ones((n, longest))

    @property
    def is_over(self) -> bool:
        return self.judge.has_won or self.budget.is_spent

    @property
    def n_alternatives(self) -> int:
        return len(self._rows)

    def random(self, m: int) -> FloatArray:
        return self.rng.random((m, self.units.lo.size))

    def values(self, y: FloatArray, aims: IntArray) -> FloatArray:
        """Return row y + offset of every row of each point's alternative, in standard deviations, (m, k)."""
        values = np.einsum("mkq,mq->mk", self._rows[aims], y) + self._offsets[aims]
        return np.where(np.isnan(values), np.inf, values / self.scale[aims])

    def measure(self, y: FloatArray) -> None:
        """Learn the scale of every row from outputs of random points."""
        y = y[np.isfinite(y).all(axis=1)]
        if len(y) > 1:
            spread = np.einsum("nkq,mq->mnk", self._rows, y).std(axis=0)
            self.scale = np.where(spread > 0, spread, 1.0)

    def all_values(self, y: FloatArray) -> FloatArray:
        """Return how far each point is from each alternative: its worst row, (m, n)."""
        columns = [self.values(y, np.full(len(y), k)).max(axis=1) for k in range(self.n_alternatives)]
        return np.stack(columns, axis=1)

    def propose(self, t: FloatArray, worst: FloatArray) -> None:
        """Ask the judge about the points nearest to success."""
        if len(t):
            self.judge.propose(self.units.points(t[np.argsort(worst, kind="stable")[:JUDGED]]))

    def hinge(self, y: FloatArray, aims: IntArray) -> FloatArray:
        """Return the functional whose slope is that of sum over rows of max(row y + offset + margin, 0)."""
        values = self.values(y, aims)
        pulls = np.where(values + MARGIN > 0, 1.0, 0.0)
        done = ~pulls.any(axis=1)
        pulls[done, values[done].argmax(axis=1)] = 1.0
        return self._weigh(pulls, aims)

    def worst_row(self, y: FloatArray, aims: IntArray) -> FloatArray:
        """Return the functional of the row that is furthest from holding."""
        values = self.values(y, aims)
        return self._weigh(np.eye(values.shape[1])[values.argmax(axis=1)], aims)

    def _weigh(self, pulls: FloatArray, aims: IntArray) -> FloatArray:
        pulls = np.where(np.isfinite(self._offsets[aims]), pulls / self.scale[aims], 0.0)
        return np.asarray(np.einsum("mk,mkq->mq", pulls, self._rows[aims]))


def _search_nearby(hunt: _Hunt, starts: FloatArray) -> None:
    """Try points that were given, then descend from each towards the alternative that is nearest there."""
    t = hunt.units.of_points(starts)
    far = hunt.all_values(hunt.model.outputs(hunt.units.points(t)))
    hunt.propose(t, far.min(axis=1))
    if hunt.is_over:
        return
    for part in _parts(np.arange(len(t)), hunt.model.batch):
        _step(hunt, t[part], far[part].argmin(axis=1), steps=20, weigh=hunt.hinge, largest=0.1)
        if hunt.is_over:
            return


def _search_low_dimension(hunt: _Hunt, effort: int, *, briefly: bool) -> None:
    t, y = _sample(hunt, effort)
    if hunt.is_over:
        return
    hunt.measure(y)
    far = hunt.all_values(y)
    for k in range(hunt.n_alternatives):
        hunt.propose(t[far[:, k].argsort(kind="stable")[:JUDGED]], np.sort(far[:, k])[:JUDGED])
        if hunt.is_over:
            return
    for k in far.min(axis=0).argsort(kind="stable"):
        starts = np.vstack([np.full((1, t.shape[1]), 0.5), t[_group_winners(far[:, k], SIGN_RUNS * effort)]])
        _step(hunt, starts, np.full(len(starts), k), steps=30, weigh=hunt.hinge)
        if hunt.is_over:
            return
    share = max(1, hunt.n_alternatives // 4)
    for k in far.min(axis=0).argsort(kind="stable"):
        best = _group_winners(far[:, k], LINEAGES * effort // share)
        _evolve(hunt, t[best], far[best, k], int(k), rounds=ROUNDS)
        if hunt.is_over:
            return
        if briefly:
            continue
        best = _group_winners(far[:, k], RUNS * effort // share)
        _descend(hunt, t[best], np.full(len(best), k), steps=STEPS)
        if hunt.is_over:
            return


def _group_winners(far: FloatArray, groups: int) -> IntArray:
    """Return the nearest point of each of so many groups: good starts, which the very best of all are not.

    The best points of all tend to lie together, around one local minimum.
    """
    groups = int(np.clip(groups, 1, len(far)))
    parts = np.array_split(np.arange(len(far)), groups)
    return np.array([part[far[part].argmin()] for part in parts])


def _evolve(hunt: _Hunt, t: FloatArray, far: FloatArray, k: int, *, rounds: int) -> None:
    """Let every point move to the best of its random neighbours, where that is better; distances shrink by rounds.

    Cauchy steps in a random part of the coordinates: counterexamples often form ridges along the axes, too narrow for
    random points and too crooked for gradients.
    """
    t, far, m, p = t.copy(), far.copy(), len(t), t.shape[1]
    rows = np.arange(m)
    for reach in np.geomspace(0.05, 0.002, rounds):
        steps = reach * hunt.rng.standard_cauchy((m, CHILDREN, p)) * (hunt.rng.random((m, CHILDREN, p)) < 0.6)
        children = np.clip(t[:, None] + steps, 0.0, 1.0)
        y = hunt.model.outputs(hunt.units.points(children.reshape(-1, p)))
        values = hunt.values(y, np.full(len(y), k)).max(axis=1).reshape(m, CHILDREN)
        best = values.argmin(axis=1)
        better = values[rows, best] < far
        t[better], far[better] = children[rows, best][better], values[rows, best][better]
        if (far <= 0).any():
            hunt.propose(t, far)
        if hunt.is_over:
            return
    hunt.propose(t, far)


def _sample(hunt: _Hunt, effort: int) -> tuple[FloatArray, FloatArray]:
    """Return the centre, corners and random points, and the model's outputs there; all that the time allows."""
    p = hunt.units.lo.size
    free = np.flatnonzero(hunt.units.width > 0)
    count = int(SAMPLES * min(effort, 5) * min(1.0, hunt.model.batch / CHEAP_BATCH))
    t = np.vstack([np.full((1, p), 0.5), np.zeros((CORNERS, p)), hunt.random(count)])
    if 2**free.size <= CORNERS:
        ends = np.arange(CORNERS)[:, None] >> np.arange(free.size) & 1
    else:
        ends = hunt.rng.integers(0, 2, (CORNERS, free.size))
    t[1 : 1 + CORNERS, free] = ends
    found = []
    for at in range(0, len(t), CHUNK):
        found.append(hunt.model.outputs(hunt.units.points(t[at : at + CHUNK])))
        if hunt.is_over:
            break
    y = np.concatenate(found)
    return t[: len(y)], y


def _descend(hunt: _Hunt, t: FloatArray, aims: IntArray, *, steps: int) -> None:
    """Run Adam on the hinge of each row's alternative; the original network is asked where the model says yes."""
    hunt.budget.spend(len(t))
    t = t.copy()
    adam = Adam([([t], 1.0)], betas=(0.9, 0.99))
    best, best_worst = t.copy(), np.full(len(t), np.inf)
    for rate in np.geomspace(0.02, 0.001, steps):
        y, slope = hunt.model.slopes(hunt.units.points(t), lambda y: hunt.hinge(y, aims))
        worst = hunt.values(y, aims).max(axis=1)
        better = worst < best_worst
        best[better], best_worst[better] = t[better], worst[better]
        if (worst <= 0).any():
            hunt.propose(t[worst <= 0], worst[worst <= 0])
        if hunt.is_over:
            return
        slope = slope * hunt.units.width
        largest = np.abs(slope).max(axis=1, keepdims=True)
        adam.step([slope / np.where(largest > 0, largest, 1.0)], float(rate))
        np.clip(t, 0.0, 1.0, out=t)
    hunt.propose(best, best_worst)


def _search_high_dimension(hunt: _Hunt, effort: int) -> None:
    t = np.full((1, hunt.units.lo.size), 0.5)
    y = hunt.model.outputs(hunt.units.points(np.vstack([t, hunt.random(15)])))
    hunt.measure(y)
    far = hunt.all_values(y[:1])[0]
    if effort == 1:
        for aims in _parts(far.argsort(kind="stable"), hunt.model.batch):
            far[aims] = _step(hunt, np.tile(t, (len(aims), 1)), aims, steps=12, weigh=hunt.worst_row)
            if hunt.is_over:
                return
    left, turn = 4 * 2 ** (effort - 1) * hunt.n_alternatives, 0
    while left > 0:
        nearest = far.argsort(kind="stable")[: max(1, hunt.n_alternatives // 3 ** (turn % THIRDS))]
        times = max(1, min(left, ROUND) // len(nearest))
        for aims in _parts(np.tile(nearest, times), hunt.model.batch):
            starts = _spread_starts(hunt, len(aims), y.shape[1])
            if hunt.is_over:
                return
            weigh = hunt.hinge if turn % 2 else hunt.worst_row
            np.minimum.at(far, aims, _step(hunt, starts, aims, steps=30 + 10 * effort, weigh=weigh))
            if hunt.is_over:
                return
        left, turn = left - times * len(nearest), turn + 1


def _spread_starts(hunt: _Hunt, count: int, q: int) -> FloatArray:
    """Return starts, about three of four of them output-diversified, the others random."""
    starts, spread = hunt.random(count), hunt.rng.random(count) < 0.75
    if spread.any():
        directions = hunt.rng.uniform(-1.0, 1.0, (int(spread.sum()), q))
        starts[spread] = diversify(hunt.model, hunt.units, starts[spread], directions)
    return starts


def _parts(aims: IntArray, size: int) -> list[IntArray]:
    return np.array_split(aims, -(-len(aims) // size))


def _step(
    hunt: _Hunt,
    t: FloatArray,
    aims: IntArray,
    *,
    steps: int,
    weigh: Callable[[FloatArray, IntArray], FloatArray],
    largest: float = 0.5,
) -> FloatArray:
    """Run sign descent of each row towards its alternative; return the least values, (m,)."""
    hunt.budget.spend(len(t))

    def stop(t: FloatArray, worst: FloatArray) -> bool:
        hunt.propose(t[worst <= 0], worst[worst <= 0])
        return hunt.is_over

    objective = Objective(lambda y: hunt.values(y, aims).max(axis=1), lambda y: weigh(y, aims))
    best, worst = sign_descent(hunt.model, hunt.units, t, objective, steps=steps, largest=largest, stop=stop)
    hunt.propose(best, worst)
    return worst
