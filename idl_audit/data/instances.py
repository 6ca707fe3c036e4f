"""Lists of properties to decide: CSV files with the columns onnx, vnnlib, timeout and perhaps truth.

The competition's own files have three columns and no heading; with a heading, further columns are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from idl_audit.data.rows import Rows
from idl_audit.values.errors import DataError
from idl_audit.values.text import decoded

Truth: TypeAlias = Literal["sat", "unsat", "unknown", "timeout"]

MAX_BYTES: Final = 10**7
MAX_ROWS: Final = 100_000
_NEEDED: Final = "give a CSV file with the columns onnx, vnnlib, timeout"
COLUMNS: Final = ("onnx", "vnnlib", "timeout", "truth")
"""The order of the columns where there is no heading."""


@dataclass(frozen=True)
class Instance:
    """One row: a network, a property, and what is known of them."""

    onnx: str
    vnnlib: str
    timeout: float | None
    """Seconds; None where the row does not say."""
    truth: Truth | None


def read_instances(path: Path) -> tuple[Instance, ...]:
    """Return the rows of an instances file; paths are as they are written, relative to the file's folder.

    Raises:
        DataError: where the file cannot be read or a row does not say what it should.
    """
    try:
        if not path.exists():
            raise DataError(f"{path}: there is no such file; check the path")
        if not path.is_file():
            raise DataError(f"{path} is not a regular file; give a .csv file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES // 10**6} MB; split it")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_NEEDED}") from error
    rows = Rows(decoded(content, path, _NEEDED), path, comments=True)
    numbered = [(row.line, row.cells) for row in rows]
    if not numbered:
        raise DataError(f"{path} has no rows; {_NEEDED}")
    if len(numbered) > MAX_ROWS:
        raise DataError(f"{path} has more than {MAX_ROWS:,} rows; split it")
    places = _heading(numbered[0][1])
    if places is not None:
        del numbered[0]
    if not numbered:
        raise DataError(f"{path} has a heading and no rows")
    return tuple(_instance(f"{path}, line {number}", row, places, rows.name) for number, row in numbered)


def _heading(row: list[str]) -> dict[str, int] | None:
    """Return where the columns are by the heading, or None where the row is no heading."""
    names = ["timeout" if name in ("timeout_s", "timeout") else name for name in (cell.lower() for cell in row)]
    if not {"onnx", "vnnlib"}.issubset(names):
        return None
    return {name: names.index(name) for name in COLUMNS if name in names}


def _instance(where: str, row: list[str], places: dict[str, int] | None, separator: str) -> Instance:
    if places is None:
        if not 3 <= len(row) <= len(COLUMNS):
            raise DataError(
                f"{where}: a row without a heading must have onnx, vnnlib, timeout and perhaps truth, and this one has "
                f"{len(row)} entries, separated by {separator}"
            )
        places = dict(zip(COLUMNS, range(len(row)), strict=False))
    cells = {name: row[place] if place < len(row) else "" for name, place in places.items()}
    if not cells["onnx"] or not cells["vnnlib"]:
        raise DataError(f"{where} names no network or no property")
    return Instance(cells["onnx"], cells["vnnlib"], _timeout(where, cells.get("timeout", "")), _truth(where, cells))


def _timeout(where: str, text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise DataError(f"{where} has the timeout {text[:40]!r}; it must be a positive number of seconds")
    return seconds


def _truth(where: str, cells: dict[str, str]) -> Truth | None:
    text = cells.get("truth", "").lower()
    for known in get_args(Truth):
        if text == known:
            return known  # type: ignore[no-any-return]
    if text:
        raise DataError(
            f"{where} has the truth {text[:40]!r}; it must be one of {', '.join(get_args(Truth))}, or empty"
        )
    return None
