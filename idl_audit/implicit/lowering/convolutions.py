"""Conv and ConvTranspose: a kernel over the spatial axes of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    int_attribute,
    ints_attribute,
    refuse,
    text_attribute,
)
from idl_audit.values.arrays import FloatArray


def spatial_shape(node: Node, form: AffineForm, kernel_rank: int) -> tuple[int, ...]:
    """Return the spatial axes of an image (1, channels, *spatial) whose kernel has `kernel_rank` spatial axes."""
    if len(form.shape) != kernel_rank + 2:
        refuse(node, f"has an input of shape {form.shape}, which does not fit a kernel with {kernel_rank} spatial axes")
    if form.shape[0] != 1:
        refuse(
            node,
            f"works on {form.shape[0]} images at a time (input shape {form.shape}); one sample must be one image, and "
            "that the network treats them one by one could not be proved: export it with batch size 1",
        )
    return form.shape[2:]


def padding(
    node: Node,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[int, ...]:
    """Return the zeros before each axis and behind each, from `pads` or `auto_pad`."""
    rank = len(spatial)
    mode = text_attribute(node, "auto_pad", "NOTSET") or "NOTSET"
    if mode == "NOTSET":
        pads = ints_attribute(node, "pads", (0,) * (2 * rank)) or (0,) * (2 * rank)
        if len(pads) != 2 * rank or min(pads, default=0) < 0:
            refuse(node, f"has pads {pads}, which do not fit {rank} spatial axes")
        return pads
    if mode == "VALID":
        return (0,) * (2 * rank)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        refuse(node, f"has auto_pad '{mode}'; known are NOTSET, VALID, SAME_UPPER and SAME_LOWER")
    before, behind = [], []
    for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        less, more = total // 2, total - total // 2
        before.append(less if mode == "SAME_UPPER" else more)
        behind.append(more if mode == "SAME_UPPER" else less)
    return (*before, *behind)


def _kernel(node: Node, values: Sequence[TensorValue | None]) -> FloatArray:
    kernel = constant_input(node, values, 1, "kernel").astype(np.float64)
    if not 3 <= kernel.ndim <= 5:
        refuse(node, f"has a kernel of shape {kernel.shape}; 1, 2 or 3 spatial axes can be handled")
    declared = ints_attribute(node, "kernel_shape", None)
    if declared is not None and declared != kernel.shape[2:]:
        refuse(node, f"declares kernel_shape {declared} but its kernel has shape {kernel.shape}")
    return kernel


def lower_conv(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Conv in 1, 2 or 3 dimensions with groups, strides, dilations, padding of every kind."""
    form, kernel = form_input(node, values, 0), _kernel(node, values)
    rank = kernel.ndim - 2
    spatial = spatial_shape(node, form, rank)
    strides = ints_attribute(node, "strides", (1,) * rank) or (1,) * rank
    dilations = ints_attribute(node, "dilations", (1,) * rank) or (1,) * rank
    groups = int_attribute(node, "group", 1)
    if kernel.shape[1] * groups != form.shape[1] or kernel.shape[0] % groups:
        refuse(node, f"has a kernel of shape {kernel.shape} in {groups} group(s) for an input of shape {form.shape}")
    pads = padding(node, spatial, kernel.shape[2:], strides, dilations)
    try:
        convolution = Convolution(
            kernel=kernel, spatial_in=spatial, strides=strides, pads=pads, dilations=dilations, groups=groups
        )
    except ValueError as error:
        refuse(node, f"cannot be applied: {error}")
    shape = (1, kernel.shape[0], *convolution.spatial_out)
    return (_with_bias(node, values, convolution, form, shape, walk),)


def _with_bias(
    node: Node,
    values: Sequence[TensorValue | None],
    linear_map: LinearMap,
    form: AffineForm,
    shape: tuple[int, ...],
    walk: Walk,
) -> AffineForm:
    """Return linear_map (form) + bias, one number for each channel."""
    bias = values[2] if len(values) > 2 else None
    if bias is None:
        return walk.linear(node, linear_map, form, shape)
    if bias.shape != (shape[1],):
        refuse(node, f"has a bias of shape {bias.shape} for {shape[1]} output channels")
    pixels = math.prod(shape[2:])
    if isinstance(bias, AffineForm):
        each = bias.selected(np.repeat(flat_indices(bias.shape), pixels).reshape(shape))
        return walk.linear(node, linear_map, form, shape).plus(each)
    return walk.linear(node, linear_map, form, shape, offset=np.repeat(bias.astype(np.float64), pixels))


def lower_conv_transpose(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """ConvTranspose: the transpose of the convolution that maps its output's shape to its input's."""
    form, kernel = form_input(node, values, 0), _kernel(node, values)
    rank = kernel.ndim - 2
    spatial = spatial_shape(node, form, rank)
    strides = ints_attribute(node, "strides", (1,) * rank) or (1,) * rank
    dilations = ints_attribute(node, "dilations", (1,) * rank) or (1,) * rank
    groups = int_attribute(node, "group", 1)
    if kernel.shape[0] != form.shape[1] or kernel.shape[0] % groups:
        refuse(node, f"has a kernel of shape {kernel.shape} in {groups} group(s) for an input of shape {form.shape}")
    out, pads = _transposed_geometry(node, spatial, kernel.shape[2:], strides, dilations)
    try:
        forward = Convolution(
            kernel=kernel, spatial_in=out, strides=strides, pads=pads, dilations=dilations, groups=groups
        )
    except ValueError as error:
        refuse(node, f"cannot be applied: {error}")
    if forward.spatial_out != spatial:
        refuse(
            node, f"has an output padding that no convolution has (input {spatial}, output {out}, strides {strides})"
        )
    shape = (1, int(kernel.shape[1]) * groups, *out)
    return (_with_bias(node, values, TransposedConvolution(forward=forward), form, shape, walk),)


def _transposed_geometry(
    node: Node,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (output's spatial shape, pads) by ONNX's rules for output_shape, auto_pad and output_padding."""
    rank = len(spatial)
    extra = ints_attribute(node, "output_padding", (0,) * rank) or (0,) * rank
    full = [
        s * (n - 1) + e + d * (k - 1) + 1
        for n, s, e, d, k in zip(spatial, strides, extra, dilations, kernel, strict=True)
    ]
    wanted = ints_attribute(node, "output_shape", None)
    mode = text_attribute(node, "auto_pad", "NOTSET") or "NOTSET"
    if wanted is None and mode in ("NOTSET", "VALID"):
        pads = ints_attribute(node, "pads", None) if mode == "NOTSET" else None
        pads = pads or (0,) * (2 * rank)
        return tuple(f - pads[a] - pads[rank + a] for a, f in enumerate(full)), pads
    target = wanted[-rank:] if wanted is not None else tuple(n * s for n, s in zip(spatial, strides, strict=True))
    totals = [max(0, f - t) for f, t in zip(full, target, strict=True)]
    upper = mode == "SAME_UPPER"
    before = [t // 2 if upper else t - t // 2 for t in totals]
    return target, (*before, *(t - b for t, b in zip(totals, before, strict=True)))
