"""Branch and bound over the phases of ReLU states by the LP, for models with loops and without.

See docs/mathematics.md, section 8.5.

Depth first; each node is the LP of the node before with a few column bounds changed. Its point is replayed; a node is
a leaf where the certificate, evaluated with its row duals or a dual ray, proves the functional positive. Nothing that
the solver says enters the verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.cover import Phases
from idl_audit.proof.lp_chain import LpLeaves, prove_leaves
from idl_audit.search.linprog import Outcome
from idl_audit.search.lp_tree.program import Node, NodeProgram
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import UNLIMITED, Budget, Pace
from idl_audit.values.errors import BudgetError
from idl_audit.values.rounding import down

Candidate = Callable[[FloatArray], bool]
"""Asked of each node's point u: whether the search may end, since the point (or another) is a counterexample."""


@dataclass
class Grown:
    """What came of one functional's tree."""

    lower: float = np.inf
    """Least proved bound of all leaves; -inf where one is open."""
    found: bool = False
    outcome: Outcome = Outcome.OPTIMAL
    """Why the tree is not finished, where it is not."""
    nodes: int = 0
    root: float = -np.inf
    """What the solver says of the relaxation without phases: to steer by."""
    phases: list[Phases] = field(default_factory=list)
    multipliers: list[Float32Array] = field(default_factory=list)

    @property
    def leaves(self) -> LpLeaves:
        """The proof, where `lower` is positive."""
        return LpLeaves(np.stack(self.phases), np.stack(self.multipliers))


@dataclass(frozen=True, eq=False)
class _Row:
    """What is to be proved positive: functional . y + offset."""

    functional: FloatArray
    offset: float


class LpTree:
    """Trees over one box, one functional after the other."""

    def __init__(self, model: ImplicitModel, inputs: Interval, bounds: StateBounds, budget: Budget = UNLIMITED) -> None:
        """Prepare the LP from proved bounds of all pre-activations over one box."""
        self._model, self._inputs, self._bounds = model, inputs, bounds
        self._budget = budget
        self._program = NodeProgram(model, inputs, bounds, budget)
        self._proofs = Pace()
        """Of one node."""

    def grow(
        self,
        functional: FloatArray,
        candidate: Candidate,
        *,
        offset: float = 0.0,
        most_nodes: int | None = None,
        budget: Budget | None = None,
    ) -> Grown:
        """Prove functional . y + offset > 0, (q,), over the box, or come upon a counterexample, within a budget.

        Args:
            functional: a margin, or any row.
            offset: rounded downward.
            candidate: is asked of the points of nodes.
            most_nodes: stop after so many nodes; 1 is the relaxation alone.
            budget: that of all trees where it is left out.
        """
        grown = Grown()
        try:
            return self._grow(_Row(functional, offset), candidate, most_nodes, grown, budget or self._budget)
        except BudgetError:
            grown.lower, grown.outcome = -np.inf, Outcome.TIME_LIMIT
            return grown

    def _grow(self, row: _Row, candidate: Candidate, most_nodes: int | None, grown: Grown, budget: Budget) -> Grown:
        waiting: list[Phases] = [np.zeros(self._model.n_states, np.int8)]
        while waiting:
            if budget.is_spent or (most_nodes is not None and grown.nodes >= most_nodes):
                grown.lower, grown.outcome = -np.inf, Outcome.TIME_LIMIT
                return grown
            phases = waiting.pop()
            budget.spend()
            seconds = budget.before(self._proofs.seconds).left
            node = self._program.solve(row.functional, phases, time_limit=seconds)
            if not grown.nodes:
                grown.root = node.objective
            grown.nodes += 1
            with self._proofs.unit(1, budget):
                is_leaf = self._is_leaf(row, phases, node, grown)
            if is_leaf:
                continue
            if node.outcome not in (Outcome.OPTIMAL, Outcome.INFEASIBLE):
                grown.lower, grown.outcome = -np.inf, node.outcome
                return grown
            if node.point is not None and candidate(node.point):
                grown.lower, grown.found = -np.inf, True
                return grown
            state = self._split(phases, node)
            if state is None:
                grown.lower, grown.outcome = -np.inf, Outcome.FAILED
                return grown
            side = 1 if node.leaning is None or node.leaning[state] >= 0 else -1
            for phase in (-side, side):  # the likelier one is looked at first
                child = phases.copy()
                child[state] = phase
                waiting.append(child)
        return grown

    def _is_leaf(self, row: _Row, phases: Phases, node: Node, grown: Grown) -> bool:
        """Try to prove a node and keep the proof."""
        if node.multipliers is None or not node.objective + row.offset > 0:
            return False
        if node.outcome is Outcome.OPTIMAL:
            return self._kept(row, phases, node.multipliers, grown)
        return any(self._kept(row, phases, ray, grown) for ray in self._rays(row, phases, node))

    def _rays(self, row: _Row, phases: Phases, node: Node) -> list[FloatArray]:
        """Return multiples of a dual ray that outweigh the functional: p(t lam; f) >= p(0; f) + t p(lam; 0)."""
        assert node.multipliers is not None
        zero = np.zeros_like(node.multipliers)
        base = self._bound(row, phases, zero)
        rays = []
        for ray in (node.multipliers, -node.multipliers):
            gain = self._bound(_Row(np.zeros_like(row.functional), 0.0), phases, ray)
            if gain > 0 and np.isfinite(base):
                rays.append(ray * (2 * (1 + abs(base)) / gain))
        return rays

    def _bound(self, row: _Row, phases: Phases, multipliers: FloatArray) -> float:
        leaf = LpLeaves(phases[None], multipliers[None].astype(np.float32))
        check = self._budget.check
        lower = prove_leaves(self._model, self._inputs, self._bounds, row.functional, leaf, check=check)
        return float(down(lower + row.offset)[0]) if row.offset else float(lower[0])

    def _kept(self, row: _Row, phases: Phases, multipliers: FloatArray, grown: Grown) -> bool:
        with np.errstate(over="ignore"):
            chosen = multipliers.astype(np.float32)
        if not np.isfinite(chosen).all():
            return False
        lower = self._bound(row, phases, chosen.astype(np.float64))
        if not lower > 0:
            return False
        grown.lower = min(grown.lower, lower)
        grown.phases.append(phases)
        grown.multipliers.append(chosen)
        return True

    def _split(self, phases: Phases, node: Node) -> int | None:
        """Return the state to split: the greatest gain that the duals promise; None where none is left."""
        free = self._program.splits & (phases == 0)
        if not free.any():
            return None
        if node.scores is None or not node.scores.max() > 0:  # by the width beyond 0 then
            return int(np.where(free, self._program.reach, -1.0).argmax())
        return int(node.scores.argmax())
