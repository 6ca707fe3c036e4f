"""Which block of an implicit model reads which: the block structure of [[A, B], [C, D]] as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idl_audit.report.pictures.canvas import label, new_figure
from idl_audit.report.pictures.theme import Theme, dress, styled, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMES = 26
"""With more blocks, only some of their names have room."""
MARGIN = 0.12
"""Inches between a name and the square, and at the border."""
SLACK = 1.1
"""Names are drawn in a face of the reader's machine, which may be so much wider than the one that was measured."""


@dataclass(frozen=True)
class Cell:
    """A nonzero block: its place, and the share of its entries that are not zero."""

    row: int
    column: int
    density: float


def draw_blocks(names: Sequence[str], cells: Sequence[Cell], *, theme: Theme, narrow: bool) -> str:
    """Return the picture as SVG: one square a block, whatever its size; the darker, the larger its share of nonzeros.

    Args:
        names: of the blocks of states, the earliest first; outputs and inputs come after them.
        cells: the nonzero blocks; row or column len(names) stands for the outputs or the inputs.
        theme: the colours.
        narrow: for a phone.
    """
    from matplotlib.patches import Rectangle

    n = len(names)
    size = 10.0
    with styled():
        side = 4.3 if narrow else 6.4
        figure = new_figure(side, side * 0.78)
        axes = figure.add_subplot()
        for cell in cells:
            alpha = 0.3 + 0.7 * min(max(cell.density, 0.0), 1.0) ** (1 / 3)
            axes.add_patch(
                Rectangle((cell.column + 0.04, cell.row + 0.04), 0.92, 0.92, color=theme.accent, alpha=alpha, lw=0)
            )
        for place in range(1, n):
            axes.axhline(place, color=theme.grid, linewidth=0.5, zorder=0)
            axes.axvline(place, color=theme.grid, linewidth=0.5, zorder=0)
        axes.axhline(n, color=theme.muted, linewidth=1)
        axes.axvline(n, color=theme.muted, linewidth=1)
        axes.set_xlim(0, n + 1)
        axes.set_ylim(n + 1, 0)
        axes.set_aspect("equal")
        step = -(-(n + 1) // MOST_NAMES)
        shown = [*range(0, n, step), n]
        told = [label(names[place], longest=16 if narrow else 28) if place < n else "y" for place in shown]
        axes.set_yticks([place + 0.5 for place in shown], told)
        axes.set_xticks([n / 2, n + 0.5], ["states x", "u"] if n else ["", "u"])
        axes.xaxis.tick_top()
        dress(axes, theme, size=size)
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color(theme.muted)
        _place(figure, axes)
        return svg(figure)


def _place(figure: Figure, axes: Axes) -> None:
    """Put square axes where the names on their left have room: a layout that follows sizes cuts long ones off."""
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    told = [*axes.get_yticklabels(), *axes.get_xticklabels()]
    sizes = [text.get_window_extent() for text in told]
    left = SLACK * max(size.width for size in sizes) / figure.dpi + MARGIN
    above = SLACK * max(size.height for size in sizes) / figure.dpi + MARGIN
    side = min(width - left, height - above) - MARGIN / 2
    axes.set_position((left / width, 1 - (above + side) / height, side / width, side / height))
