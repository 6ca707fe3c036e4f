"""The implicit model that is trained: x = relu(A x + B u + b), y = C x + D u + d, with what is asked of A.

A batch is an array of rows. What is made small besides the loss: ||S||_inf (paper 4.3), the bound rho (4.7), the norms
of the columns of (B; D) (5.1), the entries of all four matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor

from idl_audit.training.equilibrium import (
    PHI,
    equilibrium,
    interval_matrix,
    monotone_equilibrium,
    monotone_matrix,
)
from idl_audit.training.projection import column_norms, project_rows
from idl_audit.training.spans import Span
from idl_audit.values.arrays import FloatArray

NAMES: Final = ("A", "B", "C", "D", "b", "d")
RELU: Final = PHI["relu"]
TOLERANCE: Final = 1e-4
"""Of states and gradients while training in float32."""


@dataclass(frozen=True)
class Form:
    """Sizes of the model, and what makes it well-posed."""

    states: int
    inputs: int
    outputs: int
    kappa: float = 0.95
    """||A||_inf <= kappa; nothing is asked of the norm where there are layers."""
    layers: tuple[int, ...] = ()
    """States of each layer, the first one first, for a strictly upper block triangular A; empty for any A."""
    monotone: float | None = None
    """m where I - (A + A^T) / 2 >= m I is asked for in place of a norm: A = (1 - m) I - P^T P + Q - Q^T."""

    def allowed(self, dtype: torch.dtype) -> Tensor | None:
        """Return 1 where A may differ from 0 and 0 elsewhere, (n, n); None where it may everywhere.

        The states of the last layer come first, as in the paper; a layer reads those before it, and the input.
        """
        if not self.layers:
            return None
        mask = torch.zeros((self.states, self.states), dtype=dtype)
        ends = np.cumsum((0, *reversed(self.layers)))
        for start, end in pairwise(map(int, ends)):
            mask[start:end, end:] = 1
        return mask

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of what is trained."""
        return NAMES if self.monotone is None else ("P", "Q", *NAMES[1:])

    def feasible(self, A: Tensor, mask: Tensor | None) -> Tensor:
        """Return the nearest A that is well-posed."""
        return project_rows(A, self.kappa) if mask is None else A * mask


class ImplicitNet:
    """A model whose weights are tensors with gradients."""

    def __init__(self, form: Form, weights: Mapping[str, Tensor], *, tolerance: float = TOLERANCE) -> None:
        self.form, self.tolerance = form, tolerance
        names = NAMES if "A" in weights else form.trained
        self.weights = {name: weights[name].detach().clone().requires_grad_() for name in names}
        self.mask = form.allowed(self.weights["B"].dtype)

    @classmethod
    def random(cls, form: Form, examples: Tensor, generator: torch.Generator) -> ImplicitNet:
        """Return a model to start from, for examples (m, p) about as large as 1: each state bends at one of them."""
        dtype = examples.dtype
        n, p, q = form.states, form.inputs, form.outputs

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=dtype)

        spread = (2 / n) ** 0.5 if form.layers else form.kappa / n
        A, B = spread * normal(n, n), normal(n, p) * (2 / p) ** 0.5
        of_states = {"A": form.feasible(A, form.allowed(dtype))}
        if form.monotone is not None:
            of_states = {"P": normal(n, n) / n**0.5, "Q": A}
        some = examples[torch.randint(len(examples), (n,), generator=generator)]
        weights = {
            **of_states,
            "B": B,
            "C": normal(q, n) / n**0.5,
            "D": torch.zeros((q, p), dtype=dtype),
            "b": -(B * some).sum(1),
            "d": torch.zeros(q, dtype=dtype),
        }
        return cls(form, weights)

    @property
    def A(self) -> Tensor:
        """The matrix A, whatever is trained in its place."""
        w, m = self.weights, self.form.monotone
        return w["A"] if m is None or "A" in w else monotone_matrix(w["P"], w["Q"], m)

    def state(self, u: Tensor) -> Tensor:
        """Return x for each row of u, (m, p) -> (m, n)."""
        w = self.weights
        if self.form.monotone is not None:
            drive = torch.addmm(w["b"], u, w["B"].T)
            return monotone_equilibrium(self.A, drive, tolerance=self.tolerance)
        return equilibrium(w["A"], torch.addmm(w["b"], u, w["B"].T), RELU, tolerance=self.tolerance)

    def output(self, x: Tensor, u: Tensor) -> Tensor:
        """Return y = C x + D u + d for rows of x and u."""
        w = self.weights
        return torch.addmm(w["d"], x, w["C"].T) + u @ w["D"].T

    def __call__(self, u: Tensor) -> Tensor:
        """Return y for each row of u, (m, p) -> (m, q)."""
        return self.output(self.state(u), u)

    def states_of(self, box: Span) -> Span:
        """Return spans of the states of boxes of inputs: the equilibrium of intervals."""
        w = self.weights
        centre, radius = torch.addmm(w["b"], box.centre, w["B"].T), box.radius @ w["B"].abs().T
        drive = torch.cat([centre - radius, centre + radius], 1)
        lo, hi = equilibrium(interval_matrix(w["A"]), drive, RELU, tolerance=self.tolerance).chunk(2, 1)
        return Span.between(lo, hi)

    def outputs_of(self, box: Span) -> Span:
        """Return spans of the outputs of boxes of inputs, by intervals."""
        w, x = self.weights, self.states_of(box)
        radius = x.radius @ w["C"].abs().T + box.radius @ w["D"].abs().T
        return Span(self.output(x.centre, box.centre), radius)

    def worst(self, box: Span, labels: Tensor) -> Tensor:
        """Return upper bounds of y_j - y_label over boxes, (m, q), by intervals; 0 at the label itself."""
        w, x = self.weights, self.states_of(box)
        y = self.output(x.centre, box.centre)
        order = labels.argsort(stable=True)
        radii, sizes = torch.cat([x.radius, box.radius], 1).index_select(0, order), labels.bincount()
        E = torch.cat([w["C"], w["D"]], 1)
        apart = [
            rows @ (E - E[label]).abs().T for label, rows in enumerate(torch.split(radii, sizes.tolist())) if len(rows)
        ]
        spread = torch.cat(apart).index_select(0, order.argsort())
        return y - y.gather(1, labels[:, None]) + spread

    def norm_of_S(self) -> Tensor:
        """Return ||S||_inf for S = |C| (I - |A|)^-1 |B| + |D|: the greatest row sum, by one linear system."""
        w = self.weights
        moved = torch.linalg.solve(torch.eye(self.form.states, dtype=w["A"].dtype) - w["A"].abs(), w["B"].abs().sum(1))
        return torch.amax(w["C"].abs() @ moved + w["D"].abs().sum(1))

    def rho(self) -> Tensor:
        """Return (||B||_inf^2 + ||C||_inf^2) / (2 (1 - ||A||_inf)) + ||D||_inf, the paper's (4.7)."""
        A, B, C, D = (self.weights[name].abs().sum(1).amax() for name in "ABCD")
        return (B.square() + C.square()) / (2 * (1 - A)) + D

    def column_norms(self) -> Tensor:
        """Return the norms of the columns of (B; D), (p,)."""
        with torch.no_grad():
            return column_norms(self.weights["B"], self.weights["D"])

    def arrays(self) -> dict[str, FloatArray]:
        """Return the weights in float64."""
        weights = {"A": self.A, **{name: self.weights[name] for name in NAMES[1:]}}
        return {name: weight.detach().numpy().astype(np.float64) for name, weight in weights.items()}
