"""What is made small while a network is trained: cross-entropy at samples, at attacked points, and over whole boxes.

plain        CE(f(x), y)
adversarial  CE(f(x'), y), x' in the box by steps along the gradient's sign (Madry et al. 2018)
ibp          CE(worst margins over the box by intervals, y) (Gowal et al. 2018)
mtl          (1 - a) adversarial + a ibp (De Palma et al. 2024, "MTL-IBP")
sabr         ibp over a smaller box, a times as wide, around an attacked point (Mueller et al. 2023)

and what is added to it: how far a score moves at most where inputs move by the radius, wherever they are,

S            eps ||S||_inf (paper 4.3 and 6.1)
rho          eps times the paper's bound (4.7), with the best scales of the layers, without its constant

or how many inputs act, and how much,

columns      eps times the sum over inputs of the length of the column of weights that reads each (paper 5.1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from idl_audit.training.network import Twin
from idl_audit.training.spans import Span

LossName: TypeAlias = Literal["mtl", "ibp", "sabr", "adversarial", "plain"]
PenaltyName: TypeAlias = Literal["S", "rho", "columns"]
Method: TypeAlias = Literal["mtl", "ibp", "sabr", "adversarial", "plain", "S", "rho", "columns", "mtl+S", "mtl+rho"]


class Network(Protocol):
    """What is attacked: outputs for each of some inputs."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Return y for each row of x."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples with the boxes around them."""

    x: Tensor
    """(n, ...), as the network reads them."""
    y: Tensor
    """Labels, (n,)."""
    lo: Tensor
    hi: Tensor
    """The boxes, of x's shape."""

    @property
    def box(self) -> Span:
        """The boxes as spans."""
        return Span.between(self.lo, self.hi)


def plain(network: Twin, batch: Batch) -> Tensor:
    """Return the mean cross-entropy at the samples."""
    return functional.cross_entropy(network(batch.x), batch.y)


def ibp(network: Twin, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of upper bounds of y_j - y_label over the boxes, by intervals."""
    return functional.cross_entropy(network.worst(batch.box, batch.y), batch.y)


def attacked(network: Network, batch: Batch, steps: int, generator: torch.Generator) -> Tensor:
    """Return points of the boxes that were pushed towards other classes, without gradient."""
    start = torch.rand(batch.x.shape, generator=generator)
    points = batch.lo + start * (batch.hi - batch.lo)
    length = (batch.hi - batch.lo) * (1.25 / max(1, steps))
    for _ in range(steps):
        points.requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(network(points), batch.y, reduction="sum"), points)
        points = torch.clamp(points.detach() + length * slope.sign(), batch.lo, batch.hi)
    return points.detach()


def adversarial(network: Twin, batch: Batch, steps: int, generator: torch.Generator) -> Tensor:
    """Return the mean cross-entropy at attacked points."""
    return functional.cross_entropy(network(attacked(network, batch, steps, generator)), batch.y)


def mtl_ibp(network: Twin, batch: Batch, a: float, steps: int, generator: torch.Generator) -> Tensor:
    """Return (1 - a) adversarial + a ibp."""
    if a >= 1:
        return ibp(network, batch)
    found = (1 - a) * adversarial(network, batch, steps, generator)
    return found + a * ibp(network, batch) if a > 0 else found


def sabr(network: Twin, batch: Batch, a: float, steps: int, generator: torch.Generator) -> Tensor:
    """Return ibp over boxes a times as wide, as near to attacked points as the whole box allows."""
    points = attacked(network, batch, steps, generator)
    half = (batch.hi - batch.lo) * (a / 2)
    middle = torch.minimum(torch.maximum(points, batch.lo + half), batch.hi - half)
    return ibp(network, Batch(batch.x, batch.y, middle - half, middle + half))


Loss: TypeAlias = Callable[[Twin, Batch, float, int, torch.Generator], Tensor]

LOSSES: Final[Mapping[LossName, Loss]] = MappingProxyType(
    {
        "mtl": mtl_ibp,
        "ibp": lambda network, batch, a, steps, generator: ibp(network, batch),
        "sabr": sabr,
        "adversarial": lambda network, batch, a, steps, generator: adversarial(network, batch, steps, generator),
        "plain": lambda network, batch, a, steps, generator: plain(network, batch),
    }
)
"""Name -> a loss of a batch, with the coefficient a and the attack's steps."""

PENALTIES: Final[Mapping[PenaltyName, Callable[[Twin, Tensor], Tensor]]] = MappingProxyType(
    {
        "S": lambda network, radius: network.spread(radius).amax(),
        "rho": lambda network, radius: network.spread(radius, alike=True).amax(),
        "columns": lambda network, radius: (network.columns() * radius.expand(network.shape).reshape(-1)).sum(),
    }
)
"""Name -> what is added to the loss, given how far inputs may move."""

METHODS: Final[Mapping[Method, tuple[LossName, PenaltyName | None]]] = MappingProxyType(
    {
        "mtl": ("mtl", None),
        "ibp": ("ibp", None),
        "sabr": ("sabr", None),
        "adversarial": ("adversarial", None),
        "plain": ("plain", None),
        "S": ("plain", "S"),
        "rho": ("plain", "rho"),
        "columns": ("plain", "columns"),
        "mtl+S": ("mtl", "S"),
        "mtl+rho": ("mtl", "rho"),
    }
)
"""Method -> its loss, and what is added to it."""
