"""Curves with a domain: what each answers for any interval, against the function itself in many digits."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.analytic import Analytic, power
from idl_audit.implicit.model import StateBlock
from tests.shared.exact_activations import ANALYTIC, Exact, check_best_lines

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
FLAT = [(name, case) for name, cases in ANALYTIC.items() for case in cases]
EVERY = pytest.mark.parametrize(
    ("name", "case"), FLAT, ids=["-".join([name, *map(str, case.parameters.values())]) for name, case in FLAT]
)
NEAR = (0.0, 5e-324, 1e-300, 1e-160, 1e-30, 1e-12, 1e-5, 0.01, 0.3, 0.5, 1.0)
"""Distances from an end of the domain."""


def made(name: str, case: Exact) -> Analytic:
    found = ACTIVATIONS[name](**case.parameters)
    assert isinstance(found, Analytic)
    return found


def places(case: Exact, rng: np.random.Generator, n: int) -> Array:
    """Return (2, n) places of one component each: near its ends, near multiples of pi / 2, at 0, far out."""
    found = []
    for _ in range(n):
        lo, hi = case.components[rng.integers(len(case.components))]
        kinds = [float(z) for z in rng.normal(size=3) * 10.0 ** rng.integers(-6, 3, size=3)]
        kinds += [float(rng.integers(-9, 9)) * np.pi / 2 * float(rng.choice([1, 1 + 2e-16])), 0.0, 1e5 * rng.normal()]
        kinds += [lo + float(rng.choice(NEAR)), hi - float(rng.choice(NEAR)), float(rng.choice([1.0, -1.0, 30.0]))]
        inside = [z for z in kinds if np.isfinite(z) and lo <= z <= hi and z not in case.open_at]
        first, second = rng.choice(inside or [max(lo, -2.0) / 2 + min(hi, 2.0) / 2], size=2)
        if rng.random() < 0.15:
            second = first
        if (
            rng.random() < 0.15
            and np.nextafter(first, np.inf) <= hi
            and np.nextafter(first, np.inf) not in case.open_at
        ):
            second = np.nextafter(first, np.inf)
        found.append(sorted([float(first), float(second)]))
    return np.array(found).T


def between(lo: float, hi: float, rng: np.random.Generator) -> list[float]:
    """Return the ends, 0, multiples of pi / 2 and points inside, even and by size."""
    inside = [lo + (hi - lo) * t for t in rng.random(4)] + [lo + (hi - lo) * 10.0 ** -float(rng.integers(1, 16))]
    quarter = np.pi / 2
    if hi - lo < 60:
        inside += [k * quarter for k in range(int(np.floor(lo / quarter)), int(np.ceil(hi / quarter)) + 1)]
    return sorted({lo, hi, *(z for z in (0.0, *inside) if lo < z < hi)})


def huge(z: float, name: str) -> bool:
    """Whether many digits take too long: exponentials of 1e5."""
    return name in ("exp", "sinh", "cosh") and abs(z) > 1e4


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=6)
def test_values_and_slopes_lie_in_their_bounds(name: str, case: Exact, seed: int) -> None:
    phi, rng = made(name, case), np.random.default_rng(seed)
    lo, hi = places(case, rng, 12)
    assert phi.inside(lo, hi).all()
    (low, high), (least, most) = phi.interval(lo, hi), phi.slopes(lo, hi)
    with mpmath.workdps(60):
        for k in range(lo.size):
            for z in between(lo[k], hi[k], rng):
                if huge(z, name):
                    continue
                value, slope = case.true(mpf(z)), case.slope(mpf(z))
                assert mpf(low[k]) <= value <= mpf(high[k]), (lo[k], hi[k], z)
                assert mpf(least[k]) <= slope <= mpf(most[k]), (lo[k], hi[k], z)
                assert abs(slope) <= mpf(phi.lipschitz) * (1 + mpf(2) ** -40)


def drawn(phi: Analytic, case: Exact, rng: np.random.Generator, n: int) -> tuple[Array, Array, Array, Array, Array]:
    lo, hi = places(case, rng, n)
    v = rng.choice([1.0, -1.0], size=n) * 10.0 ** rng.choice([0.0, 0.0, -3.0, 6.0, -320.0, -160.0, 30.0], size=n)
    v = np.where(rng.random(n) < 0.1, 0.0, v * rng.random(n))
    least, most = (np.clip(side, -1e30, 1e30) for side in phi.slopes(lo, hi))
    lam = v * (least + (most - least) * rng.choice([0.0, 1.0, 0.5, 0.1, -0.2, 1.3, 1e-9], size=n))
    with np.errstate(all="ignore"):
        chord = v * np.nan_to_num((phi(hi) - phi(lo)) / (hi - lo), nan=0.0, posinf=0.0, neginf=0.0)
    lam = np.where(rng.random(n) < 0.3, chord, lam)
    lam = np.where(rng.random(n) < 0.15, rng.normal(size=n), lam)
    return v, np.where(rng.random(n) < 0.5, 0.0, np.abs(v) * 1e-3 * rng.random(n)), lam, lo, hi


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=8)
def test_no_value_lies_below_the_support(name: str, case: Exact, seed: int) -> None:
    phi, rng = made(name, case), np.random.default_rng(seed)
    v, error, lam, lo, hi = drawn(phi, case, rng, 20)
    least = phi.lower_support(v, error, lam, lo, hi)
    with mpmath.workdps(60):
        for k in range(v.size):
            for z in between(lo[k], hi[k], rng):
                if huge(z, name) or not np.isfinite(least[k]):
                    continue
                for side in (-1, 0, 1):
                    coefficient = mpf(v[k]) + side * mpf(error[k])
                    assert mpf(least[k]) <= coefficient * case.true(mpf(z)) - mpf(lam[k]) * mpf(z), (
                        v[k],
                        lo[k],
                        hi[k],
                        z,
                    )


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_the_support_is_the_minimum(name: str, case: Exact, seed: int) -> None:
    """Two thousand points come as near to it as their distance, and the slope, let them."""
    phi, rng = made(name, case), np.random.default_rng(seed)
    lo, hi = places(case, rng, 30)
    with np.errstate(all="ignore"):
        least, most = phi.slopes(lo, hi)
        some = np.isfinite(least) & np.isfinite(most) & (np.abs(lo) < 600) & (np.abs(hi) < 600) & (most < 1e100)
        lo, hi, least, most = lo[some], hi[some], least[some], most[some]
        v = rng.normal(size=lo.size)
        lam = v * (least + (most - least) * (rng.random(lo.size) * 1.4 - 0.2))
        z = np.clip(lo + (hi - lo) * np.linspace(0, 1, 2001)[:, None], lo, hi)
        sampled = (v * phi(z) - lam * z).min(axis=0, initial=np.inf)
        size = np.abs(v * phi(z)).max(axis=0, initial=0.0) + np.abs(lam * z).max(axis=0, initial=0.0)
        steep = np.abs(v) * np.maximum(np.abs(least), np.abs(most)) * (hi - lo)
        missed = np.abs(v) * (most - least) / 2000 * (hi - lo) + 1e-11 * (size + steep) + 1e-11 * np.abs(v)
        assert (phi.lower_support(v, np.zeros(lo.size), lam, lo, hi) >= sampled - missed - 1e-200).all()


@EVERY
def test_outside_the_domain_everything_is_refused(name: str, case: Exact) -> None:
    phi = made(name, case)
    ends = [end for component in case.components for end in component if np.isfinite(end)]
    if not ends:
        assert not phi.forbidden
        return
    assert phi.forbidden
    for end in ends:
        for lo, hi in ((end - 1e-9, end + 1e-9), (end - 0.02, end + 1.3), (end, end), (-1e300, 1e300), (np.nan, end)):
            at = np.array([lo]), np.array([hi])
            if phi.inside(*at)[0] or name == "tan":  # whose poles are not at the ends that are drawn from
                continue
            for found in (phi.interval(*at), phi.slopes(*at)):
                np.testing.assert_array_equal(found, [[-np.inf], [np.inf]])
            for v in (0.0, 1.0, -1.0):
                assert phi.lower_support(np.array([v]), np.zeros(1), np.zeros(1), *at)[0] == -np.inf
            assert np.isfinite(phi.relaxation_slopes(*at)).all()
            assert np.isfinite(phi.tried_slopes(*at)).all()


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_ends_and_coefficients_that_are_no_numbers_prove_nothing_false(name: str, case: Exact, bad: float) -> None:
    phi, zero, one = made(name, case), np.zeros(1), np.ones(1)
    lo = min(max(case.components[-1][0] + 0.1, -0.5), 1.2)
    asked = {"v": one, "lam": 0.1 * one, "lo": lo * one, "hi": (lo + 0.3) * one}
    assert np.isfinite(phi.lower_support(asked["v"], zero, asked["lam"], asked["lo"], asked["hi"])).all()
    for where in asked:
        given_ = {**asked, where: np.array([bad])}
        least = phi.lower_support(given_["v"], zero, given_["lam"], given_["lo"], given_["hi"])[0]
        assert np.isfinite(np.stack(phi.relaxation_slopes(given_["lo"], given_["hi"]))).all()
        if np.isfinite(least):
            assert where in ("lo", "hi")
            z = np.clip(np.linspace(-1e3, 1e3, 2001), given_["lo"], given_["hi"])
            assert (least <= given_["v"] * phi(z) - given_["lam"] * z).all()


@EVERY
@pytest.mark.parametrize("exponent", [0, 3, -4])
def test_the_farthest_place_is_where_the_support_is(name: str, case: Exact, exponent: int) -> None:
    phi, rng = made(name, case), np.random.default_rng(2)
    block = StateBlock("b", "Op", phi, (40,), exponent=exponent)
    bottom, top = case.components[-1]
    bottom, top = max(bottom, -2.0), min(top, 2.5)
    width = top - bottom
    lo, hi = np.sort(bottom + width * (0.02 + 0.95 * rng.random((2, 40))), axis=0) * 2.0**-exponent
    least, most = block.line_slopes(lo, hi)
    for side in (1.0, -1.0):
        k = least + (most - least) * rng.random(40)
        z, _ = block.touched(side, k, lo, hi)
        assert ((lo <= z + 1e-12) & (z <= hi + 1e-12)).all()
        support = block.lower_support(side * np.ones(40), np.zeros(40), side * k, lo, hi)
        size = 1 + np.abs(block(lo)) + np.abs(block(hi)) + np.abs(k * hi)
        assert (np.abs(side * (block(z) - k * z) - support) <= 1e-6 * size).all()


@EVERY
def test_lines_are_the_best_in_the_middle(name: str, case: Exact) -> None:
    phi, rng = made(name, case), np.random.default_rng(5)
    bottom, top = case.components[-1]
    bottom, top = max(bottom, -3.0), min(top, 3.5)
    lo, hi = np.sort(bottom + (top - bottom) * (0.05 + 0.9 * rng.random((2, 60))), axis=0)
    check_best_lines(phi, lo, hi, relative=1e-2, absolute=1e-10)
    for side, lines in zip((1, -1), phi.lines(lo, hi), strict=True):
        for k, cut in lines:
            for z in np.linspace(lo, hi, 9):
                assert (side * (phi(z) - k * z - cut) >= -1e-9 * (1 + np.abs(phi(z)) + np.abs(k * z))).all()


EXACT = [
    # name, parameters, lo, hi, interval
    ("reciprocal", {}, 1, 2, (Fraction(1, 2), 1)),
    ("reciprocal", {}, -4, -2, (Fraction(-1, 2), Fraction(-1, 4))),
    ("sin", {}, 7, 8.5, (None, 1)),
    ("sin", {}, -1, 100, (-1, 1)),
    ("sin", {}, 3e6, 3e6 + 1e-3, (-1, 1)),
    ("cos", {}, -0.1, 0.1, (None, 1)),
    ("cos", {}, 3, 3.3, (-1, None)),
    ("power", {"exponent": -2.0}, -2, -1, (Fraction(1, 4), 1)),
    ("power", {"exponent": 3.0}, -2, 3, (-8, 27)),
    ("power", {"exponent": 4.0}, -2, 1, (0, 16)),
    ("sqrt", {}, 0, 4, (0, 2)),
    ("square", {}, -1, 3, (0, 9)),
    ("rsqrt", {}, 0.25, 4, (Fraction(1, 2), 2)),
    ("cosh", {}, -1, 2, (1, None)),
]


@pytest.mark.parametrize(("name", "given_", "lo", "hi", "ends"), EXACT)
def test_intervals_are_what_they_are(name: str, given_: Any, lo: float, hi: float, ends: Any) -> None:
    low, high = ACTIVATIONS[name](**given_).interval(np.array([float(lo)]), np.array([float(hi)]))
    for found, exact, side in ((low, ends[0], 1), (high, ends[1], -1)):
        if exact is not None:
            assert 0 <= side * (Fraction(exact) - Fraction(float(found[0]))) <= Fraction(1, 10**9)


def supports(name: str, v: float, lam: float, lo: float, hi: float, **parameters: float) -> float:
    ends = np.array([float(lo)]), np.array([float(hi)])
    return float(ACTIVATIONS[name](**parameters).lower_support(np.array([v]), np.zeros(1), np.array([lam]), *ends)[0])


def test_rational_minima() -> None:
    for found, exact in (
        (supports("power", 1.0, 0.75, -2, 3, exponent=3.0), Fraction(-13, 2)),  # z^3 - 3/4 z
        (supports("square", 1.0, 1.0, -1, 1), Fraction(-1, 4)),  # z^2 - z at 1/2
        (supports("square", -1.0, 0.0, -1, 3), Fraction(-9)),
        (supports("reciprocal", 1.0, -1.0, 0.25, 4), Fraction(2)),  # 1/z + z at 1
        (supports("reciprocal", -1.0, -1.0, 0.25, 4), Fraction(-15, 4)),
        (supports("sqrt", 1.0, 1.0, 0, 4), Fraction(-2)),
        (supports("sqrt", -1.0, -1.0, 0, 4), Fraction(-1, 4)),  # z - sqrt(z) at 1/4
        (supports("rsqrt", 1.0, -0.5, 0.25, 4), Fraction(3, 2)),  # 1/sqrt(z) + z/2 at 1
    ):
        assert 0 <= exact - Fraction(found) <= Fraction(1, 10**9)


def test_a_root_at_0_has_an_infinite_slope_and_finite_lines() -> None:
    phi, lo, hi = ACTIVATIONS["sqrt"](), np.zeros(1), np.full(1, 4.0)
    least, most = phi.slopes(lo, hi)
    assert most[0] == np.inf
    assert least[0] == pytest.approx(0.25)
    below, above = phi.relaxation_slopes(lo, hi)
    assert below[0] == pytest.approx(0.5)  # the chord
    assert above[0] == pytest.approx(0.5 / np.sqrt(2.0))
    assert all(np.isfinite(line).all() for side in phi.lines(lo, hi) for line in side)


@pytest.mark.parametrize("exponent", [0.0, 1.0, np.nan, np.inf, 1e3])
def test_powers_that_are_none_are_refused(exponent: float) -> None:
    with pytest.raises(ValueError, match="power"):
        power(exponent)


def test_a_third_as_it_is_stored_is_no_cube_root() -> None:
    assert not power(1 / 3).inside(np.array([-1.0]), np.array([1.0]))[0]


def test_global_slopes_are_given() -> None:
    bounded = {"sin": 1, "cos": 1, "atan": 1, "asinh": 1}
    for name, cases in ANALYTIC.items():
        assert made(name, cases[0]).lipschitz == bounded.get(name, np.inf)
        everywhere = StateBlock("b", "Op", made(name, cases[0]), (1,)).everywhere
        assert np.abs(everywhere).max() >= bounded.get(name, 1.0)


@EVERY
def test_the_parameters_make_it_again(name: str, case: Exact) -> None:
    found = made(name, case)
    assert found.name == name
    z = np.linspace(0.1, 0.9, 9)
    np.testing.assert_array_equal(ACTIVATIONS[found.name](**found.parameters)(z), found(z))


@pytest.mark.parametrize(
    ("name", "v", "lam", "lo", "hi"),
    [("log", 1e308, 1.7e307, 5.0, 10.0), ("atan", 1.35e308, 0.35e308, 3.0, 5.0)],
)
def test_what_overflows_is_not_left_out(name: str, v: float, lam: float, lo: float, hi: float) -> None:
    phi = ACTIVATIONS[name]()
    found = float(phi.lower_support(*(np.array([part]) for part in (v, 0.0, lam, lo, hi)))[0])
    true = getattr(mpmath, name)
    assert -np.inf < found
    assert all(mpf(found) <= mpf(v) * true(mpf(z)) - mpf(lam) * mpf(z) for z in (lo, hi))


@pytest.mark.parametrize("phi", [ACTIVATIONS["sqrt"](), power(1e-17), power(0.25)])
def test_slopes_at_minus_0_are_those_at_0(phi: Analytic) -> None:
    hi = np.array([1.0])
    assert phi.slopes(np.array([-0.0]), hi) == phi.slopes(np.array([0.0]), hi)
    assert phi.slopes(np.array([-0.0]), hi)[1] == np.inf


def test_errors_of_products_with_places_near_0_do_not_underflow() -> None:
    z, lam = float.fromhex("0x1.8p-1060") / 3, 1e300 / 3
    found = float(power(3.0).lower_support(*(np.array([part]) for part in (0.0, 0.0, lam, z, z)))[0])
    assert mpf(found) <= -mpf(lam) * mpf(z)
