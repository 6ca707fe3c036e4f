"""Rows of cells out of text: what separates them, and which lines count. The one reader of tables that are text.

Commas, semicolons, tabs or blanks separate: what stands in all of the first lines, outside quotation marks. Excel's
first line `sep=;` is believed. Lines that begin with # are comments where the caller says so.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final

from idl_audit.data.cells import kind_of
from idl_audit.values.errors import DataError

BLANK: Final = " "
ALL: Final = ";\t, "
"""The separators, those first that are nothing else."""
NAMES: Final = MappingProxyType({";": "semicolons", "\t": "tabs", ",": "commas", BLANK: "blanks", "": "none"})
"""Separator -> its name; the empty text stands for a table of one column."""

_LOOKED_AT: Final = 20
"""Lines that the separator is told by."""
_NOWHERE: Final = "\x1f"
"""Stands for the separator of a table of one column."""
_EXCEL: Final = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Row:
    """One row: where it begins in the file, counted from 1, and its cells without the blanks around them."""

    line: int
    cells: list[str]


class Rows:
    """The rows of a text, one after the other; lines without anything in them are passed over.

    Rows of nothing but separators count only where others follow: spreadsheets leave some at the end.
    """

    def __init__(self, text: str, path: Path, *, comments: bool, ragged: bool = False, separators: str = ALL) -> None:
        self._path = path
        self._comments = comments
        self._lines = text.split("\n")
        self._start = 0
        self.comment = ""
        """The last comment before the first row: a heading, where numpy wrote it."""
        named = self._excel(separators)
        first = [line for _, line in islice(self._content(), _LOOKED_AT)]
        self.separator = separator_of(first, separators, ragged=ragged) if named is None else named

    @property
    def name(self) -> str:
        """What separates the cells, in words."""
        return NAMES[self.separator]

    def _excel(self, known: str) -> str | None:
        for number, line in enumerate(self._lines):
            if line.strip():
                match = _EXCEL.fullmatch(line)
                if match is None:
                    return None
                if match[1] not in known:
                    raise DataError(
                        f"{self._path}, line {number + 1} names {match[1]!r} as separator; separate by commas, "
                        "semicolons or tabs"
                    )
                self._start = number + 1
                return match[1]
        return None

    def _content(self) -> Iterator[tuple[int, str]]:
        """Yield the lines that are neither empty nor comments, with their numbers."""
        begun = False
        for number in range(self._start, len(self._lines)):
            line = self._lines[number]
            if not line.strip():
                continue
            if self._comments and line.lstrip().startswith("#"):
                if not begun:
                    self.comment = line.lstrip().lstrip("#").strip()
                continue
            begun = True
            yield number + 1, line

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows. Raises DataError where quotation marks do not end."""
        waiting: list[Row] = []
        for row in self._split():
            if not any(row.cells):
                waiting.append(row)
                continue
            yield from waiting
            waiting.clear()
            yield row

    def cells_of(self, line: str) -> list[str]:
        """Return the cells of one line."""
        if self.separator == BLANK:
            return _words(line)
        return [cell.strip() for cell in next(self._reader([line]), [])]

    def _reader(self, lines: Iterable[str], *, strict: bool = False) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.separator or _NOWHERE, strict=strict, skipinitialspace=True)

    def _split(self) -> Iterator[Row]:
        if self.separator == BLANK:
            yield from (Row(number, _words(line)) for number, line in self._content())
            return
        number = 0

        def lines() -> Iterator[str]:
            nonlocal number
            for found, line in self._content():
                number = number or found
                yield line + "\n"

        try:
            for cells in self._reader(lines(), strict=True):
                yield Row(number, [cell.strip() for cell in cells])
                number = 0
        except csv.Error as error:
            raise DataError(
                f"{self._path}, line {number} is no row of a table ({error}); separated by {self.name}, with quotation "
                "marks in pairs"
            ) from None


def separator_of(lines: Sequence[str], known: str = ALL, *, ragged: bool = False) -> str:
    """Return what separates the cells of the first lines of a table; the empty text where nothing does.

    A separator stands in every line outside quotation marks, semicolons before tabs before commas before blanks: the
    later ones may be decimal marks, or fill up. Where none stands in all lines, the last line that has one decides: the
    others will be found too short. Where rows may be `ragged`, the first.
    """
    bare = [_QUOTED.sub('""', line).strip() for line in lines]
    if ragged:
        return next(filter(None, (_in_all([line], known) for line in bare)), "")
    marks = known.replace(BLANK, "")  # a blank within a heading separates nothing
    tried = [(bare, known), (bare[-1:], known), *(([line], marks) for line in reversed(bare))]
    return next(filter(None, (_in_all(group, chars) for group, chars in tried if group)), "")


def _in_all(lines: Sequence[str], known: str) -> str:
    """Return what stands in every line; the empty text where nothing does."""
    for separator in known:
        if separator == BLANK:
            found = all(len(line.split()) > 1 for line in lines)
        else:
            found = all(separator in line for line in lines) and not _fills(separator, lines)
        if found:
            return BLANK if separator == "," and BLANK in known and _is_decimal(lines[-1]) else separator
    return ""


def _fills(separator: str, lines: Sequence[str]) -> bool:
    """Return whether tabs only follow the commas that separate."""
    return separator == "\t" and all(
        all(part.rstrip().endswith(",") for part in line.split("\t")[:-1]) for line in lines
    )


def _is_decimal(line: str) -> bool:
    """Return whether commas are decimal marks of numbers between blanks: only then all parts are numbers."""
    by_comma = [kind_of(cell.strip()) for cell in line.split(",")]
    by_blank = [kind_of(cell) for cell in line.split()]
    return len(by_blank) > 1 and set(by_blank) <= {"number", "missing"} and "text" in by_comma


def _words(line: str) -> list[str]:
    return [word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word for word in line.split()]
