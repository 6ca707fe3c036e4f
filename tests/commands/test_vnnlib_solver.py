"""The VNN-LIB 2 solver: exact small cases, what other tools get wrong, errors, and drawn queries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from idl_audit.cli.vnnlib import NAME, Said, main, run
from idl_audit.commands.capabilities import CAPABILITIES, operators
from idl_audit.commands.certify_property import audit_property
from idl_audit.commands.options.robustness import PropertyOptions
from idl_audit.commands.shared.answers import Answer
from idl_audit.commands.shared.networks import OpenNetwork, open_networks
from idl_audit.commands.vnnlib import number_text, verify
from idl_audit.data.vnnlib2.evaluation import holds
from idl_audit.data.vnnlib2.reader import read_specification
from idl_audit.data.vnnlib2.syntax import Specification
from idl_audit.decide.ladder import Options, decide_query
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import onnxruntime_network
from idl_audit.implicit.as_written import as_written
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.proof.float_margins import FloatMargins
from idl_audit.values.arrays import AnyArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import DataError, InvalidInputError, ModelFileError, OptionError
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Verdict
from tests.shared.drawn_queries import STEP, drawn_query
from tests.shared.drawn_queries import network as drawn_network
from tests.shared.solver_cases import model, network, one, query, save

SECONDS = 20.0


def answer_of(
    folder: Path, text: str, models: Mapping[str, onnx.ModelProto] | onnx.ModelProto, *, seconds: float = SECONDS
) -> Answer:
    path, files = save(folder, text, {"N": models} if isinstance(models, onnx.ModelProto) else models)
    return verify(read_specification(path), files, Options(), Budget.of(seconds))


RELU = model([one("Relu")])
IDENTITY = model([one("Identity")])
TENTH = model([one("Mul", "x a")], constants={"a": np.float32([0.1])})
BOUNDED = "(assert (and (>= X[0] 0.0) (<= X[0] 1.0)))"
REAL = network("N", element="real")


def sized(shape: str, y: str | None = None, element: str = "float32") -> str:
    return network("N", element=element, x=shape, y=y or shape)


# --- exact small cases ------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[str, onnx.ModelProto, str]] = {
    "a relu is not below 0": (query("(assert (< Y[0] 0.0))"), RELU, "unsat"),
    "a relu is 0 somewhere": (query("(assert (<= Y[0] 0.0))"), RELU, "sat"),
    "nor is it for reals without bounds": (query("(assert (< Y[0] 0.0))", declared=REAL), RELU, "unsat"),
    "a real input without a bound may be large": (query("(assert (> Y[0] 1000.0))", declared=REAL), RELU, "sat"),
    "without an upper bound": (query("(assert (and (>= X[0] 2.0) (> Y[0] 100000.0)))"), IDENTITY, "sat"),
    "not above its end": (query(f"{BOUNDED}(assert (> Y[0] 1.0))"), IDENTITY, "unsat"),
    "but at its end": (query(f"{BOUNDED}(assert (>= Y[0] 1.0))"), IDENTITY, "sat"),
    "not above its end, of reals": (query(f"{BOUNDED}(assert (> Y[0] 1.0))", declared=REAL), IDENTITY, "unsat"),
    "decimals are exact reals": (
        query("(assert (<= X[0] 0.1))(assert (> Y[0] 0.1))", declared=REAL),
        IDENTITY,
        "unsat",
    ),
    "a point of a real decimal": (query("(assert (== X[0] 0.1))(assert (== Y[0] 0.1))", declared=REAL), RELU, "sat"),
    "decimals are floats": (query("(assert (== X[0] 0.227272727))(assert (> Y[0] 0.0))"), RELU, "sat"),
    "not equal": (query("(assert (== X[0] 1.0))(assert (!= Y[0] 1.0))"), IDENTITY, "unsat"),
    "not equal elsewhere": (query(f"{BOUNDED}(assert (!= Y[0] 1.0))"), IDENTITY, "sat"),
    "an empty set": (query("(assert (<= X[0] 0.0))(assert (>= X[0] 1.0))"), RELU, "unsat"),
    "nothing but inputs": (query("(assert (<= X[0] 0.0))"), RELU, "sat"),
    "inputs alone, that contradict each other": (
        query("(assert (<= (+ X[0] 1.0) 0.0))(assert (>= X[0] 0.0))"),
        RELU,
        "unsat",
    ),
    "floats absorb": (
        query("(assert (== X[0] 1.0))(assert (== (- (+ Y[0] 100000000.0) 100000000.0) 0.0))"),
        RELU,
        "sat",
    ),
    "reals do not": (
        query("(assert (== X[0] 1.0))(assert (== (- (+ Y[0] 100000000.0) 100000000.0) 0.0))", declared=REAL),
        RELU,
        "unsat",
    ),
    "and know 1": (
        query("(assert (== X[0] 1.0))(assert (== (- (+ Y[0] 100000000.0) 100000000.0) 1.0))", declared=REAL),
        RELU,
        "sat",
    ),
    "a held input is no reason to round, for reals": (
        query("(assert (and (== X[0] 3.0) (== Y[0] 0.300000011920928955078125)))", declared=REAL),
        TENTH,
        "unsat",
    ),
    "whose product is exact": (
        query("(assert (and (== X[0] 3.0) (== Y[0] 0.300000004470348358154296875)))", declared=REAL),
        TENTH,
        "sat",
    ),
    "and rounded for floats": (
        query("(assert (and (== X[0] 3.0) (== Y[0] 0.300000011920928955078125)))"),
        TENTH,
        "sat",
    ),
    "rows that rounding alone lets hold together": (
        query(
            "(assert (and (>= X[0] 0.0) (<= X[0] 1.0) (>= Y[0] 0.5) (< X[0] 0.49999)))",
        ),
        model([one("Add", "x a", "h"), one("Sub", "h a")], constants={"a": np.float32([1000])}),
        "sat",
    ),
    "and that do not for reals": (
        query("(assert (and (>= X[0] 0.0) (<= X[0] 1.0) (>= Y[0] 0.5) (< X[0] 0.49999)))", declared=REAL),
        model([one("Add", "x a", "h"), one("Sub", "h a")], constants={"a": np.float32([1000])}),
        "unsat",
    ),
    "a sum of floats is rounded": (
        query("(assert (== X[0] 16777216.0))(assert (== (+ Y[0] 1.0) Y[0]))"),
        RELU,
        "sat",
    ),
    "one of reals is not": (
        query("(assert (== X[0] 16777216.0))(assert (== (+ Y[0] 1.0) Y[0]))", declared=REAL),
        RELU,
        "unsat",
    ),
    "the first axis counts": (
        query(
            "(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (>= X[1,0] 2.0) (<= X[1,0] 3.0)))(assert (>= Y[0,0] 2.0))",
            declared=sized("[2,1]"),
        ),
        model([one("Relu")], inputs={"x": ["n", 1]}, outputs={"y": (TensorProto.FLOAT, ["n", 1])}),
        "unsat",
    ),
    "scalars have no index": (
        query("(assert (and (>= X 0.0) (<= X 1.0)))(assert (> Y 0.5))", declared=sized("[]")),
        model([one("Relu")], inputs={"x": []}, outputs={"y": (TensorProto.FLOAT, [])}),
        "sat",
    ),
    "alpha and beta of a Gemm": (
        query("(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0)))(assert (>= Y[0,0] 6.5))", declared=sized("[1,1]")),
        model(
            [one("Gemm", "x w b", alpha=3.0, beta=0.5)],
            inputs={"x": [1, 1]},
            outputs={"y": (TensorProto.FLOAT, [1, 1])},
            constants={"w": np.float32([[2]]), "b": np.float32([2])},
        ),
        "sat",
    ),
    "not only whole numbers": (
        query(f"{BOUNDED}(assert (and (> Y[0] 0.4) (< Y[0] 0.6)))"),
        model([one("Tanh")]),
        "sat",
    ),
    "values of a softmax": (
        query(
            "(assert (and (>= X[0] 0.0) (<= X[0] 1.0) (>= X[1] 0.0) (<= X[1] 1.0)))(assert (>= Y[0] 0.8))",
            declared=sized("[2]"),
        ),
        model([one("Softmax", axis=0)], inputs={"x": [2]}, outputs={"y": (TensorProto.FLOAT, [2])}),
        "unsat",
    ),
    "values of a softmax that there are": (
        query(
            "(assert (and (>= X[0] 0.0) (<= X[0] 1.0) (>= X[1] 0.0) (<= X[1] 1.0)))(assert (>= Y[0] 0.7))",
            declared=sized("[2]"),
        ),
        model([one("Softmax", axis=0)], inputs={"x": [2]}, outputs={"y": (TensorProto.FLOAT, [2])}),
        "sat",
    ),
    "whole numbers": (
        query(
            f"{BOUNDED}(assert (>= Y[0] 2))",
            declared="(declare-network N (declare-input X float32 [1]) (declare-output Y int64 [1]))",
        ),
        model([one("Cast", to=TensorProto.INT64)], outputs={"y": (TensorProto.INT64, [1])}),
        "unsat",
    ),
    "truth values": (
        query(
            f"{BOUNDED}(assert (== Y[0] 0))",
            declared="(declare-network N (declare-input X float32 [1]) (declare-output Y bool [1]))",
        ),
        model([one("GreaterOrEqual", "x z")], outputs={"y": (TensorProto.BOOL, [1])}, constants={"z": np.float32([0])}),
        "unsat",
    ),
    "what does not depend on the inputs": (
        query(
            "(assert (!= Y[0] 2))",
            declared="(declare-network N (declare-input X float32 [2]) (declare-output Y int64 [1]))",
        ),
        model([one("Shape")], inputs={"x": [2]}, outputs={"y": (TensorProto.INT64, [1])}),
        "unsat",
    ),
    "a polynomial of outputs": (query(f"{BOUNDED}(assert (>= (* Y[0] Y[0]) 1.1))"), RELU, "unsat"),
    "a polynomial of outputs at its end": (query(f"{BOUNDED}(assert (>= (* Y[0] Y[0]) 1.0))"), RELU, "sat"),
    "doubles": (
        query(f"{BOUNDED}(assert (> Y[0] 1.0000000001))", declared=network("N", element="float64")),
        model([one("Relu")], kind=TensorProto.DOUBLE),
        "unsat",
    ),
    "a disjunction": (query(f"{BOUNDED}(assert (or (> Y[0] 1.5) (< Y[0] -0.5) (== Y[0] 0.5)))"), RELU, "sat"),
}


@pytest.mark.parametrize("name", CASES)
def test_small_queries_have_the_right_answer(name: str, tmp_path: Path) -> None:
    text, network_, expected = CASES[name]
    found = answer_of(tmp_path, text, network_)
    assert found.word == expected, found.remarks


def test_an_assignment_has_every_variable_and_satisfies_the_query(tmp_path: Path) -> None:
    declared = (
        '(declare-network N (declare-input X float32 [1]) (declare-hidden H float32 [1] "h") '
        "(declare-output Y float32 [1]))"
    )
    network_ = model([one("Add", "x a", "h"), one("Relu", "h")], constants={"a": np.float32([0.5])})
    found = answer_of(
        tmp_path, query("(assert (and (<= X[0] 1.0) (> H[0] 1.25) (> Y[0] 0.0)))", declared=declared), network_
    )
    assert found.word == "sat"
    x, h, y = (float(found.assignment[name][0]) for name in "XHY")
    assert (x + 0.5, max(h, 0.0)) == (h, y)
    assert h > 1.25


def test_hidden_tensors_within_a_chain_that_is_one_activation_keep_their_values(tmp_path: Path) -> None:
    declared = (
        '(declare-network N (declare-input X float32 [1]) (declare-hidden S float32 [1] "s") '
        "(declare-output Y float32 [1]))"
    )
    silu = model([one("Sigmoid", "x", "s"), one("Mul", "x s")])
    assert answer_of(tmp_path, query(f"{BOUNDED}(assert (< S[0] 0.49))", declared=declared), silu).word == "unsat"
    assert answer_of(tmp_path, query(f"{BOUNDED}(assert (> S[0] 0.73))", declared=declared), silu).word == "sat"


# --- several networks -------------------------------------------------------------------------------------------------

RISING = model([one("Mul", "x a")], constants={"a": np.float32([2])})


def pair(relation: str = "") -> str:
    return f"{network('A')} {network('B', more=relation)}"


def test_a_network_is_monotone_against_itself(tmp_path: Path) -> None:
    bounds = "(assert (and (>= XA[0] 0.0) (<= XA[0] 1.0) (<= XB[0] 1.0) (<= XA[0] XB[0])))"
    text = query(f"{bounds}(assert (> YA[0] (+ YB[0] 0.001)))", declared=pair("(equal-to A)"))
    assert answer_of(tmp_path, text, {"A": RISING}).word == "unsat"
    falling = query(f"{bounds}(assert (< YA[0] (- YB[0] 1.0)))", declared=pair("(equal-to A)"))
    assert answer_of(tmp_path, falling, {"A": RISING}).word == "sat"


def test_networks_of_other_versions_are_compared_where_their_operators_mean_the_same(tmp_path: Path) -> None:
    older = model([one("Mul", "x a")], constants={"a": np.float32([2])}, opset=15)
    text = query(
        "(assert (and (>= XA[0] 0.0) (<= XA[0] 1.0) (== XA[0] XB[0])))(assert (> YA[0] (+ YB[0] 0.5)))", declared=pair()
    )
    assert answer_of(tmp_path, text, {"A": RISING, "B": older}).word == "unsat"
    other = model([one("ReduceSum", "x", axes=[0], keepdims=1)], opset=11)
    again = model([one("ReduceSum", "x r", keepdims=1)], constants={"r": np.int64([0])})
    found = answer_of(tmp_path, text, {"A": again, "B": other})
    assert found.word == "unknown"
    assert "ReduceSum" in found.remarks[0]


def test_tied_inputs_are_one(tmp_path: Path) -> None:
    text = query(
        "(assert (and (>= XA[0] 0.0) (<= XA[0] 1.0) (== XA[0] XB[0])))(assert (!= YA[0] YB[0]))",
        declared=pair("(equal-to A)").replace("float32", "real"),
    )
    assert answer_of(tmp_path, text, {"A": RELU}).word == "unsat"


# --- errors -----------------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[str, Sequence[str], type[InvalidInputError], str]] = {
    "too few models": (query("(assert (<= Y[0] 0.0))"), (), OptionError, "declares N, and no model was given"),
    "too many": (query("(assert (<= Y[0] 0.0))"), ("N", "M"), OptionError, "is not declared"),
    "one for a copy": (
        query("(assert (<= YA[0] 0.0))", declared=pair("(equal-to A)")),
        ("A", "B"),
        OptionError,
        "is equal to another one",
    ),
    "another type": (
        query("(assert (<= Y[0] 0.0))", declared=network("N", element="float64")),
        ("N",),
        DataError,
        "in .* it holds float32",
    ),
    "a type that nothing is proved in": (
        query("(assert (<= Y[0] 0.0))", declared=network("N", element="float16")),
        ("N",),
        DataError,
        "not sound for the declared type float16",
    ),
    "another shape": (
        query("(assert (<= Y[0,0] 0.0))", declared=sized("[1,1]")),
        ("N",),
        DataError,
        r"declared with the shape \(1, 1\)",
    ),
    "another shape of a hidden tensor": (
        query(
            "(assert (<= Y[0] 0.0))",
            declared='(declare-network N (declare-input X float32 [1]) (declare-hidden H float32 [1,1] "x")'
            " (declare-output Y float32 [1]))",
        ),
        ("N",),
        DataError,
        r"declared with the shape \(1, 1\), and .* \(1\)",
    ),
    "another number of inputs": (
        query(
            "(assert (<= Y[0] 0.0))",
            declared="(declare-network N (declare-input X float32 [1]) (declare-input Z float32 [1])"
            " (declare-output Y float32 [1]))",
        ),
        ("N",),
        DataError,
        "declares 2 inputs, and .* has 1",
    ),
    "no such hidden tensor": (
        query(
            "(assert (<= Y[0] 0.0))",
            declared='(declare-network N (declare-input X float32 [1]) (declare-hidden H float32 [1] "h")'
            " (declare-output Y float32 [1]))",
        ),
        ("N",),
        ModelFileError,
        "there is no tensor 'h'",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_does_not_fit_is_an_error_and_no_answer(name: str, tmp_path: Path) -> None:
    text, names, kind, message = ERRORS[name]
    path, files = save(tmp_path, text, dict.fromkeys(names, RELU))
    with pytest.raises(kind, match=message):
        verify(read_specification(path), files, Options(), Budget.of(SECONDS))
    flags = [part for name, file in files.items() for part in ("--network", f"{name}={file}")]
    said = run(["verify", str(path), *flags], apart=False)
    assert (said.out, said.code) == ("", 2)
    assert said.err.startswith("error: ")


def test_isomorphic_networks_have_the_same_operators(tmp_path: Path) -> None:
    path, files = save(
        tmp_path, query("(assert (<= YA[0] 0.0))", declared=pair("(isomorphic-to A)")), {"A": RELU, "B": RISING}
    )
    with pytest.raises(DataError, match="has other operators than"):
        open_networks(read_specification(path), files)


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_solver_says_its_name_and_version_and_answers_every_capability() -> None:
    assert run(["--name"]).out == f"{NAME}\n"
    assert run(["--version"]).out.count(".") == 2
    for capability, lines in CAPABILITIES.items():
        assert run(["supports", capability]).out.splitlines() == list(lines())
    assert run(["supports", "--multiple-inputs-output-theories"]).out == "SIO\nMIO\n"
    assert len(CAPABILITIES) == 11
    for wrong in ([], ["supports"], ["supports", "--nothing"], ["verify"], ["verify", "q", "--timeout", "0"]):
        said = run(wrong)
        assert (said.out, said.code) == ("", 2)


def test_operators_that_no_rounding_is_bounded_of_are_named_with_real_alone() -> None:
    named = operators()
    assert {"Relu", "Conv", "Equal", "Constant"} <= set(named)
    assert {"ReduceProd real", "LSTM"} <= set(named)
    plain = {line.split()[0] for line in named}
    assert plain >= {name for name in LOWERINGS if name not in ("Silu",)}


def test_assignments_are_printed_or_written(tmp_path: Path) -> None:
    path, files = save(tmp_path, query("(assert (and (>= X[0] 0.25) (<= X[0] 0.25)))"), {"N": RELU})
    flags = ["verify", str(path), "--network", f"N={files['N']}", "--timeout", "60"]
    said = run(flags, apart=False)
    assert said.out.splitlines() == ["sat", "X float32 [1]", "0.25", "Y float32 [1]", "0.25"]
    said = run([*flags, "--serialise-assignments", str(tmp_path / "out")], apart=False)
    assert said.out == "sat\n"
    stored = onnx.TensorProto()
    stored.ParseFromString((tmp_path / "out" / "Y.pb").read_bytes())
    assert stored.name == "Y"
    np.testing.assert_array_equal(numpy_helper.to_array(stored), np.float32([0.25]))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (np.float32(1e-8), "0.00000001"),
        (np.float32(1e20), "100000000000000000000.0"),
        (np.float64(0.1), "0.1"),
        (Fraction(1, 8), "0.125"),
        (Fraction(-3), "-3.0"),
        (Fraction(1, 3), "0." + "3" * 40),
        (np.bool_(True), "1"),
        (np.int64(-7), "-7"),
    ],
)
def test_numbers_are_written_as_queries_write_them(number: object, text: str) -> None:
    assert number_text(number) == text


def test_the_time_limit_holds_whatever_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, files = save(tmp_path, query("(assert (<= Y[0] 0.0))"), {"N": RELU})
    monkeypatch.setattr("idl_audit.cli.vnnlib._verified", lambda *asked: _asleep())
    with pytest.raises(SystemExit) as left:
        main(["verify", str(path), "--network", f"N={files['N']}", "--timeout", "0.5"])
    assert left.value.code == 0
    assert capsys.readouterr().out == "timed-out\n"


def test_an_answer_whose_proof_takes_too_long_is_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def verified(options: object, deadline: float, tell: Callable[[Said], None]) -> None:
        tell(Said("unsat\n", "no proof\n"))
        _asleep()

    path, files = save(tmp_path, query("(assert (< Y[0] 0.0))"), {"N": RELU})
    monkeypatch.setattr("idl_audit.cli.vnnlib._verified", verified)
    with pytest.raises(SystemExit) as left:
        main(["verify", str(path), "--network", f"N={files['N']}", "--timeout", "0.5"])
    assert (left.value.code, *capsys.readouterr()) == (0, "unsat\n", "no proof\n")


def _asleep() -> None:
    import time

    time.sleep(30)


def test_certify_reads_queries_of_one_network(tmp_path: Path) -> None:
    path, files = save(tmp_path, query(f"{BOUNDED}(assert (> Y[0] 1.5))"), {"N": RELU})
    report = audit_property(files["N"], path, PropertyOptions(time_limit=SECONDS))
    assert [entry.result for entry in report.properties] == ["unsat"]
    json.loads(report.model_dump_json())
    path, files = save(tmp_path, query(f"{BOUNDED}(assert (> Y[0] 0.5))"), {"N": RELU})
    (entry,) = audit_property(files["N"], path, PropertyOptions(time_limit=SECONDS)).properties
    assert entry.result == "sat"
    assert entry.witness is not None
    assert entry.witness.startswith("X float32 [1]\n")
    path, files = save(tmp_path, query("(assert (<= YA[0] 0.0))", declared=pair("(equal-to A)")), {"A": RELU})
    with pytest.raises(DataError, match="about 2 networks"):
        audit_property(files["A"], path, PropertyOptions())


def test_a_query_as_text_and_one_built_by_hand_have_the_same_answer(tmp_path: Path) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        made, (c, d) = drawn_network(rng), np.round(rng.normal(size=2), 2)
        bounds = " ".join(f"(>= X[0,{k}] -1.0) (<= X[0,{k}] 0.5)" for k in range(2))
        text = query(f"(assert (and {bounds} (<= Y[0,0] {c:.2f}) (>= Y[0,1] {d:.2f})))", declared=sized("[1,2]"))
        found = answer_of(tmp_path, text, made, seconds=10.0)
        graph = read_onnx(tmp_path / "N.onnx")
        model_, network_ = build_implicit(graph), onnxruntime_network(tmp_path / "N.onnx", graph)
        offsets = np.array([-float(np.float32(c)), float(np.float32(d))])
        rows = Conjunction(np.array([[1.0, 0.0], [0.0, -1.0]]), offsets)
        by_hand = Query(Box.between(np.full(2, -1.0), np.full(2, 0.5)), (rows,))
        result = decide_query(
            model_,
            network_,
            by_hand,
            Options(),
            budget=Budget.of(10.0),
            arithmetic=FloatMargins(as_written(graph), model_),
        )
        words = {Verdict.FALSIFIED: "sat", Verdict.CERTIFIED: "unsat"}
        assert words.get(result.verdict, found.word) == found.word


# --- drawn queries ----------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_no_verdict_contradicts_what_the_networks_do(seed: int, tmp_path: Path) -> None:
    contradicted(seed, tmp_path, seconds=2.0)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_no_verdict_of_many_contradicts_what_the_networks_do(seed: int, tmp_path: Path) -> None:
    contradicted(seed, tmp_path, seconds=2.0)


def contradicted(seed: int, folder: Path, *, seconds: float) -> None:
    """Check a verdict in float32: a sat one at its own assignment, another one at points of a grid and others."""
    rng = np.random.default_rng(seed)
    path, files = drawn_query(rng).written(folder)
    spec = read_specification(path)
    found = verify(spec, files, Options(), Budget.of(seconds))
    networks = open_networks(spec, files)
    if found.word == "sat":
        assert satisfied(spec, networks, {name: found.assignment[name] for name in _inputs(spec)})
    elif found.word == "unsat":
        for k in range(200):
            point = {}
            for name in _inputs(spec):
                grid = rng.integers(-6, 7, (1, 2)) * (STEP / 2) if k % 2 else rng.uniform(-1.5, 1.5, (1, 2))
                point[name] = grid.astype(np.float32)
            if k % 4 > 1:
                point = {name: next(iter(point.values())) for name in point}
            assert not satisfied(spec, networks, point)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_no_verdict_about_reals_contradicts_exact_arithmetic(seed: int, tmp_path: Path) -> None:
    contradicted_exactly(seed, tmp_path, seconds=2.0)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_no_verdict_of_many_about_reals_contradicts_exact_arithmetic(seed: int, tmp_path: Path) -> None:
    contradicted_exactly(seed, tmp_path, seconds=2.0)


def contradicted_exactly(seed: int, folder: Path, *, seconds: float) -> None:
    """Check a verdict about reals: networks whose numbers are on a grid are computed in fractions here."""
    rng = np.random.default_rng(seed)
    drawn = drawn_query(rng, "real")
    assume(all(made.graph.node[1].op_type != "Tanh" for made in drawn.models.values()))
    path, files = drawn.written(folder)
    spec = read_specification(path)
    found = verify(spec, files, Options(), Budget.of(seconds))
    if found.word == "sat":
        point = {name: list(found.assignment[name].reshape(-1)) for name in _inputs(spec)}
        assert satisfied_exactly(spec, drawn.models, point)
    elif found.word == "unsat":
        for k in range(150):
            point = {name: [Fraction(int(i), 4) for i in rng.integers(-6, 7, 2)] for name in _inputs(spec)}
            if k % 4 == 0:
                point = {name: next(iter(point.values())) for name in point}
            assert not satisfied_exactly(spec, drawn.models, point)


def satisfied_exactly(
    spec: Specification, models: Mapping[str, onnx.ModelProto], inputs: Mapping[str, list[Fraction]]
) -> bool:
    values: dict[str, list[Fraction]] = {}
    for one_ in spec.networks:
        made = models[one_.other if one_.relation == "equal-to" and one_.other else one_.name]
        x = inputs[one_.inputs[0].name]
        tensors = exact_tensors(made, x)
        values |= {one_.inputs[0].name: x, one_.outputs[0].name: tensors["y"]}
        values |= {hidden.name: tensors[hidden.onnx_name or ""] for hidden in one_.hidden}
    return holds(spec, lambda entry: values[entry[0]][entry[1]])


def exact_tensors(made: onnx.ModelProto, x: list[Fraction]) -> dict[str, list[Fraction]]:
    """Return h, r and y of a drawn network at a point."""
    weights = {one_.name: numpy_helper.to_array(one_) for one_ in made.graph.initializer}

    def layer(v: list[Fraction], w: AnyArray, b: AnyArray) -> list[Fraction]:
        return [
            sum((v[i] * Fraction(float(w[i, j])) for i in range(len(v))), Fraction(float(b[j]))) for j in range(len(b))
        ]

    h = layer(x, weights["w"], weights["b"])
    of = {
        "Relu": lambda k: max(h[k], Fraction(0)),
        "Abs": lambda k: abs(h[k]),
        "Sign": lambda k: Fraction((h[k] > 0) - (h[k] < 0)),
        "Mul": lambda k: h[k] * x[k],
        "Max": lambda k: max(h[k], x[k]),
    }[made.graph.node[1].op_type]
    r = [of(k) for k in range(2)]
    return {"h": h, "r": r, "y": layer(r, weights["v"], weights["c"])}


def _inputs(spec: Specification) -> list[str]:
    return [variable.name for one_ in spec.networks for variable in one_.inputs]


def satisfied(spec: Specification, networks: Sequence[OpenNetwork], inputs: Mapping[str, AnyArray]) -> bool:
    values = dict(inputs)
    for one_ in networks:
        values.update(one_.run(values))
    flat = {name: array.reshape(-1) for name, array in values.items()}
    return holds(spec, lambda entry: flat[entry[0]][entry[1]])
