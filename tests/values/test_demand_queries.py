"""What is demanded of outputs: broken where the definition says so, and its query has just these counterexamples."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.values.box import Box
from idl_audit.values.demand import (
    MOST_COMBINATIONS,
    AmongFirst,
    Limits,
    PixelClasses,
    in_groups,
    labels_kept,
    within,
)
from idl_audit.values.query import Query

SET = Box.between(np.zeros(1), np.ones(1))
seeds = st.integers(0, 2**32 - 1)


def drawn(rng: np.random.Generator, q: int) -> np.ndarray:
    """Few values, so that ties are met, and now and then none at all."""
    y = rng.choice([-1.0, 0.0, 0.5, 0.5 + 2**-52, 1.0], size=(30, q))
    y[rng.random(y.shape) < 0.01] = np.nan
    return y


def any_alternative(query: Query, y: np.ndarray) -> bool:
    return any(alternative.holds(y) for alternative in query.alternatives)


@settings(deadline=None, max_examples=50)
@given(seed=seeds)
def test_limits_are_broken_by_what_is_beyond_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 5))
    limits = Limits(rng.integers(0, 3, m), rng.choice([-1, 1], m), rng.choice([-1.0, 0.0, 0.5], m), rng.random(m) < 0.5)
    query = limits.query(SET, 3)
    for y in drawn(rng, 3):
        broken = set()
        for i, side, value, strict in zip(limits.outputs, limits.sides, limits.values, limits.strict, strict=True):
            kept = {(1, True): y[i] > value, (1, False): y[i] >= value}.get((int(side), bool(strict)))
            if kept is None:
                kept = y[i] < value if strict else y[i] <= value
            broken |= set() if kept else {int(i)}
        assert set(query.broken(y).tolist()) == broken
        assert bool(query.holds(y[None])[0]) == bool(broken)
        if np.isfinite(y).all():
            assert (query.distance(y[None])[0] <= 0) == bool(broken) == any_alternative(query, y)
            exact = [Fraction(float(v)) for v in y]
            assert query.holds_between(exact, exact) == bool(broken)


@settings(deadline=None, max_examples=100)
@given(value=st.floats(-1e6, 1e6), delta=st.floats(1e-9, 1e6))
def test_within_ends_at_the_last_numbers_that_are_near_enough(value: float, delta: float) -> None:
    limits = within(np.array([value]), delta, np.array([0]))
    low, high = limits.values.tolist()
    exact_low, exact_high = Fraction(value) - Fraction(delta), Fraction(value) + Fraction(delta)
    assert Fraction(float(np.nextafter(low, -np.inf))) < exact_low <= Fraction(low)
    assert Fraction(high) <= exact_high < Fraction(float(np.nextafter(high, np.inf)))


def test_proved_intervals_hold_their_bounds_in_exact_arithmetic() -> None:
    limits = within(np.array([0.1, 0.3]), 0.2, np.array([0, 1]))
    lowers = np.array([0.05, -np.inf, 0.07, np.nan])
    least, greatest = limits.interval(lowers)
    assert Fraction(least[0]) <= Fraction(limits.values[0]) + Fraction(0.05) < Fraction(least[0]) + Fraction(1, 10**15)
    assert Fraction(greatest[0]) >= Fraction(limits.values[2]) - Fraction(0.07)
    assert least[1] == -np.inf
    assert greatest[1] == np.inf


def test_a_label_is_given_above_the_threshold_alone() -> None:
    query = labels_kept(np.array([1, 0]), 0.5).query(SET, 2)
    for y, broken in (([0.6, 0.5], []), ([0.5, 0.5], [0]), ([0.6, 0.6], [1]), ([np.nan, 0.0], [0])):
        assert query.broken(np.array(y)).tolist() == broken


@settings(deadline=None, max_examples=50)
@given(seed=seeds, k=st.integers(1, 3))
def test_a_label_is_among_the_first_where_fewer_come_before_it(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    label = int(rng.integers(4))
    demand = AmongFirst(label, k)
    query = demand.query(SET, 4)
    assert len(query.alternatives) == len(list(itertools.combinations(range(3), k)))
    for y in drawn(rng, 4):
        if not np.isfinite(y).all():
            assert query.holds(y[None])[0]
            continue
        place = sorted(range(4), key=lambda j: (-y[j], j)).index(label)
        assert bool(query.holds(y[None])[0]) == (place >= k)
        exact = [Fraction(float(v)) for v in y]
        assert query.holds_between(exact, exact) == (place >= k)
        assert place < k or any_alternative(query, y)  # refuting all alternatives refutes it
        assert (query.distance(y[None])[0] > 0) <= (place < k)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, k=st.integers(1, 4), n=st.integers(0, 4))
def test_combinations_of_the_others_suffice_where_some_stay_below(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    below = tuple(sorted(rng.permutation(np.arange(1, 6))[:n].tolist()))
    query = AmongFirst(0, k, below).query(SET, 6)
    for y in drawn(rng, 6):
        if np.isfinite(y).all() and query.holds(y[None])[0]:
            assert any_alternative(query, y)


def test_too_many_combinations_are_known_before_they_are_made() -> None:
    assert AmongFirst(0, 2).is_small(10)
    assert not AmongFirst(0, 5).is_small(100)
    assert len(AmongFirst(0, 5).query(SET, 100).alternatives) == MOST_COMBINATIONS
    assert AmongFirst(0, 5, tuple(range(1, 95))).is_small(100)
    assert not AmongFirst(0, 500).is_small(503)  # few combinations, of many rows each


@settings(deadline=None, max_examples=50)
@given(seed=seeds)
def test_pixels_have_the_class_of_their_largest_output(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, parts = rng.integers(0, 3, 4), np.sort(rng.permutation(4)[:2])
    query = PixelClasses(labels, 3, parts).query(SET, 12)
    assert query.of.tolist() == np.repeat(parts, 2).tolist()
    for y in drawn(rng, 12):
        image = y.reshape(3, 4)
        wrong = [int(p) for p in parts if not np.isfinite(image[:, p]).all() or image[:, p].argmax() != labels[p]]
        assert query.broken(y).tolist() == wrong
        assert bool(query.holds(y[None])[0]) == bool(wrong)
        if np.isfinite(y).all():
            exact = [Fraction(float(v)) for v in y]
            assert query.holds_between(exact, exact) == bool(wrong)
            assert (query.distance(y[None])[0] > 0) <= (not wrong)
            assert not wrong or any_alternative(query, y)
            assert query.nearest(np.stack([y, image.copy().ravel()]), 1).size == 1


@pytest.mark.parametrize("exact", [True, False])
def test_what_lies_between_is_known_only_where_all_of_it_is(exact: bool) -> None:
    lo, hi = [Fraction(0), Fraction(1), Fraction(2)], [Fraction(0), Fraction(1), Fraction(2 if exact else 0)]
    lo, hi = [min(a, b) for a, b in zip(lo, hi, strict=True)], [max(a, b) for a, b in zip(lo, hi, strict=True)]
    assert AmongFirst(0, 2).query(SET, 3).holds_between(lo, hi) is (True if exact else None)
    assert PixelClasses(np.array([2]), 3, np.array([0])).query(SET, 3).holds_between(lo, hi) is (
        False if exact else None
    )


def test_groups_of_parts_are_small_and_all_of_them() -> None:
    demand = PixelClasses(np.zeros(1000, np.int64), 3, np.arange(1000))
    groups = in_groups(demand, demand.parts, 3000)
    assert np.concatenate(groups).tolist() == list(range(1000))
    assert max(demand.entries(group.size, 3000) for group in groups) <= 2**22
    assert len(groups) == 2
