"""Two reports are compared by what they are about; what an older one does not note is never taken for the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idl_audit.gate.comparison import check_comparable
from idl_audit.gate.difference import compare
from idl_audit.gate.fingerprints import differences, notes
from idl_audit.gate.judge import judge, parse_rules
from idl_audit.report.schema import ModelInfo, Prediction, PreprocessingInfo, Report, Sensitivity
from idl_audit.values.errors import DataError, OptionError
from tests.shared.gate_reports import audited

A, B = "a" * 64, "b" * 64
MODEL = ModelInfo(path="m.onnx", format="onnx", sha256=A, file_sha256=A, input_shape=(1,), n_outputs=2, n_parameters=1)


def part(name: str, **changes: object) -> Callable[[Report], Report]:
    """Return what changes fields of a section."""
    return lambda report: report.model_copy(update={name: getattr(report, name).model_copy(update=changes)})


def old(report: Report) -> Report:
    """Return the report as version 1.0 would have read it: without what that did not note."""
    return report.model_copy(update={"schema_version": "1.0"})


def full(**changes: Any) -> Report:
    report = audited("cccu", model=MODEL, **changes)
    return part("summary", verdicts_of="certify", methods=("interval",), time_limit=60.0)(report)


SIGMA = part("threat_model", sigma="s.csv", sigma_sha256=A)
TWO_OUTPUTS = part("model", output_name="y")
NUMBERS = part("data", numbers_sha256=A)


def both(*changes: Callable[[Report], Report]) -> Callable[[Report], Report]:
    def change(report: Report) -> Report:
        for one in changes:
            report = one(report)
        return report

    return change


def same(report: Report) -> Report:
    return report


REFUSED = {
    "other numbers": (NUMBERS, part("data", numbers_sha256=B), "other data"),
    "other numbers of a file that is called the same": (
        both(NUMBERS, part("data", sha256=A)),
        both(part("data", numbers_sha256=B), part("data", sha256=A)),
        "other data",
    ),
    "another file of an older report": (NUMBERS, both(part("data", sha256=B), old), "other data"),
    "another order of axes in an older report": (same, both(part("data", layout="nhwc"), old), "other data"),
    "another scale": (same, part("data", preprocessing=PreprocessingInfo(scale=0.5)), "scale 0.5, not 1.0"),
    "another mean": (same, part("data", preprocessing=PreprocessingInfo(mean=(0.1, 0.2))), "mean 0.1, 0.2, not 0.0"),
    "another std": (same, part("data", preprocessing=PreprocessingInfo(std=(2.0,))), "std 2.0, not 1.0"),
    "another scale of an older report": (
        same,
        both(part("data", preprocessing=PreprocessingInfo(scale=2.0)), old),
        "2.0",
    ),
    "another output": (TWO_OUTPUTS, part("model", output_name="z"), "another output (z, not y)"),
    "one of several outputs": (TWO_OUTPUTS, same, "another output (none, not y)"),
    "an output that an older report does not name": (TWO_OUTPUTS, old, "does not say which output"),
    "other radii under one name": (SIGMA, part("threat_model", sigma="s.csv", sigma_sha256=B), "the radii in the file"),
    "radii where there were none": (SIGMA, same, "sigma none, not s.csv"),
    "radii that an older report does not note": (
        SIGMA,
        both(part("threat_model", sigma="s.csv"), old),
        "it does not say which radii",
    ),
    "radii that the later report does not note": (
        both(part("threat_model", sigma="s.csv"), old),
        SIGMA,
        "the later report does not say which radii",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_question_is_refused_by_name(name: str) -> None:
    later, earlier, words = REFUSED[name]
    report, baseline = later(full()), earlier(full())
    with pytest.raises(DataError) as caught:
        check_comparable(report, baseline, "base.json", same_radii=True)
    assert words in str(caught.value)
    assert str(caught.value).startswith("base.json cannot be compared with: ")
    with pytest.raises(DataError):
        judge(report, parse_rules(["drop <= 0"], [], has_baseline=True), baseline=baseline)
    with pytest.raises(DataError):
        compare(baseline, report, Path("base.json"))


SAME = {
    "itself": (same, same),
    "an older report on the same file": (NUMBERS, old),
    "another file with the same numbers": (NUMBERS, both(NUMBERS, part("data", source="e.npz", sha256=B))),
    "another name of the same radii": (SIGMA, both(SIGMA, part("threat_model", sigma="t.csv"))),
    "a mean written for each channel": (
        part("data", preprocessing=PreprocessingInfo(mean=(0.5,), std=(1.0, 1.0))),
        part("data", preprocessing=PreprocessingInfo(mean=(0.5, 0.5, 0.5))),
    ),
    "an order of axes that moves nothing": (same, both(part("data", layout="nchw"), old)),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_question_is_not_refused(name: str) -> None:
    later, earlier = SAME[name]
    assert list(differences(later(full()), earlier(full()), same_radii=True)) == []


def test_all_that_differs_is_named_at_once() -> None:
    changes = both(SIGMA, part("data", preprocessing=PreprocessingInfo(scale=2.0)), TWO_OUTPUTS)
    with pytest.raises(DataError, match=r"scale.*another output.*sigma"):
        check_comparable(changes(full()), full(), "base.json", same_radii=True)


NOTED = {
    "another network": (part("model", sha256=B), same, "another network: m.onnx, sha256 aaaaaaaaaaaa; now m.onnx"),
    "weights that an older report does not note": (
        same,
        both(part("model", external_files=("w",)), old),
        "the earlier report does not say which weights",
    ),
    "another factory": (part("model", arch="a:b"), same, "another --arch: none; now a:b"),
    "another last operator": (
        part("model", stripped_output="Softmax"),
        same,
        "left out at the output: none; now Softmax",
    ),
    "other methods": (part("summary", methods=("sign",)), same, "other methods: interval; now sign"),
    "more time": (part("summary", time_limit=120.0), same, "another time limit: 60.0 s; now 120.0 s"),
    "attacks alone": (part("summary", verdicts_of="attack"), same, "verdicts of certify; now of attack"),
    "another version": (part("tool", version="9"), same, "another version of idl-audit: 0.1.0; now 9"),
    "another method of S": (part("sensitivity", method="best"), same, "another method of S: paper; now best"),
    "another S": (part("sensitivity", kind="local", eps=0.1), same, "the two matrices S are not compared"),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_else_differs_is_told(name: str) -> None:
    later, earlier, words = NOTED[name]
    report, baseline = later(full()), earlier(full())
    assert any(words in note for note in notes(report, baseline))
    assert any(words in note for note in compare(baseline, report, Path("old")).notes)
    judged = judge(report, parse_rules(["clean_accuracy >= 0"], [], has_baseline=True), baseline=baseline)
    assert any(words in note for note in judged.notes)
    assert list(notes(baseline, baseline)) == list(notes(report, report)) == [] or earlier is not same


def test_what_attack_left_unknown_is_no_baseline_for_what_certify_proves() -> None:
    attack = part("summary", verdicts_of="attack")(full())
    for rule in ("drop <= 0", "drop(certified_accuracy@2/255) <= 0"):
        with pytest.raises(OptionError, match="verdicts of certify, the baseline those of attack"):
            judge(full(), parse_rules([rule], [], has_baseline=True), baseline=attack)
    rules = parse_rules(["drop(clean_accuracy) <= 0"], [], has_baseline=True)
    assert judge(full(), rules, baseline=attack).passed


def test_norms_of_s_for_other_boxes_are_not_compared() -> None:
    def local(eps: float) -> Report:
        found = Sensitivity(kind="local", method="paper", eps=eps, norm_inf=1.0 / eps)
        return full().model_copy(update={"sensitivity": found})

    assert compare(local(0.1), local(0.2), Path("old")).norms is None
    assert compare(local(0.1), local(0.1), Path("old")).norms == (10.0, 10.0)


def test_s_in_other_units_is_not_compared() -> None:
    def alone(scale: float | None) -> Report:
        units = None if scale is None else PreprocessingInfo(scale=scale)
        found = Sensitivity(kind="global", method="paper", norm_inf=1.0, preprocessing=units)
        empty: dict[str, Any] = {"data": None, "threat_model": None, "summary": None, "samples": ()}
        return audited(sensitivity=found, **empty)

    assert compare(alone(1.0), alone(1.0), Path("old")).norms == (1.0, 1.0)
    with pytest.raises(DataError, match="scale"):
        compare(alone(1.0), alone(0.5), Path("old"))
    with pytest.raises(DataError, match="does not say what preprocessing"):
        compare(old(alone(None)), alone(0.5), Path("old"))


def test_labels_of_predictions_are_labels_too() -> None:
    def predicted(label: int) -> Report:
        entry = Prediction(index=0, label=label, predicted=1, output=(0.0, 1.0))
        return audited("c", samples=(), summary=None, predictions=(entry,))

    assert list(differences(predicted(1), predicted(1), same_radii=True)) == []
    (told,) = differences(predicted(1), predicted(0), same_radii=True)
    assert "other labels (sample 0)" in told


@pytest.mark.parametrize("status", ["complete", "incomplete"])
def test_a_report_that_is_incomplete_is_worse_whatever_was_before(status: str) -> None:
    cut = full(status="incomplete")
    assert compare(full(status=status), cut, Path("old")).regressions == ("the new report is incomplete",)
    assert compare(cut, full(), Path("old")).regressions == ()
