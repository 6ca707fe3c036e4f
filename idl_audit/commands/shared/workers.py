"""Processes that work on tasks one at a time; where one dies or hangs, its task is given up and the others go on."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from idl_audit.values.errors import IdlAuditError, ProcessError
from idl_audit.values.threads import shared_by

Task = TypeVar("Task")
Answer = TypeVar("Answer")

WAIT: Final = 0.5
"""Seconds between two looks at the clock."""
STARTING: Final = 120.0
"""Seconds for what comes before the work itself: loading libraries, reading what many tasks share."""
UNGUARDED: Final = (
    'a script that asks for several processes needs `if __name__ == "__main__":` around what asks for them, since '
    "each process reads the script anew; with jobs = 1 there are none"
)


@dataclass(frozen=True)
class Lost:
    """A task that has no answer."""

    why: str
    """What happened to the process, in words."""
    overtime: bool = False
    """Whether it was ended because it took much too long."""
    memory: bool = False
    """Whether there was too little memory."""
    unstarted: bool = False
    """Whether the process ended before it could take a task."""

    @classmethod
    def by(cls, error: Exception) -> Lost:
        """Return what became of a task by an error that its work raised."""
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of an accelerator
            return cls("it ran out of memory", memory=True)
        if isinstance(error, IdlAuditError):
            return cls(str(error))
        return cls(f"internal error: {type(error).__name__}: {error}; please report it")


@dataclass(frozen=True)
class Done(Generic[Task, Answer]):
    """A task with its answer."""

    task: Task
    answer: Answer | Lost
    seconds: float


def work_through(
    tasks: Iterable[Task],
    work: Callable[[Task], Answer],
    *,
    jobs: int,
    allowed: Callable[[Task], float],
    heard: Callable[[Task, Any], None] = lambda task, message: None,
    follow: Callable[[Done[Task, Answer]], Iterable[Task]] = lambda done: (),
) -> Generator[Done[Task, Answer], None, None]:
    """Yield every task with its answer, as they come.

    Args:
        tasks: what to do, taken one by one as processes are free; sent to them, as the answers are sent back.
        work: a function that the other process can import.
        jobs: how many processes.
        allowed: seconds after which the process of a task is ended, from the moment it says that it has `begun`; until
            then it has STARTING seconds more.
        heard: given what the work of a task said by `tell`, before its answer.
        follow: the tasks that an answer leaves to do: they come before those that wait, so that few are held.

    Raises:
        ProcessError: where a process ends before it can take a task, and none has been able to.
    """
    left: deque[Task] = deque()
    waiting = iter(tasks)
    packed = pickle.dumps(work)
    busy: list[tuple[Task, Child]] = []
    idle: list[Child] = []
    started = False
    try:
        while True:
            for task in next_tasks(left, waiting, jobs - len(busy)):
                child = idle.pop() if idle else Child(packed, jobs)
                child.give(pickle.dumps(task), allowed(task))
                busy.append((task, child))
            if not busy:
                return
            wait([child.pipe for _, child in busy], timeout=WAIT)
            for task, child in list(busy):
                said = child.said()
                if isinstance(said, Message):
                    heard(task, pickle.loads(said.packed))
                started = started or child.has_started
                if said is None or isinstance(said, Message):
                    continue
                if isinstance(said, Lost) and said.unstarted and not started:
                    raise ProcessError(f"{said.why}, before it could take any task; {UNGUARDED}")
                busy.remove((task, child))
                if child.is_usable:
                    idle.append(child)
                done: Done[Task, Answer] = Done(task, said if isinstance(said, Lost) else said.answer(), child.seconds)
                left.extend(follow(done))
                yield done
    finally:
        for child in (*(child for _, child in busy), *idle):
            child.end()


def next_tasks(left: deque[Task], tasks: Iterator[Task], most: int) -> list[Task]:
    """Take the tasks that are to be given out now."""
    taken = [left.popleft() for _ in range(min(most, len(left)))]
    return [*taken, *islice(tasks, most - len(taken))]


@dataclass(frozen=True)
class Message:
    """What a process says of its task before it answers."""

    packed: bytes


@dataclass(frozen=True)
class Packed:
    """What a process answers."""

    packed: bytes

    def answer(self) -> Any:
        """Return the answer, or that there is none."""
        return pickle.loads(self.packed)


class Child:
    """One process and the task that it works on; tasks and answers are pickles, which only they read who need them."""

    def __init__(self, work: bytes, jobs: int = 1, folder: Path | None = None) -> None:
        """Start it.

        Args:
            work: a pickle of what is called with each task.
            jobs: with how many others it shares the processors.
            folder: the folder that it works in; the present one, unless given.
        """
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of numeric libraries
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work, folder), daemon=True)
        with shared_by(jobs), _deaf_to_interrupts():
            self._process.start()
        theirs.close()
        self.is_usable, self.has_started = True, False
        self._start = self._deadline = self._allowed = 0.0

    @property
    def seconds(self) -> float:
        """Time since the task that it works on began."""
        return time.monotonic() - self._start

    def give(self, task: bytes, seconds: float) -> None:
        """Start a task: a pickle of it."""
        self._start, self._allowed = time.monotonic(), seconds
        self._deadline = self._start + STARTING + seconds
        with suppress(OSError):  # it died while idle: `said` will see the end of its pipe
            self.pipe.send_bytes(task)

    def said(self) -> Packed | Message | Lost | None:
        """Return the answer, a word before it, or that the task is lost; None while there is nothing to say."""
        if self.pipe.poll():
            try:
                whole = self.pipe.recv_bytes()
            except Exception:  # a broken pipe, or half a message of a process that died
                return self._lost()
            kind, packed = whole[:1], whole[1:]
            if kind == _ANSWER:
                return Packed(packed)
            if kind == _TOLD:
                return Message(packed)
            if kind == _STARTED:
                self.has_started = True
                return None
            self._start = time.monotonic()
            self._deadline = self._start + self._allowed
        elif time.monotonic() > self._deadline:
            self.end()
            return Lost("it took much longer than it was allowed to and was ended", overtime=True)
        return None

    def _lost(self) -> Lost:
        self._process.join(timeout=5)
        code = self._process.exitcode
        self.end()
        if code is not None and code < 0:
            hint = "; too little memory?" if -code == signal.SIGKILL else ""
            return Lost(f"the process working on it was ended by signal {-code}{hint}")
        return Lost(
            f"the process working on it ended early with exit code {code}", unstarted=not self.has_started and code == 1
        )

    def kill(self) -> None:
        """End the process, and let `said` tell that its task is lost."""
        self._process.kill()

    def end(self) -> None:
        """End the process."""
        self.is_usable = False
        self._process.kill()
        self._process.join()
        self.pipe.close()


_STARTED: Final = b"s"
"""Said once, when tasks can come."""
_BEGUN: Final = b"b"
"""Said where the time of a task starts."""
_TOLD: Final = b"t"
"""Said before the answer, a pickle behind it."""
_ANSWER: Final = b"a"
"""Said at the end, a pickle behind it."""

_to_parent: list[Connection[Any, Any]] = []
"""In a process that was started here: the pipe to the one that started it."""


def tell(message: Any) -> None:
    """Say something to the process that handed out the task: it arrives at the `heard` of `work_through`."""
    for pipe in _to_parent:
        pipe.send_bytes(_TOLD + pickle.dumps(message))


def begun() -> None:
    """Say that the time of the task starts now: what came before it is shared with others."""
    for pipe in _to_parent:
        pipe.send_bytes(_BEGUN)


def _end_with_parent() -> None:
    """End this process once its parent is gone: nobody is left to read the answer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _serve(pipe: Connection[Any, Any], packed: bytes, folder: Path | None) -> None:
    """Answer tasks until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    if folder is not None:
        os.chdir(folder)
    work = pickle.loads(packed)
    _to_parent.append(pipe)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(BrokenPipeError):
        pipe.send_bytes(_STARTED)
    while True:
        try:
            task = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = work(task)
        except Exception as error:
            answer = Lost.by(error)
        try:
            pipe.send_bytes(_ANSWER + pickle.dumps(answer))
        except BrokenPipeError:
            return


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a process that is started here ignore Ctrl-C from its first moment: it is for the parent, which ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
