"""IDL202: told wherever a proved margin is not above what floating-point arithmetic may change, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.commands.bounds import audit_bounds
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.certify_property import audit_property
from idl_audit.commands.options.measures import BoundsOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import PropertyOptions, RobustnessOptions
from idl_audit.commands.shared.float_margins import errors, errors_of, float_margins
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide import ladder, many
from idl_audit.decide.ladder import Options
from idl_audit.implicit.storage import save_model
from idl_audit.proof import float_margins as module
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.float_margins import BoxErrors, FloatMargins
from idl_audit.report.schema import Diagnostic, Report, Verdict
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.margins import margin_functionals
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import ArithmeticName, Reason

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
Nodes = Sequence[tuple[str, str, str, Mapping[str, Any]]]


def saved(path: Path, nodes: Nodes, constants: Mapping[str, Any], *, last: str = "y", n: int = 1) -> Path:
    graph = helper.make_graph(
        [helper.make_node(op, inputs.split(), [output], **attributes) for op, inputs, output, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", n])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["b", None])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def bump(folder: Path) -> tuple[Path, Path]:
    """relu(K g + 1) - K g against 1/2, where g = 0 but for 5 < x < 5.01; the sample is 4.9."""
    nodes: Nodes = [
        ("Gemm", "x w1 b1", "t", {}),
        ("Relu", "t", "g", {}),
        ("MatMul", "g w2", "kg", {}),
        ("Add", "kg one", "k", {}),
        ("Relu", "k", "a", {}),
        ("Sub", "a kg", "y0", {}),
        ("Mul", "y0 zero", "z", {}),
        ("Add", "z half", "y1", {}),
        ("Concat", "y0 y1", "y", {"axis": 1}),
    ]
    constants = {
        "w1": np.ones((1, 3)),
        "b1": -np.float32([5.0, 5.005, 5.01]),
        "w2": 2.0**34 * np.array([[1.0], [-2.0], [1.0]]),
        "one": [1.0],
        "zero": [0.0],
        "half": [0.5],
    }
    np.savez(folder / "bump.npz", inputs=np.float32([[4.9]]), labels=[0])
    return saved(folder / "bump.onnx", nodes, constants), folder / "bump.npz"


def certified(model: Path, data: Path, eps: str, **options: Any) -> Report:
    reading = DataOptions(
        data, preprocessing=options.pop("preprocessing", Preprocessing()), limit=options.pop("limit", None)
    )
    journal = options.pop("journal", {})
    chosen = RobustnessOptions(eps=parse_eps(eps), data=reading, verdicts=Options(**options), **journal)
    return audit_robustness("certify", model, chosen)


def told(report: Report) -> list[Diagnostic]:
    return [entry for entry in report.diagnostics if entry.code == "IDL202"]


@pytest.mark.parametrize("methods", [("interval", "linear"), ("linear",), ("branch",), ("exact",), ("lp",), ("split",)])
def test_cancellation_that_is_met_only_within_the_box_is_told(tmp_path: Path, methods: tuple[str, ...]) -> None:
    model, data = bump(tmp_path)
    points = np.linspace(4.7001, 5.0999, 20001).astype(np.float32)[:, None]
    y = onnxruntime.InferenceSession(str(model)).run(None, {"x": points})[0]
    assert (y[:, 0] <= y[:, 1]).sum() > 100  # float32 misclassifies points of the set
    report = certified(model, data, "0.2", methods=methods)
    assert report.samples[0].results[0].verdict is Verdict.CERTIFIED
    (entry,) = told(report)
    assert entry.where == "samples 0"
    assert entry.level == "warning"
    assert not told(certified(model, data, "0.05", methods=methods))


@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet"])
def test_ordinary_margins_of_the_sample_models_are_above_it(name: str) -> None:
    report = certified(SAMPLES / f"{name}.onnx", SAMPLES / f"{name}.npz", "0.02", limit=12, methods=("linear",))
    assert sum(sample.results[0].verdict is Verdict.CERTIFIED for sample in report.samples) >= 10
    assert not told(report)


def test_a_network_without_a_bound_is_told_once_with_the_operator(tmp_path: Path) -> None:
    nodes: Nodes = [
        ("ReduceProd", "x", "h", {"axes": [1]}),
        ("Gemm", "h v c", "y", {}),
    ]
    model = saved(tmp_path / "product.onnx", nodes, {"v": [[1.0, 0.5]], "c": [3.0, 0.0]}, n=2)
    np.savez(tmp_path / "d.npz", inputs=np.float32([[0.1, 0.2], [0.3, 0.1]]), labels=[0, 0])
    (entry,) = told(certified(model, tmp_path / "d.npz", "0.01", methods=("linear",)))
    assert entry.message.endswith(
        " ReduceProd node 'h', whose factors, in another order, may leave the range in between"
    )
    assert "2 certified verdicts" in entry.message


def test_a_converted_model_is_judged_by_its_own_rows(tmp_path: Path) -> None:
    subject = open_subject(SAMPLES / "digits_mlp.onnx")
    save_model(tmp_path / "model.npz", subject.model, origin=subject.info.model_dump(mode="json"))
    assert not told(certified(tmp_path / "model.npz", SAMPLES / "digits_mlp.npz", "0.02", limit=4, methods=("linear",)))


def test_a_loop_has_no_known_bound() -> None:
    found = certified(SAMPLES / "digits_mondeq.npz", SAMPLES / "digits_mlp.npz", "0.001", limit=2, methods=("linear",))
    assert any(sample.results[0].verdict is Verdict.CERTIFIED for sample in found.samples)
    (entry,) = told(found)
    assert "loop" in entry.message


def margin_at(path: Path, lo: float, hi: float, preprocessing: Preprocessing | None = None) -> float:
    box = Interval(np.array([[lo]]), np.array([[hi]]))
    margins = margins_of(path, preprocessing)
    return float(errors(margins, box, margin_functionals(2, 0), np.zeros(1), ranked=True).max())


def margins_of(path: Path, preprocessing: Preprocessing | None = None) -> FloatMargins:
    margins = float_margins(open_subject(path), preprocessing or Preprocessing())
    assert isinstance(margins, FloatMargins)
    return margins


def linear_pair(folder: Path, *last: tuple[str, str, str, Mapping[str, Any]]) -> Path:
    nodes: Nodes = [("Gemm", "x w b", "h" if last else "y", {}), *last]
    return saved(
        folder / f"pair{len(last)}{last[0][0] if last else ''}.onnx", nodes, {"w": [[1.0, 0.5]], "b": [0.1, 0.0]}
    )


def test_preprocessing_is_one_more_operator(tmp_path: Path) -> None:
    """(u / 255 - 1000) / 1 in float32 is off by 3e-5, whatever the network does."""
    model = linear_pair(tmp_path)
    plain = margin_at(model, 0.0, 1.0)
    shifted = margin_at(model, 0.0, 255.0, Preprocessing(scale=1 / 255, mean=(1000.0,)))
    points = np.linspace(0, 255, 1000).astype(np.float32)
    off = np.abs((points * np.float32(1 / 255) - np.float32(1000)).astype(float) - (points.astype(float) / 255 - 1000))
    assert plain < 1e-5 < off.max() / 2 < shifted


@pytest.mark.parametrize(("operator", "extra"), [("Softmax", 1e-6), ("LogSoftmax", 1e-6)])
def test_probabilities_tie_where_logits_do_not(tmp_path: Path, operator: str, extra: float) -> None:
    plain, behind = linear_pair(tmp_path), linear_pair(tmp_path, (operator, "h", "y", {"axis": 1}))
    more = margin_at(behind, 0.0, 1.0) - margin_at(plain, 0.0, 1.0)
    assert extra < more < 1e-4
    ties = [2.0**-k for k in range(10, 30)]
    logits = np.float32([[1.0, 1.0 - t] for t in ties])
    session = onnxruntime.InferenceSession(str(linear_pair(tmp_path, (operator, "h", "y", {"axis": 1}))))
    assert session.get_outputs()[0].name == "y"
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    tied = [t for t, (a, b) in zip(ties, shifted / shifted.sum(axis=1, keepdims=True), strict=True) if not a > b]
    assert max(tied) < more


def test_finer_bounds_are_made_only_where_coarse_ones_do_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    over = FloatMargins.over

    def counted(
        self: FloatMargins, inputs: Interval, states: StateBounds, *, sharp: bool = False, **given: Any
    ) -> BoxErrors:
        asked.append(sharp)
        return over(self, inputs, states, sharp=sharp, **given)

    monkeypatch.setattr(FloatMargins, "over", counted)
    margins = margins_of(SAMPLES / "digits_resnet.onnx")
    x = np.load(SAMPLES / "digits_resnet.npz")["inputs"][0].reshape(1, -1).astype(float)
    box, rows = Interval(x - 0.02, x + 0.02), margin_functionals(10, 0)
    coarse = errors(margins, box, rows, np.full(9, 1e3))
    assert asked == [False]
    asked.clear()
    fine = errors(margins, box, rows, np.zeros(9))
    assert asked == [False, False, True]
    assert (fine < coarse / 4).all()
    monkeypatch.setattr(module, "MOST_WORK", 0)
    margins = margins_of(SAMPLES / "digits_resnet.onnx")
    asked.clear()
    assert (errors(margins, box, rows, np.zeros(9)) > fine).all()
    assert asked == [False, False]


def test_finer_bounds_end_with_the_time() -> None:
    """What is known by then stays; the coarse bounds of one pass are always made."""
    margins = margins_of(SAMPLES / "digits_resnet.onnx")
    x = np.load(SAMPLES / "digits_resnet.npz")["inputs"][0].reshape(1, -1).astype(float)
    box, rows = Interval(x - 0.02, x + 0.02), margin_functionals(10, 0)
    coarse = errors(margins, box, rows, np.full(9, 1e3))
    over = Budget.of(0).check
    assert (errors(margins, box, rows, np.zeros(9), check=over) == coarse).all()
    calls = iter(range(10**6))

    def soon() -> None:
        if next(calls) >= last:
            over()

    last = 10**6
    fine = errors(margins, box, rows, np.zeros(9), check=soon)
    last = next(calls) - 1
    calls = iter(range(10**6))
    cut = errors(margins, box, rows, np.zeros(9), check=soon)
    assert (cut <= coarse).all()
    assert (cut > fine).all()


def test_what_an_interrupted_run_knew_is_told_again(tmp_path: Path) -> None:
    """The journal keeps what float32 may change, so that a resumed report says what an uninterrupted one says."""
    model, data = bump(tmp_path)
    with np.load(data) as archive:
        np.savez(data, inputs=np.repeat(archive["inputs"], 2, axis=0), labels=[0, 0])
    whole = certified(model, data, "0.2", methods=("linear",))
    beside = {"journal": tmp_path / "r.json.journal"}
    certified(model, data, "0.2", methods=("linear",), journal=beside)
    lines = beside["journal"].read_text().splitlines()
    assert len(lines) == 3
    beside["journal"].write_text("\n".join(lines[:2]) + "\n")
    again = certified(model, data, "0.2", methods=("linear",), journal={**beside, "resume": True})
    assert told(again) == told(whole)
    assert any(entry.code == "IDL207" for entry in again.diagnostics)


# --- properties -------------------------------------------------------------------------------------------------------


def asked(folder: Path, *conditions: str, lo: float = 4.7, hi: float = 5.1) -> Path:
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
    path = folder / f"p{len(list(folder.iterdir()))}.vnnlib"
    path.write_text(f"{text}(assert (>= X_0 {lo}))(assert (<= X_0 {hi}))" + "".join(conditions))
    return path


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(ladder, "RUNGS", {k: v for k, v in ladder.RUNGS.items() if k in names})


@pytest.mark.parametrize("rung", ["linear", "branch", "split"])
def test_unsat_within_rounding_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rung: str) -> None:
    only(monkeypatch, rung)  # no search: points of the box where float32 says sat are many
    model, _ = bump(tmp_path)
    far, near = asked(tmp_path, "(assert (<= Y_0 Y_1))", hi=4.9), asked(tmp_path, "(assert (<= Y_0 Y_1))")
    for path, silent in ((far, True), (near, False)):
        report = audit_property(model, path, PropertyOptions())
        assert report.properties[0].result == "unsat"
        assert (not told(report)) is silent


def test_boxes_that_are_refuted_together_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "linear")
    monkeypatch.setattr(many, "MANY", 4)
    monkeypatch.setattr(many, "decide_query", lambda *_, **__: pytest.fail("a box was decided alone"))
    model, _ = bump(tmp_path)
    edges = np.linspace(4.7, 5.1, 21)
    for count, silent in ((14, True), (20, False)):
        boxes = "".join(f"(and (>= X_0 {a}) (<= X_0 {b}))" for a, b in pairwise(edges[: count + 1]))
        text = "(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
        path = tmp_path / f"many{count}.vnnlib"
        path.write_text(f"{text}(assert (or {boxes}))(assert (<= Y_0 Y_1))")
        report = audit_property(model, path, PropertyOptions())
        assert report.properties[0].result == "unsat"
        assert (not told(report)) is silent


# --- float32 ----------------------------------------------------------------------------------------------------------


def test_in_float32_the_example_is_falsified_or_unknown(tmp_path: Path) -> None:
    model, data = bump(tmp_path)
    for methods, verdict in ((None, Verdict.FALSIFIED), (("linear",), Verdict.UNKNOWN)):
        report = certified(model, data, "0.2", methods=methods, arithmetic="float32")
        assert report.samples[0].results[0].verdict is verdict
        assert report.threat_model is not None
        assert report.threat_model.arithmetic == "float32"
        assert not told(report)
    assert report.samples[0].results[0].reason is Reason.WITHIN_ROUNDING
    report = certified(model, data, "0.05", methods=("linear",), arithmetic="float32")
    assert report.samples[0].results[0].verdict is Verdict.CERTIFIED
    assert not report.diagnostics


def test_in_float32_a_property_is_decided_by_what_runtimes_compute(tmp_path: Path) -> None:
    model, _ = bump(tmp_path)
    far, near = asked(tmp_path, "(assert (<= Y_0 Y_1))", hi=4.9), asked(tmp_path, "(assert (<= Y_0 Y_1))")
    for path, result in ((far, "unsat"), (near, "sat")):
        report = audit_property(model, path, PropertyOptions(arithmetic="float32", time_limit=10))
        (found,) = report.properties
        assert (found.result, found.arithmetic) == (result, "float32")
        assert not report.diagnostics


def test_in_float32_a_network_without_a_bound_is_told_once(tmp_path: Path) -> None:
    models, data = [SAMPLES / "digits_mondeq.npz"], SAMPLES / "digits_mlp.npz"
    report = certified(models[0], data, "0.001", limit=3, arithmetic="float32")
    results = [sample.results[0] for sample in report.samples]
    assert {result.reason for result in results} == {Reason.NO_ROUNDING_BOUND}
    (entry,) = (one for one in report.diagnostics if one.code == "IDL217")
    assert "3 verdicts" in entry.message
    assert "loop" in entry.message
    assert sum(result.seconds or 0.0 for result in results) < 1


def test_a_margin_below_one_unit_is_told(tmp_path: Path) -> None:
    model = linear_pair(tmp_path)  # y0 = x + 0.1
    for bound, silent in (("1.0999999", False), ("1.09", True)):
        path = asked(tmp_path, f"(assert (<= Y_0 {bound}))", lo=1, hi=2)
        report = audit_property(model, path, PropertyOptions())
        assert report.properties[0].result == "unsat"
        assert (not told(report)) is silent


def test_what_splitting_proves_has_a_margin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "split")
    model = linear_pair(tmp_path)
    for bound, silent in (("1.0999999", False), ("0", True)):
        report = audit_property(model, asked(tmp_path, f"(assert (<= Y_0 {bound}))", lo=1, hi=2), PropertyOptions())
        assert report.properties[0].result == "unsat"
        assert (not told(report)) is silent


def test_sums_of_rows_count_all_of_them(tmp_path: Path) -> None:
    margins = margins_of(linear_pair(tmp_path))
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    box = Box.between(np.zeros(1), np.ones(1))
    singles = [Conjunction(row[None], np.zeros(1)) for row in rows]
    both = Conjunction(rows, np.zeros(2))
    found = [errors_of(margins, Query(box, tuple(own)), [0.0] * len(own), None) for own in (singles, [both])]
    assert found[1][0] == pytest.approx(found[0].sum())
    assert errors_of(margins, Query(box, ()), [], None).size == 0


# --- bounds -----------------------------------------------------------------------------------------------------------


def bounded(model: Path, data: Path, eps: str, arithmetic: ArithmeticName) -> Report:
    reading = DataOptions(data, limit=1)
    return audit_bounds(model, BoundsOptions(eps=parse_eps(eps), data=reading, arithmetic=arithmetic))


def test_bounds_hold_for_what_is_computed(tmp_path: Path) -> None:
    """y0 is 1 exactly, and anything from 0 in float32 where K g exceeds 2^24."""
    model, data = bump(tmp_path)
    points = np.linspace(4.7001, 5.0999, 20001).astype(np.float32)[:, None]
    y = onnxruntime.InferenceSession(str(model)).run(None, {"x": points})[0]
    both: tuple[ArithmeticName, ...] = ("real", "float32")
    for arithmetic in both:
        report = bounded(model, data, "0.2", arithmetic)
        assert report.threat_model is not None
        assert report.threat_model.arithmetic == arithmetic
        (found,) = next(entry for entry in report.bounds if entry.part == "outputs").samples
        assert found.lower[1] is not None
        assert found.upper[1] is not None
        inside = (y[:, 1] >= found.lower[1]) & (y[:, 1] <= found.upper[1])
        assert inside.all()
        if arithmetic == "float32":
            assert found.lower[0] is not None
            assert (y[:, 0] >= found.lower[0]).all()
            assert "IDL405" in {entry.code for entry in report.diagnostics}
    with pytest.raises(UnsupportedModelError, match="leave --arithmetic float32 out"):
        bounded(SAMPLES / "digits_mondeq.npz", SAMPLES / "digits_mlp.npz", "0.01", "float32")
