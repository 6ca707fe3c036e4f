"""Columns that samples are grouped by: of arrays, of tables, beside folders of images, and what is wrong with some."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idl_audit.data.group_columns import MISSING, MOST_GROUPS, read_groups
from idl_audit.data.samples import stream_samples
from idl_audit.values.columns import GroupColumn
from idl_audit.values.errors import DataError

ALL = np.arange(4)


def groups(path: Path, *columns: GroupColumn, chosen: np.ndarray = ALL, total: int = 4) -> list[dict[str, str]]:
    return [dict(one) for one in read_groups(path, columns, chosen, total)]


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    path = tmp_path / "d.npz"
    np.savez(
        path,
        inputs=np.zeros((4, 3)),
        labels=[0, 1, 0, 1],
        light=np.array(["day", "night", "", "größer"]),
        raw=np.array([b"a", b"b", b"a", b"c"]),
        hour=[3, 10, 3, 12],
        half=[0.5, 2.0, np.nan, 1e300],
        sunny=[[True], [False], [True], [True]],
        pairs=np.zeros((4, 2)),
        short=np.zeros(3),
    )
    return path


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("light", ["day", "night", MISSING, "größer"]),
        ("raw", ["a", "b", "a", "c"]),
        ("hour", ["3", "10", "3", "12"]),
        ("half", ["0.5", "2", MISSING, str(int(1e300))]),
        ("sunny", ["true", "false", "true", "true"]),
    ],
)
def test_arrays_of_texts_numbers_and_truth_values_are_told_alike(arrays: Path, column: str, told: list[str]) -> None:
    assert [one[column] for one in groups(arrays, GroupColumn(column))] == told
    chosen = groups(arrays, GroupColumn(column), chosen=np.array([3, 1]))
    assert [one[column] for one in chosen] == [told[3], told[1]]


def test_several_columns_stand_in_the_order_in_which_they_were_asked_for(arrays: Path) -> None:
    assert groups(arrays, GroupColumn("hour"), GroupColumn("light"))[1] == {"hour": "10", "light": "night"}
    assert list(groups(arrays, GroupColumn("hour"), GroupColumn("light"))[1]) == ["hour", "light"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("nothing", "no array named 'nothing'"),
        ("pairs", r"has shape \(4, 2\); groups are one entry"),
        ("short", "3 entries, and .* 4 samples"),
    ],
)
def test_arrays_that_are_no_groups_are_refused(arrays: Path, column: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        groups(arrays, GroupColumn(column))


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", inputs=np.zeros((4, 3)), light=np.array(["a", "b", None, "c"], object))
    with pytest.raises(DataError, match="would run code"):
        groups(tmp_path / "o.npz", GroupColumn("light"))


def test_texts_that_are_no_unicode_and_truncated_ones_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", light=np.array(["ab", "cd", "ef", "gh"]))
    with zipfile.ZipFile(tmp_path / "t.npz") as archive:
        content = archive.read("light.npy")
    for name, changed in (("bad", content[:-4] + b"\xff\xff\xff\x7f"), ("cut", content[:-4])):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive:
            archive.writestr("light.npy", changed)
        with pytest.raises(DataError, match=r"Unicode does not have|truncated"):
            groups(tmp_path / f"{name}.npz", GroupColumn("light"))


def test_more_groups_than_can_be_told_are_refused(tmp_path: Path) -> None:
    n = MOST_GROUPS + 1
    np.savez(tmp_path / "m.npz", x=np.arange(n))
    with pytest.raises(DataError, match="group by ranges"):
        groups(tmp_path / "m.npz", GroupColumn("x"), chosen=np.arange(n), total=n)
    assert len(groups(tmp_path / "m.npz", GroupColumn("x"), chosen=np.arange(n - 1), total=n)) == n - 1


TABLE = "age,light,hours,label\n40,day,1,0\n41,night,2,1\n42,,3,0\n43,day,4,1\n"


def read(path: Path, p: int, *aside: str) -> np.ndarray:
    return stream_samples(path, input_shape=(1, p), n_classes=2, aside=aside).read().inputs


def test_a_column_of_texts_is_no_input(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(TABLE)
    assert [one["light"] for one in groups(path, GroupColumn("light"))] == ["day", "night", MISSING, "day"]
    assert read(path, 2, "light").tolist() == [[40, 1], [41, 2], [42, 3], [43, 4]]
    with pytest.raises(DataError, match="'day', which is no number"):
        read(path, 2)


def test_a_column_of_numbers_is_an_input_where_the_network_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("age,sex,hours,label\n40,1,1,0\n41,0,2,1\n42,1.0,3,0\n43,0,4,1\n")
    assert read(path, 3, "sex").tolist() == [[40, 1, 1], [41, 0, 2], [42, 1, 3], [43, 0, 4]]
    assert read(path, 2, "sex").tolist() == [[40, 1], [41, 2], [42, 3], [43, 4]]
    assert [one["sex"] for one in groups(path, GroupColumn("sex"))] == ["1", "0", "1", "0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5,6\n", "no heading"),
        ("a,b,label\n1,2,0\n", "no column with the heading 'light'"),
        ("light,light,label\n1,2,0\n", "more than one column with the heading 'light'"),
        ("a,light,label\n1,day,0\n2,0\n", "line 3 has 2 entries"),
    ],
)
def test_tables_without_the_column_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "d.csv", 1, "light")


def test_a_table_beside_the_samples_has_one_row_for_each(arrays: Path, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text("id;place\n1;north\n2;south\n3;north\n4;south\n")
    found = groups(arrays, GroupColumn("place", table), chosen=np.array([2, 3]))
    assert found == [{"place": "north"}, {"place": "south"}]
    table.write_text("id;place\n1;north\n")
    with pytest.raises(DataError, match=r"1 entries, and .* 4 samples"):
        groups(arrays, GroupColumn("place", table))


def test_a_table_beside_a_folder_of_images_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in ("0/a.png", "1/b.png"):
        (folder / name).parent.mkdir(parents=True)
        Image.new("L", (2, 2)).save(folder / name)
    table = tmp_path / "more.csv"
    table.write_text("file,place\n1/b.png,south\n./0/a.png,north\n")
    assert [one["place"] for one in groups(folder, GroupColumn("place", table), chosen=np.arange(2), total=2)] == [
        "north",
        "south",
    ]
    table.write_text("file,place\n1/b.png,south\n")
    with pytest.raises(DataError, match=r"says nothing of .0/a\.png"):
        groups(folder, GroupColumn("place", table), chosen=np.arange(2), total=2)
    table.write_text("place\nsouth\nnorth\n")
    with pytest.raises(DataError, match="no column with the heading 'file'"):
        groups(folder, GroupColumn("place", table), chosen=np.arange(2), total=2)
    with pytest.raises(DataError, match="folder of images, which has no columns"):
        groups(folder, GroupColumn("place"), chosen=np.arange(2), total=2)


def test_a_file_of_columns_has_groups_beside_its_inputs(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow reads and writes Parquet")
    import pyarrow.parquet as pq

    light = ["day", None, "night", "day"]
    table = {"age": [40.0, 41.0, 42.0, 43.0], "light": light, "sex": [1, 0, 1, 0], "label": [0, 1, 0, 1]}
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table(table), path)
    found = groups(path, GroupColumn("light"), GroupColumn("sex"))
    assert [one["light"] for one in found] == ["day", MISSING, "night", "day"]
    assert [one["sex"] for one in found] == ["1", "0", "1", "0"]
    assert read(path, 1, "light", "sex").tolist() == [[40], [41], [42], [43]]
    assert read(path, 2, "light").tolist() == [[40, 1], [41, 0], [42, 1], [43, 0]]
    with pytest.raises(DataError, match="no column 'place'"):
        read(path, 2, "place")


def test_columns_of_several_files_follow_one_another(tmp_path: Path) -> None:
    for k in range(2):
        light = np.array([f"{k}", "b"])
        np.savez(tmp_path / f"part-{k}.npz", inputs=np.zeros((2, 3)), labels=[0, 1], light=light)
    found = groups(tmp_path / "part-*.npz", GroupColumn("light"))
    assert [one["light"] for one in found] == ["0", "b", "1", "b"]
