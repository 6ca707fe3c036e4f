"""Analyses of cyclic models: sensitivity, bounds, certificates, gradients and scaling against sampled equilibria."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import norm_inf_a, rescale
from idl_audit.implicit.wellposed import Coefficients, contractions, monotone, perron_root
from idl_audit.measure.centre_radius import centre_radius_matrix, global_slopes
from idl_audit.measure.norm_matrix import norm_bound
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.flat import flat_contractions, flat_model, flat_sensitivity
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search.linprog import Outcome
from idl_audit.search.relaxation import TriangleRelaxation
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import IdlAuditError, UnsupportedModelError
from idl_audit.values.margins import margin_functionals
from tests.shared.cyclic_models import (
    Kind,
    around_a_loop,
    contracting,
    exact,
    identity,
    inverse,
    magnitude,
    phi_of,
    plain,
    plus,
    random_loop,
    times,
)

seeds = st.integers(0, 2**32 - 1)
KINDS = ("relu", "leaky_relu", "tanh", "sigmoid", "abs", "gelu", "silu", "hard_swish", "softmax")
METHODS = ("paper", "centre-radius", "monotone", "best")


@dataclass(frozen=True)
class Case:
    """A model and the arrays that it was made of."""

    model: ImplicitModel
    A: FloatArray
    B: FloatArray
    C: FloatArray
    D: FloatArray
    b: FloatArray
    kinds: Sequence[Kind]

    def flat_states(self, inputs: FloatArray) -> FloatArray:
        """Return x in the user's order, (m, n), polished by the plain iteration where states are coupled."""
        x = plain(self.A, self.B, np.eye(len(self.A)), self.kinds, b=self.b)(inputs)
        if any(block.activation.coupled for block in self.model.blocks):  # those are not polished
            for i, u in enumerate(inputs):
                x[i] = self._polished(x[i], self.B @ u + self.b)
        return x

    def _polished(self, x: FloatArray, drive: FloatArray) -> FloatArray:
        """Return x after Newton steps with a Jacobian by differences, as long as they help."""

        def off(states: FloatArray) -> FloatArray:
            return states - phi_of(self.kinds, self.A @ states + drive)

        for _ in range(8):
            step = 1e-7 * np.eye(len(x))
            jacobian = np.stack([(off(x + e) - off(x - e)) / 2e-7 for e in step], axis=1)
            tried = x - np.linalg.solve(jacobian, off(x))
            if np.abs(off(tried)).max() >= np.abs(off(x)).max():
                break
            x = tried
        return x

    def outputs(self, inputs: FloatArray) -> FloatArray:
        return self.flat_states(inputs) @ self.C.T + inputs @ self.D.T


def case(rng: np.random.Generator, loops, *, before: int = 2, after: int = 2) -> Case:
    arrays, kinds = around_a_loop(rng, loops, before=before, after=after)
    n = len(arrays["A"])
    C, D = rng.normal(size=(2, n)), rng.normal(size=(2, 3))
    model = plain(arrays["A"], arrays["B"], C, kinds, D=D, b=arrays["b"])
    return Case(model, arrays["A"], arrays["B"], C, D, arrays["b"], kinds)


def random_case(rng: np.random.Generator, names: Sequence[str] = KINDS) -> Case:
    """Return a well-posed model: one or two loops of mixed activations, feed-forward states around them."""
    while True:
        loops = []
        for _ in range(int(rng.integers(1, 3))):
            kinds = [(str(rng.choice(names)), int(rng.integers(1, 4))) for _ in range(int(rng.integers(1, 3)))]
            n = sum(size for _, size in kinds)
            loop = contracting(rng, kinds, float(rng.choice([0.3, 0.8, 0.95])))
            if rng.random() < 0.5 and "softmax" not in dict(kinds):
                loop = random_loop(rng, n)
            loops.append((loop, kinds))
        found = case(rng, loops, before=int(rng.integers(0, 3)), after=int(rng.integers(0, 3)))
        if found.model.is_well_posed and np.abs(found.A).max() < 50:
            return found


def violated(S: FloatArray, first: Case, inputs: FloatArray) -> float:
    """Return by how much |y(u) - y(v)| exceeds S |u - v| over all pairs, up to what equilibria are computed with."""
    y = first.outputs(inputs)
    rise = np.abs(y[:, None] - y[None]) - np.abs(inputs[:, None] - inputs[None]) @ S.T
    return float(rise.max() - 1e-9 * (1 + np.abs(y).max()))


def some_inputs(rng: np.random.Generator, m: int) -> FloatArray:
    """Return inputs, and near each of them one that differs by 1e-6 to 1."""
    u = rng.normal(size=(m // 2, 3)) * 2
    return np.vstack([u, u + 10.0 ** rng.uniform(-6, 0, (m // 2, 1)) * rng.normal(size=u.shape)])


# ---------------------------------------------------------------------------------------------- sensitivity


@pytest.mark.parametrize("name", KINDS)
def test_S_is_exceeded_by_none_of_10000_pairs(name):
    rng = np.random.default_rng(abs(hash(name)) % 1 + len(name))
    model = case(rng, [(contracting(rng, [(name, 4)], 0.9), [(name, 4)])])
    inputs = some_inputs(rng, 101)  # 10,201 pairs
    found = 0
    for method in METHODS:
        try:
            S = sensitivity_matrix(model.model, method)
        except UnsupportedModelError:
            continue
        found += 1
        assert violated(S, model, inputs) <= 0, method
        assert violated(S * 0.01, model, inputs) > 0, "the samples could not tell"
    assert found >= 2


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_S_of_mixtures_holds_on_sampled_pairs(seed):
    rng = np.random.default_rng(seed)
    model = random_case(rng)
    inputs = some_inputs(rng, 100)
    for method in METHODS:
        try:
            S = sensitivity_matrix(model.model, method)
        except UnsupportedModelError:
            continue
        assert np.isfinite(S).all()
        assert violated(S, model, inputs) <= 0, method


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_S_of_functionals_holds_on_sampled_pairs(seed):
    rng = np.random.default_rng(seed)
    model = random_case(rng)
    F = rng.normal(size=(3, 2))
    try:
        S = sensitivity_matrix(model.model, "best", functionals=F)
    except UnsupportedModelError:
        return
    inputs = some_inputs(rng, 60)
    y = model.outputs(inputs) @ F.T
    rise = np.abs(y[:, None] - y[None]) - np.abs(inputs[:, None] - inputs[None]) @ S.T
    assert rise.max() <= 1e-9 * (1 + np.abs(y).max())


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 4))
def test_nonnegative_weights_make_every_S_the_gain(seed, n):
    rng = np.random.default_rng(seed)
    A = np.abs(contracting(rng, [("relu", n)], 0.8))
    B, C, D = np.abs(rng.normal(size=(n, 2))), np.abs(rng.normal(size=(2, n))), np.abs(rng.normal(size=(2, 2)))
    model = plain(A, B, C, D=D)
    truth = C @ np.linalg.solve(np.eye(n) - A, B) + D
    low, high = model(np.full((1, 2), 1.0)), model(np.full((1, 2), 2.0))
    np.testing.assert_allclose((high - low)[0], truth.sum(axis=1), rtol=1e-9)  # attained
    for method in ("paper", "centre-radius", "best"):
        np.testing.assert_allclose(sensitivity_matrix(model, method), truth, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 5))
def test_identity_loops_are_exact(seed, n):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) * 3
    if np.linalg.cond(np.eye(n) - A) > 1e3:
        return
    B, C, D = rng.normal(size=(n, 2)), rng.normal(size=(2, n)), rng.normal(size=(2, 2))
    model = plain(A, B, C, "identity", D=D)
    assert model.is_well_posed
    truth = C @ np.linalg.solve(np.eye(n) - A, B) + D
    np.testing.assert_allclose(model(np.eye(2)), truth.T, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sensitivity_matrix(model, "centre-radius"), np.abs(truth), rtol=1e-8, atol=1e-9)


def exact_centre_radius(A, B, C, least: float, most: float) -> list[list[Fraction]]:
    """Return S(c, r) = |Cr| (I - |R|)^-1 |Br| + |Dr| of docs/mathematics.md, section 5.3, in fractions."""
    a, b, c_matrix = exact(A), exact(B), exact(C)
    n = len(a)
    centre, radius = (Fraction(least) + Fraction(most)) / 2, (Fraction(most) - Fraction(least)) / 2
    G = inverse(plus(identity(n), [[centre * v for v in row] for row in a], -1))
    R = [[radius * abs(v) for v in row] for row in times(G, a)]
    Br = [[radius * abs(v) for v in row] for row in times(G, b)]
    weighted = [[centre * v for v in row] for row in c_matrix]
    Cr = magnitude(plus(c_matrix, times(weighted, times(G, a))))
    Dr = magnitude(times(weighted, times(G, b)))
    return plus(times(times(Cr, inverse(plus(identity(n), R, -1))), Br), Dr)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([("relu", 0.0, 1.0), ("abs", -1.0, 1.0), ("hard_swish", -0.5, 1.5)]))
def test_centre_radius_is_the_formula_of_the_specification(seed, kind):
    name, least, most = kind
    rng = np.random.default_rng(seed)
    n = 3
    A = contracting(rng, [(name, n)], 0.7)
    B, C = rng.normal(size=(n, 2)), rng.normal(size=(2, n))
    model = plain(A, B, C, name)
    truth = np.array(exact_centre_radius(A, B, C, least, most), float)
    slopes = {k: (np.full(n, least), np.full(n, most)) for k in range(1)}
    flat = flat_model(model)
    one = next(flat_contractions(model, flat, slopes))
    np.testing.assert_allclose(one.response(flat.B, flat.C, flat.D), truth, rtol=1e-9, atol=1e-12)
    S = flat_sensitivity(model, slopes)
    assert (S - truth * (1 + 1e-9)).max() <= 1e-12


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 6))
def test_inner_slopes_are_never_looser(seed, n):
    """The theorem of docs/mathematics.md, section 5.3, for cyclic A: one centre-radius form against the other."""
    rng = np.random.default_rng(seed)
    A = contracting(rng, [("identity", n)], float(rng.choice([0.5, 0.9])))
    model = plain(A, rng.normal(size=(n, 2)), rng.normal(size=(2, n)), "identity")
    flat = flat_model(model)
    outer = np.sort(rng.uniform(-1, 1, (2, n)), axis=0)
    inner = outer[0] + np.sort(rng.random((2, n)), axis=0) * (outer[1] - outer[0])
    matrices = []
    for ends in (inner, outer, np.vstack([-np.ones(n), np.ones(n)])):
        first = next(flat_contractions(model, flat, {0: (ends[0], ends[1])}))
        matrices.append(first.response(flat.B, flat.C, flat.D))
    small, middle, large = matrices
    assert (small <= middle * (1 + 1e-9) + 1e-12).all()
    assert (middle <= large * (1 + 1e-9) + 1e-12).all()
    np.testing.assert_allclose(large, flat_sensitivity(model, {0: (-np.ones(n), np.ones(n))}, middle=False), rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_centre_radius_is_never_above_the_papers_matrix(seed):
    rng = np.random.default_rng(seed)
    model = random_case(rng, [name for name in KINDS if name != "softmax"]).model
    try:
        paper = sensitivity_matrix(model, "paper")
    except UnsupportedModelError:
        return
    assert (sensitivity_matrix(model, "centre-radius") <= paper * (1 + 1e-9) + 1e-12).all()
    assert (sensitivity_matrix(model, "best") <= paper * (1 + 1e-9) + 1e-12).all()


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_local_slopes_give_a_local_S(seed):
    """S(c, r) with the slopes over a box holds for pairs of the box, and is no looser."""
    rng = np.random.default_rng(seed)
    model = random_case(rng, [name for name in KINDS if name != "softmax"])
    centre, radius = rng.normal(size=3), 0.1
    inputs = Interval((centre - radius)[None], (centre + radius)[None])
    bounds = interval_bounds(model.model, inputs)
    slopes = {
        k: tuple(side[0] for side in block.slopes(bounds.z[k].lo, bounds.z[k].hi))
        for k, block in enumerate(model.model.blocks)
    }
    try:
        whole = centre_radius_matrix(model.model, global_slopes(model.model))
        local = centre_radius_matrix(model.model, slopes)
    except UnsupportedModelError:
        return
    points = np.clip(centre + radius * rng.uniform(-1, 1, (60, 3)), inputs.lo, inputs.hi)
    assert violated(local, model, points) <= 0
    assert local.sum() <= whole.sum() * (1 + 1e-6)


def test_without_a_proof_there_is_no_S():
    for A, kinds in (([[2.0]], "relu"), ([[0, -12], [0, 0]], "softmax"), ([[1.0]], "tanh")):
        n = len(A)
        model = plain(A, np.ones((n, 1)), np.ones((1, n)), kinds)
        for method in METHODS:
            with pytest.raises(UnsupportedModelError):
                sensitivity_matrix(model, method)
        with pytest.raises(UnsupportedModelError):
            interval_bounds(model, Interval(np.zeros((1, 1)), np.ones((1, 1))))
        with pytest.raises(UnsupportedModelError):
            backward_state_bounds(model, Interval(np.zeros((1, 1)), np.ones((1, 1))))


def test_monotone_loops_between_other_states_have_an_S():
    loop = np.array([[0.4, 2.0, -3.0], [-2.5, 0.3, 2.0], [3.0, -2.5, 0.1]])  # only monotone proves it
    arrays = np.zeros((5, 5))
    arrays[1:4, 1:4], arrays[1:4, 0], arrays[4, 1:4] = loop, 3.0, 3.0
    model = plain(arrays, np.ones((5, 1)), np.ones((1, 5)))
    (only,) = model.loops.values()
    assert only.proof.name == "monotone"
    assert only.gain is not None
    sensitivity_matrix(model, "best")


# ---------------------------------------------------------------------------------------------- bounds


def outside(bounds, model: Case, inputs: FloatArray) -> float:
    """Return how far a sampled state or pre-activation lies outside its bounds, in parts of the states' size."""
    found = model.model
    x = model.flat_states(inputs)
    z = x @ model.A.T + inputs @ model.B.T + model.b
    worst = -np.inf
    for k, block in enumerate(found.blocks):
        states = numbers_of(block.name)
        for values, interval in ((x[:, states], bounds.x[k]), (z[:, states], bounds.z[k])):
            size = 1 + np.abs(values).max()
            excess = np.maximum(interval.lo - values, values - interval.hi).max() / size
            worst = max(worst, float(excess))
    return worst


def numbers_of(name: str) -> list[int]:
    """Return the user's state numbers in a block's name, "states 0-2, 5"."""
    found: list[int] = []
    for part in name.split(" ", 1)[1].split(", "):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


@settings(max_examples=6, deadline=None)
@given(seeds, st.sampled_from([0.0, 1e-6, 1e-2, 0.3, 2.0]))
def test_bounds_and_certificates_hold_for_sampled_equilibria(seed, radius):
    rng = np.random.default_rng(seed)
    model = random_case(rng)
    if any("..." in block.name for block in model.model.blocks):
        return
    centre = rng.normal(size=3)
    inputs = Interval((centre - radius)[None], (centre + radius)[None])
    points = centre + radius * np.vstack(
        [rng.uniform(-1, 1, (40, 3)), rng.choice([-1.0, 1.0], (20, 3)), np.zeros((1, 3))]
    )
    points = np.clip(points, inputs.lo, inputs.hi)
    F = rng.normal(size=(3, 2))
    values = (model.outputs(points) @ F.T).min(axis=0)
    allowed = 1e-9 * (1 + np.abs(model.outputs(points)).max())
    seeds_of_y = Functionals.of_outputs(model.model, F)
    plain_bounds, backward = interval_bounds(model.model, inputs), backward_state_bounds(model.model, inputs)
    for bounds in (plain_bounds, backward):
        assert outside(bounds, model, points) <= 1e-9
        assert (output_lower_bounds(model.model, inputs, bounds, F)[0] <= values + allowed).all()
        for size in (0.0, 1.0, 100.0):  # any multipliers are sound
            lower = lower_bound(
                model.model, inputs, bounds, seeds_of_y, lambda _, v, size=size: size * rng.normal(size=v.shape)
            )
            assert (lower[0] <= values + allowed).all()
    for k in plain_bounds.x:  # backward bounds are intersected with the intervals
        assert (backward.z[k].width <= plain_bounds.z[k].width * (1 + 1e-9) + 1e-9).all()
    answer = TriangleRelaxation(model.model, inputs, backward).minimise(F[0])
    assert answer.lower <= values[0] + allowed


def test_what_the_lp_proves_is_no_worse_than_backward_bounds():
    rng = np.random.default_rng(1594)
    model = random_case(rng).model
    centre = rng.normal(size=3)
    inputs = Interval((centre - 0.3)[None], (centre + 0.3)[None])
    bounds = backward_state_bounds(model, inputs)
    for functional in np.vstack([np.eye(2), -np.eye(2), rng.normal(size=(4, 2))]):
        answer = TriangleRelaxation(model, inputs, bounds).minimise(functional)
        assert answer.outcome is Outcome.OPTIMAL
        assert answer.lower >= output_lower_bounds(model, inputs, bounds, functional[None])[0, 0] - 1e-4


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_a_batch_of_boxes_is_its_boxes(seed):
    rng = np.random.default_rng(seed)
    model = random_case(rng).model
    middle, radius = rng.normal(size=(3, 3)), rng.choice([0.0, 0.1, 1.0], (3, 1))
    together = interval_bounds(model, Interval(middle - radius, middle + radius))
    for i in range(3):
        row = slice(i, i + 1)
        alone = interval_bounds(model, Interval((middle - radius)[row], (middle + radius)[row]))
        for k in alone.x:
            size = 1 + alone.x[k].largest.max()
            np.testing.assert_allclose(together.x[k].lo[row], alone.x[k].lo, atol=1e-5 * size)
            np.testing.assert_allclose(together.x[k].hi[row], alone.x[k].hi, atol=1e-5 * size)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_point_has_tight_bounds(seed):
    rng = np.random.default_rng(seed)
    model = random_case(rng, [name for name in KINDS if name != "softmax"])
    u = rng.normal(size=(1, 3))
    bounds = interval_bounds(model.model, Interval(u, u))
    for interval in bounds.x.values():
        assert interval.width.max() <= 1e-4 * (1 + interval.largest.max())


def test_constant_loops_are_points():
    b = np.array([1.0, 1.0])
    model = plain([[0, 0.5], [0.5, 0]], np.zeros((2, 1)), np.ones((1, 2)), b=b)
    bounds = interval_bounds(model, Interval(np.array([[-1.0]]), np.array([[1.0]])))
    np.testing.assert_allclose(bounds.x[0].lo, [[2, 2]], rtol=1e-12)
    np.testing.assert_allclose(bounds.x[0].hi, [[2, 2]], rtol=1e-12)
    assert sensitivity_matrix(model, "best").max() < 1e-200
    dead = plain([[0, 0.5], [0.5, 0]], np.zeros((2, 1)), np.ones((1, 2)), b=-b)
    bounds = backward_state_bounds(dead, Interval(np.array([[-1.0]]), np.array([[1.0]])))
    assert (bounds.x[0].lo == 0).all()
    assert (bounds.x[0].hi == 0).all()


def test_intervals_of_one_relu_state_are_exact():
    model = plain([[-3.0]], [[1.0]], [[1.0]])  # x = relu(u) / 4
    bounds = interval_bounds(model, Interval(np.array([[-1.0], [2.0]]), np.array([[2.0], [6.0]])))
    np.testing.assert_allclose(bounds.x[0].hi, [[0.5], [1.5]], rtol=0.3)
    np.testing.assert_allclose(bounds.x[0].lo[1], [0.5], rtol=1e-9)
    backward = backward_state_bounds(model, Interval(np.array([[-1.0]]), np.array([[2.0]])))
    assert backward.x[0].hi[0, 0] >= 0.5


@pytest.mark.parametrize("value", [1 - 1e-9, 1 - 1e-12, -(1 - 1e-12)])
def test_nearly_singular_loops_keep_their_bounds(value):
    model = plain([[value]], [[1.0]], [[1.0]])
    inputs = Interval(np.array([[-1.0]]), np.array([[1.0]]))
    top = 1 / (1 - Fraction(value))
    assert Fraction(float(interval_bounds(model, inputs).x[0].hi[0, 0])) >= top
    assert Fraction(float(backward_state_bounds(model, inputs).x[0].hi[0, 0])) >= top
    for method in METHODS:
        try:
            assert Fraction(float(sensitivity_matrix(model, method)[0, 0])) >= top
        except UnsupportedModelError:
            assert method == "paper"


@pytest.mark.parametrize("size", [1e-80, 1e80])
def test_huge_and_small_weights_keep_their_bounds(size):
    A = np.array([[0, size], [0.5 / size, 0]])
    model = plain(A, np.ones((2, 1)), np.ones((1, 2)))
    inputs = Interval(np.array([[-1.0]]), np.array([[1.0]]))
    points = np.linspace(-1, 1, 21)[:, None]
    x = np.array([[Fraction(0)] * 2 for _ in points], dtype=object)
    for i, u in enumerate(points[:, 0]):
        if u > 0:  # both states are on: solve exactly
            a = exact(A)
            (x0,), (x1,) = times(inverse(plus(identity(2), a, -1)), [[Fraction(float(u))], [Fraction(float(u))]])
            x[i] = [x0, x1]
    bounds = interval_bounds(model, inputs)
    for i in range(len(points)):
        for j in range(2):
            assert Fraction(float(bounds.x[0].lo[0, j])) <= x[i, j] <= Fraction(float(bounds.x[0].hi[0, j]))
    S = sensitivity_matrix(model, "best")
    slope = (x[-1].sum() - x[11].sum()) / (Fraction(float(points[-1, 0])) - Fraction(float(points[11, 0])))
    assert Fraction(float(S[0, 0])) >= slope
    assert S[0, 0] == pytest.approx(float(slope), rel=1e-6)


# ---------------------------------------------------------------------------------------------- gradients


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_gradient_is_that_of_finite_differences(seed):
    rng = np.random.default_rng(seed)
    smooth = ("tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "softmax")
    kinds = [(str(rng.choice(smooth)), int(rng.integers(1, 4))) for _ in range(2)]
    model = case(rng, [(contracting(rng, kinds, 0.8), kinds)], before=0, after=0)
    u, g, step = rng.normal(size=(3, 3)), rng.normal(size=(3, 2)), 1e-5
    found = gradient(model.model, u, g)
    for j in range(3):
        e = step * np.eye(3)[j]
        change = ((model.outputs(u + e) - model.outputs(u - e)) * g).sum(axis=1) / (2 * step)
        np.testing.assert_allclose(found[:, j], change, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_relu_loop_is_that_of_its_pattern():
    rng = np.random.default_rng(3)
    A = -2 * np.eye(3) + 0.5 * rng.normal(size=(3, 3))
    B, C = rng.normal(size=(3, 2)), rng.normal(size=(2, 3))
    model = plain(A, B, C)
    assert model.is_well_posed
    u, g = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    for row, functional, found in zip(u, g, gradient(model, u, g), strict=True):
        on = (model.pre_activations(row[None])[0][0] > 0).astype(float)
        jacobian = C @ np.linalg.solve(np.eye(3) - on[:, None] * A, on[:, None] * B)
        np.testing.assert_allclose(found, functional @ jacobian, atol=1e-10)


# ---------------------------------------------------------------------------------------------- scaling


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([0.1, 0.5, 0.9]), st.booleans())
def test_scaling_changes_neither_y_nor_S(seed, kappa, homogeneous):
    rng = np.random.default_rng(seed)
    names = ("relu", "leaky_relu", "abs", "identity") if homogeneous else ("tanh", "gelu", "relu", "sigmoid", "silu")
    kinds = [(str(rng.choice(names)), int(rng.integers(1, 4))) for _ in range(2)]
    loop = contracting(rng, [("identity", sum(size for _, size in kinds))], float(rng.choice([0.3, 0.8])))
    model = case(rng, [(loop / max(1.5, 1), kinds)]).model
    scaled = rescale(model, kappa=kappa)
    if scaled.scaling.norm_after is None:
        assert scaled.scaling.reason
        assert not homogeneous
        return
    assert scaled.scaling.norm_after < 1
    assert norm_inf_a(scaled) <= scaled.scaling.norm_after
    assert all((s >= 1).all() and (s < 2).all() for s in scaled.scaling.weights.values())
    u = rng.normal(size=(20, 3))
    y = model(u)
    np.testing.assert_allclose(scaled(u), y, rtol=1e-10, atol=1e-11 * np.abs(y).max())
    for method in ("centre-radius", "paper"):
        try:
            S = sensitivity_matrix(model, method)
        except UnsupportedModelError:
            continue
        np.testing.assert_allclose(sensitivity_matrix(scaled, method), S, rtol=1e-10)
    rho = norm_bound(scaled)
    if rho is not None:
        assert rho >= sensitivity_matrix(scaled, "paper").sum(axis=1).max() * (1 - 1e-9)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_bounds_of_a_scaled_model_hold(seed):
    rng = np.random.default_rng(seed)
    model = random_case(rng)
    scaled = rescale(model.model)
    if scaled.scaling.norm_after is None:
        return
    centre, radius = rng.normal(size=3), 0.2
    inputs = Interval((centre - radius)[None], (centre + radius)[None])
    points = np.clip(centre + radius * rng.uniform(-1, 1, (40, 3)), inputs.lo, inputs.hi)
    F = rng.normal(size=(2, 2))
    values = (model.outputs(points) @ F.T).min(axis=0)
    bounds = backward_state_bounds(scaled, inputs)
    lower = output_lower_bounds(scaled, inputs, bounds, F)[0]
    assert (lower <= values + 1e-9 * (1 + np.abs(values))).all()
    S = sensitivity_matrix(scaled, "best")
    assert violated(S, model, points) <= 0


def test_weights_are_used_where_no_powers_of_two_suit():
    A = np.array([[0, 1.0, 0.4], [0.8, 0, 0], [0.3, 0.9, 0]])
    A *= 0.99 / np.abs(np.linalg.eigvals(A)).max()
    model = plain(A, np.eye(3), np.eye(3))
    scaled = rescale(model)
    assert scaled.scaling.weights
    assert scaled.scaling.norm_after < 1 <= scaled.scaling.norm_before
    u = np.random.default_rng(0).normal(size=(10, 3))
    np.testing.assert_allclose(scaled(u), model(u), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rows", [[[-2.0, 0], [0, -2]], [[0.7, 0.4], [-2.2, 0.6]], [[-3.0]], [[1.0]], [[0, 1], [1, 0]]])
def test_where_pf_is_1_or_more_nothing_is_scaled_and_the_reason_is_said(rows):
    n = len(rows)
    model = plain(rows, np.ones((n, 1)), np.ones((1, n)))
    scaled = rescale(model)
    assert scaled.scaling.norm_after is None
    assert "lambda_PF" in scaled.scaling.reason
    assert ("the proof that holds" in scaled.scaling.reason) == model.is_well_posed
    assert scaled.rows is model.rows


# ---------------------------------------------------------------------------------------------- a published model

DATA = os.environ.get("IDL_AUDIT_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="IDL_AUDIT_DATA is not set")


@pytest.fixture(scope="module")
def mondeq() -> tuple[ImplicitModel, FloatArray]:
    """Return the monotone network of the data folder, m = 20, 40 states, and W."""
    import torch

    stored = torch.load(Path(DATA, "models/mnist_mondeq_m20_h40.pt"), map_location="cpu", weights_only=True)
    arrays = {name: value.double().numpy() for name, value in stored.items()}
    a, b = arrays["mon.linear_module.A.weight"], arrays["mon.linear_module.B.weight"]
    W = (1 - 20) * np.eye(40) - a.T @ a + b - b.T
    model = plain(
        W,
        arrays["mon.linear_module.U.weight"],
        arrays["Wout.weight"],
        b=arrays["mon.linear_module.U.bias"],
        d=arrays["Wout.bias"],
    )
    return model, W


@needs_data
def test_the_published_loops_figures(mondeq):
    model, W = mondeq
    assert perron_root(np.abs(W)) == pytest.approx(47.105, abs=5e-4)
    diagonal = np.diag(W)
    assert perron_root(np.abs(W - np.diag(diagonal)) / (1 - diagonal)[:, None]) == pytest.approx(1.1727, abs=5e-5)
    found = {p.name: p for p in contractions(Coefficients(W), np.zeros(40), np.ones(40))}
    assert set(found) == {"loop(diag)", "loop(1)"}
    assert perron_root(found["loop(diag)"].Q) == pytest.approx(0.45995, abs=5e-6)
    assert perron_root(found["loop(1)"].Q) == pytest.approx(0.977, abs=5e-4)
    assert found["loop(diag)"].kappa < 0.46
    assert monotone(Coefficients(W), np.zeros(40), np.ones(40)).least_eigenvalue >= 19.99
    (only,) = model.loops.values()
    assert only.proof.name == "loop(diag)"
    scaled = rescale(model)
    assert scaled.scaling.norm_after is None
    assert "47.1" in scaled.scaling.reason


@needs_data
def test_the_published_loops_sensitivity(mondeq):
    model, _ = mondeq
    S = sensitivity_matrix(model, "centre-radius")
    assert S.sum(axis=1).max() == pytest.approx(134.46, abs=5e-3)
    assert (sensitivity_matrix(model, "best") <= S * (1 + 1e-12)).all()
    with pytest.raises(UnsupportedModelError):
        sensitivity_matrix(model, "paper")
    rng = np.random.default_rng(0)
    u = rng.uniform(-0.4, 2.8, (120, 784))
    y = model(u)
    du, dy = np.abs(u[:, None] - u[None]), np.abs(y[:, None] - y[None])
    for matrix in (S, sensitivity_matrix(model, "monotone")):
        assert (dy <= du @ matrix.T + 1e-9).all()


def margins_proved(model: ImplicitModel, images: FloatArray, labels, eps: float, bounds_of) -> int:
    """Return for how many images all margins are proved positive over |u - image| <= eps, clipped to [0, 1]."""
    proved = 0
    rng = np.random.default_rng(1)
    for image, label in zip(images, labels, strict=True):
        lo, hi = ((np.clip(image + side, 0, 1) - 0.1307) / 0.3081 for side in (-eps, eps))
        inputs = Interval(lo[None], hi[None])
        bounds = bounds_of(model, inputs)
        points = lo + rng.choice([0.0, 0.5, 1.0], (30, 784)) * (hi - lo)
        found = model.solve(points)
        assert (found.states[0] >= bounds.x[0].lo - 1e-10).all()
        assert (found.states[0] <= bounds.x[0].hi + 1e-10).all()
        assert (found.pre_activations[0] >= bounds.z[0].lo - 1e-9).all()
        assert (found.pre_activations[0] <= bounds.z[0].hi + 1e-9).all()
        functionals = margin_functionals(10, int(label))
        lower = output_lower_bounds(model, inputs, bounds, functionals)[0]
        assert (lower <= (model(points) @ functionals.T).min(axis=0) + 1e-9).all()
        proved += bool((lower > 0).all())
    return proved


@pytest.fixture(scope="module")
def images() -> tuple[FloatArray, FloatArray]:
    """Return the first 10 test images, in [0, 1], and their labels."""
    with np.load(Path(DATA, "mnist.npz")) as archive:
        return archive["test_images"][:10].reshape(10, -1) / 255.0, archive["test_labels"][:10]


@needs_data
def test_the_published_loops_bounds(mondeq, images):
    model, _ = mondeq
    assert margins_proved(model, *images, 0.005, interval_bounds) >= 9
    margins_proved(model, *images, 0.05, backward_state_bounds)


@needs_data
def test_backward_bounds_of_the_published_loop_are_as_good_as_in_the_prototype(mondeq, images):
    model, _ = mondeq
    assert margins_proved(model, *images, 0.01, backward_state_bounds) >= 9


@needs_data
@pytest.mark.slow
def test_the_published_loop_classifies_mnist(mondeq):
    model, _ = mondeq
    with np.load(Path(DATA, "mnist.npz")) as archive:
        images, labels = archive["test_images"].reshape(-1, 784) / 255.0, archive["test_labels"]
    right = sum(
        int((model((images[i : i + 1000] - 0.1307) / 0.3081).argmax(axis=1) == labels[i : i + 1000]).sum())
        for i in range(0, len(images), 1000)
    )
    assert right / len(images) == pytest.approx(0.956, abs=5e-4)


# ---------------------------------------------------------------------------------------------- no traceback


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_every_analysis_answers_or_refuses_in_a_sentence(seed):
    """Loops with and without a proof, n = 1 to 5, any activation: values or an IdlAuditError, nothing else."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    A = random_loop(rng, n) * rng.choice([1, 3])
    if np.abs(A).max() > 1e3:
        return
    kinds = [("softmax", n)] if rng.random() < 0.2 else [(str(rng.choice(KINDS[:-1])), 1) for _ in range(n)]
    model = plain(A, rng.normal(size=(n, 3)), rng.normal(size=(2, n)), kinds, b=rng.normal(size=n))
    inputs = Interval(np.full((1, 3), -0.1), np.full((1, 3), 0.1))
    for analysis in (
        lambda: model(rng.normal(size=(3, 3))),
        lambda: [sensitivity_matrix(model, method) for method in METHODS],
        lambda: backward_state_bounds(model, inputs),
        lambda: rescale(model),
        lambda: gradient(model, rng.normal(size=(2, 3)), rng.normal(size=(2, 2))),
    ):
        # loops without a proof may run away; that numpy warns of it is the next test's business
        with contextlib.suppress(IdlAuditError), np.errstate(all="ignore"):
            analysis()


@pytest.mark.parametrize("A", [[[3.0]], [[-3.0]], [[0.0, 5.0], [5.0, 0.0]]])
def test_a_loop_that_runs_away_is_refused_without_warnings(A):
    model = plain(A, np.eye(len(A)), np.eye(len(A)), "abs")
    with contextlib.suppress(UnsupportedModelError):
        model(np.ones((1, len(A))))
