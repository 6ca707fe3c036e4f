"""Samples of a report that may fail, as its gate was told: what the views show of them."""

from __future__ import annotations

from collections.abc import Mapping

from idl_audit.report.schema import KnownSample, Report, SampleReport
from idl_audit.report.wording import eps_text


def known_samples(report: Report) -> Mapping[int, KnownSample]:
    """Return the samples that no rule counts, by position, with the entries that say so."""
    entries = () if report.gate is None else report.gate.known
    return {index: one for one in entries if one.state == "apart" for index in one.indices}


def known_text(entry: KnownSample) -> str:
    """Return why a sample may fail: `known until 2027-12-31: mislabelled`."""
    until = "" if entry.until is None else f" until {entry.until}"
    return f"known{until}: {entry.reason}"


def entry_name(entry: KnownSample) -> str:
    """Return what an entry of the list is called, by the samples that it means or what it names."""
    if entry.indices:
        return ", ".join(map(str, entry.indices))
    return str(entry.index) if entry.index is not None else f"fingerprint {entry.fingerprint}"


def verdicts_of(report: Report, entry: KnownSample) -> str:
    """Return what is known of the samples that an entry means: `falsified at 2/255, certified at 1/255`."""
    meant = [sample for sample in report.samples if sample.index in entry.indices]
    told = dict.fromkeys(text for sample in meant for text in _verdicts(report, sample))
    return ", ".join(told)


def _verdicts(report: Report, sample: SampleReport) -> list[str]:
    return [f"{one.verdict.value.replace('_', ' ')} at {eps_text(report, one.eps)}" for one in sample.results]
