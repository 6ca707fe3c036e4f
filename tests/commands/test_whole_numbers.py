"""Networks whose input is uint8 or another type of whole numbers: sets, points, verdicts, and what users are told."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from idl_audit import certify as certify_arrays
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.points import random_inputs, readable_box
from idl_audit.commands.shared.subject import check_agreement, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.errors import DataError, InvalidInputError
from tests.shared.command_line import Run, run

KINDS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint16": TensorProto.UINT16,
}
FLOAT = TensorProto.FLOAT
U8 = np.dtype(np.uint8)
node = helper.make_node


def saved(path: Path, nodes: list[Any], constants: dict[str, Any], kind: str = "uint8", p: int = 3) -> Path:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", KINDS[kind], ["n", p])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", None])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def perceptron(path: Path, kind: str = "uint8", *, seed: int = 0, p: int = 3) -> Path:
    """Cast, a scale, a hidden layer, three classes."""
    rng = np.random.default_rng(seed)
    constants = {
        "scale": np.float32(16),
        "w1": rng.normal(size=(p, 8)).astype(np.float32),
        "b1": rng.normal(size=8).astype(np.float32),
        "w2": rng.normal(size=(8, 3)).astype(np.float32),
    }
    nodes = [
        node("Cast", ["x"], ["f"], to=FLOAT),
        node("Div", ["f", "scale"], ["s"]),
        node("Gemm", ["s", "w1", "b1"], ["a"]),
        node("Relu", ["a"], ["h"]),
        node("MatMul", ["h", "w2"], ["y"]),
    ]
    return saved(path, nodes, constants, kind, p)


def between(path: Path) -> Path:
    """Class 1 nowhere but for x between 3 and 4: y = (3/4, relu(1 - |2 (x - 3.5)|)) is (3/4, 0) at whole numbers."""
    constants = {
        "two": np.float32([[2]]),
        "shift": np.float32([-7]),
        "less": np.float32([[-1, 0]]),
        "one": np.float32([1, 0]),
        "last": np.float32([[0, 1], [0, 0]]),
        "least": np.float32([0.75, 0]),
    }
    nodes = [
        node("Cast", ["x"], ["f"], to=FLOAT),
        node("Gemm", ["f", "two", "shift"], ["t"]),
        node("Abs", ["t"], ["d"]),
        node("Gemm", ["d", "less", "one"], ["e"]),
        node("Relu", ["e"], ["h"]),
        node("Gemm", ["h", "last", "least"], ["y"]),
    ]
    return saved(path, nodes, constants, p=1)


def asked(path: Path, inputs: Any, kind: str = "uint8") -> np.ndarray:
    """Return what onnxruntime says of whole numbers of the file's own type."""
    given = np.asarray(inputs)
    assert np.array_equal(given, given.astype(kind))
    return np.asarray(onnxruntime.InferenceSession(str(path)).run(None, {"x": given.astype(kind)})[0])


def data(path: Path, inputs: Any, labels: Any) -> Path:
    np.savez(path, inputs=inputs, labels=labels)
    return path


def whole_points(centre: np.ndarray, eps: float, kind: str) -> np.ndarray:
    """Return all whole numbers of a type within eps of a row."""
    info, reach = np.iinfo(kind), int(np.floor(eps))
    axes = [range(max(int(c) - reach, info.min), min(int(c) + reach, info.max) + 1) for c in centre]
    return np.array(list(itertools.product(*axes)))


# --- sets -------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(-300, 300), st.floats(0, 9)), min_size=1, max_size=5),
    st.sampled_from([np.uint8, np.int8, np.int32]),
)
def test_a_box_of_whole_numbers_holds_those_of_the_real_one_and_no_others(
    sides: list[tuple[float, float]], kind: type
) -> None:
    lo = np.array([low for low, _ in sides])
    box = Box.between(lo, lo + np.array([width for _, width in sides]))
    whole = box.of_whole(np.dtype(kind))
    info = np.iinfo(kind)
    for k, (low, high) in enumerate(zip(box.lo, box.hi, strict=True)):
        inside = [n for n in range(int(low) - 1, int(high) + 2) if low <= n <= high and info.min <= n <= info.max]
        ends = [float(bound[k]) for bound in whole.float32_bounds()]
        if inside:
            assert ends == [inside[0], inside[-1]] == [whole.lo[k], whole.hi[k]]
        else:
            assert ends[0] > ends[1]
            assert (whole.lo[k], whole.hi[k]) == (low, high)


def test_points_are_put_on_whole_numbers_and_fractions_lie_outside() -> None:
    box = Box.around(np.array([10.0, 254.0]), 2.5).of_whole(U8)
    assert (box.lo.tolist(), box.hi.tolist()) == ([8.0, 252.0], [12.0, 255.0])
    assert box.project(np.array([[8.6, 300.0], [-3.0, 252.4]])).tolist() == [[9.0, 255.0], [8.0, 252.0]]
    points = np.array([[9.0, 253.0], [9.5, 253.0], [9.0, 256.0], [np.nan, 253.0]])
    assert box.contains(points).tolist() == [True, False, False, False]


def test_a_sparse_set_has_whole_points_too() -> None:
    ball = SparseBall.around(np.array([3.0, 4.0, 5.0]), 1.9, 2)
    box = readable_box(ball.box, U8, Preprocessing(), (1, 3), centre=ball.centre)
    found = SparseBall(ball.centre, box, 2).project(np.array([[9.0, 9.0, 5.2]]))
    assert found.tolist() == [[4.0, 5.0, 5.0]]


def test_whole_numbers_that_float32_does_not_have_are_no_points(tmp_path: Path) -> None:
    """Points travel as float32 numbers, so that 2^24 + 1 would be another one."""
    path = perceptron(tmp_path / "m.onnx", "int32")
    with pytest.raises(DataError, match=r"reads int32: whole numbers from -16777216 to 16777216"):
        open_subject(path).original(np.array([[2**24 + 2, 0, 0]], np.float64))
    done = run("certify", path, "-d", data(tmp_path / "d.npz", [[2**24 + 1, 0, 0]], [0]), "-e", 1)
    assert done.code == 2
    assert "sample 0: an input is 1.67772e+07" in done.err


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_for_checks_are_whole_numbers_of_the_type(tmp_path: Path, kind: str) -> None:
    rows = random_inputs(3, kind=np.dtype(kind))
    assert np.array_equal(rows, rows.astype(kind))
    subject = open_subject(perceptron(tmp_path / "m.onnx", kind))
    assert subject.point_type == np.dtype(kind)
    assert check_agreement(subject, subject.random_inputs()).max_rel_error < 1e-5


def test_a_network_of_whole_numbers_is_shown_no_fraction(tmp_path: Path) -> None:
    original = open_subject(perceptron(tmp_path / "m.onnx")).original
    for odd in (0.5, -1.0, 256.0, np.nan):
        with pytest.raises(DataError, match="whole numbers from 0 to 255"):
            original(np.array([[1.0, 2.0, odd]]))


# --- verdicts ---------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(KINDS)), st.sampled_from([0.5, 1, 2, 2.75]))
def test_certified_holds_at_every_whole_number_and_falsified_at_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str, eps: float
) -> None:
    folder = tmp_path_factory.mktemp("law")
    path = perceptron(folder / "m.onnx", kind, seed=seed)
    low = np.iinfo(kind).min if kind != "int64" else -20
    rows = np.random.default_rng(seed).integers(max(low, -20), 40, (4, 3)).astype(kind)
    labels = asked(path, rows, kind).argmax(axis=1)
    for arithmetic in ("real", "float32"):
        found = certify_arrays(path, rows, labels, eps=eps, arithmetic=arithmetic, time_limit=0.3)
        for sample, row, label in zip(found.samples, rows, labels, strict=True):
            near = whole_points(row, eps, kind)
            right = asked(path, near, kind).argmax(axis=1) == label
            if sample.verdict == "certified":
                assert right.all()
            elif sample.verdict == "falsified":
                assert (near == sample.adversarial).all(axis=1).any()
                assert asked(path, sample.adversarial[None], kind).argmax() != label


def test_a_counterexample_between_whole_numbers_is_none(tmp_path: Path) -> None:
    """The proof covers real numbers and fails; the network itself, which is shown whole numbers alone, never errs."""
    path = between(tmp_path / "m.onnx")
    assert (asked(path, np.arange(256)[:, None]).argmax(axis=1) == 0).all()
    given = data(tmp_path / "d.npz", np.array([[3], [10]], np.uint8), [0, 0])
    for command, methods in (("certify", ()), ("attack", ("--method", "auto,pgd,random,sign"))):
        report = run(command, path, "-d", given, "-e", 1, *methods, "-f", "json", "--time-limit", 1).report
        verdicts = [sample.results[0].verdict for sample in report.samples]
        assert verdicts == (["unknown", "certified"] if command == "certify" else ["unknown", "unknown"])
    report = run("certify", path, "-d", given, "-e", 0.5, "-f", "json").report
    assert [sample.results[0].verdict for sample in report.samples] == ["certified", "certified"]


def test_exact_arithmetic_finds_no_property_sat_between_whole_numbers(tmp_path: Path) -> None:
    path = between(tmp_path / "m.onnx")
    lines = ["(declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)"]
    lines += ["(assert (>= X_0 2.5)) (assert (<= X_0 4.5)) (assert (<= Y_0 Y_1))"]
    (tmp_path / "p.vnnlib").write_text("\n".join(lines))
    assert run("certify", path, tmp_path / "p.vnnlib", "--time-limit", 1).out.split()[0] in ("unknown", "timeout")
    (tmp_path / "q.vnnlib").write_text("\n".join(lines).replace("4.5", "3.25").replace("2.5", "2.75"))
    done = run("certify", path, tmp_path / "q.vnnlib", "--time-limit", 3, "--certificates", tmp_path / "proofs")
    assert done.out.split()[0] == "unsat"  # 3 is the only whole number there
    (file,) = (tmp_path / "proofs").glob("*.npz")
    assert run("verify", file, path, tmp_path / "q.vnnlib").code == 0


@pytest.mark.parametrize("eps", ["2", "2.5", "2/255"])
def test_certificates_of_whole_numbers_are_accepted(tmp_path: Path, eps: str) -> None:
    path = perceptron(tmp_path / "m.onnx")
    rows = np.random.default_rng(1).integers(0, 256, (4, 3)).astype(np.uint8)
    given = data(tmp_path / "d.npz", rows, asked(path, rows).argmax(axis=1))
    for arithmetic in ("real", "float32"):
        folder = tmp_path / arithmetic
        options = ("-e", eps, "--certificates", folder, "--arithmetic", arithmetic, "-f", "json")
        report = run("certify", path, "-d", given, *options).report
        certified = [s for s in report.samples if s.results[0].verdict == "certified"]
        files = sorted(folder.glob("*.npz"))
        assert len(files) == len(certified) > 0
        assert run("verify", files[0], path).code == 0


def test_a_converted_network_of_bytes_is_asked_about_bytes(tmp_path: Path) -> None:
    path = between(tmp_path / "m.onnx")
    assert run("convert", path, "-o", tmp_path / "c.npz").code == 0
    given = data(tmp_path / "d.npz", np.array([[3]], np.uint8), [0])
    report = run("certify", tmp_path / "c.npz", "-d", given, "-e", 1, "--time-limit", 1, "-f", "json").report
    assert report.samples[0].results[0].verdict == "unknown"


FEATURES = """
[[feature]]
name = "age"
kind = "integer"
range = [0, 100]
[[feature]]
name = "room"
kind = "categorical"
categories = ["kitchen", "cellar"]
"""


def test_features_of_whole_numbers_are_decided_row_by_row(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "m.onnx", "int64", seed=3)
    (tmp_path / "features.toml").write_text(FEATURES)
    rows = np.array([[30, 1, 0], [61, 0, 1], [18, 0, 1]])
    labels = asked(path, rows, "int64").argmax(axis=1)
    given = data(tmp_path / "d.npz", rows, labels)
    report = run("certify", path, "-d", given, "-e", 4, "--features", tmp_path / "features.toml", "-f", "json").report
    for sample, row, label in zip(sorted(report.samples, key=lambda s: s.index), rows, labels, strict=True):
        ages = range(row[0] - 4, row[0] + 5)
        near = np.array([[age, *room] for age in ages for room in ((1, 0), (0, 1))])
        right = bool((asked(path, near, "int64").argmax(axis=1) == label).all())
        assert sample.results[0].verdict == ("certified" if right else "falsified")


def test_features_with_fractions_are_refused(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "m.onnx", "int64")
    (tmp_path / "f.toml").write_text(FEATURES.replace('"integer"', '"continuous"'))
    done = run(
        "certify", path, "-d", data(tmp_path / "d.npz", [[30, 1, 0]], [0]), "-e", 4, "--features", tmp_path / "f.toml"
    )
    assert done.code == 2
    assert "age may have fractions, and" in done.err
    assert 'write kind = "integer"' in done.err


# --- what users type, and are told ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of bytes, and samples with its own labels."""
    made = tmp_path_factory.mktemp("bytes")
    path = perceptron(made / "m.onnx")
    rows = np.random.default_rng(0).integers(0, 256, (6, 3)).astype(np.uint8)
    data(made / "d.npz", rows, asked(path, rows).argmax(axis=1))
    data(made / "scaled.npz", rows / np.float32(255), asked(path, rows).argmax(axis=1))
    return made


def typed(folder: Path, *words: object) -> Run:
    return run(*[folder / word if str(word).endswith((".onnx", ".npz")) else word for word in words])


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "m.onnx"),
        ("convert", "m.onnx", "-o", "out.npz"),
        ("sensitivity", "m.onnx"),
        ("sensitivity", "m.onnx", "-d", "d.npz", "-e", "2"),
        ("bounds", "m.onnx", "-d", "d.npz", "-e", "2.5"),
        ("predict", "m.onnx", "-d", "d.npz"),
        ("attack", "m.onnx", "-d", "d.npz", "-e", "8", "--objective", "l1"),
        ("attack", "m.onnx", "-d", "d.npz", "-e", "90", "--minimal", "--limit", "1", "--time-limit", "0.3"),
        ("attack", "m.onnx", "-d", "d.npz", "-e", "90", "--cardinality", "1", "--time-limit", "1"),
        ("certify", "m.onnx", "-d", "d.npz", "-e", "2", "--within", "9"),
        ("certify", "m.onnx", "--everywhere", "--above", "-9999", "--bounds", "0,255"),
        ("certify", "m.onnx", "-d", "d.npz", "-e", "1", "--monotone", "0+", "--class", "1", "--bounds", "0,255"),
        ("compare", "m.onnx", "m.onnx", "-d", "d.npz", "-e", "2"),
    ],
    ids=lambda words: " ".join(words[:1]),
)
def test_every_command_works_on_a_network_of_bytes_and_says_so(folder: Path, words: tuple[str, ...]) -> None:
    done = typed(folder, *words, "-f", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["model"]["input_type"] == "uint8"


def test_the_terminal_says_what_eps_and_verdicts_are_about(folder: Path) -> None:
    done = run("certify", folder / "m.onnx", "-d", folder / "d.npz", "-e", "2", COLUMNS="80")
    text = " ".join((done.out + done.err).split())
    assert "reads uint8 (whole numbers)" in text
    assert "the network reads uint8: eps counts in its whole numbers" in text
    assert max(map(len, done.out.splitlines())) <= 80
    assert typed(folder, "certify", "m.onnx", "-d", "d.npz", "-e", "2", "-f", "json").report.threat_model.clip == (
        0,
        255,
    )


@pytest.mark.parametrize(("eps", "hint"), [("2/255", "write -e 2 for 2/255 of"), ("0.5", "write -e 1 or more")])
def test_radii_below_one_leave_the_sample_alone_and_are_told(folder: Path, eps: str, hint: str) -> None:
    report = typed(folder, "certify", "m.onnx", "-d", "d.npz", "-e", eps, "-f", "json").report
    assert all(sample.results[0].verdict == "certified" for sample in report.samples)
    (told,) = [one for one in report.diagnostics if one.code == "IDL107"]
    assert hint in (told.hint or "")


def test_adversarial_inputs_are_saved_as_the_network_reads_them(folder: Path) -> None:
    assert typed(folder, "attack", "m.onnx", "-d", "d.npz", "-e", "90", "--save", "adv.npz").code == 0
    with np.load(folder / "adv.npz") as file:
        assert file["inputs"].dtype == np.uint8
        assert len(file["inputs"])
        found = asked(folder / "m.onnx", file["inputs"]).argmax(axis=1)
        assert np.array_equal(found, file["predictions"])
        assert (found != file["labels"]).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("certify", "m.onnx", "-d", "d.npz", "-e", "2", "--scale", "1/255"), "nothing is scaled before it"),
        (("sensitivity", "m.onnx", "--scale", "1/255"), "nothing is scaled before it"),
        (("certify", "m.onnx", "-d", "scaled.npz", "-e", "2"), "sample 0: an input is 0."),
        (("bounds", "m.onnx", "-d", "scaled.npz", "-e", "2"), "whole numbers from 0 to 255"),
        (("certify", "m.onnx", "-d", "d.npz", "-e", "2", "--bounds", "0,0.5"), "fewer than two of the numbers"),
        (("certify", "m.onnx", "-d", "d.npz", "-e", "2", "--norm", "l2"), "--norm l2 is for networks"),
        (("certify", "m.onnx", "-d", "d.npz", "-e", "1", "--perturb", "brightness=3"), "--perturb is for networks"),
        (("harden", "m.onnx", "-d", "d.npz", "-e", "2", "-o", "h.onnx"), "harden is for networks that read floats"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_of_whole_numbers_is_one_sentence(folder: Path, words: tuple[str, ...], said: str) -> None:
    done = typed(folder, *words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_numbers_of_words_stay_refused(tmp_path: Path) -> None:
    constants = {"table": np.ones((20, 4), np.float32), "w": np.ones((4, 2), np.float32)}
    nodes = [
        node("Gather", ["table", "x"], ["v"]),
        node("ReduceMean", ["v"], ["m"], axes=[1], keepdims=0),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, constants, "int64")
    done = run("certify", path, "-d", data(tmp_path / "d.npz", [[1, 2, 3]], [0]), "-e", 1)
    assert done.code == 2
    assert "looks entries up at places that depend on the network's input" in done.err
    assert "audit the network behind it" in done.err


def test_arithmetic_of_narrow_whole_numbers_is_refused(tmp_path: Path) -> None:
    """200 + 100 is 44 in uint8: what overflows there is no linear map."""
    nodes = [node("Add", ["x", "c"], ["s"]), node("Cast", ["s"], ["f"], to=FLOAT), node("MatMul", ["f", "w"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, {"c": np.uint8([100]), "w": np.ones((3, 2), np.float32)})
    with pytest.raises(InvalidInputError, match="may round or overflow there"):
        open_subject(path, ModelOptions())


def test_python_takes_arrays_of_bytes(folder: Path) -> None:
    with np.load(folder / "d.npz") as file:
        rows, labels = file["inputs"], file["labels"]
    found = certify_arrays(folder / "m.onnx", rows, labels, eps=1)
    assert {one.verdict for one in found.samples} <= {"certified", "falsified", "unknown"}
    with pytest.raises(InvalidInputError, match="whole numbers from 0 to 255"):
        certify_arrays(folder / "m.onnx", rows / 255, labels, eps=1)
    with pytest.raises(InvalidInputError, match="ask for eps alone"):
        certify_arrays(folder / "m.onnx", rows, labels, eps=1, norm="l2")


# --- where types end --------------------------------------------------------------------------------------------------


def counted_from(path: Path, kind: str, start: int) -> Path:
    """Class 1 where x - start, computed in whole numbers, is 1 or more."""
    constants = {
        "start": np.array([start], kind),
        "w": np.float32([[0, 1]]),
        "b": np.float32([0.5, 0]),
    }
    nodes = [
        node("Sub", ["x", "start"], ["s"]),
        node("Cast", ["s"], ["f"], to=FLOAT),
        node("Gemm", ["f", "w", "b"], ["y"]),
    ]
    return saved(path, nodes, constants, kind, p=1)


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_what_is_proved_holds_of_whole_numbers_that_are_no_points(tmp_path: Path, kind: str) -> None:
    """No points lie beyond 2^24, but inputs do: the network errs from 2^24 + 1 on."""
    path = counted_from(tmp_path / "m.onnx", kind, 2**24)
    assert asked(path, [[2**24 + 1]], kind).argmax() == 1
    given = data(tmp_path / "d.npz", np.array([[2**24 - 2]], kind), [0])
    for eps, verdict in ((5, "unknown"), (2, "certified")):
        report = run("certify", path, "-d", given, "-e", eps, "--time-limit", 1, "-f", "json").report
        assert report.samples[0].results[0].verdict == verdict
    lines = ["(declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)"]
    lines += [f"(assert (>= X_0 {2**24 - 6})) (assert (<= X_0 {2**24 + 4})) (assert (<= Y_0 Y_1))"]
    (tmp_path / "p.vnnlib").write_text("\n".join(lines))
    assert run("certify", path, tmp_path / "p.vnnlib", "--time-limit", 1).out.split()[0] in ("unknown", "timeout")
    done = run("certify", path, "--everywhere", "--never", "1", "--bounds", f"0,{2**25}", "--time-limit", 1)
    assert "certified" not in done.out.split("is never predicted")[1].split()[0]


def test_certificates_of_unsigned_numbers_end_at_0(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "m.onnx", "uint16")
    rows = np.array([[1, 0, 65535]], np.uint16)
    given = data(tmp_path / "d.npz", rows, asked(path, rows, "uint16").argmax(axis=1))
    assert run("certify", path, "-d", given, "-e", 3, "--certificates", tmp_path / "c").code == 0
    (file,) = (tmp_path / "c").glob("*.npz")
    assert run("verify", file, path).code == 0


@pytest.mark.parametrize("words", [("-e", "0.6"), ("-e", "1.5", "--sigma", "s.npy")])
def test_what_is_false_between_whole_numbers_has_no_certificate(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = between(tmp_path / "m.onnx")
    np.save(tmp_path / "s.npy", np.array([[0.5]]))
    words = tuple(str(tmp_path / word) if word.endswith(".npy") else word for word in words)
    given = data(tmp_path / "d.npz", np.array([[3]], np.uint8), [0])
    done = run("certify", path, "-d", given, *words, "--certificates", tmp_path / "c", "--time-limit", 1, "-f", "json")
    assert done.code == 0, done.err
    assert done.report.samples[0].results[0].verdict == "certified"
    assert not list((tmp_path / "c").glob("*.npz"))


def test_constants_that_float64_does_not_hold_are_refused(tmp_path: Path) -> None:
    path = counted_from(tmp_path / "m.onnx", "int64", 2**53 + 1)
    with pytest.raises(InvalidInputError, match=r"computes with int64 beyond 2\^53"):
        open_subject(path, ModelOptions())
