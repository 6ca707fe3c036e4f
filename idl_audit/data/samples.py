"""The samples of an audit: the user's numbers, one flat row per sample in the model's own order."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, ParamSpec, TypeAlias

import numpy as np

from idl_audit.data.array_files import MAX_ARRAY_BYTES, ArrayFile, StoredFile, at_once
from idl_audit.data.cells import shown
from idl_audit.data.image_folder import ImageFolder, digest, list_images, pixel_shape, read_images
from idl_audit.data.integers import NOT_HELD, first_inexact
from idl_audit.data.labels import (
    LabelRows,
    OneOutput,
    are_binary,
    check_binary_labels,
    check_label_rows,
    check_labels,
)
from idl_audit.data.sample_files import open_sample_file, read_sample_file
from idl_audit.data.shards import chained, open_samples_in, shards_of, together
from idl_audit.data.stores import Store
from idl_audit.data.tables import Aside
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.errors import DataError

P = ParamSpec("P")
Layout: TypeAlias = Literal["native", "nchw", "nhwc", "flat"]
"""The order of the data's axes: the model's own, or said explicitly."""

Part: TypeAlias = tuple[str, tuple[int, ...]]
"""One of a network's inputs: its name, and its shape for one sample."""

INPUT_NAMES = ("inputs", "images", "x", "X")
LABEL_NAMES = ("labels", "y")
PART_BYTES: Final = 2**22
"""What the samples that are read at a time take as float64."""


@dataclass(frozen=True)
class Samples:
    """n samples out of a file, in the order they were asked for.

    inputs: (n, p) float64 in data units (before scale, mean and std); pixels of 0..255 stay 0..255.
    labels: (n,) class numbers from 0, or None where the file has none; (n, k) where each sample has k of them.
    indices: (n,) positions in the file.
    sha256: of the whole file that the inputs come from; of a folder, of all names and of the chosen images.
    """

    inputs: FloatArray
    labels: IntArray | None
    indices: IntArray
    source: str
    sha256: str
    dtype: str = "float64"
    """The number type in the file."""
    has_targets: bool = False
    """Whether the file has numbers in place of labels: targets of a regression, which are left out."""

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.indices.size)

    def rows(self, places: AnyArray) -> Samples:
        """Return some of them, by their places."""
        chosen = np.asarray(places, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, inputs=self.inputs[chosen], labels=labels, indices=self.indices[chosen])


@dataclass(frozen=True, eq=False)
class SampleStream:
    """n samples out of a file as `Samples` has them, whose inputs are read when they are asked for."""

    labels: IntArray | None
    indices: IntArray
    source: str
    sha256: str
    dtype: str
    has_targets: bool
    p: int
    """Numbers of a sample."""
    inputs_at: Callable[[IntArray], FloatArray]
    """Positions in the file -> their inputs, (m, p) float64. Raises DataError."""
    total: int = 0
    """Samples in the file; 0 where that is not known."""

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.indices.size)

    def rows(self, places: AnyArray) -> SampleStream:
        """Return some of them, by their places."""
        chosen = np.asarray(places)
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, labels=labels, indices=self.indices[chosen])

    def read(self, places: AnyArray | slice = slice(None)) -> Samples:
        """Read samples, by their places. Raises DataError where their numbers are not finite or not there."""
        labels = None if self.labels is None else self.labels[places]
        indices = self.indices[places]
        return Samples(self.inputs_at(indices), labels, indices, self.source, self.sha256, self.dtype, self.has_targets)

    def parts(self, order: IntArray | None = None) -> Iterator[tuple[IntArray, Samples]]:
        """Yield (places, samples) of all samples, some at a time, in an order of the places: theirs, unless given."""
        places = np.arange(self.n) if order is None else order
        step = max(1, PART_BYTES // max(1, 8 * self.p))
        for at in range(0, self.n, step):
            yield places[at : at + step], self.read(places[at : at + step])

    @classmethod
    def of(cls, samples: Samples) -> SampleStream:
        """Return samples that are there already, as a stream."""
        place = np.argsort(samples.indices, kind="stable")

        def inputs(indices: IntArray) -> FloatArray:
            return samples.inputs[place[np.searchsorted(samples.indices, indices, sorter=place)]]

        told = (samples.source, samples.sha256, samples.dtype, samples.has_targets)
        return cls(samples.labels, samples.indices, *told, samples.inputs.shape[1], inputs)


def all_of(given: SampleStream) -> Samples:
    """Return all samples of a stream. Raises DataError where they take too much memory, or are not finite."""
    needed = given.n * given.p * 8
    if needed > MAX_ARRAY_BYTES:
        raise DataError(
            f"{given.source}: {given.n} samples of {given.p} numbers take {needed / 2**30:.1f} GiB as float64, above "
            f"the limit of {MAX_ARRAY_BYTES / 2**30:g} GiB; take fewer with --limit"
        )
    return given.read()


def stream_samples(
    path: Path,
    *,
    input_shape: tuple[int, ...],
    n_classes: int | None,
    labels: Path | None = None,
    limit: int | None = None,
    index: Sequence[int] | None = None,
    layout: Layout = "native",
    with_labels: bool = True,
    of_labels: OneOutput | LabelRows | None = None,
    parts: Sequence[Part] = (),
    aside: Sequence[str] = (),
) -> SampleStream:
    """Return the samples of a file, and labels where there are any, for a model that reads `input_shape`.

    `input_shape` includes the leading batch axis of length 1 where the model has one; p is its product. A sample with
    p numbers is reshaped, never transposed, except that layout "nhwc" moves the channels of (H, W, C) samples to the
    front for a model that reads (1, C, H, W). An array that is one sample as a whole counts as n = 1.

    `path` is a file (.npz, .npy, .csv, .safetensors, .pt, .parquet, .arrow, .tar as WebDataset has them), a folder of
    images, whose pixels are numbers 0 to 255, a folder of Hugging Face's `datasets`, or a folder or pattern of several
    .npz, .npy, .parquet, .arrow or .tar files.
    `labels` names a file whose labels replace those in `path`; `index` selects positions, `limit` the first few of
    what is selected. Inputs are checked where they are read, labels throughout. `of_labels` says that the model
    has one output, whose classes are 0 and 1, or how many labels each sample has. `parts` are the network's own inputs:
    of several, the file has an array (or column) by the name of each, or one of all p numbers, one part behind the
    other. Columns `aside` of a table are no inputs unless the others are too few.

    Raises:
        DataError: where a file cannot be read or does not fit the model; the message says what would work.
    """
    names = [name for name, _ in parts]
    kept_apart = Aside(tuple(aside), math.prod(input_shape)) if aside else None
    shards = shards_of(path)
    if os.path.isdir(path) and not shards:  # a name that no file can have is none either
        folder = list_images(path)
        return _of_images(folder, names, input_shape, n_classes, labels, limit, index, layout, of_labels, with_labels)
    if shards:
        files = [open_samples_in(one, _wanted(parts), kept_apart) for one in shards]
        images = [file.images for file in files if file.images is not None]
        if images and len(images) < len(files):
            raise DataError(f"{path} has files of images and others of arrays; give one kind")
        if images:
            folder = together(images, path)
            chosen_as = (labels, limit, index, layout, of_labels, with_labels)
            return _of_images(folder, names, input_shape, n_classes, *chosen_as)
        read = chained(path, shards, [file.arrays for file in files if file.arrays is not None])
    else:
        read = open_sample_file(path, _wanted(parts), kept_apart)
    blocks = _blocks(read, input_shape, layout, parts, path)
    n = blocks[0].n
    chosen = _select(n, limit, index, path)
    if not with_labels:
        found, missing = None, read.missing
    elif labels is None:
        last = read.stores[-1]
        found, missing = None if last is None else at_once(last, f"{path}: the array of labels"), read.missing
    else:
        given = _read_labels(labels)
        found, missing = given.arrays[-1], given.missing
    checked = _checked(_read_of(found, chosen, n), n, n_classes, of_labels, labels or path, missing)

    def inputs(indices: IntArray) -> FloatArray:
        return np.hstack([_to_float64(block.take(indices), indices, block.where, read.missing) for block in blocks])

    return SampleStream(
        labels=None if checked is None else checked[chosen],
        indices=chosen,
        source=str(path),
        sha256=read.sha256,
        dtype=blocks[0].store.dtype.name,
        has_targets=found is not None and checked is None,
        p=math.prod(input_shape),
        inputs_at=inputs,
        total=n,
    )


def _at_once(stream: Callable[P, SampleStream]) -> Callable[P, Samples]:
    def read(*args: P.args, **kwargs: P.kwargs) -> Samples:
        return all_of(stream(*args, **kwargs))

    return read


read_samples = _at_once(stream_samples)
"""Return what `stream_samples` does, all of it at once. Raises DataError also where that takes too much memory."""


@dataclass(frozen=True)
class _Block:
    """Rows of one array of the file, (n, a part of p), and what messages call it."""

    store: Store
    n: int
    p: int
    where: str
    order: tuple[int, int, int] | None = None
    """(H, W, C) of images whose channels are to come first."""

    def take(self, places: IntArray) -> AnyArray:
        """Return rows in the model's order, in the file's own number type."""
        rows = self.store.take(places, self.p)
        if self.order is None:
            return rows
        return rows.reshape(-1, *self.order).transpose(0, 3, 1, 2).reshape(rows.shape)


def _wanted(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """Return the names that arrays of the file may have: one for the whole input, each part of it, the labels."""
    names = [name for name, _ in parts]
    labels = tuple(name for name in LABEL_NAMES if name not in names)
    if len(parts) < 2:
        return [(*INPUT_NAMES, *(name for name in names if name not in (*INPUT_NAMES, *LABEL_NAMES))), LABEL_NAMES]
    return [
        tuple(name for name in INPUT_NAMES if name not in names) or INPUT_NAMES[:1],
        *((name,) for name in names),
        labels,
    ]


def _blocks(
    read: StoredFile, input_shape: tuple[int, ...], layout: Layout, parts: Sequence[Part], path: Path
) -> list[_Block]:
    """Return the rows that make the input vector, side by side."""
    by_name = _by_name(read, parts, layout, path) if len(parts) > 1 else None
    if by_name is not None:
        return by_name
    raw = read.stores[0]
    if raw is None:
        raise DataError(
            f"{path} has no array named {_either(INPUT_NAMES)}; it has {_names(read)}; save samples with "
            "numpy.savez(FILE, inputs=..., labels=...)"
        )
    _check_label_column(raw, read, input_shape, path)
    return [_in_model_order(raw, input_shape, layout, str(path))]


def _by_name(read: StoredFile, parts: Sequence[Part], layout: Layout, path: Path) -> list[_Block] | None:
    """Return the arrays by the names of the parts; None where the file has one array for all of them."""
    names = [name for name, _ in parts]
    found = dict(zip(names, read.stores[1 : len(parts) + 1], strict=True))
    absent = [name for name in names if found[name] is None]
    if len(absent) == len(names) and read.stores[0] is not None:
        return None
    if absent:
        raise DataError(
            f"{path} has no array named {_listed(absent)}, and the model's inputs are {_listed(names)}; it has "
            f"{_names(read)}: give one array for each input, or 'inputs' with all numbers in this order"
        )
    if layout != "native":
        raise DataError(
            f"{path}: --layout {layout} says how one image lies, and the model has the inputs {_listed(names)}; leave "
            "it out and give each in the model's order"
        )
    blocks = []
    for name, shape in parts:
        array, where = found[name], f"{path}: array {shown(name)}"
        assert array is not None
        blocks.append(_in_model_order(array, shape, layout, where, "input"))
        if blocks[-1].n != blocks[0].n:
            counts = f"{blocks[0].n} of {shown(names[0])}, {blocks[-1].n} of {shown(name)}"
            raise DataError(f"{path} has different numbers of samples ({counts}); give one row of each for each sample")
    return blocks


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names))


def _of_images(
    folder: ImageFolder,
    names: Sequence[str],
    input_shape: tuple[int, ...],
    n_classes: int | None,
    labels: Path | None,
    limit: int | None,
    index: Sequence[int] | None,
    layout: Layout,
    of_labels: OneOutput | LabelRows | None,
    with_labels: bool,
) -> SampleStream:
    """Return images as samples; only the chosen ones are decoded."""
    path = folder.path
    what = "a folder of images" if folder.contents is None else "of images"
    if len(names) > 1:
        raise DataError(
            f"{path} is {what}, and the model has the inputs {_listed(names)}; give an .npz file with an array for each"
        )
    if layout != "native":
        raise DataError(f"{path} is {what}, whose order of axes is known; leave --layout out")
    n = len(folder.files)
    chosen = _select(n, limit, index, path)
    found = None
    if with_labels:
        own = labels is None
        found = _folder_labels(folder, n_classes) if own else _read_labels(labels or path).arrays[0]
    checked = _checked(_read_of(found, chosen, n), n, n_classes, of_labels, labels or path, {})
    shape = pixel_shape(folder, input_shape)

    def inputs(indices: IntArray) -> FloatArray:
        return _to_float64(read_images(folder, indices, shape), indices, str(path))

    return SampleStream(
        labels=None if checked is None else checked[chosen],
        indices=chosen,
        source=str(path),
        sha256=digest(folder, chosen),
        dtype="uint8",
        has_targets=found is not None and checked is None,
        p=shape.p,
        inputs_at=inputs,
        total=n,
    )


def _folder_labels(folder: ImageFolder, n_classes: int | None) -> AnyArray | None:
    """Return the folders' labels; names that are no numbers say which class is meant only where all are there."""
    if folder.classes and n_classes is not None and len(folder.classes) != n_classes:
        raise DataError(
            f"{folder.path} has {len(folder.classes)} class folders and the model {n_classes} classes: which is which? "
            "Name the folders by class number, or give labels.csv with the columns file, label"
        )
    return folder.labels


def _check_label_column(array: Store, read: StoredFile, input_shape: tuple[int, ...], path: Path) -> None:
    """Refuse a table without a heading that has one column too many: it is the labels, first or last."""
    p = math.prod(input_shape)
    if not read.names and len(array.shape) == 2 and array.shape[1] == p + 1:
        raise DataError(
            f"{path}: each sample has {p + 1} numbers, one more than the model's input takes; if one column is the "
            "label, say which by a heading with the name label, or save inputs and labels with numpy.savez"
        )


def _read_labels(path: Path) -> ArrayFile:
    """Return the file's labels, its only array."""
    read = read_sample_file(path, (LABEL_NAMES,))
    if read.arrays[0] is None:
        raise DataError(f"{path} has no array named {_either(LABEL_NAMES)}; it has {_names(read)}")
    return read


def _checked(
    labels: AnyArray | None,
    n: int,
    n_classes: int | None,
    of_labels: OneOutput | LabelRows | None,
    path: Path,
    missing: Mapping[int, str],
) -> IntArray | None:
    """Return the labels of n samples, None where there are none: the targets of a regression are no labels."""
    if labels is None or (of_labels is OneOutput.VALUE and not are_binary(labels)):
        return None
    if isinstance(of_labels, LabelRows):
        return check_label_rows(labels, n, of_labels, path, missing=missing)
    if of_labels is not None:
        return check_binary_labels(labels, n, path, missing=missing)
    return check_labels(labels, n, n_classes, path, missing=missing)


def _read_of(labels: AnyArray | None, chosen: IntArray, n: int) -> AnyArray | None:
    """Return labels in which those that are missing, of samples that are left out, are that of one that is chosen."""
    if labels is None or labels.dtype.kind != "f" or labels.ndim == 0 or len(labels) != n or not chosen.size:
        return labels
    left_out = np.isnan(labels)
    left_out[chosen] = False
    first = labels[chosen[0]]
    return np.where(left_out, first, labels) if left_out.any() else labels


def _in_model_order(
    array: Store, input_shape: tuple[int, ...], layout: Layout, path: str, of: str = "model's input"
) -> _Block:
    """Return the samples as rows, shape (n, p), in the file's own number type."""
    p, size = math.prod(input_shape), math.prod(array.shape)
    if size == 0:
        raise DataError(f"{path} holds no samples: its array has shape {array.shape}; give at least one")
    sample_shape = array.shape[1:]
    if not array.shape or math.prod(sample_shape) != p:
        if size != p:
            raise DataError(
                f"{path}: each sample has {math.prod(sample_shape)} numbers (the array has shape {array.shape}), but "
                f"the {of} {input_shape} takes {p}; give samples with {p} numbers each",
                code="IDL115",
            )
        sample_shape = array.shape  # one sample without an axis to count it
    rows = _Block(array, size // p, p, path)
    if layout == "native":
        return rows
    expected = _expected_shape(layout, input_shape, path)
    if _without_ones(sample_shape) != _without_ones(expected):
        raise DataError(
            f"{path}: --layout {layout} expects samples of shape {expected} for the model's input {input_shape}, not "
            f"{sample_shape}; leave --layout out where the numbers are in the model's order already"
        )
    if layout == "nhwc":
        height, width, channels = expected
        return replace(rows, order=(height, width, channels))
    return rows


def _expected_shape(layout: Layout, input_shape: tuple[int, ...], path: str) -> tuple[int, ...]:
    """Return the shape that one sample has in that layout, for the input (1, C, H, W) of a model."""
    if layout == "flat":
        return (math.prod(input_shape),)
    if len(input_shape) != 4 or input_shape[0] != 1:
        raise DataError(
            f"{path}: --layout {layout} needs a model that reads images (1, C, H, W), and this one reads "
            f"{input_shape}; leave --layout out"
        )
    channels, height, width = input_shape[1:]
    return (height, width, channels) if layout == "nhwc" else (channels, height, width)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop the axes of length 1: they have no part in the order of the numbers."""
    return tuple(extent for extent in shape if extent != 1)


def _select(n: int, limit: int | None, index: Sequence[int] | None, path: Path) -> IntArray:
    """Return the positions in the file that were asked for."""
    if limit is not None and limit <= 0:
        raise DataError(f"--limit must be 1 or more, not {limit}; {path} has {n} samples")
    if index is None:
        return np.arange(n if limit is None else min(limit, n), dtype=np.int64)
    if not index:
        raise DataError(f"--index selects no sample; give positions from 0 to {n - 1} in {path}")
    seen: set[int] = set()
    for position in index:
        if not 0 <= position < n:
            raise DataError(f"--index {position} is not in {path}; it has {n} samples, numbered 0 to {n - 1}")
        if position in seen:
            raise DataError(f"--index has {position} twice; give every position in {path} once")
        seen.add(position)
    return np.array(index, np.int64)[:limit]


def _to_float64(
    rows: AnyArray, chosen: IntArray, path: str, missing: Mapping[int, str] = MappingProxyType({})
) -> FloatArray:
    # long doubles beyond float64's range become infinity, which is refused below, as NaN of any kind is
    with np.errstate(over="ignore", invalid="ignore"):
        inputs = rows.astype(np.float64)
    inexact = first_inexact(rows)
    if inexact is not None:
        row, column = divmod(inexact, rows.shape[1])
        raise DataError(
            f"{path}: sample {int(chosen[row])} has {int(rows[row, column])} at input {column}, {NOT_HELD}, or leave "
            "the sample out with --index",
            code="IDL116",
        )
    finite = np.isfinite(inputs)
    if not finite.all():
        row, column = (int(axis[0]) for axis in np.nonzero(~finite))
        what = "NaN" if np.isnan(inputs[row, column]) else "infinity"
        place = f" ({missing[int(chosen[row])]}, a missing number)" if int(chosen[row]) in missing else ""
        raise DataError(
            f"{path}: sample {int(chosen[row])} has {what} at input {column}{place}; every number must be finite, so "
            "mend the file or leave the sample out with --index",
            code="IDL116",
        )
    return inputs


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _names(read: ArrayFile | StoredFile) -> str:
    """List the first few array names of the file."""
    shown = ", ".join(repr(name[:60]) for name in read.names[:10])
    return (shown + (f" and {len(read.names) - 10} more" if len(read.names) > 10 else "")) or "none"
