"""Several reports as one page: a table, and clean accuracy against certified accuracy. No script, nothing loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from idl_audit.report.render.html import MARK, beside, environment, hashed
from idl_audit.report.render.parts import Kind, Mark, Share
from idl_audit.report.side_by_side import (
    Entry,
    SideBySide,
    certified,
    file_name,
    gate_text,
    seconds_text,
    share_text,
    threat_text,
)
from idl_audit.report.wording import plain

WIDTH: Final = 320
EDGE: Final = 34
"""Room for the numbers at two sides."""
MOST_CHARTS: Final = 3
"""Radii that have a chart: the smallest, the largest, and one between them."""


@dataclass(frozen=True)
class Point:
    """Audits at one place of a chart: their numbers in the table."""

    x: float
    y: float
    text: str
    told: str


@dataclass(frozen=True)
class Chart:
    """Clean accuracy (right) against certified accuracy (up) at one radius."""

    eps: str
    points: tuple[Point, ...]
    alt: str


def to_page(found: SideBySide, place: Path, *, made_by: str) -> str:
    """Return the page of an index that is at `place`; links to reports start at its folder."""
    style = beside("report.css") + beside("side_by_side.css")
    policy = f"default-src 'none'; style-src {hashed(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    folder = place.absolute().parent
    return (
        environment()
        .get_template("side_by_side.html.j2")
        .render(
            mark=Markup(MARK),
            policy=policy,
            style=Markup(style),
            kicker=made_by,
            sentence=found.sentence(),
            complete=all(entry.status == "complete" for entry in found.entries),
            notes=list(found.notes()),
            radii=[text for text, _ in found.radii],
            rows=[_row(number, entry, found, folder) for number, entry in enumerate(found.entries, 1)],
            problems=[(entry.name, plain(entry.problem)) for entry in found.entries if entry.problem],
            charts=list(_charts(found)),
            width=WIDTH,
            edge=EDGE,
        )
        .strip()
        + "\n"
    )


@dataclass(frozen=True)
class _Row:
    number: int
    name: str
    link: str | None
    model: str
    data: str
    threat: str
    n: str
    parameters: str
    clean: Share | None
    shares: tuple[Share | None, ...]
    gate: Mark
    seconds: str


def _row(number: int, entry: Entry, found: SideBySide, folder: Path) -> _Row:
    report = entry.report
    model, data = (None, None) if report is None else (report.model, report.data)
    link = None if report is None else quote(Path(os.path.relpath(entry.file.absolute(), folder)).as_posix())
    kinds: dict[str, Kind] = {"passed": "good", "failed": "bad", "complete": "info"}
    state = gate_text(entry) if entry.status == "complete" else entry.status
    state = "complete" if state == "-" else state
    return _Row(
        number,
        entry.name,
        link,
        file_name(None if model is None else model.path),
        file_name(None if data is None else data.source),
        "-" if report is None else threat_text(report),
        "-" if data is None else f"{data.n:,}",
        "-" if model is None else f"{model.n_parameters:,}",
        _share(entry.clean),
        tuple(_share(certified(entry, eps)) for _, eps in found.radii),
        Mark(state, kinds.get(state, "warning")),
        seconds_text(entry),
    )


def _share(counts: tuple[int, int] | None) -> Share | None:
    return None if counts is None or not counts[1] else Share(share_text(counts), counts[0] / counts[1])


def _charts(found: SideBySide) -> Iterator[Chart]:
    shown = found.radii
    if len(shown) > MOST_CHARTS:
        shown = (shown[0], shown[len(shown) // 2], shown[-1])
    for text, eps in shown:
        chart = _chart(found, text, eps)
        if chart is not None:
            yield chart


def _chart(found: SideBySide, text: str, eps: float) -> Chart | None:
    """Return a chart; None where fewer than two audits have both figures."""
    places: dict[tuple[float, float], list[tuple[int, str]]] = {}
    for number, entry in enumerate(found.entries, 1):
        clean, proved = entry.clean, certified(entry, eps)
        if clean is not None and proved is not None and clean[1] and proved[1]:
            at = (round(clean[0] / clean[1], 3), round(proved[0] / proved[1], 3))
            places.setdefault(at, []).append((number, entry.name))
    if sum(map(len, places.values())) < 2:
        return None
    size = WIDTH - 2 * EDGE
    points = tuple(
        Point(
            EDGE + x * size,
            EDGE + (1 - y) * size,
            ",".join(str(number) for number, _ in own),
            f"{', '.join(name for _, name in own)}: {100 * x:g} % clean, {100 * y:g} % certified",
        )
        for (x, y), own in sorted(places.items())
    )
    return Chart(
        text, points, f"Clean against certified accuracy at eps {text}. " + "; ".join(one.told for one in points)
    )
