"""Training by gradients of batches (paper 6.2): projected, or towards vertices (Frank-Wolfe), with proximal steps.

With `select`, the weight of the column norms grows until no more inputs act than asked for; the others are then held
at exactly zero, and the rest is trained on without that weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from idl_audit.training.fine_tune import LARGEST_GRADIENT
from idl_audit.training.implicit import Form, ImplicitNet
from idl_audit.training.proximal import Direction, ProximalAdam
from idl_audit.training.recipe import Examples, Recipe, loss_of
from idl_audit.training.schedule import Clock, Heard, Schedule, Step, batches

ITERATIONS: Final = 30
"""Steps of the state's and the gradient's iterations together, about."""
PRODUCTS_A_SECOND: Final = 1.2e10
"""What a core of the last ten years does in float32 of matrices of a hundred rows."""
SECONDS_A_STEP: Final = 1.5e-3
"""What a batch costs beside its products."""
PASSES_OF_BOXES: Final = 3
"""What a batch costs besides attacks where boxes are trained, in batches without."""
FEWEST_STEPS: Final = 300
MOST_PASSES: Final = 400
"""Over the examples; small sets are trained no longer, ..."""
MOST_STEPS_OF_FEW: Final = 6000
"""... but for so many steps at least, where the time allows them."""
SELECTING: Final = 0.5
"""Of the steps, in which inputs are chosen at the latest."""
EVERY: Final = 10
"""Steps between two looks at how many inputs act."""
GROWTH: Final = 3000.0
"""Between the first and the last weight of the column norms while inputs are chosen."""


def steps_within(seconds: float, form: Form, n_examples: int, recipe: Recipe, boxes: bool) -> int:
    """Return how many batches fit into seconds of one core: deterministic, from sizes alone."""
    n, p, q = form.states, form.inputs, form.outputs
    products = 3 * (n * p + q * (n + p)) + ITERATIONS * n * n
    passes = 1 if not boxes else recipe.attack_steps + PASSES_OF_BOXES
    each = SECONDS_A_STEP * math.sqrt(passes) + passes * min(recipe.batch, n_examples) * products / PRODUCTS_A_SECOND
    of_few = max(MOST_STEPS_OF_FEW, MOST_PASSES * math.ceil(n_examples / recipe.batch))
    return max(FEWEST_STEPS, min(of_few, int(seconds / each)))


@dataclass
class Selection:
    """Which inputs act, while their number falls to what is asked for."""

    wanted: int
    growth: float
    """Of the weight, from one look to the next."""
    weight: float = 0.0
    """Of the column norms."""
    kept: Tensor | None = None
    """(p,), 1 for inputs that act; None while they are being chosen."""
    norms: Tensor | None = None
    """Of the columns, when last looked at."""

    @classmethod
    def of(cls, wanted: int | None, share: float) -> Selection | None:
        """Return the selection of so many inputs, one look being a share of all; None where all may act."""
        return None if wanted is None else cls(wanted, GROWTH**share)

    def look(self, net: ImplicitNet, gradients: dict[str, Tensor], *, last: bool) -> None:
        """Raise the weight, or choose: the longest columns of when as many still acted."""
        if self.kept is not None:
            return
        if not self.weight:
            steepest = (gradients["B"].square().sum(0) + gradients["D"].square().sum(0)).sqrt().amax()
            self.weight = max(1e-12, float(steepest)) / GROWTH
        norms = net.column_norms()
        if last or int((norms > 0).sum()) <= self.wanted:
            few = int((norms > 0).sum()) < self.wanted
            chosen = self.norms if few and self.norms is not None else norms
            self.kept = torch.zeros_like(norms)
            self.kept[chosen.argsort(descending=True, stable=True)[: self.wanted]] = 1
            self.weight = 0.0
        else:
            self.norms = norms
            self.weight *= self.growth


def descend(
    net: ImplicitNet,
    examples: Examples,
    recipe: Recipe,
    steps: int,
    *,
    seconds: float = math.inf,
    heard: Heard = lambda step: None,
) -> Tensor | None:
    """Train the weights in place; return which inputs act, (p,), where they were chosen.

    Args:
        net: the model.
        examples: at least one.
        recipe: what is trained for.
        steps: batches.
        seconds: what the steps were counted for; far more processor time than that ends them.
        heard: told after every step.
    """
    chance = torch.Generator().manual_seed(recipe.seed)
    how: Direction = "frank-wolfe" if recipe.solver == "frank-wolfe" else "gradient"
    penalties, schedule = recipe.penalties, Schedule(steps)
    by_column = bool(penalties.columns) or recipe.select is not None
    optimizer = ProximalAdam(net, how, by_column)
    choosing = int(SELECTING * steps)
    selection = Selection.of(recipe.select, EVERY / max(1, choosing))
    clock = Clock(seconds)
    for step, places in zip(range(steps), batches(len(examples.u), recipe.batch, chance), strict=False):
        u = examples.inputs(places, recipe.shift, chance)
        box = examples.box(u, recipe.wider * schedule.radius(step))
        loss = loss_of(net, u, examples.y[places], box, recipe, chance)
        balanced = bool(penalties.columns)
        gradients = _gradients(loss + penalties.smooth(net, balanced=balanced), net)
        if gradients is not None:
            if selection is not None and (step % EVERY == 0 or step == choosing):
                selection.look(net, gradients, last=step >= choosing)
            columns = penalties.columns if selection is None else selection.weight
            kept = None if selection is None else selection.kept
            rate = recipe.rate * schedule.rate(step)
            optimizer.step(gradients, rate, columns=columns, l1=penalties.l1, kept=kept)
        heard(Step(step + 1, steps, float(loss.detach())))
        if clock.is_over:
            break
    return None if selection is None else selection.kept


def _gradients(total: Tensor, net: ImplicitNet) -> dict[str, Tensor] | None:
    """Return the gradients, cut down to a norm; None where a number is not finite."""
    found = torch.autograd.grad(total, list(net.weights.values()))
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in found]))
    if not bool(torch.isfinite(norm)):
        return None
    share = min(1.0, LARGEST_GRADIENT / max(1e-30, float(norm)))
    return {name: share * gradient for name, gradient in zip(net.weights, found, strict=True)}
