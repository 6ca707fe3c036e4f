"""The equilibrium x = phi(A x + i) with its gradient, and the equilibrium of intervals, which is another one.

The gradient does not unroll the iteration (paper 6.2): with g = dL/dx at the equilibrium and Psi = phi'(A x + i), what
L gains from z = A x + i is the only v with

    v = Psi o (A^T v + g)        (6.5),        dL/dA = v x^T,  dL/di = v,

and both x and v are found by plain iteration, as ||A||_inf < 1 makes x a contraction, and A's spectrum v too.
A batch is an array of rows. See docs/mathematics.md, section 9.8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

MOST_STEPS: Final = 3000
"""Of an iteration; at kappa = .99 each 230 steps are a digit at worst."""


@dataclass(frozen=True)
class Phi:
    """An activation of slopes between 0 and 1, for training."""

    value: Callable[[Tensor], Tensor]
    """x = phi(z)."""
    slope: Callable[[Tensor], Tensor]
    """phi'(z), given x = phi(z)."""


PHI: Final[Mapping[str, Phi]] = MappingProxyType(
    {
        "relu": Phi(lambda z: z.clamp(min=0), lambda x: (x > 0).to(x.dtype)),
        "tanh": Phi(torch.tanh, lambda x: 1 - x * x),
    }
)
"""Activation -> value and slope; all of them increase, so that intervals have equilibria of their own."""


def fixed_point(step: Callable[[Tensor], Tensor], start: Tensor, tolerance: float) -> Tensor:
    """Return x with x = step(x) about: until a step changes no row by more than `tolerance` of its largest entry.

    Every other step is looked at: a look costs as much as a step of a hundred states.
    """
    x = start
    for _ in range(MOST_STEPS // 2):
        before = step(x)
        x = step(before)
        if _is_settled(before, x, tolerance):
            break
    return x


def _is_settled(before: Tensor, x: Tensor, tolerance: float) -> bool:
    """Return whether no row moved by more than `tolerance` of its largest entry."""
    change = (x - before).abs().amax(1)
    return bool((change <= tolerance * x.abs().amax(1) + 1e-30).all())


class _Equilibrium(torch.autograd.Function):
    """x = phi(x A^T + i) for rows i, (m, n)."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, drive: Tensor, phi: Phi, tolerance: float, start: Tensor | None) -> Tensor:
        first = phi.value(drive) if start is None else start
        transposed = A.T.contiguous()
        x = fixed_point(lambda x: phi.value(torch.addmm(drive, x, transposed)), first, tolerance)
        ctx.save_for_backward(A, x)
        ctx.slope, ctx.tolerance = phi.slope, tolerance
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        A, x = ctx.saved_tensors
        slope = ctx.slope(x)
        g = gradients[0]
        v = fixed_point(lambda v: slope * torch.addmm(g, v, A), slope * g, ctx.tolerance)
        return v.T @ x, v, None, None, None


def equilibrium(A: Tensor, drive: Tensor, phi: Phi, *, tolerance: float = 1e-6, start: Tensor | None = None) -> Tensor:
    """Return x = phi(A x + i) for each row i of `drive`, (m, n), differentiable once in A and i.

    Args:
        A: (n, n), ||A||_inf < 1, or nilpotent: then the iteration ends by itself.
        drive: i = B u + b, (m, n).
        phi: the activation.
        tolerance: of state and gradient, relative to the largest entry of a row.
        start: where the iteration starts, (m, n).
    """
    found: Tensor = _Equilibrium.apply(A, drive, phi, tolerance, start)  # type: ignore[no-untyped-call]
    return found


class _MonotoneEquilibrium(torch.autograd.Function):
    """x = phi(x A^T + i) for rows i, where I - (A + A^T) / 2 is positive definite, by Peaceman-Rachford splitting."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, drive: Tensor, tolerance: float) -> Tensor:
        inverse = _resolvent(A)
        x = split_point(inverse, drive, lambda z: z.clamp(min=0), tolerance)
        ctx.save_for_backward(A, x, inverse)
        ctx.tolerance = tolerance
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _, x, inverse = ctx.saved_tensors
        slope = (x > 0).to(x.dtype)
        v = split_point(inverse.T, gradients[0], lambda z: slope * z, ctx.tolerance)
        return v.T @ x, v, None


def _resolvent(A: Tensor) -> Tensor:
    """Return (I + (I - A))^-1."""
    found: Tensor = torch.linalg.inv(2 * torch.eye(len(A), dtype=A.dtype) - A)
    return found


def split_point(inverse: Tensor, drive: Tensor, prox: Callable[[Tensor], Tensor], tolerance: float) -> Tensor:
    """Return x = prox(A x + i) for each row i, by Peaceman-Rachford splitting (Winston and Kolter, 2020).

    With V = (I + (I - A))^-1 and u = 0 at first, x = prox(u), w = 2 x - u, z = V (w + i), u = 2 z - w in turns: both
    halves are nonexpansive, and one contracts where I - A is strongly monotone.

    Args:
        inverse: V, (n, n).
        drive: i, (m, n).
        prox: the proximal map of a convex function, entrywise: relu, or a product with numbers 0 and 1.
        tolerance: of x, relative to the largest entry of a row.
    """
    u = torch.zeros_like(drive)
    transposed = inverse.T.contiguous()
    for _ in range(MOST_STEPS):
        x = prox(u)
        w = 2 * x - u
        u = 2 * ((w + drive) @ transposed) - w
        if _is_settled(x, prox(u), tolerance):
            break
    return prox(u)


def monotone_equilibrium(A: Tensor, drive: Tensor, *, tolerance: float = 1e-6) -> Tensor:
    """Return x = relu(A x + i) for each row i of `drive`, differentiable once, where I - A is strongly monotone."""
    found: Tensor = _MonotoneEquilibrium.apply(A, drive, tolerance)  # type: ignore[no-untyped-call]
    return found


def monotone_matrix(P: Tensor, Q: Tensor, m: float) -> Tensor:
    """Return A = (1 - m) I - P^T P + Q - Q^T: every A with I - (A + A^T) / 2 >= m I is of this form."""
    return (1 - m) * torch.eye(len(P), dtype=P.dtype) - P.T @ P + Q - Q.T


def interval_matrix(A: Tensor) -> Tensor:
    """Return [[A+, A-], [A-, A+]], (2n, 2n): the A of the equilibrium of intervals.

    As phi increases, x_lo = phi(A+ x_lo + A- x_hi + i_lo) and x_hi = phi(A+ x_hi + A- x_lo + i_hi) enclose the state of
    every i in [i_lo, i_hi]: an implicit model of its own, whose rows are as long as those of |A|.
    """
    above, below = A.clamp(min=0), A.clamp(max=0)
    return torch.cat([torch.cat([above, below], 1), torch.cat([below, above], 1)])
