"""Trees of hidden states and models without their dead states: sound against samples, and no worse than before."""

from __future__ import annotations

import gc
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import (
    Chain,
    Leaves,
    StateStep,
    StateTrees,
    proved_by_trees,
)
from idl_audit.proof.convert import of_chain
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.proof.restriction import is_dead_elsewhere, living_states, restricted, restricted_bounds
from idl_audit.search.branching import BranchOutcome, branch, hidden, search
from idl_audit.search.branching.ascent import Found, ascend
from idl_audit.search.branching.hidden import tree_bounds
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.root import root_bounds
from idl_audit.search.judge import Judge
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.shared.budgets import enough
from tests.shared.format_1 import refused
from tests.shared.small_networks import long_double, minimum_by_patterns, random_network, some_points

seeds = st.integers(0, 2**32 - 1)


def a_network(seed: int, widths: tuple[int, ...] = (8, 8, 8), p: int = 3) -> tuple[ImplicitModel, Box]:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=p, widths=widths, q=2, activations=["relu"], skips=bool(seed % 2))
    centre = rng.normal(size=p).astype(np.float32).astype(np.float64)
    return model, Box.between(centre - 0.5, centre + 0.5)


def root(model: ImplicitModel, box: Box) -> tuple[SearchNet, Interval, StateBounds]:
    net, inputs = SearchNet(model, box), Interval.of_boxes(box)
    return net, inputs, root_bounds(net, inputs, budget=enough(), steps=5)


def check_states(model: ImplicitModel, box: Box, bounds: StateBounds, rng: np.random.Generator) -> None:
    """No sampled z lies outside its bounds."""
    z, _, _ = long_double(model, some_points(rng, box, 3000))
    for k, known in bounds.z.items():
        assert (z[k] >= known.lo[0]).all()
        assert (z[k] <= known.hi[0]).all()


@settings(deadline=None, max_examples=6)
@given(seed=seeds)
def test_bounds_by_trees_hold_on_samples_and_are_no_looser(seed: int) -> None:
    model, box = a_network(seed)
    net, inputs, bounds = root(model, box)
    trees: list[StateTrees] = []
    tighter, grew = tree_bounds(net, inputs, bounds, 6, budget=enough(), record=trees)
    assert grew == bool(trees)
    check_states(model, box, tighter, np.random.default_rng(seed))
    for k, known in bounds.z.items():
        assert (tighter.z[k].lo >= known.lo).all()
        assert (tighter.z[k].hi <= known.hi).all()
    assert of_chain(model, Query(box, ()), Chain(rounds=[trees])).stages


def test_trees_of_hidden_states_reach_the_exact_bounds_where_they_may_grow() -> None:
    found = 0
    for seed in range(4):
        model, box = a_network(seed, widths=(4, 4), p=2)
        net, inputs, bounds = root(model, box)
        tighter, _ = tree_bounds(net, inputs, bounds, 16, budget=enough())
        functional = np.zeros(4)
        for i in range(4):
            functional[:] = 0
            functional[i] = 1
            alone = replace(model, output=model.rows[0], output_shape=(4,))
            exact = minimum_by_patterns(alone, functional, box)
            assert tighter.z[0].lo[0, i] <= exact
            if tighter.z[0].lo[0, i] < 0 < tighter.z[0].hi[0, i] and tighter.z[0].lo[0, i] > bounds.z[0].lo[0, i]:
                found += 1
                assert tighter.z[0].lo[0, i] >= exact - 0.02 * (1 + abs(exact))
    assert found


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_a_model_without_its_dead_states_has_the_same_outputs_in_the_box(seed: int) -> None:
    model, box = a_network(seed, widths=(12, 12, 6))
    bounds = interval_bounds(model, Interval.of_boxes(box))
    kept = living_states(model, bounds)
    assert is_dead_elsewhere(model, bounds, kept)
    small = restricted(model, kept)
    assert small.n_states == model.n_states - sum(model.blocks[k].size - len(states) for k, states in kept.items())
    points = some_points(np.random.default_rng(seed), box, 50)
    np.testing.assert_allclose(small(points), model(points), rtol=1e-12, atol=1e-12)
    own = restricted_bounds(bounds, kept)
    for k, states in enumerate(small.pre_activations(points)):
        assert (states >= own.z[k].lo - 1e-9).all()
        assert (states <= own.z[k].hi + 1e-9).all()


def test_states_that_are_not_proved_dead_may_not_be_left_out() -> None:
    model, box = a_network(3)
    bounds = interval_bounds(model, Interval.of_boxes(box))
    for k, block in enumerate(model.blocks):
        for i in np.flatnonzero(bounds.z[k].hi[0] > 0):
            assert not is_dead_elsewhere(model, bounds, {k: np.delete(np.arange(block.size), i)})
    assert not is_dead_elsewhere(model, bounds, {99: np.zeros(1, np.int64)})
    assert not is_dead_elsewhere(model, bounds, {0: np.array([1, 0])})


@pytest.mark.parametrize("factor", [1e30, -1e30, np.nan, np.inf])
def test_no_lie_of_the_search_makes_a_hidden_bound_false(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(*args: object, **options: object) -> Found:
        found = ascend(*args, **options)  # type: ignore[arg-type]
        found.bound = torch.full_like(found.bound, -1.0)
        for values in (found.slopes, found.multipliers):
            for j in values:
                values[j] = values[j] * factor
        return found

    from idl_audit.search.branching import phased

    monkeypatch.setattr(phased, "ascend", lie)
    for seed in range(4):
        model, box = a_network(seed)
        net, inputs, bounds = root(model, box)
        with np.errstate(all="ignore"):
            tighter, _ = tree_bounds(net, inputs, bounds, 4, budget=enough())
        check_states(model, box, tighter, np.random.default_rng(seed))


def chained(monkeypatch: pytest.MonkeyPatch) -> tuple[ImplicitModel, Query, Chain]:
    """Return a query whose recorded proof has trees of hidden states."""
    monkeypatch.setattr(search, "STAGES", ((6, 0.0), (12, 1.0)))
    monkeypatch.setattr(hidden, "PROBE", 100)
    for seed in range(100):
        model, box = a_network(seed)
        functional = np.array([1.0, -1.0])
        least = float((model(some_points(np.random.default_rng(0), box, 5000)) @ functional).min())
        query = Query(box, (Conjunction(functional[None], np.array([0.05 * (1 + abs(least)) - least])),))
        chain = Chain()
        outcome = branch(model, query, budget=enough(), judge=Judge.of(model, model, query), record=chain)
        if outcome.proved and chain.rounds and chain.kept and any(len(t.owner) > 20 for r in chain.rounds for t in r):
            return model, query, chain
    raise AssertionError("no case with trees of hidden states")


@pytest.mark.parametrize("seed", [3, 24])
def test_a_tree_whose_worst_leaf_gets_better_goes_on_before_hidden_states_get_trees(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "STAGES", ((0, 1.0), (6, 1.0)))
    monkeypatch.setattr(search, "LARGEST_GAP", np.inf)
    monkeypatch.setattr(search, "FEW_LEAVES", 1)
    monkeypatch.setattr(hidden, "PROBE", 100)
    model, box = a_network(seed)
    functional = np.array([1.0, -1.0])
    least = float((model(some_points(np.random.default_rng(0), box, 5000)) @ functional).min())
    query = Query(box, (Conjunction(functional[None], np.array([0.02 * (1 + abs(least)) - least])),))
    for options, rounds in (({"SOON": 0}, 1), ({"FIRST_NODES": 2, "BETTER": 0.0}, 1), ({"SOON": search.SOON}, 0)):
        chain = Chain()
        with mock.patch.multiple(search, **options):
            outcome = branch(model, query, budget=enough(), judge=Judge.of(model, model, query), record=chain)
        assert (outcome.proved, len(chain.rounds)) == (True, rounds)
        assert refused(model, query, chain) == []


def test_without_a_record_the_search_is_the_same_and_keeps_no_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        return sum(type(one) in (StateStep, StateTrees, Leaves) for one in gc.get_objects())

    def kept_by(record: Chain | None) -> tuple[BranchOutcome, int]:
        course = search.Search(
            model, query, budget=enough(), judge=Judge.of(model, model, query), record=record, watch=None
        )
        outcome = course.run()
        gc.collect()
        return outcome, count() - before

    model, query, known = chained(monkeypatch)
    del known
    gc.collect()
    before = count()
    recorded, n_recorded = kept_by(Chain())
    plain, n_plain = kept_by(None)
    assert recorded.proved
    assert (plain.proved, plain.leaves, plain.lowers) == (recorded.proved, recorded.leaves, recorded.lowers)
    assert n_recorded > 2
    assert n_plain == 0


def test_a_chain_with_trees_of_hidden_states_is_checked_leaf_by_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    model, query, chain = chained(monkeypatch)
    assert refused(model, query, chain) == []
    assert refused(model, query, replace(chain, rounds=[])), "the trees rely on the rounds"
    assert refused(model, query, replace(chain, kept={k: v[:-1] for k, v in chain.kept.items()}))
    for number, trees in enumerate(chain.rounds[0]):
        split = int(trees.owner[np.argmax(np.bincount(trees.owner)[trees.owner])])
        gone = int(np.flatnonzero(trees.owner == split)[0])
        rest = np.delete(np.arange(trees.owner.size), gone)
        less = StateTrees(
            trees.block,
            trees.states,
            trees.signs,
            trees.owner[rest],
            *({j: v[rest] for j, v in values.items()} for values in (trees.phases, trees.slopes, trees.multipliers)),
        )
        broken = [[*chain.rounds[0][:number], less, *chain.rounds[0][number + 1 :]], *chain.rounds[1:]]
        assert refused(model, query, replace(chain, rounds=broken)), "a leaf is missing"


def test_leaves_of_hidden_states_with_any_numbers_give_valid_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, query, chain = chained(monkeypatch)
    small = restricted(model, chain.kept)
    box = query.box
    inputs = Interval.of_boxes(box)
    bounds = interval_bounds(small, inputs)
    rng = np.random.default_rng(0)
    for trees in chain.rounds[0]:
        wild = replace(
            trees,
            slopes={j: rng.normal(size=v.shape).astype(np.float32) for j, v in trees.slopes.items()},
            multipliers={j: rng.normal(size=v.shape).astype(np.float32) for j, v in trees.multipliers.items()},
        )
        z = proved_by_trees(small, inputs, bounds, wild)
        at, _, _ = long_double(small, some_points(rng, box, 2000))
        inside = np.logical_and.reduce(
            [(v >= bounds.z[k].lo[0]).all(axis=1) & (v <= bounds.z[k].hi[0]).all(axis=1) for k, v in at.items()]
        )
        assert (at[trees.block][inside] >= z.lo[0]).all()
        assert (at[trees.block][inside] <= z.hi[0]).all()


GAPS = {"tanh": 0.1, "sigmoid": 0.02, "gelu": 0.2, "prelu": 0.05}
"""Share of the outputs' range by which the property holds: what lines alone seldom prove."""


@pytest.mark.slow
@pytest.mark.parametrize("activation", GAPS)
def test_states_that_bend_smoothly_or_downward_are_split_and_their_chains_hold(activation: str) -> None:
    by_lines, by_trees = 0, 0  # of six properties
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(6, 6), q=1, activations=[activation], skips=False)
        box = Box.around(rng.normal(size=2).astype(np.float32).astype(np.float64), 1.0)
        inputs = Interval.of_boxes(box)
        y = model(some_points(rng, box, 20_000))[:, 0]
        least, gap = float(y.min()), GAPS[activation] * float(np.ptp(y))
        query = Query(box, (Conjunction(np.ones((1, 1)), np.array([gap - least])),))
        lower = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), np.ones((1, 1)))
        by_lines += int(lower[0, 0] + gap - least > 0)
        chain = Chain()
        outcome = branch(model, query, budget=enough(), judge=Judge.of(model, model, query), record=chain)
        by_trees += int(outcome.proved)
        if outcome.proved:
            assert refused(model, query, chain) == []
            false = Query(box, (Conjunction(np.ones((1, 1)), np.array([-1e-6 - least])),))
            assert refused(model, false, chain)
    assert by_trees > by_lines
