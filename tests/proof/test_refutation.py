"""Refutations in rational numbers: what the decider finds is accepted, and no lie about a query that can hold is."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.check import check
from idl_audit.proof.exact.phases import Decider, program_of
from idl_audit.proof.exact.point import ExactNetwork, exact_outputs
from idl_audit.proof.exact.refutation import ExactQuery, Refutation, refutation_of
from idl_audit.proof.exact.simplex import maximise
from idl_audit.proof.forest import Forest
from idl_audit.proof.proof import Proof
from idl_audit.values.box import Box
from idl_audit.values.query import Query, plain
from tests.proof.test_exact_phases import bounds_of, exact_box, rows
from tests.shared.small_networks import layered

seeds = st.integers(0, 2**32 - 1)
IDENTITY = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, -1.0]], [0.0]))
"""y = relu(u) - relu(-u) = u."""


def refuted(model: ImplicitModel, query: Query, number: int = 0) -> Refutation | None:
    bounds = bounds_of(model, query.box)
    program = program_of(model, query.box, bounds)
    assert program is not None
    tree = Decider(model, query, program).decide(query.alternatives[number]).tree
    return None if tree is None else refutation_of(number, program, bounds, model, tree)


def why_open(model: ImplicitModel, query: Query, found: Refutation) -> str:
    return ExactQuery(query, ExactNetwork(model, lambda: model)).why_open(found)


def border(rng: np.random.Generator) -> tuple[ImplicitModel, Query]:
    """A network and rows that meet its values at a corner with equality, strictly or not, about decimals."""
    width = int(rng.integers(1, 4))
    layer = rng.integers(-2, 3, (width, 2)).astype(float), rng.integers(-1, 2, width).astype(float)
    model = layered([layer], (rng.integers(-2, 3, (2, width)).astype(float), rng.integers(-1, 2, 2).astype(float)))
    tenth = Fraction(int(rng.integers(1, 4)), 10)
    ends = [-tenth, -tenth], [tenth, 2 * tenth]
    y = exact_outputs(model, [ends[int(k)][i] for i, k in enumerate(rng.integers(0, 2, 2))])
    count = int(rng.integers(1, 3))
    matrix = np.eye(2)[:count] * rng.choice([-1.0, 1.0], (count, 1))
    offsets = [-int(sign) * value for sign, value in zip(matrix.sum(axis=1), y, strict=False)]
    return model, Query(exact_box(*ends), (rows(matrix, offsets, list(rng.random(count) < 0.5)),))


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_what_the_decider_refutes_has_a_refutation_that_holds(seed: int) -> None:
    model, query = border(np.random.default_rng(seed))
    found = refuted(model, query)
    if found is not None:
        assert why_open(model, query, found) == ""


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_no_refutation_of_a_query_that_can_hold_is_accepted(seed: int) -> None:
    """Of a strict query that holds nowhere, and the same with <=, which holds at a corner: bent in every field."""
    rng = np.random.default_rng(seed)
    model, query = border(rng)
    (own,) = query.alternatives
    strict = replace(query, alternatives=(replace(own, strict=np.ones(len(own.rows), np.bool_)),))
    loose = replace(query, alternatives=(replace(own, strict=np.zeros(len(own.rows), np.bool_)),))
    found = refuted(model, strict)
    if found is None or refuted(model, loose) is not None:
        return
    assert why_open(model, strict, found) == ""
    for _ in range(20):
        found = bent(found, rng)
        assert why_open(model, loose, found) != ""


def bent(found: Refutation, rng: np.random.Generator) -> Refutation:
    """Change one thing; several calls change several."""
    t = len(found.multipliers)
    match int(rng.integers(7)):
        case 0 if t:
            place = int(rng.integers(t))
            more = tuple(int(rng.integers(0, 5)) if i == place else value for i, value in enumerate(found.multipliers))
            return replace(found, multipliers=more)
        case 1 if t:
            return replace(found, rows=np.where(rng.random(t) < 0.3, rng.integers(-1, 30, t), found.rows))
        case 2 if t:
            return replace(found, leaves=np.where(rng.random(t) < 0.3, rng.integers(-1, 4, t), found.leaves))
        case 3:
            return replace(found, lo=found.lo * rng.choice([0.5, 1.0, 2.0], found.lo.shape))
        case 4:
            return replace(found, hi=found.hi * rng.choice([0.5, 1.0, 2.0], found.hi.shape))
        case 5:
            return replace(found, forest=Forest.of_leaves(1))
        case _:
            return replace(found, states=rng.permutation(found.states))


def test_it_takes_the_exact_decimals() -> None:
    """u <= 1/10 and y > 1/10: float64 holds no tenth, and the box of floats has such points."""
    query = Query(exact_box([Fraction(0)], [Fraction(1, 10)]), (rows([[-1.0]], [Fraction(1, 10)], [True]),))
    found = refuted(IDENTITY, query)
    assert found is not None
    assert why_open(IDENTITY, query, found) == ""
    assert check(IDENTITY, plain(query), Proof(exact=(found,))) != []
    own = ExactQuery(query, ExactNetwork(IDENTITY, lambda: IDENTITY))
    assert check(IDENTITY, plain(query), Proof(exact=(found,)), exact=own) == []
    assert why_open(IDENTITY, plain(query), found) != ""


def test_what_has_no_exact_form_is_refuted_by_nothing() -> None:
    query = Query(Box.between(np.zeros(1), np.ones(1)), (rows([[-1.0]], [1], [True]),))
    found = refuted(IDENTITY, query)
    assert found is not None
    assert "no exact form" in ExactQuery(query, ExactNetwork(IDENTITY)).why_open(found)


@pytest.mark.parametrize("alternative", [-1, 1])
def test_other_alternatives_are_refused(alternative: int) -> None:
    query = Query(Box.between(np.zeros(1), np.ones(1)), (rows([[-1.0]], [1], [True]),))
    found = refuted(IDENTITY, query)
    assert found is not None
    assert "does not have" in why_open(IDENTITY, query, replace(found, alternative=alternative))


def test_more_variables_than_searches_have_are_not_looked_at() -> None:
    """y = sum of 30 relu(u - 1/2 + ...), most of which a file may say to bend: the programs would be large."""
    wide = layered([(np.ones((30, 1)), np.linspace(-0.9, -0.1, 30))], (np.ones((1, 30)), [0.0]))
    query = Query(Box.between(np.zeros(1), np.ones(1)), (rows([[-1.0]], [100], [True]),))
    made = Refutation(
        0, np.arange(30), np.full(30, -1.0), np.ones(30), Forest.of_leaves(1), np.zeros(0, int), np.zeros(0, int), ()
    )
    assert "more variables" in why_open(wide, query, made)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_multipliers_of_a_program_add_up(seed: int) -> None:
    """sum_k m_k (A v - b)_k - sum_j m_j v_j is c . v - value, or a number above 0 where there is no point."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    A, b, c = (rng.integers(-3, 4, shape).astype(object) for shape in ((m, n), (m,), (n,)))
    found = maximise(c, A, b)
    if found.is_feasible and not found.is_bounded:
        return
    assert min(found.multipliers) >= 0
    own, of_least = found.multipliers[:m], found.multipliers[m:]
    factors = [sum(own[i] * A[i, j] for i in range(m)) - of_least[j] for j in range(n)]
    constant = -sum(own[i] * b[i] for i in range(m))
    if found.is_feasible:
        assert (factors, constant) == (c.tolist(), -found.value)
    else:
        assert not any(factors)
        assert constant > 0
