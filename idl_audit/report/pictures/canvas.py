"""What all pictures share: a figure that needs no display, strings made safe, and how a figure becomes a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from idl_audit.report.wording import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, *, dpi: int = 150) -> Figure:
    """Return an empty figure, sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Figure, stream: BinaryIO) -> None:
    """Write the figure; the same figure gives the same bytes, whichever version of matplotlib is named."""
    figure.savefig(stream, format="png", metadata={"Software": None})


def label(text: object, *, longest: int = 500) -> str:
    """Return a string that is drawn as it is: no control characters, no mathematics."""
    return plain(text, longest=longest).replace("$", r"\$")
