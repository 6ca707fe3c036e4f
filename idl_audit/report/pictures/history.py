"""How shares moved from commit to commit, as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from idl_audit.report.history import Series
from idl_audit.report.pictures.canvas import label, new_figure, write_png
from idl_audit.report.pictures.theme import LIGHT, Theme, dress, styled, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES: Final = 6
STYLES: Final = ("-", "--", ":", "-.", (0, (1, 3)), (0, (5, 4)))
MOST_NAMED: Final = 12
"""Commits whose names are written."""


def plot_history(series: Sequence[Series], stream: BinaryIO) -> None:
    """Write a picture with a row for each model and question as PNG."""
    with styled():
        write_png(history_figure(series, theme=LIGHT), stream)


def draw_history(series: Series, *, theme: Theme, narrow: bool) -> str:
    """Return one series as SVG."""
    with styled():
        return svg(history_figure([series], theme=theme, narrow=narrow, titled=False))


def history_figure(series: Sequence[Series], *, theme: Theme, narrow: bool = False, titled: bool = True) -> Figure:
    """Return the figure: shares over commits, in the order in which they were added."""
    with styled():
        figure = new_figure(4.4 if narrow else 8.4, 3.4 * len(series))
        for axes, one in zip(np.atleast_1d(figure.subplots(len(series), 1)), series, strict=True):
            _draw(axes, one, theme)
            if titled:
                axes.set_title(label(one.model, longest=80), loc="left", fontsize=11, color=theme.ink)
        return figure


def lines_of(series: Series) -> list[str]:
    """Return the shares that are drawn."""
    shares = {point.name for entry in series.entries for point in entry.points if point.is_share}
    wanted = ("clean_accuracy", "certified_accuracy", "attack_success", "agreement", "monotone")
    return [name for kind in wanted for name in series.names if name in shares and name.split("@")[0] == kind][
        :MOST_LINES
    ]


def _draw(axes: Axes, series: Series, theme: Theme) -> None:
    colours = {
        "clean_accuracy": theme.ink,
        "certified_accuracy": theme.certified,
        "attack_success": theme.falsified,
    }
    used: dict[str, int] = {}
    for name in lines_of(series):
        kind = name.split("@")[0]
        style = STYLES[used.get(kind, 0) % len(STYLES)]
        used[kind] = used.get(kind, 0) + 1
        values = np.array([np.nan if value is None else value for value in series.moved(name)])
        colour = colours.get(kind, theme.accent)
        axes.plot(np.arange(values.size), values, "o", linestyle=style, color=colour, label=label(name), markersize=4)
    n = len(series.entries)
    places = np.unique(np.linspace(0, n - 1, min(n, MOST_NAMED)).round().astype(int))
    axes.set_xticks(places, [label(series.entries[place].commit[:8]) for place in places], rotation=35, ha="right")
    axes.set_xlim(-0.4, n - 0.6)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100 %"])
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.lines:
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, -0.3), ncols=2, frameon=False, fontsize=8.5, labelcolor=theme.ink
        )
    dress(axes, theme, size=9.5)
