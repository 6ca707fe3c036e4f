"""Activations: every bound against the function itself, evaluated to 40 digits."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from idl_audit.implicit.activations import ACTIVATIONS, COUPLED, Activation
from idl_audit.implicit.activations.kinked import Kinked, absolute, leaky_relu, relu
from idl_audit.implicit.model import StateBlock
from tests.shared.exact_activations import ANALYTIC, EXAMPLES, SPECIAL, True_, points

Array = np.ndarray[Any, Any]
DIGITS = 40
SEEDS = st.integers(0, 2**32 - 1)


KINKED = ("identity", "relu", "leaky_relu", "abs")

FLAT = [(name, given, true) for name, cases in EXAMPLES.items() for given, true in cases]
EVERY = pytest.mark.parametrize(
    ("name", "given_", "true"), FLAT, ids=["-".join([name, *map(str, given.values())]) for name, given, _ in FLAT]
)


def intervals(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return intervals of every kind: points, hair-thin ones, ones that begin or end at 0, wide ones."""

    def ends() -> Array:
        drawn = rng.normal(size=n) * 10.0 ** rng.integers(-8, 4, size=n)
        return np.where(rng.random(n) < 0.4, rng.choice(SPECIAL, size=n), drawn)

    one, two = ends(), ends()
    kind = rng.random(n)
    two = np.where(kind < 0.15, one, np.where(kind < 0.3, np.nextafter(one, np.inf), two))
    two = np.where((kind >= 0.3) & (kind < 0.45), one + np.abs(one) * rng.random(n) * 1e-6, two)
    return np.minimum(one, two), np.maximum(one, two)


def make(name: str, given_: dict[str, float]) -> Activation:
    return ACTIVATIONS[name](**given_)


def test_every_activation_has_an_example() -> None:
    assert set(EXAMPLES) | set(ANALYTIC) | COUPLED == set(ACTIVATIONS)


@EVERY
def test_the_parameters_make_it_again(name: str, given_: dict[str, float], true: True_) -> None:
    found = make(name, given_)
    assert found.name == name
    again = ACTIVATIONS[found.name](**found.parameters)
    z = np.linspace(-4, 4, 41)
    np.testing.assert_array_equal(again(z), found(z))


@EVERY
def test_values_are_right(name: str, given_: dict[str, float], true: True_) -> None:
    found = make(name, given_)
    z = np.unique([*SPECIAL, *np.linspace(-12, 12, 49)])
    with mpmath.workdps(DIGITS):
        for value, place in zip(found(z), z, strict=True):
            exact = true(mpf(float(place)))
            assert abs(mpf(float(value)) - exact) <= mpf(2) ** -46 * (1 + abs(exact)), place


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=3)
def test_slopes_values_and_lines_enclose_the_graph(name: str, given_: dict[str, float], true: True_, seed: int) -> None:
    found = make(name, given_)
    rng = np.random.default_rng(seed)
    lo, hi = intervals(rng, 8)
    least, most = found.slopes(lo, hi)
    low, high = found.interval(lo, hi)
    below, above = found.lines(lo, hi)
    lipschitz = np.broadcast_to(found.lipschitz, lo.shape)
    with mpmath.workdps(DIGITS):
        for k in range(lo.size):
            zs = [mpf(z) for z in points(lo[k], hi[k], rng)]
            xs = [true(z) for z in zs]
            reach = max(map(abs, zs))
            for z, x in zip(zs, xs, strict=True):
                assert mpf(low[k]) <= x <= mpf(high[k]), (lo[k], hi[k])
                for slope, cut in below:
                    near = abs(mpf(slope[k])) * reach + abs(mpf(cut[k])) + 1
                    assert mpf(slope[k]) * z + mpf(cut[k]) <= x + mpf(1e-12) * near, (lo[k], hi[k], z)
                for slope, cut in above:
                    near = abs(mpf(slope[k])) * reach + abs(mpf(cut[k])) + 1
                    assert mpf(slope[k]) * z + mpf(cut[k]) >= x - mpf(1e-12) * near, (lo[k], hi[k], z)
            for (s, p), (t, q) in zip(zip(zs, xs, strict=True), list(zip(zs, xs, strict=True))[1:], strict=False):
                if t - s > mpf(10) ** (20 - DIGITS) * (1 + abs(s)):  # else the quotient has no digits left
                    quotient, half = (q - p) / (t - s), mpf(10) ** (5 - DIGITS) * (1 + abs(q)) / (t - s)
                    assert mpf(least[k]) - half <= quotient <= mpf(most[k]) + half, (lo[k], hi[k], s, t)
            assert max(abs(least[k]), abs(most[k])) <= lipschitz[k] * (1 + 1e-12) + 1e-12


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=5)
def test_the_lower_support_is_below_the_function(name: str, given_: dict[str, float], true: True_, seed: int) -> None:
    found = make(name, given_)
    rng = np.random.default_rng(seed)
    n = 10
    lo, hi = intervals(rng, n)

    def coefficients() -> Array:
        drawn = rng.normal(size=n) * 10.0 ** rng.integers(-6, 4, size=n)
        return np.where(rng.random(n) < 0.25, rng.choice([0.0, 1.0, -1.0]), drawn)

    v, lam = coefficients(), coefficients()
    v_error = np.where(rng.random(n) < 0.3, 0.0, np.abs(coefficients()) * rng.choice([1.0, 1e-10]))
    bound = found.lower_support(v, v_error, lam, lo, hi)
    assert np.isfinite(bound).all()
    with mpmath.workdps(DIGITS):
        for k in range(n):
            for z in points(lo[k], hi[k], rng):
                x = true(mpf(z))
                for perturbed in (mpf(v[k]) - mpf(v_error[k]), mpf(v[k]), mpf(v[k]) + mpf(v_error[k])):
                    assert mpf(bound[k]) <= perturbed * x - mpf(lam[k]) * mpf(z), (
                        lo[k],
                        hi[k],
                        v[k],
                        v_error[k],
                        lam[k],
                        z,
                    )


@pytest.mark.parametrize("name", KINKED)
@given(seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_the_lower_support_of_kinked_functions_is_the_minimum(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for given_, true in EXAMPLES[name]:
        lo, hi = np.sort(rng.normal(size=(2, 20)) * 10.0 ** rng.integers(-3, 3, size=20), axis=0)
        v, lam = rng.normal(size=(2, 20))
        found = make(name, given_).lower_support(v, np.zeros(20), lam, lo, hi)
        for k in range(20):
            vertices = [lo[k], hi[k], *([0.0] if lo[k] < 0 < hi[k] else [])]
            least = min(float(mpf(v[k]) * true(mpf(z)) - mpf(lam[k]) * mpf(z)) for z in vertices)
            scale = max(abs(lo[k]), abs(hi[k])) * (abs(v[k]) * 2 + abs(lam[k]))
            assert found[k] == pytest.approx(least, rel=0, abs=1e-12 * scale)


@pytest.mark.parametrize("name", KINKED)
def test_the_slopes_of_kinked_functions_are_exact(name: str) -> None:
    cases = [(-1, 2), (0, 2), (-2, 0), (0, 0), (1, 2), (-2, -1), (3, 3)]
    lo, hi = np.array(cases, float).T
    for given_, true in EXAMPLES[name]:
        found = make(name, given_)
        sides = [float(true(mpf(-1)) * -1), float(true(mpf(1)))]
        least, most = found.slopes(lo, hi)
        for k, (a, b) in enumerate(cases):
            occurring = ([sides[0]] if a < 0 else []) + ([sides[1]] if b > 0 else [])
            if occurring:
                assert (least[k], most[k]) == (min(occurring), max(occurring))
        assert found.lipschitz == max(map(abs, sides))
        values = found.interval(lo, hi)
        for k, (a, b) in enumerate(cases):
            xs = [float(true(mpf(z))) for z in (a, b, *([0] if a < 0 < b else []))]
            np.testing.assert_allclose([values[0][k], values[1][k]], [min(xs), max(xs)], rtol=1e-15, atol=5e-324)


def test_slopes_of_each_state_are_its_own() -> None:
    alpha = np.array([0.1, -0.5, 2.0])
    found = ACTIVATIONS["leaky_relu"](alpha=alpha)
    z = np.array([[-2.0, -2.0, -2.0], [3.0, 3.0, 3.0]])
    np.testing.assert_array_equal(found(z), [[-0.2, 1.0, -4.0], [3.0, 3.0, 3.0]])
    lo, hi = np.full((4, 3), -1.0), np.full((4, 3), 2.0)
    least, most = found.slopes(lo, hi)
    np.testing.assert_array_equal(least, np.broadcast_to([0.1, -0.5, 1.0], (4, 3)))
    np.testing.assert_array_equal(most, np.broadcast_to([1.0, 1.0, 2.0], (4, 3)))
    np.testing.assert_array_equal(found.lipschitz, [1.0, 1.0, 2.0])
    low, high = found.interval(lo, hi)
    np.testing.assert_allclose(low[0], [-0.1, 0.0, -2.0], atol=1e-300)
    np.testing.assert_allclose(high[0], [2.0, 2.0, 2.0])
    support = found.lower_support(np.ones((4, 3)), np.zeros((4, 3)), np.zeros((4, 3)), lo, hi)
    np.testing.assert_allclose(support[0], [-0.1, 0.0, -2.0], atol=1e-14)


@EVERY
def test_relaxation_slopes_and_derivatives_lie_within_the_slopes(
    name: str, given_: dict[str, float], true: True_
) -> None:
    found = make(name, given_)
    lo, hi = intervals(np.random.default_rng(3), 200)
    wide = hi - lo > 1e-6  # a chord of a hair-thin interval is rounding
    lo, hi = lo[wide], hi[wide]
    least, most = found.slopes(lo, hi)
    for slope in (*found.relaxation_slopes(lo, hi), found.derivative((lo + hi) / 2)):
        assert (slope >= least - 1e-9).all()
        assert (slope <= most + 1e-9).all()


@EVERY
@pytest.mark.parametrize("exponent", [0, 3, 11])
def test_a_kept_scale_divides_values_and_keeps_slopes(
    name: str, given_: dict[str, float], true: True_, exponent: int
) -> None:
    """A block with exponent e is 2^-e phi(2^e z)."""
    found = make(name, given_)
    block = StateBlock("b", "Op", found, (1, 30), exponent=exponent)
    rng = np.random.default_rng(0)
    lo, hi = np.sort(rng.normal(size=(2, 30)), axis=0)
    s = 2.0**exponent
    np.testing.assert_array_equal(block(lo), found(lo * s) / s)
    np.testing.assert_array_equal(block.slopes(lo, hi), found.slopes(lo * s, hi * s))
    low, high = block.interval(lo, hi)
    for ours, exact, outward in (
        (low, found.interval(lo * s, hi * s)[0] / s, -1),
        (high, found.interval(lo * s, hi * s)[1] / s, 1),
    ):
        assert (outward * (ours - exact) >= 0).all()
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-300)  # what division makes 0 is rounded outward
    v, lam = rng.normal(size=(2, 30))
    bound = block.lower_support(v, np.zeros(30), lam, lo, hi)
    below, above = block.lines(lo, hi)
    for z in np.linspace(lo, hi, 7):
        assert (bound <= v * block(z) - lam * z + 1e-13).all()
        assert all((slope * z + cut <= block(z) + 1e-12).all() for slope, cut in below)
        assert all((slope * z + cut >= block(z) - 1e-12).all() for slope, cut in above)


class TestLowerSupportsThatAreTight:
    """Sound bounds may be useless; these say how much is lost."""

    @pytest.mark.parametrize("name", sorted(set(EXAMPLES) - set(KINKED)))
    def test_on_thin_intervals_almost_nothing_is_lost(self, name: str) -> None:
        found = make(name, EXAMPLES[name][0][0])
        rng = np.random.default_rng(1)
        centre, v, lam = rng.normal(size=(3, 50))
        lo, hi = centre - 1e-7, centre + 1e-7
        bound = found.lower_support(v, np.zeros(50), lam, lo, hi)
        value = v * found(centre) - lam * centre
        assert (np.abs(bound - value) <= 2e-6 * (np.abs(v) + np.abs(lam) + 1)).all()

    @pytest.mark.parametrize("name", sorted(set(EXAMPLES) - set(KINKED)))
    def test_points_give_the_value(self, name: str) -> None:
        found = make(name, EXAMPLES[name][0][0])
        z, v, lam = np.random.default_rng(1).normal(size=(3, 50))
        np.testing.assert_allclose(
            found.lower_support(v, np.zeros(50), lam, z, z), v * found(z) - lam * z, rtol=0, atol=1e-11
        )

    def test_no_coefficient_leaves_the_linear_part(self) -> None:
        for name, cases in EXAMPLES.items():
            found = make(name, cases[0][0])
            zero, lam = np.zeros(2), np.array([2.0, -2.0])
            lo, hi = np.array([-1.0, -1.0]), np.array([3.0, 3.0])
            np.testing.assert_allclose(found.lower_support(zero, zero, lam, lo, hi), [-6.0, -2.0], rtol=1e-12)
            np.testing.assert_allclose(found.lower_support(zero, zero, zero, lo, hi), [0, 0], atol=1e-200)


def check_softmax(lo: Array, hi: Array, rng: np.random.Generator, *, n: int = 4) -> None:
    """Compare the interval and the lower support with softmax itself at corners and inside, group by group of 3."""
    found = ACTIVATIONS["softmax"](width=3)
    low, high = found.interval(lo, hi)
    v, lam = rng.normal(size=(2, *lo.shape))
    bound = found.lower_support(v, np.zeros(lo.shape), lam, lo, hi)
    with mpmath.workdps(DIGITS):
        for _ in range(n):
            corner = np.where(rng.random(lo.shape) < 0.5, lo, hi)
            z = np.where(rng.random(lo.shape) < 0.6, corner, np.clip(lo + (hi - lo) * rng.random(lo.shape), lo, hi))
            values: list[mpf] = []
            for m, k in np.ndindex(lo.shape):
                powers = [mpmath.exp(mpf(float(value))) for value in z[m, k - k % 3 : k - k % 3 + 3]]
                x = powers[k % 3] / mpmath.fsum(powers)
                assert mpf(low[m, k]) <= x <= mpf(high[m, k]), (lo[m, k - k % 3 :][:3], hi[m, k - k % 3 :][:3])
                values.append(mpf(v[m, k]) * x - mpf(lam[m, k]) * mpf(z[m, k]))
                if k % 3 == 2:
                    assert mpmath.fsum(mpf(b) for b in bound[m, k - 2 : k + 1]) <= mpmath.fsum(values[-3:])


@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.1, 3.0, 50.0])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_softmax_lies_in_its_interval(spread: float, size: float) -> None:
    rng = np.random.default_rng(0)
    centre = size * rng.normal(size=(20, 6))
    check_softmax(centre - spread * rng.random((20, 6)), centre + spread * rng.random((20, 6)), rng)


def test_softmax_lies_in_its_interval_where_the_others_are_wide() -> None:
    lo, hi = np.array([[-50.0, -700.0, -700.0]]), np.array([[-50.0, 700.0, 700.0]])
    low, high = ACTIVATIONS["softmax"](width=3).interval(lo, hi)
    assert low[0, 0] <= 0.0
    assert high[0, 0] >= 1 - 1e-200
    check_softmax(lo, hi, np.random.default_rng(0), n=30)


def test_softmax_is_scaled_by_nothing_and_sums_to_1() -> None:
    found = ACTIVATIONS["softmax"](width=4)
    z = np.random.default_rng(0).normal(size=(5, 8)) * 100
    np.testing.assert_allclose(found(z).reshape(5, 2, 4).sum(axis=-1), 1)
    np.testing.assert_allclose(found(z + 7), found(z), rtol=1e-12)


def test_a_value_that_underflows_is_paid_for() -> None:
    """phi(z) = -1e-30 z is 1e-330 at z = -1e-300, 0 in float64: times v = -1e300 that is 1e-30 below 0."""
    v, z = np.array([-1e300]), np.array([-1e-300])
    bound = ACTIVATIONS["leaky_relu"](alpha=-1e-30).lower_support(v, np.zeros(1), np.zeros(1), z, z)
    exact = Fraction(float(v[0])) * Fraction(-1e-30) * Fraction(float(z[0]))
    assert Fraction(float(bound[0])) <= exact


@pytest.mark.parametrize("phi", [absolute(), relu(), leaky_relu(0.25)])
@pytest.mark.parametrize("length", [1e-300, 1.0 / 3.0, 7e200])
def test_sides_of_equal_length_are_told_apart_alike_whatever_rounding_does(phi: Kinked, length: float) -> None:
    ends = length * (1 + np.arange(-40, 41) * 2.0**-50)
    below, _ = phi.relaxation_slopes(np.full(81, -length), ends)
    assert (below == phi.below).all()
    longer, _ = phi.relaxation_slopes(np.full(1, -length), np.full(1, 1.0001 * length))
    assert (longer == phi.above).all()
