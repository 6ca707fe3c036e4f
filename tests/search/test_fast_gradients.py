"""The float32 form against the implicit model in float64: outputs, slopes, batches, and loops by another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.graph.reader import read_graph
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.search.fast_gradients import FastNetwork, SlowNetwork, batch_size, searched
from tests.shared.exact_activations import EXAMPLES
from tests.shared.small_networks import KINKED, SMOOTH, dense, layered, pooled_network, random_network

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def agrees(model: ImplicitModel, rng: np.random.Generator, *, rows: int = 7) -> None:
    """Outputs to float32's accuracy; slopes likewise, but where rounding crosses a kink."""
    fast = FastNetwork(model)
    u = rng.normal(size=(rows, model.n_inputs)).astype(np.float32).astype(np.float64)
    weights = rng.normal(size=(rows, model.n_outputs))
    y, slope = fast.slopes(u, lambda y: weights)
    exact, exact_slope = model(u), gradient(model, u, weights)
    size = 1 + max((float(np.abs(x).max(initial=0.0)) for x in model.state(u)), default=0.0) + np.abs(exact).max()
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-5 * size)
    np.testing.assert_array_equal(y, fast.outputs(u))
    nearest = min((float(np.abs(z).min(initial=np.inf)) for z in model.pre_activations(u)), default=1.0)
    if nearest > 1e-4 * size:
        np.testing.assert_allclose(slope, exact_slope, rtol=1e-3, atol=1e-4 * (1 + np.abs(exact_slope).max()))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), scaled=st.booleans())
def test_float32_gives_what_float64_gives(seed: int, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(3, 3, 2), activations=[*KINKED, *SMOOTH])
    agrees(rescale(model) if scaled else model, rng)


@pytest.mark.parametrize("seed", range(4))
def test_pooled_networks_and_their_selections(seed: int) -> None:
    rng = np.random.default_rng(seed)
    agrees(pooled_network(rng, size=3), rng)


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_public_sample_models(name: str) -> None:
    model = build_implicit(read_graph(SAMPLES / f"{name}.onnx"))
    agrees(model, np.random.default_rng(0), rows=3)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_activation(name: str) -> None:
    model = layered([([[0.7]], [0.1])], ([[1.0]], [0.0]), ACTIVATIONS[name]())
    u = np.array([[-2.0], [-0.6], [0.3], [1.7]])
    y, slope = FastNetwork(model).slopes(u, np.ones_like)
    np.testing.assert_allclose(y, model(u), atol=1e-6)
    np.testing.assert_allclose(slope, gradient(model, u, np.ones((4, 1))), atol=1e-6)


def test_weights_see_all_rows_at_once_and_each_row_keeps_its_own() -> None:
    model = random_network(np.random.default_rng(1), p=4, widths=(5,), q=3)
    fast = FastNetwork(model)
    fast.batch = 3
    u = np.random.default_rng(2).normal(size=(8, 4))
    seen: list[tuple[int, ...]] = []

    def weights(y: np.ndarray) -> np.ndarray:
        seen.append(y.shape)
        return np.eye(3)[np.arange(len(y)) % 3]

    y, slope = fast.slopes(u, weights)
    assert seen == [(8, 3)]
    np.testing.assert_allclose(y, model(u), atol=1e-5)
    np.testing.assert_allclose(slope, gradient(model, u, np.eye(3)[np.arange(8) % 3]), atol=1e-5)


def test_slopes_that_are_no_number_become_zero() -> None:
    model = layered([([[1e30]], [0.0])], ([[1e30]], [0.0]))
    y, slope = FastNetwork(model).slopes(np.ones((1, 1)), np.ones_like)
    assert not np.isfinite(y).any()
    assert slope.tolist() == [[0.0]]


def test_outputs_that_read_no_input_have_no_slope() -> None:
    model = ImplicitModel((), (), Affine({}, None, np.array([2.0])), (3,), (1,))
    y, slope = FastNetwork(model).slopes(np.ones((2, 3)), np.ones_like)
    assert y.tolist() == [[2.0], [2.0]]
    assert slope.tolist() == [[0.0] * 3] * 2


def test_loops_are_searched_in_float64() -> None:
    block = StateBlock("loop", "Relu", ACTIVATIONS["relu"](), (2,))
    row = Affine({0: dense([[0.2, 0.1], [0.0, -0.3]])}, dense(np.eye(2)), np.zeros(2))
    model = ImplicitModel((block,), (row,), Affine({0: dense([[1.0, -1.0]])}, None, np.zeros(1)), (2,), (1,))
    found = searched(model)
    assert isinstance(found, SlowNetwork)
    assert isinstance(searched(random_network(np.random.default_rng(0))), FastNetwork)
    u = np.random.default_rng(0).random((5, 2)) + 0.1
    y, slope = found.slopes(u, np.ones_like)
    np.testing.assert_allclose(y, model(u))
    # x = (I - A)^-1 u while all states are active
    expected = np.linalg.inv(np.eye(2) - np.array([[0.2, 0.1], [0.0, -0.3]])).T @ np.array([1.0, -1.0])
    np.testing.assert_allclose(slope, np.tile(expected, (5, 1)))


def test_batches_shrink_with_the_work() -> None:
    small, large = (random_network(np.random.default_rng(0), p=n, widths=(n,)) for n in (4, 300))
    assert batch_size(small) > batch_size(large) >= 1
