"""The text of a property's file, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from idl_audit.values.errors import DataError
from idl_audit.values.text import decoded


def property_text(path: Path, max_bytes: int) -> str:
    """Return the text of a VNN-LIB file; whether it is gzipped is told by its content.

    Raises:
        DataError: where it cannot be read, is no text, or has more than `max_bytes` after decompression.
    """
    try:
        if not path.exists():
            raise DataError(f"{path}: there is no such file; check the path")
        if not path.is_file():
            raise DataError(f"{path} is not a regular file; give a .vnnlib or .vnnlib.gz file")
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read ({why}); give a .vnnlib or .vnnlib.gz file") from error
    if len(content) > max_bytes:
        raise DataError(f"{path} holds more than {max_bytes // 2**20} MB of text; properties of this size are not read")
    return decoded(content, path, "give a .vnnlib or .vnnlib.gz file; samples are given with --data")
