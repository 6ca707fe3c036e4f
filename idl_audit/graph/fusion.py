"""Fusion: products of a tensor with a function of itself that are one activation - SiLU, GELU, Mish, hard-swish.

Exporters write `x * Sigmoid(x)` or `0.5 * x * (1 + Erf(x / sqrt(2)))` as chains. A product of two tensors that depend
on the input has no implicit form, but these are functions of one variable. The chain's last Mul is replaced by one node
of the activation's own operator, scaled where a constant factor is left over. Constants such as sqrt(2) stand in files
as float32: what that changes is bounded, and travels with the node as its `uncertainty`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.arrays import AnyArray
from idl_audit.graph.ir import Attribute, Graph, Node
from idl_audit.rounding import UNIT_ROUNDOFF, gamma

RELATIVE_TOLERANCES: Final[Mapping[str, float]] = MappingProxyType({"float16": 2.0**-10, "bfloat16": 2.0**-7})
"""How far a constant in the file may be from the one of the formula where it is rounded to 16 bits, ..."""
RELATIVE_TOLERANCE: Final = 1e-6
"""... and elsewhere."""


OF_PRODUCTS = gamma(64)
"""Relative error of a leftover constant: a product and quotient of a few constants of the file."""

LEAST, LARGEST = 1e-100, 1e100
"""Beyond these, products of constants leave the range of float64 on the way to a result that may lie within it."""

DEEPEST = 16
"""No exporter writes more factors than this for one activation."""


def fuse_activations(graph: Graph) -> Graph:
    """Return the graph with every chain that is one activation replaced by a node of that operator."""
    chains = _Chains(graph)
    constants = dict(graph.constants)
    taken = {*constants, *(value.name for value in graph.inputs), *(n for node in graph.nodes for n in node.outputs)}

    def fresh(wanted: str) -> str:
        while wanted in taken:
            wanted += "'"
        taken.add(wanted)
        return wanted

    nodes: list[Node] = []
    for node in graph.nodes:
        found = chains.activation(node)
        nodes.extend([node] if found is None else found.nodes(node, constants, fresh))
    return replace(graph, nodes=tuple(nodes), constants=MappingProxyType(constants))


@dataclass(frozen=True)
class _Found:
    """factor * op(inner * tensor)."""

    op: str
    tensor: str
    factor: float = 1.0
    inner: float = 1.0
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    uncertainty: float = 0.0
    """Bounds |chain(x) - op(inner x)| over all x, before `factor`."""

    def nodes(self, node: Node, constants: dict[str, AnyArray], fresh: Callable[[str], str]) -> list[Node]:
        """Return the nodes that take the place of the chain's last one.

        New constants are put into `constants`; `fresh` makes names that the file does not use.
        """
        made: list[Node] = []
        source, base = self.tensor, node.outputs[0]
        if self.inner != 1.0:
            inner, scaled = fresh(f"{base}/inner"), fresh(f"{base}/scaled")
            constants[inner] = np.array(self.inner)
            made.append(Node("Mul", f"{node.label}/inner", (source, inner), (scaled,), uncertainty=OF_PRODUCTS))
            source = scaled
        target = base if self.factor == 1.0 else fresh(f"{base}/activation")
        made.append(Node(self.op, node.label, (source,), (target,), self.attributes, self.uncertainty))
        if self.factor != 1.0:
            factor = fresh(f"{base}/factor")
            constants[factor] = np.array(self.factor)
            made.append(Node("Mul", f"{node.label}/factor", (target, factor), (base,), uncertainty=OF_PRODUCTS))
        return made


class _Chains:
    """The graph, read backwards from a product."""

    def __init__(self, graph: Graph) -> None:
        self._constants = graph.constants
        self._tolerance = RELATIVE_TOLERANCES.get(graph.arithmetic, RELATIVE_TOLERANCE)
        self._makers = {name: node for node in graph.nodes for name in node.outputs}
        self._uses = Counter(name for node in graph.nodes for name in node.inputs)
        self._uses.update(value.name for value in graph.outputs)

    def activation(self, node: Node) -> _Found | None:
        """Return the activation that the chain ending at this node is, if it is one."""
        if len(node.inputs) != (3 if node.op == "Where" else 2):
            return None
        if node.op == "Where":
            return _thresholded_softplus(self, node)
        if node.op == "Div" and self.scalar(node.inputs[1]) is None:
            return _softsign(self, node)
        found = self._product(node) if node.op in ("Mul", "Div") else None
        return found if found is None or (_is_safe(found.factor) and _is_safe(found.inner)) else None

    def _product(self, node: Node) -> _Found | None:
        factor, tensors = self._factors(node.outputs[0], last=True)
        if len(tensors) != 2:
            return None
        for tensor, other in (tensors, tensors[::-1]):
            for recognise in _PATTERNS:
                found = recognise(self, tensor, other, factor)
                if found is not None:
                    return found
        return None

    def scalar(self, name: str) -> float | None:
        """Return a constant of one number."""
        value = self._constants.get(name)
        return None if value is None or value.size != 1 else float(value.reshape(-1)[0])

    def _factor(self, name: str) -> float | None:
        """Return a constant of one number that products are formed with: 0, or within the range."""
        constant = self.scalar(name)
        return constant if constant is not None and _is_safe(constant) else None

    def maker(self, name: str, *ops: str) -> Node | None:
        """Return the node that makes a tensor, where it is one of these operators."""
        node = self._makers.get(name)
        return node if node is not None and node.op in ops else None

    def _factors(self, name: str, *, last: bool = False, depth: int = 0) -> tuple[float, list[str]]:
        """Return (constant, tensors) whose product a tensor is, going through products that nothing else reads.

        A product whose constant would leave the range is left as it is: one tensor.
        """
        factor, tensors = self._multiplied_out(name, last=last, depth=depth)
        return (factor, tensors) if _is_safe(factor) else (1.0, [name])

    def _multiplied_out(self, name: str, *, last: bool, depth: int) -> tuple[float, list[str]]:
        node = self.maker(name, "Mul", "Div")
        if node is None or len(node.inputs) != 2 or depth > DEEPEST or (not last and self._uses[name] > 1):
            return 1.0, [name]
        left, right = node.inputs
        constant = self._factor(right)
        if node.op == "Div":
            if constant is None or constant == 0:
                return 1.0, [name]
            factor, tensors = self._factors(left, depth=depth + 1)
            return factor / constant, tensors
        if constant is None and (constant := self._factor(left)) is not None:
            left = right
        if constant is not None:
            factor, tensors = self._factors(left, depth=depth + 1)
            return factor * constant, tensors
        one, some = self._factors(left, depth=depth + 1)
        two, more = self._factors(right, depth=depth + 1)
        return one * two, [*some, *more]

    def deviation(self, value: float | None, expected: float) -> float | None:
        """Return |value / expected - 1|, rounded upward, where it is within the tolerance."""
        if value is None or not math.isclose(value, expected, rel_tol=self._tolerance):
            return None
        return abs(value / expected - 1) + 4 * UNIT_ROUNDOFF

    def scaled(self, name: str, tensor: str) -> float | None:
        """Return c where the tensor `name` is c times `tensor`."""
        if name == tensor:
            return 1.0
        factor, tensors = self._factors(name, last=True)
        return factor if tensors == [tensor] else None

    def plus_constant(self, name: str) -> tuple[str, float] | None:
        """Return (tensor, c) where `name` is tensor + c."""
        node = self.maker(name, "Add")
        if node is None or len(node.inputs) != 2:
            return None
        for tensor, other in (node.inputs, node.inputs[::-1]):
            constant = self.scalar(other)
            if constant is not None:
                return tensor, constant
        return None


def _is_safe(constant: float) -> bool:
    return constant == 0 or LEAST <= abs(constant) <= LARGEST


def _silu(chains: _Chains, x: str, other: str, factor: float) -> _Found | None:
    """x * Sigmoid(c x) = SiLU(c x) / c."""
    node = chains.maker(other, "Sigmoid")
    inner = None if node is None else chains.scaled(node.inputs[0], x)
    return None if not inner else _Found("Silu", x, factor / inner, inner)


def _gelu(chains: _Chains, x: str, other: str, factor: float) -> _Found | None:
    """x * (1 + Erf(x / sqrt(2))) = 2 GELU(x)."""
    shifted = chains.plus_constant(other)
    node = None if shifted is None else chains.maker(shifted[0], "Erf")
    if shifted is None or node is None or shifted[1] != 1.0:
        return None
    off = chains.deviation(chains.scaled(node.inputs[0], x), 1 / math.sqrt(2))
    # |d GELU / d log c| = x^2 times the normal density <= 0.3
    return None if off is None else _Found("Gelu", x, 2 * factor, uncertainty=0.5 * off)


def _gelu_tanh(chains: _Chains, x: str, other: str, factor: float) -> _Found | None:
    """x * (1 + Tanh(sqrt(2/pi) (x + 0.044715 x^3))) = 2 GELU(x), tanh form."""
    shifted = chains.plus_constant(other)
    node = None if shifted is None else chains.maker(shifted[0], "Tanh")
    if shifted is None or node is None or shifted[1] != 1.0:
        return None
    outer, tensors = chains._factors(node.inputs[0], last=True)
    total = chains.maker(tensors[0], "Add") if len(tensors) == 1 else None
    off = chains.deviation(outer, math.sqrt(2 / math.pi))
    if total is None or off is None or x not in total.inputs:
        return None
    cubic = total.inputs[1] if total.inputs[0] == x else total.inputs[0]
    inner, powers = chains._factors(cubic, last=True)
    also_off = chains.deviation(inner, 0.044715)
    if also_off is None or not _is_cube(chains, powers, x):
        return None
    # |x t| sech(t)^2 / 2 <= 0.28 with t the argument of tanh
    attributes = MappingProxyType({"approximate": "tanh"})
    return _Found("Gelu", x, 2 * factor, attributes=attributes, uncertainty=0.5 * (off + also_off))


def _is_cube(chains: _Chains, factors: list[str], x: str) -> bool:
    if factors == [x, x, x]:
        return True
    power = chains.maker(factors[0], "Pow") if len(factors) == 1 else None
    return power is not None and power.inputs[0] == x and chains.scalar(power.inputs[1]) == 3.0


def _mish(chains: _Chains, x: str, other: str, factor: float) -> _Found | None:
    """x * Tanh(Softplus(x)) = Mish(x)."""
    outer = chains.maker(other, "Tanh")
    inner = None if outer is None else chains.maker(outer.inputs[0], "Softplus")
    return _Found("Mish", x, factor) if inner is not None and inner.inputs[0] == x else None


def _hard_swish(chains: _Chains, x: str, other: str, factor: float) -> _Found | None:
    """x * HardSigmoid(x), alpha = 1/6, beta = 1/2, or x * Clip(x + 3, 0, 6) / 6, is HardSwish(x)."""
    node = chains.maker(other, "HardSigmoid")
    if node is not None and node.inputs[0] == x:
        alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
        off = chains.deviation(alpha if isinstance(alpha, float) else None, 1 / 6)
        # x^2 / 6 <= 1.5 where the clip is open, and as much again where it opens earlier or later
        return _Found("HardSwish", x, factor, uncertainty=4 * off) if off is not None and beta == 0.5 else None
    clip = chains.maker(other, "Clip")
    shifted = None if clip is None else chains.plus_constant(clip.inputs[0])
    if clip is None or shifted != (x, 3.0):
        return None
    limits = [chains.scalar(name) for name in clip.inputs[1:3]] or [
        value if isinstance(value := clip.attributes.get(name), float) else None for name in ("min", "max")
    ]
    return _Found("HardSwish", x, 6 * factor) if limits == [0.0, 6.0] else None


def _softsign(chains: _Chains, node: Node) -> _Found | None:
    """x / (1 + |x|) = Softsign(x)."""
    shifted = chains.plus_constant(node.inputs[1])
    inner = None if shifted is None else chains.maker(shifted[0], "Abs")
    if shifted is None or inner is None or shifted[1] != 1.0 or inner.inputs[0] != node.inputs[0]:
        return None
    return _Found("Softsign", node.inputs[0])


def _thresholded_softplus(chains: _Chains, node: Node) -> _Found | None:
    """Where(b x > t, x, Softplus(b x) / b): PyTorch's softplus, which differs from Softplus by exp(-t) / b at most."""
    condition, x, other = node.inputs
    greater = chains.maker(condition, "Greater")
    outer, tensors = chains._factors(other, last=True)
    inner = chains.maker(tensors[0], "Softplus") if len(tensors) == 1 else None
    if greater is None or inner is None:
        return None
    slope, threshold = chains.scaled(inner.inputs[0], x), chains.scalar(greater.inputs[1])
    if not slope or slope < 0 or chains.scaled(greater.inputs[0], x) != slope or threshold is None:
        return None
    off = chains.deviation(outer * slope, 1.0)
    if off is None or off > 4 * UNIT_ROUNDOFF or not threshold >= 10 or not _is_safe(1 / slope):
        return None
    return _Found("Softplus", x, 1 / slope, slope, uncertainty=1.001 * math.exp(-threshold))


_PATTERNS: tuple[Callable[[_Chains, str, str, float], _Found | None], ...] = (
    _silu,
    _gelu,
    _gelu_tanh,
    _mish,
    _hard_swish,
)
