"""Arithmetic: sums and differences of tensors, products and quotients, powers by constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations import Activation, jumping
from idl_audit.implicit.activations.analytic import (
    LARGEST_POWER,
    LIBRARY_ERROR,
    exp,
    log,
    power,
    reciprocal,
    rsqrt,
    sqrt,
    square,
)
from idl_audit.implicit.affine import AffineForm, PartlyAbsent
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.walk import (
    PendingBlock,
    TensorValue,
    Walk,
    flat_indices,
    form_input,
    int_attribute,
    refuse,
    refuse_infinity,
)
from idl_audit.values.arrays import AnyArray, BoolArray
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
    """Add with broadcasting; minus infinity, added, leaves an entry out of what competes (a mask of attention)."""
    first, second = _pair(node, values)
    for form, constant in ((first, second), (second, first)):
        if isinstance(constant, np.ndarray) and np.isneginf(constant).any() and isinstance(form, AffineForm):
            return (masked(node, form, constant),)
        refuse_infinity(node, constant)
    return (add_values(first, second),)


def masked(node: Node, form: AffineForm, bias: AnyArray) -> PartlyAbsent:
    """Return the form plus a constant, entries with minus infinity left out."""
    shape = tuple(np.broadcast_shapes(form.shape, bias.shape))
    absent = np.broadcast_to(np.isneginf(bias), shape)
    finite = np.where(absent, 0.0, np.broadcast_to(bias, shape).astype(np.float64))
    refuse_infinity(node, finite)
    places = np.broadcast_to(flat_indices(form.shape), shape)
    kept = form.selected(np.where(absent, -1, places)).shifted(finite.reshape(-1))
    return PartlyAbsent(shape, kept.terms, kept.constant, kept.constant_error, absent=absent.reshape(-1))


def lower_sub(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Sub with broadcasting."""
    first, second = _pair(node, values)
    return (add_values(first, negated(second)),)


def lower_mul(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Mul with broadcasting: by a constant, or of two tensors that depend on the input; by itself it is the square."""
    first, second = _pair(node, values)
    if first is second and isinstance(first, AffineForm):
        return (walk.states(node, square(), first),)
    if not isinstance(first, AffineForm):
        first, second = second, first
    assert isinstance(first, AffineForm)  # two constants are folded before they get here
    return (multiplied(node, first, second, walk, relative=node.uncertainty),)


def multiplied(node: Node, first: AffineForm, second: TensorValue, walk: Walk, *, relative: float = 0.0) -> AffineForm:
    """Return first * second with broadcasting; a constant, whose own error is relative, only scales the other."""
    shape = tuple(np.broadcast_shapes(first.shape, second.shape))
    if not isinstance(second, AffineForm):
        return _times(node, first, second.astype(np.float64), shape, walk, relative=relative)
    for form, other in ((first, second), (second, first)):
        if not other.terms and not other.constant_error:
            weights = other.constant.reshape(other.shape)
            return _times(node, form, weights, shape, walk, relative=0.0) if weights.any() else zeros(shape)
    at_first, at_second = (np.broadcast_to(flat_indices(form.shape), shape) for form in (first, second))
    return walk.products(node, first, at_first, second, at_second)


def zeros(shape: tuple[int, ...]) -> AffineForm:
    """Return the form that is 0."""
    return AffineForm(shape, {}, np.zeros(math.prod(shape)))


def lower_div(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Div with broadcasting: by a constant, or by a tensor that depends on the input, whose reciprocal is a curve."""
    first, second = _pair(node, values)
    if isinstance(second, AffineForm):
        return (multiplied(node, inverted(node, second, walk), first, walk),)
    assert isinstance(first, AffineForm)  # two constants are folded before they get here
    if not np.all(second):
        refuse(node, "divides by zero")
    inverse = 1.0 / second.astype(np.float64)
    shape = tuple(np.broadcast_shapes(first.shape, second.shape))
    return (_times(node, first, inverse, shape, walk, relative=gamma(2)),)


def lower_reciprocal(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Reciprocal: 1 / z, where z cannot be 0."""
    return (inverted(node, form_input(node, values, 0), walk),)


def inverted(node: Node, form: AffineForm, walk: Walk) -> AffineForm:
    """Return 1 / form as states; of the square root of a form 1 / sqrt, which is one curve."""
    root = _as_block(form, walk)
    if root is not None and root.block.activation.name == "sqrt":
        return walk.states(node, rsqrt(), root.form)
    return walk.states(node, reciprocal(), form)


def _as_block(form: AffineForm, walk: Walk) -> PendingBlock | None:
    """Return the block whose states a form is, entry by entry in whatever shape."""
    if not form.is_bare:
        return None
    ((source, entries),) = form.terms.items()
    same = Selection.identity(form.size)
    if source < 0 or not isinstance(entries, Selection) or not np.array_equal(entries.index, same.index):
        return None
    if entries.relative or entries.slack is not None:
        return None
    made = walk.pending[source]
    return replace(made, form=made.form.reshaped(form.shape)) if made.form.size == form.size else None


def _times(
    node: Node, form: AffineForm, weights: np.ndarray, shape: tuple[int, ...], walk: Walk, *, relative: float
) -> AffineForm:
    flat = np.broadcast_to(weights, shape).reshape(-1).copy()
    return walk.linear(node, Selection.diagonal(flat).uncertain(relative), broadcast(form, shape), shape)


def lower_pow(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Pow: of constant exponents 0 and 1 are linear, others curves; else exp(exponent ln base), for a base above 0."""
    base, exponent = _pair(node, values)
    if isinstance(exponent, AffineForm):
        if not isinstance(base, AffineForm):
            return (_exponential(node, base, exponent, walk),)
        logarithm = walk.states(node, log(), base, suffix="/log")
        return (walk.states(node, exp(), multiplied(node, exponent, logarithm, walk), suffix="/exp"),)
    assert isinstance(base, AffineForm)  # two constants are folded before they get here
    shape = tuple(np.broadcast_shapes(base.shape, exponent.shape))
    powers = np.broadcast_to(exponent, shape).astype(np.float64)
    if not powers.any():
        return (AffineForm(shape, {}, np.ones(powers.size)),)
    base = broadcast(base, shape)
    curves = np.setdiff1d(powers, (0.0, 1.0))
    if curves.size == 1 and (powers == curves[0]).all():
        return (powered(node, base, float(curves[0]), walk),)
    total = base.scaled((powers == 1).astype(np.float64), (powers == 0).astype(np.float64))
    for one in curves:
        total = total.plus(_power_of_some(node, base, powers.reshape(-1) == one, float(one), walk))
    return (total,)


def _exponential(node: Node, base: AnyArray, exponent: AffineForm, walk: Walk) -> AffineForm:
    """Return base^exponent = exp(exponent ln base) for constants above 0."""
    if base.dtype.kind != "f" or not (base > 0).all():
        refuse(node, "raises a constant that is not above 0 to a power that depends on the input; others can be read")
    shape = tuple(np.broadcast_shapes(base.shape, exponent.shape))
    logarithms = np.log(base.astype(np.float64))
    return walk.states(node, exp(), _times(node, exponent, logarithms, shape, walk, relative=LIBRARY_ERROR))


def powered(node: Node, form: AffineForm, exponent: float, walk: Walk, suffix: str = "") -> AffineForm:
    """Return form^exponent for an exponent other than 0 and 1."""
    if exponent == -1.0:
        return inverted(node, form, walk)
    if exponent in NAMED_POWERS:
        return walk.states(node, NAMED_POWERS[exponent](), form, suffix=suffix)
    if not abs(exponent) <= LARGEST_POWER:
        refuse(node, f"raises to the power {exponent:g}; powers up to {LARGEST_POWER:g} can be read")
    return walk.states(node, power(exponent), form, suffix=suffix)


NAMED_POWERS: Final[Mapping[float, Callable[[], Activation]]] = MappingProxyType({-0.5: rsqrt, 0.5: sqrt, 2.0: square})
"""Exponents of curves that have a name."""


def _power_of_some(node: Node, form: AffineForm, some: BoolArray, exponent: float, walk: Walk) -> AffineForm:
    """Return form^exponent at some of its entries, and 0 elsewhere."""
    chosen = np.flatnonzero(some)
    made = powered(node, walk.select(node, form, chosen), exponent, walk, suffix=f"/{exponent:g}")
    back = np.full(form.size, -1, np.int64)
    back[chosen] = np.arange(chosen.size)
    return made.selected(back.reshape(form.shape))


def lower_mod(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Mod of floats by constants (fmod = 1): x - y trunc(x / y)."""
    form, divisor = _pair(node, values)
    if not int_attribute(node, "fmod", 0):
        refuse(node, "has fmod = 0, which is for whole numbers; of floats it can be read with fmod = 1")
    if isinstance(divisor, AffineForm) or not isinstance(form, AffineForm):
        refuse(node, "divides by what depends on the input; by constants it can be read")
    if not (np.isfinite(divisor).all() and np.all(divisor)):
        refuse(node, "divides by 0, or by infinity; by other constants it can be read")
    shape = tuple(np.broadcast_shapes(form.shape, divisor.shape))
    by = np.abs(divisor.astype(np.float64))  # the rest has the sign of x, whatever that of the divisor is
    quotient = _times(node, form, 1.0 / by, shape, walk, relative=gamma(2))
    above = walk.states(node, jumping.floor(lowest=0.0), quotient, suffix="/above")
    whole = above.plus(walk.states(node, jumping.ceil(highest=0.0), quotient, suffix="/below"))
    return (broadcast(form, shape).plus(_times(node, whole, -by, shape, walk, relative=0.0)),)


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
