"""The documentation site: pages made of the code are complete, and MkDocs builds all of it without a warning."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from idl_audit.cli.exits import codes_of
from idl_audit.commands.options import COMMANDS, asked_of
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.lowering.refusals import REFUSED
from idl_audit.report.codes import CODES, WORDS
from idl_audit.values.options import options_of

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs/site"
CONFIG = (SITE / "mkdocs.yml").read_text(encoding="utf-8")


def module(name: str) -> ModuleType:
    """Return a script of the site as a module; it is no package."""
    spec = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


reference = module("reference")


def cells(text: str, column: int = 0) -> list[str]:
    """Return the cells of a column of all tables of a page."""
    rows = (re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| "))
    return [row[column].strip() for row in rows]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_page_has_its_options_and_exit_codes(name):
    page = reference.commands()[f"commands/{name}.md"]
    first = " ".join(cells(page))
    for one in options_of(asked_of(name)).values():
        if one.typed:
            assert (f"`{one.name.upper()}`" if one.positional else f"`--{one.key}`") in first, one.name
            assert reference.prose(one.help) in page
    assert {f"{code:d}" for code in codes_of(name)} <= set(cells(page))


def test_every_code_and_word_has_a_page_and_stands_in_the_list():
    pages = reference.messages()
    assert set(pages) == {f"codes/{name}.md" for name in (*CODES, "words", "README")}
    assert re.findall(r"\[(IDL\d+)\]\(\1\.md\)", pages["codes/README.md"]) == sorted(CODES)
    for name, entry in CODES.items():
        assert reference.prose(entry.meaning) in pages[f"codes/{name}.md"]
        assert reference.prose(entry.advice) in pages[f"codes/{name}.md"]
    assert all(f"## {reference.escaped(name)}\n" in pages["codes/words.md"] for name in WORDS)


def test_every_operator_is_read_or_refused():
    (page,) = reference.operators().values()
    assert set(cells(page)) >= {*LOWERINGS, *REFUSED}
    assert not set(LOWERINGS) & set(REFUSED)


def test_every_report_is_in_the_list():
    (page,) = reference.reports(ROOT / "reports").values()
    named = re.findall(r"\]\(([^)]+)\)", page)
    assert sorted(named) == sorted(path.name for kind in ("*.md", "*.txt") for path in (ROOT / "reports").glob(kind))


def test_options_and_pieces_in_backticks_are_code_and_nothing_else_is_markup():
    given = "with `convert` and --max-nodes, not x--y: A|B, *S*, --a|b"
    assert reference.prose(given) == "with `convert` and `--max-nodes`, not x--y: A\\|B, \\*S\\*, `--a`\\|b"


@pytest.mark.parametrize("text", ["a | b", "`x`", "<script>", "S[i]", "y_1 * y_2", "# no heading"])
def test_text_is_shown_as_it_is(text):
    markdown = pytest.importorskip("markdown")
    made = markdown.markdown(f"| a | b |\n|---|---|\n| {reference.escaped(text)} | c |", extensions=["tables"])
    (cell, other) = re.findall(r"<td>(.*?)</td>", made)
    shown = cell.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert (shown, other) == (text, "c")


def test_every_document_is_in_the_navigation():
    named = set(re.findall(r": ([\w/-]+\.md)$", CONFIG, flags=re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == {name for name in pages if not name.startswith("decisions/")}


def test_ci_builds_the_site_as_the_readme_says():
    line = "python -m mkdocs build --strict -f docs/site/mkdocs.yml"
    assert line in (ROOT / ".github/workflows/docs.yml").read_text(encoding="utf-8")
    assert line.replace(" --strict", "") in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_out_of_the_documents_lead_to_where_the_site_has_their_targets(monkeypatch):
    pytest.importorskip("mkdocs", reason="needs pip install '.[docs]'")
    monkeypatch.setattr(sys, "path", [*sys.path])
    hooks = module("hooks")
    text = "[a](../../CHANGELOG.md#x) [b](../../reports) [c](../ci.md) [d](https://e.org) [e](../../.ci/run) `[f](g)`"
    assert hooks.relinked(text, "tutorials/int8.md") == (
        "[a](../project/CHANGELOG.md#x) [b](../reports/README.md) [c](../ci.md) [d](https://e.org) "
        "[e](../files/.ci/run) `[f](g)`"
    )
    assert hooks.relinked("[a](docs/ci.md) [b](README.md)", "project/SECURITY.md") == "[a](../ci.md) [b](../README.md)"
    assert hooks.targets(text, "docs/tutorials/int8.md") == {"CHANGELOG.md", "reports", "docs/ci.md", ".ci/run"}


class Fetched(HTMLParser):
    """What a page makes a browser fetch, and its links and anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "src" in found:
            self.fetched.append(str(found["src"]))
        if tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(str(found.get("href")))


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("material", reason="needs pip install '.[docs]'")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(SITE / "mkdocs.yml"), "-d", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    built = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert built >= {"index.html", "tutorials/first-audit.html", "commands/certify.html", "codes/IDL101.html"}
    assert built >= {f"commands/{name}.html" for name in COMMANDS} | {f"codes/{name}.html" for name in CODES}
    assert (tmp_path / "reports/digits_mlp.txt").is_file()
    assert not (tmp_path / "site").exists()
    for name in built:
        fetched = Fetched((tmp_path / name).read_text(encoding="utf-8")).fetched
        assert fetched
        assert [link for link in fetched if re.match(r"(https?:)?//", link)] == [], name
