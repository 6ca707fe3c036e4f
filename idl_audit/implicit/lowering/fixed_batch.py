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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias

import numpy as np

from idl_audit.arrays import AnyArray, IntArray
from idl_audit.errors import MemoryLimitError, UnsupportedModelError
from idl_audit.graph.folding import fold_node
from idl_audit.graph.ir import Graph, Node, live_nodes
from idl_audit.implicit.affine import INPUT, AffineForm
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.lowering.pooling import reduced_axes
from idl_audit.implicit.walk import Walk, int_attribute, ints_attribute

LARGEST_BATCH: Final = 2**24
"""Entries of a batch's tensor beyond which its positions are not followed."""


class _MeetError(Exception):
    """The rows may meet here, or are not alike: the file is no batch as far as can be told."""


def _meet() -> NoReturn:
    raise _MeetError


@dataclass(frozen=True)
class _Rows:
    """A tensor of the whole batch: index j of `axis` belongs to row `owner`[j], and every row has as many."""

    shape: tuple[int, ...]
    axis: int
    owner: IntArray

    @property
    def n(self) -> int:
        """The number N of rows."""
        return int(self.owner.max()) + 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row's part."""
        return self.with_axis(len(self.owner) // self.n)

    @property
    def whole(self) -> bool:
        """Whether the axis counts the rows and nothing else."""
        return len(self.owner) == self.n

    def with_axis(self, length: int) -> tuple[int, ...]:
        """Return the shape with another length of the rows' axis."""
        return (*self.shape[: self.axis], length, *self.shape[self.axis + 1 :])

    def positions(self) -> tuple[IntArray, IntArray]:
        """Return, for each entry of the tensor, its row and its flat position in that row's part; both flat."""
        along = [-1 if axis == self.axis else 1 for axis in range(len(self.shape))]
        row = np.broadcast_to(self.owner.reshape(along), self.shape)
        local = np.empty(self.shape, np.int64)
        for k in range(self.n):
            here = self.owner == k
            part = np.arange(math.prod(self.row_shape)).reshape(self.row_shape)
            local[(slice(None),) * self.axis + (here,)] = part
        return row.reshape(-1), local.reshape(-1)


_Tensor: TypeAlias = AnyArray | _Rows
_Result: TypeAlias = tuple[list[_Rows], dict[int, AnyArray]]
"""The node's outputs, and the constants that one row of the batch needs in place of the file's, by input."""
_Rule: TypeAlias = Callable[[Node, Sequence[_Tensor | None], int], _Result]
"""What an operator does to rows: (node, inputs, operator set) -> result."""


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
    walk.values[entry.name] = _Rows(shape, 0, np.arange(shape[0]))
    try:
        for node in live_nodes(graph.nodes, [output]):
            walk.follow(node)
    except (_MeetError, MemoryLimitError, UnsupportedModelError):
        return None
    except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # a node that contradicts itself, which `build_implicit` says
    result = walk.values.get(output)
    if not isinstance(result, _Rows) or result.axis != 0 or not result.whole or result.n != shape[0]:
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
        self.values: dict[str, _Tensor] = dict(graph.constants)
        self.constants: dict[str, AnyArray] = dict(graph.constants)
        self.nodes: list[Node] = []
        self._opset = opset
        self._taken = {*graph.constants, *(value.name for value in graph.inputs)}
        self._taken.update(name for node in graph.nodes for name in node.outputs)

    def follow(self, node: Node) -> None:
        """Follow the rows through one node, and write the node down for one row."""
        arguments = [self.values[name] if name else None for name in node.inputs]
        if not any(isinstance(value, _Rows) for value in arguments):
            self._constants(node, fold_node(node, [v for v in arguments if not isinstance(v, _Rows)], self._opset))
            return
        if node.op in ("Shape", "Size"):
            shapes = [np.broadcast_to(0.0, value.shape) for value in arguments if value is not None]
            found = LOWERINGS[node.op](node, shapes, Walk(self._opset))
            self._constants(node, [value for value in found if not isinstance(value, AffineForm)])
            return
        rule = RULES.get(node.op)
        if rule is None and node.op in LOWERINGS:
            _meet()
        results, adapted = (rule or _entrywise)(node, arguments, self._opset)
        if len(results) < _used(node):
            _meet()
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


def _shape(value: _Tensor | None) -> tuple[int, ...]:
    return () if value is None else tuple(value.shape)


def _only(arguments: Sequence[_Tensor | None]) -> _Rows:
    """Return the first input, the only one that may depend on the network's input."""
    first = arguments[0]
    if not isinstance(first, _Rows) or any(isinstance(value, _Rows) for value in arguments[1:]):
        _meet()
    return first


def _moved(node: Node, arguments: Sequence[_Tensor | None], shape: tuple[int, ...], opset: int) -> list[IntArray]:
    """Return, for each output of a movement, which entry of an input of this shape stands where; -1 for none."""
    form = AffineForm.of_source(INPUT, shape)
    given = [form if isinstance(value, _Rows) else value for value in arguments]
    moved = []
    for made in LOWERINGS[node.op](node, given, Walk(opset)):
        term = made.terms.get(INPUT) if isinstance(made, AffineForm) else None
        if not isinstance(term, Selection):
            _meet()
        moved.append(term.index.reshape(made.shape))
    return moved


def _lying_along(owner: IntArray, n: int) -> _Rows:
    """Return the axis along which entries with these owners (-1: none) lie row by row; as many for each of n rows."""
    for axis, length in enumerate(owner.shape):
        if not owner.size or length % n:
            continue
        lines = np.moveaxis(owner, axis, 0).reshape(length, -1)
        most = lines.max(axis=1)
        if ((lines == most[:, None]) | (lines < 0)).all() and (
            np.bincount(most[most >= 0], minlength=n) * n == length
        ).all():
            return _Rows(owner.shape, axis, most)
    _meet()


def _part(constant: AnyArray, axis: int, owner: IntArray) -> AnyArray:
    """Return a constant's part for one row, the same for every row: itself where it does not reach along the axis."""
    if axis < 0 or constant.shape[axis] == 1:
        return constant
    if constant.shape[axis] != len(owner):
        _meet()
    parts = [np.compress(owner == k, constant, axis=axis) for k in range(int(owner.max()) + 1)]
    if any(not np.array_equal(parts[0], other) for other in parts[1:]):
        _meet()
    return parts[0]


def _aligned(shape: tuple[int, ...], values: Sequence[_Tensor]) -> _Rows:
    """Return the rows of a tensor of this shape, to which the values are broadcast: theirs, if all agree."""
    found: list[_Rows] = []
    for value in values:
        if isinstance(value, _Rows):
            found.append(_Rows(shape, value.axis + len(shape) - len(value.shape), value.owner))
    first = found[0]
    if any(other.axis != first.axis or not np.array_equal(other.owner, first.owner) for other in found):
        _meet()
    if shape[first.axis] != len(first.owner):
        _meet()
    return first


def _entrywise(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    given = [value for value in arguments if value is not None]
    result = _aligned(tuple(np.broadcast_shapes(*(value.shape for value in given))), given)
    adapted = {
        k: _part(value, result.axis - len(result.shape) + value.ndim, result.owner)
        for k, value in enumerate(arguments)
        if isinstance(value, np.ndarray)
    }
    return [result], adapted


def _concat(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    given = [value for value in arguments if value is not None]
    rank = len(given[0].shape)
    axis = int_attribute(node, "axis", 0) % rank
    shape = tuple(sum(v.shape[a] for v in given) if a == axis else n for a, n in enumerate(given[0].shape))
    result = _aligned(shape, given)
    if result.axis == axis or any(value.shape[result.axis] != len(result.owner) for value in given):
        _meet()
    adapted = {
        k: _part(value, result.axis, result.owner) for k, value in enumerate(arguments) if isinstance(value, np.ndarray)
    }
    return [result], adapted


def _matmul(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    """A product with a constant: the axis that is summed over must not be the rows'."""
    left, right = arguments
    k = 1 if isinstance(left, _Rows) else 0
    rows, constant = (left, right) if k == 1 else (right, left)
    if not isinstance(rows, _Rows) or not isinstance(constant, np.ndarray) or len(rows.shape) < 2:
        _meet()
    behind = len(rows.shape) - rows.axis
    if behind == (1 if k == 1 else 2):
        _meet()
    shape = np.matmul(np.broadcast_to(0.0, _shape(left)), np.broadcast_to(0.0, _shape(right))).shape
    lost = 1 if constant.ndim == 1 and behind > 1 else 0
    reached = constant.ndim - behind if behind > 2 else -1  # one matrix for each row, which must be one and the same
    return [_Rows(shape, len(shape) - behind + lost, rows.owner)], {k: _part(constant, reached, rows.owner)}


def _gemm(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    left, right, *more = arguments
    turned = [bool(int_attribute(node, name, 0)) for name in ("transA", "transB")]
    side = 0 if isinstance(left, _Rows) else 1
    rows, constant = (left, right) if side == 0 else (right, left)
    if not isinstance(rows, _Rows) or not isinstance(constant, np.ndarray) or len(rows.shape) != 2:
        _meet()
    if any(isinstance(value, _Rows) for value in more) or (rows.axis ^ turned[side]) != side:
        _meet()  # a product of two tensors of the batch, a sum over rows
    width = constant.shape[(1 - side) ^ turned[1 - side]]
    shape = (len(rows.owner), width) if side == 0 else (width, len(rows.owner))
    bias = more[0] if more else None
    adapted = {2: _part(bias, side - 2 + bias.ndim, rows.owner)} if isinstance(bias, np.ndarray) else {}
    return [_Rows(shape, side, rows.owner)], adapted


def _movement(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    """Run the operator on the positions of all rows, then on those of one: both must tell the same."""
    rows = _only(arguments)
    if math.prod(rows.shape) > LARGEST_BATCH:
        _meet()
    adapted: dict[int, AnyArray] = {}
    whole = _moved(node, arguments, rows.shape, opset)
    row, local = rows.positions()
    results, parts = [], []
    for positions in whole:
        filled = positions < 0
        owner = np.where(filled, -1, row[positions])
        result = _lying_along(owner, rows.n)
        part = np.where(filled, -1, local[positions])
        every = [np.compress(result.owner == k, part, axis=result.axis) for k in range(rows.n)]
        if any(not np.array_equal(every[0], other) for other in every[1:]):
            _meet()
        results.append(result)
        parts.append(every[0])
    if node.op in ("Expand", "Reshape"):
        if 0 in results[0].row_shape:
            _meet()
        adapted[1] = np.array(results[0].row_shape, np.int64)
    single = [adapted.get(k, value) for k, value in enumerate(arguments)]
    again = _moved(node, single, rows.row_shape, opset)
    if any(not np.array_equal(one, part) for one, part in zip(again, parts, strict=True)):
        _meet()
    return results, adapted


def _images(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    rows = _only(arguments)
    if rows.axis != 0 or not rows.whole:
        _meet()
    adapted: dict[int, AnyArray] = {}
    if node.op in ("Resize", "Upsample"):
        adapted = _one_image(node, arguments, rows)
    form = AffineForm.of_source(INPUT, rows.row_shape)
    given = [form if isinstance(v, _Rows) else adapted.get(k, v) for k, v in enumerate(arguments)]
    (made,) = LOWERINGS[node.op](node, given, Walk(opset))
    if made.shape[0] != 1:
        _meet()
    return [_Rows((rows.n, *made.shape[1:]), 0, rows.owner)], adapted


def _one_image(node: Node, arguments: Sequence[_Tensor | None], rows: _Rows) -> dict[int, AnyArray]:
    """Return the sizes that a Resize of one image needs in place of those for all; images are not blended."""
    rank = len(rows.shape)
    if any(axis % rank == 0 for axis in ints_attribute(node, "axes", None) or ()):
        _meet()
    factors = [value for value in arguments[1:3] if isinstance(value, np.ndarray) and value.size == rank]
    factors.append(np.asarray(node.attributes.get("scales", 1.0)))
    if any(value.reshape(-1)[0] != 1 for value in factors):
        _meet()
    sizes = arguments[3] if len(arguments) > 3 else None
    if not isinstance(sizes, np.ndarray) or sizes.size != rank:
        return {}
    if sizes.reshape(-1)[0] != rows.n:
        _meet()
    return {3: np.array([1, *sizes.reshape(-1)[1:]], sizes.dtype)}


def _reduction(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    rows = _only(arguments)
    given = arguments[1] if len(arguments) > 1 else None
    axes = reduced_axes(node, None if isinstance(given, _Rows) else given, rows.shape)
    if rows.axis in axes:
        _meet()
    if not axes:
        return [rows], {}
    keep = bool(int_attribute(node, "keepdims", 1))
    shape = tuple(1 if a in axes else n for a, n in enumerate(rows.shape) if keep or a not in axes)
    return [_Rows(shape, rows.axis - (0 if keep else sum(a < rows.axis for a in axes)), rows.owner)], {}


def _competition(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    rows = _only(arguments)
    axis = int_attribute(node, "axis", -1 if opset >= 13 else 1) % len(rows.shape)
    if axis == rows.axis or (opset < 13 and axis < rows.axis):
        _meet()
    return [rows], {}


def _normalisation(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    """At inference, a scale and a shift for each index of axis 1; training mode is refused by its lowering."""
    rows = _only(arguments)
    if rows.axis == 1:
        _meet()
    return [rows], {}


def _rnn(node: Node, arguments: Sequence[_Tensor | None], opset: int) -> _Result:
    rows = _only(arguments)
    if len(rows.shape) != 3 or rows.axis != 1 or not rows.whole:
        _meet()
    adapted = {}
    for k, axis in ((4, 0), (5, 1)):  # lengths of the sequences, first states
        value = arguments[k] if k < len(arguments) else None
        if isinstance(value, np.ndarray):
            adapted[k] = _part(value, axis, rows.owner)
    form = AffineForm.of_source(INPUT, rows.row_shape)
    given = [form if isinstance(v, _Rows) else adapted.get(k, v) for k, v in enumerate(arguments)]
    made = LOWERINGS[node.op](node, given, Walk(opset))
    axes = (2, 1)
    shapes = [(*m.shape[:a], rows.n, *m.shape[a + 1 :]) for m, a in zip(made, axes, strict=True)]
    return [_Rows(shape, axis, rows.owner) for shape, axis in zip(shapes, axes, strict=True)], adapted


RULES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("DepthToSpace", "Expand", "Flatten", "Gather", "GatherND", "Pad", "Reshape", "Slice"),
                *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
            ),
            _movement,
        ),
        **dict.fromkeys(
            (
                *("AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool"),
                *("MaxPool", "Resize", "Upsample"),
            ),
            _images,
        ),
        **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduction),
        **dict.fromkeys(("LogSoftmax", "Softmax"), _competition),
        "BatchNormalization": _normalisation,
        "Concat": _concat,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "RNN": _rnn,
        **dict.fromkeys(
            (
                *("Abs", "Add", "Cast", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Gelu", "HardSigmoid"),
                *("HardSwish", "Identity", "LeakyRelu", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu", "Relu"),
                *("Selu", "Sigmoid", "Silu", "Softplus", "Softsign", "Sub", "Sum", "Swish", "Tanh"),
                "ThresholdedRelu",
            ),
            _entrywise,
        ),
    }
)
"""What every operator of LOWERINGS but Shape and Size does to the rows of a batch."""
