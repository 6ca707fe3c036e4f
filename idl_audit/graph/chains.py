"""A graph read backwards: what a tensor is made of, as far as constants and single operators go."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import NO_SCALARS, Attribute, Graph, Node, Scalars
from idl_audit.values.arrays import AnyArray
from idl_audit.values.rounding import UNIT_ROUNDOFF, gamma

RELATIVE_TOLERANCES: Final[Mapping[str, float]] = MappingProxyType({"float16": 2.0**-10, "bfloat16": 2.0**-7})
"""How far a constant in the file may be from the one of a formula where it is rounded to 16 bits, ..."""
RELATIVE_TOLERANCE: Final = 1e-6
"""... and elsewhere."""

OF_PRODUCTS = gamma(64)
"""Relative error of a leftover constant: a product and quotient of a few constants of the file."""

LEAST, LARGEST = 1e-100, 1e100
"""Beyond these, products of constants leave the range of float64 on the way to a result that may lie within it."""

DEEPEST = 16
"""No exporter writes more factors than this for one activation."""


@dataclass(frozen=True)
class Found:
    """factor * op(inner * tensor)."""

    op: str
    tensor: str
    factor: float = 1.0
    inner: float = 1.0
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    uncertainty: float = 0.0
    """Bounds |chain(x) - op(inner x)| over all x, before `factor`."""
    more: tuple[str, ...] = ()
    """Inputs behind the tensor."""
    rounds_otherwise: bool = False
    """Whether the chain's floating-point results may be far from those of the operator, which overflow leaves."""
    scalars: Scalars = NO_SCALARS
    """The constants that the chain multiplies by on its way."""

    def nodes(self, node: Node, constants: dict[str, AnyArray], fresh: Callable[[str], str]) -> list[Node]:
        """Return the nodes that take the place of the chain's last one.

        New constants are put into `constants`; `fresh` makes names that the file does not use.
        """
        made: list[Node] = []
        source, base = self.tensor, node.outputs[0]
        if self.inner != 1.0:
            inner, scaled = fresh(f"{base}/inner"), fresh(f"{base}/scaled")
            constants[inner] = np.array(self.inner)
            made.append(self._product(f"{node.label}/inner", source, inner, scaled))
            source = scaled
        target = base if self.factor == 1.0 else fresh(f"{base}/activation")
        made.append(
            Node(
                self.op,
                node.label,
                (source, *self.more),
                (target,),
                self.attributes,
                self.uncertainty,
                self.rounds_otherwise,
                self.scalars,
            )
        )
        if self.factor != 1.0:
            factor = fresh(f"{base}/factor")
            constants[factor] = np.array(self.factor)
            made.append(self._product(f"{node.label}/factor", target, factor, base))
        return made

    def _product(self, name: str, tensor: str, constant: str, result: str) -> Node:
        """Return a product with a constant that the chain has in several."""
        return Node("Mul", name, (tensor, constant), (result,), uncertainty=OF_PRODUCTS, scalars=self.scalars)


class Chains:
    """The graph, read backwards from any of its nodes."""

    def __init__(self, graph: Graph) -> None:
        self._constants = graph.constants
        self._tolerance = RELATIVE_TOLERANCES.get(graph.arithmetic, RELATIVE_TOLERANCE)
        self._makers = {name: node for node in graph.nodes for name in node.outputs}
        self._uses = Counter(name for node in graph.nodes for name in node.inputs)
        self._uses.update(value.name for value in graph.outputs)
        self._dependent = {value.name for value in graph.inputs}
        for node in graph.nodes:
            if not self._dependent.isdisjoint(node.inputs):
                self._dependent.update(node.outputs)
        self.opset = graph.opset
        self._met: dict[str, float] = {}

    def forget(self) -> None:
        """Begin a chain: no constant has been met in it."""
        self._met = {}

    @property
    def scalars(self) -> Scalars:
        """The constants that products were formed with since, in the chain or beside it."""
        sizes = [abs(one) for one in self._met.values() if one]
        least = math.prod(min(one, 1.0) for one in sizes)
        return Scalars(len(self._met), least, math.prod(max(one, 1.0) for one in sizes))

    def depends(self, name: str) -> bool:
        """Whether a tensor depends on the network's input."""
        return name in self._dependent

    def constant(self, name: str) -> AnyArray | None:
        """Return a constant of the file."""
        return self._constants.get(name)

    def scalar(self, name: str) -> float | None:
        """Return a constant of one number."""
        value = self._constants.get(name)
        return None if value is None or value.size != 1 else float(value.reshape(-1)[0])

    def _factor(self, name: str) -> float | None:
        """Return a constant of one number that products are formed with: 0, or within the range."""
        constant = self.scalar(name)
        return constant if constant is not None and is_safe(constant) else None

    def maker(self, name: str, *ops: str) -> Node | None:
        """Return the node that makes a tensor, where it is one of these operators."""
        node = self._makers.get(name)
        return node if node is not None and node.op in ops else None

    def factors(self, name: str, *, last: bool = False, depth: int = 0) -> tuple[float, list[str]]:
        """Return (constant, tensors) whose product a tensor is, going through products that nothing else reads.

        A product whose constant would leave the range is left as it is: one tensor.
        """
        factor, tensors = self._multiplied_out(name, last=last, depth=depth)
        return (factor, tensors) if is_safe(factor) else (1.0, [name])

    def _multiplied_out(self, name: str, *, last: bool, depth: int) -> tuple[float, list[str]]:
        node = self.maker(name, "Mul", "Div", "Neg")
        if node is not None and node.op == "Neg" and depth <= DEEPEST and (last or self._uses[name] == 1):
            factor, tensors = self.factors(node.inputs[0], depth=depth + 1)
            return -factor, tensors
        if node is None or len(node.inputs) != 2 or depth > DEEPEST or (not last and self._uses[name] > 1):
            return 1.0, [name]
        left, right = node.inputs
        constant = self._factor(right)
        if node.op == "Div":
            if constant is None or constant == 0:
                return 1.0, [name]
            factor, tensors = self.factors(left, depth=depth + 1)
            self._met[name] = 1 / constant
            return factor / constant, tensors
        if constant is None and (constant := self._factor(left)) is not None:
            left = right
        if constant is not None:
            factor, tensors = self.factors(left, depth=depth + 1)
            self._met[name] = constant
            return factor * constant, tensors
        one, some = self.factors(left, depth=depth + 1)
        two, more = self.factors(right, depth=depth + 1)
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
        factor, tensors = self.factors(name, last=True)
        return factor if tensors == [tensor] else None

    def plus_constant(self, name: str) -> tuple[str, float] | None:
        """Return (tensor, c) where `name` is tensor + c."""
        node = self.maker(name, "Add", "Sub")
        if node is None or len(node.inputs) != 2:
            return None
        if node.op == "Sub":
            taken = self.scalar(node.inputs[1])
            return None if taken is None else (node.inputs[0], -taken)
        for tensor, other in (node.inputs, node.inputs[::-1]):
            constant = self.scalar(other)
            if constant is not None:
                return tensor, constant
        return None


def is_safe(constant: float) -> bool:
    """Return whether products with a constant stay within the range of float64."""
    return constant == 0 or LEAST <= abs(constant) <= LARGEST
