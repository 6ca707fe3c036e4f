"""Branch and bound over the phases of ReLU states by the LP, for models with loops and without.

See docs/mathematics.md, section 8.5.

Depth first; each node is the LP of the node before with a few column bounds changed. Its point is replayed; a node is
a leaf where the certificate, evaluated with its row duals or a dual ray, proves the functional positive. Nothing that
the solver says enters the verdict.

Elsewhere: complete verification, LP per node, Farkas certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.cover import Phases
from idl_audit.proof.intervals import affine_interval
from idl_audit.proof.lp_chain import LpLeaves, prove_leaves
from idl_audit.proof.proof import Refused
from idl_audit.proof.sums import Sum, per_weight
from idl_audit.search.frontier import Candidate, Ending, Frontier, NewestFirst, Step
from idl_audit.search.linprog import Outcome
from idl_audit.search.lp_tree.program import Node, NodeProgram
from idl_audit.search.relaxation import outweighing
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import UNLIMITED, Budget, Pace
from idl_audit.values.query import Conjunction
from idl_audit.values.rounding import down


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
    weights: list[Float32Array] = field(default_factory=list)
    """Of the rows, a vector a leaf; none where there is one row."""

    @property
    def leaves(self) -> LpLeaves:
        """The proof, where `lower` is positive."""
        weights = np.stack(self.weights) if self.weights else None
        return LpLeaves(np.stack(self.phases), np.stack(self.multipliers), weights=weights)


class LpTree:
    """Trees over one box, one functional after the other; or one tree of all rows of an alternative together."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        budget: Budget = UNLIMITED,
        *,
        together: Conjunction | None = None,
    ) -> None:
        """Prepare the LP from proved bounds of all pre-activations over one box."""
        self._model, self._inputs, self._bounds = model, inputs, bounds
        self._budget = self._whole = budget
        self._together = together
        self._program = NodeProgram(model, inputs, bounds, budget, together=together)
        self._largest = cache(lambda: _largest_outputs(model, inputs, bounds))
        self._grown: Grown | None = None
        self._proofs = Pace()
        """Of one node: all else that a node costs keeps to the time."""

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
            candidate: is asked of the points of nodes, one at a time.
            offset: rounded downward.
            most_nodes: stop after so many nodes; 1 is the relaxation alone.
            budget: that of all trees where it is left out.
        """
        self._plant(Conjunction(functional[None], np.array([offset])), candidate)
        return self._grow(most_nodes, budget)

    def grow_together(
        self, candidate: Candidate, *, most_nodes: int | None = None, budget: Budget | None = None
    ) -> Grown:
        """Prove over the box that not all rows of the alternative are <= 0, or come upon a counterexample.

        A tree goes on from its open leaves when it is asked again.
        """
        assert self._together is not None
        if self._grown is None:
            self._plant(self._together, candidate)
        self._frontier.candidate = candidate
        return self._grow(most_nodes, budget)

    @property
    def grown(self) -> Grown:
        """What the last tree came to so far."""
        assert self._grown is not None
        return self._grown

    @property
    def nodes(self) -> int:
        """How many programs the last tree has solved so far."""
        return 0 if self._grown is None else self._grown.nodes

    @property
    def is_stuck(self) -> bool:
        """Whether a leaf of the last tree can be neither proved nor split."""
        return self._frontier.stuck > 0

    @property
    def share(self) -> float:
        """How much of the last tree is proved, in [0, 1]: the sum of 2^-depth over its leaves."""
        leaves = [] if self._grown is None else self._grown.phases
        return sum(2.0 ** -int(np.count_nonzero(own)) for own in leaves)

    def _plant(self, rows: Conjunction, candidate: Candidate) -> None:
        self._rows, self._grown = rows, Grown()
        root = np.zeros(self._model.n_states, np.int8)
        self._frontier = Frontier(NewestFirst([root]), candidate, pace=None)

    def _grow(self, most_nodes: int | None, budget: Budget | None) -> Grown:
        self._budget = budget or self._whole
        limited = self._budget if most_nodes is None else self._budget.at_most_nodes(most_nodes)
        ending = self._frontier.grow(self, limited, if_stuck=False)
        grown = self.grown
        grown.lower = self._frontier.lower if ending is Ending.CLOSED else -np.inf
        grown.found = ending is Ending.FOUND
        if ending in (Ending.TIME, Ending.NODES):
            grown.outcome = Outcome.TIME_LIMIT
        return grown

    def at_once(self, waiting: int) -> int:
        """Return 1: a program starts from the basis of the last."""
        return 1

    def step(self, batch: list[Phases]) -> Step[Phases]:
        """Solve the program of a node and try to prove it; else hand on its point and the two nodes below it."""
        (phases,) = batch
        self._budget.spend()
        left = self._budget.before(self._proofs.seconds).left
        node = self._program.solve(self._rows.rows[0], phases, time_limit=left)
        if not self.grown.nodes:
            self.grown.root = node.objective
        self.grown.nodes += 1
        with self._proofs.unit(1, self._budget):
            if self._is_leaf(phases, node):
                return Step()
        if node.outcome not in (Outcome.OPTIMAL, Outcome.INFEASIBLE):
            return self._stuck(node.outcome)
        point = None if node.point is None else node.point[None]
        state = self._split(phases, node)
        if state is None:
            return self._stuck(Outcome.FAILED, point)
        side = 1 if node.leaning is None or node.leaning[state] >= 0 else -1
        children = np.stack([phases, phases])
        children[:, state] = -side, side  # the likelier one is looked at first
        return Step(children, point)

    def _stuck(self, outcome: Outcome, point: FloatArray | None = None) -> Step[Phases]:
        self._frontier.stuck += 1
        self.grown.outcome = outcome
        return Step((), point)

    def _is_leaf(self, phases: Phases, node: Node) -> bool:
        """Try to prove a node and keep the proof."""
        offset = 0.0 if self._together is not None else float(self._rows.offsets[0])
        if node.multipliers is None or not node.objective + offset > 0:
            return False
        weights = self._weights(node)
        try:
            wanted = Sum.of(self._rows, weights.astype(np.float64))
        except Refused:
            return False
        if node.outcome is Outcome.OPTIMAL:
            return self._kept(phases, node.multipliers, weights, wanted)
        ray = outweighing(lambda weight, lam: self._bound(phases, lam, wanted, weight), node.multipliers)
        return ray is not None and self._kept(phases, ray, weights, wanted)

    def _weights(self, node: Node) -> Float32Array:
        """Return the weights of the rows that a node is to be proved with: a node without points takes any."""
        count = len(self._rows.rows)
        own = np.ones(count) if node.weights is None or not node.weights.any() else node.weights
        return np.asarray(own, np.float32)

    def _bound(self, phases: Phases, multipliers: FloatArray, wanted: Sum, weight: float = 1.0) -> float:
        """Return a proved lower bound of weight (sum of rows) in a leaf, the weight 0 or 1."""
        leaf = LpLeaves(phases[None], multipliers[None].astype(np.float32))
        row, check = weight * wanted.seed, self._budget.check
        lower = prove_leaves(self._model, self._inputs, self._bounds, row, leaf, check=check)
        shift = weight * wanted.shift(self._largest)
        return float(down(lower + shift)[0]) if shift else float(lower[0])

    def _kept(self, phases: Phases, multipliers: FloatArray, weights: Float32Array, wanted: Sum) -> bool:
        with np.errstate(over="ignore"):
            chosen = multipliers.astype(np.float32)
        if not np.isfinite(chosen).all():
            return False
        lower = self._bound(phases, chosen.astype(np.float64), wanted)
        if not lower > 0:
            return False
        whole = weights.astype(np.float64)[None]
        self._frontier.close(lower if self._together is None else float(per_weight(np.array([lower]), whole)[0]))
        self.grown.phases.append(phases)
        self.grown.multipliers.append(chosen)
        if self._together is not None:
            self.grown.weights.append(weights)
        return True

    def _split(self, phases: Phases, node: Node) -> int | None:
        """Return the state to split: the greatest gain that the duals promise; None where none is left."""
        free = self._program.splits & (phases == 0)
        if not free.any():
            return None
        if node.scores is None or not node.scores.max() > 0:  # by the width beyond 0 then
            return int(np.where(free, self._program.reach, -1.0).argmax())
        return int(node.scores.argmax())


def _largest_outputs(model: ImplicitModel, inputs: Interval, bounds: StateBounds) -> FloatArray:
    """Return bounds of |y| over the box, (q,)."""
    known = StateBounds.of_pre_activations(model.blocks, bounds.z)
    return np.asarray(affine_interval(model.output, known.x, inputs).largest[0])
