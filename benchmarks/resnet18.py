"""Write reports/resnet18.md: proved margins of networks of ResNet-18's size beside the least that signed gradients see.

    python -m benchmarks.resnet18 [--only 0,2] [--out DIR]

Each row is a process of its own on one thread, with one image of the data folder (IDL_AUDIT_DATA). Seconds are those of
the processor. ResNet-18 has random weights; its batch norms have random statistics, or those of 32 images.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.convolution_bounds import exported, margin_rows
from benchmarks.measuring import ROOT, machine, peak_megabytes, run_part
from idl_audit.api import load
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.arrays import Float32Array, FloatArray

if TYPE_CHECKING:
    from torch.nn import Module

DATA = Path(os.environ.get("IDL_AUDIT_DATA", ""))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the trained ResNet-20."""
STATISTICS = 32
"""Images that batch norms take their statistics of: the last ones."""
SHAPE = (1, 3, 32, 32)
PACKAGES = ("numpy", "torch")


def images(which: slice) -> Float32Array:
    """Return images of CIFAR-10's test set, (m, 3, 32, 32) in [0, 1]."""
    with np.load(DATA / "cifar10_test.npz") as archive:
        return np.asarray(archive["images"][which], np.float32) / np.float32(255)


def random_statistics() -> Module:
    """Return ResNet-18 whose batch norms are random: it hardly looks at its input."""
    from benchmarks.architectures import resnet18

    return resnet18(64)


def own_statistics() -> Module:
    """Return ResNet-18 as it is before the first training step."""
    import torch

    from benchmarks.architectures import learn_statistics, resnet18

    return learn_statistics(resnet18(64), torch.from_numpy(images(slice(-STATISTICS, None))))


def trained() -> Module:
    """Return the trained ResNet-20 of the data folder, in units of [0, 1]."""
    from benchmarks.architectures import Scaled, load_resnet20

    return Scaled(load_resnet20(str(DATA / "models/resnet20_cifar10.th")), MEAN, STD).eval()


@dataclass(frozen=True)
class Case:
    """A network, an image and a radius."""

    name: str
    make: Callable[[], Module]
    image: int
    eps: float


CASES = (
    Case("ResNet-18, random statistics", random_statistics, 0, 1e-4),
    Case("ResNet-18, its own statistics", own_statistics, 1, 1e-5),
    Case("ResNet-20, trained", trained, 0, 1e-4),
    Case("ResNet-20, trained", trained, 0, 3e-4),
)


def seen(module: Module, lo: FloatArray, hi: FloatArray, rows: FloatArray) -> FloatArray:
    """Return the least margins at the corners that signed gradients at the centre point to."""
    import torch

    least = []
    for row in torch.from_numpy(rows).float():
        u = torch.tensor((lo + hi) / 2, dtype=torch.float32).reshape(SHAPE).requires_grad_()
        (slope,) = torch.autograd.grad(module(u)[0] @ row, u)
        corner = torch.from_numpy(np.where(slope.numpy().ravel() > 0, lo, hi)).float().reshape(SHAPE)
        with torch.no_grad():
            least.append(float(module(corner)[0] @ row))
    return np.array(least)


def measured(case: Case) -> dict[str, Any]:
    """Return what one row says."""
    module = case.make()
    with tempfile.TemporaryDirectory() as folder:
        model = load(exported(module, SHAPE, Path(folder)))
    image = images(slice(case.image, case.image + 1)).ravel().astype(np.float64)
    lo, hi = np.clip(image - case.eps, 0, 1), np.clip(image + case.eps, 0, 1)
    rows = margin_rows(model(image[None])[0])
    corners, inputs = seen(module, lo, hi, rows), Interval(lo[None], hi[None])
    start = time.process_time()
    bounds = backward_state_bounds(model, inputs)
    lower = output_lower_bounds(model, inputs, bounds, rows)[0]
    return {
        "parameters": sum(weights.numel() for weights in module.parameters()),
        "seconds": time.process_time() - start,
        "bending": sum(int(bounds.unstable(k, block).sum()) for k, block in enumerate(model.blocks)),
        "states": n_bendable(model),
        "seen": float(corners.min()),
        "lower": float(lower.min()),
        "megabytes": peak_megabytes(),
    }


def n_bendable(model: ImplicitModel) -> int:
    """Return how many states are ReLUs."""
    return sum(block.size for block in model.blocks if block.op == "Relu")


def table(cases: Sequence[Case], found: Sequence[dict[str, Any]]) -> str:
    """Return the report."""
    lines = [
        "# Networks of half a million states",
        "",
        "Made by `python -m benchmarks.resnet18`: the least margin of one image that is proved over the box of radius "
        "eps around it (in units of [0, 1]), float64, rounded outward, beside the least one at corners that signed "
        "gradients point to. States bend where their bounds are on both sides of 0. Seconds of the processor for all "
        "states and margins; memory of the whole process, torch included.",
        "",
        f"{machine(1, PACKAGES)}.",
        "",
        "| network | parameters | ReLUs | eps | bending | least margin seen | proved | s | MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case, row in zip(cases, found, strict=True):
        if "missing" in row:
            lines.append(f"| {case.name} | | | {case.eps:g} | | | {row['missing']} | | |")
            continue
        figures = f"{row['seen']:.4g} | {row['lower']:.4g} | {row['seconds']:.0f} | {row['megabytes']:.0f}"
        counts = f"{row['parameters']:,} | {row['states']:,} | {case.eps:g} | {row['bending']:,}"
        lines.append(f"| {case.name} | {counts} | {figures} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(map(str, range(len(CASES)))))
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is not None:
        print(json.dumps(measured(CASES[int(given.part)])))
        return
    run = partial(run_part, "benchmarks.resnet18", threads=1)
    numbers = [int(number) for number in given.only.split(",")]
    given.out.mkdir(exist_ok=True)
    text = table([CASES[n] for n in numbers], [run(part=str(n)) for n in numbers])
    (given.out / "resnet18.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
