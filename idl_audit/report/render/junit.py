"""The report as JUnit XML: what every CI server shows as tests.

A suite of the gate's rules, one of verdicts per radius (of two networks and of scores, too), one of properties, one of
a certificate's check, and one on the run itself. Only what is judged can fail: where the report has a gate, its rules
are, and verdicts that are not certified show as skipped; without a gate, falsified and clean_wrong fail and unknown is
skipped. A report that is incomplete is an error, and so is what could not be judged. The elements and their order are
those of Apache Ant's schema, which asks for empty ones too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal, TypeAlias
from xml.etree import ElementTree

from idl_audit.report.known import known_samples, known_text
from idl_audit.report.schema import KnownSample, Reason, Report, RuleResult, SampleResult, Verdict, WholeStatement
from idl_audit.report.wording import (
    REASONS,
    demand_text,
    eps_text,
    figure,
    in_arithmetic,
    plain,
    share_text,
    verdict_sentence,
)

MARK: Final = "<?xml version='1.0' encoding='utf-8'?>\n<!-- idl-audit report -->"
Outcome: TypeAlias = Literal["failure", "error", "skipped"]


@dataclass(frozen=True)
class _Case:
    """One test; without an outcome it passes."""

    name: str
    seconds: float = 0.0
    outcome: Outcome | None = None
    kind: str = ""
    message: str = ""


def to_junit(report: Report) -> str:
    """Return the report as JUnit XML."""
    root = ElementTree.Element("testsuites")
    subject = _safe(PurePath(report.model.path).name if report.model is not None else report.tool.name)
    for place, (name, cases) in enumerate(_suites(report)):
        counts = {kind: sum(case.outcome == kind for case in cases) for kind in ("failure", "error", "skipped")}
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            id=str(place),
            package="idl-audit",
            name=_safe(name),
            timestamp=report.created.strftime("%Y-%m-%dT%H:%M:%S"),
            hostname="localhost",
            tests=str(len(cases)),
            failures=str(counts["failure"]),
            errors=str(counts["error"]),
            skipped=str(counts["skipped"]),
            time=f"{sum(case.seconds for case in cases):.3f}",
        )
        ElementTree.SubElement(suite, "properties")
        for case in cases:
            where = {"classname": f"idl-audit.{subject}", "name": _safe(case.name), "time": f"{case.seconds:.3f}"}
            test = ElementTree.SubElement(suite, "testcase", where)
            if case.outcome is not None:
                told = {"message": _safe(case.message)}
                if case.outcome != "skipped":
                    told["type"] = case.kind
                ElementTree.SubElement(test, case.outcome, told)
        for stream in ("system-out", "system-err"):
            ElementTree.SubElement(suite, stream)
    ElementTree.indent(root)
    return f"{MARK}\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _safe(value: object) -> str:
    return plain(value, longest=1000)


def _suites(report: Report) -> Iterator[tuple[str, list[_Case]]]:
    yield "report", [_whole(report)]
    if report.gate is not None:
        yield "gate", [_rule(rule) for rule in report.gate.rules]
    known = known_samples(report)
    for radius in sorted({result.eps for sample in report.samples for result in sample.results}):
        cases = [
            _verdict(sample.index, sample.label, result, judged=report.gate is None, known=known.get(sample.index))
            for sample in report.samples
            for result in sample.results
            if result.eps == radius
        ]
        asked = "" if report.demand is None else f", {demand_text(report)}"
        yield f"verdicts at eps {eps_text(report, radius)}{asked}{in_arithmetic(report)}", cases
    yield from _relations(report, judged=report.gate is None)
    if report.properties:
        yield f"properties{in_arithmetic(report)}", list(_properties(report))
    if report.verification is not None:
        found = report.verification
        refused = "; ".join(found.refused[:5]) or "refused"
        yield "verification", [_Case(found.file) if found.accepted else _fail(found.file, "refused", refused)]


def _relations(report: Report, *, judged: bool) -> Iterator[tuple[str, list[_Case]]]:
    """Yield a suite for each radius of two networks, and of a score that is to go one way."""
    if report.comparison is not None and report.comparison.has_classes:
        for entry in report.comparison.per_eps:
            each = [(s.index, r) for s in report.comparison.samples for r in s.results if r.eps == entry.eps]
            cases = [
                _related(i, r.agree or "unknown", r.reason, r.seconds, "two classes", judged=judged) for i, r in each
            ]
            yield f"agreement at eps {eps_text(report, entry.eps)}", cases
    if report.monotonicity is not None:
        for counts in report.monotonicity.per_eps:
            here = [(s.index, r) for s in report.monotonicity.samples for r in s.results if r.eps == counts.eps]
            cases = [_related(i, r.verdict.value, r.reason, r.seconds, "the wrong way", judged=judged) for i, r in here]
            yield f"monotonicity at eps {eps_text(report, counts.eps)}", cases
    if report.everywhere is not None:
        stated = report.everywhere.statements
        yield "everywhere", [_stated(one, judged=judged) for one in stated]


def _related(
    index: int, verdict: str, reason: Reason | None, seconds: float | None, wrong: str, *, judged: bool
) -> _Case:
    name, time = f"sample {index}", seconds or 0.0
    if verdict == "certified":
        return _Case(name, time)
    if verdict == "falsified":
        told = f"falsified: {wrong} within the set, as the networks show"
        return _fail(name, "falsified", told, time) if judged else _Case(name, time, "skipped", message=told)
    told = "unknown" if reason is None else f"{reason.value}, {REASONS[reason]}"
    return _Case(name, time, "skipped", message=told)


def _stated(one: WholeStatement, *, judged: bool) -> _Case:
    time = one.seconds or 0.0
    if one.verdict is Verdict.CERTIFIED:
        return _Case(one.text, time)
    told = f"{one.verdict.value}: proved in {share_text(one.holding)} of the range, {share_text(one.open)} open"
    if one.verdict is Verdict.FALSIFIED and judged:
        return _fail(one.text, "falsified", told, time)
    return _Case(one.text, time, "skipped", message=told)


def _whole(report: Report) -> _Case:
    name, seconds = "the run is complete", 0.0 if report.timing is None else report.timing.total
    if report.status == "complete":
        return _Case(name, seconds)
    return _Case(name, seconds, "error", "incomplete", verdict_sentence(report))


def _fail(name: str, kind: str, message: str, seconds: float = 0.0) -> _Case:
    return _Case(name, seconds, "failure", kind, message)


def _rule(rule: RuleResult) -> _Case:
    if rule.passed:
        return _Case(rule.rule)
    counts = "" if rule.k is None or rule.n is None else f" ({rule.k} of {rule.n})"
    message = f"expected {rule.expected or rule.rule}, found {rule.found or 'nothing'}{counts}"
    if rule.level == "warning":
        return _Case(rule.rule, outcome="skipped", message=f"warning: {message}")
    return _fail(rule.rule, "gate", message)


def _verdict(index: int, label: int | None, result: SampleResult, *, judged: bool, known: KnownSample | None) -> _Case:
    name = f"sample {index}" if label is None else f"sample {index} (label {label})"
    seconds = result.seconds or 0.0
    if result.verdict is Verdict.CERTIFIED:
        return _Case(name, seconds)
    told = f"{result.verdict.value}: {_told(result)}"
    if known is not None:
        return _Case(name, seconds, "skipped", message=f"{known_text(known)} ({told})")
    if judged and result.verdict is not Verdict.UNKNOWN:
        return _fail(name, result.verdict.value, told, seconds)
    return _Case(name, seconds, "skipped", message=told)


def _told(result: SampleResult) -> str:
    if result.adversarial is not None:
        found = result.adversarial
        becomes = "becomes no number" if found.class_ is None else f"becomes class {found.class_}"
        if found.broken:
            becomes = f"breaks {', '.join(map(str, found.broken[:5]))}"
        return (
            f"{becomes}, margin {figure(found.margin)}, {found.l0} inputs changed by at most "
            f"{figure(found.linf)}, confirmed by {', '.join(found.confirmed_by) or 'nothing'}"
        )
    if result.reason is not None:
        return f"{result.reason.value}, {REASONS[result.reason]}"
    return "misclassified without any change" if result.parts is None else "not as demanded without any change"


def _properties(report: Report) -> Iterator[_Case]:
    for entry in report.properties:
        name, seconds = f"{PurePath(entry.onnx).name} {PurePath(entry.vnnlib).name}", entry.seconds or 0.0
        if entry.problem is not None:
            yield _Case(name, seconds, "error", "not judged", entry.problem)
        elif {entry.result, entry.truth} == {"sat", "unsat"}:
            yield _Case(name, seconds, "error", "contradiction", f"{entry.result}, and the truth is {entry.truth}")
        elif entry.result == "sat" and entry.truth is None:
            yield _fail(name, "sat", "a counterexample was found", seconds)
        elif entry.result in ("unknown", "timeout"):
            yield _Case(name, seconds, "skipped", message=entry.result)
        else:
            yield _Case(name, seconds)
