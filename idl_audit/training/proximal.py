"""Adam with steps that stay within what is asked of the weights: the ball of A's rows, columns and entries that vanish.

After a gradient step comes the proximal step of the penalty with no gradient at 0, in the metric of that step, so that
columns and entries become exactly zero. The columns of (B; D) share one step size each: their norm has a closed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from idl_audit.training.implicit import ImplicitNet
from idl_audit.training.projection import shrunk, shrunk_columns, vertex

Direction: TypeAlias = Literal["gradient", "frank-wolfe"]

KEPT: Final = 0.9
"""Of the mean of gradients, a step."""
KEPT_SQUARES: Final = 0.99
SMALLEST: Final = 1e-8
"""Added to the root of the mean square."""
VERTEX_DELAY: Final = 8.0
"""A Frank-Wolfe step t goes 2 / (t + 8) of the way to the vertex."""


@dataclass
class ProximalAdam:
    """The state of the optimisation."""

    net: ImplicitNet
    how: Direction = "gradient"
    by_column: bool = False
    """Whether columns of (B; D) have one step size each."""
    steps: int = 0
    means: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)

    def step(
        self,
        gradients: Mapping[str, Tensor],
        rate: float,
        *,
        columns: float = 0.0,
        l1: float = 0.0,
        kept: Tensor | None = None,
    ) -> None:
        """Move the weights.

        Args:
            gradients: of the smooth part, by name.
            rate: Adam's step size.
            columns: weight of the sum of the column norms.
            l1: weight of the sum of |entries| of A, B, C, D.
            kept: (p,), 0 for inputs whose columns of (B; D) are zero and stay so.
        """
        self.steps += 1
        lengths = self._lengths(gradients)
        with torch.no_grad():
            weights = self.net.weights
            for name, weight in weights.items():
                self._move(name, weight, lengths[name], rate)
                if l1 and weight.dim() == 2:
                    weight.copy_(shrunk(weight, l1 * rate / lengths[name]))
            if columns:
                moved = shrunk_columns(weights["B"], weights["D"], columns * rate / lengths["B"])
                for name, weight in zip("BD", moved, strict=True):
                    weights[name].copy_(weight)
            if kept is not None:
                for name in "BD":
                    weights[name].mul_(kept)
            if "A" in weights:
                weights["A"].copy_(self.net.form.feasible(weights["A"], self.net.mask))

    def _lengths(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the gradients in, and return what each entry's step is divided by: about as long as its gradients are.

        In place where it can be: for many inputs this is a large part of a step.
        """
        known = 1 - KEPT_SQUARES**self.steps
        together = None
        if self.by_column:
            total = gradients["B"].square().sum(0) + gradients["D"].square().sum(0)
            together = (total / (self.net.form.states + self.net.form.outputs)).sqrt()
        found = {}
        for name, gradient in gradients.items():
            typical = gradient if together is None or name not in "BD" else together
            mean = self.means.setdefault(name, torch.zeros_like(gradient))
            mean.lerp_(gradient, 1 - KEPT)
            square = self.squares.setdefault(name, torch.zeros_like(typical))
            square.mul_(KEPT_SQUARES).addcmul_(typical, typical, value=1 - KEPT_SQUARES)
            found[name] = square.sqrt().mul_(known**-0.5).add_(SMALLEST)
        return found

    def _move(self, name: str, weight: Tensor, length: Tensor, rate: float) -> None:
        known = 1 - KEPT**self.steps
        if name == "A" and self.how == "frank-wolfe" and self.net.mask is None:
            share = 2 / (self.steps + VERTEX_DELAY)
            weight.mul_(1 - share).add_(vertex(self.means[name], self.net.form.kappa), alpha=share)
        else:
            weight.addcdiv_(self.means[name], length, value=-rate / known)
