"""The README's tour and the tutorials: runs the commands that a page shows, and puts what they print below them.

    python -m benchmarks.readme_tour [PAGE ...]

A page is its own source. Its blocks are taken in their order, in one empty folder that has the sample networks:

- a block with a `title` is written into the folder under that name: ```python title="make.py"
- a `console` block runs the lines that begin with `$`: `idl-audit` and `python`. Below each stands what it prints.

Of what idl-audit prints, the first section is shown and those whose first line stands in the block already; three dots
stand for the others. What Python prints is shown in full. A line that ends in `|| echo "exit code $?"` may end with
exit code 1, which is shown. A test runs the commands again and compares the words exactly, the figures within 2 per
cent, and leaves out times, versions and hashes.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from idl_audit.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TUTORIALS = tuple(sorted((ROOT / "docs/tutorials").glob("*.md")))
PAGES = (README, *TUTORIALS)

WIDTH = 100
BLOCK = re.compile(r"^```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
MAY_FAIL = ' || echo "exit code $?"'


@dataclass(frozen=True)
class Step:
    """One command, and what the page shows of its output: the lines below it."""

    line: str
    shown: str


@contextmanager
def folder() -> Iterator[None]:
    """Work in an empty folder that has the sample networks."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "sample_models").symlink_to(ROOT / "sample_models")
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


def steps(body: str) -> list[Step]:
    """Return the commands of a console block."""
    parts = re.split(r"^\$ (.*)\n", body, flags=re.MULTILINE)
    return [Step(line, shown) for line, shown in zip(parts[1::2], parts[2::2], strict=True)]


def commands(text: str) -> list[str]:
    """Return the commands of a page, in their order."""
    blocks = (found["body"] for found in BLOCK.finditer(text) if found["kind"] == "console")
    return [step.line for body in blocks for step in steps(body)]


def printed(step: Step) -> str:
    """Run a command and return what the page shows of it. Raises RuntimeError where it fails."""
    line = step.line.removesuffix(MAY_FAIL)
    program, *arguments = shlex.split(line)
    code, out, err = (idl_audit if program == "idl-audit" else python)(arguments)
    if code not in (0, int(line != step.line)):
        raise RuntimeError(f"{line}: exit code {code}: {err}")
    sections = [_plain(section) for section in out.strip("\n").split("\n\n")]
    if program == "idl-audit":
        sections = chosen(sections, set(step.shown.splitlines()))
    if line != step.line:
        sections = [*filter(None, sections), f"exit code {code}"]
    return "\n\n".join(sections)


def idl_audit(arguments: list[str]) -> tuple[int, str, str]:
    """Run idl-audit in this process; return its exit code, stdout and stderr."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(WIDTH)}, prog_name="idl-audit")
    return result.exit_code, result.stdout, result.stderr


def python(arguments: list[str]) -> tuple[int, str, str]:
    """Run Python in a process of its own; return its exit code, stdout and stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    return done.returncode, done.stdout, done.stderr


def _plain(section: str) -> str:
    return "\n".join(line.rstrip() for line in section.splitlines())


def chosen(sections: list[str], shown: set[str]) -> list[str]:
    """Return the first section and those whose first line is shown, with three dots for the others between them."""
    kept: list[str] = []
    for place, section in enumerate(sections):
        if place == 0 or section.splitlines()[0] in shown:
            kept.append(section)
        elif kept[-1] != "...":
            kept.append("...")
    return kept


def today(text: str) -> str:
    """Return a page with what its commands print today."""
    with folder():
        return BLOCK.sub(_block, text)


def _block(found: re.Match[str]) -> str:
    if found["title"]:
        Path(found["title"]).write_text(found["body"], encoding="utf-8")
    if found["kind"] != "console":
        return found[0]
    return "```console\n" + "\n".join(f"$ {step.line}\n{printed(step)}\n" for step in steps(found["body"])) + "```"


def shown(text: str) -> str:
    """Return what the console blocks of a page show."""
    return "\n".join(found["body"] for found in BLOCK.finditer(text) if found["kind"] == "console")


def words(text: str) -> list[str]:
    """Return what is compared: no rules of tables, times, memory, versions or hashes."""
    lines = [line for line in text.splitlines() if not re.match(r"\s+cost\s", line)]
    found = re.sub(r"\d+\.\d+\.\d+\S*", "VERSION", re.sub(r"sha256 \w+", "sha256", "\n".join(lines))).split()
    return [word for word in found if not set(word) <= {"─"}]


def same(ours: str, theirs: str) -> bool:
    """Return whether two words are equal, or two figures within 2 per cent or below 1e-6."""
    try:
        a, b = (float(word.strip("(),;").replace(",", "")) for word in (ours, theirs))
    except ValueError:
        return ours == theirs
    return abs(a - b) <= max(0.02 * abs(b), 1e-6)


def main() -> None:
    """Write what the commands print today into the pages that are named, or all."""
    for page in map(Path.absolute, map(Path, sys.argv[1:])) if sys.argv[1:] else PAGES:
        page.write_text(today(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
