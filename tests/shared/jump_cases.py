"""Uses of every operator that jumps, or computes with quantised numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.shared.implicit_models import node
from tests.shared.operator_cases import ROW, Case, case, f, scalar

RNG = np.random.default_rng(21)
TYPES = {
    "Cast": TensorProto.FLOAT,
    "CastInt": TensorProto.INT64,
    "CastBool": TensorProto.BOOL,
    "Cast8": TensorProto.INT8,
}


def chain(
    op: str,
    what: str,
    text: str,
    constants: dict[str, Any],
    *,
    shape: tuple[int, ...] = ROW,
    first: int = 13,
    **of: Any,
) -> Case:
    """Return a chain of nodes, `Op inputs -> output; ...`; `of` are the attributes of the operator of the case."""
    made = []
    for part in text.split(";"):
        left, right = part.split("->")
        name, *inputs = left.split()
        attributes: dict[str, Any] = {"to": TYPES[name]} if name in TYPES else {}
        own = "Cast" if name in TYPES else name
        if own == op and own != "Cast":
            attributes |= of
        if own == "MaxPool":
            attributes |= {"kernel_shape": [2, 2], "strides": [2, 2]}
        made.append(node(own, " ".join(inputs), right.strip(), **attributes))
    return Case(op, what, shape, tuple(made), constants, first=first, tolerance=1e-4)


A, B = {"a": scalar(0.3)}, {"b": scalar(-0.4)}
PAIR = {**A, **B}
QUANTISED = "QuantizeLinear x s z -> q; DequantizeLinear q s z -> y"


def numbers(low: int, high: int, *shape: int, kind: Any = np.int8) -> Any:
    return RNG.integers(low, high, size=shape).astype(kind)


def grid(scale: float, zero: int, kind: Any = np.int8) -> dict[str, Any]:
    return {"s": scalar(scale), "z": kind(zero)}


LAYER = {
    **grid(0.05113, 3),
    "w": numbers(-60, 60, 6, 4),
    "ws": scalar(0.01319),
    "wz": np.int8(2),
    "ys": scalar(0.09173),
    "yz": np.int8(-4),
}
IMAGE = {
    **grid(0.05113, 128, np.uint8),
    "w": numbers(-60, 60, 3, 2, 3, 3),
    "ws": np.float32([0.01319, 0.02173, 0.01717]),
    "wz": np.zeros(3, np.int8),
    "ys": scalar(0.11371),
    "yz": np.uint8(128),
    "b": np.int32([10, -30, 100]),
}

JUMP_CASES = [
    *(case(op, "alone", ROW, first=9) for op in ("Ceil", "Floor", "Sign")),
    case("Round", "alone", ROW, first=11),
    *(
        chain("Floor", f"behind a layer, {shape}", "MatMul x w -> h; Floor h -> y", {"w": f(6, 4)}, shape=shape)
        for shape in ((1, 6), (2, 6))
    ),
    *(
        chain("Mod", f"of floats, {name}", "Mod x a -> y", {"a": np.float32(by)}, fmod=1)
        for name, by in (("0.7", 0.7), ("below 0", -0.3), ("each", [0.5, 2, -1, 3, 0.1, -0.25]))
    ),
    case("ThresholdedRelu", "above 0", ROW, first=10, alpha=0.5),
    case("ThresholdedRelu", "below 0", ROW, first=10, alpha=-0.5),
    case("Shrink", "hard", ROW, first=9, lambd=0.5),
    case("Shrink", "past its threshold", ROW, first=9, lambd=0.4, bias=0.9),
    *(
        chain(op, "a number", f"{op} x a -> c; Cast c -> y", A)
        for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    chain("Equal", "a number", "Relu x -> r; Equal r z -> c; Cast c -> y", {"z": scalar(0)}),
    chain("Equal", "whole numbers", "Floor x -> h; CastInt h -> n; Equal n k -> c; Cast c -> y", {"k": np.int64(0)}),
    chain("Equal", "two tensors", "Relu x -> r; Equal x r -> c; Cast c -> y", {}),
    chain("Greater", "the constant first", "Greater a x -> c; Cast c -> y", A),
    chain("Less", "two tensors", "Tanh x -> t; Less x t -> c; Cast c -> y", {}),
    chain("Greater", "the same twice", "Greater x a -> c; Cast c -> m; Add x m -> p; Mul p a -> r; Add r m -> y", A),
    chain("Not", "of a comparison", "Less x a -> c; Not c -> d; Cast d -> m; Add m x -> y", A),
    chain("Not", "of both", "Less x a -> c; Greater x b -> d; And c d -> e; Not e -> g; Cast g -> y", PAIR),
    *(
        chain(op, "of two comparisons", f"Less x a -> c; Greater x b -> d; {op} c d -> e; Cast e -> y", PAIR)
        for op in ("And", "Or", "Xor")
    ),
    chain("And", "with constants", "Less x a -> c; And c k -> e; Cast e -> y", {**A, "k": np.array([True, False] * 3)}),
    chain("Where", "between constants", "Less x a -> c; Where c a b -> y", PAIR),
    chain(
        "Where",
        "between constants, by two comparisons",
        "Less x a -> c; Greater x b -> d; Or c d -> e; Where e a b -> y",
        PAIR,
    ),
    chain("Where", "a jump and a bend", "Less x a -> c; Mul x b -> m; Where c m x -> y", PAIR),
    chain("Where", "a jump and a bend, above", "Greater x a -> c; Mul x b -> m; Add m b -> n; Where c n x -> y", PAIR),
    chain("Where", "constants on one side", "Greater a x -> c; Where c b x -> y", PAIR),
    chain("Where", "the tensor itself or 1", "Greater x a -> c; Where c x k -> y", {**A, "k": scalar(1)}),
    chain(
        "Where",
        "whole numbers",
        "Greater x a -> c; Where c p q -> n; Add n p -> m; Cast m -> y",
        {**A, "p": np.int64(3), "q": np.int64(-2)},
    ),
    chain("Where", "a border that is computed", "Mul x b -> m; Greater m a -> c; Where c x a -> y", PAIR),
    chain("Where", "two other tensors", "Greater x a -> c; Neg x -> n; Tanh x -> t; Where c n t -> y", A),
    chain("Where", "by two comparisons", "Greater x a -> c; Less x b -> d; Or c d -> e; Where e x a -> y", PAIR),
    chain("Mul", "two truth values", "Greater x a -> c; Cast c -> m; Mul m m -> y", A),
    chain("Mul", "by a mask of another tensor", "Tanh x -> t; Greater x a -> c; Cast c -> m; Mul t m -> y", A),
    chain("Mul", "by a mask that jumps", "Greater x a -> c; Cast c -> m; Mul x m -> y", A),
    chain("Cast", "to whole numbers and back", "Mul x k -> h; CastInt h -> n; Cast n -> y", {"k": scalar(3)}),
    chain("Cast", "to truth and back", "CastBool x -> n; Cast n -> y", {}),
    chain("Cast", "a comparison to int8", "Greater x a -> c; Cast8 c -> n; Cast n -> y", A),
    chain(
        "Cast", "whole numbers to truth", "Mul x k -> h; CastInt h -> n; CastBool n -> c; Cast c -> y", {"k": scalar(2)}
    ),
    chain("QuantizeLinear", "int8", QUANTISED, grid(0.05, 3)),
    chain("QuantizeLinear", "saturates", QUANTISED, grid(0.005, 100, np.uint8), first=10),
    chain("QuantizeLinear", "int16", QUANTISED, grid(0.001, -7, np.int16), first=21),
    chain(
        "QuantizeLinear",
        "the usual zero point",
        "QuantizeLinear x s -> q; DequantizeLinear q s -> y",
        {"s": scalar(0.06)},
        first=10,
    ),
    chain(
        "DequantizeLinear",
        "a scale for each channel",
        QUANTISED,
        {"s": np.float32([0.1, 0.3]), "z": np.int8([1, -2])},
        shape=(1, 2, 3),
    ),
    chain(
        "DequantizeLinear",
        "on another grid",
        "QuantizeLinear x s z -> q; DequantizeLinear q t z -> y",
        {**grid(0.05113, 3), "t": scalar(0.07)},
    ),
    chain(
        "DequantizeLinear",
        "moved between, and quantised again",
        "QuantizeLinear x s z -> q; DequantizeLinear q s z -> d; MaxPool d -> m; QuantizeLinear m s z -> p; "
        "Flatten p -> g; DequantizeLinear g s z -> y",
        grid(0.05, 3),
        shape=(1, 2, 4, 4),
        first=12,
    ),
    chain(
        "DequantizeLinear",
        "whole numbers compete",
        "QuantizeLinear x s z -> q; MaxPool q -> m; DequantizeLinear m s z -> y",
        grid(0.05, 3),
        shape=(1, 2, 4, 4),
    ),
    chain(
        "QLinearMatMul",
        "a layer",
        "QuantizeLinear x s z -> q; QLinearMatMul q s z w ws wz ys yz -> p; DequantizeLinear p ys yz -> y",
        LAYER,
        first=10,
    ),
    chain(
        "QLinearMatMul",
        "several rows",
        "QuantizeLinear x s z -> q; QLinearMatMul q s z w ws wz ys yz -> p; DequantizeLinear p ys yz -> y",
        LAYER,
        shape=(3, 6),
    ),
    chain(
        "QLinearConv",
        "an image",
        "QuantizeLinear x s z -> q; QLinearConv q s z w ws wz ys yz b -> p; DequantizeLinear p ys yz -> y",
        IMAGE,
        shape=(1, 2, 4, 4),
        first=10,
        pads=[1, 1, 0, 1],
        strides=[2, 1],
    ),
    chain(
        "QLinearConv",
        "without a bias, one scale",
        "QuantizeLinear x s z -> q; QLinearConv q s z w wt wu ys yz -> p; DequantizeLinear p ys yz -> y",
        {**IMAGE, "wt": scalar(0.01127), "wu": np.int8(0)},
        shape=(1, 2, 4, 4),
    ),
]
