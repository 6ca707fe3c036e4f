"""Networks whose states multiply: bounds and S against samples, corners and exact small cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.reachability import independent_pairs
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.proof.restricted import bounds_everywhere, everywhere
from idl_audit.proof.sensitivity_witness import check_witness, make_witness
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.gated_networks import BOUNDED_EVERYWHERE, GATED
from tests.shared.implicit_models import built, node
from tests.shared.small_networks import all_corners

KINDS = pytest.mark.parametrize("kind", sorted(GATED))
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=4, deadline=None)


def points_of(rng: np.random.Generator, box: Box, count: int) -> FloatArray:
    inside = box.lo + (box.hi - box.lo) * rng.random((count, box.lo.size))
    return np.clip(np.vstack([all_corners(box), inside]), box.lo, box.hi)


def random_case(kind: str, seed: int) -> tuple[np.random.Generator, ImplicitModel, Box]:
    rng = np.random.default_rng(seed)
    model = GATED[kind](rng)
    return rng, model, Box.around(rng.normal(size=model.n_inputs), float(rng.choice([1e-3, 0.1, 1.0])))


@KINDS
@FEW
@given(seed=SEEDS)
def test_no_point_leaves_the_bounds_of_any_state_or_output(kind: str, seed: int) -> None:
    rng, model, box = random_case(kind, seed)
    inputs, points = Interval.of_boxes(box), points_of(rng, box, 10_000)
    found = model.solve(points)
    rows = rng.normal(size=(3, model.n_outputs))
    for bounds in (interval_bounds(model, inputs), backward_state_bounds(model, inputs), bounds_everywhere(model)):
        for k, (z, x) in enumerate(zip(found.pre_activations, found.states, strict=True)):
            for values, known in ((z, bounds.z[k]), (x, bounds.x[k])):
                slack = 1e-12 * (1 + np.abs(values).max())
                assert (values >= known.lo - slack).all()
                assert (values <= known.hi + slack).all()
    lowers = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), rows)[0]
    y = model(points) @ rows.T
    assert (y >= lowers - 1e-12 * (1 + np.abs(y).max())).all()


@KINDS
@FEW
@given(seed=SEEDS)
def test_local_s_bounds_what_any_two_inputs_of_the_box_differ_by(kind: str, seed: int) -> None:
    rng, model, box = random_case(kind, seed)
    first, second = (points_of(rng, box, 1000) for _ in range(2))
    second = rng.permutation(second)
    for state_bounds in ("interval", "linear"):
        S = local_sensitivity(model, box, state_bounds=state_bounds)
        moved = np.abs(model(first) - model(second))
        assert (moved <= np.abs(first - second) @ S.T + 1e-12 * (1 + moved.max())).all()


@pytest.mark.parametrize("kind", sorted(BOUNDED_EVERYWHERE))
@FEW
@given(seed=SEEDS)
def test_s_for_all_inputs_is_finite_where_the_factors_are_bounded(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = GATED[kind](rng)
    S = sensitivity_matrix(model, "best")
    assert np.isfinite(S).all()
    first = rng.normal(size=(2000, model.n_inputs)) * rng.choice([0.1, 1.0, 10.0], size=(2000, 1))
    second = first + rng.normal(size=first.shape) * rng.choice([1e-3, 1.0], size=(2000, 1))
    assert (np.abs(model(first) - model(second)) <= np.abs(first - second) @ S.T + 1e-12).all()
    witness = make_witness(model)
    assert check_witness(model, witness).accepted
    assert (witness.S >= S * (1 - 1e-9)).all()


@pytest.mark.parametrize("kind", sorted(GATED.keys() - BOUNDED_EVERYWHERE))
def test_s_for_all_inputs_is_refused_by_the_block_that_has_no_bound(kind: str) -> None:
    model = GATED[kind](np.random.default_rng(0))
    with pytest.raises(UnsupportedModelError, match=r"no number bounds the slope of '.*product'"):
        sensitivity_matrix(model, "best")


@KINDS
def test_what_an_output_depends_on_moves_it_and_nothing_else_does(kind: str) -> None:
    rng = np.random.default_rng(1)
    model = GATED[kind](rng)
    u = rng.normal(size=(20, 1, model.n_inputs))
    moved = u + 0.1 * np.eye(model.n_inputs)
    rows = (20 * model.n_inputs, model.n_inputs)
    before = model(np.broadcast_to(u, moved.shape).reshape(rows))
    change = np.abs(model(moved.reshape(rows)) - before).reshape(20, model.n_inputs, -1).max(axis=0).T
    np.testing.assert_array_equal(change > 0, ~independent_pairs(model))


# --- exact small cases ------------------------------------------------------------------------------------------------


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_one_step_of_an_lstm_is_half_tanh_of_half_tanh() -> None:
    """With W = 0, R = 0 and b for g alone: i = o = 1/2, c = tanh(b) / 2, h = tanh(c) / 2."""
    b = 0.8
    constants = {
        "w": np.zeros((1, 4, 1), np.float32),
        "r": np.zeros((1, 4, 1), np.float32),
        "b": np.float32([[0, 0, 0, b, 0, 0, 0, 0]]),
    }
    model = built([node("LSTM", "x w r b", "y", hidden_size=1)], (1, 1, 1), constants)
    np.testing.assert_allclose(
        model(np.zeros((1, 1))), 0.5 * math.tanh(0.5 * math.tanh(float(np.float32(b)))), rtol=1e-15
    )


def test_one_step_of_an_lstm_of_one_input_has_the_least_and_greatest_value_of_its_ends() -> None:
    """All gates rise with u >= 0, and so does h: bounds of one step are its values at the ends, nearly."""
    constants = {"w": np.ones((1, 4, 1), np.float32), "r": np.zeros((1, 4, 1), np.float32)}
    model = built([node("LSTM", "x w r", "y", hidden_size=1)], (1, 1, 1), constants)
    box = Box.between(np.array([0.5]), np.array([0.6]))

    def h(u: float) -> float:
        return sigmoid(u) * math.tanh(sigmoid(u) * math.tanh(u))

    bounds = interval_bounds(model, Interval.of_boxes(box))
    (k,) = model.output.states
    assert bounds.x[k].lo[0, 0] == pytest.approx(h(0.5), abs=1e-9)
    assert bounds.x[k].hi[0, 0] == pytest.approx(h(0.6), abs=1e-9)


def gates(nodes: list[tuple[str, str, str]]) -> ImplicitModel:
    """Return a function of both entries of a row, u1 and u2."""
    first = [node("Split", "x half", "u1 u2", axis=1)]
    return built([*first, *(node(*each) for each in nodes)], (1, 2), {"half": np.array([1, 1])})


def test_s_of_a_sigmoid_times_a_tanh_is_a_quarter_and_one() -> None:
    model = gates([("Sigmoid", "u1", "s"), ("Tanh", "u2", "t"), ("Mul", "s t", "y")])
    np.testing.assert_allclose(sensitivity_matrix(model), [[0.25, 1.0]], rtol=1e-9)


def test_s_of_an_input_times_a_sigmoid_is_infinite_and_of_boxes_finite() -> None:
    model = gates([("Sigmoid", "u2", "s"), ("Mul", "u1 s", "y")])
    with pytest.raises(UnsupportedModelError, match="product"):
        sensitivity_matrix(model)
    box = Box.between(np.array([-2.0, 0.0]), np.array([2.0, 0.0]))
    np.testing.assert_allclose(local_sensitivity(model, box), [[0.5, 0.5]], rtol=1e-9)


def test_an_unbounded_input_with_the_weight_0_bounds_nothing_and_is_no_nan() -> None:
    model = built(
        [
            node("MatMul", "x w", "h"),
            node("Tanh", "h", "t"),
            node("MatMul", "x v", "k"),
            node("Sigmoid", "k", "s"),
            node("Concat", "s x", "both", axis=1),
            node("MatMul", "both z", "q"),
            node("Mul", "t q"),
        ],
        (1, 2),
        {
            "w": np.float32([[1], [1]]),
            "v": np.float32([[0], [1]]),
            "z": np.float32([[1], [0], [0]]),  # of the sigmoid alone
        },
    )
    np.testing.assert_allclose(sensitivity_matrix(model), [[1.0, 1.25]], rtol=1e-9)


def test_a_number_times_its_negative_has_s_2_on_the_unit_interval() -> None:
    model = built([node("Neg", "x", "n"), node("Tanh", "n", "t"), node("Mul", "x t")], (1, 1))
    S = local_sensitivity(model, Box.between(np.array([-1.0]), np.array([1.0])))
    assert S[0, 0] >= 1 + math.tanh(1.0) - 1e-12  # |x| |dt| + |t| |dx|


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_cell_states_grow_by_1_a_step_whatever_the_inputs_are(steps: int) -> None:
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(1, 8, 2)).astype(np.float32), "r": rng.normal(size=(1, 8, 2)).astype(np.float32)}
    model = built([node("LSTM", "x w r", "- - y", hidden_size=2)], (steps, 1, 2), constants)
    bounds = bounds_everywhere(model)
    y = sum(linear_map.magnitude.apply(bounds.x[k].largest) for k, linear_map in model.output.states.items())
    np.testing.assert_allclose(y, steps, rtol=1e-9)
    assert everywhere(model).unbounded == ""
