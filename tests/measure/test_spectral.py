"""The l2 bound of a whole network: no pair of inputs violates it, and it is the product formula where that is known."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.architectures import load_resnet20, mnist_mlp
from idl_audit.graph.torch_reader import network_of
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.linear_maps import Dense, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.measure.spectral import spectral_bound, spectral_scalar
from tests.shared.small_networks import (
    KINKED,
    STEADY,
    dense,
    graph,
    layered,
    pool_of_doubled,
    pooled_network,
    random_network,
)

seeds = st.integers(0, 2**32 - 1)
BOUNDED = [name for name in STEADY if name not in ("contraction", "product")]
"""Those whose slopes have a bound."""


def violations(model: ImplicitModel, bound: float, rng: np.random.Generator, count: int = 4000) -> int:
    u = rng.normal(size=(count, model.n_inputs)) * 2
    v = u + rng.normal(size=u.shape) * 10.0 ** rng.uniform(-4, 1, size=(count, 1)) * (rng.random(u.shape) < 0.7)
    y, z = model(u), model(v)
    moved, apart = np.linalg.norm(y - z, axis=1), np.linalg.norm(u - v, axis=1)
    slack = 1e-12 * (1 + np.linalg.norm(y, axis=1) + np.linalg.norm(z, axis=1))
    return int((moved > bound * apart * (1 + 1e-12) + slack).sum())


def found(model: ImplicitModel) -> float:
    bound = spectral_bound(model)
    assert bound is not None
    return bound


@settings(deadline=None, max_examples=30)
@given(seed=seeds, scaled=st.booleans())
def test_no_pair_of_inputs_moves_the_outputs_further(seed: int, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(6, 5, 4), activations=[*KINKED, *BOUNDED])
    model = rescale(model) if scaled else model
    assert violations(model, found(model), rng) == 0


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_no_pair_of_images_moves_a_pooled_network_further(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = pooled_network(rng, size=6)
    assert violations(model, found(model), rng, 1000) == 0


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_chains_have_the_product_of_their_spectral_norms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(n, m)) for m, n in [(3, 5), (5, 4), (4, 2)]]
    model = layered([(w, np.zeros(len(w))) for w in weights[:-1]], (weights[-1], np.zeros(2)))
    product = math.prod(float(np.linalg.norm(w, 2)) for w in weights)
    assert product * (1 - 1e-13) <= found(model) <= product * (1 + 1e-9)


def test_one_direction_through_active_states_moves_by_the_whole_bound() -> None:
    """Rank-one layers of positive weights: the l2 gain at a large input is the bound."""
    a, b = np.array([[1.0, 2.0], [2.0, 4.0]]), np.array([[1.0, 2.0]])
    model = layered([(a, np.zeros(2))], (b, np.zeros(1)))
    u, step = np.full((1, 2), 10.0), np.array([[1.0, 2.0]]) / math.sqrt(5)
    gain = float((model(u + step) - model(u))[0, 0])
    assert gain * (1 - 1e-12) <= found(model) <= gain * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "gain"), [("sigmoid", 0.25), ("tanh", 1.0), ("abs", 1.0), ("selu", 1.7581), ("softmax", 0.5)]
)
def test_activations_enter_with_their_lipschitz_constants(name: str, gain: float) -> None:
    activation = Softmax(2) if name == "softmax" else ACTIVATIONS[name]()
    model = layered([(np.diag([2.0, 1.0]), np.zeros(2))], (np.eye(2) * 3, np.zeros(2)), activation)
    assert found(model) == pytest.approx(6 * gain, rel=1e-4)
    assert found(model) >= 6 * (gain if name != "selu" else 1.75)


def test_the_steepest_state_of_a_prelu_counts() -> None:
    steep = ACTIVATIONS["leaky_relu"](np.array([3.0, 0.5]))
    model = layered([(np.eye(2), np.zeros(2))], (np.eye(2), np.zeros(2)), steep)
    assert found(model) == pytest.approx(3.0, rel=1e-9)


def residual(weight: float) -> ImplicitModel:
    """Return y = x1 + weight * relu(x1), x1 = relu(u)."""
    blocks = tuple(StateBlock(name, "Relu", ACTIVATIONS["relu"](), (2,)) for name in ("new", "old"))
    rows = (Affine({1: dense(weight * np.eye(2))}, None, np.zeros(2)), Affine({}, dense(np.eye(2)), np.zeros(2)))
    return ImplicitModel(
        blocks, rows, Affine({0: dense(np.eye(2)), 1: dense(np.eye(2))}, None, np.zeros(2)), (2,), (2,)
    )


def test_residuals_are_one_plus_the_product() -> None:
    model = residual(0.5)
    assert found(model) == pytest.approx(1.5, rel=1e-9)
    u = np.array([[1.0, 1.0]])
    assert np.linalg.norm(model(2 * u) - model(u)) == pytest.approx(1.5 * math.sqrt(2))


def test_parts_that_fill_different_rows_add_in_squares() -> None:
    """Concat(3 u, 4 u) moves by 5, not by 7."""
    blocks = tuple(StateBlock(name, "Relu", ACTIVATIONS["relu"](), (1,)) for name in ("b", "a"))
    rows = (Affine({}, dense([[4.0]]), np.zeros(1)), Affine({}, dense([[3.0]]), np.zeros(1)))
    top, bottom = Selection(index=np.array([0, -1]), size_in=1), Selection(index=np.array([-1, 0]), size_in=1)
    apart = ImplicitModel(blocks, rows, Affine({0: top, 1: bottom}, None, np.zeros(2)), (1,), (2,))
    assert found(apart) == pytest.approx(5.0, rel=1e-9)
    together = ImplicitModel(blocks, rows, Affine({0: top, 1: top}, None, np.zeros(2)), (1,), (2,))
    assert found(together) == pytest.approx(7.0, rel=1e-9)
    for late in ([[1.0], [0.0]], [[0.0], [1.0]]):
        mixed = Affine({0: top, 1: bottom}, dense(late), np.zeros(2))
        assert found(ImplicitModel(blocks, rows, mixed, (1,), (2,))) == pytest.approx(6.0, rel=1e-9)


def test_rows_that_rounding_may_have_emptied_are_not_apart() -> None:
    blocks = tuple(StateBlock(name, "Relu", ACTIVATIONS["relu"](), (1,)) for name in ("b", "a"))
    rows = (Affine({}, dense([[4.0]]), np.zeros(1)), Affine({}, dense([[3.0]]), np.zeros(1)))
    top = Dense(matrix=np.array([[1.0], [0.0]]), slack=Dense(matrix=np.array([[0.0], [1e-9]])))
    bottom = Dense(matrix=np.array([[0.0], [1.0]]))
    model = ImplicitModel(blocks, rows, Affine({0: top, 1: bottom}, None, np.zeros(2)), (1,), (2,))
    assert found(model) >= 7.0


@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_a_maximum_moves_no_further_than_its_window(n: int) -> None:
    assert found(pool_of_doubled(n)) == pytest.approx(2.0, rel=1e-9)


def test_overlapping_windows_count_how_often_a_state_is_read() -> None:
    nodes = [
        ("Mul", ("u", "two"), "s", {}),
        ("MaxPool", ("s",), "y", {"kernel_shape": (3,), "strides": (1,), "pads": (1, 1)}),
    ]
    model = build_implicit(graph(nodes, {"two": np.float32(2)}, (1, 1, 6)))
    assert found(model) == pytest.approx(2 * math.sqrt(3), rel=1e-9)
    assert violations(model, found(model), np.random.default_rng(0)) == 0


def test_outputs_without_inputs_do_not_move() -> None:
    block = StateBlock("b", "Relu", ACTIVATIONS["relu"](), (1,))
    model = ImplicitModel(
        (block,), (Affine({}, None, np.ones(1)),), Affine({0: dense([[1e300]])}, None, np.zeros(1)), (2,), (1,)
    )
    assert spectral_bound(model) == 0.0
    assert spectral_scalar(model) == 0.0


def test_products_that_underflow_are_not_zero() -> None:
    model = layered([([[1e-200]], [0.0]), ([[1e-200]], [0.0])], ([[1.0]], [0.0]))
    assert 0 < found(model) < 1e-300


def test_there_is_no_bound_for_cycles_unknown_couplings_and_overflow() -> None:
    chain = layered([([[2.0]], [0.0])], ([[3.0]], [0.0]))
    cyclic = replace(chain, rows=(replace(chain.rows[0], states={0: dense([[0.5]])}),))
    assert spectral_bound(cyclic) is None

    relu = ACTIVATIONS["relu"]()
    object.__setattr__(relu, "coupled", True)
    assert spectral_bound(layered([([[2.0]], [0.0])], ([[3.0]], [0.0]), relu)) is None
    assert spectral_bound(layered([([[1e200]], [0.0])], ([[1e200]], [0.0]))) is None
    assert spectral_scalar(layered([([[1e200]], [0.0])], ([[1e200]], [0.0]))) is None
    assert spectral_bound(layered([(np.full((1, 4), 1e308), [0.0])], ([[1.0]], [0.0]))) is None


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_the_scalar_bounds_every_output_on_the_unit_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=4, widths=(6, 5), activations=[*KINKED, *BOUNDED])
    scalar = spectral_scalar(model)
    assert scalar is not None
    assert found(model) * 2 <= scalar <= found(model) * 2 * (1 + 1e-12)
    u = rng.normal(size=(2000, 4))
    v = u + rng.choice([-1.0, 1.0], size=u.shape)
    assert np.abs(model(u) - model(v)).max() <= scalar * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="IDL_AUDIT_DATA is not set")
def test_published_networks_have_a_smaller_scalar_than_the_norm_of_s() -> None:
    folder = Path(os.environ["IDL_AUDIT_DATA"]) / "models"
    module = mnist_mlp(2)
    module.load_state_dict(torch.load(folder / "mnist_mlp_d3.pt", map_location="cpu", weights_only=True))
    model = build_implicit(network_of(module, torch.zeros(1, 1, 28, 28)).graph)
    norms = [np.linalg.norm(p.detach().double().numpy(), 2) for p in module.parameters() if p.ndim == 2]
    assert found(model) == pytest.approx(math.prod(norms), rel=1e-9)
    assert 28 * found(model) < sensitivity_matrix(model, "centre-radius").sum(axis=1).max()
    residual_network = load_resnet20(str(folder / "resnet20_cifar10.th"))
    model = build_implicit(network_of(residual_network, torch.zeros(1, 3, 32, 32)).graph)
    scalar = spectral_scalar(model)
    assert scalar is not None
    assert scalar < 2e12 < 1e20 < sensitivity_matrix(model).sum(axis=1).max()
