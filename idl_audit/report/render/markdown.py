"""The report as GitHub-flavoured Markdown: for the summary of a job, a pull request, a wiki."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from idl_audit.report.render.parts import (
    Cell,
    Column,
    Detail,
    Heat,
    Jump,
    Mark,
    Name,
    Pairs,
    Section,
    Share,
    Stack,
    Table,
)
from idl_audit.report.render.sections import sections
from idl_audit.report.schema import Report
from idl_audit.report.wording import plain, verdict_sentence

MARK: Final = "<!-- idl-audit report -->"
"""The first line of every report in Markdown; it is not shown."""

MOST_ROWS: Final = 20
FOLDED: Final = frozenset({"samples", "model", "provenance", "bounds", "sensitivity"})
"""Sections that are folded away at first."""

_SPECIAL = re.compile(
    r"[\\`*_{}\[\]#!|~$^]"  # wherever they stand
    r"|:(?=[\w+-])"  # :smile:
    r"|^[-+=:]|(?:(?<=^\d)|(?<=^\d\d)|^\d{3,9})[.)](?=\s|$)"  # lists, rules and headings at the start of a line
)
_JOINER = "\u2060"
"""No width, no break: a name behind @ and a number behind # are no longer a mention or a link."""


def to_markdown(report: Report) -> str:
    """Return the report as Markdown; no string of it is read as markup, link, picture, mention or HTML."""
    lines = [MARK, f"## {text(report.tool.name)}", "", f"**{text(verdict_sentence(report))}**", ""]
    for section in sections(report):
        if all(isinstance(part, Detail) for part in section.body):
            continue  # a summary has no room for them
        lines += [*_section(section), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def text(value: object) -> str:
    """Return a string that is shown as it is: one line, every character with a meaning escaped."""
    safe = plain(value, longest=1000).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # entities first: the ampersand of theirs must stay, and no escape below touches it
    safe = _SPECIAL.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", safe)
    safe = re.sub(r"@(?=\w)|\\#(?=\w)", lambda found: found[0] + _JOINER, safe)
    return re.sub(r"(?i)(www(?=\.)|(?:https?|ftp|mailto|xmpp)(?=\\?:))", rf"\1{_JOINER}", safe)


def code(value: object) -> str:
    """Return a string as code: within a fence of more backticks than it has in a row itself."""
    safe = plain(value, longest=1000).replace("|", "\\|").replace("##[", "## [").strip()
    if not safe:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", safe)), default=0))
    space = " " if "`" in (safe[0], safe[-1]) else ""
    return f"{fence}{space}{safe}{space}{fence}"


def _section(section: Section) -> Iterator[str]:
    folded = section.key in FOLDED
    if folded:
        yield f"<details><summary><b>{text(section.title)}</b></summary>"
    else:
        yield f"### {text(section.title)}"
    yield ""
    if section.intro:
        yield from (text(section.intro), "")
    for part in section.body:
        if not isinstance(part, Detail):
            yield from _pairs(part) if isinstance(part, Pairs) else _table(part)
            yield ""
    if folded:
        yield "</details>"


def _pairs(pairs: Pairs) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    for name, value in pairs.rows:
        yield f"| {text(name)} | {_cell(value)} |"


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        return
    kept = [place for place in range(len(table.columns)) if not isinstance(table.rows[0][place], Stack)]
    heads = [table.columns[place] for place in kept]
    yield from (f"**{text(table.caption)}**", "")
    yield f"| {' | '.join(text(column.title) for column in heads)} |"
    yield f"|{'|'.join(map(_rule, heads))}|"
    for row in table.rows[:MOST_ROWS]:
        yield f"| {' | '.join(_cell(row[place]) for place in kept)} |"
    left = len(table.rows) - MOST_ROWS
    note = f"{left} more in the report. " if left > 0 else ""
    if note or table.note:
        yield from ("", text(note + table.note))


def _rule(column: Column) -> str:
    return "---:" if column.right else "---"


def _cell(cell: Cell) -> str:
    match cell:
        case None:
            return "\\-"
        case Mark():
            return f"**{text(cell.text)}**"
        case Name():
            return code(cell.text)
        case Share() | Stack() | Heat() | Jump():
            return text(cell.text)
        case _:
            return text(cell)
