"""Lists of tensors (ONNX's sequences): they are taken apart again before a network ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.lowering.movement import lower_concat
from idl_audit.implicit.walk import TensorValue, Walk, constant_input, flat_indices, int_attribute, refuse


@dataclass(frozen=True)
class TensorList:
    """Tensors in an order; constants and forms alike."""

    tensors: tuple[TensorValue, ...]


Item = TensorValue | TensorList
_Lowering = Callable[[Node, Sequence[Item | None], Walk], Item]


def _constructed(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    return TensorList(tuple(_tensor(node, value) for value in values))


def _empty(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    return TensorList(())


def _picked(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    return _list(node, values).tensors[_position(node, values, 1)]


def _inserted(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    tensors = list(_list(node, values).tensors)
    position = _position(node, values, 2) if len(values) > 2 and values[2] is not None else len(tensors)
    tensors.insert(position, _tensor(node, values[1]))
    return TensorList(tuple(tensors))


def _erased(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    tensors = list(_list(node, values).tensors)
    del tensors[_position(node, values, 1) if len(values) > 1 and values[1] is not None else -1]
    return TensorList(tuple(tensors))


def _length(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    return np.asarray(len(_list(node, values).tensors), np.int64)


def _split(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    """SplitToSequence: pieces of one length (the last may be shorter), of given lengths, or of length 1."""
    tensor = _tensor(node, values[0])
    rank, axis = len(tensor.shape), int_attribute(node, "axis", 0)
    if not -rank <= axis < rank:
        refuse(node, f"splits axis {axis} of a tensor of shape {tensor.shape}")
    axis %= rank
    size = tensor.shape[axis]
    given = values[1] if len(values) > 1 else None
    if isinstance(given, np.ndarray) and given.ndim:
        lengths = [int(n) for n in given]
    elif isinstance(given, np.ndarray) and given > 0:
        lengths = [min(int(given), size - start) for start in range(0, size, int(given))]
    else:
        lengths = [1] * size
    if sum(lengths) != size or isinstance(given, (AffineForm, TensorList)):
        refuse(node, f"splits axis {axis} of a tensor of shape {tensor.shape} into pieces of {lengths}")
    keeps = given is not None or bool(int_attribute(node, "keepdims", 1))
    pieces = np.split(flat_indices(tensor.shape), np.cumsum(lengths)[:-1], axis=axis)
    if not keeps:
        pieces = [piece.squeeze(axis) for piece in pieces]
    return TensorList(tuple(_entries(node, tensor, np.ascontiguousarray(piece), walk) for piece in pieces))


def _entries(node: Node, tensor: TensorValue, index: np.ndarray, walk: Walk) -> TensorValue:
    return walk.select(node, tensor, index) if isinstance(tensor, AffineForm) else tensor.reshape(-1)[index]


def _joined(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    """ConcatFromSequence: Concat, along an axis of the tensors or a new one."""
    tensors = list(_list(node, values).tensors)
    if not tensors:
        refuse(node, "joins an empty list of tensors")
    axis = int_attribute(node, "axis", 0)
    if int_attribute(node, "new_axis", 0):
        rank = len(tensors[0].shape) + 1
        shape = list(tensors[0].shape)
        shape.insert(axis % rank, 1)
        tensors = [_reshaped(tensor, tuple(shape)) for tensor in tensors]
    if not any(isinstance(tensor, AffineForm) for tensor in tensors):
        return np.concatenate([np.asarray(tensor) for tensor in tensors], axis=axis)
    names = tuple(f"input{k}" for k in range(len(tensors)))
    (made,) = lower_concat(Node("Concat", node.label, names, node.outputs, {"axis": axis}), tensors, walk)
    return made


def _reshaped(tensor: TensorValue, shape: tuple[int, ...]) -> TensorValue:
    return tensor.reshaped(shape) if isinstance(tensor, AffineForm) else tensor.reshape(shape)


def _list(node: Node, values: Sequence[Item | None]) -> TensorList:
    if not values or not isinstance(values[0], TensorList):
        refuse(node, "needs a list of tensors")
    return values[0]


def _tensor(node: Node, value: Item | None) -> TensorValue:
    if value is None or isinstance(value, TensorList):
        refuse(node, "needs a tensor and has a list of tensors, or nothing")
    return value


def _position(node: Node, values: Sequence[Item | None], k: int) -> int:
    given = [None if isinstance(value, TensorList) else value for value in values]
    return int(constant_input(node, given, k, "position").reshape(-1)[0])


SEQUENCES: Final[Mapping[str, _Lowering]] = MappingProxyType(
    {
        "ConcatFromSequence": _joined,
        "SequenceAt": _picked,
        "SequenceConstruct": _constructed,
        "SequenceEmpty": _empty,
        "SequenceErase": _erased,
        "SequenceInsert": _inserted,
        "SequenceLength": _length,
        "SplitToSequence": _split,
    }
)
"""Operators that make lists of tensors, or read them."""


def lower_sequence(node: Node, values: Sequence[Item | None], walk: Walk) -> Item:
    """Lower a node of SEQUENCES, or an Identity of a list. Raises UnsupportedModelError for any other reader of one."""
    if node.op == "Identity" and isinstance(values[0], TensorList):
        return values[0]
    if node.op not in SEQUENCES:
        refuse(node, f"reads a list of tensors; read by {', '.join(SEQUENCES)} it can be, and Identity")
    made = SEQUENCES[node.op](node, values, walk)
    if isinstance(made, TensorList):
        return TensorList(walk.finished(node, (), made.tensors))
    return walk.finished(node, (), (made,))[0]
