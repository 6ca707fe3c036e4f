"""Writing files whole or not at all, and never over one that matters."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final

from idl_audit.values.errors import OptionError

TABLES: Final = frozenset({".arrow", ".csv", ".npy", ".npz", ".parquet", ".toml", ".tsv", ".xlsx"})
NETWORKS: Final = frozenset({".onnx", ".pt", ".pth", ".safetensors"})
PAGES: Final = frozenset(
    {".gif", ".htm", ".html", ".jpeg", ".jpg", ".json", ".md", ".pdf", ".png", ".sarif", ".svg", ".xml"}
)
ENDINGS: Final = TABLES | NETWORKS | PAGES
"""What a name may end in that says what is in the file; any other end says nothing."""


def check_new_file(path: Path, *, force: bool, ending: str = "") -> None:
    """Raise OptionError where a file cannot be written, or would replace another without being told to.

    With `ending`, such as ".npz", one whose name says that something else is in it is refused as well.
    """
    check_place(path)
    if ending:
        check_ending(path, ending)
    if path.exists() and not force:
        raise OptionError(f"{path} exists already; give another name or --force to overwrite it")


def check_ending(path: Path, ending: str, advice: str = "") -> None:
    """Raise OptionError where a name says that something else is in the file than what its `ending` stands for."""
    found = path.suffix.lower()
    if found in ENDINGS and found != ending:
        known = advice or f"name it {path.with_suffix(ending)}"
        raise OptionError(f"{path} ends in {path.suffix}, and what is written there is {ending[1:].upper()}; {known}")


def check_new_folder(path: Path, *, force: bool) -> None:
    """Raise OptionError where pictures cannot be written to this folder, or could replace what is in it."""
    if not path.is_dir():
        check_place(path)
        if path.exists():
            raise OptionError(f"{path} is a file; give the name of a folder")
        return
    if not os.access(path, os.W_OK):
        raise OptionError(f"the folder {path} may not be written to; choose another one")
    if not force and any(path.iterdir()):
        raise OptionError(f"the folder {path} is not empty; give another name or --force to write into it")


def check_place(path: Path) -> None:
    """Raise OptionError where no file can be at this place."""
    folder = path.absolute().parent
    if path.is_dir():
        raise OptionError(f"{path} is a folder; give the name of a file")
    _check_kind(path)
    if not folder.is_dir():
        raise OptionError(f"the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise OptionError(f"the folder {folder} may not be written to; choose another one")


def _check_kind(path: Path) -> None:
    """Raise OptionError for a device or a pipe: a file that is put in place whole would take its name away."""
    if path.exists() and not path.is_file():
        raise OptionError(f"{path} is a device or a pipe; give the name of a file")


def check_distinct(read: Iterable[Path | None], written: Iterable[Path | None]) -> None:
    """Raise OptionError where a file to be written is also read, or is to be written twice."""
    taken = {path.resolve() for path in read if path is not None}
    for path in written:
        if path is None:
            continue
        if path.resolve() in taken:
            raise OptionError(f"{path} is named twice, and what is written would destroy the other; give another name")
        taken.add(path.resolve())


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, new: bool = False) -> None:
    """Let `write` fill a temporary neighbour and put it in place, so that no half-written file is left behind.

    Raises:
        OptionError: where the file system refuses; with `new`, where another has put a file there meanwhile.
    """
    _check_kind(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            write(file)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        if new and path.is_file() and not path.stat().st_size:
            path.unlink()  # there is nothing to lose
        if not new or not _put_anew(temporary, path):
            os.replace(temporary, path)
    except FileExistsError as error:
        Path(temporary).unlink(missing_ok=True)
        raise OptionError(
            f"{path} was written by another run meanwhile, and is left as it is; give another name, or --force"
        ) from error
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            why = error.strerror or str(error)
            raise OptionError(f"{path} cannot be written ({why}); choose another place") from error
        raise


def _put_anew(temporary: str, path: Path) -> bool:
    """Put a file in a place that is empty; return False where the file system has no way to do both at once.

    Raises FileExistsError where the place is taken.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links there
        return False
    Path(temporary).unlink(missing_ok=True)
    return True


def make_folder(folder: Path) -> None:
    """Make a folder where there is none. Raises OptionError where it cannot be made."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OptionError(f"the folder {folder} cannot be made ({error.strerror}); choose another place") from error
