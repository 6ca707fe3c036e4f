"""One number per input as a picture: which of the input's axes are rows and columns, and which are channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from idl_audit.values.arrays import FloatArray
from idl_audit.values.layouts import may_end_in_channels


def is_image(shape: Sequence[int]) -> bool:
    """Return whether inputs of this shape are images: two axes, or three with channels; axes of length 1 aside."""
    return 2 <= len(_axes(shape)) <= 3


def as_image(values: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Return values per input, shape (p,), as an image (height, width); the channels of a pixel are summed up.

    What is not an image becomes a single row.
    """
    axes = _axes(shape)
    if len(axes) == 3:
        return np.asarray(values.reshape(axes).sum(axis=2 if may_end_in_channels(axes) else 0))
    return values.reshape(axes) if len(axes) == 2 else values.reshape(1, -1)


def channels_last(values: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Return values per input, shape (p,), of an image as (height, width, channels)."""
    axes = _axes(shape)
    if len(axes) == 2:
        return values.reshape(*axes, 1)
    if may_end_in_channels(axes):
        return values.reshape(axes)
    return values.reshape(axes).transpose(1, 2, 0)


def in_blocks(image: FloatArray, side: int) -> FloatArray:
    """Return the largest value of every square of side x side pixels; those at the edges may be smaller."""
    height, width = (math.ceil(extent / side) for extent in image.shape)
    padded = np.zeros((height * side, width * side))
    padded[: image.shape[0], : image.shape[1]] = image
    return np.asarray(padded.reshape(height, side, width, side).max(axis=(1, 3)))


def _axes(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)
