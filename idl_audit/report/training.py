"""What views say of harden and train in words: names and values, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from idl_audit.report.wording import figure, percent

if TYPE_CHECKING:
    from idl_audit.report.schema import Audited, Fit, Hardening, TradeOff, Training

Facts: TypeAlias = Iterator[tuple[str, str]]


def hardening_facts(found: Hardening) -> Facts:
    """Yield what was trained for, with what, and what it cost."""
    yield "trained for", f"{found.method} at eps {found.eps:g}, {found.minutes:g} minutes of one core"
    yield "samples", f"{found.trained_on:,} trained on, {found.held_out:,} kept apart to choose by"
    yield "must stay right", f"{found.least_clean:,} of {found.held_out:,}"
    yield "weights", f"{len(found.weights)} initializers"
    yield "cost", f"{figure(found.seconds)} s of processor time"


def trade_offs(found: Hardening) -> tuple[TradeOff, ...]:
    """Return everything that was tried, the weights as they were first."""
    return (found.before, *found.front)


def shares_of(one: TradeOff, found: Hardening) -> tuple[str, str, str, str]:
    """Return the shares of samples that are right, certified by intervals, by lines, and about with branching."""
    n = found.judged
    about = f"about {percent(round(one.certified), n)}" if one.branched else percent(one.by_lines, n)
    return percent(one.clean, found.held_out), percent(one.by_intervals, n), percent(one.by_lines, n), about


def audits(found: Hardening) -> tuple[tuple[str, Audited], ...]:
    """Return the audits that there are, with the file's name in views."""
    both = (("before", found.audited_before), ("after", found.audited_after))
    return tuple((name, audit) for name, audit in both if audit is not None)


def training_facts(found: Training) -> Facts:
    """Yield how the model was trained, what it looks like, and how well it fits."""
    penalties = ", ".join(f"{name} {weight:g}" for name, weight in found.penalties.items()) or "none"
    yield "trained by", f"{found.solver}, {found.loss} loss, penalties: {penalties}"
    norm = "" if found.kappa is None else f", ||A||_inf {figure(found.norm_inf_A)} <= kappa {figure(found.kappa)}"
    if found.well_posed == "monotone":
        norm = f", (A + A^T) / 2 <= {figure(found.kappa)} I"
    yield "states", f"{found.states:,} ({found.structure}{norm})"
    if found.shift is not None:
        yield "images", f"moved by up to {found.shift} pixels each time they were trained on"
    if found.eps is not None:
        yield "boxes", f"of radius {found.eps:g}, by intervals of the equilibrium; `certify` has the verdicts"
    yield "on samples trained on", _fit(found.train)
    yield "on samples kept apart", _fit(found.holdout)
    yield "cost", f"{found.steps:,} steps, {figure(found.seconds)} s of processor time"


def columns_of(found: Training) -> tuple[tuple[int, float, float], ...]:
    """Return (input, norm of its column, its share of the longest) of the inputs that act, the strongest first."""
    longest = max(found.column_norms, default=0.0) or 1.0
    norms = ((place, found.column_norms[place]) for place in found.kept_inputs)
    return tuple((place, norm, norm / longest) for place, norm in norms)


def _fit(fit: Fit) -> str:
    if fit.right is not None:
        return f"{fit.right:,} of {fit.n:,} classes right ({percent(fit.right, fit.n)})"
    r2 = "" if fit.r2 is None else f", R2 {fit.r2:.3f}"
    return f"RMSE {figure(fit.rmse)} on {fit.n:,}{r2}"
