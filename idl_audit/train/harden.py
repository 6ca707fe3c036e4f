"""Hardening: the weights of a given network are fine-tuned until more of its samples can be proved.

One long run from the weights as they are, then short ones from where it ended with other coefficients: a smaller one
where too much clean accuracy was lost, a larger one where there is some to spare; and mixtures of the first weights
with the last, which lose less. What is best on samples kept apart, judged by our own prover, is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from idl_audit.train.choose import Score
from idl_audit.train.fine_tune import Recipe, Samples, fine_tune
from idl_audit.train.network import Twin
from idl_audit.train.schedule import Heard, Schedule, seconds_a_step
from idl_audit.values.arrays import FloatArray

Weights = Mapping[str, FloatArray]

FIRST_SHARE: Final = 0.6
"""Of the seconds, for the first run; the others share what is left."""
FURTHER_RUNS: Final = 3
FACTOR: Final = 3.0
"""Between the coefficients of two runs."""
MIXTURES: Final = (0.85, 0.7, 0.5, 0.3)
"""Shares of the hardened weights that are tried where every run has lost too much."""
FEWEST_STEPS: Final = 50


@dataclass(frozen=True, eq=False)
class Candidate:
    """Weights that were reached, and what is known of them."""

    name: str
    """How they came about: "before", "a = 0.1", "a = 0.1, 70 % of the way"."""
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


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be hardened, and by what it is judged."""

    network: Twin
    train: Samples
    judge: Callable[[Weights], Score]
    before: Score
    """Of the weights as they are."""
    products: int
    """Multiplications of one forward pass of one sample."""
    recipe: Recipe
    seconds: float
    """Of one core, for all runs together."""
    least_clean: int
    """Of the samples kept apart: so many must stay right."""


def harden(task: Task, heard: Callable[[str], Heard] = lambda name: lambda step: None) -> Outcome:
    """Return what hardening reached.

    Args:
        task: what is to be done.
        heard: given the name of a run, returns what is told after its steps.
    """
    network = task.network
    start = network.arrays()
    before = Candidate("before", start, task.before)
    recipe = task.recipe
    first = _run(task, recipe, FIRST_SHARE * task.seconds, start, Schedule, heard)
    front = [first]
    if recipe.method in ("mtl", "sabr"):
        a, share = recipe.a, (1 - FIRST_SHARE) / FURTHER_RUNS * task.seconds
        for number in range(FURTHER_RUNS):
            keeps = [one for one in front if one.score.clean >= task.least_clean]
            a = a * FACTOR if len(keeps) == len(front) else a / FACTOR
            a = min(a, 1.0)
            again = replace(recipe, a=a, rate=recipe.rate / 2, seed=recipe.seed + number + 1)
            best = _best(front, task.least_clean) or front[-1]
            front.append(_run(task, again, share, best.weights, _without_ramp, heard))
            if a == 1.0:
                break
    if _best(front, task.least_clean) is None:
        front += _mixtures(task, before, front)
    chosen = _best(front, task.least_clean)
    if chosen is not None and not chosen.score.certified > before.score.certified:
        chosen = None
    network.take(start if chosen is None else chosen.weights)
    return Outcome(before, tuple(front), chosen)


def _best(front: Sequence[Candidate], least_clean: int) -> Candidate | None:
    """Return the candidate of most certified samples among those that keep clean accuracy."""
    kept = [one for one in front if one.score.clean >= least_clean]
    return max(kept, key=lambda one: (one.score.certified, one.score.clean), default=None)


def _run(
    task: Task,
    recipe: Recipe,
    seconds: float,
    start: Weights,
    make: Callable[[int], Schedule],
    heard: Callable[[str], Heard],
) -> Candidate:
    name = recipe.method if recipe.method not in ("mtl", "sabr") else f"{recipe.method}, a = {recipe.a:.3g}"
    each = seconds_a_step(task.network, task.products, recipe.batch, recipe.attack_steps)
    steps = max(FEWEST_STEPS, int(seconds / each))
    task.network.take(start)
    weights = fine_tune(task.network, task.train, recipe, make(steps), seconds=seconds, heard=heard(name))
    return Candidate(name, weights, task.judge(weights), steps)


def _without_ramp(steps: int) -> Schedule:
    return Schedule(steps, ramp=0.0)


def _mixtures(task: Task, before: Candidate, front: Sequence[Candidate]) -> list[Candidate]:
    """Return weights between those before and those of the run that lost least."""
    nearest = max(front, key=lambda one: (one.score.clean, one.score.certified))
    found = []
    for share in MIXTURES:
        mixed = {
            name: np.asarray((1 - share) * before.weights[name] + share * new, new.dtype)
            for name, new in nearest.weights.items()
        }
        found.append(Candidate(f"{nearest.name}, {share:.0%} of the way", mixed, task.judge(mixed)))
        if found[-1].score.clean >= task.least_clean:
            break
    return found
