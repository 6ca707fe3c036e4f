"""Resize and Upsample: nearest neighbours move data; linear interpolation is one small matrix for each axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from idl_audit.arrays import AnyArray, FloatArray
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
    """What Upsample and Resize-10 do: output t reads from t / scale, nearest means rounded down."""
    mode = text_attribute(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        refuse(node, f"has the mode '{mode}'; nearest and linear can be handled")
    attributes: dict[str, Attribute] = {
        "mode": mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
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
    if wanted is None or wanted.size != len(axes):
        refuse(node, f"has no scale or size for each of its axes {axes}")
    matrices = []
    for axis, size in enumerate(form.shape):
        where = [k for k, a in enumerate(axes) if a % len(form.shape) == axis]
        matrix = np.eye(size) if not where else _axis_matrix(node, size, given, where[0], attributes)
        matrices.append(matrix)
    shape = tuple(len(matrix) for matrix in matrices)
    if all(bool(((m == 0) | (m == 1)).all()) and bool((m.sum(axis=1) == 1).all()) for m in matrices):
        grid = np.ix_(*(matrix.argmax(axis=1) for matrix in matrices))
        return walk.select(node, form, np.ascontiguousarray(flat_indices(form.shape)[grid]))
    product = sp.csr_array(np.ones((1, 1)))
    for matrix in matrices:
        product = sp.csr_array(sp.kron(product, sp.csr_array(matrix)))
    product.sort_indices()
    return walk.linear(node, Sparse(matrix=product, relative=gamma(64)), form, shape)


def _axis_matrix(
    node: Node, size: int, given: Sequence[AnyArray | None], position: int, attributes: dict[str, Attribute]
) -> FloatArray:
    """Return the matrix of one axis, shape (new size, size)."""
    scales, sizes = given
    inputs: list[AnyArray | None] = [np.eye(size), None]
    if scales is not None and attributes.get("coordinate_transformation_mode") == "align_corners":
        # corners are aligned to the new length, which is a whole number
        new_size = int(np.floor(size * float(np.float32(scales.reshape(-1)[position]))))
        inputs += [None, np.array([size, new_size], np.int64)]
    elif scales is not None:
        inputs.append(np.array([1.0, float(scales.reshape(-1)[position])], np.float32))
    else:
        assert sizes is not None
        inputs += [None, np.array([size, int(sizes.reshape(-1)[position])], np.int64)]
    names = tuple(f"input{k}" if value is not None else "" for k, value in enumerate(inputs))
    one_axis = {name: value for name, value in attributes.items() if name != "keep_aspect_ratio_policy"}
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        refuse(node, "keeps the aspect ratio; export the model with the sizes it leads to")
    (rows,) = fold_node(Node("Resize", node.name, names, node.outputs[:1], one_axis), inputs, OPSET)
    return np.ascontiguousarray(np.asarray(rows, np.float64).T)
