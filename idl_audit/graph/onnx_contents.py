"""What stands in an ONNX file, as frozen values: inputs, outputs, constants, nodes with their subgraphs, functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

from idl_audit.graph.external_data import ExternalData
from idl_audit.graph.ir import Attribute, Body, Call, Dimension, Function, Node, Reference, Value, shown
from idl_audit.graph.tensors import dense_array, element_type_name, tensor_array
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import ModelFileError, UnsupportedModelError

DEFAULT_DOMAINS: Final = frozenset({"", "ai.onnx"})


@dataclass(frozen=True)
class Source:
    """The file that is being read, and the files beside it."""

    path: Path
    external: ExternalData
    outline: bool


@dataclass(frozen=True)
class Contents:
    """A model file, unchecked beyond its bytes."""

    inputs: tuple[Value, ...]
    """The declared inputs without the weights, which files of before 2019 declare as inputs too."""
    outputs: tuple[Value, ...]
    hints: tuple[Value, ...]
    """What the file says about values in between."""
    body: Body
    functions: Mapping[tuple[str, str, str], Function]


def read_contents(model: ModelProto, source: Source) -> Contents:
    """Return everything in the model; `Constant` nodes are constants, not nodes.

    Raises ModelFileError for what is damaged, and UnsupportedModelError, listing everything, for what is not read.
    """
    problems: list[str] = []
    body = _body(model.graph, source, problems)
    functions: dict[tuple[str, str, str], Function] = {}
    for proto in model.functions:
        function = _function(proto, source, problems)
        if function.key in functions:
            raise ModelFileError(
                f"{source.path}: two functions are called {shown(function.key[1])!r}; export the model again"
            )
        functions[function.key] = function
    if problems:
        raise UnsupportedModelError(problems)
    return Contents(
        tuple(map(_value, _true_inputs(model.graph))),
        tuple(map(_value, model.graph.output)),
        tuple(map(_value, model.graph.value_info)),
        body,
        MappingProxyType(functions),
    )


def declared_values(graph: GraphProto) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Return the inputs, without the weights, and the outputs that a graph declares."""
    return tuple(map(_value, _true_inputs(graph))), tuple(map(_value, graph.output))


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except UnsupportedModelError as error:
        problems.extend(error.problems)


def _true_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    weights = {tensor.name for tensor in graph.initializer} | {
        sparse.values.name for sparse in graph.sparse_initializer
    }
    return [value for value in graph.input if value.name not in weights]


def _body(graph: GraphProto, source: Source, problems: list[str]) -> Body:
    constants: dict[str, AnyArray] = {}

    def add(name: str, array: AnyArray) -> None:
        if name in constants:
            raise ModelFileError(f"{source.path}: two values are called {shown(name)!r}; export the model again")
        constants[name] = array

    for tensor in graph.initializer:
        with _collecting(problems):
            add(
                tensor.name,
                tensor_array(tensor, tensor.name, source.external, source.path, outline=source.outline),
            )
    for sparse in graph.sparse_initializer:
        with _collecting(problems):
            add(sparse.values.name, dense_array(sparse, sparse.values.name, source.external, source.path))
    nodes = _nodes(graph.node, constants, source, problems)
    inputs = [value.name for value in _true_inputs(graph)]
    return Body(tuple(inputs), tuple(value.name for value in graph.output), nodes, MappingProxyType(constants))


def _nodes(
    protos: Iterable[NodeProto], constants: dict[str, AnyArray], source: Source, problems: list[str]
) -> tuple[Node, ...]:
    """Return the nodes; the values of Constant nodes go into `constants`."""
    nodes = []
    for proto in protos:
        with _collecting(problems):
            node = _node(proto, source, problems)
            if node.op != "Constant" or isinstance(node, Call):
                nodes.append(node)
            elif any(isinstance(value, Reference) for value in node.attributes.values()):
                nodes.append(node)  # its value comes with the call of the function that it stands in
            else:
                value = constant_value(node)
                if node.outputs[0] in constants:
                    raise ModelFileError(
                        f"{source.path}: two values are called {shown(node.outputs[0])!r}; export the model again"
                    )
                constants[node.outputs[0]] = value
    return tuple(nodes)


def _function(proto: FunctionProto, source: Source, problems: list[str]) -> Function:
    constants: dict[str, AnyArray] = {}
    nodes = _nodes(proto.node, constants, source, problems)
    attributes: dict[str, Attribute | None] = dict.fromkeys(proto.attribute)
    for entry in proto.attribute_proto:
        with _collecting(problems):
            attributes[entry.name] = _attribute(entry, shown(proto.name), source, problems)
    versions = {entry.version for entry in proto.opset_import if entry.domain in DEFAULT_DOMAINS}
    if len(versions) > 1:
        raise ModelFileError(
            f"{source.path}: the function {shown(proto.name)!r} names two operator sets; export the model again"
        )
    body = Body(tuple(proto.input), tuple(proto.output), nodes, MappingProxyType(constants))
    key = (_domain(proto.domain), proto.name, proto.overload)
    return Function(key, body, MappingProxyType(attributes), int(versions.pop()) if versions else 0)


def _domain(name: str) -> str:
    return "" if name in DEFAULT_DOMAINS else name


def _value(info: ValueInfoProto) -> Value:
    """Return a declared value; one may lack its type, which is then 'undefined', or be no tensor at all."""
    kind = info.type.WhichOneof("value")
    if kind not in (None, "tensor_type"):
        return Value(info.name, None, str(kind).replace("_type", ""))
    tensor = info.type.tensor_type
    shape = tuple(map(_dimension, tensor.shape.dim)) if tensor.HasField("shape") else None
    return Value(info.name, shape, element_type_name(tensor.elem_type))


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> Dimension:
    """Return the size, the symbol, or None; exporters write -1 for a size they do not know."""
    if dimension.HasField("dim_value"):
        return dimension.dim_value if dimension.dim_value >= 0 else None
    return dimension.dim_param or None


def _node(proto: NodeProto, source: Source, problems: list[str]) -> Node:
    label = shown(proto.name or next((name for name in proto.output if name), "unnamed"))
    attributes: dict[str, Attribute] = {}
    for entry in proto.attribute:
        if entry.name in attributes:
            raise ModelFileError(f"{source.path}: {label} states an attribute twice; export the model again")
        attributes[entry.name] = _attribute(entry, label, source, problems)
    parts = (proto.op_type, proto.name, tuple(proto.input), tuple(proto.output), MappingProxyType(attributes))
    if proto.domain in DEFAULT_DOMAINS and not proto.overload:
        return Node(*parts)
    return Call(*parts, domain=_domain(proto.domain), overload=proto.overload)


def _attribute(entry: AttributeProto, label: str, source: Source, problems: list[str]) -> Attribute:
    """Return an attribute as a plain value."""
    if entry.ref_attr_name:
        return Reference(entry.ref_attr_name)
    where = f"{label}.{entry.name}"
    match entry.type:
        case AttributeProto.INT:
            return entry.i
        case AttributeProto.FLOAT:
            return entry.f
        case AttributeProto.STRING:
            return _text(entry.s)
        case AttributeProto.INTS:
            return tuple(entry.ints)
        case AttributeProto.FLOATS:
            return tuple(entry.floats)
        case AttributeProto.STRINGS:
            return tuple(map(_text, entry.strings))
        case AttributeProto.TENSOR:
            return tensor_array(entry.t, where, source.external, source.path)
        case AttributeProto.SPARSE_TENSOR:
            return dense_array(entry.sparse_tensor, where, source.external, source.path)
        case AttributeProto.GRAPH:
            return _body(entry.g, source, problems)
        case AttributeProto.TYPE_PROTO:
            return "type"  # of an Optional: its value tells as much
    raise UnsupportedModelError(
        [f"{label} has the attribute {shown(entry.name)} of a kind that is not read; export with plain attributes"]
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace")


_CONSTANT_TYPES: Final = MappingProxyType(
    {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_string": np.object_,
        "value_strings": np.object_,
    }
)


def constant_value(node: Node) -> AnyArray:
    """Return the value of a Constant node, read-only: a tensor, or numbers of the types that ONNX gives them."""
    ((key, value),) = node.attributes.items() if len(node.attributes) == len(node.outputs) == 1 else [("", 0)]
    if key in ("value", "sparse_value") and isinstance(value, np.ndarray):
        return value
    if key not in _CONSTANT_TYPES or isinstance(value, (Body, Reference)):
        raise UnsupportedModelError(
            [f"{shown(node.label)}: a Constant needs one value, not {shown(key) or 'another number'}; export it again"]
        )
    array: AnyArray = np.array(value, dtype=_CONSTANT_TYPES[key])
    array.setflags(write=False)
    return array
