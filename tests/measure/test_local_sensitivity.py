"""Sensitivity on a box: valid for every pair of its points, never above the global matrix, |Jacobian| in the limit."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, Activation
from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure import centre_radius
from idl_audit.measure.centre_radius import METHODS, global_slopes, half_step_applies
from idl_audit.measure.local_sensitivity import STATE_BOUNDS, local_sensitivity
from idl_audit.measure.sensitivity import global_or_infinite, sensitivity_matrix
from idl_audit.measure.sign_paths import sign_path_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.restricted import restricted_model
from idl_audit.values.box import Box
from idl_audit.values.errors import OptionError
from tests.shared.small_networks import (
    KINKED,
    STEADY,
    ExactModel,
    all_corners,
    dense,
    layered,
    long_double,
    pool_of_inputs,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)
CURVES = ("gelu", "silu", "hard_swish", "mish", "elu", "softplus")


def methods(model: ImplicitModel) -> list[str]:
    """Return the methods that apply to the model."""
    coupled = any(block.activation.coupled for block in model.blocks)
    return [
        name
        for name in ("paper", "half-step", "centre-radius", "best")
        if not (name == "centre-radius" and coupled) and not (name == "half-step" and not half_step_applies(model))
    ]


def assert_sound(model: ImplicitModel, matrix: np.ndarray, box: Box, rng: np.random.Generator) -> None:
    """No two points of the box move an output further than the matrix says."""
    points = some_points(rng, box, 150)
    others = points[rng.permutation(len(points))]
    near = np.clip(points + rng.normal(size=points.shape) * 1e-3 * (box.hi - box.lo), box.lo, box.hi)
    for u, v in ((points, others), (points, near)):
        y, w = (long_double(model, some)[2] for some in (u, v)) if len(model.blocks) else (model(u), model(v))
        allowed = np.abs(u.astype(np.longdouble) - v) @ matrix.T.astype(np.longdouble)
        slack = 1e-16 * (1 + np.abs(y) + np.abs(w))
        assert (np.abs(y - w) <= allowed + slack).all()


@settings(deadline=None, max_examples=40)
@given(seed=seeds, state_bounds=st.sampled_from(sorted(STATE_BOUNDS)))
def test_no_two_points_of_the_box_move_an_output_further(seed: int, state_bounds: str) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4, 3), activations=[*KINKED, *STEADY])
    box = random_box(rng, 3)
    for name in methods(model):
        assert_sound(model, local_sensitivity(model, box, name, state_bounds=state_bounds), box, rng)


def curved(rng: np.random.Generator, name: str) -> ImplicitModel:
    sizes = [(4, 3), (4, 4), (2, 4)]
    weights = [rng.normal(size=size) for size in sizes]
    return layered(
        [(weights[0], rng.normal(size=4)), (weights[1], rng.normal(size=4))],
        (weights[2], np.zeros(2)),
        ACTIVATIONS[name](),
    )


@pytest.mark.parametrize("name", CURVES)
def test_no_two_points_move_a_network_of_curves_further(name: str) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model, box = curved(rng, name), random_box(rng, 3)
        u = some_points(rng, box, 200)
        v = u[rng.permutation(len(u))]
        change = np.abs(model(u) - model(v))
        for method in methods(model):
            matrix = local_sensitivity(model, box, method)
            assert (change <= np.abs(u - v) @ matrix.T + 1e-13 * (1 + change)).all(), method


def test_no_two_points_move_a_pooled_network_further() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        model = pooled_network(rng, bias=0.1)
        centre = rng.normal(size=16)
        for radius in (1e-3, 0.1, 1.0):
            box = Box.around(centre, radius)
            u = some_points(rng, box, 200)
            v = u[rng.permutation(len(u))]
            change = np.abs(model(u) - model(v))
            for method in methods(model):
                matrix = local_sensitivity(model, box, method)
                assert (change <= np.abs(u - v) @ matrix.T + 1e-13 * (1 + change)).all(), (radius, method)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, radius=st.sampled_from([None, 1e-6, 0.1, 100.0]))
def test_local_is_never_above_global(seed: int, radius: float | None) -> None:
    """By the intersection in `local_sensitivity`, and before it (to rounding) by docs/mathematics.md, section 5.3."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4, 3), activations=[*KINKED, *STEADY])
    box = random_box(rng, 3, radius=radius)
    there = restricted_model(model, interval_bounds(model, Interval.of_boxes(box)))
    for name in methods(model):
        outer = global_or_infinite(model, name)
        assert (local_sensitivity(model, box, name) <= outer).all()
        assert (METHODS[name](there, None) <= outer * (1 + 1e-9) + 1e-13).all()


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_a_box_within_another_has_no_larger_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4, 3), activations=[*KINKED, "tanh", "sigmoid"])
    outer = random_box(rng, 3, radius=0.5)
    ends = np.sort(outer.lo + (outer.hi - outer.lo) * rng.random((2, 3)), axis=0)
    inner = Box.between(ends[0], ends[1])
    for name in methods(model):
        small, large = (local_sensitivity(model, box, name) for box in (inner, outer))
        assert (small <= large * (1 + 1e-9) + 1e-13).all(), name


def jacobian(model: ImplicitModel, u: np.ndarray) -> np.ndarray:
    return np.vstack([gradient(model, u[None], row[None]) for row in np.eye(model.n_outputs)])


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_a_small_box_gives_the_jacobian(seed: int) -> None:
    """To first order in the radius: kinks are away from the centre, curved activations bend by their second slope."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4, 3), activations=[*KINKED, "tanh", "sigmoid"])
    centre = rng.normal(size=3)
    smallest = min(float(np.abs(z).min(initial=np.inf)) for z in model.pre_activations(centre[None]))
    if smallest < 1e-3:
        return
    expected = np.abs(jacobian(model, centre))
    size = sensitivity_matrix(model).max(initial=1.0)
    for name in ("best", "centre-radius"):
        found = local_sensitivity(model, Box.around(centre, 1e-9), name)
        assert (found >= expected * (1 - 1e-9) - 1e-12).all()
        np.testing.assert_allclose(found, expected, atol=1e-5 * size)


def test_where_a_network_is_linear_the_matrix_is_the_jacobian() -> None:
    """Exactly, to rounding: every ReLU is on one side of its kink over the whole box."""
    model = layered([([[1.0, -2.0], [3.0, 1.0], [1.0, 1.0]], [5.0, 4.0, -9.0])], ([[2.0, -3.0, 100.0]], [0.0]))
    box = Box.between(np.array([-0.5, -0.5]), np.array([0.5, 0.5]))
    for name in ("centre-radius", "half-step", "best"):
        found = local_sensitivity(model, box, name)
        np.testing.assert_allclose(found, [[7.0, 7.0]], rtol=1e-12)  # |2 (1, -2) - 3 (3, 1)|
    np.testing.assert_allclose(local_sensitivity(model, box, "paper"), [[11.0, 7.0]], rtol=1e-12)
    np.testing.assert_allclose(sensitivity_matrix(model), [[111.0, 107.0]], rtol=1e-12)


def test_known_small_cases() -> None:
    """y = relu(u) + relu(-u) = |u|: slope in [-1, 1] where the box holds 0, and 1 where it does not."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, 1.0]], [0.0]))
    for lo, hi, expected in ((-1.0, 2.0, 1.0), (0.5, 2.0, 1.0), (-2.0, -0.5, 1.0)):
        found = local_sensitivity(model, Box.between(np.array([lo]), np.array([hi])))
        np.testing.assert_allclose(found, [[expected]], rtol=1e-12)
    dead = layered([([[1.0]], [-3.0])], ([[5.0]], [0.0]))
    found = local_sensitivity(dead, Box.between(np.array([-1.0]), np.array([1.0])))
    assert 0.0 <= found[0, 0] < 1e-12


def test_the_largest_of_separated_inputs_is_the_only_one_that_counts() -> None:
    model = pool_of_inputs(4)
    centre = np.array([0.0, 5.0, 1.0, 2.0])
    found = local_sensitivity(model, Box.around(centre, 0.1))
    np.testing.assert_allclose(found, [[0.0, 1.0, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(local_sensitivity(model, Box.around(centre, 9.0)), np.ones((1, 4)), rtol=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_the_exact_jacobian_at_corners_is_below(seed: int) -> None:
    """In rational arithmetic: exact differences along the axes between corners of the box."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3), activations=["relu", "leaky", "abs", "prelu"], cancelling=True)
    box = random_box(rng, 2, radius=0.25)
    exact = ExactModel(model)
    corners = all_corners(box)
    outputs = [exact.evaluate(corner)[2] for corner in corners]
    for name in methods(model):
        matrix = local_sensitivity(model, box, name)
        for (i, u), (j, v) in itertools.combinations(enumerate(corners), 2):
            for row, (y, w) in enumerate(zip(outputs[i], outputs[j], strict=True)):
                step = [abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(u, v, strict=True)]
                allowed = sum(Fraction(float(s)) * d for s, d in zip(matrix[row], step, strict=True))
                assert abs(y - w) <= allowed, (name, row)


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_functionals_bound_differences_of_outputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4), activations=[*KINKED, *STEADY])
    box = random_box(rng, 3, radius=0.4)
    rows = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    points = some_points(rng, box, 100)
    others = points[rng.permutation(len(points))]
    change = np.abs((model(points) - model(others)) @ rows.T)
    for name in methods(model):
        found = local_sensitivity(model, box, name, functionals=rows)
        assert (change <= np.abs(points - others) @ found.T + 1e-13 * (1 + change)).all()
        assert (found <= np.abs(rows) @ local_sensitivity(model, box, name) * (1 + 1e-9) + 1e-13).all()


def test_linear_bounds_are_no_looser_than_intervals() -> None:
    rng = np.random.default_rng(4)
    tighter = 0
    for _ in range(10):
        model = random_network(rng, p=3, widths=(6, 6, 6), skips=False)
        box = random_box(rng, 3, radius=0.3)
        simple, sharp = (local_sensitivity(model, box, state_bounds=name) for name in ("interval", "linear"))
        assert (sharp <= simple * (1 + 1e-9) + 1e-13).all()
        tighter += bool((sharp < 0.99 * simple).any())
    assert tighter > 0


def test_scaling_changes_no_local_matrix() -> None:
    rng = np.random.default_rng(7)
    model = random_network(rng, p=3, widths=(5, 4), activations=["relu", "tanh"])
    box = random_box(rng, 3, radius=0.2)
    np.testing.assert_allclose(local_sensitivity(rescale(model), box), local_sensitivity(model, box), rtol=1e-9)


# ---- the matrix of signed paths --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_signed_paths_hold_for_every_slope_in_the_intervals(seed: int) -> None:
    """|J(s)| for random slopes and for all their ends, where slopes may have any sign."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(2, 3), activations=["identity"])
    slopes = {}
    for k, block in enumerate(model.blocks):
        ends = np.sort(rng.normal(size=(2, block.size)), axis=0)
        slopes[k] = ends[0], np.where(rng.random(block.size) < 0.2, ends[0], ends[1])
    there = restricted_model(model, interval_bounds(model, Interval(np.full((1, 2), -1.0), np.full((1, 2), 1.0))))
    for k, block in enumerate(there.blocks):  # the slopes that the test drew
        block.activation.least, block.activation.most = slopes[k]  # type: ignore[attr-defined]
    bound, paper = sign_path_matrix(there, slopes), METHODS["paper"](there, None)
    assert (bound <= paper * (1 + 1e-12)).all()
    a, b, c, d = (m.toarray() for m in model.matrices[:4])
    low, high = (np.concatenate([slopes[k][side] for k in range(len(slopes))]) for side in (0, 1))
    for _ in range(60):
        chosen = np.where(rng.random(low.size) < 0.5, low, high)
        chosen = chosen if rng.random() < 0.7 else low + (high - low) * rng.random(low.size)
        there_too = c @ np.linalg.solve(np.eye(len(a)) - chosen[:, None] * a, chosen[:, None] * b) + d
        assert (np.abs(there_too) <= bound + 1e-12 * (1 + paper)).all()


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_signed_paths_are_the_half_step_or_below_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4), activations=["relu", "leaky", "tanh", "sigmoid"])
    found = sign_path_matrix(model, global_slopes(model))
    assert (found <= METHODS["half-step"](model, None) * (1 + 1e-9) + 1e-13).all()
    plain = random_network(rng, p=3, widths=(4, 4), activations=["relu"], skips=False)
    np.testing.assert_allclose(
        sign_path_matrix(plain, global_slopes(plain)), METHODS["half-step"](plain, None), rtol=1e-9
    )


def test_large_models_are_bounded_without_the_matrices_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where centre and radius need too much memory the paths' signs still give the Jacobian in the limit."""
    monkeypatch.setattr(centre_radius, "LARGEST", 0)
    rng = np.random.default_rng(2)
    model = pooled_network(rng, bias=0.2)
    centre = rng.normal(size=16)
    found = local_sensitivity(model, Box.around(centre, 1e-9))
    np.testing.assert_allclose(found, np.abs(jacobian(model, centre)), atol=1e-6)


# ---- what is refused, and loops -------------------------------------------------------------------------------------


def test_what_is_not_known_is_refused() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    box = Box.between(np.zeros(1), np.ones(1))
    with pytest.raises(OptionError, match="there is no method 'sharpest'"):
        local_sensitivity(model, box, "sharpest")
    with pytest.raises(OptionError, match="there is no kind of state bounds 'lp'"):
        local_sensitivity(model, box, state_bounds="lp")


@pytest.mark.parametrize("name", ["relu", "tanh", "leaky_relu", "sigmoid"])
def test_no_two_points_move_a_model_with_a_loop_further(name: str) -> None:
    proved = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        model = looped(rng, ACTIVATIONS[name]())
        whole = sensitivity_matrix(model, "best")
        for radius in (1e-4, 0.3):
            box = Box.around(rng.normal(size=3), radius)
            for state_bounds in STATE_BOUNDS:
                found = local_sensitivity(model, box, state_bounds=state_bounds)
                assert (found <= whole).all()
                u = some_points(rng, box, 50)
                v = u[rng.permutation(len(u))]
                change = np.abs(model(u) - model(v))
                assert (change <= np.abs(u - v) @ found.T + 1e-9).all()  # what the solver leaves
                proved += bool((found < 0.9 * whole).any())
    assert proved > 0


def looped(rng: np.random.Generator, activation: Activation) -> ImplicitModel:
    """Return u -> relu -> a block that reads itself -> y."""
    own = rng.normal(size=(5, 5)) / 10 - 0.5 * np.eye(5)
    blocks = (StateBlock("loop", "T", activation, (5,)), StateBlock("in", "T", ACTIVATIONS["relu"](), (4,)))
    rows = (
        Affine({0: dense(own), 1: dense(rng.normal(size=(5, 4)))}, dense(rng.normal(size=(5, 3))), rng.normal(size=5)),
        Affine({}, dense(rng.normal(size=(4, 3))), rng.normal(size=4)),
    )
    return ImplicitModel(blocks, rows, Affine({0: dense(rng.normal(size=(2, 5)))}, None, np.zeros(2)), (3,), (2,))
