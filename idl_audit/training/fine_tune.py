"""Training of a network's weights on batches of samples: Adam, a growing radius, the mean of the last weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from idl_audit.training.adam import Adam
from idl_audit.training.losses import LOSSES, METHODS, PENALTIES, Batch, Method
from idl_audit.training.network import Twin
from idl_audit.training.schedule import Clock, Heard, Schedule, Step, batches
from idl_audit.training.spans import around
from idl_audit.values.arrays import AnyArray, FloatArray

AVERAGED: Final = 0.99
"""Of the running mean of the weights, a step."""
LARGEST_GRADIENT: Final = 10.0
"""The gradient's norm is cut down to this: a single batch may have an endless one."""


KEPT_EVERY: Final = 200
"""Steps between two times that `fine_tune` says where it stands."""

MANY: Final = 20_000
"""Samples from which on a batch is twice as large, and its step longer: processors multiply larger matrices faster."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What is trained on: samples as the network reads them and what each of their entries may move by."""

    x: Tensor
    """(n, ...)."""
    y: Tensor
    """(n,)."""
    radius: Tensor
    """How far an entry may move, of shape (n, ...) or what broadcasts to it, >= 0."""
    valid: tuple[Tensor, Tensor] | None = None
    """The ends of the valid range, as the network reads it."""

    def batch(self, places: Tensor, share: float) -> Batch:
        """Return some samples with a share of their radius."""
        x = self.x[places]
        return Batch(x, self.y[places], *around(x, self.radius, share, self.valid))


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    method: Method = "mtl"
    a: float = 0.05
    """The share of intervals in the loss, or the width of SABR's boxes."""
    weight: float = 0.03
    """Of the penalty, where the method has one."""
    wider: float = 1.1
    """The radius of training, as a multiple of the one that is asked for."""
    rate: float = 0.03
    """The first step size, as a share of the root mean square of the weights that it moves."""
    batch: int = 100
    attack_steps: int = 1
    seed: int = 0

    @classmethod
    def of(cls, method: Method, n: int, seed: int) -> Recipe:
        """Return how to train on n samples."""
        return cls(method, seed=seed) if n < MANY else cls(method, batch=200, rate=0.04, seed=seed)


PARTS: Final = ("weights", "mean", "first", "second")
"""Of a state: arrays of each weight's shape."""


@dataclass(frozen=True, eq=False)
class State:
    """Where training stands after some steps: what the same steps need to go on."""

    step: int
    weights: tuple[FloatArray, ...]
    mean: tuple[FloatArray, ...]
    """The running mean of the weights."""
    first: tuple[FloatArray, ...]
    second: tuple[FloatArray, ...]
    """Adam's running means of gradients and of their squares."""
    chance: AnyArray
    """Of the generator, bytes."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """What fine-tuning reached."""

    weights: dict[str, FloatArray]
    """The running mean over the last steps."""
    steps: int
    interrupted: bool = False
    """Whether the user ended it before its time."""


def fine_tune(
    network: Twin,
    samples: Samples,
    recipe: Recipe,
    schedule: Schedule,
    *,
    seconds: float = float("inf"),
    heard: Heard = lambda step: None,
    begun: State | None = None,
    keep: Callable[[State], None] | None = None,
) -> Tuned:
    """Train the network's weights in place and return the running mean of them over the last steps.

    Args:
        network: the twin.
        samples: at least one.
        recipe: the loss and its numbers.
        schedule: how many steps.
        seconds: what the steps were counted for; far more processor time than that ends them.
        heard: told after every step.
        begun: where an earlier run of the same steps stood.
        keep: told now and then where training stands.
    """
    run = _Run(network, samples, recipe, schedule)
    if begun is not None:
        run.take(begun)
    order = batches(len(samples.x), recipe.batch, torch.Generator().manual_seed(recipe.seed))
    clock, interrupted = Clock(seconds), False
    try:
        for number, places in zip(range(schedule.steps), order, strict=False):
            if number < run.step:  # done by the run that this one goes on from
                continue
            heard(Step(number + 1, schedule.steps, run.advance(places)))
            if keep is not None and run.step % KEPT_EVERY == 0:
                keep(run.state())
            if clock.is_over:
                break
    except KeyboardInterrupt:
        interrupted = True  # perhaps within a step: what was kept last is what goes on
    return Tuned(run.mean(), run.step, interrupted)


class _Run:
    """Weights, their running mean, and Adam, from step to step."""

    def __init__(self, network: Twin, samples: Samples, recipe: Recipe, schedule: Schedule) -> None:
        self.network, self.samples, self.recipe, self.schedule = network, samples, recipe, schedule
        self.adam = Adam(list(network.weights.values()), _scales(network), LARGEST_GRADIENT)
        self.chance = torch.Generator().manual_seed(recipe.seed + 1)
        self.step = 0

    def advance(self, places: Tensor) -> float:
        """Take one step on some samples; return the loss before it."""
        recipe, network = self.recipe, self.network
        batch = self.samples.batch(places, recipe.wider * self.schedule.radius(self.step))
        loss_name, penalty = METHODS[recipe.method]
        loss = LOSSES[loss_name](network, batch, recipe.a, recipe.attack_steps, self.chance)
        if penalty is not None:
            loss = loss + recipe.weight * PENALTIES[penalty](network, self.samples.radius)
        self.adam.descend(loss, recipe.rate * self.schedule.rate(self.step), self.step)
        self.adam.average(min(AVERAGED, (self.step + 1) / (self.step + 10)))
        self.step += 1
        return float(loss.detach())

    def mean(self) -> dict[str, FloatArray]:
        """Return the running mean of the weights."""
        return dict(zip(self.network.weights, self._arrays(self.adam.mean), strict=True))

    def state(self) -> State:
        """Return where it stands."""
        adam, chance = self.adam, self.chance.get_state().numpy().copy()
        weights, mean = self._arrays(adam.vector), self._arrays(adam.mean)
        return State(self.step, weights, mean, self._arrays(adam.first), self._arrays(adam.second), chance)

    def take(self, state: State) -> None:
        """Stand where an earlier run stood."""
        self.step = state.step
        adam = self.adam
        for vector, arrays in zip(
            (adam.vector, adam.mean, adam.first, adam.second),
            (state.weights, state.mean, state.first, state.second),
            strict=True,
        ):
            vector.copy_(adam.layout.joined([torch.from_numpy(array) for array in arrays]))
        self.chance.set_state(torch.from_numpy(state.chance.copy()))

    def _arrays(self, vector: Tensor) -> tuple[FloatArray, ...]:
        return tuple(view.numpy().copy() for view in self.adam.layout.views(vector))


def _scales(network: Twin) -> list[float]:
    """Return what a step of each weight is measured by: its root mean square; a vector's is the mean of all matrices.

    A step of Adam is as long for a kernel of nine numbers about 0.3 as for a row of a thousand about 0.03; in these
    units one rate does for both.
    """
    sizes = [float(weight.detach().square().mean().sqrt()) for weight in network.weights.values()]
    matrices = [size for size, weight in zip(sizes, network.weights.values(), strict=True) if weight.dim() > 1 and size]
    middle = math.exp(sum(map(math.log, matrices)) / len(matrices)) if matrices else 1.0
    return [
        size if weight.dim() > 1 and size else middle
        for size, weight in zip(sizes, network.weights.values(), strict=True)
    ]
