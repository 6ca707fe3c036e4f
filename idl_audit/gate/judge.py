"""The gate: every rule with what it expects, what the report says, and whether it holds."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from idl_audit.data.numbers import Eps, parse_number
from idl_audit.gate.comparison import changes, check_comparable
from idl_audit.gate.fingerprints import notes
from idl_audit.gate.known import Known, counted_apart, idle
from idl_audit.gate.measures import Figure, Gain, Share, measure
from idl_audit.gate.rules import AT_EPS, COMPARED, EXAMPLE, QUANTILES, Metric, Rule, parse_rule
from idl_audit.report.schema import Gate, NewlyFalsified, Report, RuleResult, Verdict
from idl_audit.report.shares import wilson
from idl_audit.report.wording import eps_text, plain
from idl_audit.values.columns import CLASS
from idl_audit.values.errors import OptionError

_OF_OTHERS: Final = {
    **dict.fromkeys(COMPARED, "compare"),
    Metric.MONOTONE: "certify --monotone",
    Metric.CERTIFIED_GAIN: "harden --audit",
}
"""Metric -> the command that alone writes reports which say something of it."""
COMPLETE: Final = "the report is complete"
"""The rule that every gate has."""


def parse_rules(require: Sequence[str], warn: Sequence[str], *, has_baseline: bool) -> tuple[Rule, ...]:
    """Return the rules that must hold and those that only warn.

    Raises:
        OptionError: where there is none, one is no rule, or one needs a baseline and there is none.
    """
    rules = (*(parse_rule(text) for text in require), *(parse_rule(text, level="warning") for text in warn))
    if not rules:
        raise OptionError(f"there is no rule to judge by; give one, such as --require '{EXAMPLE}'")
    for rule in rules:
        if rule.drop and not has_baseline:
            raise OptionError(f"the rule '{rule.text}' compares with a baseline; give one with --baseline FILE")
    return rules


def check_measured(
    rules: Sequence[Rule],
    *,
    radii: Sequence[Eps],
    sensitivity: bool,
    everywhere: bool = False,
    columns: Sequence[str] = (),
) -> None:
    """Refuse, before any work is done, rules that the report to come will say nothing of.

    Raises:
        OptionError: where there will be no sensitivity, no verdicts, none at the rule's radius, or no such groups.
    """
    for rule in rules:
        if rule.group is not None and rule.group.column not in (CLASS, *columns):
            raise OptionError(
                f"the rule '{rule.text}' is about groups of {rule.group.column}; say --group-by {rule.group.column}"
            )
    known = ", ".join(radius.text for radius in radii)
    for rule in rules:
        which = _OF_OTHERS.get(rule.metric) if rule.metric is not None else None
        if rule.metric is Metric.EVERYWHERE:
            if not everywhere:
                raise OptionError(f"the rule '{rule.text}' needs the step everywhere; add it to the steps")
            continue
        if which is not None:
            raise OptionError(f"the rule '{rule.text}' needs a report of {which}; judge that with `gate`")
        if rule.metric in (Metric.MAX_SENSITIVITY, Metric.NORM_INF_S):
            if not sensitivity:
                raise OptionError(f"the rule '{rule.text}' needs the step sensitivity; add it to the steps")
        elif not radii:
            raise OptionError(f"the rule '{rule.text}' needs verdicts; add certify or attack to the steps")
        elif rule.eps is not None and rule.metric not in QUANTILES:
            value = parse_number(rule.eps, option=rule.text)
            if not any(value == radius.value or rule.eps == radius.text for radius in radii):
                raise OptionError(f"the rule '{rule.text}' is about a radius that is not audited; eps is {known}")
        elif rule.metric in AT_EPS and len(radii) > 1:
            raise OptionError(f"the rule '{rule.text}' needs a radius: write {rule.metric}@ and one of {known}")


def judge(
    report: Report,
    rules: Sequence[Rule],
    *,
    baseline: Report | None = None,
    baseline_path: Path | None = None,
    known: Sequence[Known] = (),
    today: datetime.date | None = None,
) -> Gate:
    """Judge the rules over a report. Integers and exact fractions are compared: k * den >= num * n.

    A report that is incomplete fails, whatever its rules say; what it lacks fails the rules that ask for it. No rule
    counts samples that are `known`, in the report or in the baseline; an entry whose last day is before `today` fails.

    Raises:
        OptionError: where a complete report does not say what a rule asks for.
        DataError: where the baseline is incomplete, or was made with other data or under another threat model.
    """
    name = "the baseline" if baseline_path is None else f"the baseline {baseline_path}"
    if baseline is not None:
        if baseline.status != "complete":
            raise OptionError(f"{name} is incomplete; give a complete report")
        check_comparable(report, baseline, name, same_radii=True)
    complete = report.status == "complete"
    day = today or datetime.datetime.now(datetime.UTC).date()
    apart = counted_apart(report, known, day)
    whole, report = report, apart.rest
    if baseline is not None:
        baseline = counted_apart(baseline, known, day).rest
    results = [RuleResult(rule=COMPLETE, passed=complete, expected="complete", found=report.status), *apart.over]
    for rule in rules:
        for single in _expanded(rule, baseline or report):
            try:
                results.append(_judge(single, report, baseline))
            except OptionError:
                if complete:
                    raise
                results.append(_result(single, passed=False, found="not in the report"))
    worse = () if baseline is None else tuple(_newly_falsified(report, baseline))
    return Gate(
        passed=all(result.passed for result in results if result.level == "error"),
        baseline=None if baseline_path is None else str(baseline_path),
        rules=tuple(results),
        newly_falsified=worse,
        notes=(*(() if baseline is None else notes(report, baseline)), *idle(whole, apart.told)),
        known=apart.told,
    )


def _expanded(rule: Rule, report: Report) -> Iterator[Rule]:
    """Yield a rule on one metric at one radius for a bare drop, which stands for every certified accuracy."""
    if rule.metric is not None:
        yield rule
        return
    entries = report.summary.per_eps if report.summary is not None else ()
    if not entries:
        raise OptionError(f"the rule '{rule.text}' compares certified accuracies, and the report has no verdicts")
    for entry in entries:
        eps = eps_text(report, entry.eps)
        text = f"drop(certified_accuracy@{eps}) {rule.expected}"
        yield Rule(
            text,
            rule.level,
            Metric.CERTIFIED_ACCURACY,
            repr(entry.eps),
            True,
            rule.operator,
            rule.limit,
            rule.limit_text,
        )


def _judge(rule: Rule, report: Report, baseline: Report | None) -> RuleResult:
    assert rule.metric is not None
    now = measure(report, rule.metric, rule.eps, rule.group)
    if rule.drop:
        assert baseline is not None
        _check_same_kind(rule, report, baseline)
        return _judge_drop(rule, now, measure(baseline, rule.metric, rule.eps))
    value = now.value
    if value is None:
        found = "no finite bound" if isinstance(now, Figure) else "no such samples"
        return _result(rule, passed=False, found=found)
    return _result(rule, passed=rule.holds(value), found=_shown(value, rule, now), share=now)


def _check_same_kind(rule: Rule, report: Report, baseline: Report) -> None:
    """Refuse to compare what certify proved with what attack, which hardly proves anything, leaves unknown."""
    ours, theirs = (None if one.summary is None else one.summary.verdicts_of for one in (report, baseline))
    if rule.metric is Metric.CERTIFIED_ACCURACY and None not in (ours, theirs) and ours != theirs:
        raise OptionError(
            f"the rule '{rule.text}' compares certified accuracies, and the report has the verdicts of {ours}, the "
            f"baseline those of {theirs}; make both with the same command"
        )


def _judge_drop(rule: Rule, now: Share | Figure | Gain, before: Share | Figure | Gain) -> RuleResult:
    value, earlier = now.value, before.value
    if value is None or earlier is None or not isinstance(now, Share) or not isinstance(before, Share):
        return _result(rule, passed=False, found="no such samples")
    drop = earlier - value
    told = f"{_share_text(drop, rule.limit)} (from {before.k} of {before.n} to {now.k} of {now.n})"
    return _result(rule, passed=rule.holds(drop), found=told, share=now)


def _result(rule: Rule, *, passed: bool, found: str, share: Share | Figure | Gain | None = None) -> RuleResult:
    counts = share if isinstance(share, Share) else None
    return RuleResult(
        rule=plain(rule.text),
        level=rule.level,
        passed=passed,
        expected=rule.expected,
        found=found,
        k=None if counts is None else counts.k,
        n=None if counts is None else counts.n,
        interval=None if counts is None else wilson(counts.k, counts.n),
    )


def _shown(value: Fraction, rule: Rule, found: Share | Figure | Gain) -> str:
    if isinstance(found, Share):
        return _share_text(value, rule.limit)
    if isinstance(found, Gain):
        return f"{_share_text(value, rule.limit)} (from {found.before} to {found.after} of {found.n})"
    texts = (f"{found.number:.{digits}g}" for digits in range(4, 17))
    same_side = (text for text in texts if _side(Fraction(text), rule.limit) == _side(value, rule.limit))
    return next(same_side, repr(found.number))


def _share_text(value: Fraction, limit: Fraction) -> str:
    """Return the share in per cent, with as many digits as it takes to be on its own side of the limit."""
    text = ""
    for digits in range(1, 2 if value == limit else 20):
        whole, rest = divmod(round(abs(value) * 100 * 10**digits), 10**digits)
        text = f"{'-' if value < 0 else ''}{whole}.{rest:0{digits}d}"
        if _side(Fraction(text) / 100, limit) == _side(value, limit):
            break
    return f"{text} %"


def _side(value: Fraction, limit: Fraction) -> int:
    return (value > limit) - (value < limit)


def _newly_falsified(report: Report, baseline: Report) -> Iterator[NewlyFalsified]:
    for change in changes(report, baseline):
        if change.after is Verdict.FALSIFIED and change.before is not Verdict.CLEAN_WRONG:
            yield NewlyFalsified(index=change.index, eps=change.eps, before=change.before)
