"""Our own .npz files, converted models and witnesses: written whole, read without pickles or trust in sizes."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.arrays import AnyArray
from idl_audit.errors import ModelFileError
from idl_audit.files import check_new_file, write_whole

LARGEST_FILE: Final = 2**36
"""No file may claim more bytes than this."""
SMALL_FILE: Final = 2**28
"""Up to this size any compression is believed; above it, a hundredfold."""


def write_npz(path: Path, arrays: Mapping[str, AnyArray], *, force: bool) -> None:
    """Write arrays to a compressed .npz file, whole or not at all. Raises OptionError where that cannot be."""
    check_new_file(path, force=force)
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_npz(path: Path) -> dict[str, AnyArray]:
    """Read every array of the file after a look at the sizes that its headers claim.

    Raises:
        ModelFileError: where the file is missing or damaged, or claims more than it can hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
            stored = path.stat().st_size
            if claimed > LARGEST_FILE or claimed > max(SMALL_FILE, 100 * stored):
                raise ModelFileError(
                    f"{path} claims {claimed:,} bytes in a file of {stored:,}: no model is compressed like that"
                )
            return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in archive.infolist()}
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: there is no such file; check the path") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise ModelFileError(f"{path} cannot be read as an .npz file: {error}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> AnyArray:
    with archive.open(entry) as file:
        head = io.BytesIO(file.read(min(entry.file_size, 2**16)))
        version = np.lib.format.read_magic(head)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(head)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ModelFileError(f"{archive.filename}: the array '{entry.filename}' is not what its header says")
    with archive.open(entry) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
