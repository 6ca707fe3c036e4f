"""Nodes whose inputs are all known: their value, by onnx's reference operators, with the size told beforehand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from idl_audit.arrays import AnyArray
from idl_audit.errors import UnsupportedModelError
from idl_audit.graph.ir import Node, shown
from idl_audit.graph.onnx_writer import array_type, node_proto, operator_schema

FOLD_LIMIT: Final = 2**30
"""Bytes that a folded node's outputs may have together."""

_NOT_CONSTANT: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_NEVER: Final = frozenset({"ImageDecoder"})  # a decoder for pictures is no place for a stranger's bytes

# The reference has only the newest meaning of these; before the version given they meant something else.
_MEANING_SINCE: Final[Mapping[str, int]] = MappingProxyType(
    {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "Resize": 11, "Upsample": 99}
)

# How many elements come out depends on the values, but there is a bound: bytes per byte of input and axis.
_BOUNDED: Final[Mapping[str, int]] = MappingProxyType({"NonZero": 8, "Compress": 1, "Unique": 25})

_SHAPE_INPUT: Final = 64
"""Only inputs of up to this many elements can be shapes, and are shown to onnx's shape inference by value."""


def fold_node(
    node: Node, inputs: Sequence[AnyArray | None], opset: int, *, max_bytes: int = FOLD_LIMIT
) -> tuple[AnyArray, ...]:
    """Return the node's outputs for constant inputs, read-only; an input that is left out is None.

    Raises UnsupportedModelError for random operators, where the reference cannot do it, and where the outputs would
    have more than `max_bytes` bytes (told from the shapes before anything is allocated).
    """
    label = shown(node.label)
    if node.op in _NOT_CONSTANT:
        raise UnsupportedModelError([f"{label}: {node.op} draws random numbers, and a network must be a function"])
    if node.op in _NEVER or opset < _MEANING_SINCE.get(node.op, 0):
        raise UnsupportedModelError(
            [f"{label}: {node.op} of constants is not evaluated in operator set {opset}; simplify the model first"]
        )
    feeds = {f"i{index}": np.asarray(array) for index, array in enumerate(inputs) if array is not None}
    names = [f"i{index}" if array is not None else "" for index, array in enumerate(inputs)]
    outputs = [f"o{index}" if name else "" for index, name in enumerate(node.outputs)]
    try:
        proto = node_proto(node, names, outputs, opset)
        estimate = _estimate(node, proto, feeds, opset)
        if estimate is not None and estimate <= max_bytes:
            return tuple(map(_plain, _evaluate(proto, feeds, opset)))
    except UnsupportedModelError:
        raise
    except Exception as error:  # onnx raises whatever a hostile node leads it to
        raise UnsupportedModelError([f"{label}: {shown(node.op)} cannot be evaluated: {_first_line(error)}"]) from error
    if estimate is None:
        raise UnsupportedModelError([f"{label}: the size of what {shown(node.op)} makes cannot be told beforehand"])
    raise UnsupportedModelError(
        [
            f"{label}: {shown(node.op)} would make {estimate / 2**30:.1f} GiB of constants where "
            f"{max_bytes / 2**30:.1f} GiB are allowed; export the model with smaller shapes"
        ]
    )


def _estimate(node: Node, proto: NodeProto, feeds: Mapping[str, AnyArray], opset: int) -> int | None:
    """Return a bound for the bytes of all outputs, from onnx's shape inference; None where it cannot tell."""
    if node.op in _BOUNDED:
        return sum(array.nbytes for array in feeds.values()) * _BOUNDED[node.op] * max(1, *_ranks(feeds))
    types = onnx.shape_inference.infer_node_outputs(
        operator_schema(node, opset),
        proto,
        {name: array_type(array) for name, array in feeds.items()},
        {name: numpy_helper.from_array(array, name) for name, array in feeds.items() if array.size <= _SHAPE_INPUT},
        opset_imports=[helper.make_opsetid("", opset)],
    )
    sizes = [_n_bytes(types[name]) for name in proto.output if name in types]
    # Some second outputs (a Dropout's mask) have no inferred shape; none of them is larger than the first output.
    if not sizes or sizes[0] is None:
        return None
    return sum(sizes[0] if size is None else size for size in sizes)


def _ranks(feeds: Mapping[str, AnyArray]) -> list[int]:
    return [array.ndim for array in feeds.values()] or [0]


def _n_bytes(kind: onnx.TypeProto) -> int | None:
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or not all(size.HasField("dim_value") for size in tensor.shape.dim):
        return None
    itemsize = helper.tensor_dtype_to_np_dtype(tensor.elem_type or TensorProto.DOUBLE).itemsize
    return math.prod(int(size.dim_value) for size in tensor.shape.dim) * int(itemsize)


def _evaluate(proto: NodeProto, feeds: Mapping[str, AnyArray], opset: int) -> Sequence[Any]:
    from onnx.reference import ReferenceEvaluator  # slow to import, and most models fold nothing

    graph = helper.make_graph(
        [proto],
        "fold",
        [helper.make_value_info(name, array_type(array)) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in proto.output if name],
    )
    # Division by zero must not slip into a shape, and the operators' warnings are of no use to anybody.
    with np.errstate(divide="raise", invalid="raise", over="raise"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = iter(ReferenceEvaluator(graph, opsets={"": opset}).run(None, dict(feeds)))
    return [next(found) if name else np.zeros(0, np.float32) for name in proto.output]


def _plain(value: Any) -> AnyArray:
    """Return an output as a read-only array of numbers; floats of 16 bits are widened as all weights are."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"the result is a {type(value).__name__}, not a tensor")
    array = np.asarray(value).view()  # a view of its own: only this one becomes read-only
    if array.dtype.kind not in "fiub":
        if array.dtype.name != "bfloat16":
            raise TypeError(f"the result holds {array.dtype.name}")
        array = array.astype(np.float32)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    array.setflags(write=False)
    return array


def _first_line(error: Exception) -> str:
    return shown(next(iter(str(error).strip().splitlines()), type(error).__name__))
