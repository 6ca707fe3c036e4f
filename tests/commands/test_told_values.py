"""What is told of a query's assignment is read again as one, and inputs with initializers are inputs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.cli.vnnlib import Said, run
from idl_audit.commands.certify_property import audit_property
from idl_audit.commands.options.robustness import PropertyOptions
from idl_audit.data.vnnlib2.evaluation import holds
from idl_audit.data.vnnlib2.reader import read_specification
from tests.shared.solver_cases import model, network, one, query, save

THREE = model([one("Mul", "x a")], constants={"a": np.float32([3])})
REAL = network("N", element="real")
FREE = "(assert (and (>= X[0] -1000.0) (<= X[0] 1000.0)))"


def said(folder: Path, text: str, made: onnx.ModelProto, *more: str) -> Said:
    path, files = save(folder, text, {"N": made})
    return run(["verify", str(path), f"--network=N={files['N']}", "--timeout", "30", *more], apart=False)


def read_lines(out: str) -> dict[str, list[Fraction]]:
    """Return the variables that are printed behind `sat`."""
    found: dict[str, list[Fraction]] = {}
    word, *lines = out.splitlines()
    assert word == "sat"
    for line in lines:
        if line[0].isalpha():
            name = line.split()[0]
            found[name] = []
        else:
            found[name].append(Fraction(line))
    return found


def read_files(folder: Path) -> dict[str, list[Fraction]]:
    found = {}
    for path in folder.glob("*.pb"):
        stored = onnx.TensorProto()
        stored.ParseFromString(path.read_bytes())
        found[path.stem] = [Fraction(float(value)) for value in numpy_helper.to_array(stored).reshape(-1)]
    return found


OPEN = {
    "y in a short interval": "(assert (and (> Y[0] 0.3) (< Y[0] 0.30000000001)))",
    "y in a very short one": "(assert (and (> Y[0] 1.0) (< Y[0] 1.000000000001)))",
    "not equal": "(assert (!= Y[0] 1.0))",
    "half a line": "(assert (>= Y[0] 0.1))",
}


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("in_files", [False, True])
def test_what_holds_near_a_point_is_told_so_that_it_is_read_again(name: str, in_files: bool, tmp_path: Path) -> None:
    text = query(FREE + OPEN[name], declared=REAL)
    more = ("--serialise-assignments", str(tmp_path / "out")) if in_files else ()
    found = said(tmp_path, text, THREE, *more)
    assert found.err == ""
    values = read_files(tmp_path / "out") if in_files else read_lines(found.out)
    spec = read_specification(tmp_path / "query.vnnlib")
    assert holds(spec, lambda entry: values[entry[0]][entry[1]])
    assert in_files or values["Y"][0] == 3 * values["X"][0]


@pytest.mark.parametrize("in_files", [False, True])
def test_what_no_decimal_is_is_told_as_rounded(in_files: bool, tmp_path: Path) -> None:
    more = ("--serialise-assignments", str(tmp_path / "out")) if in_files else ()
    found = said(tmp_path, query("(assert (== Y[0] 1.0))", declared=REAL), THREE, *more)
    assert found.out.startswith("sat\n")
    assert "X[0] is 1/3 exactly" in found.err
    path, files = save(tmp_path, query("(assert (== Y[0] 1.0))", declared=REAL), {"N": THREE})
    report = audit_property(files["N"], path, PropertyOptions(time_limit=30.0))
    assert [told.code for told in report.diagnostics] == ["IDL509"]


def test_a_decimal_is_a_decimal_in_print_and_rounded_in_a_file(tmp_path: Path) -> None:
    text = query("(assert (== X[0] 0.1))", declared=REAL)
    assert read_lines(said(tmp_path, text, THREE).out) == {"X": [Fraction(1, 10)], "Y": [Fraction(3, 10)]}
    assert "X[0] is 1/10 exactly" in said(tmp_path, text, THREE, "--serialise-assignments", str(tmp_path / "out")).err


def test_outputs_without_an_exact_form_are_told_as_such(tmp_path: Path) -> None:
    found = said(tmp_path, query(f"{FREE}(assert (> Y[0] 0.6))", declared=REAL), model([one("Sigmoid")]))
    assert found.out.startswith("sat\n")
    assert "no exact form" in found.err


@pytest.mark.parametrize("declared", [REAL, network("N")])
def test_numbers_of_too_many_digits_are_unknown(declared: str, tmp_path: Path) -> None:
    large = "9" * 38
    product = f"(* {' '.join([large + '.5'] * 400)})"
    found = said(tmp_path, query(f"{FREE}(assert (<= Y[0] {product}))", declared=declared), THREE)
    assert (found.out, found.code) == ("unknown\n", 0)
    assert "write" in found.err


# --- inputs with initializers -----------------------------------------------------------------------------------------


def with_default(version: int = 9) -> onnx.ModelProto:
    """y = x + c, c an input that is 2 unless it is given."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "c", "y")]
    default = numpy_helper.from_array(np.float32([2]), "c")
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "g", values[:2], values[2:], [default])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=version)


def declared(more: str, version: str = "2.0") -> str:
    inputs = f"(declare-input X float32 [1]){more}"
    head = f"(vnnlib-version <{version}>)\n(declare-network N {inputs} (declare-output Y float32 [1]))\n"
    return head + "(assert (and (>= X[0] 0.0) (<= X[0] 1.0)))\n"


def test_an_input_with_an_initializer_must_be_declared(tmp_path: Path) -> None:
    found = said(tmp_path, declared("") + "(assert (>= Y[0] 2.0))", with_default())
    assert (found.out, found.code) == ("", 2)
    assert "declares 1 inputs" in found.err
    assert "(x, c)" in found.err


def test_and_may_have_any_value_then(tmp_path: Path) -> None:
    text = declared("(declare-input C float32 [1])") + "(assert (>= Y[0] 100.0))"
    values = read_lines(said(tmp_path, text, with_default()).out)
    assert values["X"][0] + values["C"][0] >= 100


@pytest.mark.parametrize(("limit", "word"), [("3.0", "sat"), ("3.0001", "unsat")])
def test_or_that_of_the_initializer(limit: str, word: str, tmp_path: Path) -> None:
    text = declared("(declare-input C float32 [1] initialized)", "2.1") + f"(assert (>= Y[0] {limit}))"
    found = said(tmp_path, text, with_default())
    assert found.out.splitlines()[0] == word
    if word == "sat":
        assert read_lines(found.out)["C"] == [2]


def test_what_has_no_initializer_is_not_initialized(tmp_path: Path) -> None:
    text = declared("(declare-input C float32 [1])", "2.1").replace("X float32 [1]", "X float32 [1] initialized")
    found = said(tmp_path, text, with_default())
    assert (found.out, found.code) == ("", 2)
    assert "has no initializer" in found.err


def test_weights_that_old_files_declare_as_inputs_are_weights(tmp_path: Path) -> None:
    found = said(tmp_path, declared("") + "(assert (> Y[0] 3.5))", with_default(version=3))
    assert found.out == "unsat\n"
