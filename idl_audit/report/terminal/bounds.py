"""Tables of bounds: what each method gave for the outputs, the outputs themselves, and the blocks of states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from idl_audit.report.schema import BlockBounds, OutputBounds, Report
from idl_audit.report.terminal.layout import Cell, Section, add_columns, add_row, heading, table
from idl_audit.report.wording import eps_text, figure, interval

FEW_OUTPUTS = 3
"""Outputs whose interval stands in the samples' table; 80 columns hold no more."""

MANY_OUTPUTS = 8
"""The same in a wide table."""


def bounds_sections(report: Report, most: int | None, *, wide: bool) -> Iterable[Section]:
    """Yield the sections of `bounds`; `most` limits the rows of long tables, `wide` adds columns."""
    outputs = [entry for entry in report.bounds if entry.part == "outputs"]
    blocks = [entry for entry in report.bounds if entry.part == "states"]
    if any(entry.methods for entry in outputs):
        yield "Width of the outputs' intervals, method by method", _methods(report, outputs, wide=wide)
    if blocks:
        yield heading("States, in order of evaluation", len(blocks), most), _blocks(report, blocks[:most], wide=wide)
    rows = [(entry, sample) for entry in outputs for sample in entry.samples]
    if rows:
        yield heading("Outputs", len(rows), most), _outputs(report, rows[:most], wide=wide)


def _methods(report: Report, outputs: Sequence[BlockBounds], *, wide: bool) -> Table:
    made = table(("eps", "right"), ("method", "left"), ("mean", "right"), ("largest", "right"), ("of above", "right"))
    add_columns(made, ("unstable states", "right"))
    if wide:
        add_columns(made, ("samples", "right"), ("seconds", "right"))
    for entry in outputs:
        before: float | None = None
        for method in entry.methods:
            cells: list[Cell] = [eps_text(report, entry.eps), method.method]
            cells += [figure(method.mean_width), figure(method.max_width), _share(method.mean_width, before)]
            cells += [_mean(method.unstable)]
            if wide:
                cells += [method.n, figure(method.seconds)]
            add_row(made, cells)
            before = method.mean_width
    made.caption = Text("each includes those above it, but norm, which stands alone; unstable: mean of a sample")
    made.caption_justify = "left"
    return made


def _share(width: float | None, before: float | None) -> str | None:
    """Return what a method left of the mean width of the one before it."""
    if width is None or not before:
        return None
    return f"{min(100 * width / before, 100):.3g} %"


def _mean(value: float | None) -> str | None:
    return None if value is None else f"{value:,.1f}"


def _blocks(report: Report, blocks: Sequence[BlockBounds], *, wide: bool) -> Table:
    """One row per block and radius; counts are those of the sample with the most unstable states in the block."""
    made = table(("eps", "right"), ("block", "left"), ("mean", "right"), ("largest", "right"))
    add_columns(made, ("dead", "right"), ("active", "right"), ("unstable", "right"))
    if wide:
        add_columns(made, ("unstable, mean", "right"), ("states", "right"))
    for entry in blocks:
        cells: list[Cell] = [eps_text(report, entry.eps), entry.block]
        cells += [figure(entry.mean_width), figure(entry.max_width)]
        cells += [f"{entry.dead:,}", f"{entry.active:,}", f"{entry.unstable:,}"]
        if wide:
            cells += [_mean(entry.mean_unstable), None if entry.size is None else f"{entry.size:,}"]
        add_row(made, cells)
    made.caption = Text("widths of pre-activations; counts on the sample with the most unstable states of the block")
    made.caption_justify = "left"
    return made


def _outputs(report: Report, rows: Sequence[tuple[BlockBounds, OutputBounds]], *, wide: bool) -> Table:
    """One row per sample and radius: the intervals of the first outputs."""
    size = max(len(sample.lower) for _, sample in rows)
    shown = min(size, MANY_OUTPUTS if wide else FEW_OUTPUTS)
    made = table(("eps", "right"), ("sample", "right"), *((f"y{i}", "right") for i in range(shown)))
    for entry, sample in rows:
        intervals = [interval(lo, hi) for lo, hi in zip(sample.lower[:shown], sample.upper[:shown], strict=True)]
        add_row(made, [eps_text(report, entry.eps), sample.index, *intervals])
    if size > shown:
        made.caption = Text(f"the first {shown} of {size} outputs; all of them stand in the report (-o FILE, -f json)")
        made.caption_justify = "left"
    return made
