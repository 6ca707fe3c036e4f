"""Several reports as a table, one a row."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

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
from idl_audit.report.terminal.layout import WIDE, Cell, Column, Section, add_row, table
from idl_audit.report.wording import plain

MOST_RADII = 4
"""Columns of radii in a narrow table: the smallest ones."""


def sections(found: SideBySide, *, width: int, verbose: bool = False) -> Iterator[Section]:
    """Yield the table, and what is to be known of it."""
    wide = width >= WIDE
    radii = found.radii if wide or verbose else found.radii[:MOST_RADII]
    columns: list[Column] = [("audit", "left")]
    columns += [("model", "left"), ("data", "left"), ("set", "left")] if wide else []
    columns += [("n", "right"), ("params", "right"), ("clean", "right")]
    columns += [(f"@{text}", "right") for text, _ in radii]
    columns += [("gate", "left"), ("time", "right")]
    made = table(*columns)
    for entry in found.entries:
        add_row(made, _row(entry, [value for _, value in radii], wide=wide))
    yield "Side by side (@eps: certified there)", made
    notes = [*found.notes(), *(f"{one.name}: {plain(one.problem)}" for one in found.entries if one.problem)]
    if len(radii) < len(found.radii):
        notes.append(f"{len(found.radii) - len(radii)} more radii are in the index and on the page.")
    if notes:
        yield "Notes", Text("\n".join(notes))


def _row(entry: Entry, radii: list[float], *, wide: bool) -> list[Cell]:
    report = entry.report
    if report is None:
        return [entry.name, *([None] * (6 if wide else 3)), *([None] * len(radii)), entry.status, None]
    data = None if report.data is None else report.data
    model = report.model
    first: list[Cell] = [entry.name]
    if wide:
        told = file_name(None if model is None else model.path), file_name(None if data is None else data.source)
        first += [*told, threat_text(report)]
    first += [None if data is None else str(data.n), None if model is None else f"{model.n_parameters:,}"]
    first += [share_text(entry.clean), *(share_text(certified(entry, eps)) for eps in radii)]
    gate = gate_text(entry)
    state = Text(gate, style={"passed": "green", "failed": "red"}.get(gate, ""))
    return [*first, state if entry.status == "complete" else Text(entry.status, style="yellow"), seconds_text(entry)]
