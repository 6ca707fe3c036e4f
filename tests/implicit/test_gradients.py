"""Gradients against central differences, and where a slope is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.scaling import rescale
from tests.shared.exact_activations import EXAMPLES
from tests.shared.small_networks import KINKED, SMOOTH, dense, layered, leaky_relu, pooled_network, random_network

seeds = st.integers(0, 2**32 - 1)


def check(model: ImplicitModel, rng: np.random.Generator) -> None:
    u = rng.normal(size=(6, model.n_inputs))
    functionals = rng.normal(size=(6, model.n_outputs))
    found = gradient(model, u, functionals)
    assert found.shape == u.shape
    h = 1e-6
    kinks = min((float(np.abs(z).min()) for z in model.pre_activations(u)), default=1.0)
    if kinks < 1e-3:  # a kink lies within the step
        return
    for j in range(model.n_inputs):
        step = h * np.eye(model.n_inputs)[j]
        slope = ((model(u + step) - model(u - step)) * functionals).sum(axis=1) / (2 * h)
        np.testing.assert_allclose(found[:, j], slope, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, scaled=st.booleans())
def test_gradients_are_central_differences(seed: int, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(3, 3, 2), activations=[*KINKED, *SMOOTH])
    check(rescale(model) if scaled else model, rng)


def test_gradients_of_pooled_networks_are_central_differences() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        check(pooled_network(rng, size=3), rng)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_gradients_of_every_activation_are_central_differences(name: str) -> None:
    model = layered([([[0.7]], [0.1])], ([[1.0]], [0.0]), ACTIVATIONS[name]())
    for u in (-2.0, -0.6, 0.3, 1.7):
        step = 1e-5
        slope = (model(np.array([[u + step]])) - model(np.array([[u - step]])))[0, 0] / (2 * step)
        assert gradient(model, np.array([[u]]), np.ones((1, 1)))[0, 0] == pytest.approx(slope, abs=1e-7)


def test_rows_of_a_batch_have_their_own_functionals() -> None:
    model = layered(
        [(np.eye(2), np.zeros(2))], (np.eye(2), np.zeros(2)), leaky_relu(-0.5), skip=[[0.0, 7.0], [0.0, 0.0]]
    )
    u = np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    found = gradient(model, u, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    np.testing.assert_allclose(found, [[1.0, 7.0], [0.0, -0.5], [-0.5, 8.0]])


def test_a_linear_model_has_the_gradient_of_its_matrix() -> None:
    model = ImplicitModel((), (), Affine({}, dense([[1.0, -2.0]]), np.zeros(1)), (2,), (1,))
    np.testing.assert_allclose(gradient(model, np.zeros((2, 2)), np.array([[1.0], [3.0]])), [[1, -2], [3, -6]])
