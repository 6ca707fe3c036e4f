"""Known samples: counted apart until their last day, named everywhere, and never a way to hide another one."""

from __future__ import annotations

import datetime
import html
import json
import os
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from idl_audit.gate.judge import judge, parse_rules
from idl_audit.gate.known import Known, counted_apart, read_known, without
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.render import render
from idl_audit.report.schema import Gate, Report, Verdict
from idl_audit.values.errors import OptionError
from tests.shared.command_line import run
from tests.shared.gate_reports import audited

TODAY = datetime.date(2026, 11, 30)
YESTERDAY = datetime.date(2026, 11, 29)


def with_fingerprints(word: str = "cccccccfuw") -> Report:
    report = audited(word)
    samples = tuple(one.model_copy(update={"fingerprint": f"{one.index:032x}"}) for one in report.samples)
    return report.model_copy(update={"samples": samples})


def judged(report: Report, *rules: str, known: tuple[Known, ...] = (), baseline: Report | None = None) -> Gate:
    parsed = parse_rules(rules, (), has_baseline=baseline is not None)
    return judge(report, parsed, known=known, today=TODAY, baseline=baseline)


@pytest.mark.parametrize("index", range(10))
def test_a_report_without_a_sample_is_what_an_audit_of_the_others_writes(index: int) -> None:
    word = "ccctcfcuwf"
    whole, rest = audited(word), without(audited(word), frozenset({index}))
    other = audited(word[:index] + word[index + 1 :])
    assert rest.summary == other.summary
    assert len(rest.samples) == 9
    assert without(whole, frozenset()) == whole


def test_no_rule_counts_what_is_known() -> None:
    report = with_fingerprints()
    known = (Known("a", index=7), Known("b", fingerprint=f"{9:032x}"))
    found = judged(report, "attack_success <= 0", "clean_accuracy >= 1", "certified_accuracy >= 0.8", known=known)
    assert [(rule.k, rule.n) for rule in found.rules[1:]] == [(0, 8), (8, 8), (7, 8)]
    assert found.passed
    assert [(one.state, one.indices) for one in found.known] == [("apart", (7,)), ("apart", (9,))]
    assert not judged(report, "attack_success <= 0", "clean_accuracy >= 1").passed


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (Known("r", index=7, until=TODAY), "apart"),
        (Known("r", index=7, until=YESTERDAY), "expired"),
        (Known("r", index=7, fingerprint=f"{7:032x}"), "apart"),
        (Known("r", index=7, fingerprint=f"{8:032x}"), "absent"),
        (Known("r", fingerprint=f"{99:032x}"), "absent"),
        (Known("r", index=99), "absent"),
    ],
)
def test_an_entry_holds_until_its_day_is_over_and_for_the_sample_that_it_means(known: Known, state: str) -> None:
    found = judged(with_fingerprints(), "attack_success <= 0", known=(known,))
    assert [one.state for one in found.known] == [state]
    assert found.rules[-1].k == (0 if state == "apart" else 1)
    assert found.passed is (state == "apart")
    expired = [rule for rule in found.rules if rule.rule == "known sample 7 (r)"]
    assert [rule.passed for rule in expired] == ([False] if state == "expired" else [])
    assert any("is not in the report" in note for note in found.notes) is (state == "absent")


def test_an_entry_for_a_sample_that_became_robust_is_told() -> None:
    assert judged(with_fingerprints(), "unknown <= 1", known=(Known("r", index=0),)).notes == (
        "known sample 0 is certified at every radius: it need not be on the list",
    )


def test_a_baseline_is_counted_in_the_same_way_and_known_ones_are_not_new() -> None:
    before, after = with_fingerprints("cccc"), with_fingerprints("ccff")
    known = (Known("r", index=3),)
    found = judged(after, "drop(certified_accuracy) <= 0.4", known=known, baseline=before)
    assert "from 3 of 3 to 2 of 3" in found.rules[-1].found
    assert [one.index for one in found.newly_falsified] == [2]


def test_sums_of_what_is_left_and_what_is_apart_are_the_whole() -> None:
    report = with_fingerprints("ctfuwcfc")
    apart = counted_apart(report, (Known("r", index=2), Known("s", index=1)), TODAY)
    (left,), (all_of_them,) = apart.rest.summary.per_eps, report.summary.per_eps
    gone = Counter({Verdict.FALSIFIED: 1, Verdict.UNKNOWN: 1})
    for verdict in Verdict:
        assert getattr(left, verdict.value) + gone[verdict] == getattr(all_of_them, verdict.value)
    assert (left.timed_out, all_of_them.timed_out) == (0, 1)


LIST = """
[[known]]
index = 7
reason = "smudged <b>scan</b>"
until = 2999-12-31
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "r.json").write_text(to_json(with_fingerprints()))
    (tmp_path / "known.toml").write_text(LIST)
    return tmp_path


def test_gate_takes_a_list_and_every_view_names_it(files: Path) -> None:
    asked = ("gate", files / "r.json", "--require", "attack_success <= 0")
    assert run(*asked).code == 1
    made = run(*asked, "--known", files / "known.toml", "-o", files / "g.json")
    assert made.code == 0
    assert "smudged <b>scan</b>" in made.out
    report = from_json((files / "g.json").read_text())
    page = render(report, "html")
    assert "smudged &lt;b&gt;scan&lt;/b&gt;" in page
    assert "falsified at 2/255" in html.unescape(page)
    cases = ElementTree.fromstring(render(report, "junit")).iter("testcase")
    (case,) = [one for one in cases if one.get("name") == "sample 7 (label 1)"]
    assert case.find("skipped").get("message").startswith("known until 2999-12-31: smudged")
    results = json.loads(render(report, "sarif"))["runs"][0]["results"]
    known = [one for one in results if "suppressions" in one]
    assert [one["suppressions"][0]["kind"] for one in known] == ["external"]
    assert not [one for one in results if one["ruleId"] == "falsified" and "suppressions" not in one]
    notices = [line for line in render(report, "github").splitlines() if "known sample 7" in line]
    assert notices[0].startswith("::notice ")


def test_without_a_gate_known_samples_are_as_any_other() -> None:
    found = render(with_fingerprints(), "sarif")
    assert "suppressions" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[known]]\nindex = 1\n", "entry 1: no reason"),
        ('[[known]]\nreason = "  "\nindex = 1\n', "entry 1: no reason"),
        ('[[known]]\nreason = "r"\n', "neither index nor fingerprint"),
        ('[[known]]\nreason = "r"\nindex = -1\n', "from 0, not '-1'"),
        ('[[known]]\nreason = "r"\nindex = true\n', "from 0, not 'True'"),
        ('[[known]]\nreason = "r"\nfingerprint = "ab"\n', "32 hexadecimal digits"),
        ('[[known]]\nreason = "r"\nindex = 1\nuntil = "2027-01-01"\n', "without quotation marks"),
        ('[[known]]\nreason = "r"\nindex = 1\nuntil = 2027-01-01T00:00:00\n', "must be a date"),
        ('[[known]]\nreason = "r"\nindex = 1\nuntl = 2027-01-01\n', "unknown key 'untl'"),
        ('[[known]]\nreason = "r"\nindex = 1\n' * 2, "names sample 1 2 times"),
        ("known = 3\n", "no list of known samples"),
        ("", "no list of known samples"),
        ("[[knwon]]\n", "no list of known samples"),
        ("x = [", "is no TOML"),
    ],
)
def test_lists_that_are_wrong_are_refused_in_one_sentence(files: Path, text: str, message: str) -> None:
    (files / "known.toml").write_text(text)
    with pytest.raises(OptionError) as raised:
        read_known(files / "known.toml")
    assert message in str(raised.value)
    found = run("gate", files / "r.json", "--require", "unknown <= 1", "--known", files / "known.toml")
    assert (found.code, found.err.count("\n")) == (2, 1)


def test_a_list_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file"):
        read_known(tmp_path / "none.toml")
    with pytest.raises(OptionError, match="cannot be read"):
        read_known(tmp_path)


def test_a_list_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(OptionError, match="no regular file"):
        read_known(tmp_path / "pipe.toml")
