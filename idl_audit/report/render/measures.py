"""Sections on what was measured: sensitivity, bounds, checks of certificates, compression, predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from idl_audit.report.claims import facts
from idl_audit.report.render.parts import Cell, Mark, Name, PairList, Section, Share, Stack, Table, table
from idl_audit.report.schema import BlockBounds, KeptCertified, Report, Sensitivity
from idl_audit.report.wording import SCALARS, counted, eps_text, figure, interval, listed_inputs

MANY_OUTPUTS = 10
"""Outputs whose interval stands in the table."""


def sensitivity_section(report: Report) -> Iterator[Section]:
    """Yield scalars, outputs, differences of classes, groups and samples."""
    found = report.sensitivity
    if found is None:
        return
    where = "all inputs" if found.kind == "global" else "any two inputs in the box of the same sample"
    intro = f"|y(u) - y(v)| <= S |u - v|, output by output, for {where}. S bounds change; it certifies no verdict."
    body = (
        _scalars(report, found),
        *_outputs(report, found),
        *_margins(report, found),
        *_groups(found),
        *_local(found),
    )
    yield Section("sensitivity", "Sensitivity", body, intro)


def _scalars(report: Report, found: Sensitivity) -> Table:
    rows: list[tuple[Cell, ...]] = []

    def add(name: str, value: float | None, what: str) -> None:
        if value is not None:
            rows.append((name, figure(value), what))

    add("||S||_inf", found.norm_inf, f"the largest row sum of S, method {found.method}")
    add("for all inputs", found.global_norm_inf, "||S||_inf without boxes")
    add("rho", found.rho_norm_bound, "the bound by norms alone")
    add("spectral", found.spectral_inf, "sqrt(p) times spectral norms")
    if found.smallest is not None:
        add("smallest", found.smallest.value, SCALARS[found.smallest.name])
    if found.induced is not None:
        one = found.induced
        add(f"in {one.norm}", one.value, f"bounds all outputs together by all inputs together, by {one.by}")
    if found.cardinality is not None:
        few = found.cardinality
        text = f"what an output moves at most when {few.k} inputs change by {eps_text(report, few.sigma)} at most"
        add("few changes", max(few.bounds, default=None), text)
    if found.independent_pairs is not None:
        rows.append(("independent", f"{found.independent_pairs:,}", "pairs of an output and an input without a path"))
    return table("Bounds on the change of any output", ("", ">value", "what it is"), rows)


def _outputs(report: Report, found: Sensitivity) -> Iterator[Table]:
    if not found.row_sums:
        return
    largest = max(found.row_sums) or 1.0
    rows: list[tuple[Cell, ...]] = []
    for output, total in enumerate(found.row_sums):
        top = [entry for entry in found.top_inputs if entry.output == output]
        few = [] if found.cardinality is None else [figure(found.cardinality.bounds[output])]
        rows.append((output, Share(figure(total), total / largest), *few, listed_inputs(report, top)))
    few_title = [] if found.cardinality is None else [f">{found.cardinality.k} inputs change"]
    yield table("Outputs", (">output", "row sum", *few_title, "inputs that move it most (entry of S)"), rows)


def _margins(report: Report, found: Sensitivity) -> Iterator[Table]:
    if not found.margins:
        return
    largest = max(margin.row_sum for margin in found.margins) or 1.0
    rows = [
        (
            margin.rival,
            Share(figure(margin.row_sum), margin.row_sum / largest),
            figure(margin.sum_of_rows),
            listed_inputs(report, margin.top_inputs),
        )
        for margin in found.margins
    ]
    title = f"Differences of output {found.margins[0].label} to the others"
    yield table(title, (">output", "row sum", ">sum of the two rows", "inputs that move the difference most"), rows)


def _groups(found: Sensitivity) -> Iterator[Table]:
    if found.groups is None:
        return
    rows: list[tuple[Cell, ...]] = []
    for output in sorted({entry.output for entry in found.groups.top}):
        top = sorted((entry for entry in found.groups.top if entry.output == output), key=lambda entry: -entry.value)
        rows.append((output, ", ".join(f"{entry.group} ({figure(entry.value)})" for entry in top)))
    yield table(
        f"Groups of inputs ({found.groups.source})", (">output", "sum of S over the group, largest first"), rows
    )


def _local(found: Sensitivity) -> Iterator[Table]:
    if not found.samples:
        return
    largest = max(sample.norm_inf for sample in found.samples) or 1.0
    ordered = sorted(found.samples, key=lambda sample: -sample.norm_inf)
    rows = [(sample.index, Share(figure(sample.norm_inf), sample.norm_inf / largest)) for sample in ordered]
    yield table("Samples, the most sensitive first", (">sample", "||S||_inf in its box"), rows)


def bounds_section(report: Report) -> Iterator[Section]:
    """Yield states per layer and radius, what each method gave for the outputs, and the outputs' intervals."""
    blocks = [entry for entry in report.bounds if entry.part == "states"]
    outputs = [entry for entry in report.bounds if entry.part == "outputs"]
    body = (*_states(report, blocks), *_methods(report, outputs), *_intervals(report, outputs))
    if body:
        yield Section("bounds", "Bounds on states and outputs", body)


def _states(report: Report, blocks: Sequence[BlockBounds]) -> Iterator[Table]:
    if not blocks:
        return
    rows: list[tuple[Cell, ...]] = []
    for entry in blocks:
        bar = Stack(
            (("unknown", "unstable", entry.unstable), ("info", "active", entry.active), ("quiet", "dead", entry.dead))
        )
        counts = (f"{entry.unstable:,}", f"{entry.active:,}", f"{entry.dead:,}")
        mean = None if entry.mean_unstable is None else f"{entry.mean_unstable:,.1f}"
        rows.append((eps_text(report, entry.eps), Name(entry.block), bar, *counts, mean, figure(entry.mean_width)))
    titles = (">eps", "block", "", ">unstable", ">active", ">dead", ">unstable, mean", ">mean width")
    note = (
        "Counts on the sample with the most unstable states of the block: unstable ones are what relaxations are loose "
        "on; active: linear on their interval; dead: constant. Widths are of pre-activations."
    )
    yield table("Unstable states per layer, in order of evaluation", titles, rows, note=note, shown=60)


def _methods(report: Report, outputs: Sequence[BlockBounds]) -> Iterator[Table]:
    rows = [
        (eps_text(report, entry.eps), method.method, figure(method.mean_width), figure(method.max_width), method.n)
        for entry in outputs
        for method in entry.methods
    ]
    if rows:
        titles = (">eps", "method", ">mean width", ">largest width", ">samples")
        yield table("Width of the outputs' intervals, method by method", titles, rows)


def _intervals(report: Report, outputs: Sequence[BlockBounds]) -> Iterator[Table]:
    listed = [(entry, sample) for entry in outputs for sample in entry.samples]
    if not listed:
        return
    size = max(len(sample.lower) for _, sample in listed)
    shown = min(size, MANY_OUTPUTS)
    rows = []
    for entry, sample in listed:
        pairs = list(zip(sample.lower, sample.upper, strict=True))[:shown]
        cells = [interval(lo, hi) for lo, hi in pairs] + [None] * (shown - len(pairs))
        rows.append((eps_text(report, entry.eps), sample.index, *cells))
    note = "Rounded outward." if size == shown else f"Rounded outward; the first {shown} of {size} outputs."
    titles = (">eps", ">sample", *(f">y{i}" for i in range(shown)))
    yield table("Proved intervals of the outputs", titles, rows, note=note, shown=5)


def other_sections(report: Report) -> Iterator[Section]:
    """Yield the checks of a certificate, a compression, and predictions."""
    if report.verification is not None:
        found = report.verification
        pairs = PairList()
        pairs.add("file", Name(found.file))
        pairs.add("outcome", Mark("accepted", "good") if found.accepted else Mark("refused", "error"))
        pairs.add("claim", found.claim)
        for name, text in facts(found.about) if found.about is not None else ():
            pairs.add(name, text)
        pairs.add("||S||_inf", None if found.norm_inf is None else f"{figure(found.norm_inf)}, proved")
        pairs.add("checked", f"{counted(found.checked, 'claim')}, {len(found.refused)} refused")
        refused = [table("Refused claims", ("claim",), [(text,) for text in found.refused])] if found.refused else []
        yield Section("verification", "Verification", (pairs.done(), *refused))
    if report.compression is not None:
        smaller = report.compression
        pairs = PairList()
        pairs.add("kind", smaller.kind)
        pairs.add("nonzeros", f"{smaller.nonzeros.before:,} before, {smaller.nonzeros.after:,} after")
        pairs.add(
            "drift", f"at most {figure(smaller.drift.guaranteed)} (proved), {figure(smaller.drift.measured)} seen"
        )
        kept = [] if smaller.kept_certified is None else [_levels(smaller.kept_certified)]
        yield Section("compression", "Compression", (pairs.done(), *kept))
    if report.predictions:
        rows = [
            (entry.index, ", ".join(figure(value) for value in entry.output), entry.iterations, figure(entry.residual))
            for entry in report.predictions
        ]
        outputs = table("Outputs", (">sample", "output", ">iterations", ">residual"), rows)
        yield Section("predictions", "Predictions", (outputs,))


def _levels(found: KeptCertified) -> Table:
    rows: list[tuple[Cell, ...]] = [("as it is", None, f"{found.before:,} of {found.n:,}", None)]
    for level in found.levels:
        mark = Mark("enough", "good") if level.kept else Mark("too few", "error")
        rows.append((level.setting, f"{level.nonzeros:,}", f"{level.certified:,} of {level.looked_at:,}", mark))
    note = f"At eps {figure(found.eps)}; {found.least:,} must stay certified. Counting ends where too few are left."
    titles = ("level", ">coefficients", ">certified", "")
    return table("Certified samples at each level that was tried", titles, rows, note=note)
