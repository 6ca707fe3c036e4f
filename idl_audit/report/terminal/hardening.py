"""The sections of harden: the trade-offs, and the verdicts before and after."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from idl_audit.report.schema import Audited, Hardening
from idl_audit.report.terminal.layout import Section, add_row, grid, pair, table
from idl_audit.report.training import audits, hardening_facts, shares_of, trade_offs
from idl_audit.report.wording import percent


def hardening_sections(found: Hardening) -> Iterable[Section]:
    """Yield what was trained, the front that the choice was made from, and what an audit says of both files."""
    rows = grid()
    for name, value in hardening_facts(found):
        pair(rows, name, value)
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
    for one in trade_offs(found):
        add_row(rows, (one.name, *shares_of(one, found), "written" if one.name == found.chosen else ""))
    return rows


def _audits(found: Hardening) -> Table:
    counted = ("n", "certified", "falsified", "unknown", "clean wrong")
    rows = table(("file", "left"), *((name, "right") for name in counted))
    for name, audit in audits(found):
        add_row(rows, (name, *_counts(audit)))
    return rows


def _counts(audit: Audited) -> tuple[str, ...]:
    counts = audit.counts
    each = (counts.certified, counts.falsified, counts.unknown, counts.clean_wrong)
    return (f"{counts.n:,}", *(f"{k:,} ({percent(k, counts.n)})" for k in each))
