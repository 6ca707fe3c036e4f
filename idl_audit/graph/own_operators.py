"""Operators of constants that onnx's reference evaluates otherwise than ONNX says, or than every runtime does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from idl_audit.graph.ir import Node
from idl_audit.graph.tensors import ELEMENT_TYPES
from idl_audit.values.arrays import AnyArray

_ALWAYS: Final = 10**6


@dataclass(frozen=True)
class Own:
    """An operator as it is evaluated here, up to (without) one version of the operator set."""

    before: int
    run: Callable[[Node, Sequence[AnyArray | None], int], list[AnyArray]]


def _given(inputs: Sequence[AnyArray | None], k: int) -> AnyArray:
    value = inputs[k] if k < len(inputs) else None
    if value is None:
        raise ValueError(f"input {k} is left out")
    return value


def _optional(inputs: Sequence[AnyArray | None], k: int) -> AnyArray | None:
    return inputs[k] if k < len(inputs) else None


def _int(node: Node, name: str, default: int) -> int:
    value = node.attributes.get(name, default)
    return value if isinstance(value, int) else default


def _dequantize(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """y = (x - zero point) scale, the difference exact, the product rounded once to float32 and then to y's type."""
    x, scale, zero = _given(inputs, 0), _given(inputs, 1), _optional(inputs, 2)
    spread = laid_out(node, scale, x.shape)
    whole = x.astype(np.int64 if x.dtype.kind in "iu" or "int" in x.dtype.name else np.float32)
    if zero is not None:
        whole = whole - laid_out(node, zero.astype(whole.dtype), x.shape)
    result = whole.astype(np.float32) * spread.astype(np.float32)
    return [result.astype(element_type(node, "output_dtype", np.dtype(np.float32) if opset < 19 else scale.dtype))]


def _quantize(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """y = saturate(round(x / scale) + zero point), halves to even, the quotient rounded once to float32."""
    x, scale, zero = _given(inputs, 0), _given(inputs, 1), _optional(inputs, 2)
    kind = element_type(node, "output_dtype", np.dtype(np.uint8) if zero is None else zero.dtype)
    ratio = x.astype(np.float32) / laid_out(node, scale.astype(np.float32), x.shape)
    if kind.kind not in "iu" and "int" not in kind.name:
        if _int(node, "saturate", 1):
            largest = float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]  # ml_dtypes has no annotations
            ratio = np.clip(ratio, -largest, largest)
        return [ratio.astype(kind)]
    info = ml_dtypes.iinfo(kind)  # type: ignore[no-untyped-call]  # ml_dtypes has no annotations
    whole = np.rint(ratio).astype(np.float64)
    if zero is not None:
        whole = whole + laid_out(node, zero.astype(np.float64), x.shape)
    return [np.clip(whole, int(info.min), int(info.max)).astype(np.int64).astype(kind)]


def laid_out(node: Node, values: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """Return scales or zero points in the form of the tensor: one for all, one for each index of `axis`, or of blocks.

    Raises ValueError where they do not fit it.
    """
    if values.size == 1 and values.ndim <= 1:
        return np.broadcast_to(values.reshape(()), shape)
    axis = _int(node, "axis", 1)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} of a tensor of rank {len(shape)}")
    axis %= len(shape)
    if values.ndim == 1:
        if len(values) != shape[axis]:
            raise ValueError(f"{len(values)} scales along an axis of {shape[axis]}")
        return np.broadcast_to(values.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape)
    block = _int(node, "block_size", 0)
    wanted = tuple(-(-size // max(block, 1)) if k == axis else size for k, size in enumerate(shape))
    if block < 1 or values.shape != wanted:
        raise ValueError(f"scales of shape {values.shape} for blocks of {block} in a tensor of shape {shape}")
    return np.repeat(values, block, axis=axis).take(np.arange(shape[axis]), axis=axis)


def element_type(node: Node, name: str, default: npt.DTypeLike) -> np.dtype[Any]:
    """Return the type that an attribute names by its number, or the default where it is left out."""
    number = _int(node, name, 0)
    return np.dtype(ELEMENT_TYPES[number].native if number else default)


def _rows(node: Node, x: AnyArray) -> AnyArray:
    """Return the tensor as the matrix that softmax worked on before version 13: all axes from `axis` on are one."""
    axis = _int(node, "axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1).astype(np.float64)


def _softmax(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    x = _given(inputs, 0)
    powers = np.exp(_log_softmax_rows(_rows(node, x)))
    return [powers.reshape(x.shape).astype(x.dtype)]


def _log_softmax(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    x = _given(inputs, 0)
    return [_log_softmax_rows(_rows(node, x)).reshape(x.shape).astype(x.dtype)]


def _log_softmax_rows(rows: AnyArray) -> AnyArray:
    shifted = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _hardmax(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    x = _given(inputs, 0)
    rows = _rows(node, x)
    found = np.zeros(rows.shape, x.dtype)
    found[np.arange(len(rows)), rows.argmax(axis=1)] = 1
    return [found.reshape(x.shape)]


def _normalised(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """Batch normalisation at inference: (x - mean) / sqrt(variance + epsilon) scale + shift, for each channel."""
    x, scale, shift, mean, variance = (_given(inputs, k) for k in range(5))
    if len(node.outputs) > 1:
        raise ValueError("it is in training mode")
    along = [-1 if axis == min(1, x.ndim - 1) else 1 for axis in range(x.ndim)]
    epsilon = node.attributes.get("epsilon", 1e-5)
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)  # type: ignore[operator]
    result = (x - mean.reshape(along).astype(np.float64)) * factor.reshape(along) + shift.reshape(along)
    return [result.astype(x.dtype)]


def _local_response(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """y_c = x_c / (bias + alpha / size sum_i x_i^2)^beta, i from c - floor((size-1)/2) to c + ceil((size-1)/2)."""
    x, size = _given(inputs, 0).astype(np.float64), _int(node, "size", 1)
    alpha, beta, bias = (
        float(node.attributes.get(name, default))  # type: ignore[arg-type]  # the schema says that they are floats
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    channels = x.shape[1]
    total = np.zeros_like(x)
    for c in range(channels):
        first, last = max(0, c - (size - 1) // 2), min(channels - 1, c + size // 2)
        total[:, c] = np.square(x[:, first : last + 1]).sum(axis=1)
    return [(x / (bias + alpha / size * total) ** beta).astype(_given(inputs, 0).dtype)]


def _one_hot(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """The axis of length `depth` holds values[1] at each index and values[0] elsewhere; beyond the range, nowhere."""
    indices, depth, values = (_given(inputs, k) for k in range(3))
    length = int(depth.reshape(-1)[0])
    axis = _int(node, "axis", -1) % (indices.ndim + 1)
    whole = np.trunc(indices).astype(np.int64)
    places = np.where(whole < 0, whole + length, whole)
    hit = np.expand_dims(places, axis) == np.arange(length).reshape(
        [-1 if k == axis else 1 for k in range(places.ndim + 1)]
    )
    return [np.where(hit, values[1], values[0]).astype(values.dtype)]


def _pad(node: Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """Pad, where negative sizes cut off: first what is cut, then what is added."""
    x, value, given = _given(inputs, 0), _optional(inputs, 2), _optional(inputs, 3)
    if opset < 11:
        attribute = node.attributes.get("pads", node.attributes.get("paddings", ()))
        pads = np.array(attribute, np.int64)
        fill = node.attributes.get("value", 0.0)
    else:
        pads = _given(inputs, 1).reshape(-1)
        fill = 0 if value is None else value.reshape(-1)[0]
    axes = [int(axis) % x.ndim for axis in (range(x.ndim) if given is None else given)]
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    sizes = [(0, 0)] * x.ndim
    for k, axis in enumerate(axes):
        sizes[axis] = (int(pads[k]), int(pads[k + len(axes)]))
    kept = tuple(slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip(sizes, x.shape, strict=True))
    added = [(max(0, a), max(0, b)) for a, b in sizes]
    mode = str(node.attributes.get("mode", "constant"))
    if mode == "constant":
        return [np.pad(x[kept], added, constant_values=np.asarray(fill).astype(x.dtype))]
    return [np.pad(x[kept], added, mode=mode)]  # type: ignore[call-overload]  # reflect, edge, wrap are numpy's too


OWN: Final[Mapping[str, Own]] = MappingProxyType(
    {
        "BatchNormalization": Own(14, _normalised),
        "DequantizeLinear": Own(_ALWAYS, _dequantize),
        "Hardmax": Own(13, _hardmax),
        "LogSoftmax": Own(13, _log_softmax),
        "LRN": Own(_ALWAYS, _local_response),
        "OneHot": Own(_ALWAYS, _one_hot),
        "Pad": Own(_ALWAYS, _pad),
        "QuantizeLinear": Own(_ALWAYS, _quantize),
        "Softmax": Own(13, _softmax),
    }
)
