"""What a long run says of itself: a bar, plain lines, lines of JSON, and a file of metrics."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from idl_audit.cli.console import Heartbeat, progress_bar, seconds_left
from idl_audit.cli.show import say, teller
from idl_audit.commands.options.common import Watching
from idl_audit.report.wording import plain
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_place, write_whole

if TYPE_CHECKING:
    from idl_audit.report.schema import Diagnostic

BEGIN: Final = b"# TYPE idl_audit_"
METRICS_EVERY: Final = 10.0
"""Seconds between two versions of the file of metrics."""


@contextmanager
def watched(title: str, *, quiet: bool, asked: Watching) -> Iterator[Callable[[Any], None]]:
    """Yield what is to be called with the work's progress; shown, logged and written as it is asked for.

    Raises:
        OptionError: where metrics cannot be written, before any work.
    """
    with ExitStack() as stack:
        watchers: list[Callable[[Any], None]] = []
        if asked.metrics is not None:
            _check_metrics(asked.metrics)
            watchers.append(stack.enter_context(_metrics(title, asked.metrics)))
        if asked.log_json and not quiet:
            beat = Heartbeat(lambda progress, seconds: _log(_event(title, progress, seconds)))
            watchers.append(stack.enter_context(beat))
        elif asked.progress != "none":
            bar = progress_bar(title, quiet=quiet, plainly=asked.progress == "plain")
            watchers.append(stack.enter_context(bar))

        def watch(progress: Any) -> None:
            for one in watchers:
                one(progress)

        yield watch


def _check_metrics(path: Path) -> None:
    """Refuse a file that cannot be written, or holds something else. Raises OptionError."""
    check_place(path)
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(len(BEGIN)).startswith(BEGIN):
                raise OptionError(f"{path} exists and holds no metrics; give another name for --metrics")


def telling(*, quiet: bool, asked: Watching) -> Callable[[Diagnostic], None]:
    """Return what tells a warning at once on stderr, as a line of JSON where that is asked for."""
    if quiet or not asked.log_json:
        return teller(quiet=quiet)

    def tell(found: Diagnostic) -> None:
        told = {"code": found.code, "level": found.level, "message": plain(found.message), "hint": found.hint}
        _log({"event": "diagnostic", **told})

    return tell


def _log(event: dict[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    say(json.dumps({"time": now, **event}))


def _event(title: str, progress: Any, seconds: float) -> dict[str, Any]:
    event: dict[str, Any] = {"event": "progress", "command": title, "seconds": round(seconds, 3)}
    if progress is not None:
        left = seconds_left(progress, seconds)
        event |= {"done": progress.done, "total": progress.total, "verdicts": dict(progress.verdicts)}
        event |= {} if left is None else {"seconds_left": round(left, 1)}
    return event


@contextmanager
def _metrics(title: str, path: Path) -> Iterator[Callable[[Any], None]]:
    """Keep a file of metrics up to date: it is whole from the beginning, and says in the end that the run is over.

    A later version that cannot be written is told once, and the work goes on.
    """
    last, failed, start = [None], [False], time.monotonic()

    def write(progress: Any, seconds: float, *, running: bool = True) -> None:
        text = metrics(title, progress, seconds, running=running)
        try:
            write_whole(path, lambda file: file.write(text.encode()))
        except OptionError as error:
            if not failed[0]:
                failed[0] = True
                say(f"warning: {plain(str(error))}")

    write_whole(path, lambda file: file.write(metrics(title, None, 0.0).encode()))
    with Heartbeat(write, first=METRICS_EVERY, every=METRICS_EVERY) as watch:

        def seen(progress: Any) -> None:
            last[0] = progress
            watch(progress)

        try:
            yield seen
        finally:
            write(last[0], time.monotonic() - start, running=False)


def metrics(title: str, progress: Any, seconds: float, *, running: bool = True) -> str:
    """Return what is known of a run as OpenMetrics text, version 1.0.0."""
    command = f'command="{title}"'
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in usage)
    unit = 1 if sys.platform == "darwin" else 1024
    lines = [
        *_family(
            "idl_audit_running", "gauge", "1 while the run goes on, 0 when it is over.", [(command, int(running))]
        ),
        *_family("idl_audit_elapsed_seconds", "gauge", "Wall time of the run.", [(command, round(seconds, 3))]),
        *_family(
            "idl_audit_cpu_seconds", "counter", "Processor time, ended processes too.", [(command, round(cpu, 3))]
        ),
        *_family(
            "idl_audit_peak_memory_bytes", "gauge", "Peak memory of the parent.", [(command, usage[0].ru_maxrss * unit)]
        ),
    ]
    if progress is not None:
        counts = [(f'{command},verdict="{name}"', count) for name, count in sorted(progress.verdicts.items())]
        lines += _family("idl_audit_verdicts", "counter", "Verdicts so far: samples at radii.", counts)
        lines += _family("idl_audit_work", "gauge", "How many verdicts there will be.", [(command, progress.total)])
        lines += _family("idl_audit_work_done", "gauge", "How many there are.", [(command, progress.done)])
        left = seconds_left(progress, seconds)
        if left is not None:
            lines += _family("idl_audit_left_seconds", "gauge", "Time left, by the pace so far.", [(command, left)])
    return "\n".join([*lines, "# EOF", ""])


def _family(name: str, kind: str, help: str, samples: list[tuple[str, float]]) -> list[str]:
    unit = [f"# UNIT {name} {name.rpartition('_')[2]}"] if name.endswith(("_seconds", "_bytes")) else []
    suffix = "_total" if kind == "counter" else ""
    values = [f"{name}{suffix}{{{labels}}} {value}" for labels, value in samples]
    return [f"# TYPE {name} {kind}", *unit, f"# HELP {name} {help}", *values]
