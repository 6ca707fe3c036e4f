"""Files of per-input radii: how far each input moves where eps is 1."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.arrays import AnyArray, FloatArray
from idl_audit.data.array_files import read_arrays
from idl_audit.data.samples import Layout
from idl_audit.errors import DataError

LARGEST_TEXT: Final = 64 * 2**20
"""Bytes of a radius file that is text."""


def read_radii(path: Path, input_shape: tuple[int, ...], layout: Layout = "native") -> FloatArray:
    """Return how far each input moves for eps = 1, shape (p,), from .npy, .npz (array 'sigma') or text with commas.

    The numbers stand in the order of the samples: of the model's own input, or (H, W, C) where the layout is nhwc.

    Raises:
        DataError: where the file cannot be read, or holds anything but one finite number >= 0 for each input, not all
            of them 0.
    """
    given = _numbers(path)
    p = math.prod(input_shape)
    if given.size != p:
        raise DataError(f"{path} has {given.size} radii, and the model has {p} inputs; give one number for each input")
    shape = tuple(size for size in given.shape if size != 1)
    if layout == "nhwc" and len(input_shape) == 4:
        _, channels, height, width = input_shape
        wanted = (height, width, channels)
        if shape != tuple(size for size in wanted if size != 1):
            raise DataError(f"{path} has shape {given.shape}; with --layout nhwc give radii of shape {wanted}")
        given = given.reshape(wanted).transpose(2, 0, 1)
    sigma = given.astype(np.float64).reshape(-1)
    usable = np.isfinite(sigma) & (sigma >= 0)
    if not usable.all():
        where = int(np.argmin(usable))
        raise DataError(
            f"{path} has {sigma[where]:g} for input {where}; every radius must be a finite number, 0 or more"
        )
    if not sigma.any():
        raise DataError(f"{path} has no radius above 0: no input would move; give at least one")
    return sigma


def _numbers(path: Path) -> AnyArray:
    if path.is_file():
        with path.open("rb") as stream:
            start = stream.read(8)
        if start and not start.startswith((b"\x93NUMPY", b"PK")):
            return _text_numbers(path)
    array = read_arrays(path, (("sigma",),)).arrays[0]
    if array is None:
        raise DataError(f"{path} has no array named sigma; save it with numpy.savez({path.name!r}, sigma=...)")
    return array


def _text_numbers(path: Path) -> FloatArray:
    """Return the numbers of a text file, separated by commas, semicolons, spaces or line ends."""
    if path.stat().st_size > LARGEST_TEXT:
        raise DataError(f"{path} has more than {LARGEST_TEXT / 2**20:g} MiB of text; save the radii with numpy.save")
    try:
        words = path.read_text("utf-8-sig").replace(",", " ").replace(";", " ").split()
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} is neither .npy, .npz nor text with numbers; save it with numpy.save") from error
    numbers = np.empty(len(words))
    for place, word in enumerate(words):
        try:
            numbers[place] = float(word)
        except ValueError:
            raise DataError(
                f"{path} has {word[:40]!r} as entry {place}, which is no number; give numbers only"
            ) from None
    return numbers
