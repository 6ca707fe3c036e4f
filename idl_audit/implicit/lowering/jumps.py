"""Operators that jump: rounding, signs, comparisons, truth values; each makes stairs or steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations import Activation, jumping, kinked
from idl_audit.implicit.affine import AffineForm, Whole, typed
from idl_audit.implicit.lowering.arithmetic import add_values, broadcast, constant_form, negated
from idl_audit.implicit.walk import TensorValue, Walk, float_attribute, form_input, refuse

_ROUNDING: Final[Mapping[str, Callable[[], Activation]]] = MappingProxyType(
    {"Ceil": jumping.ceil, "Floor": jumping.floor, "Round": jumping.rounding}
)

COMPARISONS: Final[Mapping[str, tuple[int, int, bool]]] = MappingProxyType(
    {
        "Greater": (0, 1, True),
        "GreaterOrEqual": (0, 1, False),
        "Less": (1, 0, True),
        "LessOrEqual": (1, 0, False),
    }
)
"""Operator -> which input must be above which other one, and whether strictly."""


def lower_rounding(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Ceil, Floor, Round (halves to even)."""
    return (walk.states(node, _ROUNDING[node.op](), form_input(node, values, 0)),)


def lower_sign(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Sign: 1 above 0 less 1 below it; one step of 2 would have 0 on neither of its sides."""
    above, below = _both_sides(node, form_input(node, values, 0), walk)
    return (above.plus(below.scaled(-1.0)),)


def lower_comparison(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Greater, GreaterOrEqual, Less, LessOrEqual: a step of their difference."""
    above, below, strictly = COMPARISONS[node.op]
    pair = [values[k] if k < len(values) else None for k in (above, below)]
    if pair[0] is None or pair[1] is None:
        refuse(node, f"needs two inputs but has {len(values)}")
    return (is_above(node, pair[0], pair[1], walk, strictly=strictly),)


def is_above(node: Node, above: TensorValue, below: TensorValue, walk: Walk, *, strictly: bool) -> Whole:
    """Return where one tensor is above another one, by a step of their difference."""
    difference = add_values(above, negated(below))
    assert isinstance(difference, AffineForm)
    return typed(walk.states(node, jumping.step(share=float(not strictly)), difference, suffix="/jump"), "bool")


def lower_equal(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Equal: 1 less 1 where one tensor is above the other, and less 1 where it is below."""
    pair = [values[k] if k < len(values) else None for k in range(2)]
    if pair[0] is None or pair[1] is None:
        refuse(node, f"needs two inputs but has {len(values)}")
    difference = add_values(pair[0], negated(pair[1]))
    assert isinstance(difference, AffineForm)
    return (typed(is_not_zero(node, difference, walk).scaled(-1.0, 1.0), "bool"),)


def lower_not(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Not: 1 - x."""
    return (typed(form_input(node, values, 0).scaled(-1.0, 1.0), "bool"),)


def lower_logic(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """And = relu(x + y - 1), Or = 1 - relu(1 - x - y), Xor = |x - y|, of truth values that are 0 or 1."""
    first, second = (
        value if isinstance(value, AffineForm) else constant_form(np.asarray(value, np.bool_)) for value in values
    )
    shape = tuple(np.broadcast_shapes(first.shape, second.shape))
    first, second = broadcast(first, shape), broadcast(second, shape)
    if node.op == "Xor":
        made = walk.states(node, kinked.absolute(), first.plus(second.scaled(-1.0)))
    elif node.op == "And":
        made = walk.states(node, kinked.relu(), first.plus(second).scaled(1.0, -1.0))
    else:
        made = walk.states(node, kinked.relu(), first.plus(second).scaled(-1.0, 1.0)).scaled(-1.0, 1.0)
    return (typed(made, "bool"),)


REACH: Final[Mapping[str, float]] = MappingProxyType({"int32": 2.0**31, "int64": 2.0**63})
"""Type -> numbers of this size or more it may not hold; runtimes make of them what they like."""


def truncated(node: Node, form: AffineForm, kind: str, walk: Walk) -> AffineForm:
    """Return the tensor rounded towards 0: floor where it is above, ceil where it is below."""
    above = walk.states(node, jumping.floor(lowest=0.0, reach=REACH[kind]), form, suffix="/above")
    return above.plus(walk.states(node, jumping.ceil(highest=0.0, reach=REACH[kind]), form, suffix="/below"))


def within_reach(node: Node, form: AffineForm, kind: str, walk: Walk) -> AffineForm:
    """Return whole numbers as they are where their type has them; nothing is known of them elsewhere."""
    return walk.states(node, jumping.rounding(reach=REACH[kind]), form, suffix="/reach")


def is_not_zero(node: Node, form: AffineForm, walk: Walk) -> AffineForm:
    """Return 1 where the tensor is above or below 0, and 0 where it is 0."""
    above, below = _both_sides(node, form, walk)
    return above.plus(below)


def _both_sides(node: Node, form: AffineForm, walk: Walk) -> tuple[AffineForm, AffineForm]:
    """Return 1 where the tensor is above 0, and 1 where it is below."""
    above = walk.states(node, jumping.step(), form, suffix="/above")
    return above, walk.states(node, jumping.step(), form.scaled(-1.0), suffix="/below")


def lower_thresholded_relu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """ThresholdedRelu: z above alpha, else 0."""
    form, alpha = form_input(node, values, 0), float_attribute(node, "alpha", 1.0)
    return (_line_beyond(node, form, alpha, alpha, walk, ""),)


def lower_shrink(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Shrink: z - bias above lambd, z + bias below -lambd, 0 between; with bias = lambd it does not jump."""
    form = form_input(node, values, 0)
    width, bias = float_attribute(node, "lambd", 0.5), float_attribute(node, "bias", 0.0)
    if width < 0:
        refuse(node, f"has lambd = {width:g}, so that both its sides hold at once; lambd >= 0 can be read")
    jump = width - bias
    above = _line_beyond(node, form, width, jump, walk, "/above")
    below = _line_beyond(node, form.scaled(-1.0), width, jump, walk, "/below")
    made = above.plus(below.scaled(-1.0))
    lost = 0.0 if Fraction(width) - Fraction(bias) == Fraction(jump) else 2.0 * float(np.spacing(abs(jump)))
    return (replace(made, constant_error=made.constant_error + lost),)


def _line_beyond(node: Node, form: AffineForm, place: float, jump: float, walk: Walk, suffix: str) -> AffineForm:
    """Return z - place + jump where z > place, and 0 elsewhere."""
    bends = kinked.relu() if jump == 0 else jumping.step(above=1.0, jump=jump)
    return walk.states(node, bends, form.scaled(1.0, -place), suffix=suffix)
