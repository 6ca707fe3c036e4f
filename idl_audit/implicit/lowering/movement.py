"""Data movement: reshapes, slices, transposes, padding, ... - all of them one lowering.

The operator runs on an array of positions instead of numbers; what comes out says where every output entry came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from idl_audit.arrays import AnyArray, IntArray
from idl_audit.graph.folding import fold_node
from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    optional_constant,
    refuse,
    text_attribute,
)

NOWHERE = -1
"""The position of what padding puts in."""


def lower_movement(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Every operator that only moves its first input's entries."""
    return _moved(node, values, (0,), walk)


def lower_concat(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Concat: every input moves."""
    return _moved(node, values, tuple(range(len(values))), walk)


def lower_pad(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Pad with a constant, by reflection, by the edge, or around; negative pads crop, before the others are put on."""
    fill = 0.0
    inputs = list(values)
    attributes = dict(node.attributes)
    if walk.opset < 11:
        value = attributes.pop("value", 0.0)
        fill = float(value) if isinstance(value, (int, float)) else 0.0
        inputs = [values[0], np.asarray(attributes.pop("pads"), np.int64)]
    elif (given := optional_constant(node, values, 2, "padding value")) is not None and given.size:
        fill = float(given.reshape(-1)[0])
    form, pads = form_input(node, inputs, 0), constant_input(node, inputs, 1, "list of pads").reshape(-1)
    if pads.size and pads.min() < 0:
        axes = optional_constant(node, inputs, 3, "list of axes")
        inputs[0] = _cropped(node, form, pads, range(len(form.shape)) if axes is None else axes.reshape(-1), walk)
        inputs[1] = np.maximum(pads, 0)
    if text_attribute(node, "mode", "constant") == "constant":
        rest = inputs[3:]
        inputs = [*inputs[:2], np.asarray(NOWHERE, np.float64), *rest]
    elif len(inputs) > 2:
        inputs[2] = None  # a value that no entry gets
    moved = Node(node.op, node.name, tuple(f"input{k}" for k in range(len(inputs))), node.outputs, attributes)
    return _moved(moved, inputs, (0,), walk, fill=fill, opset=max(walk.opset, 11))


def _cropped(node: Node, form: AffineForm, pads: AnyArray, axes: Iterable[int], walk: Walk) -> AffineForm:
    """Return the form without what negative pads take off its ends."""
    kept = [slice(0, size) for size in form.shape]
    axes = [int(axis) for axis in axes]
    if pads.size != 2 * len(axes) or any(not -len(kept) <= axis < len(kept) for axis in axes):
        refuse(node, f"has the pads {pads.tolist()} for the axes {axes} of a tensor of shape {form.shape}")
    for k, axis in enumerate(axes):
        before, behind = (max(0, -int(pads[j])) for j in (k, len(axes) + k))
        if before + behind > form.shape[axis]:
            refuse(node, f"crops {before + behind} entries of axis {axis}, which has {form.shape[axis]}")
        kept[axis] = slice(before, form.shape[axis] - behind)
    return walk.select(node, form, np.ascontiguousarray(flat_indices(form.shape)[tuple(kept)]))


def lower_shape(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Shape: known once and for all, since a sample has one shape."""
    value = values[0]
    if value is None:
        refuse(node, "has no input")
    shape = value.shape
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    if not isinstance(start, int) or not isinstance(end, int):
        refuse(node, "has a start or end that is no integer")
    return (np.asarray(shape, np.int64)[start:end],)


def lower_size(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Size: the number of entries."""
    value = values[0]
    if value is None:
        refuse(node, "has no input")
    return (np.asarray(value.size, np.int64),)


def lower_identity(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Identity, and Cast between floating-point types."""
    if values[0] is None:
        refuse(node, "has no input")
    return (values[0],)


def lower_cast(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Cast: the same number in another floating-point type; integers would round it."""
    target = node.attributes.get("to")
    if target not in _FLOAT_TYPES:
        refuse(
            node, f"casts a tensor that depends on the input to type {target}, which rounds it; only floats are linear"
        )
    return lower_identity(node, values, walk)


_FLOAT_TYPES = (1, 10, 11, 16)
"""TensorProto's numbers of float, float16, double, bfloat16."""


def lower_dropout(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Dropout at inference: nothing."""
    training = optional_constant(node, values, 2, "training mode")
    if training is not None and bool(np.any(training)):
        refuse(node, "is in training mode; export the model after model.eval()")
    if len(node.outputs) > 1 and node.outputs[1]:
        shape = values[0].shape if values[0] is not None else ()
        mask = np.full(shape, walk.opset >= 12)  # before, runtimes return a mask of nothing
        return (*lower_identity(node, values, walk), mask)
    return lower_identity(node, values, walk)


def _moved(
    node: Node,
    values: Sequence[TensorValue | None],
    data: tuple[int, ...],
    walk: Walk,
    *,
    fill: float = 0.0,
    opset: int | None = None,
) -> tuple[TensorValue, ...]:
    """Run the operator on positions: input k of `data` is numbered from the end of the one before."""
    starts: dict[int, int] = {}
    arguments: list[AnyArray | None] = []
    total = 0
    for k, value in enumerate(values):
        if k in data and value is not None:
            starts[k] = total
            # positions travel as float64 (exact below 2^53): old operator sets move floating-point numbers only
            arguments.append((flat_indices(value.shape) + total).astype(np.float64))
            total += int(np.prod(value.shape, dtype=np.int64))
        elif isinstance(value, AffineForm):
            refuse(node, f"has an input {k} that depends on the network's input; only constants can be handled there")
        else:
            arguments.append(value)
    results = fold_node(node, arguments, walk.opset if opset is None else opset)
    sources, first = [values[k] for k in starts], [*starts.values(), total]
    return tuple(_gather(node, walk, sources, first, np.asarray(index, np.int64), fill) for index in results)


def _gather(
    node: Node,
    walk: Walk,
    sources: Sequence[TensorValue | None],
    first: Sequence[int],
    positions: IntArray,
    fill: float,
) -> AffineForm:
    """Return the tensor whose entry t is the entry number positions[t] of the sources laid end to end."""
    result = AffineForm(positions.shape, {}, np.where(positions.reshape(-1) == NOWHERE, fill, 0.0))
    for source, start, stop in zip(sources, first[:-1], first[1:], strict=True):
        here = (positions >= start) & (positions < stop)
        if isinstance(source, AffineForm):
            result = result.plus(walk.select(node, source, np.where(here, positions - start, NOWHERE)))
        elif source is not None and here.any():
            flat = source.reshape(-1).astype(np.float64)
            chosen = np.where(here, flat[np.where(here, positions - start, 0)], 0.0)
            result = result.shifted(chosen.reshape(-1))
    return result
