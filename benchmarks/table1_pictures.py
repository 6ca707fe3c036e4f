"""Redraw the paper's figures 9 to 11 on our networks into reports/: clean, attacked, and changed pixels in red.

    IDL_AUDIT_DATA=... python -m benchmarks.table1_pictures [--out DIR]

Every attacked image that is drawn misleads the network. The LP of figure 10 is out of reach for a ResNet-20 (188,416
states), so the LP's attacks are drawn on MNIST here, and on a small CIFAR-10 network by `benchmarks.figure10`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import idl_audit
from benchmarks.measuring import ROOT
from benchmarks.table1 import SUBJECTS, Subject
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.report.pictures.canvas import new_figure, write_png
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, InputSet, SparseBall
from idl_audit.values.files import write_whole


@dataclass(frozen=True)
class Example:
    """A row of a figure."""

    what: str
    clean: FloatArray
    attacked: FloatArray
    """Both (channels, height, width)."""
    classes: tuple[int, int]


def by_sensitivity(subject: Subject, model: ImplicitModel, share: float, n: int, what: str) -> Iterator[Example]:
    """Yield images whose inputs of the largest S were replaced by random values."""
    S = torch.from_numpy(sensitivity_matrix(model, "paper"))
    generator = torch.Generator().manual_seed(0)
    count = max(1, round(share * subject.n_inputs))
    for image, label in zip(subject.images[:500], subject.labels[:500].tolist(), strict=True):
        if _predicted(subject, image) != label:
            continue
        changed = image.flatten().clone()
        changed[torch.argsort(-S[label], stable=True)[:count]] = torch.rand(count, generator=generator)
        wrong = _predicted(subject, changed.view_as(image))
        if wrong != label:
            yield Example(what, image.double().numpy(), changed.view_as(image).double().numpy(), (label, wrong))
            n -= 1
        if not n:
            return


def by_method(
    subject: Subject, model: ImplicitModel, method: str, eps: float, k: int | None, n: int, what: str
) -> Iterator[Example]:
    """Yield images that one of idl-audit's own attacks found, dense or with at most k changed inputs."""

    def network(points: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> FloatArray:
        with torch.inference_mode():
            return subject.network(torch.from_numpy(points).view(-1, *subject.images.shape[1:])).double().numpy()

    for image, label in zip(subject.images[:60], subject.labels[:60].tolist(), strict=True):
        x = image.flatten().double().numpy()
        inputs: InputSet = Box.around(x, eps, valid_lo=0.0, valid_hi=1.0)
        if k is not None:
            inputs = SparseBall.around(x, eps, k, valid_lo=0.0, valid_hi=1.0)
        result = decide_sample(model, network, x, label, inputs, Options(methods=(method,), time_limit=20.0))
        if result.verdict.value == "falsified" and result.found is not None:
            attacked = result.found.point.astype(np.float64).reshape(image.shape)
            yield Example(what, image.double().numpy(), attacked, (label, result.found.predicted))
            n -= 1
        if not n:
            return


def _predicted(subject: Subject, image: Tensor) -> int:
    with torch.inference_mode():
        return int(subject.network(image[None]).argmax())


def draw(path: Path, examples: Sequence[Example], title: str) -> None:
    """Write one row for each example: clean, attacked, and attacked with the changed pixels in red."""
    figure = new_figure(6.4, 2.1 * len(examples) + 0.4, dpi=90)
    grid = figure.subplots(len(examples), 3, squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        clean, attacked = (_rgb(image) for image in (example.clean, example.attacked))
        moved = np.abs(example.attacked - example.clean).max(axis=0) > 0
        marked = attacked.copy()
        marked[moved] = (0.9, 0.0, 0.0)
        for axes, image in zip(row, (clean, attacked, marked), strict=True):
            axes.imshow(image, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_title(f"class {example.classes[0]}", fontsize=8)
        row[1].set_title(f"taken for {example.classes[1]}: {example.what}", fontsize=8)
        row[2].set_title(f"{int(moved.sum())} of {moved.size} pixels changed", fontsize=8)
    figure.suptitle(title, fontsize=10)
    write_whole(path, lambda stream: write_png(figure, stream))


def _rgb(image: FloatArray) -> FloatArray:
    return np.repeat(image, 3, axis=0).transpose(1, 2, 0) if len(image) == 1 else image.transpose(1, 2, 0)


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    options = parser.parse_args()
    if "IDL_AUDIT_DATA" not in os.environ:
        parser.error("needs the data folder: set IDL_AUDIT_DATA")
    data = Path(os.environ["IDL_AUDIT_DATA"])
    found = {name: make(data) for name, make in SUBJECTS.items()}
    models = {
        name: idl_audit.from_torch(one.network, torch.zeros(1, *one.images.shape[1:])) for name, one in found.items()
    }
    mnist, cifar = (found["mnist"], models["mnist"]), (found["cifar"], models["cifar"])
    nine = [
        *by_method(*mnist, "pgd", 0.1, None, 2, "dense, eps 0.1"),
        *by_sensitivity(*mnist, 0.05, 2, "sparse, 5 % by S"),
        *by_sensitivity(*cifar, 0.01, 3, "sparse, 1 % by S"),
    ]
    draw(options.out / "table1-figure9.png", nine, "Figure 9 on our networks: dense and sparse attacks")
    eleven = [
        *by_method(*mnist, "lp", 0.1, None, 2, "LP, eps 0.1"),
        *by_method(*mnist, "lp", 1.0, 20, 2, "LP, 20 inputs"),
    ]
    draw(options.out / "table1-figure11.png", eleven, "Figures 10 and 11 on our MNIST network: the LP's attacks")


if __name__ == "__main__":
    main()
