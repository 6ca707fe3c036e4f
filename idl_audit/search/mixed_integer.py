"""The mixed-integer program (MIP, big-M) of a piecewise linear model over a box: it finds points, it proves nothing.

See docs/mathematics.md, section 8.7.

To the relaxation in complementarity form, a kinked state phi(z) = below z (z <= 0), above z (z >= 0) that bends over
[l, h] adds a binary a and, with g = above - below,

    0 <= (x - below z) / g <= h a,    0 <= (x - above z) / g <= -l (1 - a),

which for ReLU is x <= h a, x - z <= -l (1 - a): exactly the graph. The solver's word that there is no point with a
negative functional is handed on as that; verdicts do not rest on it.

Elsewhere: MILP encoding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.search.complementarity import ComplementarityForm
from idl_audit.search.linprog import MixedIntegerProgram, SignSearch
from idl_audit.search.relaxation import program_bytes
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import SparseBall
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.errors import UnsupportedModelError


def is_piecewise_linear(model: ImplicitModel) -> bool:
    """Return whether every state of a model is kinked, so that it has a mixed-integer program."""
    return all(block.activation.piecewise_linear for block in model.blocks)


class BigMProgram:
    """The mixed-integer program of one box."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        *,
        sparse: SparseBall | None = None,
        budget: Budget = UNLIMITED,
    ) -> None:
        """Keep proved bounds of all states over one box: they are the big-M's (arrays with a batch axis of 1).

        Raises:
            UnsupportedModelError: where a state is not piecewise linear.
            MemoryLimitError: where it would take more than the budget allows.
            BudgetError: where the time is over before it is built.
        """
        if not is_piecewise_linear(model):
            raise UnsupportedModelError(
                ("a mixed-integer program needs piecewise linear states; leave the method mip out",)
            )
        budget.allow(2 * program_bytes(model), f"a mixed-integer program over {model.n_states:,} states")
        self._model, self._budget = model, budget
        self._form = ComplementarityForm(model, inputs, bounds, sparse=sparse, check=budget.check)
        self._build()

    def find_negative(self, functional: FloatArray, *, propose: Callable[[FloatArray], bool]) -> SignSearch:
        """Look for u in the box with functional . y(u) < 0, within the budget of the program.

        Args:
            functional: shape (q,).
            propose: is given every better u that the solver comes to, shape (p,); says whether to stop.
        """
        form = self._form
        cost, constant = form.cost(functional)
        # HiGHS keeps the incumbent of an earlier cost: a program of its own for each
        program = MixedIntegerProgram(
            self._matrix, lo=self._lo, hi=self._hi, row_lo=self._row_lo, row_hi=self._row_hi, integer=self._integer
        )
        nodes = self._budget.last_node - self._budget.nodes.spent
        found = program.find_negative(
            np.concatenate([cost, np.zeros(self._lo.size - cost.size)]),
            offset=constant,
            time_limit=self._budget.left,
            propose=lambda columns: propose(form.inputs_of(columns)),
            most_nodes=int(max(nodes, 0)) if np.isfinite(nodes) else None,
        )
        self._budget.spend(found.nodes)
        return found

    def _build(self) -> None:
        """Add to the relaxation a binary a and two rows for every state that bends."""
        model, form, bounds = self._model, self._form, self._form.bounds
        p, k = form.sizes
        order = range(len(model.blocks))
        sides = [(bounds.z[j].lo[0], bounds.z[j].hi[0]) for j in order]
        lo, hi = (np.concatenate([np.zeros(0), *(side[end] for side in sides)])[form.live] for end in (0, 1))
        ends = [(b.derivative(np.full(b.size, -1.0)), b.derivative(np.full(b.size, 1.0))) for b in model.blocks]
        below, above = (np.concatenate([np.zeros(0), *(end[side] for end in ends)])[form.live] for side in (0, 1))
        bends = np.flatnonzero((lo < 0) & (hi > 0) & (below != above))
        m, g = bends.size, (above - below)[bends]
        at = np.arange(m)

        def rows_of(slope: FloatArray, big: FloatArray) -> sp.csr_array:
            """(x - slope z) / g + big a, z = x - s."""
            data = np.concatenate([(1.0 - slope) / g, slope / g, big])
            columns = np.concatenate([p + bends, p + k + bends, p + 2 * k + at])
            return sp.csr_array((data, (np.tile(at, 3), columns)), shape=(m, p + 2 * k + m))

        relaxed = form.matrix
        wider = sp.hstack([relaxed, sp.csr_array((relaxed.shape[0], m))])
        self._matrix = sp.csr_array(
            sp.vstack([wider, rows_of(below[bends], -hi[bends]), rows_of(above[bends], -lo[bends])], format="csr")
        )
        limits = form.limits
        self._lo, self._hi = np.concatenate([limits.lo, np.zeros(m)]), np.concatenate([limits.hi, np.ones(m)])
        self._row_lo = np.concatenate([limits.row_lo, np.full(2 * m, -np.inf)])
        self._row_hi = np.concatenate([limits.row_hi, np.zeros(m), -lo[bends]])
        self._integer = np.arange(self._lo.size) >= p + 2 * k
