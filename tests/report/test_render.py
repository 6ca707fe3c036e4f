"""One report in every form: what each says, and that hostile strings do nothing in any of them."""

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from idl_audit.report.adversarial_file import Triple
from idl_audit.report.codes import CODES
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.pictures import DARK, LIGHT, AccuracyPoint, draw_accuracy
from idl_audit.report.pictures.accuracy import apart
from idl_audit.report.render import Extras, Format, render
from idl_audit.report.render.details import MOST_DETAILS
from idl_audit.report.render.junit import to_junit
from idl_audit.report.render.markdown import code, text
from idl_audit.report.schema import (
    Adversarial,
    BlockInfo,
    BlockLink,
    Diagnostic,
    EpsPoint,
    Gate,
    InputGroups,
    PropertyReport,
    Reason,
    RuleResult,
    SampleReport,
    SampleResult,
    ThreatModel,
    Timing,
    TopGroup,
    Verdict,
    Verification,
)
from tests.shared import report_examples as examples
from tests.shared.junit_schema import faults

HOSTILES = (
    "<script>alert(1)</script></script><img src=x onerror=alert(2)>",
    "\"><svg onload=alert(3)>' style='x' {{ 7*7 }} {% raw %}",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x00 \u202egnp \u200b",
    "a\n::error::boom\r\n::stop-commands::x ##[error]old ::set-output name=a::b",
    '=HYPERLINK("http://x","y") +1 -1 @SUM(A1)',
    "![i](http://x/i.png) [l](javascript:alert(4)) <http://x> | cell | `tick` ``` *b* _u_ ~~s~~ # h",
    "- item\n# heading\n> quote\n```\nfence\n```\n<details>",
    "]]> <!-- --> --> <![CDATA[ &lt; &amp; &#x3c; \ufffe\uffff",
    "https://evil.example/x www.evil.example me@evil.example @everyone #12",
    "%0A::error::x, a:b %25",
    "\\",
    "`",
    "`" * 30,
)
HOSTILE = " ".join(HOSTILES)


def hostile(bad=HOSTILE):
    """A report with this string wherever a string may stand."""
    found = Adversarial.model_validate(
        {"class": 3, "linf": 0.03, "l0": 4, "margin": -1.0, "confirmed_by": (bad,), "key": bad}
    )
    falsified = SampleResult(eps=0.03, verdict=Verdict.FALSIFIED, adversarial=found, method=bad)
    unknown = SampleResult(eps=0.03, verdict=Verdict.UNKNOWN, reason=Reason.TIME_LIMIT, method=bad)
    return examples.everything().model_copy(
        update={
            "command": bad,
            "command_line": bad,
            "environment": examples.report().environment.model_copy(
                update={"python": bad, "platform": bad, "versions": {bad: bad}}
            ),
            "model": examples.model(
                path=bad,
                format=bad,
                producer=bad,
                unsupported=(bad,),
                stripped_output=bad,
                ops={bad: 1},
                external_files=(bad,),
                input_shape=(1, 4),
            ),
            "conversion": examples.conversion(
                blocks=(BlockInfo(name=bad, op=bad, activation=bad, shape=(3,), size=3),),
                links=(BlockLink(row=0, column=1, nnz=2), BlockLink(row=1, column=0, nnz=3)),
            ),
            "threat_model": ThreatModel(set="box", eps=(EpsPoint(value=0.03, text=bad),), sigma=bad),
            "samples": (
                SampleReport(index=0, label=7, predicted=7, results=(falsified,)),
                SampleReport(index=1, label=7, predicted=7, results=(unknown,)),
            ),
            "sensitivity": examples.local_sensitivity(
                matrix_file=bad,
                method=bad,
                groups=InputGroups(source=bad, names=(bad,), top=(TopGroup(output=0, group=bad, value=1.0),)),
            ),
            "bounds": tuple(entry.model_copy(update={"block": bad}) for entry in examples.everything().bounds),
            "objectives": tuple(
                entry.model_copy(update={"objective": bad, "method": bad}) for entry in examples.everything().objectives
            ),
            "verification": Verification(file=bad, claim=bad, accepted=False, checked=1, refused=(bad,)),
            "properties": (PropertyReport(onnx=bad, vnnlib=bad, result="sat", method=bad, witness=bad),),
            "gate": Gate(
                passed=False, baseline=bad, rules=(RuleResult(rule=bad, passed=False, expected=bad, found=bad),)
            ),
            "diagnostics": (Diagnostic(code="IDL001", level="error", message=bad, hint=bad, where=bad),),
            "artifacts": (bad,),
            "timing": Timing(total=1.0, steps={bad: 0.5}),
        }
    )


def triple(size=4):
    original = np.linspace(0, 1, size)
    found = hostile().samples[0].results[0].adversarial
    return Triple(0, 7, 0.03, found, original, np.clip(original + 0.03, 0, 1))


REPORTS = {
    "bare": examples.report(),
    "convert": examples.report("convert", model=examples.model(), conversion=examples.conversion()),
    "sensitivity": examples.report("sensitivity", model=examples.model(), sensitivity=examples.local_sensitivity()),
    "certify": examples.certify(),
    "range": examples.certify_range(),
    "everything": examples.everything(),
    "hostile": hostile(),
}
FORMS = [*Format]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_every_report_has_every_form(report, form):
    made = render(report, form)
    assert made.endswith("\n")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200b\ufffe\uffff]", made)
    assert made == render(from_json(to_json(report)), form)


@pytest.mark.parametrize("form", [Format.HTML, Format.MARKDOWN])
def test_pages_say_what_was_found(form):
    made = html.unescape(render(examples.everything(), form)).replace("\\", "")
    for part in ("71 (71.0 %)", "Clean accuracy is poor", "certified_accuracy@0.03 >= 0.9", "onnxruntime 1.31"):
        assert part in made
    assert "ab" * 32 in made
    assert "Incomplete, the work was cut short" in made
    assert "5.00 s" in made


@pytest.mark.parametrize("form", [Format.HTML, Format.MARKDOWN])
def test_objectives_stand_farthest_first_with_what_is_proved(form):
    made = html.unescape(render(examples.everything(), form)).replace("\\", "")
    part = made[made.index("Objective, farthest first") :]
    assert "squared distance from the sample's state" in part
    assert -1 < part.index("7.125") < part.index("2.345") < part.index("2.5") < part.index("time_limit")
    assert "proved at most" in part
    assert "Attacked now, and not in the baseline" in made


# ---- HTML ------------------------------------------------------------------------------------------------------------

ELEMENTS = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "main", "section", "footer", "nav", "div"),
    *("h1", "h2", "h3", "p", "a", "b", "small", "span", "code", "ul", "li", "dl", "dt", "dd", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "picture", "source", "img"),
    *("svg", "rect", "defs", "lineargradient", "stop", "script"),
}
"""Everything that a page is made of: there is no form, frame, or object, and one script."""


class Page(HTMLParser):
    """Collects elements, links, texts, and what is not closed."""

    VOID = frozenset({"meta", "link", "img", "source"})

    def __init__(self, document):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open, self.comments = [], [], [], []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(attributes) == len(dict(attributes))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        self.comments.append(data)


def page(report, **extras):
    return Page(render(report, "html", extras=Extras(**extras)))


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_page_holds_only_known_elements_and_data_links(report):
    found = page(report, triples=(triple(),) if report is REPORTS["hostile"] else ())
    assert found.open == []
    assert {tag for tag, _ in found.elements} <= ELEMENTS
    assert found.comments == [" idl-audit report "]
    assert [attributes for tag, attributes in found.elements if tag == "script"] == [{}]
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("href", "src", "srcset"):
            if name in attributes and not (tag == "a" and attributes[name].startswith("#")):
                assert re.fullmatch(r"data:([a-z/+]+;base64)?,[A-Za-z0-9+/=]*", attributes[name])


def test_hostile_strings_are_text_on_a_page():
    found = page(hostile())
    words = "".join(found.texts)
    assert "<script>alert(1)</script>" in words
    assert "{{ 7*7 }}" in words
    assert "49" not in re.sub(r"[0-9a-f]{64}", "", words)


def test_the_policy_allows_the_style_sheet_and_the_script_and_nothing_else():
    document = render(examples.everything(), "html")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', document)
    (style,) = re.findall(r"<style>(.*?)</style>", document, flags=re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", document, flags=re.DOTALL)
    of_style, of_script = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (style, script))
    assert html.unescape(policy) == (
        f"default-src 'none'; style-src 'sha256-{of_style}'; script-src 'sha256-{of_script}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    assert not re.search(r"fetch|XMLHttp|eval|innerHTML|insertAdjacent|document\.write|import|location|https?:", script)
    assert "@import" not in style
    assert "url(" not in style


def test_a_page_holds_the_whole_report_as_a_link():
    report = hostile()
    (link,) = (attributes for tag, attributes in page(report).elements if "download" in attributes)
    document = base64.b64decode(link["href"].partition(",")[2])
    assert from_json(document.decode()) == report


def test_the_worst_samples_have_details_that_the_tables_and_pictures_lead_to():
    found = page(examples.everything(), triples=(triple(784),))
    ids = [attributes["id"] for _, attributes in found.elements if attributes.get("id", "").startswith("sample-")]
    assert len(ids) == MOST_DETAILS
    links = Counter(attributes["href"][1:] for tag, attributes in found.elements if tag == "a" and "href" in attributes)
    assert all(links[one] >= 1 for one in ids)
    words = " ".join(found.texts)
    assert "Sample 71 at each radius" in words  # the first that is attacked
    assert "onnxruntime, onnx2torch" in words
    assert "survives" in words
    assert "Sample 5 at each radius" not in words  # certified
    assert "at each radius" not in render(examples.everything(), "markdown").split("Samples, worst first")[1]


def test_without_the_script_all_rows_are_there_and_nothing_waits_for_it():
    document = render(examples.everything(), "html")
    assert document.count("data-searched") == 2  # the table's place, and the script's word for it
    found = Page(document)
    assert not {"button", "input", "form", "label"} & {tag for tag, _ in found.elements}
    assert not [attributes for _, attributes in found.elements if "hidden" in attributes]


@pytest.mark.parametrize(
    ("top", "bottom"), [(0.3, 0.3), (0.3, 0.28), (1.0, 1.0), (1.0, 0.97), (0.0, 0.0), (0.02, 0.0), (0.9, 0.1)]
)
def test_names_of_edges_that_end_together_stand_apart(top, bottom):
    high, low = apart([top, bottom], least=0.1)
    assert high - low >= 0.1 - 1e-12
    assert -1e-12 <= low <= high <= 1 + 1e-12
    if top - bottom >= 0.1:
        assert (high, low) == (top, bottom)
    assert max(abs(high - top), abs(low - bottom)) <= 0.1 + 1e-12


def test_headings_pictures_and_tables_are_accessible():
    found = page(examples.everything(), triples=(triple(784),), matrix=np.ones((2, 784)))
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(attributes["alt"] for tag, attributes in found.elements if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in found.elements if tag == "th")
    tables = sum(tag == "table" for tag, _ in found.elements)
    assert tables == sum(tag == "caption" for tag, _ in found.elements) > 5
    pages = [attributes for tag, attributes in found.elements if tag == "html"]
    assert pages == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"][1:] for tag, attributes in found.elements if attributes.get("href", "").startswith("#")}
    assert links <= set(ids)


def test_what_is_no_image_is_told_in_numbers():
    made = render(hostile(), "html", extras=Extras(triples=(triple(),)))
    assert "Largest changes" in made
    assert 'class="pixels" src' not in made.split('id="samples"')[1].split("</section>")[0]


def test_a_page_of_100_large_images_stays_below_2_mb():
    rng = np.random.default_rng(0)
    before = rng.random((100, 3 * 224 * 224))
    samples = tuple(examples.sample(index, Verdict.FALSIFIED) for index in range(100))
    report = examples.certify(model=examples.model(input_shape=(1, 3, 224, 224)), samples=samples)
    triples = tuple(Triple(index, 7, 0.03, examples.ATTACK, before[index], before[99 - index]) for index in range(100))
    made = render(report, "html", extras=Extras(triples=triples))
    assert 500_000 < len(made.encode()) < 2_000_000
    assert "left out, for the sake of the" in made


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_band_is_made_of_steps_on_the_safe_side(theme, narrow):
    points = [AccuracyPoint(0.1, "0.1", 0.8, 0.9), AccuracyPoint(0.2, "0.2", 0.25, 0.5)]
    drawn = draw_accuracy(points, clean=1.0, theme=theme, narrow=narrow)
    lines = [
        [tuple(map(float, pair.split())) for pair in re.findall(r"[ML] ([\d.]+ [\d.]+)", path)]
        for path, colour in re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: (#\w+)', drawn)
        if colour in (theme.certified, theme.falsified)
    ]
    assert len(lines) == 2
    for line in lines:
        for (x, y), (further, lower) in pairwise(line):
            assert x == further or y == lower
    floor, top = lines
    assert floor[-1][1] > floor[0][1]  # down the page
    assert top[0][1] < top[-1][1]
    assert drawn == draw_accuracy(points, clean=1.0, theme=theme, narrow=narrow)


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown_html(document):
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(document)


def test_hostile_strings_are_text_in_markdown():
    made = render(hostile(), "markdown")
    shown = markdown_html(made)
    found = re.findall(r"<(/?[a-z0-9]+)", re.sub(r"<!--.*?-->", "", shown))
    assert set(found) - {f"/{name}" for name in found} <= {
        *("h2", "h3", "p", "strong", "details", "summary", "b", "table", "thead", "tbody", "tr", "th", "td", "code"),
    }
    assert "<script>alert(1)" in html.unescape(shown)
    for line in made.splitlines():
        assert not line.lstrip().startswith(("::", "##["))
        assert "##[" not in line
    escaped = text(HOSTILE).replace("\\", "")
    assert not re.search(r"(?<!\u2060)(://|(?<=www)\.)|[@#](?=\w)", escaped)


def test_tables_in_markdown_have_as_many_cells_as_columns():
    parsed = markdown_html(render(hostile(), "markdown"))
    assert parsed.count("<table") > 8
    for table in re.findall(r"<table>.*?</table>", parsed, flags=re.DOTALL):
        rows = [len(re.findall(r"<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, flags=re.DOTALL)]
        assert len(set(rows)) == 1
    source = [line for line in render(hostile(), "markdown").splitlines() if line.startswith("|")]
    cells = [re.findall(r"(?<!\\)(?:\\\\)*\|", line) for line in source]
    assert min(map(len, cells)) >= 2


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zs", "Zl", "Zp"]), min_size=1, max_size=40)
)
def test_text_in_markdown_is_shown_as_it_is(value):
    for made in (text(value), f"| {text(value)} |\n|---|\n| {text(value)} |"):
        shown = re.sub(r"<[^>]*>", "\n", markdown_html(made)).replace("\u2060", "")
        assert html.unescape(shown).split() in ([value], [value, value])


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=30))
def test_code_in_markdown_is_shown_as_it_is(value):
    shown = markdown_html(f"| a |\n|---|\n| {code(value)} |")
    cell = re.findall(r"<td>(.*?)</td>", shown, flags=re.DOTALL)[0]
    expected = value.strip().replace("##[", "## [")
    bare = re.sub(r"</?code>", "", cell)
    assert html.unescape(bare).strip() == expected.strip() or "\\" in expected
    assert cell.count("<") == (2 if expected else 0)


# ---- JUnit -----------------------------------------------------------------------------------------------------------


def suites(report):
    root = ElementTree.fromstring(to_junit(report).encode())
    return {suite.get("name"): suite for suite in root}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_junit_is_valid_by_the_schemas_of_ant_and_jenkins(report):
    made = to_junit(report)
    assert "<testsuite " in made
    assert faults(made) == []
    assert faults(to_junit(report.model_copy(update={"status": "incomplete"}))) == []


def test_junit_of_hostile_strings_is_valid_too():
    for bad in (HOSTILE, *HOSTILES, " ", "\x00"):
        assert faults(to_junit(hostile(bad))) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (r"<properties />", "", "<testsuite> holds testcase"),
        (r"<system-out />(\s*)<system-err />", r"<system-err />\1<system-out />", "<testsuite> holds"),
        (r"<system-err />", "<system-err /><testcase name='a' classname='b' time='0' />", "<testsuite> holds"),
        (r"<skipped", "<failure type='a' /><skipped", "<testcase> holds failure skipped"),
        (r"<skipped message", "<skipped sort='x' message", "<skipped> has the unknown attribute sort"),
        (r"<skipped ", "<ignored /><skipped ", "<ignored> is unknown"),
        (r' type="gate"', "", "<failure> lacks type"),
        (r' hostname="localhost"', "", "<testsuite> lacks hostname"),
        (r' timestamp="([^"]*)"', r' timestamp="\1Z"', "<testsuite> has timestamp"),
        (r' time="[^"]*"', ' time="nan"', "has time = 'nan'"),
        (r' time="[^"]*"', ' time="1e-3"', "has time = '1e-3'"),
        (r' failures="\d+"', ' failures="77"', "failures = 77"),
        (r' id="0"', ' id="3"', "suite 0 has the id 3"),
        (r"</testcase>", "</testcase>text", "text after <testcase>"),
        (r"testsuites", "suites", "the root is suites"),
    ],
)
def test_the_check_of_junit_finds_each_fault(old, new, fault):
    made = to_junit(examples.everything())
    broken = re.sub(old, new, made)
    assert broken != made
    assert any(fault in told for told in faults(broken)), faults(broken)


def counts(suite):
    return tuple(int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped"))


def test_without_a_gate_falsified_and_wrong_samples_fail():
    found = suites(examples.certify())
    assert counts(found["verdicts at eps 0.03"]) == (100, 12 + 3, 0, 14)
    assert counts(found["report"]) == (1, 0, 0, 0)


def test_with_a_gate_only_its_rules_can_fail():
    rules = (
        RuleResult(rule="certified_accuracy@0.03 >= 0.7", passed=True, k=71, n=100),
        RuleResult(rule="unknown <= 10 %", level="warning", passed=False, found="0.14", k=14, n=100),
    )
    found = suites(examples.certify(gate=Gate(passed=True, rules=rules)))
    assert counts(found["gate"]) == (2, 0, 0, 1)
    assert counts(found["verdicts at eps 0.03"]) == (100, 0, 0, 29)
    failed = suites(examples.everything())["gate"].find("testcase/failure")
    assert failed.get("message") == "expected certified_accuracy@0.03 >= 0.9, found 0.71 (71 of 100)"


def test_an_incomplete_report_is_an_error():
    assert counts(suites(examples.certify(status="incomplete"))["report"]) == (1, 0, 1, 0)


def test_properties_fail_where_they_are_violated_and_err_where_they_contradict():
    given_results = (("sat", None), ("sat", "sat"), ("unsat", "unsat"), ("sat", "unsat"), ("timeout", "sat"))
    properties = tuple(
        PropertyReport(onnx="a.onnx", vnnlib="b.vnnlib", result=result, truth=truth) for result, truth in given_results
    )
    found = suites(examples.report("bench", properties=properties))["properties"]
    assert counts(found) == (5, 1, 1, 1)


def test_hostile_strings_come_back_from_xml():
    found = suites(hostile("]]></failure><x a='b'>\x00\ufffe\x1b[31m&amp;"))
    failed = found["gate"].find("testcase/failure")
    assert "]]></failure><x a='b'>&amp;" in failed.get("message")


# ---- GitHub ----------------------------------------------------------------------------------------------------------


def annotations(report):
    lines = render(report, "github").splitlines()
    parsed = [re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.*)", line) for line in lines]
    assert all(parsed)
    return [(found[1], dict(part.split("=", 1) for part in found[2].split(",")), found[3]) for found in parsed]


def test_annotations_say_the_worst_first():
    found = annotations(examples.everything())
    assert found[0][0] == "error"
    assert found[0][1] == {"file": "models/mnist.onnx", "title": "gate%3A certified_accuracy@0.03 >= 0.9"}
    assert found[0][2] == "expected certified_accuracy@0.03 >= 0.9, found 0.71 (71 of 100)"
    assert any("12 of 100 samples can be attacked at eps 0.03: 71, 72" in text for _, _, text in found)
    assert found[-1][0] == "notice"


def test_hostile_strings_start_no_command_of_their_own():
    made = render(hostile(), "github")
    found = annotations(hostile())
    assert len(found) == made.count("\n") > 5
    assert all(set(properties) <= {"file", "title"} for _, properties, _ in found)
    assert "##[" not in made
    assert not re.search(r"%(?!25|0D|0A|3A|2C)", made)
    assert "%250A" in made  # what the string itself says is not a line break


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.onnx", ""])
def test_only_files_of_the_repository_are_annotated(path):
    assert all(
        "file" not in properties for _, properties, _ in annotations(examples.certify(model=examples.model(path)))
    )


# ---- SARIF -----------------------------------------------------------------------------------------------------------


def scanned(report):
    (found,) = json.loads(render(report, "sarif"))["runs"]
    return found


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_sarif_tells_what_the_annotations_tell_each_by_a_rule_of_the_run(report):
    run, told = scanned(report), annotations(report)
    rules = run["tool"]["driver"]["rules"]
    assert len(run["results"]) == len(told)
    for result, (level, _, _) in zip(run["results"], told, strict=True):
        assert result["ruleId"] == rules[result["ruleIndex"]]["id"]
        assert result["level"] == {"notice": "note"}.get(level, level)
        assert result["message"]["text"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert all(rule["shortDescription"]["text"] != rule["id"] for rule in rules if rule["id"] in CODES)


def test_a_finding_of_the_next_commit_has_the_same_fingerprint():
    def prints(report):
        return [(r["ruleId"], r["partialFingerprints"]["idlAudit/v1"]) for r in scanned(report)["results"]]

    first, second = examples.everything(), examples.everything().model_copy(update={"created": datetime.now(UTC)})
    assert prints(first) == prints(second)
    assert len(set(prints(first))) == len(prints(first))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.onnx", ""])
def test_only_files_of_the_repository_are_places(path):
    found = scanned(examples.certify(model=examples.model(path)))
    assert all("locations" not in result for result in found["results"])
    named = scanned(examples.certify(model=examples.model("a b/x.onnx")))
    (place,) = named["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/x.onnx"


# ---- what it needs ---------------------------------------------------------------------------------------------------


def test_reports_need_neither_torch_nor_onnx_nor_a_solver(tmp_path):
    (tmp_path / "report.json").write_text(to_json(examples.everything()))
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnxruntime", "highspy", "onnx2torch", "onnxscript", "torchvision"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from idl_audit.report.codes import CODES
from idl_audit.report.json_text import from_json
from idl_audit.report.render import Format, render
report = from_json(open("report.json").read())
for form in (Format.MARKDOWN, Format.JUNIT, Format.GITHUB):
    assert render(report, form)
assert "matplotlib" not in sys.modules and "jinja2" not in sys.modules
assert render(report, Format.HTML)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_the_json_in_a_page_is_what_from_json_reads():
    assert json.loads(to_json(hostile()))["command"] == hostile().command


# ---- what could not be judged ----------------------------------------------------------------------------------------


def unjudged(**changes):
    """A report of bench whose only property could not be looked at."""
    entry = PropertyReport(onnx="a.onnx", vnnlib="b.vnnlib", result="unknown", problem="a.onnx: no such file")
    given = {"status": "incomplete", "why_incomplete": "not_judged", "properties": (entry,)}
    return examples.report("bench", **(given | changes))


def test_what_could_not_be_judged_fails_in_junit():
    root = ElementTree.fromstring(to_junit(unjudged()).split("-->", 1)[1])
    errors = [(case.get("name"), case.find("error").get("message")) for case in root.iter("testcase")]
    assert errors == [
        (
            "the run is complete",
            "Incomplete, not all could be judged. "
            "0 of 1 property hold (unsat), 0 violated (sat), 0 undecided, 1 not judged.",
        ),
        ("a.onnx b.vnnlib", "a.onnx: no such file"),
    ]
    assert not list(faults(to_junit(unjudged())))


def test_a_report_that_is_incomplete_fails_in_junit_whatever_is_in_it():
    for report in (
        examples.report(status="incomplete"),
        examples.certify(status="incomplete"),
        unjudged(properties=()),
    ):
        root = ElementTree.fromstring(to_junit(report).split("-->", 1)[1])
        assert int(root.find("testsuite").get("errors")) == 1


def test_what_could_not_be_judged_is_an_error_in_a_workflow():
    lines = render(unjudged(), Format.GITHUB).splitlines()
    assert lines[0].startswith("::error title=incomplete report::Incomplete, not all could be judged.")
    assert lines[1] == "::error title=not judged::a.onnx, b.vnnlib: a.onnx: no such file"


@pytest.mark.parametrize("format", [Format.HTML, Format.MARKDOWN])
def test_what_could_not_be_judged_is_named_on_pages(format):
    page = render(unjudged(), format)
    assert "not judged" in page
    assert "Incomplete, not all could be judged" in page
