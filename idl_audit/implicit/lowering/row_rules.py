"""What each operator does to the rows of a batch: whether they stay apart and alike, and along which axis they lie."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import INPUT, AffineForm
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.lowering.einsum import parsed, sizes_of
from idl_audit.implicit.lowering.recurrent import KINDS
from idl_audit.implicit.lowering.reductions import reduced_axes
from idl_audit.implicit.lowering.row_maps import one_map
from idl_audit.implicit.lowering.rows import (
    LARGEST_BATCH,
    Result,
    Rows,
    Rule,
    Tensor,
    aligned,
    lying_along,
    meet,
    row_part,
)
from idl_audit.implicit.lowering.sequences import SEQUENCES
from idl_audit.implicit.walk import TensorValue, Walk, int_attribute, ints_attribute
from idl_audit.values.arrays import AnyArray, IntArray


def _shape(value: Tensor | None) -> tuple[int, ...]:
    return () if value is None else tuple(value.shape)


def _only(arguments: Sequence[Tensor | None]) -> Rows:
    """Return the first input, the only one that may depend on the network's input."""
    first = arguments[0]
    if not isinstance(first, Rows) or any(isinstance(value, Rows) for value in arguments[1:]):
        meet()
    return first


def _moved(node: Node, arguments: Sequence[Tensor | None], shape: tuple[int, ...], opset: int) -> list[IntArray]:
    """Return, for each output of a movement, which entry of an input of this shape stands where; -1 for none."""
    form = AffineForm.of_source(INPUT, shape)
    given = [form if isinstance(value, Rows) else value for value in arguments]
    moved = []
    for made in LOWERINGS[node.op](node, given, Walk(opset)):
        term = made.terms.get(INPUT) if isinstance(made, AffineForm) else None
        if not isinstance(term, Selection):
            meet()
        moved.append(term.index.reshape(made.shape))
    return moved


def entrywise(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Keep rows where they are: an operator on entries, with broadcasting."""
    given = [value for value in arguments if value is not None]
    result = aligned(tuple(np.broadcast_shapes(*(value.shape for value in given))), given)
    adapted = {
        k: row_part(value, result.axis - len(result.shape) + value.ndim, result.owner)
        for k, value in enumerate(arguments)
        if isinstance(value, np.ndarray)
    }
    return [result], adapted


def _concat(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    given = [value for value in arguments if value is not None]
    rank = len(given[0].shape)
    axis = int_attribute(node, "axis", 0) % rank
    shape = tuple(sum(v.shape[a] for v in given) if a == axis else n for a, n in enumerate(given[0].shape))
    result = aligned(shape, given)
    if result.axis == axis or any(value.shape[result.axis] != len(result.owner) for value in given):
        meet()
    adapted = {
        k: row_part(value, result.axis, result.owner)
        for k, value in enumerate(arguments)
        if isinstance(value, np.ndarray)
    }
    return [result], adapted


def _matmul(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """A product with a constant: the axis that is summed over must not be the rows'. Of two batches, row by row."""
    left, right = arguments
    if isinstance(left, Rows) and isinstance(right, Rows):
        shape = np.matmul(np.broadcast_to(0.0, left.shape), np.broadcast_to(0.0, right.shape)).shape
        result = aligned(shape, (left, right))
        if min(len(left.shape), len(right.shape)) < 3 or result.axis >= len(shape) - 2:
            meet()
        return [result], {}
    k = 1 if isinstance(left, Rows) else 0
    rows, constant = (left, right) if k == 1 else (right, left)
    if not isinstance(rows, Rows) or not isinstance(constant, np.ndarray) or len(rows.shape) < 2:
        meet()
    behind = len(rows.shape) - rows.axis
    if behind == (1 if k == 1 else 2):
        meet()
    shape = np.matmul(np.broadcast_to(0.0, _shape(left)), np.broadcast_to(0.0, _shape(right))).shape
    lost = 1 if constant.ndim == 1 and behind > 1 else 0
    reached = constant.ndim - behind if behind > 2 else -1  # one matrix for each row, which must be one and the same
    return [Rows(shape, len(shape) - behind + lost, rows.owner)], {k: row_part(constant, reached, rows.owner)}


def _einsum(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Of one tensor of the batch, its map; of several, the rows' axes have one label, which the output has too."""
    given = [value for value in arguments if value is not None]
    batches = [value for value in given if isinstance(value, Rows)]
    if len(batches) < 2 or len(given) < len(arguments):
        return one_map(node, arguments, opset)
    terms, out = parsed(node, [len(value.shape) for value in given])
    owner = batches[0].owner
    labels = {term[value.axis] for term, value in zip(terms, given, strict=True) if isinstance(value, Rows)}
    (label, *more) = labels
    adapted = {}
    for k, (term, value) in enumerate(zip(terms, given, strict=True)):
        if term.count(label) > 1 or (isinstance(value, Rows) and not np.array_equal(value.owner, owner)):
            meet()
        if isinstance(value, np.ndarray) and label in term:
            adapted[k] = row_part(value, term.index(label), owner)
    if more or label not in out:
        meet()
    sizes = sizes_of(node, terms, [value.shape for value in given])
    return [Rows(tuple(sizes[name] for name in out), out.index(label), owner)], adapted


def _attention(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Operators that treat each index of axis 0 alone; a mask may have none of it."""
    first = next(value for value in arguments if isinstance(value, Rows))
    places = dict.fromkeys(range(len(arguments)), 0)
    mask = arguments[3] if node.op == "Attention" and len(arguments) > 3 else None
    if mask is not None and len(mask.shape) < 4:
        del places[3]
    given, adapted = _one_of_each(arguments, places, first.owner, stretches=(3,))
    if any(isinstance(value, Rows) for value in given):
        meet()
    made = LOWERINGS[node.op](node, given, Walk(opset))
    return [Rows((first.n, *value.shape[1:]), 0, first.owner) for value in made], adapted


def _determinant(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    rows = _only(arguments)
    if rows.axis >= len(rows.shape) - 2:
        meet()
    return [Rows(rows.shape[:-2], rows.axis, rows.owner)], {}


def _cumulation(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Running products along an axis."""
    rows, axis = _only(arguments), arguments[1]
    if not isinstance(axis, np.ndarray) or int(axis.reshape(-1)[0]) % len(rows.shape) == rows.axis:
        meet()
    return [rows], {}


def _gemm(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    left, right, *more = arguments
    turned = [bool(int_attribute(node, name, 0)) for name in ("transA", "transB")]
    side = 0 if isinstance(left, Rows) else 1
    rows, constant = (left, right) if side == 0 else (right, left)
    if not isinstance(rows, Rows) or not isinstance(constant, np.ndarray) or len(rows.shape) != 2:
        meet()
    if any(isinstance(value, Rows) for value in more) or (rows.axis ^ turned[side]) != side:
        meet()  # a product of two tensors of the batch, a sum over rows
    width = constant.shape[(1 - side) ^ turned[1 - side]]
    shape = (len(rows.owner), width) if side == 0 else (width, len(rows.owner))
    bias = more[0] if more else None
    adapted = {2: row_part(bias, side - 2 + bias.ndim, rows.owner)} if isinstance(bias, np.ndarray) else {}
    return [Rows(shape, side, rows.owner)], adapted


def _movement(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Run the operator on the positions of all rows, then on those of one: both must tell the same."""
    rows = _only(arguments)
    if math.prod(rows.shape) > LARGEST_BATCH:
        meet()
    adapted: dict[int, AnyArray] = {}
    whole = _moved(node, arguments, rows.shape, opset)
    row, local = rows.positions()
    results, parts = [], []
    for positions in whole:
        filled = positions < 0
        owner = np.where(filled, -1, row[positions])
        result = lying_along(owner, rows.n)
        part = np.where(filled, -1, local[positions])
        every = [np.compress(result.owner == k, part, axis=result.axis) for k in range(rows.n)]
        if any(not np.array_equal(every[0], other) for other in every[1:]):
            meet()
        results.append(result)
        parts.append(every[0])
    if node.op in ("Expand", "Reshape"):
        if 0 in results[0].row_shape:
            meet()
        adapted[1] = np.array(results[0].row_shape, np.int64)
    single = [adapted.get(k, value) for k, value in enumerate(arguments)]
    again = _moved(node, single, rows.row_shape, opset)
    if any(not np.array_equal(one, part) for one, part in zip(again, parts, strict=True)):
        meet()
    return results, adapted


def _images(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    rows = _only(arguments)
    if rows.axis != 0 or not rows.whole:
        meet()
    adapted: dict[int, AnyArray] = {}
    if node.op in ("Resize", "Upsample"):
        adapted = _one_image(node, arguments, rows)
    form = AffineForm.of_source(INPUT, rows.row_shape)
    given = [form if isinstance(v, Rows) else adapted.get(k, v) for k, v in enumerate(arguments)]
    (made,) = LOWERINGS[node.op](node, given, Walk(opset))
    if made.shape[0] != 1:
        meet()
    return [Rows((rows.n, *made.shape[1:]), 0, rows.owner)], adapted


def _one_image(node: Node, arguments: Sequence[Tensor | None], rows: Rows) -> dict[int, AnyArray]:
    """Return the sizes that a Resize of one image needs in place of those for all; images are not blended."""
    rank = len(rows.shape)
    if any(axis % rank == 0 for axis in ints_attribute(node, "axes", None) or ()):
        meet()
    factors = [value for value in arguments[1:3] if isinstance(value, np.ndarray) and value.size == rank]
    factors.append(np.asarray(node.attributes.get("scales", 1.0)))
    if any(value.reshape(-1)[0] != 1 for value in factors):
        meet()
    sizes = arguments[3] if len(arguments) > 3 else None
    if not isinstance(sizes, np.ndarray) or sizes.size != rank:
        return {}
    if sizes.reshape(-1)[0] != rows.n:
        meet()
    return {3: np.array([1, *sizes.reshape(-1)[1:]], sizes.dtype)}


def _reduction(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    rows = _only(arguments)
    given = arguments[1] if len(arguments) > 1 else None
    axes = reduced_axes(node, None if isinstance(given, Rows) else given, rows.shape)
    if rows.axis in axes:
        meet()
    if not axes:
        return [rows], {}
    keep = bool(int_attribute(node, "keepdims", 1))
    shape = tuple(1 if a in axes else n for a, n in enumerate(rows.shape) if keep or a not in axes)
    return [Rows(shape, rows.axis - (0 if keep else sum(a < rows.axis for a in axes)), rows.owner)], {}


def _competition(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    rows = _only(arguments)
    axis = int_attribute(node, "axis", -1 if opset >= 13 else 1) % len(rows.shape)
    if axis == rows.axis or (opset < 13 and axis < rows.axis):
        meet()
    return [rows], {}


def _normalisation(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """At inference, a scale and a shift for each index of axis 1; training mode is refused by its lowering."""
    rows = _only(arguments)
    if rows.axis == 1:
        meet()
    return [rows], {}


def _trailing(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Norms over the axes from `axis` on, with scales of these axes: rows lie before them."""
    rows = _only(arguments)
    first = int_attribute(node, "axis", -1) % len(rows.shape)
    scales = [value.ndim for value in arguments[1:] if isinstance(value, np.ndarray)]
    if rows.axis >= first or max(scales, default=0) > len(rows.shape) - 1 - rows.axis:
        meet()
    return [rows], {}


def _vectors(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    rows = _only(arguments)
    if int_attribute(node, "axis", -1) % len(rows.shape) == rows.axis:
        meet()
    return [rows], {}


def _axes_alone(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    rows = _only(arguments)
    axes = ints_attribute(node, "axes", (0, 2, 3)) or ()
    if rows.axis in {axis % len(rows.shape) for axis in axes}:
        meet()
    return [rows], {}


def _recurrent(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Sequences side by side: axis 1 of input and first states, 2 of all states; the first of all where layout is 1."""
    rows = arguments[0]
    batch_first = bool(int_attribute(node, "layout", 0))
    places = {0: 0 if batch_first else 1, 4: 0, **dict.fromkeys((5, 6), 0 if batch_first else 1)}
    if not isinstance(rows, Rows) or len(rows.shape) != 3:
        meet()
    given, adapted = _one_of_each(arguments, places, rows.owner)
    made = LOWERINGS[node.op](node, given, Walk(opset))
    axes = [0 if batch_first else 2 if k == 0 else 1 for k in range(len(made))]
    shapes = [(*m.shape[:a], rows.n, *m.shape[a + 1 :]) for m, a in zip(made, axes, strict=True)]
    return [Rows(shape, axis, rows.owner) for shape, axis in zip(shapes, axes, strict=True)], adapted


def _one_of_each(
    arguments: Sequence[Tensor | None], places: Mapping[int, int], owner: IntArray, stretches: Container[int] = ()
) -> tuple[list[TensorValue | None], dict[int, AnyArray]]:
    """Return the inputs of one row, where each lies along its own axis: input -> axis; and the constants among them.

    Only inputs that `stretches` names may have one entry for all rows.
    """
    given: list[TensorValue | None] = []
    adapted: dict[int, AnyArray] = {}
    for k, value in enumerate(arguments):
        if isinstance(value, Rows):
            if value.axis != places.get(k) or not value.whole or not np.array_equal(value.owner, owner):
                meet()
            given.append(AffineForm.of_source(k, value.row_shape))
        elif value is not None and k in places:
            if value.shape[places[k]] != len(owner) and k not in stretches:
                meet()
            adapted[k] = row_part(value, places[k], owner)
            given.append(adapted[k])
        else:
            given.append(value)
    return given, adapted


def _grid(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """One scale for all entries: rows stay where they are."""
    rows = _only(arguments)
    if any(isinstance(value, np.ndarray) and value.size > 1 for value in arguments[1:]):
        meet()
    return [rows], {}


def _together(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Lists of tensors, losses over a batch, quantised products: their rows are not followed."""
    meet()


def _top_k(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    rows = _only(arguments)
    axis = int_attribute(node, "axis", -1) % len(rows.shape)
    if axis == rows.axis:
        meet()
    given = arguments[1] if len(arguments) > 1 else np.asarray(node.attributes.get("k", 1))
    assert isinstance(given, np.ndarray)
    shape = tuple(int(given.reshape(-1)[0]) if a == axis else n for a, n in enumerate(rows.shape))
    return [Rows(shape, rows.axis, rows.owner)], {}


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
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
                *("AffineGrid", "CenterCropPad", "Col2Im", "Compress", "CumSum", "DFT", "GatherElements"),
                *("GridSample", "MaxUnpool", "OneHot", "ReverseSequence", "RotaryEmbedding", "STFT", "Scatter"),
                *("ScatterElements", "ScatterND", "TensorScatter", "Trilu"),
            ),
            one_map,
        ),
        **dict.fromkeys(
            (
                *("AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"),
                *("LpPool", "MaxPool", "QLinearConv", "Resize", "Upsample"),
            ),
            _images,
        ),
        **dict.fromkeys(
            (
                *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
                *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
            ),
            _reduction,
        ),
        **dict.fromkeys(("LogSoftmax", "Softmax"), _competition),
        **dict.fromkeys(("Attention", "LinearAttention"), _attention),
        "BatchNormalization": _normalisation,
        **dict.fromkeys(("GroupNormalization", "InstanceNormalization", "LRN"), _images),
        **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _trailing),
        "LpNormalization": _vectors,
        "MeanVarianceNormalization": _axes_alone,
        "Concat": _concat,
        "CumProd": _cumulation,
        "Det": _determinant,
        "Einsum": _einsum,
        "Gemm": _gemm,
        "MatMul": _matmul,
        **dict.fromkeys(KINDS, _recurrent),
        "TopK": _top_k,
        **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _grid),
        **dict.fromkeys(
            (*SEQUENCES, "NegativeLogLikelihoodLoss", "QLinearMatMul", "SoftmaxCrossEntropyLoss"),
            _together,
        ),
        **dict.fromkeys(
            (
                *("Abs", "Add", "Cast", "CastLike", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Gelu"),
                *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Mean", "Min", "Mish", "Mod", "Mul"),
                *("Neg", "Optional", "OptionalGetElement", "PRelu", "Pow", "Relu", "Selu", "Shrink", "Sigmoid"),
                *("Silu", "Softplus", "Softsign", "Sub", "Sum", "SwiGLU", "Swish", "Tanh", "ThresholdedRelu", "Where"),
                *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Exp", "Log", "Reciprocal"),
                *("Sin", "Sinh", "Sqrt", "Tan"),
                *("And", "Ceil", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Round"),
                *("Equal", "Sign", "Xor"),
            ),
            entrywise,
        ),
    }
)
"""What every operator of LOWERINGS (but those of CONSTANT) and of SEQUENCES does to the rows of a batch."""
