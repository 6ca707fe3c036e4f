"""Norms: tensors divided by a size of themselves - of a layer, of groups of channels, of single vectors.

What is normalised together is a group: d = x - mean(x), or x itself, divided by s = max(sqrt(q + under) + beside,
least), q = sum of d^2 / count. States for the mean, for d^2 and for 1 / s bound the factor 1 / s from the inputs; the
group itself is one coupled activation (docs/mathematics.md, section 6.10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations.analytic import reciprocal, rsqrt, sqrt, square
from idl_audit.implicit.activations.kinked import relu
from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Selection, Sparse
from idl_audit.implicit.lowering.arithmetic import broadcast, inverted, multiplied, powered
from idl_audit.implicit.lowering.reductions import reduced, windows_over
from idl_audit.implicit.lowering.sums import entries, weighted_sum
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
)
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.rounding import UNIT_ROUNDOFF, gamma


@dataclass(frozen=True)
class Size:
    """s = max(sqrt(sum of d^2 / count + under) + beside, least), d with the mean taken off or not."""

    count: float
    under: float = 0.0
    beside: float = 0.0
    least: float = 0.0
    centred: bool = True


def normalised(node: Node, form: AffineForm, groups: IntArray, size: Size, walk: Walk) -> AffineForm:
    """Return d / s of every group, in the shape of the form.

    Args:
        node: the operator.
        form: the tensor.
        groups: flat positions, (groups, n): each entry of the tensor stands in one.
        size: the formula of s.
        walk: where states are made.
    """
    count, n = groups.shape
    walk.allow(node, 8 * form.size)
    d = _deviations(node, form, groups, size, walk)
    factor = _factor(node, _mean_square(node, d, size, walk), size, walk)
    width = n + 1
    at_entries, at_factor = np.full((2, count, width), -1, np.int64)
    at_entries[:, :n], at_factor[:, n] = flat_indices((count, n)), np.arange(count)
    pairs = [part.selected(at.reshape(1, -1)) for part, at in ((d, at_entries), (factor, at_factor))]
    phi = Normalised(width, size.count, size.under, size.beside, size.least, size.centred, aided=True)
    made = walk.states(node, phi, pairs[0].plus(pairs[1]))
    places = np.zeros(form.size, np.int64)
    places[groups.reshape(-1)] = flat_indices((count, width))[:, :n].reshape(-1)
    return made.selected(places.reshape(form.shape))


FEW: Final = 64
"""Entries of a group whose mean is multiplied out whatever stands before it."""


def _deviations(node: Node, form: AffineForm, groups: IntArray, size: Size, walk: Walk) -> AffineForm:
    """Return d of every group, (groups, n), as states where it reads more than a few numbers: it is read twice.

    x - mean(x) is multiplied out, so that absolute values are taken of what is left, unless that has many more entries.
    """
    count, n = groups.shape
    if not size.centred:
        return walk.cheap(node, form.selected(groups), "/entries")
    whole = _centring(groups, form.size)
    if n <= FEW or form.product_nnz(whole) <= 2 * form.nnz:
        return walk.cheap(node, walk.linear(node, whole, form, groups.shape), "/deviations")
    source = walk.cheap(node, form, "/entries")
    mean = walk.cut(node, _sums(node, source, groups, 1.0 / n, walk), suffix="/mean")
    at_mean = np.repeat(np.arange(count), n).reshape(count, n)
    return walk.cut(node, source.selected(groups).plus(mean.selected(at_mean).scaled(-1.0)), suffix="/deviations")


def _centring(groups: IntArray, size: int) -> Sparse:
    """Return the map to x - mean(x) of every group."""
    count, n = groups.shape
    rows = np.repeat(np.arange(count * n), n).reshape(count, n, n)
    columns = np.broadcast_to(groups[:, None, :], rows.shape)
    values = np.broadcast_to(np.eye(n) - 1.0 / n, rows.shape)
    return Sparse(matrix=entries(rows, columns, values, (count * n, size)), relative=gamma(2))


def _mean_square(node: Node, d: AffineForm, size: Size, walk: Walk) -> AffineForm:
    """Return q of every group, (groups,)."""
    squares = walk.states(node, square(), d, suffix="/squares")
    return _sums(node, squares, flat_indices(d.shape), 1.0 / size.count, walk)


def _sums(node: Node, form: AffineForm, groups: IntArray, share: float, walk: Walk) -> AffineForm:
    shares = np.full(len(groups), share)
    return weighted_sum(node, form, (len(groups),), groups, shares, walk, rounded=8, exact=False)


def _factor(node: Node, q: AffineForm, size: Size, walk: Walk) -> AffineForm:
    """Return 1 / s: one curve, 1 / sqrt, where nothing stands beside the root."""
    under = q.scaled(1.0, size.under)
    if size.beside:
        root = walk.states(node, sqrt(), under, suffix="/root").scaled(1.0, size.beside)
        return walk.states(node, reciprocal(), _at_least(node, root, size.least, 0.0, walk), suffix="/factor")
    square_of_least = size.least * size.least
    under = _at_least(node, under, square_of_least, UNIT_ROUNDOFF * square_of_least, walk)
    return walk.states(node, rsqrt(), under, suffix="/factor")


def _at_least(node: Node, form: AffineForm, least: float, error: float, walk: Walk) -> AffineForm:
    """Return max(form, least) = least + relu(form - least), `least` up to an error."""
    if not least:
        return form
    rest = walk.states(node, relu(), form.scaled(1.0, -least), suffix="/rest").scaled(1.0, least)
    return replace(rest, constant_error=rest.constant_error + error)


# --- operators --------------------------------------------------------------------------------------------------------


def lower_layer_normalization(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LayerNormalization and RMSNormalization over the axes from `axis` on, with a scale and a shift of each entry."""
    form = form_input(node, values, 0)
    if any(node.outputs[1:]):
        refuse(node, "also returns its means or deviations, which no implicit model has: export without them")
    first = int_attribute(node, "axis", -1)
    if not -len(form.shape) <= first < len(form.shape):
        refuse(node, f"has the axis {first} for a tensor of shape {form.shape}")
    groups = windows_over(form.shape, tuple(range(first % len(form.shape), len(form.shape))))
    centred = node.op == "LayerNormalization"
    made = normalised(node, form, groups, Size(_n(node, groups), _epsilon(node), centred=centred), walk)
    return (_stretched(node, made, [_fitting(node, values, k, made.shape) for k in (1, 2)], walk),)


def lower_instance_normalization(
    node: Node, values: Sequence[TensorValue | None], walk: Walk
) -> tuple[TensorValue, ...]:
    """InstanceNormalization: each channel of each sample by itself, with a scale and a shift a channel."""
    form = form_input(node, values, 0)
    return (_of_channels(node, form, form.shape[1] if len(form.shape) > 1 else 1, values, walk),)


def lower_group_normalization(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """GroupNormalization: groups of channels, with a scale and a shift a channel; a group before operator set 21."""
    form, groups = form_input(node, values, 0), int_attribute(node, "num_groups", 0)
    return (_of_channels(node, form, groups, values, walk),)


def _of_channels(
    node: Node, form: AffineForm, groups: int, values: Sequence[TensorValue | None], walk: Walk
) -> AffineForm:
    """Return neighbouring channels normalised together, so many groups of each sample."""
    if len(form.shape) < 3:
        refuse(node, f"normalises channels of a tensor of shape {form.shape}, which has no axes behind them")
    samples, channels = form.shape[:2]
    if groups < 1 or channels % groups:
        refuse(node, f"has {groups} groups for {channels} channels")
    windows = flat_indices((samples * groups, form.size // (samples * groups)))
    made = normalised(node, form, windows, Size(_n(node, windows), _epsilon(node)), walk)
    per_group = node.op == "GroupNormalization" and walk.opset < 21
    factors = []
    for k, what in ((1, "scale"), (2, "bias")):
        given = constant_input(node, values, k, what).astype(np.float64)
        if given.shape != ((groups,) if per_group else (channels,)):
            refuse(node, f"has a {what} of shape {given.shape} for {channels} channels in {groups} groups")
        each = np.repeat(given, channels // groups) if per_group else given
        factors.append(np.broadcast_to(each.reshape(-1, *(1,) * (len(form.shape) - 2)), form.shape))
    return _stretched(node, made, factors, walk)


def lower_lp_normalization(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LpNormalization: vectors along an axis, divided by their length or by the sum of their sizes."""
    form, power, axis = form_input(node, values, 0), int_attribute(node, "p", 2), int_attribute(node, "axis", -1)
    if power not in (1, 2) or not -len(form.shape) <= axis < len(form.shape):
        refuse(node, f"has p = {power} and the axis {axis} for a tensor of shape {form.shape}; p is 1 or 2")
    axis %= len(form.shape)
    if power == 2:
        return (normalised(node, form, windows_over(form.shape, (axis,)), Size(1.0, centred=False), walk),)
    total = inverted(node, reduced(node, form, (axis,), True, "l1", walk), walk)
    return (multiplied(node, form, total, walk),)


STEADY: Final = 1e-9
"""What MeanVarianceNormalization adds to deviations."""


def lower_mean_variance(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """MeanVarianceNormalization: (x - mean) / (sqrt(E[x^2] - mean^2) + 1e-9), the variance as a mean of squares."""
    form, axes = form_input(node, values, 0), ints_attribute(node, "axes", (0, 2, 3)) or ()
    groups = _groups(node, form, axes)
    return (normalised(node, form, groups, Size(_n(node, groups), beside=STEADY), walk),)


def lower_lrn(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LRN: x / (bias + alpha / size * (sum of squares over neighbouring channels))^beta."""
    form, size = form_input(node, values, 0), int_attribute(node, "size", 0)
    if size < 1 or len(form.shape) < 2:
        refuse(node, f"has windows of {size} channels of a tensor of shape {form.shape}")
    alpha, beta, bias = (float_attribute(node, k, v) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    if beta == -1:
        refuse(node, "has beta = -1, a product with the sum of squares itself; write it as Mul")
    squares = walk.states(node, square(), form, suffix="/squares")
    windows = _channel_windows(form.shape, size)
    total = weighted_sum(node, squares, form.shape, windows, np.full(form.size, alpha / size), walk, exact=False)
    if beta == 0:
        return (form,)
    under = total.scaled(1.0, bias)
    if walk.keeps_apart:
        under = under.plus(_moved_along(node, squares, form.shape, alpha / size, bias, walk))
    factor = powered(node, under, -beta, walk, suffix="/factor")
    return (multiplied(node, form, factor, walk),)


def _moved_along(
    node: Node, squares: AffineForm, shape: tuple[int, ...], share: float, bias: float, walk: Walk
) -> AffineForm:
    """Return 0, as bias + (sum over all channels) less itself, two numbers that are rounded.

    onnxruntime moves a window along the channels: it adds what comes in and takes away what goes out, so that roundings
    are those of sums over all channels, twice.
    """
    channels = np.moveaxis(flat_indices(shape), 1, -1).reshape(-1, shape[1])
    shares, one = np.full(len(channels), share), (shape[0], 1, *shape[2:])
    sums = weighted_sum(node, squares, one, channels, shares, walk, exact=False).scaled(1.0, bias)
    added, taken = (broadcast(walk.apart(node, sums, f"/{name}"), shape) for name in ("added", "taken"))
    return added.plus(taken.scaled(-1.0))


def _channel_windows(shape: tuple[int, ...], size: int) -> IntArray:
    """Return where every entry's window of channels lies; -1 beyond the first and last channel.

    No window is wider than all channels on both sides, (entries, min(size, 2 channels - 1)).
    """
    farthest = shape[1] - 1
    moved = np.arange(-min((size - 1) // 2, farthest), min(size // 2, farthest) + 1)
    channels = np.arange(shape[1])[:, None] + moved
    flat = flat_indices(shape).reshape(shape[0], shape[1], -1)
    taken = np.where((channels >= 0) & (channels <= farthest), channels, shape[1])
    padded = np.concatenate([flat, np.full((shape[0], 1, flat.shape[2]), -1)], axis=1)
    return np.moveaxis(padded[:, taken], 2, -1).reshape(-1, moved.size)


def _groups(node: Node, form: AffineForm, axes: Sequence[int]) -> IntArray:
    rank = len(form.shape)
    if not axes or any(not -rank <= axis < rank for axis in axes):
        refuse(node, f"normalises over axes {tuple(axes)} of a tensor of shape {form.shape}")
    return windows_over(form.shape, tuple(sorted({axis % rank for axis in axes})))


def _n(node: Node, groups: IntArray) -> float:
    if not groups.size:
        refuse(node, "normalises an empty tensor")
    return float(groups.shape[1])


def _epsilon(node: Node) -> float:
    epsilon = float_attribute(node, "epsilon", 1e-5)
    if epsilon < 0:
        refuse(node, f"has the epsilon {epsilon:g}, below 0")
    return epsilon


def _fitting(node: Node, values: Sequence[TensorValue | None], k: int, shape: tuple[int, ...]) -> FloatArray | None:
    """Return a scale or a shift, broadcast to a shape; None where it is left out."""
    given: AnyArray | None = optional_constant(node, values, k, ("scale", "bias")[k - 1])
    if given is None:
        return None
    try:
        return np.broadcast_to(given.astype(np.float64), shape)
    except ValueError:
        refuse(node, f"has a scale or bias of shape {given.shape} for a tensor of shape {shape}")


def _stretched(node: Node, form: AffineForm, factors: Sequence[FloatArray | None], walk: Walk) -> AffineForm:
    """Return scale * form + shift, entry by entry."""
    scale, shift = factors
    if scale is not None:
        form = walk.linear(node, Selection.diagonal(scale.reshape(-1).copy()), form, form.shape)
    return form if shift is None else form.scaled(1.0, shift)
