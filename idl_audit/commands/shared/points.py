"""Points that a network of 16-bit floats or whole numbers can be handed: numbers inside the exact set, as it reads.

A network whose input is float16 reads the nearest float16 of what it is given, up to 2^-11 of its size away: perhaps
outside the set. So attacks move among points whose reading lies inside. One that reads whole numbers is handed these
alone; what is proved of it is proved of the real numbers between them as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.box import Box, SparseBall, check_whole, is_coarse, is_whole, whole_limits
from idl_audit.values.errors import DataError
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.rounding import UNIT_ROUNDOFF

_TRIES: Final = 4
_FLOAT32: Final = np.dtype(np.float32)
_BYTE: Final = 255


def random_inputs(n_inputs: int, *, n: int = 20, seed: int = 0, kind: np.dtype[Any] = _FLOAT32) -> FloatArray:
    """Return n inputs for a check, the first half standard normal, the rest even on [0, 1]; shape (n, p).

    Of a type of whole numbers they are such: four times as far, rounded, and even on what a byte holds of them.
    """
    rng = np.random.default_rng(seed)
    normal, even = rng.standard_normal((n - n // 2, n_inputs)), rng.random((n // 2, n_inputs))
    if not is_whole(kind):
        return np.vstack([normal, even])
    least, greatest = whole_limits(kind)
    first, last = (least, greatest) if kind.itemsize == 1 else (0, _BYTE)
    near = np.clip(np.rint(4 * normal), least, greatest)
    return np.vstack([near, np.floor(first + even * (last - first + 1))])


def readable(inputs: InputSet, point_type: np.dtype[Any], units: Preprocessing, shape: tuple[int, ...]) -> InputSet:
    """Return the same set, whose points are those that the network reads as numbers inside it.

    Args:
        inputs: a set in data units.
        point_type: the type of the network's input.
        units: what stands between the data and that input.
        shape: of one input.
    """
    if isinstance(inputs, NormBall):
        return inputs
    if isinstance(inputs, SparseBall):
        return replace(inputs, box=readable_box(inputs.box, point_type, units, shape, centre=inputs.centre))
    return readable_box(inputs, point_type, units, shape)


def readable_box(
    box: Box,
    point_type: np.dtype[Any],
    units: Preprocessing,
    shape: tuple[int, ...],
    *,
    centre: FloatArray | None = None,
) -> Box:
    """Return the box as `readable` does; `centre` stays a point of it whatever the network reads of it.

    Of whole numbers it is the least box around those in it.
    """
    if is_whole(point_type):
        return box.of_whole(point_type)
    if not is_coarse(point_type):
        return box
    if units.is_identity:
        return replace(box, point_type=point_type)
    lo, hi = _read_inside(box, point_type, units, shape)
    if centre is not None:
        lo, hi = np.minimum(lo, centre), np.maximum(hi, centre)
    return replace(box, inner_lo=lo, inner_hi=hi)


def with_points(inputs: InputSet, point_type: np.dtype[Any]) -> InputSet:
    """Return the very set that is claimed, whose points are those that a network of whole numbers can be handed.

    A claim may be larger than what was decided, whose ends were rounded inward (`Box.of_whole`): nothing is proved of
    it by that, and the network must not be asked between whole numbers.
    """
    if not is_whole(point_type) or isinstance(inputs, NormBall):
        return inputs
    if isinstance(inputs, SparseBall):
        return replace(inputs, box=replace(inputs.box, point_type=point_type))
    return replace(inputs, point_type=point_type)


def as_read(values: FloatArray, point_type: np.dtype[Any]) -> FloatArray:
    """Return numbers rounded to what the network reads of them, which is float32 at best, as all points are.

    Raises DataError where they are beyond the range of the type, or fractions where it holds whole numbers.
    """
    if is_whole(point_type):
        check_whole(values, point_type)
        return np.asarray(values, np.float64)
    kind = point_type if is_coarse(point_type) else np.dtype(np.float32)
    with np.errstate(over="ignore"):
        read = np.asarray(values, np.float32).astype(kind).astype(np.float64)
    if not np.isfinite(read).all():
        raise DataError(
            f"an input is beyond {float(np.finfo(kind).max):g}, the largest {kind.name}, which the network reads; "
            "scale the data with --scale, or export the model in float32"
        )
    return read


def _read_inside(
    box: Box, point_type: np.dtype[Any], units: Preprocessing, shape: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Return (lo, hi), float32 numbers of the exact set that are read, behind the preprocessing, as inside its image.

    So is all that lies between them, since rounding is monotone. Where an interval holds no such number, lo > hi.
    """
    factor, offset = units.affine(shape)
    ends = np.sort([factor * box.inner_lo + offset, factor * box.inner_hi + offset], axis=0)
    slack = (
        8 * UNIT_ROUNDOFF * (np.abs(factor) * np.maximum(np.abs(box.inner_lo), np.abs(box.inner_hi)) + np.abs(offset))
    )
    inner = ends + np.stack([slack, -slack])
    image = Box(ends[0], ends[1], inner[0], inner[1], point_type)
    readings = np.stack(image.float32_bounds()).astype(np.float64)
    nothing = ~np.isfinite(readings).all(axis=0) | (readings[0] > readings[1])
    readings = np.where(nothing, ends, readings)
    back = np.sort((readings - offset) / factor, axis=0)
    lo, hi = replace(
        box, inner_lo=np.maximum(back[0], box.inner_lo), inner_hi=np.minimum(back[1], box.inner_hi)
    ).float32_bounds()

    def outside(points: FloatArray) -> BoolArray:
        with np.errstate(over="ignore"):
            read = units.apply(points, shape).astype(point_type).astype(np.float64)
        return np.asarray(~((read >= inner[0]) & (read <= inner[1])))

    for _ in range(_TRIES):
        lo = np.where(outside(lo.astype(np.float64)), np.nextafter(lo, np.float32(np.inf)), lo)
        hi = np.where(outside(hi.astype(np.float64)), np.nextafter(hi, np.float32(-np.inf)), hi)
    bad = nothing | outside(lo.astype(np.float64)) | outside(hi.astype(np.float64))
    return np.where(bad, box.hi, lo).astype(np.float64), np.where(bad, box.lo - 1.0, hi).astype(np.float64)
