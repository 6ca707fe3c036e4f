"""Classifiers by support vectors, and categories as numbers: what is proved of them holds at sampled inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from idl_audit.commands.shared.float_margins import float_margins
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.float_margins import FloatMargins
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_intervals
from tests.imports.test_classical import FLOAT, READ, ml, saved
from tests.shared.command_line import run

RNG = np.random.default_rng(8)
NAMES = [name for name in READ if name.split()[0] in ("SVMClassifier", "SVMRegressor", "OneHotEncoder")]


def ends(model: ImplicitModel, box: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Return proved bounds of the outputs over one box."""
    states, each = backward_state_bounds(model, box), np.eye(model.n_outputs)
    return output_intervals(model, box, states, each)[0], -output_intervals(model, box, states, -each)[0]


def asked(path: Path, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    names = [value.name for value in session.get_outputs() if value.type == "tensor(float)"]
    return np.asarray(session.run(names[-1:], {session.get_inputs()[0].name: rows})[0]).reshape(len(rows), -1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.0, 0.02, 0.7])
def test_bounds_hold_at_what_onnxruntime_computes_at_sampled_inputs(tmp_path: Path, name: str, width: float) -> None:
    """With what roundings may change, at random points of a box and at its corners."""
    path = saved(tmp_path, READ[name], {"y": FLOAT})
    subject = open_subject(path)
    for centre in (RNG.normal(size=4).astype(np.float32), np.float32([0, 1, 2, 5])):
        box = Interval((centre - width)[None].astype(float), (centre + width)[None].astype(float))
        lo, hi = ends(subject.model, box)
        margins = float_margins(subject, Preprocessing())
        assert isinstance(margins, FloatMargins)
        error = margins.over(box, interval_bounds(margins.model, box)).of_each_output()[0]
        share = RNG.random((60, 4))
        share[:30] = np.round(share[:30])
        rows = (box.lo + share * (box.hi - box.lo)).astype(np.float32)
        rows = rows[((rows >= box.lo) & (rows <= box.hi)).all(axis=1)]
        found = asked(path, rows)
        assert (found >= lo - error).all()
        assert (found <= hi + error).all()


def made(folder: Path, model: Any, x: np.ndarray, y: np.ndarray) -> Path:
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    (folder / "m.onnx").write_bytes(to_onnx(model.fit(x, y), x[:1]).SerializeToString())
    return folder / "m.onnx"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
@pytest.mark.parametrize("classes", [3, 4])
def test_an_svc_of_scikit_learn_has_its_scores_and_is_certified(tmp_path: Path, kernel: str, classes: int) -> None:
    from sklearn.datasets import make_classification
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x, y = make_classification(60, 5, n_informative=4, n_redundant=0, n_classes=classes, random_state=2)
    x = x.astype(np.float32)
    model = make_pipeline(StandardScaler(), SVC(kernel=kernel))
    path = made(tmp_path, model, x, y)
    subject = open_subject(path)
    predicted = model.decision_function(x).argmax(axis=1)  # of as many votes: predict takes the first class there
    np.testing.assert_array_equal(subject.model(x.astype(np.float64)).argmax(axis=1), predicted)
    np.savez(tmp_path / "d.npz", inputs=x[:4], labels=predicted[:4])
    report = run("certify", path, "-d", tmp_path / "d.npz", "-e", 0.02, "--time-limit", 5, "-f", "json").report
    verdicts = [sample.results[0].verdict for sample in report.samples]
    assert "certified" in verdicts
    for sample in report.samples:
        near = x[sample.index] + RNG.uniform(-0.02, 0.02, (50, 5)).astype(np.float32)
        same = bool((model.decision_function(near).argmax(axis=1) == predicted[sample.index]).all())
        assert same or sample.results[0].verdict != "certified"


@pytest.mark.filterwarnings("ignore")
def test_an_svc_of_two_classes_is_refused_and_says_why(tmp_path: Path) -> None:
    """Its scores are (-z, z), and z > 0 means the first class: the larger score is not the class of the label."""
    from sklearn.svm import SVC

    x = RNG.normal(size=(30, 3)).astype(np.float32)
    path = made(tmp_path, SVC(), x, (x[:, 0] > 0).astype(int))
    np.savez(tmp_path / "d.npz", inputs=x[:4], labels=np.zeros(4, int))
    done = run("certify", path, "-d", tmp_path / "d.npz", "-e", 0.02)
    assert done.code == 2
    assert "the larger of which is not the class of its label" in done.err


FEATURES = """
[[feature]]
name = "room"
kind = "integer"
range = [0, 3]
[[feature]]
name = "floor"
kind = "integer"
range = [4, 7]
[[feature]]
name = "area"
kind = "continuous"
range = [0, 1]
radius = 0.001
"""


@pytest.mark.filterwarnings("ignore")
def test_categories_as_numbers_are_decided_row_by_row(tmp_path: Path) -> None:
    """Category 3 and floor 7 were never seen: their columns are zeros. Each valid row is one cell, and exact there."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x = np.hstack([RNG.integers(0, 3, (80, 1)), RNG.integers(4, 7, (80, 1)), RNG.random((80, 1))]).astype(np.float32)
    y = (x[:, 0] + x[:, 1] + x[:, 2] > 6.5).astype(int)
    table = [("one hot", OneHotEncoder(handle_unknown="ignore"), [0, 1]), ("scaled", StandardScaler(), [2])]
    model = make_pipeline(ColumnTransformer(table), LogisticRegression())
    path = made(tmp_path, model, x, y)
    (tmp_path / "f.toml").write_text(FEATURES)
    rows, labels = x[:8], model.predict(x[:8])
    np.savez(tmp_path / "d.npz", inputs=rows, labels=labels)
    words = ("certify", path, "-d", tmp_path / "d.npz", "-e", 1, "--features", tmp_path / "f.toml", "-f", "json")
    report = run(*words).report
    for sample in report.samples:
        room, storey, area = rows[sample.index]
        near = [
            (a, b, c)
            for a in range(4)
            for b in range(4, 8)
            for c in (area - 0.00099, area, area + 0.00099)
            if abs(a - room) <= 1 and abs(b - storey) <= 1 and 0 <= c <= 1
        ]
        same = bool((model.predict(np.float32(near)) == labels[sample.index]).all())
        assert sample.results[0].verdict == ("certified" if same else "falsified")
    assert {sample.results[0].verdict for sample in report.samples} == {"certified", "falsified"}


def test_a_box_around_a_category_reaches_the_one_below(tmp_path: Path) -> None:
    """Numbers are cut off: 1 - eps is category 0, 1 + eps is category 1 still."""
    nodes = [ml("OneHotEncoder", "x", "h", cats_int64s=[0, 1], zeros=1)]
    path = saved(tmp_path, nodes, {"h": FLOAT}, n=1)
    model = open_subject(path).model
    assert model(np.array([[1.0], [1.5], [0.99], [2.0], [-0.5]])).tolist() == [[0, 1], [0, 1], [1, 0], [0, 0], [1, 0]]
    for (lo, hi), least, most in (
        ((1.0, 1.9), [0, 1], [0, 1]),
        ((0.9, 1.0), [0, 0], [1, 1]),
        ((1.0, 1.0), [0, 1], [0, 1]),
    ):
        box = Interval(np.array([[lo]]), np.array([[hi]]))
        for found, expected in zip(ends(model, box), (least, most), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-9)
