"""Write reports/batches.md: what batches of samples, the order of the rungs and the attacks cost, ratios of one run.

    IDL_AUDIT_DATA=... python -m benchmarks.batches [--images 50] [--rounds 3] [--only bounds,ladder] [--out DIR]

All figures are processor seconds of one process, the least of some rounds; run it with OMP_NUM_THREADS=1.

bounds: all states and margins by backward linear bounds, image by image and all in one call; the same by auto_LiRPA
(float32, not rounded outward) where that can be imported.
ladder: verdicts by the default methods, sample by sample and in batches; beside them those of intervals and linear
bounds alone, which easy samples need no more than.
attacks: every property of the data folder whose published truth is sat, until its counterexample is found.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.architectures import mnist_mlp_d3
from benchmarks.measuring import ROOT, machine
from benchmarks.mnist_table import chain_of, images
from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, Result, Sample, decide_query, decide_sample, decide_together
from idl_audit.decide.ladder import samples_at_once as at_once
from idl_audit.graph.torch_reader import network_of
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.margins import margin_functionals
from idl_audit.values.network import Network
from idl_audit.values.verdicts import Verdict

PACKAGES = ("numpy", "scipy", "torch", "onnxruntime", "auto_LiRPA")
MEAN, STD = 0.1307, 0.3081
CHEAP = ("interval", "linear")
ABOUT = """# Batches of samples

Made by `python -m benchmarks.batches`: milliseconds of the processor a sample, the least of some rounds of one process,
one thread. *bounds*: all states and margins by backward linear bounds, sample by sample and all in one call; auto_LiRPA
computes in float32 and does not round outward. *ladder*: verdicts by the default methods, and by intervals and linear
bounds alone (cheap)."""
BOUNDS = "| bounds of | by | one by one, ms | together, ms | ratio | theirs to ours |"
LADDER = (
    "| verdicts of | certified | same verdict | alone ms | batches ms | ratio | cheap alone ms | cheap batches ms "
    "| ratio | all to cheap |"
)
SECONDS = 5.0
"""Of the processor, for a sample or a property."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with samples and a radius."""

    name: str
    model: ImplicitModel
    network: Network
    x: FloatArray
    labels: IntArray
    eps: float

    @cached_property
    def boxes(self) -> list[Box]:
        """The sets, within [0, 1]."""
        return [Box.around(sample, self.eps, valid_lo=0.0, valid_hi=1.0) for sample in self.x]

    @cached_property
    def samples(self) -> list[Sample]:
        """The samples with their sets."""
        return [Sample(x, int(y), box) for x, y, box in zip(self.x, self.labels, self.boxes, strict=True)]


def subjects(data: Path, n: int) -> Iterator[Subject]:
    """Yield MNIST networks of the data folder, then the sample networks."""
    x, labels = images(data, n)
    module = mnist_mlp_d3()
    module.load_state_dict(torch.load(data / "models/mnist_mlp_d3.pt", map_location="cpu", weights_only=True))
    read, units = network_of(module, torch.zeros(1, 1, 28, 28)), Preprocessing(mean=(MEAN,), std=(STD,))
    model = in_data_units(build_implicit(read.graph), *units.affine((1, 28, 28)))

    def network(points: np.ndarray) -> np.ndarray:
        return read.original(units.apply(points, (1, 28, 28)).astype(np.float32))

    yield Subject("mnist_mlp_d3", model, network, x, labels, 0.01)
    large = open_subject(data / "vnncomp/mnist_fc/mnist-net_256x4.onnx")
    yield Subject("mnist-net_256x4", large.model, large.original, x, labels, 0.01)
    for name in ("digits_mlp", "digits_conv", "digits_resnet"):
        own = open_subject(ROOT / f"sample_models/{name}.onnx")
        with np.load(ROOT / f"sample_models/{name}.npz") as file:
            rows, classes = file["inputs"][:n].reshape(n, -1).astype(np.float64), file["labels"][:n].astype(np.int64)
        yield Subject(name, own.model, own.original, rows, classes, 0.02)


def milliseconds(work: Callable[[], object], n: int, rounds: int) -> float:
    """Return the least processor time of some rounds for one of n samples."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found) / n * 1e3


# --- bounds -----------------------------------------------------------------------------------------------------------


def margins(subject: Subject, some: slice) -> FloatArray:
    """Return proved lower bounds of all margins of some samples."""
    model, inputs = subject.model, Interval.of_boxes(subject.boxes[some])
    bounds = backward_state_bounds(model, inputs)
    seeds = np.stack([margin_functionals(model.n_outputs, int(label)) for label in subject.labels[some]])
    return output_lower_bounds(model, inputs, bounds, seeds)


def peers_margins(subject: Subject) -> Callable[[slice], object]:
    """Return auto_LiRPA's CROWN bounds of the same margins as a function of the samples. Raises ImportError."""
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    x = torch.tensor(subject.x, dtype=torch.float32)
    lo, hi = (torch.tensor(np.stack([getattr(box, side) for box in subject.boxes])).float() for side in ("lo", "hi"))
    rows = np.stack([margin_functionals(subject.model.n_outputs, int(label)) for label in subject.labels])
    rows_of = torch.tensor(rows, dtype=torch.float32)
    model = BoundedModule(chain_of(subject.model), x[:1])

    def bounds(some: slice) -> object:
        wrapped = BoundedTensor(x[some], PerturbationLpNorm(norm=np.inf, x_L=lo[some], x_U=hi[some]))
        with torch.no_grad():
            return model.compute_bounds(x=(wrapped,), C=rows_of[some], method="backward")

    return bounds


def both_ways(work: Callable[[slice], object], n: int, rounds: int) -> tuple[float, float]:
    """Return the milliseconds a sample, one by one and together."""
    alone = milliseconds(lambda: [work(slice(i, i + 1)) for i in range(n)], n, rounds)
    return alone, milliseconds(lambda: work(slice(0, n)), n, rounds)


def bounds_rows(subject: Subject, rounds: int) -> Iterator[str]:
    """Yield the rows of a network; where its layers are a chain of dense ones, beside auto_LiRPA."""
    n = len(subject.x)
    ours = both_ways(lambda some: margins(subject, some), n, rounds)
    yield f"| {subject.name} | ours | {ours[0]:.2f} | {ours[1]:.2f} | {ours[0] / ours[1]:.2f} | |"
    if not all(isinstance(one, Dense) for one in subject.model.maps):
        return
    try:
        theirs = both_ways(peers_margins(subject), n, rounds)
    except Exception as error:
        yield f"| {subject.name} | auto_LiRPA cannot be run here ({type(error).__name__}) | | | | |"
        return
    told = f"{theirs[0] / ours[0]:.2f}, {theirs[1] / ours[1]:.2f}"
    yield f"| {subject.name} | auto_LiRPA | {theirs[0]:.2f} | {theirs[1]:.2f} | {theirs[0] / theirs[1]:.2f} | {told} |"


# --- the ladder -------------------------------------------------------------------------------------------------------


def alone(subject: Subject, methods: tuple[str, ...] | None = None) -> list[Result]:
    """Decide sample by sample."""
    chosen = Options(methods=methods)
    return [_decided(subject, sample, chosen) for sample in subject.samples]


def together(subject: Subject, methods: tuple[str, ...] | None = None) -> list[Result]:
    """Decide in batches; what the first rungs leave, sample by sample."""
    chosen, samples, size = Options(methods=methods), subject.samples, at_once(subject.model)
    found: list[Result] = []
    for start in range(0, len(samples), size):
        batch = samples[start : start + size]
        first = decide_together(subject.model, subject.network, batch, chosen)
        found += [one or _decided(subject, sample, chosen) for one, sample in zip(first, batch, strict=True)]
    return found


def _decided(subject: Subject, sample: Sample, chosen: Options) -> Result:
    budget = Budget.of(SECONDS, clock=time.process_time)
    point, label, box = sample.point, sample.label, sample.inputs
    return decide_sample(subject.model, subject.network, point, label, box, chosen, budget=budget)


def ladder_row(subject: Subject, rounds: int) -> str:
    """Return a network's row: milliseconds a sample."""
    n, found = len(subject.x), (alone(subject), together(subject))
    same = sum(a.verdict is b.verdict for a, b in zip(*found, strict=True))
    proved = sum(one.verdict is Verdict.CERTIFIED for one in found[1])
    ours = milliseconds(lambda: alone(subject), n, rounds), milliseconds(lambda: together(subject), n, rounds)
    cheap = (
        milliseconds(lambda: alone(subject, CHEAP), n, rounds),
        milliseconds(lambda: together(subject, CHEAP), n, rounds),
    )
    cells = (
        f"{subject.name}, eps {subject.eps:g}",
        f"{proved} of {n}",
        f"{same} of {n}",
        *(f"{value:.2f}" for value in (*ours, ours[0] / ours[1], *cheap, cheap[0] / cheap[1], ours[1] / cheap[1])),
    )
    return f"| {' | '.join(cells)} |"


# --- attacks ----------------------------------------------------------------------------------------------------------


def attack_rows(data: Path) -> Iterator[str]:
    """Yield a row for each family with properties that are known to be sat."""
    for path in sorted((data / "vnncomp").glob("*/instances.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) > 3 and row[3].strip() == "sat"]
        found = [seconds_until_found(path.parent / row[0].strip(), path.parent / row[1].strip()) for row in rows]
        seconds = [one for one in found if one is not None]
        if rows:
            told = f"{sum(seconds):.2f} | {max(seconds):.2f}" if seconds else "- | -"
            yield f"| {path.parent.name} | {len(seconds)} of {len(rows)} | {told} |"


def seconds_until_found(model: Path, vnnlib: Path) -> float | None:
    """Return the processor seconds until a counterexample of a property is found; None where none is."""
    subject = open_subject(model)
    queries, budget = read_property(subject, vnnlib).queries, Budget.of(SECONDS, clock=time.process_time)
    start = time.process_time()
    for query in queries:
        if not (query.box.float32_bounds()[0] <= query.box.float32_bounds()[1]).all():
            return None  # no point of it can be handed to the network
        found = decide_query(subject.model, subject.original, query, Options(), budget=budget)
        if found.verdict is Verdict.FALSIFIED:
            return time.process_time() - start
    return None


def main() -> None:
    """Print the tables as they are measured, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="bounds,ladder,attacks")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    data, parts = Path(os.environ["IDL_AUDIT_DATA"]), given.only.split(",")
    torch.set_num_threads(1)
    lines = [ABOUT, "", f"{machine(1, PACKAGES)}; {given.images} samples."]
    for line in tables(data, parts, given.images, given.rounds):
        print(line, flush=True)
        lines.append(line)
    given.out.mkdir(exist_ok=True)
    (given.out / "batches.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def tables(data: Path, parts: Sequence[str], images: int, rounds: int) -> Iterator[str]:
    """Yield the lines of the tables."""
    if "bounds" in parts:
        yield from ("", BOUNDS, "|---|---|---:|---:|---:|---:|")
        for subject in subjects(data, images):
            yield from bounds_rows(subject, rounds)
    if "ladder" in parts:
        yield from ("", LADDER, f"|---|{'---:|' * 9}")
        for subject in subjects(data, images):
            yield ladder_row(subject, rounds)
    if "attacks" in parts:
        yield from ("", "| family | found of known sat | seconds in all | most |", "|---|---:|---:|---:|")
        yield from attack_rows(data)


if __name__ == "__main__":
    main()
