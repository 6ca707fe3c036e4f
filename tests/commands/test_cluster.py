"""--scheduler: what a worker does with tasks, what is refused, and what becomes of tasks that workers cannot do."""

from __future__ import annotations

import pickle
import queue
import threading
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import KilledWorker

import idl_audit
from idl_audit.commands.options.common import Scheduler
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared import cluster as clusters
from idl_audit.commands.shared import relay
from idl_audit.commands.shared.bench_files import HERE, ListFiles
from idl_audit.commands.shared.cluster import Cluster, Pack, connected
from idl_audit.commands.shared.relay import Run, Said
from idl_audit.commands.shared.workers import Lost, Packed
from idl_audit.commands.verify import verify
from idl_audit.data.instances import Instance
from idl_audit.report.schema import Report
from idl_audit.values.errors import ClusterError, DataError, OptionError
from tests.shared import light_workers
from tests.shared.command_line import DATA, MODEL, run

HERE_ONE = Scheduler(None, 1)


def told(report: Report) -> tuple[Any, ...]:
    """Return all that is said of the samples but their seconds."""
    samples = [sample.model_dump(mode="json") for sample in report.samples]
    for result in (result for sample in samples for result in sample["results"]):
        del result["seconds"]
    return samples, report.summary


# --- the whole, within this process -----------------------------------------------------------------------------------


def test_a_scheduler_decides_as_this_process_does(tmp_path):
    common = {"bounds": (0.0, 1.0), "eps": "0.02,0.05", "index": (14, 0, 37, 10), "max_nodes": 200}
    here = idl_audit.audit(MODEL, DATA, **common, certificates=tmp_path / "here")
    there = idl_audit.audit(MODEL, DATA, **common, certificates=tmp_path / "there", scheduler="local:1")
    assert told(there) == told(here)
    assert len(told(here)[0]) == 4
    names = sorted(path.name for path in (tmp_path / "there").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "here").iterdir())
    assert there.artifacts == tuple(name.replace("/here/", "/there/") for name in here.artifacts)
    assert verify(tmp_path / "there" / names[0], MODEL, ModelOptions()).verification.accepted
    (note,) = (one for one in there.diagnostics if one.code == "IDL222")
    assert "1 worker of the Dask scheduler local:1" in note.message
    assert "http://127.0.0.1:" in note.message
    assert relay._HOSTS == {}


# --- what a worker does with a task -----------------------------------------------------------------------------------


@pytest.fixture
def hosted(tmp_path, monkeypatch):
    """Let the present process be a worker; yield what hands it a task of a function."""
    monkeypatch.setattr(relay, "_temporary", lambda: _made(tmp_path / "worker"))

    def work_on(work, task, *files, seconds=60.0, version=idl_audit.__version__) -> Said:
        whole = Run(work.__name__, version, pickle.dumps(work))
        return relay.work_on(whole, pickle.dumps(task), seconds, *files)

    yield work_on
    for name in list(relay._HOSTS):
        relay.leave(name)
    assert not (tmp_path / "worker").exists()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_worker_hands_tasks_on_and_relays_what_is_said(hosted):
    said = hosted(light_workers.echoed, {"a": 1})
    assert isinstance(said.answer, Packed)
    assert said.answer.answer() == {"a": 1}
    assert [pickle.loads(message) for message in said.told] == [("about to answer", {"a": 1})]


def test_files_lie_where_the_task_is_worked_on_and_change_with_it(hosted, tmp_path):
    found = [
        hosted(light_workers.read, "below/it", {"below/it": text, "other": b""}).answer.answer()
        for text in (b"one", b"one", b"two")
    ]
    assert [text for text, _ in found] == ["one", "one", "two"]
    assert len({process for _, process in found}) == 1  # it is started once
    assert (tmp_path / "worker" / "other").is_file()


@pytest.mark.parametrize("name", ["../it", "below/../../it", "/it"])
def test_files_outside_the_folder_are_refused(hosted, tmp_path, name):
    with pytest.raises(DataError, match="outside its folder"):
        hosted(light_workers.read, name, {name: b"x"})
    assert not (tmp_path / "it").exists()


def test_a_process_that_dies_costs_its_task_and_no_other(hosted):
    answers = [hosted(light_workers.end_at_seven, task).answer for task in (6, 7, 8)]
    assert isinstance(answers[1], Lost)
    assert "signal 9" in answers[1].why
    assert [answers[0].answer(), answers[2].answer()] == [6, 8]


def test_a_process_that_hangs_is_ended(hosted):
    said = hosted(light_workers.hang, None, seconds=0.1)
    assert isinstance(said.answer, Lost)
    assert said.answer.overtime


def test_what_the_work_raises_is_an_answer(hosted):
    answer = hosted(light_workers.fail, None).answer
    assert isinstance(answer, Packed)
    assert "ZeroDivisionError" in answer.answer().why


def test_a_worker_of_another_version_works_on_nothing(hosted):
    with pytest.raises(OptionError, match=r"run was started with 9\.9"):
        hosted(light_workers.echoed, 1, version="9.9")
    assert relay._HOSTS == {}


def test_tasks_are_worked_on_side_by_side_and_left_at_once(hosted):
    ended: queue.SimpleQueue[Said] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=lambda: ended.put(hosted(light_workers.hang, None, seconds=600.0))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while "hang" not in relay._HOSTS or len(relay._HOSTS["hang"]._busy) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    relay.leave("hang")
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all(isinstance(ended.get(timeout=60).answer, Lost) for _ in threads)


def test_a_run_that_is_idle_for_long_is_left(hosted, monkeypatch, tmp_path):
    monkeypatch.setattr(relay, "IDLE", 0.2)
    hosted(light_workers.echoed, 1)
    deadline = time.monotonic() + 60
    while relay._HOSTS or (tmp_path / "worker").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["local", "local:0", "local:-1", "here:8786", "tcp://host", "tcp://:1", "http://a:1"])
def test_other_schedulers_are_refused(text):
    found = run("certify", MODEL, "-d", DATA, "-e", "0.1", "--scheduler", text)
    assert found.code == 2
    assert f"not '{text}'" in found.err


def test_jobs_and_code_of_the_users_are_refused_beside_it(tmp_path):
    common = ("certify", MODEL, "-d", DATA, "-e", "0.1", "--scheduler", "local:1")
    found = run(*common, "--jobs", "2")
    assert (found.code, "leave it out beside --scheduler" in found.err) == (2, True)
    found = run(*common, "--arch", "os:getcwd")
    assert (found.code, "write the network as ONNX" in found.err) == (2, True)
    found = run("bench", tmp_path / "none.csv", "--scheduler", "local:1", "--jobs", "2")
    assert (found.code, "leave it out beside --scheduler" in found.err) == (2, True)


@pytest.mark.parametrize("command", ["certify", "attack"])
def test_a_scheduler_that_cannot_be_reached_is_one_sentence(command, tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "ANSWERS", 0.3)
    report = tmp_path / "r.json"
    found = run(command, MODEL, "-d", DATA, "-e", "0.1", "--scheduler", "tcp://127.0.0.1:1", "-o", report)
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "the scheduler tcp://127.0.0.1:1 cannot be reached; start it with `dask scheduler`" in found.err
    assert list(tmp_path.iterdir()) == []


def test_dask_that_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(OptionError, match=r"pip install 'idl-audit\[distributed\]'"), connected(HERE_ONE):
        pass


@dataclass
class Machines:
    """What answers in place of a scheduler and two workers."""

    scheduler: Any = idl_audit.__version__
    worker: Any = idl_audit.__version__
    library: str | None = None

    def run_on_scheduler(self, function, text):
        if isinstance(self.scheduler, Exception):
            raise self.scheduler
        return self.scheduler

    def run(self, function, *args, on_error="raise"):
        if function is eval:
            return {"tcp://a:1": idl_audit.__version__, "tcp://b:2": self.worker}
        found = relay.versions(*args)
        return {"tcp://a:1": found, "tcp://b:2": found | ({} if self.library is None else {self.library: "0.1"})}


MISSING = ModuleNotFoundError("No module named 'idl_audit'")


@pytest.mark.parametrize(
    ("machines", "sentence"),
    [
        (Machines(scheduler=MISSING), "the scheduler here has no idl-audit"),
        (Machines(scheduler="0.0.9"), "the scheduler here has version 0.0.9 of idl-audit, and this is"),
        (Machines(worker=MISSING), "the worker tcp://b:2 has no idl-audit"),
        (Machines(worker="0.0.9"), "the worker tcp://b:2 has version 0.0.9 of idl-audit, and this is"),
        (Machines(library="numpy"), f"the worker tcp://b:2 has numpy 0.1, and here it is {np.__version__}"),
        (Machines(library="Python"), "the worker tcp://b:2 has Python 0.1, and here it is 3"),
    ],
)
def test_other_versions_are_refused_by_name(machines, sentence):
    clusters._check_versions(Machines(), "here")
    with pytest.raises(OptionError) as caught:
        clusters._check_versions(machines, "here")
    assert str(caught.value).startswith(sentence)


# --- tasks that workers cannot do -------------------------------------------------------------------------------------


@dataclass
class Future:
    """A task that has ended."""

    key: str
    outcome: Any

    @property
    def status(self) -> str:
        return "error" if isinstance(self.outcome, BaseException) else "finished"

    def result(self) -> Any:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def add_done_callback(self, call) -> None:
        call(self)


@dataclass
class Client:
    """A scheduler whose workers answer at once: a task with itself, or as `faults` says."""

    faults: dict[Any, BaseException] = field(default_factory=dict)
    status: str = "running"
    threads: dict[str, int] = field(default_factory=dict)
    sent: list[tuple[Any, ...]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def submit(self, function, *args, key, pure):
        self.sent.append(args)
        if function is relay.same:
            return Future(key, args[0])
        task = pickle.loads(args[1])
        return Future(key, self.faults.get(task, Said(Packed(pickle.dumps(task)), (pickle.dumps("word"),), 0.5)))

    def gather(self, futures):
        return [future.result() for future in futures]

    def nthreads(self):
        return self.threads

    def run(self, function, name, on_error):
        self.left.append(name)

    def cancel(self, futures):
        self.left += [future.key for future in futures]


def worked(client: Client, tasks=range(5), **more) -> list[Any]:
    there = Cluster("here", client, "", threads=1)
    return list(there.work_through(tasks, light_workers.echoed, allowed=lambda task: 1.0, **more))


def test_answers_come_with_what_was_said_and_tasks_that_follow_are_done():
    words = []
    done = worked(
        Client(),
        heard=lambda task, word: words.append((task, word)),
        follow=lambda one: [10 * one.task] if 0 < one.task < 3 else [],
    )
    assert sorted(one.answer for one in done) == [0, 1, 2, 3, 4, 10, 20]
    assert all(one.answer == one.task and one.seconds == 0.5 for one in done)
    assert sorted(words) == [(one, "word") for one in (0, 1, 2, 3, 4, 10, 20)]


def test_tasks_are_taken_as_they_are_needed():
    taken = []
    there = Cluster("here", Client(), "", threads=2)
    tasks = (taken.append(n) or n for n in range(1000))
    work = there.work_through(tasks, light_workers.echoed, allowed=lambda task: 1.0)
    next(work)
    assert len(taken) <= clusters.AHEAD * 2
    work.close()
    assert len(there.client.left) > 1  # what was out is cancelled, and the run is left


def test_workers_that_join_later_are_given_tasks(monkeypatch):
    monkeypatch.setattr(clusters, "LOOK", -1.0)
    there = Cluster("here", Client(threads={"a": 4, "b": 5}), "", threads=1)
    work = there.work_through(range(100), light_workers.echoed, allowed=lambda task: 1.0)
    sent = [len(there.client.sent) for _ in zip(range(5), work, strict=False)]
    assert sent[-1] > clusters.AHEAD * 9
    assert (there.workers, there.threads) == (2, 9)


@dataclass
class Waiting(Client):
    """A scheduler whose workers are gone, and come back after some looks, or never."""

    looks: int = 0
    back_after: int = 10**9
    waiting: list[tuple[Any, Any]] = field(default_factory=list)

    def submit(self, function, *args, key, pure):
        future = super().submit(function, *args, key=key, pure=pure)
        if function is relay.same:
            return future
        later = Future(key, future.outcome)
        later.add_done_callback = lambda call: self.waiting.append((call, later))
        return later

    def nthreads(self):
        self.looks += 1
        if self.looks < self.back_after:
            return {}
        while self.waiting:
            call, future = self.waiting.pop()
            call(future)
        return {"a": 1}


def waited(client: Waiting, monkeypatch, patience: float = 600.0) -> tuple[list[Any], list[Any]]:
    monkeypatch.setattr(clusters, "LOOK", -1.0)
    monkeypatch.setattr(clusters, "WAIT", 0.01)
    told = []
    there = Cluster("here", client, "", patience, told.append, threads=1)
    done = []
    with suppress(ClusterError):
        done.extend(there.work_through(range(5), light_workers.echoed, allowed=lambda task: 1.0))
    return [one.answer for one in done], told


def test_a_run_whose_workers_are_gone_says_so_once_and_waits_for_others(monkeypatch):
    answers, told = waited(Waiting(back_after=8), monkeypatch)
    assert sorted(answers) == list(range(5))
    (one,) = told
    assert one.code == "IDL226"
    assert "all workers of the Dask scheduler here are gone; what they had is done by the next that come" in one.message


def test_a_run_whose_workers_stay_away_ends_after_a_time(monkeypatch):
    client = Waiting()
    answers, told = waited(client, monkeypatch, patience=0.05)
    assert answers == []
    assert len(told) == 1
    assert client.left  # what was out is cancelled
    there = Cluster("here", Waiting(), "", 0.05, threads=0)
    with pytest.raises(ClusterError, match=r"scheduler here were gone for 0\.05 seconds \(--worker-timeout\)"):
        list(there.work_through(range(5), light_workers.echoed, allowed=lambda task: 1.0))


def test_an_address_that_needs_certificates_says_where_they_are_named(tmp_path, monkeypatch):
    import dask

    question = ("certify", MODEL, "-d", DATA, "-e", "0.02", "-o", tmp_path / "r.json")
    with dask.config.set({"distributed.comm.tls.ca-file": None}):
        found = run(*question, "--scheduler", "tls://127.0.0.1:1")
    assert found.code == 2
    assert "needs certificates; name them in Dask's configuration (distributed.comm.tls.ca-file" in found.err
    (tmp_path / "no.pem").write_text("no certificate")
    names = {f"distributed.comm.tls.{name}": str(tmp_path / "no.pem") for name in clusters.CERTIFICATES}
    with dask.config.set(names):
        found = run(*question, "--scheduler", "tls://127.0.0.1:1")
    assert found.code == 2
    assert "the certificates for tls://127.0.0.1:1 cannot be read" in found.err


def test_how_long_to_wait_for_workers_needs_a_scheduler(tmp_path):
    found = run("certify", MODEL, "-d", DATA, "-e", "0.02", "--worker-timeout", "5")
    assert found.code == 2
    assert "--worker-timeout is about the workers of --scheduler" in found.err


def test_a_task_on_which_workers_end_is_lost_and_the_others_are_done():
    done = {one.task: one.answer for one in worked(Client({2: KilledWorker("key", "worker", 3)}))}
    assert done[2] == Lost("4 workers ended while they worked on it; too little memory?")
    assert [done[n] for n in (0, 1, 3, 4)] == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("fault", "status", "sentence"),
    [
        (CancelledError("key"), "connecting", "the scheduler here was lost in the middle of the work"),
        (OSError("no route"), "closed", "the scheduler here was lost in the middle of the work"),
        (CancelledError("key"), "running", r"the scheduler here gave a task up \(CancelledError: key\)"),
        (MISSING, "running", "a worker of here cannot do this work: No module named"),
        (OptionError("a worker has idl-audit 9"), "running", "a worker of here cannot do this work: a worker has idl"),
    ],
)
def test_what_is_no_task_s_fault_ends_the_work_in_one_sentence(fault, status, sentence):
    client = Client({3: fault}, status)
    with pytest.raises(ClusterError, match=sentence):
        worked(client)
    assert bool(client.left) == (status == "running")


def test_files_with_one_key_are_sent_once():
    client = Client()
    shared = [Pack({"net": b"1"}, "one"), Pack({"net": b"2"}, "two")]
    worked(client, tasks=range(6), files=lambda task: (shared[task % 2], Pack({"own": b"%d" % task})))
    packs = [args[0] for args in client.sent if len(args) == 1 and not isinstance(args[0], Run)]
    assert packs == [{"net": b"1"}, {"net": b"2"}]
    tasks = [args for args in client.sent if len(args) > 1]
    assert [args[4] for args in tasks] == [{"own": b"%d" % n} for n in range(6)]
    assert sum(isinstance(args[0], Run) for args in client.sent if len(args) == 1) == 1


def test_workers_that_are_gone_are_counted_with_what_they_had():
    there = Cluster("here", Client(), "", threads=2, workers=3)
    assert [one.code for one in there.notes()] == ["IDL222"]
    there._own |= {"a", "b"}
    there.heard_of((0.0, {"action": "remove-worker", "processing-tasks": {"a", "x"}, "expected": False}))
    there.heard_of((0.0, {"action": "remove-worker", "processing-tasks": {"x"}, "expected": False}))  # another's
    there.heard_of((0.0, {"action": "remove-worker", "processing-tasks": {"b"}, "expected": True}))
    there.heard_of((0.0, {"action": "add-worker"}))
    assert (there.lost_workers, there.given_again) == (1, 1)
    assert [one.code for one in there.notes()] == ["IDL222", "IDL223"]


# --- the files of a list ----------------------------------------------------------------------------------------------


def test_the_files_of_a_list_go_along_with_each_row(tmp_path):
    (tmp_path / "list").mkdir()
    (tmp_path / "nets").mkdir()
    (tmp_path / "list" / "p.vnnlib.gz").write_bytes(b"packed")
    path, beside = tmp_path / "nets" / MODEL.name, tmp_path / "nets" / f"{MODEL.name}.data"
    path.write_bytes(MODEL.read_bytes())
    beside.write_bytes(MODEL.with_name(beside.name).read_bytes())
    row = Instance(f"../nets/{MODEL.name}", "p.vnnlib", 5.0, None)
    files = ListFiles.of(tmp_path / "list", [row])
    assert (files.root, files.folder_there) == (tmp_path, Path("list"))
    net, own = files.packs(row)
    assert net.files == {f"nets/{file.name}": file.read_bytes() for file in (path, beside)}
    assert own == Pack({f"list/{HERE}": b"", "list/p.vnnlib.gz": b"packed"})
    assert files.packs(row)[0].key == net.key
    beside.write_bytes(beside.read_bytes() + b"\x00")
    assert files.packs(row)[0].key != net.key
    path.write_bytes(b"nonsense")
    assert files.packs(row)[0].files == {f"nets/{MODEL.name}": b"nonsense"}
    path.write_bytes(b"other nonsense")
    assert files.packs(row)[0].files == {f"nets/{MODEL.name}": b"other nonsense"}


def test_files_that_are_missing_or_have_absolute_names_are_left_to_the_workers(tmp_path):
    missing = Instance("none.onnx", "none.vnnlib", 5.0, None)
    absolute = Instance("/nets/a.onnx", "/props/p.vnnlib", 5.0, None)
    files = ListFiles.of(tmp_path, [missing, absolute])
    assert files.root == tmp_path
    assert [pack.files for pack in files.packs(missing)] == [{}, {HERE: b""}]
    assert [pack.files for pack in files.packs(absolute)] == [{HERE: b""}]
