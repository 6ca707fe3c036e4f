"""How figures moved from commit to commit, as one page without a script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup

from idl_audit.report.history import Series, change
from idl_audit.report.pictures import DARK, LIGHT
from idl_audit.report.pictures.history import draw_history, lines_of
from idl_audit.report.render.html import environment
from idl_audit.report.render.html_pictures import Picture, in_four_forms
from idl_audit.report.render.parts import Cell, Mark, Name, Table, table


def to_page(series: Sequence[Series]) -> str:
    """Return a section for each model and question: lines of its shares, and all figures, the last commit first."""
    style = (files("idl_audit.report.render") / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    sections = [(f"series-{place}", one, _picture(one), _table(one)) for place, one in enumerate(series)]
    made = environment().get_template("history.html.j2")
    return made.render(policy=policy, style=Markup(style), sections=sections).strip() + "\n"


def _picture(series: Series) -> Picture | None:
    names = lines_of(series)
    if len(series.entries) < 2 or not names:
        return None

    def draw(dark: bool, narrow: bool) -> str:
        return draw_history(series, theme=DARK if dark else LIGHT, narrow=narrow)

    alt = f"Lines of {', '.join(names)} over {len(series.entries)} commits; the figures stand in the table below."
    return in_four_forms("history", draw, alt, "Shares of samples, commit by commit, in the order in which they came.")


def _table(series: Series) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for place in range(len(series.entries) - 1, -1, -1):
        entry = series.entries[place]
        status = Mark("complete", "good") if entry.complete else Mark("incomplete", "warning")
        moved = [[one.point(name) for one in series.entries[: place + 1]] for name in series.names]
        told = [change(points) if points[-1] is not None else None for points in moved]
        rows.append((Name(entry.commit[:12]), entry.added[:16].replace("T", " "), status, *told))
    titles = ("commit", ">added", "", *(f">{name}" for name in series.names))
    return table("Figures, the last commit first", titles, rows, shown=50)
