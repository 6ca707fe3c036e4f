"""The sections of harden: the trade-offs, and the verdicts before and after."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from idl_audit.report.schema import Audited, Hardening
from idl_audit.report.terminal.layout import Section, add_row, grid, pair, table
from idl_audit.report.wording import figure, percent


def hardening_sections(found: Hardening) -> Iterable[Section]:
    """Yield what was trained, the front that the choice was made from, and what an audit says of both files."""
    rows = grid()
    pair(rows, "trained for", f"{found.method} at eps {found.eps:g}, {found.minutes:g} minutes of one core")
    pair(rows, "samples", f"{found.trained_on:,} trained on, {found.held_out:,} kept apart to choose by")
    pair(rows, "must stay right", f"{found.least_clean:,} of {found.held_out:,}")
    pair(rows, "weights", f"{len(found.weights)} initializers")
    pair(rows, "cost", f"{figure(found.seconds)} s of processor time")
    yield "Training", rows
    yield "Trade-offs on the samples kept apart (estimates, no verdicts)", _front(found)
    if found.audited_before is not None:
        yield "Verdicts on samples that neither training nor choice has seen", _audits(found)


def _front(found: Hardening) -> Table:
    rows = table(
        ("weights", "left"),
        ("clean", "right"),
        ("by intervals", "right"),
        ("by lines", "right"),
        ("with branching", "right"),
        ("", "left"),
    )
    n = found.held_out
    for one in (found.before, *found.front):
        shares = (percent(one.clean, n), percent(one.by_intervals, n), percent(one.by_lines, n))
        about = f"about {percent(round(one.certified), n)}" if one.branched else percent(one.by_lines, n)
        add_row(rows, (one.name, *shares, about, "written" if one.name == found.chosen else ""))
    return rows


def _audits(found: Hardening) -> Table:
    counted = ("n", "certified", "falsified", "unknown", "clean wrong")
    rows = table(("file", "left"), *((name, "right") for name in counted))
    for name, audit in (("before", found.audited_before), ("after", found.audited_after)):
        if audit is not None:
            add_row(rows, (name, *_counts(audit)))
    return rows


def _counts(audit: Audited) -> tuple[str, ...]:
    counts = audit.counts
    each = (counts.certified, counts.falsified, counts.unknown, counts.clean_wrong)
    return (f"{counts.n:,}", *(f"{k:,} ({percent(k, counts.n)})" for k in each))
