"""Small files of numbers: .npy, .npz with named arrays, columns, or text; radii and weights of objectives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.data.array_files import read_arrays
from idl_audit.data.column_files import is_column_file
from idl_audit.data.sample_files import read_sample_file
from idl_audit.data.tables import INPUTS, parse_table
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import DataError
from idl_audit.values.text import decoded

LARGEST_TEXT: Final = 64 * 2**20
"""Bytes of such a file that is text."""


def read_numbers(path: Path, wanted: Sequence[Sequence[str]]) -> tuple[AnyArray | None, ...]:
    """Return of each group of names the first array that the file has; .npy and text are the first group's.

    Raises:
        DataError: where the file cannot be read, or has no array of the first group.
    """
    if path.is_file():
        with path.open("rb") as stream:
            start = stream.read(8)
        if is_column_file(start):
            return (_column_numbers(path), *(None for _ in wanted[1:]))
        if start and not start.startswith((b"\x93NUMPY", b"PK")):
            return (_text_numbers(path), *(None for _ in wanted[1:]))
    arrays = read_arrays(path, wanted).arrays
    if arrays[0] is None:
        name = wanted[0][0]
        raise DataError(f"{path} has no array named {name}; save it with numpy.savez({path.name!r}, {name}=...)")
    return arrays


def read_objective(path: Path) -> tuple[FloatArray, FloatArray | None]:
    """Return (c, w) of the objective c . y + w . x: weights of the outputs and, where the file has them, of the states.

    Arrays `c` and `w` of an .npz file; an .npy or text file holds c alone.

    Raises:
        DataError: where the file cannot be read or has no c.
    """
    c, w = read_numbers(path, (("c",), ("w",)))
    assert c is not None
    return c.astype(np.float64).reshape(-1), None if w is None else w.astype(np.float64).reshape(-1)


def read_ranking(path: Path, n_outputs: int, n_inputs: int, input_shape: tuple[int, ...]) -> FloatArray:
    """Return S, (q, p), one number >= 0 for each output and input, of another network: what an attack ranks inputs by.

    Array `S` of an .npz file, as `sensitivity --save` writes it, an .npy or a text file. A single row stands for all
    outputs of a network that has two classes and one output.

    Raises:
        DataError: where the file has no such matrix, or is of a network with other inputs or outputs.
    """
    S, shape = read_numbers(path, (("S",), ("input_shape",)))
    assert S is not None
    matrix = np.atleast_2d(S.astype(np.float64))
    if matrix.ndim != 2 or matrix.shape[1] != n_inputs or len(matrix) not in {n_outputs, 1 if n_outputs == 2 else -1}:
        raise DataError(
            f"{path} has an S of shape {matrix.shape}, and the network has {n_outputs} outputs and {n_inputs} inputs; "
            "give that of a network with the same inputs and classes"
        )
    own = None if shape is None else tuple(int(size) for size in shape.reshape(-1))
    if own is not None and len(own) > 2 < len(input_shape) and own[1:] != input_shape[1:]:  # flat ones fit any
        raise DataError(
            f"{path} is of a network with inputs of shape {own}, and these have the shape {input_shape}: places would "
            "not mean the same"
        )
    if not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        raise DataError(f"{path} has entries of S that are negative or no finite numbers; it is no sensitivity matrix")
    return np.broadcast_to(matrix, (n_outputs, n_inputs))


def _column_numbers(path: Path) -> FloatArray:
    """Return the numbers of a file of columns, row by row. Raises DataError where some are missing."""
    found = read_sample_file(path, ((INPUTS,),)).arrays[0]
    if found is None or np.isnan(numbers := found.astype(np.float64).reshape(-1)).any():
        raise DataError(f"{path} has cells without a number; give numbers only")
    return numbers


def _text_numbers(path: Path) -> FloatArray:
    """Return the numbers of a text file, in rows of any length, below a heading or without one."""
    if path.stat().st_size > LARGEST_TEXT:
        raise DataError(f"{path} has more than {LARGEST_TEXT / 2**20:g} MiB of text; save the numbers with numpy.save")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); save the numbers with numpy.save") from error
    table = parse_table(decoded(content, path, "save the numbers with numpy.save"), path, equal=False)
    if not table.rows:
        begins = f" and begins with {table.heading[0][:40]!r}" if table.heading else ""
        raise DataError(f"{path} has no numbers{begins}; give numbers separated by commas, semicolons, tabs or blanks")
    for place in table.missing.values():
        raise DataError(f"{path}, {place}, where a number is needed; give numbers only")
    return np.concatenate([np.zeros(0), *table.rows])
