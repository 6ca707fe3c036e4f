"""Theorem 2.2 of the paper with one norm a group of coupled states (docs/mathematics.md, section 3.3).

States come in groups, those that a coupled activation ties together and single ones. With gamma_k the Lipschitz
constant of group k in l_p (softmax: 1/2 in every l_p),

    eta_k = ||dz_k||_p,    eta <= Q eta + (||di_k||_p)_k,    Q_kj = ||A_kj||_p gamma_j,

a contraction of L groups in place of n states: `Contraction` on the matrix of norms, and with it what follows,

    |C dx + D du| <= (N(C) diag(gamma) (I - Q)^-1 N(B) + |D|) |du|      (paper Thm 4.2),

N(C) with the dual norm of each row's groups, N(B) with the norm of each column's. Everything is rounded upward.

Elsewhere: block-wise Lipschitz (BLIP) maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idl_audit.implicit.wellposed.contraction import Coefficients, Contraction, weighted
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma

NORMS = (np.inf, 1.0, 2.0)
"""p of the norms that are tried, one after the other."""
DUAL = {np.inf: 1.0, 1.0: np.inf, 2.0: 2.0}
"""1 / p + 1 / p* = 1."""
MOST_PAIRS = 2**14
"""Pairs of groups whose spectral norms are computed; where there are more, sqrt(||A_kj||_1 ||A_kj||_inf) stands in."""


@dataclass(frozen=True, eq=False)
class Coupling:
    """How the n states of a block, or of a model, move together in L groups of neighbours."""

    matrix: FloatArray
    """Gamma, (n, n), with |dx| <= Gamma |dz| entrywise."""
    sizes: IntArray
    """How many states each group has, (L,)."""
    constants: Mapping[float, FloatArray]
    """p -> gamma, (L,), with ||dx_k||_p <= gamma_k ||dz_k||_p."""
    steepest: FloatArray | None = None
    """g, (n,), one number a group, with dx . (dz - dx / g) >= 0 in each; None where none is known.

    So it is where phi is the gradient of a convex function and no steeper than g."""

    @property
    def starts(self) -> IntArray:
        """The first state of each group, (L,)."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes)

    @property
    def group(self) -> IntArray:
        """The group of each state, (n,)."""
        return np.repeat(np.arange(self.sizes.size), self.sizes)


def joined(parts: list[Coupling]) -> Coupling:
    """Return the coupling of blocks one behind the other."""
    n = sum(len(part.matrix) for part in parts)
    matrix, start = np.zeros((n, n)), 0
    for part in parts:
        own = slice(start, start + len(part.matrix))
        matrix[own, own], start = part.matrix, own.stop
    steepest = [part.steepest for part in parts if part.steepest is not None]
    return Coupling(
        matrix,
        np.concatenate([part.sizes for part in parts]),
        {norm: np.concatenate([part.constants[norm] for part in parts]) for norm in NORMS},
        np.concatenate(steepest) if len(steepest) == len(parts) else None,
    )


@dataclass(frozen=True, eq=False)
class GroupContraction:
    """A contraction of the norms of groups: a proof, once `kappa` has been checked."""

    quotient: Contraction
    """Of the L groups: its A holds ||A_kj||_p, its radius gamma."""
    sizes: IntArray
    norm: float
    """p: 1, 2 or infinity."""
    name: str = "norms"

    @property
    def v(self) -> FloatArray:
        """The weight of each group, (L,)."""
        return self.quotient.v

    @property
    def kappa(self) -> float:
        """The least kappa with Q v <= kappa v, rounded upward; infinity where v proves nothing."""
        return self.quotient.kappa

    @property
    def holds(self) -> bool:
        """Whether the proof holds: kappa < 1."""
        return self.quotient.holds

    @property
    def _starts(self) -> IntArray:
        return np.asarray(np.cumsum(self.sizes) - self.sizes)

    def output_rows(self, C: Coefficients) -> FloatArray:
        """Return N(C) diag(gamma) at least, (q, L)."""
        return self.quotient.output_rows(Coefficients(vector_norms(_largest(C), self._starts, DUAL[self.norm])))

    def adjoint_rows(self, H: FloatArray) -> FloatArray:
        """Return r >= H (I - Q)^-1, (q, L)."""
        return self.quotient.adjoint_rows(H)

    def accepts(self, H: FloatArray, rows: FloatArray) -> bool:
        """Return whether rows >= 0 and rows >= rows Q + H, rounded against us."""
        return self.quotient.accepts(H, rows)

    def response(
        self, B: Coefficients, C: Coefficients, D: Coefficients, rows: FloatArray | None = None
    ) -> FloatArray | None:
        """Return the proved bound S, |C dx + D du| <= S |du|, shape (q, p); None where it proves nothing."""
        inputs = Coefficients(np.ascontiguousarray(vector_norms(_largest(B).T, self._starts, self.norm).T))
        outputs = Coefficients(vector_norms(_largest(C), self._starts, DUAL[self.norm]))
        return self.quotient.response(inputs, outputs, D, rows)

    @cached_property
    def _gains(self) -> FloatArray | None:
        """Return N, (L, L), with ||dx_k||_p <= sum over j of N_kj ||di_j||_p."""
        count = self.sizes.size
        one = Coefficients(np.eye(count))
        return self.quotient.response(one, one, Coefficients(np.zeros((count, count))))

    def reach(self, radius: FloatArray) -> FloatArray:
        """Return how far x moves at most where i moves by |di| <= radius, (m, n) -> (m, n)."""
        if self._gains is None:
            return np.full_like(radius, np.inf)
        pushed = vector_norms(radius, self._starts, self.norm)
        moved = pushed @ self._gains.T * (1 + gamma(self.sizes.size + 8)) + TINY
        return np.repeat(moved, self.sizes, axis=-1)


def group_contractions(A: Coefficients, coupling: Coupling) -> Iterator[GroupContraction]:
    """Yield the proofs that hold, one a norm (paper Thm 2.2)."""
    for norm in NORMS:
        draft = drafted(A, coupling, norm, np.ones(coupling.sizes.size))
        if draft is not None:
            found = weighted(draft.quotient)
            if found is not None:
                yield GroupContraction(found, draft.sizes, norm)


def drafted(A: Coefficients, coupling: Coupling, norm: float, v: FloatArray) -> GroupContraction | None:
    """Return the contraction of groups with the weights v, not checked yet; None where nothing bounds a group's slope.

    Args:
        A: the loop, (n, n).
        coupling: its groups.
        norm: p.
        v: a weight for each group, (L,).
    """
    constants = coupling.constants[norm]
    norms = block_norms(A, coupling.starts, norm)
    if not (np.isfinite(constants).all() and np.isfinite(norms).all()):
        return None
    count = coupling.sizes.size
    quotient = Contraction(Coefficients(norms), np.ones(count), np.zeros(count), constants, np.eye(count), v, "norms")
    return GroupContraction(quotient, coupling.sizes, norm)


def vector_norms(rows: FloatArray, starts: IntArray, norm: float) -> FloatArray:
    """Return the l_p norm of each group's entries, rows >= 0 of shape (..., n) -> (..., L), rounded upward."""
    if not starts.size:
        return np.zeros((*rows.shape[:-1], 0))
    rounding = 1 + gamma(rows.shape[-1] + 8)
    if norm == np.inf:
        return np.asarray(np.maximum.reduceat(rows, starts, axis=-1))
    if norm == 1:
        return np.asarray(np.add.reduceat(rows, starts, axis=-1) * rounding)
    largest = np.maximum.reduceat(rows, starts, axis=-1)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    sizes = np.diff(np.append(starts, rows.shape[-1]))
    shares = rows / np.repeat(scale, sizes, axis=-1)  # at most 1, and what underflows is below any rounding of 1
    length = np.sqrt(np.add.reduceat(shares * shares, starts, axis=-1)) * scale
    return np.asarray(np.where(largest == 0, 0.0, length * rounding + TINY))


def block_norms(A: Coefficients, starts: IntArray, norm: float) -> FloatArray:
    """Return ||A_kj||_p of every pair of groups, (L, L), rounded upward."""
    size = _largest(A)
    if norm == np.inf:
        return np.asarray(np.maximum.reduceat(vector_norms(size, starts, 1.0), starts, axis=0)) if starts.size else size
    if norm == 1:
        return block_norms(Coefficients(size.T), starts, np.inf).T
    coarse = np.sqrt(block_norms(A, starts, 1.0)) * np.sqrt(block_norms(A, starts, np.inf)) * (1 + gamma(8)) + TINY
    if starts.size**2 > MOST_PAIRS:
        return np.asarray(coarse)
    ends = np.append(starts[1:], len(size))
    for k, rows in enumerate(map(slice, starts, ends)):
        for j, columns in enumerate(map(slice, starts, ends)):
            own = A.matrix[rows, columns]
            if min(own.shape) > 0 and own.any():
                error = None if A.error is None else A.error[rows, columns]
                coarse[k, j] = np.fmin(coarse[k, j], _spectral(own, error))
    return np.asarray(coarse)


def _largest(a: Coefficients) -> FloatArray:
    """Return |A| at least, entry by entry."""
    return a.magnitude if a.error is None else (a.magnitude + a.error) * (1 + gamma(2))


def _spectral(matrix: FloatArray, error: FloatArray | None) -> float:
    """Return ||M||_2 at least, ||U||_2 s_1 ||V||_2 + ||M - U diag(s) V||_F + ||E||_F; infinity where none was found."""
    try:
        left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        return np.inf
    rounding = gamma(2 * max(matrix.shape) + 32)
    again = (left * sizes) @ right
    rest = np.abs(matrix - again) + rounding * ((np.abs(left) * sizes) @ np.abs(right) + np.abs(matrix))
    rest = rest + (0.0 if error is None else error)
    length = float(np.sqrt((rest * rest).sum())) + 2.0**-500  # above the root of what squares lose that underflow
    found = float(sizes.max()) * _stretch(left) * _stretch(right.T) + length
    return float(found * (1 + gamma(matrix.size + 32)))


def _stretch(columns: FloatArray) -> float:
    """Return ||U||_2 at least, for U with columns that are about orthonormal: ||U||_2^2 <= 1 + ||U^T U - I||_inf."""
    count = columns.shape[1]
    size = np.abs(columns).T @ np.abs(columns) + np.eye(count)
    off = np.abs(columns.T @ columns - np.eye(count)) + gamma(len(columns) + 16) * size
    return float(np.sqrt(1 + off.sum(axis=1).max()) * (1 + gamma(count + 16)))
