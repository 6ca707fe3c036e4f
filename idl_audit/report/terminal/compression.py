"""The sections of reduce, compress and predict."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from idl_audit.report.schema import Compression, Drift, KeptCertified, Report
from idl_audit.report.terminal.layout import Section, add_columns, add_row, grid, heading, pair, table
from idl_audit.report.wording import figure, percent

SHOWN_OUTPUTS = 10
SHOWN_INPUTS = 12


def compression_sections(report: Report, found: Compression, most: int | None, *, wide: bool) -> Iterable[Section]:
    """Yield what became smaller and, for compress, how far the outputs can stray."""
    rows = grid()
    if found.states is not None:
        pair(rows, "states", f"{found.states.before:,} -> {found.states.after:,}")
    if found.removed is not None:
        gone = found.removed
        pair(rows, "removed", f"{gone.constant:,} constant, {gone.dead:,} dead, {gone.unobserved:,} unobserved")
    nonzeros = found.nonzeros
    pair(
        rows,
        "coefficients",
        f"{nonzeros.before:,} -> {nonzeros.after:,} ({percent(nonzeros.after, nonzeros.before)}; a kernel counts once)",
    )
    if found.kind == "reduce":
        pair(rows, "unused inputs", _inputs(found.unused_inputs))
        yield "Reduction", rows
        return
    yield "Compression", rows
    if found.kept_certified is not None:
        yield "Certified samples at each level that was tried", _levels(found.kept_certified)
    yield "Drift: how far an output of the smaller model can be from the original's", _drift(found, report)
    if found.blocks:
        yield from _blocks(found, most, wide=wide)


def _levels(found: KeptCertified) -> Table:
    rows = table(("level", "left"), ("coefficients", "right"), ("certified", "right"), ("", "left"))
    add_row(rows, ("as it is", "", f"{found.before:,} of {found.n:,}", f"{found.least:,} must stay"))
    for level in found.levels:
        counted = f"{level.certified:,} of {level.looked_at:,}"
        add_row(rows, (level.setting, f"{level.nonzeros:,}", counted, "enough" if level.kept else "too few"))
    return rows


def _inputs(unused: tuple[int, ...]) -> str:
    if not unused:
        return "none"
    shown = ", ".join(map(str, unused[:SHOWN_INPUTS]))
    return f"{len(unused):,}: {shown}{', ...' if len(unused) > SHOWN_INPUTS else ''}"


def _drift(found: Compression, report: Report) -> Text:
    drift = found.drift
    rows = [
        ("proved, all inputs u", _affine(drift)),
        ("proved, box of inputs", figure(drift.guaranteed)),
        ("proved, the samples", figure(drift.at_samples)),
        ("measured", figure(drift.measured)),
    ]
    if found.changed_predictions is not None:
        n = report.data.n if report.data is not None else 0
        rows.append(("predictions", f"{found.changed_predictions} of {n:,} samples change their class"))
    width = max(len(name) for name, _ in rows)
    text = Text()
    for place, (name, value) in enumerate(rows):
        text.append(f"{name:<{width}}  ", style="dim")
        text.append(value + ("\n" if place < len(rows) - 1 else ""))
    return text


def _affine(drift: Drift) -> str:
    if drift.offset is None or drift.slope is None:
        return "-"
    return f"{figure(drift.offset)} + {figure(drift.slope)} max|u_j|"


def _blocks(found: Compression, most: int | None, *, wide: bool) -> Iterable[Section]:
    rows = table(("block", "left"), ("coefficients", "right"))
    if wide:
        add_columns(rows, ("all inputs: offset + slope max|u_j|", "right"))
    add_columns(rows, ("box", "right"), ("samples", "right"), ("measured", "right"))
    for entry in found.blocks[:most]:
        drift = entry.drift
        cells = [entry.block, f"{entry.nonzeros.before:,} -> {entry.nonzeros.after:,}"]
        cells += [_affine(drift)] if wide else []
        add_row(rows, (*cells, figure(drift.guaranteed), figure(drift.at_samples), figure(drift.measured)))
    yield heading("Drift when one block alone is compressed", len(found.blocks), most), rows


def prediction_sections(report: Report, most: int | None) -> Iterable[Section]:
    """Yield a row for each sample: class, outputs and, for models with loops, how the state was found."""
    predictions = report.predictions
    loops = any(entry.iterations is not None for entry in predictions)
    labels = any(entry.label is not None for entry in predictions)
    rows = table(("sample", "right"))
    if labels:
        add_columns(rows, ("label", "right"))
    add_columns(rows, ("predicted", "right"))
    if loops:
        add_columns(rows, ("iterations", "right"), ("residual", "right"))
    add_columns(rows, ("outputs", "left"))
    for entry in predictions[:most]:
        shown = "  ".join(f"{value:.3g}" for value in entry.output[:SHOWN_OUTPUTS])
        wrong = entry.label is not None and entry.predicted != entry.label
        cells: list[Text | str | int | None] = [entry.index, *([entry.label] if labels else [])]
        cells.append(Text("-" if entry.predicted is None else str(entry.predicted), style="magenta" if wrong else ""))
        if loops:
            cells += [entry.iterations, figure(entry.residual)]
        add_row(rows, (*cells, shown + (" ..." if len(entry.output) > SHOWN_OUTPUTS else "")))
    yield heading("Predictions", len(predictions), most), rows
