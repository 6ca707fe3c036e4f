"""What an implicit model is trained for: data, loss, penalties, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from idl_audit.training.implicit import ImplicitNet
from idl_audit.training.losses import Batch, attacked
from idl_audit.training.spans import Span, around

Loss: TypeAlias = Literal["squared", "cross-entropy"]
Solver: TypeAlias = Literal["gradient", "bcd", "frank-wolfe"]

BALANCE: Final = 0.05
"""Weight of |C|^2 / 2 beside the norms of columns: relu(s z) = s relu(z), so that without it B may shrink while C grows
and no column ever pays."""


@dataclass(frozen=True)
class Penalties:
    """Weights of what is added to the mean loss."""

    S: float = 0.0
    """||S||_inf."""
    rho: float = 0.0
    """(||B||^2 + ||C||^2) / (2 (1 - ||A||)) + ||D||, norms of rows."""
    columns: float = 0.0
    """The sum of the norms of the columns of (B; D)."""
    l1: float = 0.0
    """The sum of |entries| of A, B, C, D."""

    def smooth(self, net: ImplicitNet, *, balanced: bool) -> Tensor | float:
        """Return the part that has gradients; the others are proximal steps. `balanced` adds what columns need."""
        total: Tensor | float = BALANCE / 2 * net.weights["C"].square().sum() if balanced else 0.0
        if self.S:
            total = total + self.S * net.norm_of_S()
        if self.rho:
            total = total + self.rho * net.rho()
        return total


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    loss: Loss
    solver: Solver = "gradient"
    penalties: Penalties = Penalties()
    select: int | None = None
    """So many inputs may act."""
    share: float = 0.1
    """Of the loss that is the worst one over boxes, by intervals, where there are any."""
    attack_steps: int = 1
    wider: float = 1.2
    """The radius of training, as a multiple of the one that is asked for."""
    shift: int = 0
    """Pixels that images are moved by at most, along rows and columns, anew in every batch."""
    rate: float = 3e-3
    batch: int = 100
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Examples:
    """What is trained on, in the units of training."""

    u: Tensor
    """(m, p)."""
    y: Tensor
    """Classes (m,), or numbers (m, q)."""
    radius: Tensor | None = None
    """How far each input may move, (p,)."""
    valid: tuple[Tensor, Tensor] | None = None
    """The ends of the valid range, (p,) each."""
    image: tuple[int, int, int] | None = None
    """Channels, rows and columns, where an input is an image."""

    def inputs(self, places: Tensor, shift: int, chance: torch.Generator) -> Tensor:
        """Return the inputs of some examples, images moved by up to so many pixels, their edges repeated."""
        u = self.u.index_select(0, places)
        return u if not shift or self.image is None else shifted(u, self.image, shift, chance)

    def box(self, u: Tensor, share: float) -> Span | None:
        """Return boxes around inputs, of a share of the radius; None where nothing moves."""
        if self.radius is None:
            return None
        return Span.between(*around(u, self.radius, share, self.valid))


def shifted(u: Tensor, image: tuple[int, int, int], most: int, chance: torch.Generator) -> Tensor:
    """Return images, (m, p), each moved by whole pixels from -most to most along rows and columns, edges repeated."""
    channels, rows, columns = image
    by = torch.randint(-most, most + 1, (2, len(u), 1), generator=chance)
    row = (torch.arange(rows) + by[0]).clamp(0, rows - 1)
    column = (torch.arange(columns) + by[1]).clamp(0, columns - 1)
    places = (row[:, :, None] * columns + column[:, None, :]).view(len(u), 1, -1)
    planes = u.view(len(u), channels, -1)
    return planes.gather(2, places.expand(-1, channels, -1)).view(len(u), -1)


def squared(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean over examples of |y - t|^2 / 2."""
    return (found - wanted).square().sum(1).mean() / 2


def worst_squared(net: ImplicitNet, box: Span, wanted: Tensor) -> Tensor:
    """Return the mean over boxes of the greatest |y - t|^2 / 2, by intervals."""
    y = net.outputs_of(box)
    return ((y.centre - wanted).abs() + y.radius).square().sum(1).mean() / 2


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {"squared": squared, "cross-entropy": functional.cross_entropy}


def loss_of(
    net: ImplicitNet, u: Tensor, y: Tensor, box: Span | None, recipe: Recipe, chance: torch.Generator
) -> Tensor:
    """Return the mean loss; over boxes, (1 - share) that at attacked points and share the worst one by intervals."""
    loss = LOSSES[recipe.loss]
    if box is None:
        return loss(net(u), y)
    if recipe.loss == "squared":
        return (1 - recipe.share) * loss(net(u), y) + recipe.share * worst_squared(net, box, y)
    points = attacked(net, Batch(u, y, box.lo, box.hi), recipe.attack_steps, chance)
    worst = functional.cross_entropy(net.worst(box, y), y)
    return (1 - recipe.share) * loss(net(points), y) + recipe.share * worst
