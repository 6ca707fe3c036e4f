"""Where a folder's configuration is: cheap, for every command asks."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

from idl_audit.values.errors import InvalidInputError
from idl_audit.values.text import decoded

FILE: Final = "idl-audit.toml"
PROJECT: Final = "pyproject.toml"

CONFIGURED: Final = ("certify", "attack", "sensitivity", "bounds", "compare", "convert", "inspect", "run", "gate")
"""Commands that take defaults from a configuration in the current folder."""


def find_configuration(folder: Path = Path()) -> Path | None:
    """Return idl-audit.toml, or pyproject.toml with a table [tool.idl-audit], of this folder; None without them."""
    own, project = folder / FILE, folder / PROJECT
    if own.is_file():
        return own
    if project.is_file():
        try:
            # another tool's file: what cannot be read is that tool's to complain of
            tool = tomllib.loads(decoded(project.read_bytes(), project, "mend it")).get("tool", {})
        except (OSError, ValueError, RecursionError, InvalidInputError):
            return None
        if isinstance(tool, dict) and "idl-audit" in tool:
            return project
    return None
