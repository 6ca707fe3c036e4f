"""Nonlinear operators: each makes a block of states; Clip is nested ReLUs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations.curve import sigmoid, tanh
from idl_audit.implicit.activations.kinked import absolute, leaky_relu, relu
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    float_attribute,
    form_input,
    optional_constant,
    refuse,
)


def lower_relu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Relu: x = max(z, 0)."""
    return (walk.states(node, relu(), form_input(node, values, 0)),)


def lower_abs(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Abs: a state of its own."""
    return (walk.states(node, absolute(), form_input(node, values, 0)),)


def lower_leaky_relu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LeakyRelu: slope alpha below 0."""
    return (walk.states(node, leaky_relu(float_attribute(node, "alpha", 0.01)), form_input(node, values, 0)),)


def lower_prelu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """PRelu: a slope below 0 for each entry, broadcast from a constant."""
    form = form_input(node, values, 0)
    slope = constant_input(node, values, 1, "slope").astype(np.float64)
    try:
        alpha = np.broadcast_to(slope, form.shape).reshape(-1).copy()
    except ValueError:
        refuse(node, f"has slopes of shape {slope.shape} for a tensor of shape {form.shape}")
    return (walk.states(node, leaky_relu(alpha), form),)


def lower_sigmoid(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Sigmoid."""
    return (walk.states(node, sigmoid(), form_input(node, values, 0)),)


def lower_tanh(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Tanh."""
    return (walk.states(node, tanh(), form_input(node, values, 0)),)


def lower_clip(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Clip to [lo, hi] = hi - relu(hi - lo - relu(s - lo)), nested so that no sensitivity is counted twice."""
    form = form_input(node, values, 0)
    if walk.opset < 11:
        bounds = [float_attribute(node, "min", -np.inf), float_attribute(node, "max", np.inf)]
    else:
        given = [optional_constant(node, values, k, what) for k, what in ((1, "minimum"), (2, "maximum"))]
        bounds = [
            default if v is None or not v.size else float(v.reshape(-1)[0])
            for v, default in zip(given, (-np.inf, np.inf), strict=True)
        ]
    lo, hi = bounds
    if np.isnan(lo) or np.isnan(hi) or lo > hi:
        refuse(node, f"clips to the empty interval [{lo}, {hi}]")
    return (_clipped(node, form, lo, hi, walk),)


def _clipped(node: Node, form: AffineForm, lo: float, hi: float, walk: Walk) -> AffineForm:
    huge = float(np.finfo(np.float32).max)
    if lo <= -huge and hi >= huge:
        return form
    if hi >= huge:
        return walk.states(node, relu(), form.scaled(1.0, -lo), suffix="/low").scaled(1.0, lo)
    if lo <= -huge:
        return walk.states(node, relu(), form.scaled(-1.0, hi), suffix="/high").scaled(-1.0, hi)
    above = walk.states(node, relu(), form.scaled(1.0, -lo), suffix="/low")
    below = walk.states(node, relu(), above.scaled(-1.0, hi - lo), suffix="/high")
    return below.scaled(-1.0, hi)
