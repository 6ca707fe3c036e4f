"""Nonlinear operators: each makes a block of states; Clip is nested ReLUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations import Activation, analytic, curve, kinked, softmax
from idl_audit.implicit.affine import AffineForm, PartlyAbsent
from idl_audit.implicit.lowering.maxima import OUTSIDE, lower_max, lower_min, stack
from idl_audit.implicit.lowering.reductions import competing_axes
from idl_audit.implicit.walk import (
    NO_BOUND,
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    float_attribute,
    form_input,
    optional_constant,
    refuse,
    refuse_swallowing,
    text_attribute,
)
from idl_audit.values.arrays import IntArray
from idl_audit.values.rounding import gamma as rounding_of


def lower_componentwise(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """An activation without parameters, by the operator's name."""
    return (walk.states(node, PLAIN[node.op](), form_input(node, values, 0)),)


PLAIN: Final[Mapping[str, Callable[[], Activation]]] = MappingProxyType(
    {
        "Abs": kinked.absolute,
        "Acos": analytic.acos,
        "Acosh": analytic.acosh,
        "Asin": analytic.asin,
        "Asinh": analytic.asinh,
        "Atan": analytic.atan,
        "Atanh": analytic.atanh,
        "Cos": analytic.cos,
        "Cosh": analytic.cosh,
        "Erf": curve.erf,
        "Exp": analytic.exp,
        "HardSwish": curve.hard_swish,
        "Log": analytic.log,
        "Mish": curve.mish,
        "Relu": kinked.relu,
        "Sigmoid": curve.sigmoid,
        "Silu": curve.silu,
        "Sin": analytic.sin,
        "Sinh": analytic.sinh,
        "Softplus": curve.softplus,
        "Softsign": curve.softsign,
        "Sqrt": analytic.sqrt,
        "Tan": analytic.tan,
        "Tanh": curve.tanh,
    }
)
"""Operators that are one activation and have no attributes."""


def lower_leaky_relu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LeakyRelu: slope alpha below 0."""
    alpha = float_attribute(node, "alpha", 0.01)
    if not np.isfinite(alpha):
        refuse(node, f"has alpha = {alpha}; a slope is a finite number")
    return (walk.states(node, kinked.leaky_relu(alpha), form_input(node, values, 0)),)


def lower_prelu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """PRelu: a slope below 0 for each entry, broadcast from a constant."""
    form = form_input(node, values, 0)
    slope = constant_input(node, values, 1, "slope").astype(np.float64)
    try:
        alpha = np.broadcast_to(slope, form.shape).reshape(-1).copy()
    except ValueError:
        refuse(node, f"has slopes of shape {slope.shape} for a tensor of shape {form.shape}")
    return (walk.states(node, kinked.leaky_relu(alpha), form),)


def lower_elu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Elu, Selu and Celu: a line above 0, an exponential below."""
    form = form_input(node, values, 0)
    default_alpha, default_gamma = (
        (1.67326319217681884765625, 1.05070102214813232421875) if node.op == "Selu" else (1.0, 1.0)
    )
    alpha, gamma = float_attribute(node, "alpha", default_alpha), float_attribute(node, "gamma", default_gamma)
    if not (0 <= alpha < np.inf and 0 < gamma < np.inf) or (node.op == "Celu" and alpha == 0):
        refuse(node, f"has alpha = {alpha} and gamma = {gamma}; only increasing functions are handled")
    if node.op == "Celu":
        return (walk.states(node, curve.celu(alpha), form),)
    return (walk.states(node, curve.selu(alpha, gamma) if node.op == "Selu" else curve.elu(alpha), form),)


def lower_gelu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Gelu, exact or by tanh."""
    approximation = text_attribute(node, "approximate", "none")
    if approximation not in ("none", "tanh"):
        refuse(node, f"has the approximation '{approximation}'; known are none and tanh")
    activation = curve.gelu_tanh() if approximation == "tanh" else curve.gelu()
    return (walk.states(node, activation, form_input(node, values, 0)),)


def lower_swish(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Swish: z Sigmoid(alpha z) = SiLU(alpha z) / alpha."""
    form, alpha = form_input(node, values, 0), float_attribute(node, "alpha", 1.0)
    if alpha == 0:
        return (form.scaled(0.5),)
    states = walk.states(node, curve.silu(), walk.scaled(node, form, alpha))
    return (walk.scaled(node, states, 1.0 / alpha, relative=rounding_of(2)),)


def lower_hard_sigmoid(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """HardSigmoid: clip(alpha z + beta, 0, 1), as nested ReLUs."""
    form = form_input(node, values, 0)
    alpha, beta = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return (clipped(node, walk.scaled(node, form, alpha).scaled(1.0, beta), 0.0, 1.0, walk),)


def lower_softmax(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Softmax inside a network: a block whose states compete in groups."""
    form = form_input(node, values, 0)
    axes = competing_axes(node, form.shape, walk.opset)
    width = math.prod(form.shape[a] for a in axes)
    if isinstance(form, PartlyAbsent):
        lines = np.moveaxis(flat_indices(form.shape), axes, range(-len(axes), 0)).reshape(-1, width)
        if bool(form.absent[lines].all(axis=1).any()):
            refuse(node, "reads a group of entries that are all minus infinity, which gives no number")
        return (masked_softmax(node, form, lines, walk),)
    if axes[-1] == len(form.shape) - 1:
        return (walk.states(node, softmax.softmax(width), form),)
    order = flat_indices(form.shape).swapaxes(axes[0], -1)
    made = walk.states(node, softmax.softmax(width), walk.select(node, form, np.ascontiguousarray(order)))
    back = flat_indices(made.shape).swapaxes(axes[0], -1)
    return (walk.select(node, made, np.ascontiguousarray(back)),)


def masked_softmax(node: Node, form: PartlyAbsent, lines: IntArray, walk: Walk) -> AffineForm:
    """Return the softmax over each line, (lines, width), of the entries that are present; others are 0."""
    present = ~form.absent[lines]
    counts = present.sum(axis=1)
    parts: list[AffineForm] = []
    place = np.full(form.size, OUTSIDE)
    start = 0
    for count in np.unique(counts[counts > 0]).tolist():
        index = lines[counts == count][present[counts == count]].reshape(-1, count)
        place[index.reshape(-1)] = np.arange(start, start + index.size)
        start += index.size
        if count == 1:
            parts.append(AffineForm((index.size,), {}, np.ones(index.size)))
        else:
            read = walk.select(node, AffineForm(form.shape, form.terms, form.constant, form.constant_error), index)
            parts.append(walk.states(node, softmax.softmax(count), read, suffix=f"/{count}"))
    return stack(parts, start).selected(place.reshape(form.shape))


def lower_clip(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Clip to [lo, hi] = hi - relu(hi - lo - relu(s - lo)), nested so that no sensitivity is counted twice."""
    form = form_input(node, values, 0)
    if any(isinstance(value, AffineForm) for value in values[1:]):
        (above,) = lower_max(node, [form, *values[1:2]], walk)
        return lower_min(node, [above, *values[2:3]], walk)
    if walk.opset < 11:
        lo, hi = float_attribute(node, "min", -np.inf, bound=True), float_attribute(node, "max", np.inf, bound=True)
    else:
        lo, hi = (_bound(node, values, k, default) for k, default in ((1, -np.inf), (2, np.inf)))
    if lo >= NO_BOUND or hi <= -NO_BOUND:
        refuse(node, f"clips to [{lo:g}, {hi:g}], where no number of a network lies")
    if lo > hi and walk.opset < 13:
        refuse(node, f"clips to the empty interval [{lo}, {hi}], which has no meaning before operator set 13")
    if lo > hi:  # Min(hi, Max(z, lo))
        return (AffineForm(form.shape, {}, np.full(form.size, hi)),)
    return (clipped(node, form, lo, hi, walk),)


def _bound(node: Node, values: Sequence[TensorValue | None], k: int, default: float) -> float:
    given = optional_constant(node, values, k, "bound")
    if given is None or not given.size:
        return default
    bound = float(given.reshape(-1)[0])
    if given.size > 1 or np.isnan(bound):
        refuse(node, f"has a bound (input {k}) that is not one number; Max and Min take tensors of bounds")
    return bound


def clipped(node: Node, form: AffineForm, lo: float, hi: float, walk: Walk) -> AffineForm:
    """Return min(hi, max(form, lo))."""
    huge = NO_BOUND
    if lo <= -huge and hi >= huge:
        return form
    refuse_swallowing(node, lo if lo > -huge else 0.0, hi if hi < huge else 0.0)
    if hi >= huge:
        return walk.states(node, kinked.relu(), form.scaled(1.0, -lo), suffix="/low").scaled(1.0, lo)
    if lo <= -huge:
        return walk.states(node, kinked.relu(), form.scaled(-1.0, hi), suffix="/high").scaled(-1.0, hi)
    above = walk.states(node, kinked.relu(), form.scaled(1.0, -lo), suffix="/low")
    below = walk.states(node, kinked.relu(), above.scaled(-1.0, hi).scaled(1.0, -lo), suffix="/high")
    return below.scaled(-1.0, hi)
