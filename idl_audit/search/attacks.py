"""Attacks: ways to look for a point of the input set that the network misclassifies.

An attack proposes points; success is the original network's word alone (`Replay`), asked in float32 at points that lie
inside the set exactly. Gradients come from the implicit model. Over U_card (`SparseBall`) an attack changes at most k
inputs: the inputs that matter most to first order, then a search on those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.search.fast_gradients import CheckedSearch, Searched, in_batches, searched
from idl_audit.search.sign_descent import Objective, Units, diversify, sign_descent
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.box import Box, InputSet, SparseBall
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.errors import BudgetError, OptionError
from idl_audit.values.margins import margins, predictions, rivals
from idl_audit.values.network import Network

SUPPORT_ROUNDS = 3
"""How often a sparse attack chooses its inputs anew."""

ASKED_AGAIN = 16
"""Points of a batch that the network is asked about one by one, until one of them succeeds alone."""

GREEDY_STEPS = 32
"""In so many steps a greedy sparse attack collects its inputs."""


@dataclass(frozen=True)
class Found:
    """A point inside the input set, with what the original network says of it."""

    point: Float32Array
    predicted: int
    """The class that the network predicts there; -1 where an output is no number."""
    margin: float
    """y_label - max over the others, for a targeted attack max over the others - y_target; -inf where an output is no
    number. Positive where the attack has failed."""
    method: str


@dataclass(frozen=True)
class Target:
    """What is attacked: the sample's input set, its label, and the network that has the last word."""

    model: ImplicitModel
    inputs: InputSet
    centre: FloatArray
    """The sample itself, shape (p,)."""
    label: int
    network: Network
    budget: Budget = UNLIMITED

    @property
    def searched(self) -> Searched:
        """The model as searches see it; it raises BudgetError where the time is over."""
        return CheckedSearch(searched(self.model), self.budget.check)

    @property
    def box(self) -> Box:
        """The set, or the least box around it."""
        return self.inputs.hull

    def replay(self, points: FloatArray, method: str, goal: int | None = None) -> Found | None:
        """Return the worst of the points by the original network, put into the set first; None where none fits.

        Args:
            points: shape (m, p) or (p,).
            method: what the result is called after.
            goal: the class that the attack aims at; None stands for any but the label.
        """
        inside = self.project(np.atleast_2d(points))
        inside = inside[self.inputs.contains(inside)]
        if not len(inside):
            return None
        outputs = in_batches(self.network, inside, self.searched.batch, self.budget.check)
        predicted, margin = self._judged(outputs, goal)
        failed = predicted == self.label if goal is None else predicted != goal
        # success first, then the smallest margin: with ties, argmax may err at margin 0
        found = []
        for k in np.lexsort((margin, failed))[:ASKED_AGAIN]:
            # as anyone would replay it: a batch may round otherwise
            alone = outputs if len(inside) == 1 else self.network(inside[k][None])
            classes, margins_there = self._judged(alone, goal)
            found.append(Found(inside[k], int(classes[0]), float(margins_there[0]), method))
            if failed[k] or is_success(found[-1], self.label, goal):
                break
        return min(found, key=lambda one: (not is_success(one, self.label, goal), one.margin))

    def _judged(self, outputs: FloatArray, goal: int | None) -> tuple[IntArray, FloatArray]:
        """Return the predicted classes and the margins, -inf where an output is no number, (m,) each."""
        predicted = predictions(outputs)
        margin = margins(outputs, self.label) if goal is None else -margins(outputs, goal)
        return predicted, np.where(predicted < 0, -np.inf, margin)

    def project(self, points: FloatArray) -> Float32Array:
        """Return float32 points of the exact set near the given ones, where there are any.

        Over U_card the k largest changes are kept, each relative to how far its input may move, and the others undone.
        """
        if isinstance(self.inputs, SparseBall) and self.inputs.k < self.inputs.size:
            change = np.abs(points - self.centre)
            farthest = np.where(self.inputs.radius > 0, self.inputs.radius, 1.0)
            points = np.where(largest_entries(change / farthest, self.inputs.k), points, self.centre)
        return self.box.project(points)


def is_success(found: Found | None, label: int, goal: int | None = None) -> bool:
    """Return whether the original network misclassifies the point, as the goal where there is one."""
    if found is None:
        return False
    return found.predicted != label if goal is None else found.predicted == goal


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
    aims = _aims(target, options)
    _, slope = target.searched.slopes(np.tile(target.centre, (len(aims), 1)), _Aim(target, options, aims).weights)
    yield _best_corners(target, slope)


def _best_corners(target: Target, slope: FloatArray) -> FloatArray:
    """Return the points of the set where slope . u is least: over U_card the k entries that lower it most move."""
    corners = np.where(slope > 0, target.box.lo, target.box.hi)
    if isinstance(target.inputs, SparseBall):
        gains = np.abs(slope * (corners - target.centre))
        corners = np.where(largest_entries(gains, target.inputs.k), corners, target.centre)
    return corners


def projected_gradient(target: Target, options: AttackOptions, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield the ends of signed gradient descent with momentum on every rival's margin, from several starts (PGD).

    Starts: the sample, then by turns output-diversified and random ones. Over U_card each end is made sparse.
    """
    aims = _aims(target, options)
    model, units = target.searched, Units.of_float32(target.box)
    if (units.lo > units.hi).any():
        return  # an interval without a float32 number: no point could be replayed
    objective = _Aim(target, options, aims).objective
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


def _greedy(target: Target, options: AttackOptions, aims: IntArray) -> Iterator[FloatArray]:
    """Yield points that collect their k inputs step by step, always those that lower the margin most to first order."""
    assert isinstance(target.inputs, SparseBall)
    k, model, aim = min(target.inputs.k, target.inputs.size), target.searched, _Aim(target, options, aims)
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
    model, aim = target.searched, _Aim(target, options, aims)
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


def largest_entries(values: FloatArray, k: int) -> BoolArray:
    """Return a mask of the k largest entries of each row, shape (m, p); of equal ones, the first."""
    mask = np.zeros(values.shape, np.bool_)
    order = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


def sensitivity_ranking(target: Target, options: AttackOptions, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield points that change only the inputs to which the label's output is most sensitive (paper 7.3.1).

    The inputs are ranked by the label's row of S; a share `fraction` of them goes to random values, or ends, of their
    intervals.
    """
    yield _ranked(target, _sensitivity_of_output(target.model, target.label), options, rng)


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


def _aims(target: Target, options: AttackOptions) -> IntArray:
    """Return the classes that an attack aims at, one run each."""
    if options.target is None:
        return rivals(target.model.n_outputs, target.label)
    if not 0 <= options.target < target.model.n_outputs:
        raise OptionError(
            f"there is no class {options.target} to aim at; classes go from 0 to {target.model.n_outputs - 1}"
        )
    if options.target == target.label:
        raise OptionError(f"class {options.target} is the sample's own; an attack aims at another one")
    return np.array([options.target])


@dataclass(frozen=True)
class _Aim:
    """What each row of a batch descends on: y_label - y_aim; towards a goal, max over the others - y_goal."""

    target: Target
    options: AttackOptions
    aims: IntArray

    @property
    def objective(self) -> Objective:
        return Objective(self._value, self.weights)

    def _leader(self, y: FloatArray) -> IntArray:
        """Return the output that stands in the aim's way."""
        if self.options.target is None:
            return np.full(len(y), self.target.label)
        others = np.where(np.arange(y.shape[1]) == self.options.target, -np.inf, y)
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
"""Name -> attack, cheap ones first; the attack by the LP's minimiser is a rung of `verdicts`, with its relaxation."""


def run_attack(name: str, target: Target, options: AttackOptions, rng: np.random.Generator) -> Found | None:
    """Run one attack and replay what it proposes on the original network; return the worst point of all.

    Where the target's time is over before the attack is, it is the worst of those that were asked about.

    Raises:
        OptionError: for an unknown name, and a target that is no other class than the label.
    """
    if name not in ATTACKS:
        raise OptionError(f"there is no attack '{name}'; known are {', '.join(ATTACKS)}, lp and mip")
    if options.target is not None:
        _aims(target, options)
    worst: Found | None = None
    with suppress(BudgetError):
        for points in ATTACKS[name](target, options, rng):
            found = target.replay(points, name, options.target)
            if found is not None and (worst is None or is_worse(found, worst, target.label, options.target)):
                worst = found
            if is_success(worst, target.label, options.target):
                break
    return worst


def is_worse(found: Found, than: Found, label: int, goal: int | None = None) -> bool:
    """Return whether a point is a better attack than another: a success before all others, then the smaller margin."""
    return (not is_success(found, label, goal), found.margin) < (not is_success(than, label, goal), than.margin)
