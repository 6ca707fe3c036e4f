"""Tables of sensitivity: scalars, outputs, pairs of classes, groups, samples, and a map of the inputs."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from idl_audit.report.schema import InputGroups, InputMap, Report, Sensitivity
from idl_audit.report.terminal.layout import Section, add_columns, add_row, grid, heading, pair, table
from idl_audit.report.wording import SCALARS, eps_text, figure, listed_inputs, plain


def sensitivity_sections(report: Report, found: Sensitivity, most: int | None) -> Iterable[Section]:
    """Yield the sections of `sensitivity`; `most` limits the rows of long tables."""
    yield "Sensitivity", _scalars(report, found)
    if found.row_sums:
        yield heading("Outputs", len(found.row_sums), most), _outputs(report, found, most)
    if found.margins:
        label = found.margins[0].label
        title = f"Differences of output {label} to the others, the most sensitive first"
        yield heading(title, len(found.margins), most), _margins(report, found, most)
    if found.groups is not None:
        yield f"Groups of inputs ({plain(found.groups.source)})", _groups(found.groups, most)
    if found.samples:
        yield heading("Samples, the most sensitive first", len(found.samples), most), _samples(found, most)
    if found.input_map is not None:
        yield "Inputs, summed over outputs", _map(found.input_map)


def _scalars(report: Report, found: Sensitivity) -> Table:
    rows = grid()
    method = f"method {plain(found.method)}"
    if found.kind == "global":
        pair(rows, "||S||_inf", f"{figure(found.norm_inf)} ({method}, all inputs)")
    else:
        pair(rows, "||S||_inf", f"{figure(found.norm_inf)} ({method}, within the samples' boxes)")
        pair(rows, "for all inputs", f"{figure(found.global_norm_inf)}{_times_as_large(found)}")
    if found.rho_norm_bound is None:
        pair(rows, "rho", "- (no bound by norms alone: ||A||_inf is not below 1)")
    else:
        pair(rows, "rho", f"{figure(found.rho_norm_bound)} (the bound by norms alone, all inputs)")
    if found.spectral_inf is not None:
        pair(rows, "spectral", f"{figure(found.spectral_inf)} (sqrt(p) times spectral norms, all inputs)")
    if found.smallest is not None:
        pair(rows, "smallest", f"{figure(found.smallest.value)}, {SCALARS[found.smallest.name]}")
    if found.induced is not None:
        one = found.induced
        pair(rows, f"in {one.norm}", f"{figure(one.value)} bounds all outputs together by all inputs, by {one.by}")
    if found.independent_pairs is not None:
        pair(rows, "independent", f"{found.independent_pairs:,} pairs of an output and an input")
    if found.cardinality is not None:
        few = found.cardinality
        largest = max(few.bounds, default=0.0)
        inputs = "one input changes" if few.k == 1 else f"{few.k} inputs change"
        by = eps_text(report, few.sigma)
        pair(rows, "few changes", f"{figure(largest)} is the most that an output moves when {inputs} by {by} at most")
    for name, file in (("matrix", found.matrix_file), ("witness", found.witness)):
        if file is not None:
            pair(rows, name, file)
    return rows


def _times_as_large(found: Sensitivity) -> str:
    if not found.norm_inf or found.global_norm_inf is None:
        return ""
    return f" ({figure(found.global_norm_inf / found.norm_inf)} times as large)"


def _outputs(report: Report, found: Sensitivity, most: int | None) -> Table:
    """One row per output: its row sum in S, and the inputs that move it most, the largest first."""
    outputs = table(("output", "right"), ("row sum", "right"))
    if found.cardinality is not None:
        add_columns(outputs, (f"{found.cardinality.k} inputs change", "right"))
    add_columns(outputs, ("inputs that move it most (entry of S)", "left"))
    for output, total in list(enumerate(found.row_sums))[:most]:
        few = [] if found.cardinality is None else [figure(found.cardinality.bounds[output])]
        top = [entry for entry in found.top_inputs if entry.output == output]
        add_row(outputs, (output, figure(total), *few, listed_inputs(report, top)))
    return outputs


def _margins(report: Report, found: Sensitivity, most: int | None) -> Table:
    rows = table(("output", "right"), ("row sum", "right"), ("sum of the two rows", "right"))
    add_columns(rows, ("inputs that move the difference most", "left"))
    for margin in found.margins[:most]:
        add_row(
            rows,
            (
                margin.rival,
                figure(margin.row_sum),
                figure(margin.sum_of_rows),
                listed_inputs(report, margin.top_inputs),
            ),
        )
    return rows


def _groups(found: InputGroups, most: int | None) -> Table:
    rows = table(("output", "right"), ("groups that move it most (sum of S over the group)", "left"))
    outputs = sorted({entry.output for entry in found.top})
    for output in outputs[:most]:
        top = sorted((entry for entry in found.top if entry.output == output), key=lambda entry: -entry.value)
        add_row(rows, (output, ", ".join(f"{plain(entry.group)} ({figure(entry.value)})" for entry in top)))
    return rows


def _samples(found: Sensitivity, most: int | None) -> Table:
    rows = table(("sample", "right"), ("||S||_inf", "right"), ("times smaller than for all inputs", "right"))
    for sample in sorted(found.samples, key=lambda sample: -sample.norm_inf)[:most]:
        whole = found.global_norm_inf
        gain = None if whole is None or not sample.norm_inf else figure(whole / sample.norm_inf)
        add_row(rows, (sample.index, figure(sample.norm_inf), gain))
    return rows


def _map(found: InputMap) -> Group:
    side = "" if found.block == 1 else f"; each the largest of {found.block} x {found.block} pixels"
    largest = max(found.values, default=0.0)
    from idl_audit.report.terminal.heat import HeatMap  # numpy: not before there is a map

    return Group(HeatMap(found), Text(f"one scale from 0 to {figure(largest)}{side}", style="dim"))
