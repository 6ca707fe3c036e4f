"""Weights of pixels at places between them, along one axis: linear, cubic, and smoothed while an image shrinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.values.arrays import FloatArray, IntArray

Taps = tuple[IntArray, FloatArray]
"""(pixels, weights), each (places, taps); a pixel may lie outside the axis."""

CUBIC: Final = -0.75
"""The coefficient a of the cubic kernel, where none is given."""


def hat(distance: FloatArray) -> FloatArray:
    """Return 1 - |d|, at least 0."""
    return np.maximum(0.0, 1.0 - np.abs(distance))


def cubic(distance: FloatArray, a: float = CUBIC) -> FloatArray:
    """Return Keys' kernel: (a+2)|d|^3 - (a+3)|d|^2 + 1 up to 1, a|d|^3 - 5a|d|^2 + 8a|d| - 4a up to 2, 0 beyond."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


KERNELS: Final[Mapping[str, tuple[int, Callable[..., FloatArray]]]] = MappingProxyType(
    {"linear": (1, hat), "cubic": (2, cubic)}
)
"""Mode -> (how far the kernel reaches, the kernel)."""


def taps(places: FloatArray, mode: str, *, a: float = CUBIC, shrink: float = 1.0) -> Taps:
    """Return the pixels that are read at every place and their weights.

    With `shrink` < 1 the kernel is stretched by 1 / shrink, and its weights are normed to the sum 1.
    """
    reach, kernel = KERNELS[mode]
    more = (a,) if mode == "cubic" else ()
    first = np.floor(places)
    radius = int(np.ceil(reach / shrink))
    offsets = np.arange(1 - radius, radius + 1)
    weights = kernel((offsets - (places - first)[:, None]) * shrink, *more)
    if shrink < 1.0:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return first[:, None].astype(np.int64) + offsets, weights
