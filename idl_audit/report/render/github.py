"""The report as annotations of GitHub Actions: lines of a log that become notes beside the files of a change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal

from idl_audit.report.schema import Report, RuleResult, Verdict
from idl_audit.report.wording import eps_text, plain, verdict_sentence
from idl_audit.report.worst_first import worst_first

NAMED = 10
"""Samples that an annotation names."""

Level = Literal["error", "warning", "notice"]


def to_github(report: Report) -> str:
    """Return one workflow command a line; what counts most stands first, for GitHub shows ten of each kind."""
    file = _file(report)
    return "".join(
        f"::{level} {f'file={_property(file)},' if file else ''}title={_property(title)}::{_data(message)}\n"
        for level, title, message in _annotations(report)
    )


def _annotations(report: Report) -> Iterator[tuple[Level, str, str]]:
    rules = () if report.gate is None else report.gate.rules
    for rule in sorted(rules, key=lambda rule: rule.level):  # errors before warnings
        if not rule.passed:
            level: Level = "error" if rule.level == "error" else "warning"
            yield level, f"gate: {rule.rule}", _rule(rule)
    if report.verification is not None and not report.verification.accepted:
        refused = "; ".join(report.verification.refused[:3]) or "a claim does not hold"
        yield "error", "verification", f"{report.verification.file} is refused: {refused}"
    if report.status == "incomplete":
        yield "error", "incomplete report", verdict_sentence(report)
    yield from _samples(report)
    yield from _relations(report)
    for entry in report.properties:
        if entry.problem is not None:
            yield "error", "not judged", f"{entry.onnx}, {entry.vnnlib}: {entry.problem}"
        elif {entry.result, entry.truth} == {"sat", "unsat"}:
            yield "error", "contradiction", f"{entry.vnnlib}: {entry.result}, and the truth is {entry.truth}"
        elif entry.result == "sat" and entry.truth is None:
            yield "warning", "property violated", f"{entry.vnnlib}: a counterexample was found"
    for told in report.diagnostics:
        level = "notice" if told.level == "info" else told.level
        where = "" if told.where is None else f" [{told.where}]"
        hint = "" if told.hint is None else f"; {told.hint}"
        yield level, told.code, f"{told.message}{where}{hint}"
    yield "notice", report.tool.name, verdict_sentence(report)


def _relations(report: Report) -> Iterator[tuple[Level, str, str]]:
    if report.comparison is not None:
        for entry in report.comparison.per_eps:
            if entry.falsified:
                found = [s for s in report.comparison.samples for r in s.results if r.agree == "falsified"]
                message = f"around {entry.falsified} of {entry.n} samples two networks have two classes"
                named = ", ".join(str(index) for index in dict.fromkeys(s.index for s in found[:NAMED]))
                yield "warning", f"two networks at eps {eps_text(report, entry.eps)}", f"{message}: {named}"
    if report.monotonicity is not None:
        for counts in report.monotonicity.per_eps:
            if counts.falsified:
                message = f"around {counts.falsified} of {counts.n} samples the score goes the wrong way"
                yield "warning", f"monotonicity at eps {eps_text(report, counts.eps)}", message


def _samples(report: Report) -> Iterator[tuple[Level, str, str]]:
    ordered = worst_first(report.samples)
    for radius in sorted({result.eps for sample in ordered for result in sample.results}):
        fallen = [
            sample.index
            for sample in ordered
            for result in sample.results
            if result.eps == radius and result.verdict is Verdict.FALSIFIED
        ]
        if fallen:
            named = ", ".join(map(str, fallen[:NAMED])) + (", ..." if len(fallen) > NAMED else "")
            text = f"{len(fallen)} of {len(ordered)} samples can be attacked at eps {eps_text(report, radius)}: {named}"
            yield "warning", "falsified", text


def _rule(rule: RuleResult) -> str:
    counts = "" if rule.k is None or rule.n is None else f" ({rule.k} of {rule.n})"
    return f"expected {rule.expected or rule.rule}, found {rule.found or 'nothing'}{counts}"


def _file(report: Report) -> str | None:
    """Return the model's path where it can be one within the repository."""
    if report.model is None:
        return None
    path = PurePosixPath(plain(report.model.path))
    return None if path.is_absolute() or ".." in path.parts or not path.parts else str(path)


def _data(text: str) -> str:
    r"""Return text as the message of a command: % as %25, breaks as %0D %0A; the old ##[...] commands broken up."""
    safe = re.sub(r"##(?=\[)", "## ", plain(text, longest=2000))
    return safe.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return text as a property of a command: colons and commas escaped as well."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
