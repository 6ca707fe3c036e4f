"""Write reports/convolutions.md: backward linear bounds of convolutional networks beside auto_LiRPA's CROWN.

    python -m benchmarks.convolution_bounds [--rounds 5] [--out DIR]

The networks have random weights and are made here: four convolutions of 3 x 3 on 3 x 32 x 32 inputs and a dense layer.
Each row is a process of its own on one thread; both contestants take turns in it, and the least time of each is told.
auto_LiRPA need not be installed; its columns are empty then. Its bounds are not rounded outward, ours are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring import ROOT, least_seconds, machine, peak_megabytes, run_part
from idl_audit.api import load
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    from torch.nn import Module

NETWORKS = ((8, 0.01), (16, 0.01), (32, 1e-4))
"""Channels and the radius of the box."""
SIDE = 32
CLASSES = 10
PACKAGES = ("numpy", "torch")


def network(channels: int) -> Module:
    """Return four convolutions, two of them of stride 2, and a dense layer; random weights."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[Module] = []
    before = 3
    for stride in (1, 2, 1, 2):
        layers += [nn.Conv2d(before, channels, 3, stride=stride, padding=1), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (SIDE // 4) ** 2, CLASSES)).eval()


def exported(module: Module, folder: Path) -> Path:
    """Return the ONNX file of a module."""
    import torch

    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1, 3, SIDE, SIDE),), str(path), dynamo=False, opset_version=13)
    return path


def box_around(eps: float) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the box around a random image, (p,)."""
    image = np.random.default_rng(1).random(3 * SIDE * SIDE)
    return np.clip(image - eps, 0, 1), np.clip(image + eps, 0, 1)


def margin_rows(scores: FloatArray) -> FloatArray:
    """Return the winner's margins over the other classes, as rows over the outputs."""
    best = int(np.argmax(scores))
    rows = -np.eye(CLASSES)
    rows[:, best] += 1
    return np.delete(rows, best, axis=0)


def peer(module: Module, lo: FloatArray, hi: FloatArray, rows: FloatArray, precision: str) -> Callable[[], FloatArray]:
    """Return what computes auto_LiRPA's CROWN bounds of the margins."""
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    kind = getattr(torch, precision)
    ends = [torch.tensor(side.reshape(1, 3, SIDE, SIDE), dtype=kind) for side in (lo, hi)]
    bounded = BoundedModule(module.to(kind), torch.zeros_like(ends[0]))
    inputs = BoundedTensor((ends[0] + ends[1]) / 2, PerturbationLpNorm(x_L=ends[0], x_U=ends[1]))
    specification = torch.tensor(rows[None], dtype=kind)

    def run() -> FloatArray:
        with torch.no_grad():
            lower, _ = bounded.compute_bounds(x=(inputs,), C=specification, method="backward", bound_upper=False)
        return np.asarray(lower.numpy()[0], np.float64)

    return run


def measured(channels: int, eps: float, rounds: int) -> dict[str, Any]:
    """Return seconds, memory and how far the bounds are apart, for one network."""
    with tempfile.TemporaryDirectory() as folder:
        model = load(exported(network(channels), Path(folder)))
    lo, hi = box_around(eps)
    rows, inputs = margin_rows(model((lo + hi)[None] / 2)[0]), Interval(lo[None], hi[None])

    def ours() -> FloatArray:
        return output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), rows)[0]

    before = peak_megabytes()
    found: dict[str, Any] = {"channels": channels, "eps": eps, "lower": float(ours().min())}
    found["megabytes"] = peak_megabytes() - before
    contestants: dict[str, Callable[[], FloatArray]] = {"ours": ours}
    try:
        for precision in ("float64", "float32"):
            contestants[precision] = peer(network(channels), lo, hi, rows, precision)
    except ImportError as error:
        found["missing"] = str(error)
    else:
        import auto_LiRPA

        theirs = contestants["float64"]()
        found["version"] = auto_LiRPA.__version__
        found["apart"] = float((np.abs(ours() - theirs) / np.maximum(np.abs(theirs), 1e-3)).max())
    return {**found, "seconds": least_seconds(contestants, rounds=rounds)}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the report."""
    lines = [
        "# Convolutions",
        "",
        "Made by `python -m benchmarks.convolution_bounds`. Backward linear bounds of all states and margins of one "
        "box, float64, rounded outward, beside auto_LiRPA's CROWN (patches, not rounded outward) in the same process; "
        "networks with random weights. Ratio: ours over auto_LiRPA's float64. Apart: the greatest relative difference "
        "of the margins' bounds.",
        "",
        f"{machine(1, PACKAGES)}, auto_LiRPA {found[0].get('version', 'not at hand')}.",
        "",
        "| channels | eps | least margin | ours s | auto_LiRPA float64 s | float32 s | ratio | apart | our memory MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        seconds = row["seconds"]
        theirs = [f"{seconds[p]:.3f}" if p in seconds else "-" for p in ("float64", "float32")]
        ratio = f"{seconds['ours'] / seconds['float64']:.2f}" if "float64" in seconds else "-"
        apart = f"{row['apart']:.0e}" if "apart" in row else "-"
        cells = (row["channels"], f"{row['eps']:g}", f"{row['lower']:.4f}", f"{seconds['ours']:.3f}", *theirs, ratio)
        lines.append("| " + " | ".join(map(str, (*cells, apart, f"{row['megabytes']:.0f}"))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every network in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is not None:
        channels, eps = NETWORKS[int(given.part)]
        print(json.dumps(measured(channels, eps, given.rounds)))
        return
    run = partial(run_part, "benchmarks.convolution_bounds", threads=1, more=("--rounds", str(given.rounds)))
    given.out.mkdir(exist_ok=True)
    text = table([run(part=str(number)) for number in range(len(NETWORKS))])
    (given.out / "convolutions.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
