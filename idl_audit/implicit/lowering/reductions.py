"""Reductions over axes: sums and means are linear, maxima are tournaments, as are logarithms of sums of exponentials.

log(exp s + exp t) = s + softplus(t - s). A tournament of such pairs gives ReduceLogSumExp and, by subtraction,
LogSoftmax.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations.analytic import log, sqrt
from idl_audit.implicit.activations.curve import softplus
from idl_audit.implicit.activations.kinked import absolute
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Sparse
from idl_audit.implicit.lowering.arithmetic import broadcast
from idl_audit.implicit.lowering.maxima import maximum_of_windows, stack
from idl_audit.implicit.lowering.pooling import known_power, squares
from idl_audit.implicit.lowering.sums import weighted_sum
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
)
from idl_audit.values.arrays import AnyArray, IntArray


def lower_global_average_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GlobalAveragePool: the mean over the spatial axes."""
    form = form_input(node, values, 0)
    return (reduced(node, form, tuple(range(2, len(form.shape))), True, "mean", walk),)


def lower_global_max_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GlobalMaxPool: the maximum over the spatial axes."""
    form = form_input(node, values, 0)
    return (reduced(node, form, tuple(range(2, len(form.shape))), True, "max", walk),)


def lower_global_lp_pool(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GlobalLpPool with p = 1 or 2: the sum of sizes over the spatial axes, or the root of that of squares."""
    form, how = form_input(node, values, 0), f"l{known_power(node)}"
    return (reduced(node, form, tuple(range(2, len(form.shape))), True, how, walk),)


def lower_reduce(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Reduce... over any axes (an attribute before, an input from opset 13 or 18)."""
    form, how = form_input(node, values, 0), _HOW[node.op]
    axes = reduced_axes(node, optional_constant(node, values, 1, "list of axes"), form.shape)
    if not axes and how not in CURVED:
        return (form,)
    return (reduced(node, form, axes, bool(int_attribute(node, "keepdims", 1)), how, walk),)


_HOW: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ReduceL1": "l1",
        "ReduceL2": "l2",
        "ReduceLogSum": "log-sum",
        "ReduceLogSumExp": "log-sum-exp",
        "ReduceMax": "max",
        "ReduceMean": "mean",
        "ReduceMin": "min",
        "ReduceProd": "product",
        "ReduceSum": "sum",
        "ReduceSumSquare": "squares",
    }
)


def reduced_axes(node: Node, given: AnyArray | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that a reduction runs over, ascending and from 0 on; empty where it does nothing."""
    axes = tuple(int(a) for a in given.reshape(-1)) if given is not None else ints_attribute(node, "axes", None)
    if not axes:
        return () if int_attribute(node, "noop_with_empty_axes", 0) else tuple(range(len(shape)))
    rank = len(shape)
    if any(not -rank <= a < rank for a in axes):
        refuse(node, f"reduces over axes {axes} of a tensor of shape {shape}")
    return tuple(sorted({a % rank for a in axes}))


def windows_over(shape: tuple[int, ...], axes: tuple[int, ...]) -> IntArray:
    """Return the flat positions of what is reduced together over these axes, (results, entries of each)."""
    kept = tuple(a for a in range(len(shape)) if a not in axes)
    outer, inner = (math.prod(shape[a] for a in some) for some in (kept, axes))
    return flat_indices(shape).transpose(*kept, *axes).reshape(outer, inner)


def reduced(node: Node, form: AffineForm, axes: tuple[int, ...], keep: bool, how: str, walk: Walk) -> AffineForm:
    """Return what one of REDUCERS makes of a tensor over these axes, which are kept or not."""
    windows = windows_over(form.shape, axes)
    shape = tuple(1 if a in axes else n for a, n in enumerate(form.shape) if keep or a not in axes)
    if windows.shape[1] == 0:
        refuse(node, f"reduces over an empty axis of shape {form.shape}")
    return REDUCERS[how](node, form, shape, windows, walk)


def _total(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    return weighted_sum(node, form, shape, windows, np.ones(len(windows)), walk)


def _average(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    return weighted_sum(node, form, shape, windows, np.full(len(windows), 1.0 / windows.shape[1]), walk)


def _absolute_total(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    return _total(node, walk.states(node, absolute(), form, suffix="/abs"), shape, windows, walk)


def _squares(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    return _total(node, squares(node, form, walk), shape, windows, walk)


def _length(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    return walk.states(node, sqrt(), _squares(node, form, shape, windows, walk))


def _log_sum(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    return walk.states(node, log(), _total(node, form, shape, windows, walk))


def _minimum(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    return maximum_of_windows(node, form.scaled(-1.0), shape, windows, walk).scaled(-1.0)


def product_of_windows(
    node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk
) -> AffineForm:
    """Return the products of the windows' entries: those of pairs, then those of pairs of pairs, and so on."""
    current = walk.select(node, form, np.ascontiguousarray(windows))
    while (n := current.shape[1]) > 1:
        first, second, rest = np.split(flat_indices(current.shape), [n // 2, n - n % 2], axis=1)
        pairs = walk.products(node, current, first, current, second, suffix=f"/product{n}")
        both = stack([pairs, current.selected(np.ascontiguousarray(rest))], pairs.size + rest.size)
        order = np.concatenate([flat_indices(first.shape), pairs.size + flat_indices(rest.shape)], axis=1)
        current = both.selected(order)
    return current.reshaped(shape)


def lower_cumulative_product(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """CumProd: y_t = product over s <= t of x_s (s < t where exclusive, s >= t where reversed)."""
    form = form_input(node, values, 0)
    (axis,) = reduced_axes(node, constant_input(node, values, 1, "axis"), form.shape)
    lines = np.moveaxis(flat_indices(form.shape), axis, 0)
    order = np.arange(len(lines))[:: -1 if int_attribute(node, "reverse", 0) else 1]
    lines = lines[order].reshape(len(lines), -1)
    ones = AffineForm((lines.shape[1],), {}, np.ones(lines.shape[1]))
    made = [form.selected(np.ascontiguousarray(lines[0]))]
    for t in range(1, len(lines)):
        made.append(walk.products(node, made[-1], flat_indices(ones.shape), form, lines[t], suffix=f"/product{t}"))
    if int_attribute(node, "exclusive", 0):
        made = [ones, *made[:-1]]
    place = np.empty_like(lines)
    place[:] = flat_indices(lines.shape)
    result = np.empty(form.size, np.int64)
    result[lines.reshape(-1)] = place.reshape(-1)
    return (stack(made, form.size).selected(result.reshape(form.shape)),)


MOST_PERMUTED = 4
"""Rows of a matrix whose determinant is written out."""


def lower_determinant(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Det of small matrices: sum over permutations p of sign(p) x_{1 p(1)} ... x_{n p(n)}."""
    form = form_input(node, values, 0)
    n = form.shape[-1] if len(form.shape) > 1 else 0
    if not 1 <= n <= MOST_PERMUTED or form.shape[-2] != n:
        refuse(node, f"reads matrices of shape {form.shape[-2:]}; with 1 to {MOST_PERMUTED} rows and columns it can be")
    orders = np.array(list(itertools.permutations(range(n))))
    signs = np.array([np.linalg.det(np.eye(n)[order]) for order in orders]).round()
    places = flat_indices(form.shape).reshape(-1, n, n)[:, np.arange(n), orders]
    terms = product_of_windows(node, form, (len(places), len(orders)), places.reshape(-1, n), walk)
    signed = sp.csr_array(np.kron(np.eye(len(places)), signs))
    return (walk.linear(node, Sparse(matrix=signed), terms, form.shape[:-2]),)


def _log_sum_exp(node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk) -> AffineForm:
    """Return the logarithm of the windows' sums of exponentials: log(exp s + exp t) = s + softplus(t - s)."""
    current = walk.select(node, form, np.ascontiguousarray(windows))
    while (n := current.shape[1]) > 1:
        places = flat_indices(current.shape)
        first, second, rest = (np.ascontiguousarray(part) for part in np.split(places, [n // 2, n - n % 2], axis=1))
        left, right = current.selected(first), current.selected(second)
        apart = walk.states(node, softplus(), right.plus(left.scaled(-1.0)), suffix=f"/softplus{n}")
        both = stack([left.plus(apart), current.selected(rest)], first.size + rest.size)
        order = np.concatenate([flat_indices(first.shape), first.size + flat_indices(rest.shape)], axis=1)
        current = both.selected(order)
    return current.reshaped(shape)


_Reducer = Callable[[Node, AffineForm, tuple[int, ...], IntArray, Walk], AffineForm]
"""(node, form, output's shape, which entries of the form each output reads, walk) -> output."""

REDUCERS: Final[Mapping[str, _Reducer]] = MappingProxyType(
    {
        "l1": _absolute_total,
        "l2": _length,
        "log-sum": _log_sum,
        "log-sum-exp": _log_sum_exp,
        "max": maximum_of_windows,
        "mean": _average,
        "min": _minimum,
        "product": product_of_windows,
        "squares": _squares,
        "sum": _total,
    }
)

CURVED: Final = frozenset({"l1", "l2", "log-sum", "squares"})
"""Those that are no identity over no axes."""


def lower_log_softmax(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LogSoftmax inside a network: every entry minus the logarithm of its group's sum of exponentials."""
    form = form_input(node, values, 0)
    return (log_softmax(node, form, competing_axes(node, form.shape, walk.opset), walk),)


def log_softmax(node: Node, form: AffineForm, axes: tuple[int, ...], walk: Walk) -> AffineForm:
    """Return the form minus the logarithm of the sum of exponentials over these axes."""
    total = walk.apart(node, reduced(node, form, axes, True, "log-sum-exp", walk), "/total")
    return form.plus(broadcast(total, form.shape).scaled(-1.0))


def competing_axes(node: Node, shape: tuple[int, ...], opset: int) -> tuple[int, ...]:
    """Return the axes that Softmax and LogSoftmax run over: one of them, or before operator set 13 all from it on."""
    axis = int_attribute(node, "axis", -1 if opset >= 13 else 1)
    if not -len(shape) <= axis < len(shape):
        refuse(node, f"has the axis {axis} for a tensor of shape {shape}")
    axis %= len(shape)
    return (axis,) if opset >= 13 else tuple(range(axis, len(shape)))
