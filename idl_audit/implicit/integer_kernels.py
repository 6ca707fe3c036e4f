"""Layers of quantised networks that runtimes compute with whole numbers of 32 bits, which the file does not name.

onnxruntime makes one kernel of DequantizeLinear, a convolution or a product, and QuantizeLinear. It adds up in int32,
which wraps around, reads a bias as a multiple of the scales of what it is added to, whatever scale it has of its own,
and quantises weights and biases that are floats (docs/mathematics.md, section 12).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node, shown
from idl_audit.implicit.affine import AffineForm, OnGrid
from idl_audit.implicit.build import Walked
from idl_audit.implicit.walk import TensorValue
from idl_audit.values.arrays import AnyArray, FloatArray

_LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_WHOLE: Final[Mapping[str, tuple[int, int | None]]] = {"QLinearConv": (3, 8), "QLinearMatMul": (3, None)}
"""Operators on whole numbers: which of their inputs are the weights, and the bias."""

LARGEST_SUM: Final = 2.0**31
"""Sums below this do not wrap around."""
WIDEST: Final = 255.0
"""A number of 8 bits, less its zero point, at most."""
SAME: Final = 2.0**-22
"""A share by which the scale of a bias may differ from the product of the two others: roundings of that."""


class _Constants:
    """Where constants and tensors of a network come from."""

    def __init__(self, walked: Walked) -> None:
        self.known, self.opset = walked.constants, walked.walk.opset
        self.makers = {name: node for node in walked.nodes for name in node.outputs if name}
        self.readers: dict[str, list[Node]] = {}
        for node in walked.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def grid_of(self, name: str) -> Node | None:
        """Return the DequantizeLinear that a tensor is made by, numbers being moved or cut off behind it."""
        node = self.makers.get(name)
        while node is not None and node.op in _PASSES and node.inputs:
            first = next((one for one in node.inputs if one and one not in self.known), node.inputs[0])
            node = self.makers.get(first)
        return node if node is not None and node.op == "DequantizeLinear" else None

    def is_quantised(self, node: Node) -> bool:
        """Whether what a layer makes is quantised, with numbers moved or cut off before."""
        left, seen = list(node.outputs), set[str]()
        while left:
            for reader in self.readers.get(left.pop(), []):
                if reader.op == "QuantizeLinear":
                    return True
                if reader.op in _PASSES and seen.isdisjoint(reader.outputs):
                    seen.update(reader.outputs)
                    left.extend(reader.outputs)
        return False

    def added(self, node: Node) -> tuple[str, Node]:
        """Return the name of what is added to a product, or "", and the node that adds it."""
        if node.op != "MatMul":
            return (node.inputs[2] if len(node.inputs) > 2 else ""), node
        for reader in self.readers.get(node.outputs[0], []):
            others = [name for name in reader.inputs if name in self.known]
            if reader.op == "Add" and others:
                return others[0], reader
        return "", node

    def number(self, node: Node, k: int) -> FloatArray | None:
        """Return an input of a node as numbers, where it is a constant."""
        value = self.known.get(node.inputs[k]) if len(node.inputs) > k else None
        return None if value is None else np.asarray(value, np.float64)

    def largest(self, grid: Node | None) -> float:
        """Return |q - zero| of constants on a grid at most; `WIDEST` of others."""
        whole = None if grid is None else self.number(grid, 0)
        zero = None if grid is None else self.number(grid, 2)
        if whole is None:
            return WIDEST
        return float(np.abs(whole).max(initial=0.0) + (0.0 if zero is None else np.abs(zero).max(initial=0.0)))


_PASSES: Final = frozenset(
    {
        *("Clip", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Identity", "Max", "MaxPool", "Min", "Pad", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze"),
        *("Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators past which runtimes move a DequantizeLinear."""


def in_other_integers(walked: Walked) -> Iterator[str]:
    """Yield what is to be said of layers that integer kernels may compute otherwise than in floats."""
    found = _Constants(walked)
    for node in walked.nodes:
        told: str | None = None
        if node.op in _LAYERS:
            told = _of_layer(node, found)
        elif node.op == "Softmax" and found.grid_of(node.inputs[0]) is not None and found.is_quantised(node):
            told = "between grids, which runtimes compute with whole numbers"
        elif node.op in _WHOLE:
            weights, bias = (None if k is None else found.number(node, k) for k in _WHOLE[node.op])
            most = WIDEST * WIDEST * (1 if weights is None else _terms(node, weights))
            told = None if most + _size(bias) < LARGEST_SUM else WRAPS
        if told is not None:
            yield f"{node.op} node '{shown(node.label)}', {told}"


WRAPS: Final = "whose sums may be beyond 32 bits, and wrap around"
_ELSEWHERE: Final = "whose {} not on the grid that the others are on: runtimes move them there"


_ALONE: Final = 19
"""From this operator set on onnxruntime has kernels of weights that are quantised beside numbers that are not."""
_ROUNDS: Final = "whose weights alone are quantised: runtimes round what they are multiplied by, too"


def wraps_around(arguments: Sequence[TensorValue | None]) -> bool:
    """Whether a product of two tensors, the first of them on a grid, adds up numbers beyond 32 bits."""
    first, second = arguments
    if not isinstance(first, OnGrid) or not isinstance(second, AffineForm) or not first.shape:
        return False
    return not WIDEST * WIDEST * first.shape[-1] < LARGEST_SUM


def _of_layer(node: Node, found: _Constants) -> str | None:
    """Return what is to be said of a layer with constant weights, or None."""
    read, *constant = node.inputs[:2] if node.inputs[0] not in found.known else node.inputs[1::-1]
    weights = found.known.get(constant[0]) if constant else None
    if weights is None:
        return None
    added, last = found.added(node)
    grid, of_bias = found.grid_of(constant[0]), found.grid_of(added) if added else None
    if grid is not None:
        most = WIDEST * found.largest(grid) * _terms(node, weights)
        if not most + (0.0 if of_bias is None else found.largest(of_bias)) < LARGEST_SUM:
            return WRAPS
    of_read = found.grid_of(read)
    if of_read is None:
        return _ROUNDS if grid is not None and node.op in ("Gemm", "MatMul") and found.opset >= _ALONE else None
    if grid is None or (added and of_bias is None):
        what = "weights are" if grid is None else "bias is"
        return _ELSEWHERE.format(what) if found.is_quantised(last) else None
    scales = [None if one is None else found.number(one, 1) for one in (of_read, grid, of_bias)]
    if of_bias is not None and not _fits(scales, found.number(of_bias, 2)):
        return _ELSEWHERE.format("bias is")
    return None


def _fits(scales: list[FloatArray | None], zero: FloatArray | None) -> bool:
    """Whether the last scale is the product of the others, and its zero point is 0."""
    first, second, last = scales
    if first is None or second is None or last is None or _size(zero):
        return False
    try:
        product, last = np.broadcast_arrays(first.reshape(-1) * second.reshape(-1), last.reshape(-1))
    except ValueError:
        return False
    return bool((np.abs(product - last) <= SAME * np.abs(last)).all())


def _terms(node: Node, weights: AnyArray) -> int:
    """Return how many products are added up, at most."""
    shape = weights.shape
    if node.op in ("Conv", "QLinearConv"):
        return math.prod(shape[1:])
    if node.op == "ConvTranspose":
        return math.prod((*shape[:1], *shape[2:]))
    if node.op == "Gemm" and node.attributes.get("transB", 0):
        return int(shape[-1])
    return int(shape[-2]) if len(shape) > 1 else math.prod(shape)


def _size(values: FloatArray | None) -> float:
    return 0.0 if values is None else float(np.abs(values).max(initial=0.0))
