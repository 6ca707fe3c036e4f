"""The one loop of branch and bound (BaB): open leaves, their order, batches, the budget, and the points to be judged.

A strategy says how leaves are bounded and split: by slopes (`branching.tree`), boxes (`splitting.boxes`) or linear
programs (`lp_tree.tree`). The frontier says which leaves are next and how many, and when it ends. A box is proved where
no leaf is open. See docs/mathematics.md, section 8.

Elsewhere: worklist, domain queue, batch size.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

import numpy as np

from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import Budget, Pace
from idl_audit.values.errors import BudgetError

Candidate = Callable[[FloatArray], bool]
"""Is given points of the box that may be counterexamples, (m, p); says whether the search may end with one."""


class Ending(Enum):
    """Why a frontier grows no further."""

    CLOSED = auto()
    """No leaf is open: what was to be proved is."""
    FOUND = auto()
    TIME = auto()
    NODES = auto()
    MANY = auto()
    """More leaves are open than may be kept."""
    STUCK = auto()
    """Leaves are open that can be neither proved nor split."""


Leaf = TypeVar("Leaf")


class NewestFirst(list[Leaf]):
    """Depth first."""

    def put(self, leaves: Iterable[Leaf]) -> None:
        """Add leaves, the next one last."""
        self.extend(leaves)

    def take(self, count: int) -> list[Leaf]:
        """Remove and return the newest leaves, the newest last."""
        taken = self[-count:]
        del self[-count:]
        return taken


class WorstFirst(Generic[Leaf]):
    """Best first: the leaf with the least bound, the oldest of equal ones."""

    def __init__(self, leaves: Iterable[Leaf], bound: Callable[[Leaf], float]) -> None:
        """Begin with some leaves; their bounds are numbers."""
        self._heap: list[tuple[float, int, Leaf]] = []
        self._bound, self._numbers = bound, itertools.count()
        self.put(leaves)

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def least(self) -> float:
        """The bound of the leaf that comes next; 0 where there is none."""
        return self._heap[0][0] if self._heap else 0.0

    def put(self, leaves: Iterable[Leaf]) -> None:
        """Add leaves."""
        for leaf in leaves:
            heapq.heappush(self._heap, (self._bound(leaf), next(self._numbers), leaf))

    def take(self, count: int) -> list[Leaf]:
        """Remove and return the worst leaves."""
        return [heapq.heappop(self._heap)[2] for _ in range(min(count, len(self)))]


@dataclass(frozen=True)
class Step(Generic[Leaf]):
    """What came of a batch of leaves."""

    children: Iterable[Leaf] = ()
    """What stays open of it; not asked for where a point ends the search."""
    points: FloatArray | None = None
    """Where there may be counterexamples, (m, p)."""


class Strategy(Protocol[Leaf]):
    """How leaves are bounded and split."""

    def at_once(self, waiting: int) -> int:
        """Return how many of so many open leaves one batch is to take, 1 or more; 0 where too many are open."""

    def step(self, batch: list[Leaf]) -> Step[Leaf]:
        """Bound leaves and split what stays open; closed and stuck ones are counted, nodes are spent."""


@dataclass(eq=False)
class Frontier(Generic[Leaf]):
    """The open leaves of one tree, and what was closed."""

    waiting: NewestFirst[Leaf] | WorstFirst[Leaf]
    candidate: Candidate
    nodes_a_leaf: int = 1
    """That a strategy spends on a leaf that it takes."""
    pace: Pace | None = field(default_factory=Pace)
    """Of one node; None where the strategy itself keeps to the time."""
    closed: int = 0
    lower: float = np.inf
    """The least proved lower bound of the closed leaves."""
    stuck: int = 0
    """Leaves that can be neither proved nor split."""

    @property
    def open(self) -> int:
        """Leaves that are not closed."""
        return len(self.waiting) + self.stuck

    def close(self, lower: float, leaves: int = 1) -> None:
        """Count leaves that are proved, with the least of their lower bounds."""
        self.closed += leaves
        self.lower = min(self.lower, lower)

    def grow(self, strategy: Strategy[Leaf], budget: Budget, *, if_stuck: bool = True) -> Ending:
        """Take leaves batch by batch until none is open, a candidate is one, or the budget is spent.

        Args:
            strategy: bounds and splits them.
            budget: what it may cost; a batch that it interrupts stays open.
            if_stuck: go on, for a counterexample, where a leaf is stuck.
        """
        while len(self.waiting) and (if_stuck or not self.stuck):
            wanted = strategy.at_once(len(self.waiting))
            if not wanted:
                return Ending.MANY
            count = self._fitting(wanted, budget)
            if not count:
                return Ending.NODES if budget.affordable(self.nodes_a_leaf) < self.nodes_a_leaf else Ending.TIME
            batch = self.waiting.take(count)
            try:
                is_over = self._settle(batch, strategy, budget) and Ending.FOUND
            except BudgetError:
                is_over = Ending.TIME
            if is_over:  # what was begun is as open as before
                self.waiting.put(batch)
                return is_over
        return Ending.STUCK if self.stuck else Ending.CLOSED

    def _fitting(self, leaves: int, budget: Budget) -> int:
        """Return how many of so many leaves fit into the budget."""
        nodes = budget.affordable(self.nodes_a_leaf * leaves)
        if self.pace is not None:
            nodes = self.pace.fitting(nodes, budget)
        return 0 if budget.out_of_time else nodes // self.nodes_a_leaf

    def _settle(self, batch: list[Leaf], strategy: Strategy[Leaf], budget: Budget) -> bool:
        """Bound a batch and keep what stays open of it; return whether a candidate is a counterexample."""
        pace = Pace() if self.pace is None else self.pace
        with pace.unit(self.nodes_a_leaf * len(batch), budget):
            step = strategy.step(batch)
            if step.points is not None and self.candidate(step.points):
                return True
            self.waiting.put(list(step.children))
        return False
