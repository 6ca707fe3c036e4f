"""Columns that say which group each sample belongs to: of the data file, or of a table beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.data.array_files import at_once, open_arrays
from idl_audit.data.cells import kind_of, shown
from idl_audit.data.columns import read_entries
from idl_audit.data.image_folder import list_images
from idl_audit.data.sample_files import kind_of_file, read_sample_file
from idl_audit.data.shards import shards_of
from idl_audit.data.tables import read_texts
from idl_audit.data.tar_files import is_tar
from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.columns import GroupColumn
from idl_audit.values.errors import DataError

MOST_GROUPS: Final = 1000
"""More groups in a column are taken for numbers that are no groups."""
LONGEST: Final = 200
"""Characters of a group's name."""
LAST_CHARACTER: Final = 0x10FFFF
"""Of Unicode."""
MISSING: Final = "(missing)"
"""The group of samples of which a column says nothing."""
FILE_COLUMN: Final = "file"
"""The column of a table beside a folder of images that names them."""


def read_groups(data: Path, asked: Sequence[GroupColumn], indices: IntArray, total: int) -> list[Mapping[str, str]]:
    """Return of each of the chosen samples what the columns say of it: name of the column -> group.

    Whole numbers are told without decimals, truth values as true and false.

    Args:
        data: the file or folder of the samples.
        asked: the columns, in the order in which groups are told.
        indices: positions of the chosen samples.
        total: how many samples the data has.

    Raises:
        DataError: where a column is not there, has not one entry for each sample, or more groups than can be told.
    """
    found = {}
    for column in asked:
        where = f"{column.path or data}: column {shown(column.name)}"
        entries = _entries(data, column)
        if len(entries) != total:
            raise DataError(f"{where} has {len(entries)} entries, and {data} {total} samples; give one for each sample")
        values = [_told(entries[place], where) for place in indices.tolist()]
        groups = len(set(values))
        if groups > MOST_GROUPS:
            raise DataError(
                f"{where} has {groups} groups, more than {MOST_GROUPS}; group by ranges, in a column of their names"
            )
        found[column.name] = values
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def _entries(data: Path, column: GroupColumn) -> Sequence[object]:
    """Return what a column says, in the order of the samples."""
    images = os.path.isdir(data) and not shards_of(data)
    if column.path is None and images:
        raise DataError(
            f"{data} is a folder of images, which has no columns; give a table with the columns file and "
            f"{column.name}: --group-by {column.name}=TABLE.csv"
        )
    if images and column.path is not None:
        return _by_file(data, column.path, column.name)
    return _column(column.path or data, column.name)


def _column(path: Path, name: str) -> Sequence[object]:
    shards = shards_of(path)
    if shards and _is_tar(shards[0]):
        raise DataError(
            f"{path} is of .tar files, which have no columns; give a table with a row for each sample: --group-by "
            f"{name}=TABLE.csv"
        )
    return [entry for one in shards for entry in _of_file(one, name)] if shards else _of_file(path, name)


def _is_tar(path: Path) -> bool:
    with path.open("rb") as stream:
        return is_tar(stream.read(512))


def _of_file(path: Path, name: str) -> Sequence[object]:
    kind = kind_of_file(path)
    if kind == "columns":
        return read_entries(path, name)
    if kind == "table":
        return read_texts(path, (name,))[name]
    if kind == "arrays":
        read = open_arrays(path, ((name,),), text=True)
        array: AnyArray | None = None if read.stores[0] is None else at_once(read.stores[0], f"{path}: array {name!r}")
        names = read.names
    else:
        tensors = read_sample_file(path, ((name,),))
        array, names = tensors.arrays[0], tensors.names
    if array is None:
        known = ", ".join(repr(one[:60]) for one in names[:10]) or "none"
        raise DataError(f"{path} has no array named {shown(name)}, to group by; it has {known}")
    if array.ndim == 0 or array.size != len(array):
        raise DataError(
            f"{path}: array {shown(name)} has shape {array.shape}; groups are one entry for each sample, shape (n,)"
        )
    if array.dtype.kind == "U":
        characters = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if characters.size and int(characters.max()) > LAST_CHARACTER:  # numpy makes texts of them that break Python
            raise DataError(f"{path}: array {shown(name)} holds characters that Unicode does not have; write it again")
    entries: list[object] = array.ravel().tolist()
    return entries


def _by_file(data: Path, table: Path, name: str) -> Sequence[object]:
    """Return what a table says of the images of a folder, found by their names."""
    folder = list_images(data)
    texts = read_texts(table, (FILE_COLUMN, name))
    said = dict(zip((os.path.normpath(one) for one in texts[FILE_COLUMN]), texts[name], strict=True))
    if len(said) != len(texts[FILE_COLUMN]):
        raise DataError(f"{table} names an image twice in its column {FILE_COLUMN}; give each once")
    names = [os.path.normpath(file.relative_to(folder.path)) for file in folder.files]
    lacking = [one for one in names if one not in said]
    if lacking:
        raise DataError(
            f"{table} says nothing of {shown(lacking[0])}; its column {FILE_COLUMN} must name every image of {data}, "
            "from that folder on"
        )
    return [said[one] for one in names]


def _told(entry: object, where: str) -> str:
    """Return the name of a group. Raises DataError where it is too long."""
    if isinstance(entry, bool | np.bool_):
        return "true" if entry else "false"
    if isinstance(entry, float):
        return MISSING if entry != entry else str(int(entry)) if entry.is_integer() else repr(entry)
    text = entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry).strip()
    if kind_of(text) == "missing":
        return MISSING
    if kind_of(text) == "truth":
        return text.lower()
    if kind_of(text) == "number" and text.endswith(".0"):
        return text.removesuffix(".0")
    if len(text) > LONGEST:
        raise DataError(f"{where} has an entry of {len(text)} characters, {shown(text)}; names of groups are short")
    return text
