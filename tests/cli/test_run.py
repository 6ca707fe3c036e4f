"""init writes a configuration that run can do; run is its steps in one report, judged at the end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands import certify as robustness
from idl_audit.commands.init import guess
from idl_audit.commands.shared import decider
from idl_audit.config.files import read_configuration
from idl_audit.report.json_text import from_json
from tests.shared.command_line import DATA, HOSTILE, MODEL, run
from tests.shared.gate_reports import audited, written
from tests.shared.lonely_samples import one_by_one

BASE = f"""
[defaults]
model = "{MODEL}"
data = "{DATA}"
bounds = "0,1"
eps = [0.01, 0.02]
limit = 5
"""


def configured(folder, text=""):
    (folder / "idl-audit.toml").write_text(BASE + text, encoding="utf-8")


def no_work(*_: object, **__: object) -> None:
    raise AssertionError("a sample was decided")


def test_one_report_has_what_the_commands_say(files):
    configured(files, '[run]\nsteps = "certify, sensitivity, bounds"\noutput = "out/r.json"\n')
    assert run("run", "-f", "json").code == 0
    report = from_json((files / "out/r.json").read_text(encoding="utf-8"))
    alone = {name: run(name, "-q", "-f", "json").report for name in ("certify", "sensitivity", "bounds")}
    assert report.command == "run"
    assert report.summary == alone["certify"].summary
    assert report.sensitivity == alone["sensitivity"].sensitivity
    assert report.threat_model == alone["certify"].threat_model
    assert [(b.block, b.eps, b.max_width) for b in report.bounds] == [
        (b.block, b.eps, b.max_width) for b in alone["bounds"].bounds
    ]
    assert {step.split(":")[0] for step in report.timing.steps} == {"certify", "sensitivity", "bounds"}
    assert report.gate is None


def test_statements_over_whole_ranges_are_a_step_with_a_table_of_its_own(files):
    asked = "[everywhere]\nabove = -1000\nmonotone = '3+'\nclass = 9\n[gate]\nrequire = 'everywhere >= 0.5'\n"
    configured(files, "max-nodes = 2\n[run]\nsteps = 'everywhere'\n" + asked)
    found = run("run", "-f", "json")
    texts = [one.text for one in found.report.everywhere.statements]
    assert texts == ["every output stays above -1000", "output 9 never falls while 3 rises"]
    assert found.report.gate.passed  # one of the two is proved
    alone = run("certify", MODEL, "--everywhere", "-f", "json", "--above", "-2000").report.everywhere
    assert [one.text for one in alone.statements] == ["every output stays above -2000", texts[1]]
    configured(files, "[run]\nsteps = 'certify'\n" + asked)
    found = run("run")
    assert found.code == 2
    assert "needs the step everywhere; add it to the steps" in found.err


def test_rules_at_the_end_decide_the_exit_code(files):
    configured(files, "[run]\nsteps = 'certify'\n[gate]\nrequire = ['certified_accuracy@0.02 >= 0.9']\n")
    assert run("run", "-o", "out/r.json").code == 0
    configured(files, "[run]\nsteps = 'certify'\n[gate]\nrequire = ['certified_accuracy@0.02 > 100 %']\n")
    found = run("run", "-o", "out/r.json", "--force")
    assert found.code == 1
    assert "The gate failed" in found.out
    report = from_json((files / "out/r.json").read_text(encoding="utf-8"))
    assert (report.gate.passed, report.status) == (False, "complete")
    assert run("gate", "out/r.json").code == 1


def test_a_baseline_is_read_before_any_work_and_compared_after_it(files, monkeypatch):
    configured(files, "[run]\nsteps = 'certify'\n")
    assert run("run", "-o", "base.json").code == 0
    rules = "[run]\nsteps = 'certify'\n[gate]\nrequire = 'drop <= 0'\nbaseline = 'base.json'\n"
    configured(files, rules)
    assert run("run", "-o", "out/r.json").code == 0
    found = run("run", "-o", "out/r.json", "--force", "--limit", "3")
    assert (found.code, found.out) == (2, "")
    assert "other samples" in found.err
    written_anyway = from_json((files / "out/r.json").read_text(encoding="utf-8"))
    assert written_anyway.data.n == 3
    text = (files / "base.json").read_text(encoding="utf-8")
    (files / "base.json").write_text(text.replace('"falsified": ', '"falsified": 1'))
    monkeypatch.setattr(robustness, "decide_all", no_work)
    assert run("run", "-o", "out/r.json").code == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[gate]\nrequire = 'certified_accuracy@0.03 >= 0.9'", "", ("0.03", "0.01, 0.02")),
        ("[gate]\nrequire = 'certified_accuracy >= 0.9'", "", ("needs a radius",)),
        ("[gate]\nrequire = 'certified_accuracy@0.02 >= 90'", "", ("'90 %'",)),
        ("[gate]\nrequire = 'drop <= 0.1'", "", ("baseline",)),
        ("[run]\nsteps = 'certify'\n[gate]\nrequire = 'norm_inf_S <= 1'", "", ("step sensitivity",)),
        ("[run]\nsteps = 'sensitivity'\n[gate]\nrequire = 'clean_accuracy >= 1'", "", ("needs verdicts",)),
        ("[gate]\nbaseline = 'base.json'", "", ("no rule", "--require")),
        ("[run]\nsteps = 'certify, attack'", "", ("one set of verdicts",)),
        ("[run]\nsteps = 'certfy'", "", ("'certfy'", "certify")),
        ("[run]\nreports = ['r.docx']", "", ("r.docx", ".html")),
        ("[run]\nreports = ['nowhere/r.html']", "", ("nowhere",)),
        ("[run]\noutput = 'nowhere/r.json'", "", ("nowhere",)),
        ("[certify]\nmethod = 'foo'", "", ("'foo'", "interval")),
        ("[attack]\nfraction = 2", "--steps attack", ("fraction", "at most 1")),
        ("[bounds]\nsparse = 3", "--steps bounds,certify", ("one threat model", "sparse")),
        ("[bounds]\ncardinality = 3", "--steps bounds,certify", ("one threat model", "sparse")),
        ("[bounds]\nsparse = 3\ncardinality = 3", "--steps bounds", ("sparse and cardinality", "leave")),
        ("[sensitivity]\nstate-bounds = 'linear'", "", ("state-bounds", "eps")),
        ("", "--resume", ("--resume", "-o")),
        ("", "-c missing.toml", ("missing.toml", "idl-audit init")),
        ("", "--steps ,", ("--steps",)),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(files, monkeypatch, text, line, words):
    configured(files, text)
    monkeypatch.setattr(robustness, "decide_all", no_work)
    found = run("run", *line.split())
    assert (found.code, found.out) == (2, ""), found.err
    assert found.err.count("\n") == 1
    for word in words:
        assert word in found.err


def test_without_a_configuration_init_is_named(files):
    found = run("run")
    assert found.code == 2
    assert "idl-audit init" in found.err


def test_attacks_are_a_step_too(files):
    configured(files, "[attack]\nmethod = 'sign'\nsparse = 5\nsave = 'out/adv.npz'\n")
    report = run("run", "--steps", "attack", "-e", "0.3", "-f", "json").report
    assert report.threat_model.k == 5
    assert report.artifacts == ("out/adv.npz",)
    assert report.summary.per_eps[0].falsified > 0


def test_attacks_are_those_of_the_command(files):
    configured(files, "[attack]\nmethod = 'random'\n")
    line = ("-e", "0.5", "-f", "json", "-q")
    found, alone = run("run", "--steps", "attack", *line).report, run("attack", *line).report
    changed = [result.adversarial for sample in found.samples for result in sample.results]
    assert any(one is not None and one.l0 > 32 for one in changed), "random changes all inputs unless told otherwise"
    assert changed == [result.adversarial for sample in alone.samples for result in sample.results]


def test_a_local_sensitivity_says_its_radius(files):
    configured(files, "[sensitivity]\neps = 0.01\n")
    report = run("run", "--steps", "sensitivity", "--limit", "3", "-f", "json").report
    assert (report.sensitivity.kind, report.sensitivity.eps) == ("local", 0.01)
    assert len(report.sensitivity.samples) == 3


def test_an_interrupted_run_leaves_an_incomplete_report_that_fails_its_gate(files, monkeypatch):
    real, calls = decider.decide_sample, itertools.count()

    def decide(*arguments, **named):
        if next(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **named)

    one_by_one(monkeypatch)
    monkeypatch.setattr(decider, "decide_sample", decide)
    configured(files, "[gate]\nrequire = 'clean_accuracy >= 0'\n")
    found = run("run", "-o", "out/r.json")
    assert found.code == 130
    assert found.err.splitlines()[-2:] == [
        "written: out/r.json",
        "interrupted: the same command with --resume goes on from here",
    ]
    report = from_json((files / "out/r.json").read_text(encoding="utf-8"))
    assert (report.status, report.gate.passed) == ("incomplete", False)
    assert report.sensitivity is not None
    assert run("gate", "out/r.json").code == 1


def eps_of(*args, **env):
    found = run("certify", *args, "--limit", "1", "--method", "interval", "-f", "json", **env)
    return [point.text for point in found.report.threat_model.eps], found.err


def test_the_command_line_stands_before_the_environment_and_that_before_the_file(files):
    configured(files)
    note = "note: defaults are taken from idl-audit.toml\n"
    assert eps_of() == (["0.01", "0.02"], note)
    assert eps_of(IDL_AUDIT_CERTIFY_EPS="0.03") == (["0.03"], note)
    assert eps_of("-e", "0.04", IDL_AUDIT_CERTIFY_EPS="0.03") == (["0.04"], note)
    assert eps_of("-q")[1] == ""
    (files / "idl-audit.toml").unlink()
    assert eps_of(MODEL, "-d", DATA, IDL_AUDIT_CERTIFY_EPS="0.03") == (["0.03"], "")


def test_code_is_never_run_because_of_a_file_or_the_environment(files):
    line = ("convert", "module.pt", "-o", "out/x.npz", "--input-shape", "1,3")
    for name in ("IDL_AUDIT_CONVERT_ALLOW_CODE_EXECUTION", "IDL_AUDIT_ALLOW_CODE_EXECUTION"):
        found = run(*line, **{name: "1"})
        assert found.code == 2
        assert "would run code" in found.err
    configured(files, "[run]\nallow-code-execution = true\n")
    assert "never taken from a file" in run("run").err
    assert run(*line, "--allow-code-execution").code == 2  # and here it is the configuration that is refused


def test_a_property_is_decided_beside_a_configuration(files):
    configured(files)
    found = run("certify", "small.onnx", "rule.vnnlib")
    assert (found.code, found.err) == (0, "note: defaults are taken from idl-audit.toml\n")
    assert run("certify", "small.onnx", "rule.vnnlib", "-e", "0.1").code == 2


def test_files_start_at_the_configuration_s_folder(files):
    folder = files / "project"
    folder.mkdir()
    for suffix in (".onnx", ".npz", ".onnx.data"):
        (folder / f"digits_mlp{suffix}").write_bytes(MODEL.with_name(f"digits_mlp{suffix}").read_bytes())
    assert run("init", "project/digits_mlp.onnx", "project/digits_mlp.npz", "-o", "project/idl-audit.toml").code == 0
    found = tomllib.loads((folder / "idl-audit.toml").read_text(encoding="utf-8"))
    assert found["defaults"]["model"] == "digits_mlp.onnx"
    assert run("run", "-c", "project/idl-audit.toml", "--limit", "3", "-q").code == 0
    assert (folder / "report.json").is_file()


def test_a_starter_is_commented_and_can_be_run(files):
    found = run("init", MODEL, DATA)
    assert (found.code, found.err) == (0, "")
    text = (files / "idl-audit.toml").read_text(encoding="utf-8")
    assert "98 of the first 100" in text
    assert text.count("#") > 10
    assert read_configuration(files / "idl-audit.toml").options("certify")["bounds"] == (0.0, 1.0)
    assert run("run", "--limit", "5").code == 0
    report = json.loads((files / "report.json").read_text(encoding="utf-8"))
    assert report["gate"]["passed"]
    assert [point["text"] for point in report["threat_model"]["eps"]] == ["1/255", "2/255", "4/255"]


def test_quietly_a_starter_is_written_and_a_model_looked_at_without_a_note(files):
    found = run("init", MODEL, DATA, "-q")
    assert (found.code, found.out, found.err) == (0, "", "")
    assert (files / "idl-audit.toml").is_file()
    assert run("init", MODEL, DATA, "-q").err.count("\n") == 1
    assert run("inspect", MODEL).err == "note: defaults are taken from idl-audit.toml\n"
    looked = run("inspect", MODEL, "-q")
    assert (looked.code, looked.err) == (0, "")
    assert "states" in looked.out


def test_a_starter_replaces_nothing_unless_told_to(files):
    (files / "idl-audit.toml").write_text("mine")
    found = run("init", MODEL, DATA)
    assert (found.code, found.out) == (2, "")
    assert "--force" in found.err
    assert (files / "idl-audit.toml").read_text() == "mine"
    assert run("init", MODEL, DATA, "--force").code == 0
    assert read_configuration(files / "idl-audit.toml")


def test_samples_may_be_named_as_in_every_other_command(files):
    assert run("init", MODEL, "-d", DATA, "-o", "a.toml").code == 0
    assert run("init", MODEL, DATA, "-o", "b.toml").code == 0
    assert (files / "a.toml").read_text() == (files / "b.toml").read_text()
    assert "twice" in run("init", MODEL, DATA, "-d", "no_labels.npz", "-o", "c.toml").err


@pytest.mark.parametrize("data", [(), ("no_labels.npz",)])
def test_a_starter_without_labels_asks_for_the_sensitivity(files, data):
    assert run("init", MODEL, *data).code == 0
    assert run("run", "-q").code == 0
    assert from_json((files / "report.json").read_text(encoding="utf-8")).sensitivity is not None


def test_names_of_files_are_quoted(files):
    name = f"{HOSTILE.replace('/', '')}\"'\\\n[gate]\nrequire = 1\n#.npz"
    (files / name).write_bytes((files / "good.npz").read_bytes())
    assert run("init", MODEL, name).code == 0
    found = read_configuration(Path("idl-audit.toml"))
    assert found.options("certify")["data"] == Path(name)
    assert found.options("gate")["require"][0].startswith("clean_accuracy")


@pytest.mark.parametrize(
    ("lo", "hi", "whole", "bounds", "first"),
    [
        (0.0, 1.0, False, "0,1", "1/255"),
        (0.0, 255.0, True, "0,255", "1"),
        (-1.0, 0.9, False, "-1,1", "2/255"),
        (-2.1, 2.6, False, None, "0.01"),
        (0.0, 255.5, False, None, "1"),
        (3.0, 3.0, True, "0,255", "1"),
        (-7.0, -7.0, True, None, "0.01"),
    ],
)
def test_the_guess_follows_the_range_of_the_data(lo, hi, whole, bounds, first):
    found = guess(lo, hi, whole=whole)
    assert (found.bounds, found.eps.split(",")[0]) == (bounds, first)


def test_bytes_are_taken_for_bytes(files):
    with np.load(DATA) as archive:
        np.savez("bytes8.npz", inputs=(archive["inputs"] * 255).round().astype(np.uint8), labels=archive["labels"])
    assert run("init", MODEL, "bytes8.npz").code == 0
    text = (files / "idl-audit.toml").read_text(encoding="utf-8")
    assert 'bounds = "0,255"' in text
    assert '# scale = "1/255"' in text


def test_a_report_of_another_audit_is_no_baseline(files, monkeypatch):
    written(files / "base.json", audited())
    configured(files, "[gate]\nrequire = 'drop <= 0'\nbaseline = 'base.json'\n")
    found = run("run", "--limit", "2")
    assert (found.code, found.out) == (2, "")
    assert "other data" in found.err


@pytest.mark.parametrize("name", ["run", "certify"])
def test_a_reader_that_went_away_leaves_a_whole_report_and_no_journal(files, name):
    """As in `idl-audit run | head -1`; the journal is for runs whose report is not written."""
    rule = "[gate]\nrequire = 'certified_accuracy@0.01 > 100 %'\n"
    configured(files, f"[run]\nsteps = 'certify'\nreports = ['out/r.md']\n{rule}")
    line = [sys.executable, "-m", "idl_audit", name, "-o", "out/r.json", "-e", "0.01", "--limit", "2", "-q"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (1 if name == "run" else 0, "")
    assert from_json((files / "out/r.json").read_text(encoding="utf-8")).status == "complete"
    further = ["r.md"] if name == "run" else []
    assert sorted(path.name for path in (files / "out").iterdir()) == ["r.json", *further]


@pytest.mark.slow
def test_a_killed_run_goes_on_from_the_samples_done(files):
    configured(files, "[run]\nsteps = 'certify, sensitivity'\noutput = 'out/r.json'\n")
    journal = files / "out/r.json.journal"
    line = [sys.executable, "-m", "idl_audit", "run", "-q", "--limit", "30", "-e", "0.03,0.05"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while not (journal.is_file() and journal.read_bytes().count(b"\n") > 5) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    done = journal.read_bytes().count(b"\n") - 1  # its first line says whose journal it is
    assert not (files / "out/r.json").exists()
    assert run("run", "--limit", "30", "-e", "0.03,0.05", "--resume", "-q").code == 0
    report = from_json((files / "out/r.json").read_text(encoding="utf-8"))
    assert [sample.index for sample in report.samples] == list(range(30))
    assert all(entry.n == 30 for entry in report.summary.per_eps)
    assert any(f"{done} of 30 samples" in entry.message for entry in report.diagnostics)
    assert not journal.exists()
    whole = run("run", "--limit", "30", "-e", "0.03,0.05", "-q", "-f", "json", "-o", "out/whole.json")
    assert whole.code == 0
    assert from_json((files / "out/whole.json").read_text(encoding="utf-8")).summary == report.summary
