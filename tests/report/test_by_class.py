"""Verdicts by the class of the samples."""

from __future__ import annotations

import html
from collections import Counter

from idl_audit.report.by_class import by_class, told_radii
from idl_audit.report.render import render
from idl_audit.report.schema import Verdict
from tests.shared.gate_reports import POINTS, audited

EPS = POINTS["2/255"]


def of_two_classes():
    report = audited("cfwcccuu")
    samples = tuple(one.model_copy(update={"label": one.index % 2}) for one in report.samples)
    return report.model_copy(update={"samples": samples})


def test_every_sample_is_counted_once_in_its_class_the_frailest_first():
    report = of_two_classes()
    found = by_class(report, EPS)
    assert [one.label for one in found] == [0, 1]
    assert sum(one.n for one in found) == 8
    total = sum((one.counts for one in found), Counter())
    (entry,) = report.summary.per_eps
    assert {verdict: total[verdict] for verdict in Verdict} == {v: getattr(entry, v.value) for v in Verdict}
    shares = [one.counts[Verdict.CERTIFIED] / one.n for one in found]
    assert shares == sorted(shares)


def test_which_class_becomes_which_counts_attacks_and_what_is_wrong_to_begin_with():
    zero, one = by_class(of_two_classes(), EPS)
    assert (zero.mostly, one.mostly) == ("4", "3")  # sample 2 is wrong, sample 1 is attacked


def test_one_class_is_no_table_and_many_radii_are_three():
    assert told_radii(audited()) == []
    assert told_radii(of_two_classes()) == [EPS]
    assert "By class" not in render(audited(), "html")


def test_pages_have_a_row_for_each_class():
    page = html.unescape(render(of_two_classes(), "html"))
    assert "Classes at eps 2/255, the frailest first" in page
    assert "By class" in render(of_two_classes(), "markdown")
