"""Arrays out of .npy and .npz files that nobody vouches for: no pickles, no allocation before sizes were checked."""

from __future__ import annotations

import hashlib
import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

import numpy as np

from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import DataError
from idl_audit.values.npz import NPY_MAGIC, npy_header

MAX_ARRAY_BYTES = 4 * 2**30
"""The most that one array may take, in the file's own number type and as float64: 4 GiB."""

_NUMBER_TYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|12|16))")
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
    if not path.exists():
        raise DataError(f"{path}: no such file; {_READABLE}")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file; {_READABLE}")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.seek(0, 2)
            stream.seek(0)
            magic = stream.read(8)
            stream.seek(0)
            if magic.startswith(NPY_MAGIC):
                first: AnyArray = _read_npy(stream, size, str(path))
                return ArrayFile((first, *(None for _ in wanted[1:])), (), digest)
            if magic.startswith(_ZIP_MAGICS):
                arrays, names = _read_npz(stream, wanted, path)
                return ArrayFile(arrays, names, digest)
    except _READ_ERRORS as error:
        raise DataError(
            f"{path} cannot be read: {_reason(error)}; write it again with numpy.savez or numpy.save"
        ) from error
    kind = "is empty" if size == 0 else "is neither .npz nor .npy"
    raise DataError(f"{path} {kind}; {_READABLE}")


def _read_npz(
    stream: IO[bytes], wanted: Sequence[Sequence[str]], path: Path
) -> tuple[tuple[AnyArray | None, ...], tuple[str, ...]]:
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays: list[AnyArray | None] = []
        for group in wanted:
            name = next((name for name in group if name in members), None)
            if name is None:
                arrays.append(None)
                continue
            info = members[name]
            where = f"{path}: array {name!r}"
            _check_bytes(info.file_size, where)
            with archive.open(info) as member:
                arrays.append(_read_npy(member, info.file_size, where))
    return tuple(arrays), tuple(members)


def _read_npy(stream: IO[bytes], size: int, where: str) -> AnyArray:
    """Return the array of an open .npy stream of `size` bytes, read-only, in the file's own shape and type."""
    shape, order, dtype = _read_header(stream, where)
    declared = math.prod(shape) * dtype.itemsize
    _check_bytes(declared, where)
    present = size - stream.tell()
    if present < declared:
        raise DataError(
            f"{where} is truncated: shape {shape} of {dtype} takes {declared} bytes and {present} are there; "
            "copy or write the file again"
        )
    data = stream.read(declared)
    if len(data) != declared:
        raise DataError(
            f"{where} is truncated: {len(data)} of {declared} bytes are there; copy or write the file again"
        )
    if not declared:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    try:
        shape, order, descr = npy_header(stream)
    except ValueError as error:
        raise DataError(f"{where} {error}") from None
    return shape, order, _number_type(descr, where)


def _number_type(descr: object, where: str) -> np.dtype[Any]:
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
