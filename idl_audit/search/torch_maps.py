"""Linear maps as float32 functions of rows on torch, forwards and backwards: to search with, never to prove."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from idl_audit.search import device
from idl_audit.search.device import indices, tensor
from idl_audit.values.arrays import AnyArray
from idl_audit.values.budget import loading
from idl_audit.values.errors import MissingTorchError

if TYPE_CHECKING:
    import torch

Function: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""Of rows: (N, n) -> (N, m)."""

SMALL = 2**14
"""Matrices with so few entries are dense, however many of them are zero."""
SPARSE = 0.08
"""Below this share of nonzeros, sparse products are faster."""


def load_torch() -> None:
    """Load torch, off the clock of every budget: a second or more, the first time.

    Raises MissingTorchError where it is not installed.
    """
    with loading():
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingTorchError from error


def applied(linear_map: LinearMap) -> Function:
    """Return x -> W x on rows; a form without one of its own goes through numpy."""
    if isinstance(linear_map, Dense):
        transposed = tensor(linear_map.matrix).T
        return lambda x: x @ transposed
    if isinstance(linear_map, Convolution):
        return _convolution(linear_map)
    if isinstance(linear_map, Selection):
        return _selection(linear_map)
    if isinstance(linear_map, Reindexed):
        right, core, left = (applied(part) for part in (linear_map.right, linear_map.core, linear_map.left))
        return lambda x: left(core(right(x)))
    if isinstance(linear_map, Sparse):
        return sparse_product(linear_map.matrix)
    return through_numpy(
        lambda x: linear_map.apply(x.astype(np.float64)), lambda x, v: linear_map.adjoint(v.astype(np.float64))
    )


def pulled(linear_map: LinearMap, largest: int) -> Function:
    """Return v -> W^T v on rows; one of at most `largest` entries becomes a matrix, which is faster then."""
    import torch.nn.functional as functional

    if isinstance(linear_map, Convolution) and linear_map.n_in * linear_map.n_out > largest:
        kernel = tensor(linear_map.kernel)
        transposed = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
        convolve = transposed[linear_map.rank - 1]
        window = tuple(slice(linear_map.pads[a], linear_map.pads[a] + n) for a, n in enumerate(linear_map.spatial_in))

        def by_convolution(v: torch.Tensor) -> torch.Tensor:
            image = v.reshape(len(v), linear_map.channels_out, *linear_map.spatial_out)
            padded = convolve(
                image,
                kernel,
                stride=linear_map.strides,
                dilation=linear_map.dilations,
                groups=linear_map.groups,
                output_padding=linear_map.unread,
            )
            return padded[(slice(None), slice(None), *window)].reshape(len(v), linear_map.n_in)

        return by_convolution
    matrix = linear_map.to_sparse()
    entries = matrix.shape[0] * matrix.shape[1]
    if entries <= largest and (matrix.nnz > SPARSE * entries or entries < SMALL):
        dense = tensor(matrix.toarray())
        return lambda v: v @ dense
    return sparse_product(sp.csr_array(matrix.T))


def sparse_product(matrix: sp.csr_array) -> Function:
    """Return x -> W x on rows for a sparse W, with a gradient that multiplies by W^T."""
    import torch

    if not device.has_sparse_products():
        transposed = sp.csr_array(matrix.T)
        return through_numpy(lambda x: (matrix @ x.T).T, lambda x, v: (transposed @ v.T).T)
    forward_map, backward_map = _sparse_tensor(matrix), _sparse_tensor(sp.csr_array(matrix.T))

    class Product(torch.autograd.Function):
        """torch's own gradient of a sparse product transposes the matrix anew each time."""

        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return (forward_map @ x.T).T

        @staticmethod
        def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
            return (backward_map @ gradients[0].T).T

    def product(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = Product.apply(x)  # type: ignore[no-untyped-call]
        return result

    return product


def _sparse_tensor(matrix: sp.csr_array) -> torch.Tensor:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "in beta state"
        ends, places = (torch.from_numpy(own.astype(np.int64)) for own in (matrix.indptr, matrix.indices))
        numbers = torch.from_numpy(matrix.data.astype(np.float32))
        return device.moved(torch.sparse_csr_tensor(ends, places, numbers, size=matrix.shape))


def _selection(selection: Selection) -> Function:
    if selection.is_identity:
        return lambda x: x
    weights = None if selection.weights is None and (selection.index >= 0).all() else tensor(selection.row_weights)
    if selection.is_diagonal and weights is not None:
        return lambda x: x * weights
    if not selection.size_in:
        return lambda x: device.zeros(len(x), selection.n_out)
    index = indices(np.maximum(selection.index, 0))
    return lambda x: x[:, index] if weights is None else x[:, index] * weights


def _convolution(convolution: Convolution) -> Function:
    from torch.nn import functional

    kernel = tensor(convolution.kernel)
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


def through_numpy(
    forward: Callable[[AnyArray], AnyArray], pull_back: Callable[[AnyArray, AnyArray], AnyArray]
) -> Function:
    """Return a torch function from x -> f(x) and (x, v) -> J(x)^T v."""
    import torch

    class Through(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return tensor(forward(device.array(x)))

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, v: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return tensor(pull_back(device.array(x), device.array(v)))

    return Through.apply
