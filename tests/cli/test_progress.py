"""Off a terminal, lines on stderr say that a command lives, how far it has come, and how long it may still take."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from idl_audit.cli import console
from idl_audit.commands.shared.progress import Progress

SOME = Progress(10, 40, Counter({"certified": 9, "clean_wrong": 1}), (0.25,))


@pytest.mark.parametrize(
    ("progress", "seconds", "line"),
    [
        (None, 5.2, "certify: nothing is decided yet after 5 s"),
        (Progress(0, 40, Counter()), 5.2, "certify: 0 of 40 after 5 s: 40 open"),
        (
            SOME,
            65.0,
            "certify: 10 of 40 after 1 min 5 s, about 3 min 15 s left: tree 25% proved, 9 certified, 1 clean wrong, "
            "30 open",
        ),
        (
            Progress(1, 400, Counter({"unknown": 1})),
            60.0,
            "certify: 1 of 400 after 1 min 0 s, about 6 h 39 min left: 1 unknown, 399 open",
        ),
        (Progress(40, 40, Counter({"certified": 40})), 8.0, "certify: 40 of 40 after 8 s: 40 certified, 0 open"),
    ],
)
def test_a_line_says_what_is_decided_and_how_long_the_rest_may_take(
    progress: Progress | None, seconds: float, line: str
) -> None:
    assert console._line("certify", progress, seconds) == line


def test_lines_come_although_nothing_becomes_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    twice = threading.Event()

    def say(message: str) -> None:
        said.append(message)
        if len(said) == 2:
            twice.set()

    monkeypatch.setattr(console, "say", say)
    monkeypatch.setattr(console, "FIRST_LINE", 0.001)
    monkeypatch.setattr(console, "LINES_EVERY", 0.001)
    with console.progress_bar("certify", quiet=False) as watch:
        watch(SOME)
        assert twice.wait(30)
    ended = len(said)
    assert all(line.startswith("certify: ") for line in said)
    assert ended == len(said)


def test_nothing_is_said_where_quiet_is_asked_for_or_the_work_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)
    with console.progress_bar("certify", quiet=False) as watch:
        watch(SOME)
    monkeypatch.setattr(console, "FIRST_LINE", 0.0)
    with console.progress_bar("certify", quiet=True) as watch:
        watch(SOME)
    assert said == []
