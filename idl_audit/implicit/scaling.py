"""Rescaling to ||A||_inf <= kappa < 1 (paper 2.5) by powers of two, one a channel, exact in floating point.

For positively homogeneous phi and s > 0: A' = diag(1/s) A diag(s), B' = diag(1/s) B, b' = diag(1/s) b, C' = C diag(s)
give the same outputs, and |A| s <= kappa s gives ||A'||_inf <= kappa. With s a power of two, constant over a channel,
nothing is rounded and kernels stay kernels. The paper's s = (I - |A|)^-1 1 reaches 3e19 on a ResNet-20 and gives a norm
that rounds to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from idl_audit.arrays import FloatArray, IntArray
from idl_audit.errors import OptionError
from idl_audit.implicit.composition import compose
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, Scaling, StateBlock
from idl_audit.rounding import gamma

LARGEST_EXPONENT = 800
"""Beyond 2^800 products of scaled numbers could leave the range of float64."""


def norm_inf_a(model: ImplicitModel) -> float:
    """Return ||A||_inf, the largest row sum of |A|, rounded upward; 0 for a model without states."""
    largest = 0.0
    for row in model.rows:
        total: FloatArray = np.zeros(row.size)
        for linear_map in row.states.values():
            total = total + linear_map.row_sums
        largest = max(largest, float(total.max(initial=0.0)) * (1 + gamma(len(row.states) + 1)))
    return largest


def rescale(model: ImplicitModel, *, kappa: float = 0.5) -> ImplicitModel:
    """Return an equal model with ||A||_inf <= kappa (paper 2.5); y and S are the same bit for bit.

    Where no scaling by powers of two stays within the range of float64, the model comes back unscaled with
    `scaling.norm_after = None` and the reason.

    Raises:
        OptionError: unless 0 < kappa < 1.
    """
    if not 0 < kappa < 1:
        raise OptionError(f"kappa must lie between 0 and 1, not {kappa}")
    before = norm_inf_a(model)
    exponents = channel_exponents(model, kappa)
    reason = _out_of_range(model, exponents)
    if reason:
        return replace(model, scaling=Scaling(kappa, before, None, reason=reason))
    rows = tuple(_scaled_row(row, exponents, exponents[k]) for k, row in enumerate(model.rows))
    scaled = replace(
        model,
        blocks=tuple(_scaled_block(block, exponents[k]) for k, block in enumerate(model.blocks)),
        rows=rows,
        output=_scaled_row(model.output, exponents, None),
    )
    return replace(scaled, scaling=Scaling(kappa, before, norm_inf_a(scaled), MappingProxyType(exponents)))


def channel_exponents(model: ImplicitModel, kappa: float) -> dict[int, IntArray]:
    """Return integers e with |A| 2^e <= kappa 2^e, e >= 0, constant over each channel: block -> one a state."""
    exponents: dict[int, IntArray] = {}
    for k in model.evaluation_order:
        block, row = model.blocks[k], model.rows[k]
        # numbers s_j / 2^most stay within the range of float64, however large the exponents grow
        most = max((int(exponents[j].max(initial=0)) for j in row.states), default=0)
        sums = np.zeros(block.size)
        for j, linear_map in row.states.items():
            sums += linear_map.magnitude.apply(np.ldexp(1.0, exponents[j] - most)[None])[0]
        terms = sum(linear_map.row_terms + 1 for linear_map in row.states.values())
        mantissa, exponent = np.frexp(sums * (1 + 2 * gamma(terms + 2)) / kappa * (1 + gamma(4)))
        least = np.where(sums > 0, exponent - (mantissa == 0.5) + most, 0)  # the least e with 2^e >= value
        exponents[k] = _per_channel_maximum(block, np.maximum(least, 0).astype(np.int64))
    return exponents


def _per_channel_maximum(block: StateBlock, exponents: IntArray) -> IntArray:
    """Return the largest exponent of each channel; of the whole block where its activation keeps the scale."""
    if not exponents.size:
        return exponents
    if not block.activation.positively_homogeneous:
        return np.full_like(exponents, exponents.max())
    if len(block.shape) < 3:
        return exponents
    channels = exponents.reshape(math.prod(block.shape[:2]), -1)
    return np.repeat(channels.max(axis=1), channels.shape[1])


def _out_of_range(model: ImplicitModel, exponents: Mapping[int, IntArray]) -> str:
    """Return why the scaling would leave the range of float64, or nothing where it does not."""
    largest = max((int(e.max(initial=0)) for e in exponents.values()), default=0)
    if largest > LARGEST_EXPONENT:
        return f"a state would be scaled by 2^{largest}, beyond 2^{LARGEST_EXPONENT}"
    for k, row in enumerate(model.rows):  # weights are float32 in files: 2^-149 * 2^-800 is still a normal number
        nonzero = np.abs(row.constant[row.constant != 0])
        if nonzero.size and float(np.ldexp(nonzero.min(), -int(exponents[k].max()))) < 2 * np.finfo(np.float64).tiny:
            return f"the constant of block '{model.blocks[k].name}' would be scaled below the range of float64"
    return ""


def _scaled_row(row: Affine, exponents: Mapping[int, IntArray], own: IntArray | None) -> Affine:
    """Return diag(2^-own) (row) diag(2^exponents); `own` None stands for the outputs, which keep their scale."""

    def scaled(linear_map: LinearMap, columns: IntArray | None) -> LinearMap:
        result = linear_map
        if columns is not None and columns.any():
            result = compose(result, Selection.diagonal(np.ldexp(1.0, columns)))
        if own is not None and own.any():
            result = compose(Selection.diagonal(np.ldexp(1.0, -own)), result)
        return result

    return Affine(
        {k: scaled(linear_map, exponents[k]) for k, linear_map in row.states.items()},
        None if row.input is None else scaled(row.input, None),
        row.constant if own is None else np.ldexp(row.constant, -own),
        row.constant_error,
    )


def _scaled_block(block: StateBlock, exponents: IntArray) -> StateBlock:
    block = replace(block, maximum=None)  # source and maximum are divided by different powers of two
    if block.activation.positively_homogeneous or not exponents.size:
        return block
    return replace(block, exponent=block.exponent + int(exponents[0]))
