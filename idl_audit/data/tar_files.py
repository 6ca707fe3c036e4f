"""Samples in .tar files as WebDataset has them: KEY.npy or KEY.png, and KEY.cls with the class as text.

Nothing is unpacked to the disk: a name is a label that says which members belong together, and never a path. Headers
are read here, each within a bound, and every size is compared with the file before a byte of it is read.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.data.array_files import Opened, StoredFile, number_type
from idl_audit.data.file_samples import FileSamples
from idl_audit.data.image_folder import SUFFIXES, ImageFolder
from idl_audit.data.stores import Memory, Store
from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.errors import DataError
from idl_audit.values.npz import npy_header

BLOCK: Final = 512
MAX_MEMBERS: Final = 10_000_000
LONGEST_NAME: Final = 4096
LONGEST_HEADER: Final = 2**16
"""Bytes of a header that extends the one behind it."""
LARGEST_MEMBER: Final = 2**30
LABELS: Final = ("cls", "label")
_MAGIC: Final = b"ustar"
_REGULAR: Final = (b"0", b"\0")
_HEADER_OF_ARRAY: Final = 16_384
"""Bytes that an .npy header may take."""


@dataclass(frozen=True)
class Member:
    """A file in a .tar file."""

    name: str
    begin: int
    size: int


def is_tar(start: bytes) -> bool:
    """Return whether a file that begins so is a .tar file."""
    return start[257:262] == _MAGIC


def open_tar(path: Path, wanted: Sequence[Sequence[str]]) -> FileSamples:
    """Return the samples of a .tar file; their numbers are read when they are asked for.

    Raises:
        DataError: where the file is damaged, or its members are no samples: each an array of one shape or an image.
    """
    opened = Opened(path)
    samples = _grouped(path, members(opened))
    keys = list(samples)
    labels = _labels(opened, samples)
    digest = _digest(opened)
    first = samples[keys[0]]
    if "npy" in first:
        store = _Arrays.of(opened, [_part(path, key, samples[key], "npy") for key in keys])
        found = Memory(labels) if labels is not None else None
        stores: tuple[Store | None, ...] = (store, *(None for _ in wanted[1:-1]), found)
        return FileSamples(StoredFile(stores, (None,) * len(stores), (), digest), None)
    kind = next((ext for ext in first if f".{ext}" in SUFFIXES), None)
    if kind is None:
        raise DataError(
            f"{path}: the sample '{keys[0][:80]}' has {', '.join(sorted(first))[:80]}, and neither an .npy array nor "
            "an image; give KEY.npy or KEY.png, and KEY.cls with the class"
        )
    images = [_part(path, key, samples[key], kind) for key in keys]
    files = tuple(path / member.name for member in images)
    return FileSamples(
        None, ImageFolder(path, files, labels, contents=lambda place: _content(opened, images[place]), sha256=digest)
    )


def members(opened: Opened) -> Iterator[Member]:
    """Yield the regular files of a .tar file.

    Raises:
        DataError: where a header is damaged, or claims what is not there.
    """
    path, stream = opened.path, opened.stream
    end = stream.seek(0, io.SEEK_END)
    at, long_name, count = 0, "", 0
    while at + BLOCK <= end:
        stream.seek(at)
        header = stream.read(BLOCK)
        if header == bytes(BLOCK):
            _check_end(opened)
            return
        if not is_tar(header) or _number(header[148:156]) != _checksum(header):
            raise DataError(f"{path} has a damaged header at byte {at}; write the .tar file again")
        size = _number(header[124:136])
        begin, kind = at + BLOCK, header[156:157]
        if size is None or begin + size > end:
            raise DataError(f"{path} is truncated: a member at byte {at} claims more than there is; copy it again")
        at = begin + -(-size // BLOCK) * BLOCK
        if kind in (b"L", b"x"):
            if size > LONGEST_HEADER:
                raise DataError(f"{path}: a member's name takes {size} bytes at byte {begin}; give shorter names")
            stream.seek(begin)
            long_name = _name_in(stream.read(size), kind, path) or long_name
            continue
        if kind in _REGULAR:
            count += 1
            if count > MAX_MEMBERS:
                raise DataError(f"{path} has more than {MAX_MEMBERS:,} members; give several .tar files")
            yield Member(long_name or _short_name(header), begin, size)
        elif kind == b"S":
            raise DataError(f"{path} has a sparse member at byte {begin}; write plain files")
        long_name = ""
    raise DataError(f"{path} is truncated: a .tar file ends in zeros, and this one does not; copy it again")


def _check_end(opened: Opened) -> None:
    """Refuse what stands behind the end. Raises DataError."""
    while part := opened.stream.read(2**20):
        if part.strip(b"\0"):
            raise DataError(
                f"{opened.path} has more behind its end, such as a second archive; give several .tar files in a folder"
            )


def _number(field: bytes) -> int | None:
    """Return an octal number of a header, or one of base 256; None where it is none."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    return int(text, 8) if text and not text.strip(b"01234567") else None


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def _short_name(header: bytes) -> str:
    name, prefix = (part.split(b"\0")[0].decode("utf-8", "replace") for part in (header[:100], header[345:500]))
    return f"{prefix}/{name}" if prefix else name


def _name_in(content: bytes, kind: bytes, path: Path) -> str:
    """Return the name that an extending header gives; empty where it gives none."""
    if kind == b"L":
        name = content.split(b"\0")[0]
    else:
        name = next((line.partition(b"=")[2] for line in content.split(b"\n") if b" path=" in line[:20]), b"")
        if any(b" size=" in line[:28] or b" GNU.sparse" in line[:40] for line in content.split(b"\n")):
            raise DataError(f"{path} has members larger than 8 GiB or sparse ones; write plain files")
    if len(name) > LONGEST_NAME:
        raise DataError(f"{path} has a name of {len(name)} bytes; give shorter names")
    return name.decode("utf-8", "replace")


def _grouped(path: Path, found: Iterator[Member]) -> dict[str, dict[str, Member]]:
    """Return key -> extension -> member, keys in the order of the file: a key ends at the first dot of the name."""
    samples: dict[str, dict[str, Member]] = {}
    for member in found:
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if not stem or not extension:
            continue
        parts = samples.setdefault(f"{folder}{slash}{stem}", {})
        if extension.lower() in parts:
            raise DataError(f"{path} has {member.name[:80]} twice; write each sample once")
        parts[extension.lower()] = member
    if not samples:
        raise DataError(f"{path} holds no samples; give KEY.npy or KEY.png, and KEY.cls with the class")
    return samples


def _part(path: Path, key: str, parts: dict[str, Member], extension: str) -> Member:
    if extension not in parts:
        raise DataError(f"{path}: the sample '{key[:80]}' has no .{extension}, which the first one has")
    return parts[extension]


def _labels(opened: Opened, samples: dict[str, dict[str, Member]]) -> IntArray | None:
    """Return the classes; None where no sample has one."""
    found = []
    for key, parts in samples.items():
        member = next((parts[name] for name in LABELS if name in parts), None)
        if member is None:
            continue
        text = _content(opened, member).strip() if member.size <= 32 else b"?"
        if not text.isdigit() or len(text) > 9:
            raise DataError(f"{opened.path}: the class of '{key[:80]}' is no whole number from 0")
        found.append(int(text))
    if found and len(found) != len(samples):
        raise DataError(f"{opened.path}: {len(found)} of {len(samples)} samples have a class; give all of them one")
    return np.array(found, np.int64) if found else None


def _content(opened: Opened, member: Member) -> bytes:
    if member.size > LARGEST_MEMBER:
        raise DataError(f"{opened.path}: {member.name[:80]} takes {member.size:,} bytes, too many for a sample")
    opened.stream.seek(member.begin)
    content = opened.stream.read(member.size)
    if len(content) != member.size:
        raise DataError(f"{opened.path} is truncated at {member.name[:80]}; copy it again")
    return content


def _digest(opened: Opened) -> str:
    opened.stream.seek(0)
    return hashlib.file_digest(opened.stream, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class _Arrays:
    """One small array a sample, all of one shape and type."""

    opened: Opened
    begins: IntArray
    sample: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first."""
        return (self.begins.size, *self.sample)

    @classmethod
    def of(cls, opened: Opened, parts: Sequence[Member]) -> _Arrays:
        """Read the headers. Raises DataError where the arrays are not all alike."""
        begins = np.empty(len(parts), np.int64)
        alike: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        for place, member in enumerate(parts):
            where = f"{opened.path}: {member.name[:80]}"
            opened.stream.seek(member.begin)
            stream = io.BytesIO(opened.stream.read(min(member.size, _HEADER_OF_ARRAY)))
            try:
                shape, order, descr = npy_header(stream)
            except ValueError as error:
                raise DataError(f"{where} {error}") from None
            dtype = number_type(descr, where)
            if order == "F" and len(shape) > 1:
                raise DataError(f"{where} lies in Fortran's order; save it with numpy.ascontiguousarray")
            if stream.tell() + math.prod(shape) * dtype.itemsize > member.size:
                raise DataError(f"{where} is truncated; write it again")
            if alike is not None and alike != (shape, dtype):
                raise DataError(f"{where} is {dtype} of shape {shape}, and the first sample {alike[1]} of {alike[0]}")
            alike = shape, dtype
            begins[place] = member.begin + stream.tell()
        assert alike is not None  # there is a sample
        return cls(opened, begins, *alike)

    def take(self, places: IntArray, p: int) -> AnyArray:
        """Return rows."""
        size = p * self.dtype.itemsize
        rows = []
        for begin in self.begins[places].tolist():
            self.opened.stream.seek(begin)
            rows.append(self.opened.stream.read(size))
            if len(rows[-1]) != size:
                raise DataError(f"{self.opened.path} is truncated; copy it again")
        return np.frombuffer(b"".join(rows), self.dtype).reshape(len(rows), p)
