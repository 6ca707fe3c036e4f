"""From a clone of the code to a gate in CI with the README alone: what a newcomer types, and what that costs.

    python -m tests.newcomer [--busy 2] [--out reports/newcomer.md]

Everything is done in order, in a fresh clone and an environment of its own, beside two processes that are busy. The
lines are the README's; what it leaves to the reader (a network, a rule) is below. Reading is counted at 200 words a
minute, and typing at 40, a word being five characters.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measuring import machine, seconds_of_children
from tests import first_hour

ROOT: Final = first_hour.ROOT
LAST_SECTION: Final = "## Your own network"
"""The README is read from its first line to the end of this section."""

WORDS_A_MINUTE: Final = 200
CHARACTERS_A_MINUTE: Final = 40 * 5
BUSY: Final = 2

NETWORK: Final = """\
import numpy as np
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
x = torch.rand(20, 4)
example = x[:1]
torch.onnx.export(model.eval(), (example,), "model.onnx")
np.savez("data.npz", inputs=x, labels=model(x).argmax(1))
"""


@dataclass(frozen=True)
class Step:
    """Something that is typed, and what must come of it."""

    typed: str
    code: int = 0
    file: str = ""
    """Where it is typed into a file and no command."""
    read: str = ""
    """A file that is read afterwards."""
    folder: str = "idl-audit"
    active: bool = True
    """Whether the environment has been activated by then."""


@dataclass(frozen=True)
class Taken:
    """What a step took: seconds by the wall and of processors, words of the answer and of all that is printed."""

    seconds: float
    worked: float
    words: int
    """Of the first paragraph, and of what is read after it."""
    printed: int
    code: int
    error: str


def words(text: str) -> int:
    """Count what has a letter or a digit."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def readme() -> str:
    """Return the README."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def until_own(text: str) -> str:
    """Return what is read of the README."""
    before, heading, rest = text.partition(LAST_SECTION)
    return before + heading + rest.partition("\n## ")[0]


def own_commands(text: str) -> list[str]:
    """Return the README's commands about a network of one's own, in their order."""
    return re.findall(r"^    (idl-audit .+)$", until_own(text).partition(LAST_SECTION)[2], flags=re.MULTILINE)


def protocol(text: str, repository: str) -> list[Step]:
    """Return what is typed, in order; the job in CI is a clone of what was committed."""
    main_job = re.findall(r"^```sh\n(.*?)\n```$", text, flags=re.DOTALL | re.MULTILINE)[0]
    (activate,) = re.findall(r"^`(\. \.venv/bin/activate)`", text, flags=re.MULTILINE)
    certify, init, run = own_commands(text)
    own = "idl-audit/own"
    return [
        Step(f"git clone -q {repository} idl-audit", folder="", active=False),
        Step("cd idl-audit", folder="", active=False),
        Step(main_job, active=False),
        Step(activate, active=False),
        *map(Step, first_hour.commands("README.md")),
        Step("mkdir own && cd own && git init -q"),
        Step(NETWORK, file="make.py", folder=own),
        Step("python make.py", folder=own),
        Step(certify, folder=own),
        Step(init, folder=own, read="idl-audit.toml"),
        Step(run, folder=own),
        Step("idl-audit gate report.json --require 'clean_accuracy < 0.5'", code=1, folder=own),
        Step(
            "git add model.onnx* data.npz idl-audit.toml && git -c user.name=me -c user.email=me commit -qm Gate",
            folder=own,
        ),
        Step("git clone -q ../own ../job && cd ../job && idl-audit run", folder=own),
    ]


def take(step: Step, place: Path, activate: str) -> Taken:
    """Do a step in the folder that the clone is made in; `activate` is put before commands that need it."""
    folder = place / step.folder
    if step.file:
        (folder / step.file).write_text(step.typed, encoding="utf-8")
        return Taken(0.0, 0.0, 0, 0, 0, "")
    dropped = ("PYTHON", "IDL_AUDIT", "VIRTUAL_ENV", "OMP_", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    line = f"{activate} && {step.typed}" if step.active else step.typed
    start, worked = time.monotonic(), seconds_of_children()
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds, worked = time.monotonic() - start, seconds_of_children() - worked
    answer = done.stdout.split("\n\n")[0]
    if step.read:
        answer += (folder / step.read).read_text(encoding="utf-8")
    return Taken(seconds, worked, words(answer), words(done.stdout), done.returncode, done.stderr.strip())


@contextmanager
def busy(processes: int) -> Iterator[float]:
    """Keep so many processors busy meanwhile; give how many processes waited or ran before (of the last minute)."""
    before = os.getloadavg()[0]
    endless = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # none outlives this process
    started = [subprocess.Popen([sys.executable, "-c", endless]) for _ in range(processes)]
    try:
        yield before
    finally:
        for process in started:
            process.kill()
            process.wait()


def walk(steps: Sequence[Step], place: Path, activate: str) -> list[Taken]:
    """Do all steps; raise RuntimeError at the first that does not end as it must."""
    taken = []
    for step in steps:
        taken.append(take(step, place, activate))
        print(f"{taken[-1].seconds:6.1f} s  exit code {taken[-1].code}  {step.typed.splitlines()[0]}", flush=True)
        if taken[-1].code != step.code:
            raise RuntimeError(f"{step.typed}: exit code {taken[-1].code}: {taken[-1].error}")
    return taken


def page(text: str, steps: Sequence[Step], taken: Sequence[Taken], *, others: float, processes: int) -> str:
    """Return the report; `others` is the load of the machine before, `processes` how many were kept busy beside."""
    typed, read = sum(len(step.typed) for step in steps), words(until_own(text))
    own = sum(len(step.typed) for step in steps if step.typed not in text)
    answers = sum(one.words for one in taken)
    typing, less = typed / CHARACTERS_A_MINUTE, own / CHARACTERS_A_MINUTE
    reading = (read + answers) / WORDS_A_MINUTE
    rows = [
        f"| {_shown(step)} | {len(step.typed)} | {one.words} | {one.printed} | {one.worked:.1f} | {one.seconds:.1f} |"
        for step, one in zip(steps, taken, strict=True)
    ]
    beside = f", beside {processes} processes that are busy all the time" if processes else ""
    return "\n".join(
        [
            "# From a clone to a gate in CI",
            "",
            "Made by `python -m tests.newcomer`: what a newcomer types who has read the README as far as its section "
            "on a network of one's own, in a fresh clone and a fresh environment; the last command is the job in CI. "
            "What is read of an answer is its first paragraph, of a configuration all. Seconds are of the processors, "
            f"which is what it takes where nothing else runs, and by the wall{beside}; before, the load of the machine "
            f"by others was {others:.1f} processes.",
            "",
            machine(1, ("pip",)).replace("1 threads; ", ""),
            "",
            f"- read: {read} words of the README, {answers} of answers and the configuration: {reading:.1f} minutes at "
            f"{WORDS_A_MINUTE} words a minute",
            f"- typed: {typed} characters: {typing:.1f} minutes at {CHARACTERS_A_MINUTE} characters a minute; where "
            f"the README's commands are copied, {own} characters: {less:.1f} minutes",
            f"- reading and typing: {reading + typing:.1f} minutes; with copying {reading + less:.1f}",
            f"- waited: {sum(one.seconds for one in taken):.0f} s, of which processors worked "
            f"{sum(one.worked for one in taken):.0f} s",
            "",
            "| typed | characters | words read | words printed | processor, s | wall, s |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


def _shown(step: Step) -> str:
    first = step.typed.splitlines()[0] if not step.file else f"(into {step.file}, {step.typed.count(chr(10))} lines)"
    return f"`{first}`" if not step.file else first


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports/newcomer.md")
    parser.add_argument(
        "--busy", type=int, default=BUSY, help="processes that are kept busy beside; default %(default)s"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, busy(asked.busy) as others:
        place = Path(name)
        activate = f". {place / 'idl-audit/.venv/bin/activate'}"
        taken = walk(protocol(readme(), str(ROOT)), place, activate)
    steps = protocol(readme(), "https://example.org/idl-audit")
    asked.out.write_text(page(readme(), steps, taken, others=others, processes=asked.busy), encoding="utf-8")


if __name__ == "__main__":
    main()
