"""Measuring on a shared machine: least time of several interleaved runs, peak memory, what the machine is.

Heavy parts run in a process of their own each, so that threads are set before numpy and torch start and the peak memory
is that part's alone.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def least_seconds(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    budget: float = 20.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the least time of each contestant, by some clock; every round runs each once, in turn.

    A contestant that has used up its budget of seconds, and ran twice at least, sits the other rounds out.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            if len(found[name]) >= 2 and sum(found[name]) > budget:
                continue
            start = clock()
            run()
            found[name].append(clock() - start)
    return {name: min(times) for name, times in found.items()}


def peak_megabytes() -> float:
    """Return the largest memory that this process has held so far, interpreter and libraries included, in MB (10^6)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def run_part(module: str, part: str, threads: int, *, more: Sequence[str] = ()) -> dict[str, Any]:
    """Run `python -m module --part PART` and `more` with that many threads; return the JSON on its last line.

    A part that ends without one is reported in words under the key `missing`: on a small machine the system ends what
    takes too much memory.
    """
    settings = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, "-m", module, "--part", part, *more],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        return {"missing": f"the system ended the process (signal {-done.returncode}); 9 means too little memory"}
    if done.returncode:
        raise RuntimeError(f"part {part} failed; its traceback is above")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def seconds_of_children() -> float:
    """Return the processor seconds of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine(threads: int, packages: Sequence[str]) -> str:
    """Return one sentence about processor, memory, threads and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB of memory, {platform.system()}; "
        f"{threads} threads; Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
