"""The gate over whole reports, baselines, and what changed between two reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from idl_audit.gate.difference import compare
from idl_audit.gate.judge import judge, parse_rules
from idl_audit.report.reading import read_report
from idl_audit.report.schema import Gate, PropertyReport, Verdict
from idl_audit.values.errors import DataError, IdlAuditError, OptionError
from tests.shared.gate_reports import audited, written


def judged(report, *require, baseline=None, warn=()):
    return judge(report, parse_rules(require, warn, has_baseline=baseline is not None), baseline=baseline)


def outcome(report, rule, **more):
    return judged(report, rule, **more).rules[-1]


@pytest.mark.parametrize(
    ("rule", "k", "n"),
    [
        ("clean_accuracy >= 0.9", 9, 10),
        ("certified_accuracy@2/255 >= 0.7", 7, 10),
        ("certified_accuracy >= 0.7", 7, 10),
        ("attack_success@2/255 <= 1/9", 1, 9),
        ("unknown@2/255 <= 0.1", 1, 10),
    ],
)
def test_each_share_is_k_of_n_and_holds_exactly_at_its_limit(rule, k, n):
    found = outcome(audited(), rule)
    assert (found.passed, found.k, found.n) == (True, k, n)
    assert found.interval is not None
    strict = rule.replace(">=", ">").replace("<=", "<")
    assert not outcome(audited(), strict).passed


def test_what_the_time_limit_ended_is_counted_apart():
    report = audited("cccctuuutt")
    found = outcome(report, "timed_out@2/255 <= 0.3")
    assert (found.passed, found.k, found.n) == (True, 3, 10)
    assert not outcome(report, "timed_out@2/255 <= 0").passed
    assert outcome(audited(), "timed_out <= 0").passed


def labelled():
    """Return a report of ten samples of two classes: 1 (certified, falsified, wrong) and 4 (the others)."""
    report = audited("cfwcccuutc")
    samples = tuple(
        one.model_copy(
            update={"label": 1 if one.index < 3 else 4, "predicted": 4 if one.index == 2 or one.index > 2 else 1}
        )
        for one in report.samples
    )
    return report.model_copy(update={"samples": samples})


@pytest.mark.parametrize(
    ("rule", "k", "n"),
    [
        ("clean_accuracy[class=1] >= 0.1", 2, 3),
        ("certified_accuracy@2/255[class=1] >= 0.1", 1, 3),
        ("certified_accuracy@2/255 [ class = 4 ] >= 0.1", 4, 7),
        ("certified_accuracy[class=4] >= 0.1", 4, 7),
        ("attack_success@2/255[class=1] <= 0.9", 1, 2),
        ("unknown@2/255[class=4] <= 0.9", 3, 7),
        ("timed_out@2/255[class=4] <= 0.9", 1, 7),
    ],
)
def test_rules_of_a_class_count_its_samples_alone(rule, k, n):
    found = outcome(labelled(), rule)
    assert (found.passed, found.k, found.n) == (True, k, n)
    strict = rule.replace(">= 0.1", "> 100 %").replace("<= 0.9", "< 0")
    assert not outcome(labelled(), strict).passed


def test_a_class_without_samples_passes_no_rule():
    assert not outcome(labelled(), "certified_accuracy@2/255[class=7] >= 0").passed
    assert not outcome(labelled(), "unknown@2/255[class=7] <= 1").passed


@pytest.mark.parametrize(
    "rule", ["norm_inf_S[class=1] <= 1", "drop(certified_accuracy[class=1]) <= 0", "agreement[class=1] >= 1"]
)
def test_what_is_not_counted_by_classes_has_none(rule):
    with pytest.raises(OptionError):
        outcome(labelled(), rule)


def test_an_older_report_does_not_say_what_the_time_limit_ended():
    report = audited()
    assert report.summary is not None
    older = report.summary.per_eps[0].model_copy(update={"timed_out": None})
    summary = report.summary.model_copy(update={"per_eps": (older,)})
    with pytest.raises(OptionError, match="write it anew"):
        judged(report.model_copy(update={"summary": summary}), "timed_out <= 0")


@pytest.mark.parametrize(("rule", "passed"), [("norm_inf_S <= 12.5", True), ("max_sensitivity < 2.5", False)])
def test_sensitivities_are_figures(rule, passed):
    found = outcome(audited(), rule)
    assert (found.passed, found.k, found.interval) == (passed, None, None)


def test_one_sample_decides():
    rule = "certified_accuracy@2/255 >= 0.90"
    assert judged(audited("c" * 90 + "u" * 10), rule).passed
    failed = judged(audited("c" * 89 + "u" * 11), rule)
    assert not failed.passed
    assert (failed.rules[-1].k, failed.rules[-1].n) == (89, 100)


def test_what_is_found_never_looks_like_what_is_expected_where_it_is_less():
    found = outcome(audited("c" * 8999 + "u" * 1001 + "w"), "certified_accuracy@2/255 >= 0.9")
    assert not found.passed
    assert float(found.found.split()[0]) < 90


def test_a_warning_does_not_fail_the_gate():
    found = judged(audited(), "clean_accuracy >= 0.5", warn=["unknown@2/255 <= 0"])
    assert found.passed
    assert [(rule.level, rule.passed) for rule in found.rules[1:]] == [("error", True), ("warning", False)]


def test_an_incomplete_report_fails_whatever_its_rules_say():
    found = judged(audited(status="incomplete"), "clean_accuracy >= 0.1")
    assert not found.passed
    assert [rule.passed for rule in found.rules] == [False, True]
    assert not judged(audited(status="incomplete", sensitivity=None), "norm_inf_S <= 100").passed


EMPTY = {
    "no verdicts": {"samples": (), "summary": None},
    "no S": {"sensitivity": None},
}


@pytest.mark.parametrize("name", EMPTY)
def test_what_was_not_measured_passes_no_gate(name):
    """A complete report that says nothing is refused, an incomplete one fails."""
    for rule in ("certified_accuracy >= 0", "attack_success <= 1", "unknown <= 1", "norm_inf_S <= 1e9"):
        if (name == "no S") != rule.startswith("norm"):
            continue
        with pytest.raises(OptionError, match="the report has no"):
            judged(audited(**EMPTY[name]), rule)
        assert not judged(audited(status="incomplete", **EMPTY[name]), rule).passed


def test_a_bound_that_is_not_finite_is_below_no_limit():
    nothing = audited().sensitivity.model_copy(update={"norm_inf": None, "row_sums": (), "top_inputs": ()})
    for rule in ("norm_inf_S <= 1e300", "max_sensitivity <= 1e300"):
        assert not judged(audited(sensitivity=nothing), rule).passed


def test_no_samples_hold_no_rule():
    found = outcome(audited("ww"), "attack_success@2/255 <= 1")
    assert (found.passed, found.k) == (False, None)


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("certified_accuracy@0.03 >= 0.1", "2/255"),
        ("certified_accuracy@0.0078 >= 0.1", "2/255"),
    ],
)
def test_what_a_complete_report_does_not_say_is_refused(rule, word):
    with pytest.raises(OptionError, match=word):
        judged(audited(), rule)


def test_a_metric_of_several_radii_needs_one():
    report = audited({"1/255": "cc", "2/255": "cu"})
    with pytest.raises(OptionError, match="certified_accuracy@ and one of 1/255, 2/255"):
        judged(report, "certified_accuracy >= 0.1")
    assert outcome(report, "certified_accuracy@1/255 >= 1").passed
    assert not outcome(report, "certified_accuracy@2/255 >= 1").passed


def test_drop_compares_every_certified_accuracy_with_the_baseline():
    before = audited({"1/255": "c" * 100, "2/255": "c" * 90 + "u" * 10})
    after = audited({"1/255": "c" * 99 + "f", "2/255": "c" * 88 + "u" * 11 + "f"})
    found = judged(after, "drop <= 0.01", baseline=before)
    assert [rule.rule for rule in found.rules[1:]] == [
        "drop(certified_accuracy@1/255) <= 0.01",
        "drop(certified_accuracy@2/255) <= 0.01",
    ]
    assert [rule.passed for rule in found.rules[1:]] == [True, False]
    assert "from 90 of 100 to 88 of 100" in found.rules[2].found
    assert not found.passed
    assert judged(after, "drop <= 2 %", baseline=before).passed
    assert judged(before, "drop(clean_accuracy) <= 0", baseline=after).passed


def test_samples_that_are_newly_falsified_are_listed():
    before = audited({"1/255": "cccw", "2/255": "cufw"})
    after = audited({"1/255": "cfcc", "2/255": "ffff"})
    found = judged(after, "clean_accuracy >= 0", baseline=before).newly_falsified
    named = [(entry.index, round(entry.eps * 255), entry.before) for entry in found]
    assert named == [(0, 2, Verdict.CERTIFIED), (1, 1, Verdict.CERTIFIED), (1, 2, Verdict.UNKNOWN)]


OTHER = {
    "data": lambda r: {"data": r.data.model_copy(update={"sha256": "ef" * 32})},
    "samples": lambda r: {"data": r.data.model_copy(update={"indices": tuple(range(1, 11))})},
    "labels": lambda r: {"samples": tuple(s.model_copy(update={"label": 2}) for s in r.samples)},
    "clip": lambda r: {"threat_model": r.threat_model.model_copy(update={"clip": None})},
    "set": lambda r: {"threat_model": r.threat_model.model_copy(update={"set": "card", "k": 3})},
    "sigma": lambda r: {"threat_model": r.threat_model.model_copy(update={"sigma": "s.csv"})},
    "target": lambda r: {"threat_model": r.threat_model.model_copy(update={"target": 1})},
    "eps": lambda r: {"threat_model": audited({"2/255": "c", "0.03": "c"}).threat_model},
    "incomplete": lambda r: {"status": "incomplete"},
    "no data": lambda r: {"data": None},
}


@pytest.mark.parametrize("name", OTHER)
def test_a_baseline_of_another_audit_is_refused(name):
    report = audited()
    baseline = report.model_copy(update=OTHER[name](report))
    with pytest.raises(IdlAuditError):
        judged(report, "clean_accuracy >= 0.1", baseline=baseline)
    assert judged(report, "clean_accuracy >= 0.1", baseline=report).passed


def test_another_model_may_be_compared():
    assert judged(audited("cccc"), "drop <= 0", baseline=audited("cccu")).passed


TAMPERED = {
    "more certified": ('"certified": 7', '"certified": 8'),
    "fewer that timed out": ('"timed_out": 0', '"timed_out": 1'),
    "a verdict": ('"verdict":"falsified"', '"verdict":"unknown"'),
    "clean accuracy": ('"k": 9', '"k": 10'),
    "an unknown field": ('"k": 9', '"k": 9, "z": 1'),
    "a sample twice": ('"index":3', '"index":2'),
    "a label": ('"predicted":4', '"predicted":1'),
    "the norm": ('"norm_inf": 12.5', '"norm_inf": 1.5'),
    "fewer samples": ('"n": 10,\n    "indices"', '"n": 9,\n    "indices"'),
    "the name of a radius": ('"text": "2/255"', '"text": "::error::2/255"'),
    "no JSON": ("{", "["),
    "NaN": ('"norm_inf": 12.5', '"norm_inf": NaN'),
    "another version": ('"schema_version": "1.2"', '"schema_version": "9.0"'),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_report_that_contradicts_itself_is_refused(tmp_path: Path, name):
    path = written(tmp_path / "r.json", audited())
    assert read_report(path) == audited()
    old, new = TAMPERED[name]
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"r\.json"):
        read_report(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_report_is_read_in_every_marked_encoding(tmp_path: Path, encoding, line_end):
    text = written(tmp_path / "r.json", audited()).read_text(encoding="utf-8")
    (tmp_path / "r.json").write_bytes(text.replace("\n", line_end).encode(encoding))
    assert read_report(tmp_path / "r.json") == audited()


CONTRADICTIONS = {
    "a gate that passed although the work was cut short": (
        {"status": "incomplete", "gate": Gate(passed=True)},
        "its gate passed, although it is incomplete",
    ),
    "complete with a property that was not judged": (
        {"properties": (PropertyReport(onnx="a", vnnlib="b", result="unknown", problem="gone"),)},
        "1 of its properties could not be judged",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_passes_although_it_cannot_is_refused(tmp_path: Path, name):
    changes, words = CONTRADICTIONS[name]
    with pytest.raises(DataError, match=words):
        read_report(written(tmp_path / "r.json", audited(**changes)))


def test_counts_and_verdicts_changed_together_are_seen_by_the_list_of_samples(tmp_path: Path):
    short = audited("cccccccfu")
    path = written(tmp_path / "r.json", short.model_copy(update={"data": audited().data}))
    with pytest.raises(DataError, match="contradicts itself"):
        read_report(path)


def test_two_reports_are_compared_sample_by_sample():
    before, after = audited({"1/255": "ccuw", "2/255": "cfuw"}), audited({"1/255": "cucw", "0.03": "cfuw"})
    found = compare(before, after, Path("old.json"))
    assert [entry[0] for entry in found.counts] == ["1/255"]
    assert [(change.index, change.is_worse) for change in found.changed] == [(1, True), (2, False)]
    assert found.regressions == ("1 verdict is worse than before",)
    assert compare(before, before, Path("old.json")).regressions == ()


def test_a_lower_clean_accuracy_and_a_missing_end_are_regressions():
    found = compare(audited("cccc"), audited("cccw"), Path("old.json"))
    assert len(found.regressions) == 2
    cut = audited("cccc", status="incomplete")
    assert compare(audited("cccc"), cut, Path("old.json")).regressions == ("the new report is incomplete",)


def test_reports_without_a_common_radius_are_not_compared():
    with pytest.raises(DataError, match="no radius in common"):
        compare(audited({"1/255": "c"}), audited({"2/255": "c"}), Path("old.json"))
