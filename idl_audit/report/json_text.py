"""report.json as text: one document, and the way back."""

from __future__ import annotations

import json

from idl_audit.report.schema import READ_VERSIONS, Report, ValidationError
from idl_audit.values.errors import InvalidInputError

_LONGEST = 300


def to_json(report: Report) -> str:
    """Return the report as one JSON document, indented by 2, in plain ASCII, with a newline at its end."""
    return json.dumps(report.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False) + "\n"


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
