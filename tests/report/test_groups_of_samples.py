"""Verdicts by the class of the samples and by columns of the data, and which class becomes which."""

from __future__ import annotations

import html
import io
import re
from collections import Counter

import pytest
from rich.console import Console

from idl_audit.report.groups import by_group, confusion, groupings, in_order, told_radii
from idl_audit.report.render import render
from idl_audit.report.render.groups import MOST_CONFUSED
from idl_audit.report.schema import Verdict
from idl_audit.report.shares import wilson
from idl_audit.report.terminal import render as print_tables
from idl_audit.values.columns import CLASS
from tests.shared.gate_reports import POINTS, audited

EPS = POINTS["2/255"]


def of_two_classes():
    report = audited("cfwcccuu")
    samples = tuple(one.model_copy(update={"label": one.index % 2}) for one in report.samples)
    return report.model_copy(update={"samples": samples})


def test_every_sample_is_counted_once_in_its_class_the_frailest_first():
    report = of_two_classes()
    found = by_group(report, CLASS, EPS)
    assert [one.value for one in found] == ["0", "1"]
    assert sum(one.n for one in found) == 8
    total = sum((one.counts for one in found), Counter())
    (entry,) = report.summary.per_eps
    assert {verdict: total[verdict] for verdict in Verdict} == {v: getattr(entry, v.value) for v in Verdict}
    shares = [one.counts[Verdict.CERTIFIED] / one.n for one in found]
    assert shares == sorted(shares)


def test_which_class_becomes_which_counts_attacks_and_what_is_wrong_to_begin_with():
    zero, one = by_group(of_two_classes(), CLASS, EPS)
    assert (zero.mostly, one.mostly) == ("4", "3")  # sample 2 is wrong, sample 1 is attacked


def test_one_class_is_no_table_and_many_radii_are_three():
    assert groupings(audited()) == []
    assert groupings(of_two_classes()) == [CLASS]
    assert told_radii(of_two_classes()) == [EPS]
    many = audited(dict.fromkeys(POINTS, "cf"))
    assert told_radii(many) == sorted(POINTS.values())
    assert "By class" not in render(audited(), "html")


def test_pages_have_a_row_for_each_class():
    page = html.unescape(render(of_two_classes(), "html"))
    assert "Classes at eps 2/255, the frailest first" in page
    assert "By class" in render(of_two_classes(), "markdown")


def by_light():
    report = audited("cccfffuw")
    lights = ("day", "day", "day", "night", "night", "night", "night", "dusk")
    samples = tuple(
        one.model_copy(update={"groups": {"light": light}}) for one, light in zip(report.samples, lights, strict=True)
    )
    return report.model_copy(update={"samples": samples})


def test_a_column_has_counts_of_its_own_the_frailest_group_first():
    found = by_group(by_light(), "light", EPS)
    assert [(one.value, one.n, one.counts[Verdict.CERTIFIED]) for one in found] == [
        ("dusk", 1, 0),
        ("night", 4, 0),
        ("day", 3, 3),
    ]
    assert groupings(by_light()) == ["light"]


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_a_page_has_a_section_for_each_column_with_intervals(form):
    page = html.unescape(render(by_light(), form))
    assert "By light" in page
    assert "Groups of light at eps 2/255, the frailest first" in page
    low, high = wilson(3, 3).low, wilson(3, 3).high
    assert f"100 % ({low:.2f} to {high:.2f})" in page.replace("\\", "")


def test_the_terminal_tells_of_columns_and_of_classes_where_all_is_asked_for():
    stream = io.StringIO()
    print_tables(by_light(), console=Console(file=stream, width=100))
    assert "By light, the frailest first, at eps 2/255" in stream.getvalue()
    assert "0.44 to 1.00" in stream.getvalue()
    stream = io.StringIO()
    print_tables(of_two_classes(), console=Console(file=stream, width=100), verbose=True)
    assert "By class, the frailest first, at eps 2/255" in stream.getvalue()


def test_groups_stand_in_the_order_of_numbers_and_then_of_words():
    assert sorted(["10", "9", "b", "a", "-1"], key=in_order) == ["9", "10", "-1", "a", "b"]


def test_a_confusion_counts_what_attacks_give_each_class():
    report = of_two_classes()  # of "cfwcccuu": sample 1 becomes 3
    assert confusion(report, EPS) == {(1, 3): 1}
    page = html.unescape(render(report, "html"))
    assert "Which class becomes which at eps 2/255" in page
    assert '<span class="heated level5">1</span>' in page
    assert "Which class" not in render(audited("cccc"), "html")


def test_a_confusion_of_many_classes_puts_the_rarest_together():
    report = audited("f" * 40)
    samples = []
    for sample in report.samples:
        (result,) = sample.results
        label = min(sample.index, 30)  # class 30 ten times, 0 to 29 once
        found = result.adversarial.model_copy(update={"class_": label + 1})
        changed = result.model_copy(update={"adversarial": found})
        samples.append(sample.model_copy(update={"label": label, "results": (changed,)}))
    page = html.unescape(render(report.model_copy(update={"samples": tuple(samples)}), "html"))
    table = page[page.index("Which class becomes which") :]
    table = table[: table.index("</table>")]
    assert table.count("<tr>") == 1 + MOST_CONFUSED + 1
    assert table.count(">others<") == 2
    counts = [int(count) for count in re.findall(r'class="heated level[0-5]">(\d+)<', table)]
    assert sum(counts) == 40
    assert max(counts) > 10  # the others, together
