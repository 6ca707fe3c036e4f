"""Upper planes as the search sees them: torch, float32, one set of shares a row (`proof.planes`). Proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_audit.proof.bounds import SetInputs
from idl_audit.proof.planes import PARTS, Planes, Reads, can_have_planes, slopes_of
from idl_audit.search.device import array, as_it_is, indices, tensor

if TYPE_CHECKING:
    import torch

    from idl_audit.implicit.model import ImplicitModel
    from idl_audit.proof.bounds import Interval
    from idl_audit.values.arrays import ByteArray, FloatArray, IntArray

MOST_NUMBERS = 2**17
"""Shares that one leaf may have: states times the inputs that each reads."""


def rounded(shares: torch.Tensor) -> torch.Tensor:
    """Return shares as whole numbers of `PARTS`: what is stored and proved."""
    return (shares * PARTS).round_().div_(PARTS)


def in_parts(shares: torch.Tensor) -> ByteArray:
    """Return shares in [0, 1] as numbers of parts."""
    import torch

    parts: ByteArray = array((shares * PARTS).round_().to(torch.uint8))
    return parts


def of_parts(parts: ByteArray) -> torch.Tensor:
    """Return shares from numbers of parts."""
    return as_it_is(parts).float().div_(PARTS)


class SearchPlanes:
    """The planes of some states of one block over one box, the inputs in units of it: u = centre + radius t."""

    def __init__(self, model: ImplicitModel, k: int, states: IntArray, inputs: Interval, z: Interval) -> None:
        """Take what the states read; z are the bounds of the block over the box, (1, n)."""
        reads = Reads.of(model, k, states, inputs)
        lo, hi = inputs.lo[0], inputs.hi[0]
        self.numbers_of_states = states
        self.states = indices(states)
        self.weights = tensor(reads.weights * (hi / 2 - lo / 2)[reads.index])
        self.at_centre = tensor(reads.at_rest + (reads.weights * (lo / 2 + hi / 2)[reads.index]).sum(axis=1))
        self.below, self.above = (tensor(side) for side in slopes_of(model, k, states))
        self.gap = self.above - self.below
        self._is_relu = not self.below.any() and bool((self.above == 1).all())
        self.signs = self.weights.sign()
        self.reach = self.weights.abs().sum(-1)
        chord = z.hi[0, states] / np.maximum(z.hi[0, states] - z.lo[0, states], 1e-30)
        self.first = tensor(np.repeat(chord[:, None], reads.index.shape[1], axis=1))
        """The shares that make the plane the chord, (t, q)."""
        self._index = indices(reads.index.reshape(-1))
        self._common = indices(reads.index[0]) if (reads.index == reads.index[:1]).all() else None
        """The inputs that all states read, where all read the same."""

    @property
    def numbers(self) -> int:
        """Shares that one leaf has."""
        return int(self.first.numel())

    def __call__(
        self, v: torch.Tensor, shares: torch.Tensor, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what v x is bounded below by: constants, (N,), and coefficients of t, added to those in `inputs`.

        Args:
            v: at most 0, and 0 where a state takes no part, (N, t).
            shares: r, in [0, 1], (N, t, q).
            inputs: (N, p).
        """
        coefficients, reached = _pulled()(v, shares, self, inputs)
        return (v * self._offsets(reached)).sum(-1), coefficients

    def _offsets(self, reached: torch.Tensor) -> torch.Tensor:
        """Return c: max over t in [-1, 1] of phi(z) - a.t, where `reached` is the sum of r |w|, (N, t)."""
        import torch

        return torch.maximum(
            self.below * self.at_centre + self.gap * reached,
            self.above * self.at_centre + self.gap * (self.reach - reached),
        )

    def slopes(self, shares: torch.Tensor) -> torch.Tensor:
        """Return a, (N, t, q)."""
        return (shares * self.gap[:, None] + self.below[:, None]) * self.weights

    def spread(self, v: torch.Tensor, parts: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return (N, p) with v a added to the inputs that each state reads; parts are r w, (N, t, q)."""
        import torch

        if self._common is not None:
            terms = torch.bmm((v * self.gap)[:, None, :], parts)[:, 0] + (v * self.below) @ self.weights
            return inputs.index_add(1, self._common, terms)
        slopes = parts if self._is_relu else parts * self.gap[:, None] + self.below[:, None] * self.weights
        return inputs.index_add(1, self._index, (v[:, :, None] * slopes).reshape(len(v), -1))

    def gathered(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the inputs that each state reads: (N, p) -> (N, t, q), or (N, 1, q)."""
        if self._common is not None:
            return inputs.index_select(1, self._common)[:, None]
        return inputs.index_select(1, self._index).reshape(len(inputs), *self.weights.shape)

    def looseness(self, shares: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return how far the planes lie above phi(z) at points t of the box, (N, p) -> (N, t)."""
        import torch

        near = self.gathered(t)
        z = (near * self.weights).sum(-1) + self.at_centre
        value = (near * self.slopes(shares)).sum(-1) + self._offsets((shares * self.weights).abs().sum(-1))
        return torch.clamp(value - torch.where(z >= 0, self.above * z, self.below * z), min=0)

    def chosen(self, shares: torch.Tensor, rows: IntArray) -> Planes:
        """Return the planes of some rows as the certificate takes them."""
        return Planes(self.numbers_of_states, in_parts(shares[indices(rows)]))


def planes_for(
    model: ImplicitModel, inputs: Interval, bounds: Mapping[int, Interval], wanted: Mapping[int, FloatArray]
) -> dict[int, SearchPlanes]:
    """Return planes for the states that bend and that a functional wants large, where there are few enough.

    Args:
        model: the model.
        inputs: the box; over sets that are none there are no planes.
        bounds: block -> z, (1, n).
        wanted: block -> coefficients of its states in the functional, (n,).
    """
    found: dict[int, SearchPlanes] = {}
    left = 0 if isinstance(inputs, SetInputs) else MOST_NUMBERS
    for k in sorted(wanted.keys() & set(range(len(model.blocks)))):
        if not can_have_planes(model, k):
            continue
        z = bounds[k]
        states = np.flatnonzero((wanted[k] < 0) & (z.lo[0] < 0) & (z.hi[0] > 0))
        if not states.size or states.size > left:
            continue
        planes = SearchPlanes(model, k, states, inputs, z)
        if planes.weights.shape[1] > 1 and planes.numbers <= left:  # with one input the chord is the hull
            found[k] = planes
            left -= planes.numbers
    return found


@lru_cache(maxsize=1)
def _pulled() -> Any:
    """Return (v, r, planes, inputs) -> (inputs + sum_t v a, sum_q r |w|), with a gradient in few passes over r."""
    import torch

    class Pulled(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, v: torch.Tensor, shares: torch.Tensor, planes: SearchPlanes, inputs: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            parts = shares * planes.weights
            ctx.save_for_backward(v, parts)
            ctx.planes = planes
            return planes.spread(v, parts, inputs), torch.linalg.vector_norm(parts, ord=1, dim=-1)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            v, parts = ctx.saved_tensors
            planes: SearchPlanes = ctx.planes
            of_inputs, of_reached = gradients
            near = planes.gathered(of_inputs)
            of_shares = torch.addcmul(of_reached[:, :, None] * planes.signs, (v * planes.gap)[:, :, None], near)
            of_v = planes.gap * (near * parts).sum(-1) + planes.below * (near * planes.weights).sum(-1)
            return of_v, of_shares.mul_(planes.weights), None, of_inputs

    return Pulled.apply
