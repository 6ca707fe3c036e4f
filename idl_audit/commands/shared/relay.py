"""What a Dask worker does with a task: it hands it to a process of its own, and what that says back.

The worker itself reads neither task nor answer: it loads no numerical library, any number of its threads work at the
same time, and a process that dies or hangs costs its task alone, as with `--jobs`. Files that tasks read lie in a
temporary folder of the worker, where the process works.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

from idl_audit import __version__
from idl_audit.commands.shared.workers import WAIT, Child, Lost, Message, Packed
from idl_audit.values.errors import DataError, OptionError

IDLE: Final = 600.0
"""Seconds after which a process that has nothing to do is ended: whoever started it may be gone without a word."""

Files = Mapping[str, bytes]
"""Names below the folder of a run, with / between their parts -> contents."""


@dataclass(frozen=True)
class Run:
    """What is the same for all tasks of a run; it is sent once to a worker."""

    name: str
    """Unlike that of any other run."""
    version: str
    """Of idl-audit, where the run was started."""
    work: bytes
    """A pickle of what is called with each task."""


@dataclass(frozen=True)
class Said:
    """What came of a task."""

    answer: Packed | Lost
    told: tuple[bytes, ...]
    """Pickles of what was said before."""
    seconds: float


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Return the versions here that verdicts depend on."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def work_on(run: Run, task: bytes, seconds: float, *files: Files) -> Said:
    """Return what a process of this worker says of a task.

    Args:
        run: which run it belongs to.
        task: a pickle of it.
        seconds: after which the process is ended, from the moment it says that it has begun.
        files: what it reads.

    Raises:
        OptionError: where this worker has another version of idl-audit.
    """
    if run.version != __version__:
        raise OptionError(f"a worker has idl-audit {__version__}, and the run was started with {run.version}")
    return _host(run).work_on(task, seconds, files)


def leave(name: str) -> None:
    """End the processes of a run, and remove its files."""
    with _LOCK:
        host = _HOSTS.pop(name, None)
    if host is not None:
        host.end()


def same(value: Any) -> Any:
    """Return what is given: a task whose answer is what other tasks need, and which is done again where it is lost."""
    return value


_LOCK: Final = threading.RLock()
_HOSTS: Final[dict[str, _Host]] = {}
"""Name of a run -> its processes and files in this worker."""


def _host(run: Run) -> _Host:
    """Return where a run works here."""
    with _LOCK:
        if run.name not in _HOSTS:
            _HOSTS[run.name] = _Host(run.work, _temporary())
            threading.Thread(target=_leave_idle, args=(run.name,), daemon=True).start()
        return _HOSTS[run.name]


def _leave_idle(name: str) -> None:
    """Leave a run once it has been idle for long."""
    while (host := _HOSTS.get(name)) is not None:
        if host.idle_for() > IDLE:
            leave(name)
        time.sleep(IDLE / 10)


def _temporary() -> Path:
    """Return a new folder; Dask removes what a worker that was killed has left."""
    from distributed import get_worker

    return Path(tempfile.mkdtemp(prefix="idl-audit-", dir=get_worker().local_directory))


@dataclass(eq=False)
class _Host:
    """The processes and files of one run in one worker."""

    work: bytes
    folder: Path
    _idle: list[Child] = field(default_factory=list)
    _busy: list[Child] = field(default_factory=list)
    _written: dict[str, str] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def work_on(self, task: bytes, seconds: float, files: tuple[Files, ...]) -> Said:
        """Let a process of its own work on a task."""
        child = self._taken(files)
        told: list[bytes] = []
        try:
            child.give(task, seconds)
            while True:
                wait([child.pipe], timeout=WAIT)
                said = child.said()
                if isinstance(said, Message):
                    told.append(said.packed)
                elif said is not None:
                    return Said(said, tuple(told), child.seconds)
        finally:
            self._return(child)

    def idle_for(self) -> float:
        """Seconds since the last task ended; 0 where one is being worked on."""
        with _LOCK:
            return 0.0 if self._busy else time.monotonic() - self._last

    def end(self) -> None:
        """End all processes, those at work as well, and remove the files."""
        with _LOCK:
            for child in self._busy:
                child.kill()  # whoever waits for it sees that it is lost
            for child in self._idle:
                child.end()
            self._idle.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _taken(self, files: tuple[Files, ...]) -> Child:
        with _LOCK:
            for part in files:
                self._write(part)
            usable = self._idle.pop() if self._idle else None
            if usable is None:
                with _children_allowed():
                    usable = Child(self.work, folder=self.folder)
            self._busy.append(usable)
            return usable

    def _return(self, child: Child) -> None:
        with _LOCK:
            self._busy.remove(child)
            self._last = time.monotonic()
            if child.is_usable:
                self._idle.append(child)

    def _write(self, files: Files) -> None:
        """Write files that are not there yet, or are there with other contents."""
        for name, contents in files.items():
            digest = hashlib.sha256(contents).hexdigest()
            if self._written.get(name) == digest:
                continue
            path = Path(os.path.normpath(self.folder / name))
            if not path.is_relative_to(self.folder):
                raise DataError(f"a file of a task lies outside its folder: {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            partly = path.with_name(f"{path.name}.part")
            partly.write_bytes(contents)
            partly.replace(path)
            self._written[name] = digest


@contextmanager
def _children_allowed() -> Iterator[None]:
    """Let this process start others: one that Dask's nanny watches is a daemon, and may have none by itself.

    They end with it all the same (`workers._end_with_parent`).
    """
    config: dict[str, Any] = getattr(multiprocessing.current_process(), "_config")  # noqa: B009
    before = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before
