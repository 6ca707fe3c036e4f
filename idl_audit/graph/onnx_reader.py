"""The door to onnx: a model file in, a Graph of frozen values out; what is not understood is refused by name."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs; it is part of onnx
from onnx import ModelProto, TensorProto

from idl_audit.graph.classical import Translated, without_classical
from idl_audit.graph.external_data import ExternalData
from idl_audit.graph.files import ReadFile, combined_sha256, open_model, stamp_of
from idl_audit.graph.folding import FOLD_LIMIT, fold_node
from idl_audit.graph.functions import Names, without_calls
from idl_audit.graph.inputs import AS_IT_IS, InputChoice, fixed_values, with_choice
from idl_audit.graph.ir import Call, Graph, Node, Provenance, Refused, Value, shown
from idl_audit.graph.names import check_names
from idl_audit.graph.onnx_contents import DEFAULT_DOMAINS, Contents, Source, declared_values, read_contents
from idl_audit.graph.schemas import node_faults
from idl_audit.graph.survey import Surveyed, survey
from idl_audit.graph.tensors import ELEMENT_TYPES, LARGEST_TENSOR, tensor_array, widened
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import ModelFileError, UnsupportedModelError

__all__ = ["FOLD_LIMIT", "OLDEST_OPSET", "fold_node", "read_interface", "read_onnx"]

OLDEST_OPSET: Final = 7
_MAX_PROTOBUF: Final = 2**31 - 1  # protobuf's own limit


def read_onnx(
    path: Path,
    *,
    outline: bool = False,
    chosen: InputChoice = AS_IT_IS,
    whole: bool = True,
    hidden: Sequence[str] = (),
    overridable: bool = False,
) -> Graph:
    """Return the graph in an ONNX file, its weights as read-only arrays, without the nodes that no output needs.

    The model's own functions, and control flow whose course is fixed, stand as plain nodes in it. With `outline`, large
    weights are checked but not read, and stand as one repeated number: enough to tell shapes. Inputs that are `chosen`
    to be fixed are constants. Tensors named as `hidden` are outputs as well. Unless it must be `whole`, nodes that are
    not read stand as `Refused` ones in the graph, and what is wrong with them as its `problems`. With `overridable`,
    inputs that have an initializer are inputs, too, as from format 4 on it is no more than their usual value.

    External data is read from regular files below the model's folder only; nothing in the file is run.
    Raises ModelFileError for a file that is missing, damaged or unsafe, and UnsupportedModelError, listing everything,
    for a sound file with parts that are not read here (other domains, open control flow, text, NaN weights).
    """
    path = Path(path)
    model, file = read_model(path)
    if overridable:
        _pop_defaults(model)
    opset = _opset(model, path)
    source = Source(path, ExternalData(path), outline)
    contents = _with_hidden(read_contents(model, source), hidden, path)
    check_names(contents.body, contents.functions.values(), path)
    fixed = fixed_values(contents.inputs, chosen.fixed, path)
    translated = without_classical(_with_fixed(contents, fixed))
    surveyed = _surveyed(translated, opset)
    if whole and surveyed.problems:
        raise UnsupportedModelError(surveyed.problems)
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
    graph = Graph(
        tuple(value for value in contents.inputs if value.name not in fixed),
        translated.contents.outputs,
        tuple(map(_with_wide_attributes, surveyed.nodes)),
        MappingProxyType({**{name: widened(value) for name, value in surveyed.constants.items()}, **fixed}),
        provenance,
        surveyed.arithmetic or "float32",
        tuple(value for value in contents.inputs if value.name in fixed),
        maps=translated.maps,
        problems=surveyed.problems,
        may_run=surveyed.may_run,
    )
    return with_choice(graph, chosen.names, path)


OVERRIDABLE: Final = 4
"""The version of the file format from which on an input may have an initializer as its usual value."""


def usual_values(path: Path) -> Mapping[str, AnyArray]:
    """Return the values that initializers give to inputs which may have others, by name.

    Raises ModelFileError for a file that is missing or damaged, UnsupportedModelError for a value that is not read.
    """
    model, _ = read_model(path)
    external = ExternalData(path)
    return {tensor.name: tensor_array(tensor, tensor.name, external, path) for tensor in _pop_defaults(model)}


def _pop_defaults(model: ModelProto) -> list[TensorProto]:
    """Take the initializers of inputs out of a model and return them."""
    inputs = {value.name for value in model.graph.input} if model.ir_version >= OVERRIDABLE else set()
    found = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    left = [tensor for tensor in model.graph.initializer if tensor.name not in inputs]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    return found


def _with_hidden(contents: Contents, hidden: Sequence[str], path: Path) -> Contents:
    """Return the contents with these tensors as further outputs. Raises ModelFileError where there is no such one."""
    known = {value.name: value for value in (*contents.hints, *contents.inputs, *contents.outputs)}
    made = {*contents.body.inputs, *contents.body.constants, *(n for node in contents.body.nodes for n in node.outputs)}
    for name in hidden:
        if name not in made:
            raise ModelFileError(
                f"{path}: there is no tensor {shown(name)!r}; name the output of a node, as the file calls it"
            )
    more = [name for name in dict.fromkeys(hidden) if name not in contents.body.outputs]
    return replace(
        contents,
        outputs=(*contents.outputs, *(known.get(name, Value(name, None, "undefined")) for name in more)),
        body=replace(contents.body, outputs=(*contents.body.outputs, *more)),
    )


def read_interface(path: Path) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Return the inputs, without the weights, and the outputs that an ONNX file declares; its nodes are not looked at.

    Raises ModelFileError for a file that is missing or damaged.
    """
    model, _ = read_model(path)
    return declared_values(model.graph)


def _with_fixed(contents: Contents, fixed: Mapping[str, AnyArray]) -> Contents:
    """Return the contents with these inputs as constants."""
    body = replace(
        contents.body,
        inputs=tuple(name for name in contents.body.inputs if name not in fixed),
        constants=MappingProxyType({**contents.body.constants, **fixed}),
    )
    inputs = tuple(value for value in contents.inputs if value.name not in fixed)
    return replace(contents, inputs=inputs, body=body)


def _surveyed(translated: Translated, opset: int) -> Surveyed:
    """Return the graph in plain nodes; nothing but onnx's schemas is asked of a node before it keeps to its own.

    Nodes that do not are `Refused` ones, and the walk goes on behind them.
    """
    contents = translated.contents
    own = list(_function_faults(contents, opset))
    names = Names.of(contents.body)
    plain = without_calls(contents.body, contents.functions, opset, names)
    nodes, faults = _sound(plain.nodes, opset)
    found = survey(contents, nodes, {**contents.body.constants, **plain.constants}, opset, names)
    problems = [
        *_declared_faults(contents),
        *own,
        *(fault for fault in faults if not own),  # those of a function are its own, in every call
        *_node_faults(contents.body.nodes, opset),
        *translated.problems,
        *plain.problems,
        *found.problems,
        *_input_faults(contents.inputs, found),
        *_value_faults(found.constants),
    ]
    return replace(
        found,
        problems=tuple(dict.fromkeys(problems)),
        constants=_without_faults(found.constants),
        may_run=set(problems) <= {*translated.problems, *plain.classical},
    )


def _sound(nodes: Iterable[Node], opset: int) -> tuple[list[Node], list[str]]:
    """Return the nodes with `Refused` ones in the place of those that are not what ONNX declares, and the faults."""
    sound: list[Node] = []
    problems: list[str] = []
    for node in nodes:
        faults = [] if isinstance(node, Refused) else list(_node_faults([node], opset))
        problems += faults
        sound.append(Refused.instead_of(node) if faults else node)
    return sound, problems


def _function_faults(contents: Contents, opset: int) -> Iterator[str]:
    for function in contents.functions.values():
        if not function.key[0]:
            yield f"function {shown(function.key[1])}: it is in ONNX's own domain; name another for the model's own"
        yield from _node_faults(function.body.nodes, function.opset or opset)


def _node_faults(nodes: Iterable[Node], opset: int) -> Iterator[str]:
    """Yield what is wrong with nodes by themselves, subgraphs included; calls of functions are looked up later."""
    for node in nodes:
        if not isinstance(node, Call | Refused):
            yield from node_faults(node, opset)
        for body in node.bodies:
            yield from _node_faults(body.nodes, opset)


def _declared_faults(contents: Contents) -> Iterator[str]:
    """Yield what is wrong with shapes that the file states: no size may be 0, nor all together too much."""
    for value in (*contents.inputs, *contents.outputs, *contents.hints):
        sizes = [size for size in value.shape or () if isinstance(size, int)]
        if math.prod(sizes) * 4 > LARGEST_TENSOR:
            yield (
                f"{shown(value.name)}: its shape {_shape_text(value)} is beyond the {LARGEST_TENSOR / 2**30:g} GiB "
                "that are allowed; export the model with smaller shapes"
            )
    for value in (*contents.inputs, *contents.outputs):
        if 0 in (value.shape or ()):
            yield f"{shown(value.name)}: its shape {_shape_text(value)} is empty; export the model with sizes above 0"


def _shape_text(value: Value) -> str:
    return shown("[" + ", ".join("?" if size is None else str(size) for size in value.shape or ()) + "]")


def _input_faults(inputs: Iterable[Value], surveyed: Surveyed) -> Iterator[str]:
    """Yield what is wrong with inputs that the outputs depend on."""
    read = {name for node in surveyed.nodes for name in node.inputs}
    numbers = {kind.name for kind in ELEMENT_TYPES.values()}
    for value in inputs:
        if value.name in read and value.dtype not in numbers:
            yield f"{shown(value.name)}: an input that holds {value.dtype} is not read; export with float tensors"


def _value_faults(constants: Mapping[str, AnyArray]) -> Iterator[str]:
    for name, value in constants.items():
        if value.dtype == object:
            yield f"tensor {shown(name)} holds text, and only numbers are read; export the model in float32"
        elif (value.dtype.kind in "fV") and np.isnan(value).any():
            yield f"tensor {shown(name)} contains NaN; train or export the model again"


def _without_faults(constants: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
    """Return the constants without text, and with zeros for what is no number: it was told, and the walk goes on."""
    return MappingProxyType(
        {
            name: np.zeros_like(value) if value.dtype.kind in "fV" and np.isnan(value).any() else value
            for name, value in constants.items()
            if value.dtype != object
        }
    )


def _with_wide_attributes(node: Node) -> Node:
    """Return the node with tensors among its attributes widened, as all weights are."""
    if not any(isinstance(value, np.ndarray) for value in node.attributes.values()):
        return node
    attributes = {
        key: widened(value) if isinstance(value, np.ndarray) else value for key, value in node.attributes.items()
    }
    return replace(node, attributes=MappingProxyType(attributes))


def read_model(path: Path) -> tuple[ModelProto, ReadFile]:
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
