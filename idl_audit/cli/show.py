"""What every command does with its report: print it, write it, turn errors into exit codes."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import typer

from idl_audit.cli.exits import Exit
from idl_audit.commands.options.common import Printing
from idl_audit.report.wording import plain
from idl_audit.values.errors import IdlAuditError, IncompleteError, InvalidInputError, MissingTorchError, OptionError
from idl_audit.values.files import check_distinct, check_ending, check_place, write_whole

if TYPE_CHECKING:
    from idl_audit.report.schema import Diagnostic, Report

HEAD: Final = 2**16
INCOMPLETE: Final = re.compile(rb'"status":\s*"incomplete"')
"""In the head of a report: within a text its quotes would be escaped."""
AT_ONCE: Final = frozenset({"IDL222"})
"""What is told on stderr though nothing is wrong: who works where, and where it can be watched."""
ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("ARGUMENTS", default=())
"""What was typed behind `idl-audit`: a report says how it came about."""


def guarded(work: Callable[[typer.Context], None]) -> Callable[..., None]:
    """Return what does a command's work: every error becomes one sentence on stderr and an exit code, no traceback."""

    def call(ctx: typer.Context, **_: Any) -> None:
        try:
            work(ctx)
        except InvalidInputError as error:
            _fail(_with_code(error), Exit.USAGE)
        except IncompleteError as error:
            _fail(str(error), Exit.INCOMPLETE)
        except KeyboardInterrupt:
            _fail("interrupted", Exit.INTERRUPTED)
        except BrokenPipeError:
            hang_up()
            raise typer.Exit(Exit.DONE) from None
        except MemoryError:
            _fail("out of memory; audit a smaller model, or fewer samples at a time with --limit", Exit.INCOMPLETE)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except ModuleNotFoundError as error:
            if error.name != "torch":
                _internal(error)
            _fail(str(MissingTorchError()), Exit.USAGE)
        except Exception as error:
            _internal(error)

    return call


def hang_up() -> None:
    """Go on without a reader of our output (| head): nothing is wrong, and nothing more can be said to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(message: str) -> None:
    """Say something on stderr; that nobody reads it (2>&1 | head) neither ends the work nor changes the exit code."""
    with suppress(OSError, ValueError):
        typer.echo(message, err=True)


def say_error(message: object) -> None:
    """Say what is wrong, as one line that is safe to print."""
    say(f"error: {plain(message, longest=4000)}")


def _fail(message: str, code: Exit) -> None:
    say_error(message)
    raise typer.Exit(code)


def _with_code(error: IdlAuditError) -> str:
    """Return the sentence with the code that `explain` knows more about, where it has one."""
    return f"{error} [{error.code}]" if error.code else str(error)


def _internal(error: Exception) -> None:
    """Report a mistake of ours: one sentence, and the traceback only for those who ask for it."""
    if os.environ.get("IDL_AUDIT_DEBUG"):
        traceback.print_exc()
    where = traceback.extract_tb(error.__traceback__)[-1]
    name = f"{Path(where.filename).name}:{where.lineno}"
    _fail(
        f"internal error in {name}: {type(error).__name__}: {error}; please report it (IDL_AUDIT_DEBUG=1 shows more)",
        Exit.INCOMPLETE,
    )


def check_output(
    output: Path | None,
    *,
    force: bool,
    resumed: bool | None = None,
    read: Iterable[Path | None] = (),
    written: Iterable[Path | None] = (),
) -> None:
    """Refuse, before any work, a report file that cannot be written or would destroy something else.

    Args:
        output: where the report is to be written.
        force: whether a report that is there may be lost. No other file may be.
        resumed: whether a run goes on from what an incomplete report holds; None where none can.
        read: the files that are read.
        written: the other files that are written.

    Raises:
        OptionError: with one sentence.
    """
    check_distinct(read, (*written, output))
    if output is None:
        return
    check_place(output)
    named = output.with_suffix(".json")
    check_ending(output, ".json", f"name it {named}, of which `idl-audit report` makes pages")
    if not output.is_file() or not output.stat().st_size:
        return
    with output.open("rb") as file:
        head = file.read(HEAD)
    if not head.lstrip().startswith(b"{"):
        raise OptionError(f"{output} exists and is no report; give another name for the report")
    if force or resumed:
        return
    if not INCOMPLETE.search(head):
        raise OptionError(f"{output} exists already; give another name, or --force to lose what it says")
    if resumed is not None:
        raise OptionError(f"{output} is not complete; go on from there with --resume, or lose it with --force")


def teller(*, quiet: bool) -> Callable[[Diagnostic], None]:
    """Return what tells a warning at once on stderr, before the work that it may make worthless begins."""

    def tell(found: Diagnostic) -> None:
        if not quiet and (found.level != "info" or found.code in AT_ONCE):
            hint = f" ({plain(found.hint)})" if found.hint else ""
            say(f"{found.level}: {plain(found.message)}{hint} [{found.code}]")

    return tell


def deliver(report: Report, printing: Printing, *, new: bool = False) -> None:
    """Write the report to `output`, and print it unless it was asked for as JSON in a file.

    With `new`, a report that another run has written there meanwhile is not lost.
    """
    show(written(report, printing.output, new=new), printing)


def written(report: Report, output: Path | None, *, new: bool = False) -> Report:
    """Write the report, with the command that was typed, to `output` where there is one, and return it."""
    report = with_command_line(report)
    if output is not None:
        write_report(report, output, new=new)
    return report


def show(report: Report, printing: Printing) -> None:
    """Print a report that `written` returned, unless it was asked for as JSON in a file."""
    if printing.format == "json":
        if printing.output is None:
            from idl_audit.report.json_text import to_json

            print_document(to_json(report))
        return
    _stdout()
    from idl_audit.cli.console import console
    from idl_audit.report.terminal import render

    render(report, console=console(), verbose=printing.verbose)


def print_document(text: str) -> None:
    """Print a JSON document; a reader that went away does not change how the command ends."""
    try:
        _stdout().write(text)
        _stdout().flush()
    except BrokenPipeError:
        hang_up()


def write_report(report: Report, output: Path, *, new: bool = False) -> None:
    """Write the report as JSON, whole or not at all."""
    from idl_audit.report.json_text import written as pieces

    write_whole(output, lambda file: file.writelines(piece.encode("ascii") for piece in pieces(report)), new=new)


def tell_resume(report: Report) -> None:
    """Say how a run that keeps a journal and is incomplete goes on."""
    why = "some samples could not be judged" if report.why_incomplete == "not_judged" else "interrupted"
    say(f"{why}: the same command with --resume goes on from here")


def with_command_line(report: Report) -> Report:
    """Return the report with the command that was typed."""
    return report.model_copy(update={"command_line": _command_line()})


def _command_line() -> str | None:
    """Return the command as a shell reads it; bytes that are no text become question marks, as everywhere else."""
    arguments = ARGUMENTS.get()
    return shlex.join(("idl-audit", *arguments)).encode("utf-8", "replace").decode() if arguments else None


def _stdout() -> TextIO:
    if sys.stdout is None:
        raise OptionError("there is no standard output; write the report to a file with -o FILE -f json")
    return sys.stdout
