"""The sections of train: the model that was made, how well it fits, and which inputs act."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.table import Table

from idl_audit.report.schema import Fit, Training
from idl_audit.report.terminal.layout import Section, add_row, grid, heading, pair, table
from idl_audit.report.wording import figure, percent, plain

BAR: Final = 40
"""Characters of the longest bar."""


def training_sections(found: Training, most: int | None) -> Iterable[Section]:
    """Yield what was trained, and the chart of the columns where inputs were chosen; `most` limits its rows."""
    rows = grid()
    penalties = ", ".join(f"{plain(name)} {weight:g}" for name, weight in found.penalties.items()) or "none"
    pair(rows, "trained by", f"{plain(found.solver)}, {plain(found.loss)} loss, penalties: {penalties}")
    norm = "" if found.kappa is None else f", ||A||_inf {figure(found.norm_inf_A)} <= kappa {figure(found.kappa)}"
    pair(rows, "states", f"{found.states:,} ({plain(found.structure)}{norm})")
    if found.eps is not None:
        pair(rows, "boxes", f"of radius {found.eps:g}, by intervals of the equilibrium; `certify` has the verdicts")
    pair(rows, "on samples trained on", _fit(found.train))
    pair(rows, "on samples kept apart", _fit(found.holdout))
    pair(rows, "cost", f"{found.steps:,} steps, {figure(found.seconds)} s of processor time")
    yield "Training", rows
    if found.column_norms:
        acting, all_inputs = len(found.kept_inputs), len(found.column_norms)
        title = f"Inputs that act: {acting} of {all_inputs}; the other columns of (B; D) are exactly zero"
        yield heading(title, acting, most), _chart(found, most)


def _fit(fit: Fit) -> str:
    if fit.right is not None:
        return f"{fit.right:,} of {fit.n:,} classes right ({percent(fit.right, fit.n)})"
    r2 = "" if fit.r2 is None else f", R2 {fit.r2:.3f}"
    return f"RMSE {'-' if fit.rmse is None else figure(fit.rmse)} on {fit.n:,}{r2}"


def _chart(found: Training, most: int | None) -> Table:
    rows = table(("input", "right"), ("norm of its column", "right"), ("", "left"))
    longest = max(found.column_norms, default=0.0) or 1.0
    for place in found.kept_inputs[:most]:
        norm = found.column_norms[place]
        add_row(rows, (str(place), figure(norm), "#" * max(1, round(BAR * norm / longest))))
    return rows
