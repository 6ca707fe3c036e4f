"""Tables of verdicts: the counts per radius, why some are undecided, and the samples, worst first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from idl_audit.report.groups import by_group, groupings, told_radii
from idl_audit.report.radius_curve import RadiusPoint, radius_curve
from idl_audit.report.schema import Report, SampleReport, Summary, Verdict
from idl_audit.report.shares import wilson
from idl_audit.report.terminal.layout import (
    Cell,
    Section,
    add_columns,
    add_row,
    heading,
    in_colour,
    table,
    verdict_name,
)
from idl_audit.report.wording import (
    PARTS,
    REASONS,
    at_least,
    at_most,
    changes_text,
    eps_text,
    figure,
    interval,
    is_perturbed,
    parameters_text,
    percent,
    plain,
)
from idl_audit.report.worst_first import deciding_margin, has_radii, largest_certified, smallest_falsified, worst_first
from idl_audit.values.columns import CLASS

BAR: Final = 32
"""Characters of a bar for all samples."""
REACH: Final = 14
"""Characters of a bar for the greatest radius."""


def verdict_sections(report: Report, summary: Summary, most: int | None, *, wide: bool) -> Iterable[Section]:
    """Yield the sections of `attack` and `certify`; `most` limits the rows of samples, `wide` adds columns."""
    yield "Verdicts", _counts(report, summary)
    reasons = Counter(result.reason for sample in report.samples for result in sample.results if result.reason)
    if reasons:
        why = table(("reason", "left"), ("verdicts", "right"), ("what it means", "left"))
        for reason, count in reasons.most_common():
            add_row(why, (in_colour(Verdict.UNKNOWN, reason.value), count, REASONS[reason]))
        yield "Why undecided", why
    curve = radius_curve(report)
    if curve:
        yield "Over eps", _curve(curve)
    for column in groupings(report):
        for eps in told_radii(report) if most is None or column != CLASS else ():
            yield (
                f"By {plain(column)}, the frailest first, at eps {eps_text(report, eps)}",
                _groups(report, column, eps),
            )
    tried = worst_first(report.samples)
    if any(result.outputs for sample in tried for result in sample.results):
        yield heading("Outputs, worst samples first", len(tried), most), _outputs(report, tried, most)
    if tried:
        several = has_radii(tried)
        body = _by_radius(report, tried, most) if several else _by_verdict(report, tried, most, wide=wide)
        yield heading("Samples, worst first", len(tried), most), body


def _counts(report: Report, summary: Summary) -> Table:
    made = table(("eps", "right"), ("n", "right"), *((verdict_name(verdict), "right") for verdict in Verdict))
    if report.demand is not None and report.demand.kind in PARTS:
        add_columns(made, (f"{PARTS[report.demand.kind]} certified", "right"))
    for entry in summary.per_eps:
        counts = {
            Verdict.CERTIFIED: entry.certified,
            Verdict.FALSIFIED: entry.falsified,
            Verdict.UNKNOWN: entry.unknown,
            Verdict.CLEAN_WRONG: entry.clean_wrong,
        }
        cells: list[Cell] = [
            in_colour(verdict, f"{counts[verdict]} ({percent(counts[verdict], entry.n)})") for verdict in Verdict
        ]
        cells += [f"{entry.parts.certified} of {entry.parts.n}"] if entry.parts is not None else []
        add_row(made, (eps_text(report, entry.eps), entry.n, *cells))
    if summary.clean is not None:
        clean = summary.clean
        made.caption = Text(f"clean accuracy: {clean.k} of {clean.n} ({percent(clean.k, clean.n)})")
        made.caption_justify = "left"
    return made


def _curve(points: Sequence[RadiusPoint]) -> Table:
    """A bar for each radius: the share certified, and up to where no attack was found."""
    made = table(("eps", "right"), ("certified", "right"), ("no attack found", "right"), ("", "left"))
    for point in points:
        sure, perhaps = round(point.certified * BAR), round(point.attacked * BAR)
        bar = Text("=" * sure, "green") + Text("-" * max(0, perhaps - sure), "yellow")
        add_row(made, (f"{point.eps:.3g}", f"{100 * point.certified:.0f} %", f"{100 * point.attacked:.0f} %", bar))
    return made


def _outputs(report: Report, samples: Sequence[SampleReport], most: int | None) -> Table:
    """One row for each output of a sample at a radius: its verdict, and between which numbers it is proved to stay."""
    made = table(("sample", "right"), ("eps", "right"), ("output", "right"), ("verdict", "left"), ("proved", "right"))
    for sample in samples[:most]:
        for result in sample.results:
            for one in result.outputs[:most]:
                verdict = in_colour(one.verdict, verdict_name(one.verdict))
                cells: list[Cell] = [sample.index, eps_text(report, result.eps), one.output, verdict]
                known = one.least is not None or one.greatest is not None
                add_row(made, [*cells, interval(one.least, one.greatest) if known else None])
    return made


def _groups(report: Report, column: str, eps: float) -> Table:
    made = table((plain(column), "right" if column == CLASS else "left"), ("n", "right"))
    add_columns(made, *((verdict_name(verdict), "right") for verdict in Verdict))
    add_columns(made, ("95 % interval", "right"), ("becomes", "left"))
    for one in by_group(report, column, eps):
        cells = [in_colour(verdict, str(one.counts[verdict])) for verdict in Verdict]
        sure = wilson(one.counts[Verdict.CERTIFIED], one.n)
        add_row(made, (one.value, one.n, *cells, f"{sure.low:.2f} to {sure.high:.2f}", one.mostly or None))
    made.caption, made.caption_justify = Text("interval: of the certified share, Wilson score"), "left"
    return made


def _by_part(report: Report, samples: Sequence[SampleReport], most: int | None, *, wide: bool) -> Table:
    """One row per sample whose outputs, labels or pixels have verdicts of their own."""
    made = table(("sample", "right"), ("verdict", "left"), ("margin", "right"))
    add_columns(made, ("certified", "right"), ("attacked", "right"), ("wrong before", "right"))
    add_columns(made, ("breaks", "right"), ("reason", "left"))
    if wide:
        add_columns(made, ("eps", "right"), ("method", "left"), ("confirmed by", "left"), ("seconds", "right"))
    for sample in samples[:most]:
        result = sample.results[0]
        found, parts = result.adversarial, result.parts
        cells: list[Cell] = [sample.index, in_colour(result.verdict, verdict_name(result.verdict))]
        cells += [figure(deciding_margin(result))]
        if parts is not None:
            cells += [f"{parts.certified}/{parts.n}", parts.falsified, parts.clean_wrong]
        broken = () if found is None else found.broken
        cells += [", ".join(map(str, broken[:3])) + (", ..." if len(broken) > 3 else "") or None]
        cells += [result.reason.value if result.reason else None]
        if wide:
            cells += [eps_text(report, result.eps), result.method]
            cells += [(", ".join(found.confirmed_by) or None) if found else None, figure(result.seconds)]
        add_row(made, cells)
    return made


def _by_verdict(report: Report, samples: Sequence[SampleReport], most: int | None, *, wide: bool) -> Table:
    """One row per sample, each of which was tried at one radius."""
    if any(sample.results[0].parts is not None for sample in samples):
        return _by_part(report, samples, most, wide=wide)
    made = table(("sample", "right"), ("label", "right"), ("predicts", "right"), ("verdict", "left"))
    add_columns(made, ("margin", "right"), ("becomes", "right"), ("reason", "left"))
    named = report.threat_model is not None and report.threat_model.features is not None
    perturbed = is_perturbed(report)
    counted = any(sample.results[0].queries is not None for sample in samples)
    add_columns(made, *((("changes", "left"),) if named else ()))
    if wide:
        changed = "parameters" if perturbed else "inputs changed"
        add_columns(made, ("eps", "right"), ("method", "left"), (changed, "right"))
        add_columns(made, ("confirmed by", "left"), *((("queries", "right"),) if counted else ()), ("seconds", "right"))
    for sample in samples[:most]:
        result = sample.results[0]
        found = result.adversarial
        cells: list[Cell] = [sample.index, sample.label, sample.predicted]
        cells += [in_colour(result.verdict, verdict_name(result.verdict)), figure(deciding_margin(result))]
        cells += [found.class_ if found else None, result.reason.value if result.reason else None]
        cells += [changes_text(found)] if named else []
        if wide:
            changed_by = parameters_text(result) if perturbed else found.l0 if found else None
            cells += [eps_text(report, result.eps), result.method, changed_by]
            cells += [(", ".join(found.confirmed_by) or None) if found else None]
            cells += [*([result.queries] if counted else []), figure(result.seconds)]
        add_row(made, cells)
    return made


def _reach(sample: SampleReport) -> Text:
    """Return how far a sample is certified, then how far nothing is known, as shares of the greatest radius."""
    greatest = max(result.eps for result in sample.results)
    proved, broken = largest_certified(sample) or 0.0, smallest_falsified(sample)
    if any(result.verdict is Verdict.CLEAN_WRONG for result in sample.results):
        broken = 0.0
    sure = math.floor(proved / greatest * REACH)
    perhaps = REACH if broken is None else math.floor(broken / greatest * REACH)
    return Text("=" * sure, "green") + Text("-" * max(0, perhaps - sure), "yellow")


def _by_radius(report: Report, samples: Sequence[SampleReport], most: int | None) -> Table:
    """One row per sample: the largest radius with a proof, the smallest with an attack.

    Where these were looked for, they are drawn up to the greatest radius as well.
    """
    searched = any(sample.largest is not None for sample in samples)
    made = table(("sample", "right"), ("label", "right"), ("predicts", "right"))
    add_columns(made, ("certified up to", "right"), ("attacked from", "right"))
    add_columns(made, ("up to eps", "left") if searched else ("radii undecided", "right"))
    for sample in samples[:most]:
        proved, broken = largest_certified(sample), smallest_falsified(sample)
        undecided = sum(result.verdict is Verdict.UNKNOWN for result in sample.results)
        below, above = (None if r is None else eps_text(report, r) for r in (proved, broken))
        if sample.largest is not None:
            below, above = None if proved is None else at_most(proved), None if broken is None else at_least(broken)
        attacked: Cell = None if above is None else in_colour(Verdict.FALSIFIED, above)
        if any(result.verdict is Verdict.CLEAN_WRONG for result in sample.results):
            attacked = in_colour(Verdict.CLEAN_WRONG, verdict_name(Verdict.CLEAN_WRONG))
        cells: list[Cell] = [sample.index, sample.label, sample.predicted]
        cells += [None if below is None else in_colour(Verdict.CERTIFIED, below), attacked]
        told = in_colour(Verdict.UNKNOWN, str(undecided)) if undecided else None
        cells += [_reach(sample) if searched else told]
        add_row(made, cells)
    return made
