"""Numbers as text: one row for each sample, with or without a heading, as spreadsheets and programs write them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.data.array_files import ArrayFile
from idl_audit.data.cells import Cells, kind_of, shown
from idl_audit.data.rows import Row, Rows
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import DataError
from idl_audit.values.text import decoded

MAX_BYTES: Final = 2**30
"""Largest text file of samples (1 GiB)."""

LABEL_COLUMNS: Final = frozenset({"label", "labels", "y", "class", "target"})
"""Headings, in small letters, of the column that holds the labels."""
SURE_LABELS: Final = frozenset({"label", "labels"})
"""Those that are taken where several of them are there: y, class or target may be inputs then."""

INPUTS: Final = "inputs"
LABELS: Final = "labels"
_ADVICE: Final = "give one row of numbers for each sample"
MOST_NOTED: Final = 10_000
"""Rows with a missing number whose places are kept."""
_UNDERSCORED: Final = re.compile(r"[0-9]_[0-9]")


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    heading: the names of the columns, empty where there is none. rows: one array a row, as long as the heading; not
    always equally long where nothing asked for that. missing: row -> the first of its cells without a number, in words.
    """

    heading: tuple[str, ...]
    rows: tuple[FloatArray, ...]
    missing: MappingProxyType[int, str]


@dataclass(frozen=True)
class Aside:
    """Columns that samples are grouped by: inputs only where all others, labels left out, are too few for p."""

    names: tuple[str, ...]
    p: int


def read_table(path: Path, wanted: Sequence[Sequence[str]], aside: Aside | None = None) -> ArrayFile:
    """Return the numbers of a CSV file: the column that its heading calls label as labels, all others as inputs.

    A file that only labels are asked of may have them as its only column, or its only row. A group of other names asks
    for the column with that heading, shape (n, 1). Commas, semicolons, tabs and
    blanks separate; decimal commas are read where they cannot be anything else. Missing numbers are NaN.

    Raises:
        DataError: where the text is too large, is no table, can be read in two ways, or has an entry that is no number.
    """
    content = _content(path)
    table = parse_table(decoded(content, path, _ADVICE), path, aside=aside)
    if not table.rows:
        raise DataError(f"{path} holds no samples: it has {'only a heading' if table.heading else 'no rows'}")
    numbers = np.array(table.rows, np.float64)
    refuse_index(path, table.heading)
    place = label_column(path, table.heading)
    labels: AnyArray | None = None if place is None else numbers[:, place]
    inputs = numbers if place is None else np.delete(numbers, place, axis=1)
    if all(LABELS in group for group in wanted) and labels is None:
        labels = _only_labels(path, numbers, table.heading)
    arrays = tuple(
        labels if LABELS in group else inputs if INPUTS in group else _column(group, table.heading, numbers)
        for group in wanted
    )
    return ArrayFile(arrays, table.heading, hashlib.sha256(content).hexdigest(), table.missing)


def _content(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES / 2**30:g} GiB of text; save the samples with numpy.savez")
    return path.read_bytes()


def read_texts(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Return columns of a table as they are written, by their headings.

    Raises:
        DataError: where the file is no table with a heading, or a column is not there once.
    """
    rows = Rows(decoded(_content(path), path, _ADVICE), path, comments=True)
    body = iter(rows)
    first = next(body, None)
    heading = [] if first is None else first.cells
    for name in names:
        _check_heading(path, heading, name)
    places = [heading.index(name) for name in names]
    columns: list[list[str]] = [[] for _ in names]
    for row in body:
        if len(row.cells) != len(heading):
            _refuse_ragged(path, row, heading, len(heading), rows.name)
        for column, place in zip(columns, places, strict=True):
            column.append(row.cells[place])
    return dict(zip(names, columns, strict=True))


def _check_heading(path: Path, heading: Sequence[str], name: str) -> None:
    """Refuse a table in which not exactly one column has this heading."""
    if heading.count(name) != 1:
        found = ", ".join(map(shown, heading[:10])) + (", ..." if len(heading) > 10 else "")
        raise DataError(
            f"{path} has {'no' if name not in heading else 'more than one'} column with the heading {shown(name)}; its "
            f"first line has {found or 'nothing'}"
        )


def _column(group: Sequence[str], heading: Sequence[str], numbers: FloatArray) -> FloatArray | None:
    """Return the column with one of these headings, where there is exactly one."""
    places = [place for place, name in enumerate(heading) if name in group]
    return numbers[:, places] if len(places) == 1 else None


def parse_table(text: str, path: Path, *, equal: bool = True, aside: Aside | None = None) -> Table:
    """Return the numbers of a text; `equal` asks for rows of one length.

    Columns that are put `aside` are as if they were not there.

    Raises:
        DataError: where it is no table of numbers, or can be read in two ways.
    """
    rows = Rows(text, path, comments=True, ragged=not equal)
    heading, body = _headed(path, rows, equal=equal)
    left_out = _left_out(path, heading, aside)
    if left_out:
        width = len(heading)
        heading = [name for place, name in enumerate(heading) if place not in left_out]
        body = _without(path, body, left_out, width, rows.name)
    reader = _Numbers(path, rows, heading, careful=_may_mislead(text, rows.separator))
    values: list[FloatArray] = []
    for row in body:
        values.append(reader.row(row, len(values)))
        if equal and len(values[-1]) != (len(heading) or len(values[0])):
            _refuse_ragged(path, row, heading, len(values[0]), rows.name)
    reader.cells.check_marks()
    if len(values) and reader.last_is_empty:
        values = [value[:-1] for value in values]
        heading = heading[:-1]
    return Table(tuple(heading), tuple(values), MappingProxyType(reader.missing))


def _left_out(path: Path, heading: Sequence[str], aside: Aside | None) -> frozenset[int]:
    """Return the places of the columns that are put aside: none where the inputs need them.

    Raises:
        DataError: where there is no heading to find them by.
    """
    if aside is None:
        return frozenset()
    found = frozenset(place for place, name in enumerate(heading) if name in aside.names)
    if not heading:
        raise DataError(f"{path} has no heading, and samples are to be grouped by {aside.names[0]}; name its columns")
    for name in aside.names:
        _check_heading(path, heading, name)
    labelled = any(name.lower() in LABEL_COLUMNS for name in heading)
    return frozenset() if len(heading) - labelled == aside.p else found


def _without(path: Path, body: Iterator[Row], places: frozenset[int], width: int, separator: str) -> Iterator[Row]:
    """Yield rows without some of their cells. Raises DataError where a row has not as many as the heading."""
    for row in body:
        if len(row.cells) != width:
            above = f"the heading {width}"
            raise DataError(
                f"{path}, line {row.line} has {len(row.cells)} entries, and {above}, separated by {separator}; give "
                "every sample one row of the same length"
            )
        yield Row(row.line, [cell for place, cell in enumerate(row.cells) if place not in places])


def _split_further(row: Row) -> Row:
    """Return a row of a list of numbers, in which blanks separate beside what else does."""
    cells = [[cell] if kind_of(cell) != "text" else cell.split() for cell in row.cells]
    return Row(row.line, [word for words in cells for word in words])


def _may_mislead(text: str, separator: str) -> bool:
    """Return whether some cell may have a comma, or an underscore that Python passes over in a number."""
    comma = '"' if separator == "," else ","
    return comma in text or _UNDERSCORED.search(text) is not None


class _Numbers:
    """Turns rows into arrays; most have plain numbers only, and go fast."""

    def __init__(self, path: Path, rows: Rows, heading: Sequence[str], *, careful: bool) -> None:
        self.cells = Cells(path, rows.name)
        self._noted: dict[int, str] = {}
        self._at_end: dict[int, str] = {}
        """Rows behind whose last separator nothing stands."""
        self.last_is_empty = not (heading and heading[-1])
        """Whether every line ends with a separator, behind which nothing stands."""
        self._heading, self._careful = heading, careful

    def row(self, row: Row, number: int) -> FloatArray:
        """Return the numbers of a row. Raises DataError where there are others."""
        self.last_is_empty &= len(row.cells) > 1 and not row.cells[-1]
        if not self._careful:
            try:
                values = np.array([float(cell) for cell in row.cells], np.float64)
            except ValueError:
                pass
            else:
                if not np.isnan(values).any():
                    return values
        return np.array([self._number(row, number, column) for column in range(len(row.cells))], np.float64)

    def _number(self, row: Row, number: int, column: int) -> float:
        cell = row.cells[column]
        value = self.cells.number(cell, lambda: self._where(row, column))
        if math.isnan(value):
            noted = self._at_end if not cell and column == len(row.cells) - 1 else self._noted
            if len(noted) < MOST_NOTED:
                noted.setdefault(number, f"{self._where(row, column)} has {shown(cell) if cell else 'nothing'}")
        return value

    def _where(self, row: Row, column: int) -> str:
        name = self._heading[column] if column < len(self._heading) else ""
        return f"line {row.line}, column {column + 1}" + (f" ({shown(name)})" if name else "")

    @property
    def missing(self) -> dict[int, str]:
        """Where the first number of a row is missing."""
        return self._noted if self.last_is_empty else {**self._at_end, **self._noted}


def _headed(path: Path, rows: Rows, *, equal: bool) -> tuple[list[str], Iterator[Row]]:
    """Return the heading, empty where there is none, and the rows below it."""
    body = iter(rows) if equal else map(_split_further, rows)
    first = next(body, None)
    if first is None:
        return [], body
    if _is_heading(path, first):
        return first.cells, body
    second = next(body, None) if equal else None
    if second is not None:
        body = chain([second], body)
        if _counts_columns(path, first, second):
            return first.cells, body
    noted = rows.cells_of(rows.comment) if rows.comment else []
    is_heading = len(noted) == len(first.cells) and any(kind_of(cell) == "text" for cell in noted)
    return noted if is_heading else [], chain([first], body)


def _is_heading(path: Path, row: Row) -> bool:
    """Return whether the first row names the columns: some text, and no numbers unless one column is named label.

    Raises:
        DataError: where it has text beside numbers: it may be a sample with an entry that is no number.
    """
    kinds = [kind_of(cell) for cell in row.cells]
    numbers = [cell for cell, kind in zip(row.cells, kinds, strict=True) if kind in ("number", "truth")]
    if not numbers:
        return "text" in kinds
    if "text" not in kinds:  # pandas: nothing above its index, and numbers for names
        return len(kinds) == len(numbers) + 1 > 2 and row.cells[0] == "" and _counts(numbers)
    if any(cell.lower() in LABEL_COLUMNS for cell in row.cells):
        return True
    column = kinds.index("text")
    raise DataError(
        f"{path}, line {row.line} has {shown(row.cells[column])} in column {column + 1} beside numbers, which is no "
        "heading and no row of numbers; mend it (classes are whole numbers from 0), or give every column a name"
    )


def _counts_columns(path: Path, first: Row, second: Row) -> bool:
    """Return whether the first row is 0, 1, 2, ... above numbers with decimals: pandas writes that above no names.

    Raises:
        DataError: where the numbers below are whole as well, and it may be a sample.
    """
    if len(first.cells) < 3 or not _counts(first.cells):
        return False
    if all(kind_of(cell) == "number" and not cell.lstrip("+-").isdecimal() for cell in second.cells):
        return True
    raise DataError(
        f"{path}, line {first.line} counts the columns from 0: a heading, as pandas writes it, or a sample? Give the "
        "columns names, or leave the line out: to_csv(..., header=False)"
    )


def _counts(cells: Sequence[str]) -> bool:
    return all(cell == str(k) for k, cell in enumerate(cells))


def _refuse_ragged(path: Path, row: Row, heading: Sequence[str], width: int, separator: str) -> None:
    above = f"the heading {len(heading)}" if heading else f"the first line {width}"
    hint = ""
    if len(row.cells) > (len(heading) or width):
        hint = " (commas that are decimal marks need semicolons or tabs between the columns)"
        hint = hint if separator == "commas" else ""
    raise DataError(
        f"{path}, line {row.line} has {len(row.cells)} entries, and {above}, separated by {separator}{hint}; "
        "give every sample one row of the same length"
    )


def refuse_index(path: Path, heading: Sequence[str]) -> None:
    """Refuse a column that only counts the rows: pandas writes it, and it is no input. Raises DataError."""
    if heading and (not heading[0] or heading[0].lower().startswith("unnamed:")) and len(heading) > 1:
        name = f"the name {shown(heading[0])}" if heading[0] else "no name"
        raise DataError(
            f"{path} has a first column with {name}, as pandas writes the index of the rows; leave it out, "
            "to_csv(..., index=False), or name it where it is an input"
        )


def label_column(path: Path, heading: Sequence[str]) -> int | None:
    """Return where the labels are. Raises DataError where several columns may be meant."""
    found = [k for k, name in enumerate(heading) if name.lower() in LABEL_COLUMNS]
    sure = [k for k in found if heading[k].lower() in SURE_LABELS]
    if len(sure) == 1 or len(found) == 1:
        return (sure or found)[0]
    if not found:
        return None
    names = " and ".join(shown(heading[k]) for k in found[:3])
    raise DataError(f"{path} has the columns {names}, each of which may hold the labels; call one of them label")


def _only_labels(path: Path, numbers: FloatArray, heading: Sequence[str]) -> FloatArray:
    """Return the labels of a file that is asked for nothing else: its only column, or its only row."""
    if numbers.shape[1] == 1 or (numbers.shape[0] == 1 and not heading):
        return numbers.reshape(-1)
    raise DataError(
        f"{path} has {numbers.shape[1]} columns, none of which is called label; give one column of class numbers, or "
        "call it label in the heading"
    )
