"""Operators that the model leaves out where they end the network: they keep the order of the outputs, or name the best.

See docs/mathematics.md, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from idl_audit.graph.ir import Graph, Node
from idl_audit.implicit.lowering.choice import Known
from idl_audit.implicit.lowering.sequences import TensorList

RANKED: Final = frozenset({"Softmax", "LogSoftmax"})
"""Operators whose outputs are ranked as their inputs are."""
NAMED: Final = frozenset({"ArgMax", "TopK"})
"""Operators that give the class in place of its scores (TopK: the place of the largest alone)."""
_SAME: Final = frozenset({"Identity"})
_MOVES: Final = _SAME | {"Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze"}
"""What may follow a class: it is one number, whatever its shape, and still a whole one as another type."""
_LARGEST: Final[Mapping[int, int]] = MappingProxyType(
    {1: 2**24, 2: 255, 3: 127, 4: 65535, 5: 32767, 6: 2**31, 7: 2**31, 10: 2048, 11: 2**31, 12: 2**31, 13: 2**31}
)
"""ONNX's number of a type -> the largest class that it holds exactly (or than which none is larger)."""


@dataclass(frozen=True)
class LastOperator:
    """What may be left out at the end of a network."""

    node: Node
    tail: tuple[Node, ...] = ()
    """What follows it: of a class, moves and casts."""

    @property
    def scores(self) -> str:
        """The tensor before it."""
        return self.node.inputs[0]

    def is_left_out(self, graph: Graph, value: Known | None) -> bool:
        """Return whether the model may end before it: it runs over all outputs of a sample.

        Args:
            graph: the network.
            value: what the walk knows of the tensor before it.
        """
        if value is None or isinstance(value, TensorList):
            return False
        shape = value.shape
        named = self.node.op in NAMED
        axis = self.node.attributes.get("axis", _usual_axis(self.node.op, graph.opset))
        if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
            return False
        first = axis % len(shape)
        group = math.prod(shape[first:] if graph.opset < 13 and not named else shape[first : first + 1])
        return group == math.prod(shape) and (not named or self._names_one(graph, group))

    def _names_one(self, graph: Graph, classes: int) -> bool:
        """Return whether a class comes out, of the largest score, as a number that is the class."""
        if classes < 2 or not all(classes - 1 <= _LARGEST.get(cast, 0) for cast in self._casts()):
            return False
        if self.node.op == "ArgMax":
            return True
        counts = graph.constants.get(self.node.inputs[1]) if len(self.node.inputs) > 1 else None
        k = self.node.attributes.get("k") if counts is None else int(counts.reshape(-1)[0])
        return k == 1 and self.node.attributes.get("largest", 1) == 1

    def _casts(self) -> list[int]:
        return [int(str(node.attributes.get("to", 0))) for node in self.tail if node.op == "Cast"]


def _usual_axis(op: str, opset: int) -> int:
    if op == "ArgMax":
        return 0
    return -1 if op == "TopK" or opset >= 13 else 1


def last_operator(graph: Graph, target: str) -> LastOperator | None:
    """Return the operator that ends the network, if it is one that may be left out."""
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    tail: list[Node] = []
    node = makers.get(target)
    while node is not None and node.op in _MOVES:
        tail.append(node)
        target = node.inputs[0]
        node = makers.get(target)
    if node is None:
        return None
    if node.op in RANKED and all(one.op in _SAME for one in tail):
        return LastOperator(node)
    gives_place = node.op == "ArgMax" or (node.op == "TopK" and node.outputs[1:2] == (target,))
    return LastOperator(node, tuple(tail)) if gives_place else None
