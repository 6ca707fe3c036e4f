"""certify --everywhere: statements over the whole range of a table, in reports, rules, pictures and Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import idl_audit
from idl_audit.data.statements import parse_never
from idl_audit.gate.fingerprints import differences
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.render.extras import Extras
from idl_audit.report.render.html import to_html
from idl_audit.report.render.junit import to_junit
from idl_audit.report.schema import Verdict
from idl_audit.values.errors import OptionError
from tests.shared.command_line import Run, gemm, network, run

TEXT = """
[[feature]]
name = "age"
kind = "integer"
range = [0, 9]

[[feature]]
name = "hours"
range = [0, 60]

[[feature]]
name = "sex"
categories = ["female", "male"]
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 1 where hours + 5 male > 30.5, class 2 nowhere; scores are (0, age + hours + 5 male - 30.5, -99)."""
    folder = tmp_path_factory.mktemp("whole")
    constants = {"w": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 5, 0]]), "b": np.array([0, -30.5, -99.0])}
    network(folder / "m.onnx", [gemm()], constants)
    (folder / "f.toml").write_text(TEXT)
    return folder


def asked(table: Path, *more: object) -> Run:
    given = ("--everywhere", "--features", table / "f.toml", "-q", "-f", "json", "--max-nodes", 200)
    return run("certify", table / "m.onnx", *given, *more)


def test_statements_have_verdicts_shares_and_witnesses(table: Path) -> None:
    words = ("1 where hours < 20", "1 where sex = male", "1 where hours <= 30.4 and sex = female", "2")
    report = asked(table, *(part for word in words for part in ("--never", word)), "--above", -100).report
    above, *found = report.everywhere.statements
    assert (above.kind, above.verdict) == ("above", Verdict.CERTIFIED)
    verdicts = [one.verdict for one in found]
    assert verdicts == [Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.CERTIFIED, Verdict.CERTIFIED]
    male = found[1]
    assert dict(male.witness.told)["sex"] == "male"
    assert male.witness.point[1] > 25.5
    assert 0.55 < male.failing <= 34.5 / 60
    assert 0.4 < male.holding <= 25.5 / 60
    assert report == from_json(to_json(report))
    assert [one.name for one in report.everywhere.ranges] == ["age", "hours", "sex"]


def test_a_border_belongs_to_the_condition_that_says_so(table: Path) -> None:
    """At 30.5 hours of a woman both scores are 0, and the first class counts; just above it is class 1."""
    report = asked(table, "--never", "1 where hours <= 30.500002 and sex = female").report
    assert report.everywhere.statements[0].verdict is Verdict.FALSIFIED
    report = asked(table, "--never", "0 where hours > 30.5 and sex = female").report
    assert report.everywhere.statements[0].verdict is not Verdict.FALSIFIED
    report = asked(table, "--never", "0 where hours >= 30.5 and sex = female").report
    assert report.everywhere.statements[0].verdict is Verdict.FALSIFIED


def test_a_score_rises_over_the_whole_range(table: Path) -> None:
    report = asked(table, "--monotone", "hours+", "--class", 1).report
    assert report.everywhere.statements[0].verdict is Verdict.CERTIFIED
    report = asked(table, "--monotone", "hours-", "--class", 1).report
    (one,) = report.everywhere.statements
    assert one.verdict is Verdict.FALSIFIED
    low, high = one.witness.outputs
    assert low < high
    assert one.witness.point[1] < one.witness.second[1]


REST = "".join(f'[[feature]]\nname = "{name}"\nrange = [0, 1]\n' for name in "bcd")
"""Features that nothing reads."""


@pytest.mark.parametrize(
    ("ends", "bound", "verdict"),
    [
        ("-2.1, -0.7", -2.09999999, Verdict.UNKNOWN),  # the nearest float32 number is above -2.1
        ("-2.1, -0.7", -2.1000001, Verdict.CERTIFIED),
        ("-1.7, -0.7", -1.6999999, Verdict.FALSIFIED),
        ("-1.7, -0.7", -1.7000001, Verdict.CERTIFIED),
    ],
)
def test_ends_of_a_range_are_what_is_written(tmp_path: Path, ends: str, bound: float, verdict: Verdict) -> None:
    network(tmp_path / "m.onnx", [gemm()], {"w": np.eye(4, 1), "b": np.zeros(1)})
    (tmp_path / "f.toml").write_text(f'[[feature]]\nname = "a"\nrange = [{ends}]\n{REST}')
    given = ("--everywhere", "--features", tmp_path / "f.toml", f"--above={bound}", "-q", "-f", "json")
    (one,) = run("certify", tmp_path / "m.onnx", *given, "--max-nodes", 200).report.everywhere.statements
    assert one.verdict is verdict


def test_whole_numbers_that_float32_does_not_have_are_no_values(tmp_path: Path) -> None:
    network(tmp_path / "m.onnx", [gemm()], {"w": np.eye(4, 1), "b": np.zeros(1)})
    own = '[[feature]]\nname = "a"\nkind = "integer"\nrange = [16777216, 16777220]\n'
    (tmp_path / "f.toml").write_text(own + REST)
    given = ("--everywhere", "--features", tmp_path / "f.toml", "--below", 16777219, "-q", "-f", "json")
    (one,) = run("certify", tmp_path / "m.onnx", *given).report.everywhere.statements
    assert one.failing == pytest.approx(1 / 3)


def test_rules_views_and_python_know_it(table: Path, tmp_path: Path) -> None:
    given = {"features": table / "f.toml", "never": ["1 where sex = male", "2"], "max_nodes": 200}
    report = idl_audit.certify_everywhere(table / "m.onnx", **given)
    again = idl_audit.certify_everywhere(table / "m.onnx", **(given | {"never": ["1 where sex = female", "2"]}))
    assert list(differences(report, report, same_radii=True)) == []
    assert "other statements" in " ".join(differences(report, again, same_radii=True))
    (rule, missed) = (
        idl_audit.check_rules(report, [text]).rules[-1] for text in ("everywhere >= 0.5", "everywhere >= 0.6")
    )
    assert (rule.passed, rule.k, rule.n, missed.passed) == (True, 1, 2, False)
    page = to_html(report, Extras())
    assert "where it is open and where it fails, over" in page
    assert "class 1 is never predicted where sex = male" in to_junit(report)
    (tmp_path / "r.json").write_text(to_json(report))
    shown = run("report", tmp_path / "r.json", "-f", "markdown").out
    assert "class 1 is never predicted where sex = male" in shown


def test_the_terminal_and_the_picture_show_what_is_open(table: Path, tmp_path: Path) -> None:
    found = run(
        *("certify", table / "m.onnx", "--everywhere", "--features", table / "f.toml", "-q", "--max-nodes", 30),
        *("--never", "1 where sex = male", "--plot", tmp_path / "p.png", "--axes", "age,hours"),
    )
    assert found.code == 0
    assert "It does not hold" in found.out
    assert "sex male" in found.out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


REFUSED = [
    ((), "--everywhere needs what is to hold"),
    (("--never", "7"), "class 7, and"),
    (("--never", "1 where height < 2"), "'height'"),
    (("--never", "1 where sex = other"), "sex is one of female, male"),
    (("--never", "1 where hours < 0"), "holds nowhere"),
    (("--never", "1 where age < 0"), "holds nowhere"),
    (("--never", "1 where hours < much"), "a number"),
    (("--above", "1", "--class", "1"), "--class names the score"),
    (("--never", "2", "--axes", "age"), "two inputs"),
    (("--monotone", "sex+", "--class", "1"), "category"),
    (("--never", "2", "-e", "0.1"), "--eps"),
    (("--never", "2", "-d", "d.npz"), "--data"),
    (("--above", "0", "--of-outputs", "3"), "--of-outputs must list"),
    (("--never", "2", "--arithmetic", "float32"), "in real arithmetic alone"),
]


def test_a_configuration_has_its_options_and_not_the_question(table: Path, tmp_path: Path) -> None:
    (tmp_path / "idl-audit.toml").write_text('[run]\nsteps = ["certify"]\n[certify]\neverywhere = true\n')
    found = run("run", "-c", tmp_path / "idl-audit.toml")
    assert found.code == 2
    assert "write what is asked, such as never and features, in a table [everywhere]" in found.err


@pytest.mark.parametrize(("more", "words"), REFUSED)
def test_what_makes_no_sense_is_refused(table: Path, more: tuple[str, ...], words: str) -> None:
    found = asked(table, *more)
    assert (found.code, found.out) == (2, "")
    assert words in found.err


def test_the_range_must_be_known(table: Path, tmp_path: Path) -> None:
    found = run("certify", table / "m.onnx", "--everywhere", "--never", "2", "-q")
    assert "--everywhere needs the range" in found.err
    (tmp_path / "g.toml").write_text(TEXT.replace("range = [0, 60]", ""))
    found = run("certify", table / "m.onnx", "--everywhere", "--never", "2", "-q", "--features", tmp_path / "g.toml")
    assert "hours has no range" in found.err
    both = ("--features", tmp_path / "g.toml", "--bounds", "0,60")
    assert run("certify", table / "m.onnx", "--everywhere", "--never", "2", "-q", *both).code == 0


@pytest.mark.parametrize("text", ["", "x", "1 where", "1 where a", "1 where a < ", "1 where a < 1 or b < 2 <", "-1"])
def test_what_is_no_statement_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="where it is never to be predicted"):
        parse_never(text, "--never")


def test_a_statement_is_read_as_it_is_written() -> None:
    for text in ("3", "1 where a < 2", "2 where a b >= 1/3 and c = x y and d > -1"):
        assert str(parse_never(text, "--never")) == text


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certified(table: Path) -> Path:
    words = ("--never", "1 where hours < 20", "--never", "2 where sex = male", "--above", -100, "--monotone", "hours+")
    given = ("--everywhere", "--features", table / "f.toml", "--class", 1, "--certificates", table / "c")
    done = run("certify", table / "m.onnx", *given, *words, "-q", "-f", "json")
    assert [one.certificate is not None for one in done.report.everywhere.statements] == [True] * 4
    box = ("--everywhere", "--bounds", "0,1", "--below", 10, "--certificates", table / "box")
    assert run("certify", table / "m.onnx", *box).code == 0
    return table


def test_certificates_of_statements_are_accepted(certified: Path) -> None:
    said = {
        "c/statement-0-above.npz": "output 0 > -100.0",
        "c/statement-1-never.npz": "class 1 is never predicted in the file's whole range of 4 inputs",
        "c/statement-2-never.npz": "class 2 is never predicted",
        "c/statement-3-monotone.npz": "output 1 never falls while input 1 rises",
        "box/statement-0-below.npz": "output 0 < 10.0",
    }
    for name, words in said.items():
        found = run("verify", certified / name, certified / "m.onnx", "-f", "json")
        assert found.code == 0
        assert words in found.report.verification.claim


def moved(name: str, number: float) -> Any:
    return lambda made: made.__setitem__(name, np.full_like(made[name], number))


LIES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "more hours": ("c/statement-1-never.npz", {}, moved("range.hi", 60.0)),
    "another class": ("c/statement-2-never.npz", {"label": 1}, lambda made: None),
    "no such class": ("c/statement-2-never.npz", {"label": 3}, lambda made: None),
    "another way": ("c/statement-3-monotone.npz", {"direction": "-"}, lambda made: None),
    "a column of a category": ("c/statement-3-monotone.npz", {"input": 2}, lambda made: None),
    "a larger limit": ("c/statement-0-above.npz", {}, moved("limit.values", 0.0)),
    "another side": ("c/statement-0-above.npz", {}, moved("limit.sides", -1)),
    "a lower limit": ("box/statement-0-below.npz", {}, moved("limit.values", -31.0)),
    "an empty range": ("box/statement-0-below.npz", {}, moved("range.hi", -1.0)),
    "nothing to prove it": ("c/statement-2-never.npz", {}, lambda made: made.pop("tree.roots")),
    "more values": (
        "c/statement-1-never.npz",
        {},
        lambda made: made.update({"range.choice.1.values": np.array([[1.0, 0.0], [0.0, 1e3]])}),
    ),
    "no values": ("c/statement-1-never.npz", {}, moved("range.choice.0.values", np.nan)),
    "a column twice": (
        "c/statement-1-never.npz",
        {},
        lambda made: made.update({"range.choice.0.columns": np.array([2])}),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_what_lies_about_a_range_is_refused(certified: Path, tmp_path: Path, name: str) -> None:
    file, claim, change = LIES[name]
    with np.load(certified / file) as read:
        made = {key: read[key] for key in read.files}
    meta = json.loads(str(made["meta"][()]))
    meta["claim"] |= claim
    change(made)
    np.savez(tmp_path / "f.npz", **(made | {"meta": np.asarray(json.dumps(meta))}))
    assert run("verify", tmp_path / "f.npz", certified / "m.onnx").code in (1, 2)
