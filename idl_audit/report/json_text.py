"""report.json as text: one document, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from idl_audit.report.schema import READ_VERSIONS, Report, SampleReport, ValidationError
from idl_audit.values.errors import InvalidInputError

_LONGEST = 300
_A_LINE = 20
"""Positions on a line."""


def to_json(report: Report) -> str:
    """Return the report as one JSON document in plain ASCII, with a newline at its end; `written` says how it looks."""
    return "".join(written(report))


def written(report: Report) -> Iterator[str]:
    """Yield the report as one JSON document, piece by piece: a report of many samples needs no second copy of them.

    It is indented by 2, but for what comes by thousands: a sample is a line, which leaves out what is as usual, and
    positions stand side by side.
    """
    document = report.model_dump(mode="json", by_alias=True, exclude={"samples"})
    begin = "{"
    for name in type(report).model_fields:
        yield f"{begin}\n  {json.dumps(name)}: "
        if name == "samples":
            yield from _listed(map(_line, report.samples))
        elif name == "data" and report.data is not None:
            yield _indented(_with_positions(document[name]))
        else:
            yield _indented(json.dumps(document[name], indent=2, allow_nan=False))
        begin = ","
    yield "\n}\n"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _listed(lines: Iterable[str]) -> Iterator[str]:
    begin = "["
    for line in lines:
        yield f"{begin}\n    {line}"
        begin = ","
    yield "[]" if begin == "[" else "\n  ]"


def _line(sample: SampleReport) -> str:
    text = sample.model_dump_json(by_alias=True, exclude_defaults=True)
    return text if text.isascii() else json.dumps(json.loads(text), separators=(",", ":"))


def _with_positions(data: dict[str, Any]) -> str:
    """Return the section on the data with many positions on a line."""
    rows = [data["indices"][at : at + _A_LINE] for at in range(0, len(data["indices"]), _A_LINE)]
    listed = ",\n    ".join(", ".join(map(str, row)) for row in rows)
    text = json.dumps(data | {"indices": []}, indent=2, allow_nan=False)
    return text.replace('"indices": []', f'"indices": [\n    {listed}\n  ]', 1) if rows else text


def from_json(text: str) -> Report:
    """Return the report that `text` holds; from_json(to_json(report)) == report.

    Raises:
        InvalidInputError: where the text is no JSON, of another schema version, or violates the schema.
    """
    try:
        return Report.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InvalidInputError(_sentence(text, error)) from None


def _sentence(text: str, error: ValidationError) -> str:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return "the report is no JSON document; give a report.json that idl-audit wrote with -f json or -o"
    if not isinstance(document, dict) or "schema_version" not in document:
        return "the report has no schema_version; give a report.json that idl-audit wrote with -f json or -o"
    version = document["schema_version"]
    if version not in READ_VERSIONS:
        return (
            f"the report has schema_version {_cut(repr(version))}, and this version of idl-audit reads "
            f"{' and '.join(map(repr, READ_VERSIONS))}; write it again with this version"
        )
    first, *others = error.errors(include_url=False, include_input=False, include_context=False)
    where = ".".join(str(key) for key in first["loc"]) or "the whole"
    what = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more)" if others else ""
    return f"the report does not fit schema {version} at {_cut(where)}: {_cut(what)}{more}; write it again"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
