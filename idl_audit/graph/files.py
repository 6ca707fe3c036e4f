"""Opening what a stranger sent: regular files only, no links below the model's folder, never a blocking pipe.

And remembering what was in it: a model is known by the bytes of all of its files, not by their names.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final, TypeVar

from idl_audit.values.errors import DataError, ModelFileError

# Each flag is absent on some platform. Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
_READ: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_FOLDER: Final = getattr(os, "O_DIRECTORY", 0)
_CAN_WALK: Final = os.open in os.supports_dir_fd and bool(_NO_LINK) and bool(_FOLDER)

Found = TypeVar("Found")


@dataclass(frozen=True)
class ReadFile:
    """A file as it was when it was read."""

    path: Path
    sha256: str
    stamp: tuple[int, ...]
    """What `stamp_of` said of it."""

    @property
    def is_unchanged(self) -> bool:
        """Whether it holds the same bytes still; they are read again only where something was written or moved."""
        try:
            if stamp_of(os.stat(self.path)) == self.stamp:
                return True
            return hashed(self.path).sha256 == self.sha256
        except (OSError, ModelFileError):
            return False


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes whenever a file is written, whatever is done to its time afterwards."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def hashed(path: Path) -> ReadFile:
    """Return a file with its SHA-256, read in pieces. Raises ModelFileError as `open_model` does."""
    with open_model(path) as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        return ReadFile(path, hashlib.file_digest(file, "sha256").hexdigest(), stamp)


def read_with_sha256(path: Path, read: Callable[[Path], Found]) -> tuple[Found, str]:
    """Return what `read` makes of a file, and the SHA-256 of the very bytes that it was made of.

    Raises DataError where the file changes meanwhile, besides what `read` raises.
    """
    before = stamp_of(path.stat()) if path.is_file() else None
    found = read(path)
    file = hashed(path)
    if file.stamp != before:
        raise DataError(f"{path} was changed while it was read; start again")
    return found, file.sha256


def refuse_changed(files: Iterable[ReadFile]) -> None:
    """Raise ModelFileError where one of the files no longer holds what was read."""
    for file in files:
        if not file.is_unchanged:
            raise ModelFileError(f"{file.path} was changed while it was being audited; start again")


def combined_sha256(first: str, others: Sequence[str]) -> str:
    """Return the SHA-256 of several files by those of each: `first` itself where there are no others."""
    return hashlib.sha256("\n".join((first, *others)).encode()).hexdigest() if others else first


def open_model(path: Path) -> BufferedReader:
    """Return the file at `path`, open for reading; a symbolic link is followed, since the user named it.

    Raises ModelFileError where there is no such file, it is a folder or a device, or it may not be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        raise ModelFileError(_why_not(path, error)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder; name the model file inside it" if stat.S_ISDIR(mode) else "no regular file; copy it to one"
        raise ModelFileError(f"{path}: this is {kind}")
    return os.fdopen(descriptor, "rb")


def open_below(folder: Path, parts: Sequence[str]) -> BufferedReader:
    """Return the regular file `parts[0]/parts[1]/...` below `folder`, open for reading.

    Raises ModelFileError where anything on the way below `folder` is a symbolic link, or the file is missing, is not
    a regular file, or has a second hard link.
    """
    shown = "/".join(parts)
    try:
        descriptor = _walk(folder, parts) if _CAN_WALK else _open_after_looking(folder, parts)
    except OSError as error:
        # A link met with O_NOFOLLOW says ELOOP; with O_DIRECTORY as well, Linux says ENOTDIR.
        if error.errno in (errno.ELOOP, errno.EMLINK) or _has_link(folder, parts):
            raise ModelFileError(
                f"{folder / shown}: external data must not be reached through a symbolic link; "
                "copy the model with its links resolved (cp -rL)"
            ) from error
        raise ModelFileError(_why_not(folder / shown, error, "external data of the model: ")) from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{folder / shown}: external data must be a regular file; copy it to one")
    raise ModelFileError(
        f"{folder / shown}: external data must not have a second hard link; make a copy of its own (cp, not ln)"
    )


def _walk(folder: Path, parts: Sequence[str]) -> int:
    """Open every step relative to the one before, so that nothing can be exchanged between a look and the opening."""
    current = os.open(folder, _READ | _FOLDER)
    for index, part in enumerate(parts):
        flags = _READ | _NO_LINK | (_FOLDER if index < len(parts) - 1 else 0)
        try:
            following = os.open(part, flags, dir_fd=current)
        finally:
            os.close(current)
        current = following
    return current


def _open_after_looking(folder: Path, parts: Sequence[str]) -> int:
    """For platforms that cannot open relative to a folder (Windows): look for links first, then open."""
    if _has_link(folder, parts):
        raise OSError(errno.ELOOP, "symbolic link")
    return os.open(folder.joinpath(*parts), _READ)


def _has_link(folder: Path, parts: Sequence[str]) -> bool:
    return any(folder.joinpath(*parts[: end + 1]).is_symlink() for end in range(len(parts)))


def _why_not(path: Path, error: OSError, what: str = "") -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: {what}there is no such file; check the path"
    if isinstance(error, PermissionError):
        return f"{path}: {what}the file may not be read; give yourself read permission (chmod u+r)"
    return f"{path}: {what}the file cannot be opened ({error.strerror}); check the path"
