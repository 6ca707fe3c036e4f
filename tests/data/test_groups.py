"""Groups of inputs: what a file or a word stands for, and every refusal's sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.data.groups import Groups, parse_groups, read_groups
from idl_audit.values.errors import DataError, OptionError

IMAGE = (1, 2, 3, 4)


def write(folder: Path, text: str | bytes, name: str = "groups.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.bool_, ">i4", np.uint64])
def test_equal_numbers_make_a_group_in_ascending_order(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "groups.npy"
    np.save(path, np.array([[1, 0, 1], [0, 0, 1]]).astype(dtype))
    found = read_groups(path, 6)
    assert found.names == ("0", "1")
    assert found.labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert found.labels.dtype == np.int64
    assert found.sizes.tolist() == [3, 3]


@pytest.mark.parametrize("name", ["groups", "labels"])
def test_an_npz_file_names_its_groups(tmp_path: Path, name: str) -> None:
    path = tmp_path / "g.npz"
    np.savez(path, **{name: np.array([7, -2, 7]), "other": np.zeros(5)})
    found = read_groups(path, 3)
    assert (found.names, found.labels.tolist()) == (("-2", "7"), [1, 0, 1])


@pytest.mark.parametrize(
    "text",
    [
        "left,right\nleft,right\n",
        "left\nright\nleft\nright",
        '"left", right,left ,right\r\n',
        "\ufeffleft\n\nright,left\nright\n",
    ],
)
def test_names_come_in_lines_or_columns(tmp_path: Path, text: str) -> None:
    found = read_groups(write(tmp_path, text), 4)
    assert (found.names, found.labels.tolist()) == (("left", "right"), [0, 1, 0, 1])


def test_numbers_in_text_are_sorted_as_numbers(tmp_path: Path) -> None:
    found = read_groups(write(tmp_path, "10,9\n-1,+9\n"), 4)
    assert (found.names, found.labels.tolist()) == (("-1", "9", "10"), [2, 1, 0, 1])


def test_names_that_look_like_archives_are_names(tmp_path: Path) -> None:
    assert read_groups(write(tmp_path, "PKW,LKW"), 2).names == ("PKW", "LKW")


@given(labels=st.lists(st.sampled_from(["a", "b, c", 'd"e', "Ünï", "7"]), min_size=1, max_size=20))
def test_written_labels_come_back(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    quoted = ['"' + label.replace('"', '""') + '"' for label in labels]
    found = read_groups(write(tmp_path_factory.mktemp("g"), "\n".join(quoted)), len(labels))
    assert [found.names[label] for label in found.labels] == labels
    assert len(set(found.names)) == len(found.names) == len(set(labels))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "has 2 labels and the model 3 inputs; give one label per input$"),
        ("name,a,b,c\n", "has 4 labels and the model 3 inputs; give one label per input, without a header"),
        ("", "has 0 labels"),
        ("a,,c\n", "label of input 1 is empty"),
        ("a,b," + "c" * 101, "label of input 2 is longer than 100"),
        ('a,"b,c\n', "line 1 is no row of a table"),
        (b"\xff\xfea", "is no UTF-16 text"),
        ("x," * 1000, "too large to hold 3 labels"),
    ],
)
def test_text_that_is_not_one_label_per_input_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_groups(write(tmp_path, text), 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.int64), "has 4 labels and the model 3 inputs"),
        (np.array([0.0, 0.5, 1.0]), "label of input 1 is 0.5"),
        (np.array([0.0, 1.0, np.nan]), "label of input 2 is nan"),
        (np.array([np.inf, 1.0, 2.0]), "label of input 0 is inf"),
        (np.array(["a", "b", "c"]), "holds values of type"),
    ],
)
def test_arrays_that_are_not_one_number_per_input_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "g.npy", array)
    with pytest.raises(DataError, match=message):
        read_groups(tmp_path / "g.npy", 3)


def test_a_file_without_groups_lists_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", patches=np.zeros(3))
    with pytest.raises(DataError, match="no array named groups or labels; it has 'patches'"):
        read_groups(tmp_path / "g.npz", 3)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv", tmp_path / ("x" * 5000)):
        with pytest.raises(DataError, match="is no file"):
            read_groups(path, 3)


# ---- words -----------------------------------------------------------------------------------------------------------


def as_image(groups: Groups, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(groups.names)[groups.labels].reshape(shape)


def test_rows_columns_and_channels_of_an_image() -> None:
    rows, columns, channels = (parse_groups(word, IMAGE) for word in ("rows", " columns ", "channels"))
    assert rows.names == ("row 0", "row 1", "row 2")
    assert columns.names == tuple(f"column {i}" for i in range(4))
    assert channels.names == ("channel 0", "channel 1")
    for c, i, j in np.ndindex(2, 3, 4):
        assert as_image(rows, (2, 3, 4))[c, i, j] == f"row {i}"
        assert as_image(columns, (2, 3, 4))[c, i, j] == f"column {j}"
        assert as_image(channels, (2, 3, 4))[c, i, j] == f"channel {c}"


@pytest.mark.parametrize(("high", "wide"), [(1, 1), (2, 3), (3, 4), (10, 10), (1, 4), (2, 2)])
def test_patches_tile_the_image_through_all_channels(high: int, wide: int) -> None:
    found = parse_groups(f"patches:{high}x{wide}", IMAGE)
    assert len(found.names) == -(-3 // high) * -(-4 // wide)
    assert (found.sizes > 0).all()
    assert found.sizes.sum() == 24
    for c, i, j in np.ndindex(2, 3, 4):
        assert as_image(found, (2, 3, 4))[c, i, j] == f"patch {i // high},{j // wide}"


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4), (1, 1, 3, 4)])
def test_an_image_may_come_without_channels(shape: tuple[int, ...]) -> None:
    assert parse_groups("rows", shape).labels.tolist() == np.repeat(np.arange(3), 4).tolist()
    assert parse_groups("patches:3x2", shape).sizes.tolist() == [6, 6]


@pytest.mark.parametrize("word", ["rows", "columns", "channels", "patches:2x2"])
@pytest.mark.parametrize("shape", [(1, 784), (784,), (1, 2, 3, 4, 5), (2, 2, 3, 4)])
def test_inputs_that_are_no_image_need_a_file(word: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"needs inputs with rows and columns.*give a file"):
        parse_groups(word, shape)


def test_channels_need_a_channel_axis() -> None:
    with pytest.raises(OptionError, match="write rows for the first axis"):
        parse_groups("channels", (1, 3, 4))


@pytest.mark.parametrize("text", ["patches", "patches:7", "patches:7x", "patches:-1x2", "patches:axb", "patches:1.5x2"])
def test_patches_have_two_extents(text: str) -> None:
    with pytest.raises(OptionError, match="patches:7x7"):
        parse_groups(text, IMAGE)


@pytest.mark.parametrize("text", ["patches:0x2", "patches:2x0"])
def test_patches_without_extent_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="without extent"):
        parse_groups(text, IMAGE)


def test_any_other_text_is_a_path(tmp_path: Path) -> None:
    path = write(tmp_path, ",".join("abcd" * 6))
    assert parse_groups(str(path), IMAGE).names == ("a", "b", "c", "d")
    for text in ("sensors", str(tmp_path / "none.csv"), "x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="no such file; give a file with one label per input, or rows, columns"):
            parse_groups(text, IMAGE)
