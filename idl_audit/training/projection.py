"""Nearest and extreme points: the ball of a row of A, groups that shrink, single entries that shrink.

||A||_inf <= kappa says that the l_1 norm of every row of A is at most kappa: one ball a row, so that the projection of
the paper's (6.7) falls apart into rows. See docs/mathematics.md, section 9.8.
"""

from __future__ import annotations

import torch
from torch import Tensor


def project_rows(A: Tensor, kappa: float) -> Tensor:
    """Return the matrix nearest to A (n, k) with ||A||_inf <= kappa; rows that satisfy it stay as they are.

    The answer is sign(a) max(|a| - t, 0) in each row, with sum_i max(|a_i| - t, 0) = kappa. The sum is convex and
    piecewise linear in t, so that Newton's steps from t = 0 rise to the solution and end there, after few of them where
    a row is hardly too long.
    """
    size = A.abs()
    too_long = size.sum(1) > kappa
    if not bool(too_long.any()):
        return A
    rows = size[too_long]
    threshold, settled = torch.zeros_like(rows[:, :1]), 4 * torch.finfo(A.dtype).eps * kappa
    for _ in range(rows.shape[1] + 1):
        shorter = (rows - threshold).clamp(min=0)
        further = (shorter.sum(1, keepdim=True) - kappa) / shorter.count_nonzero(1).clamp(min=1)[:, None]
        if not bool((further > settled).any()):
            break
        threshold = threshold + further.clamp(min=0)
    found = A.clone()
    found[too_long] = torch.copysign((rows - threshold).clamp(min=0), A[too_long])
    return found


def vertex(gradient: Tensor, kappa: float) -> Tensor:
    """Return the V with ||V||_inf <= kappa and the least <gradient, V>: one entry a row (Frank-Wolfe).

    It is -kappa sign(G_ij) where |G_ij| is largest in row i.
    """
    place = gradient.abs().argmax(1, keepdim=True)
    found = torch.zeros_like(gradient)
    return found.scatter_(1, place, -kappa * gradient.gather(1, place).sign())


def shrunk(entries: Tensor, by: Tensor | float) -> Tensor:
    """Return argmin_x |x - e|^2 / 2 + by |x| for every entry e: nearer to 0 by `by`, and 0 within it."""
    return torch.sign(entries) * (entries.abs() - by).clamp(min=0)


def column_norms(B: Tensor, D: Tensor) -> Tensor:
    """Return || (B; D) e_j ||_2 for every input j, (p,), the norms in the paper's (5.1) with alpha = 2."""
    return (B.square().sum(0) + D.square().sum(0)).sqrt()


def shrunk_columns(B: Tensor, D: Tensor, by: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return the columns of (B; D), each shorter by `by`, and exactly zero where it is no longer than that."""
    norms = column_norms(B, D)
    share = torch.where(norms > by, 1 - by / norms.clamp(min=1e-30), torch.zeros_like(norms))
    return B * share, D * share
