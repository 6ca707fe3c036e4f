"""Solving x = phi(A x + i) inside a loop: a contraction to come near, then the exact equations of the active pieces.

Nothing that is computed here is a proof; the residual says how good the answer is, and bounds pay for it.
See docs/mathematics.md, section 3.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from idl_audit.implicit.wellposed import Contraction, GroupContraction, Monotone, Proof
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.check import Check, unchecked

MOST_STEPS = 5000
POLISHING_STEPS = 20
NEAR = 1e-7
"""Change, relative to the state's size, at which the polishing takes over."""
BATCH_NUMBERS = 2**24
"""Numbers that the matrices of one batch of linear systems may hold."""


class Function(Protocol):
    """What is asked of phi here: a block of states."""

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return a slope of phi at z."""

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return J^T v, J the Jacobian of phi at z."""


@dataclass(frozen=True)
class Equilibrium:
    """The states of a loop for a batch of right-hand sides."""

    x: FloatArray
    z: FloatArray
    """A x + i."""
    iterations: int
    residual: float
    """max |x - phi(A x + i)|."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """t <- E^-1 ((I - M)(x(t) - c t) + alpha i), x = phi(t) for alpha = 1: what does not depend on i, made once."""

    value: Callable[[FloatArray], FloatArray]
    """x as a function of t."""
    centre: FloatArray
    averaged: bool
    """Whether t moves half of the way: where no contraction is known."""
    step: FloatArray
    push: FloatArray
    """(n, n): i push is what i adds to t, for rows i."""


def solve(
    phi: Function,
    A: FloatArray,
    drive: FloatArray,
    iteration: Iteration,
    *,
    coupled: bool,
    check: Check = unchecked,
) -> Equilibrium:
    """Return x with x = phi(A x + i) for each row i of `drive`, shape (m, n).

    Args:
        phi: the activation.
        A: the loop, (n, n).
        drive: i = (everything but the loop), (m, n).
        iteration: how to come near, from `iteration_of`.
        coupled: whether phi couples its states, so that its Jacobian is no diagonal.
        check: called between steps; what it raises ends the work.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # without a proof it may run away
        x, iterations = _iterate(iteration, drive, NEAR, check)
        at_once = max(1, BATCH_NUMBERS // (len(A) ** 2 + 1))
        for start in range(0, len(x), at_once):
            rows = slice(start, start + at_once)
            x[rows] = _polished(phi, A, drive[rows], x[rows], check, coupled=coupled)
        z = x @ A.T + drive
        residual = float(np.abs(x - phi(z)).max(initial=0.0))
    return Equilibrium(x, z, iterations, residual)


def iteration_of(phi: Function, A: FloatArray, proof: Proof | None, *, homogeneous: bool) -> Iteration:
    """Return the iteration that suits a loop.

    Args:
        phi: the activation.
        A: the loop, (n, n).
        proof: the proof of well-posedness; it says which iteration converges.
        homogeneous: whether phi is positively homogeneous, so that a change of variable keeps its form.
    """
    n = len(A)
    alpha, centre = np.ones(n), np.zeros(n)
    averaged = not isinstance(proof, Contraction | GroupContraction)
    if isinstance(proof, Contraction) and (homogeneous or bool((proof.alpha == 1).all())):
        alpha, centre = proof.alpha, proof.centre
    elif homogeneous and bool(
        (phi(-np.ones(n)) <= 0).all()
    ):  # Peaceman-Rachford splitting with the step that suits m and the norm
        least = proof.least_eigenvalue if isinstance(proof, Monotone) else 1.0
        weights = proof.weights if isinstance(proof, Monotone) and proof.weights is not None else np.ones(n)
        norm = _spectral_norm(weights[:, None] * (np.eye(n) - A)) or 1.0
        alpha, centre, averaged = weights / np.sqrt(max(least, 1e-3) * norm), np.full(n, 0.5), True
    elif not isinstance(proof, GroupContraction):  # the same splitting: phi is a resolvent where slopes lie in [0, g]
        centre, averaged = proof.steepest / 2 if isinstance(proof, Monotone) else np.full(n, 0.5), True
    shifted = alpha[:, None] * A
    shifted[np.arange(n), np.arange(n)] += 1 - alpha
    system = np.eye(n) - shifted * centre
    inverse = _inverse(system)
    value = _in_t(phi, alpha) if homogeneous and not bool((alpha == 1).all()) else phi
    return Iteration(value, centre, averaged, (inverse @ shifted).T, alpha[:, None] * inverse.T)


def _spectral_norm(matrix: FloatArray) -> float:
    """Return about ||M||_2: a step to begin with."""
    try:
        return float(np.linalg.norm(matrix, 2))
    except np.linalg.LinAlgError:  # after an overflow
        return float(np.abs(matrix).sum())


def _inverse(system: FloatArray) -> FloatArray:
    """Return the inverse; where there is none, no proof holds, and any iteration is a mere attempt."""
    for attempt in (np.linalg.inv, np.linalg.pinv):
        try:
            return np.asarray(attempt(system), np.float64)
        except np.linalg.LinAlgError:
            continue
    return np.full_like(system, np.nan)  # the residual will say that nothing was found


def _iterate(iteration: Iteration, drive: FloatArray, near: float, check: Check) -> tuple[FloatArray, int]:
    """Iterate until the change is small relative to the state; return x and the number of steps."""
    push = drive @ iteration.push
    t = push.copy()
    x = iteration.value(t)
    for count in range(1, MOST_STEPS + 1):
        check()
        new = (x - iteration.centre * t) @ iteration.step + push
        earlier, t = t, (t + new) / 2 if iteration.averaged else new
        before, x = x, iteration.value(t)
        change = np.abs(x - before).max(initial=0.0)
        is_near = change <= near * (1e-3 + np.abs(x).max(initial=0.0))
        if is_near and iteration.averaged:  # dead states hide that t is still under way
            is_near = np.abs(t - earlier).max(initial=0.0) <= near * (1e-3 + np.abs(t).max(initial=0.0))
        if is_near:
            return x, count
        if not np.isfinite(change):
            return np.nan_to_num(before), count
    return x, MOST_STEPS


def _in_t(phi: Function, alpha: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return x as a function of t = x + alpha (z - x): two slopes, those of phi on both sides of 0."""
    ones = np.ones_like(alpha)
    above, below = phi(ones), -phi(-ones)
    steep, flat = (slope / (slope * (1 - alpha) + alpha) for slope in (above, below))
    return lambda t: t * np.where(t >= 0, steep, flat)


def _polished(
    phi: Function, A: FloatArray, drive: FloatArray, x: FloatArray, check: Check, *, coupled: bool
) -> FloatArray:
    """Newton's method for x - phi(A x + i); exact in one step on the right pieces of a piecewise linear phi."""
    identity = np.eye(len(A))
    z = x @ A.T + drive
    residual = np.abs(x - phi(z)).max(axis=1, initial=0.0)
    open_rows: BoolArray = np.ones(len(x), np.bool_)
    for _ in range(POLISHING_STEPS):
        check()
        rows = np.flatnonzero(open_rows)
        if not rows.size:
            break
        moves, through = drive[rows] - z[rows], A
        if coupled:
            jacobian = phi.pull_back(z[rows][:, None, :], np.broadcast_to(identity, (rows.size, *A.shape)))
            moves, through = (jacobian @ moves[:, :, None])[:, :, 0], jacobian @ A
        else:
            slopes = phi.derivative(z[rows])
            moves, through = slopes * moves, slopes[:, :, None] * A
        try:
            tried = np.linalg.solve(identity - through, (phi(z[rows]) + moves)[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            break
        tried_z = tried @ A.T + drive[rows]
        left = np.abs(tried - phi(tried_z)).max(axis=1, initial=0.0)
        better = left < residual[rows]  # NaN is not better
        taken = rows[better]
        x[taken], z[taken], residual[taken] = tried[better], tried_z[better], left[better]
        open_rows[rows[~better]] = False
    return x
