"""Few inputs and many states, beside a base: `python -m benchmarks.few_inputs BASE [--pairs 3] [--only lattice]`.

Networks that are lattices of so many pieces (two inputs), and a curve (one input) whose bounds are asked for over
thousands of small boxes in one property. Both are made here from fixed seeds; properties hold by 2 % of the range of
the outputs. Told are the ratios of processor times, and whether both commits came to the same within the time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx

from benchmarks.paired import Case, measure
from idl_audit.values.arrays import FloatArray
from tests.shared.implicit_models import floats, node, proto
from tests.shared.lattices import Lattice

IN_TIME = 60
PIECES = (8, 16, 24, 32, 48)
BOXES = (200, 2000)
WIDTH = 128
"""Of the three hidden layers of the curve."""


def cases(folder: Path) -> Iterator[Case]:
    """Write networks and properties; yield the commands that decide them."""
    for pieces in PIECES:
        rng = np.random.default_rng(pieces)
        lattice = Lattice(rng, pieces, pieces)
        y = lattice(rng.uniform(-2, 2, (200_000, 2)))
        paths = lattice.write(folder, f"lattice_{pieces}", float(y.min() - 0.02 * (y.max() - y.min())))
        yield _case(f"lattice {pieces}", *paths)
    for count in BOXES:
        yield _case(f"curve {count} boxes", *_curve(folder, count))


def _case(name: str, network: Path, question: Path) -> Case:
    return Case(name, ("certify", str(network), str(question), "--time-limit", str(IN_TIME), "-f", "json"))


def _curve(folder: Path, count: int) -> tuple[Path, Path]:
    rng = np.random.default_rng(count)
    sizes = (1, WIDTH, WIDTH, WIDTH, 1)
    weights = [floats(rng, m, n, scale=(2 / m) ** 0.5) for m, n in itertools.pairwise(sizes)]
    biases = [floats(rng, n, scale=0.3) for n in sizes[1:]]
    nodes, constants, last = [], {}, "x"
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        constants |= {f"w{k}": w, f"b{k}": b}
        made = "y" if k == len(weights) - 1 else f"s{k}"
        nodes.append(node("Gemm", f"{last} w{k} b{k}", made))
        if made != "y":
            nodes.append(node("Relu", made, f"x{k}"))
            last = f"x{k}"
    network, question = folder / f"curve_{count}.onnx", folder / f"curve_{count}.vnnlib"
    onnx.save(proto(nodes, (1, 1), constants), network)
    question.write_text(_cells(count, lambda u: _evaluated(u, weights, biases)))
    return network, question


def _evaluated(u: FloatArray, weights: list[FloatArray], biases: list[FloatArray]) -> FloatArray:
    x = u
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = (np.maximum(x, 0) if k else x) @ w.astype(np.float64) + b
    return np.asarray(x)


def _cells(count: int, network: Callable[[FloatArray], FloatArray]) -> str:
    """Return the property that asks, over each part of [0, 1], for y below its least or above its greatest value."""
    each, parts = 100, []
    y = network(np.linspace(0, 1, each * count + 1)[:, None])[:, 0]
    margin = 0.02 * float(y.max() - y.min())
    for i in range(count):
        own = y[each * i : each * (i + 1) + 1]
        inside = f"(>= X_0 {i / count:.12f}) (<= X_0 {(i + 1) / count:.12f})"
        parts.append(f"(and {inside} (<= Y_0 {own.min() - margin:.9f}))")
        parts.append(f"(and {inside} (>= Y_0 {own.max() + margin:.9f}))")
    named = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n"
    return f"{named}(assert (or\n{chr(10).join(parts)}))\n"


if __name__ == "__main__":
    measure(__doc__, cases, 3, "few_inputs")
