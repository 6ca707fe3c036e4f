"""Tables of two networks: the counts per radius, why some are undecided, and the samples, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.table import Table

from idl_audit.report.schema import ComparedSample, Comparison, Report, Verdict
from idl_audit.report.terminal.layout import Cell, Section, add_columns, add_row, heading, in_colour, table
from idl_audit.report.wording import REASONS, eps_text, figure, percent, plain
from idl_audit.report.worst_first import most_apart_first


def comparison_sections(report: Report, found: Comparison, most: int | None, *, wide: bool) -> Iterable[Section]:
    """Yield the sections of `compare`; `most` limits the rows of samples, `wide` adds columns."""
    yield f"Compared with {plain(found.second.path)} (sha256 {found.second.sha256[:12]})", _counts(report, found)
    reasons = Counter(result.reason for sample in found.samples for result in sample.results if result.reason)
    if reasons:
        why = table(("reason", "left"), ("verdicts", "right"), ("what it means", "left"))
        for reason, count in reasons.most_common():
            add_row(why, (in_colour(Verdict.UNKNOWN, reason.value), count, REASONS[reason]))
        yield "Why undecided", why
    ordered = most_apart_first(found.samples)
    rows = sum(len(sample.results) for sample in ordered)
    if rows:
        yield heading("Samples, farthest apart first", rows, most), _samples(report, found, ordered, most, wide=wide)


def _counts(report: Report, found: Comparison) -> Table:
    classes = (("agree", "right"), ("differ", "right"), ("unknown", "right")) if found.has_classes else ()
    made = table(("eps", "right"), ("n", "right"), *classes)
    add_columns(made, ("difference proved", "right"), ("difference found", "right"))
    for entry in found.per_eps:
        counts = (
            (Verdict.CERTIFIED, entry.certified),
            (Verdict.FALSIFIED, entry.falsified),
            (Verdict.UNKNOWN, entry.unknown),
        )
        cells: list[Cell] = [eps_text(report, entry.eps), entry.n]
        if found.has_classes:
            cells += [in_colour(verdict, f"{count} ({percent(count, entry.n)})") for verdict, count in counts]
        add_row(made, [*cells, figure(entry.difference_proved), figure(entry.difference_found)])
    return made


def _samples(
    report: Report, found: Comparison, samples: Sequence[ComparedSample], most: int | None, *, wide: bool
) -> Table:
    made = table(("sample", "right"), ("eps", "right"))
    if found.has_classes:
        add_columns(made, ("classes", "right"), ("agree", "left"), ("become", "right"), ("reason", "left"))
    add_columns(made, ("difference proved", "right"), ("found", "right"))
    if wide:
        add_columns(made, ("method", "left"), ("seconds", "right"))
    pairs = [(sample, result) for sample in samples for result in sample.results]
    for sample, result in pairs[:most]:
        cells: list[Cell] = [sample.index, eps_text(report, result.eps)]
        if found.has_classes and result.agree is not None:
            two = result.found
            cells += [f"{shown(sample.first)}, {shown(sample.second)}", in_colour(Verdict(result.agree), result.agree)]
            cells += [None if two is None else f"{shown(two.first)}, {shown(two.second)}"]
            cells += [result.reason.value if result.reason else None]
        cells += [figure(result.difference_proved), figure(result.difference_found)]
        if wide:
            cells += [result.method, figure(result.seconds)]
        add_row(made, cells)
    return made


def shown(value: int | None) -> str:
    """Return a class, `-` for none."""
    return "-" if value is None else str(value)
