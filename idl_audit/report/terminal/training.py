"""The sections of train: the model that was made, how well it fits, and which inputs act."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.table import Table

from idl_audit.report.schema import Training
from idl_audit.report.terminal.layout import Section, add_row, grid, heading, pair, table
from idl_audit.report.training import columns_of, training_facts
from idl_audit.report.wording import figure, plain

BAR: Final = 40
"""Characters of the longest bar."""


def training_sections(found: Training, most: int | None) -> Iterable[Section]:
    """Yield what was trained, and the chart of the columns where inputs were chosen; `most` limits its rows."""
    rows = grid()
    for name, value in training_facts(found):
        pair(rows, name, plain(value))
    yield "Training", rows
    if found.column_norms:
        acting, all_inputs = len(found.kept_inputs), len(found.column_norms)
        title = f"Inputs that act: {acting} of {all_inputs}; the other columns of (B; D) are exactly zero"
        yield heading(title, acting, most), _chart(found, most)


def _chart(found: Training, most: int | None) -> Table:
    rows = table(("input", "right"), ("norm of its column", "right"), ("", "left"))
    for place, norm, share in columns_of(found)[:most]:
        add_row(rows, (str(place), figure(norm), "#" * max(1, round(BAR * share))))
    return rows
