"""Branching on hidden states: proofs and points agree with exact minima, whatever the search behind them says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, Mixed
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Chain, Leaves, StateStep
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.leaves import prove_leaves
from idl_audit.search import branching
from idl_audit.search.branching import BranchOutcome, branch, network, phased, root, search
from idl_audit.search.branching.ascent import Found, ascend
from idl_audit.search.branching.network import SearchNet, state_tensors
from idl_audit.search.branching.phased import PhasedSearch
from idl_audit.search.branching.root import root_bounds
from idl_audit.search.branching.tree import Tree
from idl_audit.search.judge import Judge
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.query import Conjunction, Query
from tests.shared.budgets import enough, few, no_time
from tests.shared.format_1 import refused
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    dense,
    exact,
    graph,
    layered,
    long_double,
    minimum_by_patterns,
    pool_of_doubled,
    pool_of_inputs,
    pooled_network,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)
CONVEX = ("relu", "leaky", "negative", "abs", "identity")
"""The kinks that branch; a convex PReLU is made by hand."""
SHARES = (-0.2, -0.02, 0.02, 0.2)


def one_row(functional: FloatArray, offset: float) -> Conjunction:
    return Conjunction(functional[None], np.array([offset]))


def own_network(model: ImplicitModel) -> Callable[[Float32Array], FloatArray]:
    return lambda points: model(np.asarray(points, np.float64))


def below(rows: object, offsets: object) -> Conjunction:
    """Return rows y + offsets <= 0."""
    return Conjunction(np.atleast_2d(np.asarray(rows, np.float64)), np.atleast_1d(np.asarray(offsets, np.float64)))


def box32(rng: np.random.Generator, p: int, widths: tuple[float, ...] = (0.0, 1e-3, 0.3, 1.0)) -> Box:
    """Return a box whose bounds are float32 numbers: every corner can be handed to the network."""
    centre, width = rng.normal(size=p) * 0.3, rng.choice(widths, size=p)
    lo, hi = (centre - width).astype(np.float32), (centre + width).astype(np.float32)
    return Box.between(lo, hi)


def run(model: ImplicitModel, query: Query) -> BranchOutcome:
    return branch(model, query, budget=enough(), judge=Judge.of_model(model, query))


def check_point(outcome: BranchOutcome, query: Query, outputs: Callable[[Float32Array], FloatArray]) -> None:
    """A point is in the box and the network's own outputs there satisfy an alternative; it excludes a proof."""
    if outcome.point is None:
        return
    assert not outcome.proved
    assert outcome.point.dtype == np.float32
    assert query.box.contains(outcome.point)
    assert query.holds(outputs(outcome.point[None]))[0]


def joined(model: ImplicitModel) -> bool:
    """Return whether every block reads all older ones, at first or second hand, and the outputs read all."""
    reached: dict[int, set[int]] = {}
    for k in model.evaluation_order:
        own = model.rows[k].states
        reached[k] = set(own).union(*(reached[j] for j in own))
        if reached[k] != set(range(k + 1, len(model.blocks))):
            return False
    last = model.output.states
    return set(last).union(*(reached[j] for j in last)) == set(range(len(model.blocks)))


def small_case(seed: int) -> tuple[ImplicitModel, Box, FloatArray, float]:
    """Return a random model of at most 12 states, a box, a functional and its exact minimum."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 4))
    widths = ((3, 3), (4, 4), (2, 2, 2, 2), (6,), (5, 4, 3))[rng.integers(5)]
    names = [str(rng.choice(CONVEX))] if rng.random() < 0.5 else CONVEX
    model = random_network(rng, p=p, widths=widths, q=2, activations=names)
    while not joined(model):
        model = random_network(rng, p=p, widths=widths, q=2, activations=names)
    box = box32(rng, p)
    functional = rng.normal(size=2)
    return model, box, functional, minimum_by_patterns(model, functional, box)


def a_tent() -> ImplicitModel:
    """Return y = relu(u_0 + u_1) + relu(-u_0 - u_1) - relu(u_0 - u_1): least -2 on [-1, 1]^2, at (1, -1)."""
    return layered([([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], [0.0, 0.0, 0.0])], ([[1.0, 1.0, -1.0]], [0.0]))


def folded() -> ImplicitModel:
    """Return y = ||u_0| - 1/2| + ||u_1| - 1/2| - 1/2 |u_0|: least -1/4, where |u_0| = |u_1| = 1/2."""
    first = [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]
    second = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.0]], [-0.5, -0.5, 0.0]
    return layered([first, second], ([[1.0, 1.0, -1.0]], [0.0]), ACTIVATIONS["abs"]())


SQUARE = Box.between(-np.ones(2), np.ones(2))


# ---------------------------------------------------------------------------------------------- decisions


def decide_small(seed: int, share: float) -> tuple[BranchOutcome, float]:
    """Decide functional . y <= truth - gap and check what must hold of any answer."""
    model, box, functional, truth = small_case(seed)
    gap = share * (1 + abs(truth))
    query = Query(box, (below(functional, [gap - truth]),))
    outcome = run(model, query)
    assert not (outcome.proved and gap < 0), "a query with a counterexample was proved"
    check_point(outcome, query, own_network(model))
    if outcome.point is not None:
        assert gap < 1e-9
    if outcome.proved:
        assert outcome.open == 0
        assert 0 < outcome.lowers[0] <= gap + 1e-9
    else:
        assert outcome.point is not None or outcome.open
    return outcome, gap


@pytest.mark.parametrize("some", [(0, 1, 5, 8, 10), pytest.param(tuple(range(60)), marks=pytest.mark.slow)])
def test_proofs_and_points_agree_with_exact_minima_and_most_queries_are_decided(some: tuple[int, ...]) -> None:
    tried, decided, proved, split = 0, 0, 0, 0
    for seed in some:
        for share in SHARES[seed % 2 :: 2]:
            outcome, _ = decide_small(seed, share)
            tried += 1
            decided += outcome.proved or outcome.point is not None
            proved += outcome.proved
            split += outcome.leaves > 1
    assert proved > 0.4 * tried
    assert split, "nothing branches: this test checks no tree"
    assert decided >= 0.8 * tried


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(seed=seeds, share=st.sampled_from(SHARES))
def test_no_random_query_is_decided_wrongly(seed: int, share: float) -> None:
    decide_small(seed, share)


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_a_functional_that_touches_zero_is_never_proved_positive(seed: int) -> None:
    model, box, functional, truth = small_case(seed)
    for offset in (-truth - 1e-9 * (1 + abs(truth)), -truth - 1e-6 * (1 + abs(truth))):
        assert not run(model, Query(box, (below(functional, [offset]),))).proved


@pytest.mark.parametrize(
    ("weights", "output"),
    [
        ([[1.0]], [[1.0]]),  # relu(u): 0 on half the box
        ([[1.0], [-1.0]], [[1.0, 1.0]]),  # |u|: 0 in the middle only, at no corner
        ([[1.0], [1.0]], [[1.0, -1.0]]),  # 0 everywhere
        ([[0.0]], [[1.0]]),
    ],
)
def test_an_attained_zero_is_no_proof(weights: object, output: object) -> None:
    model = layered([(weights, np.zeros(len(np.atleast_2d(np.asarray(weights)))))], (output, [0.0]))
    query = Query(Box.between(-np.ones(1), np.ones(1)), (below([[1.0]], [0.0]),))
    outcome = run(model, query)
    assert not outcome.proved
    check_point(outcome, query, own_network(model))


@pytest.mark.parametrize("exponent", [-30, -12, -6, 6, 12, 30])
@pytest.mark.parametrize("inputs_too", [False, True])
def test_scales_of_boxes_and_outputs_break_nothing(exponent: int, inputs_too: bool) -> None:
    rng = np.random.default_rng(5)
    factor = 10.0**exponent
    first = rng.normal(size=(4, 2)) / (factor if inputs_too else 1), rng.normal(size=4) * 0.2
    model = layered([first, (rng.normal(size=(4, 4)), np.zeros(4))], (rng.normal(size=(1, 4)) * factor, [0.0]))
    side = np.float32(factor if inputs_too else 1.0)
    box = Box.between(-side * np.ones(2, np.float32), side * np.ones(2, np.float32))
    truth = float(ExactModel(model).minimum(np.ones(1), box))
    for share in SHARES:
        query = Query(box, (below([[1.0]], [share * abs(truth) - truth]),))
        outcome = run(model, query)
        assert not (outcome.proved and share < 0)
        assert not (outcome.point is not None and share > 0)
        check_point(outcome, query, own_network(model))


@settings(deadline=None, max_examples=15)
@given(seed=seeds, smooth=st.booleans())
def test_several_alternatives_with_several_rows(seed: int, smooth: bool) -> None:
    rng = np.random.default_rng(seed)
    names = [*SMOOTH, "relu"] if smooth else list(KINKED)
    model = random_network(rng, p=3, widths=(4, 3), q=2, activations=names, skips=False)
    box = box32(rng, 3)
    y = model(some_points(rng, box, 300))
    rows = [rng.normal(size=(k, 2)) for k in (1, 2, 3)]
    # offsets that put the nearest sample about the threshold: both answers occur
    query = Query(
        box, tuple(below(r, np.full(len(r), -(y @ r.T).max(axis=1).min() + rng.normal() * 0.05)) for r in rows)
    )
    outcome = run(model, query)
    assert not (outcome.proved and query.holds(y).any())
    check_point(outcome, query, own_network(model))
    assert len(outcome.lowers) == 3
    for r, lower, alternative in zip(rows, outcome.lowers, query.alternatives, strict=True):
        best = (y @ r.T + alternative.offsets).max(axis=1).min()
        assert lower <= best + 1e-9


def test_one_refuted_row_refutes_its_alternative_only() -> None:
    model = a_tent()
    impossible, possible = below([[1.0], [-1.0]], [0.5, 2.5]), below([[1.0]], [0.5])  # y <= -.5 and y >= 2.5 at once
    assert run(model, Query(SQUARE, (impossible,))).proved
    outcome = run(model, Query(SQUARE, (impossible, possible)))
    assert not outcome.proved
    assert outcome.point is not None
    assert model(outcome.point[None].astype(np.float64))[0, 0] <= -0.5


def test_a_tree_is_grown_where_the_relaxation_has_a_gap() -> None:
    outcome, gap = decide_small(17, 0.02)
    assert outcome.proved
    assert outcome.leaves > 3
    assert 0 < outcome.lowers[0] <= gap


# ---------------------------------------------------------------------------------------------- other activations


@settings(deadline=None, max_examples=12)
@given(seed=seeds)
def test_smooth_and_softmax_blocks_are_never_decided_wrongly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["tanh", "sigmoid", "relu", "softmax", "leaky"]
    model = random_network(rng, p=2, widths=(4, 4), q=2, activations=names, skips=False)
    box = box32(rng, 2)
    y = model(some_points(rng, box, 500))
    row = rng.normal(size=2)
    least = float((y @ row).min())
    for offset in (0.3 - least, -1e-6 - least):
        query = Query(box, (below(row, [offset]),))
        outcome = run(model, query)
        assert not (outcome.proved and query.holds(y).any())
        check_point(outcome, query, own_network(model))


def test_a_softmax_is_bounded() -> None:
    softmax = ACTIVATIONS["softmax"](2)
    model = layered([(np.eye(2), np.zeros(2))], ([[1.0, 0.0]], [0.0]), softmax)
    truth = float(softmax(np.array([[-1.0, 1.0]]))[0, 0])
    proved = run(model, Query(SQUARE, (below([[1.0]], [-truth + 1e-6]),)))
    assert proved.proved
    query = Query(SQUARE, (below([[1.0]], [-truth - 1e-4]),))
    met = run(model, query)
    assert not met.proved
    check_point(met, query, own_network(model))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_maxima_have_their_exact_least_value(n: int) -> None:
    lo = np.linspace(-1.0, 0.25, n)
    box = Box.between(lo, lo + 1)
    for model, truth in ((pool_of_doubled(n), 2 * lo.max()), (pool_of_inputs(n), lo.max())):
        assert run(model, Query(box, (below([[1.0]], [0.01 - truth]),))).proved
        query = Query(box, (below([[1.0]], [-0.01 - truth]),))
        outcome = run(model, query)
        assert outcome.point is not None
        check_point(outcome, query, own_network(model))


@pytest.mark.parametrize("seed", range(4))
def test_pooled_convolutions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = pooled_network(rng, size=3, q=1)
    moving = rng.choice(9, 2, replace=False)
    centre = rng.normal(size=9).astype(np.float32).astype(np.float64)
    lo, hi = centre.copy(), centre.copy()
    lo[moving], hi[moving] = centre[moving] - 0.5, centre[moving] + 0.5
    box = Box.between(lo, hi)
    truth = minimum_by_patterns(model, np.ones(1), box)
    for share in SHARES:
        query = Query(box, (below([[1.0]], [share * (1 + abs(truth)) - truth]),))
        outcome = run(model, query)
        assert not (outcome.proved and share < 0)
        assert not (outcome.point is not None and share > 0)
        check_point(outcome, query, own_network(model))


def test_a_prelu_with_slopes_of_its_own_branches() -> None:
    rng = np.random.default_rng(3)
    activation = ACTIVATIONS["leaky_relu"](np.array([-1.5, 0.2, 1.0, -0.3]))
    model = layered([(rng.normal(size=(4, 2)), rng.normal(size=4) * 0.2)], (rng.normal(size=(1, 4)), [0.0]), activation)
    truth = minimum_by_patterns(model, np.ones(1), SQUARE)
    for share in SHARES:
        outcome = run(model, Query(SQUARE, (below([[1.0]], [share - truth]),)))
        assert outcome.proved == (share > 0)
        assert (outcome.point is not None) == (share < 0)


# ---------------------------------------------------------------------------------------------- degenerate models


def test_points_without_width() -> None:
    model = a_tent()
    point = np.array([0.5, 0.25])
    value = float(model(point[None])[0, 0])
    box = Box.between(point, point)
    assert run(model, Query(box, (below([[1.0]], [1e-6 - value]),))).proved
    outcome = run(model, Query(box, (below([[1.0]], [-value]),)))
    assert outcome.point is not None
    np.testing.assert_array_equal(outcome.point, point)


def test_a_box_without_float32_points_yields_no_point() -> None:
    point = np.array([0.1, 0.2])
    model = a_tent()
    value = float(model(point[None])[0, 0])
    outcome = run(model, Query(Box.between(point, point), (below([[1.0]], [-value - 0.1]),)))
    assert not outcome.proved
    assert outcome.point is None
    assert outcome.open


def without_states() -> ImplicitModel:
    return ImplicitModel((), (), Affine({}, dense([[1.0, -2.0]]), np.array([0.5])), (2,), (1,))


def test_a_model_without_states() -> None:
    model = without_states()
    assert run(model, Query(SQUARE, (below([[1.0]], [2.5 + 1e-9]),))).proved
    outcome = run(model, Query(SQUARE, (below([[1.0]], [2.5]),)))
    assert outcome.point is not None
    np.testing.assert_array_equal(outcome.point, [-1.0, 1.0])


def test_no_alternatives_have_no_counterexample() -> None:
    outcome = run(a_tent(), Query(SQUARE, ()))
    assert outcome.proved
    assert outcome.lowers == ()


def constants_only() -> ImplicitModel:
    """Return y = relu(1), which reads no input."""
    block = StateBlock("constant", "Relu", ACTIVATIONS["relu"](), (1,))
    return ImplicitModel(
        (block,), (Affine({}, None, np.ones(1)),), Affine({0: dense([[1.0]])}, None, np.zeros(1)), (2,), (1,)
    )


def test_constants_that_are_proved() -> None:
    assert run(constants_only(), Query(SQUARE, (below([[1.0]], [-0.999]),))).proved


def test_constants_that_are_met() -> None:
    outcome = run(constants_only(), Query(SQUARE, (below([[1.0]], [-1.0]),)))
    assert outcome.point is not None


def parallel() -> ImplicitModel:
    """Return y = (relu(relu(2 u_0) - 1/2), relu(u_1)), two branches that do not meet, made one after the other."""
    relu = ACTIVATIONS["relu"]()
    blocks = tuple(StateBlock(name, "Relu", relu, (1,)) for name in ("late", "first", "other"))
    rows = (
        Affine({1: dense([[1.0]])}, None, np.array([-0.5])),
        Affine({}, dense([[2.0, 0.0]]), np.zeros(1)),
        Affine({}, dense([[0.0, 1.0]]), np.zeros(1)),
    )
    return ImplicitModel(
        blocks, rows, Affine({0: dense([[1.0], [0.0]]), 2: dense([[0.0], [1.0]])}, None, np.zeros(2)), (2,), (2,)
    )


def skipping() -> ImplicitModel:
    """Return y = u_0, with a ReLU state that no output reads."""
    block = StateBlock("unread", "Relu", ACTIVATIONS["relu"](), (1,))
    return ImplicitModel(
        (block,),
        (Affine({}, dense([[0.0, 1.0]]), np.zeros(1)),),
        Affine({}, dense([[1.0, 0.0]]), np.zeros(1)),
        (2,),
        (1,),
    )


def behind_identity() -> ImplicitModel:
    """Return y = relu(id(u_0)) + relu(u_1): the newest block reads only a block that does not bend."""
    relu, identity = ACTIVATIONS["relu"](), ACTIVATIONS["identity"]()
    blocks = (
        StateBlock("newest", "Relu", relu, (1,)),
        StateBlock("cut", "Identity", identity, (1,)),
        StateBlock("other", "Relu", relu, (1,)),
    )
    rows = (
        Affine({1: dense([[1.0]])}, None, np.zeros(1)),
        Affine({}, dense([[1.0, 0.0]]), np.zeros(1)),
        Affine({}, dense([[0.0, 1.0]]), np.zeros(1)),
    )
    return ImplicitModel(blocks, rows, Affine({0: dense([[1.0]]), 2: dense([[1.0]])}, None, np.zeros(1)), (2,), (1,))


@pytest.mark.parametrize("make", [skipping, behind_identity])
def test_functionals_that_read_no_unstable_block(make: Callable[[], ImplicitModel]) -> None:
    model = make()
    truth = minimum_by_patterns(model, np.ones(1), SQUARE)
    assert run(model, Query(SQUARE, (below([[1.0]], [0.01 - truth]),))).proved
    outcome = run(model, Query(SQUARE, (below([[1.0]], [-0.01 - truth]),)))
    assert not outcome.proved


def test_branches_that_do_not_meet() -> None:
    model = parallel()
    query = Query(SQUARE, (below([[1.0, 1.0]], [0.01]),))
    assert run(model, query).proved
    assert not run(model, Query(SQUARE, (below([[1.0, 1.0]], [0.0]),))).proved


def test_loops_are_refused() -> None:
    block = StateBlock("loop", "Loop", ACTIVATIONS["relu"](), (1,))
    model = ImplicitModel(
        (block,),
        (Affine({0: dense([[0.5]])}, dense([[1.0]]), np.zeros(1)),),
        Affine({0: dense([[1.0]])}, None, np.zeros(1)),
        (1,),
        (1,),
    )
    assert not branching.applies(model)
    with pytest.raises(UnsupportedModelError, match="feed-forward"):
        run(model, Query(Box.between(-np.ones(1), np.ones(1)), (below([[1.0]], [1.0]),)))


@pytest.mark.parametrize("name", ["normalised", "softmax"])
def test_groups_beside_other_states_are_refused(name: str) -> None:
    phi = Mixed((ACTIVATIONS[name](width=2.0), ACTIVATIONS["relu"]()), (2, 1))
    model = ImplicitModel(
        (StateBlock("mixed", "Mixed", phi, (3,)),),
        (Affine({}, dense([[1.0], [0.0], [1.0]]), np.zeros(3)),),
        Affine({0: dense([[1.0, 0.0, 1.0]])}, None, np.zeros(1)),
        (1,),
        (1,),
    )
    assert not branching.applies(model)
    with pytest.raises(UnsupportedModelError, match="blocks of their own"):
        run(model, Query(Box.between(-np.ones(1), np.ones(1)), (below([[1.0]], [1.0]),)))


# ---------------------------------------------------------------------------------------------- incompleteness


@pytest.mark.parametrize(
    ("seed", "share"),
    [
        (5, -0.02),
        (17, -0.002),
        (17, 0.002),
        (45, 0.002),
    ],
)
def test_leaves_without_a_state_to_split_are_decided(seed: int, share: float) -> None:
    outcome, gap = decide_small(seed, share)
    assert outcome.proved == (gap > 0)
    assert (outcome.point is not None) == (gap < 0)


def folded_by_concave_kinks() -> ImplicitModel:
    """Return `folded()` with |z| = -(phi(z) + phi(-z)), phi(z) = min(z, 2 z)."""
    first = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    z0, z1 = np.array([-1.0, -1.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0, -1.0])
    second = np.stack([z0, -z0, z1, -z1, z0 / 2, -z0 / 2])
    shifts = [-0.5, 0.5, -0.5, 0.5, 0.0, 0.0]
    output = [[-1.0, -1.0, -1.0, -1.0, 1.0, 1.0]]
    return layered([(first, np.zeros(4)), (second, shifts)], (output, [0.0]), ACTIVATIONS["leaky_relu"](2.0))


def test_concave_kinks_do_not_keep_a_property_open() -> None:
    model = folded_by_concave_kinks()
    points = some_points(np.random.default_rng(0), SQUARE, 200)
    np.testing.assert_allclose(model(points), folded()(points), atol=1e-12)
    assert run(model, Query(SQUARE, (below([[1.0]], [0.26]),))).proved


# ---------------------------------------------------------------------------------------------- a search that lies


Lie = Callable[[Found, np.random.Generator], Found]


def _each(found: Found, change: Callable[[torch.Tensor], torch.Tensor]) -> Found:
    return Found(
        torch.full_like(found.bound, 1e9),
        {k: change(value) for k, value in found.slopes.items()},
        {k: change(value) for k, value in found.multipliers.items()},
        {k: change(value) for k, value in found.seen.items()},
    )


def _noise(scale: float) -> Lie:
    def lie(found: Found, rng: np.random.Generator) -> Found:
        return _each(found, lambda v: torch.from_numpy((rng.normal(size=v.shape) * scale).astype(np.float32)))

    return lie


def _some(value: float) -> Lie:
    def lie(found: Found, rng: np.random.Generator) -> Found:
        def change(v: torch.Tensor) -> torch.Tensor:
            return torch.where(torch.from_numpy(rng.random(v.shape) < 0.3), torch.full_like(v, value), v)

        return _each(found, change)

    return lie


def _wrong_signs(found: Found, rng: np.random.Generator) -> Found:
    return Found(
        torch.full_like(found.bound, 1e9),
        found.slopes,
        {k: -value - float(rng.exponential()) for k, value in found.multipliers.items()},
        found.seen,
    )


def _only_the_bound(found: Found, rng: np.random.Generator) -> Found:
    return Found(torch.full_like(found.bound, 1e9), found.slopes, found.multipliers, found.seen)


LIES: dict[str, Lie] = {
    "bounds of 1e9": _only_the_bound,
    "noise": _noise(1.0),
    "huge noise": _noise(1e30),
    "NaN": _some(float("nan")),
    "infinities": _some(float("inf")),
    "multipliers of the wrong sign": _wrong_signs,
}


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lie, int], None]:
    def install(lie: Lie, seed: int) -> None:
        rng = np.random.default_rng(seed)

        def false_ascend(*args: Any, **options: Any) -> Found:
            return lie(ascend(*args, **{**options, "steps": min(options["steps"], 3)}), rng)

        for module in (search, root, phased):
            monkeypatch.setattr(module, "ascend", false_ascend)

    return install


@pytest.mark.parametrize("name", LIES)
def test_no_lie_of_the_search_proves_what_is_false(name: str, lying: Callable[[Lie, int], None]) -> None:
    lying(LIES[name], 1)
    for seed in (0, 1, 2, 4, 6, 9, 10, 11, 13, 14, 15, 16):
        model, box, functional, truth = small_case(seed)
        gap = 1e-6 * (1 + abs(truth))
        with np.errstate(all="ignore"):
            outcome = run(model, Query(box, (below(functional, [-gap - truth]),)))
        assert not outcome.proved
        check_point(outcome, Query(box, (below(functional, [-gap - truth]),)), own_network(model))
        assert outcome.lowers[0] <= 0


def test_lies_do_not_keep_true_statements_from_being_sound(lying: Callable[[Lie, int], None]) -> None:
    lying(_only_the_bound, 1)
    outcome = run(folded(), Query(SQUARE, (below([[1.0]], [1.5]),)))
    assert outcome.proved
    assert outcome.lowers[0] <= 1.25 + 1e-9


@settings(deadline=None, max_examples=8)
@given(seed=seeds)
def test_any_state_may_be_split_even_one_that_has_a_phase(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, box, functional, truth = small_case(seed)

    def anything(self: PhasedSearch, found: Found, lines: object, phases: Any) -> Any:
        return rng.integers(0, self.n_phases, len(phases)) if self.n_phases else np.full(len(phases), -1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhasedSearch, "_splits", anything)
        net = SearchNet(model, box)
        inputs = Interval.of_boxes(box)
        bounds = interval_bounds(model, inputs)
        offset = -truth - 1e-7 * (1 + abs(truth))
        with np.errstate(all="ignore"):  # stable states are split too: intervals without a point
            outcome = Tree(net, inputs, bounds, one_row(functional, offset), 0, lambda points: False).grow(few(100))
    assert not outcome.proved
    assert outcome.open
    assert outcome.lower == -np.inf


# ---------------------------------------------------------------------------------------------- leaves


def _vertices(model: ImplicitModel, functional: FloatArray, box: Box) -> list[tuple[dict[int, Any], Any]]:
    """Return (z, functional . y) at every vertex of every linear piece, exact; z as block -> one Fraction a state."""
    one = ExactModel(model)
    corners = {v for vertices, _ in one._cells(box) for v in vertices}
    found = []
    for corner in corners:
        z, y = _at(one, corner)
        found.append((z, sum(exact(functional) * y)))
    return found


def _at(one: ExactModel, corner: tuple[Any, ...]) -> tuple[dict[int, Any], Any]:
    u = np.empty(len(corner), object)
    u[:] = list(corner)
    z: dict[int, Any] = {}
    x: dict[int, Any] = {}
    for k in one.model.evaluation_order:
        z[k] = one.rows[k](x, u)
        x[k] = one.phi(k, z[k])
    return z, one.output(x, u)


@settings(deadline=None, max_examples=12)
@given(seed=seeds, wild=st.booleans())
def test_proofs_of_random_leaves_lie_below_the_exact_minimum_of_their_region(seed: int, wild: bool) -> None:
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 3))
    model = random_network(rng, p=p, widths=(3, 3), q=2, activations=list(KINKED))
    box = box32(rng, p, (0.3, 1.0))
    functional = rng.normal(size=2)
    inputs = Interval.of_boxes(box)
    bounds = interval_bounds(model, inputs)
    corners = _vertices(model, functional, box)
    m = 60
    z, slopes, splits, phases = {}, {}, {}, {}
    for k, known in bounds.z.items():
        n = model.blocks[k].size
        open_states = (known.lo < 0) & (known.hi > 0)
        phases[k] = np.where(open_states, rng.choice([-1, 0, 0, 1], size=(m, n)), 0)
        z[k] = Interval(
            np.where(phases[k] > 0, np.maximum(known.lo, 0.0), known.lo),
            np.where(phases[k] < 0, np.minimum(known.hi, 0.0), known.hi),
        )
        scale = 3.0 if wild else 0.3
        slopes[k] = 0.5 + rng.normal(size=(m, n)) * scale
        splits[k] = phases[k] * rng.exponential(size=(m, n)) * scale + wild * rng.normal(size=(m, n))
    boxes = Interval(np.repeat(inputs.lo, m, axis=0), np.repeat(inputs.hi, m, axis=0))
    proved = prove_leaves(model, boxes, StateBounds(z), np.tile(functional, (m, 1)), slopes, splits)
    points = some_points(rng, box, 2000)
    z_at, _, y_at = long_double(model, points)
    for i in range(m):
        inside = [f for at, f in corners if all((at[k] * phases[k][i] >= 0).all() for k in phases)]
        assert not inside or exact(proved[i]).item() <= min(inside)
        there = np.logical_and.reduce([(z_at[k] * phases[k][i] >= 0).all(axis=1) for k in phases])
        if there.any():
            assert proved[i] <= (y_at[there] @ functional.astype(np.longdouble)).min()


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5, 6])
def test_leaves_cover_the_box(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is closed: every point of the box lies in a leaf that was closed or is open."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(6, 6), q=1, activations=["relu", "abs"], skips=False)
    box = box32(rng, 3, (1.0,))
    nodes: list[FloatArray] = []

    def some_proofs(self: Tree, phases: Any, found: Found, rows: Any) -> FloatArray:
        return np.where(rng.random(len(phases)) < (0.4 if phases.any() else 0.0), 1.0, -1.0)

    searched = Tree._search

    def recorded(self: Tree, phases: Any, parents: Any, steps: int, rate: float = 0.25) -> Any:
        nodes.extend(phases.copy())
        found, scores = searched(self, phases, parents, 1)
        found.bound = torch.ones_like(found.bound)
        return found, scores

    monkeypatch.setattr(Tree, "_prove", some_proofs)
    monkeypatch.setattr(Tree, "_search", recorded)
    net, inputs = SearchNet(model, box), Interval.of_boxes(box)
    grown = Tree(net, inputs, interval_bounds(model, inputs), one_row(np.ones(1), 0.0), 0, lambda points: False)
    outcome = grown.grow(few())
    all_nodes = np.unique(np.array(nodes), axis=0)  # a leaf without a state to split is searched more than once
    split = {tuple(np.where(np.arange(len(a)) == i, 0, a)) for a in all_nodes for i in np.flatnonzero(a)}
    leaves = np.array([a for a in all_nodes if tuple(a) not in split])
    assert len(leaves) == len({tuple(a) for a in leaves}) == outcome.leaves + outcome.open
    assert len(leaves) > 2
    z, _, _ = long_double(model, some_points(rng, box, 2000))
    signs = np.hstack([np.sign(z[k]) for k in sorted(net.bent)])
    assert ((signs[:, None, :] * leaves[None] >= 0).all(axis=2)).any(axis=1).all()


# ---------------------------------------------------------------------------------------------- chains


def split_case() -> tuple[ImplicitModel, Box, FloatArray, float]:
    """Return the case whose proof at a gap of 2 % needs a tree."""
    model, box, functional, truth = small_case(17)
    return model, box, functional, truth


def test_a_recorded_chain_proves_the_same_and_nothing_that_is_false() -> None:
    model, box, functional, truth = split_case()
    query = Query(box, (below(functional, [0.02 * (1 + abs(truth)) - truth]),))
    chain = Chain()
    outcome = branch(model, query, budget=enough(), judge=Judge.of_model(model, query), record=chain)
    assert outcome.proved
    leaves = chain.trees[0]
    assert sum(leaves.sizes) == outcome.leaves > 3
    assert refused(model, query, chain) == []
    false = Query(box, (below(functional, [-1e-9 - truth]),))
    assert refused(model, false, chain)
    for number in range(len(leaves.sizes)):
        less = Leaves(
            leaves.row,
            *([*own[:number], *own[number + 1 :]] for own in (leaves.phases, leaves.slopes, leaves.multipliers)),
        )
        less.sizes, less.planes = ([*own[:number], *own[number + 1 :]] for own in (leaves.sizes, leaves.planes))
        assert refused(model, query, replace(chain, trees={0: less}))


def plain_relu() -> tuple[ImplicitModel, Query]:
    """Return y = relu(u) on [-1, 1] and the query y <= 1/2, which has counterexamples."""
    line = Box.between(-np.ones(1), np.ones(1))
    return layered([([[1.0]], [0.0])], ([[1.0]], [0.0])), Query(line, (below([[-1.0]], [0.5]),))


@pytest.mark.parametrize(
    "phase",
    [
        np.array([[-1]], np.int8),
        np.array([[-0.5]]),
        np.array([[-256]], np.int64),
    ],
)
def test_half_of_the_box_is_no_proof(phase: Any) -> None:
    model, query = plain_relu()  # y >= 1/2 occurs, but not where z <= 0
    assert query.holds(model(np.ones((1, 1))))[0]
    chain = Chain(trees={0: Leaves(0, [{0: phase}], [{}], [{}], [1], [{}])})
    assert refused(model, query, chain)


@pytest.mark.parametrize("sign", [-0.25, -1e-6])
def test_a_step_has_a_sign_and_not_a_factor(sign: float) -> None:
    relu = ACTIVATIONS["relu"]()
    model = layered([([[1.0]], [0.0]), ([[1.0]], [-0.25])], ([[-1.0]], [0.0]), relu)  # least -3/4 at u = 1
    line = Box.between(-np.ones(1), np.ones(1))
    query = Query(line, (below([[1.0]], [0.5]),))
    assert query.holds(model(np.ones((1, 1))))[0]
    steps = [StateStep(0, np.array([0]), sign, {})]
    chain = Chain(steps, trees={0: Leaves(0, [{}], [{}], [{}], [1], [{}])})
    assert refused(model, query, chain)


# ---------------------------------------------------------------------------------------------- time, points, order


def test_without_nodes_only_what_needs_no_tree_is_proved() -> None:
    model, box, functional, truth = small_case(17)
    open_row = below(functional, [0.002 * (1 + abs(truth)) - truth])
    asked = Query(box, (open_row, open_row))
    outcome = branch(model, asked, budget=few(0), judge=Judge.of_model(model, asked))
    assert not outcome.proved
    assert outcome.point is None
    assert outcome.open == 2
    assert max(outcome.lowers) <= 0
    easy_query = Query(SQUARE, (below([[1.0]], [9.0]),))
    assert branch(folded(), easy_query, budget=few(0), judge=Judge.of_model(folded(), easy_query)).proved
    assert not branch(folded(), easy_query, budget=no_time(), judge=Judge.of_model(folded(), easy_query)).proved


def test_the_network_has_the_last_word() -> None:
    model = folded()
    query = Query(SQUARE, (below([[1.0]], [-0.5]),))  # y <= 1/2: easy to meet
    never = branch(
        model, query, budget=few(), judge=Judge.of(model, lambda points: np.full((len(points), 1), 9.0), query)
    )
    assert never.point is None
    assert not never.proved
    nothing = branch(
        model, query, budget=few(), judge=Judge.of(model, lambda points: np.full((len(points), 1), np.nan), query)
    )
    assert nothing.point is None
    assert not nothing.proved
    asked: list[Float32Array] = []

    def other(points: Float32Array) -> FloatArray:
        asked.append(points)
        return np.full((len(points), 1), 0.5)

    met = branch(model, query, budget=enough(), judge=Judge.of(model, other, query))
    check_point(met, query, other)
    assert met.point is not None
    assert all(query.box.contains(points).all() for points in asked)


def test_points_lie_in_the_exact_box_and_not_in_its_outer_rounding() -> None:
    model = layered([([[1.0, 1.0]], [0.0])], ([[1.0]], [0.0]))
    box = Box.around(np.array([0.1, 0.7], np.float32).astype(np.float64), 0.1)
    query = Query(box, (below([[1.0]], [-0.62]),))
    outcome = run(model, query)
    assert outcome.point is not None
    check_point(outcome, query, own_network(model))


@pytest.mark.parametrize("seed", [0, 3, 9, 31, 44])
def test_two_runs_are_equal(seed: int) -> None:
    model, box, functional, truth = small_case(seed)
    for share in (-0.02, 0.02):
        query = Query(box, (below(functional, [share * (1 + abs(truth)) - truth]),))
        one, two = (run(model, query) for _ in range(2))
        assert (one.proved, one.leaves, one.open, one.lowers) == (two.proved, two.leaves, two.open, two.lowers)
        assert np.array_equal(one.point, two.point) if one.point is not None else two.point is None


# ---------------------------------------------------------------------------------------------- the root and the search


def wide_models() -> dict[str, ImplicitModel]:
    rng = np.random.default_rng(8)
    fully = random_network(rng, p=5, widths=(20, 20, 20), q=3, activations=["relu"], skips=True)
    mixed = random_network(rng, p=4, widths=(10, 10, 10), q=3, activations=[*KINKED, *SMOOTH], skips=False)
    cancelling = random_network(
        rng, p=3, widths=(8, 8), q=2, activations=["relu", "leaky", "abs"], skips=False, cancelling=True
    )
    return {
        "fully connected": fully,
        "mixed": mixed,
        "pooled": pooled_network(rng, size=5, q=2),
        "cancelling": cancelling,
    }


@pytest.mark.parametrize("name", wide_models())
def test_no_point_leaves_the_bounds_of_the_root(name: str) -> None:
    model = wide_models()[name]
    rng = np.random.default_rng(2)
    for radius in (1e-3, 0.2, 1.0):
        centre = np.zeros(model.n_inputs) if name == "cancelling" else rng.normal(size=model.n_inputs) * 0.3
        box = Box.between(centre - radius, centre + radius)
        bounds = root_bounds(SearchNet(model, box), Interval.of_boxes(box), budget=enough(), steps=5)
        plain = interval_bounds(model, Interval.of_boxes(box))
        z, x, _ = long_double(model, some_points(rng, box, 100_000 // (3 * 3 * 4)))
        for k, own in bounds.z.items():
            assert (own.lo <= z[k]).all()
            assert (z[k] <= own.hi).all()
            assert (bounds.x[k].lo <= x[k] * (1 + 1e-15) + 1e-300).all()
            assert (own.lo >= plain.z[k].lo - 1e-9).all()


def conv_model(rng: np.random.Generator, attributes: dict[str, Any], kernel: tuple[int, ...]) -> ImplicitModel:
    weights = rng.normal(size=kernel).astype(np.float32)
    nodes = [
        ("Conv", ("u", "k"), "h", {"kernel_shape": kernel[2:], **attributes}),
        ("Relu", ("h",), "r", {}),
        ("Conv", ("r", "k2"), "y0", {"kernel_shape": (1, 1)}),
        ("Flatten", ("y0",), "y", {}),
    ]
    second = rng.normal(size=(2, kernel[0], 1, 1)).astype(np.float32)
    groups = attributes.get("group", 1)
    return build_implicit(graph(nodes, {"k": weights, "k2": second}, (1, kernel[1] * groups, 7, 6)))


CONVOLUTIONS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "plain": ({}, (3, 2, 3, 3)),
    "strides that leave entries unread": ({"strides": (2, 3)}, (3, 2, 2, 2)),
    "uneven pads": ({"pads": (1, 0, 2, 1)}, (3, 2, 3, 3)),
    "dilations": ({"dilations": (2, 1), "pads": (1, 1, 1, 1)}, (2, 2, 3, 3)),
    "groups": ({"group": 2, "strides": (2, 2), "pads": (1, 1, 1, 1)}, (4, 1, 3, 3)),
}


@pytest.mark.parametrize("largest", [0, 2**25])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_search_sees_the_same_bound_as_the_proof(name: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LARGEST_DENSE", largest)
    rng = np.random.default_rng(4)
    model = conv_model(rng, *CONVOLUTIONS[name])
    box = box32(rng, model.n_inputs, (0.3, 1.0))
    inputs = Interval.of_boxes(box)
    net = SearchNet(model, box)
    bounds = root_bounds(net, inputs, budget=enough(), steps=2)
    lines = {k: net.lines(k, *values) for k, values in state_tensors(bounds).items()}
    m = 3
    functionals = rng.normal(size=(m, model.n_outputs))
    slopes = {k: rng.random((m, block.size)).astype(np.float32) for k, block in enumerate(model.blocks)}
    chosen = {k: torch.from_numpy(value) for k, value in slopes.items()}
    seen = (
        net.bound(net.output, 0, torch.from_numpy(functionals.astype(np.float32)), lines, chosen, {}).double().numpy()
    )
    boxes = Interval(np.repeat(inputs.lo, m, axis=0), np.repeat(inputs.hi, m, axis=0))
    z = {k: Interval(np.repeat(b.lo, m, axis=0), np.repeat(b.hi, m, axis=0)) for k, b in bounds.z.items()}
    proved = prove_leaves(model, boxes, StateBounds(z), functionals, slopes, {})
    np.testing.assert_allclose(seen, proved, rtol=1e-4, atol=1e-4)
