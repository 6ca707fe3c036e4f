"""Tables of monotonicity: the counts per radius, and the samples, those that go the wrong way first."""

from __future__ import annotations

from collections.abc import Iterable

from idl_audit.report.schema import Monotonicity, Report, Verdict
from idl_audit.report.terminal.layout import Cell, Section, add_row, heading, in_colour, table, verdict_name
from idl_audit.report.wording import eps_text, figure, input_name, percent, plain

_ORDER = (Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.CERTIFIED)


def monotone_sections(report: Report, found: Monotonicity, most: int | None) -> Iterable[Section]:
    """Yield the sections of `certify --monotone`; `most` limits the rows of samples."""
    way = "never falls" if found.direction == "+" else "never rises"
    counts = table(("eps", "right"), ("n", "right"), *((verdict_name(verdict), "right") for verdict in _ORDER[::-1]))
    for entry in found.per_eps:
        each = {
            Verdict.CERTIFIED: entry.certified,
            Verdict.FALSIFIED: entry.falsified,
            Verdict.UNKNOWN: entry.unknown,
        }
        cells = [in_colour(verdict, f"{each[verdict]} ({percent(each[verdict], entry.n)})") for verdict in _ORDER[::-1]]
        add_row(counts, (eps_text(report, entry.eps), entry.n, *cells))
    yield f"{plain(found.score)} {way} while input {input_name(report.model, found.input)} rises", counts
    rows = table(("sample", "right"), ("eps", "right"), ("verdict", "left"), ("from", "right"), ("to", "right"))
    for title in ("score", "becomes", "slope proved", "parts"):
        rows.add_column(title, justify="right")
    rows.add_column("reason", overflow="fold")
    pairs = [(sample, result) for sample in found.samples for result in sample.results]
    for sample, result in sorted(pairs, key=lambda pair: _ORDER.index(pair[1].verdict))[:most]:
        two = result.found
        made: list[Cell] = [sample.index, eps_text(report, result.eps)]
        made += [in_colour(result.verdict, verdict_name(result.verdict))]
        made += [None] * 4 if two is None else [figure(two.low), figure(two.high)]
        made += [] if two is None else [f"{two.score_low:.6g}", f"{two.score_high:.6g}"]
        made += [figure(result.slope), result.parts, None if result.reason is None else result.reason.value]
        add_row(rows, made)
    if pairs:
        yield heading("Samples", len(pairs), most), rows
