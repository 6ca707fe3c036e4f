"""Ellipsoids, zonotopes and eliminated self-feedback: sound against exact and sampled states, and tight."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.wellposed import Coefficients, monotone
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import affine_interval, interval_bounds, loop_interval
from idl_audit.proof.loops.ellipsoid import ellipsoid, radius
from idl_audit.proof.loops.enclosed import error_of, image, length, product, reach, scaled_rows, total
from idl_audit.proof.loops.linearised import linearised
from idl_audit.proof.loops.system import loop_system, reference
from idl_audit.proof.loops.zonotope import zonotope
from tests.shared.cyclic_models import around_a_loop, exact, monotone_loop, plain, plus, times, vector

seeds = st.integers(0, 2**32 - 1)


def scaled_matrix(rng, shape):
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-8, 8, shape)


def within(found: Coefficients, truth) -> bool:
    """Whether an exact matrix lies within the errors of a computed one."""
    rows = zip(found.matrix.tolist(), error_of(found).tolist(), truth, strict=True)
    return all(
        abs(Fraction(a) - t) <= Fraction(e)
        for own, errors, right in rows
        for a, e, t in zip(own, errors, right, strict=True)
    )


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_products_and_sums_enclose_the_exact_ones(seed):
    rng = np.random.default_rng(seed)
    a, b, c = scaled_matrix(rng, (3, 4)), scaled_matrix(rng, (4, 2)), scaled_matrix(rng, (3, 2))
    ea, eb = np.abs(a) * 1e-3 * rng.random(a.shape), np.abs(b) * 1e-3 * rng.random(b.shape)
    near_a = plus(exact(a), exact(ea * rng.choice([-1.0, 1.0], a.shape)))
    near_b = plus(exact(b), exact(eb * rng.choice([-1.0, 1.0], b.shape)))
    found = product(Coefficients(a, ea), Coefficients(b, eb))
    assert within(found, times(near_a, near_b))
    assert within(product(Coefficients(a), Coefficients(b)), times(exact(a), exact(b)))
    assert within(total(found, Coefficients(c)), plus(times(near_a, near_b), exact(c)))
    weights = rng.normal(size=3)
    assert within(
        scaled_rows(weights, found),
        [[Fraction(w) * v for v in row] for w, row in zip(weights, times(near_a, near_b), strict=True)],
    )
    v = rng.normal(size=4)
    value, error = image(Coefficients(a, ea), v)
    truth = [sum((x * y for x, y in zip(row, vector(v), strict=True)), Fraction(0)) for row in near_a]
    assert all(
        abs(Fraction(x) - t) <= Fraction(e) for x, e, t in zip(value.tolist(), error.tolist(), truth, strict=True)
    )
    farthest = reach(Coefficients(a, ea), np.abs(v))
    bound = [sum((abs(x) * abs(y) for x, y in zip(row, vector(v), strict=True)), Fraction(0)) for row in near_a]
    assert all(Fraction(x) >= t for x, t in zip(farthest.tolist(), bound, strict=True))
    squares = [sum((Fraction(x) ** 2 for x in row), Fraction(0)) for row in a.tolist()]
    assert all(Fraction(x) ** 2 >= s for x, s in zip(length(a).tolist(), squares, strict=True))


def test_lengths_survive_underflow():
    assert length(np.array([[1e-200, 1e-200]]))[0] >= np.sqrt(2) * 1e-200


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 5), st.integers(1, 8))
def test_the_radius_is_above_all_corners_and_not_far(seed, n, p):
    rng = np.random.default_rng(seed)
    J, r = rng.normal(size=(n, p)), rng.random(p) * (rng.random(p) < 0.8)
    found = radius(Coefficients(J), r)
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=p))) * r
    truth = np.linalg.norm(corners @ J.T, axis=1).max()
    assert found >= truth * (1 - 1e-15)
    assert found <= 1.3 * truth + 1e-100
    assert radius(Coefficients(J, 0.1 * np.abs(J)), r) >= truth * (1 + 0.0)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 6))
def test_self_feedback_goes_without_a_trace(seed, n):
    rng = np.random.default_rng(seed)
    A = monotone_loop(rng, n, float(rng.choice([0.2, 1.0, 20.0])))
    B, b = rng.normal(size=(n, 3)), rng.normal(size=n)
    model = plain(A, B, np.eye(n), b=b)
    there = without_self_feedback(model)
    inputs = rng.normal(size=(20, 3))
    np.testing.assert_allclose(there(inputs), model(inputs), rtol=1e-9, atol=1e-9)
    assert without_self_feedback(model) is there
    factor = [1 / (1 - Fraction(a)) for a in np.diagonal(A).tolist()]
    off = [
        [Fraction(0) if i == j else Fraction(v) * f for j, v in enumerate(row)]
        for i, (row, f) in enumerate(zip(A.tolist(), factor, strict=True))
    ]
    if there.loops:
        (k,) = there.loops
        assert within(there.loops[k].A, off)
        assert not np.diagonal(there.loops[k].A.matrix).any()
    system = loop_system(model, next(iter(model.loops)))
    assert system.P.matrix.shape == (n, 3)
    for row, f, c in zip(there.rows[0].constant.tolist(), factor, b.tolist(), strict=True):
        assert abs(Fraction(row) - f * Fraction(c)) <= Fraction(there.rows[0].constant_error)


def test_a_loop_that_weights_make_monotone_is_proved_by_them():
    rng = np.random.default_rng(1)
    W = monotone_loop(rng, 12, 0.3, 3.0)
    model = without_self_feedback(plain(W, np.eye(12), np.eye(12)))
    ((k, loop),) = model.loops.items()
    zeros, ones = np.zeros(12), np.ones(12)
    assert monotone(loop.A, zeros, ones, model.loop_weights[k]).least_eigenvalue == pytest.approx(
        monotone(Coefficients(W), zeros, ones).least_eigenvalue, rel=1e-3
    )
    assert model.is_well_posed
    # the same ellipsoid, told in other variables
    eye = Coefficients(np.eye(12))
    factor = 1 / (1 - np.diagonal(W))
    weighted = monotone(loop.A, zeros, ones, model.loop_weights[k]).response(
        Coefficients(np.diag(factor)), eye, Coefficients(np.zeros((12, 12)))
    )
    direct = monotone(Coefficients(W), zeros, ones).response(eye, eye, Coefficients(np.zeros((12, 12))))
    np.testing.assert_allclose(weighted, direct, rtol=1e-6)


def test_weights_that_are_not_positive_prove_nothing():
    A = Coefficients(np.array([[0.0, 0.1], [0.1, 0.0]]))
    for weights in ([1.0, -1.0], [1.0, 0.0], [1.0, np.nan], [1.0, np.inf]):
        with np.errstate(all="ignore"):
            try:
                found = monotone(A, np.zeros(2), np.ones(2), np.array(weights))
            except np.linalg.LinAlgError:
                found = None
        assert found is None


def random_model(rng) -> tuple[ImplicitModel, int]:
    """Return a model around one loop of ReLU or mixed states."""
    n = int(rng.integers(1, 6))
    W = monotone_loop(rng, n, float(rng.choice([0.2, 1.0, 5.0])))
    if rng.random() < 0.3:
        W = W + np.triu(rng.normal(size=(n, n)) * 2, 1) * 0.1
    names = ["relu"] if rng.random() < 0.6 else ["relu", "tanh", "leaky_relu", "sigmoid", "gelu", "abs"]
    kinds = [(str(rng.choice(names)), 1) for _ in range(n)]
    arrays, kinds = around_a_loop(rng, [(W, kinds)], before=int(rng.integers(0, 3)), after=int(rng.integers(0, 2)))
    C = rng.normal(size=(2, len(arrays["A"])))
    return plain(arrays["A"], arrays["B"], C, kinds, b=arrays["b"]), n


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.0, 1e-6, 0.05, 0.5, 3.0]))
def test_no_sampled_state_leaves_its_bounds(seed, size):
    rng = np.random.default_rng(seed)
    model, _ = random_model(rng)
    if not model.is_well_posed:
        return
    centre = rng.normal(size=3)
    inputs = Interval((centre - size)[None], (centre + size)[None])
    for there in (model, without_self_feedback(model)):
        bounds = interval_bounds(there, inputs)
        points = np.vstack(
            [
                centre + size * rng.uniform(-1, 1, (60, 3)),
                centre + size * rng.choice([-1.0, 1.0], (20, 3)),
                centre[None],
            ]
        )
        found = there.solve(np.clip(points, inputs.lo, inputs.hi))
        for k in range(len(there.blocks)):
            for values, box in ((found.pre_activations[k], bounds.z[k]), (found.states[k], bounds.x[k])):
                slack = 1e-9 * (1 + np.abs(values).max())
                assert (values >= box.lo - slack).all()
                assert (values <= box.hi + slack).all()


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 5), st.floats(0.01, 2.0))
def test_each_step_alone_is_sound(seed, n, size):
    """Ellipsoid and zonotope from a known box, against states of that box."""
    rng = np.random.default_rng(seed)
    model = plain(monotone_loop(rng, n, 1.0), rng.normal(size=(n, 3)), np.eye(n), b=rng.normal(size=n))
    (k,) = model.loops
    system = loop_system(model, k)
    centre, r = rng.normal(size=3), size * rng.random(3)
    inputs = Interval((centre - r)[None], (centre + r)[None])
    points = np.clip(centre + r * rng.uniform(-1, 1, (80, 3)), inputs.lo, inputs.hi)
    z = model.solve(points).pre_activations[0]
    spread = np.ptp(z, axis=0) * 0.3 + 1e-3
    z_lo, z_hi = z.min(axis=0) - spread, z.max(axis=0) + spread
    c, half = system.drivers({}, inputs, 0)
    box = zonotope(system, z_lo, z_hi, c, half)
    start = reference(system, c)
    found = ellipsoid(system, *system.block.slopes(np.minimum(z_lo, start.z), np.maximum(z_hi, start.z)))
    assert box is not None
    assert found is not None
    x = np.maximum(z, 0)
    slack = 1e-9 * (1 + np.abs(z).max())
    for values, interval in ((z, box[0]), (x, box[1])):
        assert (values >= interval.lo - slack).all()
        assert (values <= interval.hi + slack).all()
    widths = np.maximum(z_hi - start.z, start.z - z_lo)
    of_z, of_x = found.changes(half, start.delta, widths)
    assert (np.abs(z - start.z) <= of_z + slack).all()
    assert (np.abs(x - np.maximum(start.z, 0)) <= of_x + slack).all()
    # and they say something: the changes of a contraction of the l2 norm would be looser
    m = monotone(system.A, np.zeros(n), np.ones(n)).least_eigenvalue
    everywhere = ellipsoid(system, np.zeros(n), np.ones(n))
    plain_l2 = radius(system.P, half) / m
    assert everywhere.changes(half, np.zeros(n), np.zeros(n))[1].max() <= plain_l2 * (1 + 1e-9)


def test_the_identity_of_a_linearised_loop_is_exact():
    rng = np.random.default_rng(5)
    n = 3
    model = plain(monotone_loop(rng, n, 1.0), rng.normal(size=(n, 2)), np.eye(n))
    system = loop_system(model, 0)
    slopes = rng.random(n)
    found = linearised(system, slopes)
    a, y = exact(system.A.matrix), exact(found.Y.matrix)
    inner = [
        [(1 if i == j else 0) - v * Fraction(s) for j, (v, s) in enumerate(zip(row, slopes.tolist(), strict=True))]
        for i, row in enumerate(a)
    ]
    F = [[(1 if i == j else 0) - v for j, v in enumerate(row)] for i, row in enumerate(times(y, inner))]
    assert all(abs(v) <= Fraction(float(found.defect[i, j])) for i, row in enumerate(F) for j, v in enumerate(row))
    assert within(found.YA, times(y, a))
    assert np.abs(found.defect).max() < 1e-12


def test_one_state_is_bounded_exactly():
    """x = relu(-2 x + u): x = u / 3 above 0; the bounds over [-1, 3] are [0, 1] and z' = z / 3 below 0."""
    model = without_self_feedback(plain([[-2.0]], [[1.0]], [[1.0]]))
    assert model.is_feed_forward
    bounds = interval_bounds(model, Interval(np.array([[-1.0]]), np.array([[3.0]])))
    np.testing.assert_allclose([bounds.x[0].lo[0, 0], bounds.x[0].hi[0, 0]], [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose([bounds.z[0].lo[0, 0], bounds.z[0].hi[0, 0]], [-1 / 3, 1.0], atol=1e-12)


def test_bounds_are_much_narrower_than_by_gains_alone():
    """On a monotone loop of 20 states the box by the loop's gain is several times wider."""
    rng = np.random.default_rng(7)
    n, p = 20, 60
    model = plain(monotone_loop(rng, n, 1.0, 0.7), rng.normal(size=(n, p)), np.eye(n), b=rng.normal(size=n))
    u = rng.normal(size=(1, p))
    inputs = Interval(u - 0.02, u + 0.02)
    (k,) = model.loops
    alone = loop_interval(model.loops[k], affine_interval(model.loops[k].drive, {}, inputs))
    bounds = interval_bounds(model, inputs)
    assert bounds.x[k].width.mean() < alone.width.mean() / 4
    corners = u + 0.02 * rng.choice([-1.0, 1.0], (500, p))
    states = model.solve(corners).states[k]
    assert (states >= bounds.x[k].lo - 1e-9).all()
    assert (states <= bounds.x[k].hi + 1e-9).all()


def test_no_solver_error_is_left_out():
    """A reference whose state is off by far makes bounds wider, never wrong."""
    rng = np.random.default_rng(9)
    model = plain(monotone_loop(rng, 4, 1.0), rng.normal(size=(4, 2)), np.eye(4), b=rng.normal(size=4))
    system = loop_system(model, 0)
    centre, r = rng.normal(size=2), np.full(2, 0.1)
    start = reference(system, centre)
    off = start.z + 0.3 * rng.normal(size=4)
    x = np.maximum(off, 0)
    delta = np.abs(off - (system.A.matrix @ x + system.P.matrix @ centre + system.b)) * (1 + 1e-12) + 1e-12
    z, of_x = ellipsoid(system, np.zeros(4), np.ones(4)).changes(r, delta, np.zeros(4))
    states = model.solve(centre + r * rng.uniform(-1, 1, (200, 2)))
    assert (np.abs(states.pre_activations[0] - off) <= z + 1e-9).all()
    assert (np.abs(states.states[0] - x) <= of_x + 1e-9).all()
    assert start.delta.max() < 1e-10
