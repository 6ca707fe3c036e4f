"""The networks of a VNN-LIB 2 query: its declarations and the model files that stand for them.

What does not fit is an error of the query or of the command, never an answer: too few or too many files, other numbers
of inputs or outputs, other shapes or element types, and element types in which nothing is proved here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.shared.subject import named
from idl_audit.data.vnnlib2.arithmetic import ARITHMETICS, OF_INPUTS
from idl_audit.data.vnnlib2.syntax import REAL, Network, Specification, Variable
from idl_audit.graph.inputs import shape_text
from idl_audit.graph.ir import Graph, Value, live_nodes, shown
from idl_audit.graph.onnx_reader import read_onnx, usual_values
from idl_audit.graph.original import Tensors, onnxruntime_tensors
from idl_audit.graph.reader import ADVICE, sniff
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import DataError, ModelFileError, OptionError

FLOATS: Final = frozenset({"float32", "float64"})
"""Types of the tensors that a `real` query may be about."""


@dataclass(frozen=True, eq=False)
class OpenNetwork:
    """One network of a query with its file."""

    declared: Network
    path: Path
    graph: Graph
    tensors: Tensors
    names: Mapping[str, str]
    """Variable -> tensor in the file."""
    initialized: Mapping[str, AnyArray] = field(default_factory=dict)
    """Input variable that is declared to have the value of its initializer -> that value."""

    def run(self, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Return the values of hidden and output variables for those of the input variables.

        Raises:
            UnsupportedModelError: where it cannot be run.
            DataError: where it gives other shapes than are declared.
        """
        given = {
            self.names[variable.name]: np.asarray(inputs[variable.name], self._type(variable)).reshape(variable.shape)
            for variable in self.declared.inputs
        }
        wanted = (*self.declared.hidden, *self.declared.outputs)
        found = self.tensors.run([self.names[variable.name] for variable in wanted], given)
        for variable, array in zip(wanted, found, strict=True):
            if array.shape != variable.shape:
                raise DataError(
                    f"{shown(variable.name)} is declared with the shape {shape_text(variable.shape)}, and {self.path} "
                    f"makes it with {shape_text(array.shape)}"
                )
        return {variable.name: array for variable, array in zip(wanted, found, strict=True)}

    def _type(self, variable: Variable) -> str:
        return self.tensors.input_types[self.names[variable.name]]


def check_types(query: Specification) -> None:
    """Refuse element types in which nothing is proved here.

    Raises:
        DataError: with the first variable of such a type.
    """
    for variable in query.variables:
        known = OF_INPUTS if variable.kind == "input" else tuple(ARITHMETICS)
        if variable.element not in known:
            raise DataError(
                f"{query.source}: idl-audit is not sound for the declared type {shown(variable.element)} of "
                f"{shown(variable.name)}: bounds hold for {', '.join(known)} there; declare all variables as real to "
                "ask about exact arithmetic"
            )


def open_networks(query: Specification, files: Mapping[str, Path], *, threads: int = 1) -> tuple[OpenNetwork, ...]:
    """Return the networks of a query, in its order, each with its file; of those that are equal there is one file.

    Raises:
        OptionError: where a network has no file, or a file no network.
        DataError: where a declaration does not fit its file, or nothing is proved in its types.
        ModelFileError: where a file cannot be read, or is no ONNX file.
        UnsupportedModelError: where onnxruntime refuses a file.
    """
    _check_names(query, files)
    check_types(query)
    own = {network.name: network for network in query.networks}
    opened = []
    for network in query.networks:
        path = files[network.other if network.relation == "equal-to" and network.other else network.name]
        opened.append(_opened(query, network, path, threads))
    for one in opened:
        one.run({variable.name: np.zeros(variable.shape) for variable in one.declared.inputs})
        if one.declared.relation is not None:
            _check_related(query, one, own[one.declared.other or ""], opened)
    return tuple(opened)


def _check_names(query: Specification, files: Mapping[str, Path]) -> None:
    needed = [network.name for network in query.networks if network.relation != "equal-to"]
    missing = [name for name in needed if name not in files]
    if missing:
        raise OptionError(f"{query.source} declares {', '.join(missing)}, and no model was given: --network NAME=FILE")
    for name in files:
        if name not in needed:
            why = "is equal to another one, whose file it has" if _is_declared(query, name) else "is not declared"
            raise OptionError(f"--network {shown(name)}: in {query.source} this network {why}; leave it out")


def _is_declared(query: Specification, name: str) -> bool:
    return any(network.name == name for network in query.networks)


def _opened(query: Specification, network: Network, path: Path, threads: int) -> OpenNetwork:
    kind = sniff(path)
    if kind != "onnx":
        raise ModelFileError(f"{path}: this is {ADVICE.get(kind, f'of the kind {kind}')}; VNN-LIB is about ONNX files")
    hidden = [variable.onnx_name or "" for variable in network.hidden]
    graph = named(path, lambda: read_onnx(path, whole=False, hidden=hidden, overridable=True))
    tensors = onnxruntime_tensors(path, hidden=hidden, threads=threads)
    outputs = tuple(value for value in graph.outputs if value.name in tensors.outputs)
    for noun, has, wants in (("input", graph.inputs, network.inputs), ("output", outputs, network.outputs)):
        if len(has) != len(wants):
            listed = ", ".join(shown(value.name) for value in has)
            raise DataError(
                f"{query.source}: {network.name} declares {len(wants)} {noun}s, and {path} has {len(has)} ({listed}); "
                "all of them must be declared, in the model's order"
            )
    names = {
        **{variable.name: value.name for variable, value in zip(network.inputs, graph.inputs, strict=True)},
        **{variable.name: variable.onnx_name or "" for variable in network.hidden},
        **{variable.name: value.name for variable, value in zip(network.outputs, outputs, strict=True)},
    }
    found = OpenNetwork(network, path, graph, tensors, names, _usual_values(query, network, path, names))
    declared = {value.name: value for value in (*graph.inputs, *outputs)}
    for variable in network.variables:
        _check_fit(query, found, variable, declared.get(names[variable.name]))
    return found


def _usual_values(
    query: Specification, network: Network, path: Path, names: Mapping[str, str]
) -> Mapping[str, AnyArray]:
    """Return the values of the inputs that are declared as initialized. Raises DataError where the file has none."""
    initialized = [variable.name for variable in network.inputs if variable.initialized]
    known = usual_values(path) if initialized else {}
    for name in initialized:
        if names[name] not in known:
            raise DataError(
                f"{query.source}: {shown(name)} is declared as initialized, and {path} has no initializer for its "
                f"input {shown(names[name])}"
            )
    return {name: known[names[name]] for name in initialized}


def _check_fit(query: Specification, network: OpenNetwork, variable: Variable, value: Value | None) -> None:
    """Compare a declaration with the file. Raises DataError."""
    name = network.names[variable.name]
    has = network.tensors.input_types.get(name) if variable.kind == "input" else network.tensors.types.get(name)
    what = f"{query.source}: {shown(variable.name)} is declared as {shown(variable.element)}"
    if variable.element == REAL:
        if variable.kind == "input" and has not in FLOATS:
            raise DataError(f"{what}, and {network.path} reads {has} there, of which no real number is one")
    elif has != variable.element:
        raise DataError(f"{what}, and in {network.path} it holds {has}; declare that type, or all variables as real")
    sizes = None if value is None else value.shape
    if sizes is None:
        return
    fits = len(sizes) == len(variable.shape) and all(
        not isinstance(size, int) or size == given for size, given in zip(sizes, variable.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"{query.source}: {shown(variable.name)} is declared with the shape {shape_text(variable.shape)}, and "
            f"in {network.path} it has {shape_text(sizes)}"
        )


def _check_related(query: Specification, network: OpenNetwork, other: Network, opened: Sequence[OpenNetwork]) -> None:
    """Compare a network with the one that it is equal or isomorphic to. Raises DataError."""
    same = next(one for one in opened if one.declared.name == other.name)
    relation = f"{query.source}: {network.declared.name} is said to be {network.declared.relation} {other.name}"
    if list(_structure(network)) != list(_structure(same)):
        raise DataError(f"{relation}, and {network.path} has other operators than {same.path}")


def _structure(network: OpenNetwork) -> Iterator[tuple[object, ...]]:
    """Yield each node by what it does and where its inputs come from.

    A graph has the nodes that its hidden variables need as well, which may differ: those of the outputs count.
    """
    numbers = {value.name: k for k, value in enumerate(network.graph.inputs)}
    for node in live_nodes(network.graph.nodes, [network.names[one.name] for one in network.declared.outputs]):
        for name in node.outputs:
            numbers[name] = len(numbers)
        yield node.op, tuple(numbers.get(name, -1) for name in node.inputs)
