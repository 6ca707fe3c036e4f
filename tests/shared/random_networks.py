"""Random small networks of every family, drawn from a seed: nodes, weights, the shape of their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from tests.shared.implicit_models import floats, ints, node, proto

ACTIVATIONS = ("Relu", "LeakyRelu", "Abs", "Sigmoid", "Tanh")
KINKED = ("Relu", "LeakyRelu", "Abs")


class Sketch:
    """A network being drawn: `shape` is that of the newest tensor, `last`."""

    def __init__(self, seed: int, shape: tuple[int, ...], activations: tuple[str, ...] = ACTIVATIONS) -> None:
        self.rng = np.random.default_rng(seed)
        self.activations = activations
        self.input_shape = self.shape = shape
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.last = "x"

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        self.last = f"t{len(self.nodes)}"
        self.nodes.append(node(op, " ".join(inputs), self.last, **attributes))
        return self.last

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def activation(self) -> str:
        return self.add(self.pick(*self.activations), [self.last])

    def dense(self, width: int | None = None) -> str:
        width = int(self.rng.integers(1, 8)) if width is None else width
        weights = [self.constant(floats(self.rng, self.shape[1], width)), self.constant(floats(self.rng, width))]
        self.shape = (1, width)
        return self.add("Gemm", [self.last, *weights])

    def conv(self, channels: int | None = None, *, same: bool = False, source: str | None = None) -> str:
        _, c, h, w = self.shape
        channels = int(self.rng.integers(1, 4)) if channels is None else channels
        kernel = self.pick(1, 3) if same else int(self.rng.integers(1, min(h, w, 3) + 1))
        pads = [(kernel - 1) // 2] * 4 if same else [int(p) for p in self.rng.integers(0, 2, size=4)]
        stride = 1 if same else self.pick(1, 2)
        names = [self.constant(floats(self.rng, channels, c, kernel, kernel))]
        if self.pick(True, False):
            names.append(self.constant(floats(self.rng, channels)))
        size = [(n + pads[a] + pads[2 + a] - kernel) // stride + 1 for a, n in enumerate((h, w))]
        self.shape = (1, channels, *size)
        return self.add("Conv", [source or self.last, *names], pads=pads, strides=[stride] * 2)

    def norm(self) -> str:
        c = self.shape[1]
        parameters = [floats(self.rng, c) for _ in range(3)] + [np.abs(floats(self.rng, c)) + np.float32(0.1)]
        return self.add("BatchNormalization", [self.last, *map(self.constant, parameters)])

    def pool(self) -> str:
        _, c, h, w = self.shape
        if min(h, w) < 2:
            return self.last
        kernel, stride = int(self.rng.integers(2, min(h, w, 3) + 1)), self.pick(1, 2)
        size = [(n - kernel) // stride + 1 for n in (h, w)]
        self.shape = (1, c, *size)
        return self.add(
            self.pick("MaxPool", "AveragePool"), [self.last], kernel_shape=[kernel] * 2, strides=[stride] * 2
        )

    def head(self, outputs: int = 3) -> None:
        if len(self.shape) > 2:
            self.add("Flatten", [self.last])
            self.shape = (1, int(np.prod(self.shape)))
        self.dense(outputs)

    def proto(self) -> onnx.ModelProto:
        self.nodes.append(node("Identity", self.last, "y"))
        return proto(self.nodes, self.input_shape, self.constants)


def dense(seed: int, activations: tuple[str, ...] = ACTIVATIONS) -> Sketch:
    sketch = Sketch(seed, (1, int(np.random.default_rng(seed).integers(1, 7))), activations)
    for _ in range(sketch.pick(0, 1, 2, 4)):
        sketch.dense()
        if sketch.pick(True, True, False):
            sketch.activation()
    sketch.head()
    return sketch


def convolutional(seed: int, activations: tuple[str, ...] = ACTIVATIONS) -> Sketch:
    sketch = Sketch(seed, (1, 2, 6, 5), activations)
    for _ in range(sketch.pick(1, 2, 3)):
        sketch.conv()
        if sketch.pick(True, False):
            sketch.norm()
        if sketch.pick(True, True, False):
            sketch.activation()
        if sketch.pick(True, False):
            sketch.pool()
    sketch.head()
    return sketch


def post_activation(seed: int, activations: tuple[str, ...] = ACTIVATIONS) -> Sketch:
    """conv, BN, phi, conv, BN, + skip, phi."""
    sketch = Sketch(seed, (1, 2, 4, 4), activations)
    for _ in range(sketch.pick(1, 2)):
        skip, channels = sketch.last, sketch.shape[1]
        sketch.conv(same=True)
        sketch.norm()
        sketch.activation()
        sketch.conv(channels, same=True)
        sketch.norm()
        sketch.add("Add", [sketch.last, skip])
        sketch.activation()
    sketch.head()
    return sketch


def pre_activation(seed: int, activations: tuple[str, ...] = ACTIVATIONS) -> Sketch:
    """BN, phi, conv, BN, phi, conv, + skip: sums that pile up."""
    sketch = Sketch(seed, (1, 2, 4, 4), activations)
    for _ in range(sketch.pick(1, 2, 3)):
        skip, channels = sketch.last, sketch.shape[1]
        sketch.norm()
        sketch.activation()
        sketch.conv(same=True)
        sketch.activation()
        sketch.conv(channels, same=True)
        sketch.add("Add", [skip, sketch.last])
    sketch.pool()
    sketch.head()
    return sketch


def branching(seed: int, activations: tuple[str, ...] = ACTIVATIONS) -> Sketch:
    """Branches that are concatenated, as in Inception and DenseNet; a tensor is used several times."""
    sketch = Sketch(seed, (1, 2, 4, 4), activations)
    for _ in range(sketch.pick(1, 2)):
        source, shape = sketch.last, sketch.shape
        branches, channels = [source], shape[1]
        for _ in range(2):
            sketch.shape = shape
            sketch.conv(same=True, source=source)
            channels += sketch.shape[1]
            branches.append(sketch.activation() if sketch.pick(True, False) else sketch.last)
        order = [branches[k] for k in sketch.rng.permutation(3)]
        sketch.add("Concat", order, axis=1)
        sketch.shape = (1, channels, *shape[2:])
        if sketch.pick(True, False):
            sketch.pool()
    sketch.head()
    return sketch


def sequence(seed: int, activations: tuple[str, ...] = ACTIVATIONS) -> Sketch:
    """Rows mixed by a constant on the left, features by one on the right: MLP-Mixer."""
    sketch = Sketch(seed, (1, 3, 4), activations)
    for _ in range(sketch.pick(1, 2)):
        skip = sketch.last
        sketch.add("MatMul", [sketch.constant(floats(sketch.rng, 3, 3)), sketch.last])
        sketch.activation()
        sketch.add("MatMul", [sketch.last, sketch.constant(floats(sketch.rng, 4, 4))])
        sketch.add("Add", [sketch.last, sketch.constant(floats(sketch.rng, 4))])
        sketch.add("Add", [sketch.last, skip])
    sketch.add("Reshape", [sketch.last, sketch.constant(ints(1, -1))])
    sketch.shape = (1, 12)
    sketch.head()
    return sketch


FAMILIES: dict[str, Callable[..., Sketch]] = {
    "dense": dense,
    "convolutional": convolutional,
    "post-activation": post_activation,
    "pre-activation": pre_activation,
    "branching": branching,
    "sequence": sequence,
}
