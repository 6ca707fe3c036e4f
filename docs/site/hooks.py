"""What MkDocs calls while it builds the site: generated pages, pages from outside docs/, and links to both.

The Markdown files stay as GitHub shows them. A link that leaves docs/ leads to a page of the site where it names a
Markdown file, to a copy of the file elsewhere; a folder of reports is their list.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import reference  # noqa: E402

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def place_of(path: str) -> str:
    """Return where the site has a file of the repository, both relative to their roots."""
    if path == "README.md":
        return "README.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{path}/README.md"
    if path in PROJECT:
        return f"project/{path}"
    return path if path.endswith((".md", ".png", ".txt")) else f"files/{path}"


def source_of(place: str) -> str:
    """Return the file of the repository that a page of the site is made of."""
    if place.startswith("project/"):
        return place.removeprefix("project/")
    return place if place.startswith(("reports/", "sample_models/")) else f"docs/{place}"


def targets(text: str, source: str) -> set[str]:
    """Return the files of the repository that a document links to."""
    links = (match[2] for part in CODE.split(text)[::2] for match in LINK.finditer(part))
    return {posixpath.normpath(posixpath.join(posixpath.dirname(source), link)) for link in links if ":" not in link}


def relinked(text: str, place: str) -> str:
    """Return a document of the site whose links lead to where the site has what they name."""
    source, folder = source_of(place), posixpath.dirname(place)

    def moved(match: re.Match[str]) -> str:
        if ":" in match[2]:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        target = posixpath.relpath(place_of(path), folder or ".")
        return f"{match[1]}{target}{match[3] or ''}{match[4]}"

    parts = CODE.split(text)
    return "".join(part if number % 2 else LINK.sub(moved, part) for number, part in enumerate(parts))


def on_config(config: Any) -> Any:
    """Put generated pages into the navigation."""
    commands = [{"Overview": "commands.md"}, *({name: f"commands/{name}.md"} for name in reference.COMMANDS)]
    sections = {next(iter(section)): section for section in config.nav}
    section = sections["Reference"]["Reference"]
    section[section.index({"Commands": "commands.md"})] = {"Commands": commands}
    place = section.index({"What is read": "operators.md"}) + 1
    section[place:place] = [
        {"Operators from A to Z": "operators-a-z.md"},
        {"Messages": ["codes/README.md", {"Words of verdicts": "codes/words.md"}]},
    ]
    decisions = sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))
    reports = sorted(path.name for path in (ROOT / "reports").glob("*.md"))
    sections["Background"]["Background"] += [
        {"Decisions": ["decisions/README.md", *(f"decisions/{name}" for name in decisions)]},
        {"Reports": ["reports/README.md", *(f"reports/{name}" for name in reports)]},
        {"Sample networks": "sample_models/README.md"},
        {"Contributing": "project/CONTRIBUTING.md"},
        {"Security": "project/SECURITY.md"},
        {"Changes": "project/CHANGELOG.md"},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what is generated, and what documents link to outside docs/."""
    for name, text in reference.pages(ROOT).items():
        files.append(File.generated(config, name, content=text))
    reports = (f"reports/{path.name}" for pattern in ("*.md", "*.txt") for path in (ROOT / "reports").glob(pattern))
    waiting = {*PROJECT, "sample_models/README.md", *reports}
    for file in files.documentation_pages():
        source = source_of(file.src_uri)
        waiting |= targets(file.content_string, source) if (ROOT / source).is_file() else set()
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or path == "README.md" or path.startswith("docs/") or (ROOT / path).is_dir():
            continue
        seen.add(path)
        if not (ROOT / path).is_file():
            raise PluginError(f"a document links to {path}, which is not there")
        files.append(File.generated(config, place_of(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting |= targets((ROOT / path).read_text(encoding="utf-8"), path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point the links of a document to where the site has what they name."""
    place = page.file.src_uri
    return relinked(markdown, place) if (ROOT / source_of(place)).is_file() else markdown
