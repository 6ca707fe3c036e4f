"""How much training a number of minutes is, and what radius and step each batch has.

Steps are counted, not timed: the same seed gives the same weights, however busy the machine is. A clock of processor
time only ends what would take much longer than it was promised to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import torch
from torch import Tensor

from idl_audit.training.network import Twin

PRODUCTS_A_SECOND: Final = 2.5e10
"""What a core of the last ten years does in float32 of small matrices."""
CONVOLVED_A_SECOND: Final = 1.2e10
"""The same of small convolutions."""
SECONDS_A_NODE: Final = 8e-5
"""What torch spends on one operator of a batch besides its products, forwards or backwards."""
PASSES: Final = 3.0
"""A forward pass with its gradient costs so many forward passes; an interval is two numbers."""
OVERTIME: Final = 2.0
"""Training ends after so many times the seconds that its steps were counted for, and `GRACE` more."""
GRACE: Final = 10.0
"""Seconds of processor time: what the first steps load counts for nothing."""


@dataclass(frozen=True)
class Step:
    """How far training has come."""

    step: int
    steps: int
    loss: float


Heard: TypeAlias = Callable[[Step], None]


@dataclass(frozen=True)
class Clock:
    """Processor time since training began, beside the seconds that its steps were counted for."""

    seconds: float
    start: float = field(default_factory=time.process_time)

    @property
    def is_over(self) -> bool:
        """Whether far more time is spent than was promised."""
        return time.process_time() - self.start > OVERTIME * self.seconds + GRACE


def batches(n: int, size: int, chance: torch.Generator) -> Iterator[Tensor]:
    """Yield the places of one batch after the other, in an order of chance; the last one of a pass may be smaller."""
    while True:
        order = torch.randperm(n, generator=chance)
        yield from (order[start : start + size] for start in range(0, n, size))


@dataclass(frozen=True)
class Schedule:
    """Where a batch stands between the first and the last."""

    steps: int
    """Batches in all."""
    ramp: float = 0.3
    """Of them, while the radius grows from 0."""
    warm: float = 0.02
    """Of them, while the step size grows from 0."""

    def radius(self, step: int) -> float:
        """Return the share of the whole radius, in [0, 1]: smooth at both ends."""
        t = min(1.0, (step + 1) / max(1.0, self.ramp * self.steps))
        return t * t * (3 - 2 * t)

    def rate(self, step: int) -> float:
        """Return the share of the whole learning rate: a short warm-up, then a half cosine down to 0."""
        t = (step + 1) / self.steps
        if t < self.warm:
            return t / self.warm
        return 0.5 * (1 + math.cos(math.pi * (t - self.warm) / (1 - self.warm)))


def seconds_a_step(network: Twin, products: int, batch: int, attack_steps: int) -> float:
    """Return about what a batch costs, in seconds of one core: deterministic, from sizes alone.

    Args:
        network: the twin.
        products: multiplications of one forward pass of one sample.
        batch: samples.
        attack_steps: of each batch.
    """
    passes = PASSES * (attack_steps + 1 + 2)
    dense = min(products, sum(weight.numel() for weight in network.constants.values() if weight.dim() == 2))
    each = dense / PRODUCTS_A_SECOND + (products - dense) / CONVOLVED_A_SECOND
    return passes * (batch * each + len(network.nodes) * SECONDS_A_NODE)
