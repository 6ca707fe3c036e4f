"""The network at one exact point: equal to fractions by hand, inside every enclosure, refused where it is not exact."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.mixed import Mixed
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, Reindexed, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.implicit.unfused import unfused
from idl_audit.proof.exact import numbers
from idl_audit.proof.exact.numbers import Exact, Inexact, product, whole_numbers
from idl_audit.proof.exact.point import (
    INTERVALS,
    RATIONALS,
    ExactNetwork,
    enclosed_outputs,
    exact_outputs,
    why_inexact,
)
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.implicit.test_operators import CASES, network
from tests.shared import random_networks
from tests.shared.implicit_models import floats, node, proto, read
from tests.shared.small_networks import ExactModel, layered, random_network

seeds = st.integers(0, 2**32 - 1)
PIECEWISE_LINEAR = ("relu", "leaky_relu", "abs")


def some_point(rng: np.random.Generator, p: int) -> list[Fraction]:
    """Return decimals that no float64 number is."""
    return [Fraction(int(rng.integers(-(10**9), 10**9)), 10**9 + int(rng.integers(3))) for _ in range(p)]


def lies_inside(y: list[Fraction] | tuple[Fraction, ...], ends: tuple[np.ndarray, np.ndarray]) -> bool:
    lo, hi = ends
    return all(Fraction(float(a)) <= v <= Fraction(float(b)) for a, v, b in zip(lo, y, hi, strict=True))


# --- numbers ---------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_whole_numbers_over_a_power_of_two_are_the_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=12) * 2.0 ** rng.integers(-300, 300, 12)
    values[rng.random(12) < 0.3] = 0.0
    values = (values * 2.0**-220).astype(np.float32).astype(np.float64) if seed % 2 else values
    if seed % 5 == 0:
        values = np.append(values, [5e-324, -5e-324])
    tops, shift = whole_numbers(values)
    assert [Fraction(int(top), 2**shift) for top in tops] == [Fraction(float(v)) for v in values]
    assert all(type(top) is int for top in tops.tolist())
    if values.any():
        assert shift == 0 or any(top % 2 for top in tops)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_has_no_whole_number(value: float) -> None:
    with pytest.raises(Inexact):
        whole_numbers(np.array([1.0, value]))


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_products_of_every_form_are_those_of_its_entries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(4, 6)) * (rng.random((4, 6)) < 0.6) * 2.0 ** rng.integers(-40, 3, (4, 6))
    sparse = Sparse(matrix=Dense(matrix=matrix).to_sparse())
    chosen = Selection(index=rng.integers(-1, 6, 5), size_in=6, weights=rng.normal(size=5))
    back = Selection(index=rng.permutation(6), size_in=6, weights=rng.normal(size=6))
    front = Selection(index=rng.integers(-1, 4, 5), size_in=4, weights=rng.normal(size=5))
    conv = Convolution(
        kernel=rng.normal(size=(2, 2, 2)), spatial_in=(3,), strides=(1,), pads=(1, 0), dilations=(1,), groups=1
    )
    x = some_point(rng, 6)
    x[int(rng.integers(6))] = Fraction(0)
    for linear_map in (Dense(matrix=matrix), sparse, chosen, conv, Selection.identity(6)):
        entries = linear_map.to_sparse().toarray()
        expected = [sum((Fraction(float(w)) * v for w, v in zip(row, x, strict=True)), Fraction(0)) for row in entries]
        assert product(linear_map, Exact.of_fractions(x)).fractions == tuple(expected)
    factors = Reindexed(left=front, core=sparse, right=back)
    steps = product(front, product(sparse, product(back, Exact.of_fractions(x))))
    assert product(factors, Exact.of_fractions(x)).fractions == steps.fractions


def test_products_in_many_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrix = Dense(matrix=rng.normal(size=(9, 7)) * 2.0 ** rng.integers(-9, 9, (9, 7)))
    x = Exact.of_fractions(some_point(rng, 7))
    whole = product(matrix, x).fractions
    monkeypatch.setattr(numbers, "ENTRIES_AT_ONCE", 5)
    assert product(matrix, x).fractions == whole


def test_a_map_that_was_rounded_has_no_exact_product() -> None:
    for uncertain in (
        Dense(matrix=np.ones((1, 1)), relative=1e-16),
        Selection.identity(1).uncertain(0.0, Dense(matrix=np.zeros((1, 1)))),
    ):
        with pytest.raises(Inexact):
            product(uncertain, Exact.of_fractions([Fraction(1)]))


# --- models ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_outputs_are_those_of_fractions_and_lie_in_the_enclosure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 3, 4), activations=PIECEWISE_LINEAR, cancelling=seed % 3 == 0)
    assert why_inexact(model) == ""
    point = some_point(rng, 3)
    found = exact_outputs(model, point)
    u = np.empty(3, object)
    u[:] = point
    z, x, y = {}, {}, None
    reference = ExactModel(model)
    for k in model.evaluation_order:
        z[k] = reference.rows[k](x, u)
        x[k] = reference.phi(k, z[k])
    y = reference.output(x, u)
    assert found == tuple(y)
    assert lies_inside(found, enclosed_outputs(model, point))


def test_products_and_mixed_states_are_exact() -> None:
    """y = (u0 u1, u1, relu(u0), |u1|) at decimals."""
    pair = StateBlock("pair", "Mul", ACTIVATIONS["product"](), (2,))
    parts = Mixed((ACTIVATIONS["relu"](), ACTIVATIONS["abs"]()), (1, 1))
    mixed = StateBlock("mixed", "Mixed", parts, (2,))
    identity, nothing = Dense(matrix=np.eye(2)), np.zeros(2)
    rows = (Affine({}, identity, nothing), Affine({}, identity, nothing))
    output = Affine({0: Dense(matrix=np.eye(4)[:, :2]), 1: Dense(matrix=np.eye(4)[:, 2:])}, None, np.zeros(4))
    model = ImplicitModel((pair, mixed), rows, output, (2,), (4,))
    a, b = Fraction(1, 10), Fraction(-7, 30)
    assert exact_outputs(model, [a, b]) == (a * b, b, a, -b)


def test_what_bends_loops_or_was_rounded_is_refused() -> None:
    smooth = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]), ACTIVATIONS["tanh"]())
    assert "piecewise linear" in why_inexact(smooth)
    with pytest.raises(Inexact):
        exact_outputs(smooth, [Fraction(1)])
    loop = plain_model(
        np.array([[0.5]]),
        np.ones((1, 1)),
        np.ones((1, 1)),
        np.zeros((1, 1)),
        np.zeros(1),
        np.zeros(1),
        [DeclaredBlock("relu", 1, {})],
    )
    assert "loops" in why_inexact(loop)
    rounded = ImplicitModel(
        smooth.blocks[:0], (), Affine({}, Dense(matrix=np.ones((1, 1)), relative=1e-16), np.zeros(1)), (1,), (1,)
    )
    assert "rounded" in why_inexact(rounded)


# --- networks --------------------------------------------------------------------------------------------------------


def test_two_layers_that_are_multiplied_out_keep_their_own_numbers() -> None:
    """y = sum_j w2_j (w1_j u + b_j): exact by hand, and inside what the multiplied-out model encloses."""
    rng = np.random.default_rng(3)
    constants = {"a": floats(rng, 1, 5), "b": floats(rng, 5), "c": floats(rng, 5, 1)}
    graph = read(proto([node("Gemm", "x a b", "h"), node("MatMul", "h c", "y")], (1, 1), constants))
    u = Fraction("0.227272727")
    w1, b, w2 = ([Fraction(float(v)) for v in constants[name].reshape(-1)] for name in "abc")
    by_hand = sum((s * (w * u + d) for w, d, s in zip(w1, b, w2, strict=True)), Fraction(0))
    assert exact_outputs(unfused(graph), [u]) == (by_hand,)
    fused = build_implicit(graph)
    assert "rounded" in why_inexact(fused)
    assert lies_inside([by_hand], enclosed_outputs(fused, [u]))


@pytest.mark.parametrize(
    "family", ["dense", "convolutional", "post_activation", "pre_activation", "branching", "sequence"]
)
@pytest.mark.parametrize("seed", range(4))
def test_networks_of_every_family_are_exact_inside_the_enclosure(family: str, seed: int) -> None:
    graph = read(getattr(random_networks, family)(seed, random_networks.KINKED).proto())
    model, own = build_implicit(graph), unfused(graph)
    rng = np.random.default_rng(seed)
    point = some_point(rng, model.n_inputs)
    ends = enclosed_outputs(model, point)
    assert lies_inside_of_floats(own, point, ends)
    if why_inexact(own) == "":
        assert lies_inside(exact_outputs(own, point), ends)
    else:
        assert "rounded" in why_inexact(own)  # a batch-norm's root, a mean of three


def lies_inside_of_floats(model: ImplicitModel, point: list[Fraction], ends: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether the enclosures by the two models meet."""
    lo, hi = enclosed_outputs(model, point)
    return bool((lo <= ends[1]).all() and (ends[0] <= hi).all())


EXACT_OPERATORS = {
    *(
        "Abs",
        "Add",
        "Clip",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Flatten",
        "Gather",
        "Gemm",
        "GlobalMaxPool",
        "Identity",
    ),
    *(
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Relu",
        "Reshape",
        "Slice",
        "Split",
    ),
    *("Sub", "Sum", "Transpose"),
}


@pytest.mark.parametrize("all_cases", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_operators_that_move_multiply_and_bend_at_kinks_are_exact_behind_other_layers(all_cases: bool) -> None:
    exact: set[str] = set()
    for case in CASES:
        if case.twin or not (all_cases or case.op in EXACT_OPERATORS - exact):
            continue
        graph = read(network(case, case.opsets[-1], "hidden"))
        own = unfused(graph)
        if own.n_inputs > 200 or why_inexact(own):
            continue
        exact.add(case.op)
        point = some_point(np.random.default_rng(1), own.n_inputs)
        assert lies_inside(exact_outputs(own, point), enclosed_outputs(build_implicit(graph), point)), case.what
    assert exact >= EXACT_OPERATORS, EXACT_OPERATORS - exact


@pytest.mark.parametrize(("op", "function"), [("Sigmoid", lambda z: 1 / (1 + mpmath.exp(-z))), ("Tanh", mpmath.tanh)])
def test_curves_are_enclosed_around_what_many_digits_give(op: str, function: object) -> None:
    rng = np.random.default_rng(5)
    constants = {"a": floats(rng, 2, 4), "b": floats(rng, 4), "c": floats(rng, 4, 1)}
    nodes = [node("Gemm", "x a b", "h"), node(op, "h", "s"), node("MatMul", "s c", "y")]
    model = build_implicit(read(proto(nodes, (1, 2), constants)))
    point = some_point(rng, 2)
    with mpmath.workdps(60):
        u = [mpmath.mpf(v.numerator) / v.denominator for v in point]
        a, b, c = (constants[name].astype(float).tolist() for name in "abc")
        hidden = [sum(u[i] * a[i][j] for i in range(2)) + b[j] for j in range(4)]
        y = sum(function(z) * c[j][0] for j, z in enumerate(hidden))  # type: ignore[operator]
        lo, hi = enclosed_outputs(model, point)
        assert mpmath.mpf(float(lo[0])) <= y <= mpmath.mpf(float(hi[0]))
    assert hi[0] - lo[0] < 1e-12


# --- opinions --------------------------------------------------------------------------------------------------------


def below(limit: Fraction, *, strict: bool = False) -> Query:
    """Return the query y <= limit over the unit box."""
    offsets = np.array([np.nextafter(float(-limit), -np.inf)])
    row = Conjunction(np.ones((1, 1)), offsets, (-limit,), np.array([strict]))
    return Query(Box.between(np.zeros(1), np.ones(1)), (row,))


def test_intervals_decide_what_is_apart_and_fractions_the_rest() -> None:
    model = layered([([[3.0]], [0.0])], ([[1.0]], [0.0]))  # y = relu(3 u)
    asked = ExactNetwork(model, lambda: model)
    third = [Fraction(1, 3)]
    assert asked.opinion(below(Fraction(2)), third) == asked.opinion(below(Fraction(2)), [Fraction(0)])
    for limit, strict, holds, by in (
        (Fraction(2), False, True, INTERVALS),
        (Fraction(1, 2), False, False, INTERVALS),
        (Fraction(1), False, True, RATIONALS),
        (Fraction(1), True, False, RATIONALS),
        (1 - Fraction(1, 10**30), False, False, RATIONALS),
    ):
        found = asked.opinion(below(limit, strict=strict), third)
        assert (found.holds, found.by) == (holds, by)


def test_a_tie_of_curves_is_not_known() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]), ACTIVATIONS["tanh"]())
    asked = ExactNetwork(model, lambda: model)
    assert asked.opinion(below(Fraction(0)), [Fraction(0)]).holds is None
    assert asked.opinion(below(Fraction(1, 10)), [Fraction(0)]).holds is True


def test_at_the_border_of_a_domain_nothing_is_known() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]), ACTIVATIONS["sqrt"]())
    assert not np.isfinite(enclosed_outputs(model, [Fraction(-1)])).any()
    lo, hi = enclosed_outputs(model, [Fraction(4)])
    assert lo[0] <= 2 <= hi[0]
    assert hi[0] - lo[0] < 1e-12


def test_the_exact_model_is_made_once_and_only_where_it_is_needed() -> None:
    model = layered([([[3.0]], [0.0])], ([[1.0]], [0.0]))
    made = []

    def written() -> ImplicitModel:
        made.append(1)
        return model

    asked = ExactNetwork(model, written)
    asked.opinion(below(Fraction(2)), [Fraction(1, 3)])
    assert not made
    for _ in range(3):
        asked.opinion(below(Fraction(1)), [Fraction(1, 3)])
    assert len(made) == 1
