"""Write reports/equilibrium.md: exact verdicts of equilibrium networks, beside what Lipschitz constants certify.

    IDL_AUDIT_DATA=... python -m benchmarks.equilibrium_table [--limit 100] [--unclipped 1000] [--out DIR]

1. The published monDEQ of the data folder (784 inputs, 40 states, m = 20) on MNIST test images.
2. sample_models/digits_mondeq.npz (64 inputs, 90 states, m = 1; sample_models/train_equilibrium.py trains it).
3. A feedback loop of a linear plant and a small ReLU controller.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import idl_audit
from benchmarks.measuring import machine
from idl_audit.commands.shared.subject import describe_proof
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.margins import margin_functionals
from idl_audit.values.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "scipy", "highspy")
PUBLISHED = (0.005, 0.01, 0.02, 0.05)
DIGITS = (0.02, 0.05, 0.1)
UNCLIPPED = 0.01


@dataclass
class Row:
    """The verdicts of one model at one radius."""

    eps: float
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    by_matrix: int = 0
    """Samples that |F (y - y0)| <= S r certifies."""
    by_l2: int = 0
    """Samples that the pairwise l2 constant certifies."""
    seconds: list[float] = field(default_factory=list)
    nodes: Counter[str] = field(default_factory=Counter)

    def cells(self) -> Iterator[str]:
        """Yield the row of the table."""
        milliseconds = 1e3 * np.asarray(self.seconds)
        yield f"{self.eps:g}"
        yield str(sum(self.verdicts.values()))
        for verdict in (Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.CLEAN_WRONG):
            yield str(self.verdicts[verdict])
        yield str(self.by_l2)
        yield str(self.by_matrix)
        yield f"{milliseconds.mean():.0f}"
        yield f"{milliseconds.max():.0f}"
        yield ", ".join(f"{name} {count}" for name, count in self.nodes.most_common())


HEAD = (
    "| eps | images | certified | falsified | undecided | wrong | l2 pairwise | S | ms mean | ms max | decided by |\n"
    "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
)


class Rivals:
    """What does not depend on the image: S and the l2 constants of the margins of each label."""

    def __init__(self, model: ImplicitModel, m: float) -> None:
        matrices = model.matrices
        self._gain = float(np.linalg.norm(matrices.B.toarray(), 2)) / m
        self._C = matrices.C.toarray()
        self._model = model
        self._S: dict[int, FloatArray] = {}

    def margins(self, label: int, y: FloatArray, radius: FloatArray) -> tuple[float, float]:
        """Return the least margins that S and the l2 constant leave, |u - image| <= radius."""
        rows = margin_functionals(self._model.n_outputs, label)
        if label not in self._S:
            self._S[label] = sensitivity_matrix(self._model, "best", functionals=rows)
        margins = rows @ y
        by_l2 = margins - np.linalg.norm(rows @ self._C, axis=1) * self._gain * float(np.linalg.norm(radius))
        return float((margins - self._S[label] @ radius).min()), float(by_l2.min())


def decide_all(
    model: ImplicitModel,
    m: float,
    images: FloatArray,
    labels: IntArray,
    radii: Sequence[float],
    *,
    clipped: bool,
    seconds: float,
) -> list[Row]:
    """Decide every image at every radius; images are float32 numbers in [0, 1]."""
    rivals, rows = Rivals(model, m), [Row(eps) for eps in radii]
    options = Options(time_limit=seconds)

    def network(points: FloatArray) -> FloatArray:
        return model(points.astype(np.float64))

    for image, label in zip(images, labels, strict=True):
        y = model(image[None])[0]
        for row in rows:
            limits = {"valid_lo": 0.0, "valid_hi": 1.0} if clipped else {}
            box = Box.around(image, row.eps, **limits)
            start = time.perf_counter()
            result = decide_sample(model, network, image, int(label), box, options)
            row.seconds.append(time.perf_counter() - start)
            row.verdicts[result.verdict] += 1
            if result.method is not None:
                row.nodes[result.method] += 1
            by_matrix, by_l2 = rivals.margins(int(label), y, np.maximum(box.hi - image, image - box.lo))
            row.by_matrix += by_matrix > 0
            row.by_l2 += by_l2 > 0
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as markdown."""
    return "\n".join([HEAD, *(f"| {' | '.join(row.cells())} |" for row in rows)])


def closed_loop(gain: float) -> ImplicitModel:
    """Return a linear plant with a ReLU controller around it, at rest: y is the plant's output.

    The plant's two states settle at x = P x + q v + w, v the controller's command and w the loads (inputs 1 and 2). The
    controller reads the error r - x_1 (input 0 is the set point r) by three ReLU states h and commands v = gain c . h.
    """
    P, q = np.array([[0.2, 0.3], [-0.4, 0.1]]), np.array([0.6, 0.2])
    reads, bias = np.array([1.0, -1.0, 0.5]), np.array([0.0, 0.0, 0.25])
    commands = gain * np.array([1.0, -1.0, 0.4])
    A = np.zeros((5, 5))
    A[:2, :2], A[:2, 2:] = P, np.outer(q, commands)
    A[2:, 0] = -reads
    B = np.zeros((5, 3))
    B[:2, 1:], B[2:, 0] = np.eye(2), reads
    C = np.eye(1, 5)
    blocks = [DeclaredBlock("identity", 2, {}), DeclaredBlock("relu", 3, {})]
    return plain_model(A, B, C, np.zeros((1, 3)), np.concatenate([np.zeros(2), bias]), np.zeros(1), blocks)


def loop_section() -> Iterator[str]:
    """Yield the lines on the feedback loop."""
    model = closed_loop(0.9)
    S = sensitivity_matrix(model, "best")
    u = np.array([[1.0, 0.0, 0.0]])
    reach = np.array([[0.1, 0.05, 0.05]])
    inputs = Interval(u - reach, u + reach)
    bounds = interval_bounds(model, inputs)
    output = affine_interval(model.output, bounds.x, inputs)
    corners = np.stack(np.meshgrid(*np.linspace(inputs.lo[0], inputs.hi[0], 9).T), axis=-1).reshape(-1, 3)
    y = model(corners)[:, 0]
    gains = ", ".join(f"{value:.4f}" for value in S[0])
    yield (
        f"Gain .9: {describe_proof(model).proof}. Sensitivity of the plant's output to set point and loads, for "
        f"all inputs: {gains}. At set point 1 +- .1 and loads 0 +- .05 the output is proved to lie in "
        f"[{output.lo[0, 0]:.4f}, {output.hi[0, 0]:.4f}]; on a grid of {len(y)} points it takes values in "
        f"[{y.min():.4f}, {y.max():.4f}]."
    )
    yield ""
    yield (
        f"Gain -3 (the controller's sign is wrong): {describe_proof(closed_loop(-3.0)).proof}; sensitivity and bounds "
        "are refused, and `certify` leaves every sample unknown (no_uniqueness_proof)."
    )


def mnist(limit: int) -> tuple[FloatArray, IntArray]:
    """Return test images as the float32 numbers that a network reads, in [0, 1]."""
    with np.load(Path(os.environ["IDL_AUDIT_DATA"], "mnist.npz")) as file:
        images = (file["test_images"][:limit].reshape(-1, 784) / 255.0).astype(np.float32).astype(np.float64)
        return images, file["test_labels"][:limit].astype(np.int64)


def written(published: Sequence[Row], whole: Row, digits: Sequence[Row], *, seconds: float) -> str:
    """Return the report as markdown."""
    right = sum(whole.verdicts.values()) - whole.verdicts[Verdict.CLEAN_WRONG]
    n = sum(whole.verdicts.values())
    lines = [
        "# Equilibrium networks",
        "",
        "Made by `python -m benchmarks.equilibrium_table`. Certified: proved for all inputs of the box, rounded "
        "outward. Falsified: a point of the box whose equilibrium gives another class. Beside them what two constants "
        "certify: l2 pairwise, the margin's Lipschitz constant |c_y - c_j|_2 |B|_2 / m times the box's l2 radius, as "
        "published; and the sensitivity matrix S of the margins (`best`). Times are for all methods together, from the "
        "image to the verdict.",
        "",
        f"{machine(1, PACKAGES)}.",
        "",
        "## The published monDEQ: MNIST, 40 states, m = 20",
        "",
        "The first correctly classified test images, box clipped to [0, 1].",
        "",
        table(published),
        "",
        f"The first {n} test images, right or wrong, box not clipped:",
        "",
        table([whole]),
        "",
        f"Certified {whole.verdicts[Verdict.CERTIFIED] / n:.1%} of {n} images ({right} are classified correctly); by "
        f"the l2 constant {whole.by_l2 / n:.1%}.",
        "",
        "## digits_mondeq: 8x8 digits, 90 states, m = 1",
        "",
        f"Held-out images, box clipped to [0, 1], at most {seconds:g} s for each radius.",
        "",
        table(digits),
        "",
        "## A feedback loop: linear plant, ReLU controller",
        "",
        *loop_section(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=100, help="correctly classified images of MNIST")
    parser.add_argument("--unclipped", type=int, default=1000, help="images of MNIST for the unclipped box")
    parser.add_argument("--digits", type=int, default=100, help="images of the digits")
    parser.add_argument("--seconds", type=float, default=30.0, help="time limit for one image and radius")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    weights = Path(os.environ["IDL_AUDIT_DATA"], "models/mnist_mondeq_m20_h40.pt")
    model = idl_audit.from_mondeq(weights, m=20, mean=0.1307, std=0.3081)
    images, labels = mnist(max(given.unclipped, 2 * given.limit))
    right = np.flatnonzero(model(images).argmax(axis=1) == labels)[: given.limit]
    limits = {"seconds": given.seconds}
    published = decide_all(model, 20.0, images[right], labels[right], PUBLISHED, clipped=True, **limits)
    print(table(published), flush=True)
    first = slice(0, given.unclipped)
    (whole,) = decide_all(model, 20.0, images[first], labels[first], (UNCLIPPED,), clipped=False, **limits)
    print(table([whole]), flush=True)
    digits_model = idl_audit.load(ROOT / "sample_models/digits_mondeq.npz")
    with np.load(ROOT / "sample_models/digits_mlp.npz") as file:
        inputs = file["inputs"][: given.digits].reshape(-1, 64).astype(np.float64)
        digit_labels = file["labels"][: given.digits].astype(np.int64)
    digits = decide_all(digits_model, 1.0, inputs, digit_labels, DIGITS, clipped=True, **limits)
    print(table(digits), flush=True)
    text = written(published, whole, digits, seconds=given.seconds)
    (given.out / "equilibrium.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
