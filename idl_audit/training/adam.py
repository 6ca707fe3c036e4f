"""Adam on all weights of a network at once: they lie behind one another in one vector, and a step is ten operations.

Small networks have many small weights, and an optimizer that goes from one to the next takes longer for it than their
gradients do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import torch
from torch import Tensor

FORGET: Final = (0.9, 0.999)
"""Of the running means of gradients and of their squares, a step."""
LEAST: Final = 1e-8
"""Added to the root of the mean square."""


class Layout:
    """Where each of several tensors lies in one vector; kernels with the channels last, as convolutions read them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.shapes = [tensor.shape for tensor in tensors]
        self.starts = [0, *accumulate(shape.numel() for shape in self.shapes)]

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return the tensors that lie in a vector; they share its memory."""
        places = zip(pairwise(self.starts), self.shapes, strict=True)
        return [_placed(vector[start:end], shape) for (start, end), shape in places]

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a new vector that holds tensors of these shapes."""
        return torch.cat([(t.permute(0, 2, 3, 1) if t.dim() == 4 else t).reshape(-1) for t in tensors])


def _placed(part: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) == 4:
        return part.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
    return part.view(shape)


class Adam:
    """Adam (Kingma and Ba 2015) with a step size for each weight, and the running mean of the weights.

    Args:
        weights: leaves that the loss is differentiated by; they become parts of `vector`, and stay the same objects.
        scales: of each weight's steps.
        largest: the gradient's Euclidean norm is cut down to this.
    """

    def __init__(self, weights: Sequence[Tensor], scales: Sequence[float], largest: float) -> None:
        self.weights, self.largest = list(weights), largest
        self.layout = Layout(self.weights)
        self.vector = self.layout.joined([weight.detach() for weight in self.weights])
        for weight, view in zip(self.weights, self.layout.views(self.vector), strict=True):
            weight.data = view
        self.scales = self.layout.joined(
            [torch.full(weight.shape, scale) for weight, scale in zip(self.weights, scales, strict=True)]
        )
        self.mean = self.vector.clone()
        self.first, self.second = torch.zeros_like(self.vector), torch.zeros_like(self.vector)

    def descend(self, loss: Tensor, rate: float, number: int) -> None:
        """Take the step of a number, 0 the first; none where the gradient is not finite."""
        slope = self.layout.joined(torch.autograd.grad(loss, self.weights, materialize_grads=True))
        norm = float(torch.linalg.vector_norm(slope))
        if norm != norm or norm == float("inf"):
            return
        if norm > self.largest:
            slope *= self.largest / norm
        own, squares = FORGET
        self.first.lerp_(slope, 1 - own)
        self.second.mul_(squares).addcmul_(slope, slope, value=1 - squares)
        length = (self.second / (1 - squares ** (number + 1))).sqrt_().add_(LEAST)
        self.vector.addcdiv_(self.first * self.scales, length, value=-rate / (1 - own ** (number + 1)))

    def average(self, keep: float) -> None:
        """Let the running mean keep a share of itself."""
        self.mean.lerp_(self.vector, 1 - keep)
