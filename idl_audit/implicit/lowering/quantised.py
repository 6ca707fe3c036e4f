"""Quantised networks: QuantizeLinear, DequantizeLinear, and layers that compute with whole numbers.

q = saturate(round(x / s) + z) is a stair of x / s between the least and the greatest number of its type less z. It is
kept as that stair plus z, a tensor of whole numbers; DequantizeLinear takes (q - z) s. All of this is in exact
arithmetic: 1 / s has an error that the maps carry, the thresholds are halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.graph.own_operators import element_type, laid_out
from idl_audit.implicit.activations import jumping
from idl_audit.implicit.affine import AffineForm, OnGrid, Whole, typed
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.lowering.convolutions import lower_conv
from idl_audit.implicit.lowering.linear import lower_matmul
from idl_audit.implicit.walk import TensorValue, Walk, constant_input, form_input, optional_constant, refuse
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import gamma

LEVELS: Final = frozenset({"int8", "uint8", "int16", "uint16"})
"""Types whose numbers a stair may have."""


class Grid(NamedTuple):
    """Scale and zero point of each entry of a tensor, (n,)."""

    scale: FloatArray
    zero: FloatArray


def lower_quantize_linear(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """QuantizeLinear of a tensor that depends on the input, per tensor, axis or block."""
    form = form_input(node, values, 0)
    zero = optional_constant(node, values, 2, "zero point")
    kind = element_type(node, "output_dtype", np.uint8 if zero is None else zero.dtype).name
    return (_quantised(node, form, _grid(node, values, 1, form), kind, walk),)


def lower_dequantize_linear(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """DequantizeLinear of whole numbers that depend on the input: (q - z) s."""
    form = form_input(node, values, 0)
    return (_dequantised(node, form, _grid(node, values, 1, form), walk),)


def lower_qlinear_conv(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """QLinearConv: a convolution of dequantised numbers by a dequantised kernel, quantised again."""
    x = form_input(node, values, 0)
    read = walk.apart(node, _dequantised(node, x, _grid(node, values, 1, x), walk), "/dequantised")
    kernel, scale, zero = (
        constant_input(node, values, k, what).astype(np.float64)
        for k, what in ((3, "kernel"), (4, "scale of the kernel"), (5, "zero point of the kernel"))
    )
    per_channel = (-1, *(1,) * (kernel.ndim - 1))
    weights = (kernel - zero.reshape(per_channel)) * scale.reshape(per_channel)  # exact: 24 and 9 bits
    bias = optional_constant(node, values, 8, "bias")
    added = np.zeros(len(kernel))
    if bias is not None:  # in units of both scales; their product has 48 bits, and the bias 32
        added = bias.astype(np.float64) * (_positive(node, values, 1).reshape(-1)[0] * scale.reshape(-1))
    (made,) = lower_conv(replace(node, op="Conv"), [read, weights, added], walk)
    assert isinstance(made, AffineForm)
    made = replace(made, constant_error=made.constant_error + gamma(4) * float(np.abs(added).max(initial=0.0)))
    return (_quantised(node, made, _grid(node, values, 6, made), _type_of(node, values, 7), walk),)


def lower_qlinear_matmul(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """QLinearMatMul: a product of dequantised numbers with dequantised constants, quantised again."""
    factors: list[TensorValue | None] = []
    for k in (0, 3):
        value = values[k]
        if isinstance(value, AffineForm):
            level = _dequantised(node, value, _grid(node, values, k + 1, value), walk)
            factors.append(walk.apart(node, level, f"/dequantised{k}"))
            continue
        constant = constant_input(node, values, k, "factor").astype(np.float64)
        scale, zero = (constant_input(node, values, k + j, "grid").astype(np.float64) for j in (1, 2))
        if scale.ndim == 1 and scale.size > 1:  # one a column of the second factor, one a row of the first
            scale, zero = (np.broadcast_to(part, scale.shape) for part in (scale, zero))
            scale, zero = (part[:, None] if k == 0 else part[None, :] for part in (scale, zero))
        factors.append((constant - zero) * scale)
    (made,) = lower_matmul(node, factors, walk)
    assert isinstance(made, AffineForm)
    return (_quantised(node, made, _grid(node, values, 6, made), _type_of(node, values, 7), walk),)


def _type_of(node: Node, values: Sequence[TensorValue | None], k: int) -> str:
    return constant_input(node, values, k, "zero point").dtype.name


def _positive(node: Node, values: Sequence[TensorValue | None], k: int) -> FloatArray:
    scale = constant_input(node, values, k, "scale").astype(np.float64)
    if not ((scale > 0) & np.isfinite(scale)).all():
        refuse(node, f"has a scale (input {k}) that is no positive number; every step of a stair has a width")
    return scale


def _grid(node: Node, values: Sequence[TensorValue | None], k: int, form: AffineForm) -> Grid:
    """Return scale (input k) and zero point (input k + 1), entry by entry."""
    scale, zero = _positive(node, values, k), optional_constant(node, values, k + 1, "zero point")
    whole = np.zeros(scale.shape) if zero is None else zero.astype(np.float64)
    try:
        parts = [laid_out(node, part, form.shape).reshape(-1) for part in (scale, whole)]
    except ValueError as error:
        refuse(node, f"has a scale or a zero point that does not fit its tensor of shape {form.shape}: {error}")
    return Grid(*parts)


def _quantised(node: Node, form: AffineForm, grid: Grid, kind: str, walk: Walk) -> Whole:
    """Return saturate(round(form / scale) + zero), whole numbers of a type."""
    if kind not in LEVELS:
        refuse(node, f"rounds to {kind}; stairs can be read of {', '.join(sorted(LEVELS))}")
    info = np.iinfo(kind)
    inverse = Selection.diagonal(1.0 / grid.scale).uncertain(gamma(2))
    steps = walk.linear(node, inverse, form, form.shape)
    if isinstance(form, OnGrid) and _is_of(form, grid, kind):
        return typed(steps.scaled(1.0, grid.zero.reshape(form.shape)), kind)
    lowest, highest = (_one_or_all(end - grid.zero) for end in (float(info.min), float(info.max)))
    made = walk.states(node, jumping.rounding(lowest, highest), steps, suffix="/stairs")
    return typed(made.scaled(1.0, grid.zero.reshape(form.shape)), kind)


def is_of_another_grid(node: Node, values: Sequence[TensorValue | None]) -> bool:
    """Whether numbers of one grid are quantised to another one: onnxruntime makes one grid of two."""
    form = values[0] if values else None
    if node.op != "QuantizeLinear" or not isinstance(form, OnGrid):
        return False
    zero = optional_constant(node, values, 2, "zero point")
    kind = element_type(node, "output_dtype", np.uint8 if zero is None else zero.dtype).name
    return not _is_of(form, _grid(node, values, 1, form), kind)


def _is_of(form: OnGrid, grid: Grid, kind: str) -> bool:
    return form.kind == kind and bool((grid.scale == form.scale).all() and (grid.zero == form.zero).all())


def _one_or_all(values: FloatArray) -> float | FloatArray:
    return float(values[0]) if values.size and bool((values == values[0]).all()) else values


def _dequantised(node: Node, form: AffineForm, grid: Grid, walk: Walk) -> AffineForm:
    """Return (form - zero) scale."""
    level = form.scaled(1.0, -grid.zero.reshape(form.shape))
    made = walk.linear(node, Selection.diagonal(grid.scale), level, form.shape)
    scale, zero = _one_or_all(grid.scale), _one_or_all(grid.zero)
    if not isinstance(form, Whole) or not isinstance(scale, float) or not isinstance(zero, float):
        return made
    parts = made.shape, made.terms, made.constant, made.constant_error
    return OnGrid(*parts, kind=form.kind, scale=scale, zero=zero)
