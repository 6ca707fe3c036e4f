"""The documents against the code and each other: sections, links, names of modules, paths, options, slopes."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import typer

from idl_audit.cli.app import app
from idl_audit.implicit.activations import ACTIVATIONS, COUPLED

ROOT = Path(__file__).resolve().parents[1]
MATHEMATICS = ROOT / "docs/mathematics.md"
PLACES = ("*.md", "docs/**/*.md", ".github/**/*.md", "reports/*.md", "sample_models/*.md", "findings/*.md")
DOCUMENTS = sorted(path for pattern in PLACES for path in ROOT.glob(pattern))
SOURCES = sorted(path for folder in ("idl_audit", "tests", "sample_models") for path in (ROOT / folder).rglob("*.py"))
NUMBER = r"\d+(?:\.\d+)?"
CITATION = re.compile(rf"docs/mathematics\.md, sections? ({NUMBER}(?:(?:, | and | to ){NUMBER})*)")
"""The one form of a citation: "docs/mathematics.md, section 5.3", or "sections 5.2, 5.4 and 6"."""
WITHIN = re.compile(rf"\bsections? ({NUMBER}(?:(?:, | and | to ){NUMBER})*)")

LINKS = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$|<(?:a|img)\b[^>]* (?:href|src)=\"([^\"]+)", flags=re.MULTILINE)
"""Targets of links and pictures, in each form that Markdown has for them."""


def headings(text: str) -> list[str]:
    """Return the numbers of the sections of the mathematics, in their order."""
    return re.findall(rf"^#{{2,3}} ({NUMBER})\.? ", text, flags=re.MULTILINE)


SECTIONS = headings(MATHEMATICS.read_text(encoding="utf-8"))


def wrong_citations(text: str) -> list[str]:
    """Return the citations of the mathematics in a source file that have another form, or name no section."""
    flat = " ".join(text.split())
    cited = [number for match in CITATION.finditer(flat) for number in re.findall(NUMBER, match[1])]
    missing = [f"section {number}" for number in cited if number not in SECTIONS]
    rest = re.sub(r"docs/mathematics\.md(?! ?,? ?sections? \d)", "", CITATION.sub("", flat))
    return missing + re.findall(
        r"(?i)mathematics\.md.{0,20}|\bmathematics \d.{0,20}|(?<!paper )\bsections? \d.{0,20}", rest
    )


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    plain = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def prose(text: str) -> str:
    """Return Markdown without its blocks and pieces of code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(```+).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings; a heading that is there again has a number behind it."""
    text = re.sub(r"^(```+).*?^\1$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for name in map(slug, re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)):
        again = (f"{name}-{number}" for number in itertools.count(1))
        found.add(name if name not in found else next(other for other in again if other not in found))
    return found


def broken_links(path: Path, text: str) -> list[str]:
    """Return the relative links of a document that lead nowhere."""
    broken = []
    for target in map("".join, LINKS.findall(prose(text))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    return broken


def code_in(text: str) -> list[str]:
    """Return the pieces of code in a document's lines; blocks are left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^(```+).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE))


def unknown_names(text: str) -> list[str]:
    """Return the dotted names of ours in backticks that no module or attribute has."""
    names = [m[0] for piece in code_in(text) for m in re.finditer(r"(?<![\w/-])idl_audit(?:\.\w+)+", piece)]
    return [name for name in names if not resolves(name) and not name.endswith((".toml", ".py"))]


def resolves(name: str) -> bool:
    """Return whether a dotted name is a module, or something in one: fields of dataclasses count."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return all(map(bool, reached(found, parts[length:])))
    return False


def reached(found: object, rest: list[str]) -> Iterator[bool]:
    for part in rest:
        if is_dataclass(found) and part in {field.name for field in fields(found)}:
            return  # a field without a default is no attribute of its class
        yield hasattr(found, part)
        found = getattr(found, part, None)


def missing_paths(text: str) -> list[str]:
    """Return the paths in backticks, from the root of the repository, that are not there."""
    tops = r"(?:docs|tests|reports|sample_models|benchmarks|idl_audit|\.github|\.ci)"
    pieces = [piece for piece in code_in(text) if re.fullmatch(rf"{tops}/[\w./-]*", piece)]
    return [piece for piece in pieces if not (ROOT / piece).exists()]


def known_options() -> set[str]:
    commands = typer.main.get_command(app).commands.values()
    return {
        name for command in commands for option in command.params for name in (*option.opts, *option.secondary_opts)
    }


def test_every_section_has_one_number_and_they_ascend():
    pairs = [tuple(int(part) for part in number.split(".")) for number in SECTIONS]
    assert pairs == sorted(set(pairs))
    assert {pair[0] for pair in pairs} == set(range(1, 15))


def test_citations_of_the_mathematics_resolve():
    wrong = {str(path): wrong_citations(path.read_text(encoding="utf-8")) for path in SOURCES if path != Path(__file__)}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_enough_of_the_code_cites_the_mathematics():
    assert sum(bool(CITATION.search(" ".join(path.read_text(encoding="utf-8").split()))) for path in SOURCES) > 40


def test_sections_of_the_mathematics_refer_to_sections_that_are_there():
    text = " ".join(MATHEMATICS.read_text(encoding="utf-8").split())
    assert [n for match in WITHIN.findall(text) for n in re.findall(NUMBER, match) if n not in SECTIONS] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_names_and_paths_in_documents_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    assert broken_links(path, text) == []
    assert unknown_names(text) == []
    assert missing_paths(text) == []


def test_documents_name_options_that_exist():
    known = known_options() | {"--help", "--version", "--install-completion"}
    known |= set(re.findall(r'"(--[a-z][a-z-]*)"', (ROOT / "idl_audit" / "cli" / "vnnlib.py").read_text("utf-8")))
    for path in (ROOT / "docs").rglob("*.md"):
        pieces = " ".join(code_in(path.read_text(encoding="utf-8")))
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", pieces)) <= known, path.name


def test_the_table_of_slopes_is_that_of_the_activations():
    text = MATHEMATICS.read_text(encoding="utf-8")
    table = text[text.index("| activation | slopes |") :].split("\n\n")[0]
    cells = re.findall(r"\| (\w+)(?: \([^)]*\))? \| (?:diagonal: )?\[([-.\d]+), ([-.\d]+)\]", table)
    documented = {name: (float(least), float(most)) for name, least, most in cells}
    coupled = COUPLED - {"softmax"}  # whose slopes no number bounds, or their parameters do
    steep = {name for name, phi in ACTIVATIONS.items() if name not in COUPLED and np.isinf(np.max(phi().lipschitz))}
    assert set(documented) == set(ACTIVATIONS) - steep - coupled
    for name, (least, most) in documented.items():
        phi = ACTIVATIONS[name](4) if name == "softmax" else ACTIVATIONS[name]()
        lo, hi = phi.slopes(np.full(4, -1e300), np.full(4, 1e300))
        assert least - 1e-9 <= float(lo[0]) <= least + 2e-5, name
        assert most - 2e-5 <= float(hi[0]) <= most + 1e-9, name


WORDS = (
    "alpha-CROWN", "BaB", "beta-CROWN", "CROWN", "DeepPoly", "FGSM", "IBP", "intermediate", "Lipschitz", "MIP",
    "monDEQ", "ODI", "PGD", "Planet", "zonotope",
)  # fmt: skip
"""What a verifier's author looks for."""


@pytest.mark.parametrize("word", WORDS)
def test_the_field_s_words_are_in_the_glossary_and_in_the_code(word):
    assert word in (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    package = [path for path in SOURCES if path.is_relative_to(ROOT / "idl_audit")]
    assert any(re.search(rf"\b{word}\b", path.read_text(encoding="utf-8")) for path in package)


def glossary() -> Iterator[tuple[list[str], list[str]]]:
    """The field's terms of each row of the glossary, and the modules that it names for them."""
    before: list[str] = []
    for line in (ROOT / "docs/glossary.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if len(cells) == 3 and cells[0] not in ("---", "the field says"):
            modules = [found for name in re.findall(r"`(idl_audit[\w.]*)`", cells[2]) if (found := module_of(name))]
            before = before if cells[2] == "the same" else modules
            yield re.split(r", | or ", cells[0].replace("; ", ", ")), before


def module_of(name: str) -> str:
    """The longest part of a dotted name that is a module."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            return ".".join(parts[:count])
    return ""


@pytest.mark.parametrize(("terms", "modules"), list(glossary()))
def test_modules_say_what_the_field_calls_them(terms, modules):
    text = " ".join(" ".join(importlib.import_module(name).__doc__.split()) for name in modules).lower()
    assert modules
    assert [term for term in terms if term.lower() not in text] == []


# --- the checks themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "(docs/mathematics.md, section 5.77)",
        "(docs/mathematics.md, sections 5.3 and\n 99)",
        "(mathematics 5.3)",
        "(mathematics.md section 7)",
        "by section 7",
        "(docs/mathematics.md section 7)",
    ],
)
def test_wrong_citations_are_found(text):
    assert wrong_citations(text)


@pytest.mark.parametrize(
    "text",
    [
        "(docs/mathematics.md, section 5.3)",
        "(docs/mathematics.md,\n    sections 5.2, 5.4 and 6)",
        "see docs/mathematics.md",
        "(paper section 4.4)",
        "no mathematics. A section of it",
    ],
)
def test_citations_in_their_one_form_are_not_complained_of(text):
    assert wrong_citations(text) == []


@pytest.mark.parametrize("target", ["nowhere.md", "mathematics.md#1-no-such-heading", "../docs/nowhere/x.md"])
def test_broken_links_are_found(target):
    path = ROOT / "docs/x.md"
    assert broken_links(path, f"See [this]({target}).") == [target]
    assert broken_links(path, f"See `[this]({target})`.") == []


@pytest.mark.parametrize("form", ["[a](nowhere.md)", "[a][b]\n\n[b]: nowhere.md", '<img alt="x" src="nowhere.md">'])
def test_links_of_every_form_are_looked_at(form):
    assert broken_links(ROOT / "docs/x.md", form) == ["nowhere.md"]


def test_anchors_are_those_of_headings_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b` - c\n\n## Again\n\n## Again\n\n```sh\n# no heading\n```\n")
    assert anchors(page) == {"a-b---c", "again", "again-1"}
    assert broken_links(page, "[a](#again-1) [b](#no-heading)") == ["#no-heading"]


def test_links_that_lead_somewhere_are_not_complained_of():
    text = "[a](mathematics.md#1-the-object) [b](../README.md#start) [c](https://example.org) [d](#here)\n\n# Here\n"
    path = ROOT / "docs/mathematics.md"
    assert broken_links(path, text.replace("[d](#here)", "")) == []


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("idl_audit.values.rounding", True),
        ("idl_audit.values.rounding.gamma", True),
        ("idl_audit.implicit.model.ImplicitModel.solve", True),
        ("idl_audit.implicit.model.ImplicitModel.blocks", True),
        ("idl_audit.values.rounding.no_such_name", False),
        ("idl_audit.no_such_module", False),
        ("idl_audit.implicit.model.ImplicitModel.no_such_field", False),
    ],
)
def test_names_that_nothing_has_are_found(name, is_there):
    assert unknown_names(f"see `{name}` and `{name}(x)`") == ([] if is_there else [name, name])


def test_paths_that_are_not_there_are_found():
    assert missing_paths("`docs/mathematics.md` `docs/nowhere.md` `a/b`") == ["docs/nowhere.md"]


def test_the_page_of_the_report_names_the_version_that_is_written():
    from idl_audit.report.schema.document import SCHEMA_VERSION

    assert f"`schema_version` is {SCHEMA_VERSION};" in (ROOT / "docs/report.md").read_text(encoding="utf-8")
