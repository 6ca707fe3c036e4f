"""Forward affine forms: no exact value escapes them, and they are as narrow as the formula in rational arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, bounded
from idl_audit.proof.check import part_stage
from idl_audit.proof.forms import Form, Forms, affine_form, moving
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.values.box import Box
from tests.proof.test_intervals import OVERFLOWING, escapes
from tests.shared.exact_activations import EXAMPLES
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    all_corners,
    dense,
    layered,
    long_double,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def formed(model: ImplicitModel, box: Box, apart: Any = None) -> BoxBounds:
    """Return the bounds by forms alone, which tell all inputs apart or some."""
    apart = np.arange(box.size) if apart is None else np.asarray(apart, np.int64)
    return bounded(model, Interval.of_boxes(box), apart, by_lines=False)


def strays(form: Form, place: list[Fraction], values: Any) -> list[int]:
    """Return the values that are further from centre + slopes . t than the error, exactly."""
    found = []
    for i, value in enumerate(values):
        centre, *slopes = (Fraction(float(term)) for term in form.terms[0, :, i])
        middle = centre + sum((slope * t for slope, t in zip(slopes, place, strict=True)), start=Fraction(0))
        if not abs(Fraction(value) - middle) <= Fraction(float(form.error[0, i])):
            found.append(i)
    return found


def place_of(forms: Forms, apart: np.ndarray, u: np.ndarray) -> list[Fraction]:
    """Return t with u_j = centre_j + radius_j t_j for the inputs that are told apart, exactly."""
    terms = forms.inputs.terms[0]
    place = []
    for row, j in enumerate(apart):
        radius = Fraction(float(terms[1 + row, j]))
        distance = Fraction(float(u[j])) - Fraction(float(terms[0, j]))
        place.append(distance / radius if radius else Fraction(0))
        assert abs(place[-1]) <= 1
    return place


@settings(deadline=None, max_examples=40)
@given(seed=seeds, cancelling=st.booleans(), depth=st.integers(1, 4), some=st.sampled_from([(), (0,), (1,), (0, 1)]))
def test_exact_states_lie_inside_their_forms(seed: int, cancelling: bool, depth: int, some: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3,) * depth, activations=list(KINKED), cancelling=cancelling)
    box, apart = random_box(rng, 2), np.asarray(some, np.int64)
    found = formed(model, box, apart)
    assert found.forms is not None
    exact = ExactModel(model)
    for u in [*all_corners(box), *some_points(rng, box, 4)]:
        z, x, y = exact.evaluate(u)
        place = place_of(found.forms, apart, u)
        for k in range(depth):
            assert strays(found.forms.z[k], place, z[k]) == []
            assert strays(found.forms.x[k], place, x[k]) == []
        assert strays(affine_form(model.output, found.forms.x, found.forms.inputs), place, y) == []
        assert escapes(found.states, z, x) == []


@settings(deadline=None, max_examples=25)
@given(seed=seeds, spread=st.sampled_from([1e-6, 1.0, 30.0, 1000.0]))
def test_states_of_smooth_networks_lie_inside_the_bounds(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4, 3), activations=[*sorted(set(SMOOTH) - {"softmax"}), "relu"])
    box = random_box(rng, 3)
    box = Box.between(box.centre - (box.hi - box.centre) * spread, box.centre + (box.hi - box.centre) * spread)
    points = np.clip(some_points(rng, box, 100), box.lo, box.hi)
    z, x, _ = long_double(model, points)
    assert escapes(formed(model, box).states, z, x) == []


@pytest.mark.parametrize("name", sorted({*EXAMPLES, "softmax"}))
def test_no_point_violates_a_form_of_any_activation(name: str) -> None:
    rng = np.random.default_rng(sorted(ACTIVATIONS).index(name))
    for radius in (1e-3, 0.1, 1.0):
        model = random_network(rng, p=3, widths=(6, 6), q=2, activations=[name])
        box = Box.around(rng.normal(size=3), radius)
        points = np.clip(some_points(rng, box, 3000), box.lo, box.hi)
        states, solution = formed(model, box).states, model.solve(points)
        for k in range(2):
            z, x = solution.pre_activations[k], solution.states[k]
            for values, bounds in ((z, states.z[k]), (x, states.x[k])):
                slack = 1e-12 * (1 + np.abs(values).max())  # of the evaluation in float64
                assert (values >= bounds.lo - slack).all()
                assert (values <= bounds.hi + slack).all()


def test_forms_are_as_narrow_as_the_formula() -> None:
    """x = s z + t +- r with s = h / (h - l), t = r = -s l / 2, or its interval, in Fractions, layer by layer."""
    rng = np.random.default_rng(3)
    layers = [(rng.integers(-4, 5, (4, n)) / 4, rng.integers(-4, 5, 4) / 8) for n in (2, 4, 4)]
    model = layered(layers, (np.ones((1, 4)), np.zeros(1)))
    found = formed(model, Box.between(-np.ones(2), np.ones(2)))
    terms = [[Fraction(0), Fraction(0)], [Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]]
    error, bent = [Fraction(0)] * 2, 0
    for made, (weights, bias) in enumerate(layers):
        rows = [[Fraction(float(w)) for w in row] for row in weights]
        terms = [[sum(w * t for w, t in zip(row, term, strict=True)) for row in rows] for term in terms]
        terms[0] = [t + Fraction(float(b)) for t, b in zip(terms[0], bias, strict=True)]
        error = [sum(abs(w) * e for w, e in zip(row, error, strict=True)) for row in rows]
        for i in range(4):
            z = found.states.z[2 - made]
            lo, hi = (Fraction(float(end[0, i])) for end in (z.lo, z.hi))  # intervals may be narrower still
            reach = abs(terms[1][i]) + abs(terms[2][i]) + error[i]
            assert lo >= terms[0][i] - reach - Fraction(1, 10**12)
            assert hi <= terms[0][i] + reach + Fraction(1, 10**12)
            bent += lo < 0 < hi
            slope = hi / (hi - lo) if lo < 0 < hi else Fraction(int(lo >= 0))
            rise = -slope * lo / 2 if lo < 0 < hi else Fraction(0)
            for j in range(3):
                terms[j][i] = slope * terms[j][i] + (rise if j == 0 else 0)
            error[i] = slope * error[i] + rise
            if error[i] >= max(hi, 0) / 2 - max(lo, 0) / 2:
                error[i] = max(hi, 0) / 2 - max(lo, 0) / 2
                terms[0][i], terms[1][i], terms[2][i] = max(hi, 0) / 2 + max(lo, 0) / 2, Fraction(0), Fraction(0)
    assert bent >= 6, "nothing bends: this test sees no slope"
    last = affine_form(model.output, found.forms.x, found.forms.inputs).interval if found.forms else None
    assert last is not None
    reach = abs(sum(terms[1])) + abs(sum(terms[2])) + sum(error)
    assert last.lo[0, 0] >= sum(terms[0]) - reach - Fraction(1, 10**12)
    assert last.hi[0, 0] <= sum(terms[0]) + reach + Fraction(1, 10**12)


def test_what_cancels_in_the_inputs_is_known_to_cancel() -> None:
    """(u + 9) - (u + 9) through two layers that never bend: 0, where intervals see [-2, 2]."""
    model = layered([([[1.0], [1.0]], [9.0, 9.0]), ([[1.0, -1.0]], [0.0])], ([[1.0]], [0.0]))
    box = Box.between(-np.ones(1), np.ones(1))
    z, plain = formed(model, box).states.z[0], interval_bounds(model, Interval.of_boxes(box)).z[0]
    assert -1e-12 < z.lo[0, 0] <= 0 <= z.hi[0, 0] < 1e-12
    assert plain.lo[0, 0] < -1.9


def test_a_chord_and_half_the_triangle_stand_for_a_bend() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    found = formed(model, Box.between(np.array([-1.0]), np.array([3.0])))
    assert found.forms is not None
    form = found.forms.x[0]  # u = 1 + 2 t; relu(u) = 3/4 u + 3/8 +- 3/8 = 9/8 + 3/2 t +- 3/8
    np.testing.assert_allclose(form.terms[0, :, 0], [9 / 8, 3 / 2], rtol=1e-14)
    np.testing.assert_allclose(form.error[0], [3 / 8], rtol=1e-13)
    assert form.error[0, 0] >= 3 / 8


def test_inputs_without_width_and_points() -> None:
    rng = np.random.default_rng(5)
    model = random_network(rng, p=3, widths=(4, 4), activations=list(KINKED), cancelling=True)
    lo = rng.normal(size=3)
    for hi in (lo, lo + np.array([0.0, 1e-300, 0.0]), np.nextafter(lo, np.inf), lo + np.array([0.0, 0.5, 0.0])):
        box = Box.between(lo, hi)
        exact, states = ExactModel(model), formed(model, box).states
        for u in (lo, hi, box.centre):
            z, x, _ = exact.evaluate(np.clip(u, lo, hi))
            assert escapes(states, z, x) == []


def test_overflows_say_nothing_and_are_no_numbers_nowhere() -> None:
    box = Box.between(np.full(4, 1.0), np.full(4, 1.5))
    with np.errstate(over="ignore", invalid="ignore"):
        found = formed(OVERFLOWING, box)
    z, _, _ = ExactModel(OVERFLOWING).evaluate(np.ones(4))
    for k, interval in found.states.z.items():
        assert not np.isnan(interval.lo).any()
        assert not np.isnan(interval.hi).any()
        assert all(lo <= value <= hi for lo, value, hi in zip(interval.lo[0], z[k], interval.hi[0], strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_form_of_no_number_has_an_infinite_interval(bad: float) -> None:
    for place in range(3):
        terms, error = np.array([[[1.0], [2.0]]]), np.array([[0.5]])
        if place < 2:
            terms[0, place, 0] = bad
        else:
            error[0, 0] = abs(bad)
        with np.errstate(invalid="ignore"):
            interval = Form(terms, error).interval
            through = Form(terms, error).through(
                StateBlock("b", "Relu", ACTIVATIONS["relu"](), (1,)),
                Interval(np.array([[-1.0]]), np.array([[2.0]])),
                Interval(np.array([[0.0]]), np.array([[2.0]])),
            )
        assert (interval.lo[0, 0], interval.hi[0, 0]) == (-np.inf, np.inf)
        assert np.isfinite(through.terms).all()
        assert through.terms[0, 1, 0] == 0
        assert through.terms[0, 0, 0] - through.error[0, 0] <= 0
        assert through.terms[0, 0, 0] + through.error[0, 0] >= 2


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_every_map_that_a_matrix_may_stand_for_is_covered(seed: int) -> None:
    """|W_true - W| <= relative |W| + slack, at corners of what W_true may be."""
    rng = np.random.default_rng(seed)
    matrix, slack, relative = rng.normal(size=(3, 2)), np.abs(rng.normal(size=(3, 2))) * 1e-3, 1e-3
    doubtful = Dense(matrix=matrix, relative=relative, slack=Dense(matrix=slack))
    row = Affine({}, doubtful, rng.normal(size=3), constant_error=1e-4)
    box = random_box(rng, 2)
    form = affine_form(row, {}, Form.of_inputs(Interval.of_boxes(box), np.arange(2)))
    for _ in range(20):
        signs = rng.choice([-1.0, 1.0], size=(3, 2))
        true = layered([(matrix, np.zeros(3))], (np.eye(3), np.zeros(3)), ACTIVATIONS["identity"]())
        for u in all_corners(box):
            own = [
                sum(
                    (Fraction(float(matrix[i, j])) + Fraction(float(signs[i, j])) * (
                        Fraction(relative) * abs(Fraction(float(matrix[i, j]))) + Fraction(float(slack[i, j]))
                    )) * Fraction(float(u[j]))
                    for j in range(2)
                ) + Fraction(float(row.constant[i])) + Fraction(1e-4) * int(signs[i, 0])
                for i in range(3)
            ]  # fmt: skip
            assert strays(form, place_of(formed(true, box).forms or Forms(form, {}, {}), np.arange(2), u), own) == []


def test_a_loop_has_no_form_and_what_reads_it_is_bounded() -> None:
    loop = StateBlock("loop", "Loop", ACTIVATIONS["relu"](), (2,))
    row = Affine({1: dense([[0.2, -0.3], [0.3, 0.1]])}, dense([[1.0, -1.0], [1.0, 1.0]]), np.array([0.1, -0.1]))
    last = StateBlock("last", "Relu", ACTIVATIONS["relu"](), (1,))
    rows = (Affine({1: dense([[1.0, -1.0]])}, dense([[0.5, 0.0]]), np.zeros(1)), row)
    model = ImplicitModel((last, loop), rows, Affine({0: dense([[1.0]])}, None, np.zeros(1)), (2,), (1,))
    box = Box.between(-np.ones(2), np.ones(2))
    found = formed(model, box)
    assert found.forms is not None
    assert set(found.forms.z) == {0}
    solution = model.solve(some_points(np.random.default_rng(0), box, 200))
    for k in range(2):
        z = solution.pre_activations[k]
        assert (z >= found.states.z[k].lo - 1e-9).all()
        assert (z <= found.states.z[k].hi + 1e-9).all()


@settings(deadline=None, max_examples=15)
@given(seed=seeds, by_lines=st.booleans())
def test_parts_of_a_box_are_bounded_within_the_whole(seed: int, by_lines: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3, 3), activations=list(KINKED))
    box = random_box(rng, 2)
    whole = backward_state_bounds(model, Interval.of_boxes(box))
    half = Box.between(box.lo, np.array([box.centre[0], box.hi[1]]))
    apart = moving(Interval.of_boxes(box))
    found = part_stage(model, Interval.of_boxes(half), whole, apart, by_lines=by_lines)
    for k in range(3):
        assert (found.z[k].lo >= whole.z[k].lo).all()
        assert (found.z[k].hi <= whole.z[k].hi).all()
    exact = ExactModel(model)
    for u in [*all_corners(half), *some_points(rng, half, 3)]:
        z, x, _ = exact.evaluate(np.clip(u, half.lo, half.hi))
        assert escapes(found, z, x) == []


def test_pools_are_bounded_by_forms_and_windows() -> None:
    rng = np.random.default_rng(1)
    model = pooled_network(rng, size=4, q=2)
    lo, hi = np.zeros(16), np.zeros(16)
    lo[:3], hi[:3] = -1.0, 1.0
    box = Box.between(lo, hi)
    states = formed(model, box, [0, 1, 2]).states
    solution = model.solve(some_points(rng, box, 300))
    for k in range(len(model.blocks)):
        z = solution.pre_activations[k]
        assert (z >= states.z[k].lo - 1e-9).all()
        assert (z <= states.z[k].hi + 1e-9).all()


def test_inputs_that_a_decimal_widened_do_not_move() -> None:
    lo = np.array([0.1, -0.5, 0.0, 3.0])
    hi = np.array([np.nextafter(0.1, 1), 0.5, 0.0, 3.0 + 1e-9])
    assert moving(Interval(lo[None], hi[None])).tolist() == [1, 3]


def test_forms_of_some_boxes_are_those_of_all() -> None:
    rng = np.random.default_rng(2)
    model = random_network(rng, p=2, widths=(3, 3), activations=["relu"])
    boxes = Interval.of_boxes([random_box(rng, 2) for _ in range(3)])
    found = bounded(model, boxes, np.arange(2), by_lines=False)
    some = np.array([2, 0])
    part = found.part(some)
    alone = bounded(model, Interval(boxes.lo[some], boxes.hi[some]), np.arange(2), by_lines=False)
    for k in range(2):
        np.testing.assert_allclose(part.states.z[k].lo, alone.states.z[k].lo, rtol=1e-12, atol=1e-14)
        assert part.forms is not None
        assert alone.forms is not None
        np.testing.assert_allclose(part.forms.x[k].terms, alone.forms.x[k].terms, rtol=1e-12, atol=1e-14)
    rows = replace(part, forms=alone.forms).outputs(np.eye(3))
    np.testing.assert_allclose(rows.rates, alone.outputs(np.eye(3)).rates, rtol=1e-9, atol=1e-12)
