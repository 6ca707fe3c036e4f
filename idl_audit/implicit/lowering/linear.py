"""Linear layers: Gemm, MatMul, BatchNormalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations.contraction import contraction
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.implicit.lowering.arithmetic import add_values, constant_form
from idl_audit.implicit.lowering.sums import weighted_sum
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    float_attribute,
    form_input,
    int_attribute,
    refuse,
)
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.rounding import gamma


def lower_matmul(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """MatMul with numpy's broadcasting, of constants or of tensors that depend on the input."""
    return (_product(node, values[0], values[1], walk),)


def lower_gemm(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Gemm: alpha A' B' + beta C, where A' or B' may depend on the input, and C too."""
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
    """Return the matrix product of two tensors, of which one may be constant."""
    if isinstance(left, AffineForm) and isinstance(right, AffineForm):
        return _of_both(node, left, right, walk)
    if isinstance(left, AffineForm) and right is not None and not isinstance(right, AffineForm):
        return times_constant(node, left, right, walk, form_on_left=True)
    if isinstance(right, AffineForm) and left is not None and not isinstance(left, AffineForm):
        return times_constant(node, right, left, walk, form_on_left=False)
    if not isinstance(left, np.ndarray) or not isinstance(right, np.ndarray):
        refuse(node, "leaves one of its two factors out")
    # of constants: only what is added (Gemm's C) depends on the input
    return times_constant(node, constant_form(left), right, walk, form_on_left=True)


def times_constant(node: Node, form: AffineForm, constant: AnyArray, walk: Walk, *, form_on_left: bool) -> AffineForm:
    """Return the matrix product of a tensor and a constant, by the rules of MatMul."""
    weights = constant.astype(np.float64)
    operands = (form.shape, weights.shape) if form_on_left else (weights.shape, form.shape)
    try:
        shape = np.matmul(np.broadcast_to(0.0, operands[0]), np.broadcast_to(0.0, operands[1])).shape
    except ValueError:
        refuse(node, f"multiplies tensors of shapes {operands[0]} and {operands[1]}, which do not fit")
    return walk.linear(node, _matmul_map(form.shape, weights, shape, form_on_left=form_on_left), form, shape)


def _of_both(node: Node, left: AffineForm, right: AffineForm, walk: Walk) -> AffineForm:
    """Return the product of two tensors that both depend on the input."""
    try:
        shape = np.matmul(np.broadcast_to(0.0, left.shape), np.broadcast_to(0.0, right.shape)).shape
    except ValueError:
        refuse(node, f"multiplies tensors of shapes {left.shape} and {right.shape}, which do not fit")
    rows, columns = flat_indices(left.shape), flat_indices(right.shape)
    rows = rows[None] if rows.ndim == 1 else rows
    columns = columns[:, None] if columns.ndim == 1 else columns
    lead = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    at_left, at_right = (
        np.broadcast_to(index, (*lead, *index.shape[-2:])).reshape(-1, *index.shape[-2:]) for index in (rows, columns)
    )
    return _matrix_product(node, left, at_left, right, at_right, walk).reshaped(shape)


FEW_TERMS: Final = 2048
"""Of matrix products, which become products of states one by one."""


def _matrix_product(
    node: Node, first: AffineForm, at_first: IntArray, second: AffineForm, at_second: IntArray, walk: Walk
) -> AffineForm:
    """Return the products of matrices whose entries stand at flat positions, (g, I, K) and (g, K, J) -> (g, I, J).

    Few terms are products of states each, whose planes a search may choose; many are one block of contractions.
    """
    (groups, rows, inner), columns = at_first.shape, at_second.shape[2]
    shape = groups, rows, columns
    if math.prod(shape) * inner <= FEW_TERMS:
        pairs = np.broadcast_arrays(at_first[:, :, None, :], np.swapaxes(at_second, 1, 2)[:, None, :, :])
        terms = walk.products(node, first, pairs[0], second, pairs[1])
        windows = flat_indices((math.prod(shape), inner))
        return weighted_sum(node, terms, shape, windows, np.ones(len(windows)), walk)
    activation = contraction(rows, inner, columns)
    walk.allow(node, groups * activation.width)
    first, second = (walk.cheap(node, form, name) for form, name in ((first, "/first"), (second, "/second")))
    places = np.full((2, groups, activation.width), -1, np.int64)
    places[0, :, : rows * inner] = at_first.reshape(groups, -1)
    places[1, :, rows * inner : (rows + columns) * inner] = at_second.reshape(groups, -1)
    read = first.selected(places[0].reshape(1, -1)).plus(second.selected(places[1].reshape(1, -1)))
    made = walk.states(node, activation, read, suffix="/product")
    taken = flat_indices((groups, activation.width))[:, : rows * columns]
    return made.selected(np.ascontiguousarray(taken.reshape(shape)))


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


def lower_batch_normalization(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """BatchNormalization at inference: a scale and a shift for each channel (with spatial = 0, for each entry)."""
    form = form_input(node, values, 0)
    if int_attribute(node, "training_mode", 0) or (len(node.outputs) > 1 and any(node.outputs[1:])):
        refuse(node, "is in training mode; export the model after model.eval()")
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (
        constant_input(node, values, k + 1, n).astype(np.float64) for k, n in enumerate(names)
    )
    channels = form.shape[1] if len(form.shape) > 1 else 1  # a vector is a batch of one channel
    each_entry = walk.opset < 9 and not int_attribute(node, "spatial", 1)
    own = form.shape[1:] if each_entry else (channels,)
    if any(v.shape != own for v in (scale, bias, mean, variance)):
        refuse(node, f"has parameters that do not fit {channels} channels of a tensor of shape {form.shape}")
    spread = variance + float_attribute(node, "epsilon", 1e-5)
    if not (spread > 0).all():
        refuse(node, "has a variance that is not positive")
    factor = scale / np.sqrt(spread)
    offset = bias - mean * factor
    behind = form.shape[1:] if each_entry else (channels, *(1,) * (len(form.shape) - 2))
    weights, shift = (np.broadcast_to(v.reshape(behind), form.shape).reshape(-1) for v in (factor, offset))
    diagonal = Selection.diagonal(weights).uncertain(gamma(6))
    offset_error = gamma(8) * float((np.abs(bias) + np.abs(mean * factor)).max(initial=0.0))
    return (walk.linear(node, diagonal, form, form.shape, offset=shift.copy(), offset_error=offset_error),)
