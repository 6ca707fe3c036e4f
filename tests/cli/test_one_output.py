"""Networks with one output in every command that speaks of classes, against answers that are plain by hand.

The network is y = x0 - x1, or a last operator of it. A sample's class changes within eps where and only where
|x0 - x1 - T'| <= 2 eps, T' the argument at which the output is the threshold.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import idl_audit
from idl_audit.testing import assert_robust
from idl_audit.values.errors import DataError, OptionError
from tests.shared.command_line import Run, network, run

X = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.5], [0.3, 0.7]])
Y = [1, 0, 1, 0]
DISTANCE = [0.8, -0.8, 0.1, -0.4]
ENDS = {
    "logit": ("Identity", 0.0),
    "sigmoid": ("Sigmoid", 0.5),
    "tanh": ("Tanh", 0.0),
    "hard_sigmoid": ("HardSigmoid", 0.5),
    "softsign": ("Softsign", 0.0),
}
"""Name -> the last operator, and the threshold that is taken where none is given."""


def one_output(path: Path, *operators: str, shape: tuple[int | str, ...] = ("b", 1)) -> Path:
    names = ["h", *(f"h{k}" for k in range(len(operators) - 1)), "y"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"])]
    nodes += [helper.make_node(op, [names[k]], [names[k + 1]]) for k, op in enumerate(operators)]
    return network(path, nodes, {"w": [[1.0], [-1.0]]}, inputs=(("x", ("b", 2)),), outputs=(("y", shape),))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, (op, _) in ENDS.items():
        one_output(tmp_path / f"{name}.onnx", op)
    np.savez(tmp_path / "d.npz", inputs=X, labels=Y)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verdicts(found: Run, eps: float | None = None) -> list[str]:
    return [
        result.verdict.value
        for sample in found.report.samples
        for result in sample.results
        if eps is None or result.eps == eps
    ]


def expected(eps: float, middle: float = 0.0) -> list[str]:
    """Return the verdicts by hand, where the threshold is at x0 - x1 = middle."""
    found = []
    for distance, label in zip(DISTANCE, Y, strict=True):
        if (distance > middle) != bool(label):
            found.append("clean_wrong")
        else:
            found.append("falsified" if abs(distance - middle) < 2 * eps else "certified")
    return found


@pytest.mark.parametrize("name", ENDS)
def test_certify_is_right_by_hand(folder: Path, name: str) -> None:
    found = run("certify", f"{name}.onnx", "-d", "d.npz", "-e", "0.04,0.1,0.21,0.39", "--bounds", "0,1", "-f", "json")
    assert found.code == 0, found.err
    for eps in (0.04, 0.1, 0.21, 0.39):
        assert verdicts(found, eps) == expected(eps)
    assert found.report.model.threshold == ENDS[name][1]
    assert [(sample.label, sample.predicted) for sample in found.report.samples] == [(y, y) for y in Y]
    assert (found.report.summary.clean.k, found.report.summary.clean.n) == (4, 4)
    assert "IDL210" in {entry.code for entry in found.report.diagnostics}


THRESHOLDS = {
    ("logit", "0.05"): 0.05,
    ("logit", "-1/2"): -0.5,
    ("logit", "0.7"): 0.7,
    ("sigmoid", "0.6"): math.log(0.6 / 0.4),
    ("sigmoid", "0.45"): math.log(0.45 / 0.55),
    ("tanh", "0.5"): math.atanh(0.5),
    ("softsign", "0.2"): 0.25,
    ("hard_sigmoid", "0.6"): 0.5,
}


@pytest.mark.parametrize(("name", "text"), THRESHOLDS)
def test_a_threshold_moves_the_boundary_to_where_the_output_is_that_number(folder: Path, name: str, text: str) -> None:
    found = run("certify", f"{name}.onnx", "-d", "d.npz", "-e", "0.04", f"--threshold={text}", "-f", "json")
    assert verdicts(found) == expected(0.04, THRESHOLDS[name, text])
    assert found.report.model.threshold == pytest.approx(float(eval(text)))


@pytest.mark.parametrize("method", ["interval", "linear", "lp", "exact", "interval,linear,branch"])
def test_every_proof_holds_beyond_the_boundary_only(folder: Path, method: str) -> None:
    found = run("certify", "sigmoid.onnx", "-d", "d.npz", "-e", "0.1", "--method", method, "-f", "json")
    certified = [verdict == "certified" for verdict in verdicts(found)]
    assert certified == [True, True, False, True]


@pytest.mark.parametrize("method", ["sign", "pgd", "random", "sensitivity", "gradient", "lp", "mip"])
@pytest.mark.parametrize("name", ["logit", "sigmoid"])
def test_every_attack_crosses_the_threshold(folder: Path, name: str, method: str) -> None:
    line = ("attack", f"{name}.onnx", "-d", "d.npz", "-e", "0.2", "--method", method, "--fraction", "1", "-f", "json")
    found = run(*line)
    assert found.code == 0, found.err
    assert verdicts(found)[2] == "falsified"
    assert "falsified" not in verdicts(found)[:2]
    (adversarial,) = (r.adversarial for r in found.report.samples[2].results)
    assert adversarial.class_ == 0
    assert adversarial.confirmed_by[0].startswith("onnxruntime")


def test_what_is_falsified_crosses_in_the_networks_own_arithmetic(folder: Path) -> None:
    run("attack", "sigmoid.onnx", "-d", "d.npz", "-e", "0.3", "--save", "adv.npz", "--images", "pictures")
    assert list((folder / "pictures").iterdir())
    with np.load(folder / "adv.npz") as saved:
        assert saved["labels"].tolist() == [1, 0]
        assert saved["predictions"].tolist() == [0, 1]
        import onnxruntime

        (y,) = onnxruntime.InferenceSession("sigmoid.onnx").run(None, {"x": saved["inputs"]})
    assert (y[:, 0] > 0.5).tolist() == [False, True]


def test_an_output_on_the_threshold_is_class_0(folder: Path) -> None:
    np.savez("even.npz", inputs=[[0.5, 0.5], [0.5, 0.5]], labels=[0, 1])
    found = run("certify", "logit.onnx", "-d", "even.npz", "-e", "0.0001", "-f", "json")
    assert verdicts(found) == ["falsified", "clean_wrong"]
    np.savez("edge.npz", inputs=[[0.25, 0.5], [0.75, 0.5]], labels=[0, 1])
    exact = run("certify", "logit.onnx", "-d", "edge.npz", "-e", "0.125", "-f", "json")
    assert verdicts(exact)[0] != "certified"  # y = 0 is reached: class 0 there, but no proof of more than y <= 0
    assert verdicts(exact)[1] == "falsified"  # and y = 0 is no class 1


@pytest.mark.parametrize("target", [0, 1])
def test_a_target_leaves_its_own_class_out(folder: Path, target: int) -> None:
    found = run("attack", "logit.onnx", "-d", "d.npz", "-e", "0.3", "--target", str(target), "-f", "json")
    assert [sample.label for sample in found.report.samples] == [1 - target] * 2
    assert verdicts(found) == ["certified", "falsified"]
    assert run("attack", "logit.onnx", "-d", "d.npz", "-e", "0.3", "--target", "2").code == 2


LABELS = {
    "ints": Y,
    "floats": [1.0, 0.0, 1.0, 0.0],
    "truth values": [True, False, True, False],
    "signs": [1, -1, 1, -1],
    "column": [[1], [0], [1], [0]],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_two_classes_are_taken_in_every_form(folder: Path, kind: str) -> None:
    np.save("y.npy", np.array(LABELS[kind]))
    found = run("certify", "sigmoid.onnx", "-d", "d.npz", "-y", "y.npy", "-e", "0.1", "-f", "json")
    assert [sample.label for sample in found.report.samples] == Y
    assert verdicts(found) == expected(0.1)


def test_labels_in_a_table_may_be_true_and_false(folder: Path) -> None:
    lines = ["a;b;class", *(f"{a};{b};{bool(y)}".replace(".", ",") for (a, b), y in zip(X, Y, strict=True))]
    (folder / "d.csv").write_text("\n".join(lines))
    found = run("certify", "sigmoid.onnx", "-d", "d.csv", "-e", "0.1", "-f", "json")
    assert verdicts(found) == expected(0.1)


REFUSED = {
    "targets": (
        "certify logit.onnx -d targets.npz -e 0.1",
        ("label of sample 0 is 3.5", "--threshold", "bounds", "VNN-LIB"),
    ),
    "three classes": ("certify logit.onnx -d three.npz -e 0.1", ("label of sample 2 is 2", "classes 0 and 1")),
    "from 1": ("certify logit.onnx -d from_1.npz -e 0.1", ("1-based", "subtract 1")),
    "one-hot": ("certify logit.onnx -d hot.npz -e 0.1", ("one-hot", "argmax")),
    "no labels": (
        "certify logit.onnx -d none.npz -e 0.1",
        ("has no labels", "1 where the output is above 0", "--within"),
    ),
    "one-sided": ("certify relu.onnx -d d.npz -e 0.1", ("between 0 and inf", "--threshold", "`bounds`")),
    "on the end": ("certify relu.onnx -d d.npz -e 0.1 --threshold 0", ("--threshold 0", "no output", "below it")),
    "above a sigmoid": ("certify sigmoid.onnx -d d.npz -e 0.1 --threshold 1", ("between 0 and 1", "above it")),
    "beyond a sigmoid": ("attack sigmoid.onnx -d d.npz -e 0.1 --threshold 2.5", ("between 0 and 1",)),
    "beyond a tanh": ("predict tanh.onnx -d d.npz --threshold -1", ("between -1 and 1", "below it")),
    "one number": ("certify softmax.onnx -d d.npz -e 0.1", ("Softmax of one number", "same for every input")),
    "nan": ("certify logit.onnx -d d.npz -e 0.1 --threshold nan", ("--threshold", "'nan'")),
    "infinite": ("certify logit.onnx -d d.npz -e 0.1 --threshold inf", ("--threshold", "'inf'")),
    "word": ("certify logit.onnx -d d.npz -e 0.1 --threshold half", ("--threshold", "'half'")),
    "several outputs": ("certify two.onnx -d d.npz -e 0.1 --threshold 0", ("one output", "has 2", "leave it out")),
    "beside a property": ("certify logit.onnx p.vnnlib --threshold 0", ("--threshold", "says itself")),
    "beside an objective": (
        "attack logit.onnx -d d.npz -e 0.1 --objective l1 --threshold 0",
        ("--threshold", "margin"),
    ),
    "class of S": ("sensitivity logit.onnx --class 2", ("--class 2", "two classes, 0 and 1")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_classes_is_refused_in_one_sentence(folder: Path, name: str) -> None:
    one_output(folder / "relu.onnx", "Relu")
    one_output(folder / "softmax.onnx", "Softmax")
    np.savez("targets.npz", inputs=X, y=[3.5, 1, 0, 2])
    np.savez("three.npz", inputs=X, y=[0, 1, 2, 0])
    np.savez("from_1.npz", inputs=X, y=[1, 2, 2, 1])
    np.savez("hot.npz", inputs=X, y=np.eye(2)[Y])
    np.savez("none.npz", inputs=X)
    network(
        folder / "two.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.eye(2)},
        inputs=(("x", ("b", 2)),),
        outputs=(("y", ("b", 2)),),
    )
    line, words = REFUSED[name]
    found = run(*line.split())
    assert (found.code, found.out) == (2, "")
    (told,) = found.err.splitlines()
    for word in words:
        assert word in told


def test_predict_says_the_class_where_there_are_two(folder: Path) -> None:
    with_labels = run("predict", "sigmoid.onnx", "-d", "d.npz", "-f", "json").report
    assert [entry.predicted for entry in with_labels.predictions] == Y
    assert (with_labels.summary.clean.k, with_labels.model.threshold) == (4, 0.5)
    np.savez("none.npz", inputs=X)
    for name, classes in (("sigmoid", Y), ("hard_sigmoid", Y), ("logit", [None] * 4)):
        without = run("predict", f"{name}.onnx", "-d", "none.npz", "-f", "json").report
        assert [entry.predicted for entry in without.predictions] == classes
    asked = run("predict", "sigmoid.onnx", "-d", "none.npz", "--threshold", "0.65", "-f", "json").report
    assert [entry.predicted for entry in asked.predictions] == [1, 0, 0, 0]
    for entry, distance in zip(asked.predictions, DISTANCE, strict=True):
        assert entry.output[0] == pytest.approx(1 / (1 + math.exp(-distance)), abs=1e-6)


@pytest.mark.parametrize(
    "command", ["predict", "bounds -e 0.1", "sensitivity -e 0.1", "attack -e 0.1 --objective c.csv"]
)
def test_targets_of_a_regression_are_left_out(folder: Path, command: str) -> None:
    one_output(folder / "relu.onnx", "Relu")
    (folder / "c.csv").write_text("1")
    name, *rest = command.split()
    for model, targets in (("logit", [3.5, 1, 0, 2]), ("relu", [0, 1, 1, 0])):
        np.savez("targets.npz", inputs=X, y=targets)
        found = run(name, f"{model}.onnx", "-d", "targets.npz", *rest, "-f", "json")
        assert found.code == 0, found.err
        assert found.report.summary is None
        if name == "predict":
            assert "IDL108" in {entry.code for entry in found.report.diagnostics}


def test_certificates_say_the_threshold_and_are_checked_again(folder: Path) -> None:
    for name, threshold in (("sigmoid", "0.6"), ("logit", "0.05")):
        line = ("certify", f"{name}.onnx", "-d", "d.npz", "-e", "0.01", "--threshold", threshold)
        assert run(*line, "--certificates", name).code == 0
        files = sorted(Path(name).iterdir())
        assert len(files) == len([v for v in expected(0.01, THRESHOLDS[name, threshold]) if v == "certified"])
        for file in files:
            with np.load(file) as arrays:
                meta = json.loads(str(arrays["meta"]))
            assert meta["model"]["threshold"] == float(threshold)
            label = meta["claim"]["label"]
            found = run("verify", file, f"{name}.onnx", "-f", "json")
            assert found.code == 0, found.out
            side = "above" if label else "below"
            assert f"class {label} (output {side} {threshold})" in found.report.verification.claim


@pytest.mark.parametrize("threshold", [0.1, 0.6, 0.7, None, "0", [0.05], True, 1e999])
def test_a_certificate_of_another_threshold_is_refused(folder: Path, threshold: object) -> None:
    """Sample 2 has y = 0.1 and is certified above 0.05 at eps 0.01: y stays above 0.08 and below 0.12."""
    run("certify", "logit.onnx", "-d", "d.npz", "-e", "0.01", "--threshold", "0.05", "--certificates", "c")
    file = folder / "c/sample-2-eps-0.01.npz"
    with np.load(file) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    meta = json.loads(str(content["meta"]))
    meta["model"]["threshold"] = threshold
    np.savez(file, **content | {"meta": np.asarray(json.dumps(meta))})
    assert run("verify", file, "logit.onnx").code in (1, 2)


def test_a_certificate_without_a_threshold_proves_nothing_of_one_output(folder: Path) -> None:
    network(
        folder / "two.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": [[1.0, -1.0], [-1.0, 1.0]]},
        inputs=(("x", ("b", 2)),),
        outputs=(("y", ("b", 2)),),
    )
    np.savez("zero.npz", inputs=X[:1], labels=[0])
    run("certify", "two.onnx", "-d", "zero.npz", "-e", "0.01", "--certificates", "c")
    (file,) = (folder / "c").iterdir()
    assert run("verify", file, "two.onnx").code == 0
    with np.load(file) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    digest = run("inspect", "logit.onnx", "-f", "json").report.model.sha256
    meta = json.loads(str(content["meta"]))
    meta["model"]["sha256"] = digest
    np.savez(file, **content | {"meta": np.asarray(json.dumps(meta))})
    assert run("verify", file, "logit.onnx").code in (1, 2)


def test_the_last_operator_is_left_out_of_margins_and_said_so(folder: Path) -> None:
    found = run("certify", "sigmoid.onnx", "-d", "d.npz", "-e", "0.1", "-f", "json").report
    assert found.model.stripped_output == "Sigmoid"
    assert found.samples[0].results[0].lower_bound == pytest.approx(0.6, abs=1e-6)
    table = run("certify", "sigmoid.onnx", "-d", "d.npz", "-e", "0.1")
    assert "1 where the output is above 0.5, else 0" in table.out


def test_a_threshold_that_float32_cannot_tell_from_the_end_is_warned_of(folder: Path) -> None:
    np.savez("far.npz", inputs=[[12.0, 0.0]], labels=[0])
    line = ("certify", "sigmoid.onnx", "-d", "far.npz", "-e", "0.1", "--threshold", "0.99999999", "-f", "json")
    found = run(*line)
    assert verdicts(found) == ["certified"]
    assert "IDL202" in {entry.code for entry in found.report.diagnostics}
    usual = run("certify", "sigmoid.onnx", "-d", "d.npz", "-e", "0.01", "-f", "json")
    assert "IDL202" not in {entry.code for entry in usual.report.diagnostics}


def test_a_run_from_init_to_gate(folder: Path) -> None:
    assert run("init", "sigmoid.onnx", "d.npz").code == 0
    text = (folder / "idl-audit.toml").read_text()
    assert "threshold = 0.5 " in text
    assert "predicts 4 of the first 4 labels" in text
    assert run("run", "-o", "r.json").code == 0
    assert run("gate", "r.json", "--require", "certified_accuracy@1/255 >= 90 %").code == 0
    assert run("report", "r.json", "-o", "r.html").code == 0
    assert "1 where the output is above 0.5, else 0" in (folder / "r.html").read_text()
    (folder / "idl-audit.toml").write_text(text.replace("threshold = 0.5", "threshold = 0.6"))
    assert run("run", "-o", "other.json").code in (0, 1)
    compared = run("gate", "other.json", "--require", "drop <= 1", "--baseline", "r.json")
    assert compared.code == 2
    assert "threshold" in compared.err


def test_init_of_a_regression_asks_for_bounds(folder: Path) -> None:
    np.savez("targets.npz", inputs=X, y=[3.5, 1, 0, 2])
    assert run("init", "logit.onnx", "targets.npz").code == 0
    assert 'steps = "sensitivity, bounds"' in (folder / "idl-audit.toml").read_text()
    assert run("run", "-o", "r.json").code == 0


def test_samples_are_decided_by_several_processes_alike(folder: Path) -> None:
    line = ("certify", "sigmoid.onnx", "-d", "d.npz", "-e", "0.1", "--threshold", "0.6", "--jobs", "2", "-f", "json")
    assert verdicts(run(*line)) == expected(0.1, THRESHOLDS["sigmoid", "0.6"])


def test_the_difference_of_classes_moves_as_the_output(folder: Path) -> None:
    for label in (0, 1):
        found = run("sensitivity", "logit.onnx", "--class", label, "-f", "json", "--save", "s.npz", "--force")
        (margin,) = found.report.sensitivity.margins
        assert (margin.label, margin.rival) == (label, 1 - label)
        assert margin.row_sum == pytest.approx(2)
        assert margin.sum_of_rows == pytest.approx(2)
        with np.load("s.npz") as saved:
            assert saved["rivals"].tolist() == [1 - label]


def test_a_converted_model_is_read_the_same_way(folder: Path) -> None:
    run("convert", "sigmoid.onnx", "-o", "c.npz")
    found = run("certify", "c.npz", "-d", "d.npz", "-e", "0.04,0.21", "-f", "json")
    assert found.report.model.threshold == 0.5
    for eps in (0.04, 0.21):
        assert verdicts(found, eps) == expected(eps)
    smaller = run("compress", "sigmoid.onnx", "--quantize", "8", "-d", "d.npz", "-o", "q.npz", "-f", "json")
    assert smaller.report.compression.changed_predictions == 0


@pytest.mark.parametrize(("operators", "shape"), [(("Sigmoid", "Flatten"), ("b", 1)), (("Squeeze",), ("b",))])
def test_the_shape_of_the_output_does_not_matter(folder: Path, operators: tuple[str, ...], shape: tuple) -> None:
    if operators == ("Squeeze",):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Squeeze", ["h", "axes"], ["y"])]
        path = network(
            folder / "m.onnx", nodes, {"w": [[1.0], [-1.0]]}, inputs=(("x", ("b", 2)),), outputs=(("y", shape),)
        )
        graph = onnx.load(path)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"))
        onnx.save(graph, path)
    else:
        one_output(folder / "m.onnx", *operators, shape=shape)
    assert verdicts(run("certify", "m.onnx", "-d", "d.npz", "-e", "0.1", "-f", "json")) == expected(0.1)


def test_one_sample_without_a_batch_axis_is_read(folder: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    network(folder / "m.onnx", nodes, {"w": [[1.0], [-1.0]]}, inputs=(("x", (2,)),), outputs=(("y", (1,)),))
    assert verdicts(run("certify", "m.onnx", "-d", "d.npz", "-e", "0.1", "-f", "json")) == expected(0.1)


# ---- from Python -----------------------------------------------------------------------------------------------------


def test_the_python_interface_has_the_same_verdicts(folder: Path) -> None:
    for model in ("sigmoid.onnx", idl_audit.load("sigmoid.onnx")):
        for threshold, middle in ((None, 0.0), (0.6, THRESHOLDS["sigmoid", "0.6"])):
            found = idl_audit.certify(model, X, Y, eps=0.1, threshold=threshold)
            assert [sample.verdict for sample in found.samples] == expected(0.1, middle)
    assert idl_audit.attack("logit.onnx", X, [1, -1, 1, -1], eps=0.25, threshold=0).falsified == 2
    report = idl_audit.audit("sigmoid.onnx", "d.npz", eps=0.1, threshold=0.6)
    assert report.model.threshold == 0.6
    assert_robust("sigmoid.onnx", X[:2], Y[:2], eps=0.39)
    assert_robust(idl_audit.load("logit.onnx"), X[:2], Y[:2], eps=0.3, threshold=0.1)
    with pytest.raises(AssertionError, match="2 of 4 samples are certified"):
        assert_robust("logit.onnx", X, Y, eps=0.25)
    with pytest.raises(DataError, match=r"sample 0 is 3\.5, and a network with one output"):
        idl_audit.certify("logit.onnx", X, [3.5, 1, 0, 0], eps=0.1)
    for value in (float("nan"), float("inf"), 1.0):
        with pytest.raises(OptionError, match="--threshold"):
            idl_audit.certify("sigmoid.onnx", X, Y, eps=0.1, threshold=value)


def test_a_torch_module_is_read_the_same_way() -> None:
    import torch

    linear = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
    module = torch.nn.Sequential(linear, torch.nn.Sigmoid())
    found = idl_audit.certify(module, X.astype(np.float32), Y, eps=0.1)
    assert [sample.verdict for sample in found.samples] == expected(0.1)
