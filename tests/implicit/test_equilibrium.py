"""Equilibria: the one state that satisfies the equation, compared with solvers that share no code with the package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.cyclic_models import (
    PHI,
    around_a_loop,
    contracting,
    fixed_point,
    plain,
    random_loop,
    relu_solutions,
)

seeds = st.integers(0, 2**32 - 1)
COMPONENTWISE = sorted(set(PHI) - {"softmax"})


def states_of(A, kinds="relu") -> ImplicitModel:
    """Return y = x = phi(A x + u)."""
    n = len(A)
    return plain(A, np.eye(n), np.eye(n), kinds)


@pytest.mark.parametrize("name", COMPONENTWISE)
@pytest.mark.parametrize("size", [0.1, 3.0, 1e3])
def test_the_state_satisfies_the_equation_and_is_the_oracles(name, size):
    rng = np.random.default_rng(11)
    checked = 0
    for n in (1, 2, 5, 9):
        for _ in range(4):
            A = random_loop(rng, n)
            model = states_of(A, name)
            if not model.is_well_posed or np.abs(A).max() > 100:
                continue
            checked += 1
            inputs = rng.normal(size=(6, n)) * size
            x = model(inputs)
            scale = 1 + np.abs(x).max()
            assert np.abs(x - PHI[name](x @ A.T + inputs)).max() <= 1e-9 * scale
            if size < 100:
                np.testing.assert_allclose(x[0], fixed_point(A, inputs[0], name), rtol=0, atol=1e-7 * scale)
    assert checked >= 4


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 7))
def test_relu_states_are_those_of_brute_force(seed, n):
    rng = np.random.default_rng(seed)
    A = random_loop(rng, n)
    model = states_of(A)
    if not model.is_well_posed or np.abs(A).max() > 1e4:
        return
    inputs = rng.normal(size=(4, n))
    for drive, x in zip(inputs, model(inputs), strict=True):
        (only,) = relu_solutions(A, drive)
        np.testing.assert_allclose(x, only, rtol=0, atol=1e-8 * (1 + np.abs(only).max()))


@pytest.mark.parametrize("value", [-3.0, -1e6, 0.999, 1 - 1e-9, -1e80])
def test_one_relu_state_is_the_closed_form(value):
    inputs = np.array([[2.0], [0.0], [-1.0], [1e-3], [1e8]])
    expected = np.where(inputs > 0, inputs / (1 - value), 0.0)
    np.testing.assert_allclose(states_of([[value]])(inputs), expected, rtol=1e-12, atol=0)


def test_pf_above_1_is_solved_as_well():
    A = -2 * np.eye(2)
    np.testing.assert_allclose(states_of(A)(np.array([[3.0, -6.0]])), [[1.0, 0.0]], rtol=1e-12)
    A = np.array([[0.7, 0.4], [-2.2, 0.6]])
    inputs = np.random.default_rng(0).normal(size=(20, 2))
    for drive, x in zip(inputs, states_of(A)(inputs), strict=True):
        np.testing.assert_allclose(x, relu_solutions(A, drive)[0], atol=1e-12)


def test_ties_at_the_kink():
    A = np.array([[-2.0, 1.0], [1.0, -2.0]])
    np.testing.assert_allclose(states_of(A)(np.array([[0.0, 0.0], [-1.0, 3.0], [3.0, -1.0]])), [[0, 0], [0, 1], [1, 0]])


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "softmax"])
def test_a_batch_is_its_rows(name):
    rng = np.random.default_rng(5)
    A = contracting(rng, [(name, 4)])
    model = states_of(A, name)
    inputs = rng.normal(size=(7, 4)) * np.array([[1e-3], [1], [1], [10], [1], [1], [100]])
    together = model(inputs)
    for row, x in zip(inputs, together, strict=True):
        np.testing.assert_allclose(model(row[None])[0], x, atol=1e-6 if name == "softmax" else 1e-11)


@pytest.mark.parametrize(
    "name",
    [
        "relu",
        "tanh",
        "softmax",
    ],
)
def test_an_empty_batch_has_no_states(name):
    assert states_of(np.full((4, 4), 0.1), name)(np.zeros((0, 4))).shape == (0, 4)


def test_the_report_of_a_solution():
    rng = np.random.default_rng(6)
    A = contracting(rng, [("tanh", 4)])
    inputs = rng.normal(size=(5, 4))
    model = states_of(A, "tanh")
    found = model.solve(inputs)
    (x,), (z,) = found.states, found.pre_activations
    np.testing.assert_allclose(z, x @ A.T + inputs, atol=1e-14)
    assert found.residual == pytest.approx(np.abs(x - np.tanh(z)).max(), abs=1e-15)
    assert 1 <= found.iterations < 5000
    feed_forward = plain(np.triu(A, 1), np.eye(4), np.eye(4), "tanh").solve(inputs)
    assert (feed_forward.iterations, feed_forward.residual) == (0, 0.0)


def test_dead_states_are_no_end_of_the_way():
    """The first steps leave all states at 0, though the sum that they are made of is still on its way."""
    A = np.array([[0.19, -3.13, 0.73], [3.64, 0.66, -1.26], [0.22, 1.08, 0.47]])
    model = states_of(A)
    assert model.is_well_posed
    inputs = np.array([[-1.744, 0.299, -0.034]])
    x = model(inputs)
    assert np.abs(x - np.maximum(x @ A.T + inputs, 0)).max() <= 1e-9


def test_a_nearly_singular_loop_is_solved():
    A = np.array([[0, 1 - 1e-9], [1 - 1e-9, 0]])
    x = states_of(A)(np.array([[1.0, 2.0]]))[0]
    np.testing.assert_allclose(x, np.linalg.solve(np.eye(2) - A, [1.0, 2.0]), rtol=1e-6)


@pytest.mark.parametrize("width", [2, 5])
def test_states_of_a_softmax_loop_are_near_the_oracles(width):
    rng = np.random.default_rng(7)
    A = contracting(rng, [("softmax", width)], 0.9)
    inputs = rng.normal(size=(5, width))
    for drive, x in zip(inputs, states_of(A, "softmax")(inputs), strict=True):
        np.testing.assert_allclose(x, fixed_point(A, drive, "softmax"), atol=2e-6)


def test_states_of_a_softmax_loop_are_as_good_as_those_of_others():
    rng = np.random.default_rng(7)
    A = contracting(rng, [("softmax", 3), ("tanh", 2)], 0.9)
    kinds = [("softmax", 3), ("tanh", 2)]
    inputs = rng.normal(size=(10, 5))
    found = states_of(A, kinds)(inputs)
    truth = np.array([fixed_point(A, drive, kinds) for drive in inputs])
    assert np.abs(found - truth).max() < 1e-11


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_states_around_loops_are_those_of_one_flat_fixed_point(seed):
    rng = np.random.default_rng(seed)
    kinds = [(str(rng.choice(COMPONENTWISE)), 2), (str(rng.choice(["relu", "tanh"])), 1)]
    loops = [(contracting(rng, kinds, 0.7), kinds), (contracting(rng, kinds, 0.7), kinds)]
    arrays, every = around_a_loop(rng, loops)
    n = len(arrays["A"])
    model = plain(arrays["A"], arrays["B"], np.eye(n), every, b=arrays["b"])
    u = rng.normal(size=3)
    truth = fixed_point(arrays["A"], arrays["B"] @ u + arrays["b"], every)
    np.testing.assert_allclose(model(u[None])[0], truth, rtol=1e-7, atol=1e-7)


# ---------------------------------------------------------------------------------------------- no proof


@pytest.mark.parametrize("A", [[[1.0]], [[2.0]], [[3.0]], [[0.0, 5.0], [5.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
def test_without_a_proof_the_answer_is_an_equilibrium_or_an_error(A):
    model = states_of(A)
    assert not model.is_well_posed
    inputs = np.array([[1.0] * len(A)])
    try:
        x = model(inputs)
    except UnsupportedModelError:
        return
    np.testing.assert_allclose(x, np.maximum(x @ np.transpose(A) + inputs, 0), atol=1e-5)


def test_where_there_is_no_equilibrium_the_error_says_so():
    with pytest.raises(UnsupportedModelError, match="no equilibrium of 'state 0' was found"):
        states_of([[1.0]])(np.ones((1, 1)))  # x = relu(x + 1)
