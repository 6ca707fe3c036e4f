"""Write reports/rows_together.md: properties whose rows are infeasible together, decided and proved.

    python -m benchmarks.rows_together [--limit 30] [--base COMMIT] [--only sat_8,net] [--out DIR]

Networks encode random 3-SAT formulas whose truth every assignment tells, or are random with rows whose least common
value a mixed-integer program tells. All are made here from fixed seeds. Each is one command in a process of its own;
the time limit is by the clock, the seconds told are the processor's. With --base the same commands are run by another
commit, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measuring import ROOT, machine, seconds_of_children
from tests.shared.joint_properties import JointProperty, formula, of_formula, of_network

VARIABLES = (8, 10, 12, 14)
SIZES = ((3, 10, 10, 3), (4, 12, 12, 4), (5, 16, 5), (6, 12, 12, 8), (10, 16, 16, 4), (8, 20, 20, 2))
PACKAGES = ("numpy", "torch", "highspy", "onnxruntime")
HEAD = (
    "| property | inputs | states | rows | truth | {base}ours | method | processor s | leaves | proof |\n"
    "|---|---:|---:|---:|---|{line}---|---|---:|---:|---|"
)


def properties() -> Iterator[JointProperty]:
    """Yield formulas in 8 to 14 variables, read off directly and through steep steps, and random networks."""
    for n in VARIABLES:
        for steep in (False, True):
            for truth in ("unsat", "sat"):
                clauses = formula(np.random.default_rng(10 * n + steep), n, truth)
                name = f"sat_{n}_{'steep' if steep else 'plain'}_{truth}"
                yield of_formula(clauses, truth, name=name, steep=steep)
    for seed, sizes in enumerate(SIZES):
        for truth in ("unsat", "sat"):
            name = f"net_{'_'.join(map(str, sizes))}_{truth}"
            yield of_network(np.random.default_rng(seed), sizes, truth, name=name)


@dataclass(frozen=True)
class Outcome:
    """What one commit says of a property."""

    result: str
    method: str
    seconds: float
    """Of the processor."""


def decided(tree: Path, network: Path, question: Path, limit: float, proofs: Path | None) -> Outcome:
    """Run one commit's `certify` on a property."""
    arguments = ["certify", str(network), str(question), "--time-limit", str(limit), "-f", "json"]
    arguments += [] if proofs is None else ["--certificates", str(proofs), "--force"]
    done, seconds = _run(tree, arguments)
    try:
        (entry,) = json.loads(done.stdout)["properties"]
    except ValueError:
        return Outcome(f"exit {done.returncode}", "-", seconds)
    return Outcome(entry["result"], entry["method"] or "-", seconds)


def _run(tree: Path, arguments: list[str]) -> tuple[subprocess.CompletedProcess[str], float]:
    before = seconds_of_children()
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "idl_audit", *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return done, seconds_of_children() - before


def row(own: JointProperty, folder: Path, limit: float, base: Path | None) -> tuple[str, bool]:
    """Return a property's row of the table, and whether an answer is wrong."""
    network, question = own.write(folder)
    proofs = folder / f"{own.name}_proofs"
    today = decided(ROOT, network, question, limit, proofs)
    before = [] if base is None else [decided(base, network, question, limit, None)]
    leaves = proof = "-"
    if today.result == "unsat":
        certificate = proofs / f"{own.name}.npz"
        if certificate.exists():
            with np.load(certificate) as file:
                leaves = str(sum(int((file[k] == -1).sum()) for k in file if ".goals." in k and k.endswith("variable")))
            accepted = _run(ROOT, ["verify", str(certificate), str(network), str(question)])[0].returncode == 0
            proof = "verified" if accepted else "**refused**"
        else:
            proof = "none"
    states = sum(len(b) for b in own.biases[:-1])
    told = [f"{one.result} ({one.seconds:.1f} s)" for one in before]
    cells = [own.name, own.n_inputs, states, own.limits.size, own.truth, *told, today.result, today.method]
    cells += [f"{today.seconds:.1f}", leaves, proof]
    wrong = any(one.result in ("sat", "unsat") and one.result != own.truth for one in (today, *before))
    return f"| {' | '.join(map(str, cells))} |", wrong


def report(rows: list[tuple[str, bool]], limit: float, base: str | None) -> str:
    """Return the report as markdown."""
    has_base = "" if base is None else " Before: the same commands by an earlier commit."
    lines = [
        "# Rows together",
        "",
        f"Made by `python -m benchmarks.rows_together --limit {limit:g}`: properties whose output rows cannot hold all "
        "together, though each of them, and mostly each two of them, can; and the same with one clause less, or with "
        "limits a little wider, where they can. `sat_N`: a network reads the clauses of a random 3-SAT formula in N "
        "variables off inputs in [0, 1] (steep: off clip(4 u - 3/2, 0, 1)); rows say that no clause is violated and "
        "every variable is near 0 or 1. `net_...`: random weights, layers of these sizes. Truth: every assignment, or "
        "a mixed-integer program. Seconds of the processor, start and proof included; the limit is by the clock, "
        f"{limit:g} s, and the machine shared.{has_base}",
        "",
        f"{machine(1, PACKAGES)}.",
        "",
        f"{sum(wrong for _, wrong in rows)} answers are wrong.",
        "",
        HEAD.format(base="" if base is None else "before | ", line="" if base is None else "---|"),
        *(text for text, _ in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds for a property")
    parser.add_argument("--base", help="another commit to run beside")
    parser.add_argument("--only", default="", help="a comma list of what names begin with")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = None if given.base is None else Path(folder, "base")
        git = ["git", "-C", str(ROOT), "worktree"]
        if tree is not None:
            subprocess.run([*git, "add", "--quiet", "--detach", str(tree), given.base], check=True)
        try:
            rows = []
            for own in properties():
                if own.name.startswith(tuple(given.only.split(","))):
                    rows.append(row(own, Path(folder), given.limit, tree))
                    print(rows[-1][0], flush=True)
        finally:
            if tree is not None:
                subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "rows_together.md").write_text(report(rows, given.limit, given.base), encoding="utf-8")


if __name__ == "__main__":
    main()
