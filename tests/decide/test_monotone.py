"""Monotone scores: exact bounds of quotients, verdicts that sampling cannot contradict, falls that networks show."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide.monotone import Question, decide_monotone
from idl_audit.implicit.linear_maps import Dense
from idl_audit.proof.bounds import Interval
from idl_audit.proof.dyadic import Dyadic
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.monotone import Rise
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.cyclic_models import plain
from tests.shared.pairs import chain, layered, moved

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6)


def fractions(found: Dyadic) -> list[Fraction]:
    return [Fraction(int(value)) / Fraction(2) ** found.shift for value in found.values.reshape(-1)]


@given(NUMBERS, NUMBERS)
@settings(max_examples=100, deadline=None)
def test_dyadic_numbers_are_exact(first, second):
    n = min(len(first), len(second))
    a, b = (np.array(values[:n]) for values in (first, second))
    x, y = Dyadic.of(a), Dyadic.of(b)
    one, two = ([Fraction(value) for value in values] for values in (a.tolist(), b.tolist()))
    pairs = list(zip(one, two, strict=True))
    assert fractions(x) == one
    assert fractions(x + y) == [s + t for s, t in pairs]
    assert fractions(x - y) == [s - t for s, t in pairs]
    assert fractions(x * y) == [s * t for s, t in pairs]
    assert fractions(x.least(y)) == [min(pair) for pair in pairs]
    assert fractions(x.greatest(y)) == [max(pair) for pair in pairs]
    dot = Dyadic(x.values[None] @ y.values[:, None], x.shift + y.shift)
    assert fractions(dot) == [sum((s * t for s, t in pairs), Fraction(0))]
    for direction in (-np.inf, np.inf):
        for value, exact in zip((x * y).rounded(direction), fractions(x * y), strict=True):
            assert (value <= exact) if direction < 0 else (value >= exact)
    assert x.rounded(np.inf).tolist() == a.tolist() == x.rounded(-np.inf).tolist()


def test_what_is_no_number_is_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(UnsupportedModelError):
            Dyadic.of(np.array([1.0, bad]))


def least(model, lo, hi, feature, rows) -> np.ndarray:
    box = Interval(np.atleast_2d(lo), np.atleast_2d(hi))
    return Rise(model, feature).least(box, backward_state_bounds(model, box), rows).rounded(-np.inf)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_quotients_are_never_below_the_bound(seed):
    rng = np.random.default_rng(seed)
    kinds = tuple(str(kind) for kind in rng.choice(("relu", "tanh", "sigmoid", "leaky_relu", "abs", "gelu"), 2))
    model = layered(rng, (3, 4, 4, 2), kinds, skip=bool(rng.integers(2)))
    lo = rng.normal(size=3)
    hi = lo + rng.choice([0.0, 0.1, 2.0], size=3)
    hi[1] = lo[1] + 1.0
    rows = rng.normal(size=(3, 2))
    found = least(model, lo, hi, 1, rows)
    u = lo + rng.random((400, 3)) * (hi - lo)
    v = u.copy()
    v[:, 1] += rng.random(400) * (hi[1] - u[:, 1])
    quotients = ((model(v) - model(u)) @ rows.T) / np.maximum(v[:, 1:2] - u[:, 1:2], 1e-3)
    rises = v[:, 1] - u[:, 1] >= 1e-3
    assert (quotients[rises] >= found - 1e-9).all()


def test_what_is_flat_is_monotone_both_ways():
    """N(v) = -relu(v - 1) on [0, 1]: its least quotient is 0, which no rounded bound says."""
    model = chain([np.eye(1), -np.eye(1)], [-np.ones(1), np.zeros(1)], ("relu",))
    assert least(model, [0.0], [1.0], 0, np.array([[1.0], [-1.0]])).tolist() == [0.0, 0.0]
    assert least(model, [0.0], [np.nextafter(1.0, 2)], 0, np.array([[1.0]])).tolist() == [-1.0]


def test_signs_that_agree_prove_it_whatever_the_phases():
    rng = np.random.default_rng(0)
    model = moved(layered(rng, (3, 6, 6, 1), ("relu", "relu")), np.abs)
    assert (least(model, -5 * np.ones(3), 5 * np.ones(3), 2, np.ones((1, 1))) >= 0).all()
    assert (least(model, -5 * np.ones(3), 5 * np.ones(3), 2, -np.ones((1, 1))) < 0).all()


def test_uncertain_coefficients_count():
    model = chain([np.eye(1), np.eye(1)], [np.ones(1), np.zeros(1)], ("relu",))
    row = model.rows[0]
    unsure = Dense(matrix=np.eye(1), slack=Dense(matrix=np.array([[0.25]])))
    other = type(model)(
        model.blocks, (type(row)({}, unsure, row.constant),), model.output, model.input_shape, model.output_shape
    )
    assert least(other, [0.0], [1.0], 0, np.ones((1, 1))) == pytest.approx([0.75], abs=1e-12)


def test_loops_and_coupled_states_are_refused():
    with pytest.raises(UnsupportedModelError, match="loops"):
        Rise(plain([[0.5]], [[1.0]], [[1.0]]), 0)
    with pytest.raises(UnsupportedModelError, match="functions of one number"):
        Rise(layered(np.random.default_rng(0), (2, 3, 1), ("softmax",)), 0)


def decided(model, sample, inputs, *, sign=1.0, feature=0, nodes=400):
    def score(outputs):
        return sign * outputs[:, 0]

    question = Question(feature, sign * np.ones((1, 1)), score, score)
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    return decide_monotone(model, network, question, sample, inputs, Budget.of(20.0, nodes=nodes))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_verdicts_hold_at_every_pair(seed):
    rng = np.random.default_rng(seed)
    model = layered(rng, (3, 5, 4, 1), ("relu", "tanh"))
    sample = rng.random(3)
    inputs = Box.around(sample, float(rng.choice([0.0, 0.1])), valid_lo=0.0, valid_hi=1.0, free=(0,))
    sign = float(rng.choice([-1.0, 1.0]))
    found = decided(model, sample, inputs, sign=sign, nodes=60)
    u = inputs.lo + rng.random((1000, 3)) * (inputs.hi - inputs.lo)
    v = u.copy()
    v[:, 0] += rng.random(1000) * (1 - u[:, 0])
    rise = sign * (model(v) - model(u))[:, 0]
    if found.verdict is Verdict.CERTIFIED:
        assert (rise >= found.slope * (v - u)[:, 0] - 1e-12).all()
    elif found.verdict is Verdict.FALSIFIED:
        low, high = found.found.low.astype(float), found.found.high.astype(float)
        assert inputs.contains(np.stack([low, high])).all()
        assert low[0] < high[0]
        assert (low[1:] == high[1:]).all()
        assert sign * (model(high[None]) - model(low[None]))[0, 0] < 0
    else:
        assert found.reason in (Reason.NODE_LIMIT, Reason.RELAXATION_GAP, Reason.TIME_LIMIT)


def test_parts_are_bounded_where_the_whole_is_too_loose():
    """y = relu(u) - relu(u - v) rises with u wherever it may: phases of both states matter together."""
    model = chain([np.array([[1.0, 0.0], [1.0, -1.0]]), np.array([[1.0, -1.0]])], [np.zeros(2), np.zeros(1)], ("relu",))
    sample = np.array([0.5, 0.5])
    inputs = Box.around(sample, 0.25, valid_lo=-1.0, valid_hi=1.0, free=(0,))
    whole = Interval(inputs.lo[None], inputs.hi[None])
    assert least(model, whole.lo, whole.hi, 0, np.ones((1, 1)))[0] < 0
    found = decided(model, sample, inputs)
    assert (found.verdict, found.slope) == (Verdict.CERTIFIED, 0.0)
    assert found.parts > 1


def test_a_fall_that_only_rounding_makes_is_none():
    model = chain([np.eye(1), np.zeros((1, 1))], [np.zeros(1), np.ones(1)], ("relu",))

    def rounded(points):
        return (1.0 - 1e-7 * points[:, :1]).astype(np.float64)  # what a runtime might give for a constant

    def score(outputs):
        return outputs[:, 0]

    question = Question(0, np.ones((1, 1)), score, score)
    inputs = Box.around(np.array([0.5]), 0.0, valid_lo=0.0, valid_hi=1.0, free=(0,))
    found = decide_monotone(model, rounded, question, np.array([0.5]), inputs, Budget.of(5.0, nodes=5))
    assert found.verdict is Verdict.CERTIFIED
    loose = moved(model, np.copy)
    object.__setattr__(loose.output, "states", {0: Dense(matrix=np.zeros((1, 1)), slack=Dense(matrix=np.ones((1, 1))))})
    found = decide_monotone(loose, rounded, question, np.array([0.5]), inputs, Budget.of(5.0, nodes=5))
    assert found.verdict is Verdict.UNKNOWN
