"""Operators that change no number (Cast, Dropout; to integers it does), and those whose result none changes (Shape)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm, Whole, typed
from idl_audit.implicit.lowering.jumps import REACH, is_not_zero, truncated, within_reach
from idl_audit.implicit.walk import TensorValue, Walk, form_input, int_attribute, optional_constant, refuse, type_of


def lower_shape(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Shape: known once and for all, since a sample has one shape."""
    shape = _shape(node, values)
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    if not isinstance(start, int) or not isinstance(end, int):
        refuse(node, "has a start or end that is no integer")
    return (np.asarray(shape, np.int64)[start:end],)


def lower_size(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Size: the number of entries."""
    return (np.asarray(math.prod(_shape(node, values)), np.int64),)


def lower_identity(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Identity, and Cast between floating-point types."""
    if values[0] is None:
        refuse(node, "has no input")
    return (values[0],)


def lower_cast(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Cast: the same number in another floating-point type; whole numbers are cut off, truth is what is not 0."""
    return (as_type(node, form_input(node, values, 0), type_cast_to(node), walk),)


def type_cast_to(node: Node) -> str:
    """Return the type that a Cast names; empty for floats."""
    target = node.attributes.get("to")
    if target in _FLOAT_TYPES:
        return ""
    return _OTHER_TYPES.get(target, f"type {target}") if isinstance(target, int) else "no type"


def as_type(node: Node, form: AffineForm, kind: str, walk: Walk) -> AffineForm:
    """Return the form in another type."""
    known = form.kind if isinstance(form, Whole) else ""
    if not kind:
        return AffineForm(form.shape, form.terms, form.constant, form.constant_error)
    if kind == "bool":
        return form if known == "bool" else typed(is_not_zero(node, form, walk), kind)
    if known in _HELD_BY.get(kind, ()):
        return typed(form, kind)
    if kind in REACH:
        cut_off = within_reach if known in REACH else truncated
        return typed(cut_off(node, form, kind, walk), kind)
    refuse(
        node,
        f"casts a tensor that depends on the input to {kind}, and what becomes of numbers beyond its range differs "
        "between runtimes; casts to floats, int32, int64 and bool can be read, and QuantizeLinear",
    )


_HELD_BY: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **{kind: ("bool", kind) for kind in ("int8", "uint8", "uint16", "uint32", "uint64")},
        "int16": ("bool", "int8", "uint8", "int16"),
        "int32": ("bool", "int8", "uint8", "int16", "uint16", "int32"),
        "int64": ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64"),
    }
)
"""Type -> the types whose numbers it has."""

_FLOAT_TYPES = (1, 10, 11, 16)
"""TensorProto's numbers of float, float16, double, bfloat16."""

_OTHER_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        **dict(zip(range(2, 10), ("uint8", "int8", "uint16", "int16", "int32", "int64", "text", "bool"), strict=True)),
        **dict(zip((12, 13, 21, 22), ("uint32", "uint64", "uint4", "int4"), strict=True)),
    }
)
"""TensorProto's numbers of types that hold no fractions."""


def lower_dropout(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Dropout at inference: nothing."""
    training = optional_constant(node, values, 2, "training mode")
    ratio = optional_constant(node, values, 1, "ratio")
    drops = ratio is None or bool(np.any(ratio))
    if training is not None and bool(np.any(training)) and drops:
        refuse(node, "is in training mode; export the model after model.eval()")
    if len(node.outputs) > 1 and node.outputs[1]:
        shape = values[0].shape if values[0] is not None else ()
        mask = np.full(shape, walk.opset >= 12)  # before, runtimes return a mask of nothing
        return (*lower_identity(node, values, walk), mask)
    return lower_identity(node, values, walk)


def lower_cast_like(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """CastLike: a Cast to the type of another tensor; constants -1, 0 and 1 are the same in every float type."""
    given, like = values[0], type_of(values[1] if len(values) > 1 else None)
    if isinstance(given, np.ndarray) and given.dtype.kind == "f" and not like and np.isin(given, (-1, 0, 1)).all():
        return (given,)
    return (as_type(node, form_input(node, values, 0), like, walk),)


def lower_finite(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """IsNaN and IsInf: false everywhere, since all numbers of a network are finite where its inputs are."""
    return (np.zeros(_shape(node, values), np.bool_),)


def lower_eye_like(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """EyeLike: ones on one diagonal, whatever the numbers."""
    shape = _shape(node, values)
    if len(shape) != 2:
        refuse(node, f"has an input of shape {shape} where a matrix is needed")
    given = node.attributes.get("dtype", 1)
    if not isinstance(given, int) or given not in _EYES:
        refuse(node, f"makes a matrix of type {given}; floats and integers can be made")
    return (np.eye(*shape, k=int_attribute(node, "k", 0), dtype=_EYES[given]),)


_EYES: Final = MappingProxyType({1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float32, 11: np.float64})
"""TensorProto's number of a type -> the type that stands for it here."""


def lower_has_element(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """OptionalHasElement: true where there is an input."""
    return (np.asarray(bool(values) and values[0] is not None),)


def _shape(node: Node, values: Sequence[TensorValue | None]) -> tuple[int, ...]:
    if not values or values[0] is None:
        refuse(node, "has no input")
    return values[0].shape
