"""The graph of a network in ONNX's vocabulary: frozen values, no protobuf, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from idl_audit.graph.files import ReadFile
from idl_audit.values.arrays import AnyArray

Attribute: TypeAlias = (
    "int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | AnyArray | Body | Reference"
)
"""What a node's attribute may be; the nodes of a `Graph` have neither bodies nor references."""
Dimension: TypeAlias = int | str | None


def shown(name: str, *, longest: int = 120) -> str:
    """Return a name from a model file as messages may print it: one line, printable, not endless."""
    short = name if len(name) <= longest else name[:longest] + "..."
    return short if short.isprintable() else ascii(short)


@dataclass(frozen=True)
class Value:
    """A graph input or output as the file declares it; a dimension is a number, a symbol, or unknown (None)."""

    name: str
    shape: tuple[Dimension, ...] | None
    dtype: str


@dataclass(frozen=True)
class Scalars:
    """The constants that a chain multiplies by, which `fusion` has put into one, or left out."""

    count: int = 0
    least: float = 1.0
    """No product of some of them is smaller than this, unless it is 0."""
    most: float = 1.0
    """... or larger than this."""

    @property
    def spread(self) -> float:
        """What one of these products may be multiplied by to give another one, at most."""
        return self.most / self.least if self.least else math.inf


NO_SCALARS = Scalars()


@dataclass(frozen=True)
class Node:
    """One operator application; an optional input that is left out is the empty string."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    uncertainty: float = 0.0
    """Bounds |the file's function - this node's| per entry, where `fusion` rewrote it (for a Mul, relative to the
    constant); never read from a file."""
    rounds_otherwise: bool = False
    """Whether `fusion` rewrote a chain whose floating-point results may be far from this operator's."""
    scalars: Scalars = NO_SCALARS
    """Of the chain that `fusion` rewrote."""

    @property
    def label(self) -> str:
        """How messages call this node: its name, or its first output's where it has none."""
        return self.name or (self.outputs[0] if self.outputs else "unnamed")

    @property
    def bodies(self) -> tuple[Body, ...]:
        """The subgraphs among the attributes (the branches of an If)."""
        return tuple(value for value in self.attributes.values() if isinstance(value, Body))

    @property
    def reads(self) -> Iterator[str]:
        """Yield the names of all values that the node needs: its inputs, and what its subgraphs take from outside."""
        yield from filter(None, self.inputs)
        for body in self.bodies:
            yield from body.captured


@dataclass(frozen=True)
class Refused(Node):
    """A node that is not read, in the place of the file's: what comes behind it is looked at all the same.

    A graph with one of these has `Graph.problems`, and no model is made of it.
    """

    of: str = ""
    """The operator that the file names."""
    shapes: tuple[tuple[int, ...] | None, ...] = ()
    """Of each output that holds floats, where the file tells it; None elsewhere."""

    @classmethod
    def instead_of(cls, node: Node, shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Refused:
        """Return what stands for a node; `shapes` are those of values that hold floats, by name."""
        inputs, outputs = tuple(node.reads), tuple(filter(None, node.outputs))
        return cls("Refused", node.name, inputs, outputs, of=operator_of(node), shapes=tuple(map(shapes.get, outputs)))


@dataclass(frozen=True)
class Call(Node):
    """A node of another domain than ONNX's own, or of one of the model's functions."""

    domain: str = ""
    overload: str = ""

    @property
    def target(self) -> tuple[str, str, str]:
        """What is called, as `Function.key`."""
        return (self.domain, self.op, self.overload)


@dataclass(frozen=True)
class Reference:
    """The value of an attribute inside a function: that of the call's own attribute of this name."""

    name: str


@dataclass(frozen=True)
class Body:
    """A subgraph: nodes in topological order that may read the values around them."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, AnyArray]

    @property
    def own(self) -> frozenset[str]:
        """The names that the subgraph itself defines."""
        return frozenset([*self.inputs, *self.constants, *(name for node in self.nodes for name in node.outputs)])

    @property
    def captured(self) -> frozenset[str]:
        """The names that it takes from outside."""
        read = {name for node in self.nodes for name in node.reads}
        return frozenset(read | set(self.outputs)) - self.own - {""}


@dataclass(frozen=True)
class Function:
    """An operator that the model itself defines: a subgraph that reads nothing but its inputs."""

    key: tuple[str, str, str]
    """Domain, name, overload."""
    body: Body
    attributes: Mapping[str, Attribute | None]
    """The attributes that a call may set, with their defaults; None where there is none."""
    opset: int
    """The version of the default operator set that its nodes are written in; 0 where they use none."""


@dataclass(frozen=True)
class Provenance:
    """Where a graph came from: what a report says about the file."""

    path: Path | None
    format: str
    sha256: str
    """Of all that says which function it is: of the file where that is all, else of everything together."""
    opset: int
    producer: str
    external_files: tuple[str, ...] = ()
    external_sha256: tuple[str, ...] = ()
    """One per external file."""
    files: tuple[ReadFile, ...] = ()
    """The file itself, then the external ones."""


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, with the constants they read."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, AnyArray]
    provenance: Provenance
    arithmetic: str = "float32"
    """The coarsest type of float that the file computes with, behind its input; weights alone do not count."""
    fixed: tuple[Value, ...] = ()
    """Inputs of the file that the user holds fixed: each is a constant of its name."""
    parts: tuple[Value, ...] = ()
    """The file's inputs that the only input stands for, one behind the other (`graph.inputs`); empty: none do."""
    maps: Mapping[str, tuple[int | str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Output that is a dictionary for every sample, where the file is run -> its keys, in the order of the numbers."""
    problems: tuple[str, ...] = ()
    """What of the file is not read: no model is made of the rest."""
    may_run: bool = True
    """Whether the file may be run all the same: of its problems each is an operator of classical learning, and none a
    fault of the file."""

    @property
    def opset(self) -> int:
        """The version of the default operator set that the nodes are written in."""
        return self.provenance.opset

    @property
    def n_parameters(self) -> int:
        """Count of the numbers in floating-point constants."""
        fixed = {value.name for value in self.fixed}
        return sum(int(v.size) for name, v in self.constants.items() if v.dtype.kind == "f" and name not in fixed)


def operator_of(node: Node) -> str:
    """Return the operator that the file names for a node, whether it is read or not."""
    return node.of if isinstance(node, Refused) else node.op


def live_nodes(nodes: Sequence[Node], wanted: Iterable[str]) -> tuple[Node, ...]:
    """Return, in the same order, the nodes that the values `wanted` depend on; `nodes` is in topological order."""
    needed = set(wanted) - {""}
    kept = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.reads)
    return tuple(reversed(kept))


def live_inputs(graph: Graph, output: str) -> tuple[Value, ...]:
    """Return the graph's inputs that `output` depends on; the first where it depends on none."""
    read = {name for node in live_nodes(graph.nodes, [output]) for name in node.reads} | {output}
    return tuple(value for value in graph.inputs if value.name in read) or graph.inputs[:1]
