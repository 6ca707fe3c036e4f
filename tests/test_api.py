"""The Python interface: its documented examples, what it refuses, and that it says what the command line says."""

from __future__ import annotations

import dataclasses
import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import idl_audit
from idl_audit import api, plots, reports
from idl_audit.commands.shared import subject
from idl_audit.testing import assert_robust
from idl_audit.values import errors

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "sample_models/digits_mlp.onnx"
DATA = MODEL.with_suffix(".npz")

with np.load(DATA) as archive:
    X, Y = archive["inputs"], archive["labels"]


@pytest.fixture
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def test_the_documented_examples_hold(root):
    found = doctest.testmod(api, raise_on_error=False)
    assert found.attempted >= 18
    assert found.failed == 0


def test_files_and_arrays_give_the_same_verdicts(root):
    report = idl_audit.audit(MODEL, DATA, eps="0.05", limit=8, bounds=(0, 1))
    found = idl_audit.certify(MODEL, X[:8], Y[:8], eps=0.05, bounds=(0, 1))
    assert [s.verdict for s in found.samples] == [s.results[0].verdict.value for s in report.samples]
    (counts,) = report.summary.per_eps
    own = (found.n, found.certified, found.falsified, found.unknown, found.clean_wrong)
    assert own == (counts.n, counts.certified, counts.falsified, counts.unknown, counts.clean_wrong)
    assert found.judge.startswith("onnxruntime")
    assert report.command == "certify"


def test_adversarial_inputs_lie_in_the_set_and_fool_the_network():
    found = idl_audit.attack(MODEL, X[:30], Y[:30], eps="25/255", bounds=(0, 1), methods=["pgd", "sign"])
    assert found.falsified == len(found.adversarial) > 0
    network = subject.open_subject(MODEL).original
    for sample in found.samples:
        if sample.adversarial is not None:
            assert np.abs(sample.adversarial.astype(float) - X[sample.index]).max() <= 25 / 255
            assert 0 <= sample.adversarial.min() <= sample.adversarial.max() <= 1
            assert network(sample.adversarial[None])[0].argmax() != sample.label


def test_a_target_leaves_out_the_samples_of_its_class():
    found = idl_audit.attack(MODEL, X[:20], Y[:20], eps=0.2, methods=["pgd"], target=3)
    assert [s.index for s in found.samples] == np.flatnonzero(Y[:20] != 3).tolist()
    network = subject.open_subject(MODEL).original
    assert found.falsified > 0
    assert (network(found.adversarial).argmax(axis=1) == 3).all()


@pytest.mark.slow
def test_modules_and_implicit_models_are_taken():
    net = module()
    x = torch.rand(6, 4)
    y = net(x).argmax(dim=1)
    model = idl_audit.load(net, x[:1])
    np.testing.assert_allclose(model(x.numpy().astype(float)), net(x).detach().numpy(), atol=1e-5)
    for given, judge in ((net, "torch"), (model, "the implicit model itself")):
        found = idl_audit.certify(given, x, y, eps=1e-4)
        assert (found.certified, found.n) == (6, 6)
        assert found.judge.startswith(judge)
        assert min(s.lower_bound for s in found.samples) > 0


def test_results_are_frozen():
    found = idl_audit.attack(MODEL, X[:3], Y[:3], eps=0.3, methods=("sign",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.eps = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.samples[0].verdict = "certified"
    (point, *_) = (s.adversarial for s in found.samples if s.adversarial is not None)
    with pytest.raises(ValueError, match="read-only"):
        point[0] = 0


REFUSED = {
    "shape": (lambda: api.certify(MODEL, X[:2, :63], Y[:2], eps=0.1), errors.DataError, "63 numbers each"),
    "one axis": (lambda: api.certify(MODEL, X[0], Y[:1], eps=0.1), errors.DataError, "along its first axis"),
    "labels": (lambda: api.certify(MODEL, X[:2], Y[:2] + 20, eps=0.1), errors.DataError, "0 to 9"),
    "NaN": (lambda: api.certify(MODEL, X[:2] * np.nan, Y[:2], eps=0.1), errors.DataError, "NaN"),
    "eps": (lambda: api.certify(MODEL, X[:2], Y[:2], eps=8), errors.OptionError, "covers the whole range"),
    "two radii": (lambda: api.certify(MODEL, X[:2], Y[:2], eps="0.1,0.2"), errors.OptionError, "one radius"),
    "zero": (lambda: api.certify(MODEL, X[:2], Y[:2], eps=0), errors.OptionError, "above zero"),
    "bounds": (lambda: api.certify(MODEL, X[:2], Y[:2], eps=0.1, bounds=(1, 0)), errors.OptionError, "LO < HI"),
    "outside": (lambda: api.certify(MODEL, X[:2], Y[:2], eps=0.1, bounds=(0, 0.5)), errors.DataError, "above"),
    "method": (lambda: api.certify(MODEL, X[:2], Y[:2], eps=0.1, methods=["no"]), errors.OptionError, "'no'"),
    "target": (lambda: api.attack(MODEL, X[:2], Y[:2], eps=0.1, target=10), errors.OptionError, "0 to 9"),
    "module": (lambda: api.load(module()), errors.OptionError, "example_input"),
    "file": (lambda: api.certify("none.onnx", X[:2], Y[:2], eps=0.1), errors.ModelFileError, "none.onnx"),
    "data": (lambda: api.audit(MODEL, "none.npz", eps=0.1), errors.DataError, "none.npz"),
}


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_in_one_sentence(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_public_names_are_typed(tmp_path):
    (tmp_path / "use.py").write_text(
        "import idl_audit\n"
        "reveal_type(idl_audit.certify('m', 0, 0, eps=1).certified)\n"
        "reveal_type(idl_audit.audit('m', 'd', eps='1').command)\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "use.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Revealed type is "int"' in found.stdout
    assert 'Revealed type is "str"' in found.stdout
    assert found.returncode == 0


@pytest.mark.parametrize("module", [plots, reports])
def test_the_documented_examples_of_pictures_and_reports_hold(root, module):
    found = doctest.testmod(module, raise_on_error=False)
    assert found.attempted >= 3
    assert found.failed == 0


def test_without_labels_the_predicted_class_is_the_right_one():
    named = idl_audit.certify(MODEL, X[:4], Y[:4], eps=0.01, bounds=(0, 1))
    found = idl_audit.certify(MODEL, X[:4], eps=0.01, bounds=(0, 1))
    assert found.clean_wrong == 0
    assert [s.label for s in found.samples] == [s.predicted for s in named.samples]


def test_several_radii_are_a_sweep_of_what_each_alone_gives():
    both = idl_audit.certify(MODEL, X[:5], Y[:5], eps=[0.01, "25/255"], bounds=(0, 1), max_nodes=200)
    assert both.eps == (0.01, 25 / 255)
    alone = [idl_audit.certify(MODEL, X[:5], Y[:5], eps=e, bounds=(0, 1), max_nodes=200) for e in (0.01, "25/255")]
    assert [[s.verdict for s in one.samples] for one in both] == [[s.verdict for s in one.samples] for one in alone]
    assert both[1:].eps == (25 / 255,)
    assert both._repr_html_().count("<tr>") == 3


def test_an_empty_list_of_radii_is_refused():
    with pytest.raises(errors.OptionError, match="at least one radius"):
        idl_audit.certify(MODEL, X[:2], Y[:2], eps=[])
    with pytest.raises(errors.OptionError, match="one radius"):
        assert_robust(MODEL, X[:2], Y[:2], eps=[0.01])


def test_what_is_shown_is_one_line_without_arrays():
    found = idl_audit.attack(MODEL, X[:10], Y[:10], eps=0.2, bounds=(0, 1), method=["sign"])
    shown = [repr(found), repr(found.samples[0]), repr(idl_audit.load(MODEL))]
    assert all("\n" not in text and len(text) < 120 for text in shown)
    assert f"falsified={found.falsified}" in shown[0]
    assert "64 inputs, 80 states" in shown[2]


def test_pictures_are_figures_and_what_cannot_be_drawn_is_refused():
    found = idl_audit.certify(MODEL, X[:10], Y[:10], eps=[0.01, 0.2], bounds=(0, 1), max_nodes=50)
    assert [axes.get_xlabel() for axes in idl_audit.plot_accuracy(found).axes] == ["eps, in units of the data"]
    toppled = next(s.index for s in found[1].samples if s.verdict == "falsified")
    assert len(idl_audit.plot_adversarial(found[1], X[:10], toppled, shape=(8, 8)).axes) == 4
    S = idl_audit.sensitivity_matrix(idl_audit.load(MODEL))
    assert len(idl_audit.plot_sensitivity(S, 3, shape=(8, 8)).axes) == 2
    certified = next(s.index for s in found[0].samples if s.verdict == "certified")
    for call in (
        lambda: idl_audit.plot_accuracy(found[:1]),
        lambda: idl_audit.plot_adversarial(found[0], X[:10], certified),
        lambda: idl_audit.plot_sensitivity(S, 10),
        lambda: idl_audit.plot_sensitivity(S, shape=(7, 7)),
        lambda: idl_audit.plot_sensitivity(S * np.inf),
    ):
        with pytest.raises(errors.OptionError):
            call()


def test_a_table_without_pandas_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    report = idl_audit.audit(MODEL, DATA, eps=0.01, limit=2)
    with pytest.raises(errors.OptionError, match="pip install pandas"):
        idl_audit.to_dataframe(report)


def test_rules_are_judged_as_gate_judges_them():
    report = idl_audit.audit(MODEL, DATA, eps=0.01, limit=5)
    assert idl_audit.check_rules(report, ["certified_accuracy >= 0.9"], ["unknown <= 0"]).passed
    assert not idl_audit.check_rules(report, ["clean_accuracy < 0.5"]).passed
    with pytest.raises(errors.OptionError):
        idl_audit.check_rules(report, ["certified_accuracy@0.5 >= 0.9"])
