"""Linear layers: Gemm, MatMul, Conv, ConvTranspose, BatchNormalization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from idl_audit.arrays import AnyArray, FloatArray
from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.implicit.lowering.arithmetic import add_values, constant_form
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    float_attribute,
    form_input,
    int_attribute,
    ints_attribute,
    optional_constant,
    refuse,
    text_attribute,
)
from idl_audit.rounding import gamma


def lower_matmul(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """MatMul with a constant on either side, with numpy's broadcasting."""
    return (_product(node, values[0], values[1], walk),)


def lower_gemm(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Gemm: alpha A' B' + beta C."""
    left, right = (
        _transposed(values[k]) if int_attribute(node, name, 0) else values[k]
        for k, name in enumerate(("transA", "transB"))
    )
    alpha, beta = float_attribute(node, "alpha", 1.0), float_attribute(node, "beta", 1.0)
    result = walk.scaled(node, _product(node, left, right, walk), alpha)
    if len(values) > 2 and values[2] is not None and beta != 0.0:
        added = values[2] if isinstance(values[2], AffineForm) else constant_form(values[2])
        return (add_values(result, walk.scaled(node, added, beta)),)
    return (result,)


def _transposed(value: TensorValue | None) -> TensorValue | None:
    if isinstance(value, AffineForm):
        return value.selected(flat_indices(value.shape).T)
    return None if value is None else value.T


def _product(node: Node, left: TensorValue | None, right: TensorValue | None, walk: Walk) -> AffineForm:
    if isinstance(left, AffineForm) and isinstance(right, AffineForm):
        refuse(node, "multiplies two tensors that both depend on the input; only products with constants are linear")
    if isinstance(left, AffineForm) and right is not None and not isinstance(right, AffineForm):
        return _times_constant(node, left, right, walk, form_on_left=True)
    if isinstance(right, AffineForm) and left is not None and not isinstance(left, AffineForm):
        return _times_constant(node, right, left, walk, form_on_left=False)
    refuse(node, "needs two inputs, of which one depends on the network's input")


def _times_constant(node: Node, form: AffineForm, constant: AnyArray, walk: Walk, *, form_on_left: bool) -> AffineForm:
    weights = constant.astype(np.float64)
    operands = (form.shape, weights.shape) if form_on_left else (weights.shape, form.shape)
    try:
        shape = np.matmul(np.broadcast_to(0.0, operands[0]), np.broadcast_to(0.0, operands[1])).shape
    except ValueError:
        refuse(node, f"multiplies tensors of shapes {operands[0]} and {operands[1]}, which do not fit")
    return walk.linear(node, _matmul_map(form.shape, weights, shape, form_on_left=form_on_left), form, shape)


def _matmul_map(
    form_shape: tuple[int, ...], weights: FloatArray, shape: tuple[int, ...], *, form_on_left: bool
) -> LinearMap:
    """Return the map of X -> X W (or W X), X flattened; Dense where X is a single vector."""
    inner = form_shape[-1] if form_on_left or len(form_shape) == 1 else form_shape[-2]
    size = math.prod(form_shape)
    if size == inner and weights.ndim <= 2:
        matrix = weights if not form_on_left and weights.ndim == 2 else weights.reshape(inner, -1).T
        return Dense(matrix=np.ascontiguousarray(matrix.reshape(-1, inner)))
    tensor = flat_indices(form_shape)
    tensor = tensor[None, :] if tensor.ndim == 1 and form_on_left else tensor[:, None] if tensor.ndim == 1 else tensor
    factor = weights
    factor = factor[:, None] if factor.ndim == 1 and form_on_left else factor[None, :] if factor.ndim == 1 else factor
    if form_on_left:  # out[.., i, j] = sum_k X[.., i, k] W[.., k, j]
        columns, entries = tensor[..., :, None, :], np.swapaxes(factor, -1, -2)[..., None, :, :]
    else:  # out[.., i, j] = sum_k W[.., i, k] X[.., k, j]
        columns, entries = np.swapaxes(tensor, -1, -2)[..., None, :, :], factor[..., :, None, :]
    both = np.broadcast_shapes(columns.shape, entries.shape)
    rows = math.prod(shape)
    data, where = np.broadcast_to(entries, both).reshape(-1), np.broadcast_to(columns, both).reshape(-1)
    sparse = sp.csr_array((data, where, np.arange(rows + 1) * inner), shape=(rows, size))
    sparse.sort_indices()
    return Sparse(matrix=sparse)


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
    return (walk.linear(node, convolution, form, shape, offset=_bias(node, values, shape)),)


def _bias(node: Node, values: Sequence[TensorValue | None], shape: tuple[int, ...]) -> FloatArray | None:
    bias = optional_constant(node, values, 2, "bias")
    if bias is None:
        return None
    if bias.shape != (shape[1],):
        refuse(node, f"has a bias of shape {bias.shape} for {shape[1]} output channels")
    return np.repeat(bias.astype(np.float64), math.prod(shape[2:]))


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
    return (walk.linear(node, TransposedConvolution(forward=forward), form, shape, offset=_bias(node, values, shape)),)


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


def lower_batch_normalization(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """BatchNormalization at inference: a scale and a shift per channel."""
    form = form_input(node, values, 0)
    if int_attribute(node, "training_mode", 0) or (len(node.outputs) > 1 and any(node.outputs[1:])):
        refuse(node, "is in training mode; export the model after model.eval()")
    if len(form.shape) < 2:
        refuse(node, f"has an input of shape {form.shape} without a channel axis")
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (
        constant_input(node, values, k + 1, n).astype(np.float64) for k, n in enumerate(names)
    )
    if any(v.shape != (form.shape[1],) for v in (scale, bias, mean, variance)):
        refuse(node, f"has parameters that do not fit {form.shape[1]} channels")
    spread = variance + float_attribute(node, "epsilon", 1e-5)
    if not (spread > 0).all():
        refuse(node, "has a variance that is not positive")
    factor = scale / np.sqrt(spread)
    offset = bias - mean * factor
    per_channel = (1, -1, *(1,) * (len(form.shape) - 2))
    weights = np.broadcast_to(factor.reshape(per_channel), form.shape).reshape(-1)
    shift = np.broadcast_to(offset.reshape(per_channel), form.shape).reshape(-1)
    diagonal = Selection.diagonal(weights).uncertain(gamma(6))
    offset_error = gamma(8) * float((np.abs(bias) + np.abs(mean * factor)).max(initial=0.0))
    return (walk.linear(node, diagonal, form, form.shape, offset=shift.copy(), offset_error=offset_error),)
