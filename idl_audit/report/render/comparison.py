"""The section on two networks: whether they agree around each sample, and how far apart their outputs are."""

from __future__ import annotations

from collections.abc import Iterator

from idl_audit.report.render.parts import Cell, Mark, Name, PairList, Pairs, Section, Stack, Table, table, verdict_mark
from idl_audit.report.schema import ComparedResult, ComparedSample, Comparison, Report, Verdict
from idl_audit.report.wording import eps_text, figure
from idl_audit.report.worst_first import most_apart_first


def comparison_section(report: Report) -> Iterator[Section]:
    """Yield the counts at each radius, and the samples, those that are farthest apart first."""
    found = report.comparison
    if found is None:
        return
    pairs = PairList()
    pairs.add("compared with", Name(found.second.path))
    pairs.add("sha256", Name(found.second.sha256))
    rows: list[tuple[Cell, ...]] = []
    for entry in found.per_eps:
        bar = Stack(
            (
                ("certified", "agree", entry.certified),
                ("falsified", "differ", entry.falsified),
                ("unknown", "unknown", entry.unknown),
            )
        )
        counts: list[Cell] = [bar, entry.certified, entry.falsified, entry.unknown] if found.has_classes else []
        apart = (figure(entry.difference_proved), figure(entry.difference_found))
        rows.append((eps_text(report, entry.eps), entry.n, *counts, *apart))
    titles = ["", ">agree", ">differ", ">unknown"] if found.has_classes else []
    note = "Agree: proved that both networks give one class everywhere in the set. Differ: an input with two was found."
    counted = table(
        "Two networks at each radius",
        (">eps", ">samples", *titles, ">difference proved", ">difference found"),
        rows,
        note=note if found.has_classes else "",
    )
    body: tuple[Pairs | Table, ...] = (pairs.done(), counted, *_samples(report, found))
    yield Section("comparison", "Two networks", body, "|y - y'| is that of the output that differs most.")


def monotone_section(report: Report) -> Iterator[Section]:
    """Yield which way a score goes as one input rises."""
    found = report.monotonicity
    if found is None:
        return
    pairs = PairList()
    pairs.add("input", Name(found.name))
    pairs.add("score", found.score)
    pairs.add("asked", f"never {'falls' if found.direction == '+' else 'rises'} while the input rises")
    counts = [
        (eps_text(report, entry.eps), entry.n, entry.certified, entry.falsified, entry.unknown)
        for entry in found.per_eps
    ]
    rows: list[tuple[Cell, ...]] = []
    for sample in found.samples:
        for result in sample.results:
            two = result.found
            ends = (None,) * 2 if two is None else (figure(two.low), figure(two.high))
            scores = (None,) * 2 if two is None else (f"{two.score_low:.6g}", f"{two.score_high:.6g}")
            why = None if result.reason is None else result.reason.value
            mark = verdict_mark(result.verdict)
            rows.append((sample.index, eps_text(report, result.eps), mark, *ends, *scores, figure(result.slope), why))
    titles = (">sample", ">eps", "verdict", ">from", ">to", ">score", ">becomes", ">slope proved", "reason")
    body = (
        pairs.done(),
        table("Each radius", (">eps", ">samples", ">certified", ">falsified", ">unknown"), counts),
        table("Samples", titles, rows),
    )
    yield Section("monotonicity", "Monotonicity", body)


def _samples(report: Report, found: Comparison) -> Iterator[Table]:
    rows = [
        _row(report, found, sample, result) for sample in most_apart_first(found.samples) for result in sample.results
    ]
    if rows:
        classes = (">first", ">second", "agree", ">become", "reason or method") if found.has_classes else ()
        titles = (">sample", ">eps", *classes, ">difference proved", ">difference found", ">seconds")
        yield table("Samples, farthest apart first", titles, rows)


def _row(report: Report, found: Comparison, sample: ComparedSample, result: ComparedResult) -> tuple[Cell, ...]:
    classes: list[Cell] = []
    if found.has_classes:
        mark: Mark | None = None if result.agree is None else verdict_mark(Verdict(result.agree))
        two = None if result.found is None else f"{result.found.first}, {result.found.second}"
        why = result.method if result.reason is None else result.reason.value
        classes = [sample.first, sample.second, mark, two, why]
    apart = (figure(result.difference_proved), figure(result.difference_found))
    seconds = None if result.seconds is None else f"{result.seconds:.2f}"
    return (sample.index, eps_text(report, result.eps), *classes, *apart, seconds)
