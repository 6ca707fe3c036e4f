"""Maxima: tournaments of abs states.

max(s, t) = (s + t)/2 + |s - t|/2. A tournament of such pairs gives the maximum of a window; an identity block behind it
carries what its linear form has forgotten: the maximum lies between the largest lower and the largest upper bound.

Elsewhere: max-pool, its relaxation.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations.kinked import absolute
from idl_audit.implicit.affine import INPUT, AffineForm, PartlyAbsent
from idl_audit.implicit.lowering.arithmetic import broadcast, negated
from idl_audit.implicit.model import PoolWindows
from idl_audit.implicit.walk import (
    NO_BOUND,
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    int_attribute,
    refuse,
    refuse_swallowing,
)
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray

OUTSIDE = -1
"""A window's place that lies outside the image."""


def lower_max(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Max of any number of tensors, constants among them, with broadcasting."""
    return (_elementwise_max(node, list(values), walk),)


def lower_min(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Min(s, t) = -Max(-s, -t)."""
    flipped: list[TensorValue | None] = [None if value is None else negated(value) for value in values]
    return (negated(_elementwise_max(node, flipped, walk)),)


def _elementwise_max(node: Node, values: list[TensorValue | None], walk: Walk) -> AffineForm:
    given = [value for value in values if value is not None]
    forms = [value for value in given if isinstance(value, AffineForm)]
    if not forms:
        refuse(node, "has no input that depends on the network's input")
    shape = tuple(np.broadcast_shapes(*(value.shape for value in given)))
    best = broadcast(forms[0], shape)
    for k, form in enumerate(forms[1:]):
        best = _pair_maximum(node, best, broadcast(form, shape), walk, f"/{k}")
    constants = [value.astype(np.float64) for value in given if not isinstance(value, AffineForm)]
    if not constants:
        return best
    largest = np.broadcast_to(functools.reduce(np.maximum, constants), shape).reshape(-1)
    return _at_least(node, best, largest, walk, f"/{len(forms) - 1}")


def _at_least(node: Node, form: AffineForm, bound: FloatArray, walk: Walk, suffix: str) -> AffineForm:
    """Return max(form, bound); a bound (flat) as low as the least number bounds nothing."""
    bounded = np.flatnonzero(~(bound <= -NO_BOUND))
    if not bounded.size:
        return form
    bound = bound[bounded]
    refuse_swallowing(node, float(bound.min()), float(bound.max()))
    constant = AffineForm((bounded.size,), {}, bound)
    reached = _pair_maximum(node, form.selected(bounded), constant, walk, suffix)
    place = np.full(form.size, OUTSIDE)
    place[bounded] = np.arange(bounded.size)
    free = np.where(place >= 0, OUTSIDE, np.arange(form.size)).reshape(form.shape)
    return reached.selected(place.reshape(form.shape)).plus(form.selected(free))


def _pair_maximum(node: Node, first: AffineForm, second: AffineForm, walk: Walk, suffix: str) -> AffineForm:
    """Return max(first, second) = (first + second)/2 + |first - second|/2 with one abs state an entry."""
    difference = walk.states(node, absolute(), first.plus(second.scaled(-1.0)).scaled(0.5), suffix=f"/abs{suffix}")
    return first.plus(second).scaled(0.5).plus(difference)


def maximum_of_windows(
    node: Node, form: AffineForm, shape: tuple[int, ...], windows: IntArray, walk: Walk
) -> AffineForm:
    """Return the tensor whose entry i is the largest entry at windows[i]: a tournament, then an identity block."""
    if isinstance(form, PartlyAbsent):
        windows = np.where((windows >= 0) & form.absent[windows], OUTSIDE, windows)
        form = AffineForm(form.shape, form.terms, form.constant, form.constant_error)
    if not (windows >= 0).any(axis=1).all():
        refuse(node, "has a window that lies wholly in the padding, or holds nothing but minus infinity")
    if windows.shape[1] > 1 and not (form.is_bare and INPUT not in form.terms):
        form = walk.cut(node, form, suffix="/in")  # so that the windows' places are states, with bounds of their own
    current, present = walk.select(node, form, windows.T.reshape(-1)), (windows >= 0).T
    rounds = 0
    while len(present) > 1:
        current, present = _round(node, current, present, walk, rounds)
        rounds += 1
    result = current.reshaped(shape)
    if rounds == 0:
        return result
    (source,) = form.terms
    position = form.selected(windows).terms[source].to_sparse()  # where the windows' places stand among the states
    states = np.full(windows.size, OUTSIDE)
    states[np.diff(position.indptr) > 0] = position.indices
    return walk.cut(node, result, suffix="/max", maximum=PoolWindows(source, states.reshape(windows.shape)))


def _round(
    node: Node, current: AffineForm, present: BoolArray, walk: Walk, number: int
) -> tuple[AffineForm, BoolArray]:
    """Play neighbours against each other, in all windows at once; who has no opponent goes on as he is.

    Args:
        node: the node.
        current: the players, those of the first place of every window first, shape (players windows,).
        present: which of them there are, shape (players, windows).
        walk: takes the states.
        number: of the round.
    """
    pairs = len(present) // 2
    places = flat_indices(present.shape)
    first, second = (present[side : 2 * pairs : 2] for side in (0, 1))
    left, right = (places[side : 2 * pairs : 2].reshape(-1) for side in (0, 1))
    both = (first & second).reshape(-1)
    mean = current.selected(left).scaled(np.where(both, 0.5, first.reshape(-1)))
    other = current.selected(right).scaled(np.where(both, 0.5, second.reshape(-1)))
    winners, masks = mean.plus(other), first | second
    if both.any():  # where every window has one entry, nobody plays and there are no states
        apart = current.selected(left[both]).plus(current.selected(right[both]).scaled(-1.0)).scaled(0.5)
        reached = walk.states(node, absolute(), apart, suffix=f"/abs{number}")
        winners = winners.plus(reached.selected(np.where(both, np.cumsum(both) - 1, OUTSIDE)))
    if len(present) % 2:
        winners = stack([winners, current.selected(places[-1])], winners.size + places[-1].size)
        masks = np.vstack([masks, present[-1:]])
    return winners, masks


def stack(forms: list[AffineForm], size: int) -> AffineForm:
    """Return the forms one under the other."""
    result = AffineForm((size,), {}, np.zeros(size))
    start = 0
    for form in forms:
        place = np.full(size, OUTSIDE)
        place[start : start + form.size] = np.arange(form.size)
        result = result.plus(form.selected(place))
        start += form.size
    return result


MOST_SORTED = 64
"""Entries beyond which a sorting network is too deep and its bounds say nothing."""


def lower_top_k(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """TopK's values, largest (or smallest) first: a maximum for k = 1, else a sorting network; never its positions."""
    if len(node.outputs) > 1 and node.outputs[1]:
        refuse(node, "also gives the positions of the largest entries, which jump, so that nothing behind is certified")
    form = form_input(node, values, 0)
    if walk.opset < 10:
        k = int_attribute(node, "k", 1)
    else:
        k = int(constant_input(node, values, 1, "number of entries").reshape(-1)[0])
    rank = len(form.shape)
    axis = int_attribute(node, "axis", -1)
    if not -rank <= axis < rank or not 1 <= k <= form.shape[axis]:
        refuse(node, f"takes {k} entries of axis {axis} of a tensor of shape {form.shape}")
    sign = 1.0 if int_attribute(node, "largest", 1) else -1.0
    if k > 1 and not int_attribute(node, "sorted", 1):
        refuse(node, "gives its entries in an order that ONNX leaves open (sorted = 0); export it with sorted = 1")
    lines = np.moveaxis(flat_indices(form.shape), axis % rank, -1)
    form = form.scaled(sign)
    best = _sorted_lines(node, form, lines.reshape(-1, lines.shape[-1]), k, walk)
    shape = (*lines.shape[:-1], k)
    back = np.moveaxis(flat_indices(shape), -1, axis % rank)
    return (best.reshaped(shape).selected(np.ascontiguousarray(back)).scaled(sign),)


def _sorted_lines(node: Node, form: AffineForm, lines: IntArray, k: int, walk: Walk) -> AffineForm:
    """Return the k largest of every line, descending, shape (lines, k)."""
    n_lines, n = lines.shape
    if k == 1:
        return maximum_of_windows(node, form, (n_lines, 1), lines, walk)
    if n > MOST_SORTED:
        refuse(node, f"sorts {n} entries; up to {MOST_SORTED} can be, and any number for k = 1")
    current = walk.select(node, form, np.ascontiguousarray(lines))
    for step in range(n):  # odd-even transposition: n rounds sort n entries
        current = _exchanged(node, current, step, walk)
    return current.selected(flat_indices((n_lines, n))[:, :k].copy())


def _exchanged(node: Node, current: AffineForm, step: int, walk: Walk) -> AffineForm:
    """Return the lines with the larger of neighbours (0, 1), (2, 3), ... in front; (1, 2), ... in odd steps."""
    places = flat_indices(current.shape)
    n = places.shape[1]
    left = np.arange(step % 2, n - 1, 2)
    if not left.size:
        return current
    first, second = (current.selected(np.ascontiguousarray(places[:, left + k])) for k in (0, 1))
    apart = walk.states(node, absolute(), first.plus(second.scaled(-1.0)).scaled(0.5), suffix=f"/abs{step}")
    mean = first.plus(second).scaled(0.5)
    pairs, alone = flat_indices(first.shape), np.setdiff1d(np.arange(n), [left, left + 1])
    parts = ((mean.plus(apart), left, pairs), (mean.plus(apart.scaled(-1.0)), left + 1, pairs))
    result = AffineForm(places.shape, {}, np.zeros(places.size))
    for form, columns, numbers in (*parts, (current, alone, places[:, alone])):
        place = np.full(places.shape, OUTSIDE)
        place[:, columns] = numbers
        result = result.plus(form.selected(place))
    return walk.cut(node, result, suffix=f"/sort{step}")
