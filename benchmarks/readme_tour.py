"""The README's tour: runs its commands and puts what they print between the README's markers.

    python -m benchmarks.readme_tour

Sections that the tour leaves out are marked by three dots. A test runs the commands again and compares the words
exactly, the figures within 2 per cent, and leaves out times and versions.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from idl_audit.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
START, END = "<!-- tour: made by benchmarks/readme_tour.py -->", "<!-- end of tour -->"

WIDTH = 100


@dataclass(frozen=True)
class Step:
    """One command: why it is run, and which sections of what it prints are shown below its first sentence."""

    why: str
    line: str
    shown: tuple[str, ...] = ()


MODEL = "sample_models/digits_mlp.onnx"
DATA = "-d sample_models/digits_mlp.npz"

STEPS = (
    Step("Look at a network without running it: is every part of it supported?", f"inspect {MODEL}", ("Model",)),
    Step(
        "Verdicts for six samples (all of them without `--index`), a report, and a proof of each certified one:",
        f"certify {MODEL} {DATA} -e 0.05 --bounds 0,1 --index 0-3,10,14 -o verdicts.json --certificates proofs",
        ("Verdicts", "Samples, worst first"),
    ),
    Step("Check a proof again, without search or solver:", f"verify proofs/sample-3-eps-0.05.npz {MODEL}"),
    Step(
        "Attack harder, and keep what is found:",
        f"attack {MODEL} {DATA} -e 0.1 --bounds 0,1 --limit 20 --save adv.npz",
        ("Verdicts",),
    ),
    Step(
        "How far can each output move, for all inputs at once?",
        f"sensitivity {MODEL} --top 3",
        ("Sensitivity",),
    ),
    Step("The implicit model itself, for your own work:", f"convert {MODEL} -o implicit.npz", ("Blocks",)),
    Step(
        "A smaller one, its weights rounded to 8 bits, and how far its outputs can be from those of the first:",
        f"compress {MODEL} --quantize 8 {DATA} -o smaller.npz",
    ),
    Step(
        "Do both give the same class around the samples of above, and how far do their outputs differ there?",
        f"compare {MODEL} smaller.npz {DATA} -e 0.05 --bounds 0,1 --index 0-3,10,14",
        ("Samples, farthest apart first",),
    ),
    Step(
        "For CI: a configuration with radii, valid range and rules, guessed from the data and commented:",
        f"init {MODEL} sample_models/digits_mlp.npz",
    ),
    Step(
        "Everything in it, in one report that is judged by its rules (exit code 1 where one fails):",
        "run --limit 20",
        ("Verdicts", "Gate"),
    ),
    Step(
        "The same report judged again, without the model, by a rule of yours (those that only warn stay):",
        "gate report.json --require 'certified_accuracy@4/255 >= 90 %'",
        ("Gate",),
    ),
    Step("And as one page for a browser:", "report report.json -o report.html"),
)


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


def printed(step: Step) -> str:
    """Run a command and return what the tour shows of it."""
    result = CliRunner().invoke(app, shlex.split(step.line), env={"COLUMNS": str(WIDTH)}, prog_name="idl-audit")
    if result.exit_code:
        raise RuntimeError(f"{step.line}: exit code {result.exit_code}: {result.stderr}")
    sections = result.stdout.rstrip().split("\n\n")
    kept: list[str] = []
    for place, section in enumerate(sections):
        if place == 0 or section.splitlines()[0] in step.shown:
            kept.append("\n".join(line.rstrip() for line in section.splitlines()))
        elif kept[-1] != "...":
            kept.append("...")
    return "\n\n".join(kept)


def tour() -> str:
    """Return the text between the markers."""
    with folder():
        parts = [f"{step.why}\n\n```\n$ idl-audit {step.line}\n{printed(step)}\n```" for step in STEPS]
    return "\n\n".join(parts)


def between(text: str) -> str:
    """Return what stands between the markers."""
    return text[text.index(START) + len(START) : text.index(END)].strip()


def words(text: str) -> list[str]:
    """Return what is compared: no rules of tables, times, memory or versions."""
    lines = [line for line in text.splitlines() if not re.match(r"\s+cost\s", line)]
    found = re.sub(r"\d+\.\d+\.\d+\S*", "VERSION", "\n".join(lines)).split()
    return [word for word in found if not set(word) <= {"─"}]


def same(ours: str, theirs: str) -> bool:
    """Return whether two words are equal, or two figures within 2 per cent or below 1e-6."""
    try:
        a, b = (float(word.strip("(),;").replace(",", "")) for word in (ours, theirs))
    except ValueError:
        return ours == theirs
    return abs(a - b) <= max(0.02 * abs(b), 1e-6)


def main() -> None:
    """Write the tour into the README."""
    text = README.read_text(encoding="utf-8")
    README.write_text(text.replace(between(text), tour()), encoding="utf-8")


if __name__ == "__main__":
    main()
