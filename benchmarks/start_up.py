"""What the commands load and cost, and what an installation weighs: `python -m benchmarks.start_up`.

Each command runs once on a sample network, in a process of its own that tells which large libraries it has loaded.
Processor time says what a command costs where others take their share of the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.measuring import seconds_of_children

SAMPLES = Path(__file__).resolve().parents[1] / "sample_models"
LARGE = ("torch", "onnxruntime", "onnx", "scipy", "highspy")
TELL = (
    "import sys, atexit; from idl_audit.__main__ import main\n"
    f"atexit.register(lambda: print('LOADED', *[n for n in {LARGE} if n in sys.modules], file=sys.stderr))\n"
    "main()"
)


def commands(model: Path, data: Path) -> dict[str, list[str]]:
    """Return what is run, in an order in which each has the files that it reads."""
    asked = [str(model), "-d", str(data), "-e", "0.01", "--limit", "5"]
    lines = ["--method", "interval,linear"]
    return {
        "--version": ["--version"],
        "inspect": ["inspect", str(model)],
        "convert": ["convert", str(model), "-o", "implicit.npz"],
        "certify --method interval,linear": ["certify", *asked, *lines, "-o", "r.json", "--certificates", "proofs"],
        "certify": ["certify", *asked, "-o", "all.json"],
        "verify": ["verify", "proofs", str(model)],
        "gate": ["gate", "r.json", "--require", "certified_accuracy@0.01 >= 0.1"],
        "report": ["report", "r.json", "-o", "page.html"],
        "diff": ["diff", "r.json", "all.json"],
        "attack --method sign": ["attack", *asked, "--method", "sign"],
    }


def row(name: str, command: list[str], folder: str) -> str:
    """Run a command and return its line of the table. Raises RuntimeError where it fails."""
    before = seconds_of_children()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", TELL, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise RuntimeError(f"{name}: exit code {found.returncode}: {found.stderr}")
    loaded = next(line for line in reversed(found.stderr.splitlines()) if line.startswith("LOADED")).split()[1:]
    seconds = seconds_of_children() - before
    return f"| {name} | {seconds:.1f} | {', '.join(loaded) or 'none'} |"


def weights() -> Iterator[tuple[str, float]]:
    """Yield the packages of this environment with their MB on disk."""
    for one in distributions():
        size = sum(path.stat().st_size for path in map(one.locate_file, one.files or ()) if Path(path).is_file())
        yield one.metadata["Name"], size / 1e6


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    model, data = SAMPLES / "digits_mlp.onnx", SAMPLES / "digits_mlp.npz"
    print("| command | processor seconds | large libraries loaded |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands(model, data).items():
            print(row(name, command, folder), flush=True)
    found = sorted(weights(), key=lambda pair: -pair[1])
    print("\n| package | MB |\n|---|---|")
    for name, size in found[:8]:
        print(f"| {name} | {size:.0f} |")
    print(f"| all {len(found)} | {sum(size for _, size in found):.0f} |")


if __name__ == "__main__":
    main()
