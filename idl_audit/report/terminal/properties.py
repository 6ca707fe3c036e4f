"""The table of properties: truth, ours, seconds, method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Final

from rich.text import Text

from idl_audit.report.schema import PropertyReport, PropertyResult, Report
from idl_audit.report.terminal.layout import Section, add_columns, add_row, heading, table
from idl_audit.report.wording import in_arithmetic, plain

_COLOURS: Final[Mapping[PropertyResult, str]] = MappingProxyType(
    {"unsat": "green", "sat": "red", "unknown": "yellow", "timeout": "yellow"}
)


def property_sections(report: Report, most: int | None, *, wide: bool) -> Iterable[Section]:
    """Yield the table of all properties; the folders of their files only where there is room."""
    truth = any(entry.truth is not None for entry in report.properties)
    rows = table(("network", "left"), ("property", "left"))
    if truth:
        add_columns(rows, ("truth", "left"))
    add_columns(rows, ("ours", "left"), ("seconds", "right"), ("method", "left"))
    for column in rows.columns[2:]:
        column.no_wrap = True
    for entry in report.properties[:most]:
        names = (entry.onnx, entry.vnnlib) if wide else (PurePath(entry.onnx).name, PurePath(entry.vnnlib).name)
        seconds = None if entry.seconds is None else f"{entry.seconds:.2f}"
        known = [entry.truth] if truth else []
        add_row(rows, (*map(plain, names), *known, _ours(entry), seconds, entry.method))
    yield heading(f"Properties{in_arithmetic(report)}", len(report.properties), most), rows


def _ours(entry: PropertyReport) -> Text:
    if {entry.result, entry.truth} == {"sat", "unsat"}:
        return Text(f"{entry.result} (WRONG)", style="bold white on red")
    if entry.problem is not None:
        return Text("not judged", style="bold red")
    return Text(entry.result, style=_COLOURS[entry.result])
