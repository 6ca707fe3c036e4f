"""The reports and networks that come with the code: valid, repeatable, and what their tables say."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from rich.console import Console

from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.terminal import render

ROOT = Path(__file__).resolve().parents[1]
MODELS = sorted((ROOT / "sample_models").glob("*.onnx"))
REPORTS = sorted((ROOT / "reports").glob("*.json"))

MEASURED = {"created", "timing", "seconds", "peak_mb", "environment", "tool"}
"""What another machine, another day or another version of a library changes."""

FROM_VERTICES = {"margin_found", "lower_bound"}
"""What depends on which vertex an LP solver ends at, where the LP had a part in the result."""


def name_of(path):
    return path.stem


@pytest.fixture
def sample_report(monkeypatch):
    """The function that made the reports, to be run in the folder where it was run."""
    spec = importlib.util.spec_from_file_location("sample_reports", ROOT / "benchmarks/sample_reports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    return module.sample_report


def repeatable(value):
    """Drop what is measured, and what an LP's vertex or a search in float32 decides."""
    if isinstance(value, list):
        return [repeatable(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    dropped = MEASURED
    if "verdict" in value and value.get("method") in (None, "lp", "branch"):
        dropped = MEASURED | FROM_VERTICES | ({"adversarial"} if value.get("method") else set())
    return {key: repeatable(entry) for key, entry in value.items() if key not in dropped}


def assert_close(found, expected, where="report"):
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_close(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_close(ours, theirs, f"{where}.{place}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6), where
    else:
        assert found == expected, where


def test_a_report_made_again_is_the_one_in_the_repository(sample_report):
    found = json.loads(to_json(sample_report("digits_mlp")))
    expected = json.loads((ROOT / "reports/digits_mlp.json").read_text(encoding="utf-8"))
    assert_close(repeatable(found), repeatable(expected))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_conv", "digits_resnet"])
def test_the_other_reports_made_again_have_the_same_verdicts(sample_report, name):
    """What branching decides within its time may differ from one machine to the next, but never contradicts."""
    found = sample_report(name, 6)
    expected = from_json((ROOT / f"reports/{name}.json").read_text(encoding="utf-8"))
    for ours, theirs in zip(found.samples, expected.samples[:6], strict=True):
        for mine, other in zip(ours.results, theirs.results, strict=True):
            verdicts = {mine.verdict.value, other.verdict.value}
            assert len(verdicts) == 1 or ("unknown" in verdicts and "branch" in (mine.method, other.method))


def test_each_sample_network_has_a_report():
    assert {name_of(path) for path in MODELS} <= {name_of(path) for path in REPORTS}


@pytest.mark.parametrize("path", REPORTS, ids=name_of)
def test_reports_fit_the_schema(path):
    report = from_json(path.read_text(encoding="utf-8"))
    assert report.status == "complete"
    for counts in report.summary.per_eps:
        assert counts.n == len(report.samples)


@pytest.mark.parametrize("path", REPORTS, ids=name_of)
def test_reports_name_no_folder_of_the_machine_that_made_them(path):
    assert str(Path.home()) not in path.read_text(encoding="utf-8")
    report = from_json(path.read_text(encoding="utf-8"))
    for name in (report.model.path, report.data.source):
        assert not Path(name).is_absolute()


@pytest.mark.parametrize("path", REPORTS, ids=name_of)
def test_the_text_beside_a_report_is_how_it_looks(path):
    text = io.StringIO()
    render(from_json(path.read_text(encoding="utf-8")), console=Console(file=text, width=120), verbose=True)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert "\n".join(lines) + "\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_each_sample_network_is_right_on_95_in_100_of_its_samples(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    with np.load(path.with_suffix(".npz")) as archive:
        inputs, labels = archive["inputs"], archive["labels"]
    assert len(inputs) == len(labels) == 400
    assert (inputs.min(), inputs.max()) == (0, 1)
    (outputs,) = session.run(None, {entry.name: inputs.reshape(len(inputs), *entry.shape[1:])})
    assert (outputs.argmax(axis=1) == labels).mean() >= 0.95
    assert path.with_name(f"{path.name}.data").is_file()
