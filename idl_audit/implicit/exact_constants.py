"""Which constants of a network are no exact numbers: what float arithmetic has rounded before any input is read.

A node whose inputs are all known is evaluated as runtimes do it, in floats. A query about real numbers asks about exact
arithmetic, in which 1 / 3 is no float: such a constant may stand in a model only where its value is the exact one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np

from idl_audit.graph.ir import Graph, Node, shown
from idl_audit.implicit.build import walk_graph
from idl_audit.implicit.walk import Walk
from idl_audit.values.arrays import AnyArray

MOST_ENTRIES: Final = 2**18
"""Of a constant that is looked at number by number; a larger one counts as rounded."""

_Law: TypeAlias = Callable[..., Any]


def rounded_constants(graph: Graph) -> tuple[str, ...]:
    """Return a sentence for each node that makes a constant of a graph, and may have rounded it.

    Raises:
        UnsupportedModelError: as `build_implicit`.
    """
    walked = walk_graph(graph, Walk(graph.opset, None))
    return tuple(_told(walked.folded, walked.constants))


def _told(nodes: tuple[Node, ...], constants: Mapping[str, AnyArray]) -> Iterator[str]:
    for node in nodes:
        if not _is_exact(node, constants):
            yield f"{node.op} node '{shown(node.label)}' computes a constant in floats, where it is no exact number"


def _is_exact(node: Node, constants: Mapping[str, AnyArray]) -> bool:
    if node.op in _MOVES:
        return node.attributes.get("reduction", "none") == "none"
    law = _LAWS.get(node.op)
    read = [constants.get(name) for name in node.inputs]
    made = constants.get(node.outputs[0])
    if law is None or made is None or made.size > MOST_ENTRIES or any(array is None for array in read):
        return False
    if not all(np.isfinite(array).all() for array in (made, *read) if array is not None):
        return False
    return bool(np.all(law(_fractions(made), *map(_fractions, read))))


def _fractions(array: Any) -> AnyArray:
    """Return the numbers of an array as exact ones."""
    flat = [Fraction(value) for value in array.reshape(-1).tolist()]
    found = np.empty(len(flat), object)
    found[:] = flat
    return found.reshape(array.shape)


_MOVES: Final = frozenset(
    {
        *("Abs", "Ceil", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand"),
        *("EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Identity", "Max", "Min", "Neg"),
        *("OneHot", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ScatterElements", "ScatterND", "Sign"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
    }
)
"""Operators whose results are numbers that were read, or negated ones, or whole."""

_LAWS: Final[Mapping[str, _Law]] = MappingProxyType(
    {
        "Add": lambda y, a, b: y == a + b,
        "Cast": lambda y, a: y == a,
        "CastLike": lambda y, a, like: y == a,
        "Div": lambda y, a, b: (y * b == a) & (b != 0),
        "Mul": lambda y, a, b: y == a * b,
        "Reciprocal": lambda y, a: y * a == 1,
        "Sqrt": lambda y, a: (y * y == a) & (y >= 0),
        "Sub": lambda y, a, b: y == a - b,
    }
)
"""Operator -> where its result is the exact one."""
