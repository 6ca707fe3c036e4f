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
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.check import Check, unchecked

if TYPE_CHECKING:
    import torch

    Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

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


@lru_cache(maxsize=4)
def searched(model: ImplicitModel) -> Searched:
    """Return the model in the form that searches are fastest in."""
    return FastNetwork(model) if model.is_feed_forward else SlowNetwork(model)


@dataclass(frozen=True, eq=False)
class CheckedSearch:
    """A network as searches see it, with a look at the clock between batches and between blocks."""

    network: Searched
    check: Check

    @property
    def batch(self) -> int:
        """As without the clock."""
        return self.network.batch

    def outputs(self, points: FloatArray, *, check: Check = unchecked) -> FloatArray:
        """Return y for each row of points."""
        return self.network.outputs(points, check=self.check)

    def slopes(
        self, points: FloatArray, weights: Weights, *, check: Check = unchecked
    ) -> tuple[FloatArray, FloatArray]:
        """Return y and d(w . y)/du, w = weights(y)."""
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
            return np.concatenate([_numpy(self._forward(_tensor(part), check)) for part in _parts(points, self.batch)])

    def slopes(
        self, points: FloatArray, weights: Weights, *, check: Check = unchecked
    ) -> tuple[FloatArray, FloatArray]:
        """Return y and d(w . y)/du, w = weights(y); an entry that is no number comes out as 0."""
        parts = _parts(points, self.batch)
        if len(parts) > 1 and len(points) * self._n_states > TAPE_NUMBERS:  # forward twice, one tape at a time
            y = self.outputs(points, check=check)
            pairs = zip(parts, _parts(weights(y), self.batch), strict=True)
            return y, np.concatenate([self._pulled(part, own, check) for part, own in pairs])
        tapes = [(u, self._forward(u, check)) for u in (_tensor(part).requires_grad_() for part in parts)]
        y = np.concatenate([_numpy(out) for _, out in tapes])
        slopes = []
        for (u, out), seeds in zip(tapes, _parts(weights(y), self.batch), strict=True):
            check()
            if out.requires_grad:
                out.backward(_tensor(seeds))  # type: ignore[no-untyped-call]
            slopes.append(np.zeros(u.shape) if u.grad is None else _numpy(u.grad))
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
        self._maps = {k: _linear(row.states[k]) for k in sorted(row.states)}
        self._input = None if row.input is None else _linear(row.input)
        self._constant = _tensor(row.constant)

    def __call__(self, states: Mapping[int, torch.Tensor], u: torch.Tensor) -> torch.Tensor:
        total = self._constant.expand(len(u), -1)
        for k, linear in self._maps.items():
            total = total + linear(states[k])
        return total if self._input is None else total + self._input(u)


def batch_size(model: ImplicitModel) -> int:
    """Return how many points one pass should take: about `WORK` products' worth."""
    products = sum(linear_map.nnz for row in (*model.rows, model.output) for linear_map in row.maps)
    return int(np.clip(WORK // max(products, 1), 1, LARGEST_BATCH))


def _parts(points: Points, size: int) -> list[Points]:
    return [points[at : at + size] for at in range(0, len(points), size)] or [points]


def _tensor(array: AnyArray) -> torch.Tensor:
    import torch

    with np.errstate(over="ignore"):  # a search with an endless weight finds nothing
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _numpy(tensor: torch.Tensor) -> FloatArray:
    return np.asarray(tensor.detach().numpy(), np.float64)


def _linear(linear_map: LinearMap) -> Function:
    """Return x -> W x on rows; a form without one of its own goes through numpy."""
    if isinstance(linear_map, Dense):
        transposed = _tensor(linear_map.matrix).T
        return lambda x: x @ transposed
    if isinstance(linear_map, Convolution):
        return _convolution(linear_map)
    if isinstance(linear_map, Selection):
        return _selection(linear_map)
    if isinstance(linear_map, Reindexed):
        right, core, left = (_linear(part) for part in (linear_map.right, linear_map.core, linear_map.left))
        return lambda x: left(core(right(x)))
    if isinstance(linear_map, Sparse):
        matrix = linear_map.matrix.astype(np.float32)
        adjoint = matrix.T.tocsr()
        return _through_numpy(lambda x: (matrix @ x.T).T, lambda x, v: (adjoint @ v.T).T)
    return _through_numpy(
        lambda x: linear_map.apply(x.astype(np.float64)), lambda x, v: linear_map.adjoint(v.astype(np.float64))
    )


def _selection(selection: Selection) -> Function:
    import torch

    if selection.is_identity:
        return lambda x: x
    weights = None if selection.weights is None and (selection.index >= 0).all() else _tensor(selection.row_weights)
    if selection.is_diagonal and weights is not None:
        return lambda x: x * weights
    if not selection.size_in:
        return lambda x: torch.zeros(len(x), selection.n_out)
    index = torch.from_numpy(np.maximum(selection.index, 0))
    return lambda x: x[:, index] if weights is None else x[:, index] * weights


def _convolution(convolution: Convolution) -> Function:
    from torch.nn import functional

    kernel = _tensor(convolution.kernel)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[convolution.rank - 1]
    shape = (convolution.channels_in, *convolution.spatial_in)
    before, behind = convolution.pads[: convolution.rank], convolution.pads[convolution.rank :]
    uneven = before != behind
    around = [n for axis in reversed(range(convolution.rank)) for n in (before[axis], behind[axis])]

    def apply(x: torch.Tensor) -> torch.Tensor:
        image = x.reshape(len(x), *shape)
        result = convolve(
            functional.pad(image, around) if uneven else image,
            kernel,
            padding=0 if uneven else before,
            stride=convolution.strides,
            dilation=convolution.dilations,
            groups=convolution.groups,
        )
        return result.reshape(len(x), convolution.n_out)

    return apply


def _activation(block: StateBlock) -> Function:
    """Return phi on rows; kinked ones by torch, all others through the block itself."""
    import torch

    phi = block.activation
    if isinstance(phi, Kinked):  # positively homogeneous: a kept scale changes nothing
        below, above = (_tensor(np.asarray(slope)) for slope in (phi.below, phi.above))
        if not below.any() and bool((above == 1).all()):
            return torch.relu
        if bool((below == 1).all()) and bool((above == 1).all()):
            return lambda z: z
        return lambda z: torch.where(z >= 0, above * z, below * z)
    return _through_numpy(
        lambda z: block(z.astype(np.float64)),
        lambda z, v: block.pull_back(z.astype(np.float64), v.astype(np.float64)),
    )


def _through_numpy(
    forward: Callable[[AnyArray], AnyArray], pull_back: Callable[[AnyArray, AnyArray], AnyArray]
) -> Function:
    """Return a torch function from x -> f(x) and (x, v) -> J(x)^T v."""
    import torch

    class Through(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return _tensor(forward(x.detach().numpy()))

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, v: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return _tensor(pull_back(x.numpy(), v.numpy()))

    return Through.apply
