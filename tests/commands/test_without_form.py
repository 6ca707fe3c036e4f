"""Networks that the importer refuses and onnxruntime runs: attacked on their own word, and never certified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.decide.opaque import decide_opaque
from idl_audit.report.json_text import from_json
from idl_audit.search.opaque import EACH_INPUT, Opaque
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.command_line import run

FLOAT = TensorProto.FLOAT
ROWS = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32)


def saved(path: Path, nodes, constants=(), *, n: int = 3, outputs=("y",), ml: int = 0) -> Path:
    entry = helper.make_tensor_value_info("x", FLOAT, ["n", n])
    infos = [helper.make_tensor_value_info(name, FLOAT, ["n", None]) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(constants).items()]
    versions = [helper.make_opsetid("", 17), *([helper.make_opsetid("ai.onnx.ml", ml)] if ml else [])]
    graph = helper.make_graph(nodes, "g", [entry], infos, tensors)
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), path)
    return path


def tree(path: Path) -> Path:
    """Class 1 where x_0 > 0.5, class 0 elsewhere."""
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "y"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        class_treeids=[0, 0, 0, 0],
        class_nodeids=[1, 1, 2, 2],
        class_ids=[0, 1, 0, 1],
        class_weights=[1.0, 0.0, 0.0, 1.0],
        classlabels_int64s=[0, 1],
    )
    return saved(path, [node], ml=3)


def ranked(path: Path, *, rows: np.ndarray = ROWS) -> Path:
    """y = rows^T (x + 0 argmax(x)): linear, with an operator that is not read."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["k"], name="rest", axis=1),
        helper.make_node("Cast", ["k"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "m"], ["z"]),
        helper.make_node("Add", ["x", "z"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    return saved(path, nodes, {"m": np.float32(0), "w": rows}, n=len(rows))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree(Path("tree.onnx"))
    ranked(Path("rest.onnx"))
    inputs = np.array([[0.48, 0.0, 0.0], [0.2, 0.3, 0.0], [0.9, 0.1, 0.0]], np.float32)
    np.savez("tree.npz", inputs=inputs, labels=[0, 0, 0])
    np.savez("rest.npz", inputs=inputs, labels=[0, 1, 1])
    return tmp_path


def verdicts(report):
    return [sample.results[0].verdict.value for sample in report.samples]


def test_a_tree_is_attacked_on_its_own_word(folder):
    ran = run("attack", "tree.onnx", "-d", "tree.npz", "-e", "0.05", "-f", "json")
    assert verdicts(ran.report) == ["falsified", "unknown", "clean_wrong"]
    first, second, _ = ran.report.samples
    assert first.results[0].adversarial.confirmed_by[0].startswith("onnxruntime")
    assert second.results[0].reason is Reason.NO_IMPLICIT_FORM
    assert ran.report.conversion is None
    assert "is a sum of trees" in ran.report.model.unsupported[0]
    assert ran.report.diagnostics[0].code == "IDL225"
    assert "onnxruntime" in ran.report.diagnostics[0].message


@pytest.mark.parametrize("name", ["tree", "rest"])
def test_best_effort_certifies_nothing_and_a_gate_says_so(folder, name):
    # at 1e-6 no attack succeeds, and everything that is right could be certified if there were a proof
    ran = run("certify", f"{name}.onnx", "-d", f"{name}.npz", "-e", "1e-6", "--best-effort", "-o", "r.json")
    assert ran.code == 0
    assert "no implicit form" in ran.err
    kept = from_json(Path("r.json").read_text())
    assert set(verdicts(kept)) == {"unknown", "clean_wrong"}
    assert kept.summary.per_eps[0].certified == 0
    assert run("gate", "r.json", "--require", "certified_accuracy@1e-6 >= 0.01").code == 1
    page = run("report", "r.json", "-f", "html").out
    assert "nothing can be certified" in page


def test_without_best_effort_certify_refuses_and_names_it(folder):
    ran = run("certify", "rest.onnx", "-d", "rest.npz", "-e", "0.1")
    assert ran.code == 2
    assert "ArgMax node 'rest' jumps" in ran.err
    assert "certify with --best-effort" in ran.err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--method", "lp"], "the method lp needs an implicit form, and sign, random and pgd do without"),
        (["--task", "multilabel"], "nothing can be asked with --task"),
        (["--minimal"], "nothing can be asked with --largest and --minimal"),
    ],
)
def test_what_needs_the_form_is_refused(folder, asked, words):
    ran = run("attack", "rest.onnx", "-d", "rest.npz", "-e", "0.1", *asked)
    assert ran.code == 2
    assert words in ran.err


def test_nothing_is_written_as_a_certificate(folder):
    ran = run("certify", "rest.onnx", "-d", "rest.npz", "-e", "0.1", "--best-effort", "--certificates", "proofs")
    assert ran.code == 2
    assert "nothing can be asked with --certificates" in ran.err
    assert not Path("proofs").exists()


@pytest.mark.parametrize(
    "asked",
    [["--sparse", "1"], ["--norm", "l2"], ["--norm", "l1"], [], pytest.param(["--jobs", "2"], marks=pytest.mark.slow)],
)
def test_what_is_found_lies_in_the_set_and_is_misclassified(folder, asked):
    ran = run("attack", "rest.onnx", "-d", "rest.npz", "-e", "0.15", "--save", "adv.npz", "-f", "json", *asked)
    assert verdicts(ran.report) == ["unknown", "falsified", "clean_wrong"]
    with np.load("adv.npz") as file:
        found = dict(file)
    change = found["inputs"].astype(np.float64) - found["originals"]
    assert np.argmax(found["inputs"] @ ROWS, axis=1).tolist() == [0]
    assert np.abs(change).max() <= 0.15
    if "--sparse" in asked:
        assert np.count_nonzero(np.abs(change) > 1e-7) == 1
    if "--norm" in asked:
        assert np.linalg.norm(change, 2 if "l2" in asked else 1) <= 0.15


def test_who_asks_for_the_model_gets_the_refusal(folder):
    subject = open_subject(Path("rest.onnx"), ModelOptions(), may_lack_form=True)
    assert (subject.n_inputs, subject.n_outputs) == (3, 2)
    with pytest.raises(UnsupportedModelError, match="ArgMax node 'rest' jumps"):
        _ = subject.model


def test_one_output_needs_a_threshold(folder):
    ranked(Path("one.onnx"), rows=ROWS[:, :1])
    np.savez("one.npz", inputs=np.array([[0.48, 0, 0], [0.2, 0, 0]], np.float32), labels=[0, 0])
    refused = run("attack", "one.onnx", "-d", "one.npz", "-e", "0.05")
    assert refused.code == 2
    assert "--threshold" in refused.err
    ran = run("attack", "one.onnx", "-d", "one.npz", "-e", "0.05", "--threshold", "0.5", "-f", "json")
    assert verdicts(ran.report) == ["falsified", "unknown"]


def test_a_network_that_draws_numbers_is_no_function(folder):
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["n"]), helper.make_node("Add", ["x", "n"], ["y"])]
    saved(Path("noise.onnx"), nodes)
    ran = run("attack", "noise.onnx", "-d", "rest.npz", "-e", "0.1")
    assert ran.code == 2
    assert "gives different outputs for one input" in ran.err


def test_a_file_with_faults_is_shown_to_nobody(folder):
    """An operator is asked for an attribute that it does not have: no runtime is to see that."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["k"], name="rest", axis=1),
        helper.make_node("Cast", ["k"], ["r"], to=FLOAT),
        helper.make_node("Softmax", ["r"], ["y"], sides=3),
    ]
    saved(Path("odd.onnx"), nodes)
    ran = run("attack", "odd.onnx", "-d", "rest.npz", "-e", "0.1")
    assert ran.code == 2
    assert "sides" in ran.err
    assert "IDL225" not in ran.err


# --- slopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, EACH_INPUT + 1])
def test_differences_of_a_linear_network_are_its_slopes(size):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(size, 2))
    asked = []
    bare = Opaque(lambda u: u.astype(np.float64) @ rows, 2, (1, size))
    box = Box.around(np.full(size, 0.5), 0.5)
    box = Box.between(box.lo, np.where(np.arange(size) == 1, box.lo, box.hi))  # one input is held
    point = box.lo + 0.5 * (box.hi - box.lo)
    _, found = bare.within(box, asked.append).slopes(point[None], lambda y: np.array([[1.0, -1.0]]))
    wanted = rows @ [1.0, -1.0]
    assert found[0, 1] == 0
    free = np.arange(size) != 1
    if size <= EACH_INPUT:
        np.testing.assert_allclose(found[0, free], wanted[free], rtol=1e-5)
        assert sum(asked) == 1 + 2 * size
    else:
        assert np.corrcoef(found[0, free], wanted[free])[0, 1] > 0.3


def test_slopes_by_torch_are_those_in_the_data_s_units(folder):
    subject = open_subject(Path("rest.onnx"), ModelOptions(), may_lack_form=True)
    units = Preprocessing(scale=0.25)
    pulled = subject.pulled(units)
    assert pulled is not None
    slopes = pulled(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, -1.0]]))
    np.testing.assert_allclose(slopes, [[0.25, -0.25, 0.0]])


def test_decided_in_python_nothing_is_certified_either():
    bare = Opaque(lambda u: u.astype(np.float64), 2, (1, 2))
    box = Box.around(np.array([0.9, 0.1]), 1e-3)
    found = decide_opaque(bare, np.array([0.9, 0.1]), 0, box, Options(), UNLIMITED)
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.NO_IMPLICIT_FORM)
    assert found.lowers == ()
