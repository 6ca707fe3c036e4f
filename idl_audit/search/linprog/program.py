"""A model that HiGHS holds: what goes in is checked and scaled, every call's status is looked at.

A solve that may forget the time runs in a thread of its own, and where it does not end in time nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from idl_audit.search.linprog.data import Bounds, checked_bounds, scaled_cost, scaled_rows
from idl_audit.search.linprog.outcomes import Outcome, outcome_of
from idl_audit.search.linprog.waiting import TooLongError, waited_for
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.errors import SolverError

WAITED_FOR = 50_000
"""Programs with so many entries are solved in a thread of their own: some steps of HiGHS look at no clock."""
PATIENCE = 0.2
"""Seconds beyond its limit in which HiGHS may come to an end by itself."""


@dataclass(frozen=True)
class Solution:
    """A primal point and row duals of a minimisation, or nothing but the outcome."""

    outcome: Outcome
    point: FloatArray | None = None
    row_duals: FloatArray | None = None
    iterations: int = 0


class Program:
    """A model that HiGHS holds: a sparse matrix, bounds of rows and columns."""

    options: Mapping[str, Any] = {}

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
        """Hand over the model; `integer` says which columns hold integers.

        Raises:
            SolverError: where a number is none, or HiGHS refuses any of it.
        """
        import highspy

        self._rows = scaled_rows(matrix)
        columns, rows = self._bounds_of(lo, hi, row_lo, row_hi)
        program = highspy.HighsLp()
        program.num_row_, program.num_col_ = matrix.shape
        program.col_lower_, program.col_upper_ = columns.in_order
        program.row_lower_, program.row_upper_ = rows.in_order
        program.col_cost_ = np.zeros(matrix.shape[1])
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = self._rows.matrix.indptr
        program.a_matrix_.index_ = self._rows.matrix.indices
        program.a_matrix_.value_ = self._rows.matrix.data
        self._has_integers = integer is not None and bool(integer.any())
        if integer is not None:
            kinds = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger
            program.integrality_ = [kinds[bool(value)] for value in integer]
        self._n_rows, self._n_columns = (int(size) for size in matrix.shape)
        self._is_lost = False
        """Whether a thread was left with it."""
        self._solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]  # its class has no annotations
        for name, value in self.options.items():
            self._took(self._solver.setOptionValue(name, value), f"the option {name}")
        size = f"a linear program with {matrix.shape[0]} rows, {matrix.shape[1]} columns"
        self._took(self._solver.passModel(program), size)
        held = self._solver.getNumRow(), self._solver.getNumCol()
        if held != matrix.shape:  # refused rows are simply missing
            raise SolverError(f"HiGHS holds {held[0]} rows and {held[1]} columns of {size}")

    def _bounds_of(
        self, lo: FloatArray, hi: FloatArray, row_lo: FloatArray, row_hi: FloatArray
    ) -> tuple[Bounds, Bounds]:
        """Return the bounds of columns and rows as HiGHS is to have them, and remember whether any are crossed."""
        columns, rows = checked_bounds(lo, hi), self._rows.bounds(row_lo, row_hi)
        self._is_crossed = columns.is_crossed or rows.is_crossed
        return columns, rows

    @staticmethod
    def _took(status: Any, what: str) -> None:
        """Raise SolverError where HiGHS did not take something as it is."""
        if status.name != "kOk":
            raise SolverError(f"HiGHS refuses {what} ({status.name})")

    def _run(self, cost: FloatArray, seconds: float | None, *, aside: bool) -> Outcome:
        """Solve for a cost that is scaled already, in a thread of its own where HiGHS may forget the time."""
        if self._is_lost:
            return Outcome.TIME_LIMIT
        if self._is_crossed:
            return Outcome.INFEASIBLE
        every = np.arange(self._n_columns, dtype=np.int32)
        self._took(self._solver.changeColsCost(self._n_columns, every, cost), "the costs of a linear program")
        if seconds is None or not np.isfinite(seconds):
            return self._solved()
        # HiGHS counts from the first run of this model
        until = self._solver.getRunTime() + max(seconds, 0.0)
        self._took(self._solver.setOptionValue("time_limit", until), "a time limit")
        if not aside:
            return self._solved()
        try:
            return waited_for(self._solved, max(seconds, 0.0) + PATIENCE)
        except TooLongError:
            self._is_lost = True
            return Outcome.TIME_LIMIT
        except KeyboardInterrupt:
            self._is_lost = True
            raise

    def _solved(self) -> Outcome:
        if self._solver.run().name == "kError":
            return Outcome.FAILED
        return outcome_of(self._solver.getModelStatus())


class LinearProgram(Program):
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
        self._took(self._solver.setBasis(basis), "a basis")

    def change_bounds(self, lo: FloatArray, hi: FloatArray, row_lo: FloatArray, row_hi: FloatArray) -> None:
        """Put other bounds in place of all bounds of the columns and rows; crossed ones have no solution."""
        columns, rows = self._bounds_of(lo, hi, row_lo, row_hi)
        if self._is_lost or self._is_crossed:
            return
        for change, bounds, count in (
            (self._solver.changeColsBounds, columns, self._n_columns),
            (self._solver.changeRowsBounds, rows, self._n_rows),
        ):
            every = np.arange(count, dtype=np.int32)
            self._took(change(count, every, bounds.lo, bounds.hi), "bounds of a linear program")

    def minimise(self, cost: FloatArray, *, time_limit: float | None = None) -> Solution:
        """Solve for another cost; a point and duals come back only where HiGHS calls them optimal."""
        scaled, factor = scaled_cost(cost)
        aside = self._rows.matrix.nnz >= WAITED_FOR
        outcome = self._run(scaled, time_limit, aside=aside)
        if outcome is Outcome.FAILED and not self._is_lost:  # a basis of the last program may lead nowhere
            self._took(self._solver.clearSolver(), "to forget a basis")
            outcome = self._run(scaled, time_limit, aside=aside)
        if self._is_lost:
            return Solution(outcome)
        iterations = int(self._solver.getInfo().simplex_iteration_count)
        if outcome is not Outcome.OPTIMAL:
            return Solution(outcome, iterations=iterations)
        solution = self._solver.getSolution()
        point, duals = np.array(solution.col_value), np.array(solution.row_dual) / factor
        if point.size != self._n_columns or duals.size != self._n_rows:
            return Solution(Outcome.FAILED, iterations=iterations)
        duals = self._rows.multipliers(duals)
        if not (np.isfinite(point).all() and np.isfinite(duals).all()):
            return Solution(Outcome.FAILED, iterations=iterations)
        return Solution(outcome, point, duals, iterations)

    def dual_ray(self) -> FloatArray | None:
        """Return multipliers of the rows that show why the last program has no solution; None where there are none."""
        if self._is_lost or self._is_crossed:
            return None
        status, exists, ray = self._solver.getDualRay()
        values = np.array(ray, np.float64)
        if status.name == "kError" or not exists or values.size != self._n_rows or not np.isfinite(values).all():
            return None
        return self._rows.multipliers(values)
