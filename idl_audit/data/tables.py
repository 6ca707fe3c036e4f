"""Samples as text: one row for each, its numbers separated by commas, with or without a heading."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.arrays import FloatArray
from idl_audit.data.array_files import ArrayFile
from idl_audit.errors import DataError

MAX_BYTES: Final = 2**30
"""Largest text file of samples (1 GiB)."""

LABEL_COLUMNS: Final = frozenset({"label", "labels", "y", "class", "target"})
"""Headings, in small letters, of the column that holds the labels."""

_LABELS: Final = "labels"


def read_table(path: Path, wanted: Sequence[Sequence[str]]) -> ArrayFile:
    """Return the numbers of a CSV file: the column that its heading calls label as labels, all others as inputs.

    A file that only labels are asked of may have them as its only column. Commas, semicolons and tabs separate.

    Raises:
        DataError: where the text is too large, is no table, or has an entry that is no number.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES / 2**30:g} GiB of text; save the samples with numpy.savez")
    content = path.read_bytes()
    heading, numbers = _parse(path, content)
    place = next((k for k, name in enumerate(heading) if name.lower() in LABEL_COLUMNS), None)
    labels = None if place is None else numbers[:, place]
    inputs = numbers if place is None else np.delete(numbers, place, axis=1)
    if all(_LABELS in group for group in wanted) and labels is None and numbers.shape[1] == 1:
        labels = numbers[:, 0]
    arrays = tuple(labels if _LABELS in group else inputs for group in wanted)
    return ArrayFile(arrays, tuple(heading), hashlib.sha256(content).hexdigest())


def _parse(path: Path, content: bytes) -> tuple[list[str], FloatArray]:
    """Return the heading (empty where there is none) and the numbers, shape (rows, columns)."""
    try:
        text = content.decode("utf-8-sig")
        separator = next((char for char in ",;\t" if char in text[:4096]), ",")
        rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
        first = [cell.strip() for cell in next((row for row in rows if any(row)), [])]
        heading = [] if all(map(_is_number, first)) else first
        values = [] if heading else [_numbers(path, rows.line_num, first)]
        for row in rows:
            if any(cell.strip() for cell in row):
                values.append(_numbers(path, rows.line_num, row))
                if len(values[-1]) != len(first):
                    raise DataError(
                        f"{path}, line {rows.line_num} has {len(values[-1])} entries, and the first line {len(first)}; "
                        "give every sample one row of the same length"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is text, but no table of numbers ({error}); give one row for each sample") from error
    if not values:
        raise DataError(f"{path} holds no samples: it has {'only a heading' if heading else 'no rows'}")
    return heading, np.array(values, np.float64)


def _numbers(path: Path, line: int, row: list[str]) -> FloatArray:
    try:
        return np.array([float(cell) for cell in row], np.float64)
    except ValueError:
        place = next(k for k, cell in enumerate(row) if not _is_number(cell))
        raise DataError(
            f"{path}, line {line} has {row[place].strip()[:40]!r} as entry {place}, which is no number; "
            "give one row of numbers for each sample, below a heading or without one"
        ) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
