"""The sensitivity matrix: a valid bound, the textbook formula, exact where that is known."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.norm_matrix import norm_bound
from idl_audit.measure.sensitivity import Sensitivity, sensitivity_matrix
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.small_networks import (
    KINKED,
    STEADY,
    dense,
    exact,
    graph,
    layered,
    leaky_relu,
    pool_of_doubled,
    pool_of_inputs,
    pooled_network,
    random_network,
)

seeds = st.integers(0, 2**32 - 1)


def pairs(rng: np.random.Generator, p: int, count: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    u = rng.normal(size=(count, p)) * 2
    distance = 10.0 ** rng.uniform(-4, 1, size=(count, 1))
    return u, u + rng.normal(size=u.shape) * distance * (rng.random(u.shape) < 0.7)


def violations(model: ImplicitModel, matrix: np.ndarray, rng: np.random.Generator) -> int:
    u, v = pairs(rng, model.n_inputs)
    moved, allowed = np.abs(model(u) - model(v)), np.abs(u - v) @ matrix.T
    slack = 1e-12 * (1 + np.abs(model(u)) + np.abs(model(v)))  # the two float64 evaluations
    return int((moved > allowed + slack).sum())


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_no_pair_of_inputs_moves_an_output_further(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(6, 5, 4), activations=[*KINKED, *STEADY])
    assert violations(model, sensitivity_matrix(model), rng) == 0


def test_no_pair_of_inputs_moves_an_output_of_a_pooled_network_further() -> None:
    rng = np.random.default_rng(1)
    model = pooled_network(rng)
    assert violations(model, sensitivity_matrix(model), rng) == 0


def textbook(model: ImplicitModel) -> np.ndarray:
    """|C| (I - Gamma |A|)^-1 Gamma |B| + |D|, dense."""
    a, b, c, d = (np.abs(m.toarray()) for m in model.matrices[:4])
    gamma = np.zeros(a.shape)
    for start, block in zip(model.offsets, model.blocks, strict=False):
        own = slice(start, start + block.size)
        gamma[own, own] = block.activation.spread(np.eye(block.size)).T
    inverse = np.linalg.inv(np.eye(len(a)) - gamma @ a)
    return np.asarray(c @ inverse @ gamma @ b + d)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, cancelling=st.booleans())
def test_the_matrix_is_the_textbook_formula(seed: int, cancelling: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=4, widths=(5, 6, 4), activations=[*KINKED, *STEADY], cancelling=cancelling)
    np.testing.assert_allclose(sensitivity_matrix(model), textbook(model), rtol=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, cancelling=st.booleans())
def test_the_matrix_is_at_least_the_exact_product_and_hardly_more(seed: int, cancelling: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(
        rng, p=2, widths=(3, 3), activations=["relu", "abs", "steep", "identity"], cancelling=cancelling
    )
    a, b, c, d = (np.abs(exact(m.toarray())) for m in model.matrices[:4])
    gain = np.concatenate([exact(np.full(block.size, block.activation.lipschitz)) for block in model.blocks])
    t = gain[:, None] * b
    for _ in range(2):
        t = gain[:, None] * (a @ t + b)
    truth = c @ t + d
    found = sensitivity_matrix(model)
    for value, fraction in zip(found.reshape(-1), truth.reshape(-1), strict=True):
        assert fraction <= Fraction(float(value)) <= fraction * (1 + Fraction(1, 10**12))


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_it_is_the_exact_gain_of_networks_with_nonnegative_weights(seed: int) -> None:
    """All states active at a large u: y moves by S du exactly."""
    rng = np.random.default_rng(seed)
    sizes = [3, 5, 4, 2]
    weights = [np.abs(rng.normal(size=(n, m))) for m, n in itertools.pairwise(sizes)]
    model = layered([(w, np.zeros(len(w))) for w in weights[:-1]], (weights[-1], np.zeros(2)))
    u = np.full((1, 3), 100.0)
    step = np.eye(3)
    gain = (model(u + step) - model(u)).T
    np.testing.assert_allclose(sensitivity_matrix(model), gain, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9, 16, 25, 49])
def test_a_pool_has_ones_on_its_window(n: int) -> None:
    np.testing.assert_allclose(sensitivity_matrix(pool_of_inputs(n)), np.ones((1, n)), rtol=1e-12)
    np.testing.assert_allclose(sensitivity_matrix(pool_of_doubled(n)), np.full((1, n), 2.0), rtol=1e-12)
    assert (sensitivity_matrix(pool_of_inputs(n)) >= 1).all()


def test_overlapping_windows_have_ones_where_they_read() -> None:
    model = build_implicit(
        graph([("MaxPool", ("u",), "y", {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1)})], {}, (1, 1, 5))
    )
    expected = [[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]]
    np.testing.assert_allclose(sensitivity_matrix(model), expected, rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_functionals_bound_differences_of_outputs_at_least_as_tightly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4), activations=[*KINKED, *STEADY])
    rows = np.vstack([rng.normal(size=(2, 3)), [1.0, -1.0, 0.0], np.eye(3)[1]])
    found, whole = sensitivity_matrix(model, functionals=rows), sensitivity_matrix(model)
    assert found.shape == (4, 3)
    assert (found <= np.abs(rows) @ whole * (1 + 1e-12)).all()
    np.testing.assert_allclose(found[3], whole[1], rtol=1e-12)
    u, v = pairs(rng, 3, 2000)
    moved = np.abs((model(u) - model(v)) @ rows.T)
    assert (moved <= np.abs(u - v) @ found.T + 1e-12 * (1 + np.abs(model(u)).sum(axis=1))[:, None]).all()


def test_equal_outputs_have_no_pairwise_sensitivity_but_rounding() -> None:
    model = layered([(np.eye(2), np.zeros(2))], ([[3.0, 1.0], [3.0, 1.0]], np.zeros(2)))
    found = sensitivity_matrix(model, functionals=np.array([[1.0, -1.0]]))
    assert (found < 1e-13).all()


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_rescaling_changes_nothing_and_rho_is_at_least_the_norm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4, 4), activations=["relu", "abs", "tanh", "sigmoid", "leaky"])
    scaled = rescale(model)
    np.testing.assert_array_equal(sensitivity_matrix(scaled), sensitivity_matrix(model))
    answer = Sensitivity(sensitivity_matrix(model), norm_bound(scaled))
    assert answer.norm_bound is not None
    assert answer.norm_bound >= answer.norm_inf * (1 - 1e-12)
    assert answer.norm_inf == pytest.approx(np.abs(answer.matrix).sum(axis=1).max())
    np.testing.assert_allclose(answer.row_sums, answer.matrix.sum(axis=1))


def test_rho_with_steep_activations_is_at_least_the_norm_or_absent() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(3, 3), activations=["steep", "prelu", "negative"])
        for candidate in (model, rescale(model)):
            rho = norm_bound(candidate)
            assert rho is None or rho >= sensitivity_matrix(model).sum(axis=1).max() * (1 - 1e-12)


def test_there_is_no_rho_where_the_norm_of_a_is_at_least_one() -> None:
    model = layered([([[1.0]], [0.0]), ([[1.0]], [0.0])], ([[1.0]], [0.0]))
    assert norm_bound(model) is None


@pytest.mark.parametrize(("name", "gain"), [("sigmoid", 0.25), ("tanh", 1.0), ("relu", 1.0), ("abs", 1.0)])
def test_lipschitz_constants_of_activations(name: str, gain: float) -> None:
    model = layered([([[2.0]], [0.0])], ([[3.0]], [0.0]), ACTIVATIONS[name]())
    found = sensitivity_matrix(model)[0, 0]
    assert found == pytest.approx(6 * gain, rel=1e-12)
    assert found >= 6 * gain


@pytest.mark.parametrize(("alpha", "gain"), [(0.1, 1.0), (2.5, 2.5), (-0.5, 1.0), (-4.0, 4.0)])
def test_lipschitz_constants_of_leaky_relus(alpha: float, gain: float) -> None:
    assert sensitivity_matrix(layered([([[2.0]], [0.0])], ([[3.0]], [0.0]), leaky_relu(alpha)))[0, 0] == pytest.approx(
        6 * gain, rel=1e-12
    )


def test_slopes_of_a_prelu_count_state_by_state() -> None:
    model = layered([(np.eye(2), np.zeros(2))], (np.eye(2), np.zeros(2)), leaky_relu(np.array([3.0, 0.5])))
    np.testing.assert_allclose(sensitivity_matrix(model), [[3.0, 0.0], [0.0, 1.0]], rtol=1e-12)


def test_outputs_that_read_the_input_directly_add_its_weights() -> None:
    model = layered([([[2.0]], [0.0])], ([[-1.0]], [0.0]), skip=[[-5.0]])
    np.testing.assert_allclose(sensitivity_matrix(model), [[7.0]], rtol=1e-12)
    linear = ImplicitModel((), (), Affine({}, dense([[1.0, -2.0]]), np.zeros(1)), (2,), (1,))
    np.testing.assert_allclose(sensitivity_matrix(linear), [[1.0, 2.0]], rtol=1e-12)


def test_the_matrix_bounds_the_network_in_the_file_where_layers_were_multiplied_out() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 1)), rng.normal(size=(6, 1))
    second[5] = -(first[:5, 0] @ second[:5, 0]) / first[5]
    nodes = [("Gemm", ("u", "a"), "h", {}), ("Gemm", ("h", "b"), "y", {})]
    model = build_implicit(graph(nodes, {"a": first.T.copy(), "b": second}, (1, 1)))
    truth = abs(sum(x * y for x, y in zip(exact(first[:, 0]), exact(second[:, 0]), strict=True)))
    assert Fraction(float(sensitivity_matrix(model)[0, 0])) >= truth


def test_a_loop_without_the_perron_frobenius_proof_has_no_such_matrix() -> None:
    block = StateBlock("b", "Relu", ACTIVATIONS["relu"](), (1,))
    rest = (dense([[1.0]]), np.zeros(1))
    output = Affine({0: dense([[1.0]])}, None, np.zeros(1))
    well, ill = (ImplicitModel((block,), (Affine({0: dense([[a]])}, *rest),), output, (1,), (1,)) for a in (0.5, -2.0))
    assert sensitivity_matrix(well)[0, 0] == pytest.approx(2.0)
    assert sensitivity_matrix(ill, "centre-radius")[0, 0] == pytest.approx(1 / 3)
    with pytest.raises(UnsupportedModelError, match="lambda_PF"):
        sensitivity_matrix(ill)
