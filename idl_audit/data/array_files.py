"""Arrays out of .npy and .npz files that nobody vouches for: no pickles, no allocation before sizes were checked."""

from __future__ import annotations

import hashlib
import lzma
import math
import re
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

import numpy as np

from idl_audit.data.stores import Filed, Memory, Store, whole
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import DataError
from idl_audit.values.npz import NPY_MAGIC, npy_header

MAX_ARRAY_BYTES = 4 * 2**30
"""The most that one array may take, in the file's own number type and as float64: 4 GiB."""

_NUMBER_TYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|12|16))")
_TEXT_TYPE = re.compile(r"(?:[<>|=]?U|\|?S)[1-9][0-9]{0,4}")
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_READABLE = "give an .npz file (inputs, labels) or an .npy file"
_READ_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    RuntimeError,  # zipfile: an encrypted member, an unknown compression (NotImplementedError)
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of one file that were asked for, in that order, None where the file has none of those names."""

    arrays: tuple[AnyArray | None, ...]
    names: tuple[str, ...]
    sha256: str
    missing: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    """Row of a table -> where the first number is missing in it, and what stands there."""


def read_arrays(path: Path, wanted: Sequence[Sequence[str]]) -> ArrayFile:
    """Read of each group of names in `wanted` the first array that the .npz file has.

    An .npy file has one array without a name: it is what the first group asks for. The format is decided by content.

    Raises:
        DataError: where the file is missing, truncated, too large, of another format, or holds no plain numbers.
    """
    found = open_arrays(path, wanted)
    each = zip(found.stores, found.named, strict=True)
    arrays = tuple(None if store is None else at_once(store, _where(path, name)) for store, name in each)
    return ArrayFile(arrays, found.names, found.sha256)


def at_once(store: Store, where: str) -> AnyArray:
    """Return the whole of an array. Raises DataError where it takes too much memory."""
    _check_bytes(math.prod(store.shape) * store.dtype.itemsize, where)
    return whole(store)


@dataclass(frozen=True)
class StoredFile:
    """The arrays of one file that were asked for, as `ArrayFile` has them, to be read by and by."""

    stores: tuple[Store | None, ...]
    named: tuple[str | None, ...]
    """The name of each."""
    names: tuple[str, ...]
    sha256: str
    missing: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))


def open_arrays(path: Path, wanted: Sequence[Sequence[str]], *, text: bool = False) -> StoredFile:
    """Return what `read_arrays` does, of which nothing but the headers is read; the file stays open.

    With `text` arrays may be of texts of one length as well, which numpy writes without pickles.

    Raises:
        DataError: where the file is missing, truncated, of another format, or holds no plain numbers.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; {_READABLE}")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file; {_READABLE}")
    with _told(path):
        opened = Opened(path)
        digest = hashlib.file_digest(opened.stream, "sha256").hexdigest()
        size = opened.stream.seek(0, 2)
        opened.stream.seek(0)
        magic = opened.stream.read(8)
        opened.stream.seek(0)
        if magic.startswith(NPY_MAGIC):
            first = _stored(opened, opened.stream, size, None, text=text)
            return StoredFile((first, *(None for _ in wanted[1:])), (None,) * len(wanted), (), digest)
        if magic.startswith(_ZIP_MAGICS):
            return _open_npz(opened, wanted, digest, text=text)
    kind = "is empty" if size == 0 else "is neither .npz nor .npy"
    raise DataError(f"{path} {kind}; {_READABLE}")


class Opened:
    """A file that is open as long as something may be read from it."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        self.path = path
        self.stream = path.open("rb")
        weakref.finalize(self, self.stream.close)


def _open_npz(opened: Opened, wanted: Sequence[Sequence[str]], digest: str, *, text: bool) -> StoredFile:
    archive = zipfile.ZipFile(opened.stream)
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    stores: list[Store | None] = []
    named: list[str | None] = []
    for group in wanted:
        name = next((name for name in group if name in members), None)
        named.append(name)
        if name is None:
            stores.append(None)
        else:
            size = members[name].file_size
            stores.append(_stored(opened, archive.open(members[name]), size, name, text=text))
    return StoredFile(tuple(stores), tuple(named), tuple(members), digest)


def _where(path: Path, name: str | None) -> str:
    return str(path) if name is None else f"{path}: array {name!r}"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell what goes wrong with a file as one sentence."""
    try:
        yield
    except _READ_ERRORS as error:
        raise DataError(
            f"{path} cannot be read: {_reason(error)}; write it again with numpy.savez or numpy.save"
        ) from error


def _stored(opened: Opened, stream: IO[bytes], size: int, name: str | None, *, text: bool) -> Store:
    """Return the array of an open .npy stream of `size` bytes, in the file's own shape and type.

    What lies in Fortran's order has no rows that lie together, and is read as a whole.
    """
    where = _where(opened.path, name)
    shape, order, dtype = _read_header(stream, where, text=text)
    declared = math.prod(shape) * dtype.itemsize
    begin = stream.tell()
    if size - begin < declared:
        raise DataError(
            f"{where} is truncated: shape {shape} of {dtype} takes {declared} bytes and {size - begin} are there; "
            "copy or write the file again"
        )

    def read(first: int, count: int) -> bytes:
        with _told(opened.path):
            stream.seek(begin + first)
            data = stream.read(count)
        if len(data) != count:
            raise DataError(
                f"{where} is truncated: {len(data)} of {count} bytes are there; copy or write the file again"
            )
        return data

    if not declared:
        return Memory(np.empty(shape, dtype))
    if order == "F":
        _check_bytes(declared, where)
        array = np.frombuffer(read(0, declared), dtype).reshape(shape, order="F")
        return Memory(np.asarray(array, order="C"))
    return Filed(shape, dtype, read)


def _read_header(
    stream: IO[bytes], where: str, *, text: bool
) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    try:
        shape, order, descr = npy_header(stream)
    except ValueError as error:
        raise DataError(f"{where} {error}") from None
    if text and isinstance(descr, str) and _TEXT_TYPE.fullmatch(descr):
        return shape, order, np.dtype(descr)
    return shape, order, number_type(descr, where)


def number_type(descr: object, where: str) -> np.dtype[Any]:
    """Return the number type that a header names. Raises DataError where that is none of plain numbers."""
    if isinstance(descr, str) and _NUMBER_TYPE.fullmatch(descr):
        try:
            return np.dtype(descr)
        except TypeError:  # long doubles of another machine
            pass
    objects = isinstance(descr, str) and descr.endswith("O")
    what = "Python objects, which would run code" if objects else f"values of type {str(descr)[:60]}"
    raise DataError(f"{where} holds {what}; save real numbers, for example with array.astype('float32')")


def _check_bytes(declared: int, where: str) -> None:
    if declared > MAX_ARRAY_BYTES:
        raise DataError(
            f"{where} declares {declared / 2**30:.1f} GiB, above the limit of {MAX_ARRAY_BYTES / 2**30:g} GiB; "
            "save fewer samples in the file"
        )


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines and lines[0] else type(error).__name__
