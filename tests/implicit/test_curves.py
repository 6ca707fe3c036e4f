"""Curves: the least v phi(z) - lam z, whatever is asked and wherever phi is touched, and lines best in the middle."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.curve import Curve, Piece
from idl_audit.implicit.model import StateBlock
from tests.shared.exact_activations import EXAMPLES, True_, check_best_lines, points

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
CURVES: dict[str, tuple[Curve, True_]] = {
    "-".join([name, *map(str, given_.values())]): (made, true)
    for name, cases in EXAMPLES.items()
    for given_, true in cases
    if isinstance(made := ACTIVATIONS[name](**given_), Curve)
}
EVERY = pytest.mark.parametrize("name", CURVES)
WIDTHS = (0.0, 5e-324, 1e-310, 1e-16, 1e-9, 1e-3, 1.0, 6.0, 1e3, 1e6, 1e100, 1e300)


def drawn(phi: Curve, rng: np.random.Generator, n: int) -> tuple[Array, Array, Array, Array]:
    """Return v, lam, lo, hi of every kind: ends at turns and beside them, subnormal widths, huge ends, any slopes."""
    turns = [0.0, *(place for place, _ in phi.turns)]
    near = rng.choice(turns, size=n)
    one = np.where(rng.random(n) < 0.3, near, rng.normal(size=n) * 10.0 ** rng.integers(-3, 3, size=n))
    one = np.where(rng.random(n) < 0.1, np.nextafter(one, rng.choice([-np.inf, np.inf])), one)
    other = one + rng.choice([-1.0, 1.0], size=n) * rng.choice(WIDTHS, size=n) * rng.choice([1.0, 0.37])
    other = np.where(rng.random(n) < 0.15, rng.choice(turns, size=n), other)
    lo, hi = np.minimum(one, other), np.maximum(one, other)
    v = rng.choice([1.0, -1.0], size=n) * 10.0 ** rng.choice([0.0, 0.0, -3.0, 6.0, -320.0, -160.0, 30.0], size=n)
    v = np.where(rng.random(n) < 0.05, 0.0, v * rng.random(n))
    least, most = phi.slopes(lo, hi)
    lam = v * (least + (most - least) * rng.choice([0.0, 1.0, 0.5, 0.1, -0.2, 1.3, 1e-9], size=n))
    return v, np.where(rng.random(n) < 0.15, rng.normal(size=n), lam), lo, hi


def support(phi: Curve, asked: tuple[Array, ...]) -> Array:
    """Return lower supports; what overflows proves nothing, as in the certificate."""
    v, lam, lo, hi = asked
    with np.errstate(over="ignore", invalid="ignore"):
        least = phi.lower_support(v, np.zeros(v.shape), lam, lo, hi)
    return np.where(np.isfinite(least), least, -np.inf)


def assert_below(phi: Curve, true: True_, least: Array, given_: tuple[Array, ...], rng: np.random.Generator) -> None:
    """Compare bounds with the function in 50 digits: at ends, turns, points inside and where it is touched."""
    v, lam, lo, hi = given_
    with np.errstate(all="ignore"):
        touched = [np.clip(p.touch(np.where(v == 0, 0.0, lam / v)), lo, hi) for p in phi.pieces if p.bend]
    with mpmath.workdps(50):
        for k in range(v.size):
            places = {*points(lo[k], hi[k], rng), *(t[k] for t in touched)}
            places |= {place for place, _ in phi.turns if lo[k] <= place <= hi[k]}
            for z in places:
                value = mpf(v[k]) * true(mpf(float(z))) - mpf(lam[k]) * mpf(float(z))
                assert mpf(least[k]) <= value, (phi.name, v[k], lam[k], lo[k], hi[k], z)


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=6)
def test_no_value_lies_below_the_support(name: str, seed: int) -> None:
    phi, true = CURVES[name]
    rng = np.random.default_rng(seed)
    asked = drawn(phi, rng, 30)
    least = support(phi, asked)
    assert np.isfinite(least[(np.abs(asked[0]) < 1e7) & (np.abs(asked[2:]) < 1e7).all(axis=0)]).all()
    assert_below(phi, true, least, asked, rng)


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=4)
def test_any_place_of_touching_is_sound(name: str, seed: int) -> None:
    phi, true = CURVES[name]
    rng = np.random.default_rng(seed)

    def astray(s: Array) -> Array:
        return rng.choice([-1e30, -3.0, -0.5, 0.0, 1e-300, 2.0, 1e30], size=np.shape(s)) * rng.random(np.shape(s))

    lost = replace(phi, pieces=tuple(Piece(p.bend, astray) for p in phi.pieces))
    asked = drawn(phi, rng, 30)
    assert_below(phi, true, support(lost, asked), asked, rng)


@EVERY
@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_the_support_is_the_minimum(name: str, seed: int) -> None:
    """Two thousand points come as near to it as their distance lets them."""
    phi = CURVES[name][0]
    rng = np.random.default_rng(seed)
    centre, width = rng.normal(size=40) * 3, 10.0 ** rng.uniform(-4, 1.3, size=40)
    lo, hi = centre - width * rng.random(40), centre + width * rng.random(40)
    v = rng.normal(size=40)
    least, most = phi.slopes(lo, hi)
    lam = v * (least + (most - least) * (rng.random(40) * 1.4 - 0.2))
    z = lo + (hi - lo) * np.linspace(0, 1, 2001)[:, None]
    sampled = (v * phi(z) - lam * z).min(axis=0)
    missed = np.abs(v) * ((most - least) / 2000 + 1e-8) * (hi - lo)
    assert (phi.lower_support(v, np.zeros(40), lam, lo, hi) >= sampled - missed - 1e-12).all()


def test_hard_swish_has_its_rational_minimum() -> None:
    """z (z + 3) / 6 - lam z is least at z = 3 lam - 3/2 within [-3, 3]."""
    phi = ACTIVATIONS["hard_swish"]()
    for lo, hi, lam, where in ((-2, 2, "1/4", "-3/4"), (-5, 4, "0", "-3/2"), (-1, 3, "5/4", "9/4"), (0, 5, "-1", "0")):
        z, slope = Fraction(where), Fraction(lam)
        exact = z * (z + 3) / 6 - slope * z
        ends = np.array([float(lo)]), np.array([float(hi)])
        found = phi.lower_support(np.ones(1), np.zeros(1), np.array([float(slope)]), *ends)[0]
        assert Fraction(found) <= exact
        assert float(exact - Fraction(found)) <= 1e-12
        found = phi.lower_support(-np.ones(1), np.zeros(1), -np.array([float(slope)]), *ends)[0]
        outer = [Fraction(end) for end in (lo, hi, -3, 3) if lo <= end <= hi]
        exact = min(slope * y - y * max(Fraction(0), min(Fraction(1), y / 6 + Fraction(1, 2))) for y in outer)
        assert 0 <= float(exact - Fraction(found)) <= 1e-12


def test_softsign_has_its_rational_minimum() -> None:
    """z / (1 + |z|) has the slope 1 / 4 at -1 and 1: z / (1 + |z|) - z / 4 is -1/4 there, and 1/4 at the other."""
    phi = ACTIVATIONS["softsign"]()
    for lo, hi, exact in ((-4, 1, Fraction(-1, 4)), (-4, 9, Fraction(9, 10) - Fraction(9, 4)), (0, 3, Fraction(0))):
        ends = np.array([float(lo)]), np.array([float(hi)])
        found = phi.lower_support(np.ones(1), np.zeros(1), np.array([0.25]), *ends)[0]
        assert 0 <= float(exact - Fraction(found)) <= 1e-12
        mirrored = phi.lower_support(-np.ones(1), np.zeros(1), -np.array([0.25]), -ends[1], -ends[0])[0]
        assert mirrored == pytest.approx(found, abs=1e-13)


@EVERY
def test_phi_bends_as_its_pieces_say(name: str) -> None:
    phi, true = CURVES[name]
    assert len(phi.pieces) == len(phi.turns) + 1
    edges = [-20.0, *(place for place, _ in phi.turns), 20.0]
    with mpmath.workdps(300):
        for piece, start, end in zip(phi.pieces, edges, edges[1:], strict=False):
            for z in np.linspace(start, end, 103)[1:-1]:
                step = min(z - start, end - z, 1e-3)
                left, middle, right = (true(mpf(z) + shift * mpf(step)) for shift in (-1, 0, 1))
                bend = left + right - 2 * middle
                assert piece.bend * bend >= 0
                assert piece.bend or abs(bend) < mpf(10) ** -280


@EVERY
def test_phi_is_touched_where_it_has_the_slope(name: str) -> None:
    phi = CURVES[name][0]
    edges = [-12.0, *(place for place, _ in phi.turns), 12.0]
    for piece, start, end in zip(phi.pieces, edges, edges[1:], strict=False):
        if piece.bend:
            slopes = phi.slope(np.linspace(start, end, 1001))
            np.testing.assert_allclose(phi.slope(np.clip(piece.touch(slopes), start, end)), slopes, rtol=0, atol=1e-8)


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_ends_and_coefficients_that_are_no_numbers_prove_nothing_false(name: str, bad: float) -> None:
    phi, zero, one = CURVES[name][0], np.zeros(1), np.ones(1)
    asked = {"v": one, "lam": 0.1 * one, "lo": -one, "hi": 2 * one}
    for where in asked:
        given_ = {**asked, where: np.array([bad])}
        with np.errstate(all="ignore"):
            least = phi.lower_support(given_["v"], zero, given_["lam"], given_["lo"], given_["hi"])[0]
            slopes = np.stack(phi.relaxation_slopes(given_["lo"], given_["hi"]))
        if np.isfinite(least):  # an endless end, where the bound is right even so
            z = np.clip(np.linspace(-1e9, 1e9, 2001), given_["lo"], given_["hi"])
            assert np.isfinite(given_["v"]).all()
            assert (least <= given_["v"] * phi(z) - given_["lam"] * z).all()
        assert slopes.shape == (2, 1)


@EVERY
def test_lines_are_the_best_in_the_middle(name: str) -> None:
    phi = CURVES[name][0]
    rng = np.random.default_rng(5)
    centre, width = rng.normal(size=60) * 2, 10.0 ** rng.uniform(-1, 1, size=60)
    lo, hi = centre - width * rng.random(60), centre + width * rng.random(60)
    check_best_lines(phi, lo, hi, relative=2e-3, absolute=1e-12)


def test_where_phi_bends_one_way_the_lines_are_the_chord_and_the_middle_tangent() -> None:
    phi, lo, hi = ACTIVATIONS["sigmoid"](), np.array([-4.0, 1.0]), np.array([-2.0, 3.0])
    assert isinstance(phi, Curve)
    chord, tangent = (phi(hi) - phi(lo)) / (hi - lo), phi.slope((lo + hi) / 2)
    below, above = phi.relaxation_slopes(lo, hi)
    np.testing.assert_allclose(below, [tangent[0], chord[1]], rtol=1e-12)
    np.testing.assert_allclose(above, [chord[0], tangent[1]], rtol=1e-12)


def test_an_odd_curve_over_a_symmetric_interval_has_parallel_lines() -> None:
    for name in ("sigmoid", "tanh", "erf", "softsign"):
        below, above = ACTIVATIONS[name]().relaxation_slopes(np.array([-3.0]), np.array([3.0]))
        np.testing.assert_allclose(below, above, rtol=1e-9)


@EVERY
@pytest.mark.parametrize("exponent", [0, 5, -4])
def test_the_farthest_place_is_where_the_support_is(name: str, exponent: int) -> None:
    phi = CURVES[name][0]
    block = StateBlock("b", "Op", phi, (50,), exponent=exponent)
    rng = np.random.default_rng(2)
    lo, hi = np.sort(rng.normal(size=(2, 50)) * 3, axis=0) * 2.0**-exponent
    least, most = block.slopes(lo, hi)
    for side in (1.0, -1.0):
        k = least + (most - least) * rng.random(50)
        z, _ = block.touched(side, k, lo, hi)
        assert ((lo <= z + 1e-12) & (z <= hi + 1e-12)).all()
        least_value = block.lower_support(side * np.ones(50), np.zeros(50), side * k, lo, hi)
        np.testing.assert_allclose(side * (block(z) - k * z), least_value, rtol=0, atol=1e-6 * 2.0**-exponent)
