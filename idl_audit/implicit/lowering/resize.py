"""Resize and Upsample: nearest neighbours move data; interpolation is one small matrix for each axis.

ONNX's text leaves open how places between two pixels are computed, and "nearest" jumps there: float32, as onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Sparse
from idl_audit.implicit.lowering.interpolation import CUBIC, KERNELS, taps
from idl_audit.implicit.lowering.sums import entries, sorted_csr
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    float_attribute,
    form_input,
    int_attribute,
    ints_attribute,
    optional_constant,
    refuse,
    text_attribute,
)
from idl_audit.values.arrays import AnyArray, BoolArray, FloatArray, IntArray
from idl_audit.values.rounding import gamma

CROP: Final = "tf_crop_and_resize"
"""The coordinates that read a part of the axis only, and have a value of their own outside."""


@dataclass(frozen=True)
class Axis:
    """One axis: `length` outputs read from `size` entries, `factor` times as many, from start to end (1 is all)."""

    size: int
    length: int
    factor: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether the outputs read from all of the axis."""
        return (self.start, self.end) == (0.0, 1.0)

    @property
    def is_kept(self) -> bool:
        """Whether every output reads the entry of its own number."""
        return self.size == self.length and self.factor == 1.0 and self.is_whole


_Precision: TypeAlias = type[np.float32] | type[np.float64]


@dataclass(frozen=True)
class Manner:
    """How outputs read: the operator's attributes."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = CUBIC
    exclude_outside: bool = False
    antialias: bool = False
    outside: float = 0.0


def lower_resize(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Resize by nearest neighbours, linear or cubic interpolation; operator sets from 10 on."""
    form = form_input(node, values, 0)
    if walk.opset < 11:
        return (_old_resize(node, form, constant_input(node, values, 1, "scales"), walk),)
    given = [optional_constant(node, values, k, what) for k, what in ((1, "roi"), (2, "scales"), (3, "sizes"))]
    roi, scales, sizes = (None if array is None or not array.size else array.reshape(-1) for array in given)
    rank = len(form.shape)
    axes = tuple(a % rank for a in ints_attribute(node, "axes", None) or range(rank))
    manner = Manner(
        text_attribute(node, "mode", "nearest"),
        text_attribute(node, "coordinate_transformation_mode", "half_pixel"),
        text_attribute(node, "nearest_mode", "round_prefer_floor"),
        float_attribute(node, "cubic_coeff_a", CUBIC),
        bool(int_attribute(node, "exclude_outside", 0)),
        bool(int_attribute(node, "antialias", 0)),
        float_attribute(node, "extrapolation_value", 0.0),
    )
    geometry = [Axis(size, size, 1.0) for size in form.shape]
    for axis, made in zip(axes, _geometry(node, form.shape, axes, scales, sizes), strict=True):
        geometry[axis] = made
    if manner.coordinates == CROP:
        geometry = _cropped(node, geometry, axes, roi)
    return (_resized(node, form, geometry, manner, walk),)


def _geometry(
    node: Node, shape: tuple[int, ...], axes: Sequence[int], scales: AnyArray | None, sizes: AnyArray | None
) -> list[Axis]:
    """Return the resized axes, by factors or by lengths."""
    wanted = scales if scales is not None else sizes
    if wanted is None or wanted.size != len(axes):
        refuse(node, f"has no scale or size for each of its axes {tuple(axes)}")
    before = [shape[axis] for axis in axes]
    if 0 in before:
        refuse(node, f"resizes an empty axis of shape {shape}")
    if scales is not None:
        factors = [np.float32(scale) for scale in scales]
        return [Axis(n, int(np.float32(n) * f), float(f)) for n, f in zip(before, factors, strict=True)]
    lengths = [int(size) for size in wanted]
    policy = text_attribute(node, "keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return [Axis(n, length, length / n) for n, length in zip(before, lengths, strict=True)]
    if policy not in _POLICIES:
        refuse(node, f"has the keep_aspect_ratio_policy '{policy}'; known are stretch, {', '.join(_POLICIES)}")
    factor = _POLICIES[policy](np.float32(length) / np.float32(n) for n, length in zip(before, lengths, strict=True))
    return [Axis(n, math.floor(factor * np.float32(n) + np.float32(0.5)), float(factor)) for n in before]


_POLICIES: Final[Mapping[str, Callable[..., np.float32]]] = MappingProxyType({"not_larger": min, "not_smaller": max})


def _cropped(node: Node, geometry: list[Axis], axes: Sequence[int], roi: AnyArray | None) -> list[Axis]:
    """Return the axes with the part that each of them reads: all starts, then all ends, as shares of the axis."""
    if roi is None or roi.size != 2 * len(axes):
        refuse(node, f"crops, and has no start and end for each of its axes {tuple(axes)}")
    parts = {axis: (float(roi[k]), float(roi[len(axes) + k])) for k, axis in enumerate(axes)}
    return [Axis(a.size, a.length, a.factor, *parts.get(k, (0.0, 1.0))) for k, a in enumerate(geometry)]


def lower_upsample(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Upsample (operator sets 7 to 9): factors as an attribute, or as an input."""
    form = form_input(node, values, 0)
    if walk.opset < 9:
        raw = node.attributes.get("scales")
        if not isinstance(raw, tuple):
            refuse(node, "has no scales")
        return (_old_resize(node, form, np.asarray(raw, np.float32), walk),)
    return (_old_resize(node, form, constant_input(node, values, 1, "scales"), walk),)


def _old_resize(node: Node, form: AffineForm, scales: AnyArray, walk: Walk) -> AffineForm:
    """What Upsample and Resize-10 do: output t reads from t / scale.

    Nearest means rounded down where an axis grows and, in onnxruntime, up where it shrinks; ONNX does not say.
    """
    mode = text_attribute(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        refuse(node, f"has the mode '{mode}'; nearest and linear are known in operator set {walk.opset}")
    geometry = _geometry(node, form.shape, range(len(form.shape)), scales.astype(np.float32).reshape(-1), None)
    return _resized(node, form, geometry, Manner(mode, "asymmetric", _OUTWARD), walk)


def _resized(node: Node, form: AffineForm, geometry: Sequence[Axis], manner: Manner, walk: Walk) -> AffineForm:
    shape = tuple(axis.length for axis in geometry)
    if shape == form.shape and all(axis.is_whole for axis in geometry):
        return form  # whatever the factors
    if shape == form.shape or any(axis.factor == 1.0 and not axis.is_whole for axis in geometry):
        refuse(
            node,
            "crops an axis and gives it its old length back: ONNX's text crops, onnxruntime leaves the axis as it is; "
            "crop with Slice before a Resize without roi",
        )
    if not all(axis.factor > 0 for axis in geometry):
        refuse(node, f"has the scales {[axis.factor for axis in geometry]} for a tensor of shape {form.shape}")
    beyond = [_beyond(node, axis, manner) for axis in geometry]
    if manner.mode == "nearest":
        grid = np.ix_(*(_nearest(node, axis, manner) for axis in geometry))
        made = walk.select(node, form, np.ascontiguousarray(flat_indices(form.shape)[grid]))
    elif manner.mode in KERNELS:
        made = _interpolated(node, form, geometry, manner, walk)
    else:
        refuse(node, f"has the mode '{manner.mode}'; known are nearest, {', '.join(KERNELS)}")
    if not any(part.any() for part in beyond):
        return made
    filled = np.zeros(shape, np.bool_)
    for axis, part in enumerate(beyond):
        filled |= part.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return made.selected(np.where(filled, -1, flat_indices(shape)), manner.outside)


def _beyond(node: Node, axis: Axis, manner: Manner) -> BoolArray:
    """Return which outputs read from outside the axis, where that has a value of its own."""
    if manner.coordinates != CROP:
        return np.zeros(axis.length, np.bool_)
    places = _places(node, axis, manner, np.float32)
    return np.asarray((places < 0) | (places > axis.size - 1))


def _interpolated(node: Node, form: AffineForm, geometry: Sequence[Axis], manner: Manner, walk: Walk) -> AffineForm:
    """Return the product over the axes of their matrices, applied; what rounding did to it is its slack."""
    product, largest = sp.csr_array(np.ones((1, 1))), sp.csr_array(np.ones((1, 1)))
    for axis in geometry:
        if manner.antialias and axis.length == axis.size:
            axis = replace(axis, factor=1.0)  # onnxruntime smooths no axis that keeps its length
        matrix, spread = _axis_matrix(axis, _places(node, axis, manner, np.float64), manner)
        walk.allow(node, product.nnz * matrix.nnz)
        product = sorted_csr(sp.kron(product, matrix, format="csr"))
        largest = sorted_csr(sp.kron(largest, abs(matrix) + spread, format="csr"))
    slack = largest - abs(product) + 4 * gamma(8) * largest
    shape = tuple(axis.length for axis in geometry)
    return walk.linear(node, Sparse(matrix=product, slack=Sparse(matrix=sorted_csr(slack))), form, shape)


def _axis_matrix(axis: Axis, places: FloatArray, manner: Manner) -> tuple[sp.csr_array, sp.csr_array]:
    """Return (matrix of one axis, shape (length, size); a bound on its rounding, of the same pattern)."""
    if axis.is_kept:
        exact = sp.eye_array(axis.size, format="csr")
        return exact, 0.0 * exact
    shrink = min(1.0, axis.factor) if manner.antialias else 1.0
    pixels, weights = taps(places, manner.mode, a=manner.cubic, shrink=shrink)
    if manner.exclude_outside:
        weights = np.where((pixels >= 0) & (pixels < axis.size), weights, 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(np.arange(axis.length)[:, None], pixels.shape).reshape(-1)
    columns = np.clip(pixels, 0, axis.size - 1).reshape(-1)
    shape = (axis.length, axis.size)
    reach = axis.size + 2.0  # places are that large, and their rounding shifts the weights
    error = gamma(64) * reach * np.abs(weights).sum(axis=1, keepdims=True) * np.ones_like(weights)
    return entries(rows, columns, weights.reshape(-1), shape), entries(rows, columns, error.reshape(-1), shape)


def _places(node: Node, axis: Axis, manner: Manner, dtype: _Precision) -> AnyArray:
    """Return where each of `length` outputs reads, in pixels."""
    if manner.coordinates not in COORDINATES:
        refuse(node, f"has the coordinates '{manner.coordinates}'; known are {', '.join(COORDINATES)}")
    target = np.arange(axis.length, dtype=dtype)
    return target if axis.is_kept else COORDINATES[manner.coordinates](target, axis, dtype)


def _nearest(node: Node, axis: Axis, manner: Manner) -> IntArray:
    """Return the entry that each of `length` outputs reads."""
    rounding = manner.rounding
    if rounding not in _ROUNDINGS:
        refuse(node, f"has the nearest_mode '{rounding}', which is not known")
    if rounding == _OUTWARD:
        rounding = "ceil" if axis.factor < 1 else "floor"
    place = _places(node, axis, manner, np.float32).astype(np.float64)
    return np.clip(_ROUNDINGS[rounding](place), 0, axis.size - 1).astype(np.int64)


_OUTWARD: Final = ""
"""Before operator set 11: down where an axis grows and, in onnxruntime, up where it shrinks."""

_ROUNDINGS: Final[Mapping[str, Callable[[FloatArray], FloatArray]]] = MappingProxyType(
    {
        "round_prefer_floor": lambda place: np.ceil(place - 0.5),
        "round_prefer_ceil": lambda place: np.floor(place + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
        _OUTWARD: np.floor,
    }
)


def _asymmetric(target: AnyArray, axis: Axis, number: _Precision) -> AnyArray:
    return target / number(axis.factor)


def _half_pixel(target: AnyArray, axis: Axis, number: _Precision) -> AnyArray:
    return (target + number(0.5)) / number(axis.factor) - number(0.5)


def _half_pixel_for_nearest(target: AnyArray, axis: Axis, number: _Precision) -> AnyArray:
    return (target + number(0.5)) / number(axis.factor)


def _pytorch_half_pixel(target: AnyArray, axis: Axis, number: _Precision) -> AnyArray:
    return _half_pixel(target, axis, number) if axis.length > 1 else target


def _symmetric_half_pixel(target: AnyArray, axis: Axis, number: _Precision) -> AnyArray:
    """Map the middle of what is read to the middle of the output, which a fractional length moves."""
    size = number(axis.size)
    share = number(axis.length) / (number(axis.factor) * size)
    return _half_pixel(target, axis, number) + size / 2 * (1 - share)


def _aligned_corners(target: AnyArray, axis: Axis, number: _Precision) -> AnyArray:
    return target * number(axis.size - 1) / number(axis.length - 1) if axis.length > 1 else target


def _crop(target: AnyArray, axis: Axis, number: _Precision) -> AnyArray:
    start, end, last = number(axis.start), number(axis.end), number(axis.size - 1)
    if axis.length == 1:
        return target + number(0.5) * (start + end) * last
    return start * last + target * (end - start) * last / number(axis.length - 1)


COORDINATES: Final[Mapping[str, Callable[[AnyArray, Axis, _Precision], AnyArray]]] = MappingProxyType(
    {
        "align_corners": _aligned_corners,
        "asymmetric": _asymmetric,
        "half_pixel": _half_pixel,
        "half_pixel_symmetric": _symmetric_half_pixel,
        "pytorch_half_pixel": _pytorch_half_pixel,
        CROP: _crop,
        "tf_half_pixel_for_nn": _half_pixel_for_nearest,
    }
)
"""Where output t reads: (0, 1, ..., length - 1), the axis, the precision -> places."""
