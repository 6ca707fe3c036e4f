"""Pooling: every window of an image gives its average, its largest entry, or its sum of absolute values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations.analytic import sqrt, square
from idl_audit.implicit.activations.kinked import absolute
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.lowering.convolutions import padding, spatial_shape
from idl_audit.implicit.lowering.maxima import OUTSIDE, maximum_of_windows
from idl_audit.implicit.lowering.sums import weighted_sum
from idl_audit.implicit.walk import TensorValue, Walk, form_input, int_attribute, ints_attribute, refuse
from idl_audit.values.arrays import BoolArray, IntArray


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


def lower_average_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """AveragePool with padding counted or not."""
    form = form_input(node, values, 0)
    shape, windows, within = _windows(node, form)
    counted = within if int_attribute(node, "count_include_pad", 0) else windows >= 0
    if not counted.any(axis=1).all():
        refuse(node, "has a window that lies wholly in the padding, whose average is 0 / 0")
    return (weighted_sum(node, form, shape, windows, 1.0 / counted.sum(axis=1), walk),)


def lower_max_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """MaxPool: padding is -infinity, that is, not there."""
    if len(node.outputs) > 1 and node.outputs[1]:
        refuse(node, "also returns the positions of the maxima, which no implicit model has")
    form = form_input(node, values, 0)
    shape, windows, _ = _windows(node, form)
    return (maximum_of_windows(node, form, shape, windows, walk),)


def lower_lp_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LpPool with p = 1 or 2: sums of absolute values, or roots of sums of squares; padding adds nothing."""
    form, power = form_input(node, values, 0), known_power(node)
    shape, windows, _ = _windows(node, form)
    made = walk.states(node, absolute(), form, suffix="/abs") if power == 1 else squares(node, form, walk)
    total = weighted_sum(node, made, shape, windows, np.ones(len(windows)), walk)
    return (total if power == 1 else walk.states(node, sqrt(), total),)


def squares(node: Node, form: AffineForm, walk: Walk) -> AffineForm:
    """Return the squares of a form, a block of states of their own."""
    return walk.states(node, square(), form, suffix="/square")


def known_power(node: Node) -> int:
    """Return p of a p-norm; only 1 and 2 are read."""
    power = int_attribute(node, "p", 2)
    if power not in (1, 2):
        refuse(
            node,
            f"takes roots of sums of powers {power} of tensors that depend on the input; p = 1 and p = 2 can be read, "
            "and AveragePool or MaxPool in its place",
        )
    return power
