"""What a report says of a metric: k of n, or a figure; and how sure k of n is.

Elsewhere: certified accuracy, verified accuracy, robust accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from idl_audit.data.numbers import parse_number
from idl_audit.gate.rules import AT_EPS, COMPARED, QUANTILES, Group, Metric, quantile
from idl_audit.report.groups import group_of, groupings
from idl_audit.report.schema import (
    CleanAccuracy,
    ComparedCounts,
    EpsSummary,
    MonotoneCounts,
    Reason,
    Report,
    Verdict,
)
from idl_audit.report.wording import eps_text, plain
from idl_audit.values.columns import CLASS
from idl_audit.values.errors import OptionError


@dataclass(frozen=True)
class Share:
    """k of n samples; without samples it has no value."""

    k: int
    n: int

    @property
    def value(self) -> Fraction | None:
        """k / n, exactly."""
        return Fraction(self.k, self.n) if self.n else None


@dataclass(frozen=True)
class Figure:
    """A number of the report; None where no finite one was found."""

    number: float | None

    @property
    def value(self) -> Fraction | None:
        """The float64 number, exactly."""
        return None if self.number is None else Fraction(self.number)


@dataclass(frozen=True)
class Gain:
    """So many of n samples more than before; fewer where it is negative."""

    before: int
    after: int
    n: int

    @property
    def value(self) -> Fraction | None:
        """(after - before) / n, exactly."""
        return Fraction(self.after - self.before, self.n) if self.n else None


def measure(report: Report, metric: Metric, eps: str | None, group: Group | None = None) -> Share | Figure | Gain:
    """Return what the report says, of the samples of one group where one is named.

    Raises:
        OptionError: where it says nothing of the metric, or not at this radius.
    """
    if group is not None:
        return _of_group(report, metric, eps, group)
    if metric in COMPARED:
        return _compared(report, metric, eps)
    if metric is Metric.MONOTONE:
        if report.monotonicity is None:
            raise OptionError("the report has no monotonicity, which monotone speaks of; write one with certify")
        own = _at_radius(report, report.monotonicity.per_eps, metric, eps)
        return Share(own.certified, own.n)
    if metric is Metric.EVERYWHERE:
        if report.everywhere is None:
            raise OptionError("the report has no statements over a whole range; write one with certify --everywhere")
        verdicts = [one.verdict for one in report.everywhere.statements]
        return Share(verdicts.count(Verdict.CERTIFIED), len(verdicts))
    if metric in QUANTILES:
        return Figure(largest_at(report, quantile(eps or "", metric)))
    if metric is Metric.CERTIFIED_GAIN:
        return _gained(report, eps)
    if metric in AT_EPS:
        entry = entry_at(report, metric, eps)
        if metric is Metric.CERTIFIED_ACCURACY:
            return Share(entry.certified, entry.n)
        if metric is Metric.CERTIFIED_SHARE:
            if entry.parts is None:
                raise OptionError(
                    "the report has no outputs, labels or pixels with a verdict of their own, which certified_share "
                    "speaks of; write one with certify and --within, --above, --below or --task"
                )
            return Share(entry.parts.certified, entry.parts.n)
        if metric is Metric.UNKNOWN:
            return Share(entry.unknown, entry.n)
        if metric is Metric.TIMED_OUT:
            if entry.timed_out is None:
                raise OptionError("the report does not count what the time limit ended (timed_out); write it anew")
            return Share(entry.timed_out, entry.n)
        return Share(entry.falsified, entry.n - entry.clean_wrong)
    if metric is Metric.CLEAN_ACCURACY:
        clean = _check_clean(report)
        return Share(clean.k, clean.n)
    found = report.sensitivity
    if found is None:
        raise OptionError(f"the report has no sensitivity, which {metric} speaks of; write one with sensitivity or run")
    if metric is Metric.NORM_INF_S or found.norm_inf is None:
        return Figure(found.norm_inf)
    if not found.top_inputs:
        raise OptionError("the report lists no entry of S, which max_sensitivity speaks of; write it anew")
    return Figure(max(entry.value for entry in found.top_inputs))


def largest_at(report: Report, share: Fraction) -> float | None:
    """Return a radius that all but a share of the samples are certified at; 0 stands for none.

    The k-th smallest largest certified radius, k = ceil(share n), 1 at least: n - k + 1 >= (1 - share) n samples have
    it or more. A sample that is wrong without any change, or never certified, counts as 0.
    """
    found = sorted(0.0 if one.largest is None else one.largest.certified or 0.0 for one in report.samples)
    if not any(sample.largest is not None for sample in report.samples):
        raise OptionError("the report has no largest radii, which largest_certified_eps speaks of; certify --largest")
    return found[max(1, math.ceil(share * len(found))) - 1]


def _of_group(report: Report, metric: Metric, eps: str | None, group: Group) -> Share:
    """Return a share of the samples of one group; of one without samples it has no value, and no rule holds."""
    known = groupings(report)
    if group.column != CLASS and group.column not in known:
        named = ", ".join(plain(name) for name in known if name != CLASS) or "none"
        raise OptionError(
            f"the report does not tell samples apart by {plain(group.column)} (it has {named}); write one with "
            f"--group-by {plain(group.column)}"
        )
    samples = [one for one in report.samples if one.results and group_of(one, group.column) == group.entry]
    if metric is Metric.CLEAN_ACCURACY:
        _check_clean(report)
        wrong = sum(any(one.verdict is Verdict.CLEAN_WRONG for one in sample.results) for sample in samples)
        return Share(len(samples) - wrong, len(samples))
    radius = entry_at(report, metric, eps).eps
    results = [result for sample in samples for result in sample.results if result.eps == radius]
    wanted = {
        Metric.CERTIFIED_ACCURACY: Verdict.CERTIFIED,
        Metric.ATTACK_SUCCESS: Verdict.FALSIFIED,
        Metric.UNKNOWN: Verdict.UNKNOWN,
    }
    if metric is Metric.TIMED_OUT:
        return Share(sum(result.reason is Reason.TIME_LIMIT for result in results), len(results))
    out_of = [one for one in results if metric is not Metric.ATTACK_SUCCESS or one.verdict is not Verdict.CLEAN_WRONG]
    return Share(sum(one.verdict is wanted[metric] for one in out_of), len(out_of))


def _check_clean(report: Report) -> CleanAccuracy:
    """Return the clean accuracy. Raises OptionError where the report has none."""
    if report.summary is None or report.summary.clean is None:
        raise OptionError("the report has no clean accuracy; write one with certify, attack or run")
    return report.summary.clean


def _gained(report: Report, eps: str | None) -> Gain:
    """Return what a report of `harden` says of both files."""
    found = report.hardening
    if found is None or found.audited_before is None:
        raise OptionError(
            "the report has no audit of two files, which certified_gain speaks of; write one with harden --audit FILE"
        )
    before = _at_radius(report, [found.audited_before.counts], Metric.CERTIFIED_GAIN, eps)
    after = before if found.audited_after is None else found.audited_after.counts  # nothing written, nothing gained
    return Gain(before.certified, after.certified, before.n)


def _compared(report: Report, metric: Metric, eps: str | None) -> Share | Figure:
    """Return what a report of `compare` says."""
    found = report.comparison
    if found is None:
        raise OptionError(f"the report compares no networks, which {metric} speaks of; write one with compare")
    entry = _at_radius(report, found.per_eps, metric, eps)
    if metric is Metric.MAX_DIFFERENCE:
        return Figure(entry.difference_proved)
    if not found.has_classes:
        raise OptionError(f"the networks of the report have no classes, which {metric} speaks of; give --threshold")
    return Share(entry.certified if metric is Metric.AGREEMENT else entry.falsified, entry.n)


def entry_at(report: Report, metric: Metric, eps: str | None) -> EpsSummary:
    """Return the counts at a radius as it is written in a rule. Raises OptionError where there are none."""
    return _at_radius(report, report.summary.per_eps if report.summary is not None else (), metric, eps)


Entry = TypeVar("Entry", EpsSummary, ComparedCounts, MonotoneCounts)


def _at_radius(report: Report, entries: Sequence[Entry], metric: Metric, eps: str | None) -> Entry:
    if not entries:
        raise OptionError(f"the report has no verdicts, which {metric} speaks of; write one with certify or run")
    known = ", ".join(eps_text(report, entry.eps) for entry in entries)
    if eps is None:
        if len(entries) > 1:
            raise OptionError(f"{metric} needs a radius: write {metric}@ and one of {known}")
        return entries[0]
    value = parse_number(eps, option=f"{metric}@{eps}")
    for entry in entries:
        if value == entry.eps or eps == eps_text(report, entry.eps):
            return entry
    raise OptionError(f"the report has no verdicts at eps {plain(eps)}; it has {known}")
