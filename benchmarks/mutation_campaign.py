"""Changed proof files, reports and configurations: `python -m benchmarks.mutation_campaign --cases 20000`.

Every case is a file that was changed with structure, and a command that reads it. None may end in an internal error,
take more than 30 s or 1 GB, or be accepted with a claim that is false; a judge beside the tool decides which those are
(`tests.shared.proof_sources`). The cases run in chunks, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from idl_audit.cli.app import app
from tests.shared import mutated_proofs, mutated_texts
from tests.shared.mutated_case import Case

LONGEST, LARGEST = 30.0, 1000.0
"""Seconds that a case may take, and MB beyond what its process had before."""
KINDS: dict[str, Callable[[Path, np.random.Generator], Iterator[Case]]] = {
    "proofs": mutated_proofs.cases,
    "reports": mutated_texts.reports,
    "journals": mutated_texts.journals,
    "configurations": mutated_texts.configurations,
    "radii, groups, objectives": mutated_texts.numbers,
}
"""What is changed -> its cases, without end."""
SHARES = {"proofs": 0.6, "reports": 0.2, "journals": 0.05, "configurations": 0.08, "radii, groups, objectives": 0.07}


@dataclass
class Tally:
    """What came of some cases."""

    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(kind, exit code) -> cases."""
    names: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """(mutation, whether accepted) -> cases."""
    problems: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    """Seconds, and the case."""
    largest: tuple[float, str] = (0.0, "")
    """MB, and the case."""

    def add(self, other: Tally) -> None:
        self.codes += other.codes
        self.names += other.names
        self.problems += other.problems
        self.slowest, self.largest = max(self.slowest, other.slowest), max(self.largest, other.largest)


def tried(kind: str, count: int, seed: int, folder: Path) -> Tally:
    """Run some cases of a kind in this process."""
    found, stream = Tally(), KINDS[kind](folder, np.random.default_rng(seed))
    for _ in range(count):
        case = next(stream)
        _forget_peak()
        before = _peak()
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            result = CliRunner().invoke(app, case.args, prog_name="idl-audit")
        seconds, megabytes = time.perf_counter() - start, _peak() - before
        label = f"{kind}, seed {seed}: {case.name}: {' '.join(case.args)[:200]}"
        found.codes[kind, int(result.exit_code)] += 1
        found.names[case.name, result.exit_code == 0] += 1
        found.slowest, found.largest = max(found.slowest, (seconds, label)), max(found.largest, (megabytes, label))
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            found.problems.append(f"{label}: {''.join(traceback.format_exception(error))[-600:]}")
        elif result.exit_code not in case.codes:
            found.problems.append(f"{label}: exit code {result.exit_code}: {result.output[-400:]}")
        elif seconds > LONGEST or megabytes > LARGEST:
            found.problems.append(f"{label}: {seconds:.0f} s, {megabytes:.0f} MB")
        else:
            with np.errstate(all="ignore"):  # a claim of huge numbers is one that sampling cannot contradict
                wrong = case.wrong(result.exit_code, result.stdout)
            if wrong:
                kept = case.keep(folder.parent / f"kept-{seed}-{sum(found.codes.values())}")
                found.problems.append(f"{label}: accepted wrongly: {wrong}; kept as {kept}")
    return found


def _forget_peak() -> None:
    """Let Linux count the peak of this process's memory anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Return the peak of this process's memory in MB, since the last `_forget_peak` where the system counts it."""
    try:
        status = Path("/proc/self/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _chunk(job: tuple[str, int, int]) -> Tally:
    with tempfile.TemporaryDirectory() as folder:
        return tried(*job, Path(folder, "cases"))


def campaign(count: int, seed: int, chunk: int, processes: int) -> Tally:
    """Run so many cases of all kinds, a chunk a process."""
    jobs = []
    for place, (kind, share) in enumerate(SHARES.items()):
        left, number = round(count * share), 0
        while left > 0:
            jobs.append((kind, min(chunk, left), seed + 1000 * place + number))
            left, number = left - chunk, number + 1
    total = Tally()
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        for done in pool.imap_unordered(_chunk, jobs):
            total.add(done)
            print(
                f"{sum(total.codes.values())} of {count}, {len(total.problems)} problems", file=sys.stderr, flush=True
            )
    return total


def told(total: Tally) -> str:
    """Return the figures as text."""
    lines = [f"{sum(total.codes.values())} cases"]
    for kind in KINDS:
        codes = {code: n for (name, code), n in sorted(total.codes.items()) if name == kind}
        accepted, all_of_them = codes.get(0, 0), sum(codes.values())
        lines.append(f"  {kind}: {all_of_them} cases, accepted {accepted}, refused {all_of_them - accepted} {codes}")
    lines.append(f"slowest: {total.slowest[0]:.1f} s ({total.slowest[1]})")
    lines.append(f"most memory of a case: {total.largest[0]:.0f} MB ({total.largest[1]})")
    lines.append(f"problems: {len(total.problems)}")
    return "\n".join([*lines, *(f"  {problem}" for problem in total.problems)])


def main() -> None:
    """Print the figures; exit with 1 where there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=1000, help="cases that one process runs")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", choices=KINDS, help="cases of this kind alone")
    given = parser.parse_args()
    if given.only:
        SHARES.update({kind: float(kind == given.only) for kind in KINDS})
    total = campaign(given.cases, given.seed, given.chunk, given.processes)
    print(told(total))
    sys.exit(1 if total.problems else 0)


if __name__ == "__main__":
    main()
