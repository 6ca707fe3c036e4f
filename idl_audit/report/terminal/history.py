"""How figures moved from commit to commit, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.table import Table
from rich.text import Text

from idl_audit.report.history import Series, change
from idl_audit.report.terminal.layout import Cell, Section, add_columns, add_row, table
from idl_audit.report.wording import plain

MOST: Final = 20
"""So many commits are shown, the last ones."""
MOST_ACROSS: Final = 5
"""So many side by side, with -v."""
MOST_FIGURES: Final = 5
FIRST: Final = ("clean_accuracy", "certified_accuracy", "agreement", "monotone", "norm_inf_S", "attack_success")
"""What is told where there is no room for all."""


def history_sections(series: Iterable[Series], *, verbose: bool) -> Iterable[Section]:
    """Yield a table for each model and question, the last commit at the bottom."""
    for one in series:
        most = MOST_ACROSS if verbose else MOST
        left = max(0, len(one.entries) - most)
        note = f", the last {most} of {len(one.entries)} commits" if left else ""
        heading = f"{plain(one.model)}, question {one.question}{note}"
        yield heading, _all_figures(one, left) if verbose else _table(one, left)


def _all_figures(series: Series, first: int) -> Table:
    """A row for each figure, a column for each of the last commits."""
    made = table(("figure", "left"), *((entry.commit[:12], "right") for entry in series.entries[first:]))
    for name in series.names:
        cells: list[Cell] = [name]
        for place in range(first, len(series.entries)):
            moved = [one.point(name) for one in series.entries[: place + 1]]
            cells.append(change(moved) if moved[-1] is not None else None)
        add_row(made, cells)
    return made


def _table(series: Series, first: int) -> Table:
    names = chosen(series.names)
    made = table(("commit", "left"), ("added", "left"))
    add_columns(made, *((name, "right") for name in names))
    for place in range(first, len(series.entries)):
        entry = series.entries[place]
        cells: list[Cell] = [entry.commit[:12], entry.added[:16].replace("T", " ")]
        if not entry.complete:
            cells[0] = Text(f"{entry.commit[:12]} (incomplete)", style="yellow")
        for name in names:
            moved = [one.point(name) for one in series.entries[: place + 1]]
            cells.append(change(moved) if moved[-1] is not None else None)
        add_row(made, cells)
    return made


def chosen(names: Iterable[str]) -> list[str]:
    """Return the figures that matter most, in the order of FIRST."""
    ranked = {name: FIRST.index(name.split("@")[0]) for name in names if name.split("@")[0] in FIRST}
    return sorted(ranked, key=lambda name: ranked[name])[:MOST_FIGURES]
