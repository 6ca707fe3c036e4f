"""Budgets for tests: nodes in place of seconds, and clocks that no machine moves."""

from __future__ import annotations

from dataclasses import dataclass

from idl_audit.values.budget import Budget

ENOUGH = 50_000
"""Nodes that no test needs."""


def enough() -> Budget:
    """Return a budget for what comes to an end by itself."""
    return Budget.of(nodes=ENOUGH)


def few(nodes: int = 300) -> Budget:
    """Return a budget for what would never end."""
    return Budget.of(nodes=nodes)


def no_time() -> Budget:
    """Return a budget whose deadline has passed."""
    return Budget(deadline=0.0, clock=lambda: 1.0)


@dataclass
class Ticking:
    """A clock that moves on by one second whenever it is read."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def ticks(looks: int) -> Budget:
    """Return a budget that is over after so many looks at its clock."""
    return Budget(deadline=looks + 0.5, clock=Ticking())
