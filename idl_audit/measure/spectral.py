"""Scalar bounds in the l2 norm: ||y(u) - y(u0)||_2 <= L2 ||u - u0||_2 for all inputs.

A global Lipschitz constant by products of spectral norms (docs/mathematics.md, section 5.9).

sqrt(p) L2 also bounds every |y_i - y0_i| where ||u - u0||_inf <= 1, and is often smaller than ||S||_inf.
"""

from __future__ import annotations

import math

import numpy as np

from idl_audit.implicit.activations import Activation
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.spectral_norms import hypotenuse, spectral_norm, times, total, up
from idl_audit.values.arrays import BoolArray


def spectral_bound(model: ImplicitModel) -> float | None:
    """Return L2 with ||y(u) - y(u0)||_2 <= L2 ||u - u0||_2 for all inputs, data units, rounded upward.

    Block by block: ||dx_k|| <= gamma_k (sum_j ||W_kj|| ||dx_j|| + ||B_k|| ||du||); maps that fill different rows add in
    squares; a maximum over windows moves by at most sqrt(windows that read a state) times its source. The value depends
    on the scaling of the states: give the model as it was built.

    Returns:
        None where no such bound is known: the model has cycles, an activation couples states in an unknown way, or the
        bound leaves the range of float64.
    """
    if not model.is_feed_forward:
        return None
    moved: dict[int, float] = {}
    for k in model.evaluation_order:
        block = model.blocks[k]
        gain = _gain(block.activation)
        if gain is None:
            return None
        moved[k] = _capped_by_windows(block, times(gain, _moved(model.rows[k], moved)), moved)
    found = _moved(model.output, moved)
    return found if math.isfinite(found) else None


def spectral_scalar(model: ImplicitModel) -> float | None:
    """Return sqrt(p) L2 >= |y_i - y0_i| for all outputs where ||u - u0||_inf <= 1, data units, rounded upward.

    It compares with ||S||_inf. None where `spectral_bound` is.
    """
    bound = spectral_bound(model)
    if bound is None:
        return None
    scalar = times(bound, up(math.sqrt(model.n_inputs)))
    return scalar if math.isfinite(scalar) else None


def _gain(activation: Activation) -> float | None:
    """Return the l2 Lipschitz constant of an activation, None where it is not known."""
    if activation.coupled and not isinstance(activation, Softmax):  # softmax has the same constant in every l_p
        return None
    steepest = float(np.max(activation.lipschitz, initial=0.0))
    return steepest if math.isfinite(steepest) else None


def _capped_by_windows(block: StateBlock, bound: float, moved: dict[int, float]) -> float:
    """Return min(bound, sqrt(r) ||d source||), r windows at most read one state: |d max| <= max |d| <= ||d||_2."""
    if block.maximum is None:
        return bound
    used = block.maximum.windows[block.maximum.windows >= 0]
    readers = int(np.bincount(used).max()) if used.size else 0
    return min(bound, times(moved[block.maximum.source], up(math.sqrt(readers))))


def _moved(row: Affine, moved: dict[int, float]) -> float:
    """Return a bound of ||sum_j W_j dx_j + B du|| where ||du|| <= 1: sums, in squares where rows do not meet."""
    terms = [(_rows_filled(w), times(spectral_norm(w), moved[k])) for k, w in sorted(row.states.items()) if moved[k]]
    if row.input is not None:
        terms.append((_rows_filled(row.input), spectral_norm(row.input)))
    groups: list[tuple[BoolArray, list[float]]] = []
    for filled, size in terms:
        apart = next((group for group in groups if not (group[0] & filled).any()), None)
        if apart is None:
            groups.append((filled.copy(), [size]))
        else:
            apart[0][filled] = True
            apart[1].append(size)
    return total([hypotenuse(sizes) for _, sizes in groups])


def _rows_filled(linear_map: LinearMap) -> BoolArray:
    """Return which rows of W_true may have a nonzero, shape (n_out,)."""
    with np.errstate(over="ignore"):
        filled = linear_map.row_sums > 0
        return filled if linear_map.slack is None else filled | (linear_map.slack.row_sums > 0)
