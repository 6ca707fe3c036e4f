"""What was read of a file, and the SHA-256 that stands for it, are of the same bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from idl_audit.graph.files import read_with_sha256
from idl_audit.values.errors import DataError


def test_the_hash_is_of_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "property.vnnlib"
    path.write_bytes(b"(assert true)")
    assert read_with_sha256(path, Path.read_bytes) == (b"(assert true)", hashlib.sha256(b"(assert true)").hexdigest())


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "property.vnnlib"
    path.write_bytes(b"(assert true)")
    times = path.stat()

    def read(file: Path) -> bytes:
        found = file.read_bytes()
        file.write_bytes(b"(assert false)")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # dated back
        return found

    with pytest.raises(DataError, match="was changed while it was read"):
        read_with_sha256(path, read)


def test_a_file_that_another_replaces_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "property.vnnlib"
    path.write_bytes(b"(assert true)")

    def read(file: Path) -> bytes:
        found = file.read_bytes()
        other = file.with_suffix(".new")
        other.write_bytes(b"(assert fals)")
        other.replace(file)
        return found

    with pytest.raises(DataError, match="was changed while it was read"):
        read_with_sha256(path, read)


def test_what_is_missing_is_for_the_reader_to_say(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_with_sha256(tmp_path / "none.vnnlib", Path.read_bytes)
