"""Resize and Upsample: nearest neighbours move data; linear interpolation is one small matrix for each axis.

ONNX's text leaves open how places between two pixels are computed, and "nearest" jumps there: float32, as onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import scipy.sparse as sp

from idl_audit.arrays import AnyArray, FloatArray, IntArray
from idl_audit.graph.folding import fold_node
from idl_audit.graph.ir import Attribute, Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Sparse
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    int_attribute,
    ints_attribute,
    optional_constant,
    refuse,
    text_attribute,
)
from idl_audit.rounding import gamma

OPSET = 19
"""The operator set whose Resize the positions are computed with."""


_KEPT = (
    "mode",
    "coordinate_transformation_mode",
    "nearest_mode",
    "exclude_outside",
    "extrapolation_value",
    "keep_aspect_ratio_policy",
)


def lower_resize(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Resize by nearest neighbours or linear interpolation; operator sets from 10 on."""
    form = form_input(node, values, 0)
    if walk.opset < 11:
        return (_old_resize(node, form, constant_input(node, values, 1, "scales").astype(np.float32), walk),)
    scales, sizes = optional_constant(node, values, 2, "scales"), optional_constant(node, values, 3, "sizes")
    if int_attribute(node, "antialias", 0):
        refuse(node, "smooths while it shrinks (antialias); export the model with antialias=False")
    mode = text_attribute(node, "mode", "nearest")
    if mode == "cubic" or text_attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        refuse(node, "interpolates by cubics or crops; nearest and linear can be handled")
    given = [None if array is None or not array.size else array for array in (scales, sizes)]
    axes = ints_attribute(node, "axes", None) or tuple(range(len(form.shape)))
    attributes = {name: node.attributes[name] for name in _KEPT if name in node.attributes}
    return (_resized(node, form, given, axes, attributes, walk),)


def lower_upsample(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Upsample (operator sets 7 to 9): factors as an attribute, or as an input."""
    form = form_input(node, values, 0)
    if walk.opset < 9:
        raw = node.attributes.get("scales")
        if not isinstance(raw, tuple):
            refuse(node, "has no scales")
        return (_old_resize(node, form, np.asarray(raw, np.float32), walk),)
    return (_old_resize(node, form, constant_input(node, values, 1, "scales").astype(np.float32), walk),)


def _old_resize(node: Node, form: AffineForm, scales: AnyArray, walk: Walk) -> AffineForm:
    """What Upsample and Resize-10 do: output t reads from t / scale.

    Nearest means rounded down where an axis grows and, in onnxruntime, up where it shrinks; ONNX does not say.
    """
    mode = text_attribute(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        refuse(node, f"has the mode '{mode}'; nearest and linear can be handled")
    attributes: dict[str, Attribute] = {
        "mode": mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": _OUTWARD,
    }
    return _resized(node, form, [scales, None], tuple(range(len(form.shape))), attributes, walk)


def _resized(
    node: Node,
    form: AffineForm,
    given: Sequence[AnyArray | None],
    axes: tuple[int, ...],
    attributes: dict[str, Attribute],
    walk: Walk,
) -> AffineForm:
    """Resize axis by axis: the operator, run on the identity of each axis, gives that axis' matrix."""
    scales, sizes = given
    wanted = scales if scales is not None else sizes
    axes = tuple(axis % len(form.shape) for axis in axes) if form.shape else ()
    if wanted is None or wanted.size != len(axes):
        refuse(node, f"has no scale or size for each of its axes {axes}")
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        refuse(node, "keeps the aspect ratio; export the model with the sizes it leads to")
    lengths, factors = list(form.shape), [np.float32(1)] * len(form.shape)
    for k, axis in enumerate(axes):
        size = form.shape[axis]
        if scales is not None:
            factors[axis] = np.float32(scales.reshape(-1)[k])
            lengths[axis] = int(np.float32(size) * factors[axis])
        else:
            lengths[axis] = int(wanted.reshape(-1)[k])
            factors[axis] = np.float32(lengths[axis]) / np.float32(size)
    shape = tuple(lengths)
    if shape == form.shape:
        return form  # whatever the factors
    if not all(factor > 0 for factor in factors) or 0 in form.shape:
        refuse(node, f"has the scales {[float(factor) for factor in factors]} for a tensor of shape {form.shape}")
    if attributes.get("mode", "nearest") == "nearest":
        geometry = zip(form.shape, lengths, factors, strict=True)
        grid = np.ix_(*(_nearest(node, size, length, factor, attributes) for size, length, factor in geometry))
        return walk.select(node, form, np.ascontiguousarray(flat_indices(form.shape)[grid]))
    matrices = []
    for axis, size in enumerate(form.shape):
        where = [k for k, a in enumerate(axes) if a == axis]
        matrix = np.eye(size) if not where else _axis_matrix(node, size, given, where[0], attributes)
        matrices.append(matrix)
    product = sp.csr_array(np.ones((1, 1)))
    for matrix in matrices:
        product = sp.csr_array(sp.kron(product, sp.csr_array(matrix)))
    product.sort_indices()
    return walk.linear(node, Sparse(matrix=product, relative=gamma(64)), form, shape)


def _nearest(node: Node, size: int, length: int, factor: np.float32, attributes: dict[str, Attribute]) -> IntArray:
    """Return the entry that each of `length` outputs reads from an axis of `size`."""
    half, target = np.float32(0.5), np.arange(length, dtype=np.float32)
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    if factor == 1 or (length == 1 and coordinates in ("align_corners", "pytorch_half_pixel")):
        place = target
    elif coordinates == "asymmetric":
        place = target / factor
    elif coordinates == "align_corners":
        place = target * np.float32(size - 1) / np.float32(length - 1)
    elif coordinates in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        place = (target + half) / factor - half
        if coordinates == "half_pixel_symmetric":
            place += np.float32(size) / 2 * (1 - np.float32(length) / (factor * np.float32(size)))
    else:
        refuse(node, f"has the coordinates '{coordinates}', which are not known")
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    if not isinstance(rounding, str) or rounding not in _ROUNDINGS:
        refuse(node, f"has the nearest_mode '{rounding}', which is not known")
    if rounding == _OUTWARD:
        rounding = "ceil" if factor < 1 else "floor"
    return np.clip(_ROUNDINGS[rounding](place.astype(np.float64)), 0, size - 1).astype(np.int64)


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


def _axis_matrix(
    node: Node, size: int, given: Sequence[AnyArray | None], position: int, attributes: dict[str, Attribute]
) -> FloatArray:
    """Return the matrix of one axis, shape (new size, size)."""
    scales, sizes = given
    inputs: list[AnyArray | None] = [np.eye(size), None]
    coordinates = attributes.get("coordinate_transformation_mode")
    new_size = 0 if scales is None else int(np.floor(size * float(np.float32(scales.reshape(-1)[position]))))
    if coordinates == "align_corners" or (coordinates == "pytorch_half_pixel" and new_size == 1):
        # corners are aligned to the new length, and one pixel reads the first: the length is a whole number
        new_size = new_size if sizes is None else int(sizes.reshape(-1)[position])
        inputs += [None, np.array([size, new_size], np.int64)]
    elif scales is not None:
        inputs.append(np.array([1.0, float(scales.reshape(-1)[position])], np.float32))
    else:
        assert sizes is not None
        inputs += [None, np.array([size, int(sizes.reshape(-1)[position])], np.int64)]
    names = tuple(f"input{k}" if value is not None else "" for k, value in enumerate(inputs))
    one_axis = {name: value for name, value in attributes.items() if name != "keep_aspect_ratio_policy"}
    (rows,) = fold_node(Node("Resize", node.name, names, node.outputs[:1], one_axis), inputs, OPSET)
    return np.ascontiguousarray(np.asarray(rows, np.float64).T)
