"""Branching on the phases of hidden states: a tree of leaves, each with its own slopes and split multipliers.

A leaf fixes the sign of z for some states of convex kinks (ReLU, leaky ReLU, abs). A leaf is closed when the proof pass
gives its functional a positive lower bound; the functional is then positive on the whole box once all leaves are.
Branch and bound (BaB) by splits of neurons (docs/mathematics.md, sections 8.1 and 8.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Leaves, rows_of, with_phases
from idl_audit.proof.cover import Phases
from idl_audit.proof.intervals import affine_interval
from idl_audit.proof.leaves import prove_leaves
from idl_audit.proof.planes import Planes
from idl_audit.proof.sums import Sum, per_weight
from idl_audit.search import device
from idl_audit.search.branching.ascent import Found, Mixture
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.phased import PhasedSearch
from idl_audit.search.branching.search_planes import in_parts, of_parts, planes_for
from idl_audit.search.exact_leaf import LeafProgram
from idl_audit.search.frontier import Candidate, Ending, Frontier, Step, WorstFirst
from idl_audit.values.arrays import ByteArray, Float32Array, FloatArray
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import BudgetError, MemoryLimitError, SolverError
from idl_audit.values.query import Conjunction
from idl_audit.values.rounding import down

if TYPE_CHECKING:
    import torch

MOSTLY = 0.7
"""The weight of the row with the best bound at a root of several rows, the others share the rest with it."""
ROOT_STEPS = 30
PLANE_STEPS = 30
"""At the root, for planes."""
BALL_STEPS = 200
"""Of ascent in a leaf over a ball that no state is left to split in."""
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


@dataclass(eq=False)
class Leaf:
    """An open leaf: of all that were bounded, the worst is split first."""

    bound: float
    phases: Phases
    """+1 for z >= 0, -1 for z <= 0, 0 for open, over all states."""
    split: int
    """The state to split next; -1 where none is left."""
    slopes: dict[int, Float32Array] = field(default_factory=dict)
    multipliers: dict[int, Float32Array] = field(default_factory=dict)
    planes: dict[int, ByteArray] = field(default_factory=dict)
    """Block -> shares of its planes."""
    weights: Float32Array | None = None
    """Of several rows, (r,)."""


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
    """A tree of one row f = rows . y + offset, to be proved positive over the box, or of several that leaves weigh."""

    def __init__(
        self,
        net: SearchNet,
        inputs: Interval,
        bounds: StateBounds,
        rows: Conjunction,
        first: int,
        candidate: Candidate,
        record: Leaves | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Start with one leaf, the root; `bounds` are proved and stay fixed. `record` takes the leaves that close.

        Of several rows the root weighs the `first` most.
        """
        self.record, self._watch = record, watch
        self._share = 0.0
        self._net, self._inputs, self._bounds = net, inputs, bounds
        self._rows = rows
        self._seed, self._offset = rows.rows[0], float(rows.offsets[0])
        self._mixture = _mixture(rows) if len(rows.rows) > 1 else None
        self._largest = cache(lambda: affine_interval(net.model.output, bounds.x, inputs).largest[0])
        self._searcher = PhasedSearch(net, net.output, 0, bounds)
        root = Leaf(-np.inf, np.zeros(self._searcher.n_phases, np.int8), -1)
        if self._mixture is not None:
            root.weights = np.full(len(rows.rows), (1 - MOSTLY) / len(rows.rows), np.float32)
            root.weights[first] += np.float32(MOSTLY)
        self._waiting = WorstFirst([root], attrgetter("bound"))
        self._frontier = Frontier(self._waiting, candidate)
        self._is_whole = True
        """Whether the root itself is to be bounded."""
        self._budget, self._check = UNLIMITED, unchecked
        self._most_open = MOST_LEAVES
        self._leaves: LeafProgram | None = None

    def grow(self, budget: Budget, *, check: Check | None = None, most_open: int = MOST_LEAVES) -> TreeOutcome:
        """Split leaves until all are closed, a counterexample is found, too many are open, or the budget is spent.

        A tree goes on from its open leaves when it is asked again. A batch of leaves that was begun is settled where
        `check`, that of the budget unless it is given, lets it.
        """
        self._budget, self._check, self._most_open = budget, budget.check if check is None else check, most_open
        done, ending = self._frontier, self._frontier.grow(self, budget)
        lower = done.lower if ending is Ending.CLOSED else -np.inf
        return TreeOutcome(ending is Ending.CLOSED, lower, done.closed, done.open, ending is Ending.FOUND)

    @property
    def open(self) -> int:
        """Leaves that are not closed."""
        return self._frontier.open

    @property
    def worst(self) -> float:
        """The least bound of an open leaf; -inf before there is one, 0 where none is open."""
        return self._waiting.least

    def at_once(self, waiting: int) -> int:
        """Return how many leaves to split at a time; 0 where too many are open."""
        if self._is_whole:
            return 1
        shares = max(1, sum(planes.numbers for planes in self._searcher.planes.values()))
        stored = self._budget.limit(STORED_BYTES) // (shares + BYTES_A_PHASE * self._searcher.n_phases)
        if waiting > min(self._most_open, stored):
            return 0
        halves = min(max(BATCH, min(waiting // 2, LARGEST_BATCH)), max(2, SEARCH_SHARES // shares))
        return min(waiting, max(1, halves // 2))

    def step(self, batch: list[Leaf]) -> Step[Leaf]:
        """Bound the root; or the halves of leaves, and with linear programs those that nothing splits."""
        if self._is_whole:
            return self._root(batch[0])
        left, points = self._solve([leaf for leaf in batch if leaf.split < 0])
        parents = [leaf for leaf in batch if leaf.split >= 0 for _ in range(2)]
        if parents:
            phases = np.stack([leaf.phases for leaf in parents])
            phases[np.arange(len(parents)), [leaf.split for leaf in parents]] = np.tile([1, -1], len(parents) // 2)
            children, corners = self._bound(phases, parents, LEAF_STEPS)
            left, points = [*left, *children], [*points, *corners]
        return Step(left, np.stack(points) if points else None)

    def _root(self, root: Leaf) -> Step[Leaf]:
        """Bound the root with chords, and once more with planes where there can be some."""
        first = not self._searcher.planes
        children, corners = self._bound(root.phases[None], [root], ROOT_STEPS if first else PLANE_STEPS)
        if children and first:
            v = {k: device.doubles(value[0]) for k, value in self._wanted.items()}
            self._searcher.planes = planes_for(self._net.model, self._inputs, self._bounds.z, v)
        self._is_whole = bool(children) and first and bool(self._searcher.planes)
        self._frontier.nodes_a_leaf = 1 if self._is_whole else 2
        return Step(children, corners if children else None)

    def _bound(self, phases: Phases, parents: Sequence[Leaf], steps: int) -> tuple[list[Leaf], FloatArray]:
        """Bound a batch of leaves; return the open ones, and the corners of the box where their bounds are least."""
        self._budget.spend(len(phases))
        found, scores = self._search(phases, parents, steps)
        self._wanted = found.seen
        bound = device.doubles(found.bound) + (self._offset if self._mixture is None else 0.0)
        bound = np.fmax(bound, [parent.bound for parent in parents])
        hopeful = np.flatnonzero(bound > 0)
        proved = np.full(len(phases), -np.inf)
        if hopeful.size:
            proved[hopeful] = self._prove(phases[hopeful], found, hopeful)
        self._close(phases, found, proved)
        still = np.flatnonzero(~(proved > 0))
        shares = {k: in_parts(value) for k, value in found.planes.items()}
        slopes, multipliers = device.arrays(found.slopes), device.arrays(found.multipliers)
        weights = None if found.weights is None else device.array(found.weights)
        leaves = [
            Leaf(
                min(float(bound[i]), 0.0) if np.isfinite(bound[i]) else -1e30,
                phases[i],
                int(scores[i]),
                {k: value[i].copy() for k, value in slopes.items()},
                {k: value[i].copy() for k, value in multipliers.items()},
                {k: value[i].copy() for k, value in shares.items()},
                None if weights is None else weights[i].copy(),
            )
            for i in still
        ]
        return leaves, self._corners(found, still)

    def _solve(self, leaves: list[Leaf]) -> tuple[list[Leaf], list[FloatArray]]:
        """Close leaves by linear programs; return those that the budget does not reach, and points to be judged."""
        left, points = [], []
        for leaf in leaves:
            if self._budget.is_spent:
                left.append(leaf)
                continue
            self._budget.spend()
            try:
                is_closed, point = self._exhausted(leaf)
            except BudgetError:
                left.append(leaf)
                continue
            self._frontier.stuck += not is_closed
            if point is not None:
                points.append(point)
        return left, points

    def _search(self, phases: Phases, parents: Sequence[Leaf], steps: int) -> tuple[Found, npt.NDArray[np.int64]]:
        """Return the best bounds that ascent finds for the leaves, and the state that each should split next."""
        start = Found(device.zeros(0), _stacked([leaf.slopes for leaf in parents]))
        start.multipliers = _stacked([leaf.multipliers for leaf in parents])
        start.planes = {k: of_parts(np.stack([leaf.planes[k] for leaf in parents])) for k in parents[0].planes}
        if self._mixture is not None:
            start.weights = device.tensor(np.stack([leaf.weights for leaf in parents if leaf.weights is not None]))
            seeds, enough = self._mixture.of(start.weights), 1e-4
        else:
            seeds = device.tensor(np.tile(self._seed, (len(phases), 1)))
            enough = 1e-4 - self._offset
        mixture = self._mixture
        return self._searcher(seeds, phases, start, steps=steps, enough=enough, mixture=mixture, check=self._check)

    def _prove(self, phases: Phases, found: Found, rows: npt.NDArray[np.int64]) -> FloatArray:
        """Return proved lower bounds of the functional in some leaves."""
        m = len(phases)
        leaves = with_phases(self._net.model, self._bounds, self._searcher.by_block(phases), m)
        slopes, splits = (rows_of(device.arrays(values), rows) for values in (found.slopes, found.multipliers))
        seeds, shifts = self._sums(found, rows)
        box, planes = self._inputs.repeated(m), self._planes(found, rows)
        bound = prove_leaves(self._net.model, box, leaves, seeds, slopes, splits, planes=planes, check=self._check)
        lower = down(bound + shifts)
        return lower if found.weights is None else per_weight(lower, device.doubles(found.weights)[rows])

    def _sums(self, found: Found, rows: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Return the functional of each of some leaves, (m, q), and what is to be added to its bound, (m,)."""
        if found.weights is None:
            return np.tile(self._seed, (rows.size, 1)), np.full(rows.size, self._offset)
        sums = [Sum.of(self._rows, own) for own in device.doubles(found.weights)[rows]]
        return np.stack([one.seed for one in sums]), np.array([one.shift(self._largest) for one in sums])

    def _planes(self, found: Found, rows: npt.NDArray[np.int64]) -> dict[int, Planes]:
        return {k: self._searcher.planes[k].chosen(shares, rows) for k, shares in found.planes.items()}

    def _corners(self, found: Found, rows: npt.NDArray[np.int64]) -> FloatArray:
        w = found.seen[-1][rows.tolist()] if -1 in found.seen else device.zeros(len(rows), self._net.centre.numel())
        return device.doubles(self._net.lowest(w))

    def _exhausted(self, leaf: Leaf) -> tuple[bool, FloatArray | None]:
        """Return whether a leaf that has no state left to split is closed, and else a point: a linear program is exact.

        Its multipliers are proved as any others are. Raises BudgetError where the time is over.
        """

        if self._net.ball is not None:  # no linear program knows the ball
            return self._raised(leaf), None
        phases = leaf.phases[None]
        own = with_phases(self._net.model, self._bounds, self._searcher.by_block(phases), 1)
        try:
            if self._leaves is None:
                several = None if self._mixture is None else self._rows
                self._leaves = LeafProgram(self._net.model, self._inputs, self._bounds, self._budget, several)
            within = self._budget.at_most(LEAF_SECONDS)
            answer = self._leaves.solve(own, self._seed, wanted=-self._offset, budget=within)
        except (SolverError, MemoryLimitError):  # numbers that the solver refuses, or a program that is too large
            return False, None
        except BudgetError:
            self._budget.check()
            return False, None  # one leaf took its own time
        if answer.splits:
            splits = {k: device.as_it_is(v[None]) for k, v in answer.splits.items()}
            weights = None if answer.weights is None else device.as_it_is(answer.weights[None])
            found = Found(device.full((1,), answer.lower), {}, splits, weights=weights)
            proved = self._prove(phases, found, np.zeros(1, np.int64))
            self._close(phases, found, proved)
            if proved[0] > 0:
                return True, None
        return False, answer.point

    def _raised(self, leaf: Leaf) -> bool:
        """Return whether a leaf that has no state left to split is closed by more steps: its best bound is exact."""
        found, _ = self._search(leaf.phases[None], [leaf], BALL_STEPS)
        proved = self._prove(leaf.phases[None], found, np.zeros(1, np.int64))
        self._close(leaf.phases[None], found, proved)
        return bool(proved[0] > 0)

    def _close(self, phases: Phases, found: Found, proved: FloatArray) -> None:
        """Count and record the leaves that are proved, and tell the share of the tree that is."""
        closed = np.flatnonzero(proved > 0)
        if not closed.size:
            return
        self._frontier.close(float(proved[closed].min()), closed.size)
        self._share += float(np.ldexp(1.0, -np.count_nonzero(phases[closed], axis=1)).sum())
        if self._watch is not None:
            self._watch(min(self._share, 1.0))
        if self.record is None:
            return
        self.record.phases.append({k: own for k, own in self._searcher.by_block(phases[closed]).items() if own.any()})
        self.record.slopes.append(rows_of(device.arrays(found.slopes), closed))
        self.record.multipliers.append(rows_of(device.arrays(found.multipliers), closed))
        self.record.planes.append(self._planes(found, closed))
        self.record.sizes.append(int(closed.size))
        if found.weights is not None:
            self.record.weights.append(device.array(found.weights)[closed].copy())


def _stacked(leaves: list[dict[int, npt.NDArray[np.float32]]]) -> dict[int, torch.Tensor]:
    """Return block -> (N, n) of the blocks that all leaves know."""

    common = [k for k in leaves[0] if all(k in leaf for leaf in leaves)]
    return {k: device.as_it_is(np.stack([leaf[k] for leaf in leaves])) for k in common}


def _mixture(rows: Conjunction) -> Mixture:

    return Mixture(device.tensor(rows.rows), device.tensor(rows.offsets))
