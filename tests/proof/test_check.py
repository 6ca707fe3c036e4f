"""The checker: whatever a proof says, what is accepted is true; what a search would write is accepted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.check import check, proved_stages
from idl_audit.proof.convert import Grower
from idl_audit.proof.forest import LEAF, Choices, Forest, Shares
from idl_audit.proof.proof import REST, Goals, Lemma, Proof, trivial
from idl_audit.proof.restriction import living_states, restricted
from idl_audit.proof.rows import groups, with_sums
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.query import Conjunction, Query
from tests.shared.small_networks import (
    PLAIN,
    layered,
    minimum_by_patterns,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def absolute_value() -> ImplicitModel:
    """y = relu(u) + relu(-u) = |u|, one input."""
    return layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, 1.0]], [0.0]))


def above(value: float, box: Box, rows: list[list[float]] | None = None) -> Query:
    """Return the query whose counterexamples have every row of y at most a value: one alternative."""
    matrix = np.array(rows or [[1.0]])
    return Query(box, (Conjunction(matrix, np.full(len(matrix), -value)),))


def goals(forest: Forest, *, alternatives: list[int], weights: list[list[float]], stage: int = 0) -> Goals:
    return Goals(stage, np.asarray(alternatives, np.int64), np.asarray(weights, np.float64), forest)


def one_tree(splits: list[tuple[int, int, float]]) -> Forest:
    """Return one tree from splits (node, variable, cut)."""
    grower = Grower()
    grower.plant()
    for node, variable, cut in splits:
        grower.split(node, variable, cut)
    return grower.forest


BOX = Box.between(np.array([-1.0]), np.array([2.0]))


def test_lines_alone_prove_what_they_reach() -> None:
    query = above(-1.1, BOX)
    assert check(absolute_value(), query, trivial(1)) == []
    assert (
        check(absolute_value(), query, Proof(goals=(goals(Forest.of_leaves(1), alternatives=[0], weights=[[1.0]]),)))
        == []
    )


def test_lines_alone_do_not_prove_what_they_do_not_reach() -> None:
    rows = above(-1e-9, BOX)  # |u| >= 0 needs a split
    assert check(absolute_value(), rows, trivial(1)) != []


@pytest.mark.parametrize("splits", [[(0, 0, 0.0)], [(0, 2, 0.5), (1, 0, 0.0), (2, 0, 0.0)], [(0, 0, 0.0), (1, 2, 0.0)]])
def test_a_split_of_an_input_or_of_a_state_or_of_both_proves_more(splits: list[tuple[int, int, float]]) -> None:
    query = above(-1e-9, BOX)
    own = goals(one_tree(splits), alternatives=[0], weights=[[1.0]])
    assert check(absolute_value(), query, Proof(goals=(own,))) == []
    shared = replace(own, alternatives=np.array([REST]), weights=np.zeros((1, 1)))
    assert check(absolute_value(), query, Proof(goals=(shared,))) == []


BETA = {0: Choices(np.array([1]), np.array([[1.0, 0.0]], np.float32))}


@pytest.mark.parametrize("kind", ["multipliers", "duals"])
def test_a_split_of_a_state_proves_more_with_its_multiplier(kind: str) -> None:
    query = above(-1e-9, BOX)
    choices = BETA if kind == "multipliers" else {0: replace(BETA[0], values=np.zeros((1, 2), np.float32))}
    forest = replace(one_tree([(0, 1, 0.0)]), **{kind: choices})
    assert check(absolute_value(), query, Proof(goals=(goals(forest, alternatives=[0], weights=[[1.0]]),))) == []
    without = goals(one_tree([(0, 1, 0.0)]), alternatives=[0], weights=[[1.0]])
    assert check(absolute_value(), query, Proof(goals=(without,))) != []


def test_what_is_attained_is_never_proved() -> None:
    """|u| reaches 0, and a counterexample is y <= 0."""
    query = above(0.0, BOX)
    for splits in ([], [(0, 0, 0.0)], [(0, 1, 0.0), (1, 2, 0.0), (2, 2, 0.0)]):
        own = goals(one_tree(splits), alternatives=[0], weights=[[1.0]])
        assert check(absolute_value(), query, Proof(goals=(own,))) != []


def test_rows_that_only_together_are_infeasible_are_refuted_by_a_sum() -> None:
    """y = (u, 1 - 2u): u <= .2 and 1 - 2u <= .2 contradict each other."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, -1.0], [-2.0, 2.0]], [0.0, 1.0]))
    box = Box.between(np.array([-1.0]), np.array([1.0]))
    query = Query(box, (Conjunction(np.eye(2), np.array([-0.2, -0.2])),))
    weighed = goals(one_tree([(0, 1, 0.0)]), alternatives=[0], weights=[[2.0, 1.0]])
    assert check(model, query, Proof(goals=(weighed,))) == []
    for alone in ([[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 0.1]]):
        assert check(model, query, Proof(goals=(replace(weighed, weights=np.array(alone)),))) != []


def test_sums_that_float64_does_not_hold_are_paid_for() -> None:
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]))
    box = Box.between(np.array([-1.0]), np.array([1.0]))
    rows = np.array([[0.1, 0.0], [0.0, 0.3]])
    query = Query(box, (Conjunction(rows, np.array([1e-3, 1e-3])),))
    own = goals(Forest.of_leaves(1), alternatives=[0], weights=[[3.0, 1.0]])
    assert check(model, query, Proof(goals=(own,))) == []
    exact = Query(
        box, (Conjunction(rows, np.array([0.0, 0.0])),)
    )  # .3 u - .3 u: 0 up to rounding, and that is no proof
    assert check(model, exact, Proof(goals=(own,))) != []


@pytest.mark.parametrize("kind", ["", "duals"])
def test_leaves_know_that_few_inputs_change(kind: str) -> None:
    """y = u0 + u1 >= -1 where one of two inputs within 1 of 0 changes, -2 where both do."""
    model = layered([([[1.0, 1.0], [-1.0, -1.0]], [0.0, 0.0])], ([[1.0, -1.0]], [0.0]))
    zeros, lam = np.zeros(2), {0: Choices(np.array([0]), np.array([[0.0, -0.5]], np.float32))}
    forest = replace(one_tree([]), **({kind: lam} if kind else {}))
    proof = Proof(goals=(goals(forest, alternatives=[0], weights=[[1.0]]),))
    for k, least in ((1, 1.0), (2, 2.0)):
        ball = SparseBall.around(zeros, 1.0, k)
        for offset, holds in ((least, False), (least + 1e-9, True)):
            query = Query(ball, (Conjunction(np.ones((1, 1)), np.array([offset])),))
            assert (check(model, query, proof) == []) == holds


def test_sums_beyond_float64_are_no_sums_and_prove_nothing() -> None:
    huge = Conjunction(np.full((3, 1), 1e308), np.full(3, 1e308))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert groups(huge) == [(0,), (1,), (2,)]
        small = Conjunction(np.ones((2, 1)), np.full(2, -1.5e308))
        assert with_sums(small).offsets[2] == -np.inf
        great = Conjunction(np.ones((2, 1)), np.full(2, 1.5e308))
        assert np.isfinite(with_sums(great).offsets).all()


FORGED = {
    "no tree": lambda p: Proof(),
    "a stage that is not there": lambda p: Proof(goals=(replace(p.goals[0], stage=1),)),
    "a negative stage": lambda p: Proof(goals=(replace(p.goals[0], stage=-1),)),
    "another alternative": lambda p: Proof(goals=(replace(p.goals[0], alternatives=np.array([1])),)),
    "a negative alternative": lambda p: Proof(goals=(replace(p.goals[0], alternatives=np.array([-2])),)),
    "a negative weight": lambda p: Proof(goals=(replace(p.goals[0], weights=np.array([[-1.0]])),)),
    "a weight that is no number": lambda p: Proof(goals=(replace(p.goals[0], weights=np.array([[np.nan]])),)),
    "an infinite weight": lambda p: Proof(goals=(replace(p.goals[0], weights=np.array([[np.inf]])),)),
    "weights of rows that are not there": lambda p: Proof(goals=(replace(p.goals[0], weights=np.array([[1.0, 1.0]])),)),
    "no weights": lambda p: Proof(goals=(replace(p.goals[0], weights=np.zeros((1, 0))),)),
    "a child that is its own parent": lambda p: with_nodes(p, child=[0, 0, 0]),
    "one child for two": lambda p: with_nodes(p, child=[1, 2, 0]),
    "a child beyond the end": lambda p: with_nodes(p, child=[2, 0, 0]),
    "a negative child": lambda p: with_nodes(p, child=[-2, 0, 0]),
    "a variable beyond the model": lambda p: with_nodes(p, variable=[3, LEAF, LEAF]),
    "a negative variable": lambda p: with_nodes(p, variable=[-2, LEAF, LEAF]),
    "a cut that is no number": lambda p: with_nodes(p, cut=[np.nan, 0.0, 0.0]),
    "an infinite cut": lambda p: with_nodes(p, cut=[np.inf, 0.0, 0.0]),
    "a cut outside the box": lambda p: with_nodes(p, variable=[0, LEAF, LEAF], cut=[-5.0, 0.0, 0.0]),
    "a leaf with a cut": lambda p: with_nodes(p, cut=[0.0, 1.0, 0.0]),
    "only half of a tree": lambda p: with_nodes(p, variable=[1, LEAF], cut=[0.0, 0.0], child=[1, 0]),
    "a root that is a child": lambda p: with_nodes(p, roots=[1]),
    "two roots": lambda p: with_nodes(p, roots=[0, 0]),
    "no root": lambda p: with_nodes(p, roots=[]),
    "choices for leaves that are not there": lambda p: with_choices(
        p, "slopes", {0: Choices(np.array([2]), np.zeros((1, 2), np.float32))}
    ),
    "choices for a negative leaf": lambda p: with_choices(
        p, "multipliers", {0: Choices(np.array([-1]), np.ones((1, 2), np.float32))}
    ),
    "choices twice for a leaf": lambda p: with_choices(
        p, "duals", {0: Choices(np.array([0, 0]), np.ones((2, 2), np.float32))}
    ),
    "choices of one width for all": lambda p: with_choices(
        p, "duals", {0: Choices(np.array([0]), np.ones((1, 1), np.float32))}
    ),
    "choices for a block that is not there": lambda p: with_choices(
        p, "slopes", {1: Choices(np.array([0]), np.ones((1, 2), np.float32))}
    ),
    "choices for a negative block": lambda p: with_choices(
        p, "slopes", {-1: Choices(np.array([0]), np.ones((1, 2), np.float32))}
    ),
    "planes for states that are not there": lambda p: with_choices(
        p, "planes", {0: Shares(np.array([2]), np.array([0]), np.zeros((1, 1, 1), np.uint8))}
    ),
    "planes of another width": lambda p: with_choices(
        p, "planes", {0: Shares(np.array([0]), np.array([0]), np.zeros((1, 1, 2), np.uint8))}
    ),
    "kept states that are not there": lambda p: replace(p, kept={0: np.array([0, 5])}),
    "states left out that live": lambda p: replace(p, kept={0: np.array([0])}),
    "kept states of a negative block": lambda p: replace(p, kept={-1: np.array([0])}),
    "a lemma of a negative block": lambda p: replace(p, stages=((lemma(-1),),)),
    "a lemma of a block that is not there": lambda p: replace(p, stages=((lemma(1),),)),
    "a lemma for states that are not there": lambda p: replace(p, stages=((lemma(0, states=[2]),),)),
    "a lemma for negative states": lambda p: replace(p, stages=((lemma(0, states=[-1]),),)),
    "a lemma without a side": lambda p: replace(p, stages=((lemma(0, signs=[0]),),)),
    "a lemma of twice the sign": lambda p: replace(p, stages=((lemma(0, signs=[2]),),)),
    "a lemma that splits its own block": lambda p: replace(p, stages=((lemma(0, forest=one_tree([(0, 1, 0.0)])),),)),
    "a lemma that splits inputs": lambda p: replace(p, stages=((lemma(0, forest=one_tree([(0, 0, 0.0)])),),)),
    "a lemma with more trees than states": lambda p: replace(p, stages=((lemma(0, forest=Forest.of_leaves(2)),),)),
}


def lemma(
    block: int, *, states: list[int] | None = None, signs: list[int] | None = None, forest: Forest | None = None
) -> Lemma:
    return Lemma(block, np.array(states or [0]), np.array(signs or [1]), forest or Forest.of_leaves(1))


def with_nodes(proof: Proof, **nodes: list[float]) -> Proof:
    types = {"roots": np.int64, "variable": np.int64, "child": np.int64, "cut": np.float64}
    forest = replace(proof.goals[0].forest, **{name: np.asarray(value, types[name]) for name, value in nodes.items()})
    return Proof(goals=(replace(proof.goals[0], forest=forest),))


def with_choices(proof: Proof, kind: str, choices: Mapping[int, Choices | Shares]) -> Proof:
    return Proof(goals=(replace(proof.goals[0], forest=replace(proof.goals[0].forest, **{kind: choices})),))


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_proof_is_refused(name: str) -> None:
    query = above(-1e-9, BOX)
    forest = replace(one_tree([(0, 1, 0.0)]), multipliers=BETA)
    honest = Proof(goals=(goals(forest, alternatives=[0], weights=[[1.0]]),))
    assert check(absolute_value(), query, honest) == []
    forged = FORGED[name](honest)
    assert check(absolute_value(), query, forged) != []


def random_forest(rng: np.random.Generator, model: ImplicitModel, box: Box, *, choices: bool) -> Forest:
    """Return a tree of random splits of inputs and states, with choices that are random numbers of any size."""
    grower = Grower()
    grower.plant()
    for _ in range(rng.integers(0, 6)):
        leaves = [i for i, variable in enumerate(grower.variable) if variable == LEAF]
        variable = int(rng.integers(0, model.n_inputs + model.n_states))
        cut = (
            float(rng.uniform(box.lo[variable], box.hi[variable])) if variable < model.n_inputs else rng.normal() * 0.3
        )
        grower.split(int(rng.choice(leaves)), variable, float(cut))
    forest = grower.forest
    if not choices:
        return forest
    kinds: dict[str, dict[int, Choices]] = {"slopes": {}, "multipliers": {}, "duals": {}}
    for kind in kinds.values():
        for k, block in enumerate(model.blocks):
            some = np.flatnonzero(rng.random(forest.n_leaves) < 0.3)
            size = 10.0 ** rng.choice([-300, -3, 0, 0, 0, 3, 30])
            kind[k] = Choices(some, (rng.normal(size=(some.size, block.size)) * size).astype(np.float32))
    return replace(forest, **kinds)


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_nothing_that_is_attained_is_proved_whatever_the_proof_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3), q=2, activations=("relu", "leaky_relu", "abs"))
    box = random_box(rng, 2, radius=float(rng.choice([1e-3, 0.3, 1.0])))
    row = rng.normal(size=2)
    least = minimum_by_patterns(model, row, box)
    query = Query(box, (Conjunction(row[None], np.array([-least - 1e-9 * (1 + abs(least))])),))
    number = int(rng.choice([0, REST]))
    weights = np.array([[2.0 ** rng.integers(-2, 3)]]) if number == 0 else np.zeros((1, 1))
    stages = ((), *((random_lemma(rng, model, box),) for _ in range(rng.integers(0, 3))))
    own = Goals(len(stages) - 1, np.array([number]), weights, random_forest(rng, model, box, choices=number == 0))
    assert check(model, query, Proof(stages, (own,))) != []


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_a_tree_that_splits_every_state_proves_almost_everything_that_is_true(seed: int) -> None:
    """Where all phases are fixed the duals of the leaf's LP are exact; here small boxes leave little to be lost."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=1, widths=(2, 2), q=2, skips=False)
    box = random_box(rng, 1, radius=0.5)
    row = rng.normal(size=2)
    least = minimum_by_patterns(model, row, box)
    query = Query(box, (Conjunction(row[None], np.array([-least + 0.02 * (1 + abs(least))])),))
    grower = Grower()
    waiting = [(grower.plant(), float(box.lo[0]), float(box.hi[0]), 0)]
    while waiting:
        node, lo, hi, depth = waiting.pop()
        if depth == 8:
            continue
        middle = (lo + hi) / 2
        first = grower.split(node, 0, middle)
        waiting += [(first, lo, middle, depth + 1), (first + 1, middle, hi, depth + 1)]
    for number, weights in ((0, np.ones((1, 1))), (REST, np.zeros((1, 1)))):
        proof = Proof(goals=(Goals(0, np.array([number]), weights, grower.forest),))
        assert check(model, query, proof) == []


def random_lemma(rng: np.random.Generator, model: ImplicitModel, box: Box) -> Lemma:
    """Return a lemma with a tree of older states, where there are such, and random choices."""
    block = int(rng.integers(0, len(model.blocks)))
    forest = random_forest(rng, model, box, choices=True)
    if not ((forest.variable < 0) | (forest.variable >= model.n_inputs + model.offsets[block + 1])).all():
        forest = Forest.of_leaves(1)
    kinds = {kind: {k: own for k, own in getattr(forest, kind).items() if k > block} for kind in KINDS_OF_CHOICES}
    kinds = kinds if forest.has_choices else {}
    return Lemma(block, rng.integers(0, model.blocks[block].size, 1), rng.choice([-1, 1], 1), replace(forest, **kinds))


KINDS_OF_CHOICES = ("slopes", "multipliers", "duals")


def stages_of(model: ImplicitModel, inputs: Interval, proof: Proof) -> list[StateBounds]:
    """Return the bounds that each stage proves; as in `check`, choices may be numbers that overflow."""
    with np.errstate(all="ignore"):
        return proved_stages(model, inputs, proof)[1]


@pytest.mark.parametrize("activations", [("relu", "abs", "leaky_relu"), tuple(sorted(PLAIN)), None])
@given(seeds)
@settings(max_examples=60, deadline=None)
def test_bounds_of_stages_and_goals_hold_at_points_of_every_set(activations: tuple[str, ...] | None, seed: int) -> None:
    """Boxes and U_card, kinked and smooth activations, max-pools: lemmas, states left out, trees of any kind."""
    rng = np.random.default_rng(seed)
    if activations is None:
        model = pooled_network(rng, size=3, bias=float(rng.normal()))
    else:
        model = random_network(rng, p=3, widths=(3, 2, 3), q=3, activations=activations)
    p, centre = model.n_inputs, rng.normal(size=model.n_inputs) * 0.4
    ball = SparseBall.around(centre, float(rng.choice([1e-3, 0.3, 1.0])), int(rng.integers(1, p + 2)))
    points = some_points(rng, ball.hull, 100)
    if few := bool(rng.integers(2)):
        for point in points:
            same = rng.permutation(p)[ball.k :]
            point[same] = centre[same]
    inputs = Interval.of_set(ball if few else ball.hull)
    stages = tuple(tuple(random_lemma(rng, model, ball.hull) for _ in range(rng.integers(0, 3))) for _ in range(3))
    first = stages_of(model, inputs, Proof(stages[:1]))[0]
    kept = {k: states for k, states in living_states(model, first).items() if rng.random() < 0.5}
    stages = stages if not kept else stages[:1]
    found = stages_of(model, inputs, Proof(stages, (), kept))
    for bounds in found:
        for k, z in enumerate(model.pre_activations(points)):
            own = z[:, kept[k]] if k in kept else z
            slack = 1e-9 * (1 + np.abs(own).max())
            assert ((own >= bounds.z[k].lo - slack) & (own <= bounds.z[k].hi + slack)).all()
    rows = rng.normal(size=(1, 3))
    y = model(points) @ rows[0]
    attained = Conjunction(rows, np.array([-y.min() - 1e-9 * (1 + np.abs(y).max())]))
    query = Query(ball if few else ball.hull, (attained,))
    number = int(rng.choice([0, REST]))
    forest = random_forest(rng, restricted(model, kept), ball.hull, choices=number == 0)
    own_goals = goals(forest, alternatives=[number], weights=[[float(number == 0)]], stage=len(stages) - 1)
    assert check(model, query, Proof(stages, (own_goals,), kept)) != []
