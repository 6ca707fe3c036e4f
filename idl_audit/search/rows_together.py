"""The LP of several rows at once: where over the relaxation is the greatest of them least?

Rows f_r = rows_r . y + offsets_r of one alternative, which a counterexample makes <= 0 all together. The program

    min tau    over the relaxation,    f_r <= s_r tau for every r,

is positive where no point of the relaxation satisfies all rows. Its duals are the multipliers lam of the states'
equations and weights mu >= 0 of the rows, sum_r s_r mu_r = 1, and they prove by p(lam; sum_r mu_r f_r) what no row, and
no sum of two rows with the weights 1, need prove. See docs/mathematics.md, section 8.8.

Elsewhere: Farkas' lemma, joint infeasibility of the output constraints.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.search.complementarity import Limits
from idl_audit.search.linprog import LinearProgram, Outcome
from idl_audit.search.relaxation import Solved, TriangleRelaxation
from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.query import Conjunction

DEEPEST = -1.0
"""Of tau: a point that satisfies all rows by their scales is good enough."""


class RowsTogether(TriangleRelaxation):
    """The relaxation of one box with the rows of an alternative, each <= its scale times the last column."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        alternative: Conjunction,
        *,
        budget: Budget = UNLIMITED,
    ) -> None:
        """Build the program. Raises MemoryLimitError and BudgetError as `TriangleRelaxation`."""
        self._rows, self._offsets = alternative.rows, alternative.offsets
        super().__init__(model, inputs, bounds, budget=budget)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def _program(self) -> LinearProgram:
        form = self.form
        count = len(self._rows)
        costs, constants = zip(*(form.cost(row) for row in self._rows), strict=True)
        rows, limits = np.stack(costs), form.limits
        with np.errstate(invalid="ignore"):
            reach = np.abs(rows) * (limits.hi - limits.lo)
        widths = np.where(np.isfinite(reach), reach, 0.0).sum(axis=1)
        self._scales = np.maximum(widths / max(float(widths.max()), 1e-30), 1e-3)
        """How much each row may move, the most that one does being 1."""
        self._right = -np.asarray(constants) - self._offsets
        matrix = sp.vstack(
            [
                sp.hstack([form.matrix, sp.csr_array((form.matrix.shape[0], 1))]),
                sp.hstack([sp.csr_array(rows), sp.csr_array(-self._scales[:, None])]),
            ],
            format="csr",
        )
        own = self._with_rows(limits)
        program = LinearProgram(sp.csr_array(matrix), lo=own.lo, hi=own.hi, row_lo=own.row_lo, row_hi=own.row_hi)
        columns, basic = form.first_basis
        program.start_from(np.append(columns, False), np.concatenate([basic, np.full(count, True)]))
        self._cost = np.append(np.zeros(matrix.shape[1] - 1), 1.0)
        return program

    def _with_rows(self, limits: Limits) -> Limits:
        return Limits(
            np.append(limits.lo, DEEPEST),
            np.append(limits.hi, np.inf),
            np.concatenate([limits.row_lo, np.full(len(self._rows), -np.inf)]),
            np.concatenate([limits.row_hi, self._right]),
        )

    def restrict(self, bounds: StateBounds) -> None:
        """Go on with a part of the box, as `TriangleRelaxation`."""
        self._bounds = bounds
        limits = self._with_rows(self.form.leaf_limits(bounds))
        self.program.change_bounds(limits.lo, limits.hi, limits.row_lo, limits.row_hi)

    def solve_together(self, *, seconds: float | None = None) -> tuple[Solved, FloatArray | None]:
        """Return the solver's word on min tau within so many seconds, and the rows' weights, (r,), scaled to sum 1.

        Where there is no solution, or tau is at its least, the weights are None or of no use.
        """
        solution = self.program.minimise(self._cost, time_limit=seconds)
        duals, columns = solution.row_duals, solution.point
        if solution.outcome is Outcome.INFEASIBLE:
            duals = self.program.dual_ray()
        multipliers = None if duals is None else self.form.multipliers_of(duals)
        objective = np.inf if columns is None else float(columns[-1])
        found = Solved(solution.outcome, objective, columns if columns is None else columns[:-1], duals, multipliers)
        if columns is None or duals is None:
            return found, None
        return found, np.maximum(-duals[-len(self._rows) :], 0.0)


def relaxation_of(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    together: Conjunction | None,
    *,
    budget: Budget = UNLIMITED,
) -> TriangleRelaxation:
    """Return the relaxation of one box: for one functional after the other, or for several rows `together`."""
    if together is None:
        return TriangleRelaxation(model, inputs, bounds, budget=budget)
    return RowsTogether(model, inputs, bounds, together, budget=budget)
