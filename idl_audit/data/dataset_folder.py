"""Folders that Hugging Face's `datasets` writes: which files of Arrow belong to one, and in which order.

`save_to_disk` writes state.json, which lists the files, and dataset_info.json; a cache has the latter alone, beside
files called NAME-SPLIT.arrow or NAME-SPLIT-00000-of-00002.arrow. None of the code that such a folder may have is run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from idl_audit.values.errors import DataError

STATE: Final = "state.json"
INFO: Final = "dataset_info.json"
SPLITS: Final = "dataset_dict.json"
_LARGEST: Final = 2**24
_COUNTED: Final = re.compile(r"-[0-9]{5}-of-[0-9]{5}$")
_OF_A_STEP: Final = ("cache-", "tmp")
"""How the files of a cache begin that hold what a step made of others."""


def files_of_dataset(folder: Path) -> list[Path] | None:
    """Return the files of a data set on disk, in its order; None where the folder is none.

    Raises:
        DataError: where it has several parts, or says what cannot be: files that are not in it, an order of rows apart.
    """
    if (folder / SPLITS).is_file():
        names = [str(name)[:40] for name in _document(folder / SPLITS).get("splits") or ()][:10]
        raise DataError(
            f"{folder} has the parts {', '.join(names) or 'none'}; give one of them, such as "
            f"{folder / (names[-1] if names else 'test')}"
        )
    if (folder / STATE).is_file():
        return _listed(folder)
    return _cached(folder) if (folder / INFO).is_file() else None


def _listed(folder: Path) -> list[Path]:
    state = _document(folder / STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(f"{folder} has its order of rows in another file; call flatten_indices() before save_to_disk")
    files = state.get("_data_files")
    if not isinstance(files, list) or not files:
        raise DataError(f"{folder / STATE} lists no files of samples; write the folder again with save_to_disk")
    found = []
    for one in files:
        name = one.get("filename") if isinstance(one, dict) else None
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise DataError(f"{folder / STATE} names {str(name)[:80]!r}, which is no file of the folder")
        if not (folder / name).is_file():
            raise DataError(f"{folder / STATE} names {name[:80]!r}, which is not in the folder; copy it again")
        found.append(folder / name)
    if len(set(found)) < len(found):
        raise DataError(f"{folder / STATE} names a file twice; write the folder again with save_to_disk")
    return found


def _cached(folder: Path) -> list[Path]:
    found = sorted(one for one in folder.glob("*.arrow") if not one.name.startswith(_OF_A_STEP))
    parts = sorted({_COUNTED.sub("", one.stem) for one in found})
    if not found:
        raise DataError(f"{folder} has no .arrow file; write the samples with save_to_disk")
    if len(parts) > 1:
        raise DataError(
            f"{folder} has the parts {', '.join(part[:40] for part in parts[:6])}; give a pattern in quotes, such as "
            f"'{folder / parts[-1]}*.arrow'"
        )
    return found


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is too large for what it should say; write the folder again with save_to_disk")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON; write the folder again with save_to_disk") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no JSON object; write the folder again with save_to_disk")
    return found
