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
from idl_audit.implicit.walk import TensorValue, float_attribute

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
        scale, _, mean, variance = (np.asarray(value, np.float64) for value in arguments[1:5])
        inverse = (1 + 1e-9) / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
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
