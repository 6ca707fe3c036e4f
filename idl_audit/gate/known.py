"""Samples that are known to fail: counted apart by rules, with a reason and, if wanted, until a date.

[[known]]
index = 17                      # position in the data file, or
fingerprint = "5f1c..."         # of the sample's numbers, as reports have it: wherever it stands, or both
reason = "mislabelled, ticket 4711"
until = 2027-03-31              # the last day
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from idl_audit.report.schema import (
    CleanAccuracy,
    EpsSummary,
    KnownSample,
    PartCounts,
    Reason,
    Report,
    RuleResult,
    SampleReport,
    Summary,
    Verdict,
)
from idl_audit.report.wording import plain
from idl_audit.values.errors import OptionError
from idl_audit.values.text import read_toml

LARGEST: Final = 10**7
"""Bytes of a list."""
KEYS: Final = ("index", "fingerprint", "reason", "until")
_EXAMPLE: Final = 'write [[known]] with index or fingerprint, reason = "why", and until = 2027-12-31 if it ends'
_FINGERPRINT: Final = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Known:
    """An entry of the list."""

    reason: str
    index: int | None = None
    fingerprint: str | None = None
    until: datetime.date | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"sample {self.index}" if self.index is not None else f"fingerprint {self.fingerprint}"

    def is_over(self, today: datetime.date) -> bool:
        """Return whether its last day is past."""
        return self.until is not None and self.until < today

    def is_of(self, sample: SampleReport) -> bool:
        """Return whether a sample is meant: by its place, by its numbers, or by both where both are given."""
        same_place = self.index is None or self.index == sample.index
        return same_place and (self.fingerprint is None or self.fingerprint == sample.fingerprint)


def read_known(path: Path) -> tuple[Known, ...]:
    """Return the entries of a list of known samples.

    Raises:
        OptionError: where it cannot be read, or an entry is not as it must be; all of them are named.
    """
    document = read_toml(path, "list of known samples", _EXAMPLE, most=LARGEST)
    entries = document.get("known")
    if set(document) != {"known"} or not isinstance(entries, list) or not entries:
        raise OptionError(f"{path} has no list of known samples, or more than it; {_EXAMPLE}")
    wrong = [f"entry {place}: {what}" for place, entry in enumerate(entries, 1) for what in _faults(entry)]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise OptionError(f"{path}, {'; '.join(wrong[:5])}{more}")
    found = tuple(
        Known(entry["reason"].strip(), *(entry.get(key) for key in ("index", "fingerprint", "until")))
        for entry in entries
    )
    for known, count in Counter((one.index, one.fingerprint) for one in found).items():
        if count > 1:
            raise OptionError(f"{path} names {Known('', *known).name} {count} times; name it once")
    return found


@dataclass(frozen=True)
class Apart:
    """A report and the list of its known samples.

    rest: the report without those that count apart. told: every entry, and what became of it. over: the rules that
    fail because an entry's last day is past. indices: positions of the samples that are left out.
    """

    rest: Report
    told: tuple[KnownSample, ...] = ()
    over: tuple[RuleResult, ...] = ()
    indices: frozenset[int] = frozenset()


def counted_apart(report: Report, known: Sequence[Known], today: datetime.date) -> Apart:
    """Return the report without its known samples, unless the last day of their entries is past."""
    told, over, indices = [], [], set[int]()
    for one in known:
        meant = [sample for sample in report.samples if sample.results and one.is_of(sample)]
        until = None if one.until is None else one.until.isoformat()
        state: Literal["apart", "expired", "absent"] = (
            "expired" if one.is_over(today) else "apart" if meant else "absent"
        )
        if state == "expired":
            expected = f"until {until}"
            rule = f"known {one.name} ({plain(one.reason)})"
            over.append(RuleResult(rule=rule, passed=False, expected=expected, found=f"the list ended on {until}"))
        elif state == "apart":
            indices |= {sample.index for sample in meant}
        told.append(
            KnownSample(
                state=state,
                indices=tuple(sample.index for sample in meant),
                fingerprint=one.fingerprint,
                index=one.index,
                reason=one.reason,
                until=until,
            )
        )
    return Apart(without(report, frozenset(indices)), tuple(told), tuple(over), frozenset(indices))


def idle(report: Report, told: Sequence[KnownSample]) -> Iterator[str]:
    """Yield what can be struck from the list: samples that are certified throughout, and those that are not there."""
    verdicts = {sample.index: {result.verdict for result in sample.results} for sample in report.samples}
    for one in told:
        name = f"sample {one.index}" if one.index is not None else f"fingerprint {one.fingerprint}"
        if one.state == "absent":
            yield f"known {name} is not in the report, or is another sample by now"
        elif one.state == "apart" and all(verdicts[index] == {Verdict.CERTIFIED} for index in one.indices):
            yield f"known {name} is certified at every radius: it need not be on the list"


def without(report: Report, indices: frozenset[int]) -> Report:
    """Return a report as it would be without some samples; what it says of two networks or of a score stays."""
    if not indices:
        return report
    samples = tuple(sample for sample in report.samples if sample.index not in indices)
    left = [sample for sample in report.samples if sample.index in indices]
    summary = None if report.summary is None else _less(report.summary, left)
    return report.model_copy(update={"samples": samples, "summary": summary})


def _less(summary: Summary, left: Sequence[SampleReport]) -> Summary:
    clean = summary.clean
    if clean is not None:
        wrong = sum(any(one.verdict is Verdict.CLEAN_WRONG for one in sample.results) for sample in left)
        clean = CleanAccuracy(k=clean.k - (len(left) - wrong), n=clean.n - len(left))
    return summary.model_copy(
        update={"clean": clean, "per_eps": tuple(_fewer(entry, left) for entry in summary.per_eps)}
    )


def _fewer(entry: EpsSummary, left: Sequence[SampleReport]) -> EpsSummary:
    results = [result for sample in left for result in sample.results if result.eps == entry.eps]
    gone: Counter[str] = Counter(result.verdict.value for result in results)
    counts: dict[str, Any] = {verdict.value: getattr(entry, verdict.value) - gone[verdict.value] for verdict in Verdict}
    if entry.timed_out is not None:
        counts["timed_out"] = entry.timed_out - sum(result.reason is Reason.TIME_LIMIT for result in results)
    parts = [result.parts for result in results if result.parts is not None]
    if entry.parts is not None:
        fields = {
            name: getattr(entry.parts, name) - sum(getattr(one, name) for one in parts)
            for name in PartCounts.model_fields
        }
        counts["parts"] = PartCounts(**fields)
    return EpsSummary(eps=entry.eps, n=entry.n - len(results), **counts)


def _faults(entry: object) -> Iterator[str]:
    """Yield what is wrong with an entry."""
    if not isinstance(entry, Mapping):
        yield f"a table is needed; {_EXAMPLE}"
        return
    unknown = [key for key in entry if key not in KEYS]
    if unknown:
        yield f"the unknown key {plain(unknown[0])!r}; known are {', '.join(KEYS)}"
    reason, index, print_, until = (entry.get(key) for key in ("reason", "index", "fingerprint", "until"))
    if not isinstance(reason, str) or not reason.strip():
        yield "no reason; say why the sample may fail"
    if index is None and print_ is None:
        yield "neither index nor fingerprint; say which sample it is"
    if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
        yield f"index must be a position in the data, from 0, not {plain(index)!r}"
    if print_ is not None and not (isinstance(print_, str) and _FINGERPRINT.fullmatch(print_)):
        yield "fingerprint must be the 32 hexadecimal digits that a report has for the sample"
    if until is not None and (not isinstance(until, datetime.date) or isinstance(until, datetime.datetime)):
        yield f"until must be a date such as 2027-12-31, without quotation marks, not {plain(until)!r}"
