"""idl-audit history."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from idl_audit.cli.console import console, print_sections
from idl_audit.cli.show import print_document, say
from idl_audit.commands.options.reports import History
from idl_audit.gate.history import add, read
from idl_audit.report.history import Series
from idl_audit.report.reading import read_report
from idl_audit.report.wording import plain
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_distinct, check_new_file, write_whole


def history(asked: History) -> None:
    """Do `history`."""
    {"add": _add, "show": _show, "plot": _plot}[asked.action](asked)


def _add(asked: History) -> None:
    if not asked.reports:
        raise OptionError("give the reports to keep: idl-audit history add report.json --commit HASH")
    if asked.commit is None:
        raise OptionError("name the commit that the reports are of: --commit HASH ($GITHUB_SHA, $CI_COMMIT_SHA in CI)")
    check_distinct(asked.reports, (asked.database,))
    found = [read_report(path) for path in asked.reports]  # all of them are read before anything is written
    for path, report in zip(asked.reports, found, strict=True):
        new = add(asked.database, report, asked.commit, force=asked.force)
        if not asked.quiet:
            said = "is kept" if new else "is kept already"
            typer.echo(f"{plain(path)} {said} in {plain(asked.database)} for the commit {asked.commit}")


def _show(asked: History) -> None:
    series = _series(asked)
    if asked.format == "json":
        print_document(json.dumps([asdict(one) for one in series], indent=2, allow_nan=False) + "\n")
        return
    from idl_audit.report.terminal.history import history_sections

    last = {entry.commit for one in series for entry in one.entries}
    sentence = f"{len(last)} commit{'' if len(last) == 1 else 's'} in {plain(asked.database)}."
    print_sections(sentence, history_sections(series, verbose=asked.verbose), console())


def _plot(asked: History) -> None:
    output = asked.output
    if output is None or output.suffix.lower() not in (".html", ".png"):
        raise OptionError("name the page or picture to write: -o history.html, or -o history.png")
    check_distinct((asked.database,), (output,))
    check_new_file(output, force=asked.force)
    series = _series(asked)
    if output.suffix.lower() == ".png":
        from idl_audit.report.pictures.history import plot_history

        write_whole(output, lambda stream: plot_history(series, stream))
    else:
        from idl_audit.report.render.history import to_page

        text = to_page(series)
        write_whole(output, lambda stream: stream.write(text.encode("utf-8")))
    if not asked.quiet:
        say(f"{plain(output)} is written")


def _series(asked: History) -> list[Series]:
    if asked.reports:
        raise OptionError(f"history {asked.action} takes no reports; keep them with `history add`")
    found = read(Path(asked.database), asked.model)
    if not found:
        what = "no report" if asked.model is None else f"no report of {asked.model}"
        raise OptionError(f"{asked.database} has {what}; add one with `history add REPORT --commit HASH`")
    return found
