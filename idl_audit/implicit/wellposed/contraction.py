"""One proof for every loop: slopes as centre and radius, after a change of variable (docs/mathematics.md, section 3.2).

For x = phi(A x + i) put t = x + alpha (z - x), M = diag(alpha)(I - A). Where the slopes of phi lie in [a, g], those of
x as a function of t lie in [a / (a (1 - alpha) + alpha), g / (g (1 - alpha) + alpha)] =: [c - r, c + r], so that
dx = c dt + w with |w| <= r |dt|. With any Y (about (I - (I - M) diag(c))^-1) and F = I - Y (I - (I - M) diag(c)),

    dt = F dt + Y (I - M) w + Y diag(alpha) di,     hence   |dt| <= Q |dt| + |Y diag(alpha) di|,
    Q  = |F| + |Y (I - M)| diag(r).

A vector v > 0 with Q v <= kappa v, kappa < 1, proves that there is exactly one x for every i, and for i = B u

    |C dx + D du| <= (H (I - Q)^-1 |Y diag(alpha) B| + |D + C diag(c) Y diag(alpha) B|) |du|,
    H = |C diag(c)| |F| + |C + C diag(c) Y (I - M)| diag(r).

alpha = 1, c = 0, r = gamma is the Perron-Frobenius test and the paper's S; alpha = 1 with the middle of the slopes is
the centre-radius form; alpha = 1 / (1 - A_ii) suits loops with strong negative feedback. States that are coupled
(softmax) have a matrix Gamma, |dx| <= Gamma |dt|, in place of r. Everything below is rounded outward.

Elsewhere: Perron-Frobenius condition, contraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, gamma, up

MOST_STATES = 8192
"""Dense matrices of this size take half a gigabyte each; loops with more states are refused."""


LEAST_WEIGHT = 2.0**-500


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A matrix and what its true entries may differ from it, entry by entry."""

    matrix: FloatArray
    error: FloatArray | None = None

    @cached_property
    def magnitude(self) -> FloatArray:
        """|matrix|."""
        return np.abs(self.matrix)


def slopes_in_t(least: FloatArray, most: FloatArray, alpha: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Return bounds of dx/dt for slopes dx/dz in [least, most] and t = x + alpha (z - x), rounded outward.

    s / (s (1 - alpha) + alpha) increases with s where its denominator is positive; None where it is not.
    """
    if bool((alpha == 1).all()):
        return least, most
    ends = []
    for slope, direction in ((least, -np.inf), (most, np.inf)):
        below = slope * (1 - alpha) + alpha
        size = np.abs(slope) * (1 + np.abs(alpha)) + np.abs(alpha)
        if not bool((below > 1e-6 * size).all()):
            return None
        value = slope / below
        rounding = gamma(8) * (1 + size / below) * np.abs(value)
        exact = (alpha == 1) | (slope == 0) | (slope == 1)
        plain = np.where(slope == 1, 1.0, np.where(slope == 0, 0.0, slope))  # 0 and 1 stay where they are, exactly
        ends.append(np.where(exact, plain, np.nextafter(value + np.sign(direction) * rounding, direction)))
    return ends[0], ends[1]


@dataclass(frozen=True, eq=False)
class Contraction:
    """A change of variable, a centre, an approximate inverse and a weight: a proof, once `kappa` has been checked.

    That [centre - radius, centre + radius] encloses the slopes in t is for its maker to see to: both follow from the
    model and from alpha, and are never read from a file.
    """

    A: Coefficients
    alpha: FloatArray
    centre: FloatArray
    radius: FloatArray
    """(n,), or (n, n) where states are coupled."""
    Y: FloatArray
    v: FloatArray
    name: str = ""

    @cached_property
    def _shifted(self) -> tuple[FloatArray, FloatArray]:
        """I - M, and a bound of the absolute values that were added up for it."""
        matrix = self.alpha[:, None] * self.A.matrix
        magnitude = np.abs(self.alpha)[:, None] * self.A.magnitude
        diagonal = np.arange(len(self.alpha))
        matrix[diagonal, diagonal] += 1 - self.alpha
        magnitude[diagonal, diagonal] += 1 + np.abs(self.alpha)
        return matrix, magnitude

    @cached_property
    def _pulled_error(self) -> FloatArray:
        """|Y| diag(alpha) |A_true - A|."""
        if self.A.error is None:
            return np.zeros_like(self.Y)
        return np.asarray(np.abs(self.Y) @ (np.abs(self.alpha)[:, None] * self.A.error))

    @cached_property
    def _size(self) -> FloatArray:
        """|Y| |I - M|, without cancellation."""
        return np.asarray(np.abs(self.Y) @ self._shifted[1])

    @cached_property
    def _rounding(self) -> float:
        return gamma(4 * len(self.v) + 64)

    @cached_property
    def forward(self) -> FloatArray:
        """Y (I - M), as computed."""
        return np.asarray(self.Y @ self._shifted[0])

    @cached_property
    def forward_error(self) -> FloatArray:
        """Bounds what rounding and A's own uncertainty did to it."""
        return self._rounding * self._size + self._pulled_error * (1 + self._rounding) + TINY

    @cached_property
    def defect(self) -> FloatArray:
        """|F| at least, F = I - Y (I - (I - M) diag(c))."""
        n = len(self.v)
        exact = -(self.Y - self.forward * self.centre)
        exact[np.arange(n), np.arange(n)] += 1
        size = np.eye(n) + np.abs(self.Y) + self._size * np.abs(self.centre)
        return np.asarray(np.abs(exact) + self._rounding * size + self.forward_error * np.abs(self.centre) + TINY)

    @cached_property
    def Q(self) -> FloatArray:
        """|F| + |Y (I - M)| diag(r) at least."""
        total = self.defect + self.spread(np.abs(self.forward) + self.forward_error)
        return np.asarray(total * (1 + self._rounding))

    def spread(self, rows: FloatArray) -> FloatArray:
        """Return rows diag(r), or rows Gamma, rounded upward, for rows >= 0."""
        product = rows * self.radius if self.radius.ndim == 1 else rows @ self.radius
        return np.asarray(product * (1 + self._rounding))

    @cached_property
    def kappa(self) -> float:
        """The least kappa with Q v <= kappa v, rounded upward; infinity where v proves nothing."""
        if not (np.isfinite(self.v).all() and (self.v >= LEAST_WEIGHT).all() and np.isfinite(self.Q).all()):
            return float("inf")  # below it, Q v might underflow
        if not (self.alpha > 0).all():
            return float("inf")
        ratio = (self.Q @ self.v) / self.v * (1 + 2 * self._rounding)
        largest = float(ratio.max(initial=0.0))
        return largest if np.isfinite(largest) else float("inf")

    @property
    def holds(self) -> bool:
        """Whether the proof holds: kappa < 1."""
        return self.kappa < 1

    def image(self, B: Coefficients) -> FloatArray:
        """Return |Y diag(alpha) B| at least: |dt| <= (I - Q)^-1 (this) |du|."""
        driven, error = self._driven(B)
        return np.abs(driven) + error

    def _driven(self, B: Coefficients) -> tuple[FloatArray, FloatArray]:
        scaled = np.abs(self.alpha)[:, None]
        driven = self.Y @ (self.alpha[:, None] * B.matrix)
        error = self._rounding * (np.abs(self.Y) @ (scaled * B.magnitude)) + TINY
        if B.error is not None:
            error = error + np.abs(self.Y) @ (scaled * B.error) * (1 + self._rounding)
        return driven, error

    def direct(self, B: Coefficients, C: Coefficients, D: Coefficients) -> FloatArray:
        """Return |D + C diag(c) Y diag(alpha) B| at least."""
        driven, error = self._driven(B)
        weighted = C.matrix * self.centre
        total = D.matrix + weighted @ driven
        slack = np.abs(weighted) @ (error + self._rounding * np.abs(driven)) + self._rounding * np.abs(total)
        slack += self._rounding * D.magnitude + (0.0 if D.error is None else D.error)
        return np.asarray((np.abs(total) + slack * (1 + self._rounding)) * (1 + gamma(8)) + TINY)

    def output_rows(self, C: Coefficients) -> FloatArray:
        """Return H = |C diag(c)| |F| + |C + C diag(c) Y (I - M)| diag(r) at least: |C dx - (direct part)| <= H |dt|."""
        weighted = C.matrix * self.centre
        total = C.matrix + weighted @ self.forward
        size = C.magnitude + np.abs(weighted) @ self._size
        error = self._rounding * size + np.abs(weighted) @ self.forward_error
        rows = np.abs(weighted) @ self.defect + self.spread(np.abs(total) + error)
        if C.error is not None:  # |dx| <= (|c| + r) |dt|
            rows = rows + C.error * np.abs(self.centre) + self.spread(C.error)
        return np.asarray(rows * (1 + self._rounding) + TINY)

    def adjoint_rows(self, H: FloatArray) -> FloatArray:
        """Return r >= H (I - Q)^-1, (k, n): any r >= 0 with r >= r Q + H, found by a solve and then made to hold."""
        n = len(self.v)
        try:
            rows = np.asarray(np.linalg.solve((np.eye(n) - self.Q).T, H.T).T, np.float64)
            weight = np.linalg.solve((np.eye(n) - self.Q.T / (0.5 + self.kappa / 2)), np.ones(n))
        except np.linalg.LinAlgError:
            return np.full_like(H, np.inf)
        rows, weight = np.maximum(np.nan_to_num(rows), 0.0), np.maximum(np.nan_to_num(weight), TINY)
        gain = weight - (weight @ self.Q) * (1 + self._rounding)  # r + s weight gains s gain on r Q + H
        if not bool((gain > 0).all()):
            return np.full_like(H, np.inf)
        for _ in range(3):
            lacking = self._needed(H, rows) * (1 + gamma(8)) - rows
            share = (lacking / gain).max(axis=1, initial=0.0)
            if not share.any():
                break
            rows = rows + (share * 1.01 + TINY)[:, None] * weight
        return rows

    def _needed(self, H: FloatArray, rows: FloatArray) -> FloatArray:
        """Return rows Q + H, rounded upward."""
        return np.asarray((H + rows @ self.Q * (1 + self._rounding)) * (1 + gamma(8)))

    def accepts(self, H: FloatArray, rows: FloatArray) -> bool:
        """Return whether rows >= 0 and rows >= rows Q + H, rounded against us: what makes `rows` a witness."""
        if rows.shape != H.shape or not np.isfinite(rows).all() or not (rows >= 0).all():
            return False
        return bool((rows >= self._needed(H, rows)).all())

    def response(
        self, B: Coefficients, C: Coefficients, D: Coefficients, rows: FloatArray | None = None
    ) -> FloatArray | None:
        """Return the proved bound S, |C dx + D du| <= S |du|, shape (q, p); None where the witness proves nothing.

        Args:
            B, C, D: the maps around the loop, dense, with the uncertainty of their entries.
            rows: the witness r, shape (q, n); found here where it is not given.
        """
        if not self.holds:
            return None
        H = self.output_rows(C)
        found = self.adjoint_rows(H) if rows is None else rows
        if not self.accepts(H, found):
            return None
        product = found @ self.image(B) * (1 + self._rounding)
        return np.asarray((product + self.direct(B, C, D)) * (1 + gamma(8)))


def contraction(
    A: Coefficients,
    least: FloatArray,
    most: FloatArray,
    *,
    alpha: FloatArray | None = None,
    middle: bool = True,
    coupled: FloatArray | None = None,
    name: str = "",
) -> Contraction | None:
    """Return a contraction with a checked kappa < 1, or None where none was found.

    Args:
        A: the loop, (n, n).
        least, most: bounds of the slopes of phi, (n,).
        alpha: the change of variable, (n,); ones where it is left out.
        middle: whether the centre is the middle of the slopes, or 0.
        coupled: Gamma, (n, n), with |dx| <= Gamma |dz|, where states are coupled; the centre is 0 then.
        name: what the proof is called.
    """
    n = len(least)
    alpha = np.ones(n) if alpha is None else alpha
    if not (np.isfinite(alpha).all() and (alpha > 0).all()):
        return None
    ends = slopes_in_t(least, most, alpha)
    if ends is None:
        return None
    centre, radius = centre_of(*ends) if middle and coupled is None else zero_centre(*ends)
    inverse = _inverse(A.matrix, alpha, centre)
    if inverse is None:
        return None
    draft = Contraction(A, alpha, centre, radius if coupled is None else coupled, inverse, np.ones(n), name)
    return weighted(draft)


def centre_of(least: FloatArray, most: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (c, r) with [least, most] inside [c - r, c + r] in exact arithmetic; r = 0 where both are one number."""
    centre = least / 2 + most / 2
    reach = np.maximum(most - centre, centre - least)
    return centre, np.where(reach > 0, up(reach), 0.0)


def zero_centre(least: FloatArray, most: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return c = 0 and r = max(|least|, |most|)."""
    return np.zeros_like(least), np.maximum(np.abs(least), np.abs(most))


def _inverse(A: FloatArray, alpha: FloatArray, centre: FloatArray) -> FloatArray | None:
    n = len(alpha)
    if not centre.any():
        return np.eye(n)
    shifted = alpha[:, None] * A
    shifted[np.arange(n), np.arange(n)] += 1 - alpha
    try:
        inverse = np.linalg.inv(np.eye(n) - shifted * centre)
    except np.linalg.LinAlgError:
        return None
    return np.asarray(inverse, np.float64) if np.isfinite(inverse).all() else None


def weighted(draft: Contraction) -> Contraction | None:
    """Return the contraction with a weight v that proves it, or None: v = (I - Q / kappa)^-1 1 for a kappa < 1."""
    Q = draft.Q
    if not np.isfinite(Q).all():
        return None
    radius = perron_root(Q)
    if not radius < 1:
        return None
    for kappa in (radius + 1e-5 * (1 - radius), 0.5 + radius / 2):
        v = perron_vector(Q, kappa)
        found = (
            None if v is None else Contraction(draft.A, draft.alpha, draft.centre, draft.radius, draft.Y, v, draft.name)
        )
        if found is not None and found.holds:
            return found
    return None


def perron_root(Q: FloatArray) -> float:
    """Return an estimate of lambda_PF(Q), Q >= 0; a figure to steer by, never a proof."""
    if not len(Q):
        return 0.0
    with np.errstate(all="ignore"):
        if len(Q) <= 1024:
            try:
                return float(np.abs(np.linalg.eigvals(Q)).max())
            except np.linalg.LinAlgError:  # after an overflow
                return np.inf
        v = np.ones(len(Q))
        for _ in range(500):
            w = Q @ v + 1e-12
            v = w / w.max()
        return float(((Q @ v) / v).max())


def perron_vector(Q: FloatArray, kappa: float) -> FloatArray | None:
    """Return v = (I - Q / kappa)^-1 1 >= 1, for which Q v <= kappa v; None where it is not positive."""
    try:
        v = np.linalg.solve(np.eye(len(Q)) - Q / kappa, np.ones(len(Q)))
    except np.linalg.LinAlgError:
        return None
    return np.asarray(v, np.float64) if np.isfinite(v).all() and (v > 0).all() else None
