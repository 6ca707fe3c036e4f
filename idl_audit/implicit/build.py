"""GRAPH -> IMPLICIT MODEL in one walk; every problem is collected before anything is raised.

See docs/mathematics.md, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.fusion import fuse_activations
from idl_audit.graph.inputs import WHOLE, sample_shape, with_one_input
from idl_audit.graph.ir import Graph, Node, live_nodes, shown
from idl_audit.graph.original import chosen_output
from idl_audit.implicit.affine import INPUT, AffineForm, PartlyAbsent, typed
from idl_audit.implicit.last_operator import last_operator
from idl_audit.implicit.linear_maps import Dense, LinearMap, Sparse
from idl_audit.implicit.lowering.choice import Choices, Condition, Known
from idl_audit.implicit.lowering.fixed_batch import one_row
from idl_audit.implicit.lowering.nodes import Progress
from idl_audit.implicit.lowering.sequences import TensorList
from idl_audit.implicit.model import Affine, ImplicitModel, InputPart, PoolWindows, StateBlock
from idl_audit.implicit.walk import Walk
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

SPARSE = 1 / 16
"""Share of nonzeros below which products with a CSR matrix are faster than dense ones."""
SMALL = 2**10
"""Entries of a matrix that is small enough to stay as it is."""


def build_implicit(
    graph: Graph, *, output: str | None = None, max_bytes: int | None = None, whole: bool = False
) -> ImplicitModel:
    """Return the implicit model (A, B, C, D, b, d) of a network: x = phi(A x + B u + b), y = C x + D u + d.

    The model is that of one sample. Where the file fixes a batch of N > 1 samples and treats each of them alike and
    alone, which `lowering.fixed_batch.one_row` proves, one sample is one row of that batch; else the whole input is.

    Args:
        graph: the network; several inputs are read as one vector (`graph.inputs`).
        output: name of the output to audit where there are several.
        max_bytes: refuse what would need a matrix larger than this.
        whole: keep a last softmax, which changes no order of outputs, where their values count.

    Raises:
        UnsupportedModelError: with every operator, or use of one, that has no implicit form.
        MemoryLimitError: where a matrix would exceed `max_bytes`.
    """
    walked = walk_graph(graph, Walk(graph.opset, max_bytes), output, whole=whole)
    return without_zeros(assembled(walked)[0])


@dataclass(frozen=True)
class Walked:
    """A graph that was walked: the blocks that were made, and the form of the output."""

    walk: Walk
    result: AffineForm
    input_shape: tuple[int, ...]
    parts: tuple[InputPart, ...]
    """The file's inputs, where the model's is made of several."""
    left_out: Node | None
    """The last operator, where it is left out."""
    folded: tuple[Node, ...]
    """The nodes that compute a constant which is no whole number."""
    constants: Mapping[str, AnyArray]
    """Every tensor that is known, by its name."""
    nodes: tuple[Node, ...]
    """All nodes that the output depends on."""


def walk_graph(graph: Graph, walk: Walk, output: str | None = None, *, whole: bool = False) -> Walked:
    """Lower every node that the output depends on; every problem is collected before anything is raised.

    Raises:
        UnsupportedModelError: with every operator, or use of one, that has no implicit form, and what the reader found.
        MemoryLimitError: where a matrix would exceed the limit of the walk.
    """
    path = graph.provenance.path or Path("the model")
    target = chosen_output(path, graph, output)
    graph = _with_known_input(graph, walk, target)
    graph = without_unread_positions(graph, target)
    graph = one_row(graph, target) or graph
    entry = graph.inputs[0]
    fused = fuse_activations(graph)
    u = AffineForm.of_source(INPUT, sample_shape(entry))
    values: dict[str, Known] = {**fused.constants, entry.name: typed(u, entry.dtype) if entry.dtype in WHOLE else u}
    makers = {name: node for node in fused.nodes for name in node.outputs if name}
    lowering = Progress(walk, values, makers)
    last = None if whole else last_operator(fused, target)
    body = live_nodes(fused.nodes, [target if last is None else last.scores])
    for node in body:
        lowering.lower(node)
    left_out = None
    if last is not None and last.is_left_out(fused, values.get(last.scores)):
        target, left_out = last.scores, last.node
    else:
        for node in live_nodes(fused.nodes, [target])[len(body) :]:
            lowering.lower(node)
    lowering.check(graph.problems)
    value = values.get(target)
    if isinstance(value, Condition):
        value = Choices(makers, values, lowering.steps).as_tensor(value, walk)
    result = _output(value, target, graph)
    nodes = live_nodes(fused.nodes, [target])
    folded = tuple(node for node in nodes if any(_is_real_constant(values.get(name)) for name in node.outputs))
    parts = tuple(InputPart(value.name, sample_shape(value)) for value in graph.parts)
    return Walked(walk, result, sample_shape(entry), parts, left_out, folded, _known(values), nodes)


def _known(values: Mapping[str, Known]) -> Mapping[str, AnyArray]:
    return MappingProxyType({name: value for name, value in values.items() if isinstance(value, np.ndarray)})


def _with_known_input(graph: Graph, walk: Walk, target: str) -> Graph:
    """Return the graph with one input of a known shape. Raises UnsupportedModelError, with what else is not read."""
    try:
        read = with_one_input(graph, target)
        sample_shape(read.inputs[0])
    except UnsupportedModelError as error:
        unknown = Progress(walk, dict(graph.constants), {}, lost=dict.fromkeys(value.name for value in graph.inputs))
        for node in live_nodes(graph.nodes, [target]):
            unknown.lower(node)
        raise UnsupportedModelError([*error.problems, *graph.problems, *unknown.problems]) from error
    return read


def _output(value: Known | None, target: str, graph: Graph) -> AffineForm:
    """Return the output's form. Raises UnsupportedModelError where it is none."""
    if isinstance(value, PartlyAbsent):
        raise UnsupportedModelError((f"the output '{target}' holds minus infinity, whatever the input is",))
    if isinstance(value, TensorList):
        raise UnsupportedModelError((f"the output '{target}' is a list of tensors; make one of them the output",))
    if not isinstance(value, AffineForm):
        names = " or ".join(f"'{shown(value.name)}'" for value in graph.parts or graph.inputs)
        raise UnsupportedModelError((f"the output '{target}' does not depend on the input {names}",))
    return value


def _is_real_constant(value: Known | None) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


_GIVE_POSITIONS = frozenset({"MaxPool", "TopK"})
"""Operators whose second output is where they found what they give, which no model has, and few files read."""


def without_unread_positions(graph: Graph, target: str) -> Graph:
    """Return the graph without positions that nothing reads."""
    nodes = live_nodes(graph.nodes, [target])
    read = {target, *(name for node in nodes for name in node.inputs)}
    kept = (
        replace(node, outputs=(*node.outputs[:1], *("" for _ in node.outputs[1:])))
        if node.op in _GIVE_POSITIONS and read.isdisjoint(node.outputs[1:])
        else node
        for node in nodes
    )
    return replace(graph, nodes=tuple(kept))


def assembled(walked: Walked) -> tuple[ImplicitModel, tuple[int, ...]]:
    """Return the blocks that the output depends on, newest first as in the paper, and when each was made.

    Those that a walk demands are among them.
    """
    walk, result = walked.walk, walked.result
    newest_first = sorted(_reachable(walk, result), reverse=True)
    number = {made: k for k, made in enumerate(newest_first)}
    model = ImplicitModel(
        blocks=tuple(_renumbered(walk.pending[made].block, number) for made in newest_first),
        rows=tuple(_affine(walk.pending[made].form, number) for made in newest_first),
        output=_affine(result, number),
        input_shape=walked.input_shape,
        output_shape=result.shape,
        stripped_output="" if walked.left_out is None else walked.left_out.op,
        input_parts=walked.parts,
    )
    return model, tuple(newest_first)


def _reachable(walk: Walk, result: AffineForm) -> set[int]:
    used: set[int] = set()
    open_sources = [source for source in (*result.terms, *walk.demanded) if source != INPUT]
    while open_sources:
        source = open_sources.pop()
        if source not in used:
            used.add(source)
            open_sources.extend(s for s in walk.pending[source].form.terms if s != INPUT)
    return used


def _renumbered(block: StateBlock, number: Mapping[int, int]) -> StateBlock:
    if block.maximum is None:
        return block
    source = number.get(block.maximum.source)
    enclosure = None if source is None else PoolWindows(source, block.maximum.windows)
    return StateBlock(block.name, block.op, block.activation, block.shape, enclosure, block.exponent)


def without_zeros(model: ImplicitModel) -> ImplicitModel:
    """Return the model with CSR in place of matrices that are nearly all zeros: min and max trees, masks, selections.

    No number changes, and which blocks there are was decided before.
    """
    rows = tuple(_row_without_zeros(row) for row in model.rows)
    return replace(model, rows=rows, output=_row_without_zeros(model.output))


def _row_without_zeros(row: Affine) -> Affine:
    states = {k: _without_zeros(linear_map) for k, linear_map in row.states.items()}
    return replace(row, states=states, input=None if row.input is None else _without_zeros(row.input))


def _without_zeros(linear_map: LinearMap) -> LinearMap:
    if not isinstance(linear_map, Dense) or linear_map.nnz < SMALL:
        return linear_map
    if np.count_nonzero(linear_map.matrix) >= SPARSE * linear_map.nnz:
        return linear_map
    matrix = sp.csr_array(linear_map.matrix)
    return Sparse(matrix=matrix, relative=linear_map.relative, slack=linear_map.slack)


def _affine(form: AffineForm, number: Mapping[int, int]) -> Affine:
    states: dict[int, LinearMap] = {number[source]: term for source, term in form.terms.items() if source != INPUT}
    constant = np.ascontiguousarray(form.constant)
    if constant.size != math.prod(form.shape):
        raise AssertionError("an affine form's constant has as many entries as the form")
    return Affine(states, form.terms.get(INPUT), constant, form.constant_error)
