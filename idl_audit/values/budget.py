"""Budget: what work may cost - until when, how many nodes, how much memory - asked between small units of work.

A unit is what cannot be interrupted: one block of a backward pass, one step of an ascent. `Budget.check` stands between
units and ends what has no time left; `Pace` says from the cost of the last unit whether another one still fits.
Libraries are loaded once for all that is asked, off the clock: a time limit is about work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from idl_audit.values.check import allow
from idl_audit.values.errors import BudgetError

Clock: TypeAlias = Callable[[], float]
"""Seconds since any fixed moment."""


@dataclass
class _Loaded:
    """How long libraries took to load in this process."""

    seconds: float = 0.0


_LOADED: Final = _Loaded()


def working_time() -> float:
    """Return seconds since some fixed moment, but for those in which libraries were loaded."""
    return time.monotonic() - _LOADED.seconds


@contextmanager
def loading() -> Iterator[None]:
    """Load a library: no budget pays for the time that this takes."""
    start = time.monotonic()
    try:
        yield
    finally:
        _LOADED.seconds += time.monotonic() - start


@dataclass
class _Nodes:
    """How many nodes were begun, whoever begins them."""

    spent: int = 0


@dataclass(frozen=True)
class Budget:
    """What work may cost. Parts of a budget share its clock and its count of nodes.

    A node is one part of a box, of a tree or of a program that is bounded, or one start of an attack. Where nodes are
    counted, parts share the nodes and the time is left whole: it is a safety net, and what is found depends on it only
    where it comes to an end.
    """

    deadline: float = math.inf
    """On the clock."""
    last_node: float = math.inf
    """No node is begun once so many were, in all."""
    max_bytes: int | None = None
    """What arrays may take beside the model; None leaves every step its own limit."""
    clock: Clock = working_time
    nodes: _Nodes = field(default_factory=_Nodes)
    counts_nodes: bool = False
    """Whether nodes, and not seconds, are what is shared out."""

    @classmethod
    def of(
        cls,
        seconds: float = math.inf,
        *,
        nodes: int | None = None,
        max_bytes: int | None = None,
        clock: Clock = working_time,
    ) -> Budget:
        """Return a budget that begins now."""
        last_node = math.inf if nodes is None else nodes
        return cls(clock() + seconds, last_node, max_bytes, clock, counts_nodes=nodes is not None)

    @property
    def left(self) -> float:
        """Seconds until the deadline; negative past it."""
        return self.deadline - self.clock()

    @property
    def out_of_time(self) -> bool:
        """Whether the deadline has come."""
        return not self.left > 0

    @property
    def is_spent(self) -> bool:
        """Whether nothing new is to be begun: the time is over, or all nodes were."""
        return self.nodes.spent >= self.last_node or self.out_of_time

    def check(self) -> None:
        """Raise BudgetError where the time is over."""
        if self.out_of_time:
            raise BudgetError("the time is over")

    def spend(self, nodes: int = 1) -> None:
        """Count nodes that are begun."""
        self.nodes.spent += nodes

    def affordable(self, nodes: int) -> int:
        """Return how many of so many nodes may still be begun."""
        return int(max(0, min(nodes, self.last_node - self.nodes.spent)))

    def part(self, share: float) -> Budget:
        """Return the budget of a step that gets a share of the nodes that are left and, unless they count, the time."""
        left = self.last_node - self.nodes.spent
        last_node = self.nodes.spent + math.ceil(share * left) if math.isfinite(left) else left
        if self.counts_nodes:
            return replace(self, last_node=last_node)
        now = self.clock()
        return replace(self, deadline=now + share * (self.deadline - now), last_node=last_node)

    def at_most(self, seconds: float) -> Budget:
        """Return the budget of a step that gets no more than so many seconds, unless nodes are counted."""
        if self.counts_nodes:
            return self
        return replace(self, deadline=min(self.deadline, self.clock() + seconds))

    def at_most_nodes(self, nodes: int) -> Budget:
        """Return the budget of a step that begins no more than so many nodes."""
        return replace(self, last_node=min(self.last_node, self.nodes.spent + nodes))

    def before(self, seconds: float) -> Budget:
        """Return the budget of a step that leaves so many seconds to what comes after it."""
        return replace(self, deadline=self.deadline - seconds)

    def limit(self, usual: int) -> int:
        """Return how many bytes one array-heavy step may take: its usual limit, or what the memory allows."""
        return usual if self.max_bytes is None else min(usual, self.max_bytes)

    def allow(self, needed: int, what: str) -> None:
        """Raise MemoryLimitError where `what` would take more bytes than are allowed; asked before it is made."""
        allow(needed, self.max_bytes, what)


UNLIMITED = Budget()
"""No limit at all; its count of nodes says nothing."""


@dataclass
class Pace:
    """What units of work cost: seconds for one item of the last unit, which says how many more fit into a budget."""

    seconds: float = 0.0
    """For one item; 0 until a unit was measured."""

    @contextmanager
    def unit(self, items: int, budget: Budget) -> Iterator[None]:
        """Measure a unit of so many items on the budget's clock."""
        start = budget.clock()
        yield
        self.seconds = (budget.clock() - start) / max(items, 1)

    def fitting(self, items: int, budget: Budget) -> int:
        """Return how many of so many items fit into the time that is left; 0 where there is none."""
        left = budget.left
        if not left > 0:
            return 0
        return items if self.seconds * items <= left else int(left / self.seconds)
