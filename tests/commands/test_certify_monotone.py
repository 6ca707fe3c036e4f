"""certify --monotone from files to a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.reading import parse_report
from tests.shared.command_line import Run, run
from tests.shared.pairs import drawn, onnx_chain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("monotone")
    rng = np.random.default_rng(3)
    weights, biases = drawn(rng, (4, 8, 8, 1))
    onnx_chain(found / "rises.onnx", [np.abs(w) for w in weights], biases)
    onnx_chain(found / "any.onnx", weights, biases)
    three, ends = drawn(rng, (4, 6, 3))
    onnx_chain(found / "three.onnx", three, ends)
    onnx_chain(found / "soft.onnx", three, ends, ending="Softmax")
    # class 0 gains all that the others lose
    onnx_chain(
        found / "gains.onnx",
        [np.eye(4), np.array([[1.0, 0, 0, 0], [-1.0, 1, 0, 0], [0, 0, 1, 0]])],
        [np.ones(4), np.zeros(3)],
        ending="Softmax",
    )
    np.savez(found / "d.npz", inputs=rng.random((4, 4)).astype(np.float32))
    return found


def certify(folder: Path, model: str, way: str, *more: object, eps: object = "0,0.1") -> Run:
    limits = ("--bounds", "0,1", "--max-nodes", 60, "-f", "json")
    return run("certify", folder / model, "-d", folder / "d.npz", "-e", eps, "--monotone", way, *limits, *more)


def words(found: Run) -> set[str]:
    assert found.code == 0, found.err
    return {result.verdict.value for sample in found.report.monotonicity.samples for result in sample.results}


def test_a_network_of_weights_that_are_not_negative_rises(folder: Path) -> None:
    for k in range(4):
        assert words(certify(folder, "rises.onnx", f"{k}+")) == {"certified"}
    found = certify(folder, "rises.onnx", "2-").report.monotonicity
    assert (found.input, found.direction, found.score, found.label) == (2, "-", "the output", None)
    for sample in found.samples:
        for result in sample.results:
            assert result.verdict == "falsified"
            assert result.found.low < result.found.high
            assert result.found.score_low < result.found.score_high
            assert result.found.linf <= result.eps + 1e-6


def test_the_whole_range_of_the_input_counts(folder: Path) -> None:
    report = certify(folder, "any.onnx", "1+").report
    assert report.threat_model.free == (1,)
    assert report.summary is None
    assert sum(entry.n for entry in report.monotonicity.per_eps) == 8


def test_a_class_is_named_where_there_are_several(folder: Path) -> None:
    assert words(certify(folder, "gains.onnx", "0+", "--class", 0)) == {"certified"}
    assert words(certify(folder, "gains.onnx", "0-", "--class", 0)) == {"falsified"}
    assert "IDL201" in {told.code for told in certify(folder, "gains.onnx", "0+", "--class", 0).report.diagnostics}
    for model, more, told in (
        ("three.onnx", (), "name it with --class, 0 to 2"),
        ("three.onnx", ("--class", 3), "0 to 2, not 3"),
        ("rises.onnx", ("--class", 0), "has one; leave it out"),
    ):
        found = certify(folder, model, "0+", *more)
        assert found.code == 2
        assert told in found.err
    assert words(certify(folder, "three.onnx", "0+", "--class", 1)) <= {"certified", "falsified", "unknown"}
    assert words(certify(folder, "soft.onnx", "0+", "--class", 1)) <= {"certified", "falsified", "unknown"}


def test_what_makes_no_sense_is_refused(folder: Path) -> None:
    for way in ("3", "+", "zebra+", "9+"):
        assert certify(folder, "rises.onnx", way).code == 2
    found = run("certify", folder / "rises.onnx", "-d", folder / "d.npz", "-e", 0.1, "--monotone", "1+")
    assert "--monotone needs the range" in found.err
    found = certify(folder, "rises.onnx", "1+", "--certificates", folder / "none")
    assert found.code == 2
    assert "--certificates" in found.err


def test_views_and_gate(folder: Path) -> None:
    report = folder / "r.json"
    assert certify(folder, "rises.onnx", "2+", "-o", report).code == 0
    assert "It is proved that the output never falls while input 2 rises" in run("report", report).out
    assert "monotonicity at eps 0.1" in run("report", report, "-f", "junit").out
    assert "Monotonicity" in run("report", report, "-f", "markdown").out
    assert run("gate", report, "--require", "monotone@0.1 >= 1").code == 0
    assert run("gate", report, "--require", "monotone@0 < 1").code == 1
    assert "has no monotonicity" in run("gate", "reports/digits_mlp.json", "--require", "monotone >= 1").err


def test_reports_that_contradict_themselves_are_refused(folder: Path) -> None:
    report = certify(folder, "rises.onnx", "2+").report
    document = json.loads(to_json(report))
    document["monotonicity"]["samples"][0]["results"][0] |= {
        "verdict": "unknown",
        "reason": "time_limit",
        "slope": None,
    }
    with pytest.raises(Exception, match="contradicts itself"):
        parse_report(json.dumps(document).encode(), Path("r.json"))
    document["monotonicity"]["per_eps"][0] |= {"certified": 3, "unknown": 1}
    assert parse_report(json.dumps(document).encode(), Path("r.json")) != report
    document["monotonicity"]["samples"].pop()
    with pytest.raises(Exception, match="contradicts itself"):
        parse_report(json.dumps(document).encode(), Path("r.json"))
    assert from_json(to_json(report)) == report
