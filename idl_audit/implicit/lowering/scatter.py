"""Scatter, ScatterElements, ScatterND at constant positions: updates replace, are added, multiply, or compete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Selection, Sparse
from idl_audit.implicit.lowering.arithmetic import constant_form, negated
from idl_audit.implicit.lowering.maxima import OUTSIDE, maximum_of_windows, stack
from idl_audit.implicit.lowering.movement import NOWHERE, picked, places_along
from idl_audit.implicit.lowering.sums import entries
from idl_audit.implicit.walk import (
    NO_BOUND,
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    refuse,
    refuse_infinity,
    text_attribute,
)
from idl_audit.values.arrays import IntArray
from idl_audit.values.rounding import gamma

_Reduction = Callable[[Node, TensorValue, TensorValue, IntArray, Walk], AffineForm]
"""(node, data, updates, place in the data of every update, walk) -> result."""


def lower_scatter(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Scatter, ScatterElements and ScatterND; data, updates or both may depend on the input."""
    if len(values) != 3 or values[0] is None or values[2] is None:
        refuse(node, f"needs data, positions and updates but has {len(values)} inputs")
    data, updates = values[0], values[2]
    indices = constant_input(node, values, 1, "list of positions").astype(np.int64)
    reduction = text_attribute(node, "reduction", "none")
    if reduction not in REDUCTIONS:
        refuse(node, f"has the reduction '{reduction}'; known are {', '.join(REDUCTIONS)}")
    places = _places_nd(indices, data.shape) if node.op == "ScatterND" else places_along(node, indices, data.shape)
    if places.shape != updates.shape:
        refuse(node, f"has updates of shape {updates.shape} for places of shape {places.shape}")
    return (REDUCTIONS[reduction](node, data, updates, places.reshape(-1), walk),)


def _places_nd(indices: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Return the flat place of every entry of the slices that the last axis of the indices names."""
    return np.asarray(flat_indices(shape)[tuple(np.moveaxis(indices, -1, 0))])


def _replaced(node: Node, data: TensorValue, updates: TensorValue, places: IntArray, walk: Walk) -> AffineForm:
    writer = np.full(data.size, NOWHERE)
    writer[places] = np.arange(places.size)
    if np.unique(places).size < places.size and not _writes_agree(updates, places, writer):
        refuse(
            node,
            "writes different numbers to one place, and ONNX leaves open which of them stays; write each place once",
        )
    positions = np.where(writer >= 0, data.size + writer, np.arange(data.size)).reshape(data.shape)
    return picked(node, walk, (data, updates), (0, data.size, data.size + places.size), positions)


def _writes_agree(updates: TensorValue, places: IntArray, writer: IntArray) -> bool:
    if isinstance(updates, AffineForm):
        return False
    flat = updates.reshape(-1)
    return bool((flat == flat[writer[places]]).all())


def _added(node: Node, data: TensorValue, updates: TensorValue, places: IntArray, walk: Walk) -> AffineForm:
    matrix = entries(places, np.arange(places.size), 1.0, (data.size, places.size))
    summed = walk.linear(node, Sparse(matrix=matrix), _form(node, updates), data.shape)
    return _form(node, data).plus(summed)


def _multiplied(node: Node, data: TensorValue, updates: TensorValue, places: IntArray, walk: Walk) -> AffineForm:
    most = int(np.bincount(places, minlength=1).max(initial=0))
    if isinstance(updates, AffineForm):
        if isinstance(data, AffineForm) or most > 1:
            refuse(node, "multiplies tensors that depend on the input with each other; only one factor may")
        writer = np.full(data.size, NOWHERE)
        writer[places] = np.arange(places.size)
        refuse_infinity(node, data)
        flat = data.astype(np.float64).reshape(-1)
        product = Selection(index=writer, size_in=places.size, weights=np.where(writer >= 0, flat, 0.0))
        return walk.linear(node, product, updates, data.shape, offset=np.where(writer >= 0, 0.0, flat))
    refuse_infinity(node, updates)
    factors = np.ones(data.size)
    np.multiply.at(factors, places, updates.astype(np.float64).reshape(-1))
    diagonal = Selection.diagonal(factors).uncertain(gamma(most) if most > 1 else 0.0)
    return walk.linear(node, diagonal, _form(node, data), data.shape)


def _largest(node: Node, data: TensorValue, updates: TensorValue, places: IntArray, walk: Walk) -> AffineForm:
    order = np.argsort(places, kind="stable")
    sorted_places = places[order]
    rank = np.arange(places.size) - np.searchsorted(sorted_places, sorted_places)
    windows = np.full((data.size, 1 + int(rank.max(initial=-1)) + 1), OUTSIDE)
    windows[:, 0] = np.arange(data.size)
    windows[sorted_places, 1 + rank] = data.size + order
    if not isinstance(data, AffineForm):  # the least of all numbers competes with nobody
        least = data <= -NO_BOUND
        windows[least.reshape(-1), 0] = OUTSIDE
        data = np.where(least, 0.0, data)
    both = stack([_form(node, data), _form(node, updates)], data.size + places.size)
    return maximum_of_windows(node, both, data.shape, windows, walk)


def _smallest(node: Node, data: TensorValue, updates: TensorValue, places: IntArray, walk: Walk) -> AffineForm:
    return _largest(node, negated(data), negated(updates), places, walk).scaled(-1.0)


def _form(node: Node, value: TensorValue) -> AffineForm:
    if isinstance(value, AffineForm):
        return value
    refuse_infinity(node, value)
    return constant_form(value)


REDUCTIONS: Final[Mapping[str, _Reduction]] = MappingProxyType(
    {"none": _replaced, "add": _added, "mul": _multiplied, "max": _largest, "min": _smallest}
)
"""What becomes of an entry that updates are written to."""
