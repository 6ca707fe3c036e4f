"""A map of numbers in a terminal: two pixels a character in colour, and a ramp of characters where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style

from idl_audit.report.input_maps import in_blocks
from idl_audit.report.schema import InputMap
from idl_audit.values.arrays import FloatArray

RAMP: Final = " .:-=+*#%@"
"""From the least to the largest value, where there is no colour."""

PIXEL: Final = 2
"""Characters of the ramp for one pixel: about a square."""

STOPS: Final = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
"""The colour scale, black to pale yellow, at even distances."""

WANTED: Final = 32
"""Columns of pixels that small maps are enlarged to."""


class HeatMap:
    """A map of values at least 0, on one scale from 0 to the largest, as wide as there is room for."""

    def __init__(self, found: InputMap) -> None:
        self._values = np.array(found.values).reshape(found.height, found.width)
        self._largest = max(found.values, default=0.0)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        pixels = self._fitted(console, options)
        shares = pixels / self._largest if self._largest > 0 else pixels
        yield from _coloured(shares) if _has_colour(console) else _ramp(shares)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = self._fitted(console, options).shape[1] * (1 if _has_colour(console) else PIXEL)
        return Measurement(width, width)

    def _fitted(self, console: Console, options: ConsoleOptions) -> FloatArray:
        """Return the pixels: small maps enlarged where a pixel is a character, large ones reduced to the width."""
        if not _has_colour(console):
            return in_blocks(self._values, -(-self._values.shape[1] * PIXEL // options.max_width))
        factor = min(WANTED // max(self._values.shape), options.max_width // self._values.shape[1])
        if factor > 1:
            return np.asarray(self._values.repeat(factor, axis=0).repeat(factor, axis=1))
        return in_blocks(self._values, -(-self._values.shape[1] // options.max_width))


def _has_colour(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def _coloured(shares: FloatArray) -> Iterable[Segment]:
    """Yield lines of half blocks: the upper pixel in the foreground's colour, the lower one in the background's."""
    for top in range(0, len(shares), 2):
        for column in range(shares.shape[1]):
            lower = _colour(shares[top + 1, column]) if top + 1 < len(shares) else None
            yield Segment("▀", Style(color=_colour(shares[top, column]), bgcolor=lower))
        yield Segment.line()


def _ramp(shares: FloatArray) -> Iterable[Segment]:
    """Yield lines of characters, the darker the larger."""
    steps = np.minimum((shares * len(RAMP)).astype(int), len(RAMP) - 1)
    for row in steps:
        yield Segment("".join(PIXEL * RAMP[step] for step in row).rstrip())
        yield Segment.line()


def _colour(share: float) -> Color:
    place = min(max(float(share), 0.0), 1.0) * (len(STOPS) - 1)
    first = min(int(place), len(STOPS) - 2)
    mixed = (a + (b - a) * (place - first) for a, b in zip(STOPS[first], STOPS[first + 1], strict=True))
    red, green, blue = (round(value) for value in mixed)
    return Color.from_rgb(red, green, blue)
