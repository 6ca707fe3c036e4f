"""The triangle LP: below the truth, above backward bounds, and believed in nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.state_bounds import bound_set, prepare
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search.linprog import LinearProgram, Outcome, Solution
from idl_audit.search.relaxation import TriangleRelaxation
from idl_audit.values.box import Box, SparseBall
from tests.proof.test_dual_bound import lp_optimum
from tests.shared.budgets import no_time
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    dense,
    layered,
    long_double,
    minimum_by_patterns,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def relaxed(model: ImplicitModel, box: Box, *, tight: bool = True) -> TriangleRelaxation:
    inputs = Interval.of_boxes(box)
    return TriangleRelaxation(model, inputs, (backward_state_bounds if tight else interval_bounds)(model, inputs))


@settings(deadline=None, max_examples=30)
@given(seed=seeds, tight=st.booleans(), skips=st.booleans())
def test_the_lp_bound_lies_below_the_exact_minimum(seed: int, tight: bool, skips: bool) -> None:
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 3))
    model = random_network(rng, p=p, widths=(4, 3), activations=list(KINKED), skips=skips)
    box = random_box(rng, p)
    relaxation = relaxed(model, box, tight=tight)
    for functional in (rng.normal(size=3), np.array([1.0, -1.0, 0.0])):
        answer = relaxation.minimise(functional)
        assert answer.lower <= ExactModel(model).minimum(functional, box)
        assert answer.outcome is Outcome.OPTIMAL
        assert answer.point is not None
        assert ((answer.point >= box.lo - 1e-6) & (answer.point <= box.hi + 1e-6)).all()


@pytest.mark.parametrize("activations", [["relu"], list(KINKED)])
def test_the_lp_bound_is_the_lps_optimum_and_not_below_the_backward_bound(activations: list[str]) -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(4, 3), activations=activations)
        box = random_box(rng, 2)
        inputs = Interval.of_boxes(box)
        bounds = backward_state_bounds(model, inputs)
        functional = rng.normal(size=3)
        answer = TriangleRelaxation(model, inputs, bounds).minimise(functional)
        assert answer.lower == pytest.approx(lp_optimum(model, answer, functional), abs=1e-7)
        assert answer.lower >= output_lower_bounds(model, inputs, bounds, functional[None])[0, 0] - 1e-7


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_an_unstable_relu_adds_one_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(5, 4), activations=["relu"])
    form = relaxed(model, random_box(rng, 2)).form
    unstable = sum(int(form.bounds.unstable(k, block).sum()) for k, block in enumerate(model.blocks))
    assert form.matrix.shape[0] == form.live.size + unstable


@settings(deadline=None, max_examples=3)
@given(seed=seeds)
def test_the_lp_bound_of_three_inputs_is_below_all_activation_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4), activations=["relu"])
    box = random_box(rng, 3, radius=0.7)
    functional = rng.normal(size=3)
    assert relaxed(model, box).minimise(functional).lower <= minimum_by_patterns(model, functional, box) + 1e-7


@settings(deadline=None, max_examples=20)
@given(seed=seeds, scaled=st.booleans())
def test_the_lp_bound_of_smooth_networks_is_below_sampled_values(seed: int, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 3), activations=[*SMOOTH, "relu"])
    model = rescale(model) if scaled else model
    box = random_box(rng, 2)
    relaxation = relaxed(model, box)
    y = long_double(model, some_points(rng, box, 100))[2]
    for functional in np.eye(3):
        assert relaxation.minimise(functional).lower <= (y @ functional.astype(np.longdouble)).min()


def test_the_lp_of_a_pooled_network_is_sound() -> None:
    rng = np.random.default_rng(4)
    model = pooled_network(rng)
    box = random_box(rng, 16, radius=0.3)
    relaxation = relaxed(model, box)
    y = long_double(model, some_points(rng, box, 100))[2]
    for j in range(3):
        answer = relaxation.minimise(np.eye(3)[j])
        assert answer.outcome is Outcome.OPTIMAL
        assert answer.lower <= y[:, j].min()
        assert answer.lower > -1e3


@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_changing_costs_on_one_relaxation_gives_what_fresh_ones_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4), activations=["relu", "abs"])
    box = random_box(rng, 3, radius=0.5)
    kept = relaxed(model, box)
    for _ in range(4):
        functional = rng.normal(size=3) * rng.choice([1e-3, 1.0, 1e3])
        ours, fresh = kept.minimise(functional), relaxed(model, box).minimise(functional)
        assert ours.outcome is fresh.outcome is Outcome.OPTIMAL
        optima = [lp_optimum(model, answer, functional) for answer in (ours, fresh)]
        assert optima[0] == pytest.approx(optima[1], rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("width", [0.0, 1e-12, 1e-9, 1e-6])
@pytest.mark.parametrize("activations", [["relu"], ["abs", "steep", "negative"], ["tanh", "sigmoid"]])
def test_narrow_boxes_are_bounded_or_undecided_never_wrong(width: float, activations: list[str]) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(4, 3), activations=activations)
        box = random_box(rng, 2, radius=width)
        relaxation = relaxed(model, box)
        y = long_double(model, some_points(rng, box, 10))[2]
        for j in range(3):
            answer = relaxation.minimise(np.eye(3)[j])
            assert answer.lower <= y[:, j].min()
            if answer.outcome is Outcome.OPTIMAL:
                assert answer.lower >= y[:, j].min() - 1e-4


def test_a_model_without_states_is_a_linear_program_over_the_box() -> None:
    model = ImplicitModel((), (), Affine({}, dense([[1.0, -2.0]]), np.array([3.0])), (2,), (1,))
    answer = relaxed(model, Box.between(np.zeros(2), np.ones(2))).minimise(np.ones(1))
    assert answer.outcome is Outcome.OPTIMAL
    assert answer.lower == pytest.approx(1.0, abs=1e-12)
    assert answer.lower <= 1.0


def test_a_block_of_constants_is_a_state_like_others() -> None:
    """x_0 = relu(u), x_1 = relu((2, -3)) reads nothing; y = x_0 + x_1."""
    first = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    constant = Affine({}, None, np.array([2.0, -3.0]))
    blocks = (type(first.blocks[0])("c", "Relu", first.blocks[0].activation, (2,)), first.blocks[0])
    output = Affine({0: dense([[1.0, 1.0]]), 1: dense([[1.0]])}, None, np.zeros(1))
    model = ImplicitModel(blocks, (constant, first.rows[0]), output, (1,), (1,))
    box = Box.between(np.array([-1.0]), np.array([1.0]))
    answer = relaxed(model, box).minimise(np.ones(1))
    assert answer.lower <= 2.0
    assert answer.lower == pytest.approx(2.0, abs=1e-9)


def test_a_time_limit_gives_no_bound() -> None:
    rng = np.random.default_rng(0)
    model = random_network(rng, p=10, widths=(40, 40), activations=["relu"])
    answer = relaxed(model, random_box(rng, 10, radius=1.0)).minimise(np.eye(3)[0], budget=no_time())
    assert answer.outcome is Outcome.TIME_LIMIT
    assert answer.point is None
    assert answer.lower == -np.inf


LIES = ["noise", "huge", "nan", "inf", "zero", "flipped"]


def lie(kind: str, answer: Solution, rng: np.random.Generator) -> Solution:
    """Return an 'optimal' solution whose numbers are made up."""
    assert answer.point is not None
    assert answer.row_duals is not None
    n, m = answer.point.size, answer.row_duals.size
    point, duals = {
        "noise": (rng.normal(size=n), rng.normal(size=m)),
        "huge": (rng.normal(size=n) * 1e300, rng.normal(size=m) * 1e300),
        "nan": (np.full(n, np.nan), np.full(m, np.nan)),
        "inf": (np.full(n, np.inf), np.full(m, -np.inf)),
        "zero": (np.zeros(n), np.zeros(m)),
        "flipped": (-answer.point, -answer.row_duals),
    }[kind]
    return Solution(Outcome.OPTIMAL, point, duals)


@pytest.fixture(params=LIES)
def lying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make every linear program answer with one kind of lie."""
    rng = np.random.default_rng(11)
    honest = LinearProgram.minimise

    def minimise(self: LinearProgram, cost: np.ndarray, *, time_limit: float | None = None) -> Solution:
        return lie(request.param, honest(self, cost), rng)

    monkeypatch.setattr(LinearProgram, "minimise", minimise)
    with np.errstate(all="ignore"):
        yield str(request.param)


def test_a_lying_solver_never_gives_a_bound_above_the_truth(lying: str) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(3, 3), activations=list(KINKED))
        box = random_box(rng, 2, radius=0.5)
        functional = rng.normal(size=3)
        answer = relaxed(model, box).minimise(functional)
        assert not answer.lower > ExactModel(model).minimum(functional, box)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, k=st.integers(1, 5))
def test_the_lp_over_few_changed_inputs_is_below_every_such_point_and_above_that_of_the_box(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=5, widths=(5, 4), activations=list(KINKED))
    sample = rng.normal(size=5)
    ball = SparseBall.around(sample, 0.5, k)
    inputs = Interval.of_boxes(ball.hull)
    bounds = bound_set(prepare(model, ("interval", "linear"), sparse=True), ball).states
    functional = rng.normal(size=3)
    sparse = TriangleRelaxation(model, inputs, bounds, sparse=ball).minimise(functional)
    dense_bound = TriangleRelaxation(model, inputs, bounds).minimise(functional)
    assert sparse.outcome is Outcome.OPTIMAL
    assert sparse.lower >= dense_bound.lower - 1e-7
    points = some_points(rng, ball.box, 300)
    kept = rng.random(points.shape).argsort(axis=1) < k
    y = long_double(model, np.where(kept, points, sample))[2] @ functional.astype(np.longdouble)
    assert not sparse.lower > y.min()
    assert sparse.point is not None
    assert np.abs((sparse.point - sample) / 0.5).sum() <= k + 1e-6


def test_a_linear_model_over_few_changed_inputs_is_bounded_exactly() -> None:
    """y = u1 - 2 u2 + 3 u3 about 0, two inputs of three change by at most 1: -5."""
    model = ImplicitModel((), (), Affine({}, dense([[1.0, -2.0, 3.0]]), np.zeros(1)), (3,), (1,))
    ball = SparseBall.around(np.zeros(3), 1.0, 2)
    answer = TriangleRelaxation(model, Interval.of_boxes(ball.hull), StateBounds(), sparse=ball).minimise(np.ones(1))
    assert answer.lower == pytest.approx(-5.0, abs=1e-9)
    assert answer.lower <= -5.0
    assert answer.point == pytest.approx(np.array([0.0, 1.0, -1.0]), abs=1e-9)
