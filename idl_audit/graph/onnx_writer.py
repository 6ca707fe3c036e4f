"""Our nodes back in onnx's words: to evaluate one of them, or to hand a clean copy of a graph to somebody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from idl_audit.graph.inputs import with_one_input
from idl_audit.graph.ir import Attribute, Graph, Node, Value, live_nodes, shown
from idl_audit.graph.schemas import ELEMENT_TYPE_ATTRIBUTES, operator
from idl_audit.graph.tensors import element_type_name
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

# Weights of 16 bits were widened when they were read, so their network computes in float32 here.
_WIDENED: Final = {"float16": "float32", "bfloat16": "float32"}
_DOUBLED: Final = {"float16": "float64", "bfloat16": "float64", "float32": "float64"}
_NUMBERS: Final = {"float32": int(TensorProto.FLOAT), "float64": int(TensorProto.DOUBLE)}


def operator_schema(node: Node, opset: int) -> onnx.defs.OpSchema:
    """Return onnx's own description of the operator. Raises UnsupportedModelError where this version has none."""
    try:
        return onnx.defs.get_schema(node.op, opset)
    except onnx.defs.SchemaError as error:
        raise UnsupportedModelError(
            [f"{shown(node.label)}: operator set {opset} has no {shown(node.op)}; export with ONNX's own operators"]
        ) from error


def node_proto(node: Node, inputs: Sequence[str], outputs: Sequence[str], opset: int) -> NodeProto:
    """Return the node in onnx's form, with other tensor names and no name of its own."""
    proto = helper.make_node(node.op, inputs, outputs)
    declared = operator_schema(node, opset).attributes
    for key, value in node.attributes.items():
        # An empty tuple does not say what it is a tuple of; the schema does.
        kind = None
        if isinstance(value, tuple) and not value and key in declared:
            kind = int(declared[key].type)  # type: ignore[call-overload]  # an enum, which onnx's stub does not say
        proto.attribute.append(helper.make_attribute(key, _attribute(value), attr_type=kind))
    return proto


def _attribute(value: Attribute) -> Any:
    return numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value


def array_type(array: AnyArray) -> TypeProto:
    """Return the onnx type of an array: element type and full shape."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def clean_model(graph: Graph, output: str, *, double: bool = False) -> ModelProto:
    """Return a model of what `output` depends on, with names n0, n1, ... for nodes and t0, t1, ... for tensors.

    It computes in float32 where the file computes with 16 bits and, with `double`, in float64 throughout. No string of
    the file is left but operator names that onnx knows and string attributes. The output is made by a node with no
    other output: by an Identity where it is not so in the file. Several inputs are one vector.
    """
    graph = with_one_input(graph, output)
    graph = _in_other_floats(graph, live_nodes(graph.nodes, [output]), _DOUBLED if double else _WIDENED)
    nodes = tuple(_for_other_readers(node, graph) for node in graph.nodes)
    names: dict[str, str] = {"": ""}

    def rename(name: str) -> str:
        return names.setdefault(name, f"t{len(names) - 1}")

    inputs = [_value_info(value, rename(value.name)) for value in graph.inputs]
    wanted = {name for node in nodes for name in node.inputs} | {output}
    weights = [
        numpy_helper.from_array(np.asarray(array), rename(name))
        for name, array in graph.constants.items()
        if name in wanted
    ]
    protos = [
        node_proto(node, [rename(name) for name in node.inputs], [rename(name) for name in node.outputs], graph.opset)
        for node in nodes
    ]
    result = rename(output)
    if not any(node.outputs == (output,) for node in nodes):
        result = "t_out"
        protos.append(helper.make_node("Identity", [rename(output)], [result]))
    for index, proto in enumerate(protos):
        proto.name = f"n{index}"
    (declared,) = (value for value in graph.outputs if value.name == output)
    out = helper.make_tensor_value_info(result, _element_type(declared), None)
    version = helper.make_opsetid("", graph.opset)
    return helper.make_model(
        helper.make_graph(protos, "g", inputs, [out], initializer=weights),
        opset_imports=[version],
        # Up to format 3 every weight must be declared as an input as well, and onnx's converter insists on it.
        ir_version=max(4, helper.find_min_ir_version_for([version])),
    )


def tensor_bytes(array: AnyArray, name: str) -> bytes:
    """Return an array as a serialised TensorProto."""
    return bytes(numpy_helper.from_array(np.ascontiguousarray(array), name).SerializeToString())


def with_hidden(path: Path, names: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Return the model of a file with these tensors as further outputs, external data inside; and its own outputs.

    Raises:
        UnsupportedModelError: where it is larger than one such file may be.
    """
    model = onnx.load(path)
    outputs = tuple(value.name for value in model.graph.output)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in outputs)
    try:
        return bytes(model.SerializeToString()), outputs
    except ValueError as error:  # protobuf holds 2 GiB
        raise UnsupportedModelError([f"{path}: with its weights inside, the model is larger than 2 GiB"]) from error


def _in_other_floats(graph: Graph, nodes: Sequence[Node], types: Mapping[str, str]) -> Graph:
    """Return the graph of these nodes with every float of one type in another: inputs, outputs, weights, casts."""
    pinned = {name for node in nodes for name in _pinned(node, graph.opset)}

    def retyped(array: AnyArray) -> AnyArray:
        return array.astype(types[array.dtype.name]) if array.dtype.name in types else array

    def adapted(node: Node) -> Node:
        attributes = dict(node.attributes)
        for key, value in node.attributes.items():
            if isinstance(value, np.ndarray):
                attributes[key] = retyped(value)
            elif key in ELEMENT_TYPE_ATTRIBUTES and isinstance(value, int) and value:
                attributes[key] = _NUMBERS.get(types.get(element_type_name(value), ""), value)
        return replace(node, attributes=MappingProxyType(attributes))

    return replace(
        graph,
        inputs=tuple(replace(value, dtype=types.get(value.dtype, value.dtype)) for value in graph.inputs),
        outputs=tuple(replace(value, dtype=types.get(value.dtype, value.dtype)) for value in graph.outputs),
        nodes=tuple(map(adapted, nodes)),
        constants=MappingProxyType(
            {name: value if name in pinned else retyped(value) for name, value in graph.constants.items()}
        ),
    )


def _pinned(node: Node, opset: int) -> list[str]:
    """Return the inputs of a node that are float32 in every model: the scales of a Resize."""
    known = operator(node.op, opset)
    if known is None or not known.inputs:
        return []
    return [name for k, name in enumerate(node.inputs) if known.input(k).types == {"tensor(float)"}]


def _for_other_readers(node: Node, graph: Graph) -> Node:
    """Return the same node as onnx2torch reads it right.

    A Reshape goes without `allowzero` where its target has no 0: torch.onnx.export writes allowzero=1 into every one. A
    CumSum says whether it is reversed: onnx2torch 1.5.15 takes one that does not say so to be.
    """
    if node.op == "CumSum":
        return replace(node, attributes={"reverse": 0, **node.attributes})
    target = graph.constants.get(node.inputs[1]) if node.op == "Reshape" and len(node.inputs) > 1 else None
    if target is None or not np.all(target):
        return node
    attributes = {key: value for key, value in node.attributes.items() if key != "allowzero"}
    return replace(node, attributes=attributes)


def with_fresh_names(model: ModelProto) -> ModelProto:
    """Return a copy with names n0, n1, ... and t0, t1, ... once more, for after somebody else worked on it."""
    renamed = ModelProto()
    renamed.CopyFrom(model)
    graph = renamed.graph
    names: dict[str, str] = {"": ""}

    def rename(name: str) -> str:
        return names.setdefault(name, f"t{len(names) - 1}")

    for value in (*graph.input, *graph.initializer, *graph.output):
        value.name = rename(value.name)
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    del graph.value_info[:]
    return renamed


def _value_info(value: Value, name: str) -> onnx.ValueInfoProto:
    """Return the declaration with its symbols left out: they are strings of the file."""
    shape = None if value.shape is None else [size if isinstance(size, int) else None for size in value.shape]
    return helper.make_tensor_value_info(name, _element_type(value), shape)


def _element_type(value: Value) -> int:
    if value.dtype == "undefined":
        return TensorProto.UNDEFINED
    return helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
