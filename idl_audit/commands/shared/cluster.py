"""Work on the machines of a Dask scheduler: tasks go out as workers are free, and answers come back as they end.

A scheduler and its workers run whatever code is sent to them; they belong to the user, who says where they are. A
worker hands every task to a process of its own (`idl_audit.commands.shared.relay`), so that time limits and memory
work as with `--jobs`. What a worker that is lost had begun is given to others.
"""

from __future__ import annotations

import logging
import pickle
import queue
import time
import uuid
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from idl_audit import __version__
from idl_audit.commands.options.common import Scheduler
from idl_audit.commands.shared import relay
from idl_audit.commands.shared.frame import LIBRARIES
from idl_audit.commands.shared.preflight import Teller, tell_nobody
from idl_audit.commands.shared.relay import Files, Run, Said
from idl_audit.commands.shared.workers import WAIT, Done, Lost, next_tasks
from idl_audit.report.schema import Diagnostic
from idl_audit.values.errors import ClusterError, OptionError

Task = TypeVar("Task")
Answer = TypeVar("Answer")

ANSWERS: Final = 10.0
"""Seconds in which a scheduler must answer."""
WORKERS: Final = 30.0
"""Seconds in which the first worker must be there."""
AHEAD: Final = 3
"""Tasks handed out for each thread of a worker, so that none waits for us."""
FETCHED: Final = 64
"""Answers fetched at once, at most."""
SHARED: Final = 4
"""Packs that are kept on the workers: the latest."""
LOOK: Final = 5.0
"""Seconds between two looks at how many workers there are."""
PATIENCE: Final = 300.0
"""Seconds that a run waits without any worker before it ends, unless told otherwise."""


@dataclass(frozen=True)
class Pack:
    """Files that tasks need; those with the same key are the same, and are sent to a worker once."""

    files: Files
    key: str | None = None
    """None: they belong to one task."""


NO_FILES: Final[Sequence[Pack]] = ()


@dataclass(eq=False)
class Cluster:
    """A connection to a scheduler."""

    where: str
    """Its address, or `local:N`."""
    client: Any
    dashboard: str
    patience: float = PATIENCE
    """Seconds that all workers may be gone."""
    tell: Teller = tell_nobody
    """Told when they are."""
    threads: int = 0
    """Tasks that are worked on at the same time."""
    workers: int = 0
    lost_workers: int = 0
    """Workers that ended while they were at work."""
    given_again: int = 0
    """Tasks that were given to others for that."""
    _own: set[str] = field(default_factory=set)
    """Keys of tasks that are out."""
    _looked: float = field(default_factory=time.monotonic)
    _alone_since: float | None = None
    """When the last worker was seen to be gone; None while there are some."""
    _told: bool = False
    """Whether it was said that there are none."""

    def work_through(
        self,
        tasks: Iterable[Task],
        work: Callable[[Task], Answer],
        *,
        allowed: Callable[[Task], float],
        heard: Callable[[Task, Any], None] = lambda task, message: None,
        follow: Callable[[Done[Task, Answer]], Iterable[Task]] = lambda done: (),
        files: Callable[[Task], Sequence[Pack]] = lambda task: NO_FILES,
    ) -> Generator[Done[Task, Answer], None, None]:
        """Yield every task with its answer, as they come: `workers.work_through` on other machines.

        What a task says before its answer is heard with the answer.

        Args:
            tasks: what to do, taken by and by.
            work: what is called with each of them in a process of a worker; it is pickled.
            allowed: seconds after which the process of a task is ended.
            heard: given what the work of a task said.
            follow: the tasks that an answer leaves to do: they come before those that wait.
            files: what a task reads, below the folder that its process works in.

        Raises:
            ClusterError: where the scheduler is lost, all workers are for too long, or one cannot do such work.
        """
        run = Run(f"idl-audit-{uuid.uuid4().hex[:12]}", __version__, pickle.dumps(work))
        sender = _Sender(self.client, run)
        left: deque[Task] = deque()
        waiting = iter(tasks)
        out: dict[str, tuple[Task, Any]] = {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            while True:
                for task in next_tasks(left, waiting, AHEAD * max(1, self.threads) - len(out)):
                    future = sender.send(task, allowed(task), files(task))
                    out[future.key] = task, future
                    self._own.add(future.key)
                    future.add_done_callback(ended.put)
                if not out:
                    return
                for key, said in self._answers(self._ended(ended)):
                    task, _ = out.pop(key)
                    self._own.discard(key)
                    for message in said.told:
                        heard(task, pickle.loads(message))
                    answer = said.answer if isinstance(said.answer, Lost) else said.answer.answer()
                    done: Done[Task, Answer] = Done(task, answer, said.seconds)
                    left.extend(follow(done))
                    yield done
        finally:
            self._give_up(run.name, [future for _, future in out.values()])

    def notes(self) -> Iterator[Diagnostic]:
        """Say where the work was done, and what was lost on the way."""
        yield self.note()
        if self.lost_workers:
            yield Diagnostic(
                code="IDL223",
                level="warning",
                message=f"{_count(self.lost_workers, 'worker')} ended while at work, and "
                f"{_count(self.given_again, 'task')} that they had were given to others",
                hint="no verdict is lost or counted twice",
            )

    def note(self) -> Diagnostic:
        """Say where the work is done."""
        seen = f"; dashboard {self.dashboard}" if self.dashboard else ""
        return Diagnostic(
            code="IDL222",
            level="info",
            message=f"{_count(self.workers, 'worker')} of the Dask scheduler {self.where} decide, "
            f"{_count(self.threads, 'task')} at the same time{seen}",
        )

    def look(self) -> None:
        """Count the workers and their threads."""
        self._looked = time.monotonic()
        with suppress(OSError):  # it is gone, which `_check` will say
            threads = self.client.nthreads()
            self.workers, self.threads = max(self.workers, len(threads)), sum(threads.values())

    def heard_of(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take what the scheduler says of all: here, of workers that are gone."""
        _, told = event
        if told.get("action") == "remove-worker" and not told.get("expected"):
            own = self._own.intersection(told.get("processing-tasks", ()))
            self.given_again += len(own)
            self.lost_workers += bool(own)

    def _ended(self, ended: queue.SimpleQueue[Any]) -> list[Any]:
        """Wait for tasks that have ended. Raises ClusterError where nothing can come any more."""
        while True:
            if time.monotonic() - self._looked > LOOK:
                self.look()
            try:
                found = [ended.get(timeout=WAIT)]
                break
            except queue.Empty:
                self._check()
                self._wait_on()
        with suppress(queue.Empty):
            while len(found) < FETCHED:
                found.append(ended.get_nowait())
        return found

    def _answers(self, futures: Sequence[Any]) -> Iterator[tuple[str, Said]]:
        """Yield what came of tasks that have ended, fetched together."""
        good = [future for future in futures if future.status == "finished"]
        try:
            said = dict(zip([future.key for future in good], self.client.gather(good), strict=True)) if good else {}
        except Exception:  # one of them is lost by now: each is asked for by itself
            said = {}
        for future in futures:
            yield future.key, said[future.key] if future.key in said else self._alone(future)

    def _alone(self, future: Any) -> Said:
        """Return what came of one task. Raises ClusterError where nothing did, for reasons that are not its own."""
        from distributed import KilledWorker

        try:
            return future.result()  # type: ignore[no-any-return]
        except KilledWorker as error:
            tries = error.allowed_failures + 1
            return Said(Lost(f"{tries} workers ended while they worked on it; too little memory?"), (), 0.0)
        except (OptionError, ImportError, AttributeError, pickle.UnpicklingError) as error:
            raise ClusterError(f"a worker of {self.where} cannot do this work: {error}") from error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._check()
            why = f"{type(error).__name__}: {error}".strip(": ")
            raise ClusterError(f"the scheduler {self.where} gave a task up ({why})") from error

    def _wait_on(self) -> None:
        """Say that there are no workers, once they are gone. Raises ClusterError where that lasts too long."""
        now = time.monotonic()
        if self.threads:
            self._alone_since, self._told = None, False
            return
        self._alone_since = now if self._alone_since is None else self._alone_since
        if now - self._alone_since > self.patience:
            raise ClusterError(
                f"all workers of the scheduler {self.where} were gone for {self.patience:g} seconds (--worker-timeout)"
            )
        if not self._told:
            self._told = True
            self.tell(
                Diagnostic(
                    code="IDL226",
                    level="warning",
                    message=f"all workers of the Dask scheduler {self.where} are gone; what they had is done by the "
                    f"next that come, for {self.patience:g} seconds (--worker-timeout)",
                    hint=f"start some with `dask worker {self.where}`",
                )
            )

    def _check(self) -> None:
        if self.client.status != "running":
            raise ClusterError(f"the scheduler {self.where} was lost in the middle of the work")

    def _give_up(self, run: str, futures: Sequence[Any]) -> None:
        """Leave nothing of a run on the workers."""
        self._own.clear()
        if self.client.status != "running":
            return
        with suppress(Exception):
            if futures:
                self.client.cancel(futures)
            self.client.run(relay.leave, run, on_error="ignore")


@dataclass(eq=False)
class _Sender:
    """What hands out the tasks of one run."""

    client: Any
    run: Run
    _sent: int = 0
    _run: Any = None
    _packs: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    def send(self, task: Any, seconds: float, packs: Sequence[Pack]) -> Any:
        """Return the future of a task."""
        if self._run is None:
            self._run = self._kept("run", self.run)
        files = [pack.files if pack.key is None else self._shared(pack.key, pack.files) for pack in packs]
        self._sent += 1
        key = f"{self.run.name}-{self._sent}"
        return self.client.submit(
            relay.work_on,
            self._run,
            pickle.dumps(task),
            seconds,
            *files,
            key=key,
            pure=False,
        )

    def _shared(self, key: str, files: Files) -> Any:
        if key not in self._packs:
            self._packs[key] = self._kept(f"files-{len(self._packs)}-{key[:12]}", files)
            if len(self._packs) > SHARED:
                self._packs.popitem(last=False)
        self._packs.move_to_end(key)
        return self._packs[key]

    def _kept(self, name: str, value: Any) -> Any:
        return self.client.submit(relay.same, value, key=f"{self.run.name}-{name}", pure=False)


@contextmanager
def connected(
    asked: Scheduler | None, *, patience: float | None = None, tell: Teller = tell_nobody
) -> Iterator[Cluster | None]:
    """Yield a connection to the scheduler that is asked for; None where none is.

    Args:
        asked: where it is.
        patience: how many seconds all workers may be gone; None: `PATIENCE`.
        tell: told at once when they are.

    Raises:
        OptionError: where Dask is missing, the scheduler cannot be reached, it has no workers, or scheduler or workers
            have other versions of what verdicts depend on.
    """
    if asked is None:
        yield None
        return
    distributed = _distributed()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        address: Any = asked.address
        if asked.workers is not None:
            address = stack.enter_context(_own_scheduler(distributed, asked.workers))
        else:
            _check_certificates(distributed, str(asked))
        try:
            client = distributed.Client(address, timeout=ANSWERS, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            raise OptionError(
                f"the scheduler {asked} cannot be reached; start it with `dask scheduler`, and `dask worker {asked}` "
                "for each machine"
            ) from error
        stack.callback(_close, client)
        cluster = Cluster(
            str(asked),
            client,
            _dashboard(client, here=asked.workers is not None),
            PATIENCE if patience is None else patience,
            tell,
        )
        _wait_for_workers(cluster)
        if asked.workers is None:
            _check_versions(client, str(asked))
        client.subscribe_topic("all", cluster.heard_of)
        yield cluster


def lost_cluster(error: ClusterError) -> Diagnostic:
    """Say that the machines that did the work were lost."""
    return Diagnostic(code="IDL224", level="error", message=str(error), hint="what is decided is kept")


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise OptionError("--scheduler needs Dask; install it with pip install 'idl-audit[distributed]'") from error
    return distributed


ENCRYPTED: Final = ("tls", "wss")
CERTIFICATES: Final = ("ca-file", "client.cert", "client.key")
"""Settings of Dask, below distributed.comm.tls."""


def _check_certificates(distributed: Any, where: str) -> None:
    """Refuse an address that needs certificates where none, or none that can be read, are named. Raises OptionError."""
    if where.partition(":")[0] not in ENCRYPTED:
        return
    named = ", ".join(f"distributed.comm.tls.{name}" for name in CERTIFICATES)
    try:
        context = distributed.Security().get_connection_args("client").get("ssl_context")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise OptionError(
            f"the certificates for {where} cannot be read ({error}); Dask's settings {named} name them"
        ) from error
    if context is None:
        raise OptionError(
            f"the scheduler {where} needs certificates; name them in Dask's configuration ({named}), or in the "
            "environment (DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ...)"
        )


@contextmanager
def _own_scheduler(distributed: Any, threads: int) -> Iterator[Any]:
    """Yield a scheduler and a worker within this process, which nobody else can reach; the work is done in others."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=threads,
        processes=False,
        dashboard_address="127.0.0.1:0",
        memory_limit=None,
        silence_logs=logging.CRITICAL,
    ) as found:
        yield found


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask say nothing of its own on stderr: what matters is said by us, in a sentence."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("distributed", "tornado")]
    before = {name: logging.getLogger(name).level for name in ("distributed", *names)}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"distributed\..*")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _dashboard(client: Any, *, here: bool) -> str:
    """Return where Dask's own pages are."""
    link = str(client.dashboard_link or "")
    return f"http://127.0.0.1:{urlsplit(link).port}/status" if here and link else link


def _close(client: Any) -> None:
    with suppress(Exception):
        client.close(timeout=5)


def _wait_for_workers(cluster: Cluster) -> None:
    try:
        cluster.client.wait_for_workers(1, timeout=WORKERS)
    except Exception as error:
        raise OptionError(
            f"the scheduler {cluster.where} has no workers; start some with `dask worker {cluster.where}`"
        ) from error
    cluster.look()


OWN_VERSION: Final = "__import__('idl_audit').__version__"
"""Asked by way of `eval`, which a worker has whether or not it has idl-audit."""


def _check_versions(client: Any, where: str) -> None:
    """Refuse scheduler and workers that have other versions. Raises OptionError with the first of them."""
    install = f"install idl-audit {__version__} there"
    try:
        own = {f"the scheduler {where}": client.run_on_scheduler(eval, OWN_VERSION)}
    except Exception as error:
        raise OptionError(f"the scheduler {where} has no idl-audit ({error}); {install}") from error
    own |= {f"the worker {name}": found for name, found in client.run(eval, OWN_VERSION, on_error="return").items()}
    for who, found in sorted(own.items()):
        if isinstance(found, BaseException):
            raise OptionError(f"{who} has no idl-audit ({found}); {install}")
        if found != __version__:
            raise OptionError(f"{who} has version {found} of idl-audit, and this is {__version__}; {install}")
    mine = relay.versions(LIBRARIES)
    for name, theirs in sorted(client.run(relay.versions, LIBRARIES).items()):
        for library, version in mine.items():
            if theirs[library] != version:
                raise OptionError(
                    f"the worker {name} has {library} {theirs[library]}, and here it is {version}: verdicts would "
                    "depend on who decides; install the same versions"
                )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
