"""certify and attack with --features: reports tell valid rows by their features' names, and --fair moves some alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idl_audit.data.features import read_features
from idl_audit.report.schema import Verdict
from tests.shared.command_line import Run, gemm, network, run

TEXT = """
[[feature]]
name = "age"
kind = "integer"
range = [17, 90]
radius = 2
unit = "years"

[[feature]]
name = "hours"
range = [0, 60]

[[feature]]
name = "sex"
categories = ["female", "male"]
protected = true
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 1 where age + hours + 5 male > 60.5."""
    folder = tmp_path_factory.mktemp("table")
    constants = {"w": np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 5, 0]]), "b": np.array([0, -60.5, -99.0])}
    network(folder / "m.onnx", [gemm()], constants)
    rows = np.array([[40, 10, 1, 0], [40, 17.75, 1, 0], [40, 19.75, 0, 1], [30, 20, 0, 1]], np.float32)
    np.savez(folder / "d.npz", inputs=rows, labels=np.array([0, 0, 1, 0]))
    (folder / "f.toml").write_text(TEXT)
    return folder


def asked(table: Path, *more: object, command: str = "certify") -> Run:
    given = ("-d", table / "d.npz", "--features", table / "f.toml", "-q", "-f", "json")
    return run(command, table / "m.onnx", *given, *more)


@pytest.mark.parametrize("command", ["certify", "attack"])
def test_only_valid_rows_falsify_and_are_told_by_name(table: Path, command: str) -> None:
    report = asked(table, "-e", 1, command=command).report
    verdicts = [sample.results[0].verdict for sample in report.samples]
    assert verdicts[1] is Verdict.FALSIFIED  # 40 + 2 + 18.75 = 60.75
    assert Verdict.FALSIFIED not in (verdicts[0], verdicts[3])
    if command == "certify":
        assert verdicts == [Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.CERTIFIED, Verdict.CERTIFIED]
    changes = report.samples[1].results[0].adversarial.changes
    assert ("age", "40 years", "42 years") in [(one.feature, one.before, one.after) for one in changes]
    assert report.threat_model.features_sha256 == read_features(table / "f.toml").sha256


def test_a_step_of_a_whole_number_is_whole(table: Path) -> None:
    """With age by at most 1.5 it moves by 1: 41 + 18.75 < 60.5, where 41.5 would do."""
    text = TEXT.replace("radius = 2", "radius = 1.5").replace("[0, 60]", "[0, 60]\nradius = 1.25")
    (table / "g.toml").write_text(text)
    report = asked(table, "-e", 1, "--features", table / "g.toml").report
    assert report.samples[1].results[0].verdict is Verdict.CERTIFIED
    as_box = run("certify", table / "m.onnx", "-d", table / "d.npz", "-e", 1.5, "-q", "-f", "json").report
    assert as_box.samples[1].results[0].verdict is Verdict.FALSIFIED


def test_protected_features_alone_may_change_the_class(table: Path) -> None:
    report = asked(table, "-e", 0, "--fair").report
    verdicts = [sample.results[0].verdict for sample in report.samples]
    assert verdicts == [Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.FALSIFIED, Verdict.CERTIFIED]
    for place, pair in ((1, ("female", "male")), (2, ("male", "female"))):
        (one,) = report.samples[place].results[0].adversarial.changes
        assert (one.feature, one.before, one.after) == ("sex", *pair)
    table_text = run(
        "certify", *(table / "m.onnx", "-d", table / "d.npz", "--features", table / "f.toml"), "-e", 0, "--fair"
    )
    assert "protected features alone changing" in table_text.out
    assert "sex female -> male" in table_text.out


REFUSED = [
    (("--fair", "-e", "1"), "--eps 0"),
    (("--sparse", "1"), "--sparse cannot be asked"),
    (("--largest", "-e", "1"), "--largest cannot be asked"),
    (("--top", "1"), "cannot be asked"),
    (("--ignore", "0", "--bounds", "0,90"), "--ignore cannot be asked"),
    (("--target", "1"), "--target cannot be asked"),
]


@pytest.mark.parametrize(("more", "words"), REFUSED)
def test_what_valid_rows_are_not_asked_is_refused_by_name(table: Path, more: tuple[str, ...], words: str) -> None:
    command = "attack" if {"--sparse", "--target"} & {*more} else "certify"
    found = asked(table, "-e", 1, *more, command=command)
    assert found.code == 2
    assert words in found.err


def test_rows_and_features_that_do_not_fit_are_refused(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", inputs=np.array([[40, 10, 1, 0], [40.5, 10, 1, 0]]), labels=np.zeros(2, int))
    found = asked(table, "-e", 1, "-d", tmp_path / "bad.npz")
    assert found.code == 2
    assert "sample 1: " in found.err
    assert "age is 40.5, and its values are 17 plus whole steps of 1" in found.err
    (tmp_path / "few.toml").write_text("[[feature]]\nname = 'age'\n")
    found = asked(table, "-e", 1, "--features", tmp_path / "few.toml")
    assert "speaks of 1 inputs, and" in found.err
    (tmp_path / "none.toml").write_text(TEXT.replace("protected = true", ""))
    found = asked(table, "-e", 0, "--fair", "--features", tmp_path / "none.toml")
    assert "no protected feature" in found.err


def test_a_score_rises_with_the_feature_that_the_file_calls_monotone(table: Path) -> None:
    """Around samples, too: age goes through its range, other features move as valid rows do."""
    for sign, verdict in (("+", Verdict.CERTIFIED), ("-", Verdict.FALSIFIED)):
        (table / "rise.toml").write_text(TEXT.replace('unit = "years"', f'monotone = "{sign}"'))
        given = ("--features", table / "rise.toml", "--monotone", "features", "--class", 1, "-e", 1)
        report = asked(table, *given, "--certificates", table / f"rising {sign}").report
        assert (report.monotonicity.name, report.monotonicity.input) == ("age", 0)
        results = [sample.results[0] for sample in report.monotonicity.samples]
        assert [one.verdict for one in results] == [verdict] * 4
        assert report.threat_model.features_sha256 == read_features(table / "rise.toml").sha256
        if verdict is Verdict.FALSIFIED:
            ends = [end for one in results for end in (one.found.low, one.found.high)]
            assert all(end == int(end) and 17 <= end <= 90 for end in ends)
        for proof in report.artifacts:
            assert run("verify", proof, table / "m.onnx").code == 0
        assert len(report.artifacts) == (4 if verdict is Verdict.CERTIFIED else 0)
    found = asked(table, "--monotone", "features", "--class", 1, "-e", 1)
    assert found.code == 2
    assert "calls no feature monotone, and around samples one input rises" in found.err
    found = run("certify", table / "m.onnx", "-d", table / "d.npz", "--monotone", "features", "-e", 1)
    assert "give it with --features FILE" in found.err
