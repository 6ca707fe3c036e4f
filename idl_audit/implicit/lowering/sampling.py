"""Images read at places between pixels: GridSample with a constant grid, and the grid of an affine map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.folding import fold_node
from idl_audit.graph.ir import Node
from idl_audit.implicit.linear_maps import Sparse
from idl_audit.implicit.lowering.interpolation import KERNELS, Taps, taps
from idl_audit.implicit.lowering.sums import along_axis, entries
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    form_input,
    int_attribute,
    refuse,
    text_attribute,
)
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.rounding import gamma

NOWHERE = -1
"""A pixel outside the image, which is 0."""

_MODES: Final = MappingProxyType({"bilinear": "linear", "bicubic": "cubic"})
"""Names before operator set 20."""


def lower_grid_sample(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GridSample of images (n, channels, *spatial) at constant places (n, *out, rank), each in [-1, 1]."""
    form, grid = form_input(node, values, 0), constant_input(node, values, 1, "grid")
    batch, channels, *spatial = form.shape if len(form.shape) > 2 else (0, 0)
    rank = len(spatial)
    if grid.ndim != rank + 2 or grid.shape[0] != batch or grid.shape[-1] != rank or not rank:
        refuse(node, f"has a grid of shape {grid.shape} for images of shape {form.shape}")
    mode = text_attribute(node, "mode", "linear")
    mode, padding = _MODES.get(mode, mode), text_attribute(node, "padding_mode", "zeros")
    if (mode not in KERNELS and mode != "nearest") or padding not in PADDINGS:
        refuse(node, f"has the mode '{mode}' and the padding '{padding}', which are not known")
    corners = bool(int_attribute(node, "align_corners", 0))
    places = grid.reshape(-1, rank)[:, ::-1]  # the last coordinate belongs to the first spatial axis
    per_axis = [_taps(places[:, a], n, mode, padding, corners=corners) for a, n in enumerate(spatial)]
    shape = (batch, channels, *grid.shape[1:-1])
    walk.allow(node, math.prod(shape) * math.prod(pixels.shape[1] for pixels, _ in per_axis))
    pixels, weights, errors = _combined(per_axis, spatial)
    matrices = [_for_images(pixels, each, batch, channels, math.prod(spatial)) for each in (weights, errors)]
    linear_map = Sparse(matrix=matrices[0], slack=None if mode == "nearest" else Sparse(matrix=matrices[1]))
    return (walk.linear(node, linear_map, form, shape),)


def _taps(coordinates: AnyArray, size: int, mode: str, padding: str, *, corners: bool) -> Taps:
    """Return (pixels, weights) along one axis; coordinates from -1 to 1 span it, or the middles of its ends' pixels."""
    c: FloatArray = coordinates.astype(np.float32 if mode == "nearest" else np.float64)
    place = (c + 1) / 2 * (size - 1) if corners else ((c + 1) * size - 1) / 2
    if mode == "nearest":
        place = np.rint(place)
    ends = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    beyond = (place < ends[0]) | (place > ends[1])
    if mode == "cubic" and padding == "border":
        beyond[:] = False  # its pixels alone are held at the border, as torch and onnxruntime do
    place = np.where(beyond, PADDINGS[padding](place, size, ends), place)
    if mode == "nearest":
        pixels, weights = place[:, None].astype(np.int64), np.ones((place.size, 1))
    else:
        pixels, weights = taps(place, mode)
    if padding != "zeros":
        pixels = np.trunc(PADDINGS[padding](pixels.astype(np.float64), size, ends)).astype(np.int64)
    return np.where((pixels >= 0) & (pixels < size), pixels, NOWHERE), weights


def _clamped(place: FloatArray, size: int, ends: tuple[float, float]) -> FloatArray:
    return np.clip(place, 0, size - 1)


def _reflected(place: FloatArray, size: int, ends: tuple[float, float]) -> FloatArray:
    """Return the places folded back at both ends, as often as it takes."""
    width = ends[1] - ends[0]
    if not width:
        return np.full_like(place, ends[0])
    turned = np.mod(place - ends[0], 2 * width)
    return ends[0] + np.minimum(turned, 2 * width - turned)


def _unchanged(place: FloatArray, size: int, ends: tuple[float, float]) -> FloatArray:
    return place


PADDINGS: Final[Mapping[str, Callable[[FloatArray, int, tuple[float, float]], FloatArray]]] = MappingProxyType(
    {"border": _clamped, "reflection": _reflected, "zeros": _unchanged}
)
"""What becomes of places outside: (places, pixels of the axis, its ends) -> places."""


def _combined(per_axis: Sequence[Taps], spatial: Sequence[int]) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return (flat pixels, weights, bounds on the weights' rounding), each (places, taps of all axes)."""
    n = len(per_axis[0][0])
    pixel, weight, largest = np.zeros((n, 1), np.int64), np.ones((n, 1)), np.ones((n, 1))
    for (pixels, weights), size in zip(per_axis, spatial, strict=True):
        inside = (pixel[:, :, None] >= 0) & (pixels[:, None, :] >= 0)
        pixel = np.where(inside, pixel[:, :, None] * size + pixels[:, None, :], NOWHERE).reshape(n, -1)
        spread = np.abs(weights) + gamma(64) * (size + 2)  # places are that large, and their rounding shifts weights
        weight = (weight[:, :, None] * weights[:, None, :]).reshape(n, -1)
        largest = (largest[:, :, None] * spread[:, None, :]).reshape(n, -1)
    return pixel, weight, largest * (1 + gamma(16)) - np.abs(weight)


def _for_images(pixels: IntArray, values: FloatArray, batch: int, channels: int, size: int) -> sp.csr_array:
    """Return the map of all images: places of image i, the same for each of its channels, read its pixels."""
    n = len(pixels) // batch
    image = np.arange(batch * channels).reshape(batch, channels, 1, 1)
    shape = (batch, channels, n, pixels.shape[1])
    own = pixels.reshape(batch, 1, n, -1)
    rows = np.broadcast_to(image * n + np.arange(n)[:, None], shape)
    columns = np.where(own >= 0, image * size + own, NOWHERE)
    data = np.broadcast_to(values.reshape(batch, 1, n, -1), shape)
    return entries(
        rows.reshape(-1), columns.reshape(-1), data.reshape(-1), (batch * channels * n, batch * channels * size)
    )


def lower_affine_grid(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """AffineGrid of matrices (n, rank, rank + 1): linear in them; the operator tells the grid of each basis matrix."""
    form, size = form_input(node, values, 0), constant_input(node, values, 1, "size").reshape(-1)
    batch, *own = form.shape
    n = math.prod(own)
    if len(own) != 2 or size.size != own[0] + 2 or size[0] != batch:
        refuse(node, f"has a size {size.tolist()} for matrices of shape {form.shape}")
    basis = np.eye(n).reshape(n, *own)
    (grid,) = fold_node(node, [basis, np.array([n, *size[1:]], np.int64)], walk.opset)
    matrix = sp.csr_array(np.asarray(grid, np.float64).reshape(n, -1).T)
    walk.allow(node, batch * matrix.nnz)
    slack = matrix.copy()
    slack.data = np.full_like(slack.data, gamma(16))
    made = along_axis(node, form.reshaped((batch, n)), 1, matrix, walk, slack=slack)
    return (made.reshaped((batch, *grid.shape[1:])),)
