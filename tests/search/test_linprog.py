"""The door to HiGHS: known linear programs, every status, nothing where there is no optimum."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import highspy
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from idl_audit.search import linprog as door
from idl_audit.search.linprog import OUTCOMES, LinearProgram, Outcome, Solution, outcome_of
from idl_audit.search.linprog import program as program_module
from idl_audit.search.linprog.data import scaled_rows
from idl_audit.search.linprog.waiting import waited_for
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import SolverError


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


PARTS = ("coefficients", "bounds of columns", "bounds of rows", "costs")


@pytest.mark.parametrize("part", PARTS)
def test_a_number_that_is_none_never_reaches_the_solver(part: str) -> None:
    """HiGHS takes NaN without a word and answers Infeasible, or Optimal."""
    nan = {name: np.nan if name == part else 1.0 for name in PARTS}
    with pytest.raises(SolverError, match=part):
        LinearProgram(
            sp.csr_array(np.array([[nan["coefficients"], 1.0]])),
            lo=np.zeros(2),
            hi=np.array([nan["bounds of columns"], 1.0]),
            row_lo=np.array([0.0]),
            row_hi=np.array([nan["bounds of rows"]]),
        ).minimise(np.array([nan["costs"], 1.0]))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("part", ["coefficients", "costs"])
def test_infinite_coefficients_and_costs_are_refused(part: str, value: float) -> None:
    number = {name: value if name == part else 1.0 for name in ("coefficients", "costs")}
    with pytest.raises(SolverError, match=f"{part} that are no finite numbers"):
        LinearProgram(
            sp.csr_array(np.array([[number["coefficients"], 1.0]])),
            lo=np.zeros(2),
            hi=np.ones(2),
            row_lo=np.zeros(1),
            row_hi=np.ones(1),
        ).minimise(np.array([number["costs"], 1.0]))


@pytest.mark.parametrize(("lo", "hi"), [(1e20, np.inf), (np.inf, np.inf), (-np.inf, -np.inf), (-np.inf, -1e21)])
def test_bounds_that_leave_only_infinity_are_refused(lo: float, hi: float) -> None:
    for columns in (True, False):
        ends = {"lo": np.zeros(1), "hi": np.ones(1), "row_lo": np.zeros(1), "row_hi": np.ones(1)}
        ends |= {"lo" if columns else "row_lo": np.array([lo]), "hi" if columns else "row_hi": np.array([hi])}
        with pytest.raises(SolverError, match="calls infinite"):
            LinearProgram(sp.csr_array(np.ones((1, 1))), **ends)


def test_changed_bounds_are_looked_at_too() -> None:
    kept = program()
    ends = [np.zeros(2), np.full(2, 4.0), np.array([-np.inf, 1.0]), np.array([4.0, 1.0])]
    for place in range(4):
        wrong = [end.copy() for end in ends]
        wrong[place][1] = np.nan
        with pytest.raises(SolverError, match=r"bounds of (columns|rows) that are no numbers"):
            kept.change_bounds(*wrong)
    kept.change_bounds(*ends)
    assert kept.minimise(np.array([-1.0, 0.0])).outcome is Outcome.OPTIMAL


@pytest.mark.parametrize("by", [1e-12, 1e-9, 1e-7, 1.0])
@pytest.mark.parametrize("rows", [False, True])
def test_a_box_that_is_crossed_by_anything_is_empty(by: float, rows: bool) -> None:
    """HiGHS calls one that is crossed by up to 1e-8 feasible."""

    def ends(gap: float) -> list[FloatArray]:
        own = np.array([1.0 + gap, 0.0]), np.array([1.0, 4.0])
        free = np.array([-np.inf, 1.0 + gap]), np.array([9.0, 1.0])
        return [np.zeros(2), np.full(2, 9.0), *free] if rows else [*own, np.full(2, -9.0), np.full(2, 9.0)]

    lo, hi, row_lo, row_hi = ends(by)
    matrix = sp.csr_array(np.array([[1.0, 1.0], [1.0, -1.0]]))
    kept = LinearProgram(matrix, lo=lo, hi=hi, row_lo=row_lo, row_hi=row_hi)
    assert nothing_but(kept.minimise(np.ones(2)), Outcome.INFEASIBLE)
    assert kept.dual_ray() is None
    kept.change_bounds(*ends(0.0))
    assert kept.minimise(np.ones(2)).outcome is Outcome.OPTIMAL
    kept.change_bounds(*ends(by))
    assert nothing_but(kept.minimise(np.ones(2)), Outcome.INFEASIBLE)


@pytest.mark.parametrize("size", [1e-300, 1e-12, 1e-9, 1e-8, 1.0, 1e9, 1e25, 1e300])
def test_the_size_of_a_cost_changes_nothing(size: float) -> None:
    """With presolve off HiGHS ignores costs up to 1e-8, and takes 1e20 for infinite."""
    plain, scaled = program().minimise(np.array([-1.0, 0.5])), program().minimise(np.array([-1.0, 0.5]) * size)
    assert plain.point is not None
    assert scaled.point is not None
    assert plain.row_duals is not None
    assert scaled.row_duals is not None
    np.testing.assert_allclose(scaled.point, plain.point)
    np.testing.assert_allclose(scaled.row_duals / size, plain.row_duals)


@pytest.mark.parametrize("size", [1e-300, 1e-13, 1e-10, 1e-5, 1e5, 1e18])
def test_the_size_of_a_row_changes_nothing(size: float) -> None:
    """HiGHS drops coefficients of 1e-12, by default of 1e-9, and refuses those of 1e15."""

    def made(factor: float) -> LinearProgram:
        scale = np.array([factor, 1.0])
        return LinearProgram(
            sp.csr_array(np.array([[1.0, 1.0], [1.0, -1.0]]) * scale[:, None]),
            lo=np.zeros(2),
            hi=np.full(2, 4.0),
            row_lo=np.array([-np.inf, 1.0]),
            row_hi=np.array([4.0 * factor, 1.0]),
        )

    plain, scaled = made(1.0).minimise(np.array([-1.0, 0.0])), made(size).minimise(np.array([-1.0, 0.0]))
    assert plain.row_duals is not None
    assert scaled.point is not None
    assert scaled.row_duals is not None
    np.testing.assert_allclose(scaled.point, [2.5, 1.5])
    np.testing.assert_allclose(scaled.row_duals * [size, 1.0], plain.row_duals)
    empty = made(size)
    empty.change_bounds(np.full(2, 3.0), np.full(2, 4.0), np.array([-np.inf, -1.0]), np.array([4.0 * size, 1.0]))
    assert empty.minimise(np.array([-1.0, 0.0])).outcome is Outcome.INFEASIBLE
    ray = empty.dual_ray()
    assert ray is not None
    rows, row_hi = np.array([[1.0, 1.0], [1.0, -1.0]]) * [[size], [1.0]], np.array([4.0 * size, 1.0])
    assert ray[0] < 0  # it has a right side only
    least = (ray @ rows * np.where(ray @ rows > 0, 3.0, 4.0)).sum()
    most = ray @ np.where(ray < 0, row_hi, [0.0, -1.0])
    assert -least > -most * (1 + 1e-9) or least > most * (1 + 1e-9)  # over the box, and over the rows' sides


def test_rows_of_usual_size_are_handed_over_as_they_are() -> None:
    matrix = sp.csr_array(np.array([[900.0, 0.0, 1e-3], [2e-3, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    rows = scaled_rows(matrix)
    assert (rows.factors == 1.0).all()
    np.testing.assert_array_equal(rows.matrix.toarray(), matrix.toarray())


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_scaled_rows_are_the_same_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(4, 5)) * 10.0 ** rng.integers(-40, 40, (4, 1)) * (rng.random((4, 5)) < 0.6)
    rows = scaled_rows(sp.csr_array(dense))
    np.testing.assert_array_equal(rows.matrix.toarray() / rows.factors[:, None], dense)
    largest = np.abs(rows.matrix.toarray()).max(axis=1)
    assert ((largest == 0) | ((largest >= 2.0**-10) & (largest <= 2.0**10))).all()


CALLS = ("setOptionValue", "passModel", "changeColsCost", "changeColsBounds", "changeRowsBounds", "setBasis")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", ["kError", "kWarning"])
def test_the_status_of_every_call_is_looked_at(call: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: highspy.Highs, *args: object) -> object:
        return getattr(highspy.HighsStatus, status)

    monkeypatch.setattr(highspy.Highs, call, refuses)

    def every_call() -> None:
        kept = program()
        kept.start_from(np.array([True, True]), np.array([False, False]))
        kept.change_bounds(np.zeros(2), np.ones(2), np.array([-np.inf, 1.0]), np.array([4.0, 1.0]))
        kept.minimise(np.ones(2))

    with pytest.raises(SolverError, match=f"refuses .*{status}"):
        every_call()


def test_a_row_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highspy.Highs, "getNumRow", lambda self: 1)
    with pytest.raises(SolverError, match="holds 1 rows and 2 columns of a linear program with 2 rows, 2 columns"):
        program()


def test_a_run_that_fails_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highspy.Highs, "run", lambda self: highspy.HighsStatus.kError)
    assert nothing_but(program().minimise(np.array([-1.0, 0.0])), Outcome.FAILED)


def test_nobody_waits_for_a_solver_that_forgets_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is left to itself, and the program is not asked again."""
    monkeypatch.setattr(program_module, "WAITED_FOR", 0)
    monkeypatch.setattr(program_module, "PATIENCE", 0.0)
    may_end, calls = threading.Event(), []

    def forgetful(self: highspy.Highs) -> object:
        calls.append(1)
        may_end.wait()
        return highspy.HighsStatus.kOk

    monkeypatch.setattr(highspy.Highs, "run", forgetful)
    kept = program()
    assert nothing_but(kept.minimise(np.ones(2), time_limit=0.01), Outcome.TIME_LIMIT)
    assert nothing_but(kept.minimise(np.ones(2), time_limit=100.0), Outcome.TIME_LIMIT)
    kept.change_bounds(np.zeros(2), np.ones(2), np.array([-np.inf, 1.0]), np.array([4.0, 1.0]))
    assert kept.dual_ray() is None
    assert len(calls) == 1
    may_end.set()


@pytest.mark.parametrize("error", [MemoryError(), SolverError("it failed"), KeyboardInterrupt()])
def test_what_a_waited_for_call_raises_comes_up(error: BaseException) -> None:
    def raises() -> None:
        raise error

    with pytest.raises(type(error)):
        waited_for(raises, 10.0)
    assert waited_for(lambda: 7, 10.0) == 7


def test_each_outcome_says_what_to_make_of_it() -> None:
    assert all(outcome.value for outcome in Outcome)
    assert len({outcome.value for outcome in door.Outcome}) == len(Outcome)
