"""idl-audit bench."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from idl_audit.cli.exits import Exit, leave
from idl_audit.cli.show import check_output, deliver, say_error
from idl_audit.cli.watching import telling, watched
from idl_audit.commands.bench import audit_bench, is_wrong
from idl_audit.commands.options.many import Bench
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import Report
from idl_audit.values.errors import InvalidInputError, OptionError
from idl_audit.values.files import write_whole
from idl_audit.values.text import decoded

LARGEST_REPORT = 2**30


def bench(asked: Bench) -> None:
    """Do `bench`."""
    output, quiet = asked.printing.output, asked.printing.quiet
    check_output(output, force=asked.printing.force, resumed=asked.resume, read=(asked.instances,))
    options = replace(asked.options, earlier=_earlier(output)) if asked.resume else asked.options

    def save(report: Report) -> None:
        if output is not None:
            write_whole(output, lambda file: file.write(to_json(report).encode("utf-8")))

    with watched("bench", quiet=quiet, asked=asked.watching) as watch:
        report = audit_bench(
            asked.instances, options, watch=watch, save=save, tell=telling(quiet=quiet, asked=asked.watching)
        )
    deliver(report, asked.printing)
    unjudged = sum(entry.problem is not None for entry in report.properties)
    if unjudged:
        say_error(f"{unjudged} of {len(report.properties)} properties could not be judged; the report is incomplete")
    leave(report)
    if any(map(is_wrong, report.properties)):
        raise typer.Exit(Exit.INCOMPLETE)


def _earlier(output: Path | None) -> Report | None:
    """Return the report that a run is to be resumed from; None where there is none yet."""
    if output is None:
        raise OptionError("--resume needs the report of the earlier run; name it with -o FILE")
    if not output.is_file() or not output.stat().st_size:
        return None
    if output.stat().st_size > LARGEST_REPORT:
        raise OptionError(f"{output} is too large for a report of bench; give another name")
    try:
        report = from_json(decoded(output.read_bytes(), output, "give another name"))
    except (InvalidInputError, OSError) as error:
        raise OptionError(f"{output} cannot be resumed from: {error}") from error
    if report.command != "bench":
        raise OptionError(f"{output} cannot be resumed from: it is a report of {report.command}, not of bench")
    return report
