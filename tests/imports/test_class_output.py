"""Networks whose output is the class: ArgMax, or the place of the largest by TopK, and what may follow it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.subject import check_agreement, open_subject
from idl_audit.implicit.pair import paired_model
from idl_audit.values.errors import AgreementError, OptionError, UnsupportedModelError
from tests.shared.command_line import DATA, MODEL, run
from tests.shared.implicit_models import node

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LAYERS = [node("Gemm", "x v b", "h"), node("Relu", "h", "r"), node("Gemm", "r w", "s")]
MOVES = {
    "as it is": [node("Identity", "k", "y")],
    "cast to floats": [node("Cast", "k", "y", to=FLOAT)],
    "cast to bytes": [node("Cast", "k", "y", to=TensorProto.UINT8)],
    "reshaped": [node("Reshape", "k all", "y")],
    "squeezed and cast": [node("Squeeze", "k", "a"), node("Cast", "a", "y", to=TensorProto.INT32)],
    "flattened": [node("Flatten", "k", "a"), node("Identity", "a", "y")],
}
TYPES = {"cast to floats": FLOAT, "cast to bytes": TensorProto.UINT8, "squeezed and cast": TensorProto.INT32}


def written(folder, last, kind=INT64, *, tie=False, shape=("n", 4)):
    """Write a network of four inputs and five scores s, of which `last` makes y; with a tie, two scores are equal."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=(6, 5)).astype(np.float32)
    if tie:
        w[:, 3] = w[:, 1]
    constants = {"v": rng.normal(size=(4, 6)), "b": rng.normal(size=6) / 2, "w": w}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    tensors += [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in {"all": [-1], "one": [1]}.items()]
    graph = helper.make_graph(
        [*LAYERS, *last],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        initializer=tensors,
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def arg_max(keepdims=1, last=0, axis=1, to="y"):
    return node("ArgMax", "s", to, axis=axis, keepdims=keepdims, select_last_index=last)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
def test_the_scores_before_a_class_are_the_models_outputs(tmp_path, keepdims, last, axis):
    subject = open_subject(written(tmp_path, [arg_max(keepdims, last, axis)]))
    assert (subject.model.n_outputs, subject.info.stripped_output) == (5, "ArgMax")
    points = random_inputs(4, n=50)
    assert (subject.original(points.astype(np.float32)).argmax(1) == subject.model(points).argmax(1)).all()
    assert check_agreement(subject, points).argmax_agreement == 50


@pytest.mark.parametrize("moves", MOVES)
def test_what_follows_a_class_may_move_and_cast_it(tmp_path, moves):
    subject = open_subject(written(tmp_path, [arg_max(to="k"), *MOVES[moves]], TYPES.get(moves, INT64), shape=(1, 4)))
    assert subject.info.stripped_output == "ArgMax"
    assert check_agreement(subject, random_inputs(4)).argmax_agreement == 20


@pytest.mark.parametrize("axis", [1, -1])
def test_the_place_of_the_largest_of_all_is_a_class(tmp_path, axis):
    subject = open_subject(written(tmp_path, [node("TopK", "s one", "t y", axis=axis)]))
    assert (subject.model.n_outputs, subject.info.stripped_output) == (5, "TopK")
    assert check_agreement(subject, random_inputs(4)).argmax_agreement == 20


REFUSED = {
    "of the samples": ([arg_max(axis=0)], INT64, "ArgMax"),
    "of the least": ([node("TopK", "s one", "t y", largest=0)], INT64, "TopK"),
    "as a truth value": ([arg_max(to="k"), node("Cast", "k", "y", to=TensorProto.BOOL)], TensorProto.BOOL, "ArgMax"),
    "used as a number": (
        [arg_max(to="k"), node("Cast", "k", "f", to=FLOAT), node("Add", "f f", "y")], FLOAT, "ArgMax"
    ),
    "of two groups": ([node("Concat", "s s", "a", axis=0), node("ArgMax", "a", "y", axis=1)], INT64, "ArgMax"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_uses_of_places_are_refused_by_name(tmp_path, name):
    last, kind, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=words):
        open_subject(written(tmp_path, last, kind, shape=(1, 4)))


@pytest.mark.parametrize("last", [0, 1])
def test_a_tie_falls_as_the_file_says_and_certifies_nothing(tmp_path, last):
    path = written(tmp_path, [arg_max(last=last)], tie=True)
    points = random_inputs(4, n=300)
    subject = open_subject(path)
    scores = subject.model(points)
    tied = points[np.argmax(scores, axis=1) == 1][:4]
    assert len(tied) == 4
    assert (subject.original(tied.astype(np.float32)).argmax(1) == (3 if last else 1)).all()
    assert check_agreement(subject, tied).argmax_agreement == 4
    np.savez(tmp_path / "tied.npz", inputs=tied.astype(np.float32), labels=np.full(4, 3 if last else 1))
    told = run("certify", path, "-d", tmp_path / "tied.npz", "-e", "0.01", "-f", "json", "--max-nodes", "200").report
    assert told.summary.clean.k == 4
    assert {row[1] for row in verdicts(told)} == {"unknown"}


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """digits_mlp with its class as its output."""
    model = onnx.load(MODEL)
    del model.graph.output[:]
    scores = model.graph.node[-1].output[0]
    model.graph.node.append(helper.make_node("ArgMax", [scores], ["class"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("class", INT64, ("n",)))
    path = tmp_path_factory.mktemp("named") / "named.onnx"
    onnx.save(model, path)
    return path


SETTING = ("-d", DATA, "--bounds", "0,1", "--limit", "6", "-f", "json")


def verdicts(report):
    """Return (index, verdict, who is asked about an attack) for each sample and radius."""
    return [
        (sample.index, one.verdict, sample.predicted, one.adversarial and one.adversarial.confirmed_by)
        for sample in report.samples
        for one in sample.results
    ]


@pytest.mark.parametrize("command", ["certify", "attack"])
def test_verdicts_are_those_of_the_network_with_scores(named, command):
    own, other = (run(command, model, *SETTING, "-e", "0.05,0.15").report for model in (named, MODEL))
    assert verdicts(own) == verdicts(other)
    assert {"falsified"} <= {row[1] for row in verdicts(own)}
    assert own.model.stripped_output == "ArgMax"
    assert all(one.margin_found is None for sample in own.samples for one in sample.results)


def test_a_certificate_is_checked_and_an_attack_is_replayed_by_the_file(named, tmp_path):
    told = run("certify", named, *SETTING, "-e", "0.05", "--certificates", tmp_path / "proofs")
    (file, *_) = sorted((tmp_path / "proofs").glob("*.npz"))
    assert told.code == 0
    checked = run("verify", file, named)
    assert checked.code == 0
    assert "ArgMax" in checked.out


def test_floats_are_proved_for_a_class_as_for_its_scores(named):
    own, other = (run("certify", m, *SETTING, "-e", "0.02", "--arithmetic", "float32").report for m in (named, MODEL))
    assert verdicts(own) == verdicts(other)
    assert {"certified"} <= {row[1] for row in verdicts(own)}


def test_other_commands_read_it(named, tmp_path):
    assert run("inspect", named).code == 0
    assert run("bounds", named, *SETTING, "-e", "0.01").code == 0
    assert run("sensitivity", named, "-f", "json").report.sensitivity is not None
    assert run("convert", named, "-o", tmp_path / "named.npz").code == 0
    assert run("certify", tmp_path / "named.npz", *SETTING, "-e", "0.05").code == 0


ASSERTED = " (assert (>= X_0 0)) (assert (<= X_0 1)) (assert (>= Y_0 1))"


def test_numbers_are_not_asked_of_a_class(named, tmp_path):
    (tmp_path / "p.vnnlib").write_text("(declare-const X_0 Real) (declare-const Y_0 Real)" + ASSERTED)
    for args in (
        ("certify", named, tmp_path / "p.vnnlib"),
        ("attack", named, *SETTING, "-e", "1", "--objective", "l1"),
    ):
        told = run(*args)
        assert told.code == 2
        assert "ArgMax" in told.err


def test_another_class_than_the_scores_say_is_no_agreement(tmp_path):
    subject = open_subject(written(tmp_path, [arg_max()]))
    other = open_subject(written(tmp_path, [node("Neg", "s", "t"), node("ArgMax", "t", "y", axis=1)]))
    with pytest.raises(AgreementError):
        check_agreement(replace(subject, original=other.original), random_inputs(4))


def test_networks_that_give_classes_are_not_compared_since_each_breaks_ties_in_its_own_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, last in (("first", 0), ("last", 1)):
        written(tmp_path, [arg_max(last=last)], tie=True).rename(tmp_path / f"{name}.onnx")
    np.savez("data.npz", inputs=np.zeros((1, 4), np.float32))
    for names in (("first.onnx", "last.onnx"), ("first.onnx", "first.onnx")):
        found = run("compare", *names, "-d", "data.npz", "-e", "0.1", "--certificates", "proofs")
        assert (found.code, found.out) == (2, "")
        assert "ends in ArgMax and gives no scores" in found.err
    one, other = (open_subject(tmp_path / f"{name}.onnx").model for name in ("first", "last"))
    with pytest.raises(OptionError, match="no scores"):  # what verify makes anew
        paired_model(one, other, "apart")
