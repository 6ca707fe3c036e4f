"""One case of the mutation campaign: a changed file, the command that reads it, and who judges what it says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def _never(code: int, out: str) -> str:
    return ""


@dataclass(frozen=True)
class Case:
    """A command line over a changed file."""

    name: str
    """The change."""
    args: list[str]
    file: Path
    wrong: Callable[[int, str], str] = _never
    """(exit code, output) -> what was accepted wrongly; empty where nothing was."""
    codes: tuple[int, ...] = (0, 1, 2)
    """Exit codes that are in order."""

    def keep(self, place: Path) -> Path:
        """Keep the changed file for whoever looks into it."""
        shutil.copy(self.file, place)
        return place
