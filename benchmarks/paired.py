"""Today's commit beside a base: `python -m benchmarks.paired BASE [--pairs 5] [--only acasxu,help] [--out reports]`.

Each case is one command in a process of its own, run by either commit in turn after a run of both that is not counted,
so that what else the machine does weighs on both. Told are the median of the pairs' ratios of processor times (what a
shared machine disturbs least) and between which two they lie, the wall times, and whether both came to the same.
Properties and MNIST need IDL_AUDIT_DATA. Nothing is judged: a figure above 1.1 is for a person to look at. --out writes
the table to paired.md, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.measuring import ROOT, machine, seconds_of_children
from benchmarks.mnist_table import images

SAMPLES = "sample_models"
IN_TIME = 60
HEAD = "| case | base s | today s | ratio | of pairs | wall | outcome |\n|---|---:|---:|---:|---:|---:|---|"
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


def cases(folder: Path) -> Iterator[Case]:
    """Yield start-up, the README's main job, sample models, an MNIST network and quick properties of each family.

    What MNIST's images need is written to the folder.
    """
    yield Case("help", ("--help",))
    yield Case("inspect", ("inspect", f"{SAMPLES}/digits_mlp.onnx"))
    for name in ("mlp", "conv", "resnet"):
        path = f"{SAMPLES}/digits_{name}"
        main_job = ("-e", "0.02", "--bounds", "0,1", "--limit", "100", "-f", "json")
        yield Case(f"main job {name}", ("certify", f"{path}.onnx", "-d", f"{path}.npz", *main_job))
    yield from mnist(folder)
    limits = ("--bounds", "0,1", "--time-limit", "20", "-f", "json")
    for name, eps, count in (("mlp", "0.05", 40), ("conv", "0.03", 12), ("resnet", "0.03", 12)):
        path = f"{SAMPLES}/digits_{name}"
        yield Case(
            f"certify {name}",
            ("certify", f"{path}.onnx", "-d", f"{path}.npz", "-e", eps, "--limit", str(count), *limits),
        )
    loop = (f"{SAMPLES}/digits_mondeq.npz", "-d", f"{SAMPLES}/digits_mlp.npz", "-e", "0.05", "--limit", "6")
    yield Case("certify mondeq", ("certify", *loop, *limits))
    for name in ("mlp", "conv", "resnet"):
        yield Case(f"sensitivity {name}", ("sensitivity", f"{SAMPLES}/digits_{name}.onnx", "-f", "json"))
    yield from properties()


def mnist(folder: Path, count: int = 30, eps: str = "0.02") -> Iterator[Case]:
    """Yield verdicts on the first test images of MNIST of a network of the data folder, if it is there."""
    data = Path(os.environ.get("IDL_AUDIT_DATA", ""))
    network = data / "vnncomp/mnist_fc/mnist-net_256x2.onnx"
    if not network.exists():
        return
    x, labels = images(data, count)
    samples = folder / "mnist.npz"
    np.savez(samples, x=x.astype(np.float32), y=labels)
    limits = ("-e", eps, "--bounds", "0,1", "--time-limit", "20", "-f", "json")
    yield Case("certify mnist 256x2", ("certify", str(network), "-d", str(samples), *limits))


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
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once, not in every run
    before, start = seconds_of_children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "idl_audit", *case.arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    times.wall.append(time.perf_counter() - start)
    times.own.append(seconds_of_children() - before)
    times.outcome = outcome_of(done.stdout) if done.returncode == 0 else f"exit {done.returncode}"


def row(case: Case, base: Times, today: Times) -> str:
    """Return a case's row of the table."""
    own = [statistics.median(times.own) for times in (base, today)]
    ratios = ratios_of(base.own, today.own)
    wall = statistics.median(ratios_of(base.wall, today.wall))
    same = today.outcome if base.outcome == today.outcome else f"**{today.outcome}** (base: {base.outcome})"
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    median = statistics.median(ratios)
    return f"| {case.name} | {own[0]:.2f} | {own[1]:.2f} | {median:.2f} | {spread} | {wall:.2f} | {same} |"


def ratios_of(base: Iterable[float], today: Iterable[float]) -> list[float]:
    """Return today / base of each pair of runs."""
    return [new / max(old, 1e-9) for old, new in zip(base, today, strict=True)]


def compare(base: str, chosen: Iterable[Case], pairs: int) -> Iterator[str]:
    """Yield the lines of a table of some cases as they are measured, today's commit beside a base."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "base")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), base], check=True)
        try:
            yield f"{machine(1, PACKAGES)}; {pairs} pairs against {base}\n"
            yield HEAD
            for case in chosen:
                for where in (tree, ROOT):
                    run(case, where, Times())
                before, today = Times(), Times()
                for _ in range(pairs):
                    run(case, tree, before)
                    run(case, ROOT, today)
                yield row(case, before, today)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def asked(description: str | None, pairs: int) -> argparse.Namespace:
    """Return from the command line the base, the number of pairs, what names of cases begin with, and where to write.

    `only` is a tuple; `out` is None where the table is printed alone.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit to compare with")
    parser.add_argument("--pairs", type=int, default=pairs)
    only = "a comma list of what names of cases begin with"
    parser.add_argument("--only", type=lambda text: tuple(text.split(",")), default=("",), help=only)
    parser.add_argument("--out", type=Path, help="a folder, as reports, for the table as well")
    return parser.parse_args()


def told(lines: Iterable[str]) -> str:
    """Print lines as they come; return them all."""
    text = ""
    for line in lines:
        print(line, flush=True)
        text += line + "\n"
    return text


def page(given: argparse.Namespace, name: str, table: str) -> str:
    """Return the report about a table."""
    said = subprocess.run(
        ["git", "-C", str(ROOT), "show", "-s", '--format=%h (%as, "%s")', given.base],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    only = f' --only "{",".join(given.only)}"' if any(given.only) else ""
    return f"""# Speed beside an earlier commit

Made by `python -m benchmarks.{name} {given.base} --pairs {given.pairs}{only} --out reports`.

Base: {said}. Whole commands, start-up included, each in a process of its own, by either commit in turn. Seconds are
processor time, medians; "ratio" is the median of today / base pair by pair, "of pairs" its least and greatest.

{table}"""


def measure(description: str | None, cases_in: Callable[[Path], Iterator[Case]], pairs: int, name: str) -> None:
    """Compare the cases that the command line asks for, whose files are made in a folder; write --out / name.md."""
    given = asked(description, pairs)
    with tempfile.TemporaryDirectory() as folder:
        chosen = (case for case in cases_in(Path(folder)) if case.name.startswith(given.only))
        table = told(compare(given.base, chosen, given.pairs))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        Path(given.out, f"{name}.md").write_text(page(given, name, table), encoding="utf-8")


if __name__ == "__main__":
    measure(__doc__, cases, 5, "paired")
