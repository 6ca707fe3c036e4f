"""The box around an ellipsoid that changes of a monotone loop lie in (docs/mathematics.md, section 6.6).

Slopes in [a, g] make dx = a dz + e with e . D (dz - e / (g - a)) >= 0 for any weights D > 0 (e = 0 where a = g). With
the loop solved for dz (`linearised`, slopes a) and U the states whose slope is open,

    e . Q e <= e . D v,   v = (Y P dw + d)_U,   Q = D / (g - a) - sym(D (Y A)_UU).

Any T with ||I - T' Q T||_inf <= eps < 1 shows that e = T y, |y - s T' D v / 2| <= s |T' D v| / 2, s = 1 / (1 - eps). So

    |f e + g dw| <= |s f T T' D (Y P)_U / 2 + g| r + s |f T|_2 rho / 2 + (what d adds),
    rho = max of |T' D (Y P)_U dw|_2 over |dw| <= r,

in each direction about half of what the ball |dx|_2 <= |P dw|_2 / m gives. With N = (that matrix) diag(r), and for any
weights w > 0, rho^2 <= lambda_max(N diag(1/w) N') sum(w).

Elsewhere: quadratic constraints, SDP, LipSDP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.wellposed import Coefficients
from idl_audit.proof.loops.enclosed import (
    LOST,
    error_of,
    largest,
    length,
    product,
    reach,
    rows,
    scaled_rows,
    total,
    transposed,
)
from idl_audit.proof.loops.linearised import Linearised, linearised
from idl_audit.proof.loops.system import LoopSystem
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.rounding import gamma, up


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """What bounds changes of a loop's states for slopes in [a, g], for any change of what drives it."""

    solved: Linearised
    open_states: IntArray
    """U."""
    is_flat: FloatArray
    """Which of U have a = 0, so that e is dx itself."""
    s: float
    T: Coefficients
    DT: FloatArray
    """|T' D|, rounded upward, (|U|, |U|)."""
    J: Coefficients
    """T' D (Y P)_U."""
    FT: Coefficients
    """(Y A)_U T, all states."""
    middle: Coefficients
    """s (Y A)_U T J / 2 + Y P: how the centre moves z."""
    centre: Coefficients
    """s T J / 2: how the centre moves e."""

    def changes(self, r: FloatArray, delta: FloatArray, widths: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of (|z - z0|, |x - x0|), |x - x0| infinite where a is not 0 or the slope is one number.

        Args:
            r: |dw| <= r.
            delta: |d| <= delta, what else is added to z's constant.
            widths: |z - z0| <= widths, known before.
        """
        n = len(delta)
        rounding = 1 + gamma(2 * n + 64)
        extra = (self.solved.defect @ widths + largest(self.solved.Y) @ delta) * rounding
        pushed = self.DT @ extra[self.open_states] * rounding
        rho = radius(self.J, r) + float(length(pushed))
        half = self.s / 2
        z = reach(self.middle, r) + half * (largest(self.FT) @ pushed + length(largest(self.FT)) * rho) + extra
        e = reach(self.centre, r) + half * (largest(self.T) @ pushed + length(largest(self.T)) * rho)
        x = np.full(n, np.inf)
        x[self.open_states] = np.where(self.is_flat, e * rounding, np.inf)
        return z * rounding, x


def ellipsoid(system: LoopSystem, least: FloatArray, most: FloatArray) -> Ellipsoid | None:
    """Return the ellipsoid for slopes in [least, most]; None where Q is not positive definite.

    Coupled states have least = 0 and, for most, what their gradient is no steeper than (`LoopSystem.gradient_slopes`).
    """
    solved = linearised(system, least)
    if solved is None:
        return None
    U = np.flatnonzero(most > least)
    span = up(most[U] - least[U])
    weights = system.weights[U]
    YA_U = Coefficients(solved.YA.matrix[:, U], None if solved.YA.error is None else solved.YA.error[:, U])
    Q = _symmetric(scaled_rows(weights, rows(YA_U, U)), weights / span)
    try:
        factor = np.linalg.cholesky(Q.matrix) if U.size else np.zeros((0, 0))
        T = Coefficients(np.ascontiguousarray(np.linalg.inv(factor).T))
    except np.linalg.LinAlgError:
        return None
    Tt = transposed(T)
    unit = product(product(Tt, Q), T)
    off = np.abs(np.eye(U.size) - unit.matrix) + error_of(unit) + gamma(4)
    eps = float(off.sum(axis=1).max(initial=0.0)) * (1 + gamma(U.size + 16))
    if not eps < 0.5:  # NaN proves nothing either
        return None
    s = float(np.nextafter(1 / (1 - eps), np.inf)) * (1 + gamma(8))
    weighted = transposed(scaled_rows(weights, T))
    J = product(weighted, rows(solved.YP, U))
    FT = product(YA_U, T)
    half = np.full(system.n, s / 2)
    middle = total(scaled_rows(half, product(FT, J)), solved.YP)
    centre = scaled_rows(half[: U.size], product(T, J))
    return Ellipsoid(solved, U, least[U] == 0, s, T, largest(weighted), J, FT, middle, centre)


def _symmetric(a: Coefficients, diagonal: FloatArray) -> Coefficients:
    """Return diag(d) - (A + A^T) / 2; d is off by at most two roundings."""
    matrix = np.diag(diagonal) - (a.matrix / 2 + a.matrix.T / 2)
    error = error_of(a) / 2 + error_of(a).T / 2
    size = np.diag(np.abs(diagonal)) + a.magnitude / 2 + a.magnitude.T / 2
    return Coefficients(matrix, (error + gamma(8) * size) * (1 + gamma(8)))


EXPONENTS = (0.0, 2.0, 8.0)
"""Rounds of weights in `radius`: the exponent of the eigenvalues in each."""


def radius(J: Coefficients, r: FloatArray) -> float:
    """Return a bound of max |J v|_2 over |v| <= r: the best of a few weights w, each proved."""
    known = float(length(error_of(J) @ r * (1 + gamma(r.size + 8))))
    N = J.matrix * r
    moving = np.flatnonzero(N.any(axis=0))
    if not moving.size or not len(N):
        return known
    best, values, vectors = np.inf, np.ones(len(N)), np.eye(len(N))
    M, steps = J.matrix[:, moving], r[moving]
    for exponent in EXPONENTS:
        S = (vectors * np.maximum(values / values.max(), 1e-12) ** exponent) @ vectors.T
        pull = steps * np.sqrt(np.maximum(((S @ M) * M).sum(axis=0), 0.0))
        w = np.maximum(pull, 1e-9 * pull.max())
        if not (w > LOST).all() or not np.isfinite(w).all():
            break
        weighted = M * (steps * steps / w)
        H = weighted @ M.T
        H = H / 2 + H.T / 2
        try:
            values, vectors = np.linalg.eigh(H)
        except np.linalg.LinAlgError:  # after an overflow
            break
        rounding = gamma(moving.size + 32)
        size = np.abs(weighted) @ np.abs(M).T
        found = _greatest_eigenvalue(H, values, vectors, rounding * size) * float(w.sum()) * (1 + rounding)
        best = min(best, float(np.sqrt(found)) * (1 + gamma(16)) + LOST)
    return (best + known) * (1 + gamma(4))


def _greatest_eigenvalue(H: FloatArray, values: FloatArray, vectors: FloatArray, error: FloatArray) -> float:
    """Return a bound of lambda_max of every symmetric matrix within `error` of H: H = V diag(values) V' + rest."""
    n = len(H)
    again = (vectors * values) @ vectors.T
    size = (np.abs(vectors) * np.abs(values)) @ np.abs(vectors).T + np.abs(H)
    rest = (np.abs(H - again) + gamma(n + 16) * size + error).sum(axis=1).max()
    gram = np.abs(vectors.T @ vectors - np.eye(n)) + gamma(n + 16) * (np.abs(vectors).T @ np.abs(vectors))
    stretch = 1 + float(gram.sum(axis=1).max())
    return float((max(float(values.max()), 0.0) * stretch + rest) * (1 + gamma(2 * n + 32)) + LOST * LOST)
