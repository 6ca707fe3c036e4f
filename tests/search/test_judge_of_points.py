"""The judge: what it keeps lies in the exact set, is float32, and is a counterexample when it is asked about alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.search.judge import Judge
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.errors import BudgetError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.network import Network
from idl_audit.values.query import Conjunction, Misclassification, Query
from tests.shared.budgets import no_time, ticks

seeds = st.integers(0, 2**32 - 1)
BATCH = 4


def rounding_by_batch(rng: np.random.Generator, p: int, q: int) -> Network:
    """Return a network whose outputs depend on how many points it is asked about, and are sometimes no numbers."""
    weights, shift = rng.normal(size=(p, q)), rng.normal(size=(2, q)) * 0.2
    holes = rng.random(2)

    def network(points: np.ndarray) -> np.ndarray:
        y = points.astype(np.float64) @ weights + shift[min(len(points), 2) - 1]
        odd = np.abs(np.sin(1e3 * points[:, 0].astype(np.float64)))
        y[odd < 0.2 * holes[0], 0] = np.nan
        y[(odd > 1 - 0.2 * holes[1]), -1] = -np.inf
        return y

    return network


def some_set(rng: np.random.Generator, p: int) -> InputSet:
    centre = rng.normal(size=p).astype(np.float32).astype(np.float64)
    eps = float(rng.choice([1e-8, 1e-3, 0.3]))
    box = Box.around(centre, eps, sigma=rng.integers(0, 3, p) / 2)
    return box if rng.integers(2) else SparseBall(centre, box, int(rng.integers(1, p + 1)))


def some_query(rng: np.random.Generator, inputs: InputSet, q: int) -> Query:
    kind = rng.integers(3)
    if kind == 0:
        rows = rng.integers(-2, 3, (2, 2, q)).astype(float)
        return Query(inputs, tuple(Conjunction(one, rng.normal(size=2)) for one in rows))
    label = int(rng.integers(q))
    return Query.misclassification(inputs, q, label, None if kind == 1 else (label + 1) % q)


def is_inside(point: np.ndarray, inputs: InputSet) -> bool:
    """In exact arithmetic."""
    box = inputs.hull
    ends = zip(point, box.inner_lo, box.inner_hi, strict=True)
    inside = all(Fraction(float(lo)) <= Fraction(float(u)) <= Fraction(float(hi)) for u, lo, hi in ends)
    moved = int((point.astype(np.float64) != inputs.centre).sum())
    return inside and (isinstance(inputs, Box) or moved <= inputs.k)


@settings(deadline=None, max_examples=150)
@given(seeds)
def test_what_it_keeps_lies_in_the_exact_set_and_holds_when_asked_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = int(rng.integers(1, 5)), int(rng.integers(2, 4))
    inputs, network = some_set(rng, p), rounding_by_batch(rng, p, q)
    query = some_query(rng, inputs, q)
    judge = Judge(network, query, BATCH)
    known = []
    for _ in range(3):
        points = inputs.centre + rng.normal(size=(int(rng.integers(1, 12)), p)) * rng.choice([1e-6, 0.1, 1.0])
        points[rng.random(points.shape) < 0.05] = np.nan
        assert judge.propose(points) is judge.has_won is (judge.found is not None)
        if judge.best is None:
            continue
        best = judge.best
        known.append(best.rank)
        assert best.point.dtype == np.float32
        assert is_inside(best.point, inputs)
        alone = network(best.point[None])
        np.testing.assert_array_equal(best.outputs, alone[0])
        assert best.holds == query.holds(alone)[0]
        if best.holds and not isinstance(query, Misclassification):
            assert np.isfinite(best.outputs).all()
    assert known == sorted(known, reverse=True)


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_an_output_that_is_no_number_never_wins_against_one_that_is(seed: int) -> None:
    """It satisfies no inequality; it is no class, and so not the label, but comes behind every real one."""
    rng = np.random.default_rng(seed)
    box = Box.between(np.zeros(1), np.ones(1))
    odd = float(rng.choice([np.nan, np.inf, -np.inf]))

    def network(points: np.ndarray) -> np.ndarray:
        u = points[:, 0]
        return np.stack([np.where(u < 0.5, odd, 1.0 - u), np.where(u < 0.5, 0.0, u)], axis=1)

    points = rng.random((8, 1)) / 2.01
    never = Judge(network, Query(box, (Conjunction(np.array([[1.0, -1.0]]), np.zeros(1)),)), BATCH)
    assert not never.propose(points)
    goal = Judge(network, Query.misclassification(box, 2, 0, 1), BATCH)
    assert not goal.propose(points)
    other = Judge(network, Query.misclassification(box, 2, 0), BATCH)
    mixed = rng.permutation(np.concatenate([points, [[0.75]]]))
    assert other.propose(mixed)
    assert other.found is not None
    assert other.found.point[0] == 0.75
    assert never.propose(mixed)
    assert goal.propose(mixed)


def test_a_point_that_holds_only_in_a_batch_is_no_counterexample() -> None:
    box = Box.between(np.zeros(1), np.ones(1))
    asked: list[int] = []

    def network(points: np.ndarray) -> np.ndarray:
        asked.append(len(points))
        return np.where(points > 0.9, 1.0 if len(points) > 1 else -1.0, -1.0)

    judge = Judge(network, Query(box, (Conjunction(-np.ones((1, 1)), np.zeros(1)),)), 16)
    assert not judge.propose(np.array([[0.95], [1.0], [0.1]]))
    assert sorted(asked) == [1, 1, 3]


def test_a_set_without_a_float32_number_is_never_asked_about() -> None:
    between = np.array([1.0 + 2.0**-40])
    judge = Judge(lambda points: pytest.fail("asked"), Query(Box.between(between, between), ()), 1)
    assert not judge.can_be_asked
    assert not judge.propose(between)
    assert judge.best is None


def test_once_it_has_won_it_asks_no_more_and_its_views_know() -> None:
    box, asked = Box.between(np.zeros(1), np.ones(1)), []

    def network(points: np.ndarray) -> np.ndarray:
        asked.append(len(points))
        return -np.ones((len(points), 1))

    judge = Judge(network, Query(box, (Conjunction(np.ones((1, 1)), np.zeros(1)),)), 16)
    view = judge.within(ticks(100))
    assert view.propose(np.array([0.5]))
    assert judge.has_won
    assert judge.propose(np.array([0.25]))
    assert asked == [1]


def test_it_looks_at_the_clock_between_batches() -> None:
    box = Box.between(np.zeros(1), np.ones(1))
    judge = Judge(lambda points: np.ones((len(points), 1)), Query(box, (Conjunction(np.ones((1, 1)), np.zeros(1)),)), 2)
    with pytest.raises(BudgetError):
        judge.within(no_time()).propose(np.zeros((5, 1)))
