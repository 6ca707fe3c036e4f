"""predict, reduce, compress and compose as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from idl_audit.implicit.storage import load_model
from tests.shared.command_line import ROOT, run

MLP = ROOT / "sample_models/digits_mlp.onnx"
DATA = ROOT / "sample_models/digits_mlp.npz"
RELU = '{"schema_version": "1.0", "activation": "relu"}'


def scalar(path, a, c):
    np.savez(path, A=[[a]], B=[[1.0]], C=[[c]], meta=RELU)
    return path


def test_predict_prints_saves_and_counts(tmp_path):
    found = run("predict", MLP, "-d", DATA, "--limit", "5", "--save", tmp_path / "states.npz")
    assert found.code == 0
    assert "5 of 5 labels are predicted (100 %)" in found.out
    report = json.loads(run("predict", MLP, "-d", DATA, "--limit", "5", "-f", "json").out)
    assert [entry["predicted"] for entry in report["predictions"]] == [
        entry["label"] for entry in report["predictions"]
    ]
    assert report["predictions"][0]["iterations"] is None
    assert report["summary"]["clean"] == {"k": 5, "n": 5}
    with np.load(tmp_path / "states.npz") as saved:
        assert saved["states"].shape == (5, 80)
        assert saved["block_starts"].tolist() == [0, 32, 80]
        np.testing.assert_array_equal(saved["outputs"][2], report["predictions"][2]["output"])


def test_predict_of_a_loop_tells_steps_residual_and_proof(tmp_path):
    model, data = scalar(tmp_path / "loop.npz", 0.5, 1.0), tmp_path / "d.csv"
    data.write_text("0.5\n-1\n3\n", encoding="utf-8")
    report = json.loads(run("predict", model, "-d", data, "-f", "json").out)
    assert [entry["output"] for entry in report["predictions"]] == [[1.0], [0.0], [6.0]]
    assert all(entry["residual"] < 1e-12 for entry in report["predictions"])
    assert "one state" in report["conversion"]["well_posed"]["proof"]
    table = run("predict", model, "-d", data).out
    assert "iterations" in table
    assert "residual" in table


def test_predict_of_an_ill_posed_loop_is_warned_of(tmp_path):
    model, data = scalar(tmp_path / "loop.npz", 2.0, 1.0), tmp_path / "d.csv"
    data.write_text("-1\n", encoding="utf-8")
    found = run("predict", model, "-d", data)
    assert found.code == 2 or "IDL305" in found.out


def test_reduce_writes_the_same_function(tmp_path):
    a, b = np.zeros((3, 3)), np.array([[1.0], [0.0], [1.0]])
    np.savez(tmp_path / "m.npz", A=a, B=b, C=[[1.0, 1.0, 0.0]], b=[0.0, 2.0, 0.0], meta=RELU)
    found = run("reduce", tmp_path / "m.npz", "-o", tmp_path / "small.npz")
    assert found.code == 0
    assert "1 of 3 states are left" in found.out
    assert "1 constant, 0 dead, 1 unobserved" in " ".join(found.out.split())
    model = load_model(tmp_path / "small.npz").model
    assert model(np.array([[-1.0], [3.0]])).tolist() == [[2.0], [5.0]]


def test_reduce_on_a_box_uses_it(tmp_path):
    np.savez(tmp_path / "m.npz", A=np.zeros((2, 2)), B=[[1.0], [-1.0]], C=[[1.0, 1.0]], b=[0.0, -0.1], meta=RELU)
    found = run("reduce", tmp_path / "m.npz", "-o", tmp_path / "small.npz", "--bounds", "0,1")
    assert (found.code, "1 dead" in found.out) == (0, True)
    assert "1 of 2 states" in found.out
    assert "every state matters" in run("reduce", tmp_path / "m.npz", "-o", tmp_path / "all.npz").out


@pytest.mark.parametrize("option", [("--prune", "0.05"), ("--quantize", "8"), ("--rank", "8")])
def test_compress_proves_what_it_measures(tmp_path, option):
    out = tmp_path / "small.npz"
    arguments = ("compress", MLP, *option, "-d", DATA, "--limit", "50", "-o", out, "--report")
    report = json.loads(run(*arguments, "-f", "json").out)
    found = report["compression"]
    drift = found["drift"]
    assert drift["measured"] > 0
    assert drift["at_samples"] <= drift["guaranteed"]
    assert drift["measured"] <= drift["guaranteed"]
    assert drift["slope"] > 0
    assert found["nonzeros"]["after"] < found["nonzeros"]["before"]
    listed = [block["drift"]["at_samples"] for block in found["blocks"]]
    assert listed == sorted(listed, reverse=True)
    assert {block["block"] for block in found["blocks"]} <= {
        "outputs",
        *(b["name"] for b in report["conversion"]["blocks"]),
    }
    with np.load(DATA) as data:
        u, y = data["inputs"][:50].reshape(50, -1).astype(float), load_model(out).model
    assert y(u).shape == (50, 10)
    assert run("predict", out, "-d", DATA, "--limit", "3").code == 0


def test_compress_without_samples_has_a_bound_for_all_inputs_and_for_bounds(tmp_path):
    out = run("compress", MLP, "--quantize", "6", "--bounds", "0,1", "-o", tmp_path / "q.npz").out
    assert "max|u_j|" in out
    assert "in the box of inputs" in out


def test_compose_and_what_takes_the_result(tmp_path):
    plant, controller = scalar(tmp_path / "plant.npz", 0.5, 1.0), scalar(tmp_path / "controller.npz", 0.0, 0.3)
    out = tmp_path / "closed.npz"
    found = run("compose", "feedback", plant, controller, "-o", out)
    assert found.code == 0
    assert "PF" in found.out
    y = load_model(out).model(np.array([[1.0]]))[0, 0]
    assert y == pytest.approx(2 * (1 + 0.3 * y))
    assert run("sensitivity", out).code == 0
    for kind in ("cascade", "sum", "concat"):
        assert run("compose", kind, plant, controller, "-o", tmp_path / f"{kind}.npz").code == 0


def test_compose_takes_any_number_of_models_and_weights(tmp_path):
    models = [scalar(tmp_path / f"{k}.npz", 0.5 * (k == 0), k + 1.0) for k in range(3)]
    u = np.linspace(-2, 2, 9)[:, None]
    f, g, h = (load_model(path).model for path in models)
    for kind, more, expected in (
        ("cascade", (), h(g(f(u)))),
        ("concat", (), np.hstack([f(u), g(u), h(u)])),
        ("sum", (), f(u) + g(u) + h(u)),
        ("sum", ("--weights", "1/4,-1,0.25"), f(u) / 4 - g(u) + h(u) / 4),
    ):
        out = tmp_path / f"{kind}.npz"
        found = run("compose", kind, *models, *more, "-o", out, "--force")
        assert found.code == 0, found.err
        np.testing.assert_allclose(load_model(out).model(u), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compose", "feedback", "p.npz", "q.npz", "-o", "out.npz"), "nothing proves that this feedback loop"),
        (("compose", "cascade", MLP, "p.npz", "-o", "out.npz"), "10 outputs do not fit 1 inputs"),
        (("compose", "feedback", "p.npz", "q.npz", "p.npz", "-o", "out.npz"), "feedback takes two models, not 3"),
        (("compose", "sum", "p.npz", "q.npz", "--weights", "1", "-o", "out.npz"), "1 numbers for 2 models"),
        (
            ("compose", "concat", "p.npz", "q.npz", "--weights", "1,2", "-o", "out.npz"),
            "those of a sum; concat has none",
        ),
        (("compose", "sum", "p.npz", "q.npz", "--weights", "1,nan", "-o", "out.npz"), "--weights"),
        (("compress", MLP, "-o", "out.npz"), "one of --prune T, --quantize BITS, --rank K, not none"),
        (("compress", MLP, "--prune", ".1", "--rank", "2", "-o", "out.npz"), "not --prune and --rank"),
        (("compress", MLP, "--prune", ".1"), "-o OUT.npz"),
        (("compress", MLP, "--prune", "2", "-o", "out.npz"), "--prune takes a share"),
        (("compress", MLP, "--rank", "2", "-o", "out.npz", "--limit", "3"), "--limit says how to read samples"),
        (("compress", MLP, "--rank", "2", "-o", "p.npz"), "exists already"),
        (("reduce", MLP, "-o", "out.npz", "--bounds", "1,0"), "--bounds"),
    ],
)
def test_refusals_write_nothing(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    scalar(tmp_path / "p.npz", 0.5, 1.0)
    scalar(tmp_path / "q.npz", 0.0, 0.55)
    found = run(*arguments)
    assert found.code == 2
    assert words in found.err
    assert not (tmp_path / "out.npz").exists()
