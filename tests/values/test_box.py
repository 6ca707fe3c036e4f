"""Boxes against exact rational arithmetic: what is rounded outward encloses, what is rounded inward is enclosed."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.values.box import Box, SparseBall
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.input_sets import InputSet

GREATEST = float(np.finfo(np.float64).max)

numbers = st.floats(-1e30, 1e30, allow_nan=False, allow_subnormal=True)
radii = st.floats(5e-324, 1e30, exclude_min=False, allow_nan=False, allow_subnormal=True)


def exact_bounds(centre: float, eps: float, lo: float | None, hi: float | None) -> tuple[Fraction, Fraction]:
    least, most = Fraction(centre) - Fraction(eps), Fraction(centre) + Fraction(eps)
    return (
        least if lo is None else max(least, Fraction(lo)),
        most if hi is None else min(most, Fraction(hi)),
    )


def check(centre: float, eps: float, lo: float | None = None, hi: float | None = None) -> None:
    """The outer bounds are the nearest floats outside the exact set, the inner ones the nearest inside."""
    box = Box.around(np.array([centre]), eps, valid_lo=lo, valid_hi=hi)
    least, most = exact_bounds(centre, eps, lo, hi)
    assert Fraction(box.lo[0]) <= least <= Fraction(box.inner_lo[0])
    assert Fraction(box.inner_hi[0]) <= most <= Fraction(box.hi[0])
    for outer, inner in ((box.lo[0], box.inner_lo[0]), (box.hi[0], box.inner_hi[0])):
        assert inner == outer or inner == math.nextafter(outer, centre)
    assert Fraction(math.nextafter(box.lo[0], math.inf)) > least
    assert Fraction(math.nextafter(box.hi[0], -math.inf)) < most
    assert box.contains(np.array([centre]))


@settings(deadline=None, max_examples=300)
@given(centre=numbers, eps=radii)
def test_bounds_enclose_the_exact_ball_and_no_more(centre: float, eps: float) -> None:
    check(centre, eps)


@settings(deadline=None, max_examples=300)
@given(values=st.lists(numbers, min_size=3, max_size=3), eps=radii)
def test_clipped_bounds_enclose_the_exact_intersection(values: list[float], eps: float) -> None:
    lo, centre, hi = sorted(values)
    check(centre, eps, lo, hi)


CASES = [
    (0.1, 0.03, 0.0, 1.0),
    (0.1, 8 / 255, None, None),
    (0.0, 0.1, 0.0, 1.0),
    (1.0, 0.1, 0.0, 1.0),
    (1.0, 1e-300, None, None),
    (1.0, 5e-324, 0.0, 1.0),
    (0.5, 1e9, 0.0, 1.0),
    (-0.0, 1.0, None, None),
    (128.0, 2.0, 0.0, 255.0),
    (1e16, 1.0, None, None),
    (1.0, 2.0**-54, None, None),
    (5e-324, 5e-324, 0.0, None),
]


@pytest.mark.parametrize(("centre", "eps", "lo", "hi"), CASES)
def test_bounds_are_exact_in_known_cases(centre: float, eps: float, lo: float | None, hi: float | None) -> None:
    check(centre, eps, lo, hi)


def test_exactly_representable_bounds_are_not_widened() -> None:
    box = Box.around(np.array([1.0, -2.0]), 0.5)
    assert box.lo.tolist() == box.inner_lo.tolist() == [0.5, -2.5]
    assert box.hi.tolist() == box.inner_hi.tolist() == [1.5, -1.5]


@settings(deadline=None, max_examples=200)
@given(centre=st.floats(-1e3, 1e3, allow_nan=False), eps=st.floats(1e-12, 10), steps=st.integers(-3, 3))
def test_contains_is_membership_in_the_exact_set(centre: float, eps: float, steps: int) -> None:
    box = Box.around(np.array([centre]), eps)
    least, most = exact_bounds(centre, eps, None, None)
    for end in (box.lo[0], box.hi[0]):
        point = end
        for _ in range(abs(steps)):
            point = math.nextafter(point, math.copysign(math.inf, steps))
        assert bool(box.contains(np.array([point]))) == (least <= Fraction(float(point)) <= most)


@settings(deadline=None, max_examples=200)
@given(
    centre=st.floats(-1e3, 1e3, allow_nan=False),
    eps=st.floats(1e-12, 10),
    wish=st.floats(-1e4, 1e4, allow_nan=False),
)
def test_projected_points_are_the_nearest_float32_points_of_the_exact_set(
    centre: float, eps: float, wish: float
) -> None:
    box = Box.around(np.array([centre]), eps)
    least, most = exact_bounds(centre, eps, None, None)
    point = box.project(np.array([[wish]]))
    assert point.dtype == np.float32
    value = point[0, 0]
    holds_one = next_float32_from(least) <= most
    assert bool(box.contains(point)[0]) == holds_one == (least <= Fraction(float(value)) <= most)
    if holds_one:
        target = min(max(Fraction(wish), least), most)
        for neighbour in (np.nextafter(value, np.float32(np.inf)), np.nextafter(value, np.float32(-np.inf))):
            if least <= Fraction(float(neighbour)) <= most:
                assert abs(Fraction(float(value)) - target) <= abs(Fraction(float(neighbour)) - target)


def next_float32_from(least: Fraction) -> Fraction:
    """Return the smallest float32 that is at least `least`."""
    guess = np.float32(float(least))
    while Fraction(float(guess)) >= least:
        guess = np.nextafter(guess, np.float32(-np.inf))
    while Fraction(float(guess)) < least:
        guess = np.nextafter(guess, np.float32(np.inf))
    return Fraction(float(guess))


def test_a_set_without_float32_points_contains_no_projection() -> None:
    box = Box.around(np.array([0.1, 0.5]), 1e-12)
    assert not box.contains(box.project(np.array([[0.1, 0.5]])))[0]
    lo, hi = box.float32_bounds()
    assert lo[0] > hi[0]
    assert lo[1] == hi[1] == 0.5


def test_projection_keeps_batches_apart_and_leaves_inside_points_alone() -> None:
    box = Box.around(np.zeros(3), 0.25)
    points = np.array([[0.125, -0.125, 0.0], [9.0, -9.0, 0.25]])
    assert box.project(points).tolist() == [[0.125, -0.125, 0.0], [0.25, -0.25, 0.25]]
    assert box.contains(points).tolist() == [True, False]


def test_points_with_nan_are_in_no_box() -> None:
    box = Box.around(np.zeros(2), 1.0)
    points = np.array([[np.nan, 0.0], [0.0, 0.0]])
    assert box.contains(points).tolist() == [False, True]
    assert box.contains(box.project(points)).tolist() == [False, True]


@settings(deadline=None, max_examples=100)
@given(lo=numbers, width=st.floats(0, 1e6))
def test_centre_and_radius_enclose_the_box(lo: float, width: float) -> None:
    box = Box.between(np.array([lo]), np.array([lo + width]))
    centre, radius = Fraction(box.centre[0]), Fraction(box.radius[0])
    assert Fraction(box.lo[0]) <= centre <= Fraction(box.hi[0])
    assert centre - radius <= Fraction(box.lo[0])
    assert centre + radius >= Fraction(box.hi[0])


def test_a_box_may_have_no_width() -> None:
    box = Box.between(np.array([0.5]), np.array([0.5]))
    assert box.size == 1
    assert box.contains(box.project(np.array([[7.0]])))[0]


@pytest.mark.parametrize("eps", [0.0, -0.0, -1.0, math.nan, math.inf, -math.inf])
def test_radii_that_make_no_ball_are_refused(eps: float) -> None:
    with pytest.raises(OptionError, match="eps must be a positive number"):
        Box.around(np.zeros(2), eps)


@pytest.mark.parametrize(("centre", "lo", "hi"), [(-0.1, 0.0, 1.0), (1.1, 0.0, 1.0), (5e-324, None, 0.0)])
def test_a_centre_outside_the_range_is_refused_with_its_position(
    centre: float, lo: float | None, hi: float | None
) -> None:
    with pytest.raises(DataError, match="input 1 is"):
        Box.around(np.array([0.0, centre]), 0.1, valid_lo=lo, valid_hi=hi)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_centre_that_is_no_number_is_refused(bad: float) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(DataError):
        Box.around(np.array([0.0, bad]), 0.1)


def test_a_ball_beyond_the_largest_number_is_refused() -> None:
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(DataError, match="finite"):
        Box.around(np.array([1.7e308]), 1.7e308)


@pytest.mark.parametrize("sigma", [None, np.array([2.0])])
@pytest.mark.parametrize("centre", [1.0, 1e308, GREATEST])
def test_a_ball_that_only_the_range_keeps_finite_is_clipped_without_a_warning(centre, sigma) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ball = SparseBall.around(
            np.array([centre]), GREATEST / 2, 1, sigma=sigma, valid_lo=-GREATEST, valid_hi=GREATEST
        )
        assert ball.box.hi[0] <= GREATEST
        assert ball.rise(np.ones((1, 1)))[0] >= min(GREATEST / 2, GREATEST - centre)


@pytest.mark.parametrize(
    ("lo", "hi", "what"),
    [
        (np.zeros(2), np.zeros(3), "shapes"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "shapes"),
        (np.array([0.0, 2.0]), np.array([1.0, 1.0]), "input 1"),
        (np.array([np.nan]), np.array([1.0]), "finite"),
        (np.array([0.0]), np.array([np.inf]), "finite"),
    ],
)
def test_bounds_that_make_no_box_are_refused(lo: np.ndarray, hi: np.ndarray, what: str) -> None:
    with pytest.raises(DataError, match=what):
        Box.between(lo, hi)


def test_an_empty_data_range_is_refused() -> None:
    with pytest.raises(DataError):
        Box.around(np.array([0.5]), 0.1, valid_lo=1.0, valid_hi=0.0)


# ---------------------------------------------------------------------------------------------- radii of single inputs


@settings(deadline=None, max_examples=200)
@given(centre=st.floats(-1e3, 1e3), eps=st.floats(1e-9, 1e3), sigma=st.floats(0, 1e3, allow_subnormal=True))
def test_own_radii_are_multiplied_by_eps_and_rounded_to_the_right_side(centre: float, eps: float, sigma: float) -> None:
    box = Box.around(np.array([centre]), eps, sigma=np.array([sigma]))
    least, most = (Fraction(centre) + sign * Fraction(eps) * Fraction(sigma) for sign in (-1, 1))
    assert Fraction(box.lo[0]) <= least <= Fraction(box.inner_lo[0]) <= Fraction(box.inner_hi[0]) <= most
    assert most <= Fraction(box.hi[0])
    assert box.hi[0] - box.inner_hi[0] <= 4 * math.ulp(abs(box.hi[0]) + eps * sigma)
    assert box.inner_lo[0] - box.lo[0] <= 4 * math.ulp(abs(box.lo[0]) + eps * sigma)


def test_inputs_with_radius_zero_stay_where_they_are() -> None:
    box = Box.around(np.array([0.1, 0.2, 0.3]), 0.5, sigma=np.array([0.0, 1.0, 0.5]), valid_lo=0.0, valid_hi=1.0)
    assert box.lo[0] == box.hi[0] == box.inner_lo[0] == box.inner_hi[0] == 0.1
    np.testing.assert_allclose([box.lo, box.hi], [[0.1, 0.0, 0.05], [0.1, 0.7, 0.55]], atol=1e-15)


def test_radii_of_one_give_the_plain_ball() -> None:
    centre = np.random.default_rng(0).normal(size=20)
    one, plain = Box.around(centre, 0.1, sigma=np.ones(20)), Box.around(centre, 0.1)
    for name in ("lo", "hi", "inner_lo", "inner_hi"):
        assert (getattr(one, name) == getattr(plain, name)).all()


@pytest.mark.parametrize(
    ("sigma", "error", "what"),
    [
        (np.ones(3), DataError, "one radius for each input"),
        (np.array([1.0, -1.0]), DataError, "-1.0 at input 1"),
        (np.array([np.nan, 1.0]), DataError, "nan at input 0"),
        (np.array([1.0, np.inf]), DataError, "inf at input 1"),
        (np.array([1.0, 1e308]), OptionError, "range of float64"),
    ],
)
def test_radii_that_are_none_are_refused(sigma: np.ndarray, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        Box.around(np.zeros(2), 10.0, sigma=sigma)


# ---------------------------------------------------------------------------------------------- support and U_card


def vertices(inputs: InputSet) -> list[tuple[float, ...]]:
    """Every point whose inputs are the centre or an end, as many changed as the set allows."""
    if isinstance(inputs, Box):
        return list(itertools.product(*zip(inputs.lo, inputs.hi, strict=True)))
    ends = zip(inputs.centre, inputs.box.lo, inputs.box.hi, strict=True)
    points = itertools.product(*ends)
    return [u for u in points if sum(a != b for a, b in zip(u, inputs.centre, strict=True)) <= inputs.k]


def product(row: np.ndarray, point: tuple[float, ...]) -> Fraction:
    return sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, point, strict=True)), Fraction(0))


def random_set(rng: np.random.Generator, p: int) -> InputSet:
    centre, eps, sigma = rng.random(p), float(rng.uniform(0.1, 2)), rng.choice([0.0, 0.3, 1.0, 2.0], p)
    clip = (0.0, 1.0) if rng.random() < 0.5 else (None, None)
    if rng.random() < 0.3:
        return Box.around(centre, eps, sigma=sigma, valid_lo=clip[0], valid_hi=clip[1])
    k = int(rng.integers(1, p + 2))
    return SparseBall.around(centre, eps, k, sigma=sigma, valid_lo=clip[0], valid_hi=clip[1])


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_support_is_the_greatest_value_at_a_vertex_and_hardly_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 5))
    inputs = random_set(rng, p)
    rows = rng.normal(size=(2, 3, p)) * 10.0 ** rng.integers(-3, 4, size=(2, 3, p))
    found, risen = inputs.support(rows), inputs.rise(rows)
    assert found.shape == risen.shape == (2, 3)
    corners = vertices(inputs)
    for place in np.ndindex(2, 3):
        greatest = max(product(rows[place], u) for u in corners)
        start = product(rows[place], tuple(inputs.centre))
        size = float(np.abs(rows[place]).sum()) * 4 + 1e-300
        assert 0 <= Fraction(float(found[place])) - greatest <= size * 1e-13
        assert 0 <= Fraction(float(risen[place])) - (greatest - start) <= size * 1e-13


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_rise_holds_for_every_row_within_the_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = random_set(rng, 4)
    row, error = rng.normal(size=4), rng.random(4)
    allowed = Fraction(float(inputs.rise(row, error)))
    for signs in itertools.product([-1.0, 1.0], repeat=4):
        other = row + np.array(signs) * error * (1 - 1e-12)
        start = product(other, tuple(inputs.centre))
        assert max(product(other, u) for u in vertices(inputs)) - start <= allowed


def test_the_reach_sums_the_largest_changes() -> None:
    ball = SparseBall.around(np.array([0.5, 0.9, 0.5]), 0.4, 2, valid_lo=0.0, valid_hi=1.0)
    np.testing.assert_allclose(ball.reach(np.array([[1.0, 2.0, 3.0], [1.0, 0.0, 0.0]])), [2.0, 0.4])
    np.testing.assert_allclose(ball.box.reach(np.array([1.0, 0.0, 1.0])), 0.8)


def test_gains_are_one_sided_where_the_valid_range_cuts() -> None:
    """At 0.9 in [0, 1] an input can fall by 0.4 but only rise by 0.1."""
    ball = SparseBall.around(np.array([0.9, 0.5]), 0.4, 1, valid_lo=0.0, valid_hi=1.0)
    np.testing.assert_allclose(
        ball.rise(np.array([[1.0, 0.0], [-1.0, 0.0], [5.0, -1.0], [1.0, -1.0]])), [0.1, 0.4, 0.5, 0.4]
    )


def test_membership_counts_the_changed_inputs() -> None:
    ball = SparseBall.around(np.zeros(4), 0.5, 2)
    points = np.array([[0, 0, 0, 0], [0.5, 0, -0.5, 0], [0.5, 0.1, -0.5, 0], [0.6, 0, 0, 0], [np.nan, 0, 0, 0]])
    assert ball.contains(points).tolist() == [True, True, False, False, False]
    assert ball.size == 4
    assert ball.hull is ball.box


def test_an_overflowing_support_is_infinite_and_no_number_is_never_returned() -> None:
    ball = SparseBall.around(np.full(3, 1e200), 1e200, 1)
    assert ball.support(np.array([1e200, -1e200, 0.0])) == np.inf
    assert ball.rise(np.array([np.nan, 0.0, 0.0])) == np.inf


@pytest.mark.parametrize("k", [0, -1])
def test_a_cardinality_below_one_is_refused(k: int) -> None:
    with pytest.raises(OptionError, match="1 or more"):
        SparseBall.around(np.zeros(2), 0.1, k)


def test_a_centre_outside_its_box_is_refused() -> None:
    with pytest.raises(DataError, match="must lie in its box"):
        SparseBall(np.array([2.0]), Box.between(np.zeros(1), np.ones(1)), 1)
    with pytest.raises(DataError, match="shape"):
        SparseBall(np.zeros(2), Box.between(np.zeros(1), np.ones(1)), 1)
