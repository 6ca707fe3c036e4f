"""The sensitivity matrix S = |C| (I - |A|)^-1 |B| + |D| of the paper (Thm 4.2), by rows through the adjoint.

|y(u) - y(u0)| <= S |u - u0| for all inputs u, u0. T = (I - |A|)^-1 |B| is never formed: row i of S comes from the
recursion r <- Gamma |A|^T r + |C|^T e_i, a backward pass through the network of absolute values (Gamma: Lipschitz
constants of the activations).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.arrays import FloatArray
from idl_audit.errors import UnsupportedModelError
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.scaling import norm_inf_a
from idl_audit.rounding import gamma


@dataclass(frozen=True)
class Sensitivity:
    """S, shape (q, p), in data units, with the norm bound beside it."""

    matrix: FloatArray
    norm_bound: float | None
    """rho = ||B|| ||C|| / (1 - ||A||) + ||D|| in infinity norms (paper 4.7); None where ||A||_inf >= 1."""

    @property
    def row_sums(self) -> FloatArray:
        """How far each output moves at most when every input moves by 1."""
        return np.asarray(self.matrix.sum(axis=1))

    @property
    def norm_inf(self) -> float:
        """||S||_inf, the largest row sum."""
        return float(self.row_sums.max(initial=0.0))


def sensitivity_matrix(model: ImplicitModel, *, functionals: FloatArray | None = None) -> FloatArray:
    """Return S = |C| (I - |A|)^-1 |B| + |D|, shape (q, p), rounded upward (paper Thm 4.2; unchanged by rescale).

    Args:
        model: a feed-forward model.
        functionals: rows F, shape (r, q); bounds |F (y - y0)| by the matrix of F y instead of y.

    Raises:
        UnsupportedModelError: where the model has cycles.
    """
    if not model.is_feed_forward:
        raise UnsupportedModelError(("the model has cycles; the sensitivity matrix of feed-forward models is known",))
    n_rows = model.n_outputs if functionals is None else len(functionals)
    sums: dict[int, FloatArray] = {}
    inputs = np.zeros((n_rows, model.n_inputs))
    inputs = _push_output(model, functionals, sums, inputs)
    for k in range(len(model.blocks)):
        r = sums.pop(k, None)
        if r is not None:
            inputs = _push(model.rows[k], model.blocks[k].activation.spread(r), sums, inputs)
    return inputs * (1 + 2 * gamma(_roundings(model)))


def _push(row: Affine, r: FloatArray, sums: dict[int, FloatArray], inputs: FloatArray) -> FloatArray:
    """Add |P_k|^T r to the sums of every source of the row; return the inputs' sum."""
    for k in sorted(row.states):
        term = row.states[k].magnitude.adjoint(r)
        sums[k] = sums[k] + term if k in sums else term
    return inputs if row.input is None else inputs + row.input.magnitude.adjoint(r)


def _push_output(
    model: ImplicitModel, functionals: FloatArray | None, sums: dict[int, FloatArray], inputs: FloatArray
) -> FloatArray:
    """Start the recursion with |F C|^T and |F D|^T, F the identity where no functionals are asked for."""
    if functionals is None:
        return _push(model.output, np.eye(model.n_outputs), sums, inputs)

    def magnitude(linear_map: LinearMap) -> FloatArray:
        rounding = gamma(linear_map.column_terms + 2) * linear_map.magnitude.adjoint(np.abs(functionals))
        return np.abs(linear_map.adjoint(functionals)) + rounding

    for k in sorted(model.output.states):
        sums[k] = magnitude(model.output.states[k])
    return inputs if model.output.input is None else inputs + magnitude(model.output.input)


def _roundings(model: ImplicitModel) -> int:
    """Return how many roundings one product of the recursion goes through, at most, over all blocks."""
    total = 8
    for row in (*model.rows, model.output):
        maps = [*row.states.values(), *([] if row.input is None else [row.input])]
        total += max((linear_map.column_terms for linear_map in maps), default=0) + len(maps) + 2
    return total


def norm_bound(model: ImplicitModel) -> float | None:
    """Return rho = ||B|| ||C|| / (1 - ||A||) + ||D||, infinity norms (paper 4.7); None where ||A||_inf >= 1.

    It depends on the scaling: give the rescaled model. For activations with slopes above 1, A and B are multiplied by
    their Lipschitz constants.
    """
    steepest = max((float(np.max(block.activation.lipschitz)) for block in model.blocks), default=1.0)
    a = norm_inf_a(model) * max(steepest, 1.0)
    if a >= 1:
        return None
    b = max((row.input.norm_inf for row in model.rows if row.input is not None), default=0.0) * max(steepest, 1.0)
    c_rows = np.zeros(model.n_outputs)
    for linear_map in model.output.states.values():
        c_rows = c_rows + linear_map.row_sums
    d = 0.0 if model.output.input is None else model.output.input.norm_inf
    return b * float(c_rows.max(initial=0.0)) / (1 - a) + d


def audit_sensitivity(model: ImplicitModel, rescaled: ImplicitModel) -> Sensitivity:
    """Return S of the model with the norm bound of its rescaled form."""
    return Sensitivity(sensitivity_matrix(model), norm_bound(rescaled))
