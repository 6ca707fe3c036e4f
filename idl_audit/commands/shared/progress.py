"""How far a command has come, for whoever shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far the work has come."""

    done: int
    total: int
    verdicts: Counter[str]
    shares: tuple[float, ...] = ()
    """Of each tree that is being grown: the share that is proved, in [0, 1]."""


Watcher = Callable[[Progress], None]
