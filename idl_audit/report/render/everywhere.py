"""The section on statements over a whole range of inputs."""

from __future__ import annotations

from collections.abc import Iterator

from idl_audit.report.render.parts import Cell, Name, PairList, Pairs, Section, Stack, Table, table, verdict_mark
from idl_audit.report.schema import Report
from idl_audit.report.wording import limits_text, share_text

PARTS_PER_MILLE = 1000


def everywhere_section(report: Report) -> Iterator[Section]:
    """Yield each statement with its shares, where it does not hold, and what is open."""
    found = report.everywhere
    if found is None:
        return
    pairs = PairList()
    pairs.add("range of every input", None if found.bounds is None else f"{found.bounds[0]:g} to {found.bounds[1]:g}")
    pairs.add("features", None if found.features is None else Name(found.features))
    pairs.add("certified speaks of", "real arithmetic")
    rows: list[tuple[Cell, ...]] = []
    for one in found.statements:
        counts = tuple(round(PARTS_PER_MILLE * share) for share in (one.holding, one.failing, one.open))
        bar = Stack(
            (("certified", "holds", counts[0]), ("falsified", "fails", counts[1]), ("unknown", "open", counts[2]))
        )
        shares = [share_text(value) for value in (one.holding, one.failing, one.open)]
        why = one.method if one.reason is None else one.reason.value
        rows.append((one.text, verdict_mark(one.verdict), bar, *shares, one.n_parts, why))
    titles = ("statement", "verdict", "", ">holds", ">fails", ">open", ">parts", "reason or method")
    note = "Shares of the volume of the range, of whole numbers and categories by their count; each is proved."
    body: list[Pairs | Table] = [pairs.done(), table("Statements", titles, rows, note=note)]
    wrong: list[tuple[Cell, ...]] = []
    for one in found.statements:
        for name, value in () if one.witness is None else one.witness.told:
            wrong.append((one.text, name, value))
    if wrong:
        body.append(table("Where they do not hold", ("statement", "feature", "value"), wrong))
    for one in found.statements:
        if one.open_parts:
            parts = [(share_text(part.share), limits_text(part.limits)) for part in one.open_parts]
            body.append(table(f"Open, the largest of {one.n_open:,}: {one.text}", (">share", "where"), parts))
    if found.ranges:
        ranges: list[tuple[Cell, ...]] = [(one.name, limits_text((one,))) for one in found.ranges]
        body.append(table("Ranges", ("feature", "values"), ranges))
    yield Section("everywhere", "Everywhere", tuple(body))
