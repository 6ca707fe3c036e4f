"""Waiting for library calls that nobody can interrupt: each in a thread of its own, no longer than there is time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

Answer = TypeVar("Answer")


class TooLongError(Exception):
    """The call is still going on; its thread is left to itself."""


def waited_for(call: Callable[[], Answer], seconds: float) -> Answer:
    """Return what a call returns, or raise what it raises; Ctrl-C is heard while it works.

    Args:
        call: something that lets other threads work (it releases Python's lock); what it works on is its own from now
            on, where this raises TooLongError.
        seconds: how long to wait.

    Raises:
        TooLongError: where it takes longer.
    """
    answers: SimpleQueue[tuple[Answer | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # it is raised where somebody waits
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        answer, error = answers.get(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
    except Empty:
        raise TooLongError from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]  # with no error it is the call's answer
