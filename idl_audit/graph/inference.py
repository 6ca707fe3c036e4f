"""Types and shapes of a node's outputs, as onnx infers them; only nodes without faults come here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper

from idl_audit.graph.ir import Node, Value
from idl_audit.graph.onnx_writer import array_type, node_proto, operator_schema
from idl_audit.graph.tensors import ELEMENT_TYPES, element_type_name
from idl_audit.values.arrays import AnyArray

TensorType: TypeAlias = TypeProto
"""What onnx knows of a value: element type and shape, either of which may be missing."""

_SHAPE_INPUT: Final = 64
"""Only constants of up to this many elements can be shapes, and are shown to onnx's shape inference by value."""

# How many elements come out depends on the values, but there is a bound: bytes per byte of input and axis.
BOUNDED_OUTPUTS: Final = {"NonZero": 8, "Compress": 1, "Unique": 25}


# onnx infers nothing for some versions of these: element type of the output, None where it is that of the first input.
_LIKE_ITS_INPUTS: Final = {
    "GreaterOrEqual": TensorProto.BOOL,
    "GroupNormalization": None,
    "LessOrEqual": TensorProto.BOOL,
    "MeanVarianceNormalization": None,
}


def _like_inputs(types: Sequence[TypeProto | None], element: int | None) -> TypeProto | None:
    """Return the type of a comparison, of the inputs' common shape, or of a normalisation, which is the first's."""
    shapes = [known_shape(kind) for kind in types if kind is not None]
    if None in shapes or types[0] is None:
        return None
    if element is None:
        return types[0]
    common = np.broadcast_shapes(*(shape for shape in shapes if shape is not None))
    return helper.make_tensor_type_proto(element, common)


def output_types(
    node: Node, types: Sequence[TypeProto | None], values: Sequence[AnyArray | None], opset: int
) -> list[TypeProto | None]:
    """Return the type of every output, None where onnx cannot tell.

    Args:
        node: a node that `schemas.node_faults`, `type_faults` and `rank_faults` find nothing in.
        types: of every input, None where it is left out.
        values: of every input, None where it is not known.
        opset: version of the default operator set.

    Raises whatever onnx raises where inputs and attributes contradict each other.
    """
    if node.op in _LIKE_ITS_INPUTS:
        return [_like_inputs(types, _LIKE_ITS_INPUTS[node.op])]
    announced = _announced_shape(node, types, values)
    try:
        found = _inferred(node, types, values, opset)
    except Exception:  # onnx's own exceptions, among them that a size overflows: which a known size tells better
        if announced is None:
            raise
        found = [None] * len(node.outputs)
    if announced is not None:
        made = found[0] or types[0]
        element = made.tensor_type.elem_type if made is not None else TensorProto.UNDEFINED
        found[0] = helper.make_tensor_type_proto(element, announced)
    return found


def _inferred(
    node: Node, types: Sequence[TypeProto | None], values: Sequence[AnyArray | None], opset: int
) -> list[TypeProto | None]:
    names = [f"i{k}" if kind is not None else "" for k, kind in enumerate(types)]
    outputs = [f"o{k}" if name else "" for k, name in enumerate(node.outputs)]
    found = onnx.shape_inference.infer_node_outputs(
        operator_schema(node, opset),
        node_proto(node, names, outputs, opset),
        {name: kind for name, kind in zip(names, types, strict=True) if kind is not None},
        {
            name: numpy_helper.from_array(np.asarray(value), name)
            for name, value in zip(names, values, strict=True)
            if name and value is not None and value.size <= _SHAPE_INPUT
        },
        opset_imports=[helper.make_opsetid("", opset)],
    )
    return [found.get(name) for name in outputs]


_MOST: Final = 2**62
"""A size that ONNX can still state; more is too much in any case."""


def _announced_shape(
    node: Node, types: Sequence[TypeProto | None], values: Sequence[AnyArray | None]
) -> list[int] | None:
    """Return the shape that constants ask for, in exact arithmetic, where onnx's own may overflow."""
    given = [None if value is None else value.reshape(-1) for value in values]
    if node.op == "Range" and len(given) == 3 and all(value is not None and value.size == 1 for value in given):
        start, limit, step = (
            float(value[0]) if value.dtype.kind == "f" else int(value[0]) for value in given if value is not None
        )
        if not step or not all(map(math.isfinite, (start, limit, step))):
            raise ValueError(f"a range from {start} to {limit} in steps of {step}")
        steps = (Fraction(limit) - Fraction(start)) / Fraction(step)
        return [min(max(0, math.ceil(steps)), _MOST)]
    if node.op == "MaxUnpool" and len(given) == 3 and given[2] is not None:
        return [int(size) for size in given[2]]
    factors = _factors(node, given)
    shape = None if factors is None else known_shape(types[0])
    if shape is None or factors is None or len(factors) != len(shape):
        return None
    return [min(math.floor(Fraction(size) * factor), _MOST) for size, factor in zip(shape, factors, strict=True)]


def _factors(node: Node, given: Sequence[AnyArray | None]) -> list[Fraction] | None:
    """Return by what a node multiplies its input's sizes, where it does so and nothing else."""
    at = {"Tile": 1, "Upsample": 1, "Resize": 1 if len(given) == 2 else 2}.get(node.op)
    value = given[at] if at is not None and len(given) > at else None
    if value is None and node.op == "Upsample":
        stated = node.attributes.get("scales")
        value = np.array(stated) if isinstance(stated, tuple) else None
    if value is None or not value.size or not np.isfinite(value).all() or (value < 0).any():
        return None
    return [Fraction(entry) for entry in value.tolist()]


def estimated_bytes(node: Node, types: Sequence[TypeProto | None], made: Sequence[TypeProto | None]) -> int | None:
    """Return a bound for the bytes of all outputs together; None where it cannot be told.

    Args:
        node: the node.
        types: of every input, None where it is left out.
        made: of every output, as `output_types` has them.
    """
    if node.op in BOUNDED_OUTPUTS:
        given = [n_bytes(kind) for kind in types if kind is not None]
        ranks = [rank_of(kind) or 0 for kind in types if kind is not None]
        if None in given:
            return None
        return sum(size for size in given if size is not None) * BOUNDED_OUTPUTS[node.op] * max(1, *ranks, 1)
    sizes = [n_bytes(kind) for kind in made if kind is not None]
    # Some second outputs (a Dropout's mask) have no inferred shape; none of them is larger than the first output.
    if not sizes or sizes[0] is None:
        return None
    return sum(sizes[0] if size is None else size for size in sizes)


def known_shape(kind: TypeProto | None) -> tuple[int, ...] | None:
    """Return the shape, where the type is a tensor's and every size is a number, 0 or more."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    sizes = kind.tensor_type.shape.dim
    if not all(size.HasField("dim_value") and size.dim_value >= 0 for size in sizes):
        return None
    return tuple(int(size.dim_value) for size in sizes)


def is_tensor(kind: TypeProto | None) -> bool:
    """Return whether a type is that of a tensor, or not known."""
    return kind is None or kind.WhichOneof("value") in (None, "tensor_type")


def n_bytes(kind: TypeProto) -> int | None:
    """Return the bytes that a tensor of this type takes in memory, None where its shape is not known."""
    shape = known_shape(kind)
    element = ELEMENT_TYPES.get(kind.tensor_type.elem_type or TensorProto.DOUBLE)
    return None if shape is None else math.prod(shape) * (8 if element is None else element.itemsize)


def type_of(array: AnyArray) -> TypeProto:
    """Return the type of an array: element type and full shape."""
    return array_type(array)


def float_type(shape: Sequence[int]) -> TypeProto:
    """Return the type of a float32 tensor of this shape."""
    return helper.make_tensor_type_proto(TensorProto.FLOAT, shape)


def declared_type(value: Value) -> TypeProto | None:
    """Return the type of a declared input for one sample: a symbolic first axis is 1. None where it is no tensor."""
    element = next((number for number, kind in ELEMENT_TYPES.items() if kind.name == value.dtype), None)
    if element is None:
        return None
    sizes: list[int | None] | None = None
    if value.shape is not None:
        sizes = [size if isinstance(size, int) else 1 if axis == 0 else None for axis, size in enumerate(value.shape)]
    return helper.make_tensor_type_proto(element, sizes)


def element_of(kind: TypeProto | None) -> str:
    """Return the name of a tensor's element type; empty where it is not known."""
    element = 0 if kind is None else kind.tensor_type.elem_type
    return element_type_name(element) if element else ""


_WORDS: Final = {"tensor_type": "tensor", "sequence_type": "seq", "optional_type": "optional"}


def schema_type(kind: TypeProto | None) -> str:
    """Return a type as schemas write it, 'tensor(float)' or 'seq(tensor(float))'; empty where it is not known."""
    what = None if kind is None else kind.WhichOneof("value")
    if kind is None or what not in _WORDS:
        return ""
    if what == "tensor_type":
        element = kind.tensor_type.elem_type
        return f"tensor({TensorProto.DataType.Name(element).lower()})" if element else ""
    inner = schema_type(getattr(kind, what).elem_type)
    return f"{_WORDS[what]}({inner})" if inner else ""


def rank_of(kind: TypeProto | None) -> int | None:
    """Return a tensor's number of axes, None where it is not known."""
    return len(kind.tensor_type.shape.dim) if kind is not None and kind.tensor_type.HasField("shape") else None
