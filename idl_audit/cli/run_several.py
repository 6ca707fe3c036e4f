"""idl-audit run, of a configuration with several audits: a report for each, and an index and a page of all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import typer

from idl_audit.cli.exits import Exit
from idl_audit.cli.options import Given
from idl_audit.cli.run import Job, carried_out, prepared
from idl_audit.cli.show import print_document, say, say_error
from idl_audit.commands.shared.journal import drop_journal
from idl_audit.config.files import Audit, Configuration
from idl_audit.report.reading import read_report
from idl_audit.report.render.side_by_side import to_page
from idl_audit.report.schema import Report
from idl_audit.report.side_by_side import INDEX, Entry, SideBySide, index_of
from idl_audit.report.wording import plain
from idl_audit.values.errors import IdlAuditError, InvalidInputError, OptionError
from idl_audit.values.files import check_place, write_whole

LARGEST_INDEX = 2**26


@dataclass
class _Several:
    """All audits of a configuration: those that are done now, and what earlier runs left of the others."""

    index: Path
    jobs: Mapping[str, Job]
    entries: dict[str, Entry]
    codes: dict[str, Exit]

    @property
    def page(self) -> Path:
        """Return where the page is."""
        return self.index.with_suffix(".html")

    def write(self) -> SideBySide:
        """Write index and page, each whole or not at all."""
        found = SideBySide.of(list(self.entries.values()))
        document = json.dumps(index_of(found, self.index), indent=2, allow_nan=False) + "\n"
        page = to_page(found, self.index, made_by="idl-audit run")
        for place, text in ((self.index, document), (self.page, page)):
            write_whole(place, partial(_written, text.encode("utf-8")))
        return found


def _written(content: bytes, stream: IO[bytes]) -> None:
    stream.write(content)


def run_several(given: Given, found: Configuration, only: Sequence[str]) -> None:
    """Do the audits of a configuration one after the other; one that fails does not end the others.

    Raises:
        InvalidInputError: before any work, where one of them is asked for what makes no sense.
    """
    several = _prepared(given, found, only)
    first = next(iter(several.jobs.values())).asked
    quiet = first.printing.quiet
    for number, (name, job) in enumerate(several.jobs.items(), 1):
        if not quiet:
            say(f"audit {name} ({number} of {len(several.jobs)})")
        code = _done(several, name, job)
        several.codes[name] = code
        several.write()
        if code is Exit.INTERRUPTED:
            break
    side_by_side = several.write()
    if all(entry.status == "complete" for entry in several.entries.values()):
        for job in several.jobs.values():
            report = several.entries[_name_of(several, job)].report
            if report is not None:
                drop_journal(job.journal, report)
    _show(side_by_side, several, first.printing.format, quiet=quiet, verbose=first.printing.verbose)
    worst = max(several.codes.values(), default=Exit.DONE)
    if worst is not Exit.DONE:
        raise typer.Exit(worst)


def _name_of(several: _Several, job: Job) -> str:
    return next(name for name, one in several.jobs.items() if one is job)


def _done(several: _Several, name: str, job: Job) -> Exit:
    """Do one audit and note its report, or why there is none; return how it ended."""
    place = several.entries[name].file
    try:
        report = carried_out(job, title=f"{name}: ", keep=True)
    except KeyboardInterrupt:
        say_error(f"{name}: interrupted")
        return Exit.INTERRUPTED
    except (IdlAuditError, MemoryError) as error:
        told = str(error) or "out of memory"
        say_error(f"{name}: {told}")
        several.entries[name] = Entry(name, place, _earlier(place), told)
        return Exit.USAGE if isinstance(error, InvalidInputError) else Exit.INCOMPLETE
    several.entries[name] = Entry(name, place, report)
    if report.status == "incomplete":
        return Exit.INCOMPLETE if report.why_incomplete == "not_judged" else Exit.INTERRUPTED
    return Exit.REFUSED if report.gate is not None and not report.gate.passed else Exit.DONE


def _prepared(given: Given, found: Configuration, only: Sequence[str]) -> _Several:
    """Look at everything that can be refused before any work. Raises InvalidInputError, with the audit's name."""
    names = [audit.name for audit in found.audits]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise OptionError(f"--only names the audit {unknown[0]!r}; {found.path} has {', '.join(names)}")
    index = _place_of_index(given, found)
    values = {name: value for name, value in given.values.items() if name not in given.configured}
    goes_on = bool(values.get("resume")) and _is_unfinished(index)
    jobs: dict[str, Job] = {}
    entries: dict[str, Entry] = {}
    for audit in found.audits:
        place = audit.tables.get("run", {}).get("output") or index.parent / f"{audit.name}.json"
        entries[audit.name] = Entry(audit.name, place, _earlier(place))
        if only and audit.name not in only:
            continue
        try:
            jobs[audit.name] = _job(audit, found, replace(given, values=values), place, goes_on=goes_on)
        except InvalidInputError as error:
            raise type(error)(f"audit '{audit.name}': {error}", code=error.code) from error
        entries[audit.name] = Entry(audit.name, place, None)
    several = _Several(index, jobs, entries, {})
    _check_apart(several)
    return several


def _job(audit: Audit, found: Configuration, given: Given, place: Path, *, goes_on: bool) -> Job:
    own = found.of(audit)
    if "reports" not in audit.tables.get("run", {}) and own.table("run").get("reports"):
        raise OptionError("reports under [run] would be written by each audit; give them under [[audit]]")
    values = {**own.options("run"), **given.values}
    return prepared(replace(given, values=values), own, force=goes_on, output=place)


def _place_of_index(given: Given, found: Configuration) -> Path:
    """Return where the index is to be written. Raises OptionError where nothing says so, or another file is there."""
    output = given.values.get("output") or found.table("run").get("output")
    if output is None:
        raise OptionError(
            f"{found.path} has several audits, which write a report each beside an index of all; write "
            "output = 'audits/index.json' under [run], or give -o FILE"
        )
    index = Path(output)
    if index.suffix.lower() != ".json":
        raise OptionError(f"the index of several audits is a .json file, beside which its page stands; not {index}")
    check_place(index)
    if index.is_file() and index.stat().st_size and _index_at(index) is None:
        raise OptionError(f"{index} exists and is no index of audits; give another name with -o FILE")
    return index


def _index_at(place: Path) -> Mapping[str, Any] | None:
    """Return the index in a file; None where it is none."""
    try:
        if place.stat().st_size > LARGEST_INDEX:
            return None
        found = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and INDEX in found else None


def _is_unfinished(index: Path) -> bool:
    found = _index_at(index)
    return found is not None and found.get("status") != "complete"


def _earlier(place: Path) -> Report | None:
    """Return the report that an earlier run left, where there is one that can be read."""
    try:
        return read_report(place) if place.is_file() else None
    except (InvalidInputError, OSError):
        return None


def _check_apart(several: _Several) -> None:
    """Refuse audits that write to the same file or folder, or over the index. Raises OptionError."""
    owners: dict[Path, str] = {place.absolute(): "the index" for place in (several.index, several.page)}
    for name, place in _places(several):
        owner = owners.setdefault(place.absolute(), name)
        if owner != name:
            raise OptionError(f"{owner} and the audit '{name}' would both write {place}; give each a place of its own")


def _places(several: _Several) -> Iterator[tuple[str, Path]]:
    for name, entry in several.entries.items():
        yield name, entry.file
    for name, job in several.jobs.items():
        yield from ((name, place) for place in job.written)


def _show(found: SideBySide, several: _Several, kind: str, *, quiet: bool, verbose: bool) -> None:
    if kind == "json":
        print_document(json.dumps(index_of(found, several.index), indent=2, allow_nan=False) + "\n")
    else:
        from idl_audit.cli.console import console, print_sections
        from idl_audit.report.terminal.side_by_side import sections

        to = console()
        print_sections(found.sentence(), sections(found, width=to.width, verbose=verbose), to)
    if not quiet:
        reports = [entry.file for entry in found.entries if entry.report is not None and entry.name in several.jobs]
        say(f"written: {', '.join(plain(file) for file in (several.index, several.page, *reports))}")
        left = [entry.name for entry in found.entries if entry.name in several.jobs and entry.status == "incomplete"]
        if left or Exit.INTERRUPTED in several.codes.values():
            say("the same command with --resume goes on from here")
