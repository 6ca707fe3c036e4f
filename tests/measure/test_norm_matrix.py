"""The block-wise norm bound: known values, soundness by sampling, rounding upward, loops within a block."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.norm_matrix import norm_bound, norm_matrix
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.small_networks import (
    KINKED,
    STEADY,
    dense,
    exact,
    layered,
    pool_of_inputs,
    pooled_network,
    random_network,
)

seeds = st.integers(0, 2**32 - 1)


def test_known_values() -> None:
    """||B|| = 3, ||A|| = 4 (rows 3 and 1 + 3), C's rows 2 and 7, D's rows 1 and 0: T = (12, 3), y moves by 25 or 84."""
    model = layered(
        [([[1.0, -2.0], [0.5, 0.5]], [0.0, 0.0]), ([[3.0, 0.0], [-1.0, 3.0]], [0.0, 0.0])],
        ([[1.0, -1.0], [3.0, 4.0]], [0.0, 0.0]),
        skip=[[1.0, 0.0], [0.0, 0.0]],
    )
    found = norm_matrix(model)
    np.testing.assert_allclose(found.states, [[0, 4], [0, 0]], rtol=1e-12)
    np.testing.assert_allclose(found.inputs, [0, 3], rtol=1e-12)
    np.testing.assert_allclose(found.outputs, [[2, 0], [7, 0]], rtol=1e-12)
    np.testing.assert_allclose(found.direct, [1, 0], rtol=1e-12)
    np.testing.assert_allclose(found.block_gains, [12, 3], rtol=1e-12)
    np.testing.assert_allclose(found.output_gains, [25, 84], rtol=1e-12)


def test_softmax_counts_one_half_and_slopes_their_largest() -> None:
    phis = [ACTIVATIONS["leaky_relu"](np.array([-3.0, 0.5])), ACTIVATIONS["softmax"](2)]
    model = layered([(np.eye(2), np.zeros(2)), (2 * np.eye(2), np.zeros(2))], (np.eye(2), np.zeros(2)), phis)
    found = norm_matrix(model)
    np.testing.assert_allclose(found.block_gains, [3.0, 3.0], rtol=1e-12)
    np.testing.assert_allclose(found.pre_activation_gains, [6.0, 1.0], rtol=1e-12)


def test_softmax_reaches_its_constant_almost() -> None:
    """z = (u, -u) around 0: x1 - x2 = tanh(u), each state moves by half a u."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], (np.eye(2), np.zeros(2)), ACTIVATIONS["softmax"](2))
    moved = np.abs(model(np.array([[1e-3]])) - model(np.array([[0.0]]))).max() / 1e-3
    assert 0.4999 < moved <= norm_matrix(model).output_gains.max() <= 0.5 + 1e-12


@pytest.mark.parametrize("n", [2, 5, 9, 16])
def test_a_maximum_moves_no_more_than_its_window(n: int) -> None:
    found = norm_matrix(pool_of_inputs(n))
    np.testing.assert_allclose(found.output_gains, [1.0], rtol=1e-12)


@settings(deadline=None, max_examples=12)
@given(seed=seeds, pooled=st.booleans(), distance=st.sampled_from([1e-3, 0.1, 3.0]))
def test_no_pair_of_inputs_moves_a_block_further(seed: int, pooled: bool, distance: float) -> None:
    rng = np.random.default_rng(seed)
    wild = random_network(rng, p=3, widths=(4, 5, 3), activations=["softmax", *KINKED, *STEADY])
    model = pooled_network(rng) if pooled else wild
    found = norm_matrix(model)
    u = rng.normal(size=(500, model.n_inputs))
    v = u + distance * rng.uniform(-1, 1, size=u.shape)
    change = np.abs(u - v).max(axis=1)
    slack = 1e-11 * (1 + change)  # the two float64 evaluations

    def exceeded(values: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...], gains: np.ndarray) -> list[int]:
        moved = [np.abs(a - b).max(axis=1) for a, b in zip(values, others, strict=True)]
        return [k for k, m in enumerate(moved) if (m > gains[k] * change + slack * (1 + np.abs(values[k]).max())).any()]

    assert exceeded(model.state(u), model.state(v), found.block_gains) == []
    assert exceeded(model.pre_activations(u), model.pre_activations(v), found.pre_activation_gains) == []
    moved = np.abs(model(u) - model(v))
    assert (moved <= change[:, None] * found.output_gains + slack[:, None] * (1 + np.abs(model(u)))).all()


@settings(deadline=None, max_examples=30)
@given(seed=seeds, cancelling=st.booleans())
def test_gains_are_at_least_the_exact_recursion_and_hardly_more(seed: int, cancelling: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(3, 4, 2), activations=list(KINKED), cancelling=cancelling)
    found = norm_matrix(model)
    gains: dict[int, Fraction] = {}

    def norm(linear_map) -> Fraction:
        rows = np.abs(exact(linear_map.to_sparse().toarray()))
        return max((sum(row, Fraction(0)) for row in rows), default=Fraction(0))

    for k in model.evaluation_order:
        row = model.rows[k]
        total = sum((norm(w) * gains[j] for j, w in row.states.items()), Fraction(0))
        total += norm(row.input) if row.input is not None else 0
        gains[k] = total * Fraction(float(np.max(model.blocks[k].activation.lipschitz)))
        assert gains[k] <= Fraction(float(found.block_gains[k])) <= gains[k] * (1 + Fraction(1, 10**12))


def test_uncertain_coefficients_are_paid_for() -> None:
    model = layered([([[2.0]], [0.0])], ([[1.0]], [0.0]))
    row = model.rows[0]
    assert row.input is not None
    uncertain = replace(model, rows=(replace(row, input=row.input.uncertain(0.25, dense([[0.5]]))),))
    np.testing.assert_allclose(norm_matrix(uncertain).output_gains, [3.0], rtol=1e-12)
    assert norm_bound(uncertain) == pytest.approx(3.0)


def test_it_is_never_looser_than_the_product_of_norms_of_a_chain() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        model = rescale(random_network(rng, p=3, widths=(5, 4, 3), skips=False))
        rho = norm_bound(model)
        assert rho is not None
        assert norm_matrix(model).output_gains.max() <= rho * (1 + 1e-12)


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_the_product_of_norms_is_the_formula_rounded_upward(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = rescale(random_network(rng, p=3, widths=(4, 4), activations=["relu", "abs", "steep"]))
    steepest = max(Fraction(float(np.max(block.activation.lipschitz))) for block in model.blocks)
    steepest = max(steepest, Fraction(1))
    norms = []
    for matrix in model.matrices[:4]:
        rows = np.abs(exact(matrix.toarray()))
        norms.append(max((sum(row, Fraction(0)) for row in rows), default=Fraction(0)))
    a, b, c, d = norms
    found = norm_bound(model)
    if a * steepest >= 1:
        assert found is None or found == np.inf
    else:
        truth = b * steepest * c / (1 - a * steepest) + d
        assert found is not None
        assert truth <= Fraction(found) <= truth * (1 + Fraction(1, 10**11))


def looped(own: float, *, activation: str = "relu") -> ImplicitModel:
    """x = phi(own x + 2 u), y = 3 x."""
    row = Affine({0: dense([[own]])}, dense([[2.0]]), np.zeros(1))
    block = StateBlock("loop", "Relu", ACTIVATIONS[activation](), (1,))
    return ImplicitModel((block,), (row,), Affine({0: dense([[3.0]])}, None, np.zeros(1)), (1,), (1,))


@pytest.mark.parametrize(("own", "gain"), [(0.5, 12.0), (-0.5, 12.0), (0.75, 24.0), (1.0, np.inf), (-3.0, np.inf)])
def test_a_loop_within_a_block_divides_by_what_it_leaves(own: float, gain: float) -> None:
    found = norm_matrix(looped(own))
    np.testing.assert_allclose(found.output_gains, [gain], rtol=1e-12)
    assert found.output_gains[0] >= gain


def test_a_loop_over_several_blocks_is_refused() -> None:
    model = layered([([[1.0]], [0.0]), ([[1.0]], [0.0])], ([[1.0]], [0.0]))
    rows = (model.rows[0], replace(model.rows[1], states={0: dense([[0.1]])}))
    with pytest.raises(UnsupportedModelError, match="loops within one block"):
        norm_matrix(replace(model, rows=rows))


def test_a_model_without_states_has_only_its_direct_part() -> None:
    model = ImplicitModel((), (), Affine({}, dense([[1.0, -2.0]]), np.zeros(1)), (2,), (1,))
    np.testing.assert_allclose(norm_matrix(model).output_gains, [3.0], rtol=1e-12)
    assert norm_bound(model) == pytest.approx(3.0)
