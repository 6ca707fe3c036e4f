"""Balls of l2 and l1 within a range: supports against exact small cases and samples, membership in exact arithmetic."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.input_sets import NormBall
from idl_audit.values.norms import NORMS

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, norm: str, p: int = 4) -> tuple[NormBall, np.random.Generator]:
    """A ball, every other one with radii of its inputs, of which some are 0."""
    rng = np.random.default_rng(seed)
    centre = np.float32(rng.random(p) * rng.integers(0, 2, p)).astype(float)  # some at an end of the range
    sigma = np.append(rng.choice([0.0, 1.0, 0.3, 7.0], p - 1), 0.7) if seed % 2 else None
    eps = float(rng.choice([0.1, 0.5, 1.0, 3.0]))
    return NormBall.around(centre, eps, norm, sigma=sigma, valid_lo=0.0, valid_hi=1.0), rng


def radii(ball: NormBall) -> np.ndarray:
    return np.ones(ball.size) if ball.sigma is None else ball.sigma


def best_l2(m: np.ndarray, ball: NormBall) -> float:
    """The exact support by the KKT conditions: clip(m / lam), lam by bisection in long double."""
    lo, hi = (np.asarray(end, np.longdouble) for end in (ball.box.lo - ball.centre, ball.box.hi - ball.centre))
    moves = radii(ball) > 0
    sigma = np.asarray(radii(ball)[moves], np.longdouble)
    m, lo, hi = m[moves] * sigma, lo[moves] / sigma, hi[moves] / sigma
    r = np.longdouble(ball.eps)

    def step(lam: np.longdouble) -> np.ndarray:
        return np.clip(m / lam, lo, hi)

    least, most = np.longdouble(1e-12), np.abs(m).sum() / r + 1
    for _ in range(200):
        middle = (least + most) / 2
        least, most = (middle, most) if (step(middle) ** 2).sum() > r * r else (least, middle)
    return float((m * step(most)).sum())


def best_l1(m: np.ndarray, ball: NormBall) -> Fraction:
    """The exact support: the largest entries first, as far as the radius reaches."""
    left, best = Fraction(ball.eps), Fraction(0)
    sigma = [Fraction(float(s)) for s in radii(ball)]
    gain = [abs(Fraction(float(value))) * s for value, s in zip(m, sigma, strict=True)]
    for i in sorted((i for i, s in enumerate(sigma) if s), key=lambda i: -gain[i]):
        far = ball.box.hi[i] if m[i] > 0 else ball.box.lo[i]
        step = min(left, abs(Fraction(float(far)) - Fraction(float(ball.centre[i]))) / sigma[i])
        best, left = best + step * gain[i], left - step
    return best


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.sampled_from(NORMS))
def test_the_support_is_the_exact_one_rounded_upward(seed: int, norm: str) -> None:
    ball, rng = drawn(seed, norm)
    rows = rng.normal(size=(5, 4)) * 10.0 ** rng.integers(-8, 8) * rng.integers(0, 2, (5, 4))
    for m, found in zip(rows, ball.rise(rows), strict=True):
        exact = best_l1(m, ball) if norm == "l1" else best_l2(m, ball)
        size = float(np.abs(m * radii(ball)).sum())
        assert Fraction(float(found)) >= Fraction(exact) - (0 if norm == "l1" else Fraction(1e-15 * size))
        assert found <= float(exact) + 1e-9 * size + 1e-140


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.sampled_from(NORMS))
def test_no_point_of_the_set_exceeds_the_support(seed: int, norm: str) -> None:
    ball, rng = drawn(seed, norm, p=6)
    wild = ball.centre + rng.normal(size=(4000, 6)) * rng.choice([0.01, 0.3, 3.0], size=(4000, 1))
    points = ball.project(np.vstack([wild, ball.lowest(rng.normal(size=(200, 6))), ball.centre[None]]))
    points = points[ball.contains(points)].astype(np.float64)
    assert len(points) > 3000, "most points have a float32 number of the set next to them"
    rows = np.vstack([rng.normal(size=(20, 6)), np.eye(6), -np.eye(6), np.ones((1, 6))])
    change = points - ball.centre
    assert (change @ rows.T <= ball.rise(rows) * (1 + 1e-14)).all()
    error = np.abs(rng.normal(size=6)) * 0.1
    assert (change @ (rows + error * rng.choice([-1, 1], size=6)).T <= ball.rise(rows, error) * (1 + 1e-14)).all()
    assert (np.abs(change) @ np.abs(rows).T <= ball.reach(np.abs(rows)) * (1 + 1e-14)).all()
    assert (points @ rows.T <= ball.support(rows) + 1e-13).all()


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.sampled_from(NORMS))
def test_what_it_contains_lies_in_it_exactly(seed: int, norm: str) -> None:
    """Points next to the sphere, on both sides of it: none is said to be inside that is not."""
    ball, rng = drawn(seed, norm)
    towards = rng.normal(size=(60, 4))
    size = np.linalg.norm(towards, 2 if norm == "l2" else 1, axis=1, keepdims=True)
    near = 1 + rng.choice([0, 1e-16, -1e-16, 1e-13, -1e-9], size=(60, 1))
    points, sigma = ball.centre + towards / size * ball.eps * radii(ball) * near, radii(ball)
    for point, inside in zip(points, ball.contains(points), strict=True):
        moved = [abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(point, ball.centre, strict=True)]
        assert not any(c for c, s in zip(moved, sigma, strict=True) if not s)
        change = [c / Fraction(float(s)) for c, s in zip(moved, sigma, strict=True) if s]
        eps = Fraction(ball.eps)
        within = sum(change) <= eps if norm == "l1" else sum(c * c for c in change) <= eps * eps
        assert within or not inside
        assert not inside or ((point >= 0) & (point <= 1)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_float32_points_are_put_inside(norm: str) -> None:
    rng = np.random.default_rng(3)
    ball = NormBall.around(rng.random(784), 0.5, norm, valid_lo=0.0, valid_hi=1.0)
    points = ball.project(ball.centre + rng.normal(size=(50, 784)))
    assert points.dtype == np.float32
    assert ball.contains(points).all()
    size = np.linalg.norm(points - ball.centre, 2 if norm == "l2" else 1, axis=1)
    assert (size > 0.45).all() or norm == "l1", "they are put on the sphere, not to the centre"
    assert ball.contains(ball.project(ball.centre[None])).all()


@pytest.mark.parametrize("norm", NORMS)
def test_sets_are_nested(norm: str) -> None:
    rng = np.random.default_rng(0)
    centre, rows = rng.random(9), rng.normal(size=(40, 9))
    rises = [NormBall.around(centre, eps, norm, valid_lo=0, valid_hi=1).rise(rows) for eps in (0.1, 0.2, 0.9)]
    for less, more in itertools.pairwise(rises):
        assert (less <= more).all()
    box = Box.around(centre, 0.2, valid_lo=0, valid_hi=1)
    assert (rises[1] <= box.support(rows) - rows @ centre + 1e-12).all()
    l2, l1 = (NormBall.around(centre, 0.2, name, valid_lo=0, valid_hi=1).rise(rows) for name in NORMS)
    assert (l1 <= l2 * (1 + 1e-12)).all()


def test_numbers_at_the_ends_of_float64_prove_nothing_false() -> None:
    ball = NormBall.around(np.zeros(3), 1.0, "l2")
    for scale in (1e-320, 1e-200, 1e200, 1e308):
        rows = np.array([[1.0, 1.0, 1.0]]) * scale
        exact = Fraction(scale) * 3  # 3 u_i u_i <= 1: u_i = 1/sqrt(3), so the square of the support is 3 scale^2
        found = ball.rise(rows)[0]
        assert found == np.inf or Fraction(float(found)) ** 2 * 3 >= exact**2
    assert NormBall.around(np.zeros(3), 1.0, "l1").rise(np.array([[np.nan, 0.0, 1.0]]))[0] == np.inf
    assert ball.rise(np.array([[np.nan, 0.0, 1.0]]))[0] == np.inf


def test_what_makes_no_ball_is_refused() -> None:
    with pytest.raises(OptionError, match="positive"):
        NormBall.around(np.zeros(2), 0.0, "l2")
    with pytest.raises(OptionError, match="no norm"):
        NormBall.around(np.zeros(2), 1.0, "l3")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="every radius must be"):
        NormBall.around(np.zeros(2), 1.0, "l2", sigma=np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="below the valid"):
        NormBall.around(np.full(2, -1.0), 1.0, "l2", valid_lo=0.0, valid_hi=1.0)
