"""Whether a score never falls while one input rises: proved part by part of a box, or a fall that the network shows.

certified: for all u and v of the set with v = u but for the one input, which is larger in v, no functional falls from u
to v, in exact arithmetic. The set is split where bounds are too loose: what is monotone in both parts is so in the
whole, as a way along the input crosses the cut once. falsified: two float32 points of the set between which the score
of the original network falls, and that of the model in float64, too: a fall that rounding alone makes is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.forest import Forest
from idl_audit.proof.monotone import Rise, part_rises
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search.judge import inside_of
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, UnsupportedModelError
from idl_audit.values.network import Network
from idl_audit.values.verdicts import Reason, Verdict

GRID: Final = 33
"""Values of the input on a way through its range."""
WAYS: Final = 48
"""Ways that are looked at: through the sample, random points and corners."""
FALL: Final = 1e-6
"""A fall counts from this share of the score's size on: far above what float64 rounds, and about what float32 does."""


@dataclass(frozen=True, eq=False)
class Question:
    """What must not fall while an input rises."""

    feature: int
    rows: FloatArray
    """Functionals of the model's outputs, (r, q): where none falls, the score does not."""
    score: Callable[[FloatArray], FloatArray]
    """Of the original network's outputs, (m, q) -> (m,)."""
    model_score: Callable[[FloatArray], FloatArray]
    """The same of the model's outputs."""


@dataclass(frozen=True, eq=False)
class Fall:
    """Two points that differ in the one input, and the scores of the original network there, the first the larger."""

    low: Float32Array
    high: Float32Array
    scores: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Monotone:
    """What is known of one set."""

    verdict: Verdict
    reason: Reason | None = None
    found: Fall | None = None
    slope: float | None = None
    """Where it is certified: by how much the functionals rise at least for each unit of the input."""
    parts: int = 0
    """Parts of the set that were bounded."""
    tree: Forest | None = None
    """Where it is certified: the parts, as one tree of boxes."""
    seconds: float = 0.0


def decide_monotone(
    model: ImplicitModel,
    network: Network,
    question: Question,
    sample: FloatArray,
    inputs: Box,
    budget: Budget,
    seed: int = 0,
) -> Monotone:
    """Return whether nothing falls within a box while one input rises.

    Args:
        model: the implicit model in data units.
        network: the original network in data units.
        question: the input, and what must not fall.
        sample: shape (p,), inside the box.
        inputs: the box.
        budget: what it may cost; a part of the box is a node.
        seed: of the random points that are looked at.

    Raises:
        UnsupportedModelError: where the model is none that such proofs are known of.
    """
    start = budget.clock()
    rise = Rise(model, question.feature)
    parts, slope, reason = 0, np.inf, None
    tree, waiting = SplitTree(), [(0, Interval(inputs.lo[None], inputs.hi[None]))]
    try:
        while waiting and reason is None:
            node, part = waiting.pop()
            parts += 1
            budget.spend()
            lower = _least(rise, model, part, question, budget)
            if lower >= 0:
                slope = min(slope, lower)
                continue
            if budget.is_spent:
                reason = Reason.TIME_LIMIT if budget.out_of_time else Reason.NODE_LIMIT
            elif not (part.width > 0).any():
                reason = Reason.RELAXATION_GAP
            if parts == 1 or reason is not None:
                first = sample if parts == 1 else part.lo[0]
                fall = _search(model, network, question, first, inputs, part, seed)
                if fall is not None:
                    return Monotone(Verdict.FALSIFIED, found=fall, parts=parts, seconds=budget.clock() - start)
            if reason is None:
                waiting += _halves(tree, node, part, model)
    except BudgetError:
        reason = Reason.TIME_LIMIT
    seconds = budget.clock() - start
    if reason is not None:
        return Monotone(Verdict.UNKNOWN, reason, parts=parts, seconds=seconds)
    return Monotone(Verdict.CERTIFIED, slope=float(slope), parts=parts, tree=tree.forest, seconds=seconds)


def _least(rise: Rise, model: ImplicitModel, part: Interval, question: Question, budget: Budget) -> float:
    """Return the least of the rows' quotients over a part, rounded downward; NaN proves nothing."""
    try:
        found = part_rises(rise, model, part, question.rows, budget.check)
    except UnsupportedModelError:  # a bound that is no finite number
        return -np.inf
    if not found.is_at_least_zero.all():
        return min(float(found.rounded(-np.inf).min()), -np.finfo(np.float64).tiny)
    return float(found.rounded(-np.inf).min())


def _halves(tree: SplitTree, node: int, part: Interval, model: ImplicitModel) -> list[tuple[int, Interval]]:
    """Return both halves of a part and their nodes, along the input that moves the first states most."""
    reach = np.zeros(model.n_inputs)
    for row in (*model.rows, model.output):
        if row.input is not None:
            reach += row.input.column_sums
    j = int(np.argmax(part.width[0] * reach)) if (part.width[0] * reach > 0).any() else int(np.argmax(part.width[0]))
    middle = part.lo[0, j] + (part.hi[0, j] - part.lo[0, j]) / 2
    first, second = part.hi.copy(), part.lo.copy()
    first[0, j] = second[0, j] = middle
    child = tree.split(node, j, float(middle))
    return [(child, Interval(part.lo, first)), (child + 1, Interval(second, part.hi))]


def _search(
    model: ImplicitModel,
    network: Network,
    question: Question,
    first: FloatArray,
    inputs: Box,
    part: Interval,
    seed: int,
) -> Fall | None:
    """Look for a fall on ways through the range of the input in a part, at some values of the others, one at first."""
    rng, p, f = np.random.default_rng(seed), inputs.size, question.feature
    lo, hi = part.lo[0], part.hi[0]
    random = lo + rng.random((WAYS, p)) * (hi - lo)
    corners = np.where(rng.random((WAYS, p)) < 0.5, lo, hi)
    others = np.concatenate([first[None], random, corners])
    grid = np.linspace(lo[f], hi[f], GRID)
    ways = []
    for one in others:
        way = np.repeat(one[None], GRID, axis=0)
        way[:, f] = grid
        inside = inside_of(inputs, way)
        ways += [inside] if len(inside) == GRID else []
    return fall_on(model, network, question, ways)


def fall_on(model: ImplicitModel, network: Network, question: Question, ways: Sequence[Float32Array]) -> Fall | None:
    """Return the greatest fall on ways through the range of the input, each (values, p), which rise with it alone."""
    f = question.feature
    best: tuple[float, Fall] | None = None
    for way in ways:
        scores = question.score(np.asarray(network(way), np.float64)) if len(way) > 1 else np.zeros(0)
        if not (scores.size and np.isfinite(scores).all()):
            continue
        i, j = _steepest_fall(scores)
        if way[i, f] < way[j, f] and (best is None or scores[i] - scores[j] > best[0]):
            best = float(scores[i] - scores[j]), Fall(way[i], way[j], (float(scores[i]), float(scores[j])))
    return None if best is None else _confirmed(model, network, question, best[1])


def _steepest_fall(scores: FloatArray) -> tuple[int, int]:
    """Return the places i <= j between which a row of scores falls most."""
    highest = np.maximum.accumulate(scores)
    j = int(np.argmax(highest - scores))
    return int(np.argmax(scores[: j + 1])), j


def _confirmed(model: ImplicitModel, network: Network, question: Question, found: Fall) -> Fall | None:
    """Ask the network about both points alone, and the model: a fall is one that both show."""
    ends = [np.asarray(network(point[None]), np.float64) for point in (found.low, found.high)]
    before, after = (float(question.score(outputs)[0]) for outputs in ends)
    exact = question.model_score(model(np.stack([found.low, found.high]).astype(np.float64)))
    size = 1.0 if not np.isfinite(exact).all() else float(np.abs(exact).max())
    if before - after > 0 and exact[0] - exact[1] > FALL * size:
        return Fall(found.low, found.high, (before, after))
    return None
