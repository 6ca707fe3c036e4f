"""The LP of one box and one set of phases: what the relaxation over a leaf says, and how a split would help.

The program is `relaxation`'s, in the complementarity form; the phases of a leaf are bounds of its columns: the matrix
never changes from node to node, and dual simplex starts from the last basis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.elimination import is_relu
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.cover import Phases
from idl_audit.proof.lp_chain import leaf_bounds
from idl_audit.search.complementarity import flat
from idl_audit.search.linprog import Outcome
from idl_audit.search.rows_together import RowsTogether, relaxation_of
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.query import Conjunction


@dataclass(frozen=True)
class Node:
    """The answer for one set of phases."""

    outcome: Outcome
    objective: float = np.inf
    """What the solver says: to steer by, never to prove."""
    point: FloatArray | None = None
    """u, shape (p,)."""
    multipliers: FloatArray | None = None
    """Row duals of the equations of n states, or a dual ray of them where there is no solution; 0 of constant ones."""
    scores: FloatArray | None = None
    """How much a split of each state may gain, (n,); 0 where nothing is gained, -1 where it cannot be split."""
    leaning: FloatArray | None = None
    """x / h - s / |l|, (n,): positive where the solution leans to z >= 0."""
    weights: FloatArray | None = None
    """Of the rows of an alternative, (r,) >= 0, where the LP is of all of them together."""


class NodeProgram:
    """The LP of one box: solved for one functional of y and one set of phases after the other."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        budget: Budget = UNLIMITED,
        *,
        together: Conjunction | None = None,
    ) -> None:
        """Build the LP from proved bounds of all pre-activations over one box (arrays with a batch axis of 1).

        `together` makes it that of the greatest of some rows, whatever functional is asked about.
        """
        self._model, self._bounds = model, bounds
        whole = StateBounds.of_pre_activations(model.blocks, bounds.z)
        self._relaxation = relaxation_of(model, inputs, whole, together, budget=budget)
        self._z = flat(model, bounds.z)
        relu = np.concatenate([np.zeros(0, np.bool_), *(np.full(block.size, is_relu(block)) for block in model.blocks)])
        self.splits: BoolArray = relu & (self._z.lo < 0) & (self._z.hi > 0)
        """Which states have two phases, (n,)."""

    @property
    def reach(self) -> FloatArray:
        """min(h, -l) of each state, (n,): how far it gets beyond 0 on both sides."""
        return np.minimum(self._z.hi, -self._z.lo)

    def solve(self, functional: FloatArray, phases: Phases, *, time_limit: float) -> Node:
        """Return the LP's answer for min functional . y, (q,), where phases, (n,), are +1, -1 or 0 for each state."""
        form, leaf = self._relaxation.form, leaf_bounds(self._model, self._bounds, phases[None])
        self._relaxation.restrict(StateBounds.of_pre_activations(self._model.blocks, leaf.z))
        weights = None
        if isinstance(self._relaxation, RowsTogether):
            solved, weights = self._relaxation.solve_together(seconds=time_limit)
        else:
            solved = self._relaxation.solve(functional, seconds=time_limit)
        if solved.columns is None or solved.row_duals is None:
            return Node(solved.outcome, multipliers=solved.multipliers)
        with np.errstate(all="ignore"):
            on, off = form.states_of(solved.columns) / self._z.hi, form.slacks_of(solved.columns) / -self._z.lo
        free = self.splits & (phases == 0)
        gap = np.where(free, np.minimum(on, off), 0.0)
        price = form.prices_of(solved.row_duals)
        return Node(
            solved.outcome,
            solved.objective,
            form.inputs_of(solved.columns),
            solved.multipliers,
            scores=np.where(free, np.maximum(price * gap + 1e-9 * gap, 0.0), -1.0),
            leaning=np.where(free, on - off, 0.0),
            weights=weights,
        )
