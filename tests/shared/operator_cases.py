"""Uses of every operator in LOWERINGS: one network each, in the operator sets that allow it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from tests.shared.implicit_models import NEWEST, floats, ints, node

RNG = np.random.default_rng(20)
OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, NEWEST, 27, 28)


@dataclass(frozen=True)
class Case:
    """One use of one operator, in the operator sets that allow it."""

    op: str
    what: str
    shape: tuple[int, ...]
    nodes: tuple[NodeProto, ...]
    constants: dict[str, Any] = field(default_factory=dict)
    first: int = 7
    last: int = NEWEST
    tolerance: float = 1e-5
    twin: tuple[NodeProto, ...] = ()
    """What onnxruntime runs instead where it has no such operator."""

    @property
    def opsets(self) -> list[int]:
        return [opset for opset in OPSETS if self.first <= opset <= self.last]


def case(
    op: str,
    what: str,
    shape: tuple[int, ...],
    inputs: str = "x",
    constants: dict[str, Any] | None = None,
    *,
    outputs: str = "y",
    first: int = 7,
    last: int = NEWEST,
    tolerance: float = 1e-5,
    **attributes: Any,
) -> Case:
    return Case(op, what, shape, (node(op, inputs, outputs, **attributes),), constants or {}, first, last, tolerance)


def f(*shape: int) -> Any:
    return floats(RNG, *shape)


def scalar(value: float) -> Any:
    return np.float32(value)


IMAGE = (1, 2, 5, 6)
ROW = (1, 6)
BN = {"s": f(3), "b": f(3), "m": f(3), "v": np.abs(f(3)) + 0.1}


def kernel(*shape: int) -> dict[str, Any]:
    return {"w": f(*shape)}


def with_bias(*shape: int, out: int) -> dict[str, Any]:
    return {"w": f(*shape), "b": f(out)}


LINEAR = [
    case("MatMul", "a row times a matrix", ROW, "x w", kernel(6, 4)),
    case("MatMul", "a row times a vector", ROW, "x w", kernel(6)),
    case("MatMul", "a vector times a matrix", (6,), "x w", kernel(6, 4)),
    case("MatMul", "a vector times a vector", (6,), "x w", kernel(6)),
    case("MatMul", "a matrix times a vector", (6,), "w x", kernel(4, 6)),
    case("MatMul", "a matrix times a column", (6, 1), "w x", kernel(4, 6)),
    case("MatMul", "a vector times a column", (6, 1), "w x", kernel(6)),
    case("MatMul", "a column times a row", (3, 1), "x w", kernel(1, 4)),
    case("MatMul", "one number", (1, 1), "x w", kernel(1, 1)),
    case("MatMul", "one number by a row", (1, 1), "x w", kernel(1, 5)),
    case("MatMul", "a column by one number", (1, 1), "w x", kernel(5, 1)),
    case("MatMul", "several rows", (1, 5, 6), "x w", kernel(6, 4)),
    case("MatMul", "several rows by a vector", (1, 5, 6), "x w", kernel(6)),
    case("MatMul", "several rows, constant on the left", (1, 5, 6), "w x", kernel(4, 5)),
    case("MatMul", "a vector on the left of several rows", (1, 5, 6), "w x", kernel(5)),
    case("MatMul", "a vector on the left of a batch", (2, 5, 6), "w x", kernel(5)),
    case("MatMul", "batched constant on the right", (3, 2, 6), "x w", kernel(3, 6, 4)),
    case("MatMul", "batched constant on the left", (3, 5, 2), "w x", kernel(3, 4, 5)),
    case("MatMul", "a batch that only the constant has, right", (1, 2, 6), "x w", kernel(3, 6, 4)),
    case("MatMul", "a batch that only the constant has, left", (1, 5, 2), "w x", kernel(3, 4, 5)),
    case("MatMul", "more axes than the form", (2, 6), "x w", kernel(3, 6, 4)),
    case("MatMul", "a vector by a batched constant", (6,), "x w", kernel(3, 6, 4)),
    case("MatMul", "a row by a batched constant", (1, 6), "x w", kernel(3, 6, 4)),
    case("MatMul", "a batched constant by a column", (6, 1), "w x", kernel(3, 4, 6)),
    case("MatMul", "batches cross", (2, 1, 2, 3), "x w", kernel(1, 4, 3, 2)),
    case("MatMul", "attention-like", (1, 2, 3, 4), "x w", kernel(2, 4, 3)),
    Case("MatMul", "a matrix of the input by itself", (3, 3), (node("MatMul", "x x"),)),
    Case("MatMul", "a row by a column of the input", (1, 4), (node("Transpose", "x", "t"), node("MatMul", "x t"))),
    Case(
        "MatMul",
        "batches of the input cross",
        (2, 1, 2, 3),
        (node("Transpose", "x", "t", perm=[1, 0, 3, 2]), node("MatMul", "x t")),
    ),
    case("Gemm", "plain", ROW, "x w", kernel(6, 4), first=11),
    case("Gemm", "bias", ROW, "x w b", with_bias(6, 4, out=4)),
    case("Gemm", "bias of one number", ROW, "x w b", {"w": f(6, 4), "b": f(1)}),
    case("Gemm", "scalar bias", ROW, "x w b", {"w": f(6, 4), "b": scalar(0.5)}),
    case("Gemm", "bias row", ROW, "x w b", {"w": f(6, 4), "b": f(1, 4)}),
    case("Gemm", "transB", ROW, "x w b", with_bias(4, 6, out=4), transB=1),
    case("Gemm", "transA", (6, 1), "x w b", with_bias(6, 4, out=4), transA=1),
    case("Gemm", "transA and transB", (6, 1), "x w b", with_bias(4, 6, out=4), transA=1, transB=1),
    case("Gemm", "alpha and beta", ROW, "x w b", with_bias(6, 4, out=4), alpha=0.3, beta=-1.7),
    case("Gemm", "alpha 0", ROW, "x w b", with_bias(6, 4, out=4), alpha=0.0),
    case("Gemm", "beta 0", ROW, "x w b", with_bias(6, 4, out=4), beta=0.0),
    case("Gemm", "several rows", (3, 6), "x w b", with_bias(6, 4, out=4)),
    case("Gemm", "bias column", (3, 6), "x w b", {"w": f(6, 4), "b": f(3, 1)}),
    case("Gemm", "several rows, transA", (6, 3), "x w b", with_bias(6, 4, out=4), transA=1),
    case("Gemm", "constant on the left", (6, 3), "w x b", {"w": f(4, 6), "b": f(4, 1)}),
    case(
        "Gemm", "constant on the left, both transposed", (3, 6), "w x b", {"w": f(6, 4), "b": f(3)}, transA=1, transB=1
    ),
    case("Gemm", "bias left out", ROW, "x w -", kernel(6, 4), first=11, alpha=2.0),
    case("Gemm", "a bias that depends on the input", (1, 4), "x w x", kernel(4, 4), alpha=0.5, beta=2.0),
    case("BatchNormalization", "image", (1, 3, 2, 2), "x s b m v", BN, epsilon=0.01),
    case("BatchNormalization", "row", (1, 3), "x s b m v", BN),
    case("BatchNormalization", "sequence", (1, 3, 4), "x s b m v", BN),
    case("BatchNormalization", "volume", (1, 3, 2, 1, 2), "x s b m v", BN),
    case("BatchNormalization", "inference stated", (1, 3, 2, 2), "x s b m v", BN, first=14, training_mode=0),
    case("BatchNormalization", "three samples", (3, 3), "x s b m v", BN),
]

CONVOLUTIONS = [
    case("Conv", "plain", IMAGE, "x w", kernel(3, 2, 3, 3)),
    case("Conv", "bias", IMAGE, "x w b", with_bias(3, 2, 3, 3, out=3)),
    case("Conv", "1 x 1", IMAGE, "x w", kernel(3, 2, 1, 1)),
    case("Conv", "whole image", IMAGE, "x w", kernel(3, 2, 5, 6)),
    case("Conv", "strides", IMAGE, "x w", kernel(3, 2, 2, 3), strides=[2, 3]),
    case("Conv", "asymmetric pads", IMAGE, "x w b", with_bias(3, 2, 3, 3, out=3), pads=[1, 0, 2, 1]),
    case("Conv", "pads and strides", IMAGE, "x w", kernel(3, 2, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
    case("Conv", "dilations", IMAGE, "x w", kernel(3, 2, 2, 2), dilations=[2, 3]),
    case("Conv", "depthwise", IMAGE, "x w b", with_bias(4, 1, 3, 3, out=4), group=2),
    case("Conv", "groups", (1, 4, 5, 5), "x w", kernel(6, 2, 3, 3), group=2, pads=[1] * 4),
    case("Conv", "1-D", (1, 2, 7), "x w b", with_bias(3, 2, 3, out=3), pads=[2, 0], strides=[2], dilations=[2]),
    case("Conv", "3-D", (1, 2, 3, 4, 3), "x w", kernel(3, 2, 2, 3, 2), pads=[0, 1, 1, 1, 0, 0], strides=[1, 2, 1]),
    case("Conv", "auto_pad upper", IMAGE, "x w", kernel(3, 2, 2, 4), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", "auto_pad lower", IMAGE, "x w", kernel(3, 2, 2, 4), auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", "auto_pad valid", IMAGE, "x w", kernel(3, 2, 2, 4), auto_pad="VALID"),
    case("Conv", "kernel_shape stated", IMAGE, "x w", kernel(3, 2, 2, 4), kernel_shape=[2, 4]),
    case("Conv", "one pixel", (1, 2, 1, 1), "x w", kernel(3, 2, 3, 3), pads=[1] * 4),
    case("Conv", "windows in the padding", (1, 1, 2, 2), "x w", kernel(2, 1, 1, 1), pads=[2, 1, 1, 2]),
    case("Conv", "left over at the end", (1, 1, 6, 6), "x w", kernel(1, 1, 2, 2), strides=[4, 3]),
    case("Conv", "one channel to one", (1, 1, 4, 4), "x w", kernel(1, 1, 2, 2)),
    case("ConvTranspose", "plain", (1, 2, 3, 3), "x w", kernel(2, 3, 3, 3)),
    case("ConvTranspose", "bias and strides", (1, 2, 3, 3), "x w b", with_bias(2, 3, 3, 3, out=3), strides=[2, 3]),
    case("ConvTranspose", "pads", (1, 2, 3, 3), "x w", kernel(2, 3, 3, 3), pads=[1, 0, 2, 1]),
    case(
        "ConvTranspose",
        "output_padding",
        (1, 2, 3, 3),
        "x w",
        kernel(2, 3, 3, 3),
        strides=[2, 3],
        output_padding=[1, 2],
    ),
    case("ConvTranspose", "groups", (1, 4, 3, 3), "x w b", with_bias(4, 2, 3, 3, out=4), group=2, strides=[2, 2]),
    case("ConvTranspose", "depthwise", (1, 2, 3, 3), "x w b", with_bias(2, 1, 2, 2, out=2), group=2),
    case("ConvTranspose", "dilations", (1, 2, 3, 3), "x w", kernel(2, 3, 2, 2), dilations=[2, 3]),
    case("ConvTranspose", "output_shape", (1, 2, 3, 3), "x w", kernel(2, 3, 3, 3), strides=[2, 2], output_shape=[6, 6]),
    case(
        "ConvTranspose",
        "output_shape odd",
        (1, 2, 3, 3),
        "x w",
        kernel(2, 3, 4, 4),
        strides=[2, 2],
        output_shape=[7, 7],
    ),
    case(
        "ConvTranspose",
        "output_shape, upper",
        (1, 2, 3, 3),
        "x w",
        kernel(2, 3, 4, 4),
        strides=[2, 2],
        output_shape=[7, 7],
        auto_pad="SAME_UPPER",
    ),
    case(
        "ConvTranspose",
        "output_shape, lower",
        (1, 2, 3, 3),
        "x w",
        kernel(2, 3, 4, 4),
        strides=[2, 2],
        output_shape=[7, 7],
        auto_pad="SAME_LOWER",
    ),
    case(
        "ConvTranspose",
        "output_shape larger than all windows",
        (1, 2, 3, 3),
        "x w",
        kernel(2, 3, 2, 2),
        strides=[3, 3],
        output_shape=[9, 9],
    ),
    case(
        "ConvTranspose",
        "auto_pad upper",
        (1, 2, 3, 3),
        "x w",
        kernel(2, 3, 4, 4),
        strides=[2, 2],
        auto_pad="SAME_UPPER",
    ),
    case(
        "ConvTranspose",
        "auto_pad lower",
        (1, 2, 3, 3),
        "x w",
        kernel(2, 3, 3, 4),
        strides=[2, 2],
        auto_pad="SAME_LOWER",
    ),
    case("ConvTranspose", "auto_pad valid", (1, 2, 3, 3), "x w", kernel(2, 3, 4, 4), strides=[2, 2], auto_pad="VALID"),
    case("ConvTranspose", "1-D", (1, 2, 4), "x w", kernel(2, 3, 3), strides=[2], pads=[1, 0]),
    case("ConvTranspose", "3-D", (1, 2, 2, 3, 2), "x w", kernel(2, 1, 2, 2, 2), strides=[1, 2, 1]),
    case("ConvTranspose", "one pixel", (1, 2, 1, 1), "x w", kernel(2, 3, 3, 3)),
    case("ConvTranspose", "1 x 1 kernel", (1, 2, 3, 3), "x w", kernel(2, 3, 1, 1)),
    case("ConvTranspose", "a kernel shorter than the stride", (1, 2, 3, 3), "x w", kernel(2, 3, 1, 1), strides=[2, 2]),
    case("ConvTranspose", "pads that eat the stride", (1, 1, 3), "x w", kernel(1, 1, 1), strides=[3], pads=[1, 1]),
    case("ConvTranspose", "pads wider than a window", (1, 1, 5), "x w", kernel(1, 1, 2), strides=[2], pads=[3, 2]),
]

OFFSET = {"half": scalar(0.5), "one": scalar(1)}
POSITIVE = node("Abs", "x", "size"), node("Add", "size half", "h")
NEGATIVE = node("Abs", "x", "size"), node("Add", "size half", "minus"), node("Neg", "minus", "h")
ABOVE_1 = node("Abs", "x", "size"), node("Add", "size one", "h")
WITHIN_1 = node("Tanh", "x", "small"), node("Mul", "small half", "h")
"""What puts numbers into the domain of the operator behind it, which reads h."""

ARITHMETIC = [
    case("Add", "a constant row", ROW, "x c", {"c": f(6)}),
    case("Add", "a number", ROW, "c x", {"c": scalar(0.7)}),
    case("Add", "a constant that broadcasts the form", (1, 6), "x c", {"c": f(3, 6)}),
    case("Add", "a constant with more axes", (1, 6), "x c", {"c": f(2, 1, 3, 6)}),
    case("Add", "per channel", IMAGE, "x c", {"c": f(2, 1, 1)}),
    case("Add", "itself", ROW, "x x"),
    Case("Add", "its own transpose", (3, 3), (node("Transpose", "x", "t", perm=[1, 0]), node("Add", "x t"))),
    Case(
        "Add", "forms that broadcast each other", (3, 1), (node("Transpose", "x", "t", perm=[1, 0]), node("Add", "x t"))
    ),
    Case(
        "Add",
        "residual over a convolution",
        (1, 2, 4, 4),
        (node("Conv", "x w", "h", pads=[1] * 4), node("Add", "h x")),
        kernel(2, 2, 3, 3),
    ),
    Case(
        "Add",
        "two convolutions of one geometry",
        (1, 2, 4, 4),
        (node("Conv", "x w", "h"), node("Conv", "x v", "g"), node("Add", "h g")),
        {"w": f(3, 2, 3, 3), "v": f(3, 2, 3, 3)},
    ),
    Case(
        "Add",
        "two convolutions of different geometry",
        (1, 2, 4, 4),
        (node("Conv", "x w", "h", pads=[1] * 4), node("Conv", "x v", "g"), node("Add", "h g")),
        {"w": f(3, 2, 3, 3), "v": f(3, 2, 1, 1)},
    ),
    case("Sub", "a constant", ROW, "x c", {"c": f(6)}),
    case("Sub", "from a constant", ROW, "c x", {"c": f(1, 6)}),
    case("Sub", "from a number", ROW, "c x", {"c": scalar(1)}),
    case("Sub", "itself", ROW, "x x"),
    Case(
        "Sub",
        "a shifted copy",
        (1, 6),
        (node("Gather", "x i", "t", axis=1), node("Sub", "x t")),
        {"i": ints(1, 2, 3, 4, 5, 0)},
    ),
    Case("Mul", "a tensor by a function of it", ROW, (node("Tanh", "x", "t"), node("Mul", "x t"))),
    Case("Mul", "columns by rows", (3, 1), (node("Transpose", "x", "t"), node("Mul", "t x"))),
    case("Mul", "a constant row", ROW, "x c", {"c": f(6)}),
    case("Mul", "by 0", ROW, "x c", {"c": scalar(0)}),
    case("Mul", "by 1", ROW, "x c", {"c": scalar(1)}),
    case("Mul", "constant first", ROW, "c x", {"c": scalar(-2.5)}),
    case("Mul", "a constant that broadcasts the form", (1, 6), "x c", {"c": f(3, 6)}),
    case("Mul", "per channel", IMAGE, "c x", {"c": f(1, 2, 1, 1)}),
    case("Mul", "per pixel", IMAGE, "c x", {"c": f(5, 6)}),
    case("Div", "a constant row", ROW, "x c", {"c": f(6)}),
    case("Div", "a number", ROW, "x c", {"c": scalar(3)}),
    case("Div", "a constant that broadcasts the form", (1, 6), "x c", {"c": f(3, 6)}),
    case("Mul", "itself", ROW, "x x"),
    Case("Mul", "itself, several times", ROW, (node("Mul", "x x", "h"), node("Mul", "h h"))),
    Case("Div", "a constant by it", ROW, (*POSITIVE, node("Div", "c h")), {**OFFSET, "c": f(6)}),
    Case("Div", "a number by the negative", ROW, (*NEGATIVE, node("Div", "c h")), {**OFFSET, "c": scalar(3)}),
    Case("Div", "a constant that broadcasts", ROW, (*POSITIVE, node("Div", "c h")), {**OFFSET, "c": f(3, 6)}),
    Case(
        "Div", "1 by a root", ROW, (*POSITIVE, node("Sqrt", "h", "r"), node("Div", "c r")), {**OFFSET, "c": scalar(1)}
    ),
    Case(
        "Div",
        "1 by the root of an image",
        IMAGE,
        (*POSITIVE, node("Sqrt", "h", "r"), node("Div", "c r")),
        {**OFFSET, "c": scalar(1)},
    ),
    Case("Reciprocal", "row", ROW, (*POSITIVE, node("Reciprocal", "h")), OFFSET),
    Case("Reciprocal", "of a root", ROW, (*POSITIVE, node("Sqrt", "h", "r"), node("Reciprocal", "r")), OFFSET),
    *[case("Pow", f"to the power {p}", ROW, "x e", {"e": scalar(p)}) for p in (2, 3, 4, 5)],
    *[case("Pow", f"of the constant {c:g}", ROW, "c x", {"c": scalar(c)}) for c in (2, 0.3, 1)],
    case("Pow", "of a constant for each entry", ROW, "c x", {"c": np.float32([0.5, 1, 2, 3, 1.5, 0.25])}),
    case("Pow", "a whole number", ROW, "x e", {"e": ints(3)}, first=12),
    case("Pow", "powers of each entry", ROW, "x e", {"e": np.float32([0, 1, 2, 3, 2, 5])}),
    case("Pow", "powers that broadcast", ROW, "x e", {"e": np.float32([[2], [1], [3]])}),
    *[
        Case(
            "Pow", f"of a positive to the power {p:g}", ROW, (*POSITIVE, node("Pow", "h e")), {**OFFSET, "e": scalar(p)}
        )
        for p in (0.5, -0.5, -1, -2, -3, 1 / 3, 1.5, -1.7)
    ],
    *[
        Case(
            "Pow", f"of a negative to the power {p:g}", ROW, (*NEGATIVE, node("Pow", "h e")), {**OFFSET, "e": scalar(p)}
        )
        for p in (2, 3, -1, -2, -3)
    ],
    Case(
        "Pow",
        "several powers of a positive",
        ROW,
        (*POSITIVE, node("Pow", "h e")),
        {**OFFSET, "e": np.float32([0.5, 1, -1, 0, 2, -0.5])},
    ),
    Case("Pow", "of two tensors", ROW, (*POSITIVE, node("Tanh", "x", "t"), node("Pow", "h t")), OFFSET),
    Case(
        "Pow",
        "of tensors that broadcast",
        (1, 2, 3),
        (*POSITIVE, node("ReduceMax", "x", "t", axes=[1], keepdims=1), node("Pow", "h t")),
        OFFSET,
        last=17,
    ),
    case("Neg", "row", ROW),
    case("Neg", "image", IMAGE),
    case("Sum", "one", ROW),
    case("Sum", "three with broadcasting", ROW, "x c d", {"c": f(6), "d": f(2, 1)}, first=8),
    case("Sum", "constants first", ROW, "c d x", {"c": f(6), "d": f(2, 1)}, first=8),
    case("Sum", "of one shape", ROW, "x c x", {"c": f(1, 6)}),
    case("Mean", "one", ROW),
    case("Mean", "three with broadcasting", ROW, "c x d", {"c": f(6), "d": f(2, 1)}, first=8),
    case("Mean", "of itself", ROW, "x x x"),
]

CURVES = [
    *[case(op, "row", ROW) for op in ("Exp", "Sin", "Cos", "Atan")],
    *[case(op, "image", IMAGE) for op in ("Exp", "Sin", "Cos", "Atan")],
    *[case(op, "row", ROW, first=9) for op in ("Asinh", "Sinh", "Cosh")],
    *[Case(op, "of positive numbers", ROW, (*POSITIVE, node(op, "h")), OFFSET) for op in ("Log", "Sqrt")],
    *[Case(op, "within a half", ROW, (*WITHIN_1, node(op, "h")), OFFSET) for op in ("Acos", "Asin", "Tan")],
    Case("Atanh", "within a half", ROW, (*WITHIN_1, node("Atanh", "h")), OFFSET, first=9),
    Case("Acosh", "above 1", ROW, (*ABOVE_1, node("Acosh", "h")), OFFSET, first=9),
]

NONLINEAR = [
    case("Relu", "row", ROW),
    case("Relu", "image", IMAGE),
    case("Relu", "one number", (1,)),
    Case("Relu", "twice", ROW, (node("Relu", "x", "h"), node("Relu", "h"))),
    case("Abs", "row", ROW),
    case("Abs", "image", IMAGE),
    case("LeakyRelu", "default", ROW),
    case("LeakyRelu", "alpha", ROW, alpha=0.3),
    case("LeakyRelu", "alpha above 1", ROW, alpha=1.7),
    case("LeakyRelu", "negative alpha", ROW, alpha=-0.5),
    case("LeakyRelu", "alpha 0", ROW, alpha=0.0),
    case("PRelu", "per channel", IMAGE, "x a", {"a": f(2, 1, 1)}),
    case("PRelu", "per channel, with batch axis", IMAGE, "x a", {"a": f(1, 2, 1, 1)}, first=9),
    case("PRelu", "per entry", ROW, "x a", {"a": f(1, 6)}),
    case("PRelu", "shared", IMAGE, "x a", {"a": f(1)}),
    case("PRelu", "last axis", IMAGE, "x a", {"a": f(6)}),
    case("Sigmoid", "row", ROW),
    case("Tanh", "row", ROW),
    case("Celu", "default", ROW, first=12),
    case("Celu", "alpha", ROW, first=12, alpha=0.4),
    case("Elu", "default", ROW),
    case("Elu", "alpha", ROW, alpha=2.5),
    case("Elu", "alpha 0", ROW, alpha=0.0),
    case("Selu", "default", ROW),
    case("Selu", "alpha and gamma", ROW, alpha=0.7, gamma=1.9),
    case("Erf", "row", ROW, first=9),
    case("Gelu", "exact", ROW, first=20),
    case("Gelu", "by tanh", ROW, first=20, approximate="tanh"),
    case("HardSigmoid", "default", ROW),
    case("HardSigmoid", "alpha and beta", ROW, alpha=0.7, beta=0.2),
    case("HardSigmoid", "falling", ROW, alpha=-0.7, beta=0.2),
    case("HardSwish", "row", ROW, first=14),
    case("Mish", "row", ROW, first=18),
    case("Softplus", "row", ROW),
    case("Softsign", "row", ROW),
    *[
        Case(
            "Swish",
            what,
            ROW,
            (node("Swish", "x", **given),),
            first=24,
            twin=(
                node("Constant", "", "a", value_float=alpha),
                node("Mul", "x a", "h"),
                node("Sigmoid", "h", "s"),
                node("Mul", "x s"),
            ),
        )
        for what, alpha, given in [("default", 1.0, {}), ("alpha", -1.5, {"alpha": -1.5})]
    ],
    Case(
        "Swish",
        "alpha 0",
        ROW,
        (node("Swish", "x", alpha=0.0),),
        first=24,
        twin=(node("Constant", "", "a", value_float=0.5), node("Mul", "x a")),
    ),
    Case("Silu", "as exporters write it", ROW, (node("Sigmoid", "x", "s"), node("Mul", "x s"))),
    Case(
        "Silu",
        "scaled inside and outside",
        ROW,
        (node("Mul", "c x", "h"), node("Sigmoid", "h", "s"), node("Mul", "s x", "g"), node("Div", "g d")),
        {"c": scalar(1.702), "d": scalar(3)},
    ),
    Case(
        "Silu",
        "falling inside",
        ROW,
        (node("Mul", "c x", "h"), node("Sigmoid", "h", "s"), node("Mul", "s x")),
        {"c": scalar(-0.5)},
    ),
    Case(
        "Gelu",
        "as exporters write it",
        ROW,
        (
            node("Div", "x r", "h"),
            node("Erf", "h", "e"),
            node("Add", "e one", "p"),
            node("Mul", "x p", "g"),
            node("Mul", "g half"),
        ),
        {"r": scalar(np.sqrt(2)), "one": scalar(1), "half": scalar(0.5)},
        first=9,
    ),
    Case(
        "Gelu",
        "halved first",
        ROW,
        (
            node("Div", "x r", "h"),
            node("Erf", "h", "e"),
            node("Add", "one e", "p"),
            node("Mul", "x half", "g"),
            node("Mul", "p g"),
        ),
        {"r": scalar(np.sqrt(2)), "one": scalar(1), "half": scalar(0.5)},
        first=9,
    ),
    Case(
        "Gelu",
        "by tanh, as exporters write it",
        ROW,
        (
            node("Mul", "x x", "q"),
            node("Mul", "x q", "k"),
            node("Mul", "a k", "l"),
            node("Add", "x l", "m"),
            node("Mul", "b m", "n"),
            node("Tanh", "n", "t"),
            node("Add", "t one", "p"),
            node("Mul", "x half", "g"),
            node("Mul", "g p"),
        ),
        {"a": scalar(0.044715), "b": scalar(np.sqrt(2 / np.pi)), "one": scalar(1), "half": scalar(0.5)},
    ),
    Case(
        "Mish", "as exporters write it", ROW, (node("Softplus", "x", "s"), node("Tanh", "s", "t"), node("Mul", "x t"))
    ),
    Case(
        "HardSwish",
        "as exporters write it",
        ROW,
        (node("Add", "x three", "h"), node("Clip", "h lo hi", "k"), node("Mul", "x k", "g"), node("Div", "g six")),
        {"three": scalar(3), "six": scalar(6), "lo": scalar(0), "hi": scalar(6)},
        first=11,
    ),
    Case("HardSwish", "by a hard sigmoid", ROW, (node("HardSigmoid", "x", "h", alpha=1 / 6), node("Mul", "x h"))),
    case("ThresholdedRelu", "alpha 0", ROW, first=10, alpha=0.0),
    case("Clip", "attributes", ROW, first=7, last=10, min=-0.5, max=0.6),
    case("Clip", "lower attribute", ROW, first=7, last=10, min=-0.5),
    case("Clip", "upper attribute", ROW, first=7, last=10, max=0.5),
    case("Clip", "no attribute", ROW, first=7, last=10),
    case("Clip", "inputs", ROW, "x lo hi", {"lo": scalar(-0.5), "hi": scalar(0.6)}, first=11),
    case("Clip", "lower input", ROW, "x lo", {"lo": scalar(-0.5)}, first=11),
    case("Clip", "upper input", ROW, "x - hi", {"hi": scalar(0.5)}, first=11),
    case("Clip", "no bound", ROW, first=11),
    case("Clip", "relu6", ROW, "x lo hi", {"lo": scalar(0), "hi": scalar(6)}, first=11),
    case("Clip", "to one number", ROW, "x lo hi", {"lo": scalar(0.25), "hi": scalar(0.25)}, first=11),
    case(
        "Clip",
        "the type's own limits",
        ROW,
        "x lo hi",
        {"lo": np.finfo(np.float32).min, "hi": np.finfo(np.float32).max},
        first=11,
    ),
    case(
        "Clip",
        "above only, by the type's limit",
        ROW,
        "x lo hi",
        {"lo": np.finfo(np.float32).min, "hi": scalar(0.4)},
        first=11,
    ),
]

POOLING = [
    case("MaxPool", "2 x 2", (1, 2, 4, 4), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", "overlapping", IMAGE, kernel_shape=[3, 2], strides=[1, 1]),
    case("MaxPool", "3 x 3", IMAGE, kernel_shape=[3, 3], strides=[2, 2]),
    case("MaxPool", "pads", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 2]),
    Case(
        "MaxPool",
        "negative numbers with pads",
        (1, 1, 3, 3),
        (node("Abs", "x", "a"), node("Neg", "a", "n"), node("MaxPool", "n", kernel_shape=[2, 2], pads=[1] * 4)),
    ),
    case("MaxPool", "ceil", (1, 2, 5, 5), first=10, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case(
        "MaxPool",
        "ceil with pads",
        (1, 1, 6, 6),
        first=10,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1] * 4,
        ceil_mode=1,
    ),
    case(
        "MaxPool",
        "ceil, last window would start outside",
        (1, 1, 4),
        first=10,
        kernel_shape=[1],
        strides=[2],
        ceil_mode=1,
    ),
    case(
        "MaxPool",
        "ceil, last window in the end's padding",
        (1, 1, 4),
        first=11,
        kernel_shape=[2],
        strides=[3],
        pads=[0, 1],
        ceil_mode=1,
    ),
    case("MaxPool", "dilations", (1, 1, 6, 6), first=10, kernel_shape=[2, 3], dilations=[3, 2]),
    case(
        "MaxPool",
        "dilations, pads, strides",
        (1, 1, 6, 6),
        first=10,
        kernel_shape=[2, 2],
        dilations=[2, 2],
        pads=[1] * 4,
        strides=[2, 1],
    ),
    case("MaxPool", "auto_pad", (1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", "auto_pad lower", (1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("MaxPool", "1-D", (1, 2, 7), kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("MaxPool", "3-D", (1, 1, 4, 3, 4), kernel_shape=[2, 2, 2], strides=[2, 1, 2]),
    case("MaxPool", "1 x 1", IMAGE, kernel_shape=[1, 1]),
    case("MaxPool", "1 x 1 with strides", IMAGE, kernel_shape=[1, 1], strides=[2, 2]),
    case("MaxPool", "the whole image", (1, 2, 3, 3), kernel_shape=[3, 3]),
    case("MaxPool", "storage order", (1, 2, 3, 3), first=8, kernel_shape=[2, 2], storage_order=1),
    case("MaxPool", "mixed full and cut windows", (1, 1, 3), kernel_shape=[2], strides=[2], pads=[1, 1]),
    Case(
        "MaxPool",
        "twice",
        (1, 1, 6, 6),
        (node("MaxPool", "x", "h", kernel_shape=[2, 2]), node("MaxPool", "h", kernel_shape=[3, 3], strides=[2, 2])),
    ),
    case("GlobalMaxPool", "image", IMAGE),
    case("GlobalMaxPool", "sequence", (1, 3, 5)),
    case("GlobalMaxPool", "one pixel", (1, 3, 1, 1)),
    case("AveragePool", "2 x 2", (1, 2, 4, 4), kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", "pads left out", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 1]),
    case("AveragePool", "pads counted", IMAGE, kernel_shape=[3, 3], pads=[1, 0, 2, 1], count_include_pad=1),
    case("AveragePool", "ceil", (1, 2, 5, 5), first=10, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case(
        "AveragePool",
        "ceil with pads left out",
        (1, 1, 6, 6),
        first=10,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1] * 4,
        ceil_mode=1,
    ),
    case(
        "AveragePool",
        "ceil with pads counted",
        (1, 1, 6, 6),
        first=10,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1] * 4,
        ceil_mode=1,
        count_include_pad=1,
    ),
    case(
        "AveragePool",
        "ceil beyond the pads, counted",
        (1, 1, 5),
        first=10,
        kernel_shape=[4],
        strides=[3],
        pads=[1, 1],
        ceil_mode=1,
        count_include_pad=1,
    ),
    case("AveragePool", "dilations", (1, 1, 6, 6), first=19, kernel_shape=[2, 2], dilations=[2, 3]),
    case(
        "AveragePool",
        "dilations with pads",
        (1, 1, 6, 6),
        first=19,
        kernel_shape=[2, 2],
        dilations=[2, 2],
        pads=[1] * 4,
    ),
    case(
        "AveragePool",
        "dilations with pads counted",
        (1, 1, 6, 6),
        first=19,
        kernel_shape=[2, 2],
        dilations=[2, 2],
        pads=[1] * 4,
        count_include_pad=1,
    ),
    case("AveragePool", "auto_pad", (1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case(
        "AveragePool",
        "auto_pad counted",
        (1, 1, 5, 5),
        kernel_shape=[2, 2],
        strides=[2, 2],
        auto_pad="SAME_LOWER",
        count_include_pad=1,
    ),
    case("AveragePool", "1-D", (1, 2, 7), kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("AveragePool", "3-D", (1, 1, 4, 3, 4), kernel_shape=[2, 2, 2], strides=[2, 1, 2]),
    case("AveragePool", "1 x 1", IMAGE, kernel_shape=[1, 1]),
    case("GlobalAveragePool", "image", IMAGE),
    case("GlobalAveragePool", "sequence", (1, 3, 5)),
    case("GlobalAveragePool", "one pixel", (1, 3, 1, 1)),
    case("Max", "one", ROW, first=8),
    case("Max", "a constant", ROW, "x c", {"c": f(6)}, first=8),
    case("Max", "0", ROW, "c x", {"c": scalar(0)}, first=8),
    case("Max", "three", ROW, "c x d", {"c": f(6), "d": f(3, 1)}, first=8),
    case("Max", "of one shape", ROW, "x c", {"c": f(1, 6)}),
    case("Max", "itself", ROW, "x x"),
    Case("Max", "two forms", (3, 3), (node("Transpose", "x", "t", perm=[1, 0]), node("Max", "x t"))),
    case("Max", "broadcasts the form", (1, 6), "x c", {"c": f(3, 6)}, first=8),
    case("Min", "one", ROW, first=8),
    case("Min", "a constant", ROW, "x c", {"c": f(6)}, first=8),
    case("Min", "three", ROW, "c x d", {"c": f(6), "d": f(3, 1)}, first=8),
    case("Min", "two constants", ROW, "c d x", {"c": f(6), "d": scalar(0.3)}, first=8),
    Case("Min", "two forms", (3, 3), (node("Transpose", "x", "t", perm=[1, 0]), node("Min", "x t"))),
]


def reductions(op: str, first_input: int) -> list[Case]:
    return [
        case(op, "axes attribute", (2, 3, 4), last=first_input - 1, axes=[1]),
        case(op, "negative axes attribute", (2, 3, 4), first=11, last=first_input - 1, axes=[-1, 0]),
        case(op, "keepdims 0", (2, 3, 4), last=first_input - 1, axes=[2, 0], keepdims=0),
        case(op, "all axes", (2, 3, 4), keepdims=0),
        case(op, "all axes kept", (2, 3, 4)),
        case(op, "axes input", (2, 3, 4), "x a", {"a": ints(1)}, first=first_input),
        case(op, "negative axes input", (2, 3, 4), "x a", {"a": ints(-1, 0)}, first=first_input, keepdims=0),
        case(op, "empty axes input", (2, 3), "x a", {"a": np.zeros(0, np.int64)}, first=first_input),
        case(
            op, "nothing to do", (2, 3), "x a", {"a": np.zeros(0, np.int64)}, first=first_input, noop_with_empty_axes=1
        ),
        case(op, "axes left out, nothing to do", (2, 3), "x", first=first_input, noop_with_empty_axes=1),
        case(op, "an axis of 1", (1, 3), last=first_input - 1, axes=[0], keepdims=0),
        case(op, "every axis by name", (2, 3), "x a", {"a": ints(0, 1)}, first=first_input, keepdims=0),
    ]


def _reading_h(own: NodeProto) -> NodeProto:
    """Return the node with h as its first input."""
    read = NodeProto()
    read.CopyFrom(own)
    read.input[0] = "h"
    return read


REDUCTIONS = [
    *reductions("ReduceL1", 18),
    *reductions("ReduceL2", 18),
    *[
        replace(one, nodes=(*POSITIVE, _reading_h(one.nodes[0])), constants={**one.constants, **OFFSET})
        for one in reductions("ReduceLogSum", 18)
    ],
    *reductions("ReduceLogSumExp", 18),
    *reductions("ReduceSumSquare", 18),
    *reductions("ReduceSum", 13),
    *reductions("ReduceMean", 18),
    *reductions("ReduceMax", 18),
    *reductions("ReduceMin", 18),
]

CUBE = (2, 3, 4)

MOVEMENT = [
    Case("Concat", "form and constant", ROW, (node("Concat", "x c", axis=1),), {"c": f(1, 3)}),
    Case("Concat", "constant and form", ROW, (node("Concat", "c x", axis=1),), {"c": f(1, 3)}),
    Case("Concat", "form and itself", ROW, (node("Concat", "x c x", axis=0),), {"c": f(1, 6)}),
    Case("Concat", "negative axis", CUBE, (node("Concat", "x c", axis=-2),), {"c": f(2, 1, 4)}, first=11),
    Case("Concat", "one", CUBE, (node("Concat", "x", axis=1),)),
    Case(
        "Concat",
        "channels of two branches",
        (1, 2, 4, 4),
        (node("Conv", "x w", "h", pads=[1] * 4), node("Relu", "h", "r"), node("Concat", "x r", axis=1)),
        kernel(3, 2, 3, 3),
    ),
    Case("Concat", "an empty constant", ROW, (node("Concat", "x c", axis=1),), {"c": f(1, 0)}),
    case("DepthToSpace", "depth first", (1, 8, 2, 3), blocksize=2),
    case("DepthToSpace", "DCR", (1, 8, 2, 3), first=11, blocksize=2, mode="DCR"),
    case("DepthToSpace", "CRD", (1, 8, 2, 3), first=11, blocksize=2, mode="CRD"),
    case("SpaceToDepth", "2", (1, 2, 4, 6), blocksize=2),
    case("Expand", "row to matrix", (1, 3), "x s", {"s": ints(4, 3)}, first=8),
    case("Expand", "more axes", (3, 1), "x s", {"s": ints(2, 1, 4)}, first=8),
    case("Expand", "ones mean leave it", (1, 3), "x s", {"s": ints(1, 1)}, first=8),
    case("Flatten", "default", CUBE),
    case("Flatten", "axis 0", CUBE, axis=0),
    case("Flatten", "axis 2", CUBE, axis=2),
    case("Flatten", "last axis", CUBE, axis=3),
    case("Flatten", "negative axis", CUBE, first=11, axis=-1),
    case("Gather", "rows", CUBE, "x i", {"i": ints(1, 0, 1)}, axis=0),
    case("Gather", "negative indices", CUBE, "x i", {"i": ints(-1, 0, -3)}, first=11, axis=1),
    case("Gather", "one index drops the axis", CUBE, "x i", {"i": np.int64(2)}, axis=2),
    case("Gather", "a matrix of indices", CUBE, "x i", {"i": ints(0, 1, 2, 0).reshape(2, 2)}, axis=1),
    case("Gather", "negative axis", CUBE, "x i", {"i": ints(3, 1)}, first=11, axis=-1),
    case("Gather", "int32 indices", CUBE, "x i", {"i": np.array([1, 0], np.int32)}, axis=2),
    case("GatherND", "points", CUBE, "x i", {"i": ints(0, 1, 2, 1, 0, 3).reshape(2, 3)}, first=11),
    case("GatherND", "slices", CUBE, "x i", {"i": ints(1, 2, 0, 0).reshape(2, 2)}, first=11),
    case("GatherND", "negative", CUBE, "x i", {"i": ints(-1, -1).reshape(1, 2)}, first=11),
    case("GatherND", "batch_dims", CUBE, "x i", {"i": ints(1, 2).reshape(2, 1)}, first=12, batch_dims=1),
    case("Pad", "constant, opset 9", (2, 3), last=10, pads=[0, 1, 2, 0], value=0.5),
    case("Pad", "zeros, opset 9", (2, 3), last=10, pads=[0, 1, 2, 0], mode="constant"),
    case("Pad", "reflect, opset 9", (2, 3), last=10, pads=[1, 1, 0, 2], mode="reflect"),
    case("Pad", "edge, opset 9", (2, 3), last=10, pads=[2, 1, 0, 3], mode="edge"),
    case("Pad", "constant", (2, 3), "x p v", {"p": ints(0, 1, 2, 0), "v": scalar(-1.5)}, first=11),
    case("Pad", "zeros", (2, 3), "x p", {"p": ints(0, 1, 2, 0)}, first=11),
    case("Pad", "reflect", (2, 3), "x p", {"p": ints(1, 1, 0, 2)}, first=11, mode="reflect"),
    case("Pad", "edge", (2, 3), "x p", {"p": ints(2, 1, 0, 3)}, first=11, mode="edge"),
    case(
        "Pad",
        "edge with a value that does not matter",
        (2, 3),
        "x p v",
        {"p": ints(2, 1, 0, 3), "v": scalar(7)},
        first=11,
        mode="edge",
    ),
    case("Pad", "wrap", (3, 4), "x p", {"p": ints(1, 2, 2, 0)}, first=19, mode="wrap"),
    case("Pad", "axes", (2, 3, 2), "x p v a", {"p": ints(1, 0, 0, 2), "v": scalar(2), "a": ints(2, 0)}, first=18),
    case("Pad", "negative axes", (2, 3, 2), "x p - a", {"p": ints(1, 2), "a": ints(-2)}, first=18),
    case("Pad", "axes and edge", (2, 3, 2), "x p - a", {"p": ints(1, 2), "a": ints(1)}, first=18, mode="edge"),
    case("Pad", "nothing", (2, 3), "x p", {"p": ints(0, 0, 0, 0)}, first=11),
    Case(
        "Pad",
        "zeros before a convolution",
        (1, 2, 4, 4),
        (node("Pad", "x p", "h"), node("Conv", "h w")),
        {"p": ints(0, 0, 1, 2, 0, 0, 2, 1), "w": f(3, 2, 3, 3)},
        first=11,
    ),
    Case(
        "Pad",
        "ones before a convolution",
        (1, 2, 4, 4),
        (node("Pad", "x p v", "h"), node("Conv", "h w")),
        {"p": ints(0, 0, 1, 2, 0, 0, 2, 1), "v": scalar(1), "w": f(3, 2, 3, 3)},
        first=11,
    ),
    case("Reshape", "plain", CUBE, "x s", {"s": ints(4, 6)}),
    case("Reshape", "0 copies", CUBE, "x s", {"s": ints(0, 12)}),
    case("Reshape", "-1 is found", CUBE, "x s", {"s": ints(-1, 3)}),
    case("Reshape", "0 and -1", CUBE, "x s", {"s": ints(0, -1, 2)}),
    case("Reshape", "to a vector", CUBE, "x s", {"s": ints(-1)}),
    case("Reshape", "to a number", (1, 1), "x s", {"s": np.zeros(0, np.int64)}),
    case("Reshape", "allowzero", CUBE, "x s", {"s": ints(4, 6)}, first=14, allowzero=1),
    Case(
        "Reshape",
        "to a shape that is computed",
        CUBE,
        (
            node("Shape", "x", "all"),
            node("Gather", "all zero", "first"),
            node("Unsqueeze", "first", "one", axes=[0]),
            node("Concat", "one minus", "s", axis=0),
            node("Reshape", "x s"),
        ),
        {"zero": np.int64(0), "minus": ints(-1)},
        last=12,
    ),
    case("Slice", "attributes", CUBE, last=9, starts=[1, 0], ends=[3, 2], axes=[1, 2]),
    case("Slice", "attributes without axes", CUBE, last=9, starts=[0, 1], ends=[1, 100]),
    case("Slice", "negative attributes", CUBE, last=9, starts=[-2], ends=[-1], axes=[2]),
    case("Slice", "inputs", CUBE, "x s e", {"s": ints(0, 1), "e": ints(1, 100)}, first=10),
    case(
        "Slice",
        "axes and steps",
        CUBE,
        "x s e a t",
        {"s": ints(0, 0), "e": ints(4, 3), "a": ints(2, 1), "t": ints(2, 2)},
        first=10,
    ),
    case(
        "Slice", "backwards", CUBE, "x s e a t", {"s": ints(-1), "e": ints(-100), "a": ints(2), "t": ints(-1)}, first=10
    ),
    case(
        "Slice",
        "backwards by 2",
        CUBE,
        "x s e a t",
        {"s": ints(3), "e": ints(0), "a": ints(-1), "t": ints(-2)},
        first=11,
    ),
    case(
        "Slice",
        "steps without axes",
        (4, 4),
        "x s e - t",
        {"s": ints(0, 1), "e": ints(4, 4), "t": ints(3, 1)},
        first=10,
    ),
    case("Slice", "int32", CUBE, "x s e", {"s": np.array([1], np.int32), "e": np.array([2], np.int32)}, first=10),
    case("Split", "attribute", (2, 6), outputs="a y b", last=12, split=[1, 3, 2], axis=1),
    case("Split", "equal parts", (2, 6), outputs="a y b", last=12, axis=1),
    case("Split", "default axis", (6, 2), outputs="a y b", last=12),
    case("Split", "input", (2, 6), "x s", {"s": ints(1, 3, 2)}, outputs="a y b", first=13, axis=-1),
    case("Split", "equal parts, no input", (2, 6), outputs="a y b", first=13, last=17, axis=1),
    case("Split", "num_outputs", (2, 6), outputs="a b y", first=18, num_outputs=3, axis=1),
    case("Split", "num_outputs that do not divide", (2, 7), outputs="a b y", first=18, num_outputs=3, axis=1),
    Case(
        "Split",
        "put together differently",
        (2, 6),
        (node("Split", "x", "a b", axis=1), node("Relu", "b", "c"), node("Concat", "c a", axis=1)),
        last=17,
    ),
    case("Squeeze", "attribute", (1, 3, 1, 2), last=12, axes=[0, 2]),
    case("Squeeze", "negative attribute", (1, 3, 1), first=11, last=12, axes=[-1]),
    case("Squeeze", "all", (1, 3, 1, 2)),
    case("Squeeze", "input", (1, 3, 1, 2), "x a", {"a": ints(2)}, first=13),
    case("Squeeze", "negative input", (1, 3, 1, 2), "x a", {"a": ints(-2, 0)}, first=13),
    case("Unsqueeze", "attribute", (3, 2), last=12, axes=[0, 3]),
    case("Unsqueeze", "input", (3, 2), "x a", {"a": ints(0, 3)}, first=13),
    case("Unsqueeze", "negative input", (3, 2), "x a", {"a": ints(-1)}, first=13),
    case("Tile", "both axes", (2, 3), "x r", {"r": ints(2, 3)}),
    case("Tile", "once", (2, 3), "x r", {"r": ints(1, 1)}),
    case("Transpose", "default", CUBE),
    case("Transpose", "perm", CUBE, perm=[1, 2, 0]),
]

FOUR_CHANNELS = (1, 4, 3, 2)


def stretched(*shape: int) -> dict[str, Any]:
    return {"s": f(*shape), "b": f(*shape)}


NORMS = [
    case("LayerNormalization", "one axis", ROW, "x s b", stretched(6), first=17),
    case("LayerNormalization", "no bias", (1, 3, 4), "x s", {"s": f(4)}, first=17, axis=-1, epsilon=0.1),
    case("LayerNormalization", "axes from 1 on", FOUR_CHANNELS, "x s b", stretched(4, 3, 2), first=17, axis=1),
    case("LayerNormalization", "axes from -2 on", FOUR_CHANNELS, "x s b", stretched(3, 2), first=17, axis=-2),
    case("LayerNormalization", "a scale that is broadcast", FOUR_CHANNELS, "x s b", stretched(3, 1), first=17, axis=-2),
    case("LayerNormalization", "several rows", (3, 6), "x s b", stretched(6), first=17),
    case("RMSNormalization", "one axis", ROW, "x s", {"s": f(6)}, first=23),
    case("RMSNormalization", "axes from 1 on", FOUR_CHANNELS, "x s", {"s": f(4, 3, 2)}, first=23, axis=1, epsilon=0.01),
    case("InstanceNormalization", "an image", FOUR_CHANNELS, "x s b", stretched(4)),
    case("InstanceNormalization", "a sequence", (1, 3, 5), "x s b", stretched(3), epsilon=0.1),
    case("InstanceNormalization", "a volume", (1, 2, 2, 3, 2), "x s b", stretched(2)),
    case("GroupNormalization", "a scale a channel", FOUR_CHANNELS, "x s b", stretched(4), first=21, num_groups=2),
    case(
        "GroupNormalization", "a scale a group", FOUR_CHANNELS, "x s b", stretched(2), first=18, last=20, num_groups=2
    ),
    case("GroupNormalization", "one group", (1, 4, 5), "x s b", stretched(4), first=21, num_groups=1, epsilon=0.1),
    *[  # at 0 there is no direction
        Case(op, what, shape, (node("Add", "x c", "z"), node(op, "z", **given)), {"c": f(*shape) + 3}, first)
        for op, what, shape, first, given in [
            ("LpNormalization", "length", ROW, 7, {"axis": 1, "p": 2}),
            ("LpNormalization", "length along the last axis", FOUR_CHANNELS, 7, {}),
            ("LpNormalization", "sum of sizes", FOUR_CHANNELS, 7, {"axis": 1, "p": 1}),
            ("MeanVarianceNormalization", "channels", FOUR_CHANNELS, 9, {}),
            ("MeanVarianceNormalization", "other axes", FOUR_CHANNELS, 9, {"axes": [1, -1]}),
        ]
    ],
    case("LRN", "three channels", FOUR_CHANNELS, size=3, alpha=0.3, beta=0.75, bias=0.5),
    case("LRN", "wider than the channels", FOUR_CHANNELS, size=9, alpha=0.1, beta=1.0, bias=2.0),
    case("LRN", "as it comes", (1, 5, 2, 2), size=5),
    Case("Div", "by a tensor", ROW, (node("Exp", "x", "e"), node("Div", "x e"))),
    Case(
        "Div",
        "by a tensor that is broadcast",
        (1, 3, 4),
        (node("Exp", "x", "e"), node("ReduceMax", "e", "t", axes=[2]), node("Div", "x t")),
        last=17,
    ),
]

COUPLED = [
    *[
        Case(
            "Softmax",
            f"inside, {shape}, axis {axis}",
            shape,
            (node("Softmax", "x", "s", **given), node("Neg", "s")),
            first=first,
            last=last,
        )
        for shape, axis, given, first, last in [
            (ROW, "left out", {}, 7, NEWEST),
            ((2, 3, 4), "left out", {}, 13, NEWEST),
            ((2, 3, 4), "left out before 13", {}, 7, 12),
            ((2, 3, 4), 0, {"axis": 0}, 7, NEWEST),
            ((2, 3, 4), 1, {"axis": 1}, 7, NEWEST),
            ((2, 3, 4), -1, {"axis": -1}, 11, NEWEST),
            ((1, 3), 0, {"axis": 0}, 13, NEWEST),
        ]
    ],
    *[
        Case(
            "RNN",
            what,
            (5, 1, 3),
            (node("RNN", inputs, outputs, hidden_size=4, **given),),
            {"w": f(n, 4, 3), "r": f(n, 4, 4), "b": f(n, 8), "h": f(n, 1, 4), "l": np.array([5], np.int32)},
            first=14,
        )
        for what, n, inputs, outputs, given in [
            ("all states", 1, "x w r", "y", {}),
            ("last state", 1, "x w r b", "- y", {}),
            ("initial state", 1, "x w r b - h", "y", {}),
            ("length stated", 1, "x w r b l h", "y", {}),
            ("backwards", 1, "x w r b - h", "y", {"direction": "reverse"}),
            ("backwards, last state", 1, "x w r b - h", "- y", {"direction": "reverse"}),
            ("both ways", 2, "x w r b - h", "y", {"direction": "bidirectional"}),
            ("both ways, last states", 2, "x w r b - h", "- y", {"direction": "bidirectional"}),
            ("relu", 1, "x w r b", "y", {"activations": ["Relu"]}),
            ("two activations", 2, "x w r b", "y", {"direction": "bidirectional", "activations": ["Relu", "Sigmoid"]}),
        ]
    ],
    Case(
        "RNN",
        "a state that depends on the input",
        (2, 1, 4),
        (node("Gather", "x i", "h", axis=0), node("RNN", "x w r - - h", "y", hidden_size=4)),
        {"w": f(1, 4, 4), "r": f(1, 4, 4), "i": ints(1)},
        first=14,
    ),
    Case(
        "RNN",
        "one step",
        (1, 1, 3),
        (node("RNN", "x w r", "y", hidden_size=2),),
        {"w": f(1, 2, 3), "r": f(1, 2, 2)},
        first=14,
    ),
]

RESIZE = [
    case("Upsample", "nearest, attribute", (1, 2, 2, 3), last=8, scales=[1.0, 1.0, 2.0, 3.0], mode="nearest"),
    case("Upsample", "nearest", (1, 2, 2, 3), "x s", {"s": np.float32([1, 1, 2, 3])}, first=9, last=9),
    case("Upsample", "linear", (1, 2, 2, 3), "x s", {"s": np.float32([1, 1, 2, 3])}, first=9, last=9, mode="linear"),
    case("Resize", "nearest, opset 10", (1, 2, 2, 3), "x s", {"s": np.float32([1, 1, 2, 1.5])}, first=10, last=10),
    case(
        "Resize",
        "shrinks, opset 10",
        (1, 2, 4, 6),
        "x s",
        {"s": np.float32([1, 1, 0.5, 0.7])},
        first=10,
        last=10,
    ),
    case(
        "Resize",
        "linear, opset 10",
        (1, 2, 2, 3),
        "x s",
        {"s": np.float32([1, 1, 2, 2])},
        first=10,
        last=10,
        mode="linear",
    ),
    *[
        case(
            "Resize",
            f"{mode}, {coordinates}, {shape}",
            (1, 1, 3, 4),
            "x r s",
            {"r": np.zeros(0, np.float32), "s": np.float32([1, 1, *shape])},
            first=11,
            mode=mode,
            coordinate_transformation_mode=coordinates,
        )
        for mode in ("nearest", "linear")
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for shape in ((2, 2), (1.5, 2.5), (0.5, 0.75), (0.4, 0.3))
    ],
    *[
        case("Resize", f"nearest, opset 10, {scale:g}", (1, 7), "x s", {"s": np.float32([1, scale])}, first=10, last=10)
        for scale in (0.15, 0.3, 0.35, 0.6, 0.7, 0.9, 1.1, 1.3, 2.7)
    ],
    *[
        case(
            "Resize",
            f"{rounding}, {coordinates}, 1.1 and 1.2",  # 6 / 1.2 is 5 in float32 and less in float64
            (1, 1, 5, 7),
            "x - s",
            {"s": np.float32([1, 1, 1.1, 1.2])},
            first=19,
            nearest_mode=rounding,
            coordinate_transformation_mode=coordinates,
        )
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    ],
    *[
        case(
            "Resize",
            f"{mode}, too little to change a length",
            (1, 7),
            "x - s",
            {"s": np.float32([1, 1.1])},
            first=13,
            mode=mode,
        )
        for mode in ("nearest", "linear")
    ],
    *[
        case(
            "Resize",
            f"nearest, {rounding}",
            (1, 1, 3, 4),
            "x r s",
            {"r": np.zeros(0, np.float32), "s": np.float32([1, 1, 2.3, 1.7])},
            first=11,
            mode="nearest",
            nearest_mode=rounding,
        )
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ],
    case("Resize", "sizes", (1, 2, 3, 4), "x - - z", {"z": ints(1, 2, 5, 7)}, first=13, mode="linear"),
    case(
        "Resize",
        "sizes, one of them 1",
        (1, 2, 3, 4),
        "x - - z",
        {"z": ints(1, 2, 1, 7)},
        first=13,
        mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
    ),
    case("Resize", "axes", (1, 2, 3, 4), "x - s", {"s": np.float32([2, 1.5])}, first=18, mode="linear", axes=[2, 3]),
    case("Resize", "axes in another order", (1, 2, 3, 4), "x - s", {"s": np.float32([2, 1])}, first=18, axes=[3, 2]),
    case("Resize", "channels too", (1, 2, 3, 4), "x - s", {"s": np.float32([1, 2, 1, 2])}, first=13, mode="nearest"),
    case("Resize", "1-D", (1, 2, 5), "x - s", {"s": np.float32([1, 1, 1.6])}, first=13, mode="linear"),
    case(
        "Resize",
        "half_pixel_symmetric",
        (1, 1, 3, 4),
        "x - s",
        {"s": np.float32([1, 1, 2.3, 1.7])},
        first=19,
        mode="linear",
        coordinate_transformation_mode="half_pixel_symmetric",
    ),
]

SAME_NUMBER = [
    case("Cast", "to float", ROW, to=TensorProto.FLOAT),
    Case(
        "Cast",
        "to double and back",
        ROW,
        (node("Cast", "x", "d", to=TensorProto.DOUBLE), node("Cast", "d", to=TensorProto.FLOAT)),
    ),
    case("Dropout", "default", ROW),
    case("Dropout", "ratio", ROW, last=11, ratio=0.7),
    case("Dropout", "ratio input", ROW, "x r", {"r": scalar(0.7)}, first=12),
    case("Dropout", "training mode off", ROW, "x r t", {"r": scalar(0.7), "t": np.array(False)}, first=12),
    Case(
        "Dropout",
        "its mask is all true",
        ROW,
        (node("Dropout", "x", "h m"), node("Cast", "m", "c", to=TensorProto.FLOAT), node("Add", "h c")),
        first=12,
    ),
    Case(
        "Dropout",
        "its mask before opset 12",
        ROW,
        (node("Dropout", "x", "h m"), node("Cast", "m", "c", to=TensorProto.FLOAT), node("Add", "h c")),
        first=10,
        last=11,
    ),
    case("Identity", "row", ROW),
    Case("Identity", "of identities", ROW, (node("Identity", "x", "h"), node("Identity", "h", "g"), node("Relu", "g"))),
    Case(
        "Shape",
        "as a factor",
        CUBE,
        (
            node("Shape", "x", "s"),
            node("Cast", "s", "c", to=TensorProto.FLOAT),
            node("ReduceMax", "c", "n", keepdims=0),
            node("Mul", "x n"),
        ),
    ),
    Case(
        "Shape",
        "start and end",
        CUBE,
        (node("Shape", "x", "s", start=1, end=-1), node("Cast", "s", "c", to=TensorProto.FLOAT), node("Mul", "x c")),
        first=15,
    ),
    Case(
        "Shape",
        "negative start",
        CUBE,
        (node("Shape", "x", "s", start=-1), node("Cast", "s", "c", to=TensorProto.FLOAT), node("Mul", "x c")),
        first=15,
    ),
    Case(
        "Size",
        "as a factor",
        CUBE,
        (node("Size", "x", "s"), node("Cast", "s", "c", to=TensorProto.FLOAT), node("Mul", "x c")),
    ),
]

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FIRST_STATES = {"RNN": "h", "GRU": "h", "LSTM": "h c"}


def recurrent(op: str, what: str, inputs: str, outputs: str, *, batch: int = 1, n: int = 1, **given: Any) -> Case:
    """Return a layer with 3 states over 4 steps of 2 inputs, in n directions."""
    rows = 3 * GATES[op]
    constants = {"w": f(n, rows, 2), "r": f(n, rows, 3), "b": f(n, 2 * rows), "p": f(n, 9)}
    constants |= {"h": f(n, batch, 3), "c": f(n, batch, 3), "l": np.array([3, 1, 4][:batch], np.int32)}
    return Case(op, what, (4, batch, 2), (node(op, inputs, outputs, hidden_size=3, **given),), constants, first=14)


def recurrent_cases(op: str) -> list[Case]:
    states = FIRST_STATES[op]
    last = ["- y", "- - y"][: len(states.split())]
    two = {"n": 2, "direction": "bidirectional"}
    functions = {
        "RNN": [["HardSigmoid"], ["ScaledTanh"], ["LeakyRelu"]],
        "GRU": [["HardSigmoid", "Softsign"], ["Sigmoid", "Affine"], ["Sigmoid", "Elu"]],
        "LSTM": [["HardSigmoid", "Softsign", "Tanh"], ["Sigmoid", "ScaledTanh", "Affine"], ["Sigmoid", "Elu", "Tanh"]],
    }[op]
    return [
        recurrent(op, "one sequence", "x w r b", "y"),
        recurrent(op, "first states", f"x w r b - {states}", "y"),
        *[recurrent(op, f"last state {outputs}", f"x w r b - {states}", outputs) for outputs in last],
        recurrent(op, "backwards to the first", f"x w r b - {states}", "- y", direction="reverse"),
        recurrent(op, "both ways, lengths", f"x w r b l {states}", "y", batch=3, **two),
        *[recurrent(op, f"both ways, lengths {o}", f"x w r b l {states}", o, batch=3, **two) for o in last],
        recurrent(op, "several sequences", "x w r", "y", batch=2),
        recurrent(op, "clipped", f"x w r b - {states}", "y", clip=0.4),
        *[
            recurrent(op, ", ".join(names), "x w r b", "y", activations=names, activation_alpha=[0.3], **beta)
            for names in functions
            for beta in [{} if names[-1] in ("LeakyRelu", "Elu", "Tanh") else {"activation_beta": [0.6]}]
            if names[-2:] != ["ScaledTanh", "Affine"]
        ],
    ]


def batch_first(op: str) -> Case:
    """Return a layer with its batch axis first, which onnxruntime runs with the axes exchanged."""
    whole = recurrent(op, "batch first", "x w r b", "y", layout=1)
    outputs = node(op, "t w r b", "s", hidden_size=3)
    turns = [node("Transpose", "x", "t", perm=[1, 0, 2]), node("Transpose", "s", perm=[2, 0, 1, 3])]
    return replace(whole, shape=(1, 4, 2), twin=(turns[0], outputs, turns[1]))


RECURRENT = [
    *[each for op in ("RNN", "GRU", "LSTM") for each in recurrent_cases(op)],
    *[batch_first(op) for op in GATES],
    recurrent("GRU", "linear before the reset", "x w r b - h", "y", linear_before_reset=1),
    recurrent("GRU", "linear before the reset, clipped", "x w r b", "y", linear_before_reset=1, clip=0.3),
    recurrent("LSTM", "peepholes", "x w r b - h c p", "y"),
    recurrent("LSTM", "peepholes, clipped", "x w r b - h c p", "y", clip=0.4),
    recurrent("LSTM", "coupled gates", "x w r b - h c", "y", input_forget=1),
    recurrent("LSTM", "coupled gates, peepholes", "x w r b - h c p", "- - y", input_forget=1),
    recurrent(
        "LSTM",
        "parameters for those that have some",
        "x w r b",
        "y",
        activations=["Sigmoid", "ScaledTanh", "Affine"],
        activation_alpha=[0.7, 0.8],
        activation_beta=[0.9, 0.1],
    ),
    Case(
        "LSTM",
        "first states that depend on the input",
        (2, 1, 3),
        (node("Gather", "x i", "h", axis=0), node("Tanh", "h", "c"), node("LSTM", "x w r - - h c", "y", hidden_size=3)),
        {"w": f(1, 12, 3), "r": f(1, 12, 3), "i": ints(1)},
        first=14,
    ),
]


def attention(what: str, inputs: str = "x x x", outputs: str = "y", first: int = 23, **rest: Any) -> Case:
    """Return 2 heads of size 2 over 4 places."""
    constants = {
        "m": f(4, 4),
        "o": np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1]], np.bool_),
        "e": np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1]], np.bool_),
        "i": np.where(np.tri(4) > 0, f(4, 4), -np.inf).astype(np.float32),
        "k": f(1, 5, 4),
        "v": f(1, 5, 6),
        "p": f(1, 2, 3, 2),
        "q": f(1, 2, 3, 2),
        "n": ints(3),
    }
    heads = {"q_num_heads": 2, "kv_num_heads": 2}
    return Case(
        "Attention", what, (1, 4, 4), (node("Attention", inputs, outputs, **heads, **rest),), constants, first=first
    )


ATTENTION = [
    attention("of a tensor to itself"),
    attention("causal", is_causal=1),
    attention("scale and soft cap", scale=0.3, softcap=1.5),
    attention("a bias", "x x x m"),
    attention("a bias behind a soft cap", "x x x m", softcap=0.7),
    attention("a mask of truth values", "x x x o"),
    attention("a mask that leaves a query nothing", "x x x e"),
    attention("a bias with minus infinity", "x x x i"),
    attention("a mask and causal", "x x x o", is_causal=1),
    attention("constant keys and values", "x k v"),
    attention("constant queries", "k x x"),
    attention("a past", "x x x - p q", "y s t", is_causal=1),
    attention("keys of the past and present", "x x x - p q", "s y t"),
    attention("values of the past and present", "x x x - p q", "s t y"),
    attention("fewer keys", "x x x - - - n", first=24),
    attention("fewer keys, causal", "x x x - - - n", first=24, is_causal=1),
    Case("Attention", "heads apart", (1, 2, 3, 2), (node("Attention", "x x x", is_causal=1),), first=23),
    Case(
        "Attention",
        "heads that share keys",
        (1, 3, 8),
        (node("Gather", "x i", "k", axis=2), node("Attention", "x k k", q_num_heads=4, kv_num_heads=2)),
        {"i": ints(0, 3, 4, 5)},
        first=23,
    ),
    Case(
        "Softmax",
        "a causal mask, added",
        (3, 3),
        (node("MatMul", "x x", "h"), node("Add", "h i", "m"), node("Softmax", "m", "s"), node("MatMul", "s x")),
        {"i": np.where(np.tri(3) > 0, 0, -np.inf).astype(np.float32)},
    ),
    Case(
        "Softmax",
        "a mask along another axis",
        (3, 3),
        (node("Where", "o x z", "m"), node("Softmax", "m", "s", axis=0), node("MatMul", "s x")),
        {"o": np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], np.bool_), "z": scalar(-np.inf)},
        first=13,
    ),
    *[
        Case(
            "LinearAttention",
            rule,
            (1, 2, 3),
            (node("LinearAttention", f"x x x {rest}", "y s", q_num_heads=1, kv_num_heads=1, update_rule=rule),),
            {
                "rate": (rate := f(1, 2, 1) if "delta" in rule else np.ones((1, 2, 1), np.float32)),
                "decay": (decay := f(1, 2, 1) if "gated" in rule else np.zeros((1, 2, 1), np.float32)),
                "zero": np.zeros((1, 1, 3, 3), np.float32),
                "seen": np.float32([[1, 0], [np.exp(decay[0, 1, 0]), 1]]),
                "before": np.float32([[0, 0], [np.exp(decay[0, 1, 0]) if "delta" in rule else 0, 0]]),
                "scale": scalar(1 / np.sqrt(3)),
            },
            first=27,
            last=28,
            twin=(
                node("Transpose", "x", "t", perm=[0, 2, 1]),
                node("MatMul", "x t", "g"),
                node("Mul", "x rate", "v"),
                node("Mul", "g before", "l"),
                node("MatMul", "l v", "lv"),
                node("Sub", "x lv", "d"),
                node("Mul", "d rate", "w"),
                node("Mul", "g seen", "a"),
                node("MatMul", "a w", "o"),
                node("Mul", "o scale"),
            ),
        )
        for rule, rest in [
            ("linear", ""),
            ("gated", "- decay"),
            ("delta", "zero - rate"),
            ("gated_delta", "- decay rate"),
        ]
    ],
    Case(
        "LinearAttention",
        "a decay and a rate that depend on the input",
        (1, 1, 2),
        (
            node("Slice", "x zero one two", "g"),
            node("LinearAttention", "x x x s g g", "y z", q_num_heads=1, kv_num_heads=1, scale=1.0),
        ),
        {"zero": ints(0), "one": ints(1), "two": ints(2), "s": f(1, 1, 2, 2)},
        first=27,
        last=28,
        tolerance=1e-3,
        twin=(
            node("Slice", "x zero one two", "g"),
            node("Exp", "g", "e"),
            node("Mul", "s e", "d"),
            node("MatMul", "x d", "seen"),
            node("Sub", "x seen", "v"),
            node("Mul", "v g", "w"),
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("MatMul", "t w", "o"),
            node("Add", "d o", "z"),
            node("MatMul", "x z"),
        ),
    ),
    *[
        Case(
            "SwiGLU",
            what,
            (1, 3),
            (node("Neg", "x", "b"), node("SwiGLU", inputs, alpha=1.5)),
            {"c": f(1, 3), "a": scalar(1.5)},
            first=28,
            last=28,
            twin=(
                node("Neg", "x", "b"),
                node("Mul", f"{inputs.split()[0]} a", "h"),
                node("Sigmoid", "h", "s"),
                node("Mul", f"{inputs.split()[0]} s", "g"),
                node("Mul", f"g {inputs.split()[1]}"),
            ),
        )
        for what, inputs in [("both move", "x b"), ("a constant gate", "c x"), ("a constant value", "x c")]
    ],
]

PRODUCTS = [
    case("ReduceProd", "all axes", (2, 3)),
    case("ReduceProd", "an axis, attribute", (2, 5), last=17, axes=[1], keepdims=0),
    case("ReduceProd", "an axis, input", (2, 5), "x a", {"a": ints(1)}, first=18),
    *[
        case("CumProd", what, (2, 4), "x a", {"a": np.int64(1)}, first=26, **given)
        for what, given in [
            ("plain", {}),
            ("exclusive", {"exclusive": 1}),
            ("reverse", {"reverse": 1}),
            ("both", {"exclusive": 1, "reverse": 1}),
        ]
    ],
    *[case("Det", f"{n} rows", (1, 2, n, n), first=11) for n in (1, 2, 3, 4)],
    *[
        Case("Einsum", f"of two: {text}", shape, (node("Einsum", "x x", equation=text),), first=12)
        for text, shape in [
            ("bi,bj->bij", (2, 3)),
            ("bi,bi->b", (2, 3)),
            ("bij,bkj->bik", (1, 2, 3)),
            ("bii,bij->bj", (1, 3, 3)),
            ("...i,...j", (2, 3)),
        ]
    ],
    Case(
        "Einsum",
        "a bilinear layer",
        (1, 3),
        (node("Einsum", "x w x", equation="bi,oij,bj->bo"),),
        {"w": f(4, 3, 3)},
        first=12,
    ),
    Case(
        "Einsum",
        "of three",
        (2, 3),
        (node("Einsum", "x x x w", equation="bi,bj,bk,k->b"),),
        {"w": f(3)},
        first=12,
    ),
]

OPERATOR_CASES = [
    *CURVES,
    *LINEAR,
    *CONVOLUTIONS,
    *ARITHMETIC,
    *NONLINEAR,
    *POOLING,
    *REDUCTIONS,
    *COUPLED,
    *NORMS,
    *MOVEMENT,
    *RESIZE,
    *SAME_NUMBER,
    *RECURRENT,
    *ATTENTION,
    *PRODUCTS,
]
