"""Objectives: what is reached lies in the set, what is proved is never passed, and exact cases are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide import objectives
from idl_audit.decide.objectives import Measured, Measurement, Objective, l1, linear, state_discrepancy
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.search.linprog import LinearProgram, Outcome, Solution
from idl_audit.search.relaxation import TriangleRelaxation
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.errors import OptionError, SolverError
from idl_audit.values.input_sets import InputSet
from tests.shared.small_networks import KINKED, SMOOTH, ExactModel, layered, long_double, random_network, some_points

seeds = st.integers(0, 2**32 - 1)


def measured(model: ImplicitModel, objective: Objective, sample: FloatArray, inputs: InputSet) -> Measured:
    return Measurement(model, lambda points: model(points.astype(np.float64)), objective).measure(sample, inputs)


def flat_states(model: ImplicitModel, points: FloatArray) -> FloatArray:
    x = long_double(model, points)[1]
    return np.concatenate([x[k] for k in range(len(model.blocks))], axis=1)


def case(seed: int, activations: list[str]) -> tuple[np.random.Generator, ImplicitModel, FloatArray, Box]:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 3), activations=activations)
    sample = rng.normal(size=2).astype(np.float32).astype(np.float64)
    return rng, model, sample, Box.around(sample, float(rng.choice([0.05, 0.5])))


@settings(deadline=None, max_examples=10)
@given(seed=seeds, smooth=st.booleans(), kind=st.sampled_from(["outputs", "both", "l1", "state"]))
def test_no_sampled_point_passes_what_is_proved(seed: int, smooth: bool, kind: str) -> None:
    rng, model, sample, box = case(seed, [*SMOOTH] if smooth else [*KINKED])
    c, w = rng.normal(size=3), rng.normal(size=7)
    objective = {
        "outputs": lambda: linear(model, c),
        "both": lambda: linear(model, c, w),
        "l1": lambda: l1(model),
        "state": lambda: state_discrepancy(model),
    }[kind]()
    found = measured(model, objective, sample, box)
    points = some_points(rng, box, 200)
    x, y = flat_states(model, points), long_double(model, points)[2]
    x0 = flat_states(model, sample[None])
    values = {
        "outputs": lambda: y @ c.astype(np.longdouble),
        "both": lambda: y @ c.astype(np.longdouble) + x @ w.astype(np.longdouble),
        "l1": lambda: np.abs(x).sum(axis=1),
        "state": lambda: ((x - x0) ** 2).sum(axis=1),
    }[kind]()
    assert found.proved is not None
    assert box.contains(found.point)
    if kind == "l1":
        assert values.min() >= found.proved
        assert found.reached <= found.at_sample
        assert found.reached >= found.proved - 1e-9 * (1 + abs(found.proved))
    else:
        assert values.max() <= found.proved
        assert found.reached >= found.at_sample
        assert found.reached <= found.proved + 1e-9 * (1 + abs(found.proved))


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_a_linear_objective_reaches_its_exact_maximum_or_less_and_is_proved_above_it(seed: int) -> None:
    rng, model, sample, box = case(seed, ["relu"])
    c = rng.normal(size=3)
    found, truth = measured(model, linear(model, c), sample, box), -ExactModel(model).minimum(-c, box)
    assert found.proved is not None
    assert found.proved >= truth
    assert found.reached <= float(truth) + 1e-9


def test_the_values_are_those_of_the_model_and_of_its_states() -> None:
    """x = relu(u), y = 2 x - 1 on [-1, 3] about 1: every objective by hand."""
    model = layered([([[1.0]], [0.0])], ([[2.0]], [-1.0]))
    sample, box = np.ones(1), Box.around(np.ones(1), 2.0)
    results = {
        "c": measured(model, linear(model, np.array([1.0])), sample, box),
        "c, w": measured(model, linear(model, np.array([1.0]), np.array([-3.0])), sample, box),
        "l1": measured(model, l1(model), sample, box),
        "state": measured(model, state_discrepancy(model), sample, box),
    }
    expected = {"c": (1.0, 5.0), "c, w": (-2.0, -1.0), "l1": (1.0, 0.0), "state": (0.0, 4.0)}
    for name, (at_sample, extreme) in expected.items():
        found = results[name]
        assert found.at_sample == pytest.approx(at_sample, abs=1e-12)
        assert found.reached == pytest.approx(extreme, abs=1e-6)
        assert found.proved == pytest.approx(extreme, abs=1e-6)


def test_the_objective_of_repeated_programs_never_decreases(monkeypatch: pytest.MonkeyPatch) -> None:
    """|x^{t+1} - x0| >= |x^t - x0| in the relaxation, from every random sign."""
    rng = np.random.default_rng(3)
    model = random_network(rng, p=8, widths=(10, 8), activations=["relu", "abs"])
    sample = rng.normal(size=8).astype(np.float32).astype(np.float64)
    box = Box.around(sample, 0.5)
    solved: list[tuple[FloatArray, FloatArray]] = []
    honest = TriangleRelaxation.minimise

    def noted(self: TriangleRelaxation, functional: FloatArray, *, budget: Budget) -> object:
        answer = honest(self, functional, budget=budget)
        assert answer.states is not None
        solved.append((functional, answer.states))
        return answer

    monkeypatch.setattr(TriangleRelaxation, "minimise", noted)
    measured(model, state_discrepancy(model), sample, box)
    x0 = np.asarray(flat_states(model, sample[None])[0], np.float64)
    runs: list[list[float]] = []
    for functional, states in solved:
        if set(np.abs(functional)) == {1.0}:
            runs.append([])
        runs[-1].append(float(((states - x0) ** 2).sum()))
    assert len(runs) == objectives.RANDOM_STARTS
    assert all(b >= a - 1e-6 for values in runs for a, b in itertools.pairwise(values))
    assert any(len(values) > 2 for values in runs)


def test_sparse_sets_are_reached_by_sparse_points() -> None:
    rng = np.random.default_rng(1)
    model = random_network(rng, p=6, widths=(5, 4), activations=["relu"])
    sample = rng.normal(size=6).astype(np.float32).astype(np.float64)
    for objective in (linear(model, rng.normal(size=3)), state_discrepancy(model)):
        ball = SparseBall.around(sample, 0.5, 2)
        found = measured(model, objective, sample, ball)
        assert (found.point != sample.astype(np.float32)).sum() <= 2
        assert found.reached > found.at_sample


@pytest.mark.parametrize("outcome", [Outcome.TIME_LIMIT, Outcome.MEMORY_LIMIT, Outcome.INFEASIBLE, "error", "memory"])
def test_a_solver_that_fails_leaves_descent_and_backward_bounds(
    outcome: Outcome | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LinearProgram, cost: FloatArray, *, time_limit: float | None = None) -> Solution:
        if isinstance(outcome, Outcome):
            return Solution(outcome)
        raise {"error": SolverError("no"), "memory": MemoryError()}[outcome]

    monkeypatch.setattr(LinearProgram, "minimise", fail)
    rng, model, sample, box = case(5, ["relu"])
    found = measured(model, linear(model, rng.normal(size=3)), sample, box)
    wanted = {"error": Outcome.FAILED, "memory": Outcome.MEMORY_LIMIT}.get(str(outcome), outcome)
    assert (found.reason, found.method) == (wanted, "pgd")
    assert found.proved is not None


@pytest.mark.parametrize(
    ("c", "w", "what"),
    [
        (np.ones(4), None, "4 weights of outputs"),
        (np.ones(3), np.ones(2), "2 weights of states"),
        (np.array([1.0, np.nan, 0.0]), None, "finite"),
        (np.zeros(3), np.zeros(7), "all 0"),
    ],
)
def test_weights_that_fit_no_model_are_refused(c: FloatArray, w: FloatArray | None, what: str) -> None:
    model = case(0, ["relu"])[1]
    with pytest.raises(OptionError, match=what):
        linear(model, c, w)


def test_a_model_without_states_has_no_state_objective() -> None:
    whole = case(0, ["relu"])[1]
    bare = ImplicitModel((), (), Affine({}, whole.output.input, np.zeros(3)), (2,), (3,))
    with pytest.raises(OptionError, match="no states"):
        l1(bare)
