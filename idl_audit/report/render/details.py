"""What is known of the worst samples, one by one: what each radius brought, who confirms it, and why some are open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from idl_audit.report.known import known_samples, known_text
from idl_audit.report.render.parts import Cell, Detail, Mark, Name, PairList, Section, table, verdict_mark
from idl_audit.report.schema import Adversarial, Report, SampleReport, SampleResult, Verdict
from idl_audit.report.wording import REASONS, changes_text, eps_text, figure, parameters_text
from idl_audit.report.worst_first import WORST_FIRST, worst_first

MOST_DETAILS: Final = 12
"""So many samples have details."""


def detailed(report: Report) -> Mapping[int, str]:
    """Return the samples with details, and their addresses in a document; those that are certified throughout none."""
    samples = [one for one in worst_first(report.samples) if _worst(one) is not Verdict.CERTIFIED]
    return {sample.index: f"sample-{sample.index}" for sample in samples[:MOST_DETAILS]}


def detail_section(report: Report) -> Iterator[Section]:
    """Yield the details of the worst samples."""
    keys = detailed(report)
    samples = [sample for sample in worst_first(report.samples) if sample.index in keys]
    if samples:
        details = tuple(_detail(report, sample, keys[sample.index]) for sample in samples)
        yield Section("details", "The worst samples in detail", details)


def _worst(sample: SampleReport) -> Verdict:
    return min((result.verdict for result in sample.results), key=WORST_FIRST.index)


def _detail(report: Report, sample: SampleReport, key: str) -> Detail:
    about, known = PairList(), known_samples(report)
    about.add("label", sample.label)
    about.add("predicted", sample.predicted)
    about.add("fingerprint", None if sample.fingerprint is None else Name(sample.fingerprint))
    about.add("counted apart", known_text(known[sample.index]) if sample.index in known else None)
    for column, value in sample.groups.items():
        about.add(column, value)
    for text in dict.fromkeys(REASONS[result.reason] for result in sample.results if result.reason):
        about.add("why it is unknown", text)
    rows = [_row(report, result) for result in sorted(sample.results, key=lambda result: result.eps)]
    titles = (
        *(">eps", "verdict", "reason or method", ">proved margin", ">margin found", ">becomes", ">largest change"),
        *(">inputs changed", "confirmed by", "as 8-bit pixels", *_more_titles(report), ">seconds"),
    )
    body = (about.done(), table(f"Sample {sample.index} at each radius", titles, rows, shown=100))
    return Detail(key, f"Sample {sample.index}", verdict_mark(_worst(sample)), body)


def _row(report: Report, result: SampleResult) -> tuple[Cell, ...]:
    found = result.adversarial
    why = result.method if result.reason is None else result.reason.value
    margin = result.margin_found if found is None or found.margin is None else found.margin
    bounds = (figure(result.lower_bound), figure(margin))
    told = (eps_text(report, result.eps), verdict_mark(result.verdict), why, *bounds)
    more = [] if not _more_titles(report) else [changes_text(found) or parameters_text(result)]
    return (*told, *_point(found), *more, figure(result.seconds))


def _point(found: Adversarial | None) -> Sequence[Cell]:
    if found is None:
        return (None,) * 5
    becomes = "no number" if found.class_ is None else str(found.class_)
    change = figure(found.linf) if found.distance is None else f"{figure(found.linf)} (norm {figure(found.distance)})"
    survives = None if found.survives_8bit is None else _SURVIVES[found.survives_8bit]
    return becomes, change, found.l0, ", ".join(found.confirmed_by) or None, survives


_SURVIVES: Final = {True: Mark("survives", "falsified"), False: Mark("lost", "quiet")}


def _more_titles(report: Report) -> tuple[str, ...]:
    threat = report.threat_model
    if threat is None:
        return ()
    return ("changes",) if threat.features is not None else ("parameters",) if threat.set == "perturbed" else ()
