"""Fusion: chains that are one activation - SiLU, GELU, Mish, hard-swish, sigmoids written with exponentials, ...

Exporters write `x * Sigmoid(x)` or `0.5 * x * (1 + Erf(x / sqrt(2)))` as chains. A product of two tensors that depend
on the input has no implicit form, but these are functions of one variable. The chain's last node is replaced by one of
the activation's own operator, scaled where a constant factor is left over. Constants such as sqrt(2) stand in files
as float32: what that changes is bounded, and travels with the node as its `uncertainty`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from idl_audit.graph.chains import Chains, Found, is_safe
from idl_audit.graph.fusion_exponentials import OF_EXPONENTIALS
from idl_audit.graph.ir import Graph, Node
from idl_audit.values.rounding import UNIT_ROUNDOFF

PASSES: Final = 2
"""A sigmoid that is written with exponentials is found first, and then the SiLU that multiplies by it."""


def fuse_activations(graph: Graph) -> Graph:
    """Return the graph with every chain that is one activation replaced by a node of that operator."""
    for number in range(PASSES):
        graph = _fused(graph, rounds_otherwise=number > 0)  # what later passes find is made of what earlier ones found
    return graph


def _fused(graph: Graph, *, rounds_otherwise: bool) -> Graph:
    chains = Chains(graph)
    constants = dict(graph.constants)
    taken = {*constants, *(value.name for value in graph.inputs), *(n for node in graph.nodes for n in node.outputs)}

    def fresh(wanted: str) -> str:
        while wanted in taken:
            wanted += "'"
        taken.add(wanted)
        return wanted

    nodes: list[Node] = []
    for node in graph.nodes:
        found = _activation(chains, node)
        if found is not None and rounds_otherwise:
            found = replace(found, rounds_otherwise=True)
        nodes.extend([node] if found is None else found.nodes(node, constants, fresh))
    return replace(graph, nodes=tuple(nodes), constants=MappingProxyType(constants))


def _activation(chains: Chains, node: Node) -> Found | None:
    """Return the activation that the chain ending at this node is, if it is one."""
    for recognise in RECOGNISERS.get(node.op, ()):
        chains.forget()
        found = recognise(chains, node)
        if found is not None and chains.depends(found.tensor) and is_safe(found.factor) and is_safe(found.inner):
            return replace(found, scalars=chains.scalars)
    return None


def _product(chains: Chains, node: Node) -> Found | None:
    factor, tensors = chains.factors(node.outputs[0], last=True)
    if len(tensors) != 2:
        return None
    for tensor, other in (tensors, tensors[::-1]):
        for recognise in _PATTERNS:
            found = recognise(chains, tensor, other, factor)
            if found is not None:
                return found
    return None


def _silu(chains: Chains, x: str, other: str, factor: float) -> Found | None:
    """x * Sigmoid(c x) = SiLU(c x) / c."""
    node = chains.maker(other, "Sigmoid")
    inner = None if node is None else chains.scaled(node.inputs[0], x)
    return None if not inner else Found("Silu", x, factor / inner, inner)


def _gelu(chains: Chains, x: str, other: str, factor: float) -> Found | None:
    """x * (1 + Erf(x / sqrt(2))) = 2 GELU(x)."""
    shifted = chains.plus_constant(other)
    node = None if shifted is None else chains.maker(shifted[0], "Erf")
    if shifted is None or node is None or shifted[1] != 1.0:
        return None
    off = chains.deviation(chains.scaled(node.inputs[0], x), 1 / math.sqrt(2))
    # |d GELU / d log c| = x^2 times the normal density <= 0.3
    return None if off is None else Found("Gelu", x, 2 * factor, uncertainty=0.5 * off)


def _gelu_tanh(chains: Chains, x: str, other: str, factor: float) -> Found | None:
    """x * (1 + Tanh(sqrt(2/pi) (x + 0.044715 x^3))) = 2 GELU(x), tanh form."""
    shifted = chains.plus_constant(other)
    node = None if shifted is None else chains.maker(shifted[0], "Tanh")
    if shifted is None or node is None or shifted[1] != 1.0:
        return None
    outer, tensors = chains.factors(node.inputs[0], last=True)
    total = chains.maker(tensors[0], "Add") if len(tensors) == 1 else None
    off = chains.deviation(outer, math.sqrt(2 / math.pi))
    if total is None or off is None or x not in total.inputs:
        return None
    cubic = total.inputs[1] if total.inputs[0] == x else total.inputs[0]
    inner, powers = chains.factors(cubic, last=True)
    also_off = chains.deviation(inner, 0.044715)
    if also_off is None or not _is_cube(chains, powers, x):
        return None
    # |x t| sech(t)^2 / 2 <= 0.28 with t the argument of tanh
    attributes = MappingProxyType({"approximate": "tanh"})
    return Found("Gelu", x, 2 * factor, attributes=attributes, uncertainty=0.5 * (off + also_off))


def _is_cube(chains: Chains, factors: list[str], x: str) -> bool:
    if factors == [x, x, x]:
        return True
    power = chains.maker(factors[0], "Pow") if len(factors) == 1 else None
    return power is not None and power.inputs[0] == x and chains.scalar(power.inputs[1]) == 3.0


def _mish(chains: Chains, x: str, other: str, factor: float) -> Found | None:
    """x * Tanh(Softplus(x)) = Mish(x)."""
    outer = chains.maker(other, "Tanh")
    inner = None if outer is None else chains.maker(outer.inputs[0], "Softplus")
    return Found("Mish", x, factor) if inner is not None and inner.inputs[0] == x else None


def _hard_swish(chains: Chains, x: str, other: str, factor: float) -> Found | None:
    """x * HardSigmoid(x), alpha = 1/6, beta = 1/2, or x * Clip(x + 3, 0, 6) / 6, is HardSwish(x)."""
    node = chains.maker(other, "HardSigmoid")
    if node is not None and node.inputs[0] == x:
        alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
        off = chains.deviation(alpha if isinstance(alpha, float) else None, 1 / 6)
        # x^2 / 6 <= 1.5 where the clip is open, and as much again where it opens earlier or later
        return Found("HardSwish", x, factor, uncertainty=4 * off) if off is not None and beta == 0.5 else None
    clip = chains.maker(other, "Clip")
    shifted = None if clip is None else chains.plus_constant(clip.inputs[0])
    if clip is None or shifted != (x, 3.0):
        return None
    limits = [chains.scalar(name) for name in clip.inputs[1:3]] or [
        value if isinstance(value := clip.attributes.get(name), float) else None for name in ("min", "max")
    ]
    return Found("HardSwish", x, 6 * factor) if limits == [0.0, 6.0] else None


def _softsign(chains: Chains, node: Node) -> Found | None:
    """x / (1 + |x|) = Softsign(x)."""
    if len(node.inputs) != 2:
        return None
    shifted = chains.plus_constant(node.inputs[1])
    inner = None if shifted is None else chains.maker(shifted[0], "Abs")
    if shifted is None or inner is None or shifted[1] != 1.0 or inner.inputs[0] != node.inputs[0]:
        return None
    return Found("Softsign", node.inputs[0])


def _thresholded_softplus(chains: Chains, node: Node) -> Found | None:
    """Where(b x > t, x, Softplus(b x) / b): PyTorch's softplus, which differs from Softplus by exp(-t) / b at most."""
    if len(node.inputs) != 3:
        return None
    condition, x, other = node.inputs
    greater = chains.maker(condition, "Greater")
    outer, tensors = chains.factors(other, last=True)
    inner = chains.maker(tensors[0], "Softplus") if len(tensors) == 1 else None
    if greater is None or inner is None:
        return None
    slope, threshold = chains.scaled(inner.inputs[0], x), chains.scalar(greater.inputs[1])
    if not slope or slope < 0 or chains.scaled(greater.inputs[0], x) != slope or threshold is None:
        return None
    off = chains.deviation(outer * slope, 1.0)
    if off is None or off > 4 * UNIT_ROUNDOFF or not threshold >= 10 or not is_safe(1 / slope):
        return None
    return Found("Softplus", x, 1 / slope, slope, uncertainty=1.001 * math.exp(-threshold))


def _signed(chains: Chains, x: str, other: str, factor: float) -> Found | None:
    """x * Sign(x) = |x|, and |x| * Sign(x) = x, also where Relu stands before |x|."""
    node = chains.maker(other, "Sign")
    if node is None:
        return None
    if node.inputs[0] == x:
        return Found("Abs", x, factor)
    inner = chains.maker(x, "Relu")
    size = chains.maker(x if inner is None else inner.inputs[0], "Abs")
    return None if size is None or size.inputs[0] != node.inputs[0] else Found("Identity", size.inputs[0], factor)


def _soft_shrinkage(chains: Chains, node: Node) -> Found | None:
    """Where(|x| > l, x - l Sign(x), 0) = Shrink(x), lambd = bias = l."""
    condition = chains.maker(node.inputs[0], "Greater", "GreaterOrEqual") if len(node.inputs) == 3 else None
    size = None if condition is None else chains.maker(condition.inputs[0], "Abs")
    outer = chains.maker(node.inputs[1], "Sub") if condition is not None else None
    if condition is None or size is None or outer is None:
        return None
    x, width = size.inputs[0], chains.scalar(condition.inputs[1])
    taken, signs = chains.factors(outer.inputs[1], last=True)
    sign = chains.maker(signs[0], "Sign") if len(signs) == 1 else None
    middle = chains.scaled(node.inputs[2], x)
    middle = chains.scalar(node.inputs[2]) if middle is None else middle
    if sign is None or sign.inputs[0] != x or outer.inputs[0] != x or taken != width or width < 0 or middle != 0:
        return None
    return Found("Shrink", x, attributes=MappingProxyType({"lambd": width, "bias": width}))


_PATTERNS: tuple[Callable[[Chains, str, str, float], Found | None], ...] = (
    _silu,
    _gelu,
    _gelu_tanh,
    _mish,
    _hard_swish,
    _signed,
)

RECOGNISERS: Final[Mapping[str, tuple[Callable[[Chains, Node], Found | None], ...]]] = MappingProxyType(
    {
        **OF_EXPONENTIALS,
        "Div": (_product, _softsign, *OF_EXPONENTIALS["Div"]),
        "Mul": (_product,),
        "Where": (_thresholded_softplus, _soft_shrinkage, *OF_EXPONENTIALS["Where"]),
    }
)
"""Operator that ends a chain -> what it may be."""
