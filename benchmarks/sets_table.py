"""Write reports/sets.md: verdicts over balls of l2, families of inputs and patches, each beside what it compares with.

    IDL_AUDIT_DATA=... python -m benchmarks.sets_table [--balls 100] [--families 20] [--patches 20] [--out DIR]

1. l2 balls on mnist-net_256x2 beside a global certificate: the margin over the product of the layers' spectral norms.
2. Brightness and contrast on resnet_2b, inputs saturating; sets-families.png shows samples and where they fall.
3. A patch of 3x3 pixels at every position on mnist-net_256x2; sets-patches.png shows the worst positions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from benchmarks.measuring import machine
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.data.perturbations import parse_perturbation
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, Result, decide_sample
from idl_audit.decide.perturbed import decide_perturbed
from idl_audit.implicit.model import ImplicitModel
from idl_audit.search.torch_maps import load_torch
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.perturbations import Around, Perturbed
from idl_audit.values.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "scipy", "torch", "onnxruntime")
L2, LINF = (0.5, 1.0), 0.03
CHANGES = "brightness=0.05,contrast=0.9:1.1"
PATCH = "patch=3x3"
DRAWN = 8
"""Samples of a picture."""
CIFAR = Preprocessing(1.0, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
NAMES = (Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.CLEAN_WRONG)
HEAD = "| set | images | certified | falsified | undecided | wrong | s of CPU, median | greatest | all | decided by |"


@dataclass(frozen=True)
class Shown:
    """One sample of a picture."""

    sample: FloatArray
    label: int
    result: Result

    @property
    def title(self) -> str:
        """What is known of it."""
        values = self.result.found.parameters if self.result.found is not None else ()
        told = ", ".join(f"{value:.3g}" for value in values or self.result.worst)
        return f"{self.label}: {self.result.verdict.value}\n{told}"


@dataclass
class Row:
    """The verdicts over one kind of set."""

    name: str
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    """Samples that were classified right, with what was found."""

    def take(self, result: Result, seconds: float) -> None:
        """Count a verdict and its processor time."""
        self.verdicts[result.verdict] += 1
        self.seconds.append(seconds)
        if result.method is not None:
            self.methods[result.method] += 1

    @property
    def line(self) -> str:
        """The row of the table."""
        cells = [self.name, str(len(self.seconds)), *(str(self.verdicts[name]) for name in NAMES)]
        cells += [f"{value:.1f}" for value in (statistics.median(self.seconds), max(self.seconds), sum(self.seconds))]
        return f"| {' | '.join([*cells, ', '.join(f'{name} {n}' for name, n in self.methods.most_common())])} |"


def table(rows: Sequence[Row]) -> list[str]:
    """Return a table of rows."""
    return [HEAD, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|", *(row.line for row in rows)]


def global_l2(model: ImplicitModel, x: FloatArray, labels: IntArray, eps: float) -> int:
    """Return how many samples |f_y - f_j| > eps |c_y - c_j| prod |W_k| certifies: spectral norms of a chain."""
    product = float(np.prod([np.linalg.norm(w.to_sparse().toarray(), 2) for row in model.rows for w in row.maps]))
    (last,) = model.output.maps
    rows, y, count = last.to_sparse().toarray(), model(x), 0
    for own, label in zip(y, labels.tolist(), strict=True):
        others = np.arange(len(own)) != label
        reach = eps * product * np.linalg.norm(rows[label] - rows[others], axis=1)
        count += bool((own[label] - own[others] > reach).all())
    return count


def decided(subject: Subject, x: FloatArray, labels: IntArray, name: str, sets: Iterator[InputSet]) -> Row:
    """Return the verdicts of samples over sets."""
    row, options = Row(name), Options(time_limit=600.0, max_nodes=4000)
    for sample, label, inputs in zip(x, labels.tolist(), sets, strict=True):
        start = time.process_time()
        result = decide_sample(subject.model, subject.original, sample, label, inputs, options)
        row.take(result, time.process_time() - start)
    return row


def drawn(row: Row, shape: Sequence[int], path: Path) -> None:
    """Draw samples above the pictures that the network errs at or, where there are none, the worst position."""
    fallen = [one for one in row.shown if one.result.verdict is Verdict.FALSIFIED]
    shown = [*fallen, *(one for one in row.shown if not any(one is other for other in fallen))][:DRAWN]
    figure, axes = plt.subplots(2, len(shown), figsize=(1.6 * len(shown), 4.4), squeeze=False)
    for (above, below), one in zip(axes.T, shown, strict=True):
        found = one.result.found if one.result.verdict is Verdict.FALSIFIED else None
        other = one.sample if found is None else found.point.astype(np.float64)
        for place, picture in ((above, one.sample), (below, other)):
            planes = picture.reshape([n for n in shape if n > 1])  # without the axis of rows, and that of one channel
            place.imshow(planes if planes.ndim == 2 else np.moveaxis(planes, 0, -1), cmap="gray", vmin=0, vmax=1)
            place.axis("off")
        if found is None and len(one.result.worst) == 2:
            row_, column = one.result.worst
            below.add_patch(Rectangle((column - 0.5, row_ - 0.5), 3, 3, fill=False, edgecolor="tab:red"))
        below.set_title(one.title, fontsize=7)
    figure.suptitle(f"{row.name}: samples, and below them what falls or the position nearest to it", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def balls_section(data: Path, n: int, out: Path) -> list[str]:
    """Return the verdicts over balls of l2, beside the global certificate and a box."""
    subject = open_subject(data / "vnncomp/mnist_fc/mnist-net_256x2.onnx")
    x, labels = mnist(data, n)
    rows, globally = [], []
    for eps in L2:
        balls = (NormBall.around(one, eps, "l2", valid_lo=0.0, valid_hi=1.0) for one in x)
        rows.append(decided(subject, x, labels, f"l2, eps {eps:g}", iter(balls)))
        globally.append(f"{global_l2(subject.model, x, labels, eps)} at eps {eps:g}")
    boxes = (Box.around(one, LINF, valid_lo=0.0, valid_hi=1.0) for one in x)
    rows.append(decided(subject, x, labels, f"linf, eps {LINF:g}", iter(boxes)))
    return [
        f"## Balls of l2, mnist-net_256x2, first {n} test images, within [0, 1]",
        "",
        *table(rows),
        "",
        f"The global certificate (margins over the product of spectral norms) certifies {' and '.join(globally)}.",
    ]


def perturbed(
    subject: Subject, units: Preprocessing, x: FloatArray, labels: IntArray, text: str, shape: Sequence[int]
) -> Row:
    """Return the verdicts over what a perturbation makes of samples, within [0, 1]."""
    row, changes = Row(text), parse_perturbation(text, option="--perturb")
    model, network = subject.in_data_units(units), subject.network(units)
    options = Options(time_limit=900.0, max_nodes=20_000)
    for sample, label in zip(x, labels.tolist(), strict=True):
        start = time.process_time()
        inputs = Perturbed(Around(sample, tuple(shape), (0.0, 1.0)), changes)
        result = decide_perturbed(model, network, label, inputs, options)
        row.take(result, time.process_time() - start)
        print(text, len(row.seconds), result.verdict.value, f"{row.seconds[-1]:.1f} s", flush=True)
        if result.verdict is not Verdict.CLEAN_WRONG:
            row.shown.append(Shown(sample, label, result))
    return row


def families_section(data: Path, n: int, out: Path) -> list[str]:
    """Return the verdicts under brightness and contrast."""
    subject = open_subject(data / "vnncomp/cifar10_resnet/resnet_2b.onnx")
    with np.load(data / "cifar10_test.npz") as file:
        x = (file["images"][:n].reshape(n, -1) / 255.0).astype(np.float32).astype(np.float64)
        labels = file["labels"][:n].astype(np.int64)
    row = perturbed(subject, CIFAR, x, labels, CHANGES, subject.input_shape)
    drawn(row, subject.input_shape, out / "sets-families.png")
    lines = [f"## Families, resnet_2b, first {n} test images of CIFAR-10, saturating at 0 and 1", "", *table([row])]
    return [*lines, "", "![Samples, and what the network errs at](sets-families.png)"]


def patches_section(data: Path, n: int, out: Path) -> list[str]:
    """Return the verdicts under a patch at every position."""
    subject = open_subject(data / "vnncomp/mnist_fc/mnist-net_256x2.onnx")
    x, labels = mnist(data, n)
    row = perturbed(subject, Preprocessing(), x, labels, PATCH, (28, 28))
    lines = [f"## Patches, mnist-net_256x2, first {n} test images", "", *table([row]), ""]
    drawn(row, (28, 28), out / "sets-patches.png")
    lines += ["A picture has 676 positions; one that is falsified ends with the first.", ""]
    return [*lines, "![Samples, and the worst positions of the patch](sets-patches.png)"]


def mnist(data: Path, n: int) -> tuple[FloatArray, IntArray]:
    """Return test images as float32 numbers in [0, 1], and their classes."""
    with np.load(data / "mnist.npz") as file:
        x = (file["test_images"][:n].reshape(n, -1) / 255.0).astype(np.float32).astype(np.float64)
        return x, file["test_labels"][:n].astype(np.int64)


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("balls", 100), ("families", 20), ("patches", 20)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given, data = parser.parse_args(), Path(os.environ["IDL_AUDIT_DATA"])
    load_torch()  # no sample is to pay for it
    counts = f"--balls {given.balls} --families {given.families} --patches {given.patches}"
    sections = ((balls_section, given.balls), (families_section, given.families), (patches_section, given.patches))
    lines = ["# Balls, families of inputs, patches", "", f"Made by `python -m benchmarks.sets_table {counts}`.", ""]
    lines += [machine(threads=int(os.environ.get("OMP_NUM_THREADS", "1")), packages=PACKAGES), ""]
    for section, n in sections:
        if n:
            lines += [*section(data, n, given.out), ""]
    (given.out / "sets.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
