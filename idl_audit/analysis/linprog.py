"""Linear programs: whole sparse arrays in, our values out. The only door to HiGHS.

What comes out of here is a suggestion: points to try on the original network, multipliers to put into a proof. No
objective, bound or status of the solver is ever part of a verdict.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from idl_audit.arrays import BoolArray, FloatArray
from idl_audit.errors import SolverError


class Outcome(enum.Enum):
    """How a solve ended; the value is what to make of it."""

    OPTIMAL = "solved"
    INFEASIBLE = "the constraints contradict each other"
    UNBOUNDED = "the objective has no bound: a bound of the relaxation is missing"
    TIME_LIMIT = "the time limit was reached; raise --time-limit"
    MEMORY_LIMIT = "the memory limit was reached; audit a smaller model"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped early: the sign of the optimum is known"
    FAILED = "the solver failed"


OUTCOMES: Final[Mapping[str, Outcome]] = {
    "kOptimal": Outcome.OPTIMAL,
    "kInfeasible": Outcome.INFEASIBLE,
    "kUnbounded": Outcome.UNBOUNDED,
    "kUnboundedOrInfeasible": Outcome.FAILED,
    "kTimeLimit": Outcome.TIME_LIMIT,
    "kIterationLimit": Outcome.TIME_LIMIT,
    "kSolutionLimit": Outcome.TIME_LIMIT,
    "kObjectiveBound": Outcome.TIME_LIMIT,
    "kObjectiveTarget": Outcome.STOPPED,
    "kMemoryLimit": Outcome.MEMORY_LIMIT,
    "kInterrupt": Outcome.INTERRUPTED,
    "kHighsInterrupt": Outcome.INTERRUPTED,
    "kNotset": Outcome.FAILED,
    "kLoadError": Outcome.FAILED,
    "kModelError": Outcome.FAILED,
    "kPresolveError": Outcome.FAILED,
    "kSolveError": Outcome.FAILED,
    "kPostsolveError": Outcome.FAILED,
    "kModelEmpty": Outcome.FAILED,
    "kUnknown": Outcome.FAILED,
}
"""Every status that HiGHS 1.15 has; a status of a later version is an error until it stands here."""


@dataclass(frozen=True)
class Solution:
    """A primal point and row duals of a minimisation, or nothing but the outcome."""

    outcome: Outcome
    point: FloatArray | None = None
    row_duals: FloatArray | None = None
    iterations: int = 0


@dataclass(frozen=True)
class SignSearch:
    """How the search for a point with a negative objective ended."""

    outcome: Outcome
    accepted: bool
    """Whether a point was accepted."""
    denied: bool
    """Whether the solver says that there is no such point: its word, and no proof."""


class _Program:
    """A model that HiGHS holds: a sparse matrix, bounds of rows and columns."""

    def __init__(
        self,
        matrix: sp.csr_array,
        *,
        lo: FloatArray,
        hi: FloatArray,
        row_lo: FloatArray,
        row_hi: FloatArray,
        integer: BoolArray | None = None,
    ) -> None:
        """Hand over the model; `integer` says which columns hold integers."""
        import highspy

        program = highspy.HighsLp()
        program.num_row_, program.num_col_ = matrix.shape
        program.col_lower_, program.col_upper_ = lo, hi
        program.row_lower_, program.row_upper_ = row_lo, row_hi
        program.col_cost_ = np.zeros(matrix.shape[1])
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = matrix.indptr
        program.a_matrix_.index_ = matrix.indices
        program.a_matrix_.value_ = matrix.data
        self._has_integers = integer is not None and bool(integer.any())
        if integer is not None:
            kinds = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger
            program.integrality_ = [kinds[bool(value)] for value in integer]
        self._n_rows, self._n_columns = (int(size) for size in matrix.shape)
        self._solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]  # its class has no annotations
        for name, value in self.options.items():
            self._solver.setOptionValue(name, value)
        if self._solver.passModel(program) == highspy.HighsStatus.kError:
            raise SolverError(f"HiGHS refuses a linear program with {matrix.shape[0]} rows, {matrix.shape[1]} columns")

    options: Mapping[str, Any] = {}

    def _run(self, cost: FloatArray, time_limit: float | None) -> Outcome:
        self._solver.changeColsCost(self._n_columns, np.arange(self._n_columns, dtype=np.int32), cost)
        if time_limit is not None:  # HiGHS counts from the first run of this model
            self._solver.setOptionValue("time_limit", self._solver.getRunTime() + max(time_limit, 0.0))
        self._solver.run()
        return outcome_of(self._solver.getModelStatus())


class LinearProgram(_Program):
    """min cost.x over row_lo <= M x <= row_hi, lo <= x <= hi: one model, many costs, each solve warm from the last.

    Costs, and bounds of columns and rows, change between solves; the matrix never does, and the basis stays.
    """

    options = MappingProxyType(
        {
            "output_flag": False,
            "presolve": "off",  # a changed cost keeps the basis only without it
            "solver": "simplex",
            "simplex_scale_strategy": 0,  # 3 times faster on these models than the default
            "small_matrix_value": 1e-12,  # smaller coefficients are dropped: the least that HiGHS allows
            "threads": 1,
        }
    )

    def start_from(self, columns: BoolArray, rows: BoolArray) -> None:
        """Start the first solve at a basis: which columns and rows are basic, as many as there are rows."""
        import highspy

        basis, status = highspy.HighsBasis(), highspy.HighsBasisStatus
        kinds = status.kLower, status.kBasic
        basis.col_status = [kinds[bool(value)] for value in columns]
        basis.row_status = [kinds[bool(value)] for value in rows]
        basis.valid = True
        self._solver.setBasis(basis)

    def change_bounds(self, lo: FloatArray, hi: FloatArray, row_lo: FloatArray, row_hi: FloatArray) -> None:
        """Put other bounds in place of all bounds of the columns and rows."""
        self._solver.changeColsBounds(self._n_columns, np.arange(self._n_columns, dtype=np.int32), lo, hi)
        self._solver.changeRowsBounds(self._n_rows, np.arange(self._n_rows, dtype=np.int32), row_lo, row_hi)

    def minimise(self, cost: FloatArray, *, time_limit: float | None = None) -> Solution:
        """Solve for another cost; a point and duals come back only where HiGHS calls them optimal."""
        outcome = self._run(cost, time_limit)
        iterations = int(self._solver.getInfo().simplex_iteration_count)
        if outcome is not Outcome.OPTIMAL:
            return Solution(outcome, iterations=iterations)
        solution = self._solver.getSolution()
        point, duals = np.array(solution.col_value), np.array(solution.row_dual)
        if not (np.isfinite(point).all() and np.isfinite(duals).all()):
            return Solution(Outcome.FAILED, iterations=iterations)
        return Solution(outcome, point, duals, iterations)

    def dual_ray(self) -> FloatArray | None:
        """Return multipliers of the rows that show why the last program has no solution; None where there are none."""
        _, exists, ray = self._solver.getDualRay()
        values = np.array(ray, np.float64)
        return values if exists and values.size and np.isfinite(values).all() else None


class MixedIntegerProgram(_Program):
    """min cost.x over row_lo <= M x <= row_hi, lo <= x <= hi, some columns integers; only the sign of it is wanted."""

    options = MappingProxyType({"output_flag": False, "threads": 1, "small_matrix_value": 1e-12})

    def find_negative(
        self, cost: FloatArray, *, offset: float, time_limit: float, propose: Callable[[FloatArray], bool]
    ) -> SignSearch:
        """Look for a point with cost.x + offset < 0, until one is accepted or the solver says that there is none.

        Args:
            cost: one number a column.
            offset: added to cost.x.
            time_limit: in seconds.
            propose: is given every better point that the solver comes to, shape (columns,); says whether to stop.
        """
        accepted, denied = False, False
        failed: list[BaseException] = []

        def offer(point: FloatArray) -> None:
            nonlocal accepted
            if not accepted and point.size == self._n_columns and np.isfinite(point).all():
                accepted = propose(point)

        def look(event: Any) -> None:
            try:
                offer(np.array(event.data_out.mip_solution))
            except BaseException as error:  # it must not pass through the solver's own code
                failed.append(error)

        def stop(event: Any) -> None:
            nonlocal denied
            try:
                denied = denied or event.data_out.mip_dual_bound + offset > 0
            except BaseException as error:  # Ctrl-C comes up here
                failed.append(error)
            event.data_in.user_interrupt = bool(accepted or denied or failed)

        self._solver.cbMipImprovingSolution.subscribe(look)
        self._solver.cbMipInterrupt.subscribe(stop)
        try:
            outcome = self._run(cost, time_limit)
        finally:
            self._solver.cbMipImprovingSolution.unsubscribe(look)
            self._solver.cbMipInterrupt.unsubscribe(stop)
        if failed:
            raise failed[0]
        if outcome is Outcome.OPTIMAL:
            info = self._solver.getInfo()
            # without integers HiGHS solves a linear program, and fills no bound in
            denied = (info.mip_dual_bound if self._has_integers else info.objective_function_value) + offset > 0
            offer(np.array(self._solver.getSolution().col_value))
        if accepted or (denied and outcome is Outcome.INTERRUPTED):
            outcome = Outcome.STOPPED
        return SignSearch(outcome, accepted, denied and not accepted)


def outcome_of(status: Any) -> Outcome:
    """Return our word for a status of HiGHS. Raises SolverError for one that is not in the table."""
    if status.name not in OUTCOMES:
        raise SolverError(f"HiGHS answers with the status {status.name}, which this version of idl-audit does not know")
    return OUTCOMES[status.name]
