"""Weights that lie beside the model file, as torch.onnx.export writes them, read with care."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from idl_audit.graph.files import ReadFile, open_below, refuse_changed, stamp_of
from idl_audit.graph.ir import shown
from idl_audit.values.errors import ModelFileError

ByteArray = npt.NDArray[np.uint8]

# '*' is in the list because onnxruntime reads the location '*/_ORT_MEM_ADDR_/*' as an address in its own memory.
_FORBIDDEN: Final = re.compile(r'[\\:*?"<>|\x00-\x1f\x7f]')
_NUMBER: Final = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True)
class _Place:
    """Where one tensor lies: the steps of the path below the model's folder, and the first byte."""

    parts: tuple[str, ...]
    offset: int

    @property
    def location(self) -> str:
        return "/".join(self.parts)


class ExternalData:
    """The files beside one model; remembers what was read, so that no byte can be claimed many times over."""

    def __init__(self, model_path: Path) -> None:
        self._model_path = model_path
        self._files: dict[str, ReadFile] = {}
        self._claimed: dict[str, int] = {}
        self._read: dict[tuple[_Place, int], ByteArray] = {}
        self._checked: set[tuple[_Place, int]] = set()

    @property
    def files(self) -> Mapping[str, ReadFile]:
        """The files read so far, by their names relative to the model's folder."""
        return self._files

    def read(self, entries: Mapping[str, str], n_bytes: int, tensor: str) -> ByteArray:
        """Return the `n_bytes` bytes that `entries` (location, offset, length) point at, shape (n_bytes,), read-only.

        `n_bytes` is what the tensor's shape asks for; a stated length must be the same. Raises ModelFileError.
        """
        place = self._place(entries, n_bytes, tensor)
        if (place, n_bytes) not in self._read:
            with self._claimed_file(place, n_bytes, tensor) as file:
                self._read[place, n_bytes] = _bytes_at(file, place, n_bytes)
        return self._read[place, n_bytes]

    def check(self, entries: Mapping[str, str], n_bytes: int, tensor: str) -> None:
        """Check all that `read` checks, and hash the file, without keeping its bytes."""
        place = self._place(entries, n_bytes, tensor)
        if (place, n_bytes) not in self._checked:
            self._checked.add((place, n_bytes))
            with self._claimed_file(place, n_bytes, tensor):
                pass

    @contextmanager
    def _claimed_file(self, place: _Place, n_bytes: int, tensor: str) -> Iterator[BufferedReader]:
        with open_below(self._model_path.parent, place.parts) as file:
            self._claim(place, n_bytes, os.fstat(file.fileno()).st_size, tensor)
            self._remember(place, file)
            yield file

    def _remember(self, place: _Place, file: BufferedReader) -> None:
        """Hash a file that is met for the first time; later it must be the same one."""
        stamp = stamp_of(os.fstat(file.fileno()))
        known = self._files.get(place.location)
        if known is None:
            path = self._model_path.parent / place.location
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._files[place.location] = ReadFile(path, digest, stamp)
        elif known.stamp != stamp:
            refuse_changed([known])

    def _place(self, entries: Mapping[str, str], n_bytes: int, tensor: str) -> _Place:
        location = entries.get("location", "")
        parts = tuple(part for part in location.split("/") if part != ".")
        if not all(parts) or ".." in parts or _FORBIDDEN.search(location) or len(location) > 1000:
            raise self._error(
                tensor,
                f"lies at {shown(location)!r}, and external data must be a plain relative name below the model's "
                "folder; save the model again with its data beside it",
            )
        length = self._number(entries, "length", n_bytes, tensor)
        if length != n_bytes:
            raise self._error(
                tensor, f"has {length} bytes of external data where its shape needs {n_bytes}; save again"
            )
        return _Place(parts, self._number(entries, "offset", 0, tensor))

    def _number(self, entries: Mapping[str, str], key: str, default: int, tensor: str) -> int:
        text = entries.get(key)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text):
            raise self._error(tensor, f"has the {key} {shown(text)!r} where a whole number is needed; save again")
        return int(text)

    def _claim(self, place: _Place, n_bytes: int, size: int, tensor: str) -> None:
        """Refuse what reaches beyond the file, and overlaps: a small file must not become endless memory."""
        if place.offset + n_bytes > size:
            raise self._error(
                tensor,
                f"needs bytes {place.offset} to {place.offset + n_bytes} of {place.location}, which has {size}; "
                "the file is truncated or of another model, fetch both again",
            )
        self._claimed[place.location] = self._claimed.get(place.location, 0) + n_bytes
        if self._claimed[place.location] > size:
            raise self._error(tensor, f"overlaps other tensors in {place.location}; save the model again")

    def _error(self, tensor: str, what: str) -> ModelFileError:
        return ModelFileError(f"{self._model_path}: tensor {shown(tensor)} {what}")


def _bytes_at(file: BufferedReader, place: _Place, n_bytes: int) -> ByteArray:
    """Return bytes [offset, offset + n_bytes) of an open file, shape (n_bytes,)."""
    buffer = np.empty(n_bytes, dtype=np.uint8)
    file.seek(place.offset)
    done = file.readinto(buffer.data) if n_bytes else 0
    if done != n_bytes:
        raise ModelFileError(f"{place.location}: the file became shorter while it was read; fetch it again")
    buffer.setflags(write=False)
    return buffer
