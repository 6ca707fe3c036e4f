"""The mixed-integer program: brute force over all activation patterns, a finder of points, never a proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide.verdicts import Reason, Verdict
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.search.attacks import AttackOptions
from idl_audit.search.linprog import MixedIntegerProgram, Outcome, SignSearch
from idl_audit.search.mixed_integer import BigMProgram
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.errors import BudgetError, UnsupportedModelError
from tests.decide.test_verdicts import clean_label, contradiction, hard_network, run
from tests.shared.budgets import Ticking, few, no_time
from tests.shared.small_networks import KINKED, ExactModel, layered, random_box, random_network

seeds = st.integers(0, 2**32 - 1)


def searched(
    model: ImplicitModel, box: Box, functional: FloatArray, *, accept: bool = False, budget: Budget = UNLIMITED
) -> tuple[SignSearch, list[float]]:
    """Return how the search ended, and the functional's value at every point that was proposed."""
    inputs = Interval.of_boxes(box)
    values: list[float] = []

    def propose(point: FloatArray) -> bool:
        assert ((point >= box.lo - 1e-6) & (point <= box.hi + 1e-6)).all()
        values.append(float(model(np.clip(point, box.lo, box.hi)[None])[0] @ functional))
        return accept and values[-1] < 0

    program = BigMProgram(model, inputs, backward_state_bounds(model, inputs), budget=budget)
    return program.find_negative(functional, propose=propose), values


def agrees(found: SignSearch, values: list[float], truth: float) -> bool:
    if abs(truth) < 1e-5:
        return True  # the sign is a matter of the solver's tolerance
    if truth > 0:
        return found.denied and not found.accepted
    return not found.denied and abs(min(values) - truth) < 1e-5


@settings(deadline=None, max_examples=20)
@given(seed=seeds, relu=st.booleans())
def test_the_least_point_is_the_exact_minimum(seed: int, relu: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 3), activations=["relu"] if relu else list(KINKED))
    box, functional = random_box(rng, 2), rng.normal(size=3)
    found, values = searched(model, box, functional)
    assert agrees(found, values, float(ExactModel(model).minimum(functional, box)))


@pytest.mark.slow
@settings(deadline=None, max_examples=6)
@given(seed=seeds)
def test_twelve_states_are_brute_force_over_all_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 4, 4), activations=["relu"])
    box, functional = random_box(rng, 2, radius=0.5), rng.normal(size=3)
    found, values = searched(model, box, functional)
    assert agrees(found, values, float(ExactModel(model).minimum(functional, box)))


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(seed=seeds)
def test_the_tree_and_the_mip_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 4), activations=["relu", "abs"])
    sample = rng.normal(size=2).astype(np.float32).astype(np.float64)
    label, eps = clean_label(model, sample), float(rng.choice([0.1, 0.4]))
    by_tree = run(model, sample, label, eps, methods=("branch",), time_limit=10.0)
    by_mip = run(model, sample, label, eps, methods=("mip",), time_limit=10.0)
    if by_tree.verdict is Verdict.CERTIFIED and by_tree.lower is not None and by_tree.lower > 1e-5:
        assert (by_mip.verdict, by_mip.reason) == (Verdict.UNKNOWN, Reason.SOLVER_ONLY)
    if by_mip.reason is Reason.SOLVER_ONLY:
        assert by_tree.verdict is not Verdict.FALSIFIED
    box = Box.around(sample, eps)
    assert contradiction(model, by_mip, label, box, rng) == contradiction(model, by_tree, label, box, rng) == ""


def test_the_search_stops_at_the_first_point_that_is_accepted() -> None:
    model, sample, _ = hard_network()
    box = Box.around(sample, 1.0)
    found, values = searched(model, box, np.array([1.0, -1.0]), accept=True)
    assert found.denied  # the least margin is 1/2
    shifted = layered([([[1.0, 1.0]], [0.0])], ([[-1.0], [0.0]], [5.5, 0.0]), skip=[[-3.0, 3.0], [0.0, 0.0]])
    found, values = searched(shifted, box, np.array([1.0, -1.0]), accept=True)
    assert (found.accepted, found.denied, found.outcome) == (True, False, Outcome.STOPPED)
    assert values[-1] < 0
    assert all(value >= 0 for value in values[:-1])


def test_what_only_the_solver_says_is_unknown_with_that_reason() -> None:
    model, sample, label = hard_network()
    result = run(model, sample, label, 1.0, methods=("interval", "mip"))
    assert (result.verdict, result.reason, result.method) == (Verdict.UNKNOWN, Reason.SOLVER_ONLY, None)
    assert run(model, sample, label, 1.0, methods=("mip", "branch")).verdict is Verdict.CERTIFIED


def test_a_spent_time_limit_says_nothing() -> None:
    rng = np.random.default_rng(0)
    model = random_network(rng, p=10, widths=(30, 30), activations=["relu"])
    box = random_box(rng, 10, radius=1.0)
    with pytest.raises(BudgetError):
        searched(model, box, rng.normal(size=3), budget=no_time())
    inputs = Interval.of_boxes(box)
    budget = Budget(deadline=10.0, clock=Ticking())
    program = BigMProgram(model, inputs, backward_state_bounds(model, inputs), budget=budget)
    late = replace(budget, deadline=0.0)
    program._budget = late
    found = program.find_negative(rng.normal(size=3), propose=lambda point: True)
    assert (found.outcome, found.accepted, found.denied) == (Outcome.TIME_LIMIT, False, False)


def test_nodes_are_counted_and_limited() -> None:
    rng = np.random.default_rng(0)
    model = random_network(rng, p=6, widths=(16, 16), activations=["relu"])
    box, functional = random_box(rng, 6, radius=1.0), rng.normal(size=3)
    inputs = Interval.of_boxes(box)
    endless, short = few(10**9), few(1)
    for budget in (endless, short):
        program = BigMProgram(model, inputs, backward_state_bounds(model, inputs), budget=budget)
        found = program.find_negative(functional, propose=lambda point: False)
        assert budget.nodes.spent == found.nodes
    assert endless.nodes.spent > 1
    assert short.nodes.spent <= 1


def test_models_that_are_not_piecewise_linear_are_refused_in_one_sentence() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0], [-1.0]], [0.0, 0.0]), ACTIVATIONS["tanh"]())
    with pytest.raises(UnsupportedModelError, match="mip needs piecewise linear states, and 'layer0'"):
        run(model, np.ones(1), 0, 0.1, methods=("interval", "mip"))
    box = Box.between(np.zeros(1), np.ones(1))
    with pytest.raises(UnsupportedModelError, match="piecewise linear"):
        searched(model, box, np.array([1.0, -1.0]))


Search = Callable[..., SignSearch]


def lying(kind: str, rng: np.random.Generator) -> Search:
    """Return a search that makes up its points or its word."""

    def find(
        self: MixedIntegerProgram,
        cost: FloatArray,
        *,
        offset: float,
        time_limit: float,
        propose: Search,
        most_nodes: int | None,
    ) -> object:
        n = self._n_columns
        points = {
            "far": [rng.normal(size=n) * 1e6],
            "nan": [np.full(n, np.nan)],
            "random": list(rng.uniform(-1, 1, (5, n))),
        }
        accepted = any(propose(point) for point in points.get(kind, []))
        if kind == "accepted":
            return SignSearch(Outcome.STOPPED, True, False)
        return SignSearch(Outcome.OPTIMAL, accepted, kind == "denied")

    return find  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["far", "nan", "random", "denied", "accepted"])
def test_a_lying_search_neither_certifies_nor_falsifies_wrongly(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    monkeypatch.setattr(MixedIntegerProgram, "find_negative", lying(kind, rng))
    for seed in range(15):
        own = np.random.default_rng(seed)
        model = random_network(own, p=2, widths=(3, 3), activations=list(KINKED))
        sample = own.normal(size=2).astype(np.float32).astype(np.float64)
        label = clean_label(model, sample)
        with np.errstate(all="ignore"):
            result = run(model, sample, label, 0.5, methods=("mip",), attack=AttackOptions(samples=2))
        assert result.verdict in (Verdict.UNKNOWN, Verdict.FALSIFIED)
        assert contradiction(model, result, label, Box.around(sample, 0.5), rng) == ""
