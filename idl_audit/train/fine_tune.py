"""Training of a network's weights on batches of samples: Adam, a growing radius, the mean of the last weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from idl_audit.train.losses import LOSSES, Batch, Method
from idl_audit.train.network import Twin
from idl_audit.train.schedule import Clock, Heard, Schedule, Step, batches
from idl_audit.train.spans import around
from idl_audit.values.arrays import FloatArray

AVERAGED: Final = 0.99
"""Of the running mean of the weights, a step."""
LARGEST_GRADIENT: Final = 10.0
"""The gradient's norm is cut down to this: a single batch may have an endless one."""


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
    a: float = 0.1
    wider: float = 1.2
    """The radius of training, as a multiple of the one that is asked for."""
    rate: float = 2e-3
    batch: int = 100
    attack_steps: int = 3
    seed: int = 0


def fine_tune(
    network: Twin,
    samples: Samples,
    recipe: Recipe,
    schedule: Schedule,
    *,
    seconds: float = float("inf"),
    heard: Heard = lambda step: None,
) -> dict[str, FloatArray]:
    """Train the network's weights in place and return the running mean of them over the last steps.

    Args:
        network: the twin.
        samples: at least one.
        recipe: the loss and its numbers.
        schedule: how many steps.
        seconds: what the steps were counted for; far more processor time than that ends them.
        heard: told after every step.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    loss_of = LOSSES[recipe.method]
    optimizer = torch.optim.Adam(list(network.weights.values()), lr=recipe.rate)
    mean = {name: weight.detach().clone() for name, weight in network.weights.items()}
    clock = Clock(seconds)
    for step, places in zip(range(schedule.steps), batches(len(samples.x), recipe.batch, generator), strict=False):
        batch = samples.batch(places, recipe.wider * schedule.radius(step))
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * schedule.rate(step)
        loss = loss_of(network, batch, recipe.a, recipe.attack_steps, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(network.weights.values(), LARGEST_GRADIENT)
        if bool(torch.isfinite(norm)):
            optimizer.step()
        _average(mean, network, step)
        heard(Step(step + 1, schedule.steps, float(loss.detach())))
        if clock.is_over:
            break
    return {name: value.numpy().copy() for name, value in mean.items()}


def _average(mean: dict[str, Tensor], network: Twin, step: int) -> None:
    keep = min(AVERAGED, (step + 1) / (step + 10))
    with torch.no_grad():
        for name, weight in network.weights.items():
            mean[name].mul_(keep).add_(weight, alpha=1 - keep)
