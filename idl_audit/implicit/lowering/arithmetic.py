"""Arithmetic: sums and differences of tensors, products and quotients with constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.walk import TensorValue, Walk, flat_indices, form_input, refuse
from idl_audit.values.arrays import AnyArray
from idl_audit.values.rounding import gamma


def broadcast(form: AffineForm, shape: tuple[int, ...]) -> AffineForm:
    """Return the form broadcast to a shape, by numpy's rules."""
    if form.shape == shape:
        return form
    return form.selected(np.ascontiguousarray(np.broadcast_to(flat_indices(form.shape), shape)))


def add_values(first: TensorValue, second: TensorValue) -> TensorValue:
    """Return the sum of two tensors, broadcast; ValueError where their shapes do not fit."""
    if not isinstance(first, AffineForm):
        first, second = second, first
    if not isinstance(first, AffineForm):
        raise TypeError("a sum of two constants is folded before it gets here")
    shape = tuple(np.broadcast_shapes(first.shape, second.shape))
    first = broadcast(first, shape)
    if isinstance(second, AffineForm):
        return first.plus(broadcast(second, shape))
    return first.scaled(1.0, second.astype(np.float64))


def _pair(node: Node, values: Sequence[TensorValue | None]) -> tuple[TensorValue, TensorValue]:
    if len(values) != 2 or values[0] is None or values[1] is None:
        refuse(node, f"needs two inputs but has {len(values)}")
    first, second = values[0], values[1]
    try:
        np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        refuse(node, f"combines tensors of shapes {first.shape} and {second.shape}, which do not fit")
    return first, second


def negated(value: TensorValue) -> TensorValue:
    """Return minus the tensor."""
    return value.scaled(-1.0) if isinstance(value, AffineForm) else -value.astype(np.float64)


def lower_add(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Add with broadcasting."""
    return (add_values(*_pair(node, values)),)


def lower_sub(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Sub with broadcasting."""
    first, second = _pair(node, values)
    return (add_values(first, negated(second)),)


def lower_mul(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Mul with broadcasting: by a constant, or of two tensors that both depend on the input."""
    first, second = _pair(node, values)
    if not isinstance(first, AffineForm):
        first, second = second, first
    assert isinstance(first, AffineForm)  # two constants are folded before they get here
    shape = tuple(np.broadcast_shapes(first.shape, second.shape))
    if isinstance(second, AffineForm):
        at_first, at_second = (np.broadcast_to(flat_indices(form.shape), shape) for form in (first, second))
        return (walk.products(node, first, at_first, second, at_second),)
    return (_times(node, first, second.astype(np.float64), shape, walk, relative=node.uncertainty),)


def lower_div(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Div by a constant, with broadcasting."""
    first, second = _pair(node, values)
    if isinstance(second, AffineForm) or not isinstance(first, AffineForm):
        refuse(node, "divides by a tensor that depends on the input; only quotients by constants are linear")
    if not np.all(second):
        refuse(node, "divides by zero")
    inverse = 1.0 / second.astype(np.float64)
    shape = tuple(np.broadcast_shapes(first.shape, second.shape))
    return (_times(node, first, inverse, shape, walk, relative=gamma(2)),)


def _times(
    node: Node, form: AffineForm, weights: np.ndarray, shape: tuple[int, ...], walk: Walk, *, relative: float
) -> AffineForm:
    flat = np.broadcast_to(weights, shape).reshape(-1).copy()
    return walk.linear(node, Selection.diagonal(flat).uncertain(relative), broadcast(form, shape), shape)


def lower_pow(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Pow with the exponents 1 and 0: the tensor itself, and ones."""
    base, exponent = _pair(node, values)
    if isinstance(exponent, AffineForm) or not isinstance(base, AffineForm):
        refuse(node, f"raises to a power that depends on the input; {_NO_POWERS}")
    shape = tuple(np.broadcast_shapes(base.shape, exponent.shape))
    powers = np.broadcast_to(exponent, shape)
    if not np.isin(powers, (0, 1)).all():
        other = float(powers[~np.isin(powers, (0, 1))].flat[0])
        refuse(node, f"raises a tensor that depends on the input to the power {other:g}; {_NO_POWERS}")
    if not powers.any():
        return (AffineForm(shape, {}, np.ones(powers.size)),)
    return (broadcast(base, shape).scaled(powers.astype(np.float64), 1.0 - powers),)


_NO_POWERS: Final = (
    "only the powers 1 and 0 can be read, since others have no bounded slope and no states here: put a bounded "
    "activation (Tanh, Clip and Abs, Gelu) in its place"
)


def lower_neg(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Neg."""
    return (form_input(node, values, 0).scaled(-1.0),)


def lower_sum(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Sum of any number of tensors, with broadcasting."""
    total: AffineForm | None = None
    for value in values:
        if value is None:
            refuse(node, "leaves an input out")
        form = value if isinstance(value, AffineForm) else constant_form(value)
        if total is None:
            total = form
            continue
        first, second = _pair(node, (total, form))
        summed = add_values(first, second)
        assert isinstance(summed, AffineForm)
        total = summed
    if total is None:
        refuse(node, "has no input")
    return (total,)


def constant_form(value: AnyArray) -> AffineForm:
    """Return a constant as a form, so that what sums of constants round is kept account of."""
    return AffineForm(value.shape, {}, value.astype(np.float64).reshape(-1))


def lower_mean(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Mean of any number of tensors, with broadcasting."""
    (total,) = lower_sum(node, values, walk)
    if not isinstance(total, AffineForm):
        refuse(node, "has only constants")
    share = 1.0 / len(values)
    return (_times(node, total, np.asarray(share), total.shape, walk, relative=gamma(2)),)
