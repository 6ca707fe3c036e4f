"""Leaves by linear programs: together they are brute force over all activation patterns; lies prove nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import with_phases
from idl_audit.proof.leaves import prove_leaves
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.search.exact_leaf import LeafAnswer, LeafProgram
from idl_audit.search.linprog import LinearProgram, Outcome, Solution
from idl_audit.values.box import Box
from tests.search.test_relaxation import LIES, lie
from tests.shared.small_networks import (
    KINKED,
    ExactModel,
    layered,
    long_double,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def unstable_states(model: ImplicitModel, bounds: StateBounds) -> list[tuple[int, int]]:
    return [
        (k, int(i))
        for k in model.evaluation_order
        for i in np.flatnonzero((bounds.z[k].lo[0] < 0) & (bounds.z[k].hi[0] > 0))
    ]


def all_leaves(model: ImplicitModel, bounds: StateBounds) -> Iterator[dict[int, np.ndarray]]:
    """Yield every combination of phases of the states that bend."""
    bending = unstable_states(model, bounds)
    for signs in itertools.product((1, -1), repeat=len(bending)):
        phases = {k: np.zeros((1, block.size), np.int8) for k, block in enumerate(model.blocks)}
        for (k, i), sign in zip(bending, signs, strict=True):
            phases[k][0, i] = sign
        yield phases


def recorded_bound(
    model: ImplicitModel, inputs: Interval, leaf: StateBounds, seed: np.ndarray, answer: LeafAnswer
) -> float:
    splits = {k: own[None] for k, own in answer.splits.items()}
    return float(prove_leaves(model, inputs, leaf, seed[None], {}, splits)[0])


@settings(deadline=None, max_examples=15)
@given(seed=seeds, activation=st.sampled_from(["relu", "all"]))
def test_the_least_of_all_leaves_is_the_exact_minimum_and_one_leaf_has_its_point(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    names = ["relu"] if activation == "relu" else list(KINKED)
    model = random_network(rng, p=2, widths=(3, 3), activations=names)
    box, functional = random_box(rng, 2), rng.normal(size=3)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    truth = ExactModel(model).minimum(functional, box)
    program = LeafProgram(model, inputs, bounds)
    lowers, reached = [], []
    for phases in all_leaves(model, bounds):
        leaf = with_phases(model, bounds, phases, 1)
        wanted = float(rng.normal())
        answer = program.solve(leaf, functional, wanted=wanted)
        assert answer.outcome in (Outcome.OPTIMAL, Outcome.INFEASIBLE)
        if answer.splits:
            assert recorded_bound(model, inputs, leaf, functional, answer) == answer.lower
        if answer.is_empty:
            assert answer.lower > wanted
            continue
        lowers.append(answer.lower)
        if answer.point is not None:
            inside = np.clip(answer.point, box.lo, box.hi)
            reached.append(float(model(inside[None])[0] @ functional))
    assert min(lowers) <= truth
    assert min(lowers) == pytest.approx(float(truth), abs=1e-5)
    assert min(reached) == pytest.approx(float(truth), abs=1e-5)


@pytest.mark.slow
@settings(deadline=None, max_examples=3)
@given(seed=seeds)
def test_twelve_states_have_the_minimum_of_all_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 4, 4), activations=["relu"], skips=False)
    box, functional = random_box(rng, 2, radius=0.15), rng.normal(size=3)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    program = LeafProgram(model, inputs, bounds)
    leaves = (with_phases(model, bounds, phases, 1) for phases in all_leaves(model, bounds))
    answers = [program.solve(leaf, functional) for leaf in leaves]
    least = min(answer.lower for answer in answers if not answer.is_empty)
    assert least == pytest.approx(float(ExactModel(model).minimum(functional, box)), abs=1e-5)


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_a_leaf_that_a_point_lies_in_is_never_proved_empty_nor_bounded_above_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4, 4), activations=list(KINKED))
    box, functional = random_box(rng, 3, radius=0.5), rng.normal(size=3)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    program = LeafProgram(model, inputs, bounds)
    z, _, y = long_double(model, some_points(rng, box, 4))
    for row in range(len(y)):
        phases = {k: np.where(z[k][row] >= 0, 1, -1).astype(np.int8)[None] for k in z}
        for k in phases:
            phases[k][(bounds.z[k].lo >= 0) | (bounds.z[k].hi <= 0)] = 0
        answer = program.solve(with_phases(model, bounds, phases, 1), functional)
        assert not answer.is_empty
        assert not answer.lower > y[row] @ functional.astype(np.longdouble)


def chained() -> tuple[ImplicitModel, Box]:
    """x1 = relu(u), x2 = relu(x1 + .2), y = x2."""
    model = layered([([[1.0]], [0.0]), ([[1.0]], [0.2])], ([[1.0]], [0.0]))
    return model, Box.between(-np.ones(1), np.ones(1))


def test_an_impossible_combination_of_phases_is_proved_empty_by_its_ray() -> None:
    """x1 = relu(u) <= 0 makes z2 = x1 + .2 = .2, so that z2 <= 0 has no point."""
    model, box = chained()
    inputs = Interval.of_boxes(box)
    bounds = StateBounds()
    for k, (lo, hi) in {1: (-1.0, 1.0), 0: (-1.0, 1.2)}.items():
        bounds = bounds.with_block(k, model.blocks[k], Interval(np.array([[lo]]), np.array([[hi]])))
    program = LeafProgram(model, inputs, bounds)
    for first in (1, -1):
        phases = {1: np.array([[first]], np.int8), 0: np.array([[-1]], np.int8)}
        leaf = with_phases(model, bounds, phases, 1)
        answer = program.solve(leaf, np.array([-3.0]), wanted=100.0)
        assert (answer.outcome, answer.is_empty, answer.point) == (Outcome.INFEASIBLE, True, None)
        assert answer.lower > 100.0
        assert recorded_bound(model, inputs, leaf, np.array([-3.0]), answer) > 100.0
    whole = program.solve(with_phases(model, bounds, {1: np.array([[-1]], np.int8)}, 1), np.array([1.0]))
    assert whole.lower == pytest.approx(0.2, abs=1e-6)
    assert whole.lower <= 0.2


def test_a_leaf_leaves_nothing_behind_for_the_next() -> None:
    """One program over all leaves, in any order, gives what a program of its own gives."""
    rng = np.random.default_rng(3)
    model = random_network(rng, p=2, widths=(4, 3), activations=["relu", "leaky", "abs"])
    box, functional = random_box(rng, 2, radius=1.0), rng.normal(size=3)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    kept = LeafProgram(model, inputs, bounds)
    leaves = list(all_leaves(model, bounds))
    assert len(leaves) >= 16
    for number in rng.permutation(len(leaves))[:32]:
        leaf = with_phases(model, bounds, leaves[number], 1)
        ours, fresh = kept.solve(leaf, functional), LeafProgram(model, inputs, bounds).solve(leaf, functional)
        assert ours.outcome is fresh.outcome
        if not ours.is_empty:
            assert ours.lower == pytest.approx(fresh.lower, abs=1e-5)


@pytest.mark.parametrize("kind", [*LIES, "infeasible"])
def test_a_lying_solver_proves_no_leaf_that_is_not_so(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up duals, made-up statuses and made-up rays: nothing above the least value comes out."""
    rng = np.random.default_rng(7)
    honest = LinearProgram.minimise

    def minimise(self: LinearProgram, cost: np.ndarray, *, time_limit: float | None = None) -> Solution:
        answer = honest(self, cost)
        if kind == "infeasible" or answer.point is None:
            return Solution(Outcome.INFEASIBLE)
        return lie(kind, answer, rng)

    monkeypatch.setattr(LinearProgram, "minimise", minimise)
    rows = {"nan": np.nan, "inf": np.inf, "huge": 1e300}.get(kind, 1.0)
    monkeypatch.setattr(LinearProgram, "dual_ray", lambda self: rng.normal(size=self._n_rows) * rows)
    for seed in range(6):
        own = np.random.default_rng(seed)
        model = random_network(own, p=2, widths=(3, 3), activations=list(KINKED))
        box, functional = random_box(own, 2, radius=0.6), own.normal(size=3)
        inputs = Interval.of_boxes(box)
        bounds = backward_state_bounds(model, inputs)
        program = LeafProgram(model, inputs, bounds)
        z, _, y = long_double(model, some_points(own, box, 20))
        for row in range(0, len(y), 6):
            phases = {k: np.where(z[k][row] >= 0, 1, -1).astype(np.int8)[None] for k in z}
            with np.errstate(all="ignore"):
                answer = program.solve(with_phases(model, bounds, phases, 1), functional)
            assert not answer.is_empty
            assert not answer.lower > y[row] @ functional.astype(np.longdouble)
