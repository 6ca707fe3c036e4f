"""Queries that were once answered wrongly, or with an internal error."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from idl_audit.cli.vnnlib import run
from tests.shared.solver_cases import model, network, one, query, save

RELU = model([one("Relu")])
REAL = network("N", element="real")


def said(folder: Path, text: str, models: onnx.ModelProto | dict[str, onnx.ModelProto], *more: str) -> list[str]:
    path, files = save(folder, text, models if isinstance(models, dict) else {"N": models})
    flags = [f"--network={name}={file}" for name, file in files.items()]
    found = run(["verify", str(path), *flags, "--timeout", "4", *more], apart=False)
    assert found.code == 0, found.err
    return found.out.splitlines()


def decimal(value: float) -> str:
    with localcontext() as context:
        context.prec = 400
        return f"{Decimal(value):f}"


@pytest.mark.parametrize("value", [1 + 2.0**-30, 2.0**-160])
def test_a_real_input_that_is_no_float32_keeps_its_number(value: float, tmp_path: Path) -> None:
    fixed, near = f"(assert (== X[0] {decimal(value)}))", decimal(float(np.float32(value)))
    assert said(tmp_path, query(f"{fixed}(assert (> Y[0] {near}))", declared=REAL), RELU)[0] == "sat"
    assert said(tmp_path, query(f"{fixed}(assert (<= Y[0] {near}))", declared=REAL), RELU)[0] == "unsat"


def test_a_real_input_beyond_float32_is_no_error(tmp_path: Path) -> None:
    text = query(f"(assert (== X[0] 1{'0' * 40}.0))(assert (> Y[0] 1.0))", declared=REAL)
    assert said(tmp_path, text, RELU)[0] in ("sat", "unknown")


def test_an_output_that_may_be_no_number_may_differ_from_itself(tmp_path: Path) -> None:
    zero = model([one("Mul", "x x", "s"), one("Mul", "x x", "t"), one("Sub", "s t")])
    for text in ("(!= Y[0] Y[0])", "(!= (- (* X[0] X[0]) (* X[0] X[0])) (- (* X[0] X[0]) (* X[0] X[0])))"):
        assert said(tmp_path, query(f"(assert {text})"), zero)[0] != "unsat"
    below = "(assert (and (>= X[0] -2.0) (<= X[0] -1.5)))"
    assert said(tmp_path, query(f"{below}(assert (!= Y[0] Y[0]))"), model([one("Log")]))[0] != "unsat"
    assert said(tmp_path, query(f"{below}(assert (!= Y[0] Y[0]))"), model([one("Exp")]))[0] == "unsat"
    assert said(tmp_path, query("(assert (!= X[0] X[0]))"), RELU)[0] == "unsat"
    assert said(tmp_path, query("(assert (!= Y[0] Y[0]))", declared=REAL), zero)[0] == "unsat"


def test_a_constant_that_floats_round_is_no_real_number(tmp_path: Path) -> None:
    third = model(
        [one("Div", "a b", "c"), one("Relu", "x", "r"), one("Add", "c r")],
        constants={"a": np.float32([1]), "b": np.float32([3])},
    )
    text = f"(assert (== X[0] 0.0))(assert (== Y[0] {decimal(float(np.float32(1 / 3)))}))"
    assert said(tmp_path, query(text, declared=REAL), third)[0] == "unknown"
    square = model(
        [one("Mul", "a a", "c"), one("Relu", "x", "r"), one("Add", "c r")], constants={"a": np.float32([1 + 2**-23])}
    )
    more = f"(assert (== X[0] 0.0))(assert (> Y[0] {decimal(1 + 2.0**-22)}))"
    assert said(tmp_path, query(more, declared=REAL), square)[0] == "unknown"
    half = model(
        [one("Div", "a b", "c"), one("Relu", "x", "r"), one("Add", "c r")],
        constants={"a": np.float32([1]), "b": np.float32([4])},
    )
    assert said(tmp_path, query("(assert (== X[0] 0.0))(assert (== Y[0] 0.25))", declared=REAL), half)[0] == "sat"


def test_the_values_of_a_real_assignment_are_exact_where_the_network_has_such(tmp_path: Path) -> None:
    weights = np.float32([[0.1], [0.3]])
    gemm = model([one("MatMul", "x w")], inputs={"x": [1, 2]}, outputs={"y": (1, [1, 1])}, constants={"w": weights})
    text = query(
        "(assert (and (== X[0,0] 0.7) (== X[0,1] 0.9)))(assert (> Y[0,0] 0.1))",
        declared=network("N", element="real", x="[1,2]", y="[1,1]"),
    )
    *_, y = said(tmp_path, text, gemm)
    a, b = (Fraction(float(value)) for value in weights[:, 0])
    assert Fraction(y) == Fraction(7, 10) * a + Fraction(9, 10) * b


def test_a_box_of_doubles_between_two_float32_numbers_has_points(tmp_path: Path) -> None:
    double = model([one("Relu")], kind=TensorProto.DOUBLE)
    bounds = "(and (>= X[0] 1.00000000001) (<= X[0] 1.00000000002))"
    answer = said(tmp_path, query(f"(assert {bounds})", declared=network("N", element="float64")), double)
    assert answer[0] == "sat"
    assert 1.00000000001 <= float(answer[2]) <= 1.00000000002


@pytest.mark.parametrize("assertion", ["(>= X[0] {})", "(== X[0] {})", "(>= (* X[0] {}) 1.0)", "(<= Y[0] {})"])
def test_a_real_number_beyond_float64_is_no_internal_error(assertion: str, tmp_path: Path) -> None:
    text = query(f"(assert {assertion.format('1' + '0' * 400 + '.0')})", declared=REAL)
    assert said(tmp_path, text, RELU)[0] in ("sat", "unknown")


@pytest.mark.parametrize("hidden", ["h", "side"])
def test_hidden_tensors_beside_the_outputs_do_not_make_networks_differ(hidden: str, tmp_path: Path) -> None:
    made = model([one("Neg", "x", "h"), one("Abs", "h", "side"), one("Relu", "h")])
    declared = (
        f'(declare-network A (declare-input XA float32 [1]) (declare-hidden HA float32 [1] "{hidden}") '
        f"(declare-output YA float32 [1])) {network('B', more='(equal-to A)')}"
    )
    assert said(tmp_path, query("(assert (> YA[0] YB[0]))", declared=declared), {"A": made})[0] == "sat"


@pytest.mark.parametrize("seconds", ["inf", "1e300", "1e18"])
def test_time_limits_may_be_longer_than_systems_wait(seconds: str, tmp_path: Path) -> None:
    path, files = save(tmp_path, query("(assert (<= Y[0] 0.0))"), {"N": RELU})
    assert run(["verify", str(path), f"--network=N={files['N']}", "--timeout", seconds]).out.startswith("sat\n")


def test_roundings_beyond_what_is_compared_are_no_error(tmp_path: Path) -> None:
    gelu = model([one("Gelu")], opset=20)
    text = query(
        "(assert (and (>= X[0] 1.0) (<= X[0] 3.0)))"
        "(assert (and (>= Y[0] (- (+ Y[0] 16777216.0) 16777216.0)) (< Y[0] -1.0)))"
    )
    assert said(tmp_path, text, gelu)[0] in ("unsat", "unknown")


def test_assignments_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, files = save(tmp_path, query("(assert (<= Y[0] 0.0))"), {"N": RELU})
    flags = ["verify", str(path), f"--network=N={files['N']}", "--serialise-assignments", str(tmp_path / "out")]

    def full(*of: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    found = run(flags, apart=False)
    assert (found.out, found.code) == ("", 2)
    assert list((tmp_path / "out").glob("*.pb")) == []
