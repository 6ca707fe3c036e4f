"""Sections on what was decided: the gate, counts per radius, why some are open, every sample, properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

from idl_audit.report.groups import groupings
from idl_audit.report.known import entry_name, verdicts_of
from idl_audit.report.radius_curve import radius_curve
from idl_audit.report.render.details import detailed
from idl_audit.report.render.parts import (
    VERDICTS,
    Cell,
    Dot,
    Jump,
    Kind,
    Mark,
    Name,
    PairList,
    Section,
    Share,
    Stack,
    Table,
    table,
    verdict_mark,
)
from idl_audit.report.schema import EpsSummary, PropertyResult, Report, SampleReport, SampleResult, Verdict
from idl_audit.report.wording import (
    OBJECTIVES,
    PARTS,
    REASONS,
    at_least,
    at_most,
    changes_text,
    eps_text,
    figure,
    in_arithmetic,
    interval,
    is_perturbed,
    parameters_text,
    percent,
)
from idl_audit.report.worst_first import (
    deciding_margin,
    farthest_first,
    has_radii,
    largest_certified,
    smallest_falsified,
    worst_first,
)
from idl_audit.values.columns import CLASS

FEW_RADII = 3
"""Up to so many radii, verdicts are told in words among the samples."""
MOST_SAMPLES = 5000
"""So many are listed; the rest stays in the JSON."""
MANY_RADII = 24
"""Up to so many, each has a column of its own."""

_STATES: dict[str, Kind] = {"apart": "quiet", "expired": "error", "absent": "warning"}
_RESULTS: dict[PropertyResult, Kind] = {
    "unsat": "certified",
    "sat": "falsified",
    "unknown": "unknown",
    "timeout": "unknown",
}


def gate_section(report: Report) -> Iterator[Section]:
    """Yield the rules with their outcome."""
    if report.gate is None:
        return
    rows = []
    for rule in report.gate.rules:
        failed: Kind = "error" if rule.level == "error" else "warning"
        outcome = Mark("holds", "good") if rule.passed else Mark("fails" if rule.level == "error" else "warns", failed)
        counted = None if rule.k is None or rule.n is None else f"{rule.k} of {rule.n}"
        rows.append((outcome, Name(rule.rule), rule.expected, rule.found, counted))
    rules = table("Rules", ("outcome", "rule", "expected", "found", ">counts"), rows, shown=100)
    attacked = [
        (entry.index, eps_text(report, entry.eps), verdict_mark(entry.before)) for entry in report.gate.newly_falsified
    ]
    title = "Attacked now, and not in the baseline"
    newly = (table(title, (">sample", ">eps", "before"), attacked),) if attacked else ()
    listed = [
        (
            Mark(entry.state, _STATES[entry.state]),
            entry_name(entry),
            entry.reason,
            entry.until,
            verdicts_of(report, entry),
        )
        for entry in report.gate.known
    ]
    title = "Known samples: those that are apart no rule counts"
    apart = (table(title, ("", "samples", "reason", "until", "verdicts"), listed, shown=100),) if listed else ()
    against = "" if report.gate.baseline is None else f"Compared with the baseline {report.gate.baseline}."
    since = "" if report.gate.baseline is None else "Since then: "
    against = " ".join([*filter(None, [against]), *(f"{since}{note}." for note in report.gate.notes)])
    yield Section("gate", "Gate", (rules, *newly, *apart), against)


def verdict_section(report: Report) -> Iterator[Section]:
    """Yield counts per radius, and why verdicts are open."""
    if report.summary is not None and report.summary.per_eps:
        entries = sorted(report.summary.per_eps, key=lambda entry: entry.eps)
        yield Section("verdicts", "Verdicts", (_counts(report, entries), *_over_eps(report), *_reasons(report)))


def sample_section(report: Report) -> Iterator[Section]:
    """Yield the samples, worst first."""
    tried = worst_first(report.samples)
    if tried:
        several = has_radii(tried)
        listed = tried[:MOST_SAMPLES]
        body = _by_radius(report, listed) if several else _by_verdict(report, listed)
        left = len(tried) - len(listed)
        intro = f"The worst {len(listed):,} of {len(tried):,}; the others are in the report's JSON." if left else ""
        yield Section("samples", "Samples, worst first", (body,), intro)
        yield from _outputs(report, listed)


def _over_eps(report: Report) -> Iterator[Table]:
    """Yield the shares of samples that are certified, and not attacked, at radii that a search has found."""
    points = radius_curve(report)
    if points:
        rows = [(f"{p.eps:.3g}", f"{100 * p.certified:.1f} %", f"{100 * p.attacked:.1f} %") for p in points]
        yield table("Shares of samples over eps", (">eps", ">certified", ">no attack found"), rows, shown=100)


def _outputs(report: Report, samples: list[SampleReport]) -> Iterator[Section]:
    """Yield the verdict and the proved interval of every output with limits, and of every label."""
    rows: list[tuple[Cell, ...]] = []
    for sample in samples:
        for result in sample.results:
            for one in result.outputs:
                proved = None if one.least is None and one.greatest is None else interval(one.least, one.greatest)
                cells = (sample.index, eps_text(report, result.eps), one.output, verdict_mark(one.verdict), proved)
                rows.append(cells)
    if rows:
        titles = (">sample", ">eps", ">output", "verdict", ">proved interval")
        note = "No input of the set has the output outside its proved interval."
        made = table("Outputs", titles, rows, note=note)
        yield Section("outputs", "Outputs with limits, worst samples first", (made,))


def _counts(report: Report, entries: list[EpsSummary]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for entry in entries:
        counts = {verdict: getattr(entry, verdict.value) for verdict in Verdict}
        cells = [f"{count} ({percent(count, entry.n)})" for count in counts.values()]
        bar = Stack(tuple((VERDICTS[verdict], verdict_mark(verdict).text, count) for verdict, count in counts.items()))
        cells += [] if entry.parts is None else [f"{entry.parts.certified} of {entry.parts.n}"]
        rows.append((eps_text(report, entry.eps), bar, entry.n, *cells))
    clean = report.summary.clean if report.summary is not None else None
    note = "" if clean is None else f"Clean accuracy: {clean.k} of {clean.n} ({percent(clean.k, clean.n)})."
    titles = [">eps", "", ">n", *(f">{verdict_mark(verdict).text}" for verdict in Verdict)]
    if any(entry.parts is not None for entry in entries) and report.demand is not None:
        titles.append(f">{PARTS[report.demand.kind]} certified")
    return table("Counts at each radius", titles, rows, note=note, shown=100)


def _reasons(report: Report) -> Iterator[Table]:
    reasons = Counter(result.reason for sample in report.samples for result in sample.results if result.reason)
    if reasons:
        rows = [(Mark(reason.value, "unknown"), count, REASONS[reason]) for reason, count in reasons.most_common()]
        yield table("Why verdicts are unknown", ("reason", ">verdicts", "what it means"), rows)


def _by_verdict(report: Report, samples: list[SampleReport]) -> Table:
    """One row per sample, each of which was tried at one radius."""
    rows: list[tuple[Cell, ...]] = []
    named = report.threat_model is not None and report.threat_model.features is not None
    perturbed = is_perturbed(report)
    who = _Who(report)
    for sample in samples:
        result = sample.results[0]
        parts: tuple[Cell, ...] = ()
        if result.parts is not None:
            parts = (f"{result.parts.certified} of {result.parts.n}", result.parts.falsified)
        more: tuple[Cell, ...] = (changes_text(result.adversarial),) if named else ()
        more += (parameters_text(result),) if perturbed else ()
        rows.append((*who.cells(sample), verdict_mark(result.verdict), *parts, *_why(result), *more))
    noun = PARTS.get(report.demand.kind) if report.demand is not None else None
    of_parts = (f">{noun} certified", ">attacked") if noun else ()
    titles = (
        *(*who.titles, "verdict", *of_parts),
        *(">margin", ">becomes", "reason or method", ">seconds"),
        *(("changes",) if named else ()),
        *((">parameters",) if perturbed else ()),
    )
    caption = f"Samples at eps {eps_text(report, samples[0].results[0].eps)}"
    return table(caption, titles, rows, note=_MARGIN, searched=True)


def _by_radius(report: Report, samples: list[SampleReport]) -> Table:
    """One row per sample: the verdict at each radius, or where there are many, the radii that matter."""
    radii = sorted({result.eps for sample in samples for result in sample.results})
    searched = any(sample.largest is not None for sample in samples)
    few, each = len(radii) <= FEW_RADII and not searched, len(radii) <= MANY_RADII and not searched
    rows: list[tuple[Cell, ...]] = []
    who = _Who(report)
    for sample in samples:
        marks = {result.eps: verdict_mark(result.verdict) for result in sample.results}
        dots = {eps: mark if few else Dot(mark.text, mark.kind) for eps, mark in marks.items()}
        proved, broken = largest_certified(sample), smallest_falsified(sample)
        limits: list[Cell] = [None if value is None else eps_text(report, value) for value in (proved, broken)]
        if sample.largest is not None:
            limits = [
                None if proved is None else Share(at_most(proved), proved / radii[-1]),
                None if broken is None else Share(at_least(broken), broken / radii[-1]),
            ]
        wrong = Verdict.CLEAN_WRONG in {result.verdict for result in sample.results}
        cells: list[Cell] = [dots.get(radius) for radius in radii] if each else []
        cells += [] if few else [limits[0], verdict_mark(Verdict.CLEAN_WRONG) if wrong else limits[1]]
        rows.append((*who.cells(sample), *cells))
    titles = (
        [f"eps {eps_text(report, radius)}" if few else eps_text(report, radius) for radius in radii] if each else []
    )
    titles += [] if few else [">certified up to", ">attacked from"]
    return table("Samples", (*who.titles, *titles), rows, searched=True)


_MARGIN = "Margin: that of the adversarial input where there is one, else the proved lower bound over the whole set."


class _Who:
    """The first cells of a sample: its number, which leads to its details, its label, its class, its groups."""

    def __init__(self, report: Report) -> None:
        self._keys = detailed(report)
        self._columns = [name for name in groupings(report) if name != CLASS]

    @property
    def titles(self) -> tuple[str, ...]:
        return (">sample", ">label", ">predicted", *self._columns)

    def cells(self, sample: SampleReport) -> tuple[Cell, ...]:
        key = self._keys.get(sample.index)
        index = sample.index if key is None else Jump(str(sample.index), key)
        return index, sample.label, sample.predicted, *(sample.groups.get(name) for name in self._columns)


def _why(result: SampleResult) -> tuple[Cell, ...]:
    margin = deciding_margin(result)
    why = result.reason.value if result.reason is not None else result.method
    becomes = None if result.adversarial is None else result.adversarial.class_
    return None if margin is None else figure(margin), becomes, why, _seconds(result.seconds)


def objective_section(report: Report) -> Iterator[Section]:
    """Yield how far the objective moved around each sample, and how far it provably cannot, farthest first."""
    entries = farthest_first(report.objectives)
    if not entries:
        return
    largest = entries[0].sense == "largest"
    rows: list[tuple[Cell, ...]] = []
    for entry in entries:
        values = (figure(entry.at_sample), figure(entry.reached), figure(entry.proved))
        why = entry.method if entry.reason is None else entry.reason.value
        rows.append((entry.index, eps_text(report, entry.eps), *values, why, _seconds(entry.seconds)))
    proved = ">proved at most" if largest else ">proved at least"
    titles = (">sample", ">eps", ">at the sample", f">{entries[0].sense} found", proved, "method or reason", ">seconds")
    what = OBJECTIVES.get(entries[0].objective)
    pairs = PairList()
    pairs.add("objective", Name(entries[0].objective) if what is None else what)
    yield Section("objectives", "Objective, farthest first", (pairs.done(), table("Samples", titles, rows)))


def property_section(report: Report) -> Iterator[Section]:
    """Yield the table of VNN-LIB properties: truth, ours, seconds, method."""
    if not report.properties:
        return
    known = any(entry.truth is not None for entry in report.properties)
    rows: list[tuple[Cell, ...]] = []
    for entry in report.properties:
        wrong = {entry.result, entry.truth} == {"sat", "unsat"}
        ours = Mark(f"{entry.result} (WRONG)", "error") if wrong else Mark(entry.result, _RESULTS[entry.result])
        if entry.problem is not None:
            ours = Mark("not judged", "error")
        truth: list[Cell] = [entry.truth] if known else []
        files = Name(PurePath(entry.onnx).name), Name(PurePath(entry.vnnlib).name)
        rows.append((*files, *truth, ours, _seconds(entry.seconds), entry.method))
    titles = ("network", "property", *(["truth"] if known else []), "result", ">seconds", "method")
    note = "sat: a counterexample was found and the original network confirms it; unsat: proved that there is none."
    yield Section(
        "properties", "Properties", (table(f"Properties{in_arithmetic(report)}", titles, rows, note=note, shown=50),)
    )


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
