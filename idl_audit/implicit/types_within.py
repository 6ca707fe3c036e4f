"""The types of floats that a network computes in where no tensor has them: within operators, as their attributes say.

A norm computes in its stash_type, which is float32 where nothing else is said, of float64 as well (onnxruntime makes
such operators of the standard's own functions, casts and all); a softmax within Attention in its softmax_precision;
QuantizeLinear divides in its precision, or in the type of its scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from idl_audit.graph.ir import Graph, Node, shown

_FLOAT: Final = 1
_NAMED: Final[Mapping[int, str]] = MappingProxyType({_FLOAT: "float32", 10: "float16", 11: "float64", 16: "bfloat16"})
"""TensorProto's numbers of types -> their names."""

_STASHING: Final[Mapping[str, int]] = MappingProxyType(
    {"GroupNormalization": 21, "LayerNormalization": 17, "RMSNormalization": 23}
)
"""Operators with a stash_type -> the operator set since which they have one."""

_OF_SCALES: Final = 23
"""The operator set since which a scale may have another type than what is quantised."""


def types_within(graph: Graph) -> frozenset[str]:
    """Return the names of the types of floats that operators of a network may compute in, besides its tensors' types.

    float16, where a network that computes in bfloat16 casts to it, is among them.
    """
    return frozenset(name for node in graph.nodes for name in _of_node(node, graph))


def rounded_by_exporters(graph: Graph) -> Iterator[str]:
    """Yield which scalars of a torch module are others in the graph that was made of it by way of ONNX.

    Those of float64 are rounded to float32; one of float16 that the format takes for 0 is none where torch multiplies.
    """
    if graph.provenance.format != "torch":
        return
    if graph.arithmetic == "float64":
        yield "scalars of a torch module in float64, which exporters round to float32 (audit an ONNX file of it)"
    for node in graph.nodes if graph.arithmetic == "float16" else ():
        factors = [graph.constants[name] for name in node.inputs if node.op == "Mul" and name in graph.constants]
        if any(factor.size == 1 and not factor.any() for factor in factors):
            yield f"{node.op} node '{shown(node.label)}', by a scalar that float16 takes for 0"


def _of_node(node: Node, graph: Graph) -> Iterator[str]:
    if graph.arithmetic == "bfloat16" and (node.op == "CastLike" or _named(node, "to") == "float16"):
        yield "float16" if node.op in ("Cast", "CastLike") else ""
    if graph.opset >= _STASHING.get(node.op, graph.opset + 1):
        yield _named(node, "stash_type", _FLOAT)
    if node.op == "Attention":
        yield _named(node, "softmax_precision")
    if node.op in ("DequantizeLinear", "QuantizeLinear") and graph.opset >= _OF_SCALES:
        yield _named(node, "precision")
        scale = graph.constants.get(node.inputs[1])
        yield "" if scale is None else scale.dtype.name


def _named(node: Node, attribute: str, default: int = 0) -> str:
    value = node.attributes.get(attribute, default)
    return _NAMED.get(value, "") if isinstance(value, int) else ""
