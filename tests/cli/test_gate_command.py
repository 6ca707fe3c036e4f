"""gate and diff as users run them: exit codes, baselines, what is printed, and what is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idl_audit.report.json_text import from_json
from idl_audit.report.schema import Gate, ModelInfo
from tests.shared.command_line import HOSTILE, run
from tests.shared.gate_reports import audited, written

RULE = "certified_accuracy@2/255 >= 0.90"
PASSING, FAILING = audited("c" * 90 + "u" * 10), audited("c" * 89 + "u" * 11)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "good.json", PASSING)
    written(tmp_path / "bad.json", FAILING)
    written(tmp_path / "cut.json", PASSING.model_copy(update={"status": "incomplete"}))
    text = (tmp_path / "bad.json").read_text(encoding="utf-8")
    (tmp_path / "tampered.json").write_text(
        text.replace('"certified": 89', '"certified": 90').replace(": 11,", ": 10,")
    )
    return tmp_path


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("good.json",), 0),
        (("bad.json",), 1),
        (("cut.json",), 1),
        (("good.json", "--baseline", "tampered.json"), 2),
        (("good.json", "--baseline", "cut.json"), 2),
        (("good.json", "--baseline", "missing.json"), 2),
        (("tampered.json",), 2),
        (("missing.json",), 2),
        (("good.json", "--baseline", "good.json"), 2),
        (("good.json", "--update-baseline"), 2),
        (("good.json", "--require", "drop <= 0.1"), 2),
        (("good.json", "--require", "norm_inf_S <= 12"), 1),
        (("good.json", "--warn", "norm_inf_S <= 12"), 0),
        (("good.json", "--require", "certified_accuracy@0.03 >= 0"), 2),
    ],
)
def test_the_exit_code_says_how_it_went(here, line, code):
    found = run("gate", *line, "--require", RULE)
    assert found.code == code
    assert (found.out == "") == (code == 2)
    assert found.err.count("\n") == (1 if code == 2 else 0)


def test_expected_found_counts_and_interval_are_printed(here):
    out = run("gate", "bad.json", "--require", RULE).out
    assert "The gate failed: 1 of 2 rules hold." in out
    for word in (RULE, "89.0 %", "89 of 100", "0.8137 to 0.9375", "Wilson"):
        assert word in out


def test_a_weaker_threat_model_is_told(here):
    threat = PASSING.threat_model.model_copy(update={"set": "card", "k": 3, "target": 7})
    written(here / "weak.json", PASSING.model_copy(update={"threat_model": threat}))
    assert "at most 3 inputs change, only class 7 counts" in run("gate", "weak.json", "--require", RULE).out
    assert "threat model" not in run("gate", "good.json", "--require", RULE).out


def test_json_is_the_gate_s_section_and_the_report_takes_it_in(here):
    found = run("gate", "bad.json", "--require", RULE, "-f", "json")
    section = Gate.model_validate_json(found.out)
    assert (found.code, section.passed, len(section.rules)) == (1, False, 2)
    assert run("gate", "bad.json", "--require", RULE, "-f", "json", "-o", "judged.json").out == ""
    report = from_json((here / "judged.json").read_text(encoding="utf-8"))
    assert report.gate == section
    assert report.samples == FAILING.samples


def test_a_baseline_is_made_then_replaced_only_where_the_gate_passes(here):
    base = here / "base.json"
    line = ("--require", "drop <= 0", "--baseline", "base.json", "--update-baseline")
    assert run("gate", "cut.json", *line).code == 2
    assert not base.exists()
    assert run("gate", "bad.json", *line).code == 0
    assert base.read_bytes() == (here / "bad.json").read_bytes()
    assert run("gate", "good.json", *line).code == 0
    assert base.read_bytes() == (here / "good.json").read_bytes()
    assert run("gate", "bad.json", *line).code == 1
    assert base.read_bytes() == (here / "good.json").read_bytes()
    assert sorted(path.name for path in here.iterdir()) == [
        "bad.json",
        "base.json",
        "cut.json",
        "good.json",
        "tampered.json",
    ]


def test_samples_that_can_be_attacked_now_are_listed(here):
    written(here / "attacked.json", audited("c" * 89 + "f" * 11))
    found = run("gate", "attacked.json", "--require", "clean_accuracy >= 1", "--baseline", "good.json")
    assert found.code == 0
    assert "Attacked now, and not in the baseline" in found.out
    assert "89   2/255   certified" in found.out


def test_rules_come_from_the_configuration_too(here):
    (here / "idl-audit.toml").write_text(f"[gate]\nrequire = ['{RULE}']\n")
    assert run("gate", "good.json").code == 0
    assert run("gate", "bad.json").code == 1
    (here / "other.toml").write_text("[gate]\nrequire = ['clean_accuracy >= 0.5']\n")
    assert run("gate", "bad.json", "-c", "other.toml").code == 0
    assert run("gate", "bad.json", "--require", "clean_accuracy >= 0.5").code == 0
    (here / "idl-audit.toml").write_text("[gate]\nrequired = ['x']\n")
    found = run("gate", "good.json")
    assert (found.code, found.out) == (2, "")
    assert "did you mean 'require'?" in found.err


def test_diff_tells_what_changed(here):
    found = run("diff", "good.json", "bad.json")
    assert found.code == 0
    for word in ("Worse than before: 1 verdict is worse", "90 -> 89", "certified", "unknown"):
        assert word in found.out
    assert run("diff", "good.json", "bad.json", "--exit-code").code == 1
    assert run("diff", "bad.json", "good.json", "--exit-code").code == 0
    assert run("diff", "good.json", "tampered.json").code == 2
    document = json.loads(run("diff", "good.json", "bad.json", "-f", "json").out)
    assert document["changed"] == [
        {"index": 89, "eps": 2 / 255, "before": "certified", "after": "unknown", "worse": True}
    ]
    assert (document["per_eps"][0]["before"]["certified"], document["per_eps"][0]["after"]["certified"]) == (90, 89)


def test_what_else_differs_from_the_baseline_is_printed(here):
    def model(sha256: str) -> ModelInfo:
        return ModelInfo(
            path="m.onnx", format="onnx", sha256=sha256 * 32, input_shape=(1,), n_outputs=2, n_parameters=1
        )

    for name, sha256 in (("one.json", "ab"), ("two.json", "cd")):
        written(here / name, PASSING.model_copy(update={"model": model(sha256)}))
    words = "another network: m.onnx, sha256 abababababab; now m.onnx, sha256 cdcdcdcdcdcd"
    judged = run("gate", "two.json", "--require", RULE, "--baseline", "one.json")
    assert judged.code == 0
    assert f"since the baseline: {words}" in " ".join(judged.out.split())
    assert words in run("diff", "one.json", "two.json").out
    assert json.loads(run("diff", "one.json", "two.json", "-f", "json").out)["notes"] == [words]
    section = run("gate", "two.json", "--require", RULE, "--baseline", "one.json", "-f", "json", "-o", "j.json")
    assert section.code == 0
    assert words in run("report", "j.json", "-f", "markdown").out
    assert "Not the same" not in run("diff", "one.json", "one.json").out


@pytest.mark.parametrize("line", ["gate bad.json", "gate bad.json -f json", "diff good.json bad.json --exit-code"])
def test_a_reader_that_went_away_does_not_change_the_exit_code(here, line):
    """As in `set -o pipefail; idl-audit gate report.json | head -1`."""
    more = ["--require", RULE] if line.startswith("gate") else []
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "idl_audit", *line.split(), *more]
    try:
        found = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (1, "")


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quietly_the_exit_code_is_all_there_is(here, option):
    for line, code in (
        (("gate", "good.json", "--require", RULE), 0),
        (("gate", "bad.json", "--require", RULE), 1),
        (("diff", "bad.json", "good.json"), 0),
        (("diff", "good.json", "bad.json"), 1),
        (("diff", "good.json", "bad.json", "--exit-code"), 1),
    ):
        found = run(*line, option)
        assert (found.code, found.out, found.err) == (code, "", ""), line
        assert run(*line, option, "-f", "json").out.startswith("{")
    for line in (("gate", "missing.json", "--require", RULE), ("diff", "good.json", "missing.json")):
        found = run(*line, option)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize(
    "line", ["gate attacked.json --require clean_accuracy>=0.123 --baseline good.json", "diff good.json attacked.json"]
)
def test_tables_stay_within_the_width(here, line, columns):
    written(here / "attacked.json", audited("c" * 70 + "f" * 30))
    out = run(*line.split(), COLUMNS=str(columns)).out
    assert out
    assert max(map(len, out.splitlines())) <= columns


def test_strings_of_a_report_are_inert(here):
    model = ModelInfo(
        path=HOSTILE, format=HOSTILE, sha256="ab" * 32, input_shape=(1,), n_outputs=2, n_parameters=1, ops={HOSTILE: 1}
    )
    data = PASSING.data.model_copy(update={"source": f"\n::error::{HOSTILE}"})
    hostile = PASSING.model_copy(update={"data": data, "command": HOSTILE, "model": model})
    path = here / f"{HOSTILE.replace('/', '')}.json"  # a line break is a letter of a file name
    written(path, hostile)
    other = written(
        here / "other.json", hostile.model_copy(update={"data": data.model_copy(update={"sha256": "0" * 64})})
    )
    runs = [
        run("gate", path, "--require", RULE, "--baseline", "good.json"),
        run("gate", "good.json", "--require", RULE, "--baseline", path),
        run("gate", "good.json", "--require", RULE, "--baseline", other),
        run("gate", "good.json", "--require", f"{HOSTILE} >= 0.9"),
        run("diff", path, path),
        run("diff", "good.json", other),
    ]
    assert [found.code for found in runs] == [0, 0, 2, 2, 0, 2]
    for found in runs:
        text = found.out + found.err
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())
        for line in text.splitlines():
            assert line.isprintable()


BLOCKED = ("torch", "onnx", "scipy", "highspy", "onnxruntime", "onnx2torch", "matplotlib", "torchvision")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("gate", "good.json", "--require", RULE, "--baseline", "bad.json", "--require", "drop <= 0"), 0),
        (("gate", "bad.json", "--require", RULE), 1),
        (("diff", "good.json", "bad.json", "--exit-code"), 1),
    ],
)
def test_neither_needs_networks_nor_solvers(here, line, code):
    script = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name.partition('.')[0] in {BLOCKED}:\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "from idl_audit.__main__ import main\n"
        "main()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, *line], capture_output=True, text=True, timeout=120, check=False
    )
    assert (found.returncode, found.stderr) == (code, "")
    blocked = subprocess.run(
        [sys.executable, "-c", script, "inspect", "x.onnx"], capture_output=True, text=True, check=False
    )
    assert "is blocked" in blocked.stderr
