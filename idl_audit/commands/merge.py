"""merge: the reports of all shards of an audit make the report of the whole, and nothing else does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final

from idl_audit import __version__
from idl_audit.commands.shared.tallies import joined, told
from idl_audit.gate.fingerprints import differences, notes
from idl_audit.report.reading import read_report
from idl_audit.report.schema import (
    CleanAccuracy,
    DataInfo,
    Diagnostic,
    EpsSummary,
    PartCounts,
    Report,
    ShardInfo,
    Summary,
    Tally,
    Timing,
)
from idl_audit.report.wording import plain
from idl_audit.values.errors import DataError

OF_A_RUN: Final = frozenset({"IDL207", "IDL208", "IDL209", "IDL219", "IDL222", "IDL223", "IDL224", "IDL226"})
"""Diagnostics on how a report came about, which say nothing of the whole."""


@dataclass(frozen=True, eq=False)
class _Given:
    """A report of a shard."""

    path: Path
    report: Report
    data: DataInfo
    shard: ShardInfo


def merge(paths: Sequence[Path]) -> Report:
    """Return the report that one run over all samples would have written, but for its times.

    Raises:
        DataError: where a report cannot be read, is no shard, is incomplete, speaks of another question than the
            others or was made by another version; where shards are missing, or there twice.
    """
    given = sorted(map(_read, paths), key=lambda one: one.shard.number)
    first = given[0]
    for one in given[1:]:
        other = next(_strangeness(first, one), None)
        if other is not None:
            raise DataError(f"{one.path} does not go with {first.path}: {other}")
    _check_numbers(given)
    return _together(given)


def _read(path: Path) -> _Given:
    report = read_report(path)
    data = report.data
    if data is None or data.shard is None or report.summary is None:
        raise DataError(f"{path} is no report of a shard; make it by `certify` or `attack` with --shard I/N")
    if report.tool.version != __version__:
        raise DataError(
            f"{path} was made by version {plain(report.tool.version)} of idl-audit, and this is {__version__}; merge "
            "with the version that made the shards, or make them anew"
        )
    if report.status != "complete":
        raise DataError(
            f"{path} is incomplete: {len(report.samples)} of its samples are decided; finish it with --resume"
        )
    return _Given(path, report, data, data.shard)


def _strangeness(first: _Given, other: _Given) -> Iterator[str]:
    """Yield what of a report is not as in the first."""
    if other.shard.of != first.shard.of:
        yield f"it is one of {other.shard.of} shards, not of {first.shard.of}"
    ours, theirs = _as_whole(first), _as_whole(other)
    yield from differences(ours, theirs, same_radii=True)
    yield from notes(ours, theirs)
    if first.shard.n != other.shard.n:
        yield f"it is of other data ({other.shard.n} samples, not {first.shard.n})"
    if first.report.command != other.report.command:
        yield f"it is of `{plain(other.report.command)}`, not of `{plain(first.report.command)}`"
    if first.report.environment.seed != other.report.environment.seed:
        yield f"it has another seed ({other.report.environment.seed}, not {first.report.environment.seed})"
    if first.report.environment.device != other.report.environment.device:
        yield f"it was searched on {plain(str(other.report.environment.device))}, not {first.report.environment.device}"
    mine, its = first.report.environment.versions, other.report.environment.versions
    for name in sorted({*mine, *its}):
        if mine.get(name) != its.get(name):
            yield f"another version of {plain(name)} made it ({plain(its.get(name, 'none'))}, not {mine.get(name)})"


def _as_whole(given: _Given) -> Report:
    """Return a report whose data are those of all shards, and whose verdicts are left out, to be compared."""
    whole = {"indices": (), "n": given.shard.n, "numbers_sha256": given.shard.numbers_sha256}
    return given.report.model_copy(update={"data": given.data.model_copy(update=whole), "samples": ()})


def _check_numbers(given: Sequence[_Given]) -> None:
    """Refuse shards that are there twice, that are missing, and samples that two of them have."""
    of = given[0].shard.of
    for one, other in pairwise(given):
        if one.shard.number == other.shard.number:
            raise DataError(f"{one.path} and {other.path} are both shard {one.shard.number} of {of}; give each once")
    missing = sorted(set(range(1, of + 1)) - {one.shard.number for one in given})
    if missing:
        named = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise DataError(
            f"of {of} shards, {named} {'is' if len(missing) == 1 else 'are'} missing; give the reports of all"
        )
    owner: dict[int, Path] = {}
    for one in given:
        for index in one.data.indices:
            if owner.setdefault(index, one.path) != one.path:
                raise DataError(f"sample {index} is in both {owner[index]} and {one.path}; make one of them anew")
    if len(owner) != given[0].shard.n:
        raise DataError(
            f"the shards have {len(owner)} samples, and the whole {given[0].shard.n}; make them anew with one --shard "
            "I/N each"
        )


def _together(given: Sequence[_Given]) -> Report:
    reports = [one.report for one in given]
    first = given[0]
    data = {
        "n": first.shard.n,
        "indices": tuple(chain.from_iterable(one.data.indices for one in given)),
        "numbers_sha256": first.shard.numbers_sha256,
        "shard": None,
    }
    return first.report.model_copy(
        update={
            "data": first.data.model_copy(update=data),
            "created": datetime.now(UTC).replace(microsecond=0),
            "summary": _summary([report.summary for report in reports if report.summary is not None]),
            "samples": tuple(chain.from_iterable(report.samples for report in reports)),
            "diagnostics": tuple(_diagnostics(reports)),
            "artifacts": tuple(dict.fromkeys(chain.from_iterable(report.artifacts for report in reports))),
            "timing": _timing(reports),
            "gate": None,
        }
    )


def _summary(parts: Sequence[Summary]) -> Summary:
    """Return the sums of all counts. Raises DataError where shards have counts at different radii."""
    clean = [one.clean for one in parts if one.clean is not None]
    by_eps = [{entry.eps: entry for entry in one.per_eps} for one in parts]
    if any(one.keys() != by_eps[0].keys() for one in by_eps):
        raise DataError("the shards have counts at different radii; make them anew with one command")
    return parts[0].model_copy(
        update={
            "clean": CleanAccuracy(k=sum(one.k for one in clean), n=sum(one.n for one in clean)) if clean else None,
            "per_eps": tuple(_counts([one[eps] for one in by_eps]) for eps in by_eps[0]),
        }
    )


def _counts(rows: Sequence[EpsSummary]) -> EpsSummary:
    """Return the sums of counts at one radius; one that a report does not know is not known of the whole."""
    total: dict[str, Any] = {}
    for name in EpsSummary.model_fields.keys() - {"eps", "parts"}:
        values = [getattr(row, name) for row in rows]
        total[name] = None if None in values else sum(values)
    parts = [row.parts for row in rows if row.parts is not None]
    if parts:
        total["parts"] = PartCounts(
            **{name: sum(getattr(one, name) for one in parts) for name in PartCounts.model_fields}
        )
    return EpsSummary.model_validate({"eps": rows[0].eps, **total})


def _diagnostics(reports: Sequence[Report]) -> Iterator[Diagnostic]:
    """Yield what is to be said of the whole, in the order in which one run says it.

    What all shards say is said once, what is said of one sample by its shard, and what is counted is counted together.
    """
    kinds = {(one.of, one.about): told(one) for one in joined(_tallies(reports))}
    said: dict[Diagnostic, None] = {}
    for report in reports:
        for one in report.diagnostics:
            if one.code in OF_A_RUN:
                continue
            said[one if one.tally is None else kinds[one.tally.of, one.tally.about]] = None
    places = {code: place for place, code in enumerate(_order(reports))}
    yield from sorted(said, key=lambda one: places[one.code])


def _order(reports: Sequence[Report]) -> Iterable[str]:
    """Return codes in an order that agrees with that of each report: those of one sample after another are equal."""
    found: list[str] = []
    for report in reports:
        at = 0
        for code in dict.fromkeys(one.code for one in report.diagnostics):
            if code in found:
                at = found.index(code) + 1
            else:
                found.insert(at, code)
                at += 1
    return found


def _tallies(reports: Sequence[Report]) -> Iterator[Tally]:
    return (one.tally for report in reports for one in report.diagnostics if one.tally is not None)


def _timing(reports: Sequence[Report]) -> Timing | None:
    """Return the sums of times: what the shards took, one after the other."""
    found = [report.timing for report in reports if report.timing is not None]
    steps: Counter[str] = Counter()
    for one in found:
        steps.update(one.steps)
    return Timing(total=sum(one.total for one in found), steps=dict(steps)) if found else None
