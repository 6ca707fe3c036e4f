"""Today's commit beside a base: `python -m benchmarks.paired BASE [--pairs 5] [--only acasxu,help]`.

Each case is one command in a process of its own, run by either commit in turn, so that what else the machine does
weighs on both. Told are the ratio of the median processor times (what a shared machine disturbs least), the wall times,
and whether both came to the same. Properties need IDL_AUDIT_DATA. Nothing is judged: a figure above 1.1 is for a person
to look at.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measuring import ROOT, machine

SAMPLES = "sample_models"
IN_TIME = 60
HEAD = "| case | base s | today s | ratio | wall | outcome |\n|---|---:|---:|---:|---:|---|"
PACKAGES = ("numpy", "torch", "highspy", "onnxruntime")


@dataclass(frozen=True)
class Case:
    """One command of idl-audit, its paths below the folder of a commit."""

    name: str
    arguments: tuple[str, ...]


@dataclass
class Times:
    """What the runs of one commit took, and what the last one came to."""

    own: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    outcome: str = ""


def cases() -> Iterator[Case]:
    """Yield start-up, sample models, and the first properties of each family that are quick enough for pairs."""
    yield Case("help", ("--help",))
    yield Case("inspect", ("inspect", f"{SAMPLES}/digits_mlp.onnx"))
    limits = ("--bounds", "0,1", "--time-limit", "20", "-f", "json")
    for name, eps, count in (("mlp", "0.05", 40), ("conv", "0.03", 12), ("resnet", "0.03", 12)):
        path = f"{SAMPLES}/digits_{name}"
        yield Case(
            f"certify {name}",
            ("certify", f"{path}.onnx", "-d", f"{path}.npz", "-e", eps, "--limit", str(count), *limits),
        )
    loop = (f"{SAMPLES}/digits_mondeq.npz", "-d", f"{SAMPLES}/digits_mlp.npz", "-e", "0.05", "--limit", "6")
    yield Case("certify mondeq", ("certify", *loop, *limits))
    yield Case("sensitivity", ("sensitivity", f"{SAMPLES}/digits_conv.onnx", "-f", "json"))
    yield from properties()


def properties(each: int = 3) -> Iterator[Case]:
    """Yield some properties of every family."""
    root = Path(os.environ.get("IDL_AUDIT_DATA", "")) / "vnncomp"
    for folder in sorted(path.parent for path in root.glob("*/instances.csv")):
        with (folder / "instances.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) >= 2 and (folder / row[0]).exists()]
        step = max(1, len(rows) // each)
        for number, row in enumerate(rows[::step][:each]):
            paths = (str(folder / row[0].strip()), str(folder / row[1].strip()))
            yield Case(f"{folder.name} {number}", ("certify", *paths, "--time-limit", str(IN_TIME), "-f", "json"))


def outcome_of(text: str) -> str:
    """Return what a command came to, without its times: verdicts, results, or how long its text is."""
    try:
        report = json.loads(text)
    except ValueError:
        return f"{len(text.splitlines())} lines"
    if report.get("properties"):
        return " ".join(entry["result"] for entry in report["properties"])
    verdicts = [result["verdict"] for sample in report.get("samples") or () for result in sample["results"]]
    return ", ".join(f"{verdicts.count(word)} {word}" for word in sorted(set(verdicts))) or "done"


def run(case: Case, tree: Path, times: Times) -> None:
    """Run a case with the package of one folder."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "idl_audit", *case.arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    times.wall.append(time.perf_counter() - start)
    times.own.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    times.outcome = outcome_of(done.stdout) if done.returncode == 0 else f"exit {done.returncode}"


def row(case: Case, base: Times, today: Times) -> str:
    """Return a case's row of the table."""
    own = [statistics.median(times.own) for times in (base, today)]
    wall = [statistics.median(times.wall) for times in (base, today)]
    same = today.outcome if base.outcome == today.outcome else f"**{today.outcome}** (base: {base.outcome})"
    ratio = own[1] / max(own[0], 1e-9)
    return f"| {case.name} | {own[0]:.2f} | {own[1]:.2f} | {ratio:.2f} | {wall[1] / wall[0]:.2f} | {same} |"


def compare(base: str, chosen: Iterable[Case], pairs: int) -> None:
    """Print a table of some cases as it is measured, today's commit beside a base."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "base")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), base], check=True)
        try:
            print(f"{machine(1, PACKAGES)}; {pairs} pairs against {base}\n")
            print(HEAD)
            for case in chosen:
                before, today = Times(), Times()
                for _ in range(pairs):
                    run(case, tree, before)
                    run(case, ROOT, today)
                print(row(case, before, today), flush=True)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def asked(description: str | None, pairs: int) -> tuple[str, int, tuple[str, ...]]:
    """Return from the command line the base, the number of pairs, and what names of cases begin with."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit to compare with")
    parser.add_argument("--pairs", type=int, default=pairs)
    parser.add_argument("--only", default="", help="a comma list of what names of cases begin with")
    given = parser.parse_args()
    return given.base, given.pairs, tuple(given.only.split(","))


def main() -> None:
    """Compare the usual cases."""
    base, pairs, names = asked(__doc__, 5)
    compare(base, [case for case in cases() if case.name.startswith(names)], pairs)


if __name__ == "__main__":
    main()
