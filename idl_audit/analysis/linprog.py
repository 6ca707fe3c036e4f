"""Linear programs: whole sparse arrays in, our values out. The only door to HiGHS.

What comes out of here is a suggestion: points to try on the original network, multipliers to put into a proof. No
objective, bound or status of the solver is ever part of a verdict.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import highspy
import numpy as np
import scipy.sparse as sp

from idl_audit.arrays import FloatArray, IntArray
from idl_audit.errors import SolverError


class Outcome(enum.Enum):
    """How a solve ended; the value is what to make of it."""

    OPTIMAL = "solved"
    INFEASIBLE = "the constraints contradict each other"
    UNBOUNDED = "the objective has no bound: a bound of the relaxation is missing"
    TIME_LIMIT = "the time limit was reached; raise --time-limit"
    MEMORY_LIMIT = "the memory limit was reached; audit a smaller model"
    INTERRUPTED = "interrupted"
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
    "kObjectiveTarget": Outcome.TIME_LIMIT,
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


class LinearProgram:
    """min cost.x over row_lo <= M x <= row_hi, lo <= x <= hi: one model, many costs, each solve warm from the last."""

    def __init__(
        self,
        matrix: sp.csr_array,
        *,
        lo: FloatArray,
        hi: FloatArray,
        row_lo: FloatArray,
        row_hi: FloatArray,
    ) -> None:
        program = highspy.HighsLp()
        program.num_row_, program.num_col_ = matrix.shape
        program.col_lower_, program.col_upper_ = lo, hi
        program.row_lower_, program.row_upper_ = row_lo, row_hi
        program.col_cost_ = np.zeros(matrix.shape[1])
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = matrix.indptr
        program.a_matrix_.index_ = matrix.indices
        program.a_matrix_.value_ = matrix.data
        self._n_columns = int(matrix.shape[1])
        self._solver = highspy.Highs()  # type: ignore[no-untyped-call]  # its class has no annotations
        for name, value in _OPTIONS.items():
            self._solver.setOptionValue(name, value)
        if self._solver.passModel(program) == highspy.HighsStatus.kError:
            raise SolverError(f"HiGHS refuses a linear program with {matrix.shape[0]} rows, {matrix.shape[1]} columns")

    def minimise(self, cost: FloatArray, *, time_limit: float | None = None) -> Solution:
        """Solve for another cost; a point and duals come back only where HiGHS calls them optimal."""
        self._solver.changeColsCost(self._n_columns, np.arange(self._n_columns, dtype=np.int32), cost)
        if time_limit is not None:  # HiGHS counts from the first run of this model
            self._solver.setOptionValue("time_limit", self._solver.getRunTime() + max(time_limit, 0.0))
        self._solver.run()
        outcome = outcome_of(self._solver.getModelStatus())
        iterations = int(self._solver.getInfo().simplex_iteration_count)
        if outcome is not Outcome.OPTIMAL:
            return Solution(outcome, iterations=iterations)
        solution = self._solver.getSolution()
        point, duals = np.array(solution.col_value), np.array(solution.row_dual)
        if not (np.isfinite(point).all() and np.isfinite(duals).all()):
            return Solution(Outcome.FAILED, iterations=iterations)
        return Solution(outcome, point, duals, iterations)

    def set_columns(self, columns: IntArray, lo: FloatArray, hi: FloatArray) -> None:
        """Change the bounds of some columns; the next solve starts from the last basis."""
        self._solver.changeColsBounds(columns.size, columns.astype(np.int32), lo, hi)

    def dual_ray(self) -> FloatArray | None:
        """Return multipliers of the rows that show why the last program has no solution; None where there are none."""
        _, exists, ray = self._solver.getDualRay()  # type: ignore[attr-defined]  # missing in its stubs
        values = np.array(ray, np.float64)
        return values if exists and values.size and np.isfinite(values).all() else None


_OPTIONS: Final[Mapping[str, Any]] = {
    "output_flag": False,
    "presolve": "off",  # a changed cost keeps the basis only without it
    "solver": "simplex",
    "simplex_scale_strategy": 0,  # 3 times faster on these models than the default
    "small_matrix_value": 1e-12,  # smaller coefficients are dropped: the least that HiGHS allows
    "threads": 1,
}


def outcome_of(status: Any) -> Outcome:
    """Return our word for a status of HiGHS. Raises SolverError for one that is not in the table."""
    if status.name not in OUTCOMES:
        raise SolverError(f"HiGHS answers with the status {status.name}, which this version of idl-audit does not know")
    return OUTCOMES[status.name]
