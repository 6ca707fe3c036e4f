"""Pairs (z', dz) -> (phi(z'), phi(z' + dz) - phi(z')): bounds that hold, and exact ones where there are exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.paired import Paired

NAMES = ("relu", "leaky_relu", "abs", "identity", "tanh", "sigmoid", "gelu", "silu", "elu", "hard_swish", "softplus")


def boxes(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of pairs of every kind: points, one side of 0, both; small and large."""
    ends = np.sort(rng.normal(size=(2, 2 * n)) * rng.choice([0.01, 1.0, 5.0], size=2 * n), axis=0)
    ends[1] = np.where(rng.random(2 * n) < 0.1, ends[0], ends[1])
    return np.where(rng.random(2 * n) < 0.1, 0.0, ends[0]).clip(max=ends[1]), ends[1]


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_bounds_hold_at_every_point(name, seed):
    rng = np.random.default_rng(seed)
    phi = Paired(base=ACTIVATIONS[name]())
    n = 6
    lo, hi = boxes(rng, n)
    share = np.concatenate([rng.random((40, 2 * n)), rng.integers(0, 2, size=(40, 2 * n))])
    z = np.clip(lo + share * (hi - lo), lo, hi)
    x = phi(z)
    low, high = phi.interval(lo, hi)
    slack = 1e-12 * (1 + np.abs(z).max())
    assert (low - slack <= x).all()
    assert (x <= high + slack).all()
    v = rng.normal(size=2 * n)
    for lam in (phi.multipliers(v, lo, hi), rng.normal(size=2 * n)):
        error = np.abs(rng.normal(size=2 * n)) * 0.01
        least = phi.grouped(phi.lower_support(v, error, lam, lo, hi)).sum(axis=-1)
        for exact in (v, v + error, v - error):
            value = phi.grouped(exact * x - lam * z).sum(axis=-1)
            assert (least <= value + slack).all()
    for plane in phi.planes(lo, hi):
        own, at = phi.grouped(x)[..., plane.state], phi.grouped(z)
        line = plane.intercept + (plane.slopes * at).sum(axis=-1)
        assert ((line <= own + slack) if plane.is_lower else (own <= line + slack)).all()
    a, g = phi.slopes(lo, hi)
    assert (a <= g).all()


def test_the_lines_are_those_of_the_hull():
    """p (q - dz) / (q - p) <= dx <= q (dz - p) / (q - p) for relu whose sign is open."""
    phi, p, q = Paired(), -0.5, 1.5
    lo, hi = np.array([-1.0, p]), np.array([2.0, q])
    for v, at in ((1.0, (p, p)), (-1.0, (q, q))):
        lam = phi.multipliers(np.array([0.0, v]), lo, hi)
        assert lam[1] == pytest.approx(v * (-p if v > 0 else q) / (q - p))
        least = phi.lower_support(np.array([0.0, v]), np.zeros(2), lam, lo, hi).sum()
        dz, dx = at
        assert least == pytest.approx(v * dx - lam[1] * dz)


@pytest.mark.parametrize(
    ("lo", "hi", "low", "high"),
    [
        ((-3, -1), (-1, 0.5), 0.0, 0.0),  # both dead
        ((1, -0.5), (2, 0.5), -0.5, 0.5),  # both active: dx = dz
        ((-1, 0.2), (1, 0.3), 0.0, 0.3),
        ((-1, -0.3), (1, 0.2), -0.3, 0.2),
        ((-1, 0), (1, 0), 0.0, 0.0),  # equal
    ],
)
def test_exact_intervals_of_relu(lo, hi, low, high):
    found = Paired().interval(np.array(lo, float), np.array(hi, float))
    assert (found[0][1], found[1][1]) == (low, high)


def test_what_is_stable_does_not_bend():
    phi = Paired()
    lo, hi = np.array([1.0, -0.5, -1.0, -0.1, -1.0, 0.0]), np.array([2.0, 0.5, 1.0, 0.1, 1.0, 0.0])
    assert phi.bends(lo, hi).tolist() == [False, False, True, True, True, False]


def test_nothing_is_proved_of_what_is_not_known():
    phi = Paired(base=ACTIVATIONS["tanh"]())
    for bad in (np.nan, np.inf):
        lo, hi = np.array([-1.0, -bad]), np.array([1.0, bad])
        with np.errstate(all="ignore"):
            for v in (-1.0, 1.0):
                for lam in (0.0, 0.5):
                    found = phi.lower_support(np.array([0.0, v]), np.zeros(2), np.array([0.0, lam]), lo, hi)
                    assert not found[1] > -1e300 or (bad == np.inf and found[1] == 0 and lam == 0)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_differences(name):
    phi, rng = Paired(base=ACTIVATIONS[name]()), np.random.default_rng(0)
    z, v, step = rng.normal(size=8), rng.normal(size=8), 1e-6
    found = phi.pull_back(z, v)
    for i in range(8):
        e = np.eye(8)[i] * step
        assert found[i] == pytest.approx(((phi(z + e) - phi(z - e)) @ v) / (2 * step), abs=1e-5)
    d = np.abs(rng.normal(size=8))
    for moved in (z + d, z - d):
        assert (np.abs(phi(moved) - phi(z)) <= phi.moved(d) + 1e-12).all()
