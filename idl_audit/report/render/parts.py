"""What a report on paper is made of, whatever the markup: sections of tables and of names with values.

Every string in a cell may come from a hostile file. A renderer makes it safe; nothing here does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from idl_audit.report.schema import Verdict

Kind: TypeAlias = Literal[
    "certified", "falsified", "unknown", "clean_wrong", "good", "bad", "info", "warning", "error", "quiet"
]
"""What a mark or a share stands for; a style sheet gives it a colour."""

VERDICTS: Final[dict[Verdict, Kind]] = {
    Verdict.CERTIFIED: "certified",
    Verdict.FALSIFIED: "falsified",
    Verdict.UNKNOWN: "unknown",
    Verdict.CLEAN_WRONG: "clean_wrong",
}


@dataclass(frozen=True)
class Mark:
    """A word with a colour: a verdict, passed or failed, a level."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class Dot(Mark):
    """A mark that is drawn without its word where there is little room."""


@dataclass(frozen=True)
class Name:
    """A name as it stands in a file: a path, a hash, a block. It is set in a typewriter face."""

    text: str


@dataclass(frozen=True)
class Jump:
    """A text that leads to another place of the document."""

    text: str
    key: str


@dataclass(frozen=True)
class Heat:
    """A number on a ground that is the stronger the larger its share, from 0 to 1."""

    text: str
    share: float

    @property
    def level(self) -> int:
        """The strength, from 0 for nothing to 5."""
        return min(5, math.ceil(5 * self.share)) if self.share > 0 else 0


@dataclass(frozen=True)
class Share:
    """A number with a bar behind it, from 0 to 1."""

    text: str
    share: float


@dataclass(frozen=True)
class Stack:
    """Counts side by side as one bar: colour, word, count."""

    counts: tuple[tuple[Kind, str, int], ...]

    @property
    def places(self) -> list[tuple[Kind, float, float]]:
        """Where each count starts and how long it is, in per cent of the whole."""
        total = sum(count for _, _, count in self.counts)
        placed, start = [], 0.0
        for kind, _, count in self.counts:
            width = 100 * count / total if total else 0.0
            if count:
                placed.append((kind, start, width))
            start += width
        return placed

    @property
    def text(self) -> str:
        """The counts in words."""
        return ", ".join(f"{count} {word}" for _, word, count in self.counts)


Cell: TypeAlias = str | int | Mark | Name | Jump | Heat | Share | Stack | None


FOLDED: Final = 500
"""Rows that are folded away together."""


@dataclass(frozen=True)
class Column:
    """The heading of a column; numbers stand on the right."""

    title: str
    right: bool = False


@dataclass(frozen=True)
class Table:
    """Rows below headings. Rows beyond `shown` may be folded away, many of them in parts."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    shown: int = 20
    searched: bool = False
    """Whether rows may be looked for, where the document can."""

    @property
    def folded(self) -> list[tuple[str, tuple[tuple[Cell, ...], ...]]]:
        """What is folded away: which rows they are, and the rows."""
        rest = range(self.shown, len(self.rows), FOLDED)
        if len(rest) == 1:
            return [(f"{len(self.rows) - self.shown} more", self.rows[self.shown :])]
        parts = [(at, self.rows[at : at + FOLDED]) for at in rest]
        return [(f"rows {at + 1} to {at + len(rows)}", rows) for at, rows in parts]


@dataclass(frozen=True)
class Pairs:
    """Names and values."""

    rows: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Detail:
    """What is told of one thing and folded away at first; `key` is its address within the document."""

    key: str
    title: str
    mark: Mark
    body: tuple[Table | Pairs, ...]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `key` is its address within the document."""

    key: str
    title: str
    body: tuple[Table | Pairs | Detail, ...] = ()
    intro: str = ""


@dataclass
class PairList:
    """Pairs in the making: what is None is left out."""

    rows: list[tuple[str, Cell]] = field(default_factory=list)

    def add(self, name: str, value: Cell) -> None:
        """Append a pair unless its value is None or empty."""
        if value is not None and value != "":
            self.rows.append((name, value))

    def done(self) -> Pairs:
        """Return the pairs."""
        return Pairs(tuple(self.rows))


def columns(*titles: str) -> tuple[Column, ...]:
    """Return columns; a title that starts with `>` is of numbers."""
    return tuple(Column(title.removeprefix(">"), title.startswith(">")) for title in titles)


def table(
    caption: str,
    titles: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    note: str = "",
    shown: int = 20,
    searched: bool = False,
) -> Table:
    """Return a table with these headings."""
    return Table(caption, columns(*titles), tuple(tuple(row) for row in rows), note, shown, searched)


def verdict_mark(verdict: Verdict) -> Mark:
    """Return the verdict in words and colour."""
    return Mark(verdict.value.replace("_", " "), VERDICTS[verdict])
