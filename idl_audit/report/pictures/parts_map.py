"""Where statements over a whole range are open and where they fail, over two inputs: as a PNG, and as SVG on a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from idl_audit.report.pictures.canvas import label, new_figure, write_png
from idl_audit.report.pictures.theme import LIGHT, Theme, dress, styled, svg
from idl_audit.report.schema import PartsMap, Report, WholeStatement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DRAWN: Final = 6
"""Statements of one PNG."""
FAINTEST: Final = 0.15
"""A cell of which any share is open is drawn this strong at least."""


def plot_parts(report: Report, stream: BinaryIO) -> None:
    """Write the maps of a report's statements as a PNG, side by side."""
    statements = [] if report.everywhere is None else report.everywhere.statements
    drawn = [one for one in statements if one.map is not None][:MOST_DRAWN]
    with styled():
        figure = new_figure(4.6 * len(drawn), 4.4)
        for axes, one in zip(np.ravel(figure.subplots(1, len(drawn))), drawn, strict=True):
            _draw(axes, one, LIGHT, 9.0)
            axes.set_title(label(_wrapped(one.text)), fontsize=9, color=LIGHT.ink, pad=24)
        write_png(figure, stream)


def draw_parts(one: WholeStatement, *, theme: Theme, narrow: bool) -> str:
    """Return the map of one statement as SVG."""
    with styled():
        figure: Figure = new_figure(3.4 if narrow else 5.2, 3.2 if narrow else 4.2)
        _draw(figure.add_subplot(), one, theme, 9.0 if narrow else 9.5)
        return svg(figure)


def _wrapped(text: str, width: int = 46) -> str:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:4])


def _draw(axes: Axes, one: WholeStatement, theme: Theme, size: float) -> None:
    from matplotlib.patches import Patch

    found = one.map
    assert found is not None
    extent = (*found.x_ends, *found.y_ends)
    for table, colour in ((found.open, theme.unknown), (found.failing, theme.falsified)):
        axes.imshow(_shaded(table, colour), origin="lower", extent=extent, aspect="auto", interpolation="nearest")
    axes.set_xlabel(label(found.x, longest=40), color=theme.muted, fontsize=size)
    axes.set_ylabel(label(found.y, longest=40), color=theme.muted, fontsize=size)
    keys = (("open", theme.unknown), ("fails", theme.falsified))
    handles = [Patch(color=colour, label=name) for name, colour in keys]
    legend = axes.legend(
        handles=handles, fontsize=size, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1)
    )
    for text in legend.get_texts():
        text.set_color(theme.muted)
    dress(axes, theme, size=size)
    _mark(axes, one, found, theme)


def _mark(axes: Axes, one: WholeStatement, found: PartsMap, theme: Theme) -> None:
    """Put a cross where a counterexample is."""
    places = [place for place in (found.x_place, found.y_place) if place is not None]
    if one.witness is None or len(places) < 2 or max(places) >= len(one.witness.point):
        return
    x, y = (one.witness.point[place] for place in places)
    axes.plot([x], [y], "x", color=theme.ink, markersize=7, markeredgewidth=1.6, clip_on=False, zorder=3)


def _shaded(table: Sequence[Sequence[float]], colour: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return a colour with each cell's share as how strong it is."""
    from matplotlib.colors import to_rgb

    shares = np.array(table)
    alpha = np.where(shares > 0, FAINTEST + (1 - FAINTEST) * shares, 0.0)
    return np.concatenate([np.broadcast_to(to_rgb(colour), (*shares.shape, 3)), alpha[..., None]], axis=2)
