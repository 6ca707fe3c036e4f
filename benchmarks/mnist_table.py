"""Write reports/mnist.md: bounds and verdicts on MNIST images, of the networks mnist-net_256x4 and mnist-net_256x2.

    IDL_AUDIT_DATA=... python -m benchmarks.mnist_table [--images 100] [--out DIR]

Bounds: the margins of 256x4 against all nine other classes, for all images in one call. The same margins by CROWN of
auto_LiRPA, where that is installed. Verdicts: `certify` with its default methods on 256x2, image by image.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import machine
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.margins import margin_functionals, predictions

ROOT = Path(__file__).resolve().parents[1]
EPS = 0.03
PACKAGES = ("numpy", "scipy", "torch", "onnxruntime")


def images(data: Path, n: int) -> tuple[FloatArray, IntArray]:
    """Return the first n test images in [0, 1], as float32 has them, with their labels."""
    with np.load(data / "mnist.npz") as file:
        pixels, labels = file["test_images"][:n], file["test_labels"][:n]
    return (pixels.reshape(n, -1) / 255).astype(np.float32).astype(np.float64), labels.astype(np.int64)


def boxes(x: FloatArray) -> list[Box]:
    """Return the sets |u - x| <= eps within [0, 1]."""
    return [Box.around(sample, EPS, valid_lo=0.0, valid_hi=1.0) for sample in x]


def our_margins(subject: Subject, x: FloatArray, labels: IntArray) -> FloatArray:
    """Return proved lower bounds of all margins, (n, 9): states and outputs of all images in one call."""
    model, inputs = subject.model, Interval.of_boxes(boxes(x))
    bounds = backward_state_bounds(model, inputs)
    seeds = np.stack([margin_functionals(model.n_outputs, int(label)) for label in labels])
    return lower_bound(model, inputs, bounds, Functionals.of_outputs(model, seeds), line_multipliers(model, bounds))


def peers_margins(subject: Subject, x: FloatArray, labels: IntArray) -> FloatArray:
    """Return auto_LiRPA's CROWN bounds of the same margins, in float32 and not rounded outward."""
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    lo, hi = (
        torch.tensor(np.stack([getattr(box, side) for box in boxes(x)]), dtype=torch.float32) for side in ("lo", "hi")
    )
    centre = torch.tensor(x, dtype=torch.float32)
    model = BoundedModule(chain_of(subject.model), centre)
    wrapped = BoundedTensor(centre, PerturbationLpNorm(norm=np.inf, x_L=lo, x_U=hi))
    rows = torch.tensor(np.stack([margin_functionals(10, int(label)) for label in labels]), dtype=torch.float32)
    lower, _ = model.compute_bounds(x=(wrapped,), C=rows, method="backward")
    return np.asarray(lower.detach().numpy(), np.float64)


def chain_of(model: ImplicitModel) -> Any:
    """Return the torch module of a chain of dense layers with ReLU between them."""
    import torch

    layers: list[torch.nn.Module] = []
    for row in (*model.rows[::-1], model.output):
        weights = row.maps[0].to_sparse().toarray()
        layer = torch.nn.Linear(weights.shape[1], weights.shape[0])
        layer.weight.data = torch.tensor(weights, dtype=torch.float32)
        layer.bias.data = torch.tensor(row.constant, dtype=torch.float32)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def bounds_section(data: Path, n: int) -> list[str]:
    """Return what backward bounds of 256x4 cost, and what they certify."""
    subject = open_subject(data / "vnncomp/mnist_fc/mnist-net_256x4.onnx")
    x, labels = images(data, n)
    right = predictions(subject.original(x.astype(np.float32))) == labels
    times = []
    for _ in range(3):
        start = time.perf_counter()
        found = our_margins(subject, x, labels)
        times.append(time.perf_counter() - start)
    proved = found.min(axis=1) > 0
    lines = [
        f"## Backward linear bounds, mnist-net_256x4, {n} images x 9 margins in one call, eps {EPS:g}",
        "",
        "| what | ms an image | images whose nine margins are all proved positive |",
        "|---|---:|---:|",
        f"| ours: all states and margins, float64, rounded outward | {min(times) / n * 1e3:.1f} | "
        f"{int((proved & right).sum())} of {n} |",
    ]
    start = time.perf_counter()
    try:
        theirs = peers_margins(subject, x, labels)
    except ImportError as error:
        return [*lines, "", f"auto_LiRPA, whose time would stand beside ours, cannot be imported here ({error})."]
    seconds = time.perf_counter() - start
    certified = theirs.min(axis=1) > 0
    count = int((certified & right).sum())
    return [*lines, f"| auto_LiRPA: CROWN, float32, first call | {seconds / n * 1e3:.1f} | {count} of {n} |"]


def verdicts_section(data: Path, n: int) -> list[str]:
    """Return the verdicts of 256x2, with the times."""
    subject = open_subject(data / "vnncomp/mnist_fc/mnist-net_256x2.onnx")
    x, labels = images(data, n)
    counts: Counter[str] = Counter()
    seconds = []
    for sample, label, box in zip(x, labels, boxes(x), strict=True):
        start = time.perf_counter()
        result = decide_sample(subject.model, subject.original, sample, int(label), box, Options())
        seconds.append(time.perf_counter() - start)
        counts[result.verdict.value] += 1
    lines = [f"## Verdicts, mnist-net_256x2, first {n} test images, eps {EPS:g}, default methods", ""]
    lines += ["| verdict | images |", "|---|---:|"]
    lines += [f"| {name} | {counts[name]} |" for name in ("certified", "falsified", "unknown", "clean_wrong")]
    median, p95 = statistics.median(seconds), float(np.percentile(seconds, 95))
    return [*lines, "", f"Seconds an image: median {median:.2f}, p95 {p95:.2f}, greatest {max(seconds):.2f}."]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    data = Path(os.environ["IDL_AUDIT_DATA"])
    lines = [
        "# MNIST: bounds and verdicts",
        "",
        f"Made by `python -m benchmarks.mnist_table --images {given.images}`.",
        "",
        machine(threads=int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1, packages=PACKAGES),
        "",
        *bounds_section(data, given.images),
        "",
        *verdicts_section(data, given.images),
        "",
    ]
    (given.out / "mnist.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
