"""Data frames of pandas in the Python interface, and reports as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import idl_audit
from idl_audit.data.features import read_features
from idl_audit.data.frames import rows_of
from idl_audit.values.errors import DataError, OptionError
from tests.shared.command_line import gemm, network

TEXT = """
[[feature]]
name = "age"
kind = "integer"
range = [0, 99]

[[feature]]
name = "hours"
range = [0, 60]

[[feature]]
name = "sex"
categories = ["female", "male"]
moves = true
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 1 where hours + 5 male > 30.5."""
    folder = tmp_path_factory.mktemp("frames")
    constants = {"w": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 5, 0]]), "b": np.array([0, -30.5, -99.0])}
    network(folder / "m.onnx", [gemm()], constants)
    (folder / "f.toml").write_text(TEXT)
    return folder


def frame() -> pd.DataFrame:
    return pd.DataFrame({"sex": ["male", "female", "male"], "age": [30, 40, 50], "hours": [20.0, 28.0, 29.0]})


def test_columns_are_matched_by_name_and_categories_by_their_words(table: Path) -> None:
    found = rows_of(frame(), read_features(table / "f.toml"))
    np.testing.assert_array_equal(found, [[30, 20, 0, 1], [40, 28, 1, 0], [50, 29, 0, 1]])
    typed = frame().astype({"sex": "category", "age": "Int64"})
    np.testing.assert_array_equal(rows_of(typed, read_features(table / "f.toml")), found)


def test_verdicts_are_those_of_valid_rows(table: Path) -> None:
    labels = pd.Series([0, 0, 1])
    found = idl_audit.certify(table / "m.onnx", frame(), labels, eps=1, features=table / "f.toml")
    assert [one.verdict for one in found.samples] == ["certified", "falsified", "falsified"]
    assert found.samples[1].adversarial[3] == 1, "the category moves"
    both = idl_audit.certify(table / "m.onnx", frame(), labels, eps=[0.5, 1], features=str(table / "f.toml"))
    assert [one.certified for one in both] == [1, 1]
    attacked = idl_audit.attack(table / "m.onnx", frame(), labels, eps=1, features=table / "f.toml")
    assert attacked.falsified == 2


def test_a_frame_of_numbers_needs_no_features(table: Path) -> None:
    plain = pd.DataFrame(np.array([[30, 20, 0, 1.0], [40, 28, 1, 0]]), columns=list("abcd"))
    found = idl_audit.certify(table / "m.onnx", plain, [0, 0], eps=0.5)
    same = idl_audit.certify(table / "m.onnx", plain.to_numpy(), [0, 0], eps=0.5)
    assert [one.verdict for one in found.samples] == [one.verdict for one in same.samples]


def renamed(**names: str) -> pd.DataFrame:
    return frame().rename(columns=names)


REFUSED = {
    "no column hours": renamed(hours="h"),
    "has label, which is no feature": frame().assign(label=0),
    "'other', which is none of female, male": frame().replace({"male": "other"}),
    "the column age holds no numbers": frame().astype({"age": str}),
    "the column hours has NaN": frame().replace({20.0: np.nan}),
    "two columns 'age'": renamed(hours="age"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_frames_that_do_not_fit_are_refused_by_name(table: Path, words: str) -> None:
    with pytest.raises(DataError, match=words):
        idl_audit.certify(table / "m.onnx", REFUSED[words], eps=1, features=table / "f.toml")


def test_rows_are_decided_in_the_networks_own_arithmetic(table: Path) -> None:
    with pytest.raises(OptionError, match="the network computes in float32"):
        idl_audit.certify(table / "m.onnx", frame(), eps=1, features=table / "f.toml", arithmetic="float16")


def test_features_are_not_asked_of_other_sets(table: Path) -> None:
    for more in ({"norm": "l2"}, {"perturb": "brightness=0.1"}):
        with pytest.raises(OptionError, match="features say how far"):
            idl_audit.certify(table / "m.onnx", frame(), eps=1, features=table / "f.toml", **more)
    with pytest.raises(DataError, match="holds no numbers"):
        idl_audit.certify(table / "m.onnx", frame(), eps=1)


def test_a_report_is_a_table_of_its_samples(table: Path, tmp_path: Path) -> None:
    rows = np.array([[30, 20, 0, 1], [40, 30, 1, 0]], np.float32)
    np.savez(tmp_path / "d.npz", inputs=rows, labels=np.array([0, 0]))
    report = idl_audit.audit(table / "m.onnx", tmp_path / "d.npz", eps="0.1,1")
    found = idl_audit.to_dataframe(report)
    assert len(found) == 4
    assert found.equals(pd.DataFrame(idl_audit.to_rows(report)))
    counts = found.groupby("eps")["verdict"].apply(lambda column: int((column == "certified").sum()))
    assert counts.to_dict() == {entry.eps: entry.certified for entry in report.summary.per_eps}
