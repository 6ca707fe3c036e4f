"""The sections of harden and train: trade-offs with the verdicts before and after; a model that was made from data."""

from __future__ import annotations

from collections.abc import Iterator

from idl_audit.report.render.parts import Cell, Mark, PairList, Pairs, Section, Share, Stack, Table, table
from idl_audit.report.schema import Audited, Hardening, Report, TradeOff
from idl_audit.report.training import audits, columns_of, hardening_facts, shares_of, trade_offs, training_facts
from idl_audit.report.wording import figure, percent


def hardening_section(report: Report) -> Iterator[Section]:
    """Yield what was trained, the front that the choice was made from, and the audit of both files."""
    found = report.hardening
    if found is None:
        return
    pairs = PairList()
    for name, value in hardening_facts(found):
        pairs.add(name, value)
    front = table(
        "Trade-offs on the samples kept apart",
        ("weights", ">clean", ">by intervals", ">by lines", "with branching, about", ""),
        [_trade_off(one, found) for one in trade_offs(found)],
        note="Estimates that the choice was made by, no verdicts.",
    )
    body: tuple[Pairs | Table, ...] = (pairs.done(), *_audits(found), front)
    yield Section("hardening", "Hardening", body, "Weights were fine-tuned for certified robustness.")


def _trade_off(one: TradeOff, found: Hardening) -> tuple[Cell, ...]:
    n = found.judged
    about = Share(percent(round(one.certified), n), min(1.0, one.certified / n) if n else 0.0)
    return (one.name, *shares_of(one, found)[:3], about, Mark("written", "good") if one.name == found.chosen else None)


def _audits(found: Hardening) -> Iterator[Table]:
    rows = [_audit(name, audit) for name, audit in audits(found)]
    if rows:
        title = "Verdicts on samples that neither training nor choice has seen"
        yield table(title, ("file", ">samples", "", ">certified", ">falsified", ">unknown", ">clean wrong"), rows)


def _audit(name: str, audit: Audited) -> tuple[Cell, ...]:
    c = audit.counts
    bar = Stack(
        (
            ("certified", "certified", c.certified),
            ("falsified", "falsified", c.falsified),
            ("unknown", "unknown", c.unknown),
            ("clean_wrong", "clean wrong", c.clean_wrong),
        )
    )
    return (name, c.n, bar, c.certified, c.falsified, c.unknown, c.clean_wrong)


def training_section(report: Report) -> Iterator[Section]:
    """Yield what was trained, how well it fits, and the columns of the inputs that act where some were chosen."""
    found = report.training
    if found is None:
        return
    pairs = PairList()
    for name, value in training_facts(found):
        pairs.add(name, value)
    body: list[Pairs | Table] = [pairs.done()]
    if found.column_norms:
        columns = columns_of(found)
        title = f"Inputs that act: {len(columns)} of {len(found.column_norms)}"
        rows = [(place, Share(figure(norm), share)) for place, norm, share in columns]
        note = "The other columns of (B; D) are exactly zero."
        body.append(table(title, (">input", "norm of its column"), rows, note=note))
    yield Section("training", "Training", tuple(body), "An implicit model that was made from data.")
