"""The trivial proof of many boxes at once: it holds for no box for which the checker, asked alone, refuses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared.subject import open_subject
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.check import check, hold_by_lines
from idl_audit.proof.proof import trivial
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture(scope="module")
def model() -> ImplicitModel:
    return open_subject(SAMPLES / "digits_mlp.onnx").model


def queries(count: int, eps: float) -> list[Query]:
    with np.load(SAMPLES / "digits_mlp.npz") as file:
        inputs, labels = file["inputs"][:count].reshape(count, -1).astype(np.float64), file["labels"][:count]
    boxes = [Box.around(x, eps, valid_lo=0.0, valid_hi=1.0) for x in inputs]
    return [Query.misclassification(box, 10, int(label)) for box, label in zip(boxes, labels, strict=True)]


@pytest.mark.parametrize("eps", [0.01, 0.04, 0.07])
def test_together_as_alone(model: ImplicitModel, eps: float) -> None:
    asked = queries(40, eps)
    together = hold_by_lines(model, asked)
    alone = [not check(model, query, trivial(len(query.alternatives))) for query in asked]
    assert not (together & ~np.array(alone)).any()
    assert together.sum() >= sum(alone) - 1  # one may be within the room for another order of sums
    assert together.any()
    if eps > 0.05:
        assert not together.all()


def test_points_are_never_refuted(model: ImplicitModel) -> None:
    asked = queries(40, 0.07)
    together = hold_by_lines(model, asked)
    rng = np.random.default_rng(0)
    for query, holds in zip(asked, together, strict=True):
        points = rng.uniform(query.box.lo, query.box.hi, (200, query.box.size))
        outputs = model(points)
        margins = np.stack([(outputs @ one.rows.T).min(axis=1) for one in query.alternatives])
        assert not holds or margins.min() > 0


def test_what_is_not_a_row_against_zero_is_left_to_the_checker(model: ImplicitModel) -> None:
    (query,) = queries(1, 0.01)
    assert hold_by_lines(model, [query]).tolist() == [True]
    first = query.alternatives[0]
    two = Conjunction(np.vstack([first.rows, first.rows]), np.zeros(2))
    shifted = Conjunction(first.rows, np.array([5.0]))
    for other in (two, shifted):
        changed = Query(query.inputs, (other, *query.alternatives[1:]))
        assert hold_by_lines(model, [changed]).tolist() == [False]


def test_no_number_holds_nothing(model: ImplicitModel) -> None:
    (query,) = queries(1, 0.01)
    rows = query.alternatives[0].rows.copy()
    rows[0, 0] = np.nan
    changed = Query(query.inputs, (replace(query.alternatives[0], rows=rows), *query.alternatives[1:]))
    assert hold_by_lines(model, [changed]).tolist() == [False]
