"""Where the pixels of an input stand: which of its axes are rows and columns, and which are channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.values.arrays import FloatArray

MOST_CHANNELS: Final = 4
"""A last axis of at most so many, behind two longer ones, is that of the channels (height, width, channels)."""


@dataclass(frozen=True)
class Layout:
    """Where the pixels of an input stand: which axes are rows, columns and channels."""

    channels: int
    height: int
    width: int
    last: bool
    """Whether channels are the last axis."""

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Layout | None:
        """Return the layout of inputs of this shape; None where they are no pictures."""
        axes = tuple(extent for extent in shape if extent != 1)
        if len(axes) == 2:
            return cls(1, *axes, last=False)
        if len(axes) != 3:
            return None
        last = axes[2] <= MOST_CHANNELS < min(axes[0], axes[1])
        return cls(axes[2], axes[0], axes[1], True) if last else cls(*axes, last=False)

    def planes(self, flat: FloatArray) -> FloatArray:
        """Return inputs (..., p) as (..., channels, height, width)."""
        if not self.last:
            return flat.reshape(*flat.shape[:-1], self.channels, self.height, self.width)
        return np.moveaxis(flat.reshape(*flat.shape[:-1], self.height, self.width, self.channels), -1, -3)

    def flat(self, planes: FloatArray) -> FloatArray:
        """Return (..., channels, height, width) as inputs (..., p)."""
        moved = np.moveaxis(planes, -3, -1) if self.last else planes
        return np.ascontiguousarray(moved).reshape(*planes.shape[:-3], -1)
