"""Two-level lattices, max over terms of min over pieces of affine functions, as ReLU networks with properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from idl_audit.values.arrays import FloatArray
from tests.shared.implicit_models import Array, node, proto

HALVES = {"min": np.array([0.5, -0.5, -0.5, -0.5]), "max": np.array([0.5, -0.5, 0.5, 0.5])}
"""min or max of a and b from relu(a + b), relu(-a - b), relu(a - b), relu(b - a)."""
PAIRS = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])


class Lattice:
    """y = max over terms j of min over pieces i of term j of (slopes_i . u + offsets_i)."""

    def __init__(self, rng: np.random.Generator, pieces: int, terms: int, n_inputs: int = 2) -> None:
        """Draw pieces, and for each term half of them."""
        self.slopes = rng.normal(size=(pieces, n_inputs)).astype(np.float32)
        self.offsets = rng.normal(size=pieces).astype(np.float32)
        self.terms = [np.sort(rng.permutation(pieces)[: max(2, pieces // 2)]) for _ in range(terms)]

    def __call__(self, u: FloatArray) -> FloatArray:
        """Return y for each row of inputs, (m,)."""
        values = u @ self.slopes.T.astype(np.float64) + self.offsets
        return np.asarray(np.max([values[:, own].min(axis=1) for own in self.terms], axis=0))

    @property
    def model(self) -> onnx.ModelProto:
        """The network, each comparison by four ReLUs, with two linear layers in a row between neighbours."""
        chosen = np.concatenate(self.terms)
        nodes, constants = (
            [node("Gemm", "x w0 b0", "t0", transB=1)],
            {"w0": self.slopes[chosen], "b0": self.offsets[chosen]},
        )
        sizes, last, kind = [len(own) for own in self.terms], "t0", "min"
        while len(sizes) > 1 or sizes[0] > 1:
            if max(sizes) == 1:
                sizes, kind = [len(sizes)], "max"
            first, second = _round(sizes, kind)
            made = f"t{len(nodes)}"
            constants |= {f"p{made}": first.astype(np.float32), f"h{made}": second.astype(np.float32)}
            nodes += [
                node("MatMul", f"{last} p{made}", f"s{made}"),
                node("Relu", f"s{made}", f"r{made}"),
                node("MatMul", f"r{made} h{made}", made),
            ]
            sizes, last = [(size + 1) // 2 for size in sizes], made
        nodes.append(node("Identity", last, "y"))
        return proto(nodes, (1, self.slopes.shape[1]), constants)

    def property(self, threshold: float, radius: float = 2.0) -> str:
        """Return the property that asks for y <= threshold on [-radius, radius]^n."""
        n = self.slopes.shape[1]
        lines = [f"(declare-const X_{i} Real)" for i in range(n)] + ["(declare-const Y_0 Real)"]
        lines += [f"(assert (<= X_{i} {radius}))\n(assert (>= X_{i} -{radius}))" for i in range(n)]
        return "\n".join([*lines, f"(assert (<= Y_0 {threshold}))"])

    def least(self, rng: np.random.Generator, radius: float = 2.0, points: int = 200_000) -> float:
        """Return the least y of many points, which the minimum is near to."""
        return float(self(rng.uniform(-radius, radius, (points, self.slopes.shape[1]))).min())

    def write(self, folder: Path, name: str, threshold: float) -> tuple[Path, Path]:
        """Write network and property; return both paths."""
        network, question = folder / f"{name}.onnx", folder / f"{name}.vnnlib"
        onnx.save(self.model, network)
        question.write_text(self.property(threshold))
        return network, question


def _round(sizes: list[int], kind: str) -> tuple[Array, Array]:
    """Return the matrices of one round of comparisons within groups of some sizes: to the ReLUs, and from them."""
    total, pairs = sum(sizes), sum((size + 1) // 2 for size in sizes)
    first, second = np.zeros((total, 4 * pairs)), np.zeros((4 * pairs, pairs))
    start = pair = 0
    for size in sizes:
        for left in range(0, size, 2):
            right = min(left + 1, size - 1)  # one that is left over is compared with itself
            own = slice(4 * pair, 4 * pair + 4)
            first[start + left, own] += PAIRS[:, 0]
            first[start + right, own] += PAIRS[:, 1]
            second[own, pair] = HALVES[kind]
            pair += 1
        start += size
    return first, second
