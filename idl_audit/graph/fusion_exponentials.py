"""Activations written with Exp, Log and Sqrt: as one curve of bounded slope they lose less than as several without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from idl_audit.graph.chains import Chains, Found
from idl_audit.graph.ir import Attribute, Node

_Recogniser = Callable[[Chains, Node], Found | None]


def _exponential(chains: Chains, name: str) -> tuple[str, float] | None:
    """Return (x, c) where a tensor is Exp(c x)."""
    node = chains.maker(name, "Exp")
    if node is None:
        return None
    factor, tensors = chains.factors(node.inputs[0], last=True)
    return (tensors[0], factor) if len(tensors) == 1 and factor else None


def _one_plus_exponential(chains: Chains, name: str) -> tuple[str, float] | None:
    """Return (x, c) where a tensor is 1 + Exp(c x)."""
    shifted = chains.plus_constant(name)
    return None if shifted is None or shifted[1] != 1.0 else _exponential(chains, shifted[0])


def _sigmoid(chains: Chains, node: Node) -> Found | None:
    """1 / (1 + Exp(-c x)) = Sigmoid(c x); a numerator c' x makes it SiLU."""
    found = _one_plus_exponential(chains, node.inputs[-1])
    if found is None:
        return None
    x, slope = found
    constant = 1.0 if node.op == "Reciprocal" else chains.scalar(node.inputs[0])
    if constant is not None:
        return Found("Sigmoid", x, constant, -slope)
    factor = chains.scaled(node.inputs[0], x)
    return None if factor is None else Found("Silu", x, -factor / slope, -slope)


def _softmax(chains: Chains, node: Node) -> Found | None:
    """Exp(x) / ReduceSum(Exp(x)) over one axis = Softmax(x), and so where x is what remains without its maximum."""
    total = chains.maker(node.inputs[1], "ReduceSum") if len(node.inputs) == 2 else None
    exponential = chains.maker(node.inputs[0], "Exp")
    if total is None or exponential is None or not _same(chains, total.inputs[0], node.inputs[0]):
        return None
    axis = _one_axis(chains, total)
    if axis is None or (axis != -1 and chains.opset < 13):
        return None
    x = exponential.inputs[0]
    shifted = chains.maker(x, "Sub")
    largest = None if shifted is None else chains.maker(shifted.inputs[1], "ReduceMax")
    if shifted is not None and largest is not None and _one_axis(chains, largest) == axis:
        x = shifted.inputs[0] if largest.inputs[0] == shifted.inputs[0] else x
    return Found("Softmax", x, attributes=MappingProxyType({"axis": axis}))


def _same(chains: Chains, name: str, other: str) -> bool:
    """Whether two tensors are one, or are computed alike, node by node."""
    if name == other:
        return True
    first, second = chains.maker(name, *_REPEATED), chains.maker(other, *_REPEATED)
    if first is None or second is None or first.op != second.op or len(first.inputs) != len(second.inputs):
        return False
    if set(first.attributes) != set(second.attributes) or first.outputs[0] != name or second.outputs[0] != other:
        return False
    if any(_differ(first.attributes[key], second.attributes[key]) for key in first.attributes):
        return False
    return all(_same(chains, a, b) for a, b in zip(first.inputs, second.inputs, strict=True))


_REPEATED: Final = ("Exp", "ReduceMax", "Sub")
"""Operators that a softmax writes twice."""


def _differ(one: Attribute, two: Attribute) -> bool:
    return type(one) is not type(two) or not isinstance(one, (int, float, str, tuple)) or one != two


def _one_axis(chains: Chains, node: Node) -> int | None:
    """Return the axis of a reduction over one axis that keeps it."""
    given = chains.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = node.attributes.get("axes") if given is None else tuple(int(a) for a in given.reshape(-1))
    if not isinstance(axes, tuple) or len(axes) != 1 or node.attributes.get("keepdims", 1) != 1:
        return None
    return axes[0] if isinstance(axes[0], int) else None


def _logarithm(chains: Chains, node: Node) -> Found | None:
    """Log(1 + Exp(x)) is Softplus(x), Log(Sigmoid(x)) -Softplus(-x), Log(Softmax(x)) LogSoftmax(x)."""
    found = _one_plus_exponential(chains, node.inputs[0])
    if found is not None:
        return Found("Softplus", found[0], inner=found[1])
    inner = chains.maker(node.inputs[0], "ReduceSum", "Sigmoid", "Softmax")
    if inner is None:
        return None
    if inner.op == "Sigmoid":
        return Found("Softplus", inner.inputs[0], -1.0, -1.0)
    if inner.op == "Softmax":
        return Found("LogSoftmax", inner.inputs[0], attributes=inner.attributes)
    exponential = chains.maker(inner.inputs[0], "Exp")
    if exponential is None:
        return None
    return Found("ReduceLogSumExp", exponential.inputs[0], attributes=inner.attributes, more=inner.inputs[1:])


def _root(chains: Chains, node: Node) -> Found | None:
    """Sqrt(x x) = |x|."""
    square = chains.maker(node.inputs[0], "Mul", "Pow")
    if square is None or len(square.inputs) != 2:
        return None
    x, other = square.inputs
    twice = other == x if square.op == "Mul" else chains.scalar(other) == 2.0
    return Found("Abs", x) if twice else None


def _elu(chains: Chains, node: Node) -> Found | None:
    """Where(x > 0, x, a (Exp(x) - 1)) = Elu(x)."""
    condition = chains.maker(node.inputs[0], "Greater", "GreaterOrEqual") if len(node.inputs) == 3 else None
    if condition is None or condition.inputs[0] != node.inputs[1] or chains.scalar(condition.inputs[1]) != 0.0:
        return None
    x = node.inputs[1]
    factor, tensors = chains.factors(node.inputs[2], last=True)
    shifted = chains.plus_constant(tensors[0]) if len(tensors) == 1 else None
    if shifted is None or shifted[1] != -1.0 or _exponential(chains, shifted[0]) != (x, 1.0) or factor < 0:
        return None
    return Found("Elu", x, attributes=MappingProxyType({"alpha": factor}))


def _as_written(recognise: _Recogniser) -> _Recogniser:
    """Return the recogniser, whose chains overflow, or take the logarithm of 0, where the operator does not."""

    def recognised(chains: Chains, node: Node) -> Found | None:
        found = recognise(chains, node)
        return None if found is None else replace(found, rounds_otherwise=True)

    return recognised


OF_EXPONENTIALS: Final[Mapping[str, tuple[_Recogniser, ...]]] = MappingProxyType(
    {
        operator: tuple(map(_as_written, recognisers))
        for operator, recognisers in {
            "Div": (_sigmoid, _softmax),
            "Log": (_logarithm,),
            "Reciprocal": (_sigmoid,),
            "Sqrt": (_root,),
            "Where": (_elu,),
        }.items()
    }
)
"""Operator that ends a chain -> what it may be."""
