"""Rows of a backward pass as patches: what one state of a convolution reads is a small window of an image.

A functional of the state at place t of an image depends on a source's image through the window that begins at
scale t + offset, the same shape for every state of the block; a convolution makes windows larger, until they cover the
image. Windows hold channels last, so that a kernel acts on them by one matrix product. Beyond the image's edge there is
nothing: bounds, slopes and biases are padded with zeros there, and what a convolution hands on to such places is lost,
as it must be. Other verifiers call it the patches mode (docs/mathematics.md, section 6.4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray

LARGE_RUN: Final = 2**12
"""Numbers of the rows of one box, on average, that are worth operations of their own."""

Image: TypeAlias = tuple[int, ...]
"""(channels, *spatial)."""


@dataclass(frozen=True)
class Geometry:
    """Windows [scale t + offset, scale t + offset + extent) of an image, t the place of the row's state; per axis."""

    scale: tuple[int, ...]
    offset: tuple[int, ...]
    extent: tuple[int, ...]

    @classmethod
    def point(cls, rank: int) -> Geometry:
        """Return the windows of one pixel: the states themselves."""
        return cls((1,) * rank, (0,) * rank, (1,) * rank)

    @classmethod
    def whole(cls, image: Image) -> Geometry:
        """Return the one window that is the image, for every row."""
        rank = len(image) - 1
        return cls((0,) * rank, (0,) * rank, tuple(image[1:]))

    @property
    def is_fixed(self) -> bool:
        """Whether all rows have the same window."""
        return not any(self.scale)

    def behind(self, convolution: Convolution) -> Geometry:
        """Return the windows that rows with these windows of a convolution's output read of its input."""
        taps = convolution.kernel.shape[2:]
        steps, reach = convolution.strides, convolution.dilations
        return Geometry(
            tuple(a * s for a, s in zip(self.scale, steps, strict=True)),
            tuple(o * s - p for o, s, p in zip(self.offset, steps, convolution.pads[: len(steps)], strict=True)),
            tuple((e - 1) * s + d * (n - 1) + 1 for e, s, d, n in zip(self.extent, steps, reach, taps, strict=True)),
        )

    def joined(self, other: Geometry) -> Geometry | None:
        """Return the smallest windows that hold both; None where they move differently."""
        if self.scale != other.scale:
            return None
        first = tuple(map(min, self.offset, other.offset))
        ends = [
            max(o + e, p + f) for o, e, p, f in zip(self.offset, self.extent, other.offset, other.extent, strict=True)
        ]
        return Geometry(self.scale, first, tuple(end - o for end, o in zip(ends, first, strict=True)))

    def origins(self, places: IntArray) -> IntArray:
        """Return where the window of each row begins, (R, rank), from the places of its states."""
        return np.asarray(places * np.array(self.scale) + np.array(self.offset))


Plan: TypeAlias = Mapping[int, Geometry | None]
"""Source -> the windows that rows have of it; None where they are flat vectors."""


@lru_cache(maxsize=2)
def images_of(model: ImplicitModel) -> Mapping[int, Image]:
    """Return the images that blocks, and the inputs, are to the convolutions that make and read them."""
    images: dict[int, Image] = {}
    clashing: set[int] = set()

    def note(source: int, size: int, image: Image) -> None:
        if math.prod(image) != size or images.setdefault(source, image) != image:
            clashing.add(source)

    for k in model.evaluation_order:
        for source, linear_map in sources(model.rows[k]):
            if isinstance(linear_map, Convolution):
                note(k, model.blocks[k].size, (linear_map.channels_out, *linear_map.spatial_out))
                size = model.n_inputs if source == INPUT else model.blocks[source].size
                note(source, size, (linear_map.channels_in, *linear_map.spatial_in))
            elif source in images and isinstance(linear_map, Selection) and linear_map.is_diagonal:
                note(k, model.blocks[k].size, images[source])
    coupled = {k for k, block in enumerate(model.blocks) if block.activation.coupled}  # groups are no windows
    return {source: image for source, image in images.items() if source not in clashing | coupled}


def sources(row: Affine) -> list[tuple[int, LinearMap]]:
    """Return (source, map) for all that a row reads: blocks by their numbers, the inputs as INPUT."""
    pairs = [(k, row.states[k]) for k in sorted(row.states)]
    return [*pairs, (INPUT, row.input)] if row.input is not None else pairs


@lru_cache(maxsize=256)
def plan(model: ImplicitModel, k: int | None) -> Plan:
    """Return what windows the functionals of single states of block k have of each source; of outputs for None."""
    images = images_of(model)
    start = Geometry.point(len(images[k]) - 1) if k is not None and k in images else None
    found: dict[int, Geometry | None] = {}
    row = model.output if k is None else model.rows[k]
    _read(row, start, images.get(-2 if k is None else k), images, found)
    for j in range(0 if k is None else k + 1, len(model.blocks)):
        if j in found:
            _read(model.rows[j], found[j], images.get(j), images, found)
    return found


def _read(
    row: Affine,
    own: Geometry | None,
    image: Image | None,
    images: Mapping[int, Image],
    found: dict[int, Geometry | None],
) -> None:
    """Put in what a row with such windows of itself reads of its sources."""
    for source, linear_map in sources(row):
        read = pulled_geometry(linear_map, own, image, images.get(source))
        found[source] = _union(found[source], read, images.get(source)) if source in found else read


def pulled_geometry(
    linear_map: LinearMap, own: Geometry | None, image: Image | None, source: Image | None
) -> Geometry | None:
    """Return the windows of a source that are read through a map by rows with their own windows of its output."""
    if image is None or source is None:
        return None
    if isinstance(linear_map, Convolution):
        if image != (linear_map.channels_out, *linear_map.spatial_out):
            return None
        read = (Geometry.whole(image) if own is None else own).behind(linear_map)
        covers = read.is_fixed or math.prod(read.extent) >= math.prod(source[1:])
        return Geometry.whole(source) if covers else read
    if own is not None and isinstance(linear_map, Selection) and linear_map.is_diagonal and image == source:
        return own
    return None


def _union(one: Geometry | None, other: Geometry | None, image: Image | None) -> Geometry | None:
    if one is None or other is None:
        return None if image is None or one is other else Geometry.whole(image)
    joined = one.joined(other)
    assert image is not None  # windows are of images
    if joined is None or math.prod(joined.extent) >= math.prod(image[1:]):
        return Geometry.whole(image)
    return joined


@lru_cache(maxsize=256)
def products_of_row(model: ImplicitModel, k: int) -> int:
    """Return how many products the pass of one state of block k back to the inputs takes, at most."""
    images, windows = images_of(model), plan(model, k)
    total = 0
    for j, own in ((k, Geometry.point(len(images.get(k, (0,))) - 1)), *windows.items()):
        if j != INPUT:
            total += sum(_products(linear_map, own, images.get(j)) for linear_map in model.rows[j].maps)
    return total


def _products(linear_map: LinearMap, own: Geometry | None, image: Image | None) -> int:
    """Return how many products a row with such windows of a map's output takes."""
    if own is None or image is None or not isinstance(linear_map, Convolution):
        return linear_map.nnz
    return min(linear_map.nnz, math.prod(own.extent) * math.prod(linear_map.kernel.shape))


# --- arrays ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Where:
    """Which box each row of a batch is about, and at which place its state is."""

    box: IntArray
    """(R,)"""
    places: IntArray | None
    """(R, rank) of states of an image; None for others."""

    def some(self, rows: slice | BoolArray) -> Where:
        """Return this for some of the rows."""
        return Where(self.box[rows], None if self.places is None else self.places[rows])

    @cached_property
    def runs(self) -> list[tuple[int, slice]]:
        """Each box with its rows, which stand together."""
        ends = (np.flatnonzero(np.diff(self.box, append=-1)) + 1).tolist()
        return [(int(self.box[start]), slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)]

    @property
    def of_one_box(self) -> Where:
        """The same for arrays that all boxes share."""
        return Where(np.zeros_like(self.box), self.places)


def as_image(flat: FloatArray, image: Image) -> FloatArray:
    """Return (m, n) vectors as (m, *spatial, channels)."""
    return np.ascontiguousarray(np.moveaxis(flat.reshape(len(flat), *image), 1, -1))


def as_flat(images: FloatArray) -> FloatArray:
    """Return (m, *spatial, channels) as (m, n) vectors, channels first."""
    return np.ascontiguousarray(np.moveaxis(images, -1, 1)).reshape(len(images), -1)


class Gathered:
    """Arrays of one number a state and box, as each row's window sees them."""

    def __init__(self, arrays: FloatArray, image: Image | None, geometry: Geometry | None, where: Where) -> None:
        """Take several arrays, (a, m, n), at once."""
        self._where, self._geometry = where, geometry
        self._moves = geometry is not None and not geometry.is_fixed
        if geometry is None or image is None:
            self._arrays = arrays
            return
        self._arrays = np.stack([as_image(array, image) for array in arrays])
        if geometry.is_fixed:
            return
        assert where.places is not None  # by `plan`: windows move with places
        self._origins = geometry.origins(where.places)
        before = np.maximum(0, -self._origins.min(axis=0, initial=0))
        ends = self._origins.max(axis=0, initial=0) + geometry.extent - np.array(image[1:])
        around = [(0, 0), (0, 0), *zip(before.tolist(), np.maximum(0, ends).tolist(), strict=True), (0, 0)]
        self._origins = self._origins + before
        self._arrays = np.pad(self._arrays, around)

    def __call__(self, number: int) -> FloatArray:
        """Return one array for each row, (R, n) or (R, *extent, channels); one for all where there is but one box."""
        array, box = self._arrays[number], self._where.box
        if not self._moves:
            return np.asarray(array if len(array) == 1 else array[box])
        assert self._geometry is not None
        extent = self._geometry.extent
        windows = np.lib.stride_tricks.sliding_window_view(array, extent, axis=tuple(range(1, 1 + len(extent))))
        taken: FloatArray = np.moveaxis(windows, len(extent) + 1, -1)[(box, *self._origins.T)]
        return taken

    def dot(self, v: FloatArray, number: int) -> FloatArray:
        """Return the sum of v * (what each row sees of an array) over each row, (R,): of `summed` products."""
        if self._by_runs(v):
            array = self._arrays[number]
            return np.concatenate([_dots(v[rows], array[box : box + 1]) for box, rows in self._where.runs])
        return _dots(v, self(number))

    def scale(self, v: FloatArray, number: int) -> None:
        """Multiply each row by what it sees of an array."""
        if not self._by_runs(v):
            v *= self(number)
            return
        for box, rows in self._where.runs:
            v[rows] *= self._arrays[number, box]

    def _by_runs(self, v: FloatArray) -> bool:
        """Whether box after box is faster than a copy of what each row sees."""
        boxes = self._arrays.shape[1]
        return not self._moves and (1 < boxes <= v.size // LARGE_RUN)


def summed(v: FloatArray) -> int:
    """Return k so that gamma_k is the rounding of `Gathered.dot`: images are summed along lines, then these."""
    return int(v.shape[1]) + (math.prod(v.shape[2:]) if v.ndim > 2 else 0)


def _dots(v: FloatArray, seen: FloatArray) -> FloatArray:
    """Return the sums of v * seen over each row, (R,); `seen` is one for all rows or one a row."""
    if v.ndim == 2:
        return np.asarray(v @ seen[0] if len(seen) == 1 else np.einsum("rn,rn->r", v, seen))
    lines, theirs = (part.reshape(*part.shape[:2], -1) for part in (v, seen))
    if len(seen) == 1:
        return np.asarray(np.einsum("rhk,hk->rh", lines, theirs[0]).sum(axis=1))
    return np.asarray(np.einsum("rhk,rhk->rh", lines, theirs).sum(axis=1))


def moved(
    values: FloatArray, geometry: Geometry | None, to: Geometry | None, image: Image | None, where: Where
) -> FloatArray:
    """Return rows, (R, n) or (R, *extent, channels), in the windows `to`, which hold all that they see."""
    if geometry == to:
        return values
    if to is None:
        assert image is not None
        assert geometry is not None
        return as_flat(moved(values, geometry, Geometry.whole(image), image, where))
    assert image is not None
    if geometry is None:
        return as_image(values, image)
    if geometry.scale == to.scale:
        return _embedded(values, geometry, to)
    return _scattered(values, geometry, image, where)


def _embedded(values: FloatArray, geometry: Geometry, to: Geometry) -> FloatArray:
    """Return windows that move alike in others, cut where these end."""
    result = np.zeros((len(values), *to.extent, values.shape[-1]))
    into, out = [], []
    for here, size, there, room in zip(geometry.offset, geometry.extent, to.offset, to.extent, strict=True):
        first = max(here, there)
        last = max(first, min(here + size, there + room))
        into.append(slice(first - there, last - there))
        out.append(slice(first - here, last - here))
    result[(slice(None), *into)] = values[(slice(None), *out)]
    return result


def _scattered(values: FloatArray, geometry: Geometry, image: Image, where: Where) -> FloatArray:
    """Return windows that move as whole images; what lies beyond an edge is lost."""
    assert where.places is not None
    origins = geometry.origins(where.places)
    before = np.maximum(0, -origins.min(axis=0, initial=0))
    sizes = np.maximum(np.array(image[1:]), origins.max(axis=0, initial=0) + geometry.extent) + before
    padded = np.zeros((len(values), *sizes.tolist(), values.shape[-1]))
    rank = len(geometry.extent)
    index: list[IntArray] = [np.arange(len(values)).reshape(-1, *[1] * rank)]
    for axis, extent in enumerate(geometry.extent):
        steps = np.arange(extent).reshape(1, *[-1 if a == axis else 1 for a in range(rank)])
        index.append((origins[:, axis] + before[axis]).reshape(-1, *[1] * rank) + steps)
    padded[tuple(index)] = values
    inside = tuple(slice(int(b), int(b) + size) for b, size in zip(before, image[1:], strict=True))
    return np.ascontiguousarray(padded[(slice(None), *inside)])
