"""The clock of budgets: loading a library is no work."""

from __future__ import annotations

import pytest

from idl_audit.values import budget
from idl_audit.values.budget import Budget, loading
from tests.shared.budgets import Ticking


def test_loading_a_library_takes_nothing_of_any_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Ticking()
    monkeypatch.setattr(budget.time, "monotonic", now)
    given = Budget.of(100.0)
    before = given.left
    with loading():
        now.now += 1000.0
    assert before - given.left < 5.0  # readings of the clock
    assert not given.out_of_time


def test_a_library_that_cannot_be_loaded_takes_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Ticking()
    monkeypatch.setattr(budget.time, "monotonic", now)
    given = Budget.of(100.0)

    def missing() -> None:
        with loading():
            now.now += 1000.0
            raise ImportError("no such library")

    with pytest.raises(ImportError):
        missing()
    assert not given.out_of_time


def test_where_nodes_count_parts_share_the_nodes_and_leave_the_time_whole() -> None:
    now = Ticking()
    given = Budget.of(100.0, nodes=40, clock=now)
    given.spend(10)
    part = given.part(0.5)
    assert part.deadline == given.deadline
    assert part.affordable(1000) == 15
    assert part.at_most(1.0).deadline == given.deadline
    assert part.counts_nodes


def test_without_nodes_parts_share_the_time_also_below_a_step_of_few_nodes() -> None:
    now = Ticking()
    given = Budget.of(100.0, clock=now)
    step = given.at_most_nodes(8)
    assert not step.counts_nodes
    assert step.part(0.5).deadline < given.deadline
    assert step.at_most(1.0).deadline < given.deadline
