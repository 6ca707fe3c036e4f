"""Networks with curves that have a domain: proofs within it, and what is told where a set may leave it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper

from idl_audit.decide.ladder import Options, decide_query, decide_sample
from idl_audit.decide.proofs import proof_of
from idl_audit.implicit.activations import ACTIVATIONS, Mixed
from idl_audit.implicit.linear_maps import Dense, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.measure.spectral import spectral_bound
from idl_audit.measure.state_bounds import bound_set, prepare
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import bounded
from idl_audit.proof.domains import why_outside
from idl_audit.proof.forms import moving
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.proof.restricted import everywhere
from idl_audit.proof.sensitivity_witness import Witness, check_witness, make_witness
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.root import root_bounds
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.command_line import network, run
from tests.shared.exact_activations import ANALYTIC, Exact
from tests.shared.implicit_models import built, node
from tests.shared.small_networks import layered

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
FLAT = [(name, case) for name, cases in ANALYTIC.items() for case in cases]
EVERY = pytest.mark.parametrize(
    ("name", "case"), FLAT, ids=["-".join([name, *map(str, case.parameters.values())]) for name, case in FLAT]
)


def middle_of(case: Exact) -> tuple[float, float]:
    """Return the middle of a part of the last component of a domain, and how far from it numbers may be."""
    lo, hi = case.components[-1]
    lo, hi = max(lo, -1.5), min(hi, 3.0)
    return (lo + hi) / 2, 0.45 * (hi - lo)


def three_layers(name: str, case: Exact, rng: np.random.Generator, p: int = 3) -> ImplicitModel:
    """Return y = C phi(m + r W tanh(V u)) + skip u, whose second block stays within the domain."""
    middle, reach = middle_of(case)
    V, W = rng.normal(size=(4, p)), rng.normal(size=(5, 4))
    W = reach * W / np.abs(W).sum(axis=1, keepdims=True)
    phis = [ACTIVATIONS["tanh"](), ACTIVATIONS[name](**case.parameters)]
    layers = [(V, rng.normal(size=4)), (W, np.full(5, middle))]
    return layered(layers, (rng.normal(size=(3, 5)), np.zeros(3)), phis, skip=rng.normal(size=(3, p)))


def sampled(box: Box, rng: np.random.Generator, n: int) -> Array:
    shares = np.where(
        rng.random((n, box.size)) < 0.3, rng.choice([0.0, 1.0], size=(n, box.size)), rng.random((n, box.size))
    )
    return np.clip(box.lo + shares * (box.hi - box.lo), box.lo, box.hi)


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=3)
def test_no_point_violates_a_proved_bound(name: str, case: Exact, seed: int) -> None:
    """By intervals, lines, forms and optimised slopes; with a kept scale and without."""
    rng = np.random.default_rng(seed)
    plain = three_layers(name, case, rng)
    box = Box.around(rng.normal(size=3), float(rng.choice([1e-3, 0.1, 1.0])))
    points, rows, inputs = sampled(box, rng, 2000), rng.normal(size=(4, 3)), Interval.of_boxes(box)
    for model in (plain, rescale(plain)):
        found, y = model.solve(points), model(points) @ rows.T
        assert np.isfinite(y).all()
        by_lines = backward_state_bounds(model, inputs)
        searched = root_bounds(SearchNet(model, box), inputs, budget=Budget.of(60.0), steps=3)
        for bounds in (
            interval_bounds(model, inputs),
            by_lines,
            bounded(model, inputs, moving(inputs)).states,
            searched,
        ):
            assert why_outside(model, bounds) == ""
            for k, (z, x) in enumerate(zip(found.pre_activations, found.states, strict=True)):
                for value, known in ((z, bounds.z[k]), (x, bounds.x[k])):
                    slack = 1e-11 * (1 + np.abs(value).max())
                    assert ((value >= known.lo - slack) & (value <= known.hi + slack)).all()
            assert (y >= output_lower_bounds(model, inputs, bounds, rows)[0] - 1e-11 * (1 + np.abs(y).max())).all()


@EVERY
def test_local_sensitivity_bounds_the_differences(name: str, case: Exact) -> None:
    rng = np.random.default_rng(3)
    model = three_layers(name, case, rng)
    box = Box.around(rng.normal(size=3), 0.2)
    S = local_sensitivity(model, box)
    u, v = sampled(box, rng, 2000), sampled(box, rng, 2000)
    assert (np.abs(model(u) - model(v)) <= np.abs(u - v) @ S.T * (1 + 1e-9) + 1e-9).all()
    assert np.isfinite(S).all()
    if everywhere(model).unbounded:
        return
    whole = sensitivity_matrix(model, "best")
    assert (whole * (1 + 1e-9) >= S).all()
    u, v = (rng.normal(size=(2000, 3)) * 3 for _ in range(2))
    assert (np.abs(model(u) - model(v)) <= np.abs(u - v) @ whole.T * (1 + 1e-9) + 1e-9).all()
    assert check_witness(model, make_witness(model)).accepted


@pytest.mark.parametrize("name", ["log", "reciprocal", "sqrt", "square", "tan"])
def test_what_is_as_steep_as_one_likes_has_no_s_for_all_inputs(name: str) -> None:
    model = layered([(np.eye(3), np.full(3, 0.5))], (np.ones((3, 3)), np.zeros(3)), ACTIVATIONS[name]())
    for method in ("paper", "best"):
        with pytest.raises(UnsupportedModelError, match="no number bounds the slope of 'layer0'"):
            sensitivity_matrix(model, method)
    with pytest.raises(UnsupportedModelError, match="no number bounds"):
        make_witness(model)
    assert check_witness(model, Witness(np.ones((3, 3)))).refused
    assert spectral_bound(model) is None
    prepared = prepare(model)
    assert {"norm", "sensitivity"} <= set(prepared.left_out)
    box = Box.around(np.zeros(3), 0.2)
    assert np.isfinite(bound_set(prepared, box).outputs.width).all()


# --- outside --------------------------------------------------------------------------------------------------------


def over(name: str, lo: float, hi: float, **parameters: float) -> tuple[ImplicitModel, Query]:
    """Return y = phi(u) for u in [lo, hi], and the query for y <= -1e9."""
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]), ACTIVATIONS[name](**parameters))
    box = Box.between(np.array([lo]), np.array([hi]))
    return model, Query(box, (Conjunction(np.array([[1.0]]), np.array([1e9])),))


OUTSIDE = [
    ("reciprocal", -0.0234, 1.3, {}, r"the divisor of 'layer0' \(Relu\) may be 0 in this box: \[-0.0234, 1.3\]"),
    ("log", -1.0, 1.0, {}, "the input of 'layer0' .* may be 0 or less"),
    ("sqrt", -1.0, 1.0, {}, "may be negative"),
    ("rsqrt", 0.0, 1.0, {}, "may be 0 or less"),
    ("asin", 0.0, 1.5, {}, r"may leave \[-1, 1\]"),
    ("acos", -2.0, 0.5, {}, r"may leave \[-1, 1\]"),
    ("atanh", 0.0, 1.0, {}, r"may leave \(-1, 1\)"),
    ("acosh", 0.5, 2.0, {}, "may be below 1"),
    ("tan", 1.0, 2.0, {}, "may be an odd multiple of pi / 2"),
    ("power", -1.0, 1.0, {"exponent": 0.3}, "may be negative"),
    ("power", -1.0, 1.0, {"exponent": -2.0}, "may be 0"),
    ("power", 0.0, 1.0, {"exponent": -0.3}, "may be 0 or less"),
]


def test_every_curve_with_a_domain_is_refused_somewhere() -> None:
    with_domain = {name for name, cases in ANALYTIC.items() if ACTIVATIONS[name](**cases[-1].parameters).forbidden}
    assert {name for name, *_ in OUTSIDE} == with_domain


@pytest.mark.parametrize(("name", "lo", "hi", "parameters", "sentence"), OUTSIDE)
def test_a_box_that_leaves_the_domain_is_unknown_and_says_where(
    name: str, lo: float, hi: float, parameters: dict[str, float], sentence: str
) -> None:
    model, query = over(name, lo, hi, **parameters)
    original = lambda points: np.full((len(points), 1), np.nan)  # noqa: E731
    found = decide_query(model, original, query, Options(max_nodes=200))
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason is Reason.OUTSIDE_DOMAIN
    import re

    assert re.search(sentence, found.detail)


def test_a_domain_is_reached_by_tighter_bounds() -> None:
    """z = 1.5 - x + y, x = y = tanh(3 u): intervals say [-.49, 3.49], lines say about 1.5."""
    rng_free = np.array([[3.0], [3.0]])
    phis = [ACTIVATIONS["tanh"](), ACTIVATIONS["log"]()]
    model = layered([(rng_free, np.zeros(2)), ([[-1.0, 1.0]], [1.5])], ([[1.0]], [0.0]), phis)
    inputs = Interval.of_boxes(Box.between(np.array([-1.0]), np.array([1.0])))
    assert why_outside(model, interval_bounds(model, inputs))
    bounds = backward_state_bounds(model, inputs)
    assert why_outside(model, bounds) == ""
    assert bounds.x[0].lo[0, 0] > -1.0


def test_a_domain_is_reached_by_splitting_the_inputs() -> None:
    """log(u (u - 1) + .3) for u in [0, 1]: 1/20 at least, where intervals and lines over all of it go below 0."""
    nodes = [node("Sub", "x one", "d"), node("Mul", "x d", "q"), node("Add", "q c", "z"), node("Log", "z")]
    model = built(nodes, (1, 2), {"one": np.float32(1), "c": np.float32(0.3)})
    query = Query(Box.between(np.zeros(2), np.ones(2)), (Conjunction(np.array([[1.0, 1.0]]), np.array([7.0])),))
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    found = decide_query(model, network, query, Options(methods=("split",), max_nodes=3000, record=True))
    assert found.verdict is Verdict.CERTIFIED
    assert proof_of(model, network, query, found.recorded, budget=Budget.of(60.0)) is not None
    true = 2 * np.log(0.05) + 7
    assert 0 < found.lowers[0] <= true + 1e-6


def test_an_output_that_cancels_a_curve_is_not_proved_outside_its_domain() -> None:
    """y = (log u + 1, log u): the margin is 1 where log u is a number, and nothing is where it is none."""
    model = layered([([[1.0]], [0.0])], ([[1.0], [1.0]], [1.0, 0.0]), ACTIVATIONS["log"]())
    original = lambda points: model(points.astype(np.float64))  # noqa: E731
    for lo, wanted in ((0.5, Verdict.CERTIFIED), (-0.5, None)):
        box = Box.between(np.array([lo]), np.array([1.0]))
        found = decide_sample(model, original, np.array([0.75]), 0, box, Options(max_nodes=100))
        assert found.verdict is wanted or (wanted is None and found.verdict is not Verdict.CERTIFIED)


def test_a_nan_of_the_network_is_no_certificate() -> None:
    model, query = over("log", -2.0, -1.0)
    found = decide_query(model, lambda points: model(points.astype(np.float64)), query, Options(max_nodes=200))
    assert found.verdict is Verdict.UNKNOWN


# --- intervals whose ends are rounded by their own terms ------------------------------------------------------------


@given(seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_sums_of_squares_have_a_root(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    weights = np.abs(rng.normal(size=(1, n))) * 10.0 ** rng.integers(-9, 9, size=(1, n))
    shift = float(rng.choice([0.0, 1e-12, 1.0]))
    phis = [ACTIVATIONS["square"](), ACTIVATIONS["sqrt"]()]
    model = layered([(rng.normal(size=(n, 2)) * 1e3, rng.normal(size=n)), (weights, [shift])], ([[1.0]], [0.0]), phis)
    box = Box.around(rng.normal(size=2), float(rng.choice([1e-6, 1.0, 1e3])))
    bounds = interval_bounds(model, Interval.of_boxes(box))
    lo = Fraction(float(bounds.z[0].lo[0, 0]))
    least = Fraction(shift) + sum(
        Fraction(float(w)) * Fraction(float(x)) for w, x in zip(weights[0], bounds.x[1].lo[0], strict=True)
    )
    assert 0 <= lo <= least
    assert why_outside(model, bounds) == ""
    assert float(lo) >= float(least) * (1 - 1e-12) - 1e-290


def test_a_sum_with_a_negative_term_is_not_lifted_to_0() -> None:
    model = layered(
        [(np.eye(2), np.zeros(2)), ([[1.0, -1.0]], [0.0])],
        ([[1.0]], [0.0]),
        [ACTIVATIONS["square"](), ACTIVATIONS["sqrt"]()],
    )
    bounds = interval_bounds(model, Interval.of_boxes(Box.around(np.zeros(2), 1.0)))
    assert bounds.z[0].lo[0, 0] <= -1.0


def test_uncertain_coefficients_are_paid_for() -> None:
    """A slack may turn a sign round; a relative error may not."""
    phi = ACTIVATIONS["sqrt"]()
    for slack, is_inside in ((None, True), (Dense(matrix=np.array([[0.1]])), False)):
        row = Affine({}, Dense(matrix=np.array([[1.0]]), relative=1e-9, slack=slack), np.zeros(1))
        output = Affine({0: Selection.identity(1)}, None, np.zeros(1))
        model = ImplicitModel((StateBlock("b", "Sqrt", phi, (1,)),), (row,), output, (1,), (1,))
        bounds = interval_bounds(model, Interval.of_boxes(Box.between(np.zeros(1), np.ones(1))))
        assert (why_outside(model, bounds) == "") is is_inside


# --- loops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ANALYTIC))
def test_loops_are_refused(name: str) -> None:
    phi = ACTIVATIONS[name]()
    for activation, size in ((phi, 1), (Mixed((ACTIVATIONS["tanh"](), phi), (1, 1)), 2)):
        row = Affine({0: Dense(matrix=0.1 * np.eye(size))}, Dense(matrix=np.ones((size, 1))), np.zeros(size))
        output = Affine({0: Dense(matrix=np.ones((1, size)))}, None, np.zeros(1))
        model = ImplicitModel((StateBlock("loop", "given", activation, (1, size)),), (row,), output, (1,), (1,))
        with pytest.raises(UnsupportedModelError, match=f"the loop 'loop' has the activation {name}"):
            model.loops  # noqa: B018


# --- lowering -------------------------------------------------------------------------------------------------------


def test_powers_with_a_name_and_quotients_are_the_curves_that_they_are() -> None:
    def blocks(nodes: list[NodeProto], **constants: float) -> list[str]:
        model = built(nodes, (1, 3), {name: np.float32(value) for name, value in constants.items()})
        return [block.activation.name for block in model.blocks]

    for exponent, name in ((2, "square"), (0.5, "sqrt"), (-0.5, "rsqrt"), (-1, "reciprocal"), (3, "power")):
        assert blocks([node("Pow", "x e")], e=exponent) == [name]
    assert blocks([node("Mul", "x x")]) == ["square"]
    assert blocks([node("Div", "c x")], c=2.0) == ["reciprocal"]
    assert blocks([node("Sqrt", "x", "r"), node("Div", "c r")], c=2.0) == ["rsqrt"]
    assert blocks([node("Sqrt", "x", "r"), node("Reciprocal", "r")]) == ["rsqrt"]
    assert blocks([node("Sqrt", "x", "r"), node("Add", "r c", "s"), node("Div", "c s")], c=2.0) == [
        "reciprocal",
        "sqrt",
    ]


# --- files and commands ---------------------------------------------------------------------------------------------

# operator -> the nodes that read h, within the domain for any x
OPERATORS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("Exp", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh"), (0.0, 1.0)),
    **dict.fromkeys(("Log", "Sqrt", "Reciprocal"), (2.0, 1.5)),
    **dict.fromkeys(("Acos", "Asin", "Tan", "Atanh"), (0.0, 0.8)),
    "Acosh": (3.0, 1.5),
}


@pytest.mark.parametrize("op", [*OPERATORS, "Pow", "Mul", "ReduceL2"])
def test_certificates_are_accepted_by_verify(tmp_path: Path, op: str) -> None:
    middle, reach = OPERATORS.get(op, (2.0, 1.5))
    rng = np.random.default_rng(sorted([*OPERATORS, "Pow", "Mul", "ReduceL2"]).index(op))
    nodes = [helper.make_node("MatMul", ["x", "V"], ["v"]), helper.make_node("Tanh", ["v"], ["t"])]
    nodes += [helper.make_node("MatMul", ["t", "W"], ["w"]), helper.make_node("Add", ["w", "m"], ["h"])]
    more = {"Pow": ["e"], "Mul": ["h"]}.get(op, [])
    nodes += [helper.make_node(op, ["h", *more], ["s"]), helper.make_node("Add", ["s", "h"], ["a"])]
    nodes += [helper.make_node("MatMul", ["a", "C"], ["y"])]
    W = rng.normal(size=(4, 5))
    constants = {"V": rng.normal(size=(4, 4)), "W": reach * W / np.abs(W).sum(axis=0), "m": np.full(5, middle)}
    constants |= {"C": rng.normal(size=(5, 3)), "e": np.array(1.5)}
    used = {name: value for name, value in constants.items() if name != "e" or op == "Pow"}
    path = network(tmp_path / "net.onnx", nodes, used)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=x, labels=np.zeros(3, np.int64))
    predicted = run("predict", path, "-d", tmp_path / "data.npz", "-f", "json").report
    labels = np.array([entry.predicted for entry in predicted.predictions])
    np.savez(tmp_path / "data.npz", inputs=x, labels=labels)
    done = run(
        "certify", path, "-d", tmp_path / "data.npz", "-e", "0.002", "--certificates", tmp_path / "c", "-f", "json"
    )
    assert done.code == 0, done.err
    assert [sample.results[0].verdict for sample in done.report.samples] == [Verdict.CERTIFIED] * 3
    files = sorted((tmp_path / "c").iterdir())
    assert len(files) == 3
    for file in files:
        assert run("verify", file, path).code == 0
    assert run("convert", path, "-o", tmp_path / "c.npz").code == 0
    for command in (
        ["inspect", path],
        ["inspect", tmp_path / "c.npz"],
        ["bounds", path, "-d", tmp_path / "data.npz", "-e", "0.01"],
    ):
        assert run(*command).code == 0


def divided(folder: Path) -> tuple[Path, Path]:
    """Write y = C (1 / x) as a network, and samples of which the first is near 0."""
    nodes = [helper.make_node("Reciprocal", ["x"], ["r"]), helper.make_node("MatMul", ["r", "C"], ["y"])]
    C = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    path = network(folder / "div.onnx", nodes, {"C": C})
    inputs = np.array([[0.01, 0.5, 0.5, 0.5], [0.5, 0.9, 0.9, 0.9]], np.float32)
    np.savez(folder / "div.npz", inputs=inputs, labels=np.zeros(2, np.int64))
    return path, folder / "div.npz"


def test_commands_say_where_the_domain_may_be_left(tmp_path: Path) -> None:
    path, data = divided(tmp_path)
    found = run("certify", path, "-d", data, "-e", "0.02", "--method", "interval", "--method", "linear", "-f", "json")
    assert found.code == 0
    (told,) = [one for one in found.report.diagnostics if one.code == "IDL212"]
    assert told.message == "sample 0 at eps 0.02: the divisor of 'r' (Reciprocal) may be 0 in this box: [-0.01, 0.03]"
    assert [sample.results[0].reason for sample in found.report.samples] == [Reason.OUTSIDE_DOMAIN, None]
    assert "outside_domain" in run("certify", path, "-d", data, "-e", "0.02", "--method", "linear").out
    bounds = run("bounds", path, "-d", data, "-e", "0.02", "-f", "json").report
    assert any("may be 0 in this box" in one.message for one in bounds.diagnostics)
    everywhere = run("sensitivity", path, "-f", "json")
    assert everywhere.code == 0
    (told,) = [one for one in everywhere.report.diagnostics if one.code == "IDL302"]
    assert "no number bounds the slope of 'r' (Reciprocal) for all inputs" in told.message
    refused = run("sensitivity", path, "-d", data, "-e", "0.02")
    assert refused.code == 2
    assert "sample 0: the divisor of 'r' (Reciprocal) may be 0 in this box" in refused.err
    local = run("sensitivity", path, "-d", data, "-e", "0.02", "--index", "1", "-f", "json")
    assert local.code == 0
    assert local.report.sensitivity is not None
    assert local.report.sensitivity.global_norm_inf is None


def test_a_sample_without_outputs_is_wrong_to_begin_with(tmp_path: Path) -> None:
    nodes = [helper.make_node("Log", ["x"], ["r"]), helper.make_node("MatMul", ["r", "C"], ["y"])]
    path = network(tmp_path / "log.onnx", nodes, {"C": np.eye(4, 3)})
    inputs = np.array([[0.9, 0.5, 0.5, 0.5], [-1.0, 0.9, 0.9, 0.9]], np.float32)
    np.savez(tmp_path / "log.npz", inputs=inputs, labels=np.zeros(2, np.int64))
    found = run("certify", path, "-d", tmp_path / "log.npz", "-e", "0.01", "-f", "json")
    assert found.code == 0, found.err
    verdicts = [sample.results[0].verdict for sample in found.report.samples]
    assert verdicts == [Verdict.CERTIFIED, Verdict.CLEAN_WRONG]


def test_a_property_says_where_its_box_may_leave_the_domain(tmp_path: Path) -> None:
    path, _ = divided(tmp_path)
    lines = [*(f"(declare-const X_{i} Real)" for i in range(4)), *(f"(declare-const Y_{i} Real)" for i in range(3))]
    lines += [f"(assert (>= X_{i} {lo}))\n(assert (<= X_{i} 1.3))" for i, lo in enumerate((-0.02, 0.5, 0.5, 0.5))]
    lines.append("(assert (<= Y_0 -1000000000.0))")
    (tmp_path / "p.vnnlib").write_text("\n".join(lines))
    found = run("certify", path, tmp_path / "p.vnnlib", "--time-limit", "2", "-f", "json")
    assert found.code == 0, found.err
    assert found.report.properties[0].result in ("unknown", "timeout", "sat")
    if found.report.properties[0].result != "sat":
        assert any("may be 0 in this box: [-0.02, 1.3]" in one.message for one in found.report.diagnostics)
