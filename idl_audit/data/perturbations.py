"""Perturbations as users write them: `brightness=0.1,contrast=0.8:1.2,blur=gauss3:0.5`, and files of directions."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.data.numbers import parse_number
from idl_audit.data.vectors import read_numbers
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.patches import Patch
from idl_audit.values.perturbations import KINDS, TIME, Directions, Perturbation, Term
from idl_audit.values.rotations import Rotation
from idl_audit.values.shifts import Shift

ALONE: Final = ("patch=", "dropout=", "translate=", "rotate=")
"""What stands alone, and is no change along directions."""


def parse_perturbation(text: str, *, option: str) -> Perturbation:
    """Return the changes of a list NAME=RANGE, such as `brightness=0.1,contrast=0.8:1.2,blur=gauss3:0.5`.

    A range is LO:HI, or one number: X stands for -X:X, for 1-X:1+X of contrast, and for 0:X of fog, tint and blur.
    `dropout=first:3` is the patch of 3 steps of one sensor.

    Raises:
        OptionError: where a change is not known or its range makes no sense; `option` is named.
    """
    parts = [part.strip() for part in text.split(",")]
    patches = [_patch(part, option) for part in parts if part.startswith("patch=")]
    patches += [_dropout(part, option) for part in parts if part.startswith("dropout=")]
    if len(patches) > 1:
        raise OptionError(f"{option} has two patches; give one")
    shifts = [Shift(parse_number(part[10:], option=option)) for part in parts if part.startswith("translate=")]
    if len(shifts) > 1:
        raise OptionError(f"{option} translates twice; give it once")
    rotations = [Rotation(parse_number(part[7:], option=option)) for part in parts if part.startswith("rotate=")]
    if len(rotations) > 1:
        raise OptionError(f"{option} rotates twice; give it once")
    terms = tuple(_term(part, option) for part in parts if not part.startswith(ALONE))
    return Perturbation(
        terms,
        patch=patches[0] if patches else None,
        shift=shifts[0] if shifts else None,
        rotation=rotations[0] if rotations else None,
    )


def _patch(text: str, option: str) -> Patch:
    sides = text.removeprefix("patch=").lower().split("x")
    if not (1 <= len(sides) <= 2 and all(map(_is_count, sides))):
        raise OptionError(f"{option} has {text[:60]!r}; write it like patch=4x4, in pixels")
    return Patch(int(sides[0]), int(sides[-1]))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


def _dropout(text: str, option: str) -> Patch:
    """Return the rectangles in which one sensor says anything for some steps."""
    axis, mark, steps = text.removeprefix("dropout=").strip().lower().partition(":")
    if axis not in TIME.split("|") or not (mark and _is_count(steps)):
        raise OptionError(f"{option} has {text[:60]!r}; write it like dropout=first:3, time's axis and steps")
    return Patch(int(steps), 1) if axis == "first" else Patch(1, int(steps))


def _term(text: str, option: str) -> Term:
    name, mark, rest = text.partition("=")
    kind = KINDS.get(name.strip())
    if kind is None or not mark:
        known = ", ".join(
            [*(one.example for one in KINDS.values()), "patch=4x4", "dropout=first:3", "translate=1", "rotate=5"]
        )
        raise OptionError(f"{option} must be a list of changes such as {known}; it has {text[:60]!r}")
    parts, detail = rest.strip().split(":"), ""
    if kind.detail is not None:
        detail, parts = parts[0].strip().lower().removeprefix("#"), parts[1:]
    if len(parts) not in (1, 2):
        raise OptionError(f"{option} has {text[:60]!r}; write it like {kind.example}")
    numbers = [parse_number(part, option=option) for part in parts]
    lo, hi = kind.one_number(numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    return Term(name.strip(), lo, hi, detail)


def read_directions(path: Path, size: int) -> Directions:
    """Return the directions of a file: array `directions`, (k, ...) with p numbers each, `low` and `high`, (k,).

    .npz, or .npy with the directions alone; low is -1 and high 1 where they are left out.

    Args:
        path: the file; numbers stand in the order of the network's own input.
        size: p, numbers of an input.

    Raises:
        DataError: where the file cannot be read, or its arrays make no sense.
    """
    vectors, low, high = read_numbers(path, (("directions",), ("low",), ("high",)))
    assert vectors is not None
    if vectors.ndim < 2 or vectors.dtype.kind not in "fiub" or vectors[0].size != size:
        raise DataError(
            f"{path} has directions of shape {vectors.shape}; give k of them, each with one number for each of the "
            f"{size} inputs"
        )
    k = len(vectors)
    ends = [np.full(k, usual) if one is None else _vector(path, one, k) for one, usual in ((low, -1.0), (high, 1.0))]
    try:
        return Directions(vectors.reshape(k, -1).astype(np.float64), *ends)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _vector(path: Path, values: AnyArray, k: int) -> FloatArray:
    if values.size != k or values.dtype.kind not in "fiub":
        raise DataError(f"{path} has {values.size} numbers in low or high, and {k} directions; give one for each")
    return values.astype(np.float64).reshape(-1)
