"""The report as SARIF 2.1.0 (OASIS, 2020): what views of code scanning show, and follow from one commit to the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from idl_audit.report.codes import CODES
from idl_audit.report.render.annotations import Annotation, subject_of, told_of
from idl_audit.report.schema import Report
from idl_audit.report.wording import plain

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "gate": "a rule of the gate does not hold",
        "verification": "a proof was refused",
        "incomplete-report": "not all of the audit was done",
        "falsified": "samples can be attacked: the original network misclassifies an input of the set",
        "two-networks": "two networks have two classes",
        "monotonicity": "a score goes the wrong way",
        "everywhere": "a statement over the whole range of the inputs does not hold",
        "not-judged": "a property could not be judged",
        "contradiction": "a verdict contradicts the truth that was given",
        "property-violated": "a property has a counterexample",
        "summary": "what was found",
    }
)
"""Rule -> what it says; the others are diagnostics, by their codes."""
LEVELS: Final = MappingProxyType({"error": "error", "warning": "warning", "notice": "note"})


def to_sarif(report: Report) -> str:
    """Return the report as SARIF: a result for each thing that the annotations tell, at the model's file.

    A result's fingerprint is made of its rule and its title, so that the same finding of the next commit is the same.
    """
    told = list(told_of(report))
    names = list(dict.fromkeys(one.rule for one in told))
    file = subject_of(report)
    results = [_result(one, names.index(one.rule), file) for one in told]
    driver = {
        "name": "idl-audit",
        "version": report.tool.version,
        "rules": [{"id": name, "shortDescription": {"text": _meaning(name)}} for name in names],
    }
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": report.status == "complete"}],
        "results": results,
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _meaning(rule: str) -> str:
    return RULES[rule] if rule in RULES else CODES[rule].title if rule in CODES else rule


def _result(told: Annotation, place: int, file: str | None) -> dict[str, Any]:
    same = hashlib.sha256(f"{told.rule}\0{told.title}".encode("utf-8", "replace")).hexdigest()
    found: dict[str, Any] = {
        "ruleId": told.rule,
        "ruleIndex": place,
        "level": LEVELS[told.level],
        "message": {"text": f"{plain(told.title)}: {plain(told.message, longest=2000)}"},
        "partialFingerprints": {"idlAudit/v1": same},
    }
    if told.suppressed is not None:
        found["suppressions"] = [{"kind": "external", "justification": plain(told.suppressed, longest=1000)}]
    if file is not None:
        where = {"artifactLocation": {"uri": quote(file)}, "region": {"startLine": 1}}
        found["locations"] = [{"physicalLocation": where}]
    return found
