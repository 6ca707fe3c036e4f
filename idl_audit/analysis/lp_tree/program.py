"""The LP of one box and one set of phases, in the complementarity form (mathematics 7; verification 2).

Columns t, x and the slack s = x - z, u = centre + radius t. Rows (I - A) x - B diag(radius) t - s = b + B centre, and
one row for each line of the activations' relaxations that is no bound of a column. A phase of a ReLU is a bound of a
column, x = 0 or s = 0: the matrix never changes from node to node, and dual simplex starts from the last basis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.analysis.linprog import LinearProgram, Outcome
from idl_audit.arrays import BoolArray, FloatArray, IntArray
from idl_audit.implicit.elimination import is_relu
from idl_audit.implicit.model import ImplicitModel

SMALLEST = 1e-9
"""A ReLU that reaches less than this beyond 0 has no triangle of its own: its columns' bounds are left to it."""


@dataclass(frozen=True)
class Node:
    """The answer for one set of phases."""

    outcome: Outcome
    objective: float = np.inf
    """What the solver says: to steer by, never to prove."""
    point: FloatArray | None = None
    """u, shape (p,)."""
    multipliers: FloatArray | None = None
    """Row duals of the n equations, or a dual ray of them where there is no solution."""
    scores: FloatArray | None = None
    """How much a split of each state may gain, (n,); 0 where nothing is gained, -1 where it cannot be split."""
    leaning: FloatArray | None = None
    """x / h - s / |l|, (n,): positive where the solution leans to z >= 0."""


class PhaseProgram:
    """The LP of one box: solved for one functional of y and one set of phases after the other."""

    def __init__(self, model: ImplicitModel, inputs: Interval, bounds: StateBounds) -> None:
        """Build the LP from proved bounds of all pre-activations over one box (arrays with a batch axis of 1)."""
        self._model = model
        p, n = model.n_inputs, model.n_states
        self._p, self._n = p, n
        self._centre = (inputs.lo[0] + inputs.hi[0]) / 2
        self._radius = (inputs.hi[0] - inputs.lo[0]) / 2
        self.z_lo, self.z_hi = (
            np.concatenate([np.zeros(0), *(side[k] for k in range(len(model.blocks)))])
            for side in ({k: z.lo[0] for k, z in bounds.z.items()}, {k: z.hi[0] for k, z in bounds.z.items()})
        )
        self.splits = _splittable(model, self.z_lo, self.z_hi)
        """Which states have two phases, (n,)."""
        self._hull_row = np.full(n, -1, np.int64)
        self._program = self._built()
        self._set: IntArray = np.zeros(0, np.int64)

    def _built(self) -> LinearProgram:
        model, p, n = self._model, self._p, self._n
        matrices = model.matrices
        from_input = matrices.B @ sp.dia_array((self._radius[None], [0]), shape=(p, p))
        equations = sp.csr_array(sp.hstack([-from_input, sp.eye_array(n) - matrices.A, -sp.eye_array(n)]))
        constant = matrices.b + matrices.B @ self._centre
        x_lo, x_hi = np.zeros(n), np.zeros(n)
        lines: list[tuple[FloatArray, FloatArray, IntArray, bool]] = []
        for k, block in enumerate(model.blocks):
            states = np.arange(model.offsets[k], model.offsets[k + 1])
            lo, hi = self.z_lo[states], self.z_hi[states]
            x_lo[states], x_hi[states] = block.interval(lo, hi)
            below, above = block.lines(lo, hi)
            for side, is_lower in ((below, True), (above, False)):
                for slope, cut in side:
                    steep = (hi - lo > SMALLEST) & (slope != 0.0) & (slope != 1.0)
                    rows = np.flatnonzero(steep)
                    lines.append((slope[rows], cut[rows], states[rows], is_lower))
        self._lo = np.concatenate([np.full(p, -1.0), x_lo, x_lo - self.z_hi])
        self._hi = np.concatenate([np.full(p, 1.0), x_hi, x_hi - self.z_lo])
        relu = _relu_states(model)
        self._lo[p + n :][relu] = np.maximum(-self.z_hi, 0.0)[relu]
        self._hi[p + n :][relu] = np.maximum(-self.z_lo, 0.0)[relu]
        blocks, row_lo, row_hi, count = [equations], [constant], [constant], n
        for slope, cut, states, is_lower in lines:  # (1 - slope) x + slope s >= cut, or <=
            m = states.size
            data = np.stack([1.0 - slope, slope], axis=1).reshape(-1)
            indices = np.stack([p + states, p + n + states], axis=1).reshape(-1)
            blocks.append(sp.csr_array((data, indices, np.arange(m + 1) * 2), shape=(m, p + 2 * n)))
            row_lo.append(cut if is_lower else np.full(m, -np.inf))
            row_hi.append(np.full(m, np.inf) if is_lower else cut)
            if not is_lower:
                self._hull_row[states] = count + np.arange(m)
            count += m
        return LinearProgram(
            sp.csr_array(sp.vstack(blocks)),
            lo=self._lo,
            hi=self._hi,
            row_lo=np.concatenate(row_lo),
            row_hi=np.concatenate(row_hi),
        )

    def solve(self, functional: FloatArray, phases: FloatArray, *, time_limit: float) -> Node:
        """Return the LP's answer for min functional . y, (q,), where phases, (n,), are +1, -1 or 0 for each state."""
        self._fix(phases)
        matrices, p, n = self._model.matrices, self._p, self._n
        c, d = matrices.C.T @ functional, matrices.D.T @ functional
        cost = np.concatenate([self._radius * d, c, np.zeros(n)])
        answer = self._program.minimise(cost, time_limit=time_limit)
        if answer.outcome is Outcome.INFEASIBLE:
            ray = self._program.dual_ray()
            return Node(answer.outcome, multipliers=None if ray is None else ray[:n])
        if answer.outcome is not Outcome.OPTIMAL or answer.point is None or answer.row_duals is None:
            return Node(answer.outcome)
        x, s = answer.point[p : p + n], answer.point[p + n :]
        objective = float(cost @ answer.point + d @ self._centre + functional @ matrices.d)
        with np.errstate(all="ignore"):
            on, off = x / self.z_hi, s / -self.z_lo
        free = self.splits & (phases == 0)
        price = np.where(self._hull_row >= 0, np.abs(answer.row_duals[self._hull_row]), 0.0)
        gap = np.where(free, np.minimum(on, off), 0.0)
        scores = np.where(free, np.maximum(price * gap + 1e-9 * gap, 0.0), -1.0)
        point = self._centre + self._radius * answer.point[:p]
        leaning = np.where(free, on - off, 0.0)
        return Node(answer.outcome, objective, point, answer.row_duals[:n], scores, leaning)

    def _fix(self, phases: FloatArray) -> None:
        """Bound the columns for these phases; those of the node before are set free."""
        p, n = self._p, self._n
        now = np.flatnonzero(phases)
        states = np.union1d(self._set, now)
        self._set = now
        if not states.size:
            return
        lo, hi = self._lo.copy(), self._hi.copy()
        hi[p + np.flatnonzero(phases < 0)] = 0.0
        hi[p + n + np.flatnonzero(phases > 0)] = 0.0
        columns = np.concatenate([p + states, p + n + states])
        self._program.set_columns(columns, np.minimum(lo[columns], hi[columns]), hi[columns])


def _relu_states(model: ImplicitModel) -> BoolArray:
    parts = [np.full(block.size, is_relu(block)) for block in model.blocks]
    return np.concatenate([np.zeros(0, np.bool_), *parts])


def _splittable(model: ImplicitModel, lo: FloatArray, hi: FloatArray) -> BoolArray:
    return _relu_states(model) & (lo < 0) & (hi > 0)
