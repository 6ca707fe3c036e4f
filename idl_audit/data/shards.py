"""A data set in several files: a folder of them or a pattern such as train-*.npz, in the order of their names.

The files of a folder of Hugging Face's `datasets` stand in the order that it says.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.data import column_files
from idl_audit.data.array_files import StoredFile
from idl_audit.data.cells import shown
from idl_audit.data.columns import Columns, open_columns
from idl_audit.data.dataset_folder import files_of_dataset
from idl_audit.data.file_samples import FileSamples
from idl_audit.data.image_folder import ImageFolder, is_image
from idl_audit.data.sample_files import open_sample_file
from idl_audit.data.stores import Chained, Store
from idl_audit.data.tables import Aside
from idl_audit.data.tar_files import is_tar, open_tar
from idl_audit.values.errors import DataError

SUFFIXES: Final = (".npz", ".npy", ".tar", *column_files.SUFFIXES)
MOST: Final = 500
"""Files that are open together."""


def shards_of(path: Path) -> list[Path]:
    """Return the files that a folder, a pattern or a file that may hold images stands for; none for other data.

    Raises:
        DataError: where no file has such a name, files are of several kinds, or there are too many.
    """
    try:
        if path.is_file():
            return [path] if may_hold_images(path) else []
        if path.is_dir():
            found = files_of_dataset(path)
            if found is not None:
                return _few_enough(path, found)
            entries = list(path.iterdir())
            if any(one.is_dir() or is_image(one) for one in entries):
                return []
            found = sorted(one for one in entries if one.suffix in SUFFIXES)
        elif any(mark in path.name for mark in "*?["):
            found = sorted(one for one in path.parent.glob(path.name) if one.is_file())
            if not found:
                raise DataError(f"no file is called {path}; give the pattern of existing files ({', '.join(SUFFIXES)})")
        else:
            return []
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return []
    kinds = sorted({one.suffix for one in found})
    if len(kinds) > 1:
        raise DataError(f"{path} has files of several kinds ({', '.join(kinds)}); give a pattern, such as *{kinds[0]}")
    return _few_enough(path, found)


def _few_enough(path: Path, found: list[Path]) -> list[Path]:
    if len(found) > MOST:
        raise DataError(
            f"{path} has {len(found)} files, above the limit of {MOST}; put several into one, or use --shard"
        )
    return found


def may_hold_images(path: Path) -> bool:
    """Return whether a file is one whose samples are arrays or images: .tar, .parquet or .arrow."""
    with path.open("rb") as stream:
        start = stream.read(512)
    return is_tar(start) or column_files.is_column_file(start)


def open_samples_in(path: Path, wanted: Sequence[Sequence[str]], aside: Aside | None = None) -> FileSamples:
    """Return the samples of one of several files. Raises DataError as the readers of its format do."""
    if not may_hold_images(path):
        return FileSamples(open_sample_file(path, wanted, aside), None)
    with path.open("rb") as stream:
        return open_tar(path, wanted) if is_tar(stream.read(512)) else open_columns(path, wanted, aside)


def chained(path: Path, files: Sequence[Path], parts: Sequence[StoredFile]) -> StoredFile:
    """Return the arrays of several files as those of one, samples behind one another.

    Raises:
        DataError: where a file has not what the first one has, samples of another shape, or columns in another order.
    """
    if len(parts) == 1:
        return parts[0]
    stores: list[Store | None] = []
    for group in range(len(parts[0].stores)):
        found = [part.stores[group] for part in parts]
        whole = [one for one in found if one is not None]
        if not whole:
            stores.append(None)
            continue
        for file, one in zip(files, found, strict=True):
            if one is None:
                raise DataError(f"{file} lacks an array that other files of {path} have; write all of them alike")
            if not one.shape or one.shape[1:] != whole[0].shape[1:]:
                raise DataError(
                    f"{file} has an array of shape {one.shape}, and {files[0]} one of {whole[0].shape}: samples must "
                    "be of one shape"
                )
            _refuse_other_columns(file, one, files[0], whole[0])
        stores.append(Chained(tuple(whole)))
    return StoredFile(tuple(stores), parts[0].named, parts[0].names, _digest(files, [part.sha256 for part in parts]))


def _refuse_other_columns(file: Path, own: Store, first_file: Path, first: Store) -> None:
    """Refuse numbers side by side whose columns are called otherwise, or stand in another order. Raises DataError."""
    if not isinstance(own, Columns) or not isinstance(first, Columns):
        return
    ours, theirs = own.rows.columns, first.rows.columns
    if ours != theirs and max(len(ours), len(theirs)) > 1:
        at = next((k for k, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
        mine, known = (", ".join(map(shown, names[at : at + 4])) for names in (ours, theirs))
        raise DataError(
            f"{file} has the columns {mine} where {first_file} has {known}; write all of them with the same columns, "
            "in the same order"
        )


def together(folders: Sequence[ImageFolder], path: Path) -> ImageFolder:
    """Return the images of several files as those of one. Raises DataError where some have labels, and some none."""
    if len(folders) == 1:
        return folders[0]
    labels = [folder.labels for folder in folders if folder.labels is not None]
    if labels and len(labels) != len(folders):
        raise DataError(f"{len(labels)} of {len(folders)} files of {path} have classes; give all of them some")
    ends = list(accumulate(len(folder.files) for folder in folders))

    def content(place: int) -> bytes:
        owner = bisect_right(ends, place)
        return folders[owner].content(place - (ends[owner] - len(folders[owner].files)))

    files = tuple(file for folder in folders for file in folder.files)
    sha256 = _digest([folder.path for folder in folders], [folder.sha256 or "" for folder in folders])
    return ImageFolder(path, files, np.concatenate(labels) if labels else None, contents=content, sha256=sha256)


def _digest(files: Sequence[Path], hashes: Sequence[str]) -> str:
    """Return a hash of the names and contents of several files."""
    pairs = (f"{file.name}\0{one}\n" for file, one in zip(files, hashes, strict=True))
    return hashlib.sha256("".join(pairs).encode("utf-8", "surrogateescape")).hexdigest()
