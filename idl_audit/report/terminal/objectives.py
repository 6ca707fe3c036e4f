"""The table of objectives: at the sample, reached, proved."""

from __future__ import annotations

from collections.abc import Iterable

from idl_audit.report.schema import Report
from idl_audit.report.terminal.layout import Cell, Section, add_columns, add_row, heading, table
from idl_audit.report.wording import eps_text, figure
from idl_audit.report.worst_first import farthest_first


def objective_sections(report: Report, most: int | None, *, wide: bool) -> Iterable[Section]:
    """Yield the table, the farthest values first."""
    entries = farthest_first(report.objectives)
    sense = entries[0].sense
    rows = table(("sample", "right"), ("eps", "right"), ("at sample", "right"), (f"{sense} found", "right"))
    add_columns(rows, ("proved at most" if sense == "largest" else "proved at least", "right"), ("method", "left"))
    if wide:
        add_columns(rows, ("reason", "left"), ("seconds", "right"))
    for entry in entries[:most]:
        cells: list[Cell] = [entry.index, eps_text(report, entry.eps), figure(entry.at_sample), figure(entry.reached)]
        cells += [figure(entry.proved), entry.method]
        if wide:
            cells += [entry.reason.value if entry.reason else None, figure(entry.seconds)]
        add_row(rows, cells)
    yield heading("Objective, farthest first", len(entries), most), rows
