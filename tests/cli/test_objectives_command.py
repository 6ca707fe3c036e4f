"""attack --objective and --method mip: what a user sees, what is saved, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from idl_audit.report.schema import Reason, Verdict
from tests.shared.command_line import DATA, MODEL, SAMPLES, run

STATES = 80


def attack(*args, eps="0.05"):
    return run("attack", MODEL, "-d", DATA, "-e", eps, "--limit", 3, *args)


def weights(tmp_path, kind):
    c = np.eye(10)[3] - np.eye(10)[5]
    path = tmp_path / f"weights.{kind}"
    if kind == "npz":
        np.savez(path, c=c, w=np.ones(STATES))
    elif kind == "npy":
        np.save(path, c)
    else:
        path.write_text(",".join(map(str, c)))
    return path


@pytest.mark.parametrize("name", ["l1", "state", "npz", "npy", "csv"])
def test_every_objective_is_measured_proved_and_saved(tmp_path, name):
    objective = name if name in ("l1", "state") else weights(tmp_path, name)
    found = attack("--objective", objective, "--save", tmp_path / "far.npz", "-f", "json")
    assert found.code == 0
    entries = found.report.objectives
    assert [entry.index for entry in entries] == [0, 1, 2]
    for entry in entries:
        sign = -1 if name == "l1" else 1
        assert sign * entry.at_sample < sign * entry.reached <= sign * entry.proved + 1e-4
        assert entry.sense == ("smallest" if name == "l1" else "largest")
        assert (entry.method in ("lp", "pgd"), entry.reason) == (True, None)
    with np.load(tmp_path / "far.npz") as saved, np.load(DATA) as data:
        assert saved["values"].tolist() == [entry.reached for entry in entries]
        samples = data["inputs"][:3].reshape(3, -1)
        assert np.abs(saved["inputs"].reshape(3, -1) - samples).max() <= 0.05 + 1e-7
        assert np.abs(saved["inputs"].reshape(3, -1) - samples).max() > 0.04


def test_the_table_says_what_was_found_and_what_is_proved(tmp_path):
    found = attack("--objective", weights(tmp_path, "npy"), "--method", "lp")
    assert found.code == 0
    text = " ".join(found.out.split())
    assert "Around 3 samples, the largest value found of the objective of weights.npy is" in text
    assert "is proved." in text
    assert "largest found proved at most" in text


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (("nowhere",), "--objective must be margin, l1, state or a file"),
        ((SAMPLES / "train.py",), "no number"),
        (("l1", "--target", 3), "--target goes with the objective margin"),
        (("state", "--method", "mip"), "known are pgd, lp"),
        (("l1", "--sparse", 0), "--sparse must be 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(args, what):
    found = attack("--objective", *args)
    assert found.code == 2
    assert what in " ".join(found.err.split())
    assert found.out == ""


def test_too_few_weights_are_refused(tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("1,2,3")
    found = attack("--objective", path)
    assert found.code == 2
    assert "3 weights of outputs, and the model 10 outputs" in " ".join(found.err.split())


@pytest.mark.slow
def test_the_mip_attacks_and_proves_nothing():
    found = run("certify", MODEL, "-d", DATA, "-e", "0.02", "--method", "mip", "--index", "0,3", "-f", "json")
    assert found.code == 0
    results = [sample.results[0] for sample in found.report.samples]
    assert all(result.verdict is not Verdict.CERTIFIED for result in results)
    assert any(result.reason is Reason.SOLVER_ONLY for result in results)
    attacked = attack("--method", "mip", "-f", "json", eps="0.75")
    assert all(sample.results[0].verdict is Verdict.FALSIFIED for sample in attacked.report.samples)
