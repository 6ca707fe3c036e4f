"""Uses of linear maps, movements and compositions that exporters write less often; `operator_cases` has the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.shared.implicit_models import NEWEST, floats, ints, node
from tests.shared.operator_cases import CUBE, IMAGE, ROW, Case, case, scalar

RNG = np.random.default_rng(21)


def f(*shape: int) -> Any:
    return floats(RNG, *shape)


def bools(*values: int) -> Any:
    return np.array(values, np.bool_)


def equation(text: str, shape: tuple[int, ...], *weights: tuple[int, ...], first: int = 12) -> Case:
    """Return an Einsum of the input, whose term is marked by '*', and of constants of these shapes."""
    terms = text.split("->")[0].split(",")
    names = ["x" if "*" in term else f"w{k}" for k, term in enumerate(terms)]
    constants = dict(zip((n for n in names if n != "x"), (f(*shape) for shape in weights), strict=True))
    return case("Einsum", text, shape, " ".join(names), constants, first=first, equation=text.replace("*", ""))


EINSUM = [
    equation("*bi,oi->bo", (1, 4), (3, 4)),
    equation("*bi,io->bo", (2, 4), (4, 3)),
    equation("*bci,oi->bco", (1, 2, 4), (3, 4)),
    equation("oc,*bchw->bohw", (1, 2, 2, 3), (3, 2)),
    equation("*ij->ji", (2, 3)),
    equation("*ij->i", (2, 3)),
    equation("*ij->", (2, 3)),
    equation("*ij", (3, 2)),
    equation("*ji", (3, 2)),
    equation("*ii->i", (3, 3)),
    equation("*ii", (3, 3)),
    equation("*iij->j", (2, 2, 3)),
    equation("*iji->ij", (2, 3, 2)),
    equation("*ij,ij->ij", (2, 3), (2, 3)),
    equation("*ij,ij->", (2, 3), (2, 3)),
    equation("*ij,j->ij", (2, 3), (3,)),
    equation("*ij,jk", (2, 3), (3, 4)),
    equation("*i,j->ij", (3,), (4,)),
    equation("*i,jj->i", (3,), (2, 2)),
    equation("*ij,kk->jik", (2, 3), (2, 2)),
    equation("*bhqd,hkd->bhqk", (1, 2, 3, 2), (2, 4, 2)),
    equation("bhqd,*bhkd->bhqk", (1, 2, 4, 2), (1, 2, 3, 2)),
    equation("ab,*bc,cd->ad", (3, 2), (2, 3), (2, 4)),
    equation("a,*b,a->b", (3,), (2,), (2,)),
    equation("*ab,bc,ca->a", (2, 3), (3, 4), (4, 2)),
    equation("*...j,jk->...k", (2, 2, 3), (3, 4)),
    equation("*...ij,...jk->...ik", (2, 1, 2, 3), (1, 4, 3, 2)),
    equation("*i...,i->...", (2, 3, 2), (2,)),
    equation("*...->...", (2, 3)),
    equation("*...i", (2, 3)),
    equation("*b...j,k...->bk...j", (2, 3, 2), (2, 3)),
    equation(" *i j , Z -> Z j", (3, 2), (2,)),
    equation("*Ab,bA->bA", (3, 2), (2, 3)),
    equation("*ij,j->i", (2, 1), (3,)),
    equation("*ij,kj->ik", (2, 3), (4, 1)),
    equation("*ij, ij->ij", (1, 3), (2, 3)),
    equation("*ij,->ij", (2, 3), ()),
    equation("*i,i->", (3,), (3,)),
]

WHERE = [
    case("Where", "a mask of a row", ROW, "c x z", {"c": bools(1, 0, 1, 0, 1, 1), "z": f(1, 6)}, first=9),
    case("Where", "the other side", ROW, "c z x", {"c": bools(1, 0, 1, 0, 1, 1), "z": f(1, 6)}, first=9),
    case("Where", "filled with one number", IMAGE, "c z x", {"c": RNG.random((5, 6)) < 0.5, "z": scalar(0)}, first=9),
    case("Where", "both sides", (3, 3), "c x t", {"c": RNG.random((3, 3)) < 0.5, "t": f(3)}, first=9),
    case("Where", "a condition that broadcasts", (1, 3), "c x z", {"c": bools(1, 0).reshape(2, 1), "z": f(3)}, first=9),
    case("Where", "one condition", ROW, "c x z", {"c": np.array(True), "z": f(6)}, first=9),
    case("Where", "infinity that is not picked", ROW, "c x z", {"c": bools(1), "z": scalar(-np.inf)}, first=9),
    Case(
        "Where",
        "two tensors",
        (3, 3),
        (node("Transpose", "x", "t", perm=[1, 0]), node("Where", "c x t")),
        {"c": RNG.random((3, 3)) < 0.5},
        first=9,
    ),
    Case(
        "Where",
        "a condition that is computed from constants",
        ROW,
        (node("Greater", "a zero", "c"), node("Where", "c x zero")),
        {"a": f(6), "zero": scalar(0)},
        first=9,
    ),
]

UPDATES = {"n": f(2, 2), "i": ints(0, 2, 3, 1).reshape(2, 2)}
POINTS = {"i": ints(0, 1, 1, 3).reshape(2, 2), "n": f(2)}


def scatters(op: str, first: int, shape: tuple[int, ...], constants: dict[str, Any], **attributes: Any) -> list[Case]:
    return [
        case(op, f"{reduction}, updates of constants", shape, "x i n", constants, first=since, **given, **attributes)
        for reduction, since, given in [
            ("none", first, {}),
            ("add", 16, {"reduction": "add"}),
            ("mul", 16, {"reduction": "mul"}),
            ("max", 18, {"reduction": "max"}),
            ("min", 18, {"reduction": "min"}),
        ]
    ]


SCATTER = [
    case("Scatter", "a constant into a row", (2, 4), "x i n", UPDATES, first=9, last=10, axis=1),
    case(
        "Scatter", "a row into a constant", (2, 2), "d i x", {"d": f(2, 4), "i": UPDATES["i"]}, first=9, last=10, axis=1
    ),
    *scatters("ScatterElements", 11, (2, 4), UPDATES, axis=1),
    *scatters("ScatterND", 11, (2, 4), POINTS),
    case("ScatterElements", "default axis", (3, 2), "x i n", {"i": ints(0, 2).reshape(1, 2), "n": f(1, 2)}, first=11),
    case(
        "ScatterElements",
        "from the back",
        (2, 4),
        "x i n",
        {**UPDATES, "i": ints(0, 2, -1, 1).reshape(2, 2)},
        first=11,
        axis=-1,
    ),
    case("ScatterElements", "into a constant", (2, 2), "d i x", {"d": f(2, 4), "i": UPDATES["i"]}, first=11, axis=1),
    *[
        case(
            "ScatterElements",
            f"{reduction}, one place twice",
            (1, 4),
            "x i n",
            {"i": ints(1, 1, 0).reshape(1, 3), "n": f(1, 3)},
            first=18,
            axis=1,
            reduction=reduction,
        )
        for reduction in ("add", "mul", "max", "min")
    ],
    *[
        case(
            "ScatterElements",
            f"{reduction} into a constant, one place twice",
            (1, 3),
            "d i x",
            {"d": f(1, 4), "i": ints(1, 1, 0).reshape(1, 3)},
            first=18,
            axis=1,
            reduction=reduction,
        )
        for reduction in ("add", "max", "min")
    ],
    case(
        "ScatterElements",
        "mul into a constant",
        (1, 2),
        "d i x",
        {"d": f(1, 4), "i": ints(3, 0).reshape(1, 2)},
        first=18,
        axis=1,
        reduction="mul",
    ),
    case(
        "ScatterElements",
        "one number twice",
        (1, 4),
        "x i n",
        {"i": ints(1, 1).reshape(1, 2), "n": np.zeros((1, 2), np.float32)},
        first=11,
        axis=1,
    ),
    Case(
        "ScatterElements",
        "both depend on the input",
        (1, 4),
        (node("Neg", "x", "n"), node("ScatterElements", "x i n", axis=1, reduction="add")),
        {"i": ints(1, 1, 0, 2).reshape(1, 4)},
        first=16,
    ),
    case("ScatterND", "slices", (3, 2), "x i n", {"i": ints(2, 0).reshape(2, 1), "n": f(2, 2)}, first=11),
    case("ScatterND", "negative", (3, 2), "x i n", {"i": ints(-1, -2).reshape(1, 2), "n": f(1)}, first=11),
    case("ScatterND", "into a constant", (2, 2), "d i x", {"d": f(3, 2), "i": ints(2, 0).reshape(2, 1)}, first=11),
    case(
        "ScatterND",
        "a matrix of places",
        CUBE,
        "x i n",
        {"i": ints(0, 1, 1, 2, 0, 0, 1, 0).reshape(2, 2, 2), "n": f(2, 2, 4)},
        first=11,
    ),
    case(
        "ScatterND",
        "one place twice, added",
        (3, 2),
        "x i n",
        {"i": ints(1, 1).reshape(2, 1), "n": f(2, 2)},
        first=16,
        reduction="add",
    ),
    Case(
        "ScatterND",
        "zeros on an image's border",
        IMAGE,
        (node("ScatterND", "x i n"),),
        {
            "i": np.stack(np.meshgrid([0], [0, 1], [0, 4], range(6), indexing="ij"), -1).reshape(-1, 4),
            "n": np.zeros(24, np.float32),
        },
        first=11,
    ),
]

PICKED = [
    case("GatherElements", "along rows", (2, 4), "x i", {"i": ints(3, 0, -1, 0).reshape(2, 2)}, first=11, axis=1),
    case("GatherElements", "default axis", (2, 3), "x i", {"i": ints(1, 0, 1).reshape(1, 3)}, first=11),
    case("GatherElements", "of an image", IMAGE, "x i", {"i": RNG.integers(-6, 6, (1, 2, 5, 3))}, first=11, axis=-1),
    case("Trilu", "upper", (1, 3, 4), first=14),
    case("Trilu", "lower", (1, 3, 4), first=14, upper=0),
    case("Trilu", "above the diagonal", (2, 3, 3), "x k", {"k": np.int64(1)}, first=14),
    case("Trilu", "below the diagonal", (3, 4), "x k", {"k": np.int64(-2)}, first=14, upper=0),
    case("Trilu", "nothing is left", (3, 4), "x k", {"k": np.int64(7)}, first=14),
    case("ReverseSequence", "time first", (4, 3), "x l", {"l": ints(2, 4, 1)}, first=10),
    case("ReverseSequence", "batch first", (3, 4), "x l", {"l": ints(2, 4, 1)}, first=10, time_axis=1, batch_axis=0),
    case("ReverseSequence", "more axes", (4, 2, 3), "x l", {"l": ints(3, 2)}, first=10),
    case("Compress", "axis", (4, 3), "x c", {"c": bools(1, 0, 1)}, first=9, axis=0),
    case("Compress", "negative axis", (4, 3), "x c", {"c": bools(0, 1)}, first=11, axis=-1),
    case("Compress", "flat", (2, 3), "x c", {"c": bools(1, 0, 0, 1, 1)}, first=9),
    case("CenterCropPad", "crops and pads", (3, 6), "x s", {"s": ints(5, 3)}, first=18),
    case("CenterCropPad", "odd remainders", (4, 5), "x s", {"s": ints(7, 2)}, first=18),
    case("CenterCropPad", "axes", IMAGE, "x s", {"s": ints(7, 3)}, first=18, axes=[-1, 2]),
    case("OneHot", "two numbers of the input", (2,), "i d x", {"i": ints(1, 0, -1), "d": np.int64(3)}, first=11),
    case("OneHot", "axis", (2,), "i d x", {"i": ints(1, 5), "d": np.int64(3)}, first=11, axis=0),
    case("TensorScatter", "into a constant", (1, 2, 3), "d x w", {"d": f(1, 4, 3), "w": ints(1)}, first=24, axis=1),
    case("TensorScatter", "a constant", (1, 4, 3), "x n w", {"n": f(1, 2, 3), "w": ints(1)}, first=24, axis=1),
    case(
        "TensorScatter",
        "around the end",
        (1, 2, 3),
        "d x w",
        {"d": f(1, 4, 3), "w": ints(3)},
        first=24,
        axis=1,
        mode="circular",
    ),
    case(
        "MaxUnpool",
        "places",
        (1, 1, 2, 2),
        "x i",
        {"i": ints(5, 7, 13, 15).reshape(1, 1, 2, 2)},
        first=9,
        kernel_shape=[2, 2],
        strides=[2, 2],
    ),
    case(
        "MaxUnpool",
        "a larger image",
        (1, 1, 2, 2),
        "x i s",
        {"i": ints(5, 8, 13, 16).reshape(1, 1, 2, 2), "s": ints(1, 1, 5, 5)},
        first=9,
        kernel_shape=[2, 2],
        strides=[2, 2],
    ),
    case("Unsqueeze", "axes in any order, attribute", (2, 3), last=12, axes=[3, 0]),
    case("Unsqueeze", "negative axes, attribute", (3,), first=11, last=12, axes=[-2, -1]),
    case("Unsqueeze", "negative axes in any order", (3,), "x a", {"a": ints(-1, -3)}, first=13),
    case("Unsqueeze", "axes in any order", (2, 3), "x a", {"a": ints(3, 0)}, first=13),
    case("Squeeze", "axes in any order", (1, 3, 1, 2), last=12, axes=[2, 0]),
    Case(
        "Unsqueeze",
        "constants in any order",
        (3, 2),
        (node("Unsqueeze", "c", "d", axes=[2, 0]), node("Add", "x d")),
        {"c": f(3)},
        last=12,
    ),
    case("Flatten", "from the back", CUBE, first=11, axis=-2),
    case("Reshape", "a zero that is one", (2, 3), "x s", {"s": ints(0, 0)}),
    case("Tile", "more axes", CUBE, "x r", {"r": ints(1, 2, 2)}),
    Case(
        "Concat",
        "rolled",
        ROW,
        (node("Slice", "x s e a", "p"), node("Slice", "x z s a", "q"), node("Concat", "p q", axis=1)),
        {"s": ints(2), "e": ints(100), "z": ints(0), "a": ints(1)},
        first=10,
    ),
    case(
        "Pad",
        "wrapped around an image",
        (1, 1, 3, 4),
        "x p",
        {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)},
        first=19,
        mode="wrap",
    ),
    Case(
        "Pad",
        "infinity that nothing gets",
        (2, 3),
        (node("Pad", "x p v"),),
        {"p": ints(0, 0, 0, 0), "v": scalar(-np.inf)},
        first=11,
    ),
]

RUNNING = [
    *[
        case("CumSum", f"axis {axis}, {given}", CUBE, "x a", {"a": np.int64(axis)}, first=11, **given)
        for axis in (0, 1, -1)
        for given in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1})
    ],
    case("CumSum", "int32 axis", ROW, "x a", {"a": np.int32(1)}, first=11),
    case("CumSum", "axis as a vector", ROW, "x a", {"a": ints(1)}, first=11),
    *[
        case("DFT", f"{what}, opset 17", shape, "x n", constants, first=17, last=19, **given)
        for what, shape, constants, given in [
            ("real", (1, 6, 1), {"n": np.int64(6)}, {"axis": 1}),
            ("complex", (1, 5, 2), {"n": np.int64(5)}, {"axis": 1}),
            ("inverse", (1, 5, 2), {"n": np.int64(5)}, {"axis": 1, "inverse": 1}),
            ("one-sided", (1, 7, 1), {"n": np.int64(7)}, {"axis": 1, "onesided": 1}),
            ("padded", (1, 5, 1), {"n": np.int64(8)}, {"axis": 1}),
            ("cut", (1, 6, 2), {"n": np.int64(4)}, {"axis": 1}),
            ("second axis", (1, 3, 4, 1), {"n": np.int64(4)}, {"axis": 2}),
            ("first of two", (1, 3, 4, 2), {"n": np.int64(3)}, {"axis": 1}),
        ]
    ],
    *[
        case("DFT", f"{what}, opset 20", shape, "x n a", constants, first=20, **given)
        for what, shape, constants, given in [
            ("real", (1, 6, 1), {"n": np.int64(6), "a": np.int64(1)}, {}),
            ("negative axis", (1, 6, 2), {"n": np.int64(6), "a": np.int64(-2)}, {}),
            ("one-sided", (1, 6, 1), {"n": np.int64(6), "a": np.int64(1)}, {"onesided": 1}),
            ("inverse", (1, 3, 4, 2), {"n": np.int64(3), "a": np.int64(1)}, {"inverse": 1}),
        ]
    ],
    case("DFT", "no length, opset 20", (1, 6, 1), "x", first=20),
    case("STFT", "window", (1, 12, 1), "x s w", {"s": np.int64(3), "w": f(6)}, first=17),
    case("STFT", "frame length", (1, 12, 1), "x s - n", {"s": np.int64(4), "n": np.int64(5)}, first=17),
    case("STFT", "both", (2, 9, 1), "x s w n", {"s": np.int64(2), "w": f(4), "n": np.int64(4)}, first=17),
    case("STFT", "two-sided", (1, 10, 1), "x s w", {"s": np.int64(3), "w": f(4)}, first=17, onesided=0),
    case("STFT", "complex", (1, 10, 2), "x s w", {"s": np.int64(3), "w": f(4)}, first=17, onesided=0),
]

BLOCKS = [
    case("Col2Im", "one axis of blocks", (1, 5, 5), "x i b", {"i": ints(5, 5), "b": ints(1, 5)}, first=18),
    case("Col2Im", "overlapping", (1, 8, 6), "x i b", {"i": ints(3, 4), "b": ints(2, 2)}, first=18),
    case("Col2Im", "pads", (1, 4, 20), "x i b", {"i": ints(3, 4), "b": ints(2, 2)}, first=18, pads=[1, 1, 1, 1]),
    case("Col2Im", "strides", (2, 4, 4), "x i b", {"i": ints(4, 4), "b": ints(2, 2)}, first=18, strides=[2, 2]),
    case("Col2Im", "dilations", (1, 4, 4), "x i b", {"i": ints(4, 5), "b": ints(2, 2)}, first=18, dilations=[2, 3]),
    case("Col2Im", "one spatial axis", (1, 6, 4), "x i b", {"i": ints(6), "b": ints(3)}, first=18),
    case("RotaryEmbedding", "halves", (1, 2, 3, 4), "x c s", {"c": f(1, 3, 2), "s": f(1, 3, 2)}, first=23),
    case(
        "RotaryEmbedding", "pairs", (1, 2, 3, 4), "x c s", {"c": f(1, 3, 2), "s": f(1, 3, 2)}, first=23, interleaved=1
    ),
    case(
        "RotaryEmbedding",
        "positions",
        (1, 2, 3, 4),
        "x c s p",
        {"c": f(6, 2), "s": f(6, 2), "p": ints(5, 0, 2).reshape(1, 3)},
        first=23,
    ),
    case(
        "RotaryEmbedding",
        "a part of each head",
        (1, 3, 12),
        "x c s",
        {"c": f(1, 3, 2), "s": f(1, 3, 2)},
        first=23,
        rotary_embedding_dim=4,
        num_heads=2,
    ),
]

GRID = (RNG.random((1, 3, 4, 2)) * 2.6 - 1.3).astype(np.float32)

SAMPLED = [
    *[
        case(
            "GridSample",
            f"{mode}, {padding}, corners {corners}",
            (1, 2, 4, 5),
            "x g",
            {"g": GRID},
            first=16,
            last=19,
            mode=mode,
            padding_mode=padding,
            align_corners=corners,
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ],
    *[
        case("GridSample", f"{mode}, opset 20", (1, 1, 4, 5), "x g", {"g": GRID}, first=20, mode=mode)
        for mode in ("linear", "nearest", "cubic")
    ],
    *[
        case(
            "GridSample",
            f"volume, {mode}",
            (1, 2, 3, 4, 3),
            "x g",
            {"g": (RNG.random((1, 2, 3, 2, 3)) * 2.4 - 1.2).astype(np.float32)},
            first=20,
            mode=mode,
            padding_mode="border",
        )
        for mode in ("linear", "nearest")
    ],
    case(
        "GridSample",
        "two images",
        (2, 2, 3, 3),
        "x g",
        {"g": (RNG.random((2, 2, 2, 2)) * 2 - 1).astype(np.float32)},
        first=16,
    ),
    case("AffineGrid", "image", (1, 2, 3), "x s", {"s": ints(1, 1, 4, 5)}, first=20),
    case("AffineGrid", "corners", (1, 2, 3), "x s", {"s": ints(1, 2, 3, 4)}, first=20, align_corners=1),
    case("AffineGrid", "volume", (1, 3, 4), "x s", {"s": ints(1, 1, 2, 3, 4)}, first=20),
    case("AffineGrid", "two matrices", (2, 2, 3), "x s", {"s": ints(2, 1, 3, 2)}, first=20),
]

SIZES = [
    case("LpPool", "2 x 2", (1, 2, 4, 4), p=1, kernel_shape=[2, 2], strides=[2, 2]),
    case("LpPool", "pads", IMAGE, p=1, kernel_shape=[3, 2], pads=[1, 0, 2, 1]),
    case("LpPool", "auto_pad", (1, 1, 5, 5), p=1, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("LpPool", "ceil", (1, 1, 5, 5), first=18, p=1, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("LpPool", "dilations", (1, 1, 6, 6), first=18, p=1, kernel_shape=[2, 2], dilations=[2, 3]),
    case("LpPool", "1-D", (1, 2, 7), p=1, kernel_shape=[3], strides=[2]),
    case("LpPool", "euclidean", IMAGE, kernel_shape=[3, 2], pads=[1, 0, 2, 1]),
    case("GlobalLpPool", "image", IMAGE, last=21, p=1),
    case("GlobalLpPool", "euclidean", IMAGE, last=21),
    case("GlobalLpPool", "sequence", (1, 3, 5), last=21, p=1),
]

COMPETING = [
    *[
        Case(
            "LogSoftmax",
            f"inside, {shape}, axis {axis}",
            shape,
            (node("LogSoftmax", "x", "s", **given), node("Neg", "s")),
            first=first,
            last=last,
        )
        for shape, axis, given, first, last in [
            (ROW, "left out", {}, 7, NEWEST),
            ((2, 3, 4), "left out", {}, 13, NEWEST),
            ((2, 3, 4), "left out before 13", {}, 7, 12),
            ((2, 3, 4), 0, {"axis": 0}, 7, NEWEST),
            ((2, 3, 5), -1, {"axis": -1}, 11, NEWEST),
            ((1, 1), -1, {"axis": -1}, 11, NEWEST),
        ]
    ],
    case("LogSoftmax", "last, in groups", (1, 2, 3), first=13, axis=-1),
    *[
        Case("TopK", what, shape, (node("TopK", "x k", "y i", **given),), {"k": ints(k)}, first=first)
        for what, shape, k, first, given in [
            ("one", (2, 5), 1, 10, {}),
            ("two of five", (1, 5), 2, 10, {}),
            ("all of four", (2, 4), 4, 10, {}),
            ("smallest", (1, 5), 3, 11, {"largest": 0}),
            ("another axis", (3, 2, 2), 2, 10, {"axis": 0}),
            ("unsorted, but one", (1, 4), 1, 11, {"sorted": 0}),
            ("of one", (2, 1), 1, 10, {}),
            ("of two", (2, 2), 2, 10, {}),
        ]
    ],
    Case("TopK", "an attribute", (1, 5), (node("TopK", "x", "y i", k=2),), last=9),
    Case(
        "MaxPool", "positions that nothing reads", (1, 1, 4), (node("MaxPool", "x", "y i", kernel_shape=[2]),), first=8
    ),
]

BOUNDS = [
    case("Clip", "below nothing", ROW, "x lo hi", {"lo": scalar(-np.inf), "hi": scalar(0.5)}, first=11),
    case("Clip", "above nothing", ROW, "x lo hi", {"lo": scalar(0), "hi": scalar(np.inf)}, first=11),
    case("Clip", "no bound at all", ROW, "x lo hi", {"lo": scalar(-np.inf), "hi": scalar(np.inf)}, first=11),
    case("Clip", "infinite attributes", ROW, last=10, min=-float("inf"), max=0.5),
    case("Clip", "an infinite attribute above", ROW, last=10, min=0.0, max=float("inf")),
    Case(
        "Clip",
        "an empty interval gives its upper end",
        ROW,
        (node("Clip", "x lo hi", "h"), node("Add", "x h")),
        {"lo": scalar(1), "hi": scalar(0.25)},
        first=13,
    ),
    Case(
        "Clip",
        "to bounds that depend on the input",
        ROW,
        (node("ReduceMean", "x", "m", keepdims=0), node("Clip", "x m hi")),
        {"hi": scalar(0.5)},
        first=11,
    ),
    Case(
        "Clip",
        "above, to a bound that depends on the input",
        ROW,
        (node("ReduceMean", "x", "m", keepdims=0), node("Clip", "x - m")),
        first=11,
    ),
    case("Max", "infinity that bounds nothing", ROW, "x c", {"c": scalar(-np.inf)}, first=8),
    case("Max", "bounds for some entries", ROW, "x c", {"c": np.float32([0, -np.inf, 0.5, -np.inf, -1, 0.1])}, first=8),
    case("Min", "bounds for some entries", ROW, "c x", {"c": np.float32([0, np.inf, 0.5, np.inf, -1, 0.1])}, first=8),
    case("Max", "constants beside forms", ROW, "c x d x", {"c": f(6), "d": f(6)}, first=8),
]

SMALL = [
    case("Pow", "1", ROW, "x e", {"e": scalar(1)}),
    case("Pow", "0", ROW, "x e", {"e": scalar(0)}),
    case("Pow", "1 and 0", ROW, "x e", {"e": np.float32([1, 0, 0, 1, 1, 0])}),
    case("Pow", "whole numbers", ROW, "x e", {"e": ints(1, 0, 1, 0, 1, 1)}, first=12),
    case("Pow", "broadcasts", (1, 3), "x e", {"e": np.float32([[1], [0]])}),
    Case(
        "Pow",
        "a constant that is then a factor",
        ROW,
        (node("Pow", "x e", "one"), node("Mul", "x one", "h"), node("MatMul", "h w")),
        {"e": scalar(0), "w": f(6, 2)},
    ),
    case("Shrink", "soft", ROW, first=9, lambd=0.4, bias=0.4),
    case("Shrink", "nothing", ROW, first=9, lambd=0.0, bias=0.0),
    case("CastLike", "a float", ROW, "x t", {"t": f(1)}, first=15),
    Case("CastLike", "itself", ROW, (node("Neg", "x", "n"), node("CastLike", "x n")), first=15),
    Case("Optional", "and back", ROW, (node("Optional", "x", "o"), node("OptionalGetElement", "o")), first=15),
    Case("OptionalGetElement", "of a tensor", ROW, (node("OptionalGetElement", "x"),), first=18),
    Case(
        "OptionalHasElement",
        "of a tensor",
        ROW,
        (node("OptionalHasElement", "x", "h"), node("Where", "h x c")),
        {"c": scalar(0)},
        first=18,
    ),
    Case(
        "IsNaN",
        "numbers in its place",
        ROW,
        (node("IsNaN", "x", "n"), node("Where", "n c x")),
        {"c": scalar(0)},
        first=9,
    ),
    Case(
        "IsInf",
        "numbers in its place",
        ROW,
        (node("IsInf", "x", "n", detect_negative=0), node("Where", "n c x")),
        {"c": scalar(9)},
        first=10,
    ),
    Case(
        "EyeLike",
        "as a weight",
        (3, 4),
        (node("EyeLike", "x", "e", k=1, dtype=1), node("Mul", "x e")),
        first=9,
    ),
    Case("EyeLike", "added", (3, 4), (node("EyeLike", "x", "e", k=-1), node("Add", "x e")), first=9),
    case("Dropout", "in training, but with ratio 0", ROW, "x r t", {"r": scalar(0), "t": np.array(True)}, first=12),
    case(
        "BatchNormalization",
        "for each entry",
        (1, 3, 2),
        "x s b m v",
        {"s": f(3, 2), "b": f(3, 2), "m": f(3, 2), "v": np.abs(f(3, 2)) + 0.1},
        last=8,
        spatial=0,
    ),
    case(
        "BatchNormalization",
        "a vector",
        (5,),
        "x s b m v",
        {"s": f(1), "b": f(1), "m": f(1), "v": np.abs(f(1)) + 0.1},
        first=9,
    ),
    case("Gemm", "the input is added", (2, 2), "a b x", {"a": f(2, 3), "b": f(3, 2)}),
    case(
        "Gemm",
        "the input is added, scaled",
        (1, 2),
        "a b x",
        {"a": f(3, 2), "b": f(2, 3)},
        transA=1,
        transB=1,
        alpha=0.5,
        beta=-2.0,
    ),
    Case(
        "Conv",
        "a bias that depends on the input",
        (1, 2, 3, 3),
        (node("ReduceMean", "x", "m", axes=[2, 3], keepdims=0), node("Reshape", "m s", "b"), node("Conv", "x w b")),
        {"s": ints(2), "w": f(2, 2, 2, 2)},
        last=17,
    ),
    Case(
        "ConvTranspose",
        "a bias that depends on the input",
        (1, 2, 3, 3),
        (
            node("ReduceMean", "x", "m", axes=[2, 3], keepdims=0),
            node("Reshape", "m s", "b"),
            node("ConvTranspose", "x w b"),
        ),
        {"s": ints(2), "w": f(2, 2, 2, 2)},
        last=17,
    ),
    Case(
        "Mul",
        "a mask of constants",
        ROW,
        (node("Cast", "c", "m", to=TensorProto.FLOAT), node("Mul", "x m")),
        {"c": bools(1, 0, 1, 1, 0, 1)},
    ),
    Case(
        "Div",
        "chains of constants",
        (1, 2, 3),
        (node("Mul", "a x", "h"), node("Add", "h b", "g"), node("Div", "g c", "k"), node("Sub", "d k")),
        {"a": f(3), "b": f(2, 1), "c": f(1, 2, 1) + 3, "d": f(4, 1, 3)},
    ),
]

RESIZED = [
    *[
        case(
            "Resize",
            f"cubic, {coordinates}, {shape}, {given}",
            (1, 1, 4, 5),
            "x - s",
            {"s": np.float32([1, 1, *shape])},
            first=13,
            mode="cubic",
            coordinate_transformation_mode=coordinates,
            **given,
        )
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for shape in ((2, 2), (1.5, 2.6), (0.5, 0.7))
        for given in ({}, {"cubic_coeff_a": -0.5}, {"exclude_outside": 1})
    ],
    case(
        "Resize",
        "cubic, opset 11",
        (1, 1, 4, 4),
        "x r s",
        {"r": f(0), "s": np.float32([1, 1, 2, 2])},
        first=11,
        mode="cubic",
    ),
    case("Resize", "cubic, sizes", (1, 2, 4, 4), "x - - z", {"z": ints(1, 2, 7, 3)}, first=13, mode="cubic"),
    *[
        case(
            "Resize",
            f"smoothed {mode}, {shape}, {given}",
            (1, 1, 6, 8),
            "x - s",
            {"s": np.float32([1, 1, *shape])},
            first=18,
            mode=mode,
            antialias=1,
            **given,
        )
        for mode in ("linear", "cubic")
        for shape in ((0.5, 0.5), (0.6, 0.8), (2, 1.5), (0.5, 2))
        for given in (
            {},
            {"exclude_outside": 1} if mode == "cubic" else {"coordinate_transformation_mode": "align_corners"},
        )
    ],
    *[
        case(
            "Resize",
            f"{policy}, {mode}, {wanted}",
            (1, 1, 4, 6),
            "x - - z",
            {"z": ints(*wanted)},
            first=18,
            mode=mode,
            axes=[2, 3],
            keep_aspect_ratio_policy=policy,
        )
        for policy in ("not_larger", "not_smaller")
        for mode in ("nearest", "linear")
        for wanted in ((7, 8), (3, 5), (5, 5))
    ],
    *[
        case(
            "Resize",
            f"cropped, {mode}, {roi}",
            (1, 1, 4, 5),
            "x r - z",
            {"r": np.float32([0, 0, *roi[:2], 1, 1, *roi[2:]]), "z": ints(1, 1, 3, 4)},
            first=13,
            mode=mode,
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=0.75,
        )
        for mode in ("nearest", "linear", "cubic")
        for roi in ((0.1, 0.2, 0.7, 0.9), (0.0, 0.0, 1.0, 1.0), (0.4, 0.6, 1.3, 1.2), (-0.2, 0.9, 0.8, 0.1))
    ],
    case(
        "Resize",
        "cropped to one pixel",
        (1, 1, 4, 5),
        "x r - z",
        {"r": np.float32([0, 0, 0.1, 0.2, 1, 1, 0.7, 0.9]), "z": ints(1, 1, 1, 1)},
        first=13,
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
    *[
        case(
            "Resize",
            f"half pixel for nearest, {scale}",
            (1, 1, 4, 5),
            "x r s",
            {"r": f(0), "s": np.float32([1, 1, scale, scale])},
            first=11,
            last=12,
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="tf_half_pixel_for_nn",
        )
        for scale in (2, 0.5, 1.7)
    ],
    case("Resize", "volume", (1, 1, 2, 3, 2), "x - s", {"s": np.float32([1, 1, 2, 1.5, 2])}, first=13, mode="linear"),
    case(
        "Resize",
        "negative axes",
        (1, 2, 3, 4),
        "x - s",
        {"s": np.float32([2, 1.5])},
        first=18,
        mode="linear",
        axes=[-2, -1],
    ),
    case("Upsample", "linear, attribute", (1, 1, 2, 3), last=8, scales=[1.0, 1.0, 2.0, 2.0], mode="linear"),
]

MAP_CASES = [
    *EINSUM,
    *WHERE,
    *SCATTER,
    *PICKED,
    *RUNNING,
    *BLOCKS,
    *SAMPLED,
    *SIZES,
    *COMPETING,
    *BOUNDS,
    *SMALL,
    *RESIZED,
]


def choice(what: str, nodes: str, constants: dict[str, Any], *, shape: tuple[int, ...] = ROW, first: int = 12) -> Case:
    """Return a chain that ends in a Where or Mul; nodes are written `Op inputs -> output; ...`."""
    made = []
    for text in nodes.split(";"):
        left, right = text.split("->")
        op, *inputs = left.split()
        made.append(node(op, " ".join(inputs), right.strip(), **({"to": TensorProto.FLOAT} if op == "Cast" else {})))
    return Case(made[-1].op_type, what, shape, tuple(made), constants, first=first)


ZERO, HALF, TENTH = {"z": scalar(0)}, {"t": scalar(0.5)}, {"a": scalar(0.1)}

CHOICES = [
    choice("relu", "Greater x z -> c; Where c x z -> y", ZERO),
    choice("relu, the other way round", "LessOrEqual x z -> c; Where c z x -> y", ZERO),
    choice("relu, by not", "Less x z -> c; Not c -> d; Where d x z -> y", ZERO),
    choice("leaky relu", "GreaterOrEqual x z -> c; Mul x a -> m; Where c x m -> y", {**ZERO, **TENTH}),
    choice("leaky relu, below first", "Less x z -> c; Mul a x -> m; Where c m x -> y", {**ZERO, **TENTH}),
    choice("a slope for each entry", "Greater x z -> c; Mul x a -> m; Where c x m -> y", {**ZERO, "a": f(6)}),
    choice("absolute value", "Greater z x -> c; Neg x -> m; Where c m x -> y", ZERO),
    choice(
        "two slopes", "Greater x z -> c; Mul x a -> p; Div x b -> q; Where c p q -> y", {**ZERO, **TENTH, "b": f(6)}
    ),
    choice("threshold at its value", "LessOrEqual x t -> c; Where c t x -> y", HALF),
    choice(
        "bent away from 0",
        "Greater x t -> c; Sub x t -> p; Mul p a -> q; Add q t -> r; Where c r t -> y",
        {**HALF, **TENTH},
    ),
    choice("a multiple is compared", "Mul x b -> m; Greater m z -> c; Where c x z -> y", {**ZERO, "b": f(6)}),
    choice("differences are compared", "Sub x t -> d; Greater d z -> c; Where c x t -> y", {**ZERO, **HALF}),
    choice("the constant is compared", "Less t x -> c; Where c x t -> y", HALF),
    choice("a mask that is multiplied", "Greater x z -> c; Cast c -> m; Mul x m -> y", ZERO),
    choice("a mask that comes first", "GreaterOrEqual x z -> c; Cast c -> m; Mul m x -> y", ZERO),
    choice("the larger of two", "Neg x -> n; Greater x n -> c; Where c x n -> y", {}),
    choice("the larger of two tensors", "Tanh x -> n; Greater x n -> c; Where c x n -> y", {}),
    choice("the smaller of two tensors", "Tanh x -> n; Less x n -> c; Where c x n -> y", {}),
    choice("the larger of a tensor and constants", "Greater x k -> c; Where c x k -> y", {"k": f(6)}),
    choice("more axes in the constants", "Greater x k -> c; Where c x k -> y", {"k": f(2, 1, 1)}),
    choice("and with what holds", "Greater x z -> c; And c k -> d; Where d x z -> y", {**ZERO, "k": bools(1)}),
    choice(
        "or with what does not",
        "Greater x z -> c; Or k c -> d; Where d x z -> y",
        {**ZERO, "k": bools(0, 0, 0, 0, 0, 0)},
    ),
    choice(
        "behind a layer",
        "MatMul x w -> h; Greater h z -> c; Mul h a -> m; Where c h m -> y",
        {**ZERO, **TENTH, "w": f(6, 4)},
    ),
    choice("a bent line behind a layer", "MatMul x w -> h; Greater h t -> c; Where c h t -> y", {**HALF, "w": f(6, 4)}),
]

LISTS = [
    Case(
        "Concat",
        f"a list, {what}",
        (2, 5),
        (node("SplitToSequence", "x" if lengths is None else "x n", "s", axis=1, **given), *more),
        {"one": np.int64(1), "minus": np.int64(-1), **({} if lengths is None else {"n": lengths})},
        first=11,
    )
    for what, lengths, given, more in [
        ("pieces of two", np.int64(2), {}, (node("ConcatFromSequence", "s", axis=1),)),
        ("given lengths", ints(1, 3, 1), {}, (node("SequenceAt", "s one", "y"),)),
        ("one by one", None, {}, (node("SequenceAt", "s minus", "y"),)),
        ("one by one, without the axis", None, {"keepdims": 0}, (node("ConcatFromSequence", "s", axis=0, new_axis=1),)),
        ("a new last axis", np.int64(1), {}, (node("ConcatFromSequence", "s", axis=-1, new_axis=1),)),
        (
            "erased and inserted",
            np.int64(1),
            {},
            (
                node("SequenceErase", "s one", "t"),
                node("SequenceAt", "s one", "p"),
                node("SequenceInsert", "t p", "u2"),
                node("ConcatFromSequence", "u2", axis=1),
            ),
        ),
        (
            "its length",
            None,
            {},
            (node("SequenceLength", "s", "n2"), node("Cast", "n2", "m", to=TensorProto.FLOAT), node("Mul", "x m")),
        ),
    ]
] + [
    Case(
        "Concat",
        "a list that is constructed",
        (2, 3),
        (
            node("Neg", "x", "n"),
            node("SequenceConstruct", "x c n", "s"),
            node("SequenceInsert", "s x one", "t"),
            node("ConcatFromSequence", "t", axis=0),
        ),
        {"c": f(2, 3), "one": np.int64(1)},
        first=11,
    ),
    Case(
        "Concat",
        "a list that begins empty",
        (2, 3),
        (
            node("SequenceEmpty", "", "e"),
            node("SequenceInsert", "e x", "s"),
            node("SequenceInsert", "s x zero", "t"),
            node("ConcatFromSequence", "t", axis=1),
        ),
        {"zero": np.int64(0)},
        first=11,
    ),
]

ABSENT = [
    Case(
        "Pad",
        f"{fill} before a maximum",
        (1, 1, 3, 4),
        (node("Pad", "x p v", "h"), node("MaxPool", "h", kernel_shape=[2, 2], strides=[2, 2])),
        {"p": ints(0, 0, 1, 1, 0, 0, 1, 1), "v": np.float32(fill)},
        first=11,
    )
    for fill in (-np.inf, np.finfo(np.float32).min)
] + [
    Case(
        "Where",
        "minus infinity before a maximum",
        (2, 4),
        (node("Where", "c x z", "h"), node("ReduceMax", "h", keepdims=0, axes=[1])),
        {"c": bools(1, 0, 1, 1, 0, 1, 0, 0).reshape(2, 4), "z": scalar(-np.inf)},
        first=9,
        last=17,
    ),
    Case(
        "Pad",
        "minus infinity by an attribute",
        (1, 1, 3),
        (
            node("Pad", "x", "h", pads=[0, 0, 1, 0, 0, 1], value=-float("inf")),
            node("MaxPool", "h", kernel_shape=[2]),
        ),
        last=10,
    ),
]

LOSSES = [
    case("NegativeLogLikelihoodLoss", what, (2, 3), inputs, {"t": ints(2, 0), "w": np.abs(f(3))}, first=12, **given)
    for what, inputs, given in [
        ("mean", "x t", {}),
        ("sum, weighted", "x t w", {"reduction": "sum"}),
        ("mean, weighted", "x t w", {}),
        ("each", "x t w", {"reduction": "none"}),
        ("one is ignored", "x t w", {"ignore_index": 2}),
    ]
] + [
    case("NegativeLogLikelihoodLoss", "pixels", (1, 3, 2), "x t", {"t": ints(2, 0).reshape(1, 2)}, first=12),
    case("SoftmaxCrossEntropyLoss", "mean", (2, 3), "x t", {"t": ints(2, 0)}, first=12),
    case(
        "SoftmaxCrossEntropyLoss",
        "weighted",
        (2, 3),
        "x t w",
        {"t": ints(2, 0), "w": np.abs(f(3))},
        first=12,
        reduction="none",
    ),
    case("SoftmaxCrossEntropyLoss", "logarithms", (1, 3), "x t", {"t": ints(2)}, outputs="l y", first=12),
]

MAP_CASES += [*CHOICES, *LISTS, *ABSENT, *LOSSES]
