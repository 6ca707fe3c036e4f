"""ONNX's operators on tensors and spans of torch, with gradients: every operator that can be trained, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from idl_audit.graph.ir import Node, shown
from idl_audit.training.spans import Span, Value, linear, negative, product, rising, total, valley
from idl_audit.values.errors import UnsupportedModelError

Twin: TypeAlias = Callable[[Node, Sequence["Value | None"], int], "list[Value]"]
"""(node, its arguments, opset) -> its results."""
_Through: TypeAlias = Callable[["Value", Callable[[Tensor], Tensor]], "Value"]
"""(value, function of tensors) -> its image."""


def refused(node: Node, why: str) -> UnsupportedModelError:
    """Return the error of a node that cannot be trained through."""
    return UnsupportedModelError([f"{node.op} node '{shown(node.label)}': {why}"])


def fixed(node: Node, value: Value | None, what: str) -> Tensor:
    """Return an argument that must not depend on the input. Raises UnsupportedModelError where it does, or is none."""
    if not isinstance(value, Tensor):
        raise refused(node, f"{what} depends on the input or is missing; training knows it as a constant")
    return value


def numbers(node: Node, values: Sequence[Value | None], place: int, key: str) -> list[int] | None:
    """Return whole numbers that older opsets have as an attribute, newer ones as an input; None where left out."""
    if len(values) > place and values[place] is not None:
        return [int(n) for n in fixed(node, values[place], key).reshape(-1).tolist()]
    found: Any = node.attributes.get(key)
    return None if found is None else [int(n) for n in found]


def attribute(node: Node, key: str, default: Any) -> Any:
    """Return an attribute as a plain number or list."""
    found: Any = node.attributes.get(key, default)
    return list(found) if isinstance(found, tuple) else found


# --- linear -----------------------------------------------------------------------------------------------------------


def _gemm(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    a, b = values[0], values[1]
    assert a is not None
    assert b is not None
    if attribute(node, "transA", 0):
        a = _moved(a, lambda t: t.transpose(-1, -2))
    if attribute(node, "transB", 0):
        b = _moved(b, lambda t: t.transpose(-1, -2))
    y = linear(a, torch.matmul, b)
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if alpha != 1:
        y = product(y, torch.tensor(float(alpha)))
    if len(values) > 2 and values[2] is not None:
        y = total(y, values[2] if beta == 1 else product(values[2], torch.tensor(float(beta))))
    return [y]


def _matmul(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    a, b = values
    assert a is not None
    assert b is not None
    return [linear(a, torch.matmul, b)]


def _pads(node: Node, rank: int, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return the padding before and behind each axis."""
    automatic = attribute(node, "auto_pad", "NOTSET")
    if automatic in ("NOTSET", ""):
        return list(attribute(node, "pads", [0] * 2 * rank))
    if automatic == "VALID":
        return [0] * 2 * rank
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    before, behind = [], []
    for size, stride, width, dilation in zip(sizes, strides, kernel, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        missing = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
        small, large = missing // 2, missing - missing // 2
        before.append(small if automatic == "SAME_UPPER" else large)
        behind.append(large if automatic == "SAME_UPPER" else small)
    return before + behind


def _padding(pads: Sequence[int]) -> list[int]:
    """Return ONNX's padding in torch's order: the last axis first, before and behind."""
    rank = len(pads) // 2
    return [n for axis in reversed(range(rank)) for n in (pads[axis], pads[axis + rank])]


def _conv(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    x, weight = values[0], values[1]
    assert x is not None
    assert weight is not None
    rank = len(x.shape) - 2
    convolve: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    pads = _pads(node, rank, x.shape[2:], weight.shape[2:])
    how = {
        "stride": attribute(node, "strides", [1] * rank),
        "dilation": attribute(node, "dilations", [1] * rank),
        "groups": attribute(node, "group", 1),
    }

    even = pads[:rank] == pads[rank:]  # what the convolution itself pads takes no pass of its own

    def apply(t: Tensor, w: Tensor) -> Tensor:
        padded = t if even else functional.pad(t, _padding(pads))
        made: Tensor = convolve(padded, w, padding=pads[:rank] if even else 0, **how)
        return made

    y = linear(x, apply, weight)
    if len(values) > 2 and values[2] is not None:
        y = total(y, _moved(values[2], lambda t: t.reshape(-1, *(1,) * rank)))
    return [y]


def _batch_norm(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    x = values[0]
    assert x is not None
    scale, bias, mean, variance = (fixed(node, value, "a parameter") for value in values[1:5])
    if scale.dim() > 1:
        raise refused(node, "a batch-norm with numbers for each entry is not trained through")
    factor = scale / torch.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    shape = (-1, *(1,) * (len(x.shape) - 2))
    return [total(product(x, factor.reshape(shape)), (bias - mean * factor).reshape(shape))]


def _mean_pool(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    x = values[0]
    assert x is not None
    rank = len(x.shape) - 2
    kernel = attribute(node, "kernel_shape", None)
    pads = _pads(node, rank, x.shape[2:], kernel)
    if attribute(node, "ceil_mode", 0) or any(d != 1 for d in attribute(node, "dilations", [1] * rank)):
        raise refused(node, "average pooling with ceil_mode or dilations is not trained through")
    pool: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    strides = attribute(node, "strides", [1] * rank)

    def mean(t: Tensor) -> Tensor:
        return pool(functional.pad(t, _padding(pads)) if any(pads) else t, kernel, strides)  # type: ignore[no-any-return]

    share = mean(torch.ones_like(x.centre if isinstance(x, Span) else x)[:1])
    if any(pads) and not attribute(node, "count_include_pad", 0):
        return [product(_moved(x, mean), 1 / share)]
    return [_moved(x, mean)]


def _reduction(reduce: Callable[[Tensor, list[int], bool], Tensor], through: _Through) -> Twin:
    """Return the twin of (tensor, axes, whether they stay) -> tensor, applied to spans as `through` does."""

    def twin(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
        x, axes, keep = _first(values), numbers(node, values, 1, "axes"), bool(attribute(node, "keepdims", 1))
        if not axes and axes is not None and attribute(node, "noop_with_empty_axes", 0):
            return [x]
        chosen = axes or list(range(len(x.shape)))
        return [through(x, lambda t: reduce(t, chosen, keep))]

    return twin


def _global_mean(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    return [_moved(_first(values), lambda t: t.mean(list(range(2, t.dim())), keepdim=True))]


def _global_max(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    return [rising(_first(values), lambda t: t.amax(list(range(2, t.dim())), keepdim=True))]


def _max_pool(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    x = _first(values)
    rank = len(x.shape) - 2
    if len(node.outputs) > 1 and node.outputs[1]:
        raise refused(node, "the places of maxima are not trained through")
    kernel = attribute(node, "kernel_shape", None)
    pads = _pads(node, rank, x.shape[2:], kernel)
    pool: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    if attribute(node, "ceil_mode", 0):
        raise refused(node, "max pooling with ceil_mode is not trained through")

    def largest(t: Tensor) -> Tensor:
        around = functional.pad(t, _padding(pads), value=-math.inf) if any(pads) else t
        return pool(around, kernel, strides, 0, dilations)  # type: ignore[no-any-return]

    return [rising(x, largest)]


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _first(values: Sequence[Value | None]) -> Value:
    assert values[0] is not None
    return values[0]


def _moved(x: Value, move: Callable[[Tensor], Tensor]) -> Value:
    return x.moved(move) if isinstance(x, Span) else move(x)


def _added(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    result = _first(values)
    for value in values[1:]:
        assert value is not None
        result = total(result, value)
    return [result]


def _mean(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    return [product(_added(node, values, opset)[0], torch.tensor(1 / len(values)))]


def _subtracted(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    assert values[1] is not None
    return [total(_first(values), negative(values[1]))]


def _multiplied(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    assert values[1] is not None
    if values[0] is values[1] and isinstance(values[0], Span):
        return [valley(values[0], torch.square, 0.0)]
    return [product(_first(values), values[1])]


def _divided(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    below = fixed(node, values[1], "the divisor")
    return [product(_first(values), 1 / below)]


def _power(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    exponent = fixed(node, values[1], "the exponent")
    x = _first(values)
    if not isinstance(x, Span):
        return [torch.pow(x, exponent)]
    if bool((exponent == 2).all()):
        return [valley(x, torch.square, 0.0)]
    if bool((exponent == 1).all()):
        return [x]
    raise refused(node, "powers other than squares are not trained through")


# --- nonlinear --------------------------------------------------------------------------------------------------------


def _rising(make: Callable[[Node], Callable[[Tensor], Tensor]]) -> Twin:
    def twin(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
        return [rising(_first(values), make(node))]

    return twin


def _valley(function: Callable[[Node], Callable[[Tensor], Tensor]], bottom: float) -> Twin:
    def twin(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
        return [valley(_first(values), function(node), bottom)]

    return twin


def _plain(function: Callable[[Tensor], Tensor]) -> Callable[[Node], Callable[[Tensor], Tensor]]:
    return lambda node: function


def _leaky(node: Node) -> Callable[[Tensor], Tensor]:
    alpha = float(attribute(node, "alpha", 0.01))
    if alpha < 0:
        raise refused(node, "a slope below 0 is not trained through")
    return lambda t: functional.leaky_relu(t, alpha)


def _elu(node: Node) -> Callable[[Tensor], Tensor]:
    alpha = float(attribute(node, "alpha", 1.0))
    if alpha < 0:
        raise refused(node, "an alpha below 0 is not trained through")
    return lambda t: functional.elu(t, alpha)


def _celu(node: Node) -> Callable[[Tensor], Tensor]:
    alpha = float(attribute(node, "alpha", 1.0))
    return lambda t: functional.celu(t, alpha)


def _selu(node: Node) -> Callable[[Tensor], Tensor]:
    alpha, gamma = float(attribute(node, "alpha", 1.6732632)), float(attribute(node, "gamma", 1.050701))
    if alpha < 0 or gamma < 0:
        raise refused(node, "an alpha or gamma below 0 is not trained through")
    return lambda t: gamma * functional.elu(t, alpha)


def _hard_sigmoid(node: Node) -> Callable[[Tensor], Tensor]:
    alpha, beta = float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5))
    if alpha < 0:
        raise refused(node, "an alpha below 0 is not trained through")
    return lambda t: (alpha * t + beta).clamp(0, 1)


def _gelu(node: Node) -> Callable[[Tensor], Tensor]:
    form = str(attribute(node, "approximate", "none"))
    return lambda t: functional.gelu(t, approximate=form)


def _prelu(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    slope = fixed(node, values[1], "the slope")
    if bool((slope < 0).any()):
        raise refused(node, "a slope below 0 is not trained through")
    return [rising(_first(values), lambda t: t.clamp(min=0) + slope * t.clamp(max=0))]


def _clip(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    ends = [attribute(node, "min", -math.inf), attribute(node, "max", math.inf)]
    for place, value in enumerate(values[1:3]):
        if value is not None:
            ends[place] = float(fixed(node, value, "an end").detach())
    return [rising(_first(values), lambda t: t.clamp(*map(float, ends)))]


def _extreme(choose: Callable[[Tensor, Tensor], Tensor]) -> Twin:
    def twin(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
        result = _first(values)
        for value in values[1:]:
            assert value is not None
            if isinstance(result, Span) or isinstance(value, Span):
                a, b = _as_span(result), _as_span(value)
                result = Span.between(choose(a.lo, b.lo), choose(a.hi, b.hi))
            else:
                result = choose(result, value)
        return [result]

    return twin


def _as_span(x: Value) -> Span:
    return x if isinstance(x, Span) else Span(x, torch.zeros_like(x))


# --- movement ---------------------------------------------------------------------------------------------------------


def _mover(make: Callable[[Node, Sequence[Value | None], int], Callable[[Tensor], Tensor]]) -> Twin:
    def twin(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
        return [_moved(_first(values), make(node, values, opset))]

    return twin


def _dropout(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    if len(node.outputs) > 1 and node.outputs[1]:
        raise refused(node, "the mask of a dropout is not trained through")
    return lambda t: t


def _same(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    return lambda t: t


def _flatten(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    axis = int(attribute(node, "axis", 1))

    def flat(t: Tensor) -> Tensor:
        place = axis % t.dim() if axis < 0 else axis
        return t.reshape(math.prod(t.shape[:place]), -1)

    return flat


def _reshape(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    target = [int(n) for n in fixed(node, values[1], "the shape").tolist()]
    keeps = not attribute(node, "allowzero", 0)

    def reshape(t: Tensor) -> Tensor:
        sizes = [t.shape[k] if n == 0 and keeps else n for k, n in enumerate(target)]
        if -1 not in sizes and math.prod(sizes) != t.numel() and sizes and sizes[0] == 1:
            sizes[0] = -1  # the file fixes a batch of one sample, and there are several here
        return t.reshape(sizes)

    return reshape


def _transpose(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    order = attribute(node, "perm", None)
    return lambda t: t.permute(order or list(reversed(range(t.dim()))))


def _squeeze(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    axes = numbers(node, values, 1, "axes")
    if axes is None:
        raise refused(node, "the axes must be named: one of them may be the batch")
    return lambda t: t.squeeze([axis % t.dim() for axis in axes])


def _unsqueeze(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    axes = numbers(node, values, 1, "axes") or []

    def unsqueeze(t: Tensor) -> Tensor:
        for axis in sorted(axis % (t.dim() + len(axes)) for axis in axes):
            t = t.unsqueeze(axis)
        return t

    return unsqueeze


def _concat(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    axis = int(attribute(node, "axis", 0))
    parts = [value for value in values if value is not None]
    if not any(isinstance(part, Span) for part in parts):
        return [torch.cat([part for part in parts if isinstance(part, Tensor)], axis)]
    spans = [_as_span(part) for part in parts]
    return [Span(torch.cat([s.centre for s in spans], axis), torch.cat([s.radius for s in spans], axis))]


def _split(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    x, axis = _first(values), int(attribute(node, "axis", 0))
    sizes = numbers(node, values, 1, "split")
    width = x.shape[axis]
    if sizes is None:
        count = len(node.outputs)
        sizes = [min(math.ceil(width / count), width - k * math.ceil(width / count)) for k in range(count)]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [
        _moved(x, lambda t, start=start, size=size: t.narrow(axis, start, size))  # type: ignore[misc]
        for start, size in zip(starts, sizes, strict=True)
    ]


def _slice(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    starts, ends = numbers(node, values, 1, "starts") or [], numbers(node, values, 2, "ends") or []
    axes = numbers(node, values, 3, "axes") or list(range(len(starts)))
    steps = numbers(node, values, 4, "steps") or [1] * len(starts)
    if any(step < 1 for step in steps):
        raise refused(node, "slices that run backwards are not trained through")

    def cut(t: Tensor) -> Tensor:
        places = [slice(None)] * t.dim()
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            places[axis % t.dim()] = slice(start, end, step)
        return t[tuple(places)]

    return cut


def _gather(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    index, axis = fixed(node, values[1], "the places"), int(attribute(node, "axis", 0))

    def gather(t: Tensor) -> Tensor:
        place = axis % t.dim()
        flat = t.index_select(place, index.reshape(-1) % t.shape[place])
        return flat.reshape(*t.shape[:place], *index.shape, *t.shape[place + 1 :])

    return gather


def _shape(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    """Return the sizes of a tensor, the batch's as they are here."""
    x = _first(values)
    start, end = int(attribute(node, "start", 0)), attribute(node, "end", None)
    return [torch.tensor(list(x.shape)[start : None if end is None else int(end)], dtype=torch.int64)]


def _expand(node: Node, values: Sequence[Value | None], opset: int) -> Callable[[Tensor], Tensor]:
    sizes = [int(n) for n in fixed(node, values[1], "the shape").tolist()]

    def expand(t: Tensor) -> Tensor:
        own = [1] * (len(sizes) - t.dim()) + list(t.shape)
        least = [1] * (len(own) - len(sizes)) + sizes  # an axis of 1 here keeps what is there
        return t.expand([a if b == 1 else b for a, b in zip(own, least, strict=True)])

    return expand


def _pad(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    x = _first(values)
    pads = numbers(node, values, 1, "pads") or []
    if attribute(node, "mode", "constant") != "constant" or any(n < 0 for n in pads):
        raise refused(node, "only padding with a constant is trained through")
    given = values[2] if len(values) > 2 else None
    value = float(attribute(node, "value", 0.0)) if given is None else float(fixed(node, given, "the value").detach())
    if len(values) > 3 and values[3] is not None:
        raise refused(node, "padding of chosen axes is not trained through")
    around = _padding(pads)
    if isinstance(x, Span):
        return [Span(functional.pad(x.centre, around, value=value), functional.pad(x.radius, around))]
    return [functional.pad(x, around, value=value)]


def _cast(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    if attribute(node, "to", 1) not in (1, 10, 11, 16):  # floats
        raise refused(node, "casts to whole numbers are not trained through")
    return [_first(values)]


def _cast_like(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    like = values[1].centre if isinstance(values[1], Span) else fixed(node, values[1], "what it is cast like")
    if not like.is_floating_point():
        raise refused(node, "casts to whole numbers are not trained through")
    return [_moved(_first(values), lambda t: t.to(like.dtype))]


def _softmax(node: Node, values: Sequence[Value | None], opset: int) -> list[Value]:
    """1 / (1 + sum over the others of e^(z_j - z_i)): least where z_i is least and the others are greatest."""
    x, axis = _first(values), int(attribute(node, "axis", -1 if opset >= 13 else 1))
    if opset < 13 and axis % len(x.shape) != len(x.shape) - 1:
        raise refused(node, "a softmax over several axes is not trained through")
    if not isinstance(x, Span):
        return [torch.softmax(x, axis)]

    if axis not in (-1, len(x.shape) - 1):
        raise refused(node, "a softmax over another axis than the last is not trained through")

    def share(own: Tensor, others: Tensor) -> Tensor:
        n = own.shape[-1]
        apart = (others.unsqueeze(-2) - own.unsqueeze(-1)).clamp(max=80).exp() * (1 - torch.eye(n))
        return 1 / (1 + apart.sum(-1))

    return [Span.between(share(x.lo, x.hi), share(x.hi, x.lo))]


TWINS: Final[Mapping[str, Twin]] = MappingProxyType(
    {
        # linear
        "AveragePool": _mean_pool,
        "BatchNormalization": _batch_norm,
        "Conv": _conv,
        "Gemm": _gemm,
        "GlobalAveragePool": _global_mean,
        "MatMul": _matmul,
        "ReduceMean": _reduction(lambda t, axes, keep: t.mean(axes, keepdim=keep), _moved),
        "ReduceSum": _reduction(lambda t, axes, keep: t.sum(axes, keepdim=keep), _moved),
        # arithmetic
        "Add": _added,
        "Div": _divided,
        "Mean": _mean,
        "Mul": _multiplied,
        "Neg": lambda node, values, opset: [negative(_first(values))],
        "Pow": _power,
        "Sub": _subtracted,
        "Sum": _added,
        # curves and kinks that rise
        "Atan": _rising(_plain(torch.atan)),
        "Asinh": _rising(_plain(torch.asinh)),
        "Celu": _rising(_celu),
        "Clip": _clip,
        "Elu": _rising(_elu),
        "Erf": _rising(_plain(torch.erf)),
        "Exp": _rising(_plain(torch.exp)),
        "HardSigmoid": _rising(_hard_sigmoid),
        "LeakyRelu": _rising(_leaky),
        "PRelu": _prelu,
        "Relu": _rising(_plain(torch.relu)),
        "Selu": _rising(_selu),
        "Sigmoid": _rising(_plain(torch.sigmoid)),
        "Sinh": _rising(_plain(torch.sinh)),
        "Softplus": _rising(_plain(functional.softplus)),
        "Softsign": _rising(_plain(functional.softsign)),
        "Tanh": _rising(_plain(torch.tanh)),
        # those with one valley
        "Abs": _valley(_plain(torch.abs), 0.0),
        "Cosh": _valley(_plain(torch.cosh), 0.0),
        "Gelu": _valley(_gelu, -0.7517915),
        "HardSwish": _valley(_plain(functional.hardswish), -1.5),
        "Mish": _valley(_plain(functional.mish), -1.1924),
        "Swish": _valley(_plain(functional.silu), -1.2784645),
        # those of several numbers
        "GlobalMaxPool": _global_max,
        "Max": _extreme(torch.maximum),
        "MaxPool": _max_pool,
        "Min": _extreme(torch.minimum),
        "ReduceMax": _reduction(lambda t, axes, keep: t.amax(axes, keepdim=keep), rising),
        "ReduceMin": _reduction(lambda t, axes, keep: t.amin(axes, keepdim=keep), rising),
        "Softmax": _softmax,
        # movement
        "Cast": _cast,
        "CastLike": _cast_like,
        "Concat": _concat,
        "Dropout": _mover(_dropout),
        "Expand": _mover(_expand),
        "Flatten": _mover(_flatten),
        "Gather": _mover(_gather),
        "Identity": _mover(_same),
        "Pad": _pad,
        "Reshape": _mover(_reshape),
        "Shape": _shape,
        "Slice": _mover(_slice),
        "Split": _split,
        "Squeeze": _mover(_squeeze),
        "Transpose": _mover(_transpose),
        "Unsqueeze": _mover(_unsqueeze),
    }
)
"""Operator -> what does it on tensors and on spans of them. The others have no twin, and are refused by name."""
