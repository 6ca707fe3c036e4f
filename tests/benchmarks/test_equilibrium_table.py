"""The table of equilibrium networks: its counts add up, its constants are sound, its feedback loop is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import idl_audit
from benchmarks.equilibrium_table import HEAD, closed_loop, decide_all, loop_section, table
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[2]


def test_every_image_is_counted_and_constants_certify_no_more_than_proofs():
    model = idl_audit.load(ROOT / "sample_models/digits_mondeq.npz")
    with np.load(ROOT / "sample_models/digits_mlp.npz") as file:
        images, labels = file["inputs"][:4].reshape(-1, 64).astype(float), file["labels"][:4].astype(np.int64)
    (row,) = decide_all(model, 1.0, images, labels, (0.01,), clipped=True, seconds=20.0)
    assert sum(row.verdicts.values()) == len(row.seconds) == 4
    assert row.by_l2 <= row.verdicts[Verdict.CERTIFIED]
    assert row.by_matrix <= row.verdicts[Verdict.CERTIFIED]
    assert table([row]).startswith(HEAD)


def test_the_closed_loop_is_the_equations_solved_by_hand():
    """With the set point above the output only the states of positive error are on: a linear system."""
    model = closed_loop(0.9)
    r, load = 1.0, np.array([0.02, -0.03])
    x = np.zeros(2)
    for _ in range(2000):  # plain relaxation of the plant and the controller
        error = r - x[0]
        h = np.maximum([error, -error, 0.5 * error + 0.25], 0)
        v = 0.9 * (h[0] - h[1] + 0.4 * h[2])
        settled = np.array([[0.2, 0.3], [-0.4, 0.1]]) @ x + np.array([0.6, 0.2]) * v + load
        x = x + 0.2 * (settled - x)
    assert model(np.array([[r, *load]]))[0, 0] == pytest.approx(x[0], abs=1e-9)


def test_the_ill_posed_loop_is_refused():
    model = closed_loop(-3.0)
    assert not model.is_well_posed
    with pytest.raises(UnsupportedModelError):
        sensitivity_matrix(model, "best")
    text = "\n".join(loop_section())
    assert "no_uniqueness_proof" in text
    assert "loop(diag)" in text
