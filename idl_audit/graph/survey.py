"""One walk over a graph before anything is computed: every node is checked, and every size told.

The walk knows of each tensor its type, its shape for one sample, whether it depends on the network's input and, where
it is a small constant, its value. So it sees shapes that are computed from constants and refuses a tensor of 2^40
elements before anybody allocates it; and it sees conditions that are fixed, so that control flow becomes plain nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.control_flow import Course, run_body
from idl_audit.graph.folding import evaluate_node
from idl_audit.graph.functions import Names
from idl_audit.graph.inference import (
    TensorType,
    declared_type,
    element_of,
    estimated_bytes,
    float_type,
    is_tensor,
    known_shape,
    n_bytes,
    output_types,
    rank_of,
    schema_type,
    type_of,
)
from idl_audit.graph.ir import Body, Node, Refused, Value, live_nodes, shown
from idl_audit.graph.onnx_contents import Contents
from idl_audit.graph.schemas import named, rank_faults, type_faults
from idl_audit.graph.tensors import LARGEST_TENSOR, NARROW
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

_SMALL: Final = 2**12
"""Constants of up to so many elements are computed on the way: shapes, indices, conditions."""

_COARSENESS: Final[Mapping[str, int]] = MappingProxyType({"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3})
"""The types of floats that networks compute with, from the finest to the coarsest."""


@dataclass(frozen=True)
class Kind:
    """What is known of one tensor."""

    type: TensorType | None
    value: AnyArray | None = None
    depends: bool = False
    """Whether the network's input has a part in it."""
    exact: bool = True
    """Whether every runtime gives it this shape, so that it may decide something."""
    empty: bool = False
    """Whether it is an optional value with nothing in it."""


_UNKNOWN: Final = Kind(None, exact=False)
_EMPTY: Final = Kind(None, empty=True)


@dataclass(frozen=True)
class Surveyed:
    """The graph in plain nodes."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, AnyArray]
    arithmetic: str
    """The coarsest type of float among the tensors that depend on the input; '' where none is a float."""
    problems: tuple[str, ...]
    may_run: bool = True
    """As `Graph.may_run`, where a file is read; nothing that the walk finds is anything else than a fault."""


def survey(
    contents: Contents, nodes: Sequence[Node], constants: Mapping[str, AnyArray], opset: int, names: Names
) -> Surveyed:
    """Walk over a graph without calls, whose nodes have no `node_faults`.

    Args:
        contents: the file that the graph is of; its outputs are asked for.
        nodes: the graph's nodes in topological order; those that no output needs are checked, and left out.
        constants: the graph's constants.
        opset: version of the default operator set.
        names: the names that are taken.
    """
    body = contents.body
    walk = _Walk(opset, names, _float_shapes((*contents.hints, *contents.outputs)))
    for value in contents.inputs:
        walk.kinds[value.name] = Kind(declared_type(value), depends=True)
    walk.add(constants)
    live = {id(node) for node in live_nodes(nodes, body.outputs)}
    for node in nodes:
        walk.visit(node, wanted=id(node) in live)
    kept = live_nodes(walk.nodes, body.outputs)
    used = {name for node in kept for name in node.inputs} | set(body.outputs)
    return Surveyed(
        kept,
        MappingProxyType({name: value for name, value in walk.constants.items() if name in used}),
        walk.arithmetic(used),
        tuple(dict.fromkeys(walk.problems)),
    )


class _Walk:
    """The state of the walk."""

    def __init__(self, opset: int, names: Names, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.kinds: dict[str, Kind] = {}
        self.constants: dict[str, AnyArray] = {}
        self.nodes: list[Node] = []
        self.problems: list[str] = []
        self._opset = opset
        self._names = names
        self._shapes = shapes
        self._course = Course(
            opset, names, self._take_over, self._value, lambda name: self._kind(name).depends, self._exact_shape
        )

    def add(self, constants: Mapping[str, AnyArray]) -> None:
        """Add constants by name."""
        for name, value in constants.items():
            self.constants[name] = value
            self.kinds[name] = Kind(type_of(value), value)

    def visit(self, node: Node, *, wanted: bool) -> None:
        """Go through one node of the graph; one that is not wanted is checked alone, one that is not read passed by."""
        if isinstance(node, Refused):
            self._pass_by(node, wanted=wanted)
            return
        try:
            self._follow(node, wanted=wanted)
        except UnsupportedModelError as error:
            self.problems.extend(error.problems)
            self._pass_by(node, wanted=wanted)

    def _pass_by(self, node: Node, *, wanted: bool) -> None:
        """Go on behind a node that is not read: the file may say what it makes."""
        refused = Refused.instead_of(node, self._shapes)
        for name, shape in zip(refused.outputs, refused.shapes, strict=True):
            kind = None if shape is None else float_type(shape)
            self.kinds[name] = Kind(kind, depends=True, exact=False)
        if wanted:
            self.nodes.append(refused)

    def _follow(self, node: Node, *, wanted: bool) -> None:
        if node.bodies:
            self._enter(node, wanted=wanted)
        elif node.op == "OptionalHasElement":
            self._ask(node, wanted=wanted)
        elif node.op == "Optional" and not any(node.inputs):
            self.kinds[node.outputs[0]] = _EMPTY
        elif any(self._kind(name).empty for name in node.inputs):
            self._hand_on_empty(node, wanted=wanted)
        else:
            self._plain(_without_optional(node), wanted=wanted)

    def _ask(self, node: Node, *, wanted: bool) -> None:
        """Answer whether an optional value has something in it; what a body is given may have it or not."""
        given = [self._kind(name) for name in node.inputs if name]
        answer = np.array(any(not kind.empty for kind in given))
        if wanted:
            self.add({node.outputs[0]: answer})
        else:
            known = _UNKNOWN not in given
            self.kinds[node.outputs[0]] = Kind(type_of(answer), answer if known else None)

    def _hand_on_empty(self, node: Node, *, wanted: bool) -> None:
        """Follow a node that reads an empty optional value: only an Identity may, which makes another."""
        if node.op != "Identity" and wanted:
            raise UnsupportedModelError(
                [f"{named(node)} reads an optional value that has nothing in it; export the model with a value there"]
            )
        self.kinds.update(dict.fromkeys(node.outputs, _EMPTY if node.op == "Identity" else _UNKNOWN))

    def _enter(self, node: Node, *, wanted: bool) -> None:
        """Follow control flow where it is wanted, and look at its bodies in any case."""
        for body in node.bodies:
            self._look_inside(body)
        if wanted:
            run_body(node, self._course)

    def _look_inside(self, body: Body) -> None:
        """Check the nodes of a body that may not run: any of its inputs may be anything.

        Its names hide those outside, and mean nothing there afterwards.
        """
        outside, problems = self.kinds, self.problems
        self.kinds, self.problems = dict(outside), []
        self.kinds.update(dict.fromkeys(body.own, _UNKNOWN))
        self.kinds.update({name: Kind(type_of(value), value) for name, value in body.constants.items()})
        for node in body.nodes:
            self.visit(node, wanted=False)
        found = self.problems
        self.kinds, self.problems = outside, problems
        self.problems.extend(found)

    def _take_over(self, nodes: Sequence[Node], constants: Mapping[str, AnyArray]) -> None:
        self.add(constants)
        for node in nodes:
            self.visit(node, wanted=True)

    def _kind(self, name: str) -> Kind:
        return self.kinds.get(name, _UNKNOWN)

    def _value(self, name: str) -> AnyArray | None:
        return self._kind(name).value

    def _exact_shape(self, name: str) -> tuple[int, ...] | None:
        kind = self._kind(name)
        return known_shape(kind.type) if kind.exact else None

    def _plain(self, node: Node, *, wanted: bool) -> None:
        given = [self._kind(name) if name else None for name in node.inputs]
        types = [None if kind is None else kind.type for kind in given]
        faults = [*type_faults(node, [schema_type(kind) for kind in types], self._opset)]
        faults += rank_faults(node, [rank_of(kind) for kind in types])
        if faults:
            raise UnsupportedModelError(faults)
        made = self._made(node, given)
        # a Split may leave a part empty, and what is done to that part changes nothing of the others
        full = wanted and node.op != "Split" and not any(map(_is_empty_part, given))
        for name, kind in zip(node.outputs, made, strict=True):
            if name:
                self._check_size(node, kind, full=full)
                self.kinds[name] = kind
        if wanted:
            self._keep(node, given, made)
        else:
            _check_told(node, given, made)

    def _made(self, node: Node, given: Sequence[Kind | None]) -> list[Kind]:
        """Return what is known of the node's outputs."""
        present = [kind for kind in given if kind is not None]
        depends = any(kind.depends for kind in present) and node.op not in ("Shape", "Size")
        exact = all(kind.exact for kind in present) and not _is_disputed(node, self._opset)
        values = [None if kind is None else kind.value for kind in given]
        types: list[TensorType | None] = [None] * len(node.outputs)
        if all(kind.type is not None for kind in present):
            try:
                types = output_types(node, [None if kind is None else kind.type for kind in given], values, self._opset)
            except Exception:  # whatever onnx says of a node that contradicts itself, its lowering says better
                exact = False
        kinds = [Kind(kind, depends=depends, exact=exact) for kind in types]
        found = self._computed(node, given, kinds)
        return [replace(kind, value=value) for kind, value in zip(kinds, found, strict=True)]

    def _computed(self, node: Node, given: Sequence[Kind | None], made: Sequence[Kind]) -> Sequence[AnyArray | None]:
        """Return the values of the outputs, where they are small constants, or shapes."""
        nothing = [None] * len(made)
        if node.op in ("Shape", "Size") and given and given[0] is not None:
            shape = known_shape(given[0].type) if given[0].exact else None
            return nothing if shape is None else [_shape_value(node, shape)]
        if any(kind is not None and (kind.value is None or kind.value.dtype == object) for kind in given):
            return nothing
        values = [None if kind is None else kind.value for kind in given]
        sizes = [0 if value is None else value.size for value in values]
        types = [None if kind is None else kind.type for kind in given]
        estimate = estimated_bytes(node, types, [kind.type for kind in made])
        if sum(sizes) > _SMALL or estimate is None or estimate > 64 * _SMALL:
            return nothing
        try:
            return evaluate_node(node, values, self._opset)
        except UnsupportedModelError:  # said where the value is needed
            return nothing

    def _check_size(self, node: Node, kind: Kind, *, full: bool) -> None:
        size = None if kind.type is None else n_bytes(kind.type)
        shape = known_shape(kind.type)
        if size is not None and size > LARGEST_TENSOR:
            raise UnsupportedModelError(
                [
                    f"{named(node)} would make {size / 2**30:.1f} GiB, a tensor of shape "
                    f"{shown(str(list(shape or ())))}, where {LARGEST_TENSOR / 2**30:.1f} GiB are allowed; export the "
                    "model with smaller shapes"
                ]
            )
        if full and kind.depends and kind.exact and shape is not None and 0 in shape:
            raise UnsupportedModelError(
                [
                    f"{named(node)} makes an empty tensor, of shape {shown(str(list(shape)))}, from the network's "
                    "input; export the model with sizes above 0"
                ]
            )

    def _keep(self, node: Node, given: Sequence[Kind | None], made: Sequence[Kind]) -> None:
        """Write the node down; one that computes with narrow types from constants is evaluated at once.

        What such types round and clip is lost where they are widened.
        """
        narrow = NARROW & {element_of(kind.type) for kind in (*given, *made) if kind is not None}
        if narrow and any(kind.depends for kind in made):
            raise UnsupportedModelError(
                [
                    f"{named(node)} turns the network's own numbers into {min(narrow)}, which jumps, so that nothing "
                    "can be certified behind it; export the model with floats of 16 bits or more"
                ]
            )
        if narrow:
            values = [self.constants.get(name) if name else None for name in node.inputs]
            if all(value is not None or not name for name, value in zip(node.inputs, values, strict=True)):
                results = evaluate_node(node, values, self._opset)
                self.add({name: value for name, value in zip(node.outputs, results, strict=True) if name})
                return
            raise UnsupportedModelError(
                [f"{named(node)} computes with {min(narrow)} what is not known beforehand; export the model without"]
            )
        self.nodes.append(node)

    def arithmetic(self, used: set[str]) -> str:
        """Return the coarsest type of float among tensors that depend on the input."""
        found = {element_of(self.kinds[name].type) for name in used if name in self.kinds and self.kinds[name].depends}
        return max(found & set(_COARSENESS), key=lambda name: _COARSENESS[name], default="")


def _float_shapes(values: Sequence[Value]) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes for one sample that the file states of tensors of floats."""
    found = {}
    for value in values:
        shape = known_shape(declared_type(value)) if value.dtype in _COARSENESS else None
        if shape is not None:
            found[value.name] = shape
    return found


def _without_optional(node: Node) -> Node:
    """Return an Identity in place of what only wraps a value, or takes it out again."""
    if node.op in ("Optional", "OptionalGetElement") and any(node.inputs):
        return replace(node, op="Identity", attributes=MappingProxyType({}))
    return node


def _check_told(node: Node, given: Sequence[Kind | None], made: Sequence[Kind]) -> None:
    """Refuse a node of constants that no output needs, where nobody can say how much it makes.

    Where it is needed, folding says so.
    """
    types = [None if kind is None else kind.type for kind in given]
    constant = all(kind is None or (not kind.depends and known_shape(kind.type) is not None) for kind in given)
    open_ended = made and is_tensor(made[0].type) and made[0].value is None
    if constant and open_ended and estimated_bytes(node, types, [kind.type for kind in made]) is None:
        raise UnsupportedModelError(
            [f"{named(node)}: the size of what it makes cannot be told beforehand; export the model without it"]
        )


def _is_disputed(node: Node, opset: int) -> bool:
    """Return whether onnx's shapes of a node may not be a runtime's: pooling that rounds up, before version 22."""
    return opset < 22 and bool(node.attributes.get("ceil_mode"))


def _is_empty_part(kind: Kind | None) -> bool:
    shape = None if kind is None or not (kind.exact and kind.depends) else known_shape(kind.type)
    return shape is not None and 0 in shape


def _shape_value(node: Node, shape: tuple[int, ...]) -> AnyArray:
    """Return what a Shape or Size node says."""
    if node.op == "Size":
        return np.array(math.prod(shape), np.int64)
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start if isinstance(start, int) else 0 : end if isinstance(end, int) else None], np.int64)
