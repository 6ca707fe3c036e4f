"""The door to HiGHS: known linear programs, every status, nothing where there is no optimum."""

from __future__ import annotations

from types import SimpleNamespace

import highspy
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from idl_audit.analysis import linprog as door
from idl_audit.analysis.linprog import OUTCOMES, LinearProgram, Outcome, Solution, outcome_of
from idl_audit.errors import SolverError


def statuses() -> list[str]:
    return sorted(highspy.HighsModelStatus.__members__)


def test_every_status_of_highs_is_in_the_table() -> None:
    own = {name for name in statuses() if name not in ("kMin", "kMax")}  # bounds of the enumeration, not statuses
    assert own <= set(OUTCOMES)
    assert set(OUTCOMES) <= set(statuses())


def test_only_optimal_is_optimal() -> None:
    assert [name for name, outcome in OUTCOMES.items() if outcome is Outcome.OPTIMAL] == ["kOptimal"]


@pytest.mark.parametrize("name", sorted(OUTCOMES))
def test_every_status_has_its_outcome(name: str) -> None:
    assert outcome_of(getattr(highspy.HighsModelStatus, name)) is OUTCOMES[name]


def test_an_unknown_status_raises() -> None:
    with pytest.raises(SolverError, match="kFromTheFuture"):
        outcome_of(SimpleNamespace(name="kFromTheFuture"))


def program(lo: float = 0.0, hi: float = 4.0, row_hi: float = 4.0) -> LinearProgram:
    """x + y <= row_hi, x - y = 1."""
    return LinearProgram(
        sp.csr_array(np.array([[1.0, 1.0], [1.0, -1.0]])),
        lo=np.full(2, lo),
        hi=np.full(2, hi),
        row_lo=np.array([-np.inf, 1.0]),
        row_hi=np.array([row_hi, 1.0]),
    )


def test_a_program_by_hand() -> None:
    """min -x: x = 2.5, y = 1.5; duals: cost = M^T duals on the basis, (-1/2, -1/2)."""
    solution = program().minimise(np.array([-1.0, 0.0]))
    assert solution.outcome is Outcome.OPTIMAL
    np.testing.assert_allclose(solution.point, [2.5, 1.5])
    np.testing.assert_allclose(solution.row_duals, [-0.5, -0.5])


def test_changed_costs_give_what_a_fresh_program_gives() -> None:
    kept = program()
    for cost in ([-1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -3.0], [0.0, 0.0], [-1.0, 0.0]):
        ours, fresh = kept.minimise(np.array(cost)), program().minimise(np.array(cost))
        assert ours.outcome is fresh.outcome is Outcome.OPTIMAL
        assert ours.point is not None
        assert fresh.point is not None
        assert np.dot(cost, ours.point) == pytest.approx(np.dot(cost, fresh.point), abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_programs_agree_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 6, 2)
    matrix = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.7)
    upper = rng.normal(size=rows) + 0.5
    ours = LinearProgram(
        sp.csr_array(matrix), lo=-np.ones(columns), hi=np.ones(columns), row_lo=np.full(rows, -np.inf), row_hi=upper
    )
    for _ in range(3):
        cost = rng.normal(size=columns)
        reference = linprog(cost, A_ub=matrix, b_ub=upper, bounds=[(-1, 1)] * int(columns))
        solution = ours.minimise(cost)
        assert solution.outcome is {0: Outcome.OPTIMAL, 2: Outcome.INFEASIBLE}[reference.status]
        if solution.point is not None and solution.row_duals is not None:
            assert cost @ solution.point == pytest.approx(reference.fun, abs=1e-7)
            reduced = cost - matrix.T @ solution.row_duals
            dual_bound = solution.row_duals @ np.where(solution.row_duals < 0, upper, 0.0) - np.abs(reduced).sum()
            assert dual_bound == pytest.approx(reference.fun, abs=1e-6)


def nothing_but(solution: Solution, outcome: Outcome) -> bool:
    return solution.outcome is outcome and solution.point is None and solution.row_duals is None


def test_infeasible_and_unbounded_programs_give_an_outcome_and_no_numbers() -> None:
    assert nothing_but(program(row_hi=-1.0).minimise(np.ones(2)), Outcome.INFEASIBLE)
    unbounded = program(lo=-np.inf).minimise(np.ones(2))
    assert unbounded.outcome in (Outcome.UNBOUNDED, Outcome.FAILED)
    assert unbounded.point is None


def test_a_spent_time_limit_gives_no_numbers() -> None:
    rng = np.random.default_rng(0)
    n = 200
    hard = LinearProgram(
        sp.csr_array(rng.normal(size=(n, n))),
        lo=np.full(n, -1.0),
        hi=np.ones(n),
        row_lo=np.full(n, -1.0),
        row_hi=np.ones(n),
    )
    for limit in (0.0, -5.0):
        assert nothing_but(hard.minimise(rng.normal(size=n), time_limit=limit), Outcome.TIME_LIMIT)


def test_a_later_solve_has_its_own_time_limit() -> None:
    kept = program()
    for _ in range(5):
        assert kept.minimise(np.array([-1.0, 0.0]), time_limit=10.0).outcome is Outcome.OPTIMAL


@pytest.mark.parametrize("broken", ["col_value", "row_dual"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_no_numbers_are_a_failure(broken: str, value: float) -> None:
    class Lying:
        def __init__(self, solver: highspy.Highs) -> None:
            self._solver = solver

        def __getattr__(self, name: str) -> object:
            return getattr(self._solver, name)

        def getSolution(self) -> SimpleNamespace:
            given = self._solver.getSolution()
            answer = {"col_value": list(given.col_value), "row_dual": list(given.row_dual)}
            answer[broken][0] = value
            return SimpleNamespace(**answer)

    kept = program()
    kept._solver = Lying(kept._solver)  # type: ignore[assignment]
    assert nothing_but(kept.minimise(np.array([-1.0, 0.0])), Outcome.FAILED)


def test_a_program_that_is_no_program_is_refused() -> None:
    with pytest.raises(SolverError, match="refuses"):
        LinearProgram(
            sp.csr_array(np.array([[np.inf, 1.0]])),
            lo=np.zeros(2),
            hi=np.ones(2),
            row_lo=np.zeros(1),
            row_hi=np.ones(1),
        )


def test_each_outcome_says_what_to_make_of_it() -> None:
    assert all(outcome.value for outcome in Outcome)
    assert len({outcome.value for outcome in door.Outcome}) == len(Outcome)
