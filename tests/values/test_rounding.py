"""Rounding constants against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.values.rounding import TINY, UNIT_ROUNDOFF, down, gamma, up

HALF = 2**52
"""The first k for which k u = 1/2."""


def exact_gamma(k: int) -> Fraction:
    ku = Fraction(k, 2**53)
    return ku / (1 - ku)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 10, 1000, 10**6, 10**9, 2**31, 2**40, HALF - 1])
def test_gamma_is_at_least_the_exact_value_and_hardly_more(k: int) -> None:
    assert Fraction(gamma(k)) >= exact_gamma(k)
    assert Fraction(gamma(k)) <= exact_gamma(k) * (1 + Fraction(1, 2**48)) + Fraction(1, 2**1070)


@settings(deadline=None)
@given(st.integers(0, HALF - 1))
def test_gamma_is_an_upper_bound_for_every_count(k: int) -> None:
    assert Fraction(gamma(k)) >= exact_gamma(k)


@settings(deadline=None)
@given(st.integers(0, HALF - 2))
def test_gamma_is_monotone(k: int) -> None:
    assert gamma(k) <= gamma(k + 1)


@pytest.mark.parametrize("k", [HALF, HALF + 1, 10**17, -1, -(10**20)])
def test_gamma_is_refused_where_it_bounds_nothing(k: int) -> None:
    with pytest.raises(ValueError, match="gamma_k needs"):
        gamma(k)


def test_unit_roundoff_is_that_of_float64() -> None:
    assert np.finfo(np.float64).eps / 2 == UNIT_ROUNDOFF
    assert 10**9 * Fraction(1, 2**1074) < Fraction(TINY)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.0, 5e-324, 1e308, -1e-310])
def test_down_and_up_are_the_neighbours(value: float) -> None:
    array = np.array([value])
    assert down(array)[0] < value < up(array)[0]
    assert up(down(array))[0] == value


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40))
def test_a_sum_of_products_is_within_gamma_of_the_exact_one(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n)) * 10.0 ** rng.integers(-8, 9, size=(2, n))
    exact = sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), start=Fraction(0))
    size = sum((abs(Fraction(float(x)) * Fraction(float(y))) for x, y in zip(a, b, strict=True)), start=Fraction(0))
    assert abs(Fraction(float(a @ b)) - exact) <= Fraction(gamma(n)) * size
