"""A batch of fixed size N > 1: the network of one of its rows, where every row is proved to go its own way.

Exporters write the batch size of their example into the file: an input [32, 784], an output [32, 10], a Reshape to
[32, -1]. Such a file is the network of one row, 32 times over - unless [4, 3] is one sample with two axes. Names and
sizes cannot tell the two apart, the graph can. One walk follows, for every tensor of the whole batch, along which axis
the rows lie and which index of that axis belongs to which row; an operator that could let two rows meet ends it. Data
movement is run on the positions of all N rows and must do the same in each; constants that reach along the rows must
be the same for each. Only where the output [N, ...] comes out row by row is the file read as a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from idl_audit.graph.folding import fold_node
from idl_audit.graph.ir import Graph, Node, live_nodes
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.lowering import CONSTANT, LOWERINGS
from idl_audit.implicit.lowering.row_rules import RULES, entrywise
from idl_audit.implicit.lowering.rows import MeetError, Rows, Tensor, meet
from idl_audit.implicit.walk import Walk
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError


def one_row(graph: Graph, output: str) -> Graph | None:
    """Return the network of one row, input shape (1, ...), where the file is that network N > 1 times over.

    That is so where the input's shape is fixed, [N, ...] with N > 1 and rank 2 or more, the output's is [N, ...], and
    row i of the output is one and the same function of row i of the input for every i. All of it is proved from the
    graph, operator by operator. None otherwise: the whole input is then one sample. Operators that are not known are
    taken as entrywise, so that they, and not the batch, are what `build_implicit` refuses.
    """
    (entry,) = graph.inputs
    shape = tuple(size for size in entry.shape or () if isinstance(size, int))
    if len(shape) < 2 or len(shape) != len(entry.shape or ()) or shape[0] < 2 or not math.prod(shape):
        return None
    walk = _RowWalk(graph, graph.opset)
    walk.values[entry.name] = Rows(shape, 0, np.arange(shape[0]))
    try:
        for node in live_nodes(graph.nodes, [output]):
            walk.follow(node)
    except (MeetError, MemoryLimitError, UnsupportedModelError):
        return None
    except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # a node that contradicts itself, which `build_implicit` says
    result = walk.values.get(output)
    if not isinstance(result, Rows) or result.axis != 0 or not result.whole or result.n != shape[0]:
        return None
    return replace(
        graph,
        inputs=(replace(entry, shape=(1, *shape[1:])),),
        nodes=tuple(walk.nodes),
        constants=MappingProxyType(walk.constants),
    )


class _RowWalk:
    """One walk over the whole batch, which writes down the network of one row as it goes."""

    def __init__(self, graph: Graph, opset: int) -> None:
        self.values: dict[str, Tensor] = dict(graph.constants)
        self.constants: dict[str, AnyArray] = dict(graph.constants)
        self.nodes: list[Node] = []
        self._opset = opset
        self._taken = {*graph.constants, *(value.name for value in graph.inputs)}
        self._taken.update(name for node in graph.nodes for name in node.outputs)

    def follow(self, node: Node) -> None:
        """Follow the rows through one node, and write the node down for one row."""
        arguments = [self.values[name] if name else None for name in node.inputs]
        if not any(isinstance(value, Rows) for value in arguments):
            self._constants(node, fold_node(node, [v for v in arguments if not isinstance(v, Rows)], self._opset))
            return
        if node.op in CONSTANT:
            shapes = [np.broadcast_to(0.0, value.shape) for value in arguments if value is not None]
            found = LOWERINGS[node.op](node, shapes, Walk(self._opset))
            self._constants(node, [value for value in found if not isinstance(value, AffineForm)])
            return
        rule = RULES.get(node.op)
        if rule is None and node.op in LOWERINGS:
            meet()
        results, adapted = (rule or entrywise)(node, arguments, self._opset)
        if len(results) < _used(node):
            meet()
        self.values |= {name: result for name, result in zip(node.outputs, results, strict=False) if name}
        self.nodes.append(replace(node, inputs=self._named(node, adapted)))

    def _constants(self, node: Node, values: Sequence[AnyArray]) -> None:
        for name, value in zip(node.outputs, values, strict=False):
            if name:
                self.values[name] = self.constants[name] = value

    def _named(self, node: Node, adapted: Mapping[int, AnyArray]) -> tuple[str, ...]:
        """Return the node's inputs, those in `adapted` under new names."""
        names = list(node.inputs)
        for k, value in adapted.items():
            if value is self.values[names[k]]:
                continue
            name = f"{names[k]}/row"
            while name in self._taken:
                name += "'"
            self._taken.add(name)
            names[k], self.constants[name] = name, value
        return tuple(names)


def _used(node: Node) -> int:
    """Return how many of the node's outputs have a name."""
    return max((k + 1 for k, name in enumerate(node.outputs) if name), default=0)
