"""Files of columns: Parquet, and Arrow's streams and files. A door to pyarrow.

Rows are read some at a time, one behind the other within a group: a row group of Parquet, a record batch of Arrow.
What pyarrow makes of the bytes is validated before anything looks at it, and extension types stay what they are stored
as: none of their classes is looked up, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from idl_audit.values.arrays import IntArray
from idl_audit.values.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET: Final = (b"PAR1", b"PARE")
ARROW_FILE: Final = b"ARROW1"
ARROW_STREAM: Final = b"\xff\xff\xff\xff"
SUFFIXES: Final = (".parquet", ".arrow")
MOST_ROWS: Final = 10**8
BATCH_BYTES: Final = 2**22
"""What the rows of Parquet that are decoded at a time take, about."""
_LARGEST_BATCH: Final = 2**16
_BUFFER: Final = 2**16


class Table(Protocol):
    """A file of columns."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def schema(self) -> pa.Schema:
        """The names and types of its columns."""

    @property
    def starts(self) -> IntArray:
        """The first row of each group, and the number of rows."""

    def batches(self, group: int, columns: Sequence[str], each: int | None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a group, some at a time: `each` is what one takes, in bytes, where that is known.

        Raises:
            DataError: where the file is damaged.
        """


def is_column_file(start: bytes) -> bool:
    """Return whether a file that begins so is one of columns."""
    return start.startswith((*PARQUET, ARROW_FILE, ARROW_STREAM))


def open_table(path: Path) -> Table:
    """Open a file of columns, of which nothing is kept but where its groups begin.

    Raises:
        DataError: where pyarrow is not installed, or the file is damaged, empty, or of too many rows.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    with told(path):
        opened = _parquet(path) if start.startswith(PARQUET) else _arrow(path, is_stream=not start.startswith(b"A"))
        names = opened.schema.names
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise DataError(f"{path} has two columns with the name {twice[:40]!r}; give each a name of its own")
    n = int(opened.starts[-1])
    if not 0 < n <= MOST_ROWS:
        what = "holds no samples: it has no rows" if n == 0 else f"has {n:,} rows, above the limit of {MOST_ROWS:,}"
        raise DataError(f"{path} {what}")
    return opened


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Tell what pyarrow finds wrong with a file as one sentence. Raises DataError."""
    try:
        import pyarrow as pa
    except ImportError:
        raise DataError(
            f"{path} is a file of columns, which needs pyarrow: pip install 'idl-audit[parquet]', or save the samples "
            "with numpy.savez"
        ) from None
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(f"{path} cannot be read ({reason[:200]}); write the file again") from error


@dataclass(frozen=True, eq=False)
class _Parquet:
    path: Path
    file: Any
    """pyarrow.parquet.ParquetFile"""
    schema: pa.Schema
    starts: IntArray

    def batches(self, group: int, columns: Sequence[str], each: int | None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group; its pages are read through a buffer, never all of it."""
        with told(self.path):
            header = self.file.metadata.row_group(group)  # not its columns: pyarrow aborts where theirs is damaged
            own = header.total_byte_size // max(1, header.num_rows) if each is None else each
            size = int(np.clip(BATCH_BYTES // max(1, own), 1, _LARGEST_BATCH))
            found = self.file.iter_batches(size, row_groups=[group], columns=list(columns), use_threads=False)
        while True:
            with told(self.path):
                batch = next(found, None)
                if batch is None:
                    return
                batch.validate(full=True)
            yield batch


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER, memory_map=False)
    counts = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    return _Parquet(path, file, file.schema_arrow, _starts(path, counts))


@dataclass(frozen=True, eq=False)
class _ArrowStream:
    path: Path
    source: Any
    """pyarrow.OSFile"""
    schema: pa.Schema
    places: tuple[int, ...]
    """Where each record batch begins."""
    starts: IntArray

    def batches(self, group: int, columns: Sequence[str], each: int | None) -> Iterator[pa.RecordBatch]:
        """Yield the one record batch."""
        import pyarrow as pa

        with told(self.path):
            self.source.seek(self.places[group])
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(self.source), self.schema).select(list(columns))
            batch.validate(full=True)
        yield batch


@dataclass(frozen=True, eq=False)
class _ArrowFile:
    path: Path
    source: Any
    schema: pa.Schema
    starts: IntArray

    def batches(self, group: int, columns: Sequence[str], each: int | None) -> Iterator[pa.RecordBatch]:
        """Yield the one record batch, of which the other columns are not read."""
        import pyarrow as pa

        with told(self.path):
            places = [self.schema.get_field_index(name) for name in columns]
            options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=places)
            batch = pa.ipc.open_file(self.source, options=options).get_batch(group).select(list(columns))
            batch.validate(full=True)
        yield batch


def _arrow(path: Path, *, is_stream: bool) -> Table:
    """Open a file of Arrow; every record batch is read once, to know its rows."""
    import pyarrow as pa

    source = pa.OSFile(str(path))
    if not is_stream:
        reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(use_threads=False))
        counts = [reader.get_batch(place).num_rows for place in range(reader.num_record_batches)]
        return _ArrowFile(path, source, reader.schema, _starts(path, counts))
    messages = pa.ipc.MessageReader.open_stream(source)
    schema: pa.Schema | None = None
    places, counts = [], []
    while (found := _next_message(source, messages)) is not None:
        at, message = found
        if schema is None:
            schema = pa.ipc.read_schema(message)
        elif message.type == "record batch":
            places.append(at)
            counts.append(pa.ipc.read_record_batch(message, schema).num_rows)
        else:
            raise DataError(
                f"{path} has dictionaries of values, which a stream may replace; write plain columns, or Parquet"
            )
    if schema is None:
        raise DataError(f"{path} is no stream of Arrow; write the file again")
    return _ArrowStream(path, source, schema, tuple(places), _starts(path, counts))


def _next_message(source: Any, messages: Any) -> tuple[int, Any] | None:
    at = source.tell()
    try:
        return at, messages.read_next_message()
    except StopIteration:
        return None


def _starts(path: Path, counts: Sequence[int]) -> IntArray:
    if any(count < 0 for count in counts):
        raise DataError(f"{path} claims a negative number of rows; write the file again")
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(counts, np.int64))])


class Rows:
    """Some columns of a file, whose rows are read when they are asked for; the last ones read are kept.

    Rows that follow one another cost one pass over the file, whatever its groups; a row before the last ones that
    were read costs what stands before it in its group.
    """

    def __init__(self, table: Table, columns: Sequence[str], each: int | None = None) -> None:
        """Read nothing yet; `each` is what a row takes, in bytes, where that is known."""
        self.table, self.columns, self.each = table, tuple(columns), each
        self._group, self._start, self._found = -1, 0, iter(())
        self._batch: pa.RecordBatch | None = None

    def read(self, places: IntArray) -> Iterator[tuple[IntArray, pa.RecordBatch]]:
        """Yield (which of the places, their rows in that order), each place once. Raises DataError."""
        order = np.argsort(places, kind="stable")
        done = 0
        while done < order.size:
            batch = self._holding(int(places[order[done]]))
            stop = int(np.searchsorted(places[order], self._start + batch.num_rows))
            own = order[done:stop]
            rows = places[own] - self._start
            first, last = int(rows[0]), int(rows[-1])
            together = own.size == last - first + 1 and (np.diff(rows) == 1).all()
            yield own, batch.slice(first, own.size) if together else _taken(batch, rows)
            done = stop

    def _holding(self, place: int) -> pa.RecordBatch:
        """Return the rows that were read together with one, from `_start` on."""
        starts = self.table.starts
        group = int(np.searchsorted(starts, place, side="right")) - 1
        if group != self._group or self._batch is None or place < self._start:
            self._group, self._start, self._batch = group, int(starts[group]), None
            self._found = iter(self.table.batches(group, self.columns, self.each))
        while self._batch is None or place >= self._start + self._batch.num_rows:
            if self._batch is not None:
                self._start += self._batch.num_rows
            self._batch = next(self._found, None)
            if self._batch is None:
                self._group = -1
                raise DataError(f"{self.table.path} is truncated: row {place} is not there; write the file again")
        return self._batch


def _taken(batch: pa.RecordBatch, rows: IntArray) -> pa.RecordBatch:
    import pyarrow as pa

    return batch.take(pa.array(rows))


def metadata(schema: pa.Schema) -> Mapping[bytes, bytes]:
    """Return what a file says beside its columns."""
    return schema.metadata or {}
