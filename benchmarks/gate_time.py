"""How long gate and diff take, beside Python's own start: `python -m benchmarks.gate_time`.

The medians of several runs, each in a process of its own, on a report with 1000 samples at two radii. Processor time
says what a command costs where other processes take their share of the machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import seconds_of_children
from tests.shared.gate_reports import audited, written

RULE = "certified_accuracy@2/255 >= 0.9"


def seconds(command: list[str], runs: int) -> tuple[float, float]:
    """Return the median wall time and the median processor time of a command in seconds."""
    walls, own = [], []
    for _ in range(runs):
        start, before = time.perf_counter(), seconds_of_children()
        subprocess.run(command, capture_output=True, check=True)
        walls.append(time.perf_counter() - start)
        own.append(seconds_of_children() - before)
    return statistics.median(walls), statistics.median(own)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--samples", type=int, default=1000)
    given = parser.parse_args()
    word = "c" * (given.samples - given.samples // 20) + "u" * (given.samples // 20)
    with tempfile.TemporaryDirectory() as folder:
        report = str(written(Path(folder, "r.json"), audited({"1/255": word, "2/255": word})))
        baseline = str(written(Path(folder, "b.json"), audited({"1/255": word, "2/255": word})))
        program = [sys.executable, "-m", "idl_audit"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "gate": [*program, "gate", report, "--require", RULE],
            "gate --baseline": [*program, "gate", report, "--require", "drop <= 0.01", "--baseline", baseline],
            "diff": [*program, "diff", baseline, report],
        }
        print(f"{given.samples} samples at two radii, median of {given.runs} runs")
        base = None
        for name, command in commands.items():
            wall, own = seconds(command, given.runs)
            base = base or own
            print(f"{name:<16} wall {wall:6.2f} s   processor {own:6.2f} s   {own / base:5.1f} x python -c pass")


if __name__ == "__main__":
    main()
