"""Nodes whose inputs are all known: their value, by onnx's reference operators, with the size told beforehand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from onnx import helper

from idl_audit.graph.inference import (
    TensorType,
    estimated_bytes,
    known_shape,
    output_types,
    schema_type,
    type_of,
)
from idl_audit.graph.ir import Graph, Node, shown
from idl_audit.graph.onnx_writer import node_proto
from idl_audit.graph.own_operators import OWN
from idl_audit.graph.schemas import node_faults, rank_faults, type_faults
from idl_audit.graph.tensors import LARGEST_TENSOR, widened
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

FOLD_LIMIT: Final = LARGEST_TENSOR
"""Bytes that a folded node's outputs may have together."""

_NOT_CONSTANT: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_NEVER: Final = frozenset({"ImageDecoder"})  # a decoder for pictures is no place for a stranger's bytes

_Inputs: TypeAlias = Sequence[AnyArray | None]


def _never(node: Node, inputs: _Inputs) -> bool:
    return True


def _is_disputed(node: Node, inputs: _Inputs) -> bool:
    return bool(node.attributes.get("ceil_mode")) or node.attributes.get("auto_pad", "NOTSET") == "SAME_LOWER"


def _is_odd_norm(node: Node, inputs: _Inputs) -> bool:
    return node.attributes.get("p", 2) != 2


def _resizes_by_fractions(node: Node, inputs: _Inputs) -> bool:
    """Return whether sizes are rounded where the reference and onnxruntime disagree on how."""
    place = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if node.attributes.get("mode", "nearest") == "nearest":
        return place != "asymmetric"
    return place == "align_corners" and len(inputs) > 2 and inputs[2] is not None and inputs[2].size > 0


_UNTRUSTED: Final[Mapping[str, Callable[[Node, _Inputs], bool]]] = MappingProxyType(
    {
        "AveragePool": _is_disputed,
        "GridSample": _never,
        "LpNormalization": _is_odd_norm,
        "LpPool": _is_disputed,
        "MaxPool": _is_disputed,
        "MaxUnpool": _never,
        "NonMaxSuppression": _never,
        "Resize": _resizes_by_fractions,
        "Upsample": _never,
    }
)
"""Where onnx's reference says otherwise than ONNX, or than onnxruntime."""


def fold_node(
    node: Node, inputs: Sequence[AnyArray | None], opset: int, *, max_bytes: int = FOLD_LIMIT
) -> tuple[AnyArray, ...]:
    """Return the node's outputs for constant inputs, read-only, as types that networks compute with here.

    As `evaluate_node`, but 16-bit floats are widened as all weights are.
    """
    return tuple(map(widened, evaluate_node(node, inputs, opset, max_bytes=max_bytes)))


def with_folded_constants(graph: Graph) -> Graph:
    """Return the graph without the nodes that only constants go into, as far as they can be evaluated."""
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        if all(name in constants for name in filter(None, node.inputs)):
            try:
                found = fold_node(node, [constants.get(name) for name in node.inputs], graph.opset)
            except UnsupportedModelError:
                nodes.append(node)
                continue
            constants.update({name: value for name, value in zip(node.outputs, found, strict=True) if name})
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=MappingProxyType(constants))


def evaluate_node(
    node: Node, inputs: Sequence[AnyArray | None], opset: int, *, max_bytes: int = FOLD_LIMIT
) -> tuple[AnyArray, ...]:
    """Return the node's outputs for constant inputs, read-only; an input that is left out is None.

    Raises UnsupportedModelError for random operators, for nodes that are not what ONNX declares, where the reference
    cannot do it, and where the outputs would have more than `max_bytes` bytes (told from the shapes before anything is
    allocated).
    """
    label = shown(node.label)
    node = _in_order(node, inputs)
    if node.op in _NOT_CONSTANT:
        raise UnsupportedModelError([f"{label}: {node.op} draws random numbers, and a network must be a function"])
    disputed = _UNTRUSTED.get(node.op)
    old_resize = node.op == "Resize" and opset < 11
    if node.op in _NEVER or old_resize or (disputed is not None and disputed(node, inputs)):
        raise UnsupportedModelError(
            [
                f"{label}: {node.op} of constants is not evaluated; let another program write its result into the "
                "model first (onnxsim does)"
            ]
        )
    types = [None if array is None else type_of(array) for array in inputs]
    faults = [*node_faults(node, opset)]
    faults = faults or [*type_faults(node, [schema_type(kind) for kind in types], opset)]
    faults = faults or [*rank_faults(node, [None if array is None else array.ndim for array in inputs])]
    if faults:
        raise UnsupportedModelError(faults)
    try:
        made = output_types(node, types, inputs, opset)
        estimate = estimated_bytes(node, types, made)
        if estimate is not None and estimate <= max_bytes:
            return _checked(node, tuple(map(_numbers, _evaluated(node, inputs, opset))), made)
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


def _in_order(node: Node, inputs: Sequence[AnyArray | None]) -> Node:
    """Return a Squeeze or Unsqueeze with ascending axes from 0 on: the reference takes them as they come."""
    axes = node.attributes.get("axes")
    if node.op not in ("Squeeze", "Unsqueeze") or not isinstance(axes, tuple) or not inputs or inputs[0] is None:
        return node
    rank = inputs[0].ndim + (len(axes) if node.op == "Unsqueeze" else 0)
    if not all(isinstance(axis, int) and -rank <= axis < rank for axis in axes):
        return node
    ascending = tuple(sorted(int(axis) % rank for axis in axes))
    return node if len(set(ascending)) < len(axes) else replace(node, attributes={**node.attributes, "axes": ascending})


def _checked(node: Node, found: tuple[AnyArray, ...], made: Sequence[TensorType | None]) -> tuple[AnyArray, ...]:
    """Return the outputs, which must be as many and have the shapes that onnx infers."""
    for name, array, kind in zip(node.outputs, found, made, strict=True):
        shape = known_shape(kind)
        if name and shape is not None and array.shape != shape:
            raise ValueError(f"its output has the shape {list(array.shape)} where {list(shape)} is inferred")
    return found


def _evaluated(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> Sequence[Any]:
    own = OWN.get(node.op)
    # Division by zero must not slip into a shape, and the operators' warnings are of no use to anybody.
    with np.errstate(divide="raise", invalid="raise", over="raise"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if own is not None and opset < own.before:
            return own.run(node, inputs, opset)
        return _by_reference(node, inputs, opset)


def _by_reference(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> Sequence[Any]:
    from onnx.reference import ReferenceEvaluator  # slow to import, and most models fold nothing

    feeds = {f"i{index}": np.asarray(array) for index, array in enumerate(inputs) if array is not None}
    names = [f"i{index}" if array is not None else "" for index, array in enumerate(inputs)]
    outputs = [f"o{index}" if name else "" for index, name in enumerate(node.outputs)]
    graph = helper.make_graph(
        [node_proto(node, names, outputs, opset)],
        "fold",
        [helper.make_value_info(name, type_of(array)) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs if name],
    )
    found = iter(ReferenceEvaluator(graph, opsets={"": opset}).run(None, feeds))
    return [next(found) if name else np.zeros(0, np.float32) for name in outputs]


def _numbers(value: Any) -> AnyArray:
    """Return an output as a read-only array of numbers."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"the result is a {type(value).__name__}, not a tensor")
    array = np.asarray(value).view()  # a view of its own: only this one becomes read-only
    if array.dtype.kind not in "fiubV" or array.dtype.names is not None:
        raise TypeError(f"the result holds {array.dtype.name}")
    array.setflags(write=False)
    return array


def _first_line(error: Exception) -> str:
    return shown(next(iter(str(error).strip().splitlines()), type(error).__name__))
