"""An adversarial input as a PNG file: the original, the change, red up and blue down, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from idl_audit.report.input_maps import channels_last, is_image
from idl_audit.report.pictures.canvas import label, new_figure, write_png
from idl_audit.report.pictures.thumbnails import strongest
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FRAMED = 100
"""Up to so many changed pixels, and a quarter of all, get a red frame in the result as well."""


def draw_adversarial(stream: BinaryIO, original: FloatArray, adversarial: FloatArray, **words: Any) -> None:
    """Write `adversarial_triple` of the same arguments as a PNG."""
    write_png(adversarial_triple(original, adversarial, **words), stream)


def adversarial_triple(
    original: FloatArray,
    adversarial: FloatArray,
    *,
    shape: Sequence[int],
    bounds: tuple[float, float] | None,
    titles: tuple[str, str],
    caption: str,
) -> Figure:
    """Return original, change and adversarial input, each shape (p,), side by side as a picture.

    Args:
        original: the sample, in data units.
        adversarial: what became of it.
        shape: of one input; an image unless it has one axis only, or more than three.
        bounds: what is black and what is white; None takes the sample's least and greatest value.
        titles: above the original and above the adversarial input.
        caption: the line above everything.
    """
    low, high = bounds or (float(original.min()), float(original.max()))
    change = adversarial - original
    if is_image(shape):
        return _images(original, adversarial, shape, (low, high), titles, caption)
    figure = new_figure(7, 4.2)
    above, below = figure.subplots(2, 1, sharex=True)
    positions = np.arange(original.size)
    above.step(positions, original, where="mid", color="0.35", linewidth=1, label=label(titles[0]))
    above.step(positions, adversarial, where="mid", color="firebrick", linewidth=1, label=label(titles[1]))
    above.legend(fontsize=7, frameon=False)
    above.set_ylabel("value", fontsize=9)
    moved = np.flatnonzero(change)
    below.axhline(0, color="0.6", linewidth=0.5)
    below.vlines(moved, 0, change[moved], color="red", linewidth=max(0.6, min(4.0, 300 / original.size)))
    below.set_xlim(-0.5, original.size - 0.5)
    below.set_xlabel("input", fontsize=9)
    below.set_ylabel("change", fontsize=9)
    for axes in (above, below):
        axes.tick_params(labelsize=8)
    figure.suptitle(label(caption), fontsize=10)
    return figure


def _images(
    original: FloatArray,
    adversarial: FloatArray,
    shape: Sequence[int],
    limits: tuple[float, float],
    titles: tuple[str, str],
    caption: str,
) -> Figure:
    before, after = (channels_last(values, shape) for values in (original, adversarial))
    change = strongest(after - before)
    height, width = change.shape
    figure = new_figure(9, 1.0 + 2.7 * float(np.clip(height / width, 0.3, 2.0)))
    first, middle, last = figure.subplots(1, 3)
    _show(first, before, limits)
    _show(last, after, limits)
    largest = float(np.abs(change).max()) or 1.0
    shown = middle.imshow(
        np.ma.masked_equal(change, 0.0), cmap=_both_ways(), vmin=-largest, vmax=largest, interpolation="nearest"
    )
    middle.set_facecolor("white")
    bar = figure.colorbar(shown, ax=middle, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    moved = np.argwhere(change != 0)
    if len(moved) <= min(MOST_FRAMED, change.size // 4):
        _frame(last, moved)
    first.set_title(label(titles[0]), fontsize=9)
    middle.set_title(f"change: {len(moved)} of {change.size} pixels", fontsize=9)
    last.set_title(label(titles[1]), fontsize=9)
    for axes in (first, middle, last):
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(label(caption), fontsize=10)
    return figure


def _show(axes: Axes, image: FloatArray, limits: tuple[float, float]) -> None:
    """Draw three channels in colour, any other number as the mean of the channels."""
    low, high = limits
    shade = np.clip((image - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    if shade.shape[2] == 3:
        axes.imshow(shade, interpolation="nearest")
    else:
        axes.imshow(shade.mean(axis=2), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _both_ways() -> object:
    from matplotlib.colors import LinearSegmentedColormap

    # the smallest change is as visible as a light red or blue: what did not change is white
    stops = [(0, "#1f5fd0"), (0.5, "#a9c6fa"), (0.5, "#fcaea0"), (1, "#e60000")]
    return LinearSegmentedColormap.from_list("changes", stops)


def _frame(axes: Axes, pixels: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> None:
    from matplotlib.patches import Rectangle

    for row, column in pixels:
        axes.add_patch(
            Rectangle((float(column) - 0.5, float(row) - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=0.8)
        )
