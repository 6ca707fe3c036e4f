"""The LP relaxation over a box (mathematics 7, paper section 4.4), in the complementarity form.

Variables t, x and the slack s = x - z, with u = centre + radius t and t in [-1, 1], so that data in bytes and data in
[0, 1] give the same program. Rows (I - A) x - B diag(radius) t - s = b + B centre; every line of the activation's
relaxation over [l, h] is (1 - slope) x + slope s >= intercept (or <=): a bound of a column where the slope is 0 or 1,
which for ReLU leaves one row for each unstable state: the triangle's chord.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.analysis.certificate import Functionals, Multipliers, lower_bound
from idl_audit.analysis.linprog import LinearProgram, Outcome, Solution
from idl_audit.arrays import BoolArray, FloatArray
from idl_audit.implicit.activations import Line
from idl_audit.implicit.model import ImplicitModel

_SMALLEST_WIDTH = 1e-9
"""A state whose interval is narrower than this is left to its column bounds: a chord over it is all rounding."""


@dataclass
class Columns:
    """Bounds of the columns t, x, s while the relaxation is put together, and its rows of lines."""

    lo: FloatArray
    hi: FloatArray
    rows: list[sp.csr_array]
    row_lo: list[FloatArray]
    row_hi: list[FloatArray]


class TriangleRelaxation:
    """The LP of one box: built once, solved for one linear functional of y after the other."""

    def __init__(self, model: ImplicitModel, inputs: Interval, bounds: StateBounds) -> None:
        """Build the LP from proved bounds of all states over one box (arrays with a batch axis of 1)."""
        self._model, self._inputs, self._bounds = model, inputs, bounds
        p, n = model.n_inputs, model.n_states
        matrices = model.matrices
        self._centre = (inputs.lo[0] + inputs.hi[0]) / 2
        self._radius = (inputs.hi[0] - inputs.lo[0]) / 2
        from_input = matrices.B @ sp.dia_array((self._radius[None], [0]), shape=(p, p))
        equations = sp.hstack([-from_input, sp.eye_array(n) - matrices.A, -sp.eye_array(n)])
        constant = matrices.b + matrices.B @ self._centre
        columns = self._columns()
        rows = [sp.csr_array(equations), *columns.rows]
        self._program = LinearProgram(
            sp.csr_array(sp.vstack(rows)),
            lo=columns.lo,
            hi=columns.hi,
            row_lo=np.concatenate([constant, *columns.row_lo]),
            row_hi=np.concatenate([constant, *columns.row_hi]),
        )
        self._sizes = p, n

    def _columns(self) -> Columns:
        model, bounds = self._model, self._bounds
        p, n = model.n_inputs, model.n_states
        z_lo, z_hi, x_lo, x_hi = (
            np.concatenate([np.zeros(0), *(side[k] for k in range(len(model.blocks)))])
            for side in (
                {k: z.lo[0] for k, z in bounds.z.items()},
                {k: z.hi[0] for k, z in bounds.z.items()},
                {k: x.lo[0] for k, x in bounds.x.items()},
                {k: x.hi[0] for k, x in bounds.x.items()},
            )
        )
        lo = np.concatenate([np.full(p, -1.0), x_lo, x_lo - z_hi])
        hi = np.concatenate([np.full(p, 1.0), x_hi, x_hi - z_lo])
        columns = Columns(lo, hi, [], [], [])
        for k, block in enumerate(model.blocks):
            states = np.arange(model.offsets[k], model.offsets[k + 1])
            wide = (z_hi - z_lo)[states] > _SMALLEST_WIDTH
            below, above = block.lines(z_lo[states], z_hi[states])
            for line, is_lower in [*((line, True) for line in below), *((line, False) for line in above)]:
                _add_line(columns, line, is_lower, wide, p + states, p + n + states)
        return columns

    def minimise(self, functional: FloatArray, *, time_limit: float | None = None) -> LpBound:
        """Return what the LP says of min functional . y, shape (q,): a point and a bound that we prove ourselves."""
        model = self._model
        p, n = self._sizes
        c, d = model.matrices.C.T @ functional, model.matrices.D.T @ functional
        solution = self._program.minimise(np.concatenate([self._radius * d, c, np.zeros(n)]), time_limit=time_limit)
        if solution.outcome is not Outcome.OPTIMAL or solution.point is None or solution.row_duals is None:
            return LpBound(solution.outcome, None, -np.inf, solution)
        functionals = Functionals.of_outputs(model, functional[None])
        multipliers = self._multipliers(solution.row_duals[:n])
        proved = lower_bound(model, self._inputs, self._bounds, functionals, multipliers)
        point = self._centre + self._radius * solution.point[:p]
        return LpBound(solution.outcome, point, float(proved[0, 0]), solution)

    def _multipliers(self, duals: FloatArray) -> Multipliers:
        """Return the solver's duals of the rows of each block; any numbers are sound."""
        offsets = self._model.offsets

        def choose(k: int, v: FloatArray) -> FloatArray:
            return np.broadcast_to(duals[offsets[k] : offsets[k + 1]], v.shape)

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


def _add_line(
    columns: Columns, line: Line, is_lower: bool, wide: BoolArray, x_columns: np.ndarray, s_columns: np.ndarray
) -> None:
    """Add x >= slope z + intercept (or <=) for every state of a block, z = x - s."""
    slope, intercept = line
    limits, tighten = (columns.lo, np.maximum) if is_lower else (columns.hi, np.minimum)
    for value, where in ((0.0, x_columns), (1.0, s_columns)):
        flat = slope == value
        limits[where[flat]] = tighten(limits[where[flat]], intercept[flat])
    rows = np.flatnonzero((slope != 0.0) & (slope != 1.0) & wide)
    if not rows.size:
        return
    indices = np.stack([x_columns[rows], s_columns[rows]], axis=1).reshape(-1)
    data = np.stack([1.0 - slope[rows], slope[rows]], axis=1).reshape(-1)
    indptr = np.arange(rows.size + 1) * 2
    columns.rows.append(sp.csr_array((data, indices, indptr), shape=(rows.size, columns.lo.size)))
    columns.row_lo.append(intercept[rows] if is_lower else np.full(rows.size, -np.inf))
    columns.row_hi.append(np.full(rows.size, np.inf) if is_lower else intercept[rows])
