"""Norms that exporters and people write as chains: x - mean, squares, their mean, a root, a quotient.

A quotient, or a product with a reciprocal, is a norm where its divisor is a size of the very tensor that it divides:
then it is read as one, whose bounds are tighter than those of its steps one by one. The chain and the norm are the
same function; where anything is not as expected, it stays a chain.

    s = Max(Sqrt(mean(d d) c + a) + b, m),   d = x - mean(x) or any tensor,   y = d / s

Elsewhere: layer normalisation fusion, simplified layer normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.lowering.choice import Known
from idl_audit.implicit.lowering.norms import Size, normalised
from idl_audit.implicit.lowering.reductions import reduced_axes, windows_over
from idl_audit.implicit.walk import Walk, float_attribute

DEEPEST = 16
"""No exporter writes more steps than this."""

MOST_FACTORS = 2
"""A mean of squares times n, over n - 1."""


@dataclass(frozen=True)
class Norm:
    """A tensor, the axes over which it is normalised, and by what."""

    tensor: str
    axes: tuple[int, ...]
    size: Size


@dataclass(frozen=True)
class _Squares:
    """share times the sum over axes of the squares of `tensor`, or of its deviations from their mean."""

    tensor: str
    axes: tuple[int, ...]
    share: float
    centred: bool = False
    factors: tuple[float, ...] = ()
    """Constants that it is multiplied by, one by one."""

    def times(self, factor: float) -> _Squares:
        """Return a multiple of it."""
        return replace(self, share=self.share * factor, factors=(*self.factors, factor))

    @property
    def stays_in_range(self) -> bool:
        """Whether no multiple on the way is larger than the sum, or half as small as the last one."""
        shares = self.share / np.cumprod([1.0, *self.factors[::-1]])
        return len(self.factors) <= MOST_FACTORS and bool(((shares <= 1 + 1e-9) & (self.share <= 2 * shares)).all())


class NormChains:
    """The network as far as it has been walked, read backwards from any of its nodes."""

    def __init__(self, makers: Mapping[str, Node], values: Mapping[str, Known]) -> None:
        self._makers = makers
        self._values = values

    def lower(self, node: Node, walk: Walk) -> AffineForm | None:
        """Return what a node makes where it ends a norm."""
        norm = self.found(node)
        if norm is None:
            return None
        form = self._values[norm.tensor]
        assert isinstance(form, AffineForm)
        return normalised(node, form, windows_over(form.shape, norm.axes), norm.size, walk)

    def found(self, node: Node) -> Norm | None:
        """Return the norm that a node ends, if it does."""
        if node.op not in ("Div", "Mul") or len(node.inputs) != 2:
            return None
        first, second = node.inputs
        if node.op == "Div":
            return self._norm(first, second, self._size(second))
        return self._product(first, second) or self._product(second, first)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _product(self, above: str, below: str) -> Norm | None:
        """Return the norm that above * below is, below 1 / s or a power -1/2."""
        node = self._maker(self._kept(below), "Div", "Pow", "Reciprocal")
        if node is None:
            return None
        if node.op == "Pow":
            found = self._of_squares(node.inputs[0]) if self._number(node.inputs[1]) == -0.5 else None
        elif node.op == "Div" and self._number(node.inputs[0]) != 1.0:
            return None
        else:
            found = self._size(node.inputs[-1])
        return self._norm(above, below, found)

    def _norm(self, above: str, divisor: str, found: tuple[_Squares, Size] | None) -> Norm | None:
        """Return the norm that above / divisor is, or above * divisor, where this is a size of what is above."""
        if found is None or not self._depends(above):
            return None
        squares, size = found
        if not self._keeps(divisor, above, squares.axes):
            return None
        if not (squares.share > 0 and math.isfinite(1.0 / squares.share) and squares.stays_in_range):
            return None
        size = replace(size, count=1.0 / squares.share)
        deviation = self._deviation(above)
        if deviation is not None and deviation[1] == squares.axes:
            of = deviation[0] if squares.centred else above
            if self._same(squares.tensor, of):
                return Norm(deviation[0], squares.axes, size)
        if squares.centred or not self._same(squares.tensor, above):
            return None
        return Norm(above, squares.axes, replace(size, centred=False))

    def _size(self, name: str) -> tuple[_Squares, Size] | None:
        """Return what max(sqrt(squares + under) + beside, least) is made of."""
        name, least = self._at_least(self._kept(name))
        name, beside = self._plus(self._kept(name))
        root = self._maker(self._kept(name), "Sqrt", "Pow", "ReduceL2")
        if root is None or least < 0 or beside < 0:
            return None
        if root.op == "ReduceL2":
            squares = self._reduced(root, root.inputs[0], of_means=False)
            return None if squares is None else (squares, Size(1.0, 0.0, beside, least))
        found = self._of_squares(root.inputs[0]) if root.op == "Sqrt" or self._number(root.inputs[1]) == 0.5 else None
        return None if found is None else (found[0], replace(found[1], beside=beside, least=least))

    def _of_squares(self, name: str) -> tuple[_Squares, Size] | None:
        """Return what squares + under is made of."""
        inner, under = self._plus(self._kept(name))
        squares = self._squares(inner)
        return None if squares is None or under < 0 else (squares, Size(1.0, under))

    def _squares(self, name: str, depth: int = 0) -> _Squares | None:
        """Return what a mean or a sum of squares is, times constants; a variance as a difference of means, too."""
        node = self._maker(self._kept(name), "Div", "Mul", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Sub")
        if node is None or depth > DEEPEST:
            return None
        if node.op in ("Div", "Mul"):
            return self._multiple(node, depth)
        if node.op == "Sub":
            return self._variance(node)
        if node.op == "ReduceSumSquare":
            return self._reduced(node, node.inputs[0], of_means=False)
        squared = self._square_of(node.inputs[0])
        return None if squared is None else self._reduced(node, squared, of_means=node.op == "ReduceMean")

    def _multiple(self, node: Node, depth: int) -> _Squares | None:
        left, right = node.inputs
        factor = self._number(right)
        if node.op == "Mul" and factor is None:
            left, factor = right, self._number(left)
        if not factor:
            return None
        found = self._squares(left, depth + 1)
        return None if found is None else found.times(1.0 / factor if node.op == "Div" else factor)

    def _variance(self, node: Node) -> _Squares | None:
        """mean(x x) - mean(x) mean(x), which is the mean of the squares of x - mean(x)."""
        whole = self._maker(node.inputs[0], "ReduceMean")
        squared = None if whole is None else self._square_of(whole.inputs[0])
        inner = self._square_of(node.inputs[1])
        mean = None if inner is None else self._maker(inner, "ReduceMean")
        if whole is None or squared is None or mean is None or not self._same(mean.inputs[0], squared):
            return None
        found = self._reduced(whole, squared, of_means=True)
        axes = self._axes(mean, squared)
        return replace(found, centred=True) if found is not None and axes == found.axes else None

    def _square_of(self, name: str) -> str | None:
        """Return the tensor whose square this is."""
        node = self._maker(name, "Mul", "Pow")
        if node is None or len(node.inputs) != 2:
            return None
        base, other = node.inputs
        is_square = self._same(base, other) if node.op == "Mul" else self._number(other) == 2.0
        return base if is_square else None

    def _deviation(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """Return (x, axes) where a tensor is x - mean(x) over them."""
        node = self._maker(name, "Sub")
        mean = None if node is None else self._maker(self._kept(node.inputs[1]), "ReduceMean")
        if node is None or mean is None or not self._same(mean.inputs[0], node.inputs[0]):
            return None
        axes = self._axes(mean, node.inputs[0])
        is_kept = axes is not None and self._keeps(node.inputs[1], node.inputs[0], axes)
        return (node.inputs[0], axes) if axes is not None and is_kept else None

    def _reduced(self, node: Node, tensor: str, *, of_means: bool) -> _Squares | None:
        axes = self._axes(node, tensor)
        if axes is None:
            return None
        n = math.prod(self._shape(tensor)[axis] for axis in axes)
        return _Squares(tensor, axes, 1.0 / n if of_means else 1.0) if n else None

    def _axes(self, node: Node, tensor: str) -> tuple[int, ...] | None:
        """Return the axes of a reduction."""
        form = self._values.get(tensor)
        if not isinstance(form, AffineForm) or not self._depends(tensor):
            return None
        given = self._values.get(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
        if given is not None and not isinstance(given, np.ndarray):
            return None
        return reduced_axes(node, given, form.shape) or None

    # --- what stands around -------------------------------------------------------------------------------------------

    def _maker(self, name: str, *ops: str) -> Node | None:
        node = self._makers.get(name)
        return node if node is not None and node.op in ops and not node.uncertainty else None

    def _depends(self, name: str) -> bool:
        return type(self._values.get(name)) is AffineForm  # whole numbers divide otherwise

    def _number(self, name: str) -> float | None:
        """Return a constant that is one number everywhere."""
        value = self._values.get(name)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not value.size:
            return None
        first = float(value.reshape(-1)[0])
        return first if math.isfinite(first) and bool((value == value.reshape(-1)[0]).all()) else None

    def _kept(self, name: str) -> str:
        """Return a tensor without what changes its shape and nothing else, or repeats it."""
        node = self._maker(name, "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
        return name if node is None or not self._depends(node.inputs[0]) else self._kept(node.inputs[0])

    def _keeps(self, name: str, tensor: str, axes: tuple[int, ...]) -> bool:
        """Whether a tensor has one entry for all that lie along these axes of another, and is broadcast so."""
        shape, whole = self._shape(name), self._shape(tensor)
        padded = (*(1,) * (len(whole) - len(shape)), *shape)
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(whole))
        if padded == kept:
            return True
        node = self._maker(name, "Expand")
        return node is not None and shape == whole and self._keeps(node.inputs[0], tensor, axes)

    def _shape(self, name: str) -> tuple[int, ...]:
        value = self._values.get(name)
        return value.shape if isinstance(value, AffineForm) else ()

    def _plus(self, name: str) -> tuple[str, float]:
        """Return (t, c) where a tensor is t + c."""
        node = self._maker(name, "Add")
        for tensor, other in () if node is None else (node.inputs, node.inputs[::-1]):
            constant = self._number(other)
            if constant is not None and self._shape(tensor) == self._shape(name):
                return tensor, constant
        return name, 0.0

    def _at_least(self, name: str) -> tuple[str, float]:
        """Return (t, c) where a tensor is max(t, c), c not below 0."""
        node = self._maker(name, "Clip", "Max")
        if node is None:
            return name, 0.0
        if node.op == "Max" and len(node.inputs) == 2:
            for tensor, other in (node.inputs, node.inputs[::-1]):
                constant = self._number(other)
                if constant is not None and self._shape(tensor) == self._shape(name):
                    return tensor, constant
        if node.op == "Clip" and "max" not in node.attributes and not any(node.inputs[2:]):
            low = self._number(node.inputs[1]) if len(node.inputs) > 1 else float_attribute(node, "min", -1.0)
            return (name, 0.0) if low is None else (node.inputs[0], low)
        return name, 0.0

    def _same(self, name: str, other: str, depth: int = 0) -> bool:
        """Whether two tensors are one, or are computed alike: exporters take a mean twice."""
        if name == other:
            return True
        first, second = self._maker(name, "ReduceMean", "Sub"), self._maker(other, "ReduceMean", "Sub")
        if first is None or second is None or first.op != second.op or depth > DEEPEST:
            return False
        if len(first.inputs) != len(second.inputs) or dict(first.attributes) != dict(second.attributes):
            return False
        pairs = list(zip(first.inputs, second.inputs, strict=True))
        return all(self._same(a, b, depth + 1) or self._equal(a, b) for a, b in pairs)

    def _equal(self, name: str, other: str) -> bool:
        """Whether two names stand for equal constants."""
        first, second = self._values.get(name), self._values.get(other)
        return isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and np.array_equal(first, second)
