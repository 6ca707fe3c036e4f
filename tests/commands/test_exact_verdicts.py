"""sat and falsified hold in exact arithmetic: rounding makes no counterexample, and decimals are put in exactly."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.certify_property import audit_property, witness_text
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.options.robustness import PropertyOptions, RobustnessOptions
from idl_audit.commands.shared.subject import open_subject
from idl_audit.commands.verify import verify
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.proof.exact.point import INTERVALS, RATIONALS, ExactNetwork, Opinion
from idl_audit.report.schema import PropertyReport, Report
from idl_audit.search.attacks import AttackOptions
from idl_audit.search.judge import MOST_DENIED, Judge
from idl_audit.values.box import Box, nearest_number
from idl_audit.values.query import Conjunction, Query
from tests.shared.implicit_models import node, proto


def network(folder: Path, weights: np.ndarray, *, relu: bool = True) -> Path:
    """Write y = relu(W u)."""
    nodes = [node("Gemm", "x w", "h"), node("Relu" if relu else "Identity", "h", "y")]
    path = folder / "n.onnx"
    onnx.save(proto(nodes, (1, len(weights)), {"w": weights.astype(np.float32)}), path)
    return path


def asked(folder: Path, model: Path, text: str, *, p: int, options: PropertyOptions | None = None) -> Report:
    names = [*(f"X_{i}" for i in range(p)), "Y_0"]
    path = folder / "p.vnnlib"
    path.write_text("\n".join([*(f"(declare-const {name} Real)" for name in names), text]))
    return audit_property(model, path, options or PropertyOptions(time_limit=30.0))


def one(report: Report) -> PropertyReport:
    (found,) = report.properties
    return found


def codes(report: Report) -> list[str]:
    return [told.code for told in report.diagnostics]


def unit(p: int) -> str:
    return "".join(f"(assert (>= X_{i} 0.0))(assert (<= X_{i} 1.0))" for i in range(p))


TENTHS = np.full((10, 1), 0.1)
"""Times ten: 1.0000000149 in exact arithmetic, at most; 1.0000001 where float32 adds them up."""


def test_a_point_that_float32_alone_calls_a_counterexample_is_none(tmp_path: Path) -> None:
    model = network(tmp_path, TENTHS)
    assert float(open_subject(model).original(np.ones((1, 10), np.float32))[0, 0]) >= 1.00000002
    for limit, told in (("1.00000002", ["IDL202"]), ("1.000000014901161194", ["IDL213", "IDL202"])):
        report = asked(tmp_path, model, unit(10) + f"(assert (>= Y_0 {limit}))", p=10)
        assert one(report).result == "unsat"
        assert codes(report) == told
    below = asked(tmp_path, model, unit(10) + "(assert (>= Y_0 1.00000001))", p=10)
    assert one(below).result == "sat"
    assert [by.split()[0] for by in one(below).confirmed_by] == ["onnxruntime", "interval"]


def test_what_a_file_computes_of_constants_alone_is_a_number_of_its_own_type(tmp_path: Path) -> None:
    """y = relu(u Div(1, 3)) at u = 3 is three times float32(1/3), 1.0000000298..., and not 1."""
    nodes = [node("Div", "one three", "third"), node("Mul", "x third", "h"), node("Relu", "h", "y")]
    model = tmp_path / "n.onnx"
    onnx.save(proto(nodes, (1, 1), {"one": np.ones(1, np.float32), "three": np.full(1, 3, np.float32)}), model)
    at_three = "(assert (= X_0 3.0))"
    assert one(asked(tmp_path, model, at_three + "(assert (>= Y_0 1.00000002))", p=1)).result == "sat"
    assert one(asked(tmp_path, model, at_three + "(assert (<= Y_0 1.00000002))", p=1)).result == "unsat"


def test_a_tie_is_met_exactly(tmp_path: Path) -> None:
    """y = relu(u) at 1: intervals leave it open, fractions do not."""
    found = one(asked(tmp_path, network(tmp_path, np.ones((1, 1))), unit(1) + "(assert (>= Y_0 1.0))", p=1))
    assert (found.result, found.confirmed_by[1]) == ("sat", RATIONALS)


def test_a_border_without_a_point_is_unsat_and_a_file_proves_it_of_the_decimals(tmp_path: Path) -> None:
    """y = relu(u0 + u1) - 2 relu(u0) on [0, 1]^2: at most 1, where u0 = 0 and u1 = 1."""
    nodes = [node("Gemm", "x w", "h"), node("Relu", "h", "r"), node("Gemm", "r v", "y")]
    weights = {"w": np.float32([[1, 1], [1, 0]]), "v": np.float32([[1], [-2]])}
    model = tmp_path / "n.onnx"
    onnx.save(proto(nodes, (1, 2), weights), model)
    above = "(assert (>= Y_0 1.000000000000000000000000000001))"
    options = PropertyOptions(time_limit=4.0, certificates=tmp_path / "proofs")
    report = asked(tmp_path, model, unit(2) + above, p=2, options=options)
    assert (one(report).result, one(report).method) == ("unsat", "rational")
    assert codes(report) == ["IDL202"]
    (proof,) = report.artifacts
    said = verify(Path(proof), model, ModelOptions(), Path(one(report).vnnlib)).verification
    assert said is not None
    assert (said.accepted, said.refused) == (True, ())
    alone = verify(Path(proof), model, ModelOptions()).verification  # of the floats that the file holds it is false
    assert alone is not None
    assert not alone.accepted
    assert "give its file" in alone.refused[-1]
    assert one(asked(tmp_path, model, unit(2) + "(assert (>= Y_0 1.0))", p=2)).result == "sat"
    said = verify(Path(proof), model, ModelOptions(), Path(one(report).vnnlib)).verification  # now another property
    assert said is not None
    assert not said.accepted


def test_an_equality_at_a_decimal_is_met_between_two_floats(tmp_path: Path) -> None:
    text = unit(1) + "(assert (>= Y_0 0.1))(assert (<= Y_0 0.1))"
    found = one(asked(tmp_path, network(tmp_path, np.ones((1, 1))), text, p=1))
    assert (found.result, found.confirmed_by) == ("sat", (RATIONALS,))
    assert found.witness is not None
    assert "(X_0 0.1)" in found.witness


def test_inputs_held_at_decimals_stay_there_exactly(tmp_path: Path) -> None:
    """y = relu(u0 - u1) with u1 held at a decimal above its float32 neighbour."""
    decimal = "0.227272727"
    pin, near = Fraction(decimal), Fraction(nearest_number(Fraction(decimal)))
    assert near != pin
    model = network(tmp_path, np.array([[1.0], [-1.0]]))
    bounds = f"(assert (>= X_0 0.0))(assert (<= X_0 1.0))(assert (>= X_1 {decimal}))(assert (<= X_1 {decimal}))"
    found = one(asked(tmp_path, model, bounds + "(assert (>= Y_0 0.5))", p=2))
    assert found.result == "sat"
    assert found.witness is not None
    assert f"(X_1 {decimal})" in found.witness
    assert codes(asked(tmp_path, model, bounds + "(assert (>= Y_0 0.5))", p=2)) == []
    x_0 = Fraction(re.search(r"X_0 ([^)]*)", found.witness).group(1))  # type: ignore[union-attr]
    assert x_0 - pin >= Fraction(1, 2)


@pytest.mark.parametrize(("over", "result"), [(False, "sat"), (True, "unsat")])
def test_the_decimal_and_not_its_neighbour_decides(tmp_path: Path, over: bool, result: str) -> None:
    """All inputs held: y = relu(u) at the decimal itself, and a hair above it."""
    decimal = Fraction("0.227272727")
    limit = decimal + (Fraction(1, 10**12) if over else 0)
    text = f"(assert (>= X_0 0.227272727))(assert (<= X_0 0.227272727))(assert (>= Y_0 {float(limit)!r}))"
    exact = re.sub(r"Y_0 [^)]*", f"Y_0 0.{int(limit * 10**12)}", text)
    found = one(asked(tmp_path, network(tmp_path, np.ones((1, 1))), exact, p=1))
    assert found.result == result


def test_narrow_intervals_between_two_float32_numbers_have_points_too(tmp_path: Path) -> None:
    bounds = "(assert (>= X_0 0.1000000001))(assert (<= X_0 0.1000000002))"
    found = one(asked(tmp_path, network(tmp_path, np.ones((1, 1))), bounds + "(assert (<= Y_0 0.5))", p=1))
    assert found.result == "sat"
    assert found.witness is not None
    assert "(X_0 0.1000000001)" in found.witness


# --- boxes -----------------------------------------------------------------------------------------------------------


def test_the_nearest_number_is_the_nearest_and_even_between_two() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a = np.float32(rng.normal() * 10.0 ** rng.integers(-30, 30))
        b = np.nextafter(a, np.float32(np.inf))
        low, high = Fraction(float(a)), Fraction(float(b))
        share = Fraction(int(rng.integers(1, 50)), 100)
        assert nearest_number(low + (high - low) * share) == (float(a) if share < Fraction(1, 2) else float(b))
        middle = np.float32(nearest_number((low + high) / 2))
        assert middle in (a, b)
        assert int(middle.view(np.uint32)) % 2 == 0
        just_above = (low + high) / 2 + (high - low) / 10**20  # float64 rounds it to the middle
        assert nearest_number(just_above) == float(b)
    assert nearest_number(Fraction("0.1"), np.dtype(np.float16)) == float(np.float16(0.1))


def pinned() -> Box:
    third = Fraction(1, 3)
    lo, hi = np.nextafter(1 / 3, 0.0), np.nextafter(1 / 3, 1.0)
    ends = (np.array([0.0, lo]), np.array([1.0, hi]), np.array([0.0, hi]), np.array([1.0, lo]))
    return Box(*ends, pins={1: third})


def test_points_of_a_box_with_pins_stand_for_exact_ones() -> None:
    box, near = pinned(), np.float32(1 / 3)
    points = box.project(np.array([[0.5, 7.0], [2.0, -1.0]]))
    assert points.tolist() == [[0.5, float(near)], [1.0, float(near)]]
    assert box.contains(points).all()
    assert not box.contains(np.array([0.5, np.nextafter(near, np.float32(1))]))
    assert box.exactly(points[0]) == [Fraction(1, 2), Fraction(1, 3)]


def test_in_float32_a_pin_is_the_number_next_to_it() -> None:
    box = pinned().in_float32
    assert not box.pins
    assert box.lo[1] == box.hi[1] == box.inner_lo[1] == box.inner_hi[1] == float(np.float32(1 / 3))
    assert (box.lo[0], box.hi[0]) == (0.0, 1.0)


def test_witnesses_have_decimals_and_quotients_in_full() -> None:
    text = witness_text([Fraction("0.227272727"), Fraction(-1, 3), Fraction(1, 2), 0.1], np.array([2.0]))
    assert text == "((X_0 0.227272727)\n(X_1 (- (/ 1 3)))\n(X_2 0.5)\n(X_3 0.1)\n(Y_0 2.0))"


# --- the judge -------------------------------------------------------------------------------------------------------


def judge(confirm: Callable[..., Opinion] | None) -> Judge:
    """Return the judge of y <= 0 for a network that says -1 everywhere, in steps."""
    query = Query(Box.between(np.zeros(1), np.ones(1)), (Conjunction(np.ones((1, 1)), np.zeros(1)),))
    return Judge(lambda points: -np.ones((len(points), 1)), query, 64, confirm=confirm)


def test_whoever_is_asked_last_decides_and_is_asked_about_winners_alone() -> None:
    asked_about = []

    def confirm(query: Query, point: np.ndarray) -> Opinion:
        asked_about.append(float(point[0]))
        return Opinion(True if point[0] > 0.5 else None, INTERVALS)

    some = judge(confirm)
    assert not some.propose(np.array([[0.1], [0.2]]))
    assert some.denied == 2
    assert some.best is not None
    assert not some.best.holds
    assert some.propose(np.array([[0.75], [0.9]]))
    assert some.found is not None
    assert some.found.confirmed_by == INTERVALS
    assert len(asked_about) == 3
    alone = judge(None)
    assert alone.propose(np.array([[0.1]]))
    assert alone.found is not None
    assert (alone.found.confirmed_by, alone.denied) == ("", 0)


def test_many_denied_points_cost_no_more_evaluations() -> None:
    count = []

    def confirm(query: Query, point: np.ndarray) -> Opinion:
        count.append(1)
        return Opinion(False)

    some = judge(confirm)
    for start in range(0, 2 * MOST_DENIED, 16):
        some.propose(np.linspace(0, 1, 16)[:, None] * (1 + start) / 1000)
    assert len(count) == MOST_DENIED
    assert not some.has_won


def test_the_network_in_the_users_units_is_exact_too(tmp_path: Path) -> None:
    subject = open_subject(network(tmp_path, np.array([[3.0], [5.0]]), relu=False))
    units = Preprocessing(scale=0.1, mean=(0.3,), std=(0.7,))
    found = subject.exact(units)
    assert isinstance(found, ExactNetwork)
    u = [Fraction(1, 3), Fraction(2, 7)]
    scale, mean, std = (Fraction(v) for v in (0.1, 0.3, 0.7))
    expected = 3 * (u[0] * scale - mean) / std + 5 * (u[1] * scale - mean) / std
    assert found.outputs(u) == (expected,)


# --- samples ---------------------------------------------------------------------------------------------------------


def test_a_sample_that_float32_alone_misclassifies_is_not_falsified(tmp_path: Path) -> None:
    """y = (relu(K g + 1) - K g, .5) with K = 2^34 and a bump g on [5, 5.01]: y0 is 1, if float32 keeps the 1."""
    big = 2.0**34
    constants = {
        "w": np.ones((1, 3), np.float32),
        "b": -np.float32([5.0, 5.005, 5.01]),
        "k": np.float32(big * np.array([[1.0], [-2.0], [1.0]])),
        "one": np.float32([1.0]),
        "v": np.float32([[1.0, 0.0], [-1.0, 0.0]]),
        "d": np.float32([0.0, 0.5]),
    }
    nodes = [node("Gemm", "x w b", "t"), node("Relu", "t", "g"), node("MatMul", "g k", "m"), node("Add", "m one", "u")]
    nodes += [node("Relu", "u", "a"), node("Concat", "a m", "c", axis=1), node("Gemm", "c v d", "y")]
    onnx.save(proto(nodes, (1, 1), constants), tmp_path / "n.onnx")
    np.savez(tmp_path / "d.npz", inputs=np.float32([[4.9]]), labels=[0])
    found = {}
    for method in ("random", "linear"):
        verdicts = Options(methods=(method,), attack=AttackOptions(samples=500))
        options = RobustnessOptions(eps=parse_eps("0.2"), data=DataOptions(tmp_path / "d.npz"), verdicts=verdicts)
        report = audit_robustness("certify", tmp_path / "n.onnx", options)
        found[method] = report.samples[0].results[0].verdict.value, "IDL213" in codes(report)
    assert found == {"random": ("unknown", True), "linear": ("certified", False)}
