"""The last block of a regression: C, D, d by linear least squares at the equilibria of A, B, b (paper 7.1).

Without a ridge this fits the noise of the examples; how much of one is chosen by generalised cross-validation, which
needs no examples besides: the least m RSS / (m - df)^2, with df the trace of the ridge's hat matrix and 1 for d.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from idl_audit.training.implicit import ImplicitNet

RIDGES: Final = tuple(10.0**k for k in range(-8, 1))
"""Of the largest eigenvalue of the Gram matrix."""
NOTHING: Final = 1e-9
"""Of the largest eigenvalue: along eigenvectors of smaller ones there is rounding only."""
CHARGED: Final = 1.4
"""Times that a degree of freedom counts: the plain criterion now and then fits noise."""


def fit_output(net: ImplicitNet, u: Tensor, y: Tensor, kept: Tensor | None = None) -> float:
    """Replace C, D, d by those of the best ridge regression of y, (m, q), on states and inputs; return the ridge.

    Args:
        net: the model, whose columns of D where `kept` is 0 stay zero.
        u: (m, p).
        y: (m, q), numbers.
        kept: (p,), 1 for inputs that act; all unless given.
    """
    with torch.no_grad():
        x = net.state(u)
        acting = torch.ones(u.shape[1], dtype=torch.bool) if kept is None else kept > 0
        features = torch.cat([x, u[:, acting]], 1).to(torch.float64)
        solution, offset, ridge = _ridge(features, y.to(torch.float64))
        n = net.form.states
        w = net.weights
        w["C"].copy_(solution[:n].T)
        w["D"].zero_()
        w["D"][:, acting] = solution[n:].T.to(w["D"].dtype)
        w["d"].copy_(offset)
    return ridge


def _ridge(features: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the coefficients (k, q), the offset (q,), and the ridge."""
    m = len(features)
    middle, level = features.mean(0), y.mean(0)
    F, Y = features - middle, y - level
    eigenvalues, vectors = torch.linalg.eigh(F.T @ F)
    eigenvalues = eigenvalues.clamp(min=0)
    largest = max(float(eigenvalues[-1]), 1e-30)
    seen = eigenvalues > NOTHING * largest
    eigenvalues, vectors = eigenvalues[seen], vectors[:, seen]
    along = vectors.T @ (F.T @ Y)
    best: tuple[float, float] | None = None
    for share in RIDGES:
        ridge = share * largest
        free = CHARGED * float((eigenvalues / (eigenvalues + ridge)).sum()) + 1
        fitted = along.square() * ((eigenvalues + 2 * ridge) / (eigenvalues + ridge).square())[:, None]
        left = max(0.0, float(Y.square().sum() - fitted.sum()))
        score = m * left / (m - free) ** 2 if free < m else float("inf")
        if best is None or score < best[0]:
            best = (score, ridge)
    assert best is not None
    ridge = best[1]
    solution = vectors @ (along / (eigenvalues + ridge)[:, None])
    return solution, level - middle @ solution, ridge
