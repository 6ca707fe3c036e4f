"""The console: tables as wide as the terminal, and how far the work has come."""

from __future__ import annotations

import os
import sys
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


LINES_EVERY = 30.0
"""Seconds between two lines on progress where stderr is no terminal."""


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Show a bar on stderr that is moved by calling what this yields with the work's progress.

    Off a terminal there is a plain line now and then in its place.
    """
    stderr = Console(stderr=True, highlight=False)
    if quiet or not stderr.is_terminal:
        yield (lambda progress: None) if quiet else _lines(title)
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

        def watch(progress: Any) -> None:
            bar.update(task, completed=progress.done, total=progress.total, counts=_counts(progress))

        yield watch


def _counts(progress: Any) -> str:
    """Return what is decided, what is open, and how much of the trees that are being grown is proved."""
    counted = [f"{count} {verdict.replace('_', ' ')}" for verdict, count in sorted(progress.verdicts.items())]
    trees = ", ".join(f"{share:.0%}" for share in progress.shares)
    tree = [f"tree {trees} proved"] if trees else []
    return ", ".join([*tree, *counted, f"{progress.total - progress.done} open"])


def _lines(title: str) -> Callable[[Any], None]:
    start = last = time.monotonic()

    def watch(progress: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINES_EVERY:
            return
        last = now
        say(f"{title}: {progress.done} of {progress.total} after {now - start:.0f} s: {_counts(progress)}")

    return watch
