"""Patches: all inputs of a rectangle of pixels may take any valid value, wherever the rectangle is.

The set is the union of one box for each position, rows first: inputs in the rectangle, in all channels, move through
the valid range, and the others stay (docs/mathematics.md, section 14.3).

Elsewhere: adversarial patch, sticker attack, occlusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import OptionError
from idl_audit.values.layouts import Layout


@dataclass(frozen=True)
class Patch:
    """A rectangle of pixels."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if not (self.height >= 1 and self.width >= 1):
            raise OptionError(f"a patch has 1 pixel or more along each side, not {self.height}x{self.width}")

    @property
    def text(self) -> str:
        """How it is written: patch=4x4."""
        return f"patch={self.height}x{self.width}"

    def positions(self, layout: Layout) -> tuple[tuple[int, int], ...]:
        """Return row and column of its first pixel, wherever it may be. Raises OptionError where it has no place."""
        rows, columns = layout.height - self.height + 1, layout.width - self.width + 1
        if rows < 1 or columns < 1:
            raise OptionError(f"{self.text} does not fit into pictures of {layout.height}x{layout.width} pixels")
        return tuple((row, column) for row in range(rows) for column in range(columns))

    def boxes(self, sample: FloatArray, layout: Layout, clip: tuple[float, float]) -> Iterator[Box]:
        """Yield the box of each position. Raises DataError where the sample lies outside the valid range."""
        numbers = layout.planes(np.arange(sample.size, dtype=np.float64)).astype(np.int64)
        for row, column in self.positions(layout):
            inside = numbers[:, row : row + self.height, column : column + self.width].reshape(-1)
            yield Box.around(sample, 0.0, valid_lo=clip[0], valid_hi=clip[1], free=inside.tolist())
