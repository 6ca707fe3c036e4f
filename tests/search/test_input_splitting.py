"""Splitting the input box: proofs and points agree with exact minima, and every part of a box is accounted for."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.commands.shared.subject import open_subject
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof import box_bounds, linear_bounds
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import bounded
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.proof.rows import Rows
from idl_audit.search.judge import Judge
from idl_audit.search.splitting import boxes as input_splitting
from idl_audit.search.splitting.boxes import SplitOutcome, split_inputs
from idl_audit.search.splitting.contraction import contracted
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.proof.test_intervals import OVERFLOWING
from tests.shared.budgets import enough, few, no_time
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    all_corners,
    dense,
    layered,
    minimum_by_patterns,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def below(rows: object, offsets: object) -> Conjunction:
    """Return rows y + offsets <= 0."""
    return Conjunction(np.atleast_2d(np.asarray(rows, np.float64)), np.atleast_1d(np.asarray(offsets, np.float64)))


def hat() -> ImplicitModel:
    """Return y = relu(u_0 + u_1) + relu(-u_0 - u_1) - relu(u_0 - u_1): least -2 on [-1, 1]^2, at (1, -1)."""
    return layered([([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], [0.0, 0.0, 0.0])], ([[1.0, 1.0, -1.0]], [0.0]))


def folded() -> ImplicitModel:
    """Return y = ||u_0| - 1/2| + ||u_1| - 1/2| - 1/2 |u_0|: least -1/4, where |u_0| = |u_1| = 1/2."""
    first = [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]
    second = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.0]], [-0.5, -0.5, 0.0]
    return layered([first, second], ([[1.0, 1.0, -1.0]], [0.0]), ACTIVATIONS["abs"]())


SQUARE = Box.between(-np.ones(2), np.ones(2))


# ---------------------------------------------------------------------------------------------- decisions


def test_a_minimum_above_the_threshold_is_proved_and_one_below_it_is_met() -> None:
    model, truth = folded(), -0.25
    assert minimum_by_patterns(model, np.ones(1), SQUARE) == pytest.approx(truth)
    proved = split_inputs(model, Query(SQUARE, (below([[1.0]], [-truth + 0.01]),)), budget=enough())
    assert proved == SplitOutcome(True, None, proved.boxes, 0, "", proved.lowers)
    assert 0 < proved.lowers[0] <= 0.01
    assert proved.boxes > 10, "the first bounds are enough: this test splits nothing"
    met = split_inputs(model, Query(SQUARE, (below([[1.0]], [-truth - 0.01]),)), budget=enough())
    assert not met.proved
    assert met.point is not None
    assert SQUARE.contains(met.point)
    assert model(met.point[None])[0, 0] <= truth + 0.01


@settings(deadline=None, max_examples=12)
@given(seed=seeds, share=st.sampled_from([-0.03, 0.03]))
def test_decisions_agree_with_exact_minima(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3), q=1, activations=[name for name in KINKED if name != "negative"])
    box = random_box(rng, 2)
    box = Box.between(*(end.astype(np.float32).astype(np.float64) for end in (box.lo, box.hi)))
    truth = minimum_by_patterns(model, np.ones(1), box)
    gap = share * (1 + abs(truth))
    outcome = split_inputs(model, Query(box, (below([[1.0]], [gap - truth]),)), budget=enough())
    assert outcome.reason == ""
    assert outcome.proved == (gap > 0)
    assert (outcome.point is not None) == (gap < 0)
    assert not outcome.proved or 0 < outcome.lowers[0] <= gap + 1e-9 * (1 + abs(truth))


@settings(deadline=None, max_examples=12)
@given(seed=seeds, smooth=st.booleans())
def test_proofs_and_points_of_several_alternatives_are_true(seed: int, smooth: bool) -> None:
    rng = np.random.default_rng(seed)
    names = list(SMOOTH) if smooth else list(KINKED)
    model = random_network(rng, p=3, widths=(4, 3), q=2, activations=names)
    box = random_box(rng, 3)
    points = np.vstack([some_points(rng, box, 300), all_corners(box)])
    y = model(points)
    rows = [rng.normal(size=(k, 2)) for k in (1, 2, 3)]
    # offsets that put the nearest sample about the threshold: both answers occur
    alternatives = tuple(below(r, np.full(len(r), -(y @ r.T).max(axis=1).min() + rng.normal() * 0.05)) for r in rows)
    query = Query(box, alternatives)
    outcome = split_inputs(model, query, budget=few(1000))
    if outcome.proved:
        assert not query.holds(y).any()
    elif outcome.point is not None:
        assert box.contains(outcome.point)
        assert query.holds(model(outcome.point[None]))[0]
    else:
        assert outcome.left
        assert outcome.reason


def test_one_refuted_row_refutes_its_alternative_only() -> None:
    model = hat()
    impossible, possible = [[1.0], [-1.0]], [[1.0]]
    never = split_inputs(model, Query(SQUARE, (below(impossible, [0.5, 1.0]),)), budget=enough())
    # y <= -.5 and y >= 1 at once
    assert never.proved
    both = Query(SQUARE, (below(impossible, [0.5, 1.0]), below(possible, [0.5])))
    outcome = split_inputs(model, both, budget=enough())
    assert not outcome.proved
    assert outcome.point is not None
    assert model(outcome.point[None])[0, 0] <= -0.5


@pytest.mark.parametrize("inputs", [1, 4])
def test_pooled_and_late_reading_models_are_split_too(inputs: int) -> None:
    rng = np.random.default_rng(inputs)
    model = pooled_network(rng, size=4, q=2)
    lo, hi = np.zeros(16), np.zeros(16)
    lo[:inputs], hi[:inputs] = -1.0, 1.0
    box = Box.between(lo, hi)
    y = model(np.vstack([some_points(rng, box, 400), all_corners(Box.between(lo[:4], hi[:4])) @ np.eye(4, 16)]))
    least = float((y[:, 0] - y[:, 1]).min())
    row = [[1.0, -1.0]]
    above = split_inputs(model, Query(box, (below(row, [0.2 - least]),)), budget=enough())
    assert above.proved or above.point is not None
    under = split_inputs(model, Query(box, (below(row, [-0.01 - least]),)), budget=enough())
    assert under.point is not None


def test_a_loop_is_bounded_and_split() -> None:
    block = StateBlock("loop", "Loop", ACTIVATIONS["relu"](), (2,))
    row = Affine({0: dense([[0.2, -0.3], [0.3, 0.1]])}, dense([[1.0, -1.0], [1.0, 1.0]]), np.array([0.1, -0.1]))
    model = ImplicitModel((block,), (row,), Affine({0: dense([[1.0, -1.0]])}, None, np.zeros(1)), (2,), (1,))
    grid = np.linspace(-1, 1, 41)
    y = model(np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2))[:, 0]
    proved = split_inputs(model, Query(SQUARE, (below([[1.0]], [0.05 - y.min()]),)), budget=enough())
    assert proved.proved
    met = split_inputs(model, Query(SQUARE, (below([[1.0]], [-0.05 - y.min()]),)), budget=enough())
    assert met.point is not None
    assert model(met.point[None])[0, 0] <= y.min() + 0.05


def test_two_rows_that_fail_in_turn_are_refuted_by_their_sum() -> None:
    model = layered([([[1.0]], [9.0])], ([[1.0], [-1.0]], [-9.0, 9.0]))
    line = Box.between(-np.ones(1), np.ones(1))
    # y = (u, -u): u + .1 <= 0 and -u + .1 <= 0 leave nothing, and their sum is .2
    rows = Rows.of(Query(line, (below(np.eye(2), [0.1, 0.1]),)))
    assert rows.members[0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(rows.functionals[2], [1.0, 1.0])
    assert rows.offsets[2] <= 0.2
    outcome = split_inputs(model, Query(line, (below(np.eye(2), [0.1, 0.1]),)), budget=enough())
    assert outcome == SplitOutcome(True, None, 1, 0, "", (pytest.approx(0.1),))


def test_only_exact_sums_of_rows_are_taken() -> None:
    third = 1 / 3
    query = Query(SQUARE, (below([[1.0, 0.0], [third, 1.0], [-1.0, 0.0]], [1.0, 1.0, third]),))
    rows = Rows.of(query)
    # 1 + 1/3 rounds; 1 - 1 is no row; 1/3 - 1 rounds
    np.testing.assert_array_equal(rows.functionals, query.alternatives[0].rows)
    exact = Rows.of(Query(SQUARE, (below(np.eye(3), [third, 1e-20, 0.0]), below([[1.0, 2.0, 3.0]], [0.0]))))
    assert [len(rows) for rows in exact.members] == [7, 1]
    np.testing.assert_array_equal(exact.functionals[3:7], [[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    assert Fraction(exact.offsets[3]) <= Fraction(third) + Fraction(1e-20)


def test_a_query_without_alternatives_has_no_counterexample() -> None:
    assert split_inputs(hat(), Query(SQUARE, ()), budget=enough()) == SplitOutcome(True, None, 0, 0, "")


# ---------------------------------------------------------------------------------------------- ends


def test_the_original_network_has_the_last_word() -> None:
    model = hat()
    query = Query(SQUARE, (below([[1.0]], [0.5]),))
    asked: list[Float32Array] = []

    def never(points: Float32Array) -> FloatArray:
        asked.append(points)
        return np.full((len(points), 1), 1.0)

    outcome = split_inputs(model, query, budget=few(), judge=Judge.of(model, never, query))
    assert not outcome.proved
    assert outcome.point is None
    assert outcome.reason == "no more boxes are allowed"
    assert outcome.left > 0
    assert asked
    assert all(points.dtype == np.float32 for points in asked)
    agreed = split_inputs(model, query, budget=enough(), judge=Judge.of(model, lambda points: model(points), query))
    assert agreed.point is not None
    assert (agreed.point == agreed.point.astype(np.float32)).all()


def test_points_stay_in_the_exact_box() -> None:
    third = 1 / 3  # no float32 number
    box = Box.between(np.array([-third, -third]), np.array([third, third]))
    model = layered([([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0])], ([[1.0, 1.0]], [0.0]))
    least = 2 * (1 - third)
    query = Query(box, (below([[1.0]], [-least - 1e-6]),))
    outcome = split_inputs(model, query, budget=enough(), judge=Judge.of(model, lambda points: model(points), query))
    assert outcome.point is not None
    assert box.contains(outcome.point)


def test_no_time_is_said_and_nothing_is_claimed() -> None:
    outcome = split_inputs(hat(), Query(SQUARE, (below([[1.0]], [1.1]),)), budget=no_time())
    assert outcome == SplitOutcome(False, None, 0, 1, "the time is up")


def test_a_margin_within_rounding_ends_in_a_reason() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    box = Box.between(np.array([0.5]), np.array([0.5]))
    query = Query(box, (below([[1.0]], [-0.5 + 2.0**-60]),))
    outcome = split_inputs(model, query, budget=enough())
    # fl(-.5 + 2^-60) = -.5: the point itself is a counterexample
    assert outcome.point is not None
    strictly = Conjunction(np.ones((1, 1)), np.array([np.nextafter(-0.5, 0.0)]))
    outcome = split_inputs(model, Query(box, (strictly,)), budget=enough())
    assert not outcome.proved
    assert outcome.point is None
    assert outcome.left == 1
    assert "rounding" in outcome.reason


def denied(points: Float32Array) -> FloatArray:
    """The network's outputs where it never agrees with the model that a point is a counterexample."""
    return np.ones((len(points), 1))


@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-200, 1e6])
def test_a_box_that_is_one_tie_is_left_at_once(scale: float) -> None:
    """y = s relu(u_0 + 10) - s relu(u_0 + 10) = 0 everywhere: no part of the box can be refuted."""
    model = layered([([[1.0, 0.0], [1.0, 0.0]], [10.0, 10.0])], ([[scale, -scale]], [0.0]))
    query = Query(SQUARE, (below([[1.0]], [0.0]),))
    outcome = split_inputs(model, query, budget=few(2000), judge=Judge.of(model, denied, query))
    assert (outcome.proved, outcome.point, outcome.boxes, outcome.left) == (False, None, 1, 1)
    assert "rounding" in outcome.reason


def test_the_edge_of_a_tie_is_not_split_for_ever() -> None:
    """y = relu(u_0 - u_1) is a tie on half of the square, and positive on the other half."""
    model = layered([([[1.0, -1.0]], [0.0])], ([[1.0]], [0.0]))
    query = Query(SQUARE, (below([[1.0]], [0.0]),))
    outcome = split_inputs(model, query, budget=few(2000), judge=Judge.of(model, denied, query))
    assert not outcome.proved
    assert outcome.boxes < 100
    assert "rounding" in outcome.reason


def test_a_counterexample_beside_a_tie_is_found() -> None:
    """y = relu(u_0 - 1/4) - 2 relu(u_0 - 7/8) - 2 relu(u_1 - 7/8): 0 at the centre, -1/4 at (0, 1)."""
    rows = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    model = layered([(rows, [-0.25, -0.875, -0.875])], ([[1.0, -2.0, -2.0]], [0.0]))
    query = Query(SQUARE, (below([[1.0]], [0.0]),))
    judge = Judge.of(model, lambda points: np.where(model(points) < 0, model(points), 1.0), query)
    outcome = split_inputs(model, query, budget=enough(), judge=judge)
    assert outcome.point is not None
    assert model(outcome.point[None])[0, 0] < 0


def test_a_positive_margin_of_roundings_size_is_proved() -> None:
    """y = relu(u_0 + 1) + 2^-45 on [-1, 1]: the bound is as small as a tie's, but no point is one."""
    model = layered([([[1.0, 0.0]], [1.0])], ([[1.0]], [2.0**-45]))
    outcome = split_inputs(model, Query(SQUARE, (below([[1.0]], [0.0]),)), budget=few())
    assert outcome.proved


def test_overflows_prove_nothing() -> None:
    box = Box.between(np.full(4, 1.0), np.full(4, 1.5))
    # y = relu(1e308 (u_0 + u_1 - u_2 - u_3)) is 0 at u = 1, whatever overflows on the way
    outcome = split_inputs(OVERFLOWING, Query(box, (below([[1.0]], [-1e-300]),)), budget=few())
    assert not outcome.proved


def test_a_model_without_states_is_decided_by_its_affine_map() -> None:
    model = ImplicitModel((), (), Affine({}, dense([[1.0, -1.0]]), np.zeros(1)), (2,), (1,))
    proved = split_inputs(model, Query(SQUARE, (below([[1.0]], [2.01]),)), budget=enough())
    assert proved == SplitOutcome(True, None, 1, 0, "", (pytest.approx(0.01),))
    met = split_inputs(model, Query(SQUARE, (below([[1.0]], [1.99]),)), budget=enough())
    assert met.point is not None
    np.testing.assert_array_equal(met.point, [-1.0, 1.0])


def test_too_many_derivatives_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_splitting, "MOST_NUMBERS", 11)
    outcome = split_inputs(hat(), Query(SQUARE, (below([[1.0]], [2.1]),)), budget=enough())
    assert outcome == SplitOutcome(False, None, 0, 1, "2 inputs that move, and 3 states, are too many")


# ---------------------------------------------------------------------------------------------- bounds and parts


def some_boxes(rng: np.random.Generator, p: int, m: int) -> Interval:
    return Interval.of_boxes([random_box(rng, p) for _ in range(m)])


@settings(deadline=None, max_examples=30)
@given(seed=seeds, smooth=st.booleans())
def test_bounds_are_the_backward_bounds_and_no_looser_within_known_ones(seed: int, smooth: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4, 3), activations=list(SMOOTH if smooth else KINKED))
    inputs = some_boxes(rng, 3, 3)
    found = bounded(model, inputs, np.zeros(0, np.int64))  # forms that tell no input apart are intervals
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_bounds, "Kinked", ())  # no looks at signs on the way
        reference = backward_state_bounds(model, inputs)
    for k in range(3):
        np.testing.assert_allclose(found.states.z[k].lo, reference.z[k].lo, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.states.z[k].hi, reference.z[k].hi, rtol=1e-9, atol=1e-12)
    lower = found.outputs(np.eye(3)).lower
    np.testing.assert_allclose(lower, output_lower_bounds(model, inputs, reference, np.eye(3)), rtol=1e-9, atol=1e-12)
    halves = Interval(inputs.lo, inputs.lo / 2 + inputs.hi / 2)
    again = bounded(model, halves, np.arange(3), found.states.z)
    for k in range(3):
        assert (again.states.z[k].lo >= found.states.z[k].lo).all()
        assert (again.states.z[k].hi <= found.states.z[k].hi).all()


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_normals_give_a_plane_below_the_outputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4), activations=list(KINKED))
    box = random_box(rng, 3)
    bounds = bounded(model, Interval.of_boxes(box), np.arange(3)).outputs(np.eye(3))
    w, least = bounds.normals[0], bounds.lower[0]
    points = some_points(rng, box, 50)
    corner = np.where(w >= 0, box.lo, box.hi)
    plane = least + (points[:, None, :] * w).sum(-1) - (corner * w).sum(-1)
    assert (model(points) >= plane - 1e-9).all()


def test_rates_without_bends_are_the_slopes() -> None:
    model = layered([([[1.0, -2.0, 0.0]], [9.0])], ([[3.0], [-3.0]], [0.0, 0.0]))
    box = Box.between(-np.ones(3), np.ones(3))
    bounds = bounded(model, Interval.of_boxes(box), np.array([0, 1, 2])).outputs(np.eye(2))
    np.testing.assert_allclose(bounds.rates[0], [[-3.0, -6.0, 0.0], [-3.0, -6.0, 0.0]])


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_rates_are_the_derivatives_of_the_bound_where_lines_are_met_in_the_middle(seed: int) -> None:
    """One bending layer: v (dT/dr) with T taken in the middle is the derivative of the bound up to the line's slope."""
    rng = np.random.default_rng(seed)
    first, last = rng.normal(size=(5, 2)), -np.abs(rng.normal(size=(1, 5)))
    model = layered([(first, np.zeros(5)), (np.eye(5), np.zeros(5))], (last, np.zeros(1)))
    # about 0 every line above meets the same middle, 0, and so the least bound's own slope does not matter

    def bound(radii: FloatArray) -> tuple[float, FloatArray]:
        found = bounded(model, Interval(-radii[None], radii[None]), np.arange(2)).outputs(np.ones((1, 1)))
        return float(found.lower[0, 0]), found.rates[0, 0]

    radii = rng.uniform(0.5, 1.5, 2)
    at, rates = bound(radii)
    for j in range(2):
        moved = radii.copy()
        moved[j] += 1e-5
        np.testing.assert_allclose((bound(moved)[0] - at) / 1e-5, rates[j], rtol=0.02, atol=1e-3)


@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_what_contraction_cuts_off_holds_no_counterexample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 3), q=2, activations=list(KINKED))
    boxes = [random_box(rng, 2) for _ in range(4)]
    samples = [some_points(rng, box, 150) for box in boxes]
    y = model(np.concatenate(samples))
    alternatives = []
    for k in (1, 2):
        rows = rng.normal(size=(k, 2))
        alternatives.append(below(rows, -np.quantile(y @ rows.T, 0.1, axis=0)))
    query = Query(boxes[0], tuple(alternatives))
    rows = Rows.of(query)
    found = bounded(model, Interval.of_boxes(boxes), np.arange(2))
    bounds = found.outputs(rows.functionals)
    is_open = ~(rows.best(rows.shifted(bounds.lower)) > 0)
    rest, empty, _ = contracted(found, rows, bounds, is_open)
    for i, points in enumerate(samples):
        assert (rest.lo[i] >= boxes[i].lo).all()
        assert (rest.hi[i] <= boxes[i].hi).all()
        outside = ((points < rest.lo[i]) | (points > rest.hi[i])).any(axis=1) | empty[i]
        assert not query.holds(model(points[outside])).any()


def test_contraction_cuts_an_affine_box_at_its_row() -> None:
    model = layered([([[1.0, 0.0], [0.0, 1.0]], [9.0, 9.0])], ([[1.0, 0.0], [0.0, 1.0]], [-9.0, -9.0]))
    rows = Rows.of(Query(SQUARE, (below([[1.0, 1.0]], [1.0]),)))  # u_0 + u_1 <= -1 leaves [-1, 0]^2
    found = bounded(model, Interval.of_boxes(SQUARE), np.arange(2))
    rest, empty, _ = contracted(found, rows, found.outputs(rows.functionals), np.ones((1, 1), np.bool_))
    np.testing.assert_allclose(rest.lo, [[-1.0, -1.0]])
    np.testing.assert_allclose(rest.hi, [[0.0, 0.0]], atol=1e-6)
    assert not empty.any()
    apart = Rows.of(Query(SQUARE, (below([[1.0, 0.0], [-1.0, 0.0]], [0.5, 0.5]),)))  # u_0 <= -.5 and u_0 >= .5
    _, empty, _ = contracted(found, apart, found.outputs(apart.functionals), np.ones((1, 1), np.bool_))
    assert empty.all()


def test_a_slab_whose_proof_fails_stays() -> None:
    model = folded()
    rows = Rows.of(Query(SQUARE, (below([[1.0]], [0.2]),)))
    found = bounded(model, Interval.of_boxes(SQUARE), np.arange(2))
    bounds = found.outputs(rows.functionals)
    wrong = box_bounds.RowBounds(bounds.lower, np.full_like(bounds.normals, 1e3), bounds.rates)
    rest, empty, _ = contracted(found, rows, wrong, np.ones((1, 1), np.bool_))
    assert (rest.lo == -1).all()
    assert (rest.hi == 1).all()
    assert not empty.any()


# ---------------------------------------------------------------------------------------------- public networks

ACASXU = Path(os.environ.get("IDL_AUDIT_DATA", ".")) / "vnncomp/acasxu"
LEAST_IS_FIRST = np.eye(5)[:1] - np.eye(5)[1:]
"""Rows y_0 - y_j <= 0."""
HEAD_ON = Box.between(
    np.array([-0.303531156, -0.009549297, 0.493380324, 0.3, 0.3]),
    np.array([-0.298552812, 0.009549297, 0.5, 0.5, 0.5]),
)
"""ACAS Xu property 3."""
FAR_AWAY = Box.between(np.array([0.6, -0.5, -0.5, 0.45, -0.5]), np.array([0.679857769, 0.5, 0.5, 0.5, -0.45]))
"""Property 2."""


@pytest.mark.slow
@pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="needs the environment variable IDL_AUDIT_DATA")
@pytest.mark.parametrize(
    ("network", "box", "rows", "holds"),
    [
        ("1_1", HEAD_ON, LEAST_IS_FIRST, False),
        ("1_2", HEAD_ON, LEAST_IS_FIRST, False),
        ("1_1", FAR_AWAY, -LEAST_IS_FIRST, False),
        ("1_2", FAR_AWAY, -LEAST_IS_FIRST, True),
    ],
)
def test_properties_of_collision_avoidance_are_decided(network: str, box: Box, rows: FloatArray, holds: bool) -> None:
    subject = open_subject(ACASXU / f"ACASXU_run2a_{network}_batch_2000.onnx")
    query = Query(box, (below(rows, np.zeros(4)),))
    outcome = split_inputs(
        subject.model, query, budget=enough(), judge=Judge.of(subject.model, subject.original, query)
    )
    assert outcome.proved == (not holds)
    if holds:
        assert outcome.point is not None
        assert query.holds(subject.original(outcome.point[None].astype(np.float32)))[0]
