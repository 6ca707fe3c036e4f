"""Two networks around a sample: verdicts that sampling cannot contradict, points that both networks confirm."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide.comparing import Pair, compare_at
from idl_audit.decide.ladder import Options
from idl_audit.implicit.pair import paired_model
from idl_audit.proof.check import check
from idl_audit.values.box import Box
from idl_audit.values.disagreement import Disagreement, farther
from idl_audit.values.margins import predictions
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.cyclic_models import plain
from tests.shared.pairs import chain, layered, moved, points_of


def pair_of(first, second) -> Pair:
    """Both models as their own networks."""

    def network(points):
        y, z = (model(points.astype(np.float64)) for model in (first, second))
        return np.hstack([y, z, y - z])

    return Pair(first, second, network)


QUICK = Options(time_limit=5.0, max_nodes=200, record=True)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_verdicts_and_bounds_hold_at_every_point(seed):
    rng = np.random.default_rng(seed)
    first = layered(rng, (3, 5, 5, 3), ("relu", "relu"))
    near = float(rng.choice([1e-3, 0.05, 0.5]))
    second = moved(first, lambda m: m + near * rng.normal(size=m.shape))
    sample = rng.normal(size=3).astype(np.float32).astype(np.float64)
    inputs = Box.around(sample, float(rng.choice([0.01, 0.1, 0.5])))
    pair = pair_of(first, second)
    found = compare_at(pair, sample, inputs, QUICK)
    points = points_of(rng, inputs.lo, inputs.hi, 500)
    y, z = first(points), second(points)
    assert (np.abs(y - z) <= found.limits + 1e-12).all()
    assert found.reached <= found.proved + 1e-12
    if found.verdict is Verdict.CERTIFIED:
        assert (predictions(y) == predictions(z)).all()
        evidence = found.agreement
        assert evidence is not None
        query = Disagreement.of(inputs, 3, found.classes[0], *found.possible)
        assert check(pair.models[evidence.form], query, evidence.proof) == []
    elif found.verdict is Verdict.FALSIFIED:
        point = found.found.point.astype(np.float64)
        assert inputs.contains(point)
        assert predictions(first(point[None])) != predictions(second(point[None]))
    else:
        assert isinstance(found.reason, Reason)
    evidence = found.difference
    assert evidence is not None
    assert check(pair.models[evidence.form], farther(inputs, found.limits, found.limits < 0), evidence.proof) == []


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_two_classes_always_satisfy_an_alternative(seed):
    rng = np.random.default_rng(seed)
    q = int(rng.integers(2, 6))
    outputs = rng.integers(-2, 3, size=(50, 2 * q)).astype(float)  # with ties
    outputs = np.hstack([outputs, outputs[:, :q] - outputs[:, q:]])
    c = int(rng.integers(q))
    first, second = (np.flatnonzero(rng.random(q) < 0.5).tolist() for _ in range(2))
    query = Disagreement.of(Box.between(np.zeros(1), np.ones(1)), q, c, first, second)
    for row, differ in zip(outputs, query.holds(outputs), strict=True):
        assert not differ or any(alternative.holds(row) for alternative in query.alternatives)
    assert ((query.distance(outputs) <= 0) | ~query.holds(outputs)).all()


def test_two_classes_are_known_between_bounds_of_outputs():
    query = Disagreement.of(Box.between(np.zeros(1), np.ones(1)), 2, 0, (0,), (0,))
    exactly = [[Fraction(v) for v in row] for row in ((1, 0, 0, 1, 1, -1), (1, 0, 1, 1, 0, -1), (0, 0, 0, 1, 0, -1))]
    assert [query.holds_between(row, row) for row in exactly] == [True, False, True]
    assert any(alternative.holds(np.array([0.0, 0, 1, 0, 0, 0])) for alternative in query.alternatives)
    wide = [Fraction(-1)] * 6, [Fraction(1)] * 6
    assert query.holds_between(*wide) is None


def test_outputs_that_are_no_numbers_are_no_class():
    query = Disagreement.of(Box.between(np.zeros(1), np.ones(1)), 2, 0, (0, 1), (0, 1))
    nan = np.nan
    outputs = np.array([[1, 0, nan, 0, nan, 0], [nan, 0, nan, 0, nan, 0], [1, 0, 2, 0, -1, 0]], float)
    assert query.holds(outputs).tolist() == [True, False, False]


def test_a_network_agrees_with_itself_where_its_class_changes():
    """No margin is positive there: it is the equality of the two that proves it."""
    first = chain([np.eye(2), np.eye(2)], [np.zeros(2), np.zeros(2)], ("relu",))
    pair = pair_of(first, moved(first, np.copy))
    found = compare_at(pair, np.array([0.5, 0.4]), Box.around(np.array([0.5, 0.4]), 0.3), QUICK)
    assert (found.verdict, found.method, found.proved, found.reached) == (Verdict.CERTIFIED, "equal", 0.0, 0.0)


def test_networks_agree_where_only_the_second_differs_from_the_boundary():
    """y = (u, 0), y' = (u + 1/8, 1/8) change class at the same place; by the difference rows alone it is not strict."""
    first = chain([np.eye(1), np.array([[1.0], [0.0]])], [np.zeros(1), np.zeros(2)], ("identity",))
    second = chain([np.eye(1), np.array([[1.0], [0.0]])], [np.zeros(1), np.array([0.125, 0.0])], ("identity",))
    found = compare_at(pair_of(first, second), np.array([0.5]), Box.around(np.array([0.5]), 0.25), QUICK)
    assert found.verdict is Verdict.CERTIFIED, "neither leaves its class"
    found = compare_at(pair_of(first, second), np.array([0.5]), Box.around(np.array([0.5]), 1.0), QUICK)
    assert found.verdict is Verdict.FALSIFIED, "between -1/8 and 0 the classes are 1 and 0"
    assert -0.125 <= found.found.point[0] < 0


def test_the_way_to_a_boundary_finds_what_random_points_do_not():
    """The networks differ on a slab of 2e-6 of the box."""
    rng = np.random.default_rng(0)
    first = layered(rng, (20, 12, 3), ("relu",))
    second = moved(first, lambda m: m * (1 + 1e-6 * rng.normal(size=m.shape)))
    sample = rng.normal(size=20)
    inputs = Box.around(sample, 1.5)
    found = compare_at(pair_of(first, second), sample, inputs, QUICK)
    points = points_of(rng, inputs.lo, inputs.hi, 5000)
    assert (predictions(first(points)) == predictions(second(points))).all()
    assert (found.verdict, found.method) == (Verdict.FALSIFIED, "crossing")


def test_the_difference_is_told_where_there_are_no_classes():
    first = chain([np.eye(1), np.eye(1)], [np.zeros(1), np.zeros(1)], ("relu",))
    second = chain([np.eye(1), np.eye(1)], [np.zeros(1), np.array([0.5])], ("relu",))
    found = compare_at(pair_of(first, second), np.zeros(1), Box.around(np.zeros(1), 1.0), QUICK, classes=False)
    assert (found.verdict, found.reason) == (None, None)
    assert found.reached == 0.5
    assert found.proved == pytest.approx(0.5)


def test_models_with_loops_are_compared_apart():
    first = plain([[0.3, 0.1], [0.0, 0.2]], np.eye(2), [[1.0, 0.0], [0.0, 1.0]])
    second = plain([[0.3, 0.1], [0.01, 0.2]], np.eye(2), [[1.0, 0.0], [0.0, 1.0]])
    sample = np.array([1.0, 0.2])
    found = compare_at(pair_of(first, second), sample, Box.around(sample, 0.05), QUICK)
    assert found.verdict is Verdict.CERTIFIED
    assert found.agreement.form == "apart"
    assert 0 < found.reached <= found.proved


def test_a_model_that_is_not_well_posed_proves_nothing():
    first = plain([[2.0]], [[1.0]], [[1.0], [0.5]])
    pair = pair_of(first, first)
    found = compare_at(pair, -np.ones(1), Box.around(-np.ones(1), 0.1), QUICK)
    assert (found.verdict, found.proved) == (Verdict.UNKNOWN, None)
    assert found.reason is Reason.NO_UNIQUENESS_PROOF


def test_two_classes_at_the_sample_are_told_at_once():
    first = chain([np.eye(2), np.eye(2)], [np.zeros(2), np.zeros(2)], ("identity",))
    second = chain([np.eye(2), np.eye(2)[::-1]], [np.zeros(2), np.zeros(2)], ("identity",))
    found = compare_at(pair_of(first, second), np.array([1.0, 0.0]), Box.around(np.array([1.0, 0.0]), 0.1), QUICK)
    assert (found.verdict, found.method, found.classes) == (Verdict.FALSIFIED, "sample", (0, 1))


def test_each_form_counts_where_it_is_tighter():
    """Networks that are far apart: two separate bounds are the tighter ones."""
    rng = np.random.default_rng(5)
    first, second = (layered(rng, (3, 8, 2), ("relu",)) for _ in range(2))
    sample = rng.normal(size=3)
    pair = pair_of(first, second)
    found = compare_at(pair, sample, Box.around(sample, 0.3), Options(time_limit=5.0))
    assert np.isfinite(found.limits).all()
    assert set(pair.models) == {"apart", "differences"}
    assert paired_model(first, second, "apart").n_states == 16
