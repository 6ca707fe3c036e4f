"""Pooling and reductions: averages are linear; maxima are tournaments of abs states.

max(s, t) = (s + t)/2 + |s - t|/2. A tournament of such pairs gives the maximum of a window; an identity block behind it
carries what its linear form has forgotten: the maximum lies between the largest lower and the largest upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from idl_audit.arrays import AnyArray, BoolArray, FloatArray, IntArray
from idl_audit.graph.ir import Node
from idl_audit.implicit.activations.kinked import absolute
from idl_audit.implicit.affine import INPUT, AffineForm
from idl_audit.implicit.linear_maps import Sparse
from idl_audit.implicit.lowering.arithmetic import broadcast, negated
from idl_audit.implicit.lowering.linear import padding, spatial_shape
from idl_audit.implicit.model import PoolWindows
from idl_audit.implicit.walk import (
    NO_BOUND,
    TensorValue,
    Walk,
    flat_indices,
    form_input,
    int_attribute,
    ints_attribute,
    optional_constant,
    refuse,
    refuse_swallowing,
)
from idl_audit.rounding import gamma

OUTSIDE = -1
"""A window's place that lies outside the image."""


def _windows(node: Node, form: AffineForm) -> tuple[tuple[int, ...], IntArray, BoolArray]:
    """Return (output shape, positions (outputs, places), within): where each window reads; OUTSIDE is no number.

    `within` says which places lie in the image or its declared padding (what count_include_pad counts).
    """
    kernel = ints_attribute(node, "kernel_shape", None)
    if not kernel:
        refuse(node, "has no kernel_shape")
    rank = len(kernel)
    spatial = spatial_shape(node, form, rank)
    strides = ints_attribute(node, "strides", (1,) * rank) or (1,) * rank
    dilations = ints_attribute(node, "dilations", (1,) * rank) or (1,) * rank
    pads = padding(node, spatial, kernel, strides, dilations)
    ceil = bool(int_attribute(node, "ceil_mode", 0))
    axes = [
        _axis(node, spatial[a], kernel[a], strides[a], dilations[a], (pads[a], pads[rank + a]), ceil)
        for a in range(rank)
    ]
    out = tuple(int(position.shape[0]) for position, _, _ in axes)
    positions = np.zeros((1, 1), np.int64)
    inside, within = np.ones((1, 1), np.bool_), np.ones((1, 1), np.bool_)
    for (here, valid, counted), size in zip(axes, spatial, strict=True):
        shape = (positions.shape[0] * here.shape[0], positions.shape[1] * here.shape[1])
        positions = (positions[:, None, :, None] * size + here[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & valid[None, :, None, :]).reshape(shape)
        within = (within[:, None, :, None] & counted[None, :, None, :]).reshape(shape)
    channels = form.shape[1]
    offsets = np.arange(channels)[:, None, None] * math.prod(spatial)
    table = np.where(inside[None], positions[None] + offsets, OUTSIDE).reshape(-1, positions.shape[1])
    return (1, channels, *out), table, np.tile(within, (channels, 1))


def _axis(
    node: Node, size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], ceil: bool
) -> tuple[IntArray, BoolArray, BoolArray]:
    """Return (position, inside the image, inside image or padding) along one axis, each (outputs, places)."""
    reach = dilation * (kernel - 1) + 1
    span = size + sum(pads) - reach
    if span < 0 or stride < 1:
        refuse(node, f"has a window of {reach} that does not fit an axis of {size} with pads {pads}")
    count = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= size + pads[0]:  # a window must start in the image or the padding before it
        count -= 1
    position = np.arange(count)[:, None] * stride - pads[0] + np.arange(kernel)[None, :] * dilation
    return position, (position >= 0) & (position < size), (position >= -pads[0]) & (position < size + pads[1])


def _weighted_sum(
    node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, weights: FloatArray, walk: Walk
) -> AffineForm:
    """Return the tensor whose entry i is weights[i] times the sum of the entries at windows[i]."""
    used = windows >= 0
    indptr = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    data = np.broadcast_to(weights[:, None], windows.shape)[used]
    matrix = sp.csr_array((data, windows[used], indptr), shape=(len(windows), form.size))
    matrix.sort_indices()
    mantissa, _ = np.frexp(weights)
    relative = 0.0 if bool((np.abs(mantissa) == 0.5).all()) else gamma(2)
    return walk.linear(node, Sparse(matrix=matrix, relative=relative), form, shape)


def lower_average_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """AveragePool with padding counted or not."""
    form = form_input(node, values, 0)
    shape, windows, within = _windows(node, form)
    counted = within if int_attribute(node, "count_include_pad", 0) else windows >= 0
    if not counted.any(axis=1).all():
        refuse(node, "has a window that lies wholly in the padding, whose average is 0 / 0")
    return (_weighted_sum(node, form, shape, windows, 1.0 / counted.sum(axis=1), walk),)


def lower_max_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """MaxPool: padding is -infinity, that is, not there."""
    if len(node.outputs) > 1 and node.outputs[1]:
        refuse(node, "also returns the positions of the maxima, which no implicit model has")
    form = form_input(node, values, 0)
    shape, windows, _ = _windows(node, form)
    return (maximum_of_windows(node, form, shape, windows, walk),)


def lower_global_average_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GlobalAveragePool: the mean over the spatial axes."""
    form = form_input(node, values, 0)
    return (_reduced(node, form, tuple(range(2, len(form.shape))), True, "mean", walk),)


def lower_global_max_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GlobalMaxPool: the maximum over the spatial axes."""
    form = form_input(node, values, 0)
    return (_reduced(node, form, tuple(range(2, len(form.shape))), True, "max", walk),)


_REDUCTIONS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min"}


def lower_reduce(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """ReduceMean, ReduceSum, ReduceMax, ReduceMin over any axes (an attribute before, an input from opset 13 or 18)."""
    form = form_input(node, values, 0)
    axes = reduced_axes(node, optional_constant(node, values, 1, "list of axes"), form.shape)
    if not axes:
        return (form,)
    return (_reduced(node, form, axes, bool(int_attribute(node, "keepdims", 1)), _REDUCTIONS[node.op], walk),)


def reduced_axes(node: Node, given: AnyArray | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that a reduction runs over, ascending and from 0 on; empty where it does nothing."""
    axes = tuple(int(a) for a in given.reshape(-1)) if given is not None else ints_attribute(node, "axes", None)
    if not axes:
        return () if int_attribute(node, "noop_with_empty_axes", 0) else tuple(range(len(shape)))
    rank = len(shape)
    if any(not -rank <= a < rank for a in axes):
        refuse(node, f"reduces over axes {axes} of a tensor of shape {shape}")
    return tuple(sorted({a % rank for a in axes}))


def _reduced(node: Node, form: AffineForm, axes: tuple[int, ...], keep: bool, how: str, walk: Walk) -> AffineForm:
    kept = tuple(a for a in range(len(form.shape)) if a not in axes)
    outer = math.prod(form.shape[a] for a in kept)
    windows = flat_indices(form.shape).transpose(*kept, *axes).reshape(outer, -1)
    shape = tuple(1 if a in axes else n for a, n in enumerate(form.shape) if keep or a not in axes)
    if windows.shape[1] == 0:
        refuse(node, f"reduces over an empty axis of shape {form.shape}")
    if how in ("mean", "sum"):
        weight = 1.0 / windows.shape[1] if how == "mean" else 1.0
        return _weighted_sum(node, form, shape, windows, np.full(outer, weight), walk)
    if how == "min":
        return maximum_of_windows(node, form.scaled(-1.0), shape, windows, walk).scaled(-1.0)
    return maximum_of_windows(node, form, shape, windows, walk)


def lower_max(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Max of any number of tensors, constants among them, with broadcasting."""
    return (_elementwise_max(node, list(values), walk),)


def lower_min(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Min(s, t) = -Max(-s, -t)."""
    flipped: list[TensorValue | None] = [None if value is None else negated(value) for value in values]
    return (negated(_elementwise_max(node, flipped, walk)),)


def _elementwise_max(node: Node, values: list[TensorValue | None], walk: Walk) -> TensorValue:
    given = [value for value in values if value is not None]
    if not given:
        refuse(node, "has no input")
    shape = tuple(np.broadcast_shapes(*(value.shape for value in given)))
    forms: list[AffineForm] = []
    for value in given:
        if isinstance(value, AffineForm):
            forms.append(broadcast(value, shape))
        else:
            constant = np.broadcast_to(value.astype(np.float64), shape).reshape(-1).copy()
            if constant.size and constant.max() <= -NO_BOUND:
                continue  # never the largest
            refuse_swallowing(node, float(constant.min(initial=0.0)), float(constant.max(initial=0.0)))
            forms.append(AffineForm(shape, {}, constant))
    best = forms[0]
    for k, form in enumerate(forms[1:]):
        best = _pair_maximum(node, best, form, walk, f"/{k}")
    return best


def _pair_maximum(node: Node, first: AffineForm, second: AffineForm, walk: Walk, suffix: str) -> AffineForm:
    """Return max(first, second) = (first + second)/2 + |first - second|/2 with one abs state an entry."""
    difference = walk.states(node, absolute(), first.plus(second.scaled(-1.0)).scaled(0.5), suffix=f"/abs{suffix}")
    return first.plus(second).scaled(0.5).plus(difference)


def maximum_of_windows(
    node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk
) -> AffineForm:
    """Return the tensor whose entry i is the largest entry at windows[i]: a tournament, then an identity block."""
    if not (windows >= 0).any(axis=1).all():
        refuse(node, "has a window that lies wholly in the padding")
    if windows.shape[1] > 1 and not (form.is_bare and INPUT not in form.terms):
        form = walk.cut(node, form, suffix="/in")  # so that the windows' places are states, with bounds of their own
    current = [walk.select(node, form, column) for column in windows.T]
    present = list((windows >= 0).T)
    rounds = 0
    while len(current) > 1:
        current, present = _round(node, current, present, walk, rounds)
        rounds += 1
    result = current[0].reshaped(shape)
    if rounds == 0:
        return result
    (source,) = form.terms
    position = form.selected(windows).terms[source].to_sparse()  # where the windows' places stand among the states
    states = np.full(windows.size, OUTSIDE)
    states[np.diff(position.indptr) > 0] = position.indices
    return walk.cut(node, result, suffix="/max", maximum=PoolWindows(source, states.reshape(windows.shape)))


def _round(
    node: Node, current: list[AffineForm], present: list[BoolArray], walk: Walk, number: int
) -> tuple[list[AffineForm], list[BoolArray]]:
    """Play neighbours against each other; who has no opponent goes on as he is."""
    pairs = [(k, k + 1) for k in range(0, len(current) - 1, 2)]
    playing = [present[i] & present[j] for i, j in pairs]
    matches = [_stacked_difference(current[i], current[j], both) for (i, j), both in zip(pairs, playing, strict=True)]
    size = sum(match.size for match in matches)
    abs_states = _stack(matches, size)
    # where every window has one entry, nobody plays and there are no states
    reached = walk.states(node, absolute(), abs_states, suffix=f"/abs{number}") if size else abs_states
    winners: list[AffineForm] = []
    start = 0
    for (i, j), both in zip(pairs, playing, strict=True):
        count = int(both.sum())
        slot = np.full(both.size, OUTSIDE)
        slot[both] = np.arange(start, start + count)
        start += count
        mean = current[i].scaled(np.where(both, 0.5, present[i].astype(float)))
        other = current[j].scaled(np.where(both, 0.5, present[j].astype(float)))
        winners.append(mean.plus(other).plus(reached.selected(slot)))
    masks = [present[i] | present[j] for i, j in pairs]
    if len(current) % 2:
        winners.append(current[-1])
        masks.append(present[-1])
    return winners, masks


def _stacked_difference(first: AffineForm, second: AffineForm, both: BoolArray) -> AffineForm:
    rows = np.flatnonzero(both)
    return first.selected(rows).plus(second.selected(rows).scaled(-1.0)).scaled(0.5)


def _stack(forms: list[AffineForm], size: int) -> AffineForm:
    """Return the forms one under the other."""
    result = AffineForm((size,), {}, np.zeros(size))
    start = 0
    for form in forms:
        place = np.full(size, OUTSIDE)
        place[start : start + form.size] = np.arange(form.size)
        result = result.plus(form.selected(place))
        start += form.size
    return result
