"""What linear operators make on the way: sums before they are divided, products before they are scaled.

It may leave a format's range where no term of the result does (docs/mathematics.md, section 12).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.kernels import FLOAT32, Arithmetic
from idl_audit.implicit.walk import TensorValue, float_attribute, ints_attribute
from idl_audit.values.arrays import FloatArray

LOSSES: Final = frozenset({"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"})
"""Operators that divide by a sum of weights, which runtimes add up."""

_DIVIDE_SUMS: Final = LOSSES | {"AveragePool", "GlobalAveragePool", "Mean", "ReduceMean"}
"""Operators that divide what they have added up."""


@dataclass(frozen=True)
class Inside:
    """Numbers within a linear operator: sums that it has not divided yet, products that it has not scaled."""

    factor: float
    """They are at most this times what is read and `shift`."""
    shift: float = 0.0
    after: float = 1.0
    """What they are multiplied by afterwards, at most, or 1."""
    largest: float = FLOAT32.largest
    """They are finite below this."""


def inside_of(
    node: Node, arguments: Sequence[TensorValue | None], form: AffineForm, arithmetic: Arithmetic
) -> Inside | None:
    """Return what a linear operator makes on the way, where that may be larger than the terms of its result.

    Args:
        node: the operator.
        arguments: what it reads.
        form: its result.
        arithmetic: the format of numbers within it.
    """
    largest = arithmetic.largest
    if node.scalars.count:
        return Inside(node.scalars.most, after=node.scalars.spread, largest=largest)
    if node.op in _DIVIDE_SUMS:
        constants = [value for value in arguments[2:3] if node.op in LOSSES and isinstance(value, np.ndarray)]
        weights = [float(np.abs(value).max(initial=1.0)) for value in constants]
        terms = sum(linear_map.row_terms for linear_map in form.terms.values())
        added = sum(_total(value) for value in arguments) if node.op == "Mean" else 0.0
        return Inside(max(1.0, *weights, 1.0) * terms, added, largest=largest)
    if node.op == "Gemm":
        alpha, beta = (abs(float_attribute(node, name, 1.0)) for name in ("alpha", "beta"))
        weights = np.sum([linear_map.row_sums for linear_map in form.terms.values()], axis=0)
        least = min(scale for scale in (1.0, alpha, beta) if scale > 0)
        factor = float(np.max(weights, initial=0.0)) / least
        if alpha == 0:  # products that the map has nothing of may be made all the same; 0 times C is finite
            factor = max(factor, *(_total(value) for value in arguments[:2]))
        return Inside(factor, after=max(1.0, alpha, beta), largest=largest)
    if node.op == "BatchNormalization":
        scale, _, mean = (np.asarray(value, np.float64) for value in arguments[1:4])
        off = off_inverse_root(node, arguments, arithmetic)
        inverse = (1 + off) * (1 + 1e-9) / np.sqrt(variance_of(node, arguments))
        after = np.abs(scale).max(initial=1.0)
        shift = float(np.abs(mean).max(initial=0.0))
        return Inside(float(inverse.max(initial=0.0)), shift, float(after), largest)
    return None


def _total(value: TensorValue | None) -> float:
    """Return the sum of the sizes of a constant; 0 of what depends on the input."""
    return 0.0 if value is None or isinstance(value, AffineForm) else float(np.abs(value.astype(np.float64)).sum())


def jumps_elsewhere(node: Node, arithmetic: Arithmetic) -> bool:
    """Whether a Shrink jumps at what is no number of 16 bits: torch rounds it, onnxruntime does not."""
    place, bias = float_attribute(node, "lambd", 0.5), float_attribute(node, "bias", 0.0)
    if place == bias or arithmetic.unit <= FLOAT32.unit:
        return False
    if arithmetic.unit < 2.0**-8:
        return float(np.float16(place)) != place
    return not math.ldexp(math.frexp(place)[0], 8).is_integer()


def divides_by_little(divisor: TensorValue | None, arithmetic: Arithmetic) -> bool:
    """Whether a constant divisor may be flushed to 0, or 1 / it overflows where runtimes multiply by that."""
    if divisor is None or isinstance(divisor, AffineForm):
        return False
    sizes = np.abs(np.asarray(divisor, np.float64))
    return bool((sizes < max(arithmetic.smallest, 1 / arithmetic.largest)).any())


def variance_of(node: Node, arguments: Sequence[TensorValue | None]) -> FloatArray:
    """Return var + eps of a BatchNormalization."""
    return np.asarray(arguments[4], np.float64) + float_attribute(node, "epsilon", 1e-5)


def off_inverse_root(node: Node, arguments: Sequence[TensorValue | None], arithmetic: Arithmetic) -> float:
    """Return what share 1 / sqrt(var + eps) is off by, besides roundings, where var or eps is subnormal in the format.

    Each loses t at most, which is r = 2 t / (var + eps) of both: 1 / sqrt(1 - r) - 1. Infinite from r = 1/2 on.
    onnxruntime merges a norm of float16 into a convolution in float16, where 1e-7 beside a variance of 0 is 1.19e-7.
    """
    lost = 2 * arithmetic.smallest / np.min(variance_of(node, arguments), initial=math.inf)
    return (1 + 1e-9) * (1 / math.sqrt(1 - lost) - 1) if 0 <= lost < 0.5 else math.inf


def has_subnormal_attributes(node: Node, arithmetic: Arithmetic) -> bool:
    """Whether an attribute is a number that runtimes may take for 0; 16-bit floats have theirs in float32."""
    least = FLOAT32.smallest if arithmetic.unit > FLOAT32.unit else arithmetic.smallest
    values = [one for value in node.attributes.values() for one in (value if isinstance(value, tuple) else (value,))]
    return any(isinstance(value, float) and 0 < abs(value) < least for value in values)


def sums_in_format(node: Node, arguments: Sequence[TensorValue | None], terms: int) -> int:
    """Return how many numbers are added up in the format itself, where else accumulators of float32 take them.

    torch makes products of a transposed convolution in 16 bits, and adds up in 16 bits what lands on one place; its
    means over boxes of three axes likewise.
    """
    weights = arguments[1] if len(arguments) > 1 else None
    if node.op == "ConvTranspose" and weights is not None:
        sizes, ones = weights.shape[2:], (1,) * (len(weights.shape) - 2)
        strides, dilations = (ints_attribute(node, name, None) or ones for name in ("strides", "dilations"))
        steps = [stride // math.gcd(stride, apart) for stride, apart in zip(strides, dilations, strict=True)]
        return math.prod(-(-size // step) for size, step in zip(sizes, steps, strict=True))
    if node.op == "AveragePool" and isinstance(arguments[0], AffineForm) and len(arguments[0].shape) > 4:
        return terms
    return 0
