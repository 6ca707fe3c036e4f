"""bench: every property of an instances file, each in a process that may die without ending the run.

A row that cannot be judged - its files are missing or refused, its process died, the memory ran out - is `unknown` with
a `problem`, and makes the report incomplete: that a property was not looked at must not read as a result.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from idl_audit.commands.certify_property import OUT_OF_MEMORY, check_on_box, decide_property
from idl_audit.commands.certify_query import open_query, remarks_of
from idl_audit.commands.options.many import BenchOptions
from idl_audit.commands.options.reading import SearchedModel
from idl_audit.commands.options.robustness import PropertyOptions
from idl_audit.commands.shared.bench_files import ListFiles
from idl_audit.commands.shared.bench_resume import kept_rows, property_file, row_sha256
from idl_audit.commands.shared.cluster import Cluster, connected, lost_cluster
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.preflight import Teller, tell_nobody
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.commands.shared.workers import Done, Lost, begun, work_through
from idl_audit.commands.shared.workers import tell as tell_parent
from idl_audit.data.instances import Instance, read_instances
from idl_audit.data.vnnlib2.reader import is_version_2
from idl_audit.decide.ladder import Options
from idl_audit.report.schema import Diagnostic, PropertyReport, Report, WhyIncomplete
from idl_audit.search import device
from idl_audit.search.fast_gradients import searched
from idl_audit.values.budget import Budget
from idl_audit.values.errors import ClusterError, IdlAuditError
from idl_audit.values.verdicts import ArithmeticName, Reason

DEFAULT_SECONDS: Final = 60.0
"""For rows without a timeout where there is no cap."""
GRACE: Final = 5.0
"""Seconds beyond its time after which a process is ended: it does not look at the clock, or hangs."""

WRONG: Final = "IDL502"
"""The code of a result that contradicts the truth."""


def seconds_of(instance: Instance, cap: float | None) -> float:
    """Return the time that a row gets: its own timeout, and no more than the cap."""
    own = DEFAULT_SECONDS if instance.timeout is None and cap is None else instance.timeout
    return min(seconds for seconds in (own, cap) if seconds is not None)


@dataclass(frozen=True)
class Row:
    """One property to decide, as it is handed to another process."""

    number: int
    instance: Instance
    folder: Path
    seconds: float
    seed: int
    max_nodes: int | None = None
    arithmetic: ArithmeticName = "real"
    device: str = "auto"


@dataclass(frozen=True)
class Decided:
    """One property with what was found, and what the user should know."""

    report: PropertyReport
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True)
class Files:
    """What a row was decided on."""

    sha256: str
    """Of network and property, as they were read."""
    external_files: tuple[str, ...]
    """Beside the network."""

    def named(self, entry: PropertyReport) -> PropertyReport:
        """Return the entry with the files that it speaks of."""
        return entry.model_copy(update={"sha256": self.sha256, "external_files": self.external_files})


def audit_bench(
    path: Path,
    options: BenchOptions,
    *,
    watch: Watcher = lambda progress: None,
    save: Callable[[Report], None] = lambda report: None,
    decide: Callable[[Row], Decided] | None = None,
    tell: Teller = tell_nobody,
) -> Report:
    """Decide every property of an instances file; Ctrl-C leaves a valid, incomplete report.

    Args:
        path: the CSV file; networks and properties lie relative to its folder.
        options: limits, processes, and what was found before.
        watch: told after each row how far the work has come.
        save: given the incomplete report after each row, so that a later run can resume.
        decide: what decides one row in its process; `decide_row` where it is None.
        tell: told before the work begins why rows of the earlier report are decided again, and then at once of every
            row that could not be judged.

    Raises:
        DataError: where the file is refused. Networks and properties that are refused are unknown, with a diagnostic.
        OptionError: where a scheduler cannot be reached, or a device cannot be used.
    """
    device.use(options.device)
    with connected(options.scheduler, patience=options.worker_timeout, tell=tell) as cluster:
        return _audit(path, options, watch, save, decide or decide_row, tell, cluster)


def _audit(
    path: Path,
    options: BenchOptions,
    watch: Watcher,
    save: Callable[[Report], None],
    decide: Callable[[Row], Decided],
    tell: Teller,
    cluster: Cluster | None,
) -> Report:
    clock = Clock()
    if cluster is not None:
        tell(cluster.note())
    instances = read_instances(path)
    folder = path.absolute().parent
    seconds = [seconds_of(instance, options.cap) for instance in instances]
    kept, noted = kept_rows(instances, folder, seconds, options.earlier, options.max_nodes, options.arithmetic)
    found = {number: Decided(entry, _earlier_words(entry, options.earlier)) for number, entry in kept.items()}
    for diagnostic in noted:
        tell(diagnostic)
    rows = [
        Row(number, instance, folder, limit, options.seed, options.max_nodes, options.arithmetic, options.device)
        for number, (instance, limit) in enumerate(zip(instances, seconds, strict=True))
        if number not in found
    ]
    files: dict[int, Files] = {}
    why: WhyIncomplete | None = None

    told: list[Diagnostic] = []

    def report(why: WhyIncomplete | None) -> Report:
        of_cluster = () if cluster is None else tuple(cluster.notes())
        return _report(clock, options, found, (*noted, *of_cluster, *told), why)

    def heard(row: Row, message: Files) -> None:
        files[row.number] = message

    _watch(watch, found, len(instances))
    with clock.step("verdicts"):
        try:
            if cluster is None:
                work = work_through(rows, decide, jobs=options.jobs, allowed=_allowed, heard=heard)
            else:
                work = _abroad(cluster, rows, folder, decide, heard)
            with closing(work):
                for done in work:
                    one = found[done.task.number] = _decided(done, files.get(done.task.number))
                    _tell_problem(tell, one)
                    _watch(watch, found, len(instances))
                    save(report("interrupted"))
        except KeyboardInterrupt:
            why = "interrupted"
        except ClusterError as error:
            why = "interrupted"
            told.append(lost_cluster(error))
            tell(told[-1])
    return report(why or not_judged([row.report for row in found.values()]))


def _abroad(
    cluster: Cluster,
    rows: Sequence[Row],
    folder: Path,
    decide: Callable[[Row], Decided],
    heard: Callable[[Row, Files], None],
) -> Generator[Done[Row, Decided], None, None]:
    """Let a cluster decide rows; the files that they name go along."""
    files = ListFiles.of(folder, [row.instance for row in rows])
    there = (replace(row, folder=files.folder_there) for row in rows)
    return cluster.work_through(
        there, decide, allowed=_allowed, heard=heard, files=lambda row: files.packs(row.instance)
    )


def _allowed(row: Row) -> float:
    return row.seconds + GRACE


def _earlier_words(entry: PropertyReport, earlier: Report | None) -> tuple[Diagnostic, ...]:
    """Return what an earlier report says of a row that is kept; the truth is compared anew."""
    told = () if earlier is None else earlier.diagnostics
    return tuple(one for one in told if one.where == _where(entry) and one.code != WRONG)


def not_judged(entries: Sequence[PropertyReport]) -> WhyIncomplete | None:
    """Return that some rows were not judged; None where all were."""
    return "not_judged" if any(entry.problem is not None for entry in entries) else None


def _tell_problem(tell: Teller, row: Decided) -> None:
    """Tell at once that a row could not be judged."""
    for diagnostic in row.diagnostics if row.report.problem is not None else ():
        tell(diagnostic)


def _where(entry: PropertyReport | Instance) -> str:
    return f"{entry.onnx}, {entry.vnnlib}"


def _watch(watch: Watcher, found: dict[int, Decided], total: int) -> None:
    watch(Progress(len(found), total, Counter(row.report.result for row in found.values())))


def _decided(done: Done[Row, Decided], files: Files | None) -> Decided:
    """Return what the process answered, or that it was lost; `files` is what it said that it works on."""
    if not isinstance(done.answer, Lost):
        return done.answer
    lost = done.answer
    told = Diagnostic(
        code="IDL504",
        level="warning" if lost.overtime else "error",
        message=lost.why,
        hint=None if lost.overtime else "run it again with fewer --jobs, or alone with certify",
        where=_where(done.task.instance),
    )
    found = {
        "result": "timeout" if lost.overtime else "unknown",
        "seconds": done.seconds,
        "problem": None if lost.overtime else lost.why,
    }
    entry = _entry(done.task).model_copy(update=found)
    return Decided(entry if files is None else files.named(entry), (told,))


def _report(
    clock: Clock,
    options: BenchOptions,
    found: dict[int, Decided],
    noted: tuple[Diagnostic, ...],
    why_incomplete: WhyIncomplete | None,
) -> Report:
    rows = [found[number] for number in sorted(found)]
    wrong = [_contradiction(row.report) for row in rows if is_wrong(row.report)]
    return framed_report(
        "bench",
        clock,
        seed=options.seed,
        why_incomplete=why_incomplete,
        properties=tuple(row.report for row in rows),
        diagnostics=(*wrong, *noted, *(told for row in rows for told in row.diagnostics)),
    )


def is_wrong(entry: PropertyReport) -> bool:
    """Return whether a result contradicts the truth: one says sat, the other unsat."""
    return {entry.result, entry.truth} == {"sat", "unsat"}


def _contradiction(entry: PropertyReport) -> Diagnostic:
    return Diagnostic(
        code=WRONG,
        level="error",
        message=f"WRONG: {entry.result} by {entry.method}, and the truth is {entry.truth}",
        hint="either the truth is mistaken or idl-audit is; please report it with both files",
        where=_where(entry),
    )


def _entry(row: Row) -> PropertyReport:
    """Return what the report says of a row before anything is known of it."""
    return PropertyReport(
        onnx=row.instance.onnx,
        vnnlib=row.instance.vnnlib,
        result="unknown",
        truth=row.instance.truth,
        time_limit=row.seconds if math.isfinite(row.seconds) else None,
        max_nodes=row.max_nodes,
        arithmetic=row.arithmetic,
    )


def decide_row(row: Row) -> Decided:
    """Decide one property in this process; what is refused is unknown, with the sentence that says why."""
    entry = _entry(row)
    start = time.monotonic()
    if is_version_2(property_file(row.folder / row.instance.vnnlib)):
        return _decide_query(row, entry, start)
    try:
        subject = _network(row.folder / row.instance.onnx, SearchedModel(device=row.device))
        start = time.monotonic()  # the network is read once for all of its rows
        begun()
        asked = read_property(subject, property_file(row.folder / row.instance.vnnlib))
        files = Files(row_sha256(subject.info.sha256, asked.sha256), subject.info.external_files)
        tell_parent(files)
        entry = files.named(entry)
        check_on_box(subject, asked, row.seed)
        options = PropertyOptions(seed=row.seed, arithmetic=row.arithmetic)
        budget = Budget.of(start + row.seconds - time.monotonic(), nodes=row.max_nodes, clock=time.monotonic)
        decision = decide_property(subject, asked, options, budget)
        subject.check_unchanged()
    except IdlAuditError as error:
        return _unjudged(entry, "IDL503", str(error), time.monotonic() - start)
    if decision.reason is Reason.MEMORY_LIMIT:
        return _unjudged(entry, "IDL504", OUT_OF_MEMORY, time.monotonic() - start)
    found = {
        "result": decision.result,
        "method": decision.method,
        "witness": decision.witness,
        "confirmed_by": decision.confirmed_by,
        "seconds": time.monotonic() - start,
    }
    diagnostics = tuple(told.model_copy(update={"where": _where(entry)}) for told in decision.diagnostics)
    return Decided(entry.model_copy(update=found), diagnostics)


def _decide_query(row: Row, entry: PropertyReport, start: float) -> Decided:
    """Decide one VNN-LIB 2 query of one network."""
    try:
        begun()
        path, vnnlib = row.folder / row.instance.onnx, property_file(row.folder / row.instance.vnnlib)
        query = open_query(path, vnnlib, SearchedModel(device=row.device))
        files = Files(query.sha256, query.info.external_files)
        tell_parent(files)
        entry = files.named(entry)
        budget = Budget.of(start + row.seconds - time.monotonic(), nodes=row.max_nodes, clock=time.monotonic)
        answer = query.decided(Options(seed=row.seed), budget)
    except IdlAuditError as error:
        return _unjudged(entry, "IDL503", str(error), time.monotonic() - start)
    found = {**query.told(answer), "seconds": time.monotonic() - start}
    return Decided(entry.model_copy(update=found), tuple(remarks_of(answer, _where(entry))))


def _unjudged(entry: PropertyReport, code: str, why: str, seconds: float) -> Decided:
    """Return a row that could not be judged, with the sentence that says why."""
    told = Diagnostic(code=code, level="error", message=why, where=_where(entry))
    return Decided(entry.model_copy(update={"seconds": seconds, "problem": why}), (told,))


def _network(path: Path, reading: SearchedModel) -> Subject:
    """Return the network as its files are now."""
    subject = _subject(path, reading)
    if all(file.is_unchanged for file in subject.files):
        return subject
    _subject.cache_clear()
    return _subject(path, reading)


@lru_cache(maxsize=1)
def _subject(path: Path, reading: SearchedModel) -> Subject:
    """Return the network, ready to be searched; neighbouring rows often have the same one."""
    subject = open_subject(path, reading)
    searched(subject.model)  # loads what the search needs: seconds that are no row's own
    return subject
