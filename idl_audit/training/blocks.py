"""Training one block at a time on the Fenchel form of the problem (paper 6.3): states are variables of their own.

With Z = A X + B U + b, the divergence of the paper's (6.8),

    F(X, Z) = (|X|^2 + |Z+|^2) / 2 - <X, Z>  for X >= 0,

is never negative and 0 where X = relu(Z). Made small is the mean of the loss and of F, and the penalties. In turns, all
examples at once: (C, d) by least squares where the loss is squared; (A, B, D, b), in which the rest is convex, by
proximal steps, A within the ball of its rows and columns of (B; D) exactly zero where they are too short; X >= 0 by
projected steps from the equilibrium. Left to itself X would settle where A X explains X without the inputs, and C would
grow where the penalty makes B small: X starts at the equilibrium in every turn, and |C|^2 is charged.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from idl_audit.training.descent import Selection
from idl_audit.training.implicit import Form, ImplicitNet
from idl_audit.training.projection import shrunk, shrunk_columns
from idl_audit.training.recipe import BALANCE, Examples, Recipe
from idl_audit.training.schedule import Clock, Heard, Step

INNER: Final = 5
"""Steps within a block."""
PRODUCTS_A_SECOND: Final = 4e9
FEWEST_ROUNDS: Final = 20
MOST_ROUNDS: Final = 400
SELECTING: Final = 0.75
"""Of the rounds, in which inputs are chosen at the latest."""
DIVERGENCE: Final = 5.0
"""Weight of F beside the loss."""


def rounds_within(seconds: float, form: Form, n_examples: int) -> int:
    """Return how many rounds fit into seconds of one core: deterministic, from sizes alone."""
    n, p, q = form.states, form.inputs, form.outputs
    products = n_examples * (4 * INNER * (n * n + n * p + n * q + p * q) + n * n)
    return max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(seconds * PRODUCTS_A_SECOND / products)))


def descend_by_blocks(
    net: ImplicitNet,
    examples: Examples,
    recipe: Recipe,
    rounds: int,
    *,
    seconds: float = math.inf,
    heard: Heard = lambda step: None,
) -> Tensor | None:
    """Train the weights, in float64, in place; return which inputs act, (p,), where they were chosen.

    Args:
        net: the model.
        examples: at least one.
        recipe: what is trained for; S and rho have no part here.
        rounds: turns of all blocks.
        seconds: what the rounds were counted for; far more processor time than that ends them.
        heard: told after every round.
    """
    choosing = int(SELECTING * rounds)
    selection = Selection.of(recipe.select, 1 / max(1, choosing))
    clock = Clock(seconds)
    with torch.no_grad():
        turn = _Turn(net, examples, recipe)
        for number in range(rounds):
            if recipe.loss == "squared":
                turn.output()
            if selection is not None:
                selection.look(net, turn.gradients(), last=number >= choosing)
            columns = recipe.penalties.columns if selection is None else selection.weight
            turn.weights(columns, recipe.penalties.l1, None if selection is None else selection.kept)
            turn.states()
            heard(Step(number + 1, rounds, turn.value()))
            if clock.is_over:
                break
    return None if selection is None else selection.kept


class _Turn:
    """The blocks, and what each of them does in its turn."""

    def __init__(self, net: ImplicitNet, examples: Examples, recipe: Recipe) -> None:
        self.net, self.w, self.recipe = net, net.weights, recipe
        self.u, self.y, self.m = examples.u, examples.y, len(examples.u)
        self.x = net.state(self.u)
        self.length_u = _square_norm(self.u)

    def z(self) -> Tensor:
        """Return A X + B U + b, as rows."""
        return torch.addmm(self.w["b"], self.x, self.w["A"].T) + self.u @ self.w["B"].T

    def slope_of_loss(self) -> Tensor:
        """Return the gradient of the summed loss in the outputs, (m, q)."""
        outputs = self.net.output(self.x, self.u)
        if self.recipe.loss == "squared":
            return outputs - self.y
        return functional.softmax(outputs, 1) - functional.one_hot(self.y, outputs.shape[1])

    def value(self) -> float:
        """Return the mean loss and divergence."""
        z, outputs = self.z(), self.net.output(self.x, self.u)
        apart = (self.x.square().sum() + z.clamp(min=0).square().sum()) / 2 - (self.x * z).sum()
        if self.recipe.loss == "squared":
            loss = (outputs - self.y).square().sum() / 2
        else:
            loss = functional.cross_entropy(outputs, self.y, reduction="sum")
        return float(loss + apart) / self.m

    def output(self) -> None:
        """Solve for C and d."""
        features = torch.cat([self.x, torch.ones((self.m, 1), dtype=self.x.dtype)], 1)
        gram = features.T @ features
        gram.diagonal().add_(BALANCE * self.m)
        solution = torch.linalg.solve(gram, features.T @ (self.y - self.u @ self.w["D"].T))
        self.w["C"].copy_(solution[:-1].T)
        self.w["d"].copy_(solution[-1])

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients in B and D of the mean loss and divergence."""
        slope = self.slope_of_loss() / self.m
        apart = DIVERGENCE * (self.z().clamp(min=0) - self.x) / self.m
        return {"B": apart.T @ self.u, "D": slope.T @ self.u}

    def _gradients_of_states(self) -> dict[str, Tensor]:
        """Return those in what reads states or nothing: in A and b, and in C and d unless they are solved for."""
        apart = DIVERGENCE * (self.z().clamp(min=0) - self.x) / self.m
        found = {"A": apart.T @ self.x, "b": apart.sum(0)}
        if self.recipe.loss != "squared":
            slope = self.slope_of_loss() / self.m
            found |= {"C": slope.T @ self.x + BALANCE * self.w["C"], "d": slope.sum(0)}
        return found

    def weights(self, columns: float, l1: float, kept: Tensor | None) -> None:
        """Take proximal steps in the weights, each with the length that suits what it reads."""
        w, steep = self.w, max(1.0, DIVERGENCE)
        of_inputs = self.m / (1.02 * steep * self.length_u)
        of_states = self.m / (1.02 * steep * (_square_norm(self.x) + self.m))
        for _ in range(INNER):
            for name, gradient in self.gradients().items():
                w[name].copy_(shrunk(w[name] - of_inputs * gradient, l1 * of_inputs))
            moved = shrunk_columns(w["B"], w["D"], columns * of_inputs)
            for name, weight in zip("BD", moved, strict=True):
                w[name].copy_(weight if kept is None else weight * kept)
            for name, gradient in self._gradients_of_states().items():
                w[name].sub_(of_states * gradient)
                if l1 and gradient.dim() == 2:
                    w[name].copy_(shrunk(w[name], l1 * of_states))
            w["A"].copy_(self.net.form.feasible(w["A"], self.net.mask))

    def states(self) -> None:
        """Take projected steps in X from the equilibrium."""
        A, C = self.w["A"], self.w["C"]
        inner, outer = (float(torch.linalg.matrix_norm(M, 2)) for M in (A, C))
        long = DIVERGENCE * (1 + inner) ** 2 + outer**2
        self.x = self.net.state(self.u)
        for _ in range(INNER):
            z = self.z()
            slope = DIVERGENCE * (self.x - z + (z.clamp(min=0) - self.x) @ A) + self.slope_of_loss() @ C
            self.x = (self.x - slope / long).clamp(min=0)


def _square_norm(rows: Tensor, steps: int = 20) -> float:
    """Return about the largest eigenvalue of rows^T rows, by powers."""
    v = torch.ones(rows.shape[1], dtype=rows.dtype) / rows.shape[1] ** 0.5
    size = 0.0
    for _ in range(steps):
        v = rows.T @ (rows @ v)
        size = float(torch.linalg.vector_norm(v))
        if size == 0:
            return 0.0
        v = v / size
    return size
