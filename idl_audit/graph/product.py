"""Several networks as one graph: copies side by side that read one input vector, and expressions over their tensors.

Each network, with all of its names prefixed, reads entries of one vector: the same entry wherever inputs are tied. The
graph's one output is a vector of what is asked for: entries of tensors (inputs, hidden tensors, outputs), and sums,
differences and products of such entries and constants, each a node of its own, so that whatever is said of the graph's
operators, rounding among it, is said of these as well. Tensors that are asked for have a reader, so that no chain is
fused across them.

Elsewhere: miter, self-composition, relational verification, product program.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Graph, Node, Provenance, Refused, Value, live_nodes, shown
from idl_audit.graph.names import fresh_names
from idl_audit.graph.schemas import means_the_same
from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.errors import UnsupportedModelError

ENTRY: Final = "inputs"
"""The name of the input vector."""
RESULT: Final = "asked"
"""The name of the output vector."""

_DOUBLE: Final = 11
_FLOATS: Final[Mapping[str, int]] = MappingProxyType({"float32": 1, "float64": _DOUBLE})  # TensorProto's numbers


@dataclass(frozen=True, eq=False)
class Member:
    """One network of the product."""

    name: str
    graph: Graph
    columns: tuple[IntArray, ...]
    """For each of the graph's inputs, which entries of the input vector it reads, in the shape that it has here."""


@dataclass(frozen=True, order=True)
class Place:
    """One entry of a tensor of a member; of an input it is what the input holds."""

    member: str
    tensor: str
    flat: int


@dataclass
class Product:
    """The graph while it is made: entries and expressions are asked for, then `graph` gives all of them."""

    members: Sequence[Member]
    n_columns: int
    element: str
    """The type of the input vector: float32 or float64."""
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, AnyArray] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=lambda: {ENTRY, RESULT})
    _renamed: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _flat: dict[tuple[str, str], str] = field(default_factory=dict)
    _kinds: dict[str, str] = field(default_factory=dict)
    _asked: list[Place | str] = field(default_factory=list)
    _made: dict[tuple[object, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.opset = common_opset([member.graph for member in self.members])
        self._vector = self._node("Reshape", (ENTRY, self._constant("length", np.array([-1]))), "vector")
        for member in self.members:
            self._copy(member)

    def element_of(self, member: str, tensor: str, kind: str) -> None:
        """Tell the type of a tensor: whole numbers and truth values are read as floats from then on."""
        self._kinds[self._renamed[member][tensor]] = kind

    def ask(self, what: Place | str) -> int:
        """Ask for an entry, or an expression by its name; return where it will stand in the output vector."""
        self._asked.append(what)
        return len(self._asked) - 1

    def column(self, number: int) -> str:
        """Return the expression that is one entry of the input vector."""
        return self._once("Gather", (self._vector, self._constant("column", np.array([number]))), {"axis": 0})

    def entry(self, place: Place) -> str:
        """Return the expression that is one entry."""
        index = self._constant("place", np.array([place.flat]), key=("place", place.flat))
        return self._once("Gather", (self._flattened(place.member, place.tensor), index), {"axis": 0})

    def number(self, value: float) -> str:
        """Return the expression that is a constant."""
        return self._constant("constant", np.array([value], self.element), key=("number", value.hex()))

    def combined(self, operator: str, parts: Sequence[str]) -> str:
        """Return the sum, difference or product of expressions, operation by operation from the left."""
        if operator == "-" and len(parts) == 1:
            return self._once("Neg", (parts[0],))
        found = parts[0]
        for part in parts[1:]:
            found = self._once(_OPERATORS[operator], (found, part))
        return found

    @property
    def graph(self) -> Graph:
        """The graph, whose one output holds all that was asked for, in this order."""
        chunks, order = self._chunks()
        if not np.array_equal(order, np.arange(order.size)):
            whole = self._node("Concat", tuple(chunks), "unordered", {"axis": 0})
            self.nodes.append(Node("Gather", RESULT, (whole, self._constant("order", order)), (RESULT,), {"axis": 0}))
        else:
            self.nodes.append(Node("Concat", RESULT, tuple(chunks), (RESULT,), {"axis": 0}))
        nodes = live_nodes(self.nodes, [RESULT])
        read = {name for node in nodes for name in node.reads}
        graphs = [member.graph for member in self.members]
        return Graph(
            (Value(ENTRY, (1, self.n_columns), self.element),),
            (Value(RESULT, (len(self._asked),), self.element),),
            nodes,
            MappingProxyType({name: value for name, value in self.constants.items() if name in read}),
            self._provenance(),
            max([self.element, *(graph.arithmetic for graph in graphs)], key=_COARSENESS.index),
            problems=tuple(dict.fromkeys(problem for graph in graphs for problem in graph.problems)),
        )

    # --- parts --------------------------------------------------------------------------------------------------------

    def _copy(self, member: Member) -> None:
        """Put a copy of a network in, its names prefixed, which reads entries of the vector."""
        graph = member.graph
        names = [value.name for value in graph.inputs]
        made = [name for node in graph.nodes for name in node.outputs]
        renamed = fresh_names(member.name, dict.fromkeys([*names, *graph.constants, *made]), self._taken)
        self._renamed[member.name] = renamed
        for value, columns in zip(graph.inputs, member.columns, strict=True):
            index = self._constant("columns", np.asarray(columns, np.int64))
            whole = value.dtype == self.element or value.dtype not in _FLOATS
            part = renamed[value.name] if whole else f"{renamed[value.name]}/part"
            self.nodes.append(Node("Gather", part, (self._vector, index), (part,), {"axis": 0}))
            if not whole:
                cast = Node("Cast", part, (part,), (renamed[value.name],), {"to": _FLOATS[value.dtype]})
                self.nodes.append(cast)
        self.constants.update({renamed[name]: array for name, array in graph.constants.items()})
        self.nodes += [
            replace(
                node,
                name=f"{member.name}/{node.label}",
                inputs=tuple(renamed[name] for name in node.inputs),
                outputs=tuple(renamed[name] for name in node.outputs),
            )
            for node in graph.nodes
        ]

    def _flattened(self, member: str, tensor: str) -> str:
        """Return the entries of a tensor as a vector of floats."""
        key = (member, tensor)
        if key not in self._flat:
            name = self._renamed[member][tensor]
            if self._kinds.get(name, self.element) not in _FLOATS:
                name = self._node("Cast", (name,), "numbers", {"to": _DOUBLE})
            self._flat[key] = self._node("Reshape", (name, self._constant("length", np.array([-1]))), "flat")
        return self._flat[key]

    def _chunks(self) -> tuple[list[str], IntArray]:
        """Return vectors that hold all that was asked for together, and in which order it stands in them."""
        groups: dict[tuple[str, str], list[int]] = {}
        for k, asked in enumerate(self._asked):
            key = (asked.member, asked.tensor) if isinstance(asked, Place) else ("", asked)
            groups.setdefault(key, []).append(k)
        chunks, placed = [], np.zeros(len(self._asked), np.int64)
        at = 0
        for (member, tensor), numbers in groups.items():
            places = [asked for asked in (self._asked[k] for k in numbers) if isinstance(asked, Place)]
            if places:
                index = self._constant("places", np.array([place.flat for place in places]))
                chunks.append(self._node("Gather", (self._flattened(member, tensor), index), "entries", {"axis": 0}))
                placed[numbers] = at + np.arange(len(numbers))
                at += len(numbers)
            else:
                chunks.append(tensor)
                placed[numbers] = at
                at += 1
        return chunks, placed

    def _once(self, op: str, inputs: tuple[str, ...], attributes: Mapping[str, int] | None = None) -> str:
        key = (op, inputs)
        if key not in self._made:
            self._made[key] = self._node(op, inputs, "expression", attributes)
        return self._made[key]

    def _node(self, op: str, inputs: tuple[str, ...], wanted: str, attributes: Mapping[str, int] | None = None) -> str:
        name = self._fresh(wanted)
        self.nodes.append(Node(op, name, inputs, (name,), MappingProxyType(dict(attributes or {}))))
        return name

    def _constant(self, wanted: str, value: AnyArray, key: tuple[object, ...] = ()) -> str:
        if key and key in self._made:
            return self._made[key]
        name = self._fresh(wanted)
        self.constants[name] = value
        if key:
            self._made[key] = name
        return name

    def _fresh(self, wanted: str) -> str:
        number = len(self._taken)
        name = f"asked/{wanted} {number}"
        while name in self._taken:
            number += 1
            name = f"asked/{wanted} {number}"
        self._taken.add(name)
        return name

    def _provenance(self) -> Provenance:
        """Say where the product came from: its hash is one of all files."""
        provenances = [member.graph.provenance for member in self.members]
        whole = hashlib.sha256("".join(one.sha256 for one in provenances).encode()).hexdigest()
        first = provenances[0]
        sha256 = first.sha256 if len(provenances) == 1 else whole
        files = tuple(file for one in provenances for file in one.files)
        return replace(first, sha256=sha256, opset=self.opset, files=files)


_OPERATORS: Final[Mapping[str, str]] = MappingProxyType({"+": "Add", "-": "Sub", "*": "Mul"})
_COARSENESS: Final = ("float64", "float32", "float16", "bfloat16")


def common_opset(graphs: Sequence[Graph]) -> int:
    """Return a version of the operator set in which all graphs say what they say: the newest of theirs.

    Raises:
        UnsupportedModelError: where an operator of one graph is another one in that version.
    """
    newest = max(graph.opset for graph in graphs)
    problems = [problem for graph in graphs for problem in _changed(graph, newest)]
    if problems:
        raise UnsupportedModelError(problems)
    return newest


def _changed(graph: Graph, newest: int) -> Iterator[str]:
    for op in dict.fromkeys(node.op for node in graph.nodes if not isinstance(node, Refused)):
        if graph.opset != newest and not means_the_same(op, graph.opset, newest):
            yield (
                f"{shown(op)} is another operator in version {graph.opset} of ONNX's operator set than in {newest}, "
                "and networks that are compared are read in one version; export them with the same opset_version"
            )
