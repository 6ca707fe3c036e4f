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
    """Return x with x = step(x) about: until a step changes no row by more than `tolerance` of its largest entry."""
    x = start
    for _ in range(MOST_STEPS):
        before, x = x, step(x)
        change = (x - before).abs().amax(1)
        if bool((change <= tolerance * x.abs().amax(1) + 1e-30).all()):
            break
    return x


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


def interval_matrix(A: Tensor) -> Tensor:
    """Return [[A+, A-], [A-, A+]], (2n, 2n): the A of the equilibrium of intervals.

    As phi increases, x_lo = phi(A+ x_lo + A- x_hi + i_lo) and x_hi = phi(A+ x_hi + A- x_lo + i_hi) enclose the state of
    every i in [i_lo, i_hi]: an implicit model of its own, whose rows are as long as those of |A|.
    """
    above, below = A.clamp(min=0), A.clamp(max=0)
    return torch.cat([torch.cat([above, below], 1), torch.cat([below, above], 1)])
