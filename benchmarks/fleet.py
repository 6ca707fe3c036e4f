"""A Dask scheduler and workers on the loopback address, each a process of its own: for figures and for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DASK = (sys.executable, "-c", "from dask.__main__ import main; main()")
SECONDS = 900.0
"""After which nobody waits any longer."""


@dataclass
class Fleet:
    """A scheduler and its workers."""

    folder: Path
    address: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    """Of all processes."""
    scheduler: Any = None
    workers: list[Any] = field(default_factory=list)

    def start(self, *command: object, **environment: str) -> Any:
        """Start a process of Dask, in a group of its own, so that it can be killed with all that it has started."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment, **environment}
        words = [*DASK, *map(str, command)]
        with (self.folder / f"log-{len(list(self.folder.iterdir()))}").open("w") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder, env=env, start_new_session=True)

    def add_worker(self, **environment: str) -> None:
        """Start a worker that works on one task at a time."""
        options = ("--nthreads", "1", "--no-dashboard", "--memory-limit", "0", "--death-timeout", str(SECONDS))
        self.workers.append(self.start("worker", self.address, *options, **environment))

    def registered(self) -> int:
        """Return how many workers have found the scheduler."""
        return sum("Registered to:" in log.read_text() for log in self.folder.glob("log-*"))


def kill(process: Any) -> None:
    """End a process and all that it has started as a machine ends that loses its power."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def fleet(folder: Path, workers: int, *, protocol: str = "tcp", **environment: str) -> Iterator[Fleet]:
    """Start a scheduler and so many workers; kill them at the end."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Fleet(folder, f"{protocol}://127.0.0.1:{port}", environment)
    options = ("--protocol", protocol, "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    made.scheduler = made.start("scheduler", *options)
    try:
        until(lambda: _answers(port))
        for _ in range(workers):
            made.add_worker()
        until(lambda: made.registered() == workers)
        yield made
    finally:
        for process in (*made.workers, made.scheduler):
            kill(process)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
