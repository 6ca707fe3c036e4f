"""How tables look. Every string becomes `Text` by way of `plain`: rich never reads a file's strings as markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from idl_audit.report.schema import Verdict
from idl_audit.report.wording import plain

MAX_ROWS: Final = 20
"""Rows of a long table unless all were asked for."""

UNBROKEN: Final = frozenset({"eps", "margin", "reason", "verdict"})
"""Headings of columns whose words are never folded."""

WIDE: Final = 140
"""From this console width on, tables show their less important columns as well."""

COLOURS: Final[Mapping[Verdict, str]] = MappingProxyType(
    {
        Verdict.CERTIFIED: "green",
        Verdict.FALSIFIED: "red",
        Verdict.UNKNOWN: "yellow",
        Verdict.CLEAN_WRONG: "magenta",
    }
)

Cell: TypeAlias = Text | str | int | None
Column: TypeAlias = tuple[str, Literal["left", "right"]]
Section: TypeAlias = tuple[str, RenderableType]
"""A heading and what stands below it."""


def table(*columns: Column) -> Table:
    """Return an empty table with these headings."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    add_columns(made, *columns)
    return made


def add_columns(to: Table, *columns: Column) -> None:
    """Append columns; long words are folded, never cut."""
    for heading, justify in columns:
        to.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=heading in UNBROKEN)


def add_row(to: Table, cells: Iterable[Cell]) -> None:
    """Append a row; None shows as `-`, strings are made safe."""
    to.add_row(*(_text(cell) for cell in cells))


def grid() -> Table:
    """Return an empty list of names and values."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    return made


def pair(to: Table, name: str, value: Cell) -> None:
    """Append a name and its value."""
    to.add_row(Text(name), _text(value))


def heading(title: str, rows: int, most: int | None) -> str:
    """Return the title, with a note where only the first `most` rows are shown."""
    return title if most is None or rows <= most else f"{title} ({most} of {rows}; -v shows all)"


def verdict_name(verdict: Verdict) -> str:
    """Return the verdict in words."""
    return verdict.value.replace("_", " ")


def in_colour(verdict: Verdict, text: str) -> Text:
    """Return the text in the verdict's colour."""
    return Text(text, style=COLOURS[verdict])


def _text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text("-" if cell is None else plain(cell))
