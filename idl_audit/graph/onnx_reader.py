"""The door to onnx: a model file in, a Graph of frozen values out; what is not understood is refused by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs; it is part of onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

from idl_audit.arrays import AnyArray
from idl_audit.errors import ModelFileError, UnsupportedModelError
from idl_audit.graph.external_data import ExternalData
from idl_audit.graph.files import ReadFile, combined_sha256, open_model, stamp_of
from idl_audit.graph.folding import FOLD_LIMIT, fold_node
from idl_audit.graph.ir import Attribute, Dimension, Graph, Node, Provenance, Value, live_nodes, shown
from idl_audit.graph.onnx_checks import (
    DEFAULT_DOMAINS,
    check_names,
    label_of,
    model_problems,
    node_problems,
    true_inputs,
)
from idl_audit.graph.tensors import ELEMENT_TYPES, element_type_name, tensor_array

__all__ = ["FOLD_LIMIT", "OLDEST_OPSET", "fold_node", "read_onnx"]

OLDEST_OPSET: Final = 7
_MAX_PROTOBUF: Final = 2**31 - 1  # protobuf's own limit


@dataclass(frozen=True)
class _Source:
    """The file that is being read, and the files beside it."""

    path: Path
    external: ExternalData
    outline: bool


def read_onnx(path: Path, *, outline: bool = False) -> Graph:
    """Return the graph in an ONNX file, its weights as read-only arrays, without the nodes that no output needs.

    With `outline`, large weights are checked but not read, and stand as one repeated number: enough to tell shapes.

    External data is read from regular files below the model's folder only; nothing in the file is run.
    Raises ModelFileError for a file that is missing, damaged or unsafe, and UnsupportedModelError, listing everything,
    for a sound file with parts that are not read here (other domains, functions, subgraphs, strings, NaN weights).
    """
    path = Path(path)
    model, file = _read_model(path)
    opset = _opset(model, path)
    source = _Source(path, ExternalData(path), outline)
    problems = [*model_problems(model), *node_problems(model.graph)]
    if problems:
        raise UnsupportedModelError(problems)
    check_names(model.graph, path)
    inputs, outputs, nodes, constants = _contents(model.graph, source)
    nodes = live_nodes(nodes, [value.name for value in outputs])
    wanted = {name for node in nodes for name in node.inputs if name} | {value.name for value in outputs}
    external = source.external.files
    digests = tuple(one.sha256 for one in external.values())
    provenance = Provenance(
        path=path,
        format="onnx",
        sha256=combined_sha256(file.sha256, digests),
        opset=opset,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        external_files=tuple(external),
        external_sha256=digests,
        files=(file, *external.values()),
    )
    kept = {name: array for name, array in constants.items() if name in wanted}
    return Graph(inputs, outputs, nodes, MappingProxyType(kept), provenance)


def _read_model(path: Path) -> tuple[ModelProto, ReadFile]:
    """Return the parsed file, and the file with the SHA-256 of the very bytes that were parsed."""
    data, stamp = _read_bytes(path)
    return _parse(data, path), ReadFile(path, hashlib.sha256(data).hexdigest(), stamp)


def _read_bytes(path: Path) -> tuple[bytes, tuple[int, ...]]:
    with open_model(path) as file:
        status = os.fstat(file.fileno())
        size = status.st_size
        data = file.read(size) if size <= _MAX_PROTOBUF else b""
    if not size:
        raise ModelFileError(f"{path}: the file is empty; fetch or export the model again")
    if size > _MAX_PROTOBUF:
        raise ModelFileError(
            f"{path}: larger than 2 GiB, which no ONNX file can be; save the weights beside it "
            "(onnx.save(model, path, save_as_external_data=True))"
        )
    return data, stamp_of(status)


def _parse(data: bytes, path: Path) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelFileError(f"{path}: truncated, or no ONNX file at all; fetch or export the model again") from error
    if not model.HasField("graph") or not model.opset_import:
        missing = "graph" if not model.HasField("graph") else "operator set version"
        raise ModelFileError(f"{path}: there is no {missing} in this file; fetch or export the model again as ONNX")
    if model.ir_version > onnx.IR_VERSION:
        raise ModelFileError(
            f"{path}: ONNX file format {model.ir_version} is newer than {onnx.IR_VERSION}, the newest that "
            f"onnx {onnx.__version__} knows; upgrade onnx or export for an older version"
        )
    return model


def _opset(model: ModelProto, path: Path) -> int:
    versions = {entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS}
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1:
        found = " and ".join(map(str, sorted(versions))) or "none"
        raise ModelFileError(f"{path}: one version of ONNX's operator set is needed and {found} is given; export again")
    version = int(versions.pop())
    if not OLDEST_OPSET <= version <= newest:
        raise UnsupportedModelError(
            [
                f"{path}: operator set {version} is not read, {OLDEST_OPSET} to {newest} are; export the model with "
                "opset_version=17 or use onnx.version_converter"
            ]
        )
    return version


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except UnsupportedModelError as error:
        problems.extend(error.problems)


_Contents = tuple[tuple[Value, ...], tuple[Value, ...], tuple[Node, ...], dict[str, AnyArray]]


def _contents(graph: GraphProto, source: _Source) -> _Contents:
    """Return inputs, outputs, nodes and constants; `Constant` nodes are constants, not nodes."""
    problems: list[str] = []
    constants: dict[str, AnyArray] = {}
    nodes: list[Node] = []
    inputs = _values(true_inputs(graph), problems)
    outputs = _values(graph.output, problems)
    for tensor in graph.initializer:
        with _collecting(problems):
            constants[tensor.name] = tensor_array(
                tensor, tensor.name, source.external, source.path, outline=source.outline
            )
    for proto in graph.node:
        with _collecting(problems):
            node = _node(proto, source)
            if node.op == "Constant":
                value = _constant(node)
                constants[node.outputs[0]] = value
            else:
                nodes.append(node)
    if problems:
        raise UnsupportedModelError(problems)
    return inputs, outputs, tuple(nodes), constants


def _values(infos: Iterable[ValueInfoProto], problems: list[str]) -> tuple[Value, ...]:
    values = []
    for info in infos:
        with _collecting(problems):
            values.append(_value(info))
    return tuple(values)


def _value(info: ValueInfoProto) -> Value:
    """Return a declared input or output; outputs may lack their type, which is then 'undefined'."""
    kind = info.type.WhichOneof("value")
    number = info.type.tensor_type.elem_type
    if kind not in (None, "tensor_type") or (number and number not in ELEMENT_TYPES):
        found = element_type_name(number) if kind == "tensor_type" else str(kind).replace("_type", "")
        raise UnsupportedModelError(
            [f"{shown(info.name)}: inputs and outputs that hold {found} are not read; export with float tensors"]
        )
    tensor = info.type.tensor_type
    shape = tuple(map(_dimension, tensor.shape.dim)) if tensor.HasField("shape") else None
    return Value(info.name, shape, element_type_name(number))


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> Dimension:
    """Return the size, the symbol, or None; exporters write -1 for a size they do not know."""
    if dimension.HasField("dim_value"):
        return dimension.dim_value if dimension.dim_value >= 0 else None
    return dimension.dim_param or None


def _node(proto: NodeProto, source: _Source) -> Node:
    attributes = {entry.name: _attribute(entry, label_of(proto), source) for entry in proto.attribute}
    if len(attributes) != len(proto.attribute):
        raise ModelFileError(f"{source.path}: {label_of(proto)} states an attribute twice; export the model again")
    return Node(proto.op_type, proto.name, tuple(proto.input), tuple(proto.output), MappingProxyType(attributes))


def _attribute(entry: AttributeProto, label: str, source: _Source) -> Attribute:
    """Return an attribute as a plain value; `node_problems` has refused every kind that is not named here."""
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
        case _:
            return tensor_array(entry.t, f"{label}.{entry.name}", source.external, source.path)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace")


def _constant(node: Node) -> AnyArray:
    """Return the value of a Constant node, read-only: a tensor, or numbers of the two types that ONNX gives them."""
    ((key, value),) = node.attributes.items() if len(node.attributes) == len(node.outputs) == 1 else [("", 0)]
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if key == "value" and isinstance(value, np.ndarray):
        return value
    if key not in types:
        raise UnsupportedModelError(
            [f"{shown(node.label)}: a Constant needs one value of numbers and has {shown(key) or 'another number'}"]
        )
    array = np.array(value, dtype=types[key])
    if not np.isfinite(array).all():
        raise UnsupportedModelError([f"{shown(node.label)}: the Constant is NaN or infinity; export the model again"])
    array.setflags(write=False)
    return array
