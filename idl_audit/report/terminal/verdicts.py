"""Tables of verdicts: the counts per radius, why some are undecided, and the samples, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from idl_audit.report.by_class import by_class, told_radii
from idl_audit.report.schema import Report, SampleReport, Summary, Verdict
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
from idl_audit.report.wording import REASONS, eps_text, figure, is_perturbed, parameters_text, percent
from idl_audit.report.worst_first import deciding_margin, largest_certified, smallest_falsified, worst_first


def verdict_sections(report: Report, summary: Summary, most: int | None, *, wide: bool) -> Iterable[Section]:
    """Yield the sections of `attack` and `certify`; `most` limits the rows of samples, `wide` adds columns."""
    yield "Verdicts", _counts(report, summary)
    reasons = Counter(result.reason for sample in report.samples for result in sample.results if result.reason)
    if reasons:
        why = table(("reason", "left"), ("verdicts", "right"), ("what it means", "left"))
        for reason, count in reasons.most_common():
            add_row(why, (in_colour(Verdict.UNKNOWN, reason.value), count, REASONS[reason]))
        yield "Why undecided", why
    for eps in told_radii(report) if most is None else ():
        yield f"By class, the frailest first, at eps {eps_text(report, eps)}", _classes(report, eps)
    tried = worst_first(report.samples)
    if tried:
        several = any(len(sample.results) > 1 for sample in tried)
        body = _by_radius(report, tried, most) if several else _by_verdict(report, tried, most, wide=wide)
        yield heading("Samples, worst first", len(tried), most), body


def _counts(report: Report, summary: Summary) -> Table:
    made = table(("eps", "right"), ("n", "right"), *((verdict_name(verdict), "right") for verdict in Verdict))
    for entry in summary.per_eps:
        counts = {
            Verdict.CERTIFIED: entry.certified,
            Verdict.FALSIFIED: entry.falsified,
            Verdict.UNKNOWN: entry.unknown,
            Verdict.CLEAN_WRONG: entry.clean_wrong,
        }
        cells = [in_colour(verdict, f"{counts[verdict]} ({percent(counts[verdict], entry.n)})") for verdict in Verdict]
        add_row(made, (eps_text(report, entry.eps), entry.n, *cells))
    if summary.clean is not None:
        clean = summary.clean
        made.caption = Text(f"clean accuracy: {clean.k} of {clean.n} ({percent(clean.k, clean.n)})")
        made.caption_justify = "left"
    return made


def _classes(report: Report, eps: float) -> Table:
    made = table(("class", "right"), ("n", "right"), *((verdict_name(verdict), "right") for verdict in Verdict))
    add_columns(made, ("becomes", "left"))
    for one in by_class(report, eps):
        cells = [in_colour(verdict, str(one.counts[verdict])) for verdict in Verdict]
        add_row(made, (one.label, one.n, *cells, one.mostly or None))
    return made


def _by_verdict(report: Report, samples: Sequence[SampleReport], most: int | None, *, wide: bool) -> Table:
    """One row per sample, each of which was tried at one radius."""
    made = table(("sample", "right"), ("label", "right"), ("predicts", "right"), ("verdict", "left"))
    add_columns(made, ("margin", "right"), ("becomes", "right"), ("reason", "left"))
    perturbed = is_perturbed(report)
    if wide:
        changed = "parameters" if perturbed else "inputs changed"
        add_columns(made, ("eps", "right"), ("method", "left"), (changed, "right"))
        add_columns(made, ("confirmed by", "left"), ("seconds", "right"))
    for sample in samples[:most]:
        result = sample.results[0]
        found = result.adversarial
        cells: list[Cell] = [sample.index, sample.label, sample.predicted]
        cells += [in_colour(result.verdict, verdict_name(result.verdict)), figure(deciding_margin(result))]
        cells += [found.class_ if found else None, result.reason.value if result.reason else None]
        if wide:
            changed_by = parameters_text(result) if perturbed else found.l0 if found else None
            cells += [eps_text(report, result.eps), result.method, changed_by]
            cells += [(", ".join(found.confirmed_by) or None) if found else None, figure(result.seconds)]
        add_row(made, cells)
    return made


def _by_radius(report: Report, samples: Sequence[SampleReport], most: int | None) -> Table:
    """One row per sample: the largest radius with a proof, the smallest with an attack."""
    made = table(("sample", "right"), ("label", "right"), ("predicts", "right"))
    add_columns(made, ("certified up to", "right"), ("attacked from", "right"), ("radii undecided", "right"))
    for sample in samples[:most]:
        proved, broken = largest_certified(sample), smallest_falsified(sample)
        undecided = sum(result.verdict is Verdict.UNKNOWN for result in sample.results)
        attacked: Cell = None if broken is None else in_colour(Verdict.FALSIFIED, eps_text(report, broken))
        if any(result.verdict is Verdict.CLEAN_WRONG for result in sample.results):
            attacked = in_colour(Verdict.CLEAN_WRONG, verdict_name(Verdict.CLEAN_WRONG))
        cells: list[Cell] = [sample.index, sample.label, sample.predicted]
        cells += [None if proved is None else in_colour(Verdict.CERTIFIED, eps_text(report, proved)), attacked]
        cells += [in_colour(Verdict.UNKNOWN, str(undecided)) if undecided else None]
        add_row(made, cells)
    return made
