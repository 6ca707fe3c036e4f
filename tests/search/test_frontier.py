"""The one loop of branch and bound: what is open, in which order, and why it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pytest

from idl_audit.search.frontier import Ending, Frontier, NewestFirst, Step, WorstFirst
from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import Budget, Pace
from idl_audit.values.errors import BudgetError
from tests.shared.budgets import enough, few, no_time


@dataclass(frozen=True)
class Part:
    """An interval, with the bound that a parabola has over it."""

    lo: float
    hi: float

    @property
    def bound(self) -> float:
        """At most (x - .3)^2 over the interval: its value in the middle, less what its slope can take away."""
        middle = (self.lo + self.hi) / 2
        return (middle - 0.3) ** 2 - (self.hi - self.lo) * 1.4


@dataclass
class Parabola:
    """Shows that (x - .3)^2 + offset > 0 over [0, 1], by halves."""

    offset: float
    together: int = 3
    most_open: int = 1000
    narrowest: float = 0.0

    def __post_init__(self) -> None:
        self.closed: list[Part] = []
        self.taken: list[list[Part]] = []
        self.during: Callable[[], None] = lambda: None
        self.budget = enough()
        self.frontier: Frontier[Part] = Frontier(WorstFirst([Part(0.0, 1.0)], attrgetter("bound")), self.is_hit)

    def grow(self, budget: Budget | None = None, *, if_stuck: bool = True) -> Ending:
        self.budget = enough() if budget is None else budget
        return self.frontier.grow(self, self.budget, if_stuck=if_stuck)

    def at_once(self, waiting: int) -> int:
        return min(waiting, self.together) if waiting <= self.most_open else 0

    def is_hit(self, points: FloatArray) -> bool:
        return bool(((points - 0.3) ** 2 + self.offset <= 0).any())

    def step(self, batch: list[Part]) -> Step[Part]:
        self.taken.append(list(batch))
        self.budget.spend(len(batch))
        self.during()
        closed = [part for part in batch if part.bound + self.offset > 0]
        for part in closed:
            self.closed.append(part)
            self.frontier.close(part.bound + self.offset)
        children = []
        for part in batch:
            if part in closed:
                continue
            if part.hi - part.lo < self.narrowest:
                self.frontier.stuck += 1
                continue
            middle = (part.lo + part.hi) / 2
            children += [Part(part.lo, middle), Part(middle, part.hi)]
        return Step(children, np.array([[(part.lo + part.hi) / 2] for part in batch]))


def covered(parts: list[Part]) -> bool:
    ordered = sorted(parts, key=lambda part: part.lo)
    ends = [0.0, *(part.hi for part in ordered)]
    return ends[-1] == 1.0 and all(part.lo == end for part, end in zip(ordered, ends, strict=False))


def test_closed_leaves_cover_the_whole() -> None:
    search = Parabola(0.1)
    assert search.grow() is Ending.CLOSED
    assert covered(search.closed)
    assert len(search.closed) == search.frontier.closed > 5
    assert search.frontier.open == 0
    assert 0 < search.frontier.lower == min(part.bound for part in search.closed) + 0.1
    assert search.grow() is Ending.CLOSED


def test_the_worst_leaves_are_next_the_older_of_equal_ones_first() -> None:
    search = Parabola(0.1, together=2)
    search.grow()
    waiting = {Part(0.0, 1.0)}
    for batch in search.taken:
        others = waiting - set(batch)
        assert all(part.bound <= other.bound for part in batch for other in others)
        halves = [(p.lo, (p.lo + p.hi) / 2, p.hi) for p in batch if p not in search.closed]
        waiting = others | {Part(a, b) for lo, middle, hi in halves for a, b in ((lo, middle), (middle, hi))}
    equal = WorstFirst([Part(0.0, 0.6), Part(0.0, 0.6), Part(0.0, 1.0)], attrgetter("bound"))
    first, second, third = (equal.take(1)[0] for _ in range(3))
    assert (first.hi, second.hi, third.hi) == (1.0, 0.6, 0.6)


def test_the_newest_leaves_are_next_in_the_order_they_came() -> None:
    waiting = NewestFirst([1, 2, 3, 4])
    waiting.put([5])
    assert (waiting.take(2), waiting.take(1), waiting.take(9), len(waiting)) == ([4, 5], [3], [1, 2], 0)


def test_a_point_ends_it_and_what_was_begun_stays_open() -> None:
    search = Parabola(-1e-4)
    assert search.grow() is Ending.FOUND
    assert search.frontier.open
    assert search.grow() is Ending.FOUND


def test_halves_are_not_asked_for_once_a_point_is_found() -> None:
    def halves() -> object:
        raise AssertionError("nobody needs them")
        yield

    search = Parabola(-1.0)
    search.step = lambda batch: Step(halves(), np.array([[0.3]]))  # type: ignore[method-assign, assignment, arg-type]
    assert search.grow() is Ending.FOUND


@pytest.mark.parametrize("nodes", [0, 1, 2, 7])
def test_no_more_nodes_are_begun_than_are_allowed(nodes: int) -> None:
    search = Parabola(1e-9)
    budget = few(nodes)
    assert search.grow(budget) is Ending.NODES
    assert budget.nodes.spent == nodes == sum(len(batch) for batch in search.taken)
    assert covered([*search.closed, *search.frontier.waiting.take(1000)])


def test_leaves_that_cost_two_nodes_are_counted_twice() -> None:
    search = Parabola(1e-9, together=100)
    search.frontier.nodes_a_leaf = 2
    assert search.grow(few(1)) is Ending.NODES
    assert not search.taken
    assert search.grow(few(7)) is Ending.NODES
    assert max(len(batch) for batch in search.taken) <= 3


def test_without_time_nothing_is_begun() -> None:
    search = Parabola(0.1)
    assert search.grow(no_time()) is Ending.TIME
    assert not search.taken
    assert search.grow() is Ending.CLOSED


def test_a_batch_that_the_budget_interrupts_stays_open() -> None:
    search = Parabola(0.1)

    def interrupted() -> None:
        if len(search.taken) == 3:
            raise BudgetError("the time is over")

    search.during = interrupted
    assert search.grow() is Ending.TIME
    assert search.frontier.open
    assert search.grow() is Ending.CLOSED
    assert covered(search.closed)


def test_other_errors_are_told() -> None:
    search = Parabola(0.1)
    search.during = lambda: [][0]
    with pytest.raises(IndexError):
        search.grow()


def test_too_many_open_leaves_end_it() -> None:
    search = Parabola(1e-9, most_open=4)
    assert search.grow() is Ending.MANY
    assert search.frontier.open > 4


def test_a_stuck_leaf_is_never_a_proof() -> None:
    search = Parabola(1e-9, narrowest=0.01)
    assert search.grow() is Ending.STUCK
    assert search.frontier.open == search.frontier.stuck > 1
    hasty = Parabola(1e-9, narrowest=0.01, together=1)
    assert hasty.grow(if_stuck=False) is Ending.STUCK
    assert hasty.frontier.stuck == 1
    assert hasty.frontier.open > 1


def test_batches_are_as_large_as_the_time_allows() -> None:
    """A leaf takes a second, and there are 10.5 of them."""
    now = [0.0]
    for pace, sizes in ((Pace(), [1, 2, 4, 3]), (None, [1, 2, 4, 8])):
        now[0] = 0.0
        search = Parabola(1e-9, together=64)
        search.during = lambda search=search: now.__setitem__(0, now[0] + len(search.taken[-1]))  # type: ignore[misc]
        search.frontier.pace = pace
        assert search.grow(Budget(deadline=10.5, clock=lambda: now[0])) is Ending.TIME
        assert [len(batch) for batch in search.taken] == sizes
