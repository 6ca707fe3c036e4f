"""Sums of S over groups of inputs: exact up to rounding upward, and a bound of what a group does."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.measure.groups import group_sums
from idl_audit.measure.sensitivity import sensitivity_matrix
from tests.shared.small_networks import KINKED, STEADY, random_network

seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, p=st.integers(1, 9), count=st.integers(1, 5))
def test_sums_are_at_least_the_exact_ones_and_hardly_more(seed: int, p: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = np.abs(rng.normal(size=(3, p))) * 10.0 ** rng.integers(-8, 8, size=(3, p))
    labels = rng.integers(0, count, size=p)
    found = group_sums(matrix, labels, count)
    assert found.shape == (3, count)
    for i in range(3):
        for g in range(count):
            truth = sum((Fraction(float(value)) for value in matrix[i, labels == g]), Fraction(0))
            assert truth <= Fraction(float(found[i, g])) <= truth * (1 + Fraction(1, 10**14))


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_a_group_that_moves_by_one_moves_no_output_further(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=5, widths=(6, 4), activations=[*KINKED, *STEADY])
    labels = rng.integers(0, 3, size=5)
    allowed = group_sums(sensitivity_matrix(model), labels, 3)
    u = rng.normal(size=(2000, 5))
    for g in range(3):
        v = u + (labels == g) * rng.choice([-1.0, 0.3, 1.0], size=u.shape)
        assert (np.abs(model(u) - model(v)) <= allowed[:, g] * (1 + 1e-12) + 1e-12 * (1 + np.abs(model(u)))).all()


def test_the_number_of_groups_follows_from_the_labels() -> None:
    found = group_sums(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([2, 0, 2, 0]))
    np.testing.assert_allclose(found, [[10.0, 0.0, 5.0]], rtol=1e-14, atol=0)
    assert group_sums(np.zeros((2, 0)), np.zeros(0, np.int64)).shape == (2, 0)


@pytest.mark.parametrize(("labels", "count"), [([0, 1], None), ([0, -1, 0], None), ([0, 1, 2], 2), ([[0, 1, 2]], 3)])
def test_labels_that_do_not_fit_are_refused(labels: list[int], count: int | None) -> None:
    with pytest.raises(ValueError, match="3 inputs"):
        group_sums(np.ones((1, 3)), np.array(labels), count)
