"""The structure of an implicit model as a PNG file: where A, B, C, D have nonzeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from idl_audit.report.pictures.canvas import label, new_figure, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_structure(
    stream: BinaryIO,
    *,
    density: npt.NDArray[np.float64],
    row_edges: npt.NDArray[np.int64],
    column_edges: npt.NDArray[np.int64],
    row_names: tuple[str, ...],
    column_names: tuple[str, ...],
    title: str,
) -> None:
    """Write the structure of [[A, B], [C, D]] as a PNG: the darker a cell, the larger its share of nonzeros.

    A cell with a single nonzero is visible: shades start well above white and follow the cube root of the share.
    """
    figure = new_figure(9, 9)
    axes = figure.add_subplot()
    shade = np.where(density > 0, 0.25 + 0.75 * np.cbrt(density), 0.0)
    height, width = density.shape
    axes.imshow(
        shade, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", extent=(0, width, height, 0), aspect="auto"
    )
    for edges, line in ((row_edges, axes.axhline), (column_edges, axes.axvline)):
        for edge in edges[1:-1]:
            heavy = edge == edges[-2]  # between states and outputs, states and inputs
            line(float(edge), color="black" if heavy else "0.75", linewidth=1.2 if heavy else 0.5)
    _name(axes, "y", row_edges, row_names)
    _name(axes, "x", column_edges, column_names)
    axes.set_title(label(title), fontsize=11)
    write_png(figure, stream)


def _name(axes: Axes, which: str, edges: npt.NDArray[np.int64], names: tuple[str, ...]) -> None:
    """Put each block's name beside it, leaving out those for which there is no room."""
    middles = (edges[:-1] + edges[1:]) / 2
    room = float(edges[-1]) / 60
    places: list[float] = []
    texts: list[str] = []
    for place, name, size in zip(middles, names, np.diff(edges), strict=True):
        is_last = name is names[-1]
        if is_last and places and place - places[-1] < room:
            del places[-1], texts[-1]
        if is_last or (size > 0 and (not places or place - places[-1] >= room)):
            places.append(float(place))
            texts.append(label(name, longest=24))
    if which == "y":
        axes.set_yticks(places, texts, fontsize=7)
    else:
        axes.set_xticks(places, texts, fontsize=7, rotation=90)
