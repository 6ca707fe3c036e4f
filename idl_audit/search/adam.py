"""Adam (Kingma and Ba, 2015) on numpy arrays, whose memory torch tensors may share: the descent of all searches.

torch's own loads its compiler first, which takes longer than most trees. On an accelerator torch does to tensors what
numpy does to arrays here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from idl_audit.values.arrays import Float32Array, FloatArray

Values: TypeAlias = FloatArray | Float32Array
"""Arrays, or tensors of an accelerator."""

EPSILON = 1e-8
AT_ONCE = 2**15
"""Numbers: all passes over them find them in the cache."""
LEAST = 1e-30
"""What the sums of squares begin with: a root of a float32 number that is not normal takes ten times as long."""


class Adam:
    """Steps that change groups of arrays in place, each group with its rate."""

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Values], float]],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        kit: Any = np,
    ) -> None:
        """Take the arrays, and the shares of the old in the running sums of gradients and of their squares.

        `kit` has numpy's functions for what the arrays are: torch, for tensors.
        """
        self._values = [(value, rate) for values, rate in groups for value in values]
        self._kit, self._at_once = kit, AT_ONCE if kit is np else None
        if kit is np and not all(value.flags.c_contiguous for value, _ in self._values):
            raise ValueError("arrays that are changed in place must be contiguous")
        self._sums = [(kit.zeros_like(v), kit.full_like(v, LEAST), kit.empty_like(v)) for v, _ in self._values]
        self._betas, self._steps = betas, 0

    def step(self, gradients: Sequence[Values | None], factor: float = 1.0) -> None:
        """Go down along the gradients, None for an array that nothing depends on; rates are multiplied by `factor`.

        With means m = (1 - b1) sum / (1 - b1^t), v = (1 - b2) squares / (1 - b2^t), the step is m / (sqrt(v) + e).
        """
        self._steps += 1
        of_sum, of_squares = self._betas
        mean = (1 - of_sum) / (1 - of_sum**self._steps)
        root = math.sqrt((1 - of_squares) / (1 - of_squares**self._steps))
        with np.errstate(over="ignore", invalid="ignore"):  # a search with endless gradients goes nowhere
            for (value, rate), gradient, (total, squares, work) in zip(
                self._values, gradients, self._sums, strict=True
            ):
                if gradient is None:
                    continue
                arrays = [array.reshape(-1) for array in (value, gradient, total, squares, work)]
                numbers = len(arrays[0])
                for start in range(0, numbers, self._at_once or max(numbers, 1)):
                    some = slice(start, start + (self._at_once or numbers))
                    self._change([array[some] for array in arrays], rate * factor * mean / root, EPSILON / root)

    def _change(self, arrays: Sequence[Values], size: float, epsilon: float) -> None:
        """Make one step: values, gradients, sums, sums of squares and room for work, of the same numbers."""
        value, gradient, total, squares, work = arrays
        of_sum, of_squares = self._betas
        total *= of_sum
        total += gradient
        self._kit.multiply(gradient, gradient, out=work)
        squares *= of_squares
        squares += work
        self._kit.sqrt(squares, out=work)
        work += epsilon
        self._kit.divide(total, work, out=work)
        work *= size
        value -= work
