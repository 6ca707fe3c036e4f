"""What processes do in the tests of those who hand them tasks; apart from them, so that a process loads little."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from idl_audit.commands.shared.workers import begun, tell


def echoed(task: object) -> object:
    """Answer with the task, and say so before."""
    tell(("about to answer", task))
    return task


def read(name: str) -> tuple[str, int]:
    """Return what stands in a file, and who read it."""
    return Path(name).read_text(), os.getpid()


def end_at_seven(task: int) -> int:
    """End as the system ends a process that takes too much memory, where the task is 7."""
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def hang(task: object) -> None:
    """Begin and never answer."""
    begun()
    time.sleep(1000)


def fail(task: object) -> None:
    """Raise what nobody expects."""
    raise ZeroDivisionError("one over nothing")
