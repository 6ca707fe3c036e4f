"""Training of a network's weights on batches of samples: Adam, a growing radius, the mean of the last weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from idl_audit.train.losses import LOSSES, Batch, Method
from idl_audit.train.network import Twin
from idl_audit.train.schedule import Schedule
from idl_audit.values.arrays import FloatArray

AVERAGED: Final = 0.99
"""Of the running mean of the weights, a step."""
OVERTIME: Final = 2.0
"""Training ends after so many times the seconds that its steps were counted for, and `GRACE` more."""
GRACE: Final = 10.0
"""Seconds of processor time: what the first steps load counts for nothing."""
LARGEST_GRADIENT: Final = 10.0
"""The gradient's norm is cut down to this: a single batch may have an endless one."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What is trained on: samples as the network reads them and what each of their entries may move by."""

    x: Tensor
    """(n, ...)."""
    y: Tensor
    """(n,)."""
    down: Tensor
    up: Tensor
    """How far an entry may move for the whole radius, of shape (n, ...) or what broadcasts to it, >= 0."""
    valid: tuple[Tensor, Tensor] | None = None
    """The ends of the valid range, as the network reads it."""

    def batch(self, places: Tensor, share: float) -> Batch:
        """Return some samples with a share of their radius."""
        x = self.x[places]
        lo, hi = x - share * self.down, x + share * self.up
        if self.valid is not None:
            lo, hi = torch.maximum(lo, self.valid[0]), torch.minimum(hi, self.valid[1])
        return Batch(x, self.y[places], torch.minimum(lo, x), torch.maximum(hi, x))


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
    l1: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """How far training has come."""

    step: int
    steps: int
    loss: float


Heard = Callable[[Step], None]


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
    order, at = torch.randperm(len(samples.x), generator=generator), 0
    start = time.process_time()
    for step in range(schedule.steps):
        if at >= len(order):
            order, at = torch.randperm(len(samples.x), generator=generator), 0
        places, at = order[at : at + recipe.batch], at + recipe.batch
        batch = samples.batch(places, recipe.wider * schedule.radius(step))
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * schedule.rate(step)
        loss = loss_of(network, batch, recipe.a, recipe.attack_steps, generator)
        if recipe.l1:
            loss = loss + recipe.l1 * sum(weight.abs().sum() for weight in network.weights.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(network.weights.values(), LARGEST_GRADIENT)
        if bool(torch.isfinite(norm)):
            optimizer.step()
        _average(mean, network, step)
        heard(Step(step + 1, schedule.steps, float(loss.detach())))
        if time.process_time() - start > OVERTIME * seconds + GRACE:
            break
    return {name: value.numpy().copy() for name, value in mean.items()}


def _average(mean: dict[str, Tensor], network: Twin, step: int) -> None:
    keep = min(AVERAGED, (step + 1) / (step + 10))
    with torch.no_grad():
        for name, weight in network.weights.items():
            mean[name].mul_(keep).add_(weight, alpha=1 - keep)


def accuracy(network: Twin, samples: Samples, at_once: int = 1000) -> float:
    """Return the share of samples whose class is the label."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(samples.x), at_once):
            part = slice(start, start + at_once)
            right += int((network(samples.x[part]).argmax(1) == samples.y[part]).sum())
    return right / max(1, len(samples.x))


def certified_by_intervals(network: Twin, samples: Samples, at_once: int = 200) -> FloatArray:
    """Return for each sample whether intervals say that no other class wins in its box: an estimate, no proof."""
    found = []
    with torch.no_grad():
        for start in range(0, len(samples.x), at_once):
            batch = samples.batch(torch.arange(start, min(start + at_once, len(samples.x))), 1.0)
            worst = network.worst(batch.box, batch.y)
            worst[torch.arange(len(batch.y)), batch.y] = -torch.inf
            found.append((worst.amax(1) < 0).numpy())
    return np.concatenate(found) if found else np.zeros(0, np.bool_)
