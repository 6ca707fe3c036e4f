"""The monotone proof (docs/mathematics.md, section 3.5): Q = D/g - (D A + A^T D) / 2 >= m I with m > 0.

D = diag(w) are weights w > 0, ones unless others are known to suit. For slopes in [0, g], and for groups of coupled
states with one weight each whose phi is the gradient of a convex function no steeper than g, (dz - dx / g) . D dx >= 0,
hence dx . Q dx <= dx . D di: one x for every i, and dx in the ellipsoid around Q^-1 D di / 2 with
(dx - Q^-1 D di / 2) . Q (dx - Q^-1 D di / 2) <= D di . Q^-1 D di / 4. For D i = B u and every row f

    |f dx + g du| <= sum over j of (|f Q^-1 B_j / 2 + g_j| + sqrt(f Q^-1 f) sqrt(B_j . Q^-1 B_j) / 2) |du_j|.

The witness is a factor L with ||Q - L L^T - m I||_inf < m: it shows that Q's least eigenvalue is positive.

Elsewhere: monotone operator, strong monotonicity m.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idl_audit.implicit.wellposed.contraction import Coefficients
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma


@dataclass(frozen=True, eq=False)
class Monotone:
    """A loop, a claimed m, and the factor L that proves it."""

    loop: Coefficients
    steepest: FloatArray
    """g: slopes of phi lie in [0, g], (n,)."""
    m: float
    factor: FloatArray
    name: str = "monotone"
    weights: FloatArray | None = None
    """w > 0, (n,); ones where left out."""

    @property
    def A(self) -> FloatArray:
        """The loop's matrix."""
        return self.loop.matrix

    @cached_property
    def _rounding(self) -> float:
        return gamma(4 * len(self.A) + 64)

    @cached_property
    def symmetric(self) -> FloatArray:
        """Q = diag(1/g) - (A + A^T) / 2, as computed: each entry is off by at most `_entry_error`."""
        return _symmetric(self.A, self.steepest, self._w)

    @cached_property
    def _w(self) -> FloatArray:
        return np.ones(len(self.A)) if self.weights is None else self.weights

    @cached_property
    def _entry_error(self) -> FloatArray:
        size, w = np.abs(self.A), self._w[:, None]
        error = gamma(8) * (np.diag(self._w / self.steepest) + w * size / 2 + (w * size).T / 2) + TINY
        if self.loop.error is not None:
            error = error + (w * self.loop.error / 2 + (w * self.loop.error).T / 2) * (1 + gamma(6))
        return np.asarray(error)

    @cached_property
    def least_eigenvalue(self) -> float:
        """m - ||Q - L L^T - m I||_inf, rounded downward: a proved lower bound of Q's least eigenvalue."""
        n = len(self.A)
        if not (np.isfinite(self.factor).all() and np.isfinite(self.A).all()):
            return float("-inf")
        if not (np.isfinite(self._w).all() and (self._w > 0).all()):
            return float("-inf")
        off = np.abs(self.symmetric - self.factor @ self.factor.T - self.m * np.eye(n))
        size = np.abs(self.factor) @ np.abs(self.factor).T + np.abs(self.symmetric) + abs(self.m) * np.eye(n)
        rows = (off + self._rounding * size + self._entry_error).sum(axis=1) * (1 + gamma(n + 8))
        return float(np.nextafter(self.m - float(rows.max(initial=0.0)), -np.inf))

    @property
    def holds(self) -> bool:
        """Whether the proof holds."""
        return self.least_eigenvalue > 0

    def response(self, B: Coefficients, C: Coefficients, D: Coefficients) -> FloatArray | None:
        """Return the proved bound S, |C dx + D du| <= S |du|, shape (q, p); None where it proves nothing."""
        if self.weights is not None:  # the formulas below are for D i in place of i
            scaled = gamma(2) * np.abs(B.matrix) + (0.0 if B.error is None else B.error)
            column = self.weights[:, None]
            B = Coefficients(column * B.matrix, column * scaled * (1 + gamma(4)) + TINY)
        return self._response(B, C, D)

    def _response(self, B: Coefficients, C: Coefficients, D: Coefficients) -> FloatArray | None:
        """Return S for D i = B u."""
        n = len(self.A)
        if not self.holds:
            return None
        if C.error is not None:
            reach = self._response(B, Coefficients(np.eye(n)), Coefficients(np.zeros((n, B.matrix.shape[1]))))
            plain = self._response(B, Coefficients(C.matrix), D)
            if reach is None or plain is None:
                return None
            return np.asarray((plain + C.error @ reach * (1 + self._rounding)) * (1 + gamma(4)))
        try:
            inverse = np.linalg.inv(self.symmetric)
        except np.linalg.LinAlgError:
            return None
        inverse = inverse / 2 + inverse.T / 2
        size = np.eye(n) + np.abs(inverse) @ np.abs(self.symmetric)
        defect = np.abs(np.eye(n) - inverse @ self.symmetric) + self._rounding * size
        defect = defect + np.abs(inverse) @ self._entry_error
        epsilon = float(defect.sum(axis=1).max(initial=0.0)) * (1 + gamma(n + 8))
        if not epsilon < 0.5:
            return None
        # |Q^-1 - inverse| <= columns, column by column: (I - E)^-1 E inverse with ||E||_inf <= epsilon
        columns = epsilon / (1 - epsilon) * np.abs(inverse).max(axis=0, initial=0.0) * (1 + gamma(8)) + TINY
        reach = np.abs(B.matrix) if B.error is None else np.abs(B.matrix) + B.error
        middle = C.matrix @ inverse @ B.matrix / 2 + D.matrix
        rows_of_c = np.abs(C.matrix).sum(axis=1, keepdims=True) * (1 + gamma(n + 4))
        slack = rows_of_c * (columns @ reach)[None, :] + self._rounding * (
            np.abs(C.matrix) @ np.abs(inverse) @ reach + np.abs(D.matrix)
        )
        if B.error is not None:
            slack = slack + np.abs(C.matrix) @ np.abs(inverse) @ B.error
        if D.error is not None:
            slack = slack + D.error
        outputs = self._energy(np.abs(C.matrix), inverse, columns, C.matrix)
        inputs = self._energy(reach.T, inverse, columns, B.matrix.T)
        if B.error is not None:  # |b Q^-1 b' - b0 Q^-1 b0'| <= (2 |b0| + e) |Q^-1| e
            spread = np.abs(inverse) + columns
            inputs = np.sqrt(inputs**2 + ((2 * reach.T) @ spread * B.error.T).sum(axis=1)) * (1 + self._rounding)
        product = outputs[:, None] * inputs[None, :] / 2
        return np.asarray((np.abs(middle) + slack + product) * (1 + self._rounding) + TINY)

    def _energy(self, magnitude: FloatArray, inverse: FloatArray, columns: FloatArray, rows: FloatArray) -> FloatArray:
        """Return sqrt(f Q^-1 f) at least, for each row f."""
        value = ((rows @ inverse) * rows).sum(axis=1)
        slack = magnitude.sum(axis=1) * (magnitude @ columns)
        slack += self._rounding * ((magnitude @ np.abs(inverse)) * magnitude).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(value, 0.0) + slack * (1 + self._rounding)) * (1 + gamma(16)) + TINY)


def _symmetric(A: FloatArray, steepest: FloatArray, weights: FloatArray) -> FloatArray:
    weighted = weights[:, None] * A
    return np.asarray(np.diag(weights / steepest) - (weighted / 2 + weighted.T / 2))


MOST_BALANCED = 512
"""States of a loop up to which weights are searched for."""
_ASCENTS = 60


def balanced(
    A: FloatArray, steepest: FloatArray, group: IntArray, start: FloatArray | None = None
) -> FloatArray | None:
    """Return weights w, one number a group, with D / g - (D A + A^T D) / 2 > 0 by an ascent of its least eigenvalue.

    Args:
        A: the loop, (n, n).
        steepest: g, (n,).
        group: the group of each state, (n,), numbered from 0.
        start: where the ascent starts, (n,), the same within a group; ones where left out.

    Returns:
        w, (n,), a guess to be proved; None where the ascent found none.
    """
    if not 0 < len(A) <= MOST_BALANCED:
        return None
    first = np.unique(group, return_index=True)[1]
    exponents = np.zeros(len(first)) if start is None else np.log2(start[first])
    slopes = np.maximum(steepest, 1e-300)
    for step in range(_ASCENTS):
        w = np.exp2(exponents)[group]
        try:
            values, vectors = np.linalg.eigh(_symmetric(A, slopes, w))
        except np.linalg.LinAlgError:  # after an overflow
            return None
        if values[0] > 0:
            return w
        u = vectors[:, 0]
        rise = np.bincount(group, w * u * (u / slopes - A @ u))
        length = float(np.abs(rise).max())
        if not (np.isfinite(length) and length > 0):
            return None
        exponents = exponents + rise / length / np.sqrt(1 + step)
        exponents -= exponents.mean()
    return None


def monotone(
    A: Coefficients, least: FloatArray, most: FloatArray, weights: FloatArray | None = None
) -> Monotone | None:
    """Return a checked monotone proof of a loop, or None where there is none.

    Args:
        A: the loop, (n, n).
        least, most: bounds of phi's slopes, (n,); none may be negative.
        weights: w > 0, (n,); ones where left out.
    """
    if not len(A.matrix) or not (least >= 0).all():
        return None
    steepest = np.maximum(most, 1e-300)
    symmetric = _symmetric(A.matrix, steepest, np.ones(len(A.matrix)) if weights is None else weights)
    try:
        m = float(np.linalg.eigvalsh(symmetric)[0]) * (1 - 1e-6)
    except np.linalg.LinAlgError:  # after an overflow
        return None
    if not m > 0:
        return None
    for share in (1 - 1e-9, 0.999, 0.5):  # the factor of a matrix that is almost singular fails by rounding
        try:
            factor = np.asarray(np.linalg.cholesky(symmetric - share * m * np.eye(len(symmetric))), np.float64)
        except np.linalg.LinAlgError:
            continue
        found = Monotone(A, steepest, share * m, factor, weights=weights)
        if found.holds:
            return found
    return None
