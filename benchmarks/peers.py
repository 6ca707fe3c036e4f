"""What the sensitivity matrix is compared with: other upper bounds on max |dy_i| / ||du||_inf, and a lower one."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    from torch import Tensor


def product_of_norms(model: ImplicitModel) -> float:
    """Return the product of the layers' infinity norms; where blocks meet in a sum, the sum of their products.

    A max-pool counts as 1 (in the infinity norm it is no more), not as the tournament that computes it.
    """
    gains: dict[int, float] = {}

    def gain(row: Affine) -> float:
        total = 0.0 if row.input is None else row.input.norm_inf
        return total + sum(linear_map.norm_inf * gains[k] for k, linear_map in row.states.items())

    for k in model.evaluation_order:
        block = model.blocks[k]
        if block.maximum is not None:
            gains[k] = gains[block.maximum.source]
        else:
            gains[k] = gain(model.rows[k]) * float(np.max(block.activation.lipschitz))
    return gain(model.output)


@dataclass(frozen=True)
class DenseModel:
    """A, B, C, D as plain arrays."""

    a: FloatArray
    b: FloatArray
    c: FloatArray
    d: FloatArray

    @classmethod
    def of(cls, model: ImplicitModel) -> DenseModel:
        """Write the model's matrices out."""
        whole = model.matrices
        return cls(whole.A.toarray(), whole.B.toarray(), whole.C.toarray(), whole.D.toarray())

    def sensitivity(self) -> FloatArray:
        """Return |C| (I - |A|)^-1 |B| + |D| by one dense solve, on the side that has fewer columns."""
        system = np.eye(len(self.a)) - np.abs(self.a)
        rows = np.linalg.solve(system.T, np.abs(self.c).T).T
        return np.asarray(rows @ np.abs(self.b) + np.abs(self.d))


def jacobians(model: ImplicitModel, points: FloatArray) -> FloatArray:
    """Return dy/du at each row of `points`, shape (m, q, p)."""
    q = model.n_outputs
    rows = gradient(model, np.repeat(points, q, axis=0), np.tile(np.eye(q), (len(points), 1)))
    return rows.reshape(len(points), q, model.n_inputs)


@dataclass(frozen=True)
class LowerBounds:
    """What sampling found."""

    gain: float
    """max ||J(u)||_inf and ||y - y'||_inf / ||u - u'||_inf: no bound of the gain in the infinity norm is below it."""
    entrywise: float
    """Largest row sum of max |J_ij(u)|: no valid sensitivity matrix has a norm below it."""


def sampled_lower_bounds(
    model: ImplicitModel,
    points: FloatArray,
    rng: np.random.Generator,
    *,
    steps: int = 40,
    kept: int = 10,
    tried: int = 40,
) -> LowerBounds:
    """Return lower bounds from pairs of points, Jacobians at them and a random climb from the steepest of them."""
    other = points[rng.permutation(len(points))]
    apart = np.abs(points - other).max(axis=1)
    moved = np.abs(model(points) - model(other)).max(axis=1)
    gain = float((moved[apart > 0] / apart[apart > 0]).max(initial=0.0))
    entries = np.zeros((model.n_outputs, model.n_inputs))
    best, heights = points[:0], np.zeros(0)
    size = float(points.std())
    for step in range(steps + 1):
        if step == 0:
            candidates = points
        else:
            scale = size * 10 ** rng.uniform(-2, 1, (kept, tried, 1))
            noise = rng.standard_normal((kept, tried, model.n_inputs))
            candidates = (best[:, None] + scale * noise).reshape(-1, model.n_inputs)
        for part in np.array_split(candidates, -(-len(candidates) // 200)):
            found = np.abs(jacobians(model, part))
            entries = np.maximum(entries, found.max(axis=0))
            best = np.vstack([best, part])
            heights = np.concatenate([heights, found.sum(axis=2).max(axis=1)])
        order = np.argsort(-heights, kind="stable")[:kept]
        best, heights = best[order], heights[order]
    return LowerBounds(max(gain, float(heights[0])), float(entries.sum(axis=1).max()))


def chain_of_weights(model: ImplicitModel) -> list[FloatArray] | None:
    """Return W_1, ..., W_L of a fully connected ReLU network, or None for any other."""
    rows = [*reversed(model.rows), model.output]
    weights: list[FloatArray] = []
    for place, row in enumerate(rows):
        maps = row.maps
        source = len(model.blocks) - place
        reads_last = row.input is None and set(row.states) == {source} if place else not row.states
        if len(maps) != 1 or not isinstance(maps[0], Dense) or not reads_last:
            return None
        weights.append(maps[0].matrix)
    relu = all(block.activation.name == "relu" for block in model.blocks)
    return weights if relu else None


class Eclipse:
    """eclipse-nn: an upper bound on ||dy||_2 / ||du||_2 of a fully connected network; sqrt(p) of it bounds |dy_i|."""

    def __init__(self, weights: list[FloatArray]) -> None:
        import torch

        self._weights = [torch.from_numpy(np.ascontiguousarray(matrix)) for matrix in weights]
        self.said = ""
        """What it printed last: it tells there when its optimisation failed."""

    @staticmethod
    def is_installed() -> bool:
        """Whether eclipse-nn and what it imports are there."""
        try:
            import eclipse_nn  # noqa: F401
        except ImportError:
            return False
        return True

    def bound(self, method: str) -> float:
        """Return sqrt(p) times the estimate of "ECLipsE" (an SDP a layer) or "ECLipsE_Fast" (closed form)."""
        return self._estimate(self._weights, method)

    def bound_by_outputs(self, method: str) -> float:
        """Return the largest such bound over the outputs, each as a network of its own: never larger in theory."""
        *inner, last = self._weights
        return max(self._estimate([*inner, last[i : i + 1]], method) for i in range(len(last)))

    def _estimate(self, weights: list[Tensor], method: str) -> float:
        from eclipse_nn import LipConstEstimator

        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = float(LipConstEstimator(weights=weights).estimate(method))
        self.said = printed.getvalue().strip()
        return value * float(np.sqrt(self._weights[0].shape[1]))
