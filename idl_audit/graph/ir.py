"""The graph of a network in ONNX's vocabulary: frozen values, no protobuf, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from idl_audit.arrays import AnyArray
from idl_audit.graph.files import ReadFile

Attribute: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | AnyArray
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

    @property
    def label(self) -> str:
        """How messages call this node: its name, or its first output's where it has none."""
        return self.name or (self.outputs[0] if self.outputs else "unnamed")


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

    @property
    def opset(self) -> int:
        """The version of the default operator set that the nodes are written in."""
        return self.provenance.opset

    @property
    def n_parameters(self) -> int:
        """Count of the numbers in floating-point constants."""
        return sum(int(value.size) for value in self.constants.values() if value.dtype.kind == "f")


def live_nodes(nodes: Sequence[Node], wanted: Iterable[str]) -> tuple[Node, ...]:
    """Return, in the same order, the nodes that the values `wanted` depend on; `nodes` is in topological order."""
    needed = set(wanted) - {""}
    kept = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
            needed.discard("")
    return tuple(reversed(kept))
