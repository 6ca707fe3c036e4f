"""The block-wise norm bound of block models: a small matrix of norms in place of |A|.

See docs/mathematics.md, section 5.2.

With l_inf norms, one a block, and gamma_k the block's Lipschitz constant in that norm,

    N(A, gamma)_kj = gamma_k ||A_kj||_inf,    N(B, gamma)_k = gamma_k ||B_k||_inf,
    |x_k - x0_k|_inf <= T_k |u - u0|_inf,     T = (I - N(A, gamma))^-1 N(B, gamma).

It holds for blocks whose states are coupled, where entrywise bounds are loose: softmax has gamma = 1/2 (not 1, as the
paper has it), and a pool that is kept as a block moves by no more than its window does, whatever states it was made of.
Outputs are single rows: N(C) is q x L, with the l_1 norm of output i's row of C_k in place (i, k).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import TINY, gamma, up


@dataclass(frozen=True)
class NormMatrix:
    """The norms of a model with L blocks (the paper's order) and q outputs, and what follows from them.

    All entries are rounded upward, in units of states (or outputs) per unit of input change in the l_inf norm.
    """

    states: FloatArray
    """N(A, gamma), shape (L, L)."""
    inputs: FloatArray
    """N(B, gamma), shape (L,)."""
    outputs: FloatArray
    """N(C), shape (q, L)."""
    direct: FloatArray
    """N(D), shape (q,)."""
    block_gains: FloatArray
    """T, shape (L,): |x_k - x0_k|_inf <= T_k |u - u0|_inf; infinite where a loop's norm is 1 or more."""
    pre_activation_gains: FloatArray
    """The same for z_k, shape (L,)."""

    @property
    def output_gains(self) -> FloatArray:
        """N(C) T + N(D), shape (q,): |y_i - y0_i| <= output_gains_i |u - u0|_inf."""
        return _weighted(self.outputs, self.block_gains, self.direct)


def norm_matrix(model: ImplicitModel) -> NormMatrix:
    """Return N(A, gamma), N(B, gamma), N(C), N(D) and T = (I - N(A, gamma))^-1 N(B, gamma), rounded upward.

    T comes by the recursion T_k = (sum over j > k of N_kj T_j + N(B)_k) / (1 - N_kk), oldest block first. Blocks that
    are maxima of another block's states count as such: their one entry is that of the block they choose from.

    Raises:
        UnsupportedModelError: where a block reads itself by way of other blocks.
    """
    if any(j < k for k, row in enumerate(model.rows) for j in row.states):
        raise UnsupportedModelError(("a block reads one that is newer; norms are known for loops within one block",))
    count = len(model.blocks)
    plain, plain_inputs = np.zeros((count, count)), np.zeros(count)
    states, inputs = np.zeros((count, count)), np.zeros(count)
    for k, (block, row) in enumerate(zip(model.blocks, model.rows, strict=True)):
        if block.maximum is not None:
            plain[k, block.maximum.source] = 1.0
        else:
            plain[k], plain_inputs[k] = _norms(row, count)
        steepest = float(np.max(block.activation.lipschitz))
        states[k], inputs[k] = _product(steepest, plain[k]), _product(steepest, plain_inputs[k])
    gains, before = np.zeros(count), np.zeros(count)
    for k in model.evaluation_order:
        others = np.where(np.arange(count) == k, 0.0, states[k])
        gains[k] = _divided(float(_weighted(others, gains, inputs[k])), float(states[k, k]))
        before[k] = _weighted(plain[k], gains, plain_inputs[k])
    outputs, direct = _row_norms(model.output, count)
    return NormMatrix(states, inputs, outputs, direct, gains, before)


def norm_bound(model: ImplicitModel) -> float | None:
    """Return rho = ||B|| ||C|| / (1 - ||A||) + ||D||, l_inf norms, rounded upward; None where ||A|| >= 1.

    |y - y0|_inf <= rho |u - u0|_inf. It depends on the scaling: give the rescaled model. For activations with slopes
    above 1, A and B are multiplied by the largest Lipschitz constant; None where that is infinite, as of jumps.
    """
    if model.unbounded or model.has_jumps:
        return None
    steepest = max([1.0, *(float(np.max(block.activation.lipschitz)) for block in model.blocks)])
    a = max((_norm(row.states.values(), row.size) for row in model.rows), default=0.0)
    b = max((_norm([row.input], row.size) for row in model.rows if row.input is not None), default=0.0)
    c, d = _norm(model.output.states.values(), model.n_outputs), 0.0
    if model.output.input is not None:
        d = _norm([model.output.input], model.n_outputs)
    behind = _divided(float(_product(steepest, b)), float(_product(steepest, a)))
    return None if not np.isfinite(behind) else float(_weighted(np.array([c]), np.array([behind]), d))


def _norm(maps: Iterable[LinearMap], size: int) -> float:
    """Return the l_inf norm of maps side by side, rounded upward."""
    sums = [_row_sums(linear_map) for linear_map in maps]
    return float((sum(sums, np.zeros(size)) * (1 + gamma(len(sums) + 2))).max(initial=0.0))


def _norms(row: Affine, count: int) -> tuple[FloatArray, float]:
    """Return (||A_kj||_inf for every block j, ||B_k||_inf) of one row of blocks, rounded upward."""
    norms = np.zeros(count)
    for j, linear_map in row.states.items():
        norms[j] = _row_sums(linear_map).max(initial=0.0)
    return norms, 0.0 if row.input is None else float(_row_sums(row.input).max(initial=0.0))


def _row_norms(row: Affine, count: int) -> tuple[FloatArray, FloatArray]:
    """Return the l_1 norms of the rows, (size, L) for the blocks and (size,) for the input, rounded upward."""
    norms = np.zeros((row.size, count))
    for j, linear_map in row.states.items():
        norms[:, j] = _row_sums(linear_map)
    return norms, np.zeros(row.size) if row.input is None else _row_sums(row.input)


def _row_sums(linear_map: LinearMap) -> FloatArray:
    """Return |W_true| 1 at least: what rounding did to the coefficients is paid for."""
    sums = linear_map.row_sums * (1 + linear_map.relative)
    if linear_map.slack is not None:
        sums = sums + linear_map.slack.row_sums
    return np.asarray(np.where(sums == 0, 0.0, _outward(sums, 8)))


def _outward(total: FloatArray, terms: int) -> FloatArray:
    """Return sums of so many terms, none negative, rounded upward; what is no number is infinite."""
    raised = total * (1 + gamma(terms)) + TINY
    return np.asarray(np.where(np.isnan(raised), np.inf, raised))


def _product(factor: float, norms: FloatArray | float) -> FloatArray:
    with np.errstate(invalid="ignore"):
        product = factor * np.asarray(norms)
    raised = np.where(np.isnan(product), np.inf, up(product))
    return np.asarray(np.where((factor == 0) | (np.asarray(norms) == 0), 0.0, raised))


def _weighted(norms: FloatArray, gains: FloatArray, rest: FloatArray | float) -> FloatArray:
    """Return norms . gains + rest along the last axis, rounded upward; 0 times infinity counts as 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        products = np.where((norms == 0) | (gains == 0), 0.0, norms * gains)
        total = products.sum(axis=-1) + rest
        none = ((norms == 0) | (gains == 0)).all(axis=-1) & (np.asarray(rest) == 0)  # whatever underflows
        return np.asarray(np.where(none, 0.0, _outward(np.asarray(total), norms.shape[-1] + 8)))


def _divided(gain: float, loop: float) -> float:
    """Return gain / (1 - loop), rounded upward; infinite where loop >= 1 leaves no bound."""
    if not loop < 1:
        return np.inf
    return gain if loop == 0 else math.nextafter(gain / math.nextafter(1 - loop, 0.0), math.inf)
