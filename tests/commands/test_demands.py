"""certify and attack with --within, --above, --below, --top, --task: reports, journals, gates, comparisons, proofs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from idl_audit.commands.shared import decider
from idl_audit.commands.shared.subject import open_subject
from idl_audit.gate.fingerprints import differences
from idl_audit.report.json_text import from_json
from idl_audit.report.reading import parse_report
from idl_audit.report.schema import Report, Verdict
from idl_audit.values.errors import DataError
from tests.shared.command_line import DATA, MODEL, Run, gemm, network, run, weights

QUICK = ("-e", 0.02, "--limit", 3, "-q", "-f", "json")


def certify(*more: object, command: str = "certify", model: Path = MODEL, data: Path = DATA) -> Run:
    return run(command, model, "-d", data, *QUICK, *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks with several labels, with a class for each pixel, and with a last softmax."""
    made = tmp_path_factory.mktemp("demands")
    w, rng = weights(), np.random.default_rng(3)
    sigmoid = helper.make_node("Sigmoid", ["z"], ["y"])
    network(made / "labels.onnx", [gemm(target="z"), sigmoid], w)
    network(made / "softmax.onnx", [gemm(target="z"), helper.make_node("Softmax", ["z"], ["y"], axis=-1)], w)
    inputs = rng.random((4, 4)).astype(np.float32)
    scores = inputs @ w["w"] + w["b"]
    np.savez(made / "labels.npz", inputs=inputs, labels=(scores > 0).astype(int))
    np.savez(made / "plain.npz", inputs=inputs)
    shape = helper.make_node("Reshape", ["z", "shape"], ["y"])
    square = {"w": rng.normal(size=(4, 8)), "b": np.zeros(8)}
    tensors = helper.make_node("Constant", [], ["shape"], value_ints=[1, 2, 2, 2])
    network(made / "pixels.onnx", [gemm(target="z"), tensors, shape], square, outputs=(("y", (1, 2, 2, 2)),))
    classes = (inputs @ square["w"]).reshape(4, 2, 2, 2).argmax(axis=1)
    classes[0, 0, 0] = 1 - classes[0, 0, 0]
    np.savez(made / "pixels.npz", inputs=inputs, labels=classes)
    return made


def counts(report: Report) -> tuple[int, ...]:
    (entry,) = report.summary.per_eps
    return tuple(getattr(entry, verdict.value) for verdict in Verdict)


def test_outputs_that_move_too_far_are_told_one_by_one_with_their_proved_intervals() -> None:
    report = certify("--within", 1).report
    assert report.demand is not None
    assert (report.demand.kind, report.demand.within) == ("limits", 1.0)
    assert report.summary.clean is None
    parts = report.summary.per_eps[0].parts
    assert parts is not None
    assert parts.n == 30
    assert 0 < parts.certified < 30
    rng = np.random.default_rng(0)
    with np.load(DATA) as data:
        inputs = data["inputs"]
    model = open_subject(MODEL).model
    for sample in report.samples:
        near = inputs[sample.index].ravel() + rng.uniform(-0.02, 0.02, (2000, 64))
        y = model(near)
        for one in sample.results[0].outputs:
            assert one.least <= y[:, one.output].min()
            assert one.greatest >= y[:, one.output].max()
        assert (sample.label, sample.predicted) == (None, None)
        broken = {one.output for one in sample.results[0].outputs if one.verdict is Verdict.FALSIFIED}
        if sample.results[0].adversarial is not None:
            assert set(sample.results[0].adversarial.broken) <= broken


def test_no_labels_are_needed_for_limits_and_they_are_for_classes(folder: Path) -> None:
    report = certify("--above", -50, "--below", 50, model=folder / "softmax.onnx", data=folder / "plain.npz").report
    assert counts(report)[0] == 3
    found = certify("--top", 2, model=folder / "softmax.onnx", data=folder / "plain.npz")
    assert found.code == 2
    assert "has no labels" in found.err


def test_values_after_a_last_softmax_are_those_of_the_softmax(folder: Path) -> None:
    report = certify("--within", 0.2, model=folder / "softmax.onnx", data=folder / "plain.npz").report
    assert report.model.stripped_output is None
    assert counts(report)[0] == 3
    for one in (one for sample in report.samples for one in sample.results[0].outputs):
        assert -0.01 <= one.least <= one.greatest <= 1.01


def test_each_of_several_labels_has_a_verdict(folder: Path) -> None:
    model, data = folder / "labels.onnx", folder / "labels.npz"
    report = certify("--task", "multilabel", model=model, data=data).report
    assert report.demand.threshold == 0.5
    assert report.summary.per_eps[0].parts.n == 9
    assert report.summary.clean.k == 3
    with np.load(data) as arrays:
        labels = arrays["labels"]
    for sample in report.samples:
        for one in sample.results[0].outputs:
            if one.verdict is Verdict.CERTIFIED:
                assert (one.least is not None and one.least >= 0.4999) == bool(labels[sample.index, one.output])
    other = certify("--task", "multilabel", "--threshold", 0.9, model=model, data=data).report
    assert any("threshold 0.5, not 0.9" in word for word in differences(other, report, same_radii=True))


def test_a_spatial_output_is_no_class_and_its_pixels_have_verdicts(folder: Path) -> None:
    model, data = folder / "pixels.onnx", folder / "pixels.npz"
    found = certify(model=model, data=data)
    assert found.code == 2
    assert "1 x 2 x 2 x 2: not one class a sample" in found.err
    assert "--task segmentation" in found.err
    certify("--task", "segmentation", "-o", folder / "p.json", model=model, data=data)
    report = from_json((folder / "p.json").read_text())
    parts = report.summary.per_eps[0].parts
    assert parts.n == 12
    assert parts.clean_wrong == 1
    assert parts.certified > 0
    assert counts(report) == (parts_all(report), *counts(report)[1:])
    share = parts.certified / parts.n
    for limit, code in ((share - 0.01, 0), (share + 0.01, 1)):
        assert run("gate", folder / "p.json", "--require", f"certified_share >= {limit}").code == code
    assert run("gate", folder / "p.json", "--require", "clean_accuracy >= 0.6").code == 0


def parts_all(report: Report) -> int:
    return sum(sample.results[0].parts.certified == sample.results[0].parts.n for sample in report.samples)


REFUSED = [
    (("--task", "regression"), "say what is to hold with --within"),
    (("--within", "1", "--task", "multilabel"), "--within is about numbers"),
    (("--top", "2", "--within", "1"), "--top is about one class"),
    (("--of-outputs", "1"), "give one of them"),
    (("--above", "2", "--below", "1"), "leave no value between them"),
    (("--top", "10"), "holds whatever the network does"),
    (("--within", "1", "--of-outputs", "10"), "0 to 9"),
    (("--within", "1", "--threshold", "2"), "--above or --below"),
    (("--task", "segmentation"), "1 x classes x places"),
    (("--task", "multilabel"), "give 10 for each"),
    (("--within", "0"), "above zero"),
    (("--within", "1", "--method", "mip"), "is about one class"),
]


@pytest.mark.parametrize(("more", "sentence"), REFUSED)
def test_what_makes_no_sense_is_refused_by_name(more: tuple[str, ...], sentence: str) -> None:
    found = certify(*more)
    assert found.code == 2
    assert sentence in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize("more", [("--sparse", "2"), ("--target", "1")])
def test_sets_and_aims_of_classes_are_refused_beside_limits(more: tuple[str, ...]) -> None:
    found = certify("--within", 1, *more, command="attack")
    assert found.code == 2
    assert "leave it out beside" in found.err


@pytest.mark.parametrize(
    "more", [("--within", "1"), ("--top", "2", "-e", "0.2"), ("--above", "0", "--of-outputs", "3,7")]
)
def test_attacks_break_what_is_demanded_and_certify_agrees(more: tuple[str, ...]) -> None:
    attacked, proved = (certify(*more, command=name).report for name in ("attack", "certify"))
    for one, other in zip(attacked.samples, proved.samples, strict=True):
        pair = {one.results[0].verdict, other.results[0].verdict}
        assert pair != {Verdict.FALSIFIED, Verdict.CERTIFIED}
    assert any(sample.results[0].verdict is not Verdict.CERTIFIED for sample in attacked.samples)


CERTIFIED = [
    ("limits", MODEL, DATA, ("--above", "-30", "--below", "30", "--of-outputs", "0,3"), "output 0 > -30.0"),
    ("top", MODEL, DATA, ("--top", "2"), "among the first 2"),
    ("labels", "labels.onnx", "labels.npz", ("--task", "multilabel"), "0.5"),
    ("pixels", "pixels.onnx", "pixels.npz", ("--task", "segmentation"), "pixels of one class each"),
    ("softmax", "softmax.onnx", "plain.npz", ("--within", "0.2"), "<="),
]


@pytest.mark.parametrize(("name", "model", "data", "more", "words"), CERTIFIED, ids=[case[0] for case in CERTIFIED])
@pytest.mark.parametrize("arithmetic", ["real", "float32"])
def test_what_is_certified_has_a_proof_that_says_what_it_proves(
    folder: Path, tmp_path: Path, name: str, model: Path, data: Path, more: tuple[str, ...], words: str, arithmetic: str
) -> None:
    model, data = folder / model, folder / data
    proofs = tmp_path / "proofs"
    report = certify(*more, "--certificates", proofs, "--arithmetic", arithmetic, model=model, data=data).report
    files = sorted(proofs.glob("*.npz"))
    assert len(files) == sum(
        result.verdict is Verdict.CERTIFIED if result.parts is None else result.parts.certified > 0
        for sample in report.samples
        for result in sample.results
    )
    assert files or arithmetic == "float32"
    for file in files:
        found = run("verify", file, model, "-f", "json")
        assert found.code == 0, found.out
        assert words in found.report.verification.claim
    if files:
        other = tmp_path / "other.npz"
        with np.load(files[0]) as archive:
            arrays = dict(archive)
        meta = json.loads(str(arrays["meta"]))
        meta["claim"]["eps"] = 100.0
        np.savez(other, **{**arrays, "meta": np.asarray(json.dumps(meta))})
        assert run("verify", other, model, "-q").code == 1


LIES = [
    ("limits", "limit.values", lambda a: a * 0),
    ("limits", "limit.values", lambda a: a * np.nan),
    ("limits", "limit.sides", lambda a: -a),
    ("limits", "limit.sides", lambda a: a * 0),
    ("limits", "limit.outputs", lambda a: a + 10),
    ("limits", "limit.strict", lambda a: a[:1]),
    ("limits", "group.0.parts", lambda a: a[:0]),
    ("limits", "group.0.parts", lambda a: a + 1),
    ("pixels", "pixel.labels", lambda a: 1 - a),
    ("pixels", "pixel.labels", lambda a: a + 2),
    ("pixels", "group.0.parts", lambda a: np.arange(5)),
    ("top", "centre", lambda a: a * 0),
]


def proved(folder: Path, tmp_path: Path, name: str) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """Write proofs of a case; return the last file, the model that it is about, and its arrays."""
    (_, model, data, more, _) = next(case for case in CERTIFIED if case[0] == name)
    certify(*more, "--certificates", tmp_path / "proofs", model=folder / model, data=folder / data)
    file = sorted((tmp_path / "proofs").glob("*.npz"))[-1]
    with np.load(file) as archive:
        return file, folder / model, dict(archive)


@pytest.mark.parametrize(("name", "array", "lie"), LIES)
def test_a_lie_in_an_array_of_a_proof_is_refused(folder: Path, tmp_path: Path, name: str, array: str, lie) -> None:
    file, model, arrays = proved(folder, tmp_path, name)
    np.savez(file, **{**arrays, array: lie(arrays[array])})
    assert run("verify", file, model, "-q").code in (1, 2)


META_LIES = [
    ("top", {"k": 1, "eps": 0.2}),
    ("top", {"k": 0}),
    ("top", {"k": 10}),
    ("top", {"label": 10}),
    ("top", {"below": [0, 0]}),
    ("top", {"below": list(range(10))}),
    ("top", {"kind": "limits"}),
    ("pixels", {"classes": 4}),
    ("pixels", {"classes": 1}),
    ("limits", {"label": 1}),
    ("limits", {"kind": "sample", "label": 0}),
]


@pytest.mark.parametrize(("name", "lie"), META_LIES)
def test_a_lie_in_what_a_proof_says_of_itself_is_refused(folder: Path, tmp_path: Path, name: str, lie) -> None:
    file, model, arrays = proved(folder, tmp_path, name)
    meta = json.loads(str(arrays["meta"]))
    meta["claim"] |= lie
    np.savez(file, **{**arrays, "meta": np.asarray(json.dumps(meta))})
    assert run("verify", file, model, "-q").code in (1, 2)


def test_a_journal_goes_on_with_parts_and_refuses_another_demand(tmp_path: Path, monkeypatch) -> None:
    real, calls = decider.decide_demand, iter(range(100))

    def interrupted(*arguments: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    output = tmp_path / "r.json"
    with monkeypatch.context() as patch:
        patch.setattr(decider, "decide_demand", interrupted)
        certify("--within", 1, "-o", output)
    assert from_json(output.read_text()).status == "incomplete"
    found = certify("--within", 2, "-o", output, "--resume")
    assert found.code == 2
    assert "set of options" in found.err
    certify("--within", 1, "-o", output, "--resume", "--force")
    resumed = from_json(output.read_text())
    assert "IDL207" in [entry.code for entry in resumed.diagnostics]
    anew = certify("--within", 1).report
    strip = {"seconds"}
    assert [[r.model_dump(exclude=strip) for r in s.results] for s in resumed.samples] == [
        [r.model_dump(exclude=strip) for r in s.results] for s in anew.samples
    ]


def test_two_radii_and_processes_give_the_same_parts() -> None:
    more = ("--within", 1, "-e", "0.005,0.015", "--limit", 2)
    several, one = (certify(*more, "--jobs", jobs).report for jobs in (2, 1))
    told = [[[r.parts for r in s.results] for s in report.samples] for report in (several, one)]
    assert told[0] == told[1]
    for sample in one.samples:
        broken = [{o.output for o in r.outputs if o.verdict is Verdict.FALSIFIED} for r in sample.results]
        assert broken[0] <= broken[1]


def test_a_report_whose_parts_contradict_it_is_refused() -> None:
    text = certify("--within", 1, "--limit", 1).out
    document = json.loads(text)
    parts = document["samples"][0]["results"][0]["parts"]
    parts["certified"], parts["falsified"] = parts["falsified"], parts["certified"]
    parse_report(text.encode(), Path("r.json"))
    with pytest.raises(DataError, match="other verdicts than its parts"):
        parse_report(json.dumps(document).encode(), Path("r.json"))


def test_pages_and_tables_show_parts(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    certify("--within", 1, "-o", output)
    page = run("report", output, "-f", "html", "-o", tmp_path / "r.html")
    assert page.code == 0, page.err
    text = (tmp_path / "r.html").read_text()
    for word in ("Outputs with limits", "outputs certified", "outputs within 1 of the sample", "asked of the outputs"):
        assert word in text
    table = run("report", output, "-f", "table").out
    assert "Outputs, worst samples first" in table
    assert "breaks" in table
    assert "breaks" in run("report", output, "-f", "junit").out
