"""The sections of harden and train: trade-offs with the verdicts before and after; a model that was made from data."""

from __future__ import annotations

from collections.abc import Iterator

from idl_audit.report.render.parts import Cell, Mark, PairList, Pairs, Section, Share, Stack, Table, table
from idl_audit.report.schema import Audited, Fit, Hardening, Report, TradeOff
from idl_audit.report.wording import figure, percent


def hardening_section(report: Report) -> Iterator[Section]:
    """Yield what was trained, the front that the choice was made from, and the audit of both files."""
    found = report.hardening
    if found is None:
        return
    pairs = PairList()
    pairs.add("trained for", f"{found.method} at eps {found.eps:g}, {found.minutes:g} minutes of one core")
    pairs.add("samples", f"{found.trained_on:,} trained on, {found.held_out:,} kept apart to choose by")
    pairs.add("must stay right", f"{found.least_clean:,} of {found.held_out:,}")
    pairs.add("weights", f"{len(found.weights)} initializers")
    pairs.add("cost", f"{figure(found.seconds)} s of processor time")
    front = table(
        "Trade-offs on the samples kept apart",
        ("weights", ">clean", ">by intervals", ">by lines", "with branching, about", ""),
        [_trade_off(one, found) for one in (found.before, *found.front)],
        note="Estimates that the choice was made by, no verdicts.",
    )
    body: tuple[Pairs | Table, ...] = (pairs.done(), *_audits(found), front)
    yield Section("hardening", "Hardening", body, "Weights were fine-tuned for certified robustness.")


def _trade_off(one: TradeOff, found: Hardening) -> tuple[Cell, ...]:
    n = found.held_out
    shares = (percent(one.clean, n), percent(one.by_intervals, n), percent(one.by_lines, n))
    about = Share(percent(round(one.certified), n), min(1.0, one.certified / n) if n else 0.0)
    return (one.name, *shares, about, Mark("written", "good") if one.name == found.chosen else None)


def _audits(found: Hardening) -> Iterator[Table]:
    audits = (("before", found.audited_before), ("after", found.audited_after))
    rows = [_audit(name, audit) for name, audit in audits if audit is not None]
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
    penalties = ", ".join(f"{name} {weight:g}" for name, weight in found.penalties.items())
    pairs.add("trained by", f"{found.solver}, {found.loss} loss, penalties: {penalties or 'none'}")
    norm = "" if found.kappa is None else f", ||A||_inf {figure(found.norm_inf_A)} <= kappa {figure(found.kappa)}"
    pairs.add("states", f"{found.states:,} ({found.structure}{norm})")
    pairs.add("boxes", None if found.eps is None else f"of radius {found.eps:g}, by intervals of the equilibrium")
    pairs.add("on samples trained on", _fit(found.train))
    pairs.add("on samples kept apart", _fit(found.holdout))
    pairs.add("cost", f"{found.steps:,} steps, {figure(found.seconds)} s of processor time")
    body: list[Pairs | Table] = [pairs.done()]
    if found.column_norms:
        longest = max(found.column_norms) or 1.0
        norms = [(place, found.column_norms[place]) for place in found.kept_inputs]
        title = f"Inputs that act: {len(norms)} of {len(found.column_norms)}"
        rows = [(place, Share(figure(norm), norm / longest)) for place, norm in norms]
        note = "The other columns of (B; D) are exactly zero."
        body.append(table(title, (">input", "norm of its column"), rows, note=note))
    yield Section("training", "Training", tuple(body), "An implicit model that was made from data.")


def _fit(fit: Fit) -> str:
    if fit.right is not None:
        return f"{fit.right:,} of {fit.n:,} classes right ({percent(fit.right, fit.n)})"
    r2 = "" if fit.r2 is None else f", R2 {fit.r2:.3f}"
    return f"RMSE {figure(fit.rmse)} on {fit.n:,}{r2}"
