"""Samples in Parquet, Arrow and folders of Hugging Face's datasets: those of an array or a text, whatever is damaged.

hugging_face/ was written by datasets 5.2.0: save_to_disk of an Array2D in two files, and of PNG images.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from idl_audit.data import column_files
from idl_audit.data.column_files import BATCH_BYTES, Rows, open_table
from idl_audit.data.examples import read_examples
from idl_audit.data.groups import read_groups
from idl_audit.data.samples import Samples, read_samples, stream_samples
from idl_audit.data.vectors import read_numbers
from idl_audit.values.errors import DataError

P, SHAPE = 12, (1, 1, 3, 4)
WRITTEN = Path(__file__).parent / "hugging_face"


def read(path: Path, **more) -> Samples:
    return read_samples(path, input_shape=SHAPE, n_classes=5, **more)


def numbers(n: int = 11) -> np.ndarray:
    return np.random.default_rng(n).random((n, P)).astype(np.float32)


def classes(n: int = 11) -> np.ndarray:
    return np.arange(n) % 5


def table(n: int = 11) -> pa.Table:
    return pa.table({**{f"f{k}": numbers(n)[:, k] for k in range(P)}, "label": classes(n)})


def lists(values: np.ndarray, leaf: pa.DataType | None = None) -> pa.Array:
    """Return an array (n, ...) as lists of lists."""
    leaf = leaf or pa.float32()
    for _ in values.shape[1:]:
        leaf = pa.list_(leaf)
    return pa.array(values.tolist(), leaf)


def stream(path: Path, found: pa.Table, rows: int = 4) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, found.schema) as writer:
        writer.write_table(found, max_chunksize=rows)


def arrow_file(path: Path, found: pa.Table, rows: int = 4) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, found.schema) as writer:
        writer.write_table(found, max_chunksize=rows)


def parquet(path: Path, found: pa.Table, rows: int = 4) -> None:
    pq.write_table(found, path, row_group_size=rows)


WRITERS = {"a.parquet": parquet, "a.arrow": stream, "a.feather": arrow_file}


def png(pixels: np.ndarray, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


@pytest.fixture(scope="module", params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("columns") / request.param
    WRITERS[request.param](path, table())
    return path


def test_columns_of_numbers_are_the_table_that_text_would_be(written: Path, tmp_path: Path) -> None:
    text = tmp_path / "a.csv"
    heading = ",".join(table().column_names)
    rows = np.column_stack([numbers().astype(np.float64), classes()])
    np.savetxt(text, rows, delimiter=",", header=heading, comments="", fmt="%.17g")
    found, known = read(written), read(text)
    np.testing.assert_array_equal(found.inputs, known.inputs)
    assert found.labels is not None
    assert found.labels.tolist() == classes().tolist()
    assert found.dtype == "float32"
    assert len(found.sha256) == 64


@settings(deadline=None)
@given(st.data())
def test_rows_come_in_the_order_that_is_asked_for(written: Path, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, 10), min_size=1, max_size=11, unique=True))
    asked = stream_samples(written, input_shape=SHAPE, n_classes=5, index=index)
    for _ in range(2):  # what was read last is used again
        places = np.array(data.draw(st.lists(st.integers(0, len(index) - 1), min_size=1, max_size=20)))
        chosen = np.array(index)[places]
        np.testing.assert_array_equal(asked.inputs_at(chosen), numbers()[chosen])


def test_several_files_are_one_data_set_and_those_of_a_folder_stand_by_name(tmp_path: Path) -> None:
    for number, (a, b) in enumerate(((0, 4), (4, 5), (5, 11))):
        parquet(tmp_path / f"part-{number}.parquet", table().slice(a, b - a))
    found = read(tmp_path)
    np.testing.assert_array_equal(found.inputs, numbers())
    np.testing.assert_array_equal(read(tmp_path / "part-[12].parquet").inputs, numbers()[4:])


TYPES: dict[str, pa.Array] = {
    "truth": pa.array([True, False, True]),
    "bytes": pa.array([0, 255, 3], pa.uint8()),
    "large": pa.array([2**62, -3, 0], pa.int64()),
    "unsigned": pa.array([2**63, 3, 0], pa.uint64()),
    "half": pa.array(np.array([0.5, 1 / 3, 2], np.float16)),
    "single": pa.array([0.1, 1, 2], pa.float32()),
    "decimals": pa.array([Decimal("0.10"), Decimal("-7.25"), Decimal("0")], pa.decimal128(9, 2)),
    "coded": pa.array([7, 7, 1], pa.int32()).dictionary_encode(),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("kind", ["a.parquet", "a.feather"])
def test_every_type_of_number_keeps_its_value(tmp_path: Path, name: str, kind: str) -> None:
    WRITERS[kind](tmp_path / kind, pa.table({"x": TYPES[name], "y": [0, 1, 0]}), 2)
    found = read_samples(tmp_path / kind, input_shape=(1, 1), n_classes=2)
    known = [float(one) for one in TYPES[name].to_pylist()]
    assert found.inputs[:, 0].tolist() == known


ARRAYS: dict[str, Callable[[np.ndarray], pa.Array]] = {
    "one list": lists,
    "lists of lists": lambda rows: lists(rows.reshape(-1, 1, 3, 4)),
    "large lists": lambda rows: pa.array(rows.tolist(), pa.large_list(pa.float32())),
    "lists of one size": lambda rows: pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), P),
    "tensors": lambda rows: pa.FixedShapeTensorArray.from_numpy_ndarray(rows.reshape(-1, 3, 4)),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("kind", WRITERS)
def test_lists_are_arrays(tmp_path: Path, name: str, kind: str) -> None:
    columns = {"note": ["n"] * 11, "pixels": ARRAYS[name](numbers()), "label": classes()}
    WRITERS[kind](tmp_path / kind, pa.table(columns))
    found = read(tmp_path / kind, index=(9, 0, 4))
    np.testing.assert_array_equal(found.inputs, numbers()[[9, 0, 4]])


def test_images_have_the_layout_of_the_data(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((4, 3, 4, 2)).astype(np.float32)
    parquet(tmp_path / "a.parquet", pa.table({"inputs": lists(rows), "age": [1, 2, 3, 4]}))
    found = read_samples(tmp_path / "a.parquet", input_shape=(1, 2, 3, 4), n_classes=5, layout="nhwc")
    np.testing.assert_array_equal(found.inputs, rows.transpose(0, 3, 1, 2).reshape(4, 24))


def test_several_inputs_have_a_column_each(tmp_path: Path) -> None:
    rows = numbers()
    columns = {"side": rows[:, 0], "image": lists(rows[:, 1:]), "label": classes()}
    parquet(tmp_path / "a.parquet", pa.table(columns))
    parts = [("image", (1, 11)), ("side", (1, 1))]
    found = read_samples(tmp_path / "a.parquet", input_shape=(12,), n_classes=5, parts=parts)
    np.testing.assert_array_equal(found.inputs, rows[:, [*range(1, 12), 0]])


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("as_struct", [True, False])
def test_encoded_images_are_those_of_a_folder(tmp_path: Path, kind: str, as_struct: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 4), np.uint8)
    contents = [png(one) for one in pixels]
    column = [{"bytes": one, "path": None} for one in contents] if as_struct else contents
    WRITERS[kind](tmp_path / kind, pa.table({"image": column, "label": classes(6), "file": ["x"] * 6}))
    found = read(tmp_path / kind)
    np.testing.assert_array_equal(found.inputs, pixels.reshape(6, P))
    assert found.dtype == "uint8"
    assert found.labels is not None
    assert found.labels.tolist() == classes(6).tolist()


def test_a_data_set_on_disk_is_read_in_its_own_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, pixels = rng.random((7, 3, 4)).astype(np.float32), rng.integers(0, 256, (6, 3, 4), np.uint8)
    arrays = read(WRITTEN / "arrays")
    np.testing.assert_array_equal(arrays.inputs, rows.reshape(7, P))
    assert arrays.labels is not None
    assert arrays.labels.tolist() == classes(7).tolist()  # the column is called kind, and is the only one of classes
    np.testing.assert_array_equal(read(WRITTEN / "images").inputs, pixels.reshape(6, P))
    folder = tmp_path / "turned"
    shutil.copytree(WRITTEN / "arrays", folder)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"].reverse()
    (folder / "state.json").write_text(json.dumps(state))
    np.testing.assert_array_equal(read(folder).inputs, rows.reshape(7, P)[[4, 5, 6, 0, 1, 2, 3]])
    (folder / "state.json").unlink()  # a cache: its files by name
    np.testing.assert_array_equal(read(folder).inputs, rows.reshape(7, P))


def test_targets_radii_and_groups_come_in_columns_too(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {f"f{k}": numbers()[:, k] for k in range(P)}
    pq.write_table(pa.table({**columns, "y": np.linspace(0, 1, 11)}), path)
    found = read_examples(path)
    assert found.targets is not None
    np.testing.assert_array_equal(found.targets[:, 0], np.linspace(0, 1, 11))
    np.testing.assert_array_equal(found.samples.inputs, numbers())
    pq.write_table(pa.table({"sigma": np.arange(P) / 4}), path)
    (sigma,) = read_numbers(path, (("sigma",),))
    assert sigma is not None
    assert sigma.tolist() == (np.arange(P) / 4).tolist()
    pq.write_table(pa.table({"group": np.arange(P) // 4}), path)
    assert read_groups(path, P).labels.tolist() == (np.arange(P) // 4).tolist()


def with_metadata(found: pa.Table, features: dict[str, str]) -> pa.Table:
    told = {"info": {"features": {name: {"_type": kind} for name, kind in features.items()}}}
    return found.replace_schema_metadata({"huggingface": json.dumps(told)})


def permuted() -> pa.Array:
    kind = pa.fixed_shape_tensor(pa.float32(), (3, 4), permutation=[1, 0])
    storage = pa.FixedSizeListArray.from_arrays(pa.array(numbers().reshape(-1)), P)
    return pa.ExtensionArray.from_storage(kind, storage)


REFUSED: dict[str, tuple[pa.Table, str]] = {
    "text": (table().append_column("city", [["Rome"] * 11]), "string in the column 'city', which are no numbers"),
    "dates": (table().append_column("day", [pa.array([1] * 11, pa.date32())]), "no numbers"),
    "an index": (table().append_column("__index_level_0__", [classes()]), "an index of pandas"),
    "no name": (table().rename_columns(["", *table().column_names[1:]]), "no name"),
    "twice": (table().rename_columns(["f1", *table().column_names[1:]]), "two columns with the name 'f1'"),
    "two labels": (table().rename_columns(["y", *table().column_names[1:-1], "class"]), "call one of them label"),
    "two classes": (
        with_metadata(pa.table({"p": lists(numbers()), "fine": classes(), "coarse": classes()}), {"fine": "ClassLabel"})
        .replace_schema_metadata({"huggingface": '{"info": {"features": {"fine": {"_type": "ClassLabel"}, '
        '"coarse": {"_type": "ClassLabel"}}}}'}),
        "the classes 'fine' and 'coarse'",
    ),
    "two arrays": (pa.table({"a": lists(numbers()), "b": lists(numbers())}), "call one 'inputs'"),
    "an array and a number": (pa.table({"a": lists(numbers()), "b": classes()}), "call one 'inputs'"),
    "lists of other lengths": (pa.table({"a": [[1.0] * P, [1.0] * 3]}), "row 1, column 'a' has a list of 3"),
    "other lengths in another group": (pa.table({"a": [[1.0] * P] * 4 + [[1.0] * 3]}), "row 4, column 'a' has a list"),
    "lists of nothing": (pa.table({"a": [[1.0] * P, None]}), "row 1, column 'a' has nothing"),
    "a number of nothing": (
        table().set_column(3, "age", [pa.array([1.0] * 9 + [None, 2.0])]),
        r"sample 9 has NaN at input 3 \(row 9, column 'age' has nothing, a missing number\)",
    ),
    "a whole number of nothing": (table().set_column(3, "age", [pa.array([1] * 9 + [None, 2])]), "column 'age' has"),
    "a whole number between two floats": (
        table().set_column(3, "age", [pa.array([1] * 9 + [2**53 + 1, 2])]),
        "column 'age' has 9007199254740993, a whole number that float64 does not hold",
    ),
    "such a one beside nothing": (
        table().set_column(3, "age", [pa.array([1] * 9 + [2**53 + 1, None])]),
        "column 'age' lacks some numbers and has 9007199254740993, a whole number that float64",
    ),
    "a number in a list of nothing": (pa.table({"a": [[1.0] * P, [None] + [1.0] * 11]}), "row 1, column 'a' has noth"),
    "a label of nothing": (table().set_column(P, "label", [pa.array([1] * 9 + [None, 2])]), "label of sample 9 is nan"),
    "a class that is none": (table().set_column(P, "label", [pa.array([-1] * 11)]), "label of sample 0 is -1"),
    "text for labels": (table().set_column(P, "label", [["cat"] * 11]), "string in the column 'label'"),
    "turned tensors": (pa.table({"a": permuted()}), "axes in another order"),
    "no rows": (table().slice(0, 0), "no rows"),
    "no columns of numbers": (pa.table({"label": classes()}), "no array named"),
    "an image that is a name": (pa.table({"a": [{"bytes": None, "path": "/etc/passwd"}]}, schema=pa.schema(
        {"a": pa.struct({"bytes": pa.binary(), "path": pa.string()})})), "only names a file"),
    "an image that is none": (pa.table({"a": [b"not an image"]}), "row 0 is no image that can be read"),
    "no image": (pa.table({"a": pa.array([None], pa.binary())}), "row 0, column 'a' has no image"),
    "an image of another size": (pa.table({"a": [png(np.zeros((2, 2), np.uint8))]}), "row 0 is 2 x 2 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_columns_is_said_in_one_sentence(tmp_path: Path, name: str) -> None:
    found, words = REFUSED[name]
    for kind, write in WRITERS.items():
        write(tmp_path / kind, found)
        with pytest.raises(DataError, match=words) as error:
            read(tmp_path / kind)
        assert str(tmp_path / kind) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_sample_with_a_missing_number_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, table().set_column(3, "f3", [pa.array([1] * 9 + [None, 2])]))
    assert read(path, limit=9).n == 9


def test_a_sample_without_a_label_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, table().set_column(P, "label", [pa.array([1, 3] + [2] * 7 + [None, 4])]))
    found = read(path, index=[10, 1])
    assert found.labels is not None
    assert found.labels.tolist() == [4, 3]


@pytest.mark.parametrize("kind", WRITERS)
def test_files_whose_columns_stand_in_another_order_are_refused(tmp_path: Path, kind: str) -> None:
    names, folder = table().column_names, tmp_path / "two"
    folder.mkdir()
    one, two = (folder / f"{k}.parquet" for k in (1, 2))
    WRITERS[kind](one, table())
    others = {
        "turned": (
            table().select([*names[1::-1], *names[2:]]),
            "the columns 'f1', 'f0', 'f2', 'f3' where .*'f0', 'f1'",
        ),
        "renamed": (table().rename_columns([*names[:-2], "g", "label"]), "the columns 'g' where .* has 'f11'"),
        "lists": (pa.table({"f0": lists(numbers()), "label": classes()}), "the columns 'f0' where .* has 'f0', 'f1'"),
    }
    for found, words in others.values():
        WRITERS[kind](two, found)
        with pytest.raises(DataError, match=words):
            read(folder)
    WRITERS[kind](two, table().select([names[-1], *names[:-1]]))  # the labels may stand anywhere
    np.testing.assert_array_equal(read(folder).inputs, np.concatenate([numbers(), numbers()]))


@pytest.mark.parametrize("scale", [5, 20])
def test_decimals_are_the_nearest_numbers(tmp_path: Path, scale: int) -> None:
    """A cast makes -123.45678000000001 of the one, and .09999999999999999 of the other."""
    texts = ["0.1", "-123.45678", "3.3", "0.00001", "-99999.99999"]
    column = pa.array(list(map(Decimal, texts)), pa.decimal128(scale + 8, scale))
    for kind, write in WRITERS.items():
        write(tmp_path / kind, pa.table({"inputs": column}))
        found = read_samples(tmp_path / kind, input_shape=(1, 1), n_classes=2)
        assert found.inputs[:, 0].tolist() == list(map(float, texts))


def test_a_dictionary_in_a_stream_is_refused(tmp_path: Path) -> None:
    stream(tmp_path / "a.arrow", pa.table({"x": TYPES["coded"]}))
    with pytest.raises(DataError, match="dictionaries of values"):
        read_samples(tmp_path / "a.arrow", input_shape=(1, 1), n_classes=2)


FOLDERS: dict[str, tuple[dict[str, object], str]] = {
    "parts": ({"dataset_dict.json": {"splits": ["train", "test"]}}, "has the parts train, test; give one of them"),
    "outside": ({"state.json": {"_data_files": [{"filename": "../a.arrow"}]}}, "which is no file of the folder"),
    "absent": ({"state.json": {"_data_files": [{"filename": "a.arrow"}]}}, "which is not in the folder"),
    "none": ({"state.json": {"_data_files": []}}, "lists no files"),
    "nonsense": ({"state.json": {"_data_files": [3]}}, "no file of the folder"),
    "no JSON": ({"state.json": b"{"}, "is no JSON"),
    "a list": ({"state.json": [1]}, "no JSON object"),
    "deep": ({"state.json": b"[" * 100_000}, "is no JSON"),
    "apart": ({"state.json": {"_data_files": [], "_indices_data_files": [{"filename": "i"}]}}, "flatten_indices"),
    "no data": ({"dataset_info.json": {}}, "has no .arrow file"),
    "several": ({"dataset_info.json": {}, "m-train.arrow": b"", "m-test.arrow": b""}, "has the parts m-test, m-train"),
    "empty": ({"dataset_info.json": {}, "m-train.arrow": b""}, "is empty"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_wrong_with_a_folder_is_said_in_one_sentence(tmp_path: Path, name: str) -> None:
    files, words = FOLDERS[name]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(DataError, match=words):
        read(tmp_path)


@settings(deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read(written: Path, data: st.DataObject) -> None:
    content = bytearray(written.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 9]))
    path = written.parent / f"damaged-{written.name}"
    path.write_bytes(content[:cut])
    with contextlib.suppress(DataError):
        assert read(path).inputs.shape[1] == P


class Told:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_nothing_in_a_file_is_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    told = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Told(str(mark))),
    }
    field = pa.field("inputs", pa.list_(pa.float32()), metadata=told)
    found = pa.table({"inputs": lists(numbers())}).cast(pa.schema([field]))
    for kind, write in WRITERS.items():
        write(tmp_path / kind, found)
        np.testing.assert_array_equal(read(tmp_path / kind).inputs, numbers())
    assert not mark.exists()


def test_rows_are_decoded_some_at_a_time_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, n = tmp_path / "a.parquet", 100_000
    pq.write_table(pa.table({f"f{k}": np.arange(n, dtype=np.float32) for k in range(P)}), path, row_group_size=n)
    sizes: list[int] = []
    real = column_files._Parquet.batches

    def counted(*arguments, **named):
        for batch in real(*arguments, **named):
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(column_files._Parquet, "batches", counted)
    found = stream_samples(path, input_shape=SHAPE, n_classes=5)
    last = [samples.inputs[-1, 0] for _, samples in found.parts()]
    assert last[-1] == n - 1
    assert sum(sizes) == n
    assert max(sizes) * P * 8 <= BATCH_BYTES
    rows = Rows(open_table(path), ("f3",))
    ((_, batch),) = rows.read(np.array([n - 1]))
    assert batch.column(0).to_pylist() == [n - 1]


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "a.parquet", table())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'idl-audit\[parquet\]'"):
        read(tmp_path / "a.parquet")
