"""Sparse changes: the bound is the best sum over all subsets of inputs, rounded upward, and no network violates it."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.architectures import mnist_mlp
from idl_audit.graph.torch_reader import network_of
from idl_audit.implicit.build import build_implicit
from idl_audit.measure.cardinality import cardinality_bounds
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.values.errors import OptionError
from tests.shared.small_networks import KINKED, STEADY, random_network

seeds = st.integers(0, 2**32 - 1)


def best_subset(matrix: np.ndarray, sigma: np.ndarray, k: int) -> list[Fraction]:
    """Return the largest exact sum over every set of k inputs, row by row."""
    p = matrix.shape[1]
    return [
        max(
            sum((Fraction(row[j]) * Fraction(sigma[j]) for j in chosen), Fraction(0))
            for chosen in itertools.combinations(range(p), min(k, p))
        )
        for row in matrix.tolist()
    ]


@settings(deadline=None, max_examples=60)
@given(seed=seeds, k=st.integers(1, 7))
def test_the_bound_is_the_best_subset_in_exact_arithmetic(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = np.abs(rng.normal(size=(3, 6))) * 10.0 ** rng.integers(-8, 8, size=(3, 6)) * (rng.random((3, 6)) < 0.8)
    sigma = np.abs(rng.normal(size=6)) * (rng.random(6) < 0.8)
    found = cardinality_bounds(matrix, sigma, k)
    assert found.shape == (3,)
    for value, truth in zip(found.tolist(), best_subset(matrix, sigma, k), strict=True):
        assert truth <= Fraction(value) <= truth * (1 + Fraction(1, 10**14))


@pytest.mark.parametrize("k", [999, 1000, 1001])
def test_many_small_entries_are_not_rounded_away(k: int) -> None:
    row = np.full(1000, 0.9 * 2.0**-54)
    row[0] = 1.0
    truth = sum(sorted((Fraction(value) for value in row.tolist()), reverse=True)[:k], Fraction(0))
    assert truth <= Fraction(float(cardinality_bounds(row[None], 1.0, k)[0])) <= truth * (1 + Fraction(1, 10**12))


@settings(deadline=None, max_examples=30)
@given(seed=seeds, k=st.integers(1, 5))
def test_no_network_moves_further_when_k_inputs_change(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=5, widths=(6, 4), activations=[*KINKED, *STEADY])
    sigma = np.abs(rng.normal(size=5)) * (rng.random(5) < 0.9)
    allowed = cardinality_bounds(sensitivity_matrix(model), sigma, k)
    u = rng.normal(size=(3000, 5))
    changed = rng.permuted(np.tile(np.arange(5), (3000, 1)), axis=1) < k
    v = u + changed * sigma * rng.choice([-1.0, 1.0, rng.random()], size=u.shape)
    assert (np.abs(model(u) - model(v)) <= allowed * (1 + 1e-12) + 1e-12 * (1 + np.abs(model(u)))).all()


def test_more_than_all_inputs_are_all_of_them() -> None:
    matrix = np.array([[1.0, 2.0, 4.0]])
    for k in (3, 4, 1000):
        assert cardinality_bounds(matrix, 2.0, k)[0] == pytest.approx(14.0, rel=1e-14)
    assert cardinality_bounds(matrix, 2.0, 1)[0] == pytest.approx(8.0, rel=1e-14)
    assert cardinality_bounds(matrix, np.array([9.0, 1.0, 0.0]), 1)[0] == pytest.approx(9.0, rel=1e-14)


def test_what_cannot_move_counts_for_nothing_and_what_underflows_for_something() -> None:
    assert cardinality_bounds(np.array([[0.0, np.inf]]), np.array([1.0, 0.0]), 2)[0] == 0.0
    assert cardinality_bounds(np.array([[np.inf, 1.0]]), 1.0, 1)[0] == np.inf
    assert cardinality_bounds(np.array([[1e-200]]), 1e-200, 1)[0] > 0
    assert cardinality_bounds(np.array([[1e200]]), 1e200, 1)[0] == np.inf
    assert cardinality_bounds(np.zeros((2, 0)), 1.0, 1).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("k", [0, -1])
def test_no_changes_are_no_threat(k: int) -> None:
    with pytest.raises(OptionError, match=f"1 or more, not {k}"):
        cardinality_bounds(np.ones((1, 2)), 1.0, k)


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (-1.0, "found -1.0"),
        (np.array([1.0, -0.5]), "found -0.5"),
        (np.array([np.nan, 1.0]), "found nan"),
        (np.inf, "found inf"),
        (np.ones(3), r"shape \(3,\).*each of the 2 inputs"),
        (np.ones((1, 2)), r"shape \(1, 2\)"),
    ],
)
def test_sigma_is_one_number_or_one_for_each_input(sigma: np.ndarray | float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        cardinality_bounds(np.ones((1, 2)), sigma, 1)


@pytest.mark.slow
@pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="IDL_AUDIT_DATA is not set")
def test_the_papers_formula_is_far_looser_on_a_published_network() -> None:
    """The paper's (4.4), scaled by s = (I - |A|)^-1 1: 2,656 against 69 (docs/mathematics.md, section 5.4)."""
    module = mnist_mlp(2)
    path = Path(os.environ["IDL_AUDIT_DATA"]) / "models/mnist_mlp_d3.pt"
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model = build_implicit(network_of(module, torch.zeros(1, 1, 28, 28)).graph)
    a, b, c = (np.abs(m.toarray()) for m in model.matrices[:3])
    s = np.linalg.solve(np.eye(len(a)) - a, np.ones(len(a)))
    norm = (a * s / s[:, None]).sum(axis=1).max()
    delta = cardinality_bounds(b / s[:, None], 1.0, 10).max()
    assert delta / (1 - norm) * (c * s).sum(axis=1).max() == pytest.approx(2656, rel=5e-4)
    assert cardinality_bounds(sensitivity_matrix(model), 1.0, 10).max() == pytest.approx(69.305, rel=1e-4)
    assert cardinality_bounds(sensitivity_matrix(model, "centre-radius"), 1.0, 10).max() < 29
