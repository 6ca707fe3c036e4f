"""Whether two reports can be compared, and which samples fare worse in the later one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from idl_audit.gate.fingerprints import differences
from idl_audit.report.schema import Report, SampleReport, SampleResult, Verdict
from idl_audit.values.errors import DataError

MOST_TOLD = 5
"""Differences that a sentence names."""

RANK = {Verdict.CLEAN_WRONG: 0, Verdict.FALSIFIED: 1, Verdict.UNKNOWN: 2, Verdict.CERTIFIED: 3}
"""The higher, the better for the network."""


@dataclass(frozen=True)
class Change:
    """A sample with another verdict than before."""

    index: int
    eps: float
    before: Verdict
    after: Verdict

    @property
    def is_worse(self) -> bool:
        """Whether the network fares worse on it."""
        return RANK[self.after] < RANK[self.before]


def check_comparable(report: Report, earlier: Report, name: str, *, same_radii: bool) -> None:
    """Refuse to compare reports on other data, or under another threat model; the models may differ.

    Raises:
        DataError: with what differs.
    """
    found = list(differences(report, earlier, same_radii=same_radii))
    if found:
        more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        told = "; ".join(found[:MOST_TOLD]) + more
        raise DataError(f"{name} cannot be compared with: {told}; audit the same samples in the same way")


def changes(report: Report, earlier: Report) -> Iterator[Change]:
    """Yield the samples and radii, of those in both reports, whose verdicts differ."""
    before = {(sample.index, result.eps): result.verdict for sample, result in _results(earlier)}
    for sample, result in _results(report):
        verdict = before.get((sample.index, result.eps), result.verdict)
        if verdict is not result.verdict:
            yield Change(sample.index, result.eps, verdict, result.verdict)


def _results(report: Report) -> Iterator[tuple[SampleReport, SampleResult]]:
    for sample in report.samples:
        for result in sample.results:
            yield sample, result
