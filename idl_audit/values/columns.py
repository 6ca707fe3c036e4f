"""Columns of the data that samples are grouped by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLASS: Final = "class"
"""What groups by label are called; the others have the names of columns (--group-by)."""


@dataclass(frozen=True)
class GroupColumn:
    """A column, and the file that has it; None for that of the samples."""

    name: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.name if self.path is None else f"{self.name}={self.path}"
