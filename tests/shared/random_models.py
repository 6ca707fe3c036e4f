"""Random ONNX models of readable operators: every operator set, float type, batch axis and habit of exporters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
Step = Callable[["Writer", str, Shape], tuple[str, Shape]]

NAMES = ("t{0}", "/layer.{0}/out", "выход {0}", "{0}")
TYPES = ((np.float32, TensorProto.FLOAT), (np.float64, TensorProto.DOUBLE), (np.float16, TensorProto.FLOAT16))
PLAIN = {
    7: ("Abs", "Elu", "HardSigmoid", "Identity", "LeakyRelu", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign"),
    8: ("Tanh",),
    9: ("Erf",),
    14: ("HardSwish",),
    18: ("Mish",),
    20: ("Gelu",),
}
"""Operators of one input, by the version that has them."""
IR_VERSIONS = {
    7: 3,
    8: 3,
    9: 4,
    10: 5,
    11: 6,
    12: 7,
    13: 7,
    14: 7,
    19: 9,
    20: 9,
    21: 10,
    22: 10,
    23: 11,
    24: 12,
    25: 13,
}


@dataclass(frozen=True)
class RandomModel:
    """A model, its input and its outputs."""

    proto: onnx.ModelProto
    dtype: Any
    shape: Shape
    """Of one sample."""
    outputs: tuple[str, ...]


class Writer:
    """Writes one model, a node at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = int(self.rng.integers(7, 27))
        self.dtype, self.element = TYPES[int(self.rng.choice(3, p=[0.6, 0.2, 0.2]))]
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._names, self._count = NAMES[int(self.rng.integers(len(NAMES)))], 0

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def name(self) -> str:
        self._count += 1
        return self._names.format(self._count)

    def constant(self, value: Any) -> str:
        """A weight or, sometimes, a Constant node."""
        name = self.name()
        tensor = numpy_helper.from_array(np.asarray(value), name)
        if self.chance(0.25):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.weights.append(tensor)
        return name

    def numbers(self, *shape: int) -> str:
        scale = 1 / np.sqrt(max(1, int(np.prod(shape[:-1], dtype=int))))
        return self.constant((self.rng.normal(size=shape) * scale).astype(self.dtype))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = self.name()
        label = "" if self.chance(0.3) else f"{name}_node"
        self.nodes.append(helper.make_node(op, inputs, [name], name=label, **attributes))
        return name


def plain(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    known = [op for since, ops in PLAIN.items() if since <= w.opset for op in ops]
    return w.node(str(w.rng.choice(known)), x), shape


def arithmetic(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    sizes: list[Shape] = [(), shape[-1:], (1,) * len(shape)]
    value = (np.abs(w.rng.normal(size=sizes[int(w.rng.integers(3))])) + 0.5).astype(w.dtype)
    op = str(w.rng.choice(["Add", "Sub", "Mul", "Div"]))
    pair = [x, w.constant(value)]
    return w.node(op, *(pair[::-1] if op != "Div" and w.chance(0.4) else pair)), shape


def clip(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    if w.opset < 11:
        return w.node("Clip", x, min=-0.5, max=1.5), shape
    lo, hi = w.constant(np.array(-0.5, w.dtype)), w.constant(np.array(1.5, w.dtype))
    return w.node("Clip", x, *[(lo, hi), (lo,), ("", hi), ()][int(w.rng.integers(4))]), shape


def several(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    other = w.node("Neg", x)
    return (w.node("Sum", x, other, x) if w.opset >= 8 else w.node("Add", x, w.node("Tanh", other))), shape


def cast(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    return w.node("Cast", w.node("Cast", x, to=TensorProto.FLOAT), to=w.element), shape


def dropout(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    more = [w.constant(np.array(0.5, np.float32))] if w.opset >= 12 and w.chance(0.5) else []
    return w.node("Dropout", x, *more), shape


def product(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    width = int(w.rng.integers(2, 6))
    return w.node("MatMul", x, w.numbers(shape[-1], width)), (*shape[:-1], width)


def gemm(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) != 2:
        return product(w, x, shape)
    width, turned = int(w.rng.integers(2, 6)), w.chance(0.5)
    weights = w.numbers(*((width, shape[1]) if turned else (shape[1], width)))
    bias = [w.numbers(width)] if w.opset < 11 or w.chance(0.7) else []
    extra = {"alpha": 0.5} if w.chance(0.2) else {}
    return w.node("Gemm", x, weights, *bias, transB=int(turned), **extra), (shape[0], width)


def flat(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    size = int(np.prod(shape[1:], dtype=int))
    way = int(w.rng.integers(4))
    if way == 0:
        return w.node("Flatten", x, axis=1), (shape[0], size)
    if way == 1:
        return w.node("Reshape", x, w.ints(0, -1)), (shape[0], size)
    if way == 2:
        return w.node("Reshape", x, w.ints(-1, size)), (shape[0], size)
    batch = w.node("Gather", w.node("Shape", x), w.constant(np.array(0)), axis=0)
    lifted = w.node("Unsqueeze", batch, axes=[0]) if w.opset < 13 else w.node("Unsqueeze", batch, w.ints(0))
    return w.node("Reshape", x, w.node("Concat", lifted, w.ints(-1), axis=0)), (shape[0], size)


def transposed(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    order = [0, *(1 + w.rng.permutation(len(shape) - 1)).tolist()]
    return w.node("Transpose", x, perm=order), tuple(shape[axis] for axis in order)


def reduced(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) < 3:
        return plain(w, x, shape)
    op, keep = str(w.rng.choice(["ReduceMean", "ReduceSum"])), int(w.rng.integers(2))
    as_input = w.opset >= (18 if op == "ReduceMean" else 13)
    axis = len(shape) - 1
    made = w.node(op, x, w.ints(axis), keepdims=keep) if as_input else w.node(op, x, axes=[axis], keepdims=keep)
    return made, (*shape[:-1], *([1] if keep else []))


def joined(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    return w.node("Concat", x, w.node("Sigmoid", x), axis=1), (shape[0], 2 * shape[1], *shape[2:])


def sliced(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    kept = max(1, shape[1] - 1)
    made = (
        w.node("Slice", x, axes=[1], starts=[0], ends=[kept])
        if w.opset < 10
        else w.node("Slice", x, w.ints(0), w.ints(kept), w.ints(1))
    )
    return made, (shape[0], kept, *shape[2:])


def gathered(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    places = w.rng.integers(0, shape[1], size=2).tolist()
    return w.node("Gather", x, w.ints(*places), axis=1), (shape[0], 2, *shape[2:])


def padded(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    pads = [0, 1, *[0] * (2 * len(shape) - 2)]
    made = w.node("Pad", x, pads=pads) if w.opset < 11 else w.node("Pad", x, w.ints(*pads))
    return made, (shape[0], shape[1] + 1, *shape[2:])


def convolution(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) != 4:
        return gemm(w, x, shape)
    channels, stride, pad = (int(w.rng.integers(low, high)) for low, high in ((1, 4), (1, 3), (0, 2)))
    kernel = min(3, *shape[2:])
    sizes = tuple((size + 2 * pad - kernel) // stride + 1 for size in shape[2:])
    bias = [w.numbers(channels)] if w.chance(0.7) else []
    weights = w.numbers(channels, shape[1], kernel, kernel)
    made = w.node("Conv", x, weights, *bias, kernel_shape=[kernel] * 2, pads=[pad] * 4, strides=[stride] * 2)
    return made, (shape[0], channels, *sizes)


def pooled(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) != 4 or min(shape[2:]) < 2:
        return plain(w, x, shape)
    if w.chance(0.3):
        return w.node("GlobalAveragePool", x), (*shape[:2], 1, 1)
    op = str(w.rng.choice(["MaxPool", "AveragePool"]))
    made = w.node(op, x, kernel_shape=[2, 2], strides=[2, 2])
    return made, (*shape[:2], *((size - 2) // 2 + 1 for size in shape[2:]))


def normalised(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    given = [w.constant((w.rng.random(shape[1]) + 0.5).astype(w.dtype)) for _ in range(4)]
    return w.node("BatchNormalization", x, *given), shape


def resized(w: Writer, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) != 4 or w.opset < 11:
        return plain(w, x, shape)
    scales, nothing = w.constant(np.array([1, 1, 2, 2], np.float32)), w.constant(np.zeros(0, np.float32))
    places = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    made = w.node("Resize", x, nothing if w.opset < 13 else "", scales, **places)
    return made, (*shape[:2], *(2 * size for size in shape[2:]))


STEPS: tuple[Step, ...] = (
    *(plain, plain, arithmetic, arithmetic, clip, several, cast, dropout, product, gemm, gemm, gemm, flat, transposed),
    *(reduced, joined, sliced, gathered, padded, convolution, convolution, pooled, normalised, resized),
)
SHAPES: tuple[Shape, ...] = ((3,), (4,), (2, 6, 6), (3, 5, 5), (2, 3), (1, 4, 4))


def random_model(seed: int) -> RandomModel:
    """Return the model of a seed: up to eight operators behind its input, and what exporters leave around it."""
    w = Writer(seed)
    batch = int(w.rng.choice([1, 1, 1, 2]))
    shape: Shape = (batch, *SHAPES[int(w.rng.integers(len(SHAPES)))])
    if w.chance(0.1):
        shape = ((), (3,))[int(w.rng.integers(2))]
    declared: list[Any] = list(shape)
    if len(shape) > 1 and batch == 1 and w.chance(0.6):
        declared[0] = ("N", None)[int(w.rng.integers(2))]
    entry = "x" if w.chance(0.6) else w.name()
    made = [(entry, shape)]
    for _ in range(int(w.rng.integers(0, 9))):
        steps = STEPS if len(shape) > 1 else (plain,)
        made.append(steps[int(w.rng.integers(len(steps)))](w, *made[-1]))
        if max(made[-1][1], default=1) > 100:
            break
    outputs = [made[-1][0]]
    if w.chance(0.15):
        outputs.append(made[int(w.rng.integers(len(made)))][0])
    if w.chance(0.05):
        outputs.append(w.constant(np.ones(3, w.dtype)))
    if w.chance(0.2):
        w.constant(np.ones(2, w.dtype))  # read by nobody
    version = IR_VERSIONS.get(w.opset, 8 if w.opset < 19 else 13)
    inputs = [helper.make_tensor_value_info(entry, w.element, declared)]
    if w.chance(0.15):
        kind = int(w.rng.choice([TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL]))
        inputs.insert(int(w.rng.integers(2)), helper.make_tensor_value_info("idle", kind, [None, 2]))
    if version == 3 or w.chance(0.1):
        inputs += [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in w.weights]
    names = tuple(dict.fromkeys(outputs))
    graph = helper.make_graph(
        w.nodes, "g", inputs, [helper.make_tensor_value_info(name, w.element, None) for name in names], w.weights
    )
    domain = "ai.onnx" if w.chance(0.05) else ""
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, w.opset)], ir_version=version)
    return RandomModel(proto, w.dtype, shape, names)
