"""What benchmarks.train_table compares implicit models with, on data whose source is known (paper 7.2.1), and GTSRB.

The paper leaves sizes and data to a supplement; here a source is either a network of layers 5-10-10-2 or an implicit
model of 20 states, all weights normal, and its two classes are halved at the median. Both learners have 20 hidden
numbers, see 100 samples for 100 epochs, and are judged by 20 others, as in the paper, and by 2,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor

from idl_audit.training.descent import descend
from idl_audit.training.implicit import Form, ImplicitNet
from idl_audit.training.recipe import Examples, Recipe
from idl_audit.training.schedule import Step
from idl_audit.values.arrays import AnyArray, FloatArray

INPUTS, STATES, LEARNT, FEW, MANY, VALIDATED = 5, 20, 100, 20, 2000, 300
EPOCHS, BATCH = 100, 20
SHOWN: Final = (1, 5, 20, 50, 100)
"""Epochs of the curves."""
RATES: Final = (3e-3, 1e-2, 3e-2)
"""Step sizes that both learners are tried with; others than those that they are judged by choose."""

Curve = list[tuple[float, float, float]]
"""Epoch by epoch: the shares right of the few, of the many, and of those that choose the step size."""


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs and classes; first those learnt from, then the few, the many, and those that choose."""

    u: Tensor
    y: Tensor

    def part(self, start: int, n: int) -> tuple[Tensor, Tensor]:
        """Return n samples."""
        return self.u[start : start + n], self.y[start : start + n]

    @property
    def learnt(self) -> tuple[Tensor, Tensor]:
        """What is learnt from."""
        return self.part(0, LEARNT)

    def right(self, outputs: Callable[[Tensor], Tensor]) -> tuple[float, float, float]:
        """Return the shares that a model gets right."""
        with torch.no_grad():
            guessed = outputs(self.u).argmax(1) == self.y
        starts = (LEARNT, LEARNT + FEW, LEARNT + FEW + MANY, LEARNT + FEW + MANY + VALIDATED)
        few, many, validated = (float(guessed[a:b].double().mean()) for a, b in pairwise(starts))
        return few, many, validated


def source(kind: str, seed: int) -> Data:
    """Return samples of a random network, or of a random implicit model with ||A||_inf = .9."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((LEARNT + FEW + MANY + VALIDATED, INPUTS))
    if kind == "network":
        x = u
        for wide, narrow in pairwise((INPUTS, 10, 10)):
            x = np.maximum(x @ rng.standard_normal((wide, narrow)) + rng.standard_normal(narrow), 0)
    else:
        A, B = rng.standard_normal((STATES, STATES)), rng.standard_normal((STATES, INPUTS))
        A *= 0.9 / np.abs(A).sum(axis=1, keepdims=True)
        x = np.zeros((len(u), STATES))
        for _ in range(300):
            x = np.maximum(x @ A.T + u @ B.T, 0)
    score = x @ rng.standard_normal(x.shape[1])
    return Data(torch.from_numpy(u).float(), torch.from_numpy((score > np.median(score)).astype(np.int64)))


def implicit_curve(data: Data, rate: float, seed: int) -> Curve:
    """Return how an implicit model of 20 states learns by projected gradients."""
    u, y = data.learnt
    net = ImplicitNet.random(Form(STATES, INPUTS, 2, 0.95), u, torch.Generator().manual_seed(seed))
    curve: Curve = []

    def heard(step: Step) -> None:
        if step.step % (LEARNT // BATCH) == 0:
            curve.append(data.right(net))

    recipe = Recipe("cross-entropy", rate=rate, batch=BATCH, seed=seed)
    descend(net, Examples(u, y), recipe, EPOCHS * LEARNT // BATCH, heard=heard)
    return curve


def network_curve(data: Data, rate: float, seed: int) -> Curve:
    """Return how a network of layers 5-10-10-2 learns by Adam, with the same falling steps."""
    u, y = data.learnt
    chance = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    linear = torch.nn.Linear
    net = torch.nn.Sequential(linear(INPUTS, 10), torch.nn.ReLU(), linear(10, 10), torch.nn.ReLU(), linear(10, 2))
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * LEARNT // BATCH)
    curve: Curve = []
    for _ in range(EPOCHS):
        order = torch.randperm(LEARNT, generator=chance)
        for start in range(0, LEARNT, BATCH):
            places = order[start : start + BATCH]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(u[places]), y[places]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        curve.append(data.right(net))
    return curve


def chosen(learn: Callable[[Data, float, int], Curve], data: Data, seed: int) -> Curve:
    """Return the curve of the step size that ends best on samples of its own."""
    return max((learn(data, rate, seed) for rate in RATES), key=lambda curve: curve[-1][2])


def synthetic_rows(seeds: int) -> Iterator[str]:
    """Yield, for each source and learner, the curve of mean and deviation over seeds, and the best on the few."""
    for kind in ("network", "implicit model"):
        for name, learn in (("implicit", implicit_curve), ("network", network_curve)):
            curves = np.array([chosen(learn, source(kind, seed), seed) for seed in range(seeds)])
            at = [curves[:, epoch - 1, 1] for epoch in SHOWN]
            best = curves[:, :, 0].max(axis=1)
            shown = " | ".join(f"{100 * one.mean():.1f} ± {100 * one.std():.1f}" for one in at)
            yield f"| {kind} | {name} | {shown} | {100 * best.mean():.1f} ± {100 * best.std():.1f} |"


SYNTHETIC_HEAD = (
    "| source | learner | "
    + " | ".join(f"epoch {epoch}" for epoch in SHOWN)
    + " | best on 20 samples |\n|---|---|"
    + "---:|" * (len(SHOWN) + 1)
)


def grey(images: AnyArray) -> FloatArray:
    """Return images (n, 3, 32, 32) of bytes as 1,024 grey numbers, each image with mean 0 and deviation 1."""
    flat = np.tensordot(images.astype(np.float32), np.array([0.299, 0.587, 0.114], np.float32), axes=([1], [0]))
    flat = flat.reshape(len(flat), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(flat.std(axis=1, keepdims=True), 5.0))


def local_contrast(images: AnyArray) -> FloatArray:
    """Return grey images, (n, 1, 32, 32), each pixel less the mean of the 9 x 9 around it, in units of what is left.

    Signs are photographed by day and by night: what a pixel says is how much brighter it is than its neighbours.
    """
    around = (1, 1, 9, 9)
    plain = grey(images).reshape(-1, 1, 32, 32)
    left = plain - uniform_filter(plain, around, mode="mirror")
    spread = np.sqrt(np.maximum(uniform_filter(left * left, around, mode="mirror"), 0))
    return np.asarray(left / np.maximum(spread, 0.25), np.float32)
