"""The LP relaxation over a box: a point to try, and multipliers for a proof.

The linear, or triangle (Planet), relaxation of other verifiers (docs/mathematics.md, section 7.1). The program is
`complementarity`'s; the bound is never the solver's, but what `certificate.lower_bound` makes of the duals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, Multipliers, lower_bound
from idl_audit.search.complementarity import ComplementarityForm
from idl_audit.search.linprog import LinearProgram, Outcome, Solution
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import SparseBall
from idl_audit.values.budget import UNLIMITED, Budget, Pace


class TriangleRelaxation:
    """The LP of one box: built once, solved for one linear functional after the other."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        *,
        sparse: SparseBall | None = None,
        budget: Budget = UNLIMITED,
    ) -> None:
        """Build the LP from proved bounds of all states over one box (arrays with a batch axis of 1).

        `sparse` is the set itself where it is U_card and the model is feed-forward; `inputs` is then the box around it.

        Raises:
            MemoryLimitError: where it would take more than the budget allows.
            BudgetError: where the time is over before it is built.
        """
        budget.allow(program_bytes(model), f"a linear program over {model.n_states:,} states")
        self._proofs = Pace()
        self._model, self._bounds = model, bounds
        self._inputs = inputs if sparse is None else Interval.of_set(sparse)
        self.form = ComplementarityForm(model, inputs, bounds, sparse=sparse, check=budget.check)
        limits = self.form.limits
        self.program = LinearProgram(
            self.form.matrix, lo=limits.lo, hi=limits.hi, row_lo=limits.row_lo, row_hi=limits.row_hi
        )
        self.program.start_from(*self.form.first_basis)

    def restrict(self, bounds: StateBounds) -> None:
        """Go on with a part of the box in which the states have these proved bounds, each within those at the start."""
        self._bounds = bounds
        limits = self.form.leaf_limits(bounds)
        self.program.change_bounds(limits.lo, limits.hi, limits.row_lo, limits.row_hi)

    def minimise(self, functional: FloatArray, *, budget: Budget = UNLIMITED) -> LpBound:
        """Return what the LP says of min functional . y, shape (q,): a point and a bound that we prove ourselves.

        The solver leaves time for the proof, as long as the last one took.

        Raises:
            BudgetError: where the time is over before the bound is proved.
        """
        model = self._model
        cost, _ = self.form.cost(model.matrices.C.T @ functional, model.matrices.D.T @ functional)
        solution = self.program.minimise(cost, time_limit=budget.before(self._proofs.seconds).left)
        if solution.outcome is not Outcome.OPTIMAL or solution.point is None or solution.row_duals is None:
            return LpBound(solution.outcome, None, -np.inf, solution)
        functionals = Functionals.of_outputs(model, functional[None])
        lam = self.form.multipliers_of(solution.row_duals)
        multipliers = as_multipliers(model, lam)
        with self._proofs.unit(1, budget):
            lower = lower_bound(model, self._inputs, self._bounds, functionals, multipliers, check=budget.check)
        return LpBound(
            solution.outcome,
            self.form.inputs_of(solution.point),
            float(lower[0, 0]),
            solution,
            self.form.states_of(solution.point),
            lam,
        )


BYTES_A_NONZERO = 100
"""Of a model's maps, in all copies of a linear program: ours, and the solver's with its factors (measured: 75)."""


def program_bytes(model: ImplicitModel) -> int:
    """Return about how much memory a linear program over a model's states takes, in bytes."""
    nonzeros = sum(linear_map.nnz for row in (*model.rows, model.output) for linear_map in row.maps)
    return BYTES_A_NONZERO * (nonzeros + model.n_inputs + 4 * model.n_states)


def as_multipliers(model: ImplicitModel, lam: FloatArray) -> Multipliers:
    """Return one multiplier a state, shape (n,), as the certificate takes them; any numbers are sound."""
    offsets = model.offsets

    def choose(k: int, v: FloatArray) -> FloatArray:
        return np.broadcast_to(lam[offsets[k] : offsets[k + 1]], v.shape)

    return choose


@dataclass(frozen=True)
class LpBound:
    """The LP's answer for one functional."""

    outcome: Outcome
    point: FloatArray | None
    """u*, shape (p,): where the relaxation attains its minimum; a candidate for an attack."""
    lower: float
    """A proved lower bound, evaluated from the duals by `certificate.lower_bound`; -inf where there are none."""
    solution: Solution
    states: FloatArray | None = None
    """The relaxation's x there, shape (n,), newest block first."""
    multipliers: FloatArray | None = None
    """What `lower` was evaluated from, one a state, shape (n,)."""
