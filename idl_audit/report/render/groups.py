"""Sections on verdicts by class and by columns of the data, and on which class becomes which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from idl_audit.report.groups import by_group, confusion, groupings, told_radii
from idl_audit.report.render.parts import VERDICTS, Cell, Heat, Section, Stack, Table, table, verdict_mark
from idl_audit.report.schema import Report, Verdict
from idl_audit.report.shares import wilson
from idl_audit.report.wording import eps_text, percent
from idl_audit.values.columns import CLASS

MOST_CONFUSED: Final = 16
"""So many classes have a row or a column; the others share one."""
OTHERS: Final = "others"


def group_sections(report: Report) -> Iterator[Section]:
    """Yield a section for each column that samples are grouped by, and for their classes."""
    for place, column in enumerate(groupings(report)):
        tables = tuple(_groups(report, column, eps) for eps in told_radii(report))
        if column == CLASS:
            yield Section("classes", "By class", (*tables, *_confusions(report)))
        else:
            yield Section(f"group-{place}", f"By {column}", tables)


def _groups(report: Report, column: str, eps: float) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in by_group(report, column, eps):
        bar = Stack(tuple((VERDICTS[verdict], verdict_mark(verdict).text, one.counts[verdict]) for verdict in Verdict))
        interval = wilson(one.counts[Verdict.CERTIFIED], one.n)
        share = f"{percent(one.counts[Verdict.CERTIFIED], one.n)} ({interval.low:.2f} to {interval.high:.2f})"
        counts = [one.counts[verdict] for verdict in Verdict]
        rows.append((one.value, bar, one.n, share, *counts, one.mostly or None))
    titles = (
        f"{'>' if column == CLASS else ''}{column}",
        "",
        ">n",
        ">certified (95 %)",
        *(f">{verdict_mark(verdict).text}" for verdict in Verdict),
        "becomes",
    )
    what = "Classes" if column == CLASS else f"Groups of {column}"
    return table(f"{what} at eps {eps_text(report, eps)}, the frailest first", titles, rows, shown=20)


def _confusions(report: Report) -> Iterator[Table]:
    """Yield at the last radius with an attack which class becomes which."""
    for eps in reversed(told_radii(report)):
        found = confusion(report, eps)
        if found:
            yield _confusion(report, eps, Counter(found))
            return


def _confusion(report: Report, eps: float, found: Counter[tuple[int, int]]) -> Table:
    of, becomes = Counter[int](), Counter[int]()
    for (label, after), count in found.items():
        of[label] += count
        becomes[after] += count
    rows_of, columns_of = _most(of), _most(becomes)
    cells: Counter[tuple[int | None, int | None]] = Counter()
    for (label, after), count in found.items():
        cells[label if label in rows_of else None, after if after in columns_of else None] += count
    largest = max(cells.values())
    left = [None] if len(columns_of) < len(becomes) else []
    columns: list[int | None] = [*columns_of, *left]
    labels: list[int | None] = [*rows_of, *([None] if len(rows_of) < len(of) else [])]
    rows: list[tuple[Cell, ...]] = []
    for of_class in labels:
        name = OTHERS if of_class is None else str(of_class)
        each = [_heat(cells[of_class, after], largest) for after in columns]
        rows.append((name, *each, sum(cells[of_class, after] for after in columns)))
    titles = (">class", *(f">{OTHERS if after is None else f'to {after}'}" for after in columns), ">attacked")
    note = "Attacked samples, by their class and by the class that the attack gives them."
    return table(f"Which class becomes which at eps {eps_text(report, eps)}", titles, rows, note=note)


def _heat(count: int, largest: int) -> Cell:
    return Heat(str(count), count / largest) if count else None


def _most(counts: Counter[int]) -> list[int]:
    """Return the classes that count most, in order."""
    return sorted(label for label, _ in counts.most_common(MOST_CONFUSED))
