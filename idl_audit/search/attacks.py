"""Attacks: ways to look for a point of the input set that the network misclassifies.

An attack proposes points; success is the original network's word alone (`search.judge`). Gradients come from the
implicit model. Over U_card (`SparseBall`) an attack changes at most k inputs: the inputs that matter most to first
order, then a search on those alone.

Elsewhere: FGSM, PGD with restarts, saliency map attack, JSMA, ranking by gradient, targeted attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.search.fast_gradients import CheckedSearch, Searched, searched
from idl_audit.search.judge import Judge
from idl_audit.search.opaque import Opaque
from idl_audit.search.pgd import Objective, Units, ball_descent, diversify, sign_descent
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box, SparseBall, largest_entries
from idl_audit.values.errors import BudgetError, OptionError
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.margins import rivals
from idl_audit.values.network import Network
from idl_audit.values.query import Misclassification

SUPPORT_ROUNDS = 3
"""How often a sparse attack chooses its inputs anew."""

GREEDY_STEPS = 32
"""In so many steps a greedy sparse attack collects its inputs."""


@dataclass(frozen=True)
class Target:
    """What is attacked: a sample, the query that asks for another class around it, and the judge of the points."""

    model: ImplicitModel | Opaque
    centre: FloatArray
    """The sample itself, shape (p,)."""
    query: Misclassification
    judge: Judge

    @classmethod
    def of(cls, model: ImplicitModel, network: Network, sample: FloatArray, query: Misclassification) -> Target:
        """Return what is attacked, without a limit of time."""
        return cls(model, sample, query, Judge.of(model, network, query))

    @property
    def label(self) -> int:
        """The right class."""
        return self.query.label

    @property
    def inputs(self) -> InputSet:
        """The sample's input set."""
        return self.query.inputs

    @property
    def searched(self) -> Searched:
        """The model as searches see it, its evaluations counted; it raises BudgetError where the time is over."""
        if isinstance(self.model, Opaque):  # a slope costs it several evaluations, which it counts itself
            return CheckedSearch(self.model.within(self.box, self.judge.count), self.judge.budget.check)
        return replace(self.uncounted, count=self.judge.count)

    @property
    def uncounted(self) -> CheckedSearch:
        """The same, for whoever counts evaluations for several samples himself."""
        return CheckedSearch(searched(self.form), self.judge.budget.check)

    @property
    def form(self) -> ImplicitModel:
        """The implicit model. Raises TypeError where the network has none: such attacks are not offered there."""
        if isinstance(self.model, Opaque):
            raise TypeError("this attack reads the implicit form, and the network has none")
        return self.model

    @property
    def box(self) -> Box:
        """The set, or the least box around it."""
        return self.query.box

    @property
    def picture(self) -> tuple[int, ...]:
        """Channels, height and width of an input that is a picture; none of others."""
        shape = self.model.input_shape
        while len(shape) > 3 and shape[0] == 1:  # one sample
            shape = shape[1:]
        return shape if len(shape) == 3 and min(shape[1:]) > 1 else ()


@dataclass(frozen=True)
class Ranking:
    """S of another network, (q, p), in place of the attacked network's own (paper 7.3.1: transfer)."""

    matrix: FloatArray = field(repr=False, compare=False)
    sha256: str
    """Of its file."""


@dataclass(frozen=True)
class AttackOptions:
    """How hard to try, and what for."""

    steps: int = 20
    restarts: int = 5
    samples: int = 100
    fraction: float | None = None
    """Share of the inputs that may change: for sensitivity and gradient 0.1 unless given; for random, which then
    chooses them at random, all of them."""
    target: int | None = None
    """Only this class counts as success; None stands for any but the label."""
    max_queries: int = 1000
    """Points that each attack of `auto` may evaluate."""
    ranking: Ranking | None = None
    """What sensitivity ranks inputs by; None stands for S of the network itself."""


def random_points(target: Target, options: AttackOptions, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield points drawn evenly from the box, and as many of its corners; over U_card on random inputs, k each."""
    shape = (max(options.samples // 2, 1), target.box.size)
    lo, width = target.box.lo, target.box.hi - target.box.lo
    points = np.vstack([lo + rng.random(shape) * width, lo + rng.integers(0, 2, shape) * width])
    if options.fraction is not None:
        count = _count(target, options.fraction)
        points = np.where(largest_entries(rng.random(points.shape), count), points, target.centre)
    elif isinstance(target.inputs, SparseBall):
        points = np.where(largest_entries(rng.random(points.shape), target.inputs.k), points, target.centre)
    yield points[: options.samples]


def signed_gradient(target: Target, options: AttackOptions, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield, for each rival class, the corner that the margin's gradient at the sample points to (FGSM)."""
    aims = _aims(target)
    _, slope = target.searched.slopes(np.tile(target.centre, (len(aims), 1)), _Aim(target, aims).weights)
    yield _best_corners(target, slope)


def _best_corners(target: Target, slope: FloatArray) -> FloatArray:
    """Return the points of the set where slope . u is least: over U_card the k entries that lower it most move."""
    if isinstance(target.inputs, NormBall):
        return target.inputs.lowest(slope)
    corners = np.where(slope > 0, target.box.lo, target.box.hi)
    if isinstance(target.inputs, SparseBall):
        gains = np.abs(slope * (corners - target.centre))
        corners = np.where(largest_entries(gains, target.inputs.k), corners, target.centre)
    return corners


def projected_gradient(target: Target, options: AttackOptions, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield the ends of signed gradient descent with momentum on every rival's margin, from several starts (PGD).

    Starts: the sample, then by turns output-diversified and random ones. Over U_card each end is made sparse.
    """
    aims = _aims(target)
    model, units = target.searched, Units.of_float32(target.box)
    if (units.lo > units.hi).any():
        return  # an interval without a float32 number: no point could be replayed
    objective = _Aim(target, aims).objective
    if isinstance(target.inputs, NormBall):
        yield from _in_ball(target, target.inputs, options, aims, rng)
        return
    is_sparse = isinstance(target.inputs, SparseBall)
    if is_sparse:
        yield from _greedy(target, options, aims)

    def stop(t: FloatArray, value: FloatArray) -> bool:
        return not is_sparse and bool((value < 0).any())  # what all inputs together can do is no end for k of them

    for turn in range(options.restarts):
        if turn == 0:
            t = np.tile(units.of_points(target.centre), (len(aims), 1))
        else:
            t = rng.random((len(aims), units.lo.size))
            if turn % 2:
                t = diversify(model, units, t, rng.uniform(-1.0, 1.0, (len(aims), target.model.n_outputs)))
        best, _ = sign_descent(model, units, t, objective, steps=options.steps, stop=stop)
        points = units.points(best)
        if isinstance(target.inputs, SparseBall):
            yield from _sparse(target, target.inputs, points, options, aims)
        else:
            yield points


def _in_ball(
    target: Target, ball: NormBall, options: AttackOptions, aims: IntArray, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield the ends of descent within a ball on every rival's margin: from the sample, then from random ends."""
    objective = _Aim(target, aims).objective
    for turn in range(options.restarts):
        points = np.tile(ball.centre, (len(aims), 1))
        if turn:
            points = points + rng.random((len(aims), 1)) * (ball.lowest(rng.normal(size=points.shape)) - points)
        yield ball_descent(
            target.searched,
            ball,
            points,
            objective,
            steps=options.steps,
            stop=lambda u, value: bool((value < 0).any()),
        )


def _greedy(target: Target, options: AttackOptions, aims: IntArray) -> Iterator[FloatArray]:
    """Yield points that collect their k inputs step by step, always those that lower the margin most to first order."""
    assert isinstance(target.inputs, SparseBall)
    k, model, aim = min(target.inputs.k, target.inputs.size), target.searched, _Aim(target, aims)
    points = np.tile(target.centre, (len(aims), 1))
    for size in np.unique(np.linspace(1, k, min(k, GREEDY_STEPS)).round().astype(np.int64)):
        _, slope = model.slopes(points, aim.weights)
        ends = np.where(slope > 0, target.box.lo, target.box.hi)
        moved = points != target.centre
        # moved inputs come first and stay; an end that the slope now points away from is turned round
        gains = np.where(moved, np.inf, slope * (target.centre - ends))
        points = np.where(largest_entries(gains, int(size)), ends, target.centre)
    yield points
    yield from _sparse(target, target.inputs, points, options, aims)


def _sparse(
    target: Target, inputs: SparseBall, points: FloatArray, options: AttackOptions, aims: IntArray
) -> Iterator[FloatArray]:
    """Yield points of U_card near a dense attack's: keep the k changes that matter most, search on them, choose again.

    The first choice ranks |slope change|, the slope halfway between sample and point; later ones the greatest decrease
    to first order that each input offers, with the slope at the sparse point itself.
    """
    model, aim = target.searched, _Aim(target, aims)
    box = Units.of_float32(target.box)
    _, slope = model.slopes((points + target.centre) / 2, aim.weights)
    gains = slope * (target.centre - points)
    for _ in range(SUPPORT_ROUNDS):
        support = largest_entries(gains, inputs.k)
        units = Units(np.where(support, box.lo, target.centre), np.where(support, box.hi, target.centre))
        start = units.of_points(np.where(support, points, target.centre))
        best, _ = sign_descent(model, units, start, aim.objective, steps=options.steps)
        points = np.where(support, units.points(best), target.centre)
        yield points
        _, slope = model.slopes(points, aim.weights)
        gains = slope * (target.centre - np.where(slope > 0, target.box.lo, target.box.hi))


def sensitivity_ranking(target: Target, options: AttackOptions, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield points that change only the inputs to which the label's output is most sensitive (paper 7.3.1).

    The inputs are ranked by the label's row of S, that of another network where `ranking` has one; a share `fraction`
    of them goes to random values, or ends, of their intervals.
    """
    given = options.ranking
    own = _sensitivity_of_output(target.form, target.label) if given is None else given.matrix[target.label]
    yield _ranked(target, own, options, rng)


@lru_cache(maxsize=16)
def _sensitivity_of_output(model: ImplicitModel, output: int) -> FloatArray:
    """Return one row of S; it is the same for every sample of a class."""
    return np.asarray(sensitivity_matrix(model, functionals=np.eye(model.n_outputs)[[output]])[0])


def gradient_ranking(target: Target, options: AttackOptions, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield points that change only the inputs with the largest |d y_label / du| at the sample (a saliency map)."""
    functional = np.eye(target.model.n_outputs)[[target.label]]
    _, slope = target.searched.slopes(target.centre[None], lambda y: functional)
    yield _ranked(target, np.abs(slope[0]), options, rng)


def _ranked(target: Target, ranking: FloatArray, options: AttackOptions, rng: np.random.Generator) -> FloatArray:
    count = _count(target, RANKED_SHARE if options.fraction is None else options.fraction)
    chosen = np.argsort(-ranking, kind="stable")[:count]
    points = np.tile(target.centre, (options.samples, 1))
    lo, hi = target.box.lo[chosen], target.box.hi[chosen]
    drawn = lo + rng.random((options.samples, count)) * (hi - lo)
    ends = np.where(rng.integers(0, 2, (options.samples, count)).astype(bool), hi, lo)
    # one draw is the paper's: even values; of several, every other one goes to the ends
    points[:, chosen] = np.where(np.arange(options.samples)[:, None] % 2 == 0, drawn, ends)
    return points


RANKED_SHARE = 0.1
"""Share of the inputs that the ranking attacks change unless told otherwise."""


def _count(target: Target, fraction: float) -> int:
    """Return how many inputs a share of them is, at least one and at most what the set allows."""
    count = max(1, round(fraction * target.centre.size))
    return min(count, target.inputs.k) if isinstance(target.inputs, SparseBall) else count


def _aims(target: Target) -> IntArray:
    """Return the classes that an attack aims at, one run each."""
    goal = target.query.goal
    return rivals(target.model.n_outputs, target.label) if goal is None else np.array([goal])


@dataclass(frozen=True)
class _Aim:
    """What each row of a batch descends on: y_label - y_aim; towards a goal, max over the others - y_goal."""

    target: Target
    aims: IntArray

    @property
    def objective(self) -> Objective:
        return Objective(self._value, self.weights)

    def _leader(self, y: FloatArray) -> IntArray:
        """Return the output that stands in the aim's way."""
        goal = self.target.query.goal
        if goal is None:
            return np.full(len(y), self.target.label)
        others = np.where(np.arange(y.shape[1]) == goal, -np.inf, y)
        return np.asarray(others.argmax(axis=1))

    def _value(self, y: FloatArray) -> FloatArray:
        rows = np.arange(len(y))
        value = y[rows, self._leader(y)] - y[rows, self.aims]
        return np.where(np.isnan(value), np.inf, value)

    def weights(self, y: FloatArray) -> FloatArray:
        rows, weights = np.arange(len(y)), np.zeros_like(y)
        weights[rows, self._leader(y)] = 1.0
        weights[rows, self.aims] = -1.0
        return weights


Attack: TypeAlias = Callable[[Target, AttackOptions, np.random.Generator], Iterator[FloatArray]]
"""Yields batches of points (m, p); it is not asked for more once one of them succeeds."""

ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        "random": random_points,
        "sign": signed_gradient,
        "sensitivity": sensitivity_ranking,
        "gradient": gradient_ranking,
        "pgd": projected_gradient,
    }
)
"""Name -> attack, cheap ones first; that by the LP's minimiser is a rung of `decide.rungs`, with its relaxation."""


def run_attack(name: str, target: Target, options: AttackOptions, rng: np.random.Generator) -> bool:
    """Run one attack and propose its points to the judge; return whether one is a counterexample.

    Where the judge's time is over before the attack is, those that it was asked about count.

    Raises:
        OptionError: for an unknown name.
    """
    if name not in ATTACKS:
        raise OptionError(f"there is no attack '{name}'; known are {', '.join(ATTACKS)}, lp and mip")
    with suppress(BudgetError):
        return any(target.judge.propose(points) for points in ATTACKS[name](target, options, rng))
    return target.judge.has_won
