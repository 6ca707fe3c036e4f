"""idl-audit report."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.show import command, console, say
from idl_audit.report.extra_files import find_extras
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


SUFFIXES = {".html": Form.HTML, ".htm": Form.HTML, ".md": Form.MARKDOWN, ".xml": Form.JUNIT, ".txt": Form.TABLE}


@command
def report(
    report: Annotated[
        Path,
        typer.Argument(help="A report.json that a command wrote with -o.", metavar="REPORT", show_default=False),
    ],
    format: Annotated[
        Form | None,
        typer.Option(
            "-f",
            "--format",
            help=f"What to make of it: {', '.join(Form)}; by default what the name of -o ends in (.html, .md, .xml, "
            ".txt), else tables.",
            metavar="FORM",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file.", show_default=False)
    ] = None,
    adversarial: Annotated[
        Path | None,
        typer.Option(
            "--adversarial",
            help="HTML: the .npz that --save wrote, for pictures of adversarial inputs. Found by itself beside the "
            "report.",
            metavar="ADV.npz",
            show_default=False,
        ),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            "--matrix",
            help="HTML: the .npz that sensitivity --save wrote, for a heat map of each output. Found by itself, too.",
            metavar="S.npz",
            show_default=False,
        ),
    ] = None,
    image_shape: o.ImageShapeOption = None,
    force: o.ForceOption = False,
    quiet: o.NotesOption = False,
    verbose: o.VerboseOption = False,
) -> None:
    """Make a page or a summary of a report: HTML, Markdown, JUnit XML, GitHub annotations. Nothing is computed anew.

    html: one self-contained file. markdown: for the summary of a job. junit: gate rules and samples as tests; where
    the report has a gate, only its rules can fail. github: ::error and ::warning lines for a workflow's log.
    """
    check_distinct((report, adversarial, matrix), (output,))
    form = format or _form_of(output)
    for option, given in (("--adversarial", adversarial), ("--matrix", matrix), ("--image-shape", image_shape)):
        if given is not None and form is not Form.HTML:
            raise OptionError(f"{option} is for -f html only; leave it out")
    if output is not None:
        check_new_file(output, force=force or _is_ours(output))
    elif form is Form.HTML and sys.stdout.isatty():
        raise OptionError("HTML is for a browser; name a file with -o report.html")
    found = read_report(report)
    if form is Form.TABLE:
        _tables(found, output, verbose=verbose)
        _tell(output, quiet=quiet)
        return
    extras = None
    if form is Form.HTML:
        extras, notes = find_extras(
            found,
            folder=report.absolute().parent,
            adversarial=adversarial,
            matrix=matrix,
            image_shape=o.parse_image_shape(image_shape),
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
