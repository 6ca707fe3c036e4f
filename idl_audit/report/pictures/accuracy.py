"""The band between certified and attacked accuracy over eps, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from idl_audit.report.pictures.canvas import label, new_figure, write_png
from idl_audit.report.pictures.theme import LIGHT, Theme, dress, styled, svg
from idl_audit.report.radius_curve import radius_curve
from idl_audit.report.schema import Report
from idl_audit.report.wording import eps_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AccuracyPoint:
    """What is known at one radius, as shares of all samples."""

    eps: float
    text: str
    certified: float | None
    """Certified samples; None where nothing tried to certify."""
    attacked: float
    """Samples that no attack has toppled."""


def accuracy_points(report: Report) -> list[AccuracyPoint]:
    """Return what a report knows of several radii, in rising order: those asked for, or a search's."""
    found = radius_curve(report)
    if found:
        return [AccuracyPoint(one.eps, f"{one.eps:.3g}", one.certified, one.attacked) for one in found]
    entries = () if report.summary is None else report.summary.per_eps
    entries = tuple(entry for entry in sorted(entries, key=lambda entry: entry.eps) if entry.n)
    only_attacked = report.command.split(" ")[0] == "attack" and not any(entry.certified for entry in entries)
    return [
        AccuracyPoint(
            eps=entry.eps,
            text=eps_text(report, entry.eps),
            certified=None if only_attacked else entry.certified / entry.n,
            attacked=(entry.certified + entry.unknown) / entry.n,
        )
        for entry in entries
    ]


def clean_share(report: Report) -> float | None:
    """Return the clean accuracy; None where it is not known."""
    clean = None if report.summary is None else report.summary.clean
    return None if clean is None or not clean.n else clean.k / clean.n


def plot_accuracy(report: Report, stream: BinaryIO) -> None:
    """Write the chart of a report of several radii as PNG."""
    with styled():
        figure = accuracy_band(accuracy_points(report), clean=clean_share(report), theme=LIGHT, narrow=False)
        write_png(figure, stream)


def draw_accuracy(points: Sequence[AccuracyPoint], *, clean: float | None, theme: Theme, narrow: bool) -> str:
    """Return `accuracy_band` as SVG."""
    with styled():
        return svg(accuracy_band(points, clean=clean, theme=theme, narrow=narrow))


def accuracy_band(points: Sequence[AccuracyPoint], *, clean: float | None, theme: Theme, narrow: bool) -> Figure:
    """Return the chart: robust accuracy lies within the band.

    It never grows with eps. So between two radii the certified share of the larger one is a lower bound and the
    attacked share of the smaller one an upper bound: the band's edges are steps, and nothing in it is interpolated.

    Args:
        points: one per radius, at least two, in rising order.
        clean: accuracy at eps 0; None where it is unknown.
        theme: the colours.
        narrow: for a phone.
    """
    eps = np.array([point.eps for point in points])
    upper = np.array([point.attacked for point in points])
    lower = np.array([0.0 if point.certified is None else point.certified for point in points])
    proved = any(point.certified is not None for point in points)
    size = 10.5
    with styled():
        figure = new_figure(4.4, 3.5) if narrow else new_figure(8.4, 3.5)
        axes = figure.add_subplot()
        start = 1.0 if clean is None else clean
        edges = np.concatenate([[0.0], eps])
        tops = np.concatenate([[start], upper])
        floors = np.concatenate([lower, lower[-1:]])
        # from one radius to the next: the floor is the next one's, the ceiling the last one's
        x = np.repeat(edges, 2)[1:-1]
        top, floor = np.repeat(tops[:-1], 2), np.repeat(floors[:-1], 2)
        axes.fill_between(x, floor, top, color=theme.unknown, alpha=0.16, linewidth=0)
        if proved:
            axes.fill_between(x, 0, floor, color=theme.certified, alpha=0.16, linewidth=0)
            axes.plot(x, floor, color=theme.certified, linewidth=1.6, clip_on=False)
            axes.plot(eps, lower, "o", color=theme.certified, markersize=5.5, clip_on=False, zorder=3)
        axes.plot([*x, eps[-1]], [*top, upper[-1]], color=theme.falsified, linewidth=1.6, clip_on=False)
        axes.plot(eps, upper, "o", color=theme.falsified, markersize=5.5, clip_on=False, zorder=3)
        if clean is not None:
            axes.plot([0], [clean], "D", color=theme.ink, markersize=5.5, clip_on=False, zorder=3)
            axes.annotate("clean", (0, clean), (8, 7), textcoords="offset points", color=theme.ink, fontsize=size)
        _name(axes, points, theme, size, narrow=narrow)
        axes.set_xlim(0, float(eps[-1]) * 1.001)
        axes.set_ylim(0, 1.0)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100 %"])
        places = _spread(eps, 0.13 if narrow else 0.06)
        axes.set_xticks([0.0, *eps[places]], ["0", *(label(points[place].text, longest=12) for place in places)])
        axes.set_xlabel("eps, in units of the data", color=theme.muted, fontsize=size)
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        dress(axes, theme, size=size)
        return figure


def _spread(eps: np.ndarray[tuple[int], np.dtype[np.float64]], least: float) -> list[int]:
    """Return the radii whose names have room: at least so far apart, as a share of the axis; the last one always."""
    kept = [len(eps) - 1]
    for place in range(len(eps) - 2, -1, -1):
        if eps[kept[-1]] - eps[place] >= least * eps[-1] and eps[place] >= least * eps[-1]:
            kept.append(place)
    return kept[::-1]


def _name(axes: Axes, points: Sequence[AccuracyPoint], theme: Theme, size: float, *, narrow: bool) -> None:
    """Write beside the right end of the edges what they are, in their colours; edges that meet leave them apart."""
    last = points[-1]
    named = [("no attack\nfound" if narrow else "no attack found", last.attacked, theme.falsified)]
    if last.certified is not None:
        named.append(("certified", last.certified, theme.certified))
    heights = apart([y for _, y, _ in named], least=0.17 if narrow else 0.1)
    for (text, _, colour), height in zip(named, heights, strict=True):
        axes.annotate(
            text,
            (1.0, height),
            (9, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=size,
            annotation_clip=False,
        )


def apart(values: Sequence[float], *, least: float) -> list[float]:
    """Return falling values in [0, 1] moved as little as it takes to lie `least` apart, two at most.

    Around their middle, but no further than the ends: both moved alike.
    """
    if len(values) < 2 or values[0] - values[1] >= least:
        return list(values)
    middle = min(max((values[0] + values[1]) / 2, least / 2), 1 - least / 2)
    return [middle + least / 2, middle - least / 2]
