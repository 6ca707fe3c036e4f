"""Trees that share ranges out: what they hold is the range, and no tree makes a false statement true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from idl_audit.decide.everywhere import decide_everywhere, decide_rising
from idl_audit.decide.ladder import Options
from idl_audit.decide.monotone import Question
from idl_audit.proof.cells import fault, leaves
from idl_audit.proof.files.ranges import NeverFalls, NeverPredicted, RangeClaim
from idl_audit.proof.forest import Forest
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.demand import Limits
from idl_audit.values.mixed import Cell, Choice
from tests.shared.pairs import layered

AGES, SEXES = np.arange(7.0)[:, None] / 4, np.eye(3)


def table() -> Cell:
    """Two intervals, a whole number of quarters and a category of three: inputs 0, 1; 2; 3, 4, 5."""
    ends = np.zeros(6), np.ones(6)
    return Cell(Box.between(*ends), (Choice((2,), AGES), Choice((3, 4, 5), SEXES)))


def rows(rng: np.random.Generator, count: int) -> np.ndarray:
    found = rng.random((count, 6))
    found[: count // 4] = np.round(found[: count // 4])
    found[:, 2] = AGES[rng.integers(7, size=count), 0]
    found[:, 3:] = SEXES[rng.integers(3, size=count)]
    return found


def above(value: float) -> Limits:
    return Limits(np.zeros(1, np.int64), np.ones(1, np.int64), np.array([value]), np.ones(1, np.bool_))


def proved(seed: int, gap: float = 0.05) -> tuple[object, RangeClaim, Forest, float]:
    """Return a network, what is proved of its first output, the parts, and the least value of many rows."""
    rng = np.random.default_rng(seed)
    model = layered(rng, (6, 8, 6, 2), ("relu", "relu"))
    least = float(model(rows(rng, 20_000))[:, 0].min())
    claim = RangeClaim(table(), above(least - gap))
    (query,) = claim.queries(model)
    options, budget = Options(max_nodes=6000), Budget.of(120.0, nodes=6000)
    found = decide_everywhere(model, lambda u: model(u.astype(np.float64)), claim.cell, query, options, budget)
    assert found.verdict.value == "certified"
    assert found.tree is not None
    return model, claim, found.tree, least


@pytest.mark.parametrize("seed", range(3))
def test_every_row_lies_in_a_leaf_and_proofs_are_accepted(seed: int) -> None:
    model, claim, tree, _ = proved(seed)
    assert claim.refused(model, tree) == []
    points = rows(np.random.default_rng(seed), 2000)
    inside = np.zeros(len(points), np.int64)
    for _, piece in leaves(claim.cell, tree):
        inside += ((piece.lo <= points) & (points <= piece.hi)).all(axis=1)
    assert (inside >= 1).all()
    assert (inside == 1).mean() > 0.5


def changed(tree: Forest, rng: np.random.Generator) -> Forest:
    variable, cut, child = tree.variable.copy(), tree.cut.copy(), tree.child.copy()
    node = int(rng.integers(tree.variable.size))
    kind = rng.integers(5)
    if kind == 0:
        variable[node] = rng.integers(-1, 9)
    elif kind == 1:
        cut[node] = rng.choice([0.0, 1.0, 2.0, -1.0, 3.5, np.nan, 1e300, cut[node] + 0.1])
    elif kind == 2:
        child[node] = rng.integers(tree.variable.size)
    elif kind == 3:
        variable[node], cut[node], child[node] = -1, 0.0, 0
    else:
        return replace(tree, roots=np.array([rng.integers(tree.variable.size)]))
    return replace(tree, variable=variable, cut=cut, child=child)


def test_no_tree_makes_a_false_statement_true() -> None:
    """A row is known at which the output is no larger than what it is said to be above."""
    model, claim, tree, least = proved(1)
    false = replace(claim, statement=above(least + 1e-6))
    assert false.refused(model, tree)
    rng = np.random.default_rng(0)
    for _ in range(60):
        other = changed(tree, rng)
        for _ in range(int(rng.integers(3))):
            other = changed(other, rng)
        assert false.refused(model, other)


def test_faults_are_named() -> None:
    one = Forest.of_leaves(1)
    assert fault(table(), one) == ""
    for variable in (2, 3, 8, 99):
        split = Forest(np.zeros(1, np.int64), np.array([variable, -1, -1]), np.array([0.5, 0, 0]), np.array([1, 0, 0]))
        assert fault(table(), split)


def test_a_class_and_a_score_have_trees_as_well() -> None:
    rng = np.random.default_rng(5)
    model = layered(rng, (6, 6, 2), ("relu",))
    outputs = model(rows(rng, 4000))
    label = int((outputs[:, 0] < outputs[:, 1]).mean() < 0.5)
    claim = RangeClaim(table(), NeverPredicted(label))
    assert claim.refused(model, Forest.of_leaves(1))
    assert claim.misfit(model) == ""
    assert replace(claim, statement=NeverPredicted(2)).misfit(model)
    question = Question(0, np.array([[1.0, 0.0]]), lambda y: y[:, 0], lambda y: y[:, 0])
    found = decide_rising(model, lambda u: model(u.astype(np.float64)), question, table(), Budget.of(60.0, nodes=400))
    rising = RangeClaim(table(), NeverFalls(0, 0, rises=True))
    u = rows(rng, 4000)
    v = u.copy()
    v[:, 0] += (1 - v[:, 0]) * rng.random(4000)
    falls = bool((model(v)[:, 0] < model(u)[:, 0] - 1e-9).any())
    assert falls is (found.tree is None)
    assert bool(rising.refused(model, found.tree or Forest.of_leaves(1))) is falls
