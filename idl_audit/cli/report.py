"""idl-audit report."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path

import typer

from idl_audit.cli.console import console
from idl_audit.cli.show import say
from idl_audit.commands.options.reports import Rendering
from idl_audit.report.extra_files import find_extras
from idl_audit.report.joining import one_page
from idl_audit.report.reading import read_report
from idl_audit.report.render import Format, render
from idl_audit.report.schema import Report
from idl_audit.report.wording import plain
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_distinct, check_new_file, write_whole

MARK = b"<!-- idl-audit report -->"
"""What our HTML, Markdown and JUnit files begin with: they may be replaced."""


class Form(StrEnum):
    """What the report becomes."""

    TABLE = "table"
    HTML = "html"
    MARKDOWN = "markdown"
    JUNIT = "junit"
    GITHUB = "github"
    SARIF = "sarif"


SUFFIXES = {
    ".html": Form.HTML,
    ".htm": Form.HTML,
    ".md": Form.MARKDOWN,
    ".xml": Form.JUNIT,
    ".sarif": Form.SARIF,
    ".txt": Form.TABLE,
}


def report(asked: Rendering) -> None:
    """Do `report`."""
    report, output, quiet = asked.report, asked.output, asked.quiet
    check_distinct((report, *asked.more, asked.adversarial, asked.matrix), (output,))
    form = _form_of(output) if asked.format is None else Form(asked.format)
    for name in ("adversarial", "matrix", "image_shape"):
        if getattr(asked, name) is not None and form is not Form.HTML:
            raise OptionError(f"--{name.replace('_', '-')} is for -f html only; leave it out")
    if output is not None:
        check_new_file(output, force=asked.force or _is_ours(output))
    elif form is Form.HTML and sys.stdout.isatty():
        raise OptionError("HTML is for a browser; name a file with -o report.html")
    found = one_page([read_report(path) for path in (report, *asked.more)], (report, *asked.more))
    if form is Form.TABLE:
        _tables(found, output, verbose=asked.verbose)
        _tell(output, quiet=quiet)
        return
    extras = None
    if form is Form.HTML:
        extras, notes = find_extras(
            found,
            folder=report.absolute().parent,
            adversarial=asked.adversarial,
            matrix=asked.matrix,
            image_shape=asked.image_shape,
        )
        for note in () if quiet else notes:
            say(f"note: {note}")
    text = render(found, Format(form.value), extras=extras)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_whole(output, lambda file: file.write(text.encode("utf-8")))
    _tell(output, quiet=quiet)


def _form_of(output: Path | None) -> Form:
    """Return what the file's ending asks for."""
    if output is None:
        return Form.TABLE
    if output.suffix.lower() not in SUFFIXES:
        raise OptionError(f"{output} does not say what to make; end it in {', '.join(SUFFIXES)}, or give -f")
    return SUFFIXES[output.suffix.lower()]


def _tell(output: Path | None, *, quiet: bool) -> None:
    if output is not None and not quiet:
        typer.echo(f"{plain(output)} is written")


def _is_ours(path: Path) -> bool:
    """Return whether the file is a report of ours in another form."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(200)


def _tables(found: Report, output: Path | None, *, verbose: bool) -> None:
    from idl_audit.report.terminal import render as print_tables

    if output is None:
        print_tables(found, console=console(), verbose=verbose)
        return
    import io

    from rich.console import Console

    stream = io.StringIO()
    print_tables(found, console=Console(file=stream, width=120, highlight=False), verbose=verbose)
    text = "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
    write_whole(output, lambda file: file.write(text.encode("utf-8")))
