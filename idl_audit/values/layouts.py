"""Where the pixels of an input stand: which of its axes are rows and columns, and which are channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.values.arrays import FloatArray

MOST_CHANNELS: Final = 4
"""An axis of at most so many, the first or the last of three, is that of the channels."""


def may_end_in_channels(axes: Sequence[int]) -> bool:
    """Return whether the last of three axes is short enough to be that of the channels."""
    return axes[2] <= MOST_CHANNELS and axes[2] < min(axes[:2])


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
        """Return the layout of inputs of this shape; None where they are no pictures, or it can be read in two ways.

        Axes of length 1 in front are a batch's, or one channel. Of three axes the first or the last is that of the
        channels: the one that has at most MOST_CHANNELS, and the first where neither has. Where both have so few, or
        the last is no shorter than another one, nobody can tell, and a wrong guess would be another set.
        """
        axes = shape
        while len(axes) > 2 and axes[0] == 1:
            axes = axes[1:]
        if len(axes) == 2:
            return cls(1, *axes, last=False) if min(axes) > 1 else None
        if len(axes) != 3:
            return None
        if axes[2] > MOST_CHANNELS:
            return cls(*axes, last=False)
        is_last = axes[0] > MOST_CHANNELS and may_end_in_channels(axes)
        return cls(axes[2], axes[0], axes[1], True) if is_last else None

    def planes(self, flat: FloatArray) -> FloatArray:
        """Return inputs (..., p) as (..., channels, height, width)."""
        if not self.last:
            return flat.reshape(*flat.shape[:-1], self.channels, self.height, self.width)
        return np.moveaxis(flat.reshape(*flat.shape[:-1], self.height, self.width, self.channels), -1, -3)

    def flat(self, planes: FloatArray) -> FloatArray:
        """Return (..., channels, height, width) as inputs (..., p)."""
        moved = np.moveaxis(planes, -3, -1) if self.last else planes
        return np.ascontiguousarray(moved).reshape(*planes.shape[:-3], -1)
