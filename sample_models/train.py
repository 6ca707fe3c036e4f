"""Train the sample networks on scikit-learn's 8x8 digits and export them as a user of PyTorch does today.

Writes NAME.onnx (+ NAME.onnx.data), NAME.npz (the held-out images) and README.md. Every seed is fixed, one thread is
used and nothing of the machine is recorded, so that a second run writes the same bytes.

    python sample_models/train.py [--out DIR]
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
HELD_OUT = 400
BATCH = 64
WEIGHT_DECAY = 1e-3
AUDIT_EPSILONS = (0.02, 0.05)
PGD_STEPS = 20
FLOOR = 0.96


# --- the networks ----------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))


def conv() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


def resnet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(BasicBlock(8, 8, stride=1), BasicBlock(8, 16, stride=2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )


@dataclass(frozen=True)
class Recipe:
    """One sample network: how it is built, what its inputs look like, and how it is trained.

    `epsilon` is the radius of the training attack. The convolutional networks get 0.1: trained at 0.05 they resist
    attacks at 0.05, but linear bounds of that radius certify few of their images.
    """

    name: str
    layers: str
    build: Callable[[], nn.Module]
    image_shape: tuple[int, ...]
    epochs: int
    epsilon: float


RECIPES = (
    Recipe("digits_mlp", "64-48-32-10, ReLU", mlp, (64,), 80, 0.05),
    Recipe(
        "digits_conv",
        "conv 8, batch-norm, ReLU, max-pool 2; conv 16, batch-norm, ReLU, average-pool 2; linear",
        conv,
        (1, 8, 8),
        50,
        0.1,
    ),
    Recipe(
        "digits_resnet",
        "conv 8 (stride 2), batch-norm, ReLU; basic block 8; basic block 16 (stride 2, 1x1 shortcut); "
        "global average pool; linear",
        resnet,
        (1, 8, 8),
        60,
        0.1,
    ),
)


# --- data, attacks, training -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """The fixed split; images are rows of 64 numbers in [0, 1], every one a multiple of 1/16."""

    train_images: Tensor
    train_labels: Tensor
    images: Tensor
    labels: Tensor


def load_split() -> Digits:
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32)
    split = train_test_split(images, labels.astype(np.int64), test_size=HELD_OUT, random_state=SEED, stratify=labels)
    train_images, images, train_labels, labels = (torch.from_numpy(part) for part in split)
    return Digits(train_images, train_labels, images, labels)


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(images), labels), images)
    return gradient


def attack(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int, seed: int) -> Tensor:
    """Projected signed gradients from a random start, inside [0, 1]; with one step this is FGSM (RS-FGSM)."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    step = 1.25 * epsilon if steps == 1 else 2.5 * epsilon / steps
    found = low + (high - low) * torch.rand(images.shape, generator=generator)
    for _ in range(steps):
        found = found + step * loss_gradient(model, found, labels).sign()
        found = torch.minimum(torch.maximum(found, low), high)
    return found.detach()


def robust_accuracy(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> float:
    """The share of images that are classified correctly before *and* after the attack."""
    found = attack(model, images, labels, epsilon, PGD_STEPS, SEED)
    with torch.no_grad():
        kept = (model(images).argmax(1) == labels) & (model(found).argmax(1) == labels)
    return float(kept.double().mean())


def train(recipe: Recipe, images: Tensor, labels: Tensor) -> nn.Module:
    """Cross-entropy; the first half of every batch is replaced by FGSM images of the network as it stands."""
    torch.manual_seed(SEED)
    model = recipe.build()
    steps_per_epoch = len(images) // BATCH
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=recipe.epochs * steps_per_epoch)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images))[: steps_per_epoch * BATCH].reshape(-1, BATCH)
        for number, rows in enumerate(order):
            batch, target = images[rows], labels[rows]
            half = BATCH // 2
            model.eval()
            seed = epoch * steps_per_epoch + number
            batch[:half] = attack(model, batch[:half], target[:half], recipe.epsilon, 1, seed)
            model.train()
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(batch), target))
            optimizer.step()
            schedule.step()
    return model.eval()


# --- export and check ------------------------------------------------------------------------------------------------


def export(model: nn.Module, example: Tensor, path: Path) -> None:
    """What `torch.onnx.export(model, (example,), path)` writes, less the stack traces with this machine's paths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about itself
        program = torch.onnx.export(model, (example,), dynamic_shapes=({0: "batch"},), verbose=False)
    assert program is not None
    graph = program.model.graph
    for part in (program.model, graph, *graph, *graph.inputs, *graph.outputs, *graph.initializers.values()):
        part.metadata_props.clear()
        part.doc_string = None
    for node in graph:
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None
    program.save(path, external_data=True)


def onnx_accuracy(path: Path, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy by onnxruntime, all images in one batch and one by one."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batch = session.run(None, {name: inputs})[0]
    single = np.concatenate([session.run(None, {name: inputs[i : i + 1]})[0] for i in range(len(inputs))])
    np.testing.assert_allclose(batch, single, rtol=1e-4, atol=1e-5)
    return float(np.mean(batch.argmax(1) == labels)), float(np.mean(single.argmax(1) == labels))


def describe_graph(path: Path) -> str:
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(str(path), full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    return f"opset {model.opset_import[0].version}: " + ", ".join(f"{op} {n}" for op, n in sorted(operators.items()))


@dataclass(frozen=True)
class Outcome:
    """The line of one network in the table."""

    recipe: Recipe
    parameters: int
    accuracy: float
    robust: tuple[float, ...]
    graph: str


def make(recipe: Recipe, digits: Digits, out: Path) -> Outcome:
    """Train, export, save the held-out images, check the files as their reader sees them."""
    start = time.perf_counter()
    shape = (-1, *recipe.image_shape)
    model = train(recipe, digits.train_images.reshape(shape), digits.train_labels)
    images, path = digits.images.reshape(shape), out / f"{recipe.name}.onnx"
    export(model, images[:2], path)
    np.savez_compressed(path.with_suffix(".npz"), inputs=images.numpy(), labels=digits.labels.numpy())
    with np.load(path.with_suffix(".npz")) as saved:
        batch, single = onnx_accuracy(path, saved["inputs"], saved["labels"])
    robust = tuple(robust_accuracy(model, images, digits.labels, epsilon) for epsilon in AUDIT_EPSILONS)
    outcome = Outcome(recipe, sum(p.numel() for p in model.parameters()), batch, robust, describe_graph(path))
    print(f"{recipe.name}: {outcome.parameters} parameters, {time.perf_counter() - start:.1f} s")
    print(f"  held-out accuracy by onnxruntime: {batch:.2%} in one batch, {single:.2%} one by one")
    print(*(f"  under PGD at {e}: {share:.2%}" for e, share in zip(AUDIT_EPSILONS, robust, strict=True)), sep="\n")
    print(f"  {outcome.graph}", flush=True)
    if min(batch, single) < FLOOR:
        raise SystemExit(f"{recipe.name}: held-out accuracy is below {FLOOR:.0%}")
    return outcome


README = """\
# Sample networks

Three small networks on scikit-learn's 8x8 digits (inputs: pixel / 16, in [0, 1]), exported with the defaults of
`torch.onnx.export` and a symbolic batch axis. Beside each `NAME.onnx` lie its weights in `NAME.onnx.data` (tensors
under 256 bytes stay inside) and {held_out} held-out images in `NAME.npz` (`inputs`, `labels`); the other {trained}
were trained on. This file is written by the script:

    python sample_models/train.py

(under a minute on one core; `pip install -e .[test]` brings what it needs).

| name | layers | parameters | held-out accuracy | {attack_titles} |
|---|---|---:|---:|{attack_rules}
{rows}

Accuracy is onnxruntime's. PGD: {steps} signed steps from one random start in the box of that radius within [0, 1]; the
share of images that stay correct is an upper estimate of robust accuracy, not a certificate.

Operators (the exporter folds batch-norm into the convolutions):

{graphs}

`digits_mondeq.npz` is an equilibrium network (monDEQ) of 90 states on the same images, A, B, C, b, d as a user writes
them; `train_equilibrium.py` trains it, and the held-out images are those of `digits_mlp.npz`.

Seeds are fixed and one thread is used: the same machine and packages give the same bytes (written with torch {torch},
onnx {onnx}, scikit-learn {sklearn}). Stack traces and other metadata that name files of the exporting machine
were removed; nothing else was changed.
"""


def write_readme(outcomes: list[Outcome], digits: Digits, path: Path) -> None:
    rows = [
        f"| `{o.recipe.name}` | {o.recipe.layers} | {o.parameters:,} | {o.accuracy:.2%} | "
        + " | ".join(f"{share:.2%}" for share in o.robust)
        + " |"
        for o in outcomes
    ]
    text = README.format(
        held_out=len(digits.images),
        trained=f"{len(digits.train_images):,}",
        attack_titles=" | ".join(f"under PGD, {epsilon}" for epsilon in AUDIT_EPSILONS),
        attack_rules="---:|" * len(AUDIT_EPSILONS),
        rows="\n".join(rows),
        steps=PGD_STEPS,
        graphs="\n".join(f"- `{o.recipe.name}`: {o.graph}" for o in outcomes),
        torch=torch.__version__,
        onnx=onnx.__version__,
        sklearn=sklearn.__version__,
    )
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the sample networks.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    start, digits = time.perf_counter(), load_split()
    outcomes = [make(recipe, digits, out) for recipe in RECIPES]
    write_readme(outcomes, digits, out / "README.md")
    print(f"wrote {out} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
