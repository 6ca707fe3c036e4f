"""report.json: the way there and back, what the schema refuses, and the JSON Schema of it."""

import json
import re

import pytest

from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import (
    CleanAccuracy,
    Diagnostic,
    EpsSummary,
    Gate,
    Part,
    Reason,
    Report,
    RuleResult,
    SampleResult,
    Summary,
    ValidationError,
    Verdict,
)
from idl_audit.values.errors import InvalidInputError
from tests.shared import report_examples as examples

REPORTS = {
    "bare": examples.report(),
    "certify": examples.certify(),
    "range": examples.certify_range(),
    "everything": examples.everything(),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_from_json_inverts_to_json(report):
    assert from_json(to_json(report)) == report


def test_json_is_one_ascii_document_with_design_names():
    text = to_json(examples.everything())
    assert text.endswith("}\n")
    assert text.isascii()
    document = json.loads(text)
    assert document["schema_version"] == "1.2"
    assert document["samples"][71]["results"][0]["adversarial"]["class"] == 3
    assert document["samples"][71]["results"][0]["verdict"] == "falsified"
    assert list(document["conversion"]["nnz"]) == ["A", "B", "C", "D"]


def test_unfilled_sections_are_null_or_empty():
    document = json.loads(to_json(examples.report("convert")))
    assert document["sensitivity"] is None
    assert document["samples"] == []


def test_undecodable_file_names_survive_as_replacements():
    assert examples.model(path="mod\udcffel.onnx").path == "mod?el.onnx"


# ---- what the models refuse ------------------------------------------------------------------------------------------

CLEAN = {"eps": 0.03, "verdict": Verdict.CLEAN_WRONG}
REFUSED = {
    "counts do not sum to n": (
        lambda: EpsSummary(eps=0.03, n=100, clean_wrong=3, certified=71, falsified=12, unknown=13),
        "the four counts at eps 0.03 sum to 99, not to n = 100",
    ),
    "more clean than samples": (lambda: CleanAccuracy(k=101, n=100), "clean.k = 101 exceeds clean.n = 100"),
    "falsified without adversarial": (
        lambda: SampleResult(eps=0.03, verdict=Verdict.FALSIFIED),
        "a falsified result, and no other, has an adversarial; this one is falsified",
    ),
    "adversarial without falsified": (
        lambda: SampleResult(**CLEAN, adversarial=examples.ATTACK),
        "a falsified result, and no other, has an adversarial; this one is clean_wrong",
    ),
    "certified without bound": (
        lambda: SampleResult(eps=0.03, verdict=Verdict.CERTIFIED),
        "a certified result needs lower_bound > 0, not None",
    ),
    "certified with bound 0": (
        lambda: SampleResult(eps=0.03, verdict=Verdict.CERTIFIED, lower_bound=0.0),
        "a certified result needs lower_bound > 0, not 0.0",
    ),
    "unknown without reason": (
        lambda: SampleResult(eps=0.03, verdict=Verdict.UNKNOWN),
        "an unknown result, and no other, has a reason; this one is unknown",
    ),
    "reason without unknown": (
        lambda: SampleResult(**CLEAN, reason=Reason.TIME_LIMIT),
        "an unknown result, and no other, has a reason; this one is clean_wrong",
    ),
    "passed gate with failed rule": (
        lambda: Gate(passed=True, rules=(RuleResult(rule="r", passed=False),)),
        "gate.passed is true although a rule of level error failed",
    ),
    "radius without threat model": (
        lambda: examples.certify(threat_model=examples.threat(0.02)),
        "eps 0.03 has results, but threat_model.eps does not list it",
    ),
    "not a number": (lambda: examples.sensitivity(norm_inf=float("nan")), "finite number"),
    "infinity": (lambda: SampleResult(**CLEAN, margin_found=float("inf")), "finite number"),
    "eps below zero": (lambda: SampleResult(eps=-0.1, verdict=Verdict.CLEAN_WRONG), "greater than or equal to 0"),
    "unknown field": (lambda: SampleResult(**CLEAN, margn=1.0), "Extra inputs are not permitted"),
    "short hash": (lambda: examples.model(sha256="ab"), "String should match pattern"),
    "odd code": (lambda: Diagnostic(code="E1", level="info", message="m"), "String should match pattern"),
    "complete and interrupted": (
        lambda: examples.report(why_incomplete="interrupted"),
        "a complete report is not interrupted",
    ),
    "a decision that could not be made": (
        lambda: examples.PropertyReport(onnx="a", vnnlib="b", result="unsat", problem="gone"),
        "a property that could not be judged is unknown; this one is unsat",
    ),
    "time without zone": (
        lambda: Report.model_validate(examples.report().model_dump() | {"created": "2026-01-02T03:04:05"}),
        "timezone",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_models_refuse(make, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        make()


def test_a_failed_warning_does_not_fail_the_gate():
    assert Gate(passed=True, rules=(RuleResult(rule="r", level="warning", passed=False),)).passed


def test_models_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        examples.report().status = "incomplete"


# ---- what from_json refuses ------------------------------------------------------------------------------------------


def edited(**changes):
    return json.dumps(json.loads(to_json(examples.certify())) | changes)


def without(key):
    document = json.loads(to_json(examples.certify()))
    del document[key]
    return json.dumps(document)


BAD_SUMMARY = {
    "clean": None,
    "per_eps": [{"eps": 0.03, "n": 9, "clean_wrong": 0, "certified": 1, "falsified": 0, "unknown": 0}],
}
TEXTS = {
    "no JSON": ("{", "the report is no JSON document; give a report.json that idl-audit wrote with -f json or -o"),
    "empty": ("", "the report is no JSON document; give a report.json that idl-audit wrote with -f json or -o"),
    "deep": (
        "[" * 100_000,
        "the report is no JSON document; give a report.json that idl-audit wrote with -f json or -o",
    ),
    "list": ("[]", "the report has no schema_version; give a report.json that idl-audit wrote with -f json or -o"),
    "other JSON": (
        '{"a": 1}',
        "the report has no schema_version; give a report.json that idl-audit wrote with -f json or -o",
    ),
    "other version": (
        edited(schema_version="2.0"),
        "the report has schema_version '2.0', and this version of idl-audit reads '1.0' and '1.1' and '1.2'; "
        "write it again with this version",
    ),
    "wrong counts": (
        edited(summary=BAD_SUMMARY),
        "the report does not fit schema 1.2 at summary.per_eps.0: the four counts at eps 0.03 sum to 1, not to n = 9; "
        "write it again",
    ),
    "missing": (without("tool"), "the report does not fit schema 1.2 at tool: Field required; write it again"),
    "several": (
        edited(extra=1, status="done"),
        "the report does not fit schema 1.2 at status: Input should be 'complete' or 'incomplete' (and 1 more); "
        "write it again",
    ),
    "text for a number": (
        edited(timing={"total": "1"}),
        "the report does not fit schema 1.2 at timing.total: Input should be a valid number; write it again",
    ),
    "NaN": (
        edited(timing={"total": float("nan")}),
        "the report does not fit schema 1.2 at timing.total: Input should be a finite number; write it again",
    ),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_from_json_refuses_in_one_sentence(text, message):
    with pytest.raises(InvalidInputError) as caught:
        from_json(text)
    assert str(caught.value) == message


def test_reports_of_the_version_before_are_read():
    """They lack what 1.1 added, and nothing is made up for it."""
    document = json.loads(to_json(examples.certify(data=examples.everything().data)))
    document["schema_version"] = "1.0"
    added = {
        "model": ("file_sha256", "external_sha256", "output_name", "arch"),
        "data": ("numbers_sha256",),
        "threat_model": ("sigma_sha256", "arithmetic"),
        "summary": ("verdicts_of", "methods", "time_limit"),
    }
    del document["why_incomplete"]
    for section, names in added.items():
        for name in names:
            del document[section][name]
    found = from_json(json.dumps(document))
    assert found.schema_version == "1.0"
    assert (found.model.file_sha256, found.data.numbers_sha256, found.summary.verdicts_of) == (None, None, None)


def test_summary_needs_no_labels():
    assert Summary().clean is None


# ---- the JSON Schema -------------------------------------------------------------------------------------------------


def parts():
    return sorted(Part.__subclasses__(), key=lambda part: part.__name__)


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.__name__)
def test_every_field_is_described(part):
    assert part.__doc__
    assert [name for name, field in part.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_reports_satisfy_the_json_schema(report):
    schema = Report.model_json_schema()
    assert list(violations(json.loads(to_json(report)), schema, schema["$defs"])) == []


def test_the_json_schema_refuses_other_documents():
    schema = Report.model_json_schema()
    document = json.loads(to_json(examples.everything()))
    document["samples"][0]["results"][0]["verdict"] = "robust"
    document["model"]["sha256"] = 7
    document["more"] = 1
    del document["tool"]["version"]
    assert len(list(violations(document, schema, schema["$defs"]))) >= 4


TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}


def has_type(value, name):
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[name]) and not (name == "integer" and isinstance(value, bool))


def violations(value, schema, defs, where="$"):
    """Yield where `value` violates `schema`: as much of JSON Schema as pydantic writes, and no keyword unread."""
    known = {"$defs", "$ref", "title", "description", "default", "type", "enum", "const", "anyOf", "pattern", "format"}
    known |= {"properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"}
    known |= {"minimum", "exclusiveMinimum", "propertyNames"}
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        yield from violations(value, defs[schema["$ref"].removeprefix("#/$defs/")], defs, where)
        return
    if "anyOf" in schema:
        if all(list(violations(value, option, defs, where)) for option in schema["anyOf"]):
            yield f"{where}: none of anyOf"
        return
    if "type" in schema and not has_type(value, schema["type"]):
        yield f"{where}: not {schema['type']}"
        return
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{where}: not among the choices"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: pattern"
    if (
        value is not None
        and not isinstance(value, str | dict | list)
        and (value < schema.get("minimum", value) or value <= schema.get("exclusiveMinimum", value - 1))
    ):
        yield f"{where}: too small"
    if isinstance(value, dict):
        yield from in_object(value, schema, defs, where)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{where}: length"
        first = schema.get("prefixItems", [])
        for position, entry in enumerate(value):
            rule = first[position] if position < len(first) else schema.get("items", {})
            yield from violations(entry, rule, defs, f"{where}[{position}]")


def in_object(value, schema, defs, where):
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    yield from (f"{where}.{key}: missing" for key in schema.get("required", []) if key not in value)
    for key, entry in value.items():
        if key not in properties and others is False:
            yield f"{where}.{key}: unexpected"
        else:
            yield from violations(entry, properties.get(key, others), defs, f"{where}.{key}")
