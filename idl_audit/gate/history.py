"""Reports of many commits in one SQLite file: what moved, and when.

The file has an application id and a version of its own. Several processes may add at once: each waits for the others.
A file that is none of ours, of another version, or damaged is refused, and nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, Final

from idl_audit.gate.fingerprints import THREAT_FIELDS
from idl_audit.gate.measures import Figure, Share, measure
from idl_audit.gate.rules import AT_EPS, QUANTILES, Metric
from idl_audit.report.history import Entry, Point, Series
from idl_audit.report.json_text import to_json
from idl_audit.report.schema import Report
from idl_audit.report.wording import eps_text, plain
from idl_audit.values.errors import DataError, OptionError

APPLICATION: Final = 0x49444C41
"""Of SQLite files of ours: IDLA."""
VERSION: Final = 1
PATIENCE: Final = 60.0
"""Seconds that a process waits for others that write."""
LONGEST_COMMIT: Final = 100
MOST_BYTES: Final = 2**31
"""Of a report that is taken out."""
_MAGIC: Final = b"SQLite format 3\0"
_TABLES: Final = """
CREATE TABLE report (
  id INTEGER PRIMARY KEY,
  commit_name TEXT NOT NULL, added TEXT NOT NULL, model TEXT NOT NULL, model_sha256 TEXT NOT NULL,
  question TEXT NOT NULL, radii TEXT NOT NULL, complete INTEGER NOT NULL,
  report_sha256 TEXT NOT NULL, content BLOB NOT NULL,
  UNIQUE (commit_name, model, question, radii)
) STRICT;
CREATE TABLE figure (
  report INTEGER NOT NULL REFERENCES report (id) ON DELETE CASCADE,
  place INTEGER NOT NULL, name TEXT NOT NULL, k INTEGER, n INTEGER, number REAL,
  PRIMARY KEY (report, name)
) STRICT;
"""


def add(path: Path, report: Report, commit: str, *, force: bool = False) -> bool:
    """Keep a report of a commit; return whether it was not there before.

    Raises:
        OptionError: where the commit's name is none, or the commit has another report on the same question.
        DataError: where the file is refused, or others write to it for too long.
    """
    if not commit.strip() or len(commit) > LONGEST_COMMIT or plain(commit) != commit or " " in commit:
        raise OptionError(
            f"--commit must be the name of a commit without blanks, such as its hash, not {commit[:60]!r}"
        )
    content = to_json(report).encode("ascii")
    digest = hashlib.sha256(content).hexdigest()
    subject, question, radii = _subject(report), question_of(report), _radii(report)
    with _opened(path, create=True) as connection:
        found = connection.execute(
            "SELECT id, report_sha256 FROM report WHERE commit_name = ? AND model = ? AND question = ? AND radii = ?",
            (commit, subject, question, radii),
        ).fetchone()
        if found is not None and found[1] == digest:
            return False
        if found is not None and not force:
            raise OptionError(
                f"{path} has another report of {subject} for the commit {commit} already; --force puts this one in its "
                "place"
            )
        if found is not None:
            connection.execute("DELETE FROM figure WHERE report = ?", (found[0],))
            connection.execute("DELETE FROM report WHERE id = ?", (found[0],))
        sha256 = "" if report.model is None else report.model.sha256
        complete = int(report.status == "complete")
        now = datetime.now(UTC).replace(microsecond=0).isoformat()
        row = (commit, now, subject, sha256, question, radii, complete, digest, zlib.compress(content))
        names = "commit_name, added, model, model_sha256, question, radii, complete, report_sha256, content"
        made = connection.execute(f"INSERT INTO report ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        figures = [
            (made.lastrowid, place, one.name, one.k, one.n, one.number) for place, one in enumerate(points(report))
        ]
        connection.executemany("INSERT INTO figure VALUES (?, ?, ?, ?, ?, ?)", figures)
    return True


def read(path: Path, model: str | None = None) -> list[Series]:
    """Return what the file has, a series for each model and question, the one that was added to last first.

    Raises:
        DataError: where the file is not there, or refused.
    """
    with _opened(path, create=False) as connection:
        rows = connection.execute(
            "SELECT id, commit_name, added, model, model_sha256, question, complete FROM report ORDER BY id"
        ).fetchall()
        figures = connection.execute("SELECT report, name, k, n, number FROM figure ORDER BY report, place").fetchall()
    own: dict[int, list[Point]] = {}
    for row, name, k, n, number in figures:
        own.setdefault(row, []).append(Point(plain(name), k, n, number))
    series: dict[tuple[str, str], list[Entry]] = {}
    for row, commit, added, subject, sha256, question, complete in rows:
        entry = Entry(plain(commit), plain(added), plain(sha256), bool(complete), tuple(own.get(row, ())))
        entries = series.pop((subject, question), [])
        if entries and entries[-1].commit == entry.commit:  # the same question at other radii
            entry = _joined(entries.pop(), entry)
        series[subject, question] = [*entries, entry]  # the last one is what was added to last
    found = [Series(plain(name), plain(question), tuple(all_)) for (name, question), all_ in series.items()]
    return [one for one in reversed(found) if model is None or one.model == model]


def points(report: Report) -> Iterator[Point]:
    """Yield every figure that rules of `gate` can speak of, as far as the report says it."""
    radii = [] if report.threat_model is None else [point.value for point in report.threat_model.eps]
    for metric in Metric:
        if metric in QUANTILES or metric is Metric.CERTIFIED_GAIN:
            continue
        for eps in radii if metric in AT_EPS else [None]:
            try:
                found = measure(report, metric, None if eps is None else repr(eps))
            except OptionError:
                continue  # the report does not speak of it
            name = metric.value if eps is None else f"{metric}@{eps_text(report, eps)}"
            if isinstance(found, Share) and found.n:
                yield Point(name, found.k, found.n)
            elif isinstance(found, Figure) and found.number is not None:
                yield Point(name, number=found.number)


def question_of(report: Report) -> str:
    """Return a hash of what a report is about: samples, labels, preprocessing, output, threat model but its radii."""
    data, threat, model = report.data, report.threat_model, report.model
    asked: list[Any] = [report.command.split(" ")[0], None if report.demand is None else report.demand.model_dump()]
    if data is not None:
        asked += [data.numbers_sha256 or data.sha256, sorted(data.indices), data.preprocessing.model_dump()]
    if threat is not None:
        asked += [getattr(threat, name) for name in (*THREAT_FIELDS, "sigma_sha256", "directions_sha256")]
    if model is not None:
        asked += [model.output_name, model.threshold]
    asked.append([(sample.index, sample.label) for sample in report.samples])
    return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]


def _joined(one: Entry, other: Entry) -> Entry:
    """Return two reports of one commit as one; where both have a figure, the later one counts."""
    points = {point.name: point for point in (*one.points, *other.points)}
    return replace(other, complete=one.complete and other.complete, points=tuple(points.values()))


def _radii(report: Report) -> str:
    return "" if report.threat_model is None else " ".join(repr(point.value) for point in report.threat_model.eps)


def _subject(report: Report) -> str:
    return plain(PurePath(report.model.path).name if report.model is not None else report.command)


@contextmanager
def _opened(path: Path, *, create: bool) -> Iterator[sqlite3.Connection]:
    """Open the file for one transaction, which others wait for; make it where it may be made."""
    _check_file(path, create=create)
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("BEGIN IMMEDIATE" if create else "BEGIN")
            _check_version(connection, path, create=create)
            yield connection
            connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise DataError(f"{path} is being written by another process for {PATIENCE:g} s; try again") from None
        raise DataError(f"{path} cannot be used ({error}); give another --database") from None
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path} is damaged ({error}); take a copy of it, or begin anew with another --database"
        ) from None


def _check_file(path: Path, *, create: bool) -> None:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no regular file; give another --database")
        if path.exists() and path.stat().st_size:
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise DataError(f"{path} is no SQLite file; give that of `idl-audit history add`")
        elif not create:
            raise DataError(f"{path}: no such history; begin one with `idl-audit history add REPORT --commit HASH`")
        elif not path.absolute().parent.is_dir():
            raise DataError(f"{path.parent} is no folder; make it first")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give another --database") from None


def _check_version(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    """Refuse a file that is not ours or of another version; make the tables of an empty one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (entries,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if create and application == 0 and entries == 0:
        for statement in _TABLES.split(";\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        return
    if application != APPLICATION:
        raise DataError(f"{path} is an SQLite file of another program; give another --database")
    if version != VERSION:
        raise DataError(
            f"{path} is a history of version {version}, and this idl-audit reads version {VERSION}; use the idl-audit "
            "that wrote it, or begin anew with another --database"
        )
