"""IDL215: told where a verdict rests on errors of kernels that were measured with another version, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from idl_audit.implicit import kernels
from idl_audit.report.schema import Diagnostic
from tests.shared.command_line import gemm, network, run, weights

RULE = """; the first output is not far below the second one
(declare-const X_0 Real) (declare-const X_1 Real) (declare-const X_2 Real) (declare-const X_3 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real) (declare-const Y_2 Real)
(assert (>= X_0 0.1)) (assert (<= X_0 0.2)) (assert (>= X_1 0.1)) (assert (<= X_1 0.2))
(assert (>= X_2 0.1)) (assert (<= X_2 0.2)) (assert (>= X_3 0.1)) (assert (<= X_3 0.2))
(assert (<= Y_0 -1000))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks with a curve, with a kink, and with a norm, which has no bound; samples with their own classes."""
    monkeypatch.setattr(kernels, "VERSIONS", {"onnxruntime": "1.2.3", "torch": "0.1.2"})
    for op in ("Tanh", "Relu", "LpNormalization"):
        hidden = [helper.make_node("Tanh", ["g"], ["k"])] if op == "LpNormalization" else []
        nodes = [gemm(target="g"), *hidden, helper.make_node(op, ["k" if hidden else "g"], ["y"])]
        network(tmp_path / f"{op}.onnx", nodes, weights())
    inputs = np.random.default_rng(0).random((8, 4)).astype(np.float32)
    w = weights()
    np.savez(tmp_path / "d.npz", inputs=inputs, labels=(inputs @ w["w"] + w["b"]).argmax(axis=1))
    (tmp_path / "rule.vnnlib").write_text(RULE)
    return tmp_path


def told(folder: Path, op: str, *question: str) -> list[Diagnostic]:
    files = [folder / word if word in ("d.npz", "rule.vnnlib") else word for word in question]
    done = run("certify", folder / f"{op}.onnx", *files, "-f", "json")
    assert done.code == 0, done.err
    if "-d" in question:
        assert any(one.results[0].verdict.value == "certified" for one in done.report.samples)
    else:
        assert done.report.properties[0].result == "unsat"
    return [entry for entry in done.report.diagnostics if entry.code == "IDL215"]


@pytest.mark.parametrize("question", [("-d", "d.npz", "-e", "0.0001"), ("rule.vnnlib",)])
def test_a_verdict_on_a_curve_rests_on_what_was_measured(folder: Path, question: tuple[str, ...]) -> None:
    (entry,) = told(folder, "Tanh", *question)
    assert "kernels (tanh) were measured with onnxruntime 1.2, and " in entry.message
    assert "torch" not in entry.message
    assert told(folder, "Relu", *question) == []
    (entry,) = told(folder, "LpNormalization", *question)
    assert "kernels (rsqrt, square, tanh) were" in entry.message


def test_with_the_version_that_was_measured_nothing_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert told(folder, "Tanh", "-d", "d.npz", "-e", "0.0001") == []
