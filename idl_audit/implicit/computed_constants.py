"""Constants that a network computes of constants, and runtimes not all alike.

A bound of what rounding changes speaks of the numbers that every runtime has: a constant that one rounds and another
does not, or takes for 0, is no such number (docs/mathematics.md, section 12).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.build import Walked
from idl_audit.implicit.kernels import Arithmetic
from idl_audit.values.arrays import AnyArray

SAME_EVERYWHERE: Final = frozenset(
    {
        *("Abs", "Add", "Cast", "CastLike", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape"),
        *("DequantizeLinear", "Div"),
        *("Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Identity", "Max", "Min"),
        *("Mul", "Neg", "Pad", "Range", "Reciprocal", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ScatterElements"),
        *("ScatterND", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
    }
)
"""Operators on constants whose result is the same in every runtime: moved, or correctly rounded."""

MOVED_EVERYWHERE: Final = SAME_EVERYWHERE - {
    *("Add", "Cast", "CastLike", "DequantizeLinear", "Div", "Mul", "Range", "Reciprocal", "Sqrt", "Sub")
}
"""Those that round nothing: of 16-bit floats some runtimes round each step, and others the last one alone."""


HALF: Final = frozenset({"float16", "bfloat16"})
"""Formats of 16 bits."""
_WIDE: Final = frozenset({1, 11})
"""TensorProto's numbers of float32 and float64."""
_NARROW: Final = frozenset({10, 16})
"""Of the types of 16 bits."""


def computed_differently(walked: Walked, arithmetic: Arithmetic) -> Iterator[Node]:
    """Yield the nodes of constants whose results are not the same numbers in every runtime.

    What a file holds in 16 bits has the same numbers in float32 where it is cast, and is known as float32 here: what
    was computed before a cast may have been rounded to 16 bits, or not.
    """
    computed: set[str] = set()
    products: set[str] = set()
    same = MOVED_EVERYWHERE if arithmetic.name in HALF else SAME_EVERYWHERE
    for node in walked.folded:
        if _is_zero(node, walked.constants):
            continue
        if node.op not in MOVED_EVERYWHERE and _has_subnormals(node, walked.constants):
            yield node
            continue
        if node.op == "Range" and not _is_whole(node, walked.constants):
            yield node  # start + i delta, or delta added i times
            continue
        after = not computed.isdisjoint(node.inputs)
        if not products.isdisjoint(node.inputs):
            if node.op in _SUMS:  # a fused multiply-add does not round the product
                yield node
                continue
            if node.op in MOVED_EVERYWHERE or node.op in _CASTS:
                products.update(node.outputs)
        if node.op in _ROUNDED_PRODUCTS and not _is_exact(node, walked.constants):
            products.update(node.outputs)
        to = node.attributes.get("to")
        if node.op == "Cast" and to in _WIDE and not after:
            continue
        if (node.op in _CASTS and (after or to in _NARROW)) or node.op not in same:
            yield node
        if after or node.op not in MOVED_EVERYWHERE:
            computed.update(node.outputs)


def _is_exact(node: Node, constants: Mapping[str, AnyArray]) -> bool:
    """Whether the product of two constants is no rounded one."""
    found = [constants.get(name) for name in (*node.inputs[:2], *node.outputs[:1])]
    if node.op != "Mul" or any(value is None or value.dtype.kind not in "fiu" for value in found):
        return False
    first, second, product = (np.asarray(value) for value in found)
    if product.dtype.kind != "f":
        return True
    if product.dtype.itemsize < 8:
        return bool((first.astype(np.float64) * second.astype(np.float64) == product).all())
    return any(bool((np.isin(np.abs(np.frexp(one)[0]), (0.0, 0.5))).all()) for one in (first, second))


def _is_whole(node: Node, constants: Mapping[str, AnyArray]) -> bool:
    """Whether an operator reads and makes whole numbers alone, all of which float32 has."""
    found = [constants.get(name) for name in (*node.inputs, *node.outputs)]
    return all(
        value is not None and bool((value == np.round(value)).all()) and bool((np.abs(value) < _WHOLE).all())
        for value in found
        if value is None or value.dtype.kind == "f"
    )


_WHOLE: Final = 2.0**24


def _has_subnormals(node: Node, constants: Mapping[str, AnyArray]) -> bool:
    """Whether an operator reads or makes constants which some runtimes take for 0."""
    found = [constants[name] for name in (*node.inputs, *node.outputs) if name in constants]
    floats = [value for value in found if value.dtype.name in ("float32", "float64")]
    return any(bool(((value != 0) & (np.abs(value) < np.finfo(value.dtype).tiny)).any()) for value in floats)


def _is_zero(node: Node, constants: Mapping[str, AnyArray]) -> bool:
    """Whether an operator makes nothing but 0 of nothing but 0, as at the start of a recurrence."""
    read = [constants[name] for name in node.inputs if name in constants]
    if node.op in _PRODUCTS:
        return any(not value.any() for value in read)
    return node.op in _ODD and not any(value.any() for value in read)


_CASTS: Final = frozenset({"Cast", "CastLike"})
_SUMS: Final = frozenset({"Add", "Sub"})
_ROUNDED_PRODUCTS: Final = frozenset({"DequantizeLinear", "Mul"})
_PRODUCTS: Final = frozenset({"MatMul", "Mul"})
_ODD: Final = frozenset({"Erf", "Sin", "Softsign", "Tanh"})
"""Functions of a library that are 0 at 0."""
