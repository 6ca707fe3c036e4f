"""What a report says to those who look at a change: the worst first, each with a level and the name of its rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from idl_audit.report.known import known_samples, known_text
from idl_audit.report.schema import Report, RuleResult, Verdict
from idl_audit.report.wording import eps_text, plain, share_text, verdict_sentence
from idl_audit.report.worst_first import worst_first

NAMED = 10
"""Samples that an annotation names."""

Level: TypeAlias = Literal["error", "warning", "notice"]


@dataclass(frozen=True)
class Annotation:
    """One thing to be told."""

    level: Level
    rule: str
    """What kind of thing it is: the same words from report to report."""
    title: str
    message: str
    suppressed: str | None = None
    """Why it is no news: it is known, and nobody need look at it."""


def told_of(report: Report) -> Iterator[Annotation]:
    """Yield what there is to be told, what counts most first."""
    rules = () if report.gate is None else report.gate.rules
    for rule in sorted(rules, key=lambda rule: rule.level):  # errors before warnings
        if not rule.passed:
            level: Level = "error" if rule.level == "error" else "warning"
            yield Annotation(level, "gate", f"gate: {rule.rule}", _rule(rule))
    if report.verification is not None and not report.verification.accepted:
        refused = "; ".join(report.verification.refused[:3]) or "a claim does not hold"
        message = f"{report.verification.file} is refused: {refused}"
        yield Annotation("error", "verification", "verification", message)
    if report.status == "incomplete":
        yield Annotation("error", "incomplete-report", "incomplete report", verdict_sentence(report))
    yield from _samples(report)
    yield from _relations(report)
    for entry in report.properties:
        if entry.problem is not None:
            message = f"{entry.onnx}, {entry.vnnlib}: {entry.problem}"
            yield Annotation("error", "not-judged", "not judged", message)
        elif {entry.result, entry.truth} == {"sat", "unsat"}:
            message = f"{entry.vnnlib}: {entry.result}, and the truth is {entry.truth}"
            yield Annotation("error", "contradiction", "contradiction", message)
        elif entry.result == "sat" and entry.truth is None:
            message = f"{entry.vnnlib}: a counterexample was found"
            yield Annotation("warning", "property-violated", "property violated", message)
    for told in report.diagnostics:
        level = "notice" if told.level == "info" else told.level
        where = "" if told.where is None else f" [{told.where}]"
        hint = "" if told.hint is None else f"; {told.hint}"
        yield Annotation(level, told.code, told.code, f"{told.message}{where}{hint}")
    yield Annotation("notice", "summary", report.tool.name, verdict_sentence(report))


def _relations(report: Report) -> Iterator[Annotation]:
    if report.comparison is not None:
        for entry in report.comparison.per_eps:
            if entry.falsified:
                found = [s for s in report.comparison.samples for r in s.results if r.agree == "falsified"]
                message = f"around {entry.falsified} of {entry.n} samples two networks have two classes"
                named = ", ".join(str(index) for index in dict.fromkeys(s.index for s in found[:NAMED]))
                title = f"two networks at eps {eps_text(report, entry.eps)}"
                yield Annotation("warning", "two-networks", title, f"{message}: {named}")
    if report.monotonicity is not None:
        for counts in report.monotonicity.per_eps:
            if counts.falsified:
                message = f"around {counts.falsified} of {counts.n} samples the score goes the wrong way"
                title = f"monotonicity at eps {eps_text(report, counts.eps)}"
                yield Annotation("warning", "monotonicity", title, message)
    for one in () if report.everywhere is None else report.everywhere.statements:
        if one.verdict is Verdict.FALSIFIED:
            message = f"it does not hold everywhere that {one.text}; it is proved in {share_text(one.holding)}"
            yield Annotation("warning", "everywhere", "a statement fails", message)


def _samples(report: Report) -> Iterator[Annotation]:
    ordered = worst_first(report.samples)
    known = known_samples(report)
    for sample in ordered:
        entry = known.get(sample.index)
        bad = [one for one in sample.results if one.verdict in (Verdict.FALSIFIED, Verdict.CLEAN_WRONG)]
        if entry is not None and bad:
            text = f"sample {sample.index} fails at eps {eps_text(report, bad[0].eps)}; {known_text(entry)}"
            yield Annotation("notice", "falsified", f"known sample {sample.index}", text, entry.reason)
    for radius in sorted({result.eps for sample in ordered for result in sample.results}):
        fallen = [
            sample.index
            for sample in ordered
            for result in sample.results
            if result.eps == radius and result.verdict is Verdict.FALSIFIED and sample.index not in known
        ]
        if fallen:
            named = ", ".join(map(str, fallen[:NAMED])) + (", ..." if len(fallen) > NAMED else "")
            text = f"{len(fallen)} of {len(ordered)} samples can be attacked at eps {eps_text(report, radius)}: {named}"
            yield Annotation("warning", "falsified", "falsified", text)


def _rule(rule: RuleResult) -> str:
    counts = "" if rule.k is None or rule.n is None else f" ({rule.k} of {rule.n})"
    return f"expected {rule.expected or rule.rule}, found {rule.found or 'nothing'}{counts}"


def subject_of(report: Report) -> str | None:
    """Return the model's path where it can be one within the repository."""
    if report.model is None:
        return None
    path = PurePosixPath(plain(report.model.path))
    return None if path.is_absolute() or ".." in path.parts or not path.parts else str(path)
