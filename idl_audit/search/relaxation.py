"""The LP relaxation over a box: a point to try, and multipliers for a proof.

The linear, or triangle (Planet), relaxation of other verifiers (docs/mathematics.md, section 7.1). The program is
`complementarity`'s; the bound is never the solver's, but what `certificate.lower_bound` makes of the duals.

Elsewhere: linear relaxation, Planet relaxation, LP attack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.activations import Coupled
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.lp_chain import given
from idl_audit.search.complementarity import ComplementarityForm
from idl_audit.search.linprog import LinearProgram, Outcome
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import SparseBall
from idl_audit.values.budget import UNLIMITED, Budget, Pace

RAY_MARGIN = 2.0
"""A ray is taken so many times as large as real numbers would need it."""


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
        self.form = ComplementarityForm(
            model, inputs, bounds, sparse=sparse, many_planes=planes_fit(model, budget), check=budget.check
        )
        self.program = self._program()

    def _program(self) -> LinearProgram:
        limits = self.form.limits
        program = LinearProgram(
            self.form.matrix, lo=limits.lo, hi=limits.hi, row_lo=limits.row_lo, row_hi=limits.row_hi
        )
        program.start_from(*self.form.first_basis)
        return program

    def restrict(self, bounds: StateBounds) -> None:
        """Go on with a part of the box in which the states have these proved bounds, each within those at the start."""
        self._bounds = bounds
        limits = self.form.leaf_limits(bounds)
        self.program.change_bounds(limits.lo, limits.hi, limits.row_lo, limits.row_hi)

    def solve(self, functional: FloatArray, *, seconds: float | None = None) -> Solved:
        """Return the solver's word on min functional . y, shape (q,), within so many seconds."""
        cost, constant = self.form.cost(functional)
        solution = self.program.minimise(cost, time_limit=seconds)
        duals, columns = solution.row_duals, solution.point
        if solution.outcome is Outcome.INFEASIBLE:
            duals = self.program.dual_ray()
        multipliers = None if duals is None else self.form.multipliers_of(duals)
        objective = np.inf if columns is None else float(cost @ columns + constant)
        return Solved(solution.outcome, objective, columns, duals, multipliers)

    def minimise(self, functional: FloatArray, *, budget: Budget = UNLIMITED) -> LpBound:
        """Return what the LP says of min functional . y, shape (q,): a point and a bound that we prove ourselves.

        The solver leaves time for the proof, as long as the last one took.

        Raises:
            BudgetError: where the time is over before the bound is proved.
        """
        model = self._model
        solved = self.solve(functional, seconds=budget.before(self._proofs.seconds).left)
        if solved.columns is None or solved.multipliers is None:
            return LpBound(solved.outcome, None, -np.inf, solved)
        functionals = Functionals.of_outputs(model, functional[None])
        multipliers = given(model, solved.multipliers[None])
        with self._proofs.unit(1, budget):
            lower = lower_bound(model, self._inputs, self._bounds, functionals, multipliers, check=budget.check)
        return LpBound(
            solved.outcome,
            self.form.inputs_of(solved.columns),
            float(lower[0, 0]),
            solved,
            self.form.states_of(solved.columns),
            solved.multipliers,
        )


BYTES_A_NONZERO = 100
"""Of a model's maps, in all copies of a linear program: ours, and the solver's with its factors (measured: 75)."""


def program_bytes(model: ImplicitModel) -> int:
    """Return about how much memory a linear program over a model's states takes, in bytes."""
    return BYTES_A_NONZERO * (model.nnz + model.n_inputs + 4 * model.n_states)


MOST_PLANE_ENTRIES = 2**22
"""Coefficients of the planes of matrix products: beyond, their rows alone would take a program minutes to load."""


def planes_fit(model: ImplicitModel, budget: Budget) -> bool:
    """Return whether the planes of matrix products have a place in a program, beside what it takes anyway."""
    entries = sum(
        block.activation.plane_entries(block.size) for block in model.blocks if isinstance(block.activation, Coupled)
    )
    needed = program_bytes(model) + 2 * BYTES_A_NONZERO * entries  # z = x - s: two columns each
    return entries <= MOST_PLANE_ENTRIES and (budget.max_bytes is None or needed <= budget.max_bytes)


def outweighing(bound: Callable[[float, FloatArray], float], ray: FloatArray, wanted: float = 0.0) -> FloatArray | None:
    """Return as large a multiple of a dual ray as proves a functional f above `wanted`; None where the ray proves none.

    The bound of a sum of functionals is no less than the sum of their bounds: p(t lam; f) >= p(0; f) + t p(lam; 0).

    Args:
        bound: weight, lam -> the proved lower bound of weight f by these multipliers, p(lam; weight f).
        ray: one multiplier a state, (n,), of either sign.
        wanted: what is to be proved.
    """
    gains = [(bound(0.0, sign * ray), sign) for sign in (1.0, -1.0)]
    (gain, sign), base = max(gains), bound(1.0, np.zeros_like(ray))
    if not (gain > 0 and np.isfinite(base)):
        return None
    missing = RAY_MARGIN * max(wanted - base, 0.0) + max(abs(wanted), 1.0)
    return sign * missing / gain * ray


@dataclass(frozen=True)
class Solved:
    """What the solver says of one functional: to steer by, never to prove."""

    outcome: Outcome
    objective: float
    columns: FloatArray | None
    """Of the program, where it has a solution."""
    row_duals: FloatArray | None
    """Or a dual ray, where there is no solution."""
    multipliers: FloatArray | None
    """The part of the row duals that the certificate takes: one a state, (n,), 0 of constant ones."""


@dataclass(frozen=True)
class LpBound:
    """The LP's answer for one functional."""

    outcome: Outcome
    point: FloatArray | None
    """u*, shape (p,): where the relaxation attains its minimum; a candidate for an attack."""
    lower: float
    """A proved lower bound, evaluated from the duals by `certificate.lower_bound`; -inf where there are none."""
    solution: Solved
    states: FloatArray | None = None
    """The relaxation's x there, shape (n,), newest block first."""
    multipliers: FloatArray | None = None
    """What `lower` was evaluated from, one a state, shape (n,)."""
