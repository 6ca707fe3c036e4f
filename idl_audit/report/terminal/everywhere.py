"""Tables of statements over a whole range: the verdicts with their shares, and the largest open parts."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from idl_audit.report.schema import Everywhere, WholeStatement
from idl_audit.report.terminal.layout import Cell, Section, add_row, in_colour, table, verdict_name
from idl_audit.report.wording import limits_text, plain, share_text

MOST_PARTS = 5
"""Open parts of a statement in a table that is not verbose."""


def everywhere_sections(found: Everywhere, most: int | None) -> Iterable[Section]:
    """Yield the sections of `certify --everywhere`; `most` limits the rows of open parts."""
    rows = table(("statement", "left"), ("verdict", "left"), ("holds", "right"), ("fails", "right"), ("open", "right"))
    for title in ("parts", "s"):
        rows.add_column(title, justify="right")
    for one in found.statements:
        seconds = "" if one.seconds is None else f"{one.seconds:.2f}"
        shares = [share_text(value) for value in (one.holding, one.failing, one.open)]
        made: list[Cell] = [plain(one.text), in_colour(one.verdict, verdict_name(one.verdict)), *shares]
        add_row(rows, (*made, f"{one.n_parts:,}", seconds))
    yield "Statements, and the share of the range in which each is proved to hold, or to fail", rows
    for one in found.statements:
        if one.witness is not None:
            yield f"It does not hold: {plain(one.text)}", Text(_witness(one))
        if one.open_parts:
            parts = table(("share", "right"), ("where", "left"))
            shown = most if most is None else min(most, MOST_PARTS)
            for part in one.open_parts[:shown]:
                add_row(parts, (share_text(part.share), limits_text(part.limits)))
            count = len(one.open_parts[:shown])
            yield f"Open, {count} of {one.n_open:,} parts, the largest first: {plain(one.text)}", parts


def _witness(one: WholeStatement) -> str:
    assert one.witness is not None
    found = one.witness
    where = ", ".join(f"{plain(name)} {plain(value)}" for name, value in found.told)
    where = where or ", ".join(f"{value:.6g}" for value in found.point[:12]) + (
        ", ..." if len(found.point) > 12 else ""
    )
    outputs = ", ".join("no number" if value is None else f"{value:.6g}" for value in found.outputs[:10])
    if not found.second:
        return f"at {where}: outputs {outputs}"
    moved = [k for k, (a, b) in enumerate(zip(found.point, found.second, strict=True)) if a != b]
    ends = "".join(f", where {found.point[k]:.6g} becomes {found.second[k]:.6g}" for k in moved[:1])
    return f"at {where}{ends}: the score is {outputs.replace(', ', ', then ')}"
