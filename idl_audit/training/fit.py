"""An implicit model from data: which units, which solver, and the weights in the units of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from idl_audit.training.blocks import descend_by_blocks, rounds_within
from idl_audit.training.descent import descend, steps_within
from idl_audit.training.implicit import NAMES, Form, ImplicitNet
from idl_audit.training.output_step import fit_output
from idl_audit.training.projection import project_rows
from idl_audit.training.recipe import Examples, Penalties, Recipe
from idl_audit.training.schedule import Heard, Step
from idl_audit.training.units import Units, outside
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray

AT_ONCE: Final = 1000
"""Rows of a batch whose outputs are computed."""
EXACT: Final = 1e-12
"""Of states and gradients in float64."""


@dataclass(frozen=True, eq=False)
class Moves:
    """How far inputs may move, as the model reads them."""

    radius: FloatArray
    """(p,), >= 0."""
    valid: tuple[FloatArray, FloatArray] | None = None
    """The ends of the valid range, (p,) each."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be trained."""

    inputs: AnyArray
    """(m, p), as the model reads them."""
    targets: FloatArray | IntArray
    """Classes (m,), or numbers (m, q)."""
    form: Form
    recipe: Recipe
    seconds: float
    """Of one core."""
    each: bool = True
    """Whether every input is trained in units of its own deviation; else all share one unit."""
    moves: Moves | None = None
    image: tuple[int, int, int] | None = None
    """Channels, rows and columns of an input, where images are shifted."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The model in the units of the data, and how it came about."""

    weights: Mapping[str, FloatArray]
    """A, B, C, D, b, d in float64."""
    steps: int
    loss: float
    """Of the last step, penalties left out, in the units of training."""
    column_norms: FloatArray
    """|| (B; D) e_j ||_2 in the units of training, (p,)."""
    ridge: float | None = None
    """Of the last least squares, where there were any."""


def train(task: Task, heard: Heard = lambda step: None) -> Trained:
    """Return the trained model: the same one for the same task and seed, however busy the machine is."""
    recipe, form = task.recipe, task.form
    by_blocks = recipe.solver == "bcd"
    dtype = torch.float64 if by_blocks else torch.float32
    inputs = Units.of(task.inputs, each=task.each)
    outputs = Units.unchanged(form.outputs)
    if recipe.loss == "squared":
        outputs = Units.of(np.asarray(task.targets, np.float64), each=True)
    examples = _examples(task, inputs, outputs, dtype)
    net = ImplicitNet.random(form, examples.u, torch.Generator().manual_seed(recipe.seed))
    last: list[Step] = []

    def told(step: Step) -> None:
        last[:] = [step]
        heard(step)

    if by_blocks:
        rounds = rounds_within(task.seconds, form, len(examples.u))
        kept = descend_by_blocks(net, examples, recipe, rounds, seconds=task.seconds, heard=told)
    else:
        steps = steps_within(task.seconds, form, len(examples.u), recipe, task.moves is not None)
        kept = descend(net, examples, recipe, steps, seconds=task.seconds, heard=told)
    exact = _exact(net)
    if recipe.penalties.columns:
        kept = (exact.column_norms() > 0).to(torch.float64)
    ridge = None
    if recipe.loss == "squared" and _leaves_outputs_free(task):
        ridge = fit_output(exact, examples.u.to(torch.float64), examples.y.to(torch.float64), kept)
    weights = outside(exact.arrays(), inputs, outputs)
    return Trained(weights, last[-1].step, last[-1].loss, exact.column_norms().numpy(), ridge)


def _leaves_outputs_free(task: Task) -> bool:
    """Return whether nothing that was trained for would be undone by fitting C, D, d anew."""
    return task.moves is None and task.recipe.penalties == Penalties(columns=task.recipe.penalties.columns)


def _examples(task: Task, inputs: Units, outputs: Units, dtype: torch.dtype) -> Examples:
    def tensor(values: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype)

    if task.recipe.loss == "squared":
        y = tensor(outputs.inside(np.asarray(task.targets, np.float64)))
    else:
        y = torch.from_numpy(np.asarray(task.targets, np.int64))
    moves = task.moves
    radius = None if moves is None else tensor(moves.radius / inputs.scale)
    valid = None
    if moves is not None and moves.valid is not None:
        valid = (tensor(inputs.inside(moves.valid[0])), tensor(inputs.inside(moves.valid[1])))
    return Examples(tensor(inputs.inside(task.inputs)), y, radius, valid, task.image)


def _exact(net: ImplicitNet) -> ImplicitNet:
    """Return the same model in float64, its rows of A within the ball whatever float32 made of them."""
    weights = {name: weight.detach().to(torch.float64) for name, weight in net.weights.items()}
    if net.mask is None and "A" in weights:
        A = project_rows(weights["A"], net.form.kappa)
        size, most = A.abs().sum(1, keepdim=True), net.form.kappa * (1 - 1e-13)  # in whatever order it is added up
        weights["A"] = torch.where(size > most, A * (most / size), A)
    return ImplicitNet(net.form, weights, tolerance=EXACT)


def outputs_of(weights: Mapping[str, FloatArray], form: Form, rows: AnyArray) -> FloatArray:
    """Return y for rows (m, p), in float64, a thousand at a time."""
    net = ImplicitNet(form, {name: torch.from_numpy(weights[name]) for name in NAMES}, tolerance=EXACT)
    some = (rows[at : at + AT_ONCE].astype(np.float64) for at in range(0, len(rows), AT_ONCE))
    with torch.no_grad():
        parts = [net(torch.from_numpy(part)) for part in some]
    return np.concatenate([part.numpy() for part in parts]) if parts else np.zeros((0, form.outputs))
