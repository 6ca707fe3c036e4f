"""What every command does with its report: print it, write it, show progress, turn errors into exit codes."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from idl_audit.cli.options import Format
from idl_audit.errors import IncompleteError, InvalidInputError, OptionError
from idl_audit.report.json_text import to_json
from idl_audit.report.schema import Report
from idl_audit.report.wording import plain

EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130

WIDTH_OFF_TERMINAL = 160
"""Tables in a pipe or a file are not squeezed into 80 columns."""

Parameters = ParamSpec("Parameters")


def command(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Wrap a command: every error becomes one sentence on stderr and an exit code, never a traceback."""

    @functools.wraps(function)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except InvalidInputError as error:
            _fail(str(error), EXIT_USAGE)
        except IncompleteError as error:
            _fail(str(error), EXIT_INCOMPLETE)
        except KeyboardInterrupt:
            _fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # the reader of our output went away (| head): nothing is wrong, and nothing more can be said to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except MemoryError:
            _fail("out of memory; audit a smaller model, or fewer samples at a time with --limit", EXIT_INCOMPLETE)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            _internal(error)

    return wrapped


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {plain(message, longest=4000)}", err=True)
    raise typer.Exit(code)


def _internal(error: Exception) -> None:
    """Report a mistake of ours: one sentence, and the traceback only for those who ask for it."""
    if os.environ.get("IDL_AUDIT_DEBUG"):
        traceback.print_exc()
    where = traceback.extract_tb(error.__traceback__)[-1]
    name = f"{Path(where.filename).name}:{where.lineno}"
    _fail(
        f"internal error in {name}: {type(error).__name__}: {error}; please report it (IDL_AUDIT_DEBUG=1 shows more)",
        EXIT_INCOMPLETE,
    )


def check_output(output: Path | None) -> None:
    """Refuse, before any work, a report file that cannot be written."""
    if output is None:
        return
    if output.is_dir():
        raise OptionError(f"{output} is a folder; give the name of a file for the report")
    if not output.absolute().parent.is_dir():
        raise OptionError(f"the folder {output.absolute().parent} does not exist; create it first")


def deliver(report: Report, *, format: Format, output: Path | None, verbose: bool = False) -> None:
    """Write the report to `output`, and print it unless it was asked for as JSON in a file."""
    if output is not None:
        write_text(output, to_json(report))
    if format is Format.JSON:
        if output is None:
            sys.stdout.write(to_json(report))
            sys.stdout.flush()
        return
    from idl_audit.report.terminal import render

    render(report, console=console(), verbose=verbose)


def console() -> Console:
    """Return the console for tables: as wide as the terminal, or wide where there is none."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_OFF_TERMINAL
    return Console(width=width, highlight=False, soft_wrap=False)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Show a bar on stderr that is moved by calling what this yields with the work's progress."""
    stderr = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        task = bar.add_task(escape(title), total=None, counts="")

        def watch(progress: Any) -> None:
            counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(progress.verdicts.items()))
            bar.update(task, completed=progress.done, total=progress.total, counts=counts)

        yield watch
