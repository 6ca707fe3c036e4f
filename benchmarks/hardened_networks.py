"""The networks that benchmarks.harden_table hardens, and the samples that they are hardened, chosen and audited with.

The sample networks are taken as they are shipped; the others are trained here, plainly and for accuracy alone. Those
whose names begin with "new" are of kinds that nothing in `harden` was tuned on.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from torch import nn

from idl_audit.values.arrays import FloatArray, IntArray

SHIPPED: Final = Path("sample_models")
BATCH: Final = 100
RATE: Final = 3e-3
"""The largest step size of Adam."""
ENOUGH: Final = 10_000
"""Training images of MNIST that the new networks have."""

Labelled = tuple[FloatArray, IntArray]


@dataclass(frozen=True)
class Data:
    """Samples in [0, 1]: (inputs (n, p), labels (n,)) to train on, to choose by, and to audit."""

    train: Labelled
    holdout: Labelled
    audit: Labelled


@dataclass(frozen=True)
class Case:
    """A network, and what is asked of its hardening."""

    name: str
    data: str
    """One of DATA."""
    layers: str
    shape: tuple[int, ...]
    """Of one sample."""
    asked: float | None = None
    """The share of the audited samples that should be certified after; None: three times as many, or 90 % of clean."""
    minutes: float = 1.0
    keep: str = "0.5%"
    eps: str = "0.1"
    build: Callable[[], nn.Module] | None = None
    """The network to train; None where it is shipped."""
    steps: int = 1000
    """Of its training."""


def dense(*widths: int, bend: Callable[[], nn.Module] = nn.ReLU) -> Callable[[], nn.Module]:
    """Return the maker of linear layers with activations between them."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for one, other in pairwise(widths):
            layers += [nn.Linear(one, other), bend()]
        return nn.Sequential(*layers[:-1])

    return build


def mnist_conv() -> nn.Module:
    """Return the small network of Wong and Kolter (2018)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


def strided() -> nn.Module:
    """Return a convolution with steps of two, and a linear layer."""
    return nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


def leaky() -> nn.Module:
    """Return two convolutions with leaky activations, and two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 1, 1), nn.LeakyReLU(0.1), nn.Conv2d(8, 16, 3, 2, 1), nn.LeakyReLU(0.1)),
        *(nn.Flatten(), nn.Linear(256, 32), nn.LeakyReLU(0.1), nn.Linear(32, 10)),
    )


def coarse() -> nn.Module:
    """Return one convolution of large windows, pooled, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, 2, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12 * 36, 32), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip


FLAT, SQUARE, LARGE = (64,), (1, 8, 8), (1, 28, 28)
NEW: Final[dict[str, Any]] = {"minutes": 0.25, "keep": "1%"}
CASES: Final = (
    Case("digits_mlp", "digits", "as shipped", FLAT, 0.8),
    Case("digits_conv", "digits", "as shipped", SQUARE, 0.8),
    Case("digits_resnet", "digits", "as shipped", SQUARE, 0.75),
    Case("digits_plain", "digits", "64-48-32-10", FLAT, 0.86, build=dense(64, 48, 32, 10)),
    Case("mnist_mlp", "mnist", "784-128-64-10", (784,), 0.91, 5, "1%", build=dense(784, 128, 64, 10), steps=3000),
    Case("mnist_conv", "mnist", "conv 16, conv 32, 100, 10", LARGE, 0.95, 30, "1%", build=mnist_conv, steps=1000),
    Case("mnist_conv_3", "mnist", "the same", LARGE, 0.85, 30, "3%", "0.3", mnist_conv, 1000),
    Case("new_wide", "digits", "64-100-10", FLAT, **NEW, build=dense(64, 100, 10)),
    Case("new_deep", "digits", "64-32-32-32-32-10", FLAT, **NEW, build=dense(64, 32, 32, 32, 32, 10)),
    Case("new_tanh", "digits", "64-50-30-10, tanh", FLAT, **NEW, build=dense(64, 50, 30, 10, bend=nn.Tanh)),
    Case("new_strided", "digits", "conv 16, linear", SQUARE, **NEW, build=strided),
    Case("new_leaky", "digits", "conv 8, conv 16, 32, 10, leaky", SQUARE, **NEW, build=leaky),
    Case("new_cancer", "cancer", "30-32-16-2", (30,), **NEW, build=dense(30, 32, 16, 2), steps=300),
    Case("new_wine", "wine", "13-24-3", (13,), **NEW, build=dense(13, 24, 3), steps=300),
    Case("new_sigmoid", "few", "784-50-10, sigmoid", (784,), **NEW, build=dense(784, 50, 10, bend=nn.Sigmoid)),
    Case("new_mnist", "few", "784-64-64-64-10", (784,), **NEW, build=dense(784, 64, 64, 64, 10)),
    Case("new_coarse", "few", "conv 12, average-pool, 32, 10", LARGE, **NEW, build=coarse),
)


def sample_script() -> Any:
    """Return the module that trained the sample networks."""
    place = SHIPPED / "train.py"
    spec = importlib.util.spec_from_file_location("sample_models_train", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _digits() -> Data:
    """Return the images that the sample networks were trained on, and two halves of those held out."""
    found = sample_script().load_split()
    held, labels = found.images.numpy(), found.labels.numpy()
    half = len(held) // 2
    train = (found.train_images.numpy(), found.train_labels.numpy())
    return Data(train, (held[:half], labels[:half]), (held[half:], labels[half:]))


def _mnist(n: int) -> Data:
    """Return the first n training images of MNIST, 2,000 of the others, and those to test by."""
    with np.load(Path(os.environ["IDL_AUDIT_DATA"]) / "mnist.npz") as file:
        arrays = dict(file)

    def part(kind: str, places: slice) -> Labelled:
        images = arrays[f"{kind}_images"][places].reshape(-1, 784).astype(np.float32) / np.float32(255)
        return images, arrays[f"{kind}_labels"][places].astype(np.int64)

    return Data(part("train", slice(0, n)), part("train", slice(50_000, 52_000)), part("test", slice(0, 10_000)))


def _table(read: Callable[..., Any]) -> Data:
    """Return a table of scikit-learn, every column scaled to [0, 1]: 60, 20 and 20 % of its rows."""
    x, y = read(return_X_y=True)
    least, most = x.min(0), x.max(0)
    scaled = np.clip((x - least) / (most - least), 0, 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    parts = np.split(order, [len(x) * 6 // 10, len(x) * 8 // 10])
    return Data(*((scaled[part], y[part].astype(np.int64)) for part in parts))


DATA: Final[dict[str, Callable[[], Data]]] = {
    "digits": _digits,
    "mnist": lambda: _mnist(50_000),
    "few": lambda: _mnist(ENOUGH),
    "cancer": lambda: _table(load_breast_cancer),
    "wine": lambda: _table(load_wine),
}


def network(case: Case, data: Data, folder: Path) -> Path:
    """Return the file of a network: the one that is shipped, or one that is trained for accuracy alone."""
    if case.build is None:
        return SHIPPED / f"{case.name}.onnx"
    torch.manual_seed(0)
    model = case.build()
    x, y = (torch.from_numpy(part) for part in data.train)
    x = x.reshape(-1, *case.shape)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=case.steps)
    for _ in range(case.steps):
        places = torch.randint(len(x), (BATCH,))
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x[places]), y[places]))
        optimizer.step()
        schedule.step()
    path = folder / f"{case.name}.onnx"
    sample_script().export(model.eval(), torch.zeros(2, *case.shape), path)
    return path
