"""Hardening: the weights of a given network are fine-tuned until more of its samples can be proved.

One long run from the weights as they are, with a small coefficient; then shorter ones with larger coefficients, each
from where the one before ended, as long as clean accuracy is kept. Once one has lost it, coefficients between it and
the last that kept it; where none has kept it, smaller ones, from the weights as they are: what a network has lost to
intervals it does not find again in the time that is left. And mixtures of a run that has lost too much and the weights
that it began with. What is best on samples kept apart, judged by our own prover, is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from idl_audit.training.choose import Score
from idl_audit.training.fine_tune import Recipe, Samples, fine_tune
from idl_audit.training.losses import METHODS
from idl_audit.training.memory import Done, Memory
from idl_audit.training.network import Twin
from idl_audit.training.schedule import Heard, Schedule, seconds_a_step
from idl_audit.values.arrays import FloatArray

Weights = Mapping[str, FloatArray]

FIRST_SHARE: Final = 0.5
"""Of the seconds, for the first run: what a radius that grows slowly reaches, short runs do not catch up with."""
ANEW_SHARE: Final = 0.6
"""Of the seconds that are left, for a run from the weights as they are, while none has kept accuracy; the others share
what is left."""
FURTHER_RUNS: Final = 3
FACTOR: Final = 4.0
"""Between the coefficients of two runs."""
NARROWER: Final = 0.85
"""Times the radius of training, where no run has kept accuracy yet: attacks cost it as intervals do."""
HALVINGS: Final = 4
"""Of the way between two neighbours, for the mixture that loses no more than it may."""
FEWEST_STEPS: Final = 50
JUDGED: Final = 3
"""Candidates whose open samples are branched on: it takes longer than a short training does."""


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
        """Return weights with what the judge says without branching."""
        return Candidate(name, weights, self.judge(weights, False), steps)


def harden(task: Task, heard: Callable[[str], Heard] = lambda name: lambda step: None) -> Outcome:
    """Return what hardening reached.

    Args:
        task: what is to be done.
        heard: given the name of a run, returns what is told after its steps.
    """
    network = task.network
    runs = _Runs(task, network.arrays(), heard)
    if _coefficient(task.recipe) is None:
        runs.go(_Run(task.recipe, task.seconds, runs.before, Schedule))
    else:
        run: _Run | None = _Run(task.recipe, FIRST_SHARE * task.seconds, runs.before, Schedule)
        while run is not None and not runs.interrupted:
            runs.go(run)
            run = _next(runs)
    front = _branched(task, [*runs.front, *_mixtures(runs)])
    chosen = _best(task, front)
    if chosen is not None and not chosen.score.certified > runs.before.score.certified:
        chosen = None
    network.take(runs.before.weights if chosen is None else chosen.weights)
    return Outcome(runs.before, tuple(front), chosen, runs.interrupted)


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run is to do."""

    recipe: Recipe
    seconds: float
    start: Candidate
    make: Callable[[int], Schedule]
    """Steps -> their schedule."""


class _Runs:
    """The runs of a task, one after the other; those that an earlier process has done are taken from its memory."""

    def __init__(self, task: Task, start: Weights, heard: Callable[[str], Heard]) -> None:
        self.task, self.heard = task, heard
        self.before = Candidate("before", start, task.before)
        self.made: list[tuple[_Run, Candidate]] = []
        self.interrupted = False

    @property
    def front(self) -> list[Candidate]:
        """What the runs have reached."""
        return [reached for _, reached in self.made]

    def go(self, run: _Run) -> None:
        """Train from some weights, and have what comes of it judged."""
        task, memory, recipe = self.task, self.task.memory, run.recipe
        if len(self.made) < len(memory.runs):
            done = memory.runs[len(self.made)]
            self.made.append((run, Candidate(done.name, done.weights, done.score, done.steps)))
            return
        each = seconds_a_step(task.network, task.products, recipe.batch, recipe.attack_steps)
        name = _name(recipe)
        task.network.take(run.start.weights)
        found = fine_tune(
            task.network,
            task.train,
            recipe,
            run.make(max(FEWEST_STEPS, int(run.seconds / each))),
            seconds=run.seconds,
            heard=self.heard(name),
            begun=memory.state,
            keep=memory.stands,
        )
        self.interrupted = found.interrupted
        reached = task.candidate(name, found.weights, found.steps)
        self.made.append((run, reached))
        if not self.interrupted:
            memory.done(Done(name, reached.weights, reached.steps, reached.score))


def _next(runs: _Runs) -> _Run | None:
    """Return the run that the ones before make sensible; None where there were enough, or nothing is left to try."""
    task, number = runs.task, len(runs.made)
    if number > FURTHER_RUNS:
        return None
    kept = [(run.recipe, reached) for run, reached in runs.made if task.keeps(reached)]
    lost = [run.recipe for run, reached in runs.made if not task.keeps(reached)]
    recipe = _other(kept[-1][0] if kept else None, lost[-1] if lost else None)
    if recipe is None:
        return None
    left, more = task.seconds - sum(run.seconds for run, _ in runs.made), FURTHER_RUNS + 1 - number
    recipe = replace(recipe, seed=task.recipe.seed + number)
    if not kept:
        return _Run(recipe, left * (ANEW_SHARE if more > 1 else 1.0), runs.before, Schedule)
    return _Run(replace(recipe, rate=task.recipe.rate / 2), left / more, kept[-1][1], _without_ramp)


def _coefficient(recipe: Recipe) -> str | None:
    """Return the number that runs of a method differ in, by its name in the recipe; None where there is none."""
    loss, penalty = METHODS[recipe.method]
    return "a" if loss in ("mtl", "sabr") else None if penalty is None else "weight"


def _other(kept: Recipe | None, lost: Recipe | None) -> Recipe | None:
    """Return the recipe to try next; None where there is no larger coefficient.

    Args:
        kept: the one of the largest coefficient that has kept clean accuracy.
        lost: the one of the smallest coefficient that has lost it.
    """
    base = kept or lost
    assert base is not None
    name = _coefficient(base)
    assert name is not None
    now = float(getattr(base, name))
    if kept is None:
        return _with(replace(base, wider=base.wider * NARROWER), name, now / FACTOR)
    then = now * FACTOR if lost is None else math.sqrt(now * float(getattr(lost, name)))
    if name == "a":
        then = min(then, 1.0)
    return None if then == now else _with(base, name, then)


def _with(recipe: Recipe, name: str, value: float) -> Recipe:
    changed: dict[str, Any] = {name: value}
    return replace(recipe, **changed)


def _name(recipe: Recipe) -> str:
    name = _coefficient(recipe)
    return recipe.method if name is None else f"{recipe.method}, {name} = {getattr(recipe, name):.3g}"


def _best(task: Task, front: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate of most certified samples among those that keep clean accuracy."""
    return max(filter(task.keeps, front), key=lambda one: (one.score.certified, one.score.clean), default=None)


def _branched(task: Task, front: Sequence[Candidate]) -> list[Candidate]:
    """Return all candidates; of those that keep clean accuracy, the ones that lines certify most are branched on."""
    kept = sorted(filter(task.keeps, front), key=lambda one: one.score.by_lines, reverse=True)[:JUDGED]
    return [replace(one, score=task.judge(one.weights, True)) if one in kept else one for one in front]


def _without_ramp(steps: int) -> Schedule:
    return Schedule(steps, ramp=0.0)


def _mixtures(runs: _Runs) -> list[Candidate]:
    """Return weights between what runs began with that have lost too much, and where they ended: as far as allowed.

    Between the weights before and a run there is a long way, on which networks are poor; it is gone where nothing else
    keeps clean accuracy.
    """
    task = runs.task
    pairs = [(run.start, end) for run, end in runs.made if run.start is not runs.before and not task.keeps(end)]
    if not any(map(task.keeps, runs.front)):
        pairs = [(runs.before, max(runs.front, key=lambda one: one.score.clean))]
    found = []
    for kept, lost in pairs:
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
