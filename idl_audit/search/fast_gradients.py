"""Outputs and gradients in float32 on torch: a tool to search with, many times faster than float64, never to prove.

The maps and activations are those of the implicit model; torch is imported where a model is made, not before. A
model with loops is searched in float64 by `gradients`, behind the same two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.search import device
from idl_audit.search.device import tensor
from idl_audit.search.torch_maps import Function, applied, load_torch, through_numpy
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.check import Check, unchecked

if TYPE_CHECKING:
    import torch

Points = TypeVar("Points", FloatArray, Float32Array)

Weights: TypeAlias = Callable[[FloatArray], FloatArray]
"""Outputs (m, q) -> the functional of the output that each row descends on, (m, q)."""

WORK = 2**25
"""Products that one batch may cost: enough to fill the vector units, few enough to stay in cache."""

LARGEST_BATCH = 1024

TAPE_NUMBERS = 2**25
"""States that are kept for the passes back, at most (128 MB)."""


class Searched(Protocol):
    """A network as searches see it."""

    @property
    def batch(self) -> int:
        """How many points to ask for at a time."""

    def outputs(self, points: FloatArray, *, check: Check = unchecked) -> FloatArray:
        """Return y, about, for each row of points, shape (m, p) -> (m, q)."""

    def slopes(
        self, points: FloatArray, weights: Weights, *, check: Check = unchecked
    ) -> tuple[FloatArray, FloatArray]:
        """Return y and g = d(w . y)/du, w = weights(y) held fixed: (m, p) -> (m, q), (m, p)."""


def searched(model: ImplicitModel) -> Searched:
    """Return the model in the form that searches are fastest in."""
    return _searched(model, device.current())


@lru_cache(maxsize=4)
def _searched(model: ImplicitModel, place: object) -> Searched:
    return FastNetwork(model) if model.is_feed_forward else SlowNetwork(model)


@dataclass(frozen=True, eq=False)
class CheckedSearch:
    """A network as searches see it, with a look at the clock between batches and between blocks."""

    network: Searched
    check: Check
    count: Callable[[int], None] = lambda points: None
    """Told at how many points it is evaluated."""

    @property
    def batch(self) -> int:
        """As without the clock."""
        return self.network.batch

    def outputs(self, points: FloatArray, *, check: Check = unchecked) -> FloatArray:
        """Return y for each row of points."""
        self.count(len(points))
        return self.network.outputs(points, check=self.check)

    def slopes(
        self, points: FloatArray, weights: Weights, *, check: Check = unchecked
    ) -> tuple[FloatArray, FloatArray]:
        """Return y and d(w . y)/du, w = weights(y)."""
        self.count(len(points))
        return self.network.slopes(points, weights, check=self.check)


def in_batches(function: Callable[[Points], FloatArray], points: Points, batch: int, check: Check) -> FloatArray:
    """Return a function of the rows of points, (m, p) -> (m, q), asked for a batch at a time."""
    found = []
    for part in _parts(points, batch):
        check()
        found.append(function(part))
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class SlowNetwork:
    """The implicit model itself, in float64."""

    model: ImplicitModel

    @property
    def batch(self) -> int:
        """As the float32 form, for the same work."""
        return batch_size(self.model)

    def outputs(self, points: FloatArray, *, check: Check = unchecked) -> FloatArray:
        """Return y for each row of points."""
        return np.concatenate([self.model(part, check=check) for part in _parts(points, self.batch)])

    def slopes(
        self, points: FloatArray, weights: Weights, *, check: Check = unchecked
    ) -> tuple[FloatArray, FloatArray]:
        """Return y and d(w . y)/du, w = weights(y)."""
        y = self.outputs(points, check=check)
        pairs = zip(_parts(points, self.batch), _parts(weights(y), self.batch), strict=True)
        return y, np.concatenate([gradient(self.model, *pair, check=check) for pair in pairs])


class FastNetwork:
    """A feed-forward model whose maps and activations were turned into float32 torch functions."""

    def __init__(self, model: ImplicitModel) -> None:
        load_torch()
        self.batch = batch_size(model)
        """How many points to ask for at a time."""
        self._order, self._n_states = model.evaluation_order, model.n_states
        self._rows = {k: _Row(model.rows[k]) for k in self._order}
        self._activations = {k: _activation(model.blocks[k]) for k in self._order}
        self._output = _Row(model.output)
        # the block that reads a state last, so that a forward pass alone keeps no more than it needs
        self._last = {source: k for k in self._order for source in model.rows[k].states}
        self._last |= dict.fromkeys(model.output.states, -1)

    def outputs(self, points: FloatArray, *, check: Check = unchecked) -> FloatArray:
        """Return y for each row of points."""
        import torch

        with torch.no_grad():
            parts = (tensor(part) for part in _parts(points, self.batch))
            return np.concatenate([device.doubles(self._forward(part, check)) for part in parts])

    def slopes(
        self, points: FloatArray, weights: Weights, *, check: Check = unchecked
    ) -> tuple[FloatArray, FloatArray]:
        """Return y and d(w . y)/du, w = weights(y); an entry that is no number comes out as 0."""
        parts = _parts(points, self.batch)
        if len(parts) > 1 and len(points) * self._n_states > TAPE_NUMBERS:  # forward twice, one tape at a time
            y = self.outputs(points, check=check)
            pairs = zip(parts, _parts(weights(y), self.batch), strict=True)
            return y, np.concatenate([self._pulled(part, own, check) for part, own in pairs])
        tapes = [(u, self._forward(u, check)) for u in (tensor(part).requires_grad_() for part in parts)]
        y = np.concatenate([device.doubles(out) for _, out in tapes])
        slopes = []
        for (u, out), seeds in zip(tapes, _parts(weights(y), self.batch), strict=True):
            check()
            if out.requires_grad:
                # of one number: torch would load a computer algebra system to compare shapes, a third of a second
                (out * tensor(seeds)).sum().backward()  # type: ignore[no-untyped-call]
            slopes.append(np.zeros(u.shape) if u.grad is None else device.doubles(u.grad))
        found = np.concatenate(slopes)
        finite = np.isfinite(found)  # all of them nearly always, which is told sooner than they are replaced
        return y, found if finite.all() else np.where(finite, found, 0.0)

    def _pulled(self, points: FloatArray, weights: FloatArray, check: Check) -> FloatArray:
        """Return d(w . y)/du for given w, (m, q)."""
        return self.slopes(points, lambda y: weights, check=check)[1]

    def _forward(self, u: torch.Tensor, check: Check) -> torch.Tensor:
        states: dict[int, torch.Tensor] = {}
        for k in self._order:
            check()
            states[k] = self._activations[k](self._rows[k](states, u))
            for source in [source for source in states if self._last.get(source, k) == k]:
                del states[source]
        return self._output(states, u)


class _Row:
    """One row of blocks: sum_k P_k x_k + Q u + r."""

    def __init__(self, row: Affine) -> None:
        self._maps = {k: applied(row.states[k]) for k in sorted(row.states)}
        self._input = None if row.input is None else applied(row.input)
        self._constant = tensor(row.constant)

    def __call__(self, states: Mapping[int, torch.Tensor], u: torch.Tensor) -> torch.Tensor:
        total = self._constant.expand(len(u), -1)
        for k, linear in self._maps.items():
            total = total + linear(states[k])
        return total if self._input is None else total + self._input(u)


def batch_size(model: ImplicitModel) -> int:
    """Return how many points one pass should take: about `WORK` products' worth."""
    return int(np.clip(WORK // max(model.nnz, 1), 1, LARGEST_BATCH))


def _parts(points: Points, size: int) -> list[Points]:
    return [points[at : at + size] for at in range(0, len(points), size)] or [points]


def _activation(block: StateBlock) -> Function:
    """Return phi on rows; kinked ones by torch, all others through the block itself."""
    import torch

    phi = block.activation
    if isinstance(phi, Kinked):  # positively homogeneous: a kept scale changes nothing
        below, above = (tensor(np.asarray(slope)) for slope in (phi.below, phi.above))
        if not below.any() and bool((above == 1).all()):
            return torch.relu
        if bool((below == 1).all()) and bool((above == 1).all()):
            return lambda z: z
        return lambda z: torch.where(z >= 0, above * z, below * z)
    return through_numpy(
        lambda z: block(z.astype(np.float64)),
        lambda z, v: block.pull_back(z.astype(np.float64), v.astype(np.float64)),
    )
