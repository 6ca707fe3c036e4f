"""bench: every property of an instances file, each in a process that may die without ending the run."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from idl_audit import __version__
from idl_audit.analysis.fast_gradients import searched
from idl_audit.audit.frame import Clock, framed_report
from idl_audit.audit.preflight import Teller, tell_nobody
from idl_audit.audit.progress import Progress, Watcher
from idl_audit.audit.properties import PropertyOptions, check_on_box, decide_property, read_property
from idl_audit.audit.subject import Subject, open_subject
from idl_audit.audit.workers import Done, Lost, begun, work_through
from idl_audit.budget import Budget
from idl_audit.data.instances import Instance, read_instances
from idl_audit.errors import IdlAuditError, OptionError
from idl_audit.report.schema import Diagnostic, PropertyReport, Report

DEFAULT_SECONDS: Final = 60.0
"""For rows without a timeout where there is no cap."""
GRACE: Final = 5.0
"""Seconds beyond its time after which a process is ended: it does not look at the clock, or hangs."""

WRONG: Final = "IDL502"
"""The code of a result that contradicts the truth."""


@dataclass(frozen=True)
class BenchOptions:
    """How the properties are to be decided."""

    cap: float | None = None
    """Seconds for a property at most; None leaves each row its own timeout."""
    max_nodes: int | None = None
    """For a property, at most."""
    jobs: int = 1
    seed: int = 0
    earlier: Report | None = None
    """A report whose rows are kept and not decided again."""

    def __post_init__(self) -> None:
        if self.cap is not None and not self.cap > 0:
            raise OptionError(f"--cap must be a positive number of seconds, not {self.cap}")
        if self.jobs < 1:
            raise OptionError(f"--jobs must be 1 or more, not {self.jobs}")

    def seconds(self, instance: Instance) -> float:
        """Return the time that a row gets."""
        own = DEFAULT_SECONDS if instance.timeout is None and self.cap is None else instance.timeout
        return min(seconds for seconds in (own, self.cap) if seconds is not None)


@dataclass(frozen=True)
class Row:
    """One property to decide, as it is handed to another process."""

    number: int
    instance: Instance
    folder: Path
    seconds: float
    seed: int
    sha256: str | None = None
    """Of network and property; None where one cannot be read."""
    max_nodes: int | None = None


@dataclass(frozen=True)
class Decided:
    """One property with what was found, and what the user should know."""

    report: PropertyReport
    diagnostics: tuple[Diagnostic, ...] = ()
    has_other_files: bool = False
    """Whether the network's weights lie in files of their own: a later run cannot tell whether they are the same."""


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
        tell: told before the work begins why rows of the earlier report are decided again.

    Raises:
        DataError: where the file is refused. Networks and properties that are refused are unknown, with a diagnostic.
    """
    clock = Clock()
    instances = read_instances(path)
    folder = path.absolute().parent
    hashes = [_hash(folder, instance) for instance in instances]
    _file_hash.cache_clear()
    found = dict(_kept(instances, hashes, options.earlier))
    noted = tuple(_decided_again(instances, found, options.earlier))
    for diagnostic in noted:
        tell(diagnostic)
    rows = [
        Row(number, instance, folder, options.seconds(instance), options.seed, hashes[number], options.max_nodes)
        for number, instance in enumerate(instances)
        if number not in found
    ]
    complete = True

    def report(*, complete: bool) -> Report:
        return _report(clock, options, found, noted, complete=complete)

    _tell(watch, found, len(instances))
    with clock.step("verdicts"):
        try:
            work = work_through(rows, decide or decide_row, jobs=options.jobs, allowed=lambda row: row.seconds + GRACE)
            with closing(work):
                for done in work:
                    found[done.task.number] = _decided(done)
                    _tell(watch, found, len(instances))
                    save(report(complete=False))
        except KeyboardInterrupt:
            complete = False
    return report(complete=complete)


def _hash(folder: Path, instance: Instance) -> str | None:
    """Return a hash of a row's network and property, as they are now; None where one cannot be read."""
    try:
        parts = _file_hash(folder / instance.onnx), _file_hash(_property_file(folder / instance.vnnlib))
    except (OSError, ValueError):
        return None
    return hashlib.sha256(b"".join(parts)).hexdigest()


@lru_cache(maxsize=1024)
def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _kept(
    instances: tuple[Instance, ...], hashes: Sequence[str | None], earlier: Report | None
) -> Iterator[tuple[int, Decided]]:
    """Yield the rows that an earlier report has, with its diagnostics on them and the truth as it is known now.

    Names are not enough: the same name may stand for another network by now, or in another folder. Rows that another
    version decided are not mixed with those of this one.
    """
    if earlier is None or earlier.tool.version != __version__:
        return
    known = {(entry.onnx, entry.vnnlib): entry for entry in earlier.properties}
    for number, instance in enumerate(instances):
        entry = known.get((instance.onnx, instance.vnnlib))
        if entry is not None and entry.sha256 is not None and entry.sha256 == hashes[number]:
            own = tuple(d for d in earlier.diagnostics if d.where == _where(instance) and d.code != WRONG)
            yield number, Decided(entry.model_copy(update={"truth": instance.truth}), own)


def _decided_again(
    instances: tuple[Instance, ...], kept: Mapping[int, Decided], earlier: Report | None
) -> Iterator[Diagnostic]:
    """Say how many rows that an earlier report has are decided again, and why."""
    if earlier is None:
        return
    known = {(entry.onnx, entry.vnnlib) for entry in earlier.properties}
    had = [number for number, instance in enumerate(instances) if (instance.onnx, instance.vnnlib) in known]
    again = sum(number not in kept for number in had)
    if not again:
        return
    why = "their files changed since, or may have"
    if earlier.tool.version != __version__:
        why = f"version {earlier.tool.version} of idl-audit decided them, and this is {__version__}"
    message = f"{again} of {len(had)} rows of the earlier report are decided again: {why}"
    yield Diagnostic(code="IDL506", level="warning", message=message)


def _where(instance: Instance) -> str:
    return f"{instance.onnx}, {instance.vnnlib}"


def _tell(watch: Watcher, found: dict[int, Decided], total: int) -> None:
    watch(Progress(len(found), total, Counter(row.report.result for row in found.values())))


def _decided(done: Done[Row, Decided]) -> Decided:
    """Return what the process answered, or that it was lost."""
    if not isinstance(done.answer, Lost):
        found = done.answer
        named = found.report.model_copy(update={"sha256": None if found.has_other_files else done.task.sha256})
        return Decided(named, found.diagnostics)
    instance = done.task.instance
    told = Diagnostic(
        code="IDL504",
        level="warning" if done.answer.overtime else "error",
        message=done.answer.why,
        hint=None if done.answer.overtime else "run it again with fewer --jobs, or alone with certify",
        where=_where(instance),
    )
    return Decided(
        PropertyReport(
            onnx=instance.onnx,
            vnnlib=instance.vnnlib,
            result="timeout" if done.answer.overtime else "unknown",
            truth=instance.truth,
            seconds=done.seconds,
            sha256=done.task.sha256,
        ),
        (told,),
    )


def _report(
    clock: Clock, options: BenchOptions, found: dict[int, Decided], noted: tuple[Diagnostic, ...], *, complete: bool
) -> Report:
    rows = [found[number] for number in sorted(found)]
    wrong = [_contradiction(row.report) for row in rows if is_wrong(row.report)]
    return framed_report(
        "bench",
        clock,
        seed=options.seed,
        complete=complete,
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
        where=f"{entry.onnx}, {entry.vnnlib}",
    )


def decide_row(row: Row) -> Decided:
    """Decide one property in this process; what is refused is unknown, with the sentence that says why."""
    entry = PropertyReport(
        onnx=row.instance.onnx, vnnlib=row.instance.vnnlib, result="unknown", truth=row.instance.truth
    )
    start = time.monotonic()
    try:
        subject = _subject(row.folder / row.instance.onnx)
        start = time.monotonic()  # the network is read once for all of its rows
        begun()
        asked = read_property(subject, _property_file(row.folder / row.instance.vnnlib))
        check_on_box(subject, asked, row.seed)
        options = PropertyOptions(seed=row.seed)
        budget = Budget.of(start + row.seconds - time.monotonic(), nodes=row.max_nodes)
        decision = decide_property(subject, asked, options, budget)
    except IdlAuditError as error:
        told = Diagnostic(code="IDL503", level="error", message=str(error), where=_where(row.instance))
        return Decided(entry.model_copy(update={"seconds": time.monotonic() - start}), (told,))
    found = {
        "result": decision.result,
        "method": decision.method,
        "witness": decision.witness,
        "seconds": time.monotonic() - start,
    }
    diagnostics = tuple(told.model_copy(update={"where": _where(row.instance)}) for told in decision.diagnostics)
    return Decided(entry.model_copy(update=found), diagnostics, bool(subject.info.external_files))


@lru_cache(maxsize=1)
def _subject(path: Path) -> Subject:
    """Return the network, ready to be searched; neighbouring rows often have the same one."""
    subject = open_subject(path)
    searched(subject.model)  # loads what the search needs: seconds that are no row's own
    return subject


def _property_file(path: Path) -> Path:
    """Return the property's file; lists often name it without the .gz that it has, or with one that it lacks."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    return other if other.is_file() and not path.exists() else path
