"""The arrays of one file of samples, whatever its format: .npz, .npy, .csv, .parquet, .arrow, .safetensors, .pt.

The format is decided by content. None of them runs code from the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from idl_audit.data.array_files import ArrayFile, StoredFile, at_once, open_arrays, read_arrays
from idl_audit.data.column_files import is_column_file
from idl_audit.data.columns import open_columns
from idl_audit.data.stores import Memory
from idl_audit.data.tables import Aside, read_table
from idl_audit.data.tensor_files import read_safetensors, read_torch_tensors
from idl_audit.values.errors import DataError
from idl_audit.values.text import is_marked

READABLE: Final = (
    "give .npz (arrays inputs and labels), .npy, .csv, .parquet, .arrow, .safetensors, .pt, or a folder of images"
)

_STARTS_OF_ARRAYS = (b"\x93NUMPY", b"PK\x05\x06")
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_CONTROL = frozenset(range(32)) - set(b"\t\n\r\f")


def read_sample_file(path: Path, wanted: Sequence[Sequence[str]]) -> ArrayFile:
    """Return of each group of names in `wanted` the first array that the file has.

    A file with one array without a name answers the first group.

    Raises:
        DataError: where the file is missing, damaged, too large, of another format, or holds no plain numbers.
    """
    start = _start(path)
    return read_arrays(path, wanted) if _is_of_arrays(start, path) else _read_at_once(path, start, wanted)


def open_sample_file(path: Path, wanted: Sequence[Sequence[str]], aside: Aside | None = None) -> StoredFile:
    """Return what `read_sample_file` does, to be read by and by where the format allows it: .npz, .npy and columns.

    `aside` are columns of a table that are no inputs unless the network needs them.

    Raises:
        DataError: as `read_sample_file` does.
    """
    start = _start(path)
    if _is_of_arrays(start, path):
        return open_arrays(path, wanted)
    if is_column_file(start):
        return _columns(path, wanted, aside)
    read = _read_at_once(path, start, wanted, aside)
    stores = tuple(None if array is None else Memory(np.asarray(array, order="C")) for array in read.arrays)
    return StoredFile(stores, (None,) * len(stores), read.names, read.sha256, read.missing)


def kind_of_file(path: Path) -> Literal["arrays", "columns", "tensors", "table"]:
    """Return what a file of samples is, by its content. Raises DataError where it is none."""
    start = _start(path)
    if _is_of_arrays(start, path):
        return "arrays"
    if is_column_file(start):
        return "columns"
    return "table" if not _is_of_tensors(start, path) and _is_text(start) else "tensors"


def _is_of_tensors(start: bytes, path: Path) -> bool:
    of_torch = start.startswith((_PICKLE, _ZIP))
    return of_torch or (start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size)


def _is_of_arrays(start: bytes, path: Path) -> bool:
    return start.startswith(_STARTS_OF_ARRAYS) or (start.startswith(_ZIP) and not _is_torch_archive(path))


def _start(path: Path) -> bytes:
    """Return the first bytes of a file, by which its format is told."""
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file; {READABLE}")
        if not path.is_file():
            raise DataError(f"{path} is not a regular file; {READABLE}")
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {READABLE}") from error
    if not start:
        raise DataError(f"{path} is empty; {READABLE}")
    return start


def _read_at_once(path: Path, start: bytes, wanted: Sequence[Sequence[str]], aside: Aside | None = None) -> ArrayFile:
    if is_column_file(start):
        found = _columns(path, wanted, aside)
        arrays = tuple(None if store is None else at_once(store, str(path)) for store in found.stores)
        return ArrayFile(arrays, found.names, found.sha256, found.missing)
    if _is_of_tensors(start, path):
        of_torch = start.startswith((_PICKLE, _ZIP))
        return read_torch_tensors(path, wanted) if of_torch else read_safetensors(path, wanted)
    if _is_text(start):
        if start.lstrip().startswith(b"{"):
            raise DataError(f"{path} is no file of samples, but JSON; {READABLE}")
        return read_table(path, wanted, aside)
    if start.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is a gzip file; unpack it (gunzip) and give the file inside")
    raise DataError(f"{path} is no file of samples; {READABLE}")


def _columns(path: Path, wanted: Sequence[Sequence[str]], aside: Aside | None = None) -> StoredFile:
    found = open_columns(path, wanted, aside).arrays
    if found is None:
        raise DataError(f"{path} holds encoded images, where arrays are needed; {READABLE}")
    return found


def _is_torch_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # the reader of .npz says what is wrong with it


def _is_text(start: bytes) -> bool:
    """Return whether a file is text; in an encoding that nobody can know, its reader says so."""
    return is_marked(start) or not _CONTROL.intersection(start)
