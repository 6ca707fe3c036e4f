"""Products of matrices that are known up to an error, entry by entry, rounded outward.

`Coefficients(M, E)` stands for every matrix within E of M. With k columns in the left factor,

    |A B - fl(M_A M_B)| <= |M_A| (gamma |M_B| + E_B) + E_A (|M_B| + E_B),     gamma = gamma_(k+4).
"""

from __future__ import annotations

import numpy as np

from idl_audit.implicit.wellposed import Coefficients
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma


def error_of(a: Coefficients) -> FloatArray:
    """Return E, zeros where the matrix is exact."""
    return np.zeros_like(a.matrix) if a.error is None else a.error


def product(a: Coefficients, b: Coefficients) -> Coefficients:
    """Return A B, (n, k) and (k, m) -> (n, m)."""
    rounding = gamma(a.matrix.shape[1] + 8)
    error = a.magnitude @ (rounding * b.magnitude + error_of(b))
    if a.error is not None:
        error = error + a.error @ (b.magnitude + error_of(b))
    return Coefficients(a.matrix @ b.matrix, error * (1 + 2 * rounding) + TINY)


def total(a: Coefficients, b: Coefficients) -> Coefficients:
    """Return A + B."""
    found = a.matrix + b.matrix
    return Coefficients(found, (error_of(a) + error_of(b) + gamma(2) * np.abs(found)) * (1 + gamma(8)) + TINY)


def scaled_rows(weights: FloatArray, a: Coefficients) -> Coefficients:
    """Return diag(weights) A."""
    column = np.abs(weights)[:, None]
    return Coefficients(
        weights[:, None] * a.matrix, column * (gamma(2) * a.magnitude + error_of(a)) * (1 + gamma(8)) + TINY
    )


def transposed(a: Coefficients) -> Coefficients:
    """Return A^T."""
    return Coefficients(np.ascontiguousarray(a.matrix.T), None if a.error is None else np.ascontiguousarray(a.error.T))


def rows(a: Coefficients, chosen: IntArray) -> Coefficients:
    """Return some rows."""
    return Coefficients(a.matrix[chosen], None if a.error is None else a.error[chosen])


def largest(a: Coefficients) -> FloatArray:
    """Return |A| at least, entry by entry."""
    return a.magnitude if a.error is None else a.magnitude + a.error


def reach(a: Coefficients, radius: FloatArray) -> FloatArray:
    """Return |A| r rounded upward: how far A v moves, |v| <= r; (n, k) and (k,) -> (n,)."""
    return np.asarray(largest(a) @ radius * (1 + gamma(a.matrix.shape[1] + 8)) + TINY)


def image(a: Coefficients, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (A v, a bound of its error), (n, k) and (k,) -> (n,)."""
    rounding = gamma(a.matrix.shape[1] + 8)
    error = (rounding * a.magnitude + error_of(a)) @ np.abs(v)
    return np.asarray(a.matrix @ v), np.asarray(error * (1 + 2 * rounding) + TINY)


def length(vectors: FloatArray) -> FloatArray:
    """Return the l2 norm over the last axis, rounded upward."""
    squares = (vectors * vectors).sum(axis=-1)
    return np.asarray(np.sqrt(squares) * (1 + gamma(vectors.shape[-1] + 16)) + LOST)


LOST = 2.0**-500
"""Far above the root of what squares lose that underflow."""
