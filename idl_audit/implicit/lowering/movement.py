"""Data movement: reshapes, slices, transposes, padding, ... - all of them one lowering.

The operator runs on an array of positions instead of numbers; what comes out says where every output entry came from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.folding import fold_node
from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm, PartlyAbsent, Whole, typed
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.lowering.arithmetic import add_values, broadcast, lower_mul, negated
from idl_audit.implicit.walk import (
    NO_BOUND,
    ONLY_CONSTANTS,
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    int_attribute,
    ints_attribute,
    optional_constant,
    refuse,
    refuse_infinity,
    text_attribute,
    type_of,
)
from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.rounding import gamma

NOWHERE = -1
"""The position of what padding puts in."""


def lower_movement(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Every operator that only moves its first input's entries, or those of the inputs that `MOVED` names."""
    return moved(node, values, MOVED.get(node.op, (0,)), walk)


MOVED: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType({"OneHot": (2,), "TensorScatter": (0, 1)})
"""Which inputs' entries an operator moves, where these are not the first input's alone."""


def lower_filled_movement(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Every operator that moves its first input's entries and fills up with zeros."""
    return moved(node, values, (0,), walk, zeros=True)


def lower_gather_elements(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GatherElements: each index picks along the axis, at its own place along the others."""
    form = form_input(node, values, 0)
    return (walk.select(node, form, places_along(node, constant_input(node, values, 1, "indices"), form.shape)),)


def places_along(node: Node, indices: AnyArray, shape: tuple[int, ...]) -> IntArray:
    """Return the flat place in a tensor that each index names: its own position, with the index along the axis."""
    axis = int_attribute(node, "axis", 0)
    if not -len(shape) <= axis < len(shape) or indices.ndim != len(shape):
        refuse(node, f"has indices of shape {indices.shape} along axis {axis} of a tensor of shape {shape}")
    grid: list[AnyArray] = list(np.indices(indices.shape, sparse=True))
    grid[axis % len(shape)] = indices
    return np.asarray(flat_indices(shape)[tuple(grid)])


def lower_max_unpool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """MaxUnpool at constant places of the output laid flat; everything else is 0."""
    form, places = form_input(node, values, 0), constant_input(node, values, 1, "list of places").reshape(-1)
    given = optional_constant(node, values, 2, "output shape")
    kernel = ints_attribute(node, "kernel_shape", ()) or ()
    rank = len(kernel)
    strides = ints_attribute(node, "strides", None) or (1,) * rank
    pads = ints_attribute(node, "pads", None) or (0,) * (2 * rank)
    if not rank or len(form.shape) != rank + 2 or {len(strides), len(pads) // 2} != {rank} or places.size != form.size:
        refuse(node, f"has windows {kernel} and {places.size} places for a tensor of shape {form.shape}")
    sizes = zip(form.shape[2:], strides, kernel, pads[:rank], pads[rank:], strict=True)
    shape = (*form.shape[:2], *((n - 1) * s + k - before - behind for n, s, k, before, behind in sizes))
    if given is not None:
        shape = tuple(int(n) for n in given.reshape(-1))
    source = np.full(math.prod(shape), NOWHERE)
    if np.unique(places).size < places.size:
        refuse(node, "writes two numbers to one place, and ONNX leaves open which of them stays; write each place once")
    source[places] = np.arange(places.size)
    return (walk.select(node, form, source.reshape(shape)),)


def lower_where(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Where: a constant condition picks entries of two tensors; one that depends on the input multiplies."""
    if values and isinstance(values[0], AffineForm):
        made: TensorValue = _picked(node, values[0], values[1], values[2], walk)
    else:
        (made,) = moved(node, values, (1, 2), walk)
    kind = type_of(values[1]) or type_of(values[2])
    return (typed(made, kind) if kind and isinstance(made, AffineForm) else made,)


def _picked(
    node: Node, condition: AffineForm, upper: TensorValue | None, lower: TensorValue | None, walk: Walk
) -> AffineForm:
    """Return lower + (upper - lower) condition: a product of states, unless both are constants."""
    if upper is None or lower is None:
        refuse(node, "needs three inputs")
    refuse_infinity(node, upper)
    refuse_infinity(node, lower)
    if isinstance(upper, np.ndarray) and isinstance(lower, np.ndarray):
        return between(node, condition, upper, lower, walk)
    difference = add_values(upper, negated(lower))
    (chosen,) = lower_mul(node, [condition, difference], walk)
    made = add_values(chosen, lower)
    assert isinstance(made, AffineForm)
    return made


def between(node: Node, condition: AffineForm, upper: AnyArray, lower: AnyArray, walk: Walk) -> AffineForm:
    """Return lower + (upper - lower) condition, for constants, broadcast."""
    shape = tuple(np.broadcast_shapes(condition.shape, upper.shape, lower.shape))
    high, low = (np.broadcast_to(side.astype(np.float64), shape).reshape(-1) for side in (upper, lower))
    height = Selection.diagonal(high - low).uncertain(gamma(2))
    return walk.linear(node, height, broadcast(condition, shape), shape, offset=low.copy())


def lower_concat(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Concat: every input moves."""
    return moved(node, values, tuple(range(len(values))), walk)


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
    padded = Node(node.op, node.name, tuple(f"input{k}" for k in range(len(inputs))), node.outputs, attributes)
    return moved(padded, inputs, (0,), walk, fill=fill, opset=max(walk.opset, 11))


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


_LOOKS_UP: Final = frozenset({"Gather", "GatherElements", "GatherND"})
_TOKENS: Final = (
    "looks entries up at places that depend on the network's input, as the vectors of words (tokens) or categories, of "
    "which the next number means nothing like it: audit the network behind it, whose input these vectors are "
    "(onnx.utils.extract_model), or hold that input fixed with --fix"
)


def moved(
    node: Node,
    values: Sequence[TensorValue | None],
    data: tuple[int, ...],
    walk: Walk,
    *,
    fill: float = 0.0,
    zeros: bool = False,
    opset: int | None = None,
) -> tuple[TensorValue, ...]:
    """Run the operator on positions: input k of `data` is numbered from the end of the one before.

    With `zeros`, the operator fills up with 0, which is then no position.
    """
    shift = 1 if zeros else 0
    starts: dict[int, int] = {}
    arguments: list[AnyArray | None] = []
    total = 0
    for k, value in enumerate(values):
        if k in data and value is not None:
            starts[k] = total
            # positions travel as float64 (exact below 2^53): old operator sets move floating-point numbers only
            arguments.append((flat_indices(value.shape) + (total + shift)).astype(np.float64))
            total += int(np.prod(value.shape, dtype=np.int64))
        elif isinstance(value, Whole) and node.op in _LOOKS_UP and k == 1:
            refuse(node, _TOKENS)
        elif isinstance(value, AffineForm):
            refuse(node, f"has an input {k} that depends on the network's input; {ONLY_CONSTANTS}")
        else:
            arguments.append(value)
    results = fold_node(node, arguments, walk.opset if opset is None else opset)
    sources, first = [values[k] for k in starts], [*starts.values(), total]
    return tuple(picked(node, walk, sources, first, np.asarray(index, np.int64) - shift, fill) for index in results)


def picked(
    node: Node,
    walk: Walk,
    sources: Sequence[TensorValue | None],
    first: Sequence[int],
    positions: IntArray,
    fill: float = 0.0,
) -> AffineForm:
    """Return the tensor whose entry t is the entry number positions[t] of the sources laid end to end.

    Source k starts at number first[k]; first[-1] is the number of all entries. NOWHERE stands for `fill`. Constants of
    minus infinity, and as low as the least number, make entries absent.
    """
    numbers = np.where(positions.reshape(-1) == NOWHERE, fill, 0.0)
    for source, start, stop in zip(sources, first[:-1], first[1:], strict=True):
        if isinstance(source, np.ndarray):
            here = ((positions >= start) & (positions < stop)).reshape(-1)
            numbers[here] = source.reshape(-1)[positions.reshape(-1)[here] - start]
    if np.isnan(numbers).any() or (numbers >= NO_BOUND).any():
        refuse(node, "puts infinity or NaN into a tensor, which no implicit model holds; fill with a finite number")
    absent = numbers <= -NO_BOUND
    result = AffineForm(positions.shape, {}, np.where(absent, 0.0, numbers))
    for source, start, stop in zip(sources, first[:-1], first[1:], strict=True):
        if isinstance(source, AffineForm):
            here = (positions >= start) & (positions < stop)
            result = result.plus(walk.select(node, source, np.where(here, positions - start, NOWHERE)))
    if absent.any():
        return PartlyAbsent(result.shape, result.terms, result.constant, result.constant_error, absent=absent)
    return result
