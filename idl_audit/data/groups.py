"""Groups of inputs (`--groups`): one label per input out of a file, or rows, columns, channels, patches of an image."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idl_audit.data.array_files import read_arrays
from idl_audit.data.column_files import is_column_file
from idl_audit.data.rows import BLANK, Rows
from idl_audit.data.sample_files import read_sample_file
from idl_audit.data.tables import INPUTS
from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.text import decoded

GROUP_NAMES = ("groups", "labels")
"""Names of the array in an .npz file."""

SPECS = "rows, columns, channels or patches:HxW"

_PATCHES = re.compile(r"patches:([0-9]{1,6})x([0-9]{1,6})")
_LONGEST_LABEL = 100
_BYTES_PER_LABEL = 4 * _LONGEST_LABEL + 4
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class Groups:
    """A partition of the p inputs.

    names: of each group. labels: (p,) the group of each input, an index into `names`.
    """

    names: tuple[str, ...]
    labels: IntArray

    @property
    def sizes(self) -> IntArray:
        """Number of inputs in each group."""
        return np.bincount(self.labels, minlength=len(self.names)).astype(np.int64)


def parse_groups(text: str, input_shape: tuple[int, ...]) -> Groups:
    """Return the groups that `text` names: rows, columns, channels, patches:HxW, or the path of a file.

    `input_shape` is that of one sample, with the leading batch axis of length 1 where the model has one. Its last two
    axes are rows and columns, the one before them channels; rows, columns and patches reach through all channels.

    Raises:
        OptionError: where the shape has no such axes, or a patch has no extent.
        DataError: where the file does not have one label per input.
    """
    spec = text.strip()
    patch = _PATCHES.fullmatch(spec)
    if spec in ("rows", "columns", "channels") or patch is not None:
        return _of_image(spec, input_shape, None if patch is None else (int(patch[1]), int(patch[2])))
    if spec.startswith("patches"):
        raise OptionError(f"--groups has {spec[:60]!r} where patches:HxW is expected; write for example patches:7x7")
    path = Path(text)
    if not _exists(path):
        raise DataError(f"--groups {text}: no such file; give a file with one label per input, or {SPECS}")
    return read_groups(path, math.prod(input_shape))


def read_groups(path: Path, n_inputs: int) -> Groups:
    """Read one label per input from an .npy, .npz or .csv file; equal labels make a group.

    Arrays hold whole numbers, in any shape with p entries, in the order of the model's input. A .csv file (or any other
    text) holds numbers or names, separated by commas, semicolons, tabs or line breaks (numbers by blanks as well), read
    line by line. Groups of numbers are in
    ascending order, groups of names in that of their first inputs.

    Raises:
        DataError: where the file cannot be read, has another number of labels, or a label is empty or no whole number.
    """
    if not (_exists(path) and path.is_file()):
        raise DataError(f"{path} is no file; give an .npy, .npz or .csv file with one label per input")
    try:
        with path.open("rb") as stream:
            magic = stream.read(6)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a file with one label per input") from error
    if magic.startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
        return _of_numbers(_array(path), n_inputs, path)
    if is_column_file(magic):
        labels = read_sample_file(path, ((INPUTS,),)).arrays[0]
        return _of_numbers(np.zeros(0) if labels is None else labels, n_inputs, path)
    words = _words(path, n_inputs)
    _check_count(len(words), n_inputs, path)
    if all(_INTEGER.fullmatch(word) for word in words):
        return _of_numbers(np.array([int(word) for word in words], np.int64), n_inputs, path)
    names = tuple(dict.fromkeys(words))
    number = {name: place for place, name in enumerate(names)}
    return Groups(names, np.array([number[word] for word in words], np.int64))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False


def _array(path: Path) -> AnyArray:
    read = read_arrays(path, (GROUP_NAMES,))
    found = read.arrays[0]
    if found is None:
        shown = ", ".join(repr(name[:60]) for name in read.names[:10]) or "none"
        raise DataError(f"{path} has no array named {' or '.join(GROUP_NAMES)}; it has {shown}")
    return found


def _of_numbers(array: AnyArray, n_inputs: int, path: Path) -> Groups:
    _check_count(array.size, n_inputs, path)
    flat = array.reshape(-1)
    if flat.dtype.kind == "f":
        flat = flat.astype(np.float64)
        whole = np.isfinite(flat) & (flat == np.round(flat)) & (np.abs(flat) < 2**53)
        if not whole.all():
            where = int(np.argmin(whole))
            raise DataError(
                f"{path}: the label of input {where} is {flat[where]:g}; group labels must be whole numbers"
            )
        flat = flat.astype(np.int64)
    values, labels = np.unique(flat.astype(np.int64) if flat.dtype.kind == "b" else flat, return_inverse=True)
    return Groups(tuple(str(int(value)) for value in values), labels.reshape(-1).astype(np.int64))


def _words(path: Path, n_inputs: int) -> list[str]:
    """Return the labels of a text file, no more than can belong to a file of the right length."""
    most = (n_inputs + 1) * _BYTES_PER_LABEL
    if path.stat().st_size > most:
        raise DataError(f"{path} is too large to hold {n_inputs} labels; give one label per input")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a file with one label per input") from error
    text = decoded(content, path, "give .npy, .npz or text with one label per input")
    rows = Rows(text, path, comments=False, ragged=True, separators=";\t,")
    words = [word for row in rows for word in row.cells]
    if any(BLANK in word for word in words) and all(map(_INTEGER.fullmatch, text.split())):
        words = text.split()  # names may have blanks in them, numbers have them between
    for place, word in enumerate(words):
        if not 0 < len(word) <= _LONGEST_LABEL:
            what = "empty" if not word else f"longer than {_LONGEST_LABEL} characters"
            raise DataError(f"{path}: the label of input {place} is {what}; give every input a short label")
    return words


def _check_count(count: int, n_inputs: int, path: Path) -> None:
    if count != n_inputs:
        header = ", without a header" if count == n_inputs + 1 else ""
        raise DataError(f"{path} has {count} labels and the model {n_inputs} inputs; give one label per input{header}")


def _of_image(spec: str, input_shape: tuple[int, ...], patch: tuple[int, int] | None) -> Groups:
    """Return the rows, columns, channels or patches of an image (C, H, W) or (H, W)."""
    shape = input_shape[1:] if len(input_shape) > 2 and input_shape[0] == 1 else input_shape
    if len(shape) not in (2, 3) or (len(input_shape) == 2 and input_shape[0] == 1) or not math.prod(shape):
        raise OptionError(
            f"--groups {spec} needs inputs with rows and columns, and this model's have shape {input_shape}; "
            "give a file with one label per input"
        )
    if spec == "channels" and len(shape) == 2:
        raise OptionError(f"--groups channels needs inputs (C, H, W), not {input_shape}; write rows for the first axis")
    height, width = shape[-2:]
    if patch is not None and not all(patch):
        raise OptionError(f"--groups {spec} has patches without extent; write for example patches:7x7")
    channel, row, column = np.indices((math.prod(shape[:-2]), height, width))
    if spec == "rows":
        return Groups(tuple(f"row {i}" for i in range(height)), _flat(row))
    if spec == "columns":
        return Groups(tuple(f"column {i}" for i in range(width)), _flat(column))
    if patch is None:
        return Groups(tuple(f"channel {i}" for i in range(shape[0])), _flat(channel))
    high, wide = patch
    across = -(-width // wide)
    names = tuple(f"patch {i},{j}" for i in range(-(-height // high)) for j in range(across))
    return Groups(names, _flat(row // high * across + column // wide))


def _flat(labels: AnyArray) -> IntArray:
    return labels.reshape(-1).astype(np.int64)
