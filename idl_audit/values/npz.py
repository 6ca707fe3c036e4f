"""Our own .npz files, converted models and proofs: written whole, read without pickles or trust in sizes."""

from __future__ import annotations

import ast
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, Self

import numpy as np

from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import IdlAuditError, ModelFileError
from idl_audit.values.files import check_new_file, write_whole

LARGEST_FILE: Final = 2**36
"""No file may claim more bytes than this."""
SMALL_FILE: Final = 2**28
"""Up to this size any compression is believed; above it, a hundredfold."""
COMPRESSIONS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""What numpy writes."""
NPY_MAGIC: Final = b"\x93NUMPY"
_LENGTH_FORMATS: Final = {(1, 0): "<H", (2, 0): "<I"}
_LONGEST_HEADER: Final = 10_000
"""numpy's own limit: beyond it, parsing a Python literal is not safe."""
_HEADER: Final = re.compile(r"\{[ -~]*\} *\n?")
_PLAIN_TYPE: Final = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16)|[US]\d{1,10})")
"""Numbers and texts: anything else may run code, or has no size."""


def write_npz(path: Path, arrays: Mapping[str, AnyArray], *, force: bool) -> None:
    """Write arrays to a compressed .npz file, whole or not at all. Raises OptionError where that cannot be."""
    check_new_file(path, force=force)
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_npz(path: Path) -> dict[str, AnyArray]:
    """Read every array of the file after a look at the sizes that its headers claim.

    Raises:
        ModelFileError: where the file is missing or damaged, or claims more than it can hold.
    """
    with NpzFile(path) as file:
        return {name: file.read(name) for name in file.headers}


@dataclass(frozen=True)
class Header:
    """What a file says of one of its arrays: as many bytes as that takes are there."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class NpzFile:
    """An .npz file that is open: its arrays by name, the headers checked before any array is read."""

    def __init__(self, path: Path) -> None:
        """Open a file. Raises ModelFileError where it is missing or damaged, or claims more than it can hold."""
        self._path = path
        self._entries: dict[str, zipfile.ZipInfo] = {}
        with _told(path):
            self._archive = zipfile.ZipFile(path)
            self.stored: Final = path.stat().st_size
            """Bytes of the whole file."""
            self._check_claims()
            self.headers: Final[Mapping[str, Header]] = {name: self._header(name) for name in self._entries}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def _check_claims(self) -> None:
        entries = self._archive.infolist()
        claimed = sum(entry.file_size for entry in entries)
        if claimed > LARGEST_FILE or claimed > max(SMALL_FILE, 100 * self.stored):
            raise ModelFileError(
                f"{self._path} claims {claimed:,} bytes in a file of {self.stored:,}: no model is compressed like that"
            )
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if entry.filename != entry.orig_filename:
                raise ValueError(f"'{name}' has a name that readers tell in different ways")
            if name in self._entries:
                raise ValueError(f"two arrays are called '{name}'")
            if entry.compress_type not in COMPRESSIONS:
                raise ValueError(f"'{name}' is compressed in a way that numpy does not write")
            self._entries[name] = entry

    def _header(self, name: str) -> Header:
        entry = self._entries[name]
        with self._archive.open(entry) as file:
            shape, _, descr = npy_header(file)
            head = file.tell()
        if not (isinstance(descr, str) and _PLAIN_TYPE.fullmatch(descr)):
            raise ValueError(f"the array '{name}' is not what its header says, or no array of numbers")
        dtype = np.dtype(descr)
        if head + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise ValueError(f"the array '{name}' is not what its header says")
        return Header(shape, dtype)

    def read(self, name: str) -> AnyArray:
        """Return an array. Raises ModelFileError where there is none of this name, or its bytes are damaged."""
        with _told(self._path), self._archive.open(self._entries[name]) as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell what goes wrong with a file as one sentence: a damaged one makes zipfile, zlib and numpy raise anything."""
    try:
        yield
    except (IdlAuditError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: there is no such file; check the path") from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelFileError(f"{path} cannot be read as an .npz file: {why}") from error


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], object]:
    """Return (shape, order, type) that an .npy stream declares, the type as its text; the stream stands at the data.

    It is read here: on a damaged one numpy's reader raises whatever its tokeniser does, after seconds.

    Raises:
        ValueError: where the header is damaged.
    """
    start = stream.read(8)
    version = tuple(start[6:])
    if not start.startswith(NPY_MAGIC) or version not in _LENGTH_FORMATS:
        raise ValueError("is no .npy array of version 1 or 2; save plain numbers with numpy.save")
    length_format = _LENGTH_FORMATS[version]
    length_bytes = stream.read(struct.calcsize(length_format))
    length = struct.unpack(length_format, length_bytes)[0] if len(length_bytes) in (2, 4) else 0
    text = stream.read(length).decode("latin-1") if length <= _LONGEST_HEADER else ""
    try:
        if not _HEADER.fullmatch(text):
            raise ValueError("a header of another form")
        header = ast.literal_eval(text.rstrip())
        descr, fortran_order, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError):
        raise ValueError("has a damaged .npy header; write it again with numpy.save") from None
    if not (isinstance(shape, tuple) and all(type(extent) is int and extent >= 0 for extent in shape)):
        raise ValueError(f"declares the shape {str(shape)[:60]}; write it again with numpy.save")
    return shape, "F" if fortran_order else "C", descr
