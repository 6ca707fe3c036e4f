"""Rescaling to ||A||_inf <= kappa < 1 by powers of two, one a channel (docs/mathematics.md, section 4).

For positively homogeneous phi and s > 0: A' = diag(1/s) A diag(s), B' = diag(1/s) B, b' = diag(1/s) b, C' = C diag(s)
give the same outputs, and |A| s <= kappa s gives ||A'||_inf <= kappa. With s a power of two, constant over a channel,
nothing is rounded and kernels stay kernels. The paper's s = (I - |A|)^-1 1 reaches 3e19 on a ResNet-20 and gives a norm
that rounds to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from idl_audit.implicit.composition import compose, least_entry
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, Scaling, StateBlock
from idl_audit.implicit.wellposed import perron_root
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.errors import OptionError
from idl_audit.values.rounding import gamma, up

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
    try:
        scale = channel_exponents(model, kappa)
        _check_range(model, scale)
    except _NoScalingError as error:
        return replace(model, scaling=Scaling(kappa, before, None, reason=str(error)))
    scaled = scaled_by(model, scale)
    after = norm_inf_a(scaled)
    if not after < 1:
        return replace(model, scaling=Scaling(kappa, before, None, reason=f"rounding leaves ||A||_inf = {after:.17g}"))
    return replace(
        scaled,
        scaling=Scaling(
            kappa, before, after, MappingProxyType(scale.exponents), weights=MappingProxyType(scale.weights)
        ),
    )


def scaled_by(model: ImplicitModel, scale: Scale) -> ImplicitModel:
    """Return an equal model with the states x' = diag(1/s) x.

    Its constants must not leave the range of float64 by that; maps have a slack where they do.

    Raises:
        UnsupportedModelError: where entries of maps would be too large.
    """
    return replace(
        model,
        blocks=tuple(_scaled_block(block, scale.exponents[k]) for k, block in enumerate(model.blocks)),
        rows=tuple(_scaled_row(row, scale, k) for k, row in enumerate(model.rows)),
        output=_scaled_row(model.output, scale, None),
    )


ROUNDING = 1e-9
"""What ||A||_inf may be above kappa, relative, where a loop has weights that are no powers of two."""


def why_above(model: ImplicitModel) -> str:
    """Return why ||A||_inf of a rescaled model is above the kappa that was asked for; empty where it is not."""
    scaling = model.scaling
    if scaling is None or scaling.norm_after is None or scaling.norm_after <= scaling.kappa * (1 + ROUNDING):
        return ""
    roots = {loop.block.name: perron_root(loop.A.magnitude) for loop in model.loops.values()}
    name = max(roots, key=lambda name: roots[name])
    reached = f"{scaling.norm_after:.4g} was reached"
    if scaling.kappa <= roots[name]:
        return f"{scaling.kappa:g} is below lambda_PF(|A|) = {roots[name]:.4g} in the loop '{name}'; {reached}"
    return f"no scaling of the loop '{name}', lambda_PF(|A|) = {roots[name]:.4g}, reaches {scaling.kappa:g}; {reached}"


class _NoScalingError(Exception):
    """Why a model stays as it is; told in its report, no error of the user's."""


@dataclass(frozen=True)
class Scale:
    """s = 2^exponents weights, block by block; no weights means ones. |A| s <= kappa s, or a little more in loops."""

    exponents: dict[int, IntArray] = field(default_factory=dict)
    weights: dict[int, FloatArray] = field(default_factory=dict)
    """Only for loops that no powers of two suit."""

    def of(self, k: int) -> FloatArray | None:
        """Return s of a block; None where it is 1."""
        if k in self.weights:
            return np.ldexp(self.weights[k], self.exponents[k])
        return np.ldexp(1.0, self.exponents[k]) if self.exponents[k].any() else None

    def relative(self, k: int, most: int) -> FloatArray:
        """Return s of a block divided by 2^most."""
        return np.ldexp(self.weights.get(k, np.ones(self.exponents[k].size)), self.exponents[k] - most)


def channel_exponents(model: ImplicitModel, kappa: float) -> Scale:
    """Return s >= 1 with |A| s <= kappa s, powers of two that are constant over each channel.

    A loop that kappa is not reached for has max(kappa, (1 + lambda_PF) / 2); where no powers of two suit it, s_c = (I -
    |A_cc| / kappa)^-1 max(1, |A_ce| s_e / kappa) for a positively homogeneous activation.
    """
    scale = Scale()
    for k in model.evaluation_order:
        block, row = model.blocks[k], model.rows[k]
        if k in row.states:
            _scale_loop(model, k, scale, kappa)
        else:
            scale.exponents[k] = _per_channel_maximum(block, _least_exponents(row, scale, kappa))
    return scale


def _scale_loop(model: ImplicitModel, k: int, scale: Scale, kappa: float) -> None:
    """Put in the scale of a block that reads itself. Raises _NoScalingError where lambda_PF(|A|) >= 1."""
    block, loop = model.blocks[k], model.loops[k]
    root = perron_root(loop.A.magnitude)
    if not root < 1:
        proof = (
            "no proof of well-posedness holds" if loop.proof is None else f"the proof that holds is {loop.proof.name}"
        )
        raise _NoScalingError(f"none exists: lambda_PF(|A|) = {root:.5g} in the loop '{block.name}', {proof}")
    if root < kappa < (1 + root) / 2:
        try:
            return _scale_loop_to(model, k, scale, kappa)
        except _NoScalingError:  # so near the root no powers of two may suit
            scale.weights.pop(k, None)
    return _scale_loop_to(model, k, scale, max(kappa, (1 + root) / 2))


def _scale_loop_to(model: ImplicitModel, k: int, scale: Scale, kappa: float) -> None:
    """Put in s with |A_kk| s_k + (what drives the loop) <= kappa s_k. Raises _NoScalingError where none is found."""
    block, row, loop = model.blocks[k], model.rows[k], model.loops[k]
    scale.exponents[k] = np.zeros(block.size, np.int64)
    for _ in range(4 * LARGEST_EXPONENT):
        found = np.maximum(_least_exponents(row, scale, kappa), scale.exponents[k])
        if block.activation.coupled:
            found = np.full_like(found, found.max(initial=0))
        if np.array_equal(found, scale.exponents[k]):
            return
        if found.max() > LARGEST_EXPONENT:
            break
        scale.exponents[k] = found
    if not block.activation.positively_homogeneous:
        raise _NoScalingError(f"no powers of two suit the loop '{block.name}', and {block.activation.name} needs them")
    most = max((int(scale.exponents[j].max(initial=0)) for j in loop.drive.states), default=0)
    reach = np.zeros(block.size)
    for j, linear_map in loop.drive.states.items():
        reach += linear_map.magnitude.apply(scale.relative(j, most)[None])[0]
    try:
        least = np.linalg.solve(np.eye(block.size) - loop.A.magnitude / kappa, np.maximum(2.0**-most, reach / kappa))
    except np.linalg.LinAlgError:
        raise _NoScalingError(f"no weights suit the loop '{block.name}'") from None
    if not (np.isfinite(least).all() and (least > 0).all()):
        raise _NoScalingError(f"no weights suit the loop '{block.name}' within the range of float64")
    mantissa, exponent = np.frexp(least)
    scale.exponents[k], scale.weights[k] = exponent.astype(np.int64) + most - 1, 2 * mantissa


def _least_exponents(row: Affine, scale: Scale, kappa: float) -> IntArray:
    """Return the least e >= 0 with (|A| s)_i <= kappa 2^e_i for the states of one row of blocks."""
    # numbers s_j / 2^most stay within the range of float64, however large the exponents grow
    most = max((int(scale.exponents[j].max(initial=0)) for j in row.states), default=0)
    sums = np.zeros(row.size)
    for j, linear_map in row.states.items():
        sums += linear_map.magnitude.apply(scale.relative(j, most)[None])[0]
    terms = sum(linear_map.row_terms + 1 for linear_map in row.states.values())
    mantissa, exponent = np.frexp(sums * (1 + 2 * gamma(terms + 2)) / kappa * (1 + gamma(4)))
    least = np.where(sums > 0, exponent - (mantissa == 0.5) + most, 0)  # the least e with 2^e >= value
    return np.asarray(np.maximum(least, 0), np.int64)


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


def _check_range(model: ImplicitModel, scale: Scale) -> None:
    """Raise _NoScalingError where the scaling would leave the range of float64."""
    largest = max((int(e.max(initial=0)) for e in scale.exponents.values()), default=0)
    if largest > LARGEST_EXPONENT:
        raise _NoScalingError(f"a state would be scaled by 2^{largest}, beyond 2^{LARGEST_EXPONENT}")
    for k, row in enumerate(model.rows):
        constants = np.abs(row.constant[row.constant != 0])
        least = {"constant": float(constants.min(initial=1.0)), "weights": min(map(least_entry, row.maps), default=1.0)}
        for what, value in least.items():
            if np.ldexp(value, -int(scale.exponents[k].max(initial=0)) - 1) < 2 * np.finfo(np.float64).tiny:
                name = model.blocks[k].name
                raise _NoScalingError(f"the {what} of block '{name}' would be scaled below the range of float64")


def _scaled_row(row: Affine, scale: Scale, own: int | None) -> Affine:
    """Return diag(1/s_own) (row) diag(s); `own` None stands for the outputs, which keep their scale."""
    mine = None if own is None else scale.of(own)
    exact = own not in scale.weights

    def scaled(linear_map: LinearMap, columns: FloatArray | None) -> LinearMap:
        result = linear_map
        if columns is not None:
            result = compose(result, Selection.diagonal(columns))
        if mine is not None:
            result = compose(Selection.diagonal(1 / mine).uncertain(0.0 if exact else gamma(2)), result)
        return result

    constant, error = row.constant, row.constant_error
    if mine is not None:
        constant = constant / mine
        # of whichever state is divided by the least number; 0 of a row that is exact
        error = float(up(error * (1 / mine).max(initial=0.0) * (1.0 if exact else 1 + gamma(4)))) if error else 0.0
        error = error if exact else error + gamma(2) * float(np.abs(constant).max(initial=0.0))
    return Affine(
        {k: scaled(linear_map, scale.of(k)) for k, linear_map in row.states.items()},
        None if row.input is None else scaled(row.input, None),
        constant,
        error,
    )


def _scaled_block(block: StateBlock, exponents: IntArray) -> StateBlock:
    block = replace(block, maximum=None)  # source and maximum are divided by different powers of two
    if block.activation.positively_homogeneous or not exponents.any():
        return block
    same = bool((exponents == exponents[0]).all())
    return replace(block, exponent=block.exponent + (int(exponents[0]) if same else exponents))
