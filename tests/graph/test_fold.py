"""Nodes of constants: their value is onnx's, and their size is known before it exists."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from idl_audit.graph.ir import Attribute, Node
from idl_audit.graph.onnx_reader import FOLD_LIMIT, fold_node
from idl_audit.values.errors import UnsupportedModelError

F32 = np.float32


def node(op: str, n_inputs: int, n_outputs: int = 1, **attributes: Attribute) -> Node:
    names = tuple(f"a{index}" for index in range(n_inputs))
    return Node(op, "the node", names, tuple(f"b{index}" for index in range(n_outputs)), MappingProxyType(attributes))


def fold(op: str, *inputs: Any, opset: int = 17, n_outputs: int = 1, **attributes: Attribute) -> Any:
    arrays = [None if value is None else np.asarray(value) for value in inputs]
    outputs = fold_node(node(op, len(inputs), n_outputs, **attributes), arrays, opset)
    assert len(outputs) == n_outputs
    assert not any(array.flags.writeable for array in outputs)
    return outputs[0] if n_outputs == 1 else outputs


X = np.arange(6, dtype=F32).reshape(2, 3)

CASES = [
    ("Gather", (np.array([5, 6, 7]), np.array(1)), 13, {"axis": 0}, np.array(6)),
    ("Concat", (np.array([1]), np.array([2, 3])), 13, {"axis": 0}, np.array([1, 2, 3])),
    ("Unsqueeze", (np.array(4),), 11, {"axes": (0,)}, np.array([4])),
    ("Unsqueeze", (np.array(4), np.array([0])), 13, {}, np.array([4])),
    ("Squeeze", (np.array([4]),), 11, {}, np.array(4)),
    ("Slice", (np.arange(5),), 9, {"starts": (1,), "ends": (3,)}, np.array([1, 2])),
    ("Slice", (np.arange(5), np.array([1]), np.array([3])), 10, {}, np.array([1, 2])),
    ("Slice", (np.arange(5), np.array([3]), np.array([0]), None, np.array([-1])), 13, {}, np.array([3, 2, 1])),
    ("Cast", (X,), 13, {"to": 7}, X.astype(np.int64)),
    ("Cast", (np.arange(3),), 13, {"to": 10}, np.arange(3, dtype=F32)),  # float16 is widened
    ("Cast", (np.arange(3),), 13, {"to": 16}, np.arange(3, dtype=F32)),  # bfloat16 too
    ("Add", (np.array([1, 2]), np.array(3)), 7, {}, np.array([4, 5])),
    ("Mul", (np.array([1, 2]), np.array(3)), 14, {}, np.array([3, 6])),
    ("Div", (np.array([7, 8]), np.array(2)), 14, {}, np.array([3, 4])),
    ("Sub", (X, X), 14, {}, np.zeros((2, 3), F32)),
    ("Reshape", (X, np.array([-1, 2])), 7, {}, X.reshape(3, 2)),
    ("Reshape", (X, np.array([0, -1])), 14, {}, X),
    ("Transpose", (X,), 13, {"perm": (1, 0)}, X.T),
    ("Transpose", (X,), 13, {}, X.T),
    ("ConstantOfShape", (np.array([2, 2]),), 9, {}, np.zeros((2, 2), F32)),
    ("ConstantOfShape", (np.array([2]),), 9, {"value": np.array([7])}, np.array([7, 7])),
    ("ConstantOfShape", (np.array([], dtype=np.int64),), 9, {}, np.array(0, F32)),
    ("Expand", (np.array([[1], [2]]), np.array([2, 3])), 13, {}, np.array([[1, 1, 1], [2, 2, 2]])),
    ("Tile", (np.array([1, 2]), np.array([2])), 13, {}, np.array([1, 2, 1, 2])),
    ("Range", (np.array(1), np.array(7), np.array(2)), 11, {}, np.array([1, 3, 5])),
    ("Pad", (np.array([1.0]), np.array([1, 1])), 13, {}, np.array([0.0, 1, 0])),
    ("Pad", (np.array([1.0], F32),), 9, {"pads": (1, 0), "value": 2.0}, np.array([2, 1], F32)),
    ("OneHot", (np.array([1, 0]), np.array(2), np.array([0.0, 1.0], F32)), 11, {}, np.array([[0, 1], [1, 0]], F32)),
    ("Where", (np.array([True, False]), np.array([1, 1]), np.array([2, 2])), 9, {}, np.array([1, 2])),
    ("Equal", (np.array([1, 2]), np.array([1, 3])), 13, {}, np.array([True, False])),
    ("Shape", (X,), 13, {}, np.array([2, 3])),
    ("ReduceProd", (np.array([2, 3]),), 13, {"keepdims": 0}, np.array(6)),
    ("Identity", (X,), 13, {}, X),
    ("MatMul", (X, X.T), 13, {}, X @ X.T),
    ("NonZero", (np.array([0, 5, 0, 6]),), 13, {}, np.array([[1, 3]])),
    ("Clip", (X, np.array(1, F32), None), 13, {}, np.maximum(X, 1)),
    ("Clip", (X,), 7, {"min": 1.0}, np.maximum(X, 1)),
    ("Dropout", (X,), 7, {"ratio": 0.5}, X),
    ("CastLike", (np.arange(3), X), 15, {}, np.arange(3, dtype=F32)),
]


@pytest.mark.parametrize(("op", "inputs", "opset", "attributes", "expected"), CASES)
def test_the_value_is_onnxs(op: str, inputs: Any, opset: int, attributes: dict[str, Attribute], expected: Any) -> None:
    np.testing.assert_array_equal(fold(op, *inputs, opset=opset, **attributes), expected, strict=True)


def test_several_outputs() -> None:
    left, right = fold("Split", np.arange(5), np.array([2, 3]), opset=13, n_outputs=2)
    np.testing.assert_array_equal(left, [0, 1])
    np.testing.assert_array_equal(right, [2, 3, 4])


def test_the_inputs_stay_as_they_were() -> None:
    array = np.arange(3)
    fold("Identity", array)
    assert array.flags.writeable


HUGE = [
    ("ConstantOfShape", (np.array([2**20, 2**20]),), 9, {}),  # 4 TiB, from 16 bytes
    ("ConstantOfShape", (np.array([2**40, 2**40, 2**40]),), 9, {}),
    ("Expand", (np.zeros(1, F32), np.array([2**30, 4])), 13, {}),
    ("Tile", (np.zeros((1, 1), F32), np.array([2**20, 2**20])), 13, {}),
    ("Range", (np.array(0), np.array(2**50), np.array(1)), 11, {}),
    ("Range", (np.array(0.0), np.array(1.0), np.array(1e-15)), 11, {}),
    ("Pad", (np.zeros(1, F32), np.array([2**40, 0])), 13, {}),
    ("Pad", (np.zeros(1, F32),), 9, {"pads": (0, 2**40)}),
    ("OneHot", (np.zeros(1000, np.int64), np.array(2**40), np.zeros(2, F32)), 11, {}),
    ("Resize", (np.zeros((1, 1, 1, 1), F32), None, None, np.array([1, 1, 2**20, 2**20])), 13, {"mode": "linear"}),
    ("Resize", (np.zeros((1, 1, 1, 1), F32), None, np.array([1, 1, 1e6, 1e6], F32)), 13, {"mode": "linear"}),
    ("Add", (np.zeros((2**16, 1), F32), np.zeros((1, 2**16), F32)), 13, {}),
    ("MatMul", (np.zeros((2**16, 1), F32), np.zeros((1, 2**16), F32)), 13, {}),
    ("Gather", (np.zeros((1, 2**16), F32), np.zeros(2**16, np.int64)), 13, {}),
    ("Einsum", (np.zeros(2**16, F32), np.zeros(2**16, F32)), 13, {"equation": "i,j->ij"}),
    ("HannWindow", (np.array(2**40),), 17, {}),
    ("CenterCropPad", (np.zeros((1, 1), F32), np.array([2**20, 2**20])), 18, {}),
    ("EyeLike", (np.broadcast_to(np.zeros(1, np.int8), (2**15, 2**15)),), 9, {"dtype": 11}),
]


@pytest.mark.parametrize(("op", "inputs", "opset", "attributes"), HUGE)
def test_what_would_be_huge_is_refused_before_it_is_made(
    op: str, inputs: Any, opset: int, attributes: dict[str, Attribute]
) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"^the node: {op} would make [0-9.]+ GiB"):
        fold(op, *inputs, opset=opset, **attributes)


def test_the_limit_is_the_callers() -> None:
    four = node("ConstantOfShape", 1)
    assert fold_node(four, [np.array([4])], 13, max_bytes=16)[0].nbytes == 16
    with pytest.raises(UnsupportedModelError, match="allowed"):
        fold_node(four, [np.array([5])], 13, max_bytes=16)
    assert FOLD_LIMIT == 2**30


@pytest.mark.parametrize(
    ("op", "inputs", "opset", "reason"),
    [
        ("RandomNormal", (), 17, "draws random numbers"),
        ("RandomUniformLike", (X,), 17, "draws random numbers"),
        ("Bernoulli", (X,), 17, "draws random numbers"),
        ("Multinomial", (X,), 17, "draws random numbers"),
        ("ImageDecoder", (np.zeros(4, np.uint8),), 20, "not evaluated"),
        ("Resize", (np.zeros((1, 1, 1, 1), F32), None, np.ones(4, F32)), 13, "not evaluated"),
        ("Resize", (np.zeros((1, 1, 1, 1), F32), np.ones(4, F32)), 10, "not evaluated"),
        ("Upsample", (np.zeros((1, 1, 1, 1), F32), np.ones(4, F32)), 9, "not evaluated"),
        ("Foo", (X,), 17, "has no Foo"),
        ("Reshape", (X, np.array([4, 4])), 17, "cannot be evaluated"),
        ("Add", (np.zeros(2, F32), np.zeros(3, F32)), 17, "cannot be evaluated"),
        ("Add", (X,), 17, "1 inputs where 2 are needed"),
        ("Add", (X, np.arange(3)), 17, "mixes float32 with int64"),
        ("Transpose", (np.array(["a"], object),), 17, "holds object"),
        ("Gather", (np.arange(3), np.array(7)), 17, "cannot be evaluated"),
        ("Div", (np.array([1]), np.array([0])), 17, "cannot be evaluated"),
        ("ConstantOfShape", (np.array([-1]),), 17, "cannot be evaluated"),
        ("MaxUnpool", (np.zeros((1, 1, 1, 1), F32), np.zeros((1, 1, 1, 1), np.int64), np.array([1, 1, 9, 9])), 11, ""),
    ],
)
def test_what_cannot_be_folded_is_refused_by_name(op: str, inputs: Any, opset: int, reason: str) -> None:
    attributes: dict[str, Attribute] = {"kernel_shape": (1, 1)} if op == "MaxUnpool" else {}
    with pytest.raises(UnsupportedModelError, match=r"^(the node: |\w+ node 'the node')") as caught:
        fold(op, *inputs, opset=opset, **attributes)
    (problem,) = caught.value.problems
    assert reason in problem
    assert problem.isprintable()
