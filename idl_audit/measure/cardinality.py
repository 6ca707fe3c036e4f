"""Bounds for sparse changes: at most k inputs move, each within its own sigma_u (docs/mathematics.md, section 5.4).

|y - y0| <= S |u - u0| with at most k nonzeros in u - u0, |u - u0| <= sigma_u, gives |y_i - y0_i| <= s_k(sigma_u * S_i):
the sum of the k largest entries of row i, each times what its input may move.
"""

from __future__ import annotations

import operator

import numpy as np

from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import OptionError
from idl_audit.values.rounding import gamma, up


def cardinality_bounds(matrix: FloatArray, sigma: FloatArray | float, k: int) -> FloatArray:
    """Return s_k(sigma * S_i) >= |y_i - y0_i| for every output, shape (q,), in the output's units, rounded upward.

    Valid for all u with |u - u0| <= sigma and at most k inputs that differ, wherever |y - y0| <= S |u - u0| is.

    Args:
        matrix: a sensitivity matrix S >= 0, shape (q, p), or rows of functionals of it.
        sigma: how far each input may move, shape (p,), or one number for all, in data units.
        k: how many inputs may move; more than p means all.

    Raises:
        OptionError: where k < 1, or sigma is negative, not finite or of another length.
    """
    p = matrix.shape[1]
    radius = _radius(sigma, p)
    if operator.index(k) < 1:
        raise OptionError(f"the number of inputs that may change must be 1 or more, not {k}")
    # an infinite sensitivity to an input that cannot move counts for nothing
    moves = np.where((matrix == 0) | (radius == 0), 0.0, up(_product(matrix, radius)))
    if k < p:
        moves = np.partition(moves, p - k, axis=1)[:, p - k :]
    return np.asarray(moves.sum(axis=1) * (1 + 2 * gamma(min(k, p) + 2)))


def _product(matrix: FloatArray, radius: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(matrix * radius)


def _radius(sigma: FloatArray | float, p: int) -> FloatArray:
    given = np.asarray(sigma, np.float64)
    if given.shape not in ((), (p,)):
        raise OptionError(f"sigma has shape {given.shape}; give one number, or one for each of the {p} inputs")
    if not (np.isfinite(given).all() and (given >= 0).all()):
        wrong = given[~(np.isfinite(given) & (given >= 0))]
        raise OptionError(f"sigma must be 0 or more and finite everywhere; found {wrong.reshape(-1)[0]}")
    return np.broadcast_to(given, (p,))
