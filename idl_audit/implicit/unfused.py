"""The network for exact arithmetic: every linear operator keeps its own map, with the numbers of the file.

`build` multiplies neighbouring linear operators out, and products of two float32 numbers are rounded where they are
summed. Here an identity block stands behind each operator that does more than move numbers, so that its coefficients
are those of the file, which float64 holds. Where one is computed all the same (a division, the root in a batch-norm),
the map's own bounds say so, and the network has no exact form.
"""

from __future__ import annotations

from collections.abc import Sequence

from idl_audit.graph.ir import Graph, Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.build import assembled, walk_graph
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.walk import TensorValue, Walk


def unfused(graph: Graph, *, output: str | None = None, max_bytes: int | None = None) -> ImplicitModel:
    """Return the model of a network in which nothing is multiplied out.

    Raises:
        UnsupportedModelError: as `build_implicit`.
        MemoryLimitError: where a matrix would exceed `max_bytes`.
    """
    return assembled(walk_graph(graph, _UnfusedWalk(graph.opset, max_bytes), output))[0]


class _UnfusedWalk(Walk):
    """A walk that keeps every operator apart."""

    def finished(
        self, node: Node, arguments: Sequence[TensorValue | None], results: tuple[TensorValue, ...]
    ) -> tuple[TensorValue, ...]:
        """Return the results with an identity block behind each that is more than moved numbers."""
        return tuple(
            self.cut(node, value, suffix="/apart") if type(value) is AffineForm and not _only_moves(value) else value
            for value in results
        )


def _only_moves(form: AffineForm) -> bool:
    """Whether products with the form are exact: each entry is one number that was read, or 0."""
    return not form.constant.any() and len(form.terms) <= 1 and all(map(_moves, form.terms.values()))


def _moves(linear_map: LinearMap) -> bool:
    return isinstance(linear_map, Selection) and linear_map.weights is None and linear_map.is_column_monomial
