"""The proof: whatever the multipliers, the bound is below the exact minimum and hardly below the exact formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, COUPLED
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers
from idl_audit.search.relaxation import LpBound, TriangleRelaxation
from idl_audit.values.box import Box
from tests.shared.exact_activations import ANALYTIC
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    dense,
    exact,
    layered,
    leaky_relu,
    long_double,
    minimum_by_patterns,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)
SIZES = [0.0, 1e-300, 1e-8, 1.0, 1e8, 1e100]


def noise(rng: np.random.Generator, size: float, *, near: Multipliers | None = None) -> Multipliers:
    """Return multipliers that are random numbers of a size, added to others where such are given."""

    def choose(k: int, v: np.ndarray) -> np.ndarray:
        random = rng.normal(size=v.shape) * size
        return random if near is None else near(k, v) * (1 + random)

    return choose


def proved(
    model: ImplicitModel, box: Box, bounds: StateBounds, functionals: np.ndarray, choose: Multipliers
) -> np.ndarray:
    seeds = Functionals.of_outputs(model, np.atleast_2d(functionals))
    return lower_bound(model, Interval.of_boxes(box), bounds, seeds, choose)[0]


@settings(deadline=None, max_examples=60)
@given(seed=seeds, size=st.sampled_from(SIZES), cancelling=st.booleans(), tight=st.booleans())
def test_any_multipliers_give_a_bound_below_the_exact_minimum(
    seed: int, size: float, cancelling: bool, tight: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(
        rng, p=int(rng.integers(1, 3)), widths=(3, 3), activations=list(KINKED), cancelling=cancelling
    )
    box = random_box(rng, model.n_inputs)
    bounds = (backward_state_bounds if tight else interval_bounds)(model, Interval.of_boxes(box))
    functional = rng.normal(size=3)
    truth = ExactModel(model).minimum(functional, box)
    for choose in (noise(rng, size), noise(rng, size, near=line_multipliers(model, bounds))):
        value = proved(model, box, bounds, functional, choose)[0]
        assert not value > truth


@settings(deadline=None, max_examples=4)
@given(seed=seeds)
def test_bounds_of_three_inputs_are_below_the_minimum_over_all_activation_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4), activations=["relu"])
    box = random_box(rng, 3, radius=0.5)
    bounds = backward_state_bounds(model, Interval.of_boxes(box))
    functional = rng.normal(size=3)
    truth = minimum_by_patterns(model, functional, box)
    assert proved(model, box, bounds, functional, line_multipliers(model, bounds))[0] <= truth + 1e-7
    assert truth <= (model(some_points(rng, box, 500)) @ functional).min() + 1e-7


@settings(deadline=None, max_examples=30)
@given(seed=seeds, size=st.sampled_from([0.0, 1e-8, 1.0, 1e8]))
def test_any_multipliers_give_a_bound_below_sampled_values_of_smooth_networks(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 3), activations=[*SMOOTH, *KINKED])
    box = random_box(rng, 2)
    bounds = backward_state_bounds(model, Interval.of_boxes(box))
    functionals = rng.normal(size=(3, 3))
    y = long_double(model, some_points(rng, box, 100))[2]
    least = (y @ functionals.T.astype(np.longdouble)).min(axis=0)
    for choose in (noise(rng, size), noise(rng, size, near=line_multipliers(model, bounds))):
        assert (proved(model, box, bounds, functionals, choose) <= least).all()


def recorded(choose: Multipliers) -> tuple[Multipliers, dict[int, np.ndarray]]:
    given_out: dict[int, np.ndarray] = {}

    def recording(k: int, v: np.ndarray) -> np.ndarray:
        given_out[k] = choose(k, v)
        return given_out[k]

    return recording, given_out


def exact_formula(
    model: ImplicitModel, box: Box, bounds: StateBounds, functional: Any, lam: dict[int, np.ndarray]
) -> tuple[Fraction, Fraction]:
    """Return the formula of docs/mathematics.md, section 7.3, in rational arithmetic, and the size of what it sums."""
    rational = ExactModel(model)
    sums: dict[int, Any] = {}
    weights: Any = np.zeros(box.size, object) + Fraction(0)
    total = size = Fraction(0)

    def push(row: Any, multipliers: Any) -> None:
        nonlocal weights, total, size
        total += multipliers @ row.constant
        size += np.abs(multipliers) @ np.abs(row.constant)
        for j, matrix in row.states.items():
            sums[j] = sums.get(j, 0) + multipliers @ matrix
        if row.input is not None:
            weights = weights + multipliers @ row.input

    push(rational.output, exact(functional))
    for k, block in enumerate(model.blocks):
        if k not in sums:
            continue
        v, multipliers = sums[k], exact(lam[k][0, 0])
        lo, hi = exact(bounds.z[k].lo[0]), exact(bounds.z[k].hi[0])
        at_lo, at_hi = (v * rational.phi(k, z) - multipliers * z for z in (lo, hi))
        for i in range(block.size):
            least = min(at_lo[i], at_hi[i], *([Fraction(0)] if lo[i] < 0 < hi[i] else []))
            total += least
            size += max(abs(v[i]), abs(multipliers[i])) * max(abs(lo[i]), abs(hi[i]), Fraction(1, 10**300))
        push(rational.rows[k], multipliers)
    lo, hi = exact(box.lo), exact(box.hi)
    ends = [(w * a, w * b) for w, a, b in zip(weights, lo, hi, strict=True)]
    total += sum((min(pair) for pair in ends), start=Fraction(0))
    size += sum((max(abs(a), abs(b)) for a, b in ends), start=Fraction(0))
    return total, size


@settings(deadline=None, max_examples=60)
@given(seed=seeds, size=st.sampled_from([0.0, 1e-8, 1.0, 1e8]), cancelling=st.booleans())
def test_the_bound_is_the_exact_formula_rounded_down_a_little(seed: int, size: float, cancelling: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 4, 2), activations=list(KINKED), cancelling=cancelling)
    box = random_box(rng, 2)
    bounds = interval_bounds(model, Interval.of_boxes(box))
    functional = rng.normal(size=3)
    choose, lam = recorded(noise(rng, size) if rng.random() < 0.5 else line_multipliers(model, bounds))
    value = proved(model, box, bounds, functional, choose)[0]
    formula, scale = exact_formula(model, box, bounds, functional, lam)
    assert value <= formula
    if not cancelling:
        assert formula - Fraction(float(value)) <= Fraction(1, 10**9) * (scale + 1)


def test_cancelling_constants_are_rounded_down() -> None:
    """lam . b = 1e16 + 1 - 1e16: float64 sums may say 0 or 2; the proof must not say more than 1."""
    for order in ([1e16, 1.0, -1e16], [1.0, 1e16, -1e16], [-1e16, 1e16, 1.0], [0.1, 0.2, -0.3]):
        model = ImplicitModel((), (), Affine({}, dense(np.zeros((3, 1))), np.array(order)), (1,), (3,))
        found = proved(model, Box.between(np.zeros(1), np.zeros(1)), StateBounds(), np.ones((1, 3)), no_multipliers)[0]
        assert found <= sum(map(Fraction, order))


def no_multipliers(k: int, v: np.ndarray) -> np.ndarray:
    return np.zeros_like(v)


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_with_the_lps_duals_the_bound_is_the_lps_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4), activations=list(KINKED))
    box = random_box(rng, 3)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    functional = rng.normal(size=3)
    relaxation = TriangleRelaxation(model, inputs, bounds)
    answer = relaxation.minimise(functional)
    assert answer.solution.row_duals is not None
    duals = relaxation.form.multipliers_of(answer.solution.row_duals)

    def given_by_the_lp(k: int, v: np.ndarray) -> np.ndarray:
        return np.broadcast_to(duals[model.offsets[k] : model.offsets[k + 1]], v.shape)

    value = proved(model, box, bounds, functional, given_by_the_lp)[0]
    optimum = lp_optimum(model, answer, functional)
    assert value <= optimum + 1e-9
    assert value == pytest.approx(optimum, abs=1e-7)


def lp_optimum(model: ImplicitModel, answer: LpBound, functional: np.ndarray) -> float:
    """Return the LP's objective at its own point."""
    assert answer.point is not None
    assert answer.states is not None
    matrices = model.matrices
    return float(functional @ (matrices.C @ answer.states + matrices.D @ answer.point + matrices.d))


def example_of_section_7() -> tuple[ImplicitModel, Box]:
    """x = relu(u1 + u2), y = -x + 3 u2 - 3 u1 on [-1, 1]^2."""
    model = layered([([[1.0, 1.0]], [0.0])], ([[-1.0]], [0.0]), skip=[[-3.0, 3.0]])
    return model, Box.between(-np.ones(2), np.ones(2))


def test_the_example_of_section_7_has_the_lp_bound_minus_7_and_the_minimum_minus_6() -> None:
    model, box = example_of_section_7()
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    assert ExactModel(model).minimum([1.0], box) == -6
    answer = TriangleRelaxation(model, inputs, bounds).minimise(np.ones(1))
    assert answer.lower == pytest.approx(-7.0, abs=1e-9)
    assert answer.lower <= -7.0
    assert max(
        proved(model, box, bounds, np.ones(1), lambda k, v, t=t: np.full_like(v, t))[0] for t in np.linspace(-2, 2, 41)
    ) == pytest.approx(-7.0, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, activation=st.sampled_from(["relu", "abs", "leaky", "steep", "negative"]))
def test_one_unstable_state_of_one_input_is_bounded_exactly_by_the_lp(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    phi = KINKED[activation](rng, 1)
    model = layered(
        [(rng.normal(size=(1, 1)), rng.normal(size=1) * 0.1)], ([[1.0]], [0.0]), phi, skip=rng.normal(size=(1, 1))
    )
    box = random_box(rng, 1, radius=1.0)
    inputs = Interval.of_boxes(box)
    answer = TriangleRelaxation(model, inputs, backward_state_bounds(model, inputs)).minimise(np.ones(1))
    truth = ExactModel(model).minimum([1.0], box)
    assert answer.lower <= truth
    assert answer.lower == pytest.approx(float(truth), abs=1e-7)


@settings(deadline=None, max_examples=10)
@given(seed=seeds, size=st.sampled_from([0.0, 1e-3, 1.0]))
def test_bounds_of_pooled_networks_are_below_sampled_values(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    model = pooled_network(rng)
    box = random_box(rng, 16, radius=0.3)
    bounds = interval_bounds(model, Interval.of_boxes(box))
    y = long_double(model, some_points(rng, box, 50))[2]
    for choose in (noise(rng, size), noise(rng, size, near=line_multipliers(model, bounds))):
        assert (proved(model, box, bounds, np.eye(3), choose) <= y.min(axis=0)).all()


def test_declared_errors_of_maps_and_constants_lower_the_bound() -> None:
    """The weights in the file may differ by relative |W| + slack, entry by entry, and constants by constant_error.

    z_i = u_i +- (u_i / 4 + 1/8), so that x is at most (2.625, 5.125); with lam on the lines, y = x_1 + x_2 - ... is at
    least 1 + 2 - (2 + 4)/4 - 2/8 - (2.625 + 5.125)/2 - 1.
    """
    block = StateBlock("b", "Relu", ACTIVATIONS["relu"](), (2,))
    row = Affine({}, dense(np.eye(2)).uncertain(0.25), np.zeros(2), constant_error=0.125)
    uncertain = dense([[1.0, 1.0]]).uncertain(0.0, dense([[0.5, 0.5]]))
    model = ImplicitModel((block,), (row,), Affine({0: uncertain}, None, np.zeros(1), constant_error=1.0), (2,), (1,))
    box = Box.between(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    bounds = interval_bounds(model, Interval.of_boxes(box))
    least = 3 - 1.5 - 0.25 - 3.875 - 1
    worst = (0.75 * 1 - 0.125 + 0.75 * 2 - 0.125) * 0.5 - 1
    for choose in (line_multipliers(model, bounds), no_multipliers):
        value = proved(model, box, bounds, np.ones(1), choose)[0]
        assert value <= worst
        assert value >= least - 0.75 - 1e-9


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_absurd_multipliers_never_prove_anything_false(bad: float) -> None:
    rng = np.random.default_rng(0)
    model = random_network(rng, p=2, widths=(3, 3), activations=["relu", "abs"])
    box = random_box(rng, 2, radius=0.5)
    bounds = interval_bounds(model, Interval.of_boxes(box))
    truth = ExactModel(model).minimum([1.0, 0.0, 0.0], box)
    for mask in (np.ones(3), np.array([1.0, 0.0, 0.0])):
        with np.errstate(all="ignore"):
            value = proved(model, box, bounds, np.array([1.0, 0, 0]), lambda k, v, m=mask: np.where(m > 0, bad, v))[0]
        assert not value > truth


@pytest.mark.parametrize("weight", [1e150, 1e200, 1e307])
def test_overflow_never_gives_a_bound_above_the_truth(weight: float) -> None:
    model = layered([([[weight]], [0.0]), ([[weight]], [0.0])], ([[-1.0], [1.0]], [1.0, 0.0]))
    box = Box.between(np.array([-0.1]), np.array([0.1]))
    with np.errstate(all="ignore"):
        for compute in (interval_bounds, backward_state_bounds):
            bounds = compute(model, Interval.of_boxes(box))
            for choose in (no_multipliers, line_multipliers(model, bounds)):
                assert not proved(model, box, bounds, np.array([1.0, -1.0]), choose)[0] > 0


# ------------------------------------------------------------------------- one activation at a time, to 60 digits

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, 0),
    "leaky_relu": lambda z: z if z >= 0 else mpmath.mpf(0.01) * z,
    "abs": abs,
    "celu": lambda z: z if z > 0 else mpmath.expm1(z),
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "selu": lambda z: (
        mpmath.mpf(1.05070102214813232421875)
        * (z if z > 0 else mpmath.mpf(1.67326319217681884765625) * mpmath.expm1(z))
    ),
    "erf": mpmath.erf,
    "gelu": lambda z: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z: z / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf(0.044715) * z**3))),
    "hard_swish": lambda z: z * min(max(z / 6 + mpmath.mpf(0.5), 0), 1),
    "mish": lambda z: z * mpmath.tanh(mpmath.log1p(mpmath.exp(z))),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "tanh": mpmath.tanh,
}


def test_every_activation_has_a_reference() -> None:
    assert {*FUNCTIONS, *ANALYTIC} | COUPLED == set(ACTIVATIONS)  # the others have tests of their own


INTERVALS = [
    (-1.0, 1.0),
    (-3.0, 3.0),
    (-0.5, 2.0),
    (0.0, 0.0),
    (0.25, 0.25),
    (-2.0, -1.0),
    (1.0, 2.0),
    (-3.0, -3.0),
    (-4.0, -3.0),
    (-3.0, -2.9999),
    (-1.5, 0.0),
    (0.0, 4.0),
    (-30.0, 30.0),
    (-800.0, 800.0),
    (20.0, 40.0),
    (-40.0, -20.0),
    (-1e-9, 1e-9),
    (1.0, 1.0 + 1e-12),
    (-1e5, -1e4),
]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_lower_supports_intervals_and_slopes_hold_in_60_digits(name: str) -> None:
    phi = ACTIVATIONS[name]()
    rng = np.random.default_rng(7)
    with mpmath.workdps(60):
        for lo, hi in INTERVALS:
            check_support(phi, FUNCTIONS[name], lo, hi, rng)


def check_support(phi: Any, function: Callable[[Any], Any], lo: float, hi: float, rng: np.random.Generator) -> None:
    places = np.clip(
        np.unique(np.concatenate([[lo, hi], lo + (hi - lo) * rng.random(5), np.clip(0.0, lo, hi)[None]])), lo, hi
    )
    exact_places = [mpmath.mpf(float(z)) for z in places]
    values = [function(z) for z in exact_places]
    low, high = phi.interval(np.array([lo]), np.array([hi]))
    assert all(low[0] <= value <= high[0] for value in values)
    a, g = phi.slopes(np.array([lo]), np.array([hi]))
    for z, t, value, other in zip(exact_places, exact_places[1:], values, values[1:], strict=False):
        assert a[0] * (t - z) <= other - value <= g[0] * (t - z)
    pairs = np.array(
        [(v, lam) for v in (1.0, -1.0, 1e-8, -1e8) for lam in (0.0, 0.5 * v, float(a[0]) * v, float(g[0]) * v, 0.9)]
    )
    v, lam = pairs.T
    error = 1e-12
    least = phi.lower_support(v, np.full(v.shape, error), lam, np.full(v.shape, lo), np.full(v.shape, hi))
    for i in range(v.size):
        for z, value in zip(exact_places, values, strict=True):
            truth = mpmath.mpf(v[i]) * value - mpmath.mpf(lam[i]) * z - mpmath.mpf(error) * abs(value)
            assert least[i] <= truth, (phi.name, lo, hi, v[i], lam[i], float(z))


PARAMETERS = [
    ("elu", {"alpha": 3.0}, lambda z: z if z > 0 else 3 * mpmath.expm1(z)),
    ("elu", {"alpha": 0.0}, lambda z: max(z, 0)),
    ("celu", {"alpha": 0.03125}, lambda z: z if z > 0 else mpmath.expm1(32 * z) / 32),
    ("celu", {"alpha": 64.0}, lambda z: z if z > 0 else 64 * mpmath.expm1(z / 64)),
    ("selu", {"alpha": 0.5, "gamma": 2.0}, lambda z: 2 * z if z > 0 else mpmath.expm1(z)),
]


@pytest.mark.parametrize(("name", "parameters", "function"), PARAMETERS)
def test_parameters_of_activations_are_part_of_the_proof(
    name: str, parameters: dict[str, float], function: Callable[[Any], Any]
) -> None:
    rng = np.random.default_rng(7)
    with mpmath.workdps(60):
        for lo, hi in INTERVALS:
            check_support(ACTIVATIONS[name](**parameters), function, lo, hi, rng)


def softmax(z: list[Any]) -> list[Any]:
    weights = [mpmath.exp(value) for value in z]
    return [weight / sum(weights) for weight in weights]


def check_softmax(width: int, spread: float) -> None:
    rng = np.random.default_rng(width)
    n = 2 * width
    phi = ACTIVATIONS["softmax"](width)
    for _ in range(10):
        centre = rng.normal(size=n) * rng.choice([1.0, 30.0, 400.0])
        lo, hi = centre - spread * rng.random(n), centre + spread * rng.random(n)
        low, high = phi.interval(lo, hi)
        v, lam = rng.normal(size=n), rng.normal(size=n) * 0.1
        error = np.full(n, 1e-12)
        least = phi.lower_support(v, error, lam, lo, hi)
        corners = [np.where(rng.random(n) < 0.5, lo, hi) for _ in range(6)]
        extremes = [np.where(np.arange(n) == i, hi, lo) for i in range(n)]
        opposite = [np.where(np.arange(n) == i, lo, hi) for i in range(n)]
        for z in [*corners, *extremes, *opposite, np.clip(centre, lo, hi)]:
            with mpmath.workdps(60):
                exact_z = [mpmath.mpf(float(value)) for value in z]
                x = softmax(exact_z[:width]) + softmax(exact_z[width:])
                for i in range(n):
                    assert low[i] <= x[i] <= high[i], (lo, hi, z)
                value = sum(v[i] * x[i] - error[i] * x[i] - lam[i] * exact_z[i] for i in range(n))
                assert mpmath.fsum(mpmath.mpf(float(part)) for part in least) <= value


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.1, 3.0])
def test_intervals_and_lower_supports_of_softmax_hold_in_60_digits(width: int, spread: float) -> None:
    check_softmax(width, spread)


@pytest.mark.parametrize("spread", [100.0, 700.0, 2000.0])
def test_intervals_of_softmax_hold_where_pre_activations_are_wide(spread: float) -> None:
    for width in (2, 3, 7):
        check_softmax(width, spread)


def test_alpha_above_one_and_below_zero_are_bounded() -> None:
    rng = np.random.default_rng(3)
    for alpha in (2.5, -0.5, 1.0, -3.0, 1e-30, 1e30):
        for lo, hi in INTERVALS:
            with mpmath.workdps(60):
                check_support(leaky_relu(alpha), lambda z, a=alpha: z if z >= 0 else mpmath.mpf(a) * z, lo, hi, rng)
