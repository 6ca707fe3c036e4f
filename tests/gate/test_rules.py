"""Rules: what is read out of a text, what is refused, and that k of n is compared exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.gate.rules import OPERATORS, Metric, parse_rule
from idl_audit.report.shares import wilson
from idl_audit.values.errors import OptionError


@pytest.mark.parametrize(
    ("text", "metric", "eps", "drop", "limit"),
    [
        ("certified_accuracy@2/255 >= 0.90", Metric.CERTIFIED_ACCURACY, "2/255", False, Fraction(9, 10)),
        ("certified_accuracy @ 2/255>=90%", Metric.CERTIFIED_ACCURACY, "2/255", False, Fraction(9, 10)),
        ("clean_accuracy > 99.5 %", Metric.CLEAN_ACCURACY, None, False, Fraction(995, 1000)),
        ("clean_accuracy >= 1", Metric.CLEAN_ACCURACY, None, False, Fraction(1)),
        ("clean_accuracy >= 1 %", Metric.CLEAN_ACCURACY, None, False, Fraction(1, 100)),
        ("unknown@0.03 <= 1/3", Metric.UNKNOWN, "0.03", False, Fraction(1, 3)),
        ("attack_success@0.03 < 0.1", Metric.ATTACK_SUCCESS, "0.03", False, Fraction(1, 10)),
        ("norm_inf_S <= 90", Metric.NORM_INF_S, None, False, Fraction(90)),
        ("max_sensitivity<=1e-3", Metric.MAX_SENSITIVITY, None, False, Fraction(1, 1000)),
        ("drop <= 0.01", None, None, True, Fraction(1, 100)),
        ("drop(clean_accuracy) < 1 %", Metric.CLEAN_ACCURACY, None, True, Fraction(1, 100)),
        ("drop(certified_accuracy@2/255) <= 0", Metric.CERTIFIED_ACCURACY, "2/255", True, Fraction(0)),
    ],
)
def test_a_rule_is_read(text, metric, eps, drop, limit):
    rule = parse_rule(text)
    assert (rule.metric, rule.eps, rule.drop, rule.limit) == (metric, eps, drop, limit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("certified_accuracy@2/255 >= 90", ("0 to 1", "0.9", "'90 %'")),
        ("certified_accuracy@2/255 >= 900", ("0 to 1", "900")),
        ("clean_accuracy >= 101 %", ("100 %",)),
        ("clean_accuracy >= -0.1", ("below zero",)),
        ("clean_accuracy@2/255 >= 0.9", ("no", "leave @2/255 out")),
        ("clean_acuracy >= 0.9", ("clean_acuracy", "did you mean clean_accuracy?")),
        ("accuracy of dogs >= 0.9", ("is no rule",)),
        ("zebra >= 0.9", ("zebra", "norm_inf_S")),
        ("clean_accuracy == 0.9", ("==", ">=")),
        ("clean_accuracy => 0.9", ("=>", ">=")),
        ("clean_accuracy >= ", ("is no rule", "certified_accuracy@2/255 >= 0.90")),
        ("clean_accuracy >= many", ("many",)),
        ("clean_accuracy >= nan", ("nan",)),
        ("clean_accuracy", ("is no rule",)),
        ("certified_accuracy@x >= 0.9", ("'x'",)),
        ("norm_inf_S <= 5 %", ("no share", "%")),
        ("drop >= 0.01", ("drop <=",)),
        ("drop <= 5", ("0 to 1", "'5 %'")),
        ("drop(unknown@2/255) <= 0.1", ("accuracies", "unknown")),
        ("drop(norm_inf_S) <= 0.1", ("accuracies",)),
        ("", ("is no rule",)),
        ("a" * 5000, ("is no rule",)),
        ("clean_accuracy >= 0.9 and more", ("more",)),
    ],
)
def test_what_is_no_rule_is_refused_with_a_hint(text, words):
    with pytest.raises(OptionError) as caught:
        parse_rule(text)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 500


@given(
    k=st.integers(0, 10**6), n=st.integers(1, 10**6), percent=st.integers(0, 10**4), sign=st.sampled_from([*OPERATORS])
)
def test_counts_are_compared_as_integers(k, n, percent, sign):
    k = min(k, n)
    rule = parse_rule(f"clean_accuracy {sign} {percent // 100}.{percent % 100:02d} %")
    left, right = k * 10**4, percent * n
    assert (
        rule.holds(Fraction(k, n))
        == {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[sign]
    )


@pytest.mark.parametrize(("k", "n"), [(90, 100), (0, 10), (10, 10), (1, 2), (899, 1000)])
def test_the_interval_is_wilson_s(k, n):
    """Its ends are the rates p whose distance from k/n is 1.96 standard errors: (k/n - p)^2 = z^2 p (1 - p) / n."""
    found = wilson(k, n)
    ends = [end for end in (found.low, found.high) if 0 < end < 1]
    assert len(ends) == (1 if k in (0, n) else 2)
    for end in ends:
        assert (k / n - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / n, rel=1e-9)
    assert "Wilson" in found.method


@given(k=st.integers(0, 1000), n=st.integers(1, 1000))
def test_the_interval_holds_the_rate(k, n):
    found = wilson(min(k, n), n)
    assert 0 <= found.low <= min(k, n) / n <= found.high <= 1
