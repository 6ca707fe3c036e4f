"""Samples in files of columns (Parquet, Arrow): numbers side by side as in a table of text, lists as arrays, images.

The column that its name calls label (or the only one of classes, as Hugging Face's datasets write them) has the labels.
Beside it stand either numbers, one column an input, or one column of lists or of encoded images. A door to pyarrow.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeAlias, overload

import numpy as np

from idl_audit.data.array_files import StoredFile, at_once
from idl_audit.data.cells import shown
from idl_audit.data.column_files import BATCH_BYTES, Rows, Table, metadata, open_table, told
from idl_audit.data.file_samples import FileSamples
from idl_audit.data.image_folder import ImageFolder
from idl_audit.data.integers import NOT_HELD, first_inexact
from idl_audit.data.stores import Store
from idl_audit.data.tables import INPUTS, LABELS, MOST_NOTED, Aside, label_column, refuse_index
from idl_audit.values.arrays import AnyArray, BoolArray, IntArray
from idl_audit.values.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Kind: TypeAlias = Literal["number", "lists", "images", "other"]

_HUGGING_FACE: Final = b"huggingface"
_LONGEST_METADATA: Final = 2**24
_INDEX: Final = "__index_level_"
"""How pandas names the columns of an index that has no name."""
_LARGEST_IMAGE: Final = 2**30


def open_columns(path: Path, wanted: Sequence[Sequence[str]], aside: Aside | None = None) -> FileSamples:
    """Return of each group of names what the file has, read when it is asked for, as `read_table` tells them apart.

    Columns that are put `aside` are as if they were not there.

    Raises:
        DataError: where the file is damaged, or its columns are no samples, or may be read in two ways.
    """
    table = open_table(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with told(path):
        return _told_apart(table, wanted, digest, aside)


def read_entries(path: Path, name: str) -> list[object]:
    """Return a column of words, numbers or truth values as it is. Raises DataError where there is none."""
    from pyarrow import types

    table = open_table(path)
    _check_there(table, name)
    kind = table.schema.field(name).type
    if types.is_nested(kind) or _is_bytes(kind):
        raise DataError(f"{path}: column {shown(name)} has {kind} in its rows, which are no groups; give words")
    found: list[object] = []
    for group in range(len(table.starts) - 1):
        for batch in table.batches(group, (name,), None):
            found += batch.column(0).to_pylist()
    return found


def _check_there(table: Table, name: str) -> None:
    if name not in table.schema.names:
        listed = ", ".join(map(shown, table.schema.names[:10]))
        raise DataError(f"{table.path} has no column {shown(name)}; it has {listed}")


def _told_apart(table: Table, wanted: Sequence[Sequence[str]], digest: str, aside: Aside | None = None) -> FileSamples:
    path = table.path
    heading = tuple(table.schema.names)
    refuse_index(path, heading)
    index = next((name for name in heading if name.startswith(_INDEX)), None)
    if index is not None:
        raise DataError(f"{path} has the column {shown(index)}, an index of pandas; write it with index=False")
    missing: dict[int, str] = {}
    chosen = _chosen(table, wanted, aside)
    images = [names for names, group in zip(chosen, wanted, strict=True) if _are_images(table, names)]
    if images:
        return FileSamples(None, _images(table, images[0] or (), chosen, wanted, digest))
    stores = tuple(None if names is None else _store(table, names, missing) for names in chosen)
    named = tuple(None if names is None or len(names) > 1 else names[0] for names in chosen)
    return FileSamples(StoredFile(stores, named, heading, digest, missing), None)


def kind_of(told_type: pa.DataType) -> Kind:
    """Return what the cells of a column are."""
    from pyarrow import types

    if isinstance(told_type, _extension()):
        return kind_of(told_type.storage_type)
    if types.is_dictionary(told_type):
        return "number" if kind_of(told_type.value_type) == "number" else "other"
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    if any(is_one(told_type) for is_one in numbers):
        return "number"
    if _is_list(told_type):
        return "lists" if kind_of(told_type.value_type) in ("number", "lists") else "other"
    if types.is_struct(told_type):
        own = [told_type.field(place) for place in range(told_type.num_fields)]
        return "images" if any(one.name == "bytes" and _is_bytes(one.type) for one in own) else "other"
    return "images" if _is_bytes(told_type) else "other"


def _extension() -> type[Any]:
    import pyarrow as pa

    found: type[Any] = pa.BaseExtensionType
    return found


def _is_list(told_type: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list(told_type) or types.is_large_list(told_type) or types.is_fixed_size_list(told_type))


def _is_bytes(told_type: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_binary(told_type) or types.is_large_binary(told_type))


def _chosen(table: Table, wanted: Sequence[Sequence[str]], aside: Aside | None = None) -> list[tuple[str, ...] | None]:
    """Return of each group of names the columns that it asks for."""
    path, names = table.path, table.schema.names
    kinds = {name: kind_of(table.schema.field(name).type) for name in names}
    place = label_column(path, names)
    label = names[place] if place is not None else _only_class(path, table.schema)
    if label is None and all(LABELS in group for group in wanted):
        if len(names) != 1:
            raise DataError(f"{path} has {len(names)} columns, none of which is called label; call one so")
        label = names[0]
    rest = [name for name in names if name != label]
    for name in () if aside is None else aside.names:
        _check_there(table, name)
    if aside is not None and len(rest) != aside.p:
        rest = [name for name in rest if name not in aside.names]
    found: list[tuple[str, ...] | None] = []
    for group in wanted:
        own = [name for name in rest if name in group]
        if LABELS in group:
            found.append(None if label is None else (label,))
        elif INPUTS in group:
            found.append(())
        else:
            found.append((own[0],) if len(own) == 1 else None)
    has_parts = any(columns for columns, group in zip(found, wanted, strict=True) if LABELS not in group)
    for at, group in enumerate(wanted):
        if INPUTS in group:
            found[at] = _inputs(path, {name: kinds[name] for name in rest}, table.schema, group, may_lack=has_parts)
    return found


def _inputs(
    path: Path, kinds: Mapping[str, Kind], schema: pa.Schema, group: Sequence[str], *, may_lack: bool
) -> tuple[str, ...] | None:
    """Return the columns that the inputs are, None where there need not be any. Raises DataError."""
    by_kind: dict[Kind, list[str]] = {"number": [], "lists": [], "images": [], "other": []}
    for name, kind in kinds.items():
        by_kind[kind].append(name)
    arrays = by_kind["lists"] + by_kind["images"]
    by_name = [name for name in arrays if name in group]
    if len(by_name) == 1:
        return (by_name[0],)
    if len(arrays) == 1 and not by_kind["number"]:
        return (arrays[0],)
    if not arrays and not by_kind["other"] and by_kind["number"]:
        return tuple(by_kind["number"])
    if may_lack or not kinds:
        return None
    if arrays:
        listed = ", ".join(map(shown, [*arrays, *by_kind["number"]][:6]))
        raise DataError(
            f"{path} has columns of arrays beside others ({listed}), each of which may be the inputs; call one 'inputs'"
        )
    _refuse_type(path, by_kind["other"][0], schema)


def _refuse_type(path: Path, name: str, schema: pa.Schema) -> NoReturn:
    raise DataError(
        f"{path} has {str(schema.field(name).type)[:80]} in the column {shown(name)}, which are no numbers; leave it "
        "out, or write numbers (classes from 0; one column a category, 1 or 0)"
    )


def _only_class(path: Path, schema: pa.Schema) -> str | None:
    """Return the only column that Hugging Face's metadata call a class; None where there is none."""
    text = metadata(schema).get(_HUGGING_FACE, b"")
    if not text or len(text) > _LONGEST_METADATA:
        return None
    try:
        features = json.loads(text)["info"]["features"]
        found = [name for name, one in features.items() if isinstance(one, dict) and one.get("_type") == "ClassLabel"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # what stands beside the columns is no part of them
    found = [name for name in found if name in schema.names]
    if len(found) > 1:
        raise DataError(
            f"{path} has the classes {' and '.join(map(shown, found[:3]))}, each of which may be the labels; call one "
            "of them label"
        )
    return found[0] if found else None


def _store(table: Table, names: tuple[str, ...], missing: MutableMapping[int, str]) -> Store:
    for name in names:
        if kind_of(table.schema.field(name).type) not in ("number", "lists"):
            _refuse_type(table.path, name, table.schema)
    types = [table.schema.field(name).type for name in names]
    dtype = np.result_type(*(_number_type(one) for one in types))
    shape: tuple[int, ...] = (len(names),)
    if len(names) == 1 and kind_of(types[0]) == "lists":
        place = np.zeros(1, np.int64)
        ((_, first),) = Rows(table, names, BATCH_BYTES).read(place)
        shape = _decoded(first.column(0), table.path, names[0], place)[0].shape[1:]
    return Columns(Rows(table, names, 8 * math.prod(shape)), shape, dtype, missing)


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of numbers side by side, or one column of lists, as an array of samples."""

    rows: Rows
    sample: tuple[int, ...]
    dtype: np.dtype[Any]
    missing: MutableMapping[int, str]
    """Row -> where its first number is missing; filled where that is met."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first."""
        return (int(self.rows.table.starts[-1]), *self.sample)

    def take(self, places: IntArray, p: int) -> AnyArray:
        """Return rows of p numbers; those with a missing one as float64. Raises DataError."""
        if p != math.prod(self.sample):  # the whole is one sample
            return self.take(np.arange(self.shape[0]), math.prod(self.sample)).reshape(-1, p)[places]
        parts = [(own, self._numbers(places[own], batch)) for own, batch in self.rows.read(np.asarray(places))]
        taken = np.empty((len(places), p), np.result_type(self.dtype, *(part.dtype for _, part in parts)))
        for own, part in parts:
            taken[own] = part.reshape(len(own), p)
        return taken

    def _numbers(self, places: IntArray, batch: pa.RecordBatch) -> AnyArray:
        path, found = self.rows.table.path, []
        for name, column in zip(self.rows.columns, batch.columns, strict=True):
            cells, absent = _decoded(column, path, name, places)
            if cells.shape[1:] not in ((), self.sample):
                where, own = f"{path}: row {int(places[0])}, column {shown(name)}", cells.shape[1:]
                raise DataError(f"{where} has a list of shape {own}, and row 0 one of {self.sample}; give equal ones")
            for row in places[absent].tolist():
                if len(self.missing) < MOST_NOTED:
                    self.missing.setdefault(row, f"row {row}, column {shown(name)} has nothing")
            found.append(cells)
        if len({cells.dtype for cells in found}) > 1:
            self._check_exact(found, path)
        return np.stack(found, axis=-1) if len(found) > 1 else found[0].copy()  # no view: it keeps the whole batch

    def _check_exact(self, found: Sequence[AnyArray], path: Path) -> None:
        """Refuse whole numbers that the number type of all columns does not hold. Raises DataError."""
        for name, cells in zip(self.rows.columns, found, strict=True):
            place = first_inexact(cells)
            if place is not None:
                whole = int(cells.reshape(-1)[place])
                raise DataError(f"{path}: column {shown(name)} has {whole}, {NOT_HELD}", code="IDL116")


def _number_type(told_type: pa.DataType) -> np.dtype[Any]:
    """Return the type of the numbers in a column; decimals become float64."""
    from pyarrow import types

    if isinstance(told_type, _extension()):
        return _number_type(told_type.storage_type)
    if types.is_dictionary(told_type) or _is_list(told_type):
        return _number_type(told_type.value_type)
    return np.dtype(np.float64) if types.is_decimal(told_type) else np.dtype(told_type.to_pandas_dtype())


def _decoded(column: pa.Array, path: Path, name: str, places: IntArray) -> tuple[AnyArray, BoolArray]:
    """Return the numbers of a column, (m, ...), NaN where one is missing, and which of its rows lack one.

    Args:
        column: m rows.
        path, name, places: for messages: the column, and which rows of the file these are.

    Raises:
        DataError: where lists are missing, or not all of one shape, or another order of axes is told.
    """
    m, shape = len(column), []
    owners = np.arange(m)
    while True:
        if isinstance(column.type, _extension()):
            permutation = getattr(column.type, "permutation", None)
            if permutation is not None and list(permutation) != sorted(permutation):
                raise DataError(f"{path}: column {shown(name)} has its axes in another order; write them as they are")
            own = getattr(column.type, "shape", None)
            column = column.storage
            if own is not None:  # Arrow's tensors: one list for all axes
                flat, absent = _decoded(column, path, name, places)
                return flat.reshape(m, *own), absent
        elif _is_list(column.type):
            size = _size_of_lists(column, path, name, places, owners)
            column, owners = column.flatten(), np.repeat(owners, size)
            shape.append(size)
        else:
            break
    numbers, absent = _leaf(column, path, name)
    rows = np.zeros(m, np.bool_)
    rows[owners[absent]] = True
    return numbers.reshape(m, *shape), rows


def _size_of_lists(column: pa.Array, path: Path, name: str, places: IntArray, owners: IntArray) -> int:
    """Return how long the lists are. Raises DataError where they are missing or not equally long."""
    import pyarrow.compute as pc

    if column.null_count:
        at = int(np.argmax(np.asarray(column.is_null())))
        where = f"{path}: row {int(places[owners[at]])}, column {shown(name)}"
        raise DataError(f"{where} has nothing, a missing sample; leave it out with --index", code="IDL116")
    if not len(column):
        return 0
    lengths = np.asarray(pc.list_value_length(column))
    if (lengths != lengths[0]).any():
        at = int(np.argmax(lengths != lengths[0]))
        where = f"{path}: row {int(places[owners[at]])}, column {shown(name)}"
        raise DataError(f"{where} has a list of {lengths[at]}, and others of {lengths[0]}; give equally long ones")
    return int(lengths[0])


def _leaf(column: pa.Array, path: Path, name: str) -> tuple[AnyArray, BoolArray]:
    """Return plain numbers, and which are missing."""
    import pyarrow as pa
    from pyarrow import types

    with told(path):
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        absent = np.asarray(column.is_null(), np.bool_)
        if types.is_decimal(column.type):
            column = column.cast(pa.string()).cast(pa.float64())  # the nearest one, which a cast alone may miss
        if not absent.any():
            return column.to_numpy(zero_copy_only=False), absent
        plain = column.drop_null().to_numpy(zero_copy_only=False)
        place = first_inexact(plain)
        if place is not None:
            raise DataError(
                f"{path}: column {shown(name)} lacks some numbers and has {int(plain[place])}, {NOT_HELD}",
                code="IDL116",
            )
        numbers = np.full(len(absent), np.nan)
        numbers[~absent] = plain
        return numbers, absent


def _are_images(table: Table, names: Iterable[str] | None) -> bool:
    return names is not None and any(kind_of(table.schema.field(name).type) == "images" for name in names)


def _images(
    table: Table,
    names: tuple[str, ...],
    chosen: Sequence[tuple[str, ...] | None],
    wanted: Sequence[Sequence[str]],
    digest: str,
) -> ImageFolder:
    """Return the images of a column, and the labels beside them."""
    path, n = table.path, int(table.starts[-1])
    label = next((own for own, group in zip(chosen, wanted, strict=True) if LABELS in group and own), None)
    labels = None if label is None else at_once(_store(table, label, {}), f"{path}: the column of labels")
    rows = Rows(table, names)

    def contents(place: int) -> bytes:
        ((_, batch),) = rows.read(np.array([place]))
        with told(path):
            found = batch.column(0)[0].as_py()
        content = found.get("bytes") if isinstance(found, dict) else found
        if not content:
            what = "only names a file" if isinstance(found, dict) and found.get("path") else "has no image"
            raise DataError(
                f"{path}: row {place}, column {shown(names[0])} {what}; write the images themselves into it, as PNG or "
                "JPEG bytes"
            )
        if len(content) > _LARGEST_IMAGE:
            raise DataError(f"{path}: row {place} has an image of {len(content):,} bytes, too many")
        return bytes(content)

    return ImageFolder(path, _Named(path, n), labels, contents=contents, sha256=digest)


@dataclass(frozen=True)
class _Named(Sequence[Path]):
    """What messages call the images: none of these is a file."""

    path: Path
    n: int

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Path]: ...
    def __getitem__(self, place: int | slice) -> Path | Sequence[Path]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(self.n))]
        return self.path / f"row {range(self.n)[place]}"
