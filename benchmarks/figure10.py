"""Redraw the paper's figure 10 on a small convolutional network for CIFAR-10: images, and what the LP makes of them.

    IDL_AUDIT_DATA=... python -m benchmarks.figure10 [--out DIR]

The network is oval21's base network (two convolutions, 3,172 states; the data folder has it, and the test images that
it reads). The paper maximises |x - x0|^2 over the relaxation, which attacks nothing (docs/mathematics.md, section 7.9):
here the LP's minimiser of a margin is put into the box and shown to the network (method lp). Every image in the lower
row misleads the network; the paper does not say how far its images moved.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import ROOT
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.report.pictures.canvas import new_figure, write_png
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.files import write_whole
from idl_audit.values.verdicts import Verdict

NETWORK = Path("vnncomp/oval21/cifar_base_kw.onnx")
READING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.225, 0.225, 0.225), bounds=(0.0, 1.0))
EPS, IMAGES, TRIED, SECONDS = 4 / 255, 5, 60, 30.0
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def attacked(
    subject: Subject, images: FloatArray, labels: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray, int, int]]:
    """Yield (image, attacked image, its class, what the network takes it for) where the LP finds an attack."""
    model, network = subject.in_data_units(READING), subject.network(READING)
    chosen = Options(methods=("lp",), time_limit=SECONDS)
    for image, label in zip(images, labels.astype(int), strict=True):
        x = image.reshape(-1)
        if int(network(x[None].astype(np.float32)).argmax()) != label:
            continue
        result = decide_sample(model, network, x, label, Box.around(x, EPS, valid_lo=0.0, valid_hi=1.0), chosen)
        if result.verdict is Verdict.FALSIFIED and result.found is not None:
            yield image, result.found.point.astype(np.float64).reshape(image.shape), label, result.found.predicted


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    options = parser.parse_args()
    if "IDL_AUDIT_DATA" not in os.environ:
        parser.error("needs the data folder: set IDL_AUDIT_DATA")
    data = Path(os.environ["IDL_AUDIT_DATA"])
    with np.load(data / "cifar10_test.npz") as file:
        images, labels = file["images"][:TRIED] / 255.0, file["labels"][:TRIED]
    figure = new_figure(8.0, 3.6, dpi=90)
    grid = figure.subplots(2, IMAGES, squeeze=False)
    found = attacked(open_subject(data / NETWORK), images, labels)
    for column, (clean, moved, label, wrong) in zip(range(IMAGES), found, strict=False):
        for row, (image, name) in enumerate(((clean, NAMES[label]), (moved, f"taken for {NAMES[wrong]}"))):
            axes = grid[row][column]
            axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(name, fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
    figure.suptitle("Figure 10 on a small CIFAR-10 network: the LP's attacks, by at most 4/255", fontsize=10)
    write_whole(options.out / "figure10.png", lambda stream: write_png(figure, stream))


if __name__ == "__main__":
    main()
