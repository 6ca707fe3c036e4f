"""How far tensors move at most where others do, whatever they are: spans without a place, for the penalties of S.

Linear operators move a result by |W| r; an activation by its steepest slope times r; a maximum by the greatest of what
moves. What multiplies two tensors that both move has no bound, and is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import torch

from idl_audit.graph.ir import Node
from idl_audit.training.operators import TWINS, attribute, refused
from idl_audit.training.spans import Span, Value

LINEAR: Final = frozenset(
    (
        *("Add", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Concat", "Conv", "Div"),
        *("Dropout", "Expand", "Flatten", "Gather"),
        *("Gemm", "GlobalAveragePool", "Identity", "MatMul", "Mean", "Mul", "Neg", "Pad", "ReduceMean", "ReduceSum"),
        *("Reshape", "Slice", "Split", "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze"),
    )
)
"""Operators that are linear in the one argument that moves, or in all of them together."""
TOGETHER: Final = frozenset({"Add", "Concat", "Mean", "Sub", "Sum"})
"""Of them, those that several arguments may move."""
MAXIMA: Final = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax"})
"""Operators whose result moves as far as the argument that moves most."""


def _one(node: Node) -> float:
    return 1.0


STEEPEST: Final[Mapping[str, Callable[[Node], float]]] = MappingProxyType(
    {
        **dict.fromkeys(("Abs", "Asinh", "Atan", "Clip", "Relu", "Softplus", "Softsign", "Tanh"), _one),
        "Celu": _one,
        "Elu": lambda node: max(1.0, float(attribute(node, "alpha", 1.0))),
        "Erf": lambda node: 2 / math.sqrt(math.pi),
        "Gelu": lambda node: 1.13,
        "HardSigmoid": lambda node: float(attribute(node, "alpha", 0.2)),
        "HardSwish": lambda node: 1.5,
        "LeakyRelu": lambda node: max(1.0, float(attribute(node, "alpha", 0.01))),
        "Mish": lambda node: 1.09,
        "Selu": lambda node: (
            float(attribute(node, "gamma", 1.050701)) * max(1.0, float(attribute(node, "alpha", 1.6732632)))
        ),
        "Sigmoid": lambda node: 0.25,
        "Swish": lambda node: 1.1,
    }
)
"""Activation -> its steepest slope."""


def spread_of(node: Node, values: Sequence[Value | None], opset: int, *, alike: bool) -> list[Value]:
    """Return how far the results of a node move where its arguments do: spans around 0; constants stay tensors.

    Args:
        node: the operator.
        values: its arguments.
        opset: of the graph.
        alike: whether all results of an activation move as far as the one that moves most.

    Raises:
        UnsupportedModelError: where nothing bounds it.
    """
    moving = [value for value in values if isinstance(value, Span)]
    if not moving or node.op == "Shape":
        return TWINS[node.op](node, values, opset)
    if node.op in STEEPEST:
        return [_around_zero(STEEPEST[node.op](node) * moving[0].radius, alike=alike)]
    if node.op in MAXIMA and len(moving) == 1:
        (greatest,) = TWINS[node.op](node, [moving[0].radius, *values[1:]], opset)[:1]
        assert isinstance(greatest, torch.Tensor)
        return [_around_zero(greatest, alike=alike)]
    if node.op in LINEAR and (len(moving) == 1 or node.op in TOGETHER):
        return [_around_zero(one.radius) for one in TWINS[node.op](node, values, opset) if isinstance(one, Span)]
    raise refused(node, "nothing bounds how far it moves its result, which S and rho speak of; choose another --method")


def _around_zero(radius: torch.Tensor, *, alike: bool = False) -> Span:
    if alike:
        radius = radius.amax().expand(radius.shape)
    return Span(torch.zeros_like(radius), radius)
