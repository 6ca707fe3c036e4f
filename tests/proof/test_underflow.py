"""Products that fall below the range of float64: what they lose is paid for in S, bounds, witnesses and drift.

Chains of layers that scale by powers of two have known functions: the exact product of their weights. In float64 the
part that scales down vanishes on its way, whichever end it is reached from.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.compress import OUTPUT, pruned
from idl_audit.implicit.linear_maps import Dense, Sparse
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.implicit.upward import applied, multiplied, pulled, pushed, spread, weighted
from idl_audit.measure.centre_radius import METHODS
from idl_audit.measure.drift import GlobalDrift, box_drift, global_drift
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.norm_matrix import norm_bound, norm_matrix
from idl_audit.measure.reachability import independent_pairs
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.measure.sign_paths import sign_path_matrix
from idl_audit.proof import sensitivity_witness as witness
from idl_audit.proof.bounds import Interval
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers
from idl_audit.proof.restricted import Restricted
from idl_audit.proof.sensitivity_witness import Witness, check_witness, make_witness
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from tests.shared.small_networks import graph

DOWN, UP = -126, 126
ORDERS = {
    "down, then up": [DOWN] * 9 + [UP] * 8,
    "up, then down": [UP] * 8 + [DOWN] * 9,
    "down, up, down": [DOWN] * 4 + [UP] * 4 + [DOWN] * 9 + [UP] * 8,
}
"""Exponents of the layers' weights, all within float32; some partial product is below 2^-1074 in each."""
KINDS = ("Relu", "Identity", "LeakyRelu", "Abs")


def chain(exponents: list[int], op: str = "Relu", *, dtype: type = np.float32) -> ImplicitModel:
    """Return y = (2^sum u_0, 0 u_0 + u_1) for u >= 0, layer by layer."""
    nodes, constants, source = [], {}, "u"
    for k, exponent in enumerate(exponents):
        constants[f"w{k}"] = np.diag(np.array([2.0**exponent, 1.0], dtype))
        nodes += [("MatMul", (source, f"w{k}"), f"h{k}", {}), (op, (f"h{k}",), f"r{k}", {})]
        source = f"r{k}"
    return build_implicit(graph(nodes, constants, (1, 2)))


def gain(exponents: list[int]) -> Fraction:
    return Fraction(2) ** sum(exponents)


def assert_covers(matrix: FloatArray, exponents: list[int]) -> None:
    """Assert that S is at least the exact gain, and still 0 where nothing reaches."""
    assert not np.isnan(matrix).any()
    assert matrix[0, 0] > 0
    assert matrix[0, 0] == np.inf or Fraction(float(matrix[0, 0])) >= gain(exponents)
    assert matrix[1, 1] >= 1
    assert matrix[0, 1] == matrix[1, 0] == 0


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("monotone", "gains")])
def test_no_sensitivity_matrix_loses_a_path(method: str, order: str, op: str) -> None:
    model = chain(ORDERS[order], op)
    if method == "half-step" and op == "Abs":
        return
    with np.errstate(over="ignore"):
        assert_covers(sensitivity_matrix(model, method), ORDERS[order])
    assert not independent_pairs(model)[0, 0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", ["paper", "centre-radius", "half-step", "best"])
def test_no_local_sensitivity_matrix_loses_a_path(method: str, order: str) -> None:
    model = chain(ORDERS[order])
    with np.errstate(over="ignore"):
        assert_covers(local_sensitivity(model, Box.between(np.ones(2), 2 * np.ones(2)), method), ORDERS[order])


@pytest.mark.parametrize("order", ORDERS)
def test_the_signs_of_paths_lose_no_path(order: str) -> None:
    model = chain(ORDERS[order])
    slopes = {k: (np.ones(block.size), np.ones(block.size)) for k, block in enumerate(model.blocks)}
    assert_covers(sign_path_matrix(model, slopes), ORDERS[order])


@pytest.mark.parametrize("order", ORDERS)
def test_functionals_of_outputs_lose_no_path(order: str) -> None:
    model = chain(ORDERS[order])
    for method in ("paper", "centre-radius", "half-step"):
        found = sensitivity_matrix(model, method, functionals=np.array([[2.0**-60, 0.0]]))
        assert found[0, 0] == np.inf or Fraction(float(found[0, 0])) >= gain(ORDERS[order]) * Fraction(2) ** -60
        assert found[0, 1] == 0


@pytest.mark.parametrize("order", ORDERS)
def test_scaling_leaves_the_sensitivity_of_a_chain(order: str) -> None:
    model = rescale(chain(ORDERS[order]))
    assert_covers(sensitivity_matrix(model, "paper"), ORDERS[order])


@pytest.mark.parametrize("order", ORDERS)
def test_norms_lose_no_path(order: str) -> None:
    model = chain(ORDERS[order])
    norms = norm_matrix(model)
    assert (norms.output_gains >= 1).all()
    alone = build_implicit(
        graph(
            [("MatMul", ("u", "a"), "h", {}), ("Relu", ("h",), "r", {}), ("MatMul", ("r", "b"), "y", {})],
            {"a": np.array([[1e-90]]), "b": np.array([[1e-90]])},
            (1, 1),
        )
    )
    tiny = [alone.blocks, norm_matrix(alone).output_gains]
    assert Fraction(float(tiny[1][0])) >= Fraction(1e-90) ** 2
    assert (norm_bound(alone) or 0) >= 1e-180


def test_norms_of_products_that_vanish_are_not_zero() -> None:
    exponents = [DOWN] * 9
    found = norm_matrix(chain(exponents))
    assert (found.output_gains > 0).all()
    only = build_implicit(
        graph(
            [
                n
                for k in range(9)
                for n in (
                    ("Mul", ("u" if k == 0 else f"r{k - 1}", "w"), f"h{k}", {}),
                    ("Relu", (f"h{k}",), f"r{k}", {}),
                )
            ],
            {"w": np.float32(2.0**DOWN)},
            (1, 1),
        )
    )
    assert norm_matrix(only).output_gains[0] > 0
    assert sensitivity_matrix(only, "paper")[0, 0] > 0


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_bounds_hold_what_underflows_on_its_way(order: str, op: str) -> None:
    exponents = ORDERS[order]
    model, inputs = chain(exponents, op), Interval(np.ones((1, 2)), 2 * np.ones((1, 2)))
    exact = gain(exponents)
    for bounds in (interval_bounds(model, inputs), backward_state_bounds(model, inputs)):
        y = affine_interval(model.output, bounds.x, inputs)
        assert Fraction(float(y.lo[0, 0])) <= exact
        assert y.hi[0, 0] == np.inf or Fraction(float(y.hi[0, 0])) >= 2 * exact
        seeds = Functionals.of_outputs(model, np.array([[1.0, 0.0], [-1.0, 0.0]]))
        lower = lower_bound(model, inputs, bounds, seeds, line_multipliers(model, bounds))[0]
        for sign, least, found in ((1, exact, lower[0]), (-1, -2 * exact, lower[1])):
            assert found == -np.inf or Fraction(float(found)) <= least, sign


def test_multipliers_of_any_size_prove_nothing_false() -> None:
    """Weights of 1e-99 behind multipliers of 1e100, and the other way round."""
    rng = np.random.default_rng(0)
    nodes = [("MatMul", ("u", "a"), "h", {}), ("Relu", ("h",), "r", {}), ("MatMul", ("r", "b"), "y", {})]
    signs = {"a": rng.choice([-1, 1], (3, 4)), "b": rng.choice([-1, 1], (4, 2))}
    constants = {name: own * rng.uniform(1, 2, own.shape) * 1e-99 for name, own in signs.items()}
    model = build_implicit(graph(nodes, constants, (1, 3)))
    inputs = Interval(-np.ones((1, 3)), np.ones((1, 3)))
    bounds = interval_bounds(model, inputs)
    points = rng.uniform(-1, 1, (200, 3))
    y = [[float(v) for v in np.maximum(p @ constants["a"], 0) @ constants["b"]] for p in points]
    for size in (1.0, 1e100, 1e-200, 1e200):
        seeds = Functionals.of_outputs(model, np.eye(2))
        lower = lower_bound(model, inputs, bounds, seeds, lambda _, v, size=size: size * (0.3 + 0 * v))[0]
        assert (lower <= np.min(y, axis=0) + 1e-290).all()


@pytest.mark.parametrize("order", ORDERS)
def test_a_witness_proves_a_sensitivity_that_is_true(order: str) -> None:
    exponents = ORDERS[order]
    model = chain(exponents, "Relu")
    for made in (make_witness(model), _by_adjoint(model)):
        assert check_witness(model, made).accepted
        assert made.S[0, 0] > 0
        assert Fraction(float(made.S[0, 0])) >= gain(exponents)


def _by_adjoint(model: ImplicitModel) -> Witness:
    rows = witness._adjoint_rows(model)
    found, _ = witness._adjoint_bound(model, rows)
    assert found is not None
    return Witness(found * (1 + 1e-9), adjoint=rows)


def test_a_forged_witness_of_vanishing_rows_is_refused() -> None:
    model = chain(ORDERS["up, then down"])
    true = _by_adjoint(model)
    assert true.adjoint is not None
    zeros = {k: np.where(rows < 1e-290, 0.0, rows) for k, rows in true.adjoint.items()}
    assert any((zeros[k] != true.adjoint[k]).any() for k in zeros)
    forged = Witness(np.array([[0.0, 0.0], [0.0, 1.0 + 1e-6]]), adjoint=zeros)
    assert not check_witness(model, forged).accepted


@pytest.mark.parametrize("order", ORDERS)
def test_drift_of_a_changed_chain_is_not_zero(order: str) -> None:
    """A weight that is left out moves outputs by the exact gain of the rest."""
    exponents = ORDERS[order]
    model = chain(exponents)
    small = pruned(model, 0.6, only=len(model.blocks) - 1)  # the first layer loses its smaller weight
    ones = np.ones((1, 2))
    removed = 0 if exponents[0] == DOWN else 1
    moved = gain(exponents) if removed == 0 else Fraction(1)
    bound = global_drift(small).at(ones)[0, removed]
    assert bound == np.inf or Fraction(float(bound)) >= moved
    near = box_drift(small, Interval(ones, ones))[0, removed]
    assert near == np.inf or Fraction(float(near)) >= moved
    assert pruned(model, 0.6, only=OUTPUT).changes == {}


# --- products that never vanish ---------------------------------------------------------------------------------------

numbers = st.integers(-1000, 1000).map(lambda e: 2.0**e) | st.just(0.0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=4), st.lists(numbers, min_size=2))
def test_products_are_at_least_what_they_are_in_fractions(matrix: list[list[float]], values: list[float]) -> None:
    W = np.array(matrix)
    r = np.resize(np.array(values), (1, len(W)))
    x = np.resize(np.array(values), (1, 3))
    exact_back = [
        sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(r[0], W[:, j], strict=True)) for j in range(3)
    ]
    exact_forth = [sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x[0], row, strict=True)) for row in W]
    with np.errstate(over="ignore", invalid="ignore"):
        for linear_map in (Dense(matrix=W), Sparse(matrix=sp.csr_array(W))):
            _at_least(pulled(linear_map, r)[0], exact_back)
            _at_least(pushed(linear_map, x)[0], exact_forth)
        _at_least(multiplied(r, W)[0], exact_back)
        _at_least(
            weighted(r[0], W[:, 0]),
            [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(r[0], W[:, 0], strict=True)],
        )


def test_small_slopes_and_sizes_do_not_vanish() -> None:
    small = np.full((1, 3), 2.0**-600)
    activation = Restricted(ACTIVATIONS["relu"](), np.zeros(3), small[0])
    assert (spread(activation, small) >= 2.0**-1000).all()
    assert (spread(activation, np.array([[0.0, 1.0, 0.0]])) == [[0, 2.0**-600, 0]]).all()
    assert (applied(small[None], small) > 0).all()
    assert applied(np.zeros((1, 1, 3)), small)[0, 0] == 0
    assert (GlobalDrift(np.zeros(1), small).at(small) > 0).all()


def _at_least(found: FloatArray, exact: list[Fraction | int]) -> None:
    for value, true in zip(found, exact, strict=True):
        assert bool(value == 0) is (true == 0)
        assert value == np.inf or np.isnan(value) or Fraction(float(value)) * (1 + Fraction(1, 2**40)) >= true
