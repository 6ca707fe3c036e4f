"""One row of the sensitivity matrix as a PNG file: an image where the inputs are one, else a strip of bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from idl_audit.report.input_maps import as_image, is_image
from idl_audit.report.pictures.canvas import label, new_figure, write_png
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "magma"
MOST_BARS = 256


def draw_heat_map(stream: BinaryIO, values: FloatArray, **words: Any) -> None:
    """Write `heat_map` of the same arguments as a PNG."""
    write_png(heat_map(values, **words), stream)


def heat_map(
    values: FloatArray,
    *,
    shape: Sequence[int],
    largest: float,
    title: str,
    caption: str,
    unit: str,
) -> Figure:
    """Return values per input, shape (p,) and at least 0, as a picture; the channels of a pixel are summed up.

    Args:
        values: one number per input.
        shape: of one input; an image unless it has one axis only, or more than three.
        largest: the end of the colour scale, the same for all pictures that are to be compared.
        title: the line above.
        caption: the smaller line below it.
        unit: what the colour bar counts.
    """
    from matplotlib.ticker import MaxNLocator

    image = as_image(values, shape)
    height, width = image.shape
    longest = 4  # times the other side: beyond it pixels are no longer drawn square
    is_strip = not is_image(shape)
    figure = (
        new_figure(6, 1.2 + 4.5 * min(max(height / width, 1 / longest), 1.4)) if not is_strip else new_figure(7, 2.6)
    )
    axes = figure.add_subplot()
    top = largest if largest > 0 else 1.0
    if is_strip:
        _strip(axes, image[0], top, unit)
    else:
        square = 1 / longest <= height / width <= longest
        shown = axes.imshow(
            image, cmap=COLOURS, vmin=0, vmax=top, interpolation="nearest", aspect="equal" if square else "auto"
        )
        bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.03)
        bar.set_label(label(unit), fontsize=9)
        bar.ax.tick_params(labelsize=8)
        axes.set_xlabel("column", fontsize=9)
        axes.set_ylabel("row", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not is_strip:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    figure.suptitle(label(title), fontsize=11)
    axes.set_title(label(caption), fontsize=8, color="0.35")
    return figure


def _strip(axes: Axes, values: FloatArray, top: float, unit: str) -> None:
    """Draw a bar for each input, coloured by the scale of the maps; one shape where bars would be lines."""
    from matplotlib import colormaps

    positions = np.arange(values.size)
    if values.size <= MOST_BARS:
        axes.bar(positions, values, width=1.0, color=colormaps[COLOURS](values / top * 0.9))
    else:
        axes.fill_between(positions, values, step="mid", color=colormaps[COLOURS](0.5), linewidth=0)
    axes.set_xlim(-0.5, values.size - 0.5)
    axes.set_ylim(0, top * 1.05)
    axes.set_xlabel("input", fontsize=9)
    axes.set_ylabel(label(unit), fontsize=9)
