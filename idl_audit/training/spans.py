"""Intervals of tensors with gradients: what bounds of a network look like while its weights are trained.

A span holds every tensor x with |x - centre| <= radius, entry by entry, in the arithmetic of torch: nothing is rounded
outward, as nothing is claimed from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Span:
    """{x : |x - centre| <= radius}, radius >= 0, both of one shape."""

    centre: Tensor
    radius: Tensor

    @classmethod
    def between(cls, lo: Tensor, hi: Tensor) -> Span:
        """Return {x : lo <= x <= hi}."""
        return cls((lo + hi) / 2, (hi - lo) / 2)

    @property
    def lo(self) -> Tensor:
        """The least entries."""
        return self.centre - self.radius

    @property
    def hi(self) -> Tensor:
        """The greatest entries."""
        return self.centre + self.radius

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensors."""
        return self.centre.shape

    def moved(self, move: Callable[[Tensor], Tensor]) -> Span:
        """Return the span of tensors whose entries were moved, left out or repeated."""
        return Span(move(self.centre), move(self.radius))


def around(
    x: Tensor, radius: Tensor, share: float, valid: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the ends of boxes around samples, of a share of the radius, within the valid range; x is always inside."""
    lo, hi = x - share * radius, x + share * radius
    if valid is not None:
        lo, hi = torch.maximum(lo, valid[0]), torch.minimum(hi, valid[1])
    return torch.minimum(lo, x), torch.maximum(hi, x)


Value: TypeAlias = "Tensor | Span"


def negative(x: Value) -> Value:
    """Return -x."""
    return Span(-x.centre, x.radius) if isinstance(x, Span) else -x


def total(a: Value, b: Value) -> Value:
    """Return a + b, with the shapes of ONNX's broadcasting."""
    if isinstance(a, Span) and isinstance(b, Span):
        return Span(a.centre + b.centre, a.radius + b.radius)
    if isinstance(b, Span):
        return total(b, a)
    if isinstance(a, Span):
        centre = a.centre + b
        return Span(centre, a.radius.expand(centre.shape))
    return a + b


def product(a: Value, b: Value) -> Value:
    """Return the entrywise product: centre and radius of {x y} where one factor is fixed, the hull of corners else."""
    if isinstance(a, Span) and isinstance(b, Span):
        corners = torch.stack([x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)])
        return Span.between(corners.amin(0), corners.amax(0))
    if isinstance(b, Span):
        return product(b, a)
    if isinstance(a, Span):
        factor = b.to(a.centre.dtype)
        return Span(a.centre * factor, a.radius * factor.abs())
    return a * b


def linear(x: Value, apply: Callable[[Tensor, Tensor], Tensor], weight: Value) -> Value:
    """Return apply(x, weight) for an `apply` that is linear in both: W c and |W| r.

    Where both depend on the input: with |x - c| <= r and |W - V| <= s, |W x - V c| <= |V| r + s (|c| + r).
    """
    if isinstance(x, Span) and isinstance(weight, Span):
        spread = apply(x.radius, weight.centre.abs()) + apply(x.centre.abs() + x.radius, weight.radius)
        return Span(apply(x.centre, weight.centre), spread)
    if isinstance(x, Span):
        assert isinstance(weight, Tensor)
        return Span(apply(x.centre, weight), apply(x.radius, weight.abs()))
    if isinstance(weight, Span):
        return Span(apply(x, weight.centre), apply(x.abs(), weight.radius))
    return apply(x, weight)


def rising(x: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """Return the image under a function that rises with every entry, of whatever shape its result has."""
    return Span.between(function(x.lo), function(x.hi)) if isinstance(x, Span) else function(x)


def valley(x: Value, function: Callable[[Tensor], Tensor], bottom: float) -> Value:
    """Return the entrywise image under a function that falls down to `bottom` and rises behind it."""
    if not isinstance(x, Span):
        return function(x)
    least = function(torch.clamp(torch.full_like(x.lo, bottom), x.lo, x.hi))
    return Span.between(least, torch.maximum(function(x.lo), function(x.hi)))
