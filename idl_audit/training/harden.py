"""Hardening: the weights of a given network are fine-tuned until more of its samples can be proved.

One long run from the weights as they are, then short ones from where it ended with other coefficients: a smaller one
where too much clean accuracy was lost, a larger one where there is some to spare; and mixtures of neighbours of which
one keeps clean accuracy and the other does not. What is best on samples kept apart, judged by our own prover, is the
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np

from idl_audit.training.choose import Score
from idl_audit.training.fine_tune import Recipe, Samples, fine_tune
from idl_audit.training.losses import METHODS
from idl_audit.training.memory import Done, Memory
from idl_audit.training.network import Twin
from idl_audit.training.schedule import Heard, Schedule, seconds_a_step
from idl_audit.values.arrays import FloatArray

Weights = Mapping[str, FloatArray]

FIRST_SHARE: Final = 0.6
"""Of the seconds, for the first run; the others share what is left."""
FURTHER_RUNS: Final = 3
FACTOR: Final = 4.0
"""Between the coefficients of two runs."""
NARROWER: Final = 0.85
"""Times the radius of training, where a run has lost too much: attacks cost clean accuracy as intervals do."""
HALVINGS: Final = 4
"""Of the way between two neighbours, for the mixture that loses no more than it may."""
FEWEST_STEPS: Final = 50


@dataclass(frozen=True, eq=False)
class Candidate:
    """Weights that were reached, and what is known of them."""

    name: str
    """How they came about: "before", "mtl, a = 0.1", "70 % of the way from .. to .."."""
    weights: Weights
    score: Score
    steps: int = 0


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything that was tried."""

    before: Candidate
    front: tuple[Candidate, ...]
    chosen: Candidate | None
    """The best that keeps clean accuracy; None where none does, or none certifies more than before."""
    interrupted: bool = False
    """Whether the user ended training before its time."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be hardened, and by what it is judged."""

    network: Twin
    train: Samples
    clean: Callable[[Weights], int]
    """How many of the samples kept apart are right."""
    judge: Callable[[Weights, bool], Score]
    """Of weights; whether open samples are branched on."""
    before: Score
    """Of the weights as they are."""
    products: int
    """Multiplications of one forward pass of one sample."""
    recipe: Recipe
    seconds: float
    """Of one core, for all runs together."""
    least_clean: int
    """Of the samples kept apart: so many must stay right."""
    memory: Memory = field(default_factory=Memory)
    """What an earlier run of the same task has done."""

    def keeps(self, candidate: Candidate) -> bool:
        """Return whether enough samples stay right."""
        return candidate.score.clean >= self.least_clean

    def candidate(self, name: str, weights: Weights, steps: int = 0) -> Candidate:
        """Return weights with what the judge says; those that lose too much are not worth branching."""
        return Candidate(name, weights, self.judge(weights, self.clean(weights) >= self.least_clean), steps)


def harden(task: Task, heard: Callable[[str], Heard] = lambda name: lambda step: None) -> Outcome:
    """Return what hardening reached.

    Args:
        task: what is to be done.
        heard: given the name of a run, returns what is told after its steps.
    """
    network = task.network
    runs = _Runs(task, network.arrays(), heard)
    recipe = task.recipe
    has_more = _coefficient(recipe) is not None
    runs.go(recipe, FIRST_SHARE * task.seconds if has_more else task.seconds, runs.before, Schedule)
    share = (1 - FIRST_SHARE) / FURTHER_RUNS * task.seconds
    for number in range(FURTHER_RUNS if has_more else 0):
        if runs.interrupted:
            break
        found = _other(recipe, more=task.keeps(runs.front[-1]))
        if found is None:
            break
        recipe = found
        again = replace(recipe, rate=recipe.rate / 2, seed=task.recipe.seed + number + 1)
        runs.go(again, share, runs.front[-1], _without_ramp)
    front = [*runs.front, *_mixtures(task, [runs.before, *runs.front])]
    chosen = _best(task, front)
    if chosen is not None and not chosen.score.certified > runs.before.score.certified:
        chosen = None
    network.take(runs.before.weights if chosen is None else chosen.weights)
    return Outcome(runs.before, tuple(front), chosen, runs.interrupted)


class _Runs:
    """The runs of a task, one after the other; those that an earlier process has done are taken from its memory."""

    def __init__(self, task: Task, start: Weights, heard: Callable[[str], Heard]) -> None:
        self.task, self.heard = task, heard
        self.before = Candidate("before", start, task.before)
        self.front: list[Candidate] = []
        self.interrupted = False

    def go(self, recipe: Recipe, seconds: float, start: Candidate, make: Callable[[int], Schedule]) -> None:
        """Train from some weights, and have what comes of it judged."""
        task, memory = self.task, self.task.memory
        if len(self.front) < len(memory.runs):
            done = memory.runs[len(self.front)]
            self.front.append(Candidate(done.name, done.weights, done.score, done.steps))
            return
        each = seconds_a_step(task.network, task.products, recipe.batch, recipe.attack_steps)
        schedule = make(max(FEWEST_STEPS, int(seconds / each)))
        name = _name(recipe)
        task.network.take(start.weights)
        found = fine_tune(
            task.network,
            task.train,
            recipe,
            schedule,
            seconds=seconds,
            heard=self.heard(name),
            begun=memory.state,
            keep=memory.stands,
        )
        self.interrupted = found.interrupted
        reached = task.candidate(name, found.weights, found.steps)
        self.front.append(reached)
        if not self.interrupted:
            memory.done(Done(name, reached.weights, reached.steps, reached.score))


def _coefficient(recipe: Recipe) -> str | None:
    """Return the number that runs of a method differ in, by its name in the recipe; None where there is none."""
    loss, penalty = METHODS[recipe.method]
    return "a" if loss in ("mtl", "sabr") else None if penalty is None else "weight"


def _other(recipe: Recipe, *, more: bool) -> Recipe | None:
    """Return the recipe with a larger coefficient, or with a smaller one and radius; None where there is no larger."""
    name = _coefficient(recipe)
    assert name is not None
    now = getattr(recipe, name)
    then = now * FACTOR if more else now / FACTOR
    if name == "a":
        then = min(then, 1.0)
    if then == now:
        return None
    return replace(recipe, **{name: then}, wider=recipe.wider * (1.0 if more else NARROWER))


def _name(recipe: Recipe) -> str:
    name = _coefficient(recipe)
    return recipe.method if name is None else f"{recipe.method}, {name} = {getattr(recipe, name):.3g}"


def _best(task: Task, front: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate of most certified samples among those that keep clean accuracy."""
    return max(filter(task.keeps, front), key=lambda one: (one.score.certified, one.score.clean), default=None)


def _without_ramp(steps: int) -> Schedule:
    return Schedule(steps, ramp=0.0)


def _mixtures(task: Task, path: Sequence[Candidate]) -> list[Candidate]:
    """Return weights between neighbours of which one keeps clean accuracy: as far as possible from that one.

    Between the weights before and a run there is a long way, on which networks are poor; it is gone where nothing else
    keeps clean accuracy.
    """
    runs = path[1:]
    pairs = [(a, b) for a, b in pairwise(runs) if task.keeps(a) != task.keeps(b)]
    if not any(map(task.keeps, runs)):
        pairs = [(path[0], max(runs, key=lambda one: one.score.clean))]
    found = []
    for one, other in pairs:
        kept, lost = (one, other) if task.keeps(one) else (other, one)
        share = _furthest(task, kept, lost)
        if share:
            name = f"{share:.0%} of the way from {kept.name} to {lost.name}"
            found.append(task.candidate(name, _mixed(kept, lost, share)))
    return found


def _furthest(task: Task, kept: Candidate, lost: Candidate) -> float:
    """Return how far one may go from weights that keep clean accuracy to others that do not, by halving the way."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if task.clean(_mixed(kept, lost, middle)) >= task.least_clean:
            low = middle
        else:
            high = middle
    return low


def _mixed(one: Candidate, other: Candidate, share: float) -> Weights:
    return {
        name: np.asarray((1 - share) * value + share * other.weights[name], value.dtype)
        for name, value in one.weights.items()
    }
