"""Branching on the phases of hidden states: a tree of leaves, each with its own slopes and split multipliers.

A leaf fixes the sign of z for some states of convex kinks (ReLU, leaky ReLU, abs). A leaf is closed when the proof pass
gives its functional a positive lower bound; the functional is then positive on the whole box once all leaves are.
Branch and bound (BaB) by splits of neurons (docs/mathematics.md, sections 8.1 and 8.2).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Leaves, rows_of, with_phases
from idl_audit.proof.cover import Phases
from idl_audit.proof.leaves import prove_leaves
from idl_audit.proof.planes import Planes
from idl_audit.search.branching.ascent import Found
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.phased import PhasedSearch
from idl_audit.search.branching.search_planes import in_parts, of_parts, planes_for
from idl_audit.search.exact_leaf import LeafProgram
from idl_audit.values.arrays import ByteArray, FloatArray
from idl_audit.values.budget import Budget, Pace
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import BudgetError, MemoryLimitError, SolverError

if TYPE_CHECKING:
    import torch

ROOT_STEPS = 30
PLANE_STEPS = 30
"""At the root, for planes."""
LEAF_STEPS = 14
BATCH = 128
LARGEST_BATCH = 512
"""Leaves of one pass, where many are open."""
BYTES_A_PHASE = 9
"""Of a state in a leaf: its phase, its slope and its multiplier."""
LEAF_SECONDS = 10.0
"""For the linear program of a leaf without a state to split."""
MOST_LEAVES = 200_000
STORED_BYTES = 2**31
"""Of all open leaves, unless less is allowed."""
SEARCH_SHARES = 2**20
"""Of planes, in one pass."""

Watch = Callable[[float], None]
"""Is told the share of a tree that is proved, in [0, 1]: the sum of 2^-depth over its closed leaves."""
Candidate = Callable[[FloatArray], bool]
"""Is given points of the box that may be counterexamples, (m, p); says whether one is."""


@dataclass(order=True)
class Leaf:
    """An open leaf, ordered by its bound: the worst first."""

    bound: float
    number: int
    phases: Phases = field(compare=False)
    """+1 for z >= 0, -1 for z <= 0, 0 for open, over all states."""
    split: int = field(compare=False)
    """The state to split next; -1 where none is left."""
    slopes: dict[int, npt.NDArray[np.float32]] = field(compare=False)
    multipliers: dict[int, npt.NDArray[np.float32]] = field(compare=False)
    planes: dict[int, ByteArray] = field(compare=False)
    """Block -> shares of its planes."""


@dataclass(frozen=True)
class TreeOutcome:
    """What a tree came to."""

    proved: bool
    lower: float
    """Proved lower bound of the functional over the box; -inf where leaves are open."""
    leaves: int
    """Leaves that were closed."""
    open: int
    found: bool = False
    """Whether a candidate was a counterexample."""


class Tree:
    """The tree of one output functional f = seed . y + offset, to be proved positive over the box."""

    def __init__(
        self,
        net: SearchNet,
        inputs: Interval,
        bounds: StateBounds,
        seed: FloatArray,
        offset: float,
        candidate: Candidate,
        record: Leaves | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Start with one leaf, the root; `bounds` are proved and stay fixed. `record` takes the leaves that close."""
        self.record, self._watch = record, watch
        self._share = 0.0
        self._net, self._inputs, self._bounds = net, inputs, bounds
        self._seed, self._offset, self._candidate = seed, offset, candidate
        self._searcher = PhasedSearch(net, net.output, 0, bounds)
        self._count = itertools.count()
        self.closed = 0
        self._lowest = float(np.inf)
        self._left = 0
        self._heap: list[Leaf] = []
        """The open leaves."""
        self._pace = Pace()
        """Of one leaf: its ascent, its proof, and the look at its corner."""
        self._check: Check = unchecked
        self._leaves: LeafProgram | None = None

    def grow(self, budget: Budget, *, check: Check | None = None, most_open: int = MOST_LEAVES) -> TreeOutcome:
        """Split leaves until all are closed, a counterexample is found, too many are open, or the budget is spent.

        A tree goes on from its open leaves when it is asked again. A batch of leaves that was begun is settled where
        `check`, that of the budget unless it is given, lets it.
        """
        self._check = budget.check if check is None else check
        heap = self._heap
        if not self.closed and not heap and self._plant(budget):
            return self._outcome(found=True)
        shares = max(1, sum(planes.numbers for planes in self._searcher.planes.values()))
        stored = budget.limit(STORED_BYTES) // (shares + BYTES_A_PHASE * self._searcher.n_phases)
        most_open, at_once = min(most_open, stored), max(2, SEARCH_SHARES // shares)
        while heap and not budget.is_spent and len(heap) <= most_open:
            count = min(len(heap), max(1, min(max(BATCH, min(len(heap) // 2, LARGEST_BATCH)), at_once) // 2))
            count = self._pace.fitting(budget.affordable(2 * count), budget) // 2
            if not count:
                break
            taken = [heapq.heappop(heap) for _ in range(count)]
            if self._try_exhausted([leaf for leaf in taken if leaf.split < 0], budget):
                return self._outcome(found=True)
            taken = [leaf for leaf in taken if leaf.split >= 0]
            if not taken:
                continue
            children = np.repeat(np.stack([leaf.phases for leaf in taken]), 2, axis=0)
            rows = np.arange(len(taken))
            where = np.array([leaf.split for leaf in taken])
            children[2 * rows, where], children[2 * rows + 1, where] = 1, -1
            if self._settle(children, [leaf for leaf in taken for _ in range(2)], LEAF_STEPS, budget):
                return self._outcome(found=True)
        return self._outcome()

    def _plant(self, budget: Budget) -> bool:
        """Settle the root: with chords, then with planes where there can be some. Return as `_settle`."""
        root = np.zeros((1, self._searcher.n_phases), np.int8)
        if self._settle(root, [None], ROOT_STEPS, budget):
            return True
        if not self._heap:
            return False
        v = {k: value[0].double().numpy() for k, value in self._wanted.items()}
        self._searcher.planes = planes_for(self._net.model, self._inputs, self._bounds.z, v)
        if not self._searcher.planes:
            return False
        return self._settle(root, [self._heap.pop()], PLANE_STEPS, budget)

    @property
    def open(self) -> int:
        """Leaves that are not closed."""
        return len(self._heap) + self._left

    def _outcome(self, *, found: bool = False) -> TreeOutcome:
        proved = not self.open and not found
        return TreeOutcome(proved, self._lowest if proved else -np.inf, self.closed, self.open, found)

    def _settle(self, phases: Phases, parents: Sequence[Leaf | None], steps: int, budget: Budget) -> bool:
        """Bound a batch of leaves; keep the open ones. Return whether a counterexample came up."""
        budget.spend(len(phases))
        with self._pace.unit(len(phases), budget):
            return self._bound(phases, parents, steps)

    def _bound(self, phases: Phases, parents: Sequence[Leaf | None], steps: int) -> bool:
        found, scores = self._search(phases, parents, steps)
        self._wanted = found.seen
        bound = found.bound.double().numpy() + self._offset
        floor = np.array([-np.inf if parent is None else parent.bound for parent in parents])
        bound = np.fmax(bound, floor)
        hopeful = np.flatnonzero(bound > 0)
        proved = np.full(len(phases), -np.inf)
        if hopeful.size:
            proved[hopeful] = self._prove(phases[hopeful], found, hopeful)
            self._note(phases, found, np.flatnonzero(proved > 0))
            self._lowest = min(self._lowest, float(np.where(proved > 0, proved, np.inf).min()))
        self.closed += int((proved > 0).sum())
        self._tell(phases[proved > 0])
        still = np.flatnonzero(~(proved > 0))
        if not still.size:
            return False
        shares = {k: in_parts(value) for k, value in found.planes.items()}
        for i in still:
            leaf = Leaf(
                min(float(bound[i]), 0.0) if np.isfinite(bound[i]) else -1e30,
                next(self._count),
                phases[i],
                int(scores[i]),
                {k: value[i].numpy().copy() for k, value in found.slopes.items()},
                {k: value[i].numpy().copy() for k, value in found.multipliers.items()},
                {k: value[i].copy() for k, value in shares.items()},
            )
            heapq.heappush(self._heap, leaf)
        return self._candidate(self._corners(found, still))

    def _try_exhausted(self, leaves: list[Leaf], budget: Budget) -> bool:
        """Close leaves that have no state left to split, or leave them. Return whether a counterexample came up."""
        for leaf in leaves:
            if budget.is_spent:
                self._left += 1
                continue
            budget.spend()
            closed, hit = self._exhausted(leaf, budget)
            if hit:
                return True
            self.closed += closed
            self._tell(leaf.phases[None] if closed else leaf.phases[None][:0])
            self._left += not closed
        return False

    def _search(
        self, phases: Phases, parents: Sequence[Leaf | None], steps: int
    ) -> tuple[Found, npt.NDArray[np.int64]]:
        """Return the best bounds that ascent finds for the leaves, and the state that each should split next."""
        import torch

        start = None
        known = [parent for parent in parents if parent is not None]
        if known:
            start = Found(torch.zeros(0), _stacked([leaf.slopes for leaf in known]))
            start.multipliers = _stacked([leaf.multipliers for leaf in known])
            start.planes = {k: of_parts(np.stack([leaf.planes[k] for leaf in known])) for k in known[0].planes}
        seeds = torch.from_numpy(np.tile(self._seed.astype(np.float32), (len(phases), 1)))
        enough = 1e-4 - self._offset
        return self._searcher(seeds, phases, start, steps=steps, enough=enough, check=self._check)

    def _prove(self, phases: Phases, found: Found, rows: npt.NDArray[np.int64]) -> FloatArray:
        """Return proved lower bounds of the functional in some leaves."""
        m = len(phases)
        leaves = with_phases(self._net.model, self._bounds, self._searcher.by_block(phases), m)
        slopes, splits = (
            rows_of({k: value.numpy() for k, value in values.items()}, rows)
            for values in (found.slopes, found.multipliers)
        )
        seeds = np.tile(self._seed, (m, 1))
        box, planes = self._inputs.repeated(m), self._planes(found, rows)
        bound = prove_leaves(self._net.model, box, leaves, seeds, slopes, splits, planes=planes, check=self._check)
        return np.nextafter(bound + self._offset, -np.inf)

    def _planes(self, found: Found, rows: npt.NDArray[np.int64]) -> dict[int, Planes]:
        return {k: self._searcher.planes[k].chosen(shares, rows) for k, shares in found.planes.items()}

    def _corners(self, found: Found, rows: npt.NDArray[np.int64]) -> FloatArray:
        import torch

        signs = found.seen[-1][rows.tolist()].sign() if -1 in found.seen else torch.zeros(len(rows), 1)
        return np.asarray((self._net.centre - self._net.radius * signs).double().numpy())

    def _exhausted(self, leaf: Leaf, budget: Budget) -> tuple[bool, bool]:
        """Return (closed, found) of a leaf that has no state left to split: a linear program, exact there.

        Its multipliers are proved as any others are; its point may be a counterexample.
        """
        import torch

        phases = leaf.phases[None]
        own = with_phases(self._net.model, self._bounds, self._searcher.by_block(phases), 1)
        try:
            if self._leaves is None:
                self._leaves = LeafProgram(self._net.model, self._inputs, self._bounds, budget)
            within = budget.at_most(LEAF_SECONDS)
            answer = self._leaves.solve(own, self._seed, wanted=-self._offset, budget=within)
        except (SolverError, MemoryLimitError):  # numbers that the solver refuses, or a program that is too large
            return False, False
        except BudgetError:
            budget.check()
            return False, False  # one leaf took its own time
        if answer.splits:
            splits = {k: torch.from_numpy(v[None]) for k, v in answer.splits.items()}
            found, rows = Found(torch.tensor([answer.lower]), {}, splits), np.zeros(1, np.int64)
            proved = self._prove(phases, found, rows)
            if proved[0] > 0:
                self._note(phases, found, rows)
                self._lowest = min(self._lowest, float(proved[0]))
                return True, False
        return False, answer.point is not None and self._candidate(answer.point[None])

    def _tell(self, closed: Phases) -> None:
        """Tell the share of the tree that is proved, now that leaves with these phases are closed."""
        self._share += float(np.ldexp(1.0, -np.count_nonzero(closed, axis=1)).sum())
        if self._watch is not None:
            self._watch(min(self._share, 1.0))

    def _note(self, phases: Phases, found: Found, closed: npt.NDArray[np.int64]) -> None:
        """Record leaves that were closed."""
        if self.record is None or not closed.size:
            return
        self.record.phases.append({k: own for k, own in self._searcher.by_block(phases[closed]).items() if own.any()})
        self.record.slopes.append(rows_of({k: value.numpy() for k, value in found.slopes.items()}, closed))
        self.record.multipliers.append(rows_of({k: value.numpy() for k, value in found.multipliers.items()}, closed))
        self.record.planes.append(self._planes(found, closed))
        self.record.sizes.append(int(closed.size))


def _stacked(leaves: list[dict[int, npt.NDArray[np.float32]]]) -> dict[int, torch.Tensor]:
    """Return block -> (N, n) of the blocks that all leaves know."""
    import torch

    common = [k for k in leaves[0] if all(k in leaf for leaf in leaves)]
    return {k: torch.from_numpy(np.stack([leaf[k] for leaf in leaves])) for k in common}
