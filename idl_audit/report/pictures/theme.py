"""The colours of pictures that stand on a page: one set for a light page, one for a dark one."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colours of a page; the background is the page's own."""

    ink: str
    muted: str
    grid: str
    certified: str
    falsified: str
    unknown: str
    accent: str
    page: str


LIGHT: Final = Theme("#1b1f24", "#57606a", "#d8dde3", "#1a7f4b", "#c2303a", "#b98a1a", "#2f5fb3", "#ffffff")
DARK: Final = Theme("#e7eaee", "#a3adb8", "#333b45", "#4cc38a", "#f0727a", "#dcb345", "#86abf0", "#14181d")


def styled() -> AbstractContextManager[None]:
    """Return a context in which SVG is small, sharp, and the same each time."""
    from matplotlib import rc_context

    return rc_context(
        {
            "svg.fonttype": "none",  # text stays text, in a face of the reader's machine
            "svg.hashsalt": "idl-audit",
            "font.family": "sans-serif",
            "font.sans-serif": ["Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"],
        }
    )


def svg(figure: Figure) -> str:
    """Return the figure as SVG on a transparent ground."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def dress(axes: Axes, theme: Theme, *, size: float) -> None:
    """Give axes the theme's colours, and only the lines that are needed."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=size, length=0, pad=5)
    axes.set_facecolor("none")
