"""Weights of single leaves: what they prove, what is refused, and that other proofs mean what they meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.check import check
from idl_audit.proof.convert import Grower
from idl_audit.proof.files.arrays import opened, packed
from idl_audit.proof.files.door import Arrays
from idl_audit.proof.forest import Choices, Forest
from idl_audit.proof.proof import REST, Goals, LeafWeights, Proof, Refused
from idl_audit.proof.sums import Sum, per_weight, weighable
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.shared.small_networks import layered, random_box, random_network, some_points

INPUT, STATE = 0, 1
"""What a tree of `bent` splits."""


def bent() -> ImplicitModel:
    """Return y = (u, |u|), one input."""
    return layered([([[1.0]], [0.0])], ([[0.0], [1.0]], [0.0, 0.0]), ACTIVATIONS["abs"](), skip=[[1.0], [0.0]])


def apart(more: tuple[Conjunction, ...] = ()) -> Query:
    """Return the query for |u| >= .5 and -1.2 <= 3 u <= 1.2 on [-1, 1]: no weights of its rows serve everywhere."""
    rows = np.array([[0.0, -1.0], [3.0, 0.0], [-3.0, 0.0]])
    own = Conjunction(rows, np.array([0.5, -1.2, -1.2]))
    return Query(Box.between(np.array([-1.0]), np.array([1.0])), (own, *more))


def halves(variable: int) -> Forest:
    grower = Grower()
    grower.split(grower.plant(), variable, 0.0)
    return grower.forest


OWN = np.array([[3, 0, 1], [3, 1, 0]], np.float32)
"""For u <= 0 and for u >= 0."""


def proof_of(
    variable: int, own: Any = OWN, *, alternative: int = 0, leaves: Any = (0, 1), weights: Any = (0.0, 0.0, 0.0)
) -> Proof:
    weighed = None if own is None else LeafWeights(np.asarray(leaves, np.int64), np.asarray(own, np.float32))
    trees = np.asarray([alternative], np.int64)
    return Proof(goals=(Goals(0, trees, np.asarray([weights], np.float64), halves(variable), weighed),))


@pytest.mark.parametrize("alternative", [0, REST])
@pytest.mark.parametrize("variable", [INPUT, STATE])
def test_leaves_with_weights_of_their_own_refute_what_no_weights_refute_everywhere(variable, alternative):
    assert check(bent(), apart(), proof_of(variable, alternative=alternative)) == []
    assert check(bent(), apart(), proof_of(variable, OWN[::-1], alternative=alternative))
    assert check(bent(), apart(), proof_of(variable, None, alternative=alternative))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=3, max_size=3), st.sampled_from([INPUT, STATE]))
def test_no_weights_of_the_tree_do(weights, variable):
    assert check(bent(), apart(), proof_of(variable, None, weights=weights))


def test_a_leaf_without_weights_of_its_own_has_those_of_its_tree():
    assert check(bent(), apart(), proof_of(STATE, OWN[1:], leaves=[1], weights=[3.0, 0.0, 1.0])) == []
    assert check(bent(), apart(), proof_of(STATE, OWN[:1], leaves=[0], weights=[3.0, 0.0, 1.0]))


@pytest.mark.parametrize("alternative", [0, REST])
@pytest.mark.parametrize("variable", [INPUT, STATE])
@pytest.mark.parametrize(
    "own",
    [
        np.zeros((2, 3)),
        np.where(OWN == 3, np.nan, OWN),
        np.where(OWN == 0, np.nan, OWN),
        np.where(OWN == 0, -1e-30, OWN),
        np.where(OWN == 3, np.inf, OWN),
        OWN[:, :2],
        np.hstack([OWN, np.zeros((2, 1))]),
        OWN[:1],
        OWN[0],
        OWN[None],
    ],
    ids=["zeros", "nan", "other nan", "negative", "infinite", "too few", "too many", "one leaf", "vector", "cube"],
)
def test_forged_weights_are_refused(variable, alternative, own):
    leaves = np.arange(len(own))
    assert check(bent(), apart(), proof_of(variable, own, alternative=alternative, leaves=leaves))


@pytest.mark.parametrize("leaves", [[0, 2], [-1, 1], [1, 0], [0, 0], [0], [0, 10**9], [[0, 1]]])
@pytest.mark.parametrize("variable", [INPUT, STATE])
def test_weights_of_other_leaves_are_refused(variable, leaves):
    assert check(bent(), apart(), proof_of(variable, leaves=leaves))


def test_weights_are_of_one_alternative_or_of_all():
    single = Conjunction(np.array([[0.0, 1.0]]), np.array([0.5]))  # |u| <= -.5
    query, own = apart((single,)), np.hstack([OWN, np.zeros((2, 1))]).astype(np.float32)
    assert check(bent(), query, proof_of(INPUT, own, alternative=REST)) == []
    assert check(bent(), query, proof_of(INPUT, alternative=REST))  # columns of one alternative alone
    mixed = proof_of(INPUT, own).goals[0]
    forest = Grower()
    forest.plant()
    forest.plant()
    both = Goals(0, np.array([0, REST]), np.zeros((2, 4)), forest.forest, replace(mixed).own)
    assert check(bent(), query, Proof(goals=(both,))) == ["it weighs rows of all alternatives and of one"]
    wider = replace(proof_of(STATE, own).goals[0], weights=np.zeros((1, 4)))
    assert check(bent(), query, Proof(goals=(wider, *proof_of(INPUT, own, alternative=REST).goals))) == []
    beyond = replace(wider, own=LeafWeights(np.arange(2), own + np.float32([0, 0, 0, 1])))
    assert check(bent(), query, Proof(goals=(beyond,))) == ["it weighs rows that an alternative does not have"]


def test_zeros_close_only_a_leaf_without_points():
    """The second leaf's splits contradict each other: u <= 0 and u >= 1."""
    grower = Grower()
    root = grower.plant()
    low = grower.split(root, STATE, 0.0)
    empty = grower.split(low, STATE, -0.5) + 1  # z in [-.5, 0], then z >= 1
    del empty
    forest = grower.forest
    own = LeafWeights(np.arange(3), OWN[[1, 0, 0]])
    goals = Goals(0, np.zeros(1, np.int64), np.zeros((1, 3)), forest, own)
    assert check(bent(), apart(), Proof(goals=(goals,))) == []
    zeros = replace(own, values=own.values * np.float32([[1], [0], [1]]))
    assert check(bent(), apart(), Proof(goals=(replace(goals, own=zeros),)))
    lam = {0: Choices(np.arange(3), np.float32([[np.nan], [0.5], [np.nan]]))}
    assert check(bent(), apart(), Proof(goals=(replace(goals, own=zeros, forest=replace(forest, duals=lam)),)))


def test_files_hold_weights_of_leaves_and_read_those_without_as_before():
    for own in (OWN, None):
        arrays: dict[str, Any] = {}
        packed(proof_of(STATE, own), 0, arrays)
        assert ("part.0.goals.0.own.leaves" in arrays) == (own is not None)
        again = opened(Arrays(arrays), 0).goals[0].own
        assert (again is None) == (own is None)
        if again is not None:
            np.testing.assert_array_equal(again.values, OWN)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_accepted_is_true_whatever_the_weights(seed):
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 2), q=3, activations=("relu", "abs", "leaky"))
    box, count = random_box(rng, 2), int(rng.integers(2, 5))
    rows = np.round(rng.normal(size=(count, 3)), 2)
    u = some_points(rng, box, 300)
    least = float((model(u) @ rows.T).max(axis=1).min())
    query = Query(box, (Conjunction(rows, np.full(count, -least + float(rng.normal() * 0.3))),))
    grower = Grower()
    nodes = [grower.plant()]
    for _ in range(int(rng.integers(0, 5))):
        node = nodes.pop(int(rng.integers(len(nodes))))
        variable = int(rng.integers(0, 2 + model.n_states))
        cut = rng.uniform(box.lo[variable], box.hi[variable]) if variable < 2 else rng.normal() * 0.3
        first = grower.split(node, variable, float(cut))
        nodes += [first, first + 1]
    leaves = grower.forest.n_leaves
    own = LeafWeights(np.arange(leaves), rng.random((leaves, count)).astype(np.float32) ** 2)
    trees = np.array([0 if rng.random() < 0.7 else REST])
    goals = Goals(0, trees, np.zeros((1, count)), grower.forest, own)
    if not check(model, query, Proof(goals=(goals,))):
        assert ((model(u) @ rows.T + query.alternatives[0].offsets).max(axis=1) > -1e-12).all()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_sum_is_the_exact_one_up_to_its_error(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4, 3)) * 10.0 ** rng.integers(-8, 8, (4, 3)) * (rng.random((4, 3)) < 0.7)
    own = Conjunction(rows, rng.normal(size=4))
    weights = (rng.random(4) * (rng.random(4) < 0.7)).astype(np.float32).astype(np.float64)
    found = Sum.of(own, weights)
    exact = (weights[:, None].astype(np.longdouble) * rows).sum(axis=0)
    assert (np.abs(exact - found.seed) <= found.error + 1e-18 * np.abs(weights @ np.abs(rows))).all()
    assert found.offset <= float((weights.astype(np.longdouble) * own.offsets).sum()) + 1e-15
    assert found.shift(lambda: np.ones(3)) <= found.offset


def test_sums_that_float64_does_not_hold_are_refused():
    huge = Conjunction(np.full((2, 1), 1.7e308), np.zeros(2))
    assert not weighable(huge)
    with pytest.raises(Refused):
        Sum.of(huge, np.ones(2))
    assert not weighable(Conjunction(np.ones((1, 1)), np.zeros(1)))
    assert not weighable(Conjunction(np.ones((2, 1)), np.array([0.0, -np.inf])))
    assert weighable(Conjunction(np.ones((2, 1)), np.zeros(2)))


def test_bounds_of_the_greatest_row_are_those_of_sums_by_their_weights():
    lower = per_weight(np.array([1.0, -1.0, np.nan]), np.array([[1.0, 3.0], [1.0, 1.0], [1.0, 1.0]]))
    assert 0.25 - 1e-12 < lower[0] <= 0.25
    assert not lower[1] > 0
    assert not lower[2] > 0


def test_the_page_on_proof_files_tells_of_them():
    page = Path(__file__).parents[2].joinpath("docs/proof-format.md").read_text(encoding="utf-8")
    assert "`goals.G.own.leaves`, `.own.weights`" in page


def test_a_sum_is_strict_where_a_strict_row_has_a_weight():
    own = Conjunction(np.eye(2), np.zeros(2), (), np.array([True, False]))
    assert Sum.of(own, np.array([0.5, 1.0])).strict
    assert not Sum.of(own, np.array([0.0, 2.0])).strict
    assert not Sum.of(own, np.zeros(2)).strict
