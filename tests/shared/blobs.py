"""Two blobs of points, and a network that also reads inputs which say nothing about them: it can be hardened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.shared.implicit_models import node, proto


def blobs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points in [0, 1]^4, (n, 4) in float32, and their classes: the first two entries tell them."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.3, 0.3, 0.5, 0.5], [0.7, 0.7, 0.5, 0.5]])
    labels = rng.integers(0, 2, n)
    return np.clip(centres[labels] + rng.normal(0, 0.05, (n, 4)), 0, 1).astype(np.float32), labels


def distracted(path: Path) -> None:
    """Write a network that is right on the blobs and sees far too much in the last two inputs."""
    weights = {
        "v": np.array([[2, 2, 3, -3], [-2, -2, -3, 3], [2, 2, -3, 3], [-2, -2, 3, -3]], np.float32),
        "c": np.array([-2, 2, -2, 2], np.float32),
        "w": np.array([[-1, 1, 0, 0], [1, -1, 0, 0]], np.float32),
        "d": np.zeros(2, np.float32),
    }
    nodes = [node("Gemm", "x v c", "h", transB=1), node("Relu", "h", "z"), node("Gemm", "z w d", transB=1)]
    onnx.save(proto(nodes, ("N", 4), weights), path)
