"""What verdicts for float32 arithmetic cost, beside those for real arithmetic: counts and processor seconds, in pairs.

    IDL_AUDIT_DATA=... python -m benchmarks.float32_verdicts [--samples 100] [--images 40] [--rounds 3] [-o FILE]

Each row is one question, asked in real arithmetic (with IDL202, which bounds the roundings of what is certified) and in
float32 by turns, all in one process; seconds are those of the processor, the median over the rounds. Run it with
OMP_NUM_THREADS=1. Networks of the data folder are left out where there is none.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measuring import ROOT, machine
from benchmarks.mnist_table import images
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.certify_property import decide_property
from idl_audit.commands.options.reading import DataOptions, SearchedModel
from idl_audit.commands.options.robustness import PropertyOptions, RobustnessOptions
from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.values.budget import Budget
from idl_audit.values.verdicts import ArithmeticName

BOTH: tuple[ArithmeticName, ...] = ("real", "float32")
PACKAGES = ("numpy", "scipy", "torch", "onnxruntime")
SECONDS = 20.0
"""For a sample or a property."""
MNIST = Preprocessing(mean=(0.1307,), std=(0.3081,), bounds=(0.0, 1.0))
Counts = Counter[str]
Asked = Callable[[ArithmeticName], Counts]


@dataclass(frozen=True)
class Question:
    """One row of the table."""

    name: str
    asked: Asked


@dataclass(frozen=True)
class Row:
    """What came of a question in both arithmetics."""

    name: str
    counts: Mapping[str, Counts]
    seconds: Mapping[str, float]

    @property
    def text(self) -> str:
        """The row of the table."""
        real, computed = (self.counts[one] for one in BOTH)
        ours, theirs = (self.seconds[one] for one in BOTH)
        lost = _proved(real) - _proved(computed)
        cells = (_told(real), _told(computed), lost, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}")
        return f"| {self.name} | {' | '.join(map(str, cells))} |"


def _proved(counts: Counts) -> int:
    return counts["certified"] + counts["unsat"]


def _told(counts: Counts) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()) if count)


def samples_of(path: Path, data: Path, eps: str, n: int, model: SearchedModel, units: Preprocessing) -> Asked:
    """Return how the first samples of a file are asked about."""

    def asked(arithmetic: ArithmeticName) -> Counts:
        reading = DataOptions(data, preprocessing=units, limit=n)
        verdicts = Options(time_limit=SECONDS, arithmetic=arithmetic)
        options = RobustnessOptions(eps=parse_eps(eps), data=reading, verdicts=verdicts, model=model)
        report = audit_robustness("certify", path, options)
        return Counter(result.verdict.value for sample in report.samples for result in sample.results)

    return asked


def properties_of(rows: Sequence[tuple[Path, Path]]) -> Asked:
    """Return how properties are asked about, each with its network."""
    subjects = {network: open_subject(network) for network, _ in rows}
    questions = [(subjects[network], read_property(subjects[network], file)) for network, file in rows]

    def asked(arithmetic: ArithmeticName) -> Counts:
        options = PropertyOptions(arithmetic=arithmetic)
        return Counter(
            decide_property(subject, question, options, Budget.of(SECONDS, clock=time.process_time)).result
            for subject, question in questions
        )

    return asked


def unsat_rows(family: Path) -> list[tuple[Path, Path]]:
    """Return the networks and properties of a family that are known to hold."""
    with (family / "instances.csv").open() as file:
        return [
            (family / row["onnx"], family / row["vnnlib"]) for row in csv.DictReader(file) if row["truth"] == "unsat"
        ]


def questions(samples: int, count: int, most: int, folder: Path) -> Iterator[Question]:
    """Yield what is asked: sample networks, then those of the data folder."""
    models = ROOT / "sample_models"
    plain = Preprocessing(bounds=(0.0, 1.0))
    for name, eps, n in (
        ("digits_mlp", "0.02,0.05", samples),
        ("digits_conv", "0.02", samples // 3),
        ("digits_resnet", "0.02", samples // 3),
    ):
        files = models / f"{name}.onnx", models / f"{name}.npz"
        yield Question(f"{name}, {n} samples, eps {eps}", samples_of(*files, eps, n, SearchedModel(), plain))
    if "IDL_AUDIT_DATA" not in os.environ:
        return
    data = Path(os.environ["IDL_AUDIT_DATA"])
    x, labels = images(data, count)
    np.savez(folder / "mnist.npz", inputs=x.reshape(-1, 1, 28, 28).astype(np.float32), labels=labels)
    for name, eps in (("mnist_mlp_d3", "0.01,0.03"), ("mnist_mlp_d10", "0.005")):
        arch = TorchOptions(
            arch=f"benchmarks.architectures:{name}", input_shape=((1, 1, 28, 28),), allow_code_execution=True
        )
        path = data / f"models/{name}.pt"
        asked = samples_of(path, folder / "mnist.npz", eps, count, SearchedModel(torch=arch), MNIST)
        yield Question(f"{name}, {count} images, eps {eps}", asked)
    rows = unsat_rows(data / "vnncomp/mnist_fc")
    for network in dict.fromkeys(network for network, _ in rows):
        own = [row for row in rows if row[0] == network][:most]
        yield Question(f"{network.name}, {len(own)} properties", properties_of(own))
    own = unsat_rows(data / "vnncomp/acasxu")[: 2 * most]
    yield Question(f"acasxu, {len(own)} properties", properties_of(own))


def measured(question: Question, rounds: int) -> Row:
    """Ask a question in both arithmetics by turns."""
    question.asked("real")  # libraries are loaded, caches filled
    counts: dict[str, Counts] = {}
    seconds: dict[str, list[float]] = {one: [] for one in BOTH}
    for turn in range(rounds):
        for one in BOTH if turn % 2 == 0 else BOTH[::-1]:
            start = time.process_time()
            counts[one] = question.asked(one)
            seconds[one].append(time.process_time() - start)
    return Row(question.name, counts, {one: statistics.median(times) for one, times in seconds.items()})


def report(rows: Sequence[Row], command: str) -> str:
    """Return the page."""
    proved = {one: sum(_proved(row.counts[one]) for row in rows) for one in BOTH}
    ratio = statistics.geometric_mean([row.seconds["float32"] / row.seconds["real"] for row in rows])
    lines = [
        "# Verdicts for float32 arithmetic",
        "",
        f"Made by `{command}`.",
        "",
        machine(1, PACKAGES),
        "",
        "Seconds are those of the processor for the whole row, the median of turns in one process; *real* includes the "
        "bounds behind IDL202.",
        "",
        "| question | real | float32 | proofs lost | s real | s float32 | ratio |",
        "|---|---|---|---:|---:|---:|---:|",
        *(row.text for row in rows),
        "",
        f"Proved: {proved['real']} in real arithmetic, {proved['float32']} in float32. Ratio of the seconds, geometric "
        f"mean: {ratio:.2f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--properties", type=int, default=5, help="of each network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of the names of rows")
    parser.add_argument("-o", dest="out", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for question in questions(given.samples, given.images, given.properties, Path(folder)):
            if given.only in question.name:
                rows.append(measured(question, given.rounds))
                print(rows[-1].text, file=sys.stderr, flush=True)
    options = f" --samples {given.samples} --images {given.images} --properties {given.properties}"
    text = report(rows, f"python -m benchmarks.float32_verdicts{options} --rounds {given.rounds}")
    print(text) if given.out is None else given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
