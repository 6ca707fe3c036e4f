"""The page in a browser: nothing in its console, nothing requested, nothing wider than the screen."""

import json

import numpy as np
import pytest

from idl_audit.report.render import Extras, render
from tests.report.test_render import hostile, triple
from tests.shared import headless
from tests.shared import report_examples as examples

PROGRAM = headless.find_browser()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium)")
    made = headless.Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    reports = {
        "everything": (examples.everything(), Extras((triple(784),), np.eye(2, 784))),
        "range": (examples.certify_range(), Extras()),
        "hostile": (hostile(), Extras((triple(),))),
    }
    for name, (report, extras) in reports.items():
        (folder / f"{name}.html").write_text(render(report, "html", extras=extras), encoding="utf-8")
    return folder


def look_for(browser, words):
    """Type into the field; return what is told, and how many rows are in sight."""
    return browser.evaluate(
        f"""(() => {{
          const field = document.querySelector("input[type=search]");
          field.value = {json.dumps(words)};
          field.dispatchEvent(new Event("input", {{ bubbles: true }}));
          const rows = [...document.querySelectorAll("[data-searched] tbody tr")];
          return [document.querySelector("output").textContent, rows.filter(row => row.checkVisibility()).length];
        }})()"""
    )


@pytest.mark.slow
def test_rows_are_looked_for_by_words_columns_and_verdicts(browser, pages):
    assert browser.open(pages / "everything.html", width=1280) == []
    assert look_for(browser, "sample=81") == ["1 of 100 rows", 1]
    assert look_for(browser, "falsified pgd") == ["12 of 100 rows", 12]
    assert look_for(browser, "label=8") == ["0 of 100 rows", 0]
    assert look_for(browser, "") == ["", 20]
    browser.evaluate("document.querySelectorAll('.filters input[value=certified]').forEach(box => box.click())")
    assert look_for(browser, "") == ["29 of 100 rows", 29]


@pytest.mark.slow
def test_a_sample_in_a_table_leads_to_its_details(browser, pages):
    browser.open(pages / "everything.html", width=1280)
    browser.evaluate("document.querySelector('[data-searched] a[href=\"#sample-71\"]').click()")
    assert browser.evaluate("document.querySelector('#sample-71').checkVisibility()")


@pytest.mark.slow
def test_a_print_is_light_and_has_the_details(browser, pages, tmp_path):
    browser.open(pages / "everything.html", width=1280, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.evaluate("getComputedStyle(document.querySelector('.filters')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


CARDS_THAT_OVERFLOW = """
    [...document.querySelectorAll(".cards li")].filter(card => [...card.children].some(child =>
      child.scrollWidth > child.clientWidth + 1 && child.clientWidth > 0)).map(card => card.innerText)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1920, 1280, 390])
@pytest.mark.parametrize("name", ["everything", "range", "hostile"])
def test_a_page_renders_without_a_word_in_the_console(browser, pages, name, width, dark):
    assert browser.open(pages / f"{name}.html", width=width, dark=dark) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.evaluate("document.querySelector('h1').getBoundingClientRect().height") > 10
    assert browser.evaluate(CARDS_THAT_OVERFLOW) == []
    assert browser.evaluate("document.scripts.length") == 1
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")  # the style sheet is let in
    assert ground == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
    assert browser.evaluate("document.body.innerText.length") > 500


@pytest.mark.slow
def test_what_the_policy_forbids_would_be_seen(browser, pages):
    good = (pages / "range.html").read_text(encoding="utf-8")
    bad = pages / "bad.html"
    for more in ("<script>document.title = 'run'</script>", "<p style='color: red'>", "<img src='http://127.0.0.1/x'>"):
        bad.write_text(good.replace("<main>", f"<main>{more}"), encoding="utf-8")
        assert browser.open(bad, width=1280) != []
        assert browser.evaluate("document.title") != "run"


@pytest.mark.slow
def test_the_folded_rest_opens_without_scripts(browser, pages):
    browser.open(pages / "everything.html", width=1280)
    before = browser.evaluate("document.documentElement.scrollHeight")
    browser.evaluate("document.querySelectorAll('summary').forEach(summary => summary.click())")
    assert browser.evaluate("document.documentElement.scrollHeight") > before
