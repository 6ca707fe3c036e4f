"""The console: tables as wide as the terminal, and how far the work has come."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from idl_audit.cli.show import hang_up, say

WIDTH_OFF_TERMINAL = 160
"""Tables in a pipe or a file are not squeezed into 80 columns."""


class _Console(Console):
    """A console for which a reader that went away does not change how the command ends."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        hang_up()


def console() -> Console:
    """Return the console for tables: as wide as the terminal, or wide where there is none."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_OFF_TERMINAL
    return _Console(width=width, highlight=False, soft_wrap=False)


def print_sections(sentence: str, sections: Iterable[tuple[str, Any]], to: Console) -> None:
    """Print a sentence and below it headings with their tables, as reports are printed."""
    to.print(Text(sentence, style="bold"))
    for title, body in sections:
        to.print()
        to.print(Text(title, style="bold"))
        to.print(Padding(body, (0, 0, 0, 2), expand=False))


FIRST_LINE = 5.0
"""Seconds until the first line on progress where stderr is no terminal."""
LINES_EVERY = 30.0
"""Seconds between two of the others."""
BAR_EVERY = 0.1
"""Seconds between two looks at what a bar shows."""


@contextmanager
def progress_bar(title: str, *, quiet: bool, plainly: bool = False) -> Iterator[Callable[[Any], None]]:
    """Show a bar on stderr that is moved by calling what this yields with the work's progress.

    Off a terminal, and where it is to be shown `plainly`, there is a plain line now and then in its place.
    """
    stderr = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda progress: None
        return
    if plainly or not stderr.is_terminal:
        with Heartbeat(lambda progress, seconds: say(_line(title, progress, seconds))) as watch_lines:
            yield watch_lines
        return
    from rich import progress as bars
    from rich.table import Column

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=16),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[counts]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    with bars.Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(escape(title), total=None, counts="")

        last = 0.0

        def watch(progress: Any) -> None:
            nonlocal last
            if progress.done < progress.total and time.monotonic() - last < BAR_EVERY:
                return  # drawing costs more than some verdicts do
            last = time.monotonic()
            bar.update(task, completed=progress.done, total=progress.total, counts=_counts(progress))

        yield watch


def _counts(progress: Any) -> str:
    """Return what is decided, what is open, and how much of the trees that are being grown is proved."""
    counted = [f"{count} {verdict.replace('_', ' ')}" for verdict, count in sorted(progress.verdicts.items())]
    trees = ", ".join(f"{share:.0%}" for share in progress.shares)
    tree = [f"tree {trees} proved"] if trees else []
    return ", ".join([*tree, *counted, f"{progress.total - progress.done} open"])


class Heartbeat:
    """Says something now and then, whether anything becomes ready or not: whoever reads it sees that the command lives.

    `say` is given the progress, None before there is any, and the seconds so far.
    """

    def __init__(
        self, say: Callable[[Any, float], None], *, first: float | None = None, every: float | None = None
    ) -> None:
        """Begin at `__enter__`: first after some seconds, then every so many."""
        self._say, self._start = say, time.monotonic()
        self._first, self._every = first, every
        self._progress: Any = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Callable[[Any], None]:
        self._thread.start()
        return self._watch

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self, progress: Any) -> None:
        self._progress = progress

    def _beat(self) -> None:
        pause = FIRST_LINE if self._first is None else self._first
        while not self._over.wait(pause):
            self._say(self._progress, time.monotonic() - self._start)
            pause = LINES_EVERY if self._every is None else self._every


def seconds_left(progress: Any, seconds: float) -> float | None:
    """Return how long the rest takes by the pace so far; None where nothing is decided yet, or all is."""
    if not 0 < progress.done < progress.total:
        return None
    return seconds / float(progress.done) * float(progress.total - progress.done)


def _line(title: str, progress: Any, seconds: float) -> str:
    """Return what is known after some seconds, with the time left where something is decided already."""
    if progress is None:
        return f"{title}: nothing is decided yet after {_duration(seconds)}"
    rest = seconds_left(progress, seconds)
    left = "" if rest is None else f", about {_duration(rest)} left"
    return f"{title}: {progress.done} of {progress.total} after {_duration(seconds)}{left}: {_counts(progress)}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
