"""Data to learn from: classes or numbers, by name, by kind, or from a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_audit.data.examples import read_examples
from idl_audit.values.errors import DataError

INPUTS = np.arange(12.0).reshape(4, 3)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **{"inputs": INPUTS, **arrays})
    return folder / "data.npz"


def test_whole_labels_are_classes_and_others_numbers(tmp_path: Path) -> None:
    found = read_examples(saved(tmp_path, labels=[0, 2, 1, 0]))
    assert (found.kind, found.input_shape) == ("classes", (1, 3))
    assert found.samples.labels is not None
    assert found.samples.labels.tolist() == [0, 2, 1, 0]
    found = read_examples(saved(tmp_path, labels=[0, 2, 1.5, 0]))
    assert found.targets is not None
    assert found.targets.tolist() == [[0], [2], [1.5], [0]]
    assert found.samples.has_targets


def test_targets_are_numbers_whatever_they_are(tmp_path: Path) -> None:
    path = saved(tmp_path, labels=[0, 1, 1, 0], targets=np.ones((4, 2)))
    assert read_examples(path).targets is not None
    assert read_examples(path).targets.shape == (4, 2)  # type: ignore[union-attr]
    assert read_examples(path, kind="classes").kind == "classes"
    assert read_examples(saved(tmp_path, labels=[0, 1, 1, 0]), kind="numbers").kind == "numbers"


def test_images_keep_their_shape_and_rows_are_chosen(tmp_path: Path) -> None:
    found = read_examples(saved(tmp_path, inputs=np.zeros((4, 3, 2, 2)), labels=[0, 1, 2, 3]), limit=3)
    assert found.input_shape == (1, 3, 2, 2)
    some = found.rows(np.array([2, 0]))
    assert some.samples.labels is not None
    assert some.samples.labels.tolist() == [2, 0]
    assert some.samples.indices.tolist() == [2, 0]


def test_a_table_and_a_file_of_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,0.5\n3,4,1.5\n")
    found = read_examples(tmp_path / "t.csv")
    assert found.samples.inputs.tolist() == [[1, 2], [3, 4]]
    assert found.targets is not None
    assert found.targets.tolist() == [[0.5], [1.5]]
    np.save(tmp_path / "x.npy", INPUTS)
    np.save(tmp_path / "y.npy", np.array([0, 1, 0, 1]))
    assert read_examples(tmp_path / "x.npy", labels=tmp_path / "y.npy").kind == "classes"
    np.save(tmp_path / "y.npy", np.array([[0.5, 1], [1, 2], [0, 3], [1, 4]]))
    assert read_examples(tmp_path / "x.npy", labels=tmp_path / "y.npy").targets is not None


@pytest.mark.parametrize(
    ("arrays", "more", "words"),
    [
        ({}, {}, "has neither labels nor targets"),
        ({"inputs": np.arange(4.0), "labels": [0, 1, 0, 1]}, {}, "with a row for each sample"),
        ({"targets": [1, 2, 3]}, {}, "targets have the shape"),
        ({"targets": [1, np.nan, 3, 4]}, {}, "target of sample 1 is no finite number"),
        ({"labels": [0, 1, 1.5, 0]}, {"kind": "classes"}, "label of sample 2"),
        ({"labels": [0, 1, 3, 0]}, {"kind": "classes", "n_outputs": 3}, "label of sample 2 is 3"),
        ({"targets": np.ones((4, 2))}, {"n_outputs": 3}, "2 numbers for each sample, and the model has 3"),
        ({"labels": [0, 1, 1, 0]}, {"input_shape": (1, 5)}, "takes 5"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_examples(saved(tmp_path, **arrays), **more)


def test_a_column_of_targets_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,targets\n1,2,0.5\n3,4,1.5\n")
    with pytest.raises(DataError, match="input 2 is what is to be learned"):
        read_examples(tmp_path / "t.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_examples(tmp_path)
