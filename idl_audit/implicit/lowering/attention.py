"""Attention: softmax(scale Q K^T + mask) V, whose two products are sums of products of states; gated units.

    Attention         Y = softmax(cap(scale Q K^T) + mask) V, cap(s) = c tanh(s / c) where there is a soft cap
    LinearAttention   S_t = e^g S_{t-1} + beta_t k_t (v_t - e^g S_{t-1}^T k_t)^T,  o_t = scale S_t^T q_t
    SwiGLU            a Sigmoid(alpha a) b

Keys that a mask leaves out for a query (minus infinity) have no states there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations import analytic, curve
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.lowering import nonlinear
from idl_audit.implicit.lowering.arithmetic import add_values, constant_form, masked, multiplied, zeros
from idl_audit.implicit.lowering.einsum import lower_einsum
from idl_audit.implicit.lowering.linear import lower_matmul
from idl_audit.implicit.lowering.maxima import stack
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    flat_indices,
    float_attribute,
    int_attribute,
    optional_constant,
    refuse,
    text_attribute,
)
from idl_audit.values.arrays import AnyArray, BoolArray
from idl_audit.values.rounding import gamma

_Q, _K, _V, _MASK, _PAST_K, _PAST_V, _VALID = range(7)
"""The inputs of Attention."""


def lower_attention(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Attention with any number of heads, masks, and keys and values of the past."""
    node = replace(node, name=node.label)
    if len(node.outputs) > 3 and node.outputs[3]:
        refuse(node, "also gives its scores; export it with Y alone, or with the keys and values that it has seen")
    whole = [_input(node, values, k) for k in (_Q, _K, _V)]
    heads = [int_attribute(node, name, 0) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (_by_head(node, value, n) for value, n in zip(whole, heads, strict=True))
    n_past = 0
    if len(values) > _PAST_V and values[_PAST_K] is not None:
        n_past = _input(node, values, _PAST_K).shape[2]
        k, v = (_behind(_input(node, values, at), seen) for at, seen in ((_PAST_K, k), (_PAST_V, v)))
    present = (k, v)
    if k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        refuse(node, f"has {q.shape[1]} heads of queries for {k.shape[1]} of keys, which do not fit")
    share = q.shape[1] // k.shape[1]
    k, v = (_changed(part, lambda places: np.repeat(places, share, axis=1)) for part in (k, v))
    scores = _matrix_product(node, "scores", q, _changed(k, lambda x: np.swapaxes(x, -1, -2)), walk)
    factor, off = _scale(node, q.shape[-1])
    scores = _capped(node, walk.scaled(node, scores, factor, relative=off), walk)
    y = _matrix_product(node, "values", _shares(node, values, scores, n_past, walk), v, walk)
    if len(whole[0].shape) == 3:
        places = flat_indices(y.shape).transpose(0, 2, 1, 3)
        y = y.selected(np.ascontiguousarray(places.reshape(*places.shape[:2], -1)))
    return (y, *present)


def _input(node: Node, values: Sequence[TensorValue | None], k: int) -> TensorValue:
    value = values[k] if k < len(values) else None
    if value is None:
        refuse(node, f"leaves its input {k} out")
    return value


def _by_head(node: Node, value: TensorValue, heads: int) -> TensorValue:
    """Return a tensor (batch, heads, length, size) of one, or of (batch, length, heads * size)."""
    if len(value.shape) == 4:
        return value
    if len(value.shape) != 3 or heads < 1 or value.shape[2] % heads:
        refuse(node, f"has an input of shape {value.shape} for {heads} heads, which do not fit")
    batch, length, size = value.shape
    return _changed(value, lambda x: x.reshape(batch, length, heads, size // heads).transpose(0, 2, 1, 3))


def _changed(value: TensorValue, change: Callable[[AnyArray], AnyArray]) -> TensorValue:
    """Return what a movement of entries makes of a tensor."""
    if isinstance(value, AffineForm):
        return value.selected(np.ascontiguousarray(change(flat_indices(value.shape))))
    return change(value)


def _behind(past: TensorValue, seen: TensorValue) -> TensorValue:
    """Return both, one behind the other along axis 2."""
    if not isinstance(past, AffineForm) and not isinstance(seen, AffineForm):
        return np.concatenate([past, seen], axis=2)
    parts = [value if isinstance(value, AffineForm) else constant_form(value) for value in (past, seen)]
    places = [flat_indices(parts[0].shape), parts[0].size + flat_indices(parts[1].shape)]
    both = stack([part.reshaped((part.size,)) for part in parts], parts[0].size + parts[1].size)
    return both.selected(np.concatenate(places, axis=2))


def _matrix_product(node: Node, name: str, left: TensorValue, right: TensorValue, walk: Walk) -> AffineForm:
    """Return a MatMul of two tensors, constants among them."""
    left, right = _plain(left), _plain(right)
    if not isinstance(left, AffineForm) and not isinstance(right, AffineForm):
        return constant_form(np.matmul(left, right))
    (made,) = lower_matmul(replace(node, name=f"{node.name}/{name}"), (left, right), walk)
    assert isinstance(made, AffineForm)
    return made


def _contracted(node: Node, equation: str, first: TensorValue, second: TensorValue, walk: Walk) -> AffineForm:
    """Return an Einsum of two tensors; constants among them are weights."""
    left, right = _plain(first), _plain(second)
    if not isinstance(left, AffineForm) and not isinstance(right, AffineForm):
        return constant_form(np.einsum(equation, left, right))
    attributes = MappingProxyType({"equation": equation})
    name = f"{node.name}/{equation.partition('>')[2]}"
    (made,) = lower_einsum(replace(node, name=name, attributes=attributes), (left, right), walk)
    assert isinstance(made, AffineForm)
    return made


def _plain(value: TensorValue) -> TensorValue:
    """Return a form that is constant as an array."""
    if isinstance(value, AffineForm) and not value.terms and not value.constant_error:
        return value.constant.reshape(value.shape)
    return value if isinstance(value, AffineForm) else value.astype(np.float64)


def _scale(node: Node, size: int) -> tuple[float, float]:
    """Return what scores are multiplied by, and how far it may be off: the square root of a size is rounded."""
    given = float_attribute(node, "scale", 0.0)
    return (given, 0.0) if given else (1.0 / math.sqrt(size), gamma(4))


def _capped(node: Node, scores: AffineForm, walk: Walk) -> AffineForm:
    cap = float_attribute(node, "softcap", 0.0)
    if cap == 0:
        return scores
    inner = walk.scaled(node, scores, 1.0 / cap, relative=gamma(2))
    return walk.scaled(node, walk.states(node, curve.tanh(), inner, suffix="/cap"), cap)


def _shares(
    node: Node, values: Sequence[TensorValue | None], scores: AffineForm, n_past: int, walk: Walk
) -> AffineForm:
    """Return the softmax over the keys, 0 for those that a mask leaves out; 0 for queries that are left none."""
    n_keys = scores.shape[-1]
    given = values[_MASK] if len(values) > _MASK else None
    bias = np.where(_seen(node, values, scores.shape, n_past), 0.0, -np.inf)
    if isinstance(given, AffineForm):
        summed = add_values(scores, given)
        assert isinstance(summed, AffineForm)
        scores = summed
    elif given is not None:
        own = np.where(given, 0.0, -np.inf) if given.dtype == np.bool_ else given.astype(np.float64)
        missing = n_keys - own.shape[-1] if own.ndim and own.shape[-1] > 1 else 0
        if missing > 0:  # a mask may be shorter than the keys: the rest is left out
            own = np.pad(own, [*[(0, 0)] * (own.ndim - 1), (0, missing)], constant_values=-np.inf)
        bias = bias + own
    lines = flat_indices(scores.shape).reshape(-1, n_keys)
    return nonlinear.masked_softmax(
        replace(node, name=f"{node.label}/softmax"), masked(node, scores, bias), lines, walk
    )


def _seen(node: Node, values: Sequence[TensorValue | None], shape: tuple[int, ...], n_past: int) -> BoolArray:
    """Return which keys each query may see, as far as no mask is concerned, (batch, 1, queries, keys)."""
    batch, _, n_queries, n_keys = shape
    valid = optional_constant(node, values, _VALID, "number of keys")
    lengths = np.full(batch, n_keys) if valid is None else valid.reshape(batch)
    before = np.full(batch, n_past) if valid is None or n_past else lengths - n_queries
    keys, queries = np.arange(n_keys), np.arange(n_queries)[:, None]
    seen = np.broadcast_to(keys < lengths[:, None, None, None], (batch, 1, n_queries, n_keys))
    if not int_attribute(node, "is_causal", 0):
        return seen
    return np.asarray(seen & (keys <= queries + before[:, None, None, None]))


def lower_linear_attention(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """LinearAttention, step by step."""
    rule = text_attribute(node, "update_rule", "gated_delta")
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        refuse(node, f"has the update rule '{rule}', which is not known")
    heads, groups = int_attribute(node, "q_num_heads", 0), int_attribute(node, "kv_num_heads", 0)
    q, k, v = (_by_head(node, _input(node, values, j), n) for j, n in enumerate((heads, groups, groups)))
    batch, _, length, size = q.shape
    if groups < 1 or heads % groups or k.shape[-1] != size:
        refuse(node, f"has {heads} heads of queries for {groups} of keys, or sizes, which do not fit")
    q = _changed(q, lambda x: x.reshape(batch, groups, heads // groups, length, size))
    factor, off = _scale(node, size)
    state = _form(values[3]) if len(values) > 3 and values[3] is not None else zeros((*k.shape[:2], size, v.shape[-1]))
    made: list[AffineForm] = []
    for t in range(length):
        step = replace(node, name=f"{node.label}/{t}")
        state = _updated(step, values, state, _at(k, t), _at(v, t), t, rule, walk)
        read = _contracted(step, "bhkv,bhgk->bhgv", state, _at(q, t, axis=3), walk)
        made.append(walk.scaled(step, read, factor, relative=off))
    outputs = stack([part.reshaped((part.size,)) for part in made], sum(part.size for part in made))
    order = np.arange(outputs.size).reshape(length, batch, heads * v.shape[-1]).swapaxes(0, 1)
    return outputs.selected(np.ascontiguousarray(order)), state


def _at(value: TensorValue, t: int, *, axis: int = 2) -> TensorValue:
    return _changed(value, lambda x: x.take(t, axis=axis))


def _form(value: TensorValue) -> AffineForm:
    return value if isinstance(value, AffineForm) else constant_form(value)


def _updated(
    node: Node,
    values: Sequence[TensorValue | None],
    state: AffineForm,
    k: TensorValue,
    v: TensorValue,
    t: int,
    rule: str,
    walk: Walk,
) -> AffineForm:
    """Return the state behind one step, (batch, heads, keys, values)."""
    batch, heads = state.shape[:2]
    if rule.startswith("gated"):
        decay = _changed(_input(node, values, 4), lambda x: _spread(x[:, t].reshape(batch, heads, -1, 1), state.shape))
        state = _decayed(node, state, decay, walk)
    if rule.endswith("delta"):
        seen = _contracted(node, "bhkv,bhk->bhv", state, k, walk)
        rate = _changed(_input(node, values, 5), lambda x: _spread(x[:, t, :, None], seen.shape))
        v = multiplied(node, _form(v).plus(seen.scaled(-1.0)), _form(rate), walk)
    return walk.cut(node, state.plus(_contracted(node, "bhk,bhv->bhkv", k, v, walk)), suffix="/state")


def _spread(values: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    return np.broadcast_to(values, shape)


def _decayed(node: Node, state: AffineForm, decay: TensorValue, walk: Walk) -> AffineForm:
    """Return e^decay times the state."""
    if isinstance(decay, AffineForm):
        return multiplied(node, walk.states(node, analytic.exp(), decay, suffix="/decay"), state, walk)
    kept = Selection.diagonal(np.exp(decay.astype(np.float64)).reshape(-1)).uncertain(gamma(8))
    return walk.linear(node, kept, state, state.shape)


def lower_swiglu(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """SwiGLU: Swish(a) b."""
    gate, b = (_form(_input(node, values, k)) for k in (0, 1))
    (swish,) = nonlinear.lower_swish(node, (gate,), walk)
    assert isinstance(swish, AffineForm)
    return (multiplied(node, swish, b, walk),)
