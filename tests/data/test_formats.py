"""Samples in every format: the same numbers and labels out of each, and one sentence for each broken file."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from idl_audit.data.samples import read_samples
from idl_audit.values.errors import DataError

SHAPE = (1, 3, 2, 4)
X = (np.arange(5 * 24) * 7 % 256).astype(np.uint8).reshape(5, 3, 2, 4)
Y = np.array([3, 1, 4, 1, 5])


def read(path, **options):
    return read_samples(path, **({"input_shape": SHAPE, "n_classes": 10} | options))


def csv_text(rows, heading=None, separator=","):
    lines = [separator.join(str(value) for value in row) for row in rows]
    return "\n".join([*([heading] if heading else []), *lines]) + "\n"


HEADING = "label," + ",".join(f"pixel{k}" for k in range(24))


def write_csv(path, heading=HEADING, separator=","):
    rows = np.column_stack([Y, X.reshape(5, 24)])
    path.write_text(csv_text(rows, heading.replace(",", separator), separator))


def write_folder(path):
    path.mkdir()
    for k, (image, label) in enumerate(zip(X, Y, strict=True)):
        (path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path / str(label) / f"{k}.png")


def write_label_file(path):
    path.mkdir()
    lines = ["file,label"]
    for k, (image, label) in enumerate(zip(X, Y, strict=True)):
        Image.fromarray(image.transpose(1, 2, 0)).save(path / f"{k}.png")
        lines.append(f"{k}.png,{label}")
    (path / "labels.csv").write_text("\n".join(lines))


WRITERS = {
    "x.npz": lambda path: np.savez(path, inputs=X, labels=Y),
    "x.csv": write_csv,
    "semicolons.csv": lambda path: write_csv(path, separator=";"),
    "last.csv": lambda path: path.write_text(
        csv_text(np.column_stack([X.reshape(5, 24), Y]), ",".join([*map(str, "abcdefghijklmnopqrstuvwx"), "Class"]))
    ),
    "x.safetensors": lambda path: save_file({"inputs": X, "labels": Y}, path),
    "dict.pt": lambda path: torch.save({"images": torch.from_numpy(X), "y": torch.from_numpy(Y), "epoch": 3}, path),
    "pair.pt": lambda path: torch.save((torch.from_numpy(X), torch.from_numpy(Y)), path),
    "old.pt": lambda path: torch.save(
        {"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}, path, _use_new_zipfile_serialization=False
    ),
    "listed": write_label_file,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_samples(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    found = read(path)
    np.testing.assert_array_equal(found.inputs, X.reshape(5, 24).astype(float))
    np.testing.assert_array_equal(found.labels, Y)
    assert len(found.sha256) == 64
    part = read(path, index=[4, 1], limit=1)
    np.testing.assert_array_equal(part.inputs, X[[4]].reshape(1, 24))
    assert (part.labels.tolist(), part.indices.tolist()) == ([5], [4])
    assert read(path, with_labels=False).labels is None


def test_class_folders_named_by_numbers_are_those_classes(tmp_path):
    write_folder(tmp_path / "images")
    found = read(tmp_path / "images")
    order = [1, 3, 0, 2, 4]  # by the names of the folders, then of the files
    np.testing.assert_array_equal(found.inputs, X[order].reshape(5, 24))
    assert found.labels.tolist() == Y[order].tolist()


def test_named_class_folders_are_counted_where_all_classes_are_there(tmp_path):
    for name in ("cat", "dog", "ape"):
        (tmp_path / name).mkdir()
        Image.fromarray(X[0].transpose(1, 2, 0)).save(tmp_path / name / "x.png")
    assert read(tmp_path, n_classes=3).labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"3 class folders and the model 10 classes.*labels\.csv"):
        read(tmp_path)
    assert read(tmp_path, with_labels=False).n == 3


@pytest.mark.parametrize("name", ["tensor.pt", "one.safetensors", "plain.csv", "x.npy", "flat"])
def test_files_without_labels_take_them_from_another_file(tmp_path, name):
    path, labels = tmp_path / name, tmp_path / "labels.csv"
    if name == "flat":
        write_label_file(path)
        (path / "labels.csv").unlink()
    else:
        {
            "tensor.pt": lambda: torch.save(torch.from_numpy(X), path),
            "one.safetensors": lambda: save_file({"anything": X}, path),
            "plain.csv": lambda: path.write_text(csv_text(X.reshape(5, 24))),
            "x.npy": lambda: np.save(path, X),
        }[name]()
    assert read(path).labels is None
    labels.write_text(csv_text(Y[:, None]))
    assert read(path, labels=labels).labels.tolist() == Y.tolist()
    np.testing.assert_array_equal(read(path, labels=labels).inputs, X.reshape(5, 24))


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "LA"])
def test_grey_pictures_of_any_kind_are_read_unchanged(tmp_path, mode):
    grey = np.array([[0, 255, 0, 255], [255, 0, 0, 255]], np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "x.png")
    for shape in ((1, 1, 2, 4), (1, 2, 4, 1), (1, 8)):
        np.testing.assert_array_equal(read(tmp_path, input_shape=shape).inputs, grey.reshape(1, 8))
    np.testing.assert_array_equal(read(tmp_path).inputs, np.tile(grey.reshape(1, 8), 3))


def test_channels_come_last_where_the_model_reads_them_so(tmp_path):
    write_label_file(tmp_path / "d")
    found = read(tmp_path / "d", input_shape=(1, 2, 4, 3))
    np.testing.assert_array_equal(found.inputs, X.transpose(0, 2, 3, 1).reshape(5, 24))


def test_the_digest_of_a_folder_follows_names_labels_and_contents(tmp_path):
    write_label_file(tmp_path / "d")
    first = read(tmp_path / "d").sha256
    assert read(tmp_path / "d").sha256 == first
    Image.fromarray(X[1].transpose(1, 2, 0)).save(tmp_path / "d/0.png")
    assert read(tmp_path / "d").sha256 != first


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def image(path, size=(4, 2), mode="RGB", **options):
    Image.new(mode, size, **options).save(path)


BROKEN = {
    "code.pt": (lambda path: torch.save(Evil(), path), "holds more than plain tensors, and is not loaded"),
    "numbers.pt": (lambda path: torch.save([1, 2, 3], path), "list values that are no tensors"),
    "half.pt": (lambda path: torch.save(torch.zeros(5, 24, dtype=torch.bfloat16), path), "torch.bfloat16"),
    "complex.pt": (lambda path: torch.save(torch.zeros(5, 24, dtype=torch.complex64), path), "torch.complex64"),
    "wide.pt": (lambda path: torch.save(torch.zeros(1).expand(2**40, 24), path), "above the limit"),
    "cut.pt": (lambda path: torch.save(torch.zeros(5, 24), path) or path.write_bytes(path.read_bytes()[:300]), ""),
    "cut.safetensors": (
        lambda path: save_file({"x": X}, path) or path.write_bytes(path.read_bytes()[:-3]),
        "cannot be read as safetensors",
    ),
    "word.csv": (lambda path: path.write_text("1,2\n3,four\n"), "line 2, column 2 has 'four', which is no number"),
    "ragged.csv": (lambda path: path.write_text("1,2\n3\n"), "line 2 has 1 entries, and the first line 2"),
    "one_more.csv": (lambda path: write_csv(path, heading=""), "one column is the label, say which by a heading"),
    "nan.csv": (lambda path: path.write_text(csv_text([[*range(23), "nan"]])), "sample 0 has NaN at input 23"),
    "large": (lambda path: path.mkdir() or image(path / "a.png", (40, 20)), "is 40 x 20 pixels, and the model reads"),
    "clear": (lambda path: path.mkdir() or image(path / "a.png", mode="RGBA"), "is transparent in places"),
    "deep": (lambda path: path.mkdir() or image(path / "a.png", mode="I;16"), "8 bits a channel"),
    "text": (lambda path: path.mkdir() or (path / "a.png").write_text("no image"), "is no image that can be read"),
    "cut": (
        lambda path: path.mkdir() or image(path / "a.png") or cut(path / "a.png"),
        "cannot be decoded",
    ),
    "outside": (lambda path: path.mkdir() or (path / "labels.csv").write_text("../a.png,3"), "outside the folder"),
    "absent": (lambda path: path.mkdir() or (path / "labels.csv").write_text("a.png,3"), "is no image in the folder"),
    "word": (lambda path: path.mkdir() or (path / "labels.csv").write_text("a.png,cat"), "has the label 'cat'"),
    "twice": (
        lambda path: (
            path.mkdir() or image(path / "a.png") or (path / "labels.csv").write_text("file,label\na.png,3\n./a.png,3")
        ),
        "a second time",
    ),
    "mixed": (
        lambda path: path.mkdir() or image(path / "a.png") or (path / "3").mkdir() or image(path / "3/b.png"),
        "both in itself and in the folder 3",
    ),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:45])


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write, words = BROKEN[name]
    write(tmp_path / name)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_colour_image_is_not_made_grey(tmp_path):
    image(tmp_path / "a.png", color=(1, 2, 3))
    with pytest.raises(DataError, match="has colours, and the model reads one channel"):
        read(tmp_path, input_shape=(1, 1, 2, 4))


def test_a_folder_knows_its_layout(tmp_path):
    image(tmp_path / "a.png")
    with pytest.raises(DataError, match="leave --layout out"):
        read(tmp_path, layout="nhwc")
