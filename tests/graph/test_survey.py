"""Sizes are told before anything is made: no tensor of 2^40 elements, no empty one, wherever its shape comes from."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.errors import UnsupportedModelError
from tests.shared import graph_models as make

F32, I64 = np.float32, np.int64
node = helper.make_node


def with_output(*nodes: NodeProto, of: str = "h") -> list[NodeProto]:
    return [*nodes, node("Relu", [of], ["y"])]


def of_constants(*nodes: NodeProto) -> list[NodeProto]:
    """The last result is summed and added to the input."""
    return [*nodes, node("ReduceSum", ["h"], ["t"], keepdims=0), node("Add", ["x", "t"], ["y"])]


HUGE: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    "an Expand of the input": (with_output(node("Expand", ["x", "s"], ["h"])), {"s": np.array([2**40, 1, 4])}),
    "a Tile of the input": (with_output(node("Tile", ["x", "s"], ["h"])), {"s": np.array([2**20, 2**20])}),
    "a Pad of the input": (with_output(node("Pad", ["x", "s"], ["h"])), {"s": np.array([0, 0, 0, 2**40])}),
    "a Resize of the input": (
        with_output(
            node("Reshape", ["x", "s"], ["i"]),
            node("Resize", ["i", "", "", "size"], ["h"]),
        ),
        {"s": np.array([1, 1, 2, 2]), "size": np.array([1, 1, 2**20, 2**20])},
    ),
    "a Resize by factors": (
        with_output(node("Reshape", ["x", "s"], ["i"]), node("Resize", ["i", "", "f"], ["h"])),
        {"s": np.array([1, 1, 2, 2]), "f": np.array([1, 1, 1e6, 1e6], F32)},
    ),
    "a product": (
        with_output(
            node("Expand", ["x", "s"], ["i"]),
            node("Transpose", ["i"], ["j"], perm=[1, 0]),
            node("MatMul", ["i", "j"], ["h"]),
        ),
        {"s": np.array([2**15, 4])},
    ),
    "two that are broadcast": (
        with_output(node("Add", ["wide", "tall"], ["sum"]), node("Add", ["sum", "one"], ["big"]), of="x"),
        {"wide": np.zeros((1, 2**15), F32), "tall": np.zeros((2**15, 1), F32), "one": F32(1)},
    ),
    "a Gather": (
        with_output(node("Gather", ["x", "i"], ["wide"], axis=1), node("Gather", ["wide", "j"], ["h"], axis=0)),
        {"i": np.zeros(2**19, I64), "j": np.zeros(2**10, I64)},
    ),
    "an upward convolution": (
        with_output(node("Reshape", ["x", "s"], ["i"]), node("ConvTranspose", ["i", "w"], ["h"], strides=[2**30])),
        {"s": np.array([1, 1, 4]), "w": np.ones((1, 1, 1), F32)},
    ),
    "ConstantOfShape": (of_constants(node("ConstantOfShape", ["s"], ["h"])), {"s": np.array([2**20, 2**20])}),
    "ConstantOfShape of a product": (
        of_constants(node("Mul", ["s", "s"], ["m"]), node("ConstantOfShape", ["m"], ["h"])),
        {"s": np.array([2**20])},
    ),
    "Range": (
        of_constants(node("Range", ["a", "b", "c"], ["n"]), node("Cast", ["n"], ["h"], to=1)),
        {"a": I64(0), "b": I64(2**40), "c": I64(1)},
    ),
    "OneHot": (
        of_constants(node("OneHot", ["i", "d", "v"], ["h"])),
        {"i": np.zeros(1000, I64), "d": I64(2**40), "v": np.zeros(2, F32)},
    ),
    "an old Upsample": (
        with_output(node("Reshape", ["x", "s"], ["i"]), node("Upsample", ["i"], ["h"], scales=[1.0, 1.0, 1e6, 1e6])),
        {"s": np.array([1, 1, 2, 2])},
    ),
    "an old Pad": (with_output(node("Pad", ["x"], ["h"], pads=[0, 0, 0, 2**40])), {}),
    "random numbers": (of_constants(node("RandomNormal", [], ["h"], shape=[2**20, 2**20])), {}),
    "a range with more steps than integers count": (
        of_constants(node("Range", ["a", "b", "c"], ["h"])),
        {"a": F32(0), "b": F32(1e30), "c": F32(1e-3)},
    ),
    "a Tile whose sizes overflow": (
        with_output(node("Tile", ["x", "s"], ["h"])),
        {"s": np.array([2**62, 2**62])},
    ),
    "places of numbers": (
        of_constants(
            node("NonZero", ["c"], ["n"]),
            node("ReduceMax", ["n"], ["m"], keepdims=1),
            node("Flatten", ["m"], ["f"]),
            node("Mul", ["f", "k"], ["g"]),
            node("Squeeze", ["g"], ["s"]),
            node("Unsqueeze", ["s", "first"], ["size"]),
            node("ConstantOfShape", ["size"], ["h"]),
        ),
        {"c": np.ones(3000, F32), "k": np.array([[2**30]]), "first": np.array([0])},
    ),
    "a shape made from the input's": (
        with_output(
            node("Shape", ["x"], ["s"]),
            node("Mul", ["s", "k"], ["t"]),
            node("Expand", ["x", "one"], ["i"]),
            node("Expand", ["i", "t"], ["j"]),
            of="j",
        ),
        {"k": np.array([2**40, 1]), "one": np.array([1, 4])},
    ),
}


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("name", HUGE)
def test_what_would_be_huge_is_refused_before_it_is_made(tmp_path: Path, name: str, batch: int | str) -> None:
    nodes, constants = HUGE[name]
    ends = {"inputs": [("x", make.FLOAT, (batch, 4))], "outputs": [("y", make.FLOAT, None)]}
    path = make.saved(tmp_path, make.model(nodes, constants, opset=7 if "old" in name else 17, **ends))
    tracemalloc.start()
    with pytest.raises(UnsupportedModelError) as caught:
        read_onnx(path, outline=True)
    assert tracemalloc.get_traced_memory()[1] < 2**24 + 2 * path.stat().st_size
    tracemalloc.stop()
    (problem,) = caught.value.problems
    assert "GiB" in problem
    assert "node '" in problem


@pytest.mark.parametrize(
    ("inputs", "outputs", "hints"),
    [
        (("n", 2**40), None, None),
        ((2**20, 2**20), None, None),
        ((2**62, 2**62), None, None),
        (("n", 4), ("n", 2**40), None),
        (("n", 4), None, (2**40,)),
    ],
)
def test_declared_shapes_beyond_all_memory_are_refused(tmp_path: Path, inputs: Any, outputs: Any, hints: Any) -> None:
    proto = make.model(
        with_output(node("Neg", ["x"], ["h"])),
        {},
        inputs=[("x", make.FLOAT, inputs)],
        outputs=[("y", make.FLOAT, outputs)],
    )
    if hints is not None:
        proto.graph.value_info.append(helper.make_tensor_value_info("h", make.FLOAT, hints))
    with pytest.raises(UnsupportedModelError, match=r"its shape \[.*\] is beyond the 1 GiB"):
        read_onnx(make.saved(tmp_path, proto))


EMPTY: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    "Slice": (
        with_output(node("Slice", ["x", "a", "b", "c"], ["h"])),
        {"a": np.array([2]), "b": np.array([2]), "c": np.array([1])},
    ),
    "Expand": (with_output(node("Expand", ["x", "s"], ["h"])), {"s": np.array([0, 1, 4])}),
    "Tile": (with_output(node("Tile", ["x", "s"], ["h"])), {"s": np.array([1, 0])}),
    "Gather": (with_output(node("Gather", ["x", "i"], ["h"], axis=1)), {"i": np.zeros(0, I64)}),
    "MatMul": (with_output(node("MatMul", ["x", "w"], ["h"])), {"w": np.zeros((4, 0), F32)}),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_results_are_refused(tmp_path: Path, name: str) -> None:
    nodes, constants = EMPTY[name]
    proto = make.model(nodes, constants, outputs=[("y", make.FLOAT, None)])
    with pytest.raises(UnsupportedModelError, match=rf"{name} node .* makes an empty tensor"):
        read_onnx(make.saved(tmp_path, proto))


@pytest.mark.parametrize("shape", [(1, 0), (0,), ("n", 0)])
def test_empty_inputs_are_refused(tmp_path: Path, shape: Any) -> None:
    proto = make.model(with_output(of="x"), {}, inputs=[("x", make.FLOAT, shape)], outputs=[("y", make.FLOAT, None)])
    with pytest.raises(UnsupportedModelError, match=r"x: its shape \[.*0\] is empty"):
        read_onnx(make.saved(tmp_path, proto))


def test_empty_constants_do_no_harm(tmp_path: Path) -> None:
    """Exporters write an empty tensor for the roi and the scales that a Resize does not use."""
    nodes = [
        node("Reshape", ["x", "s"], ["i"]),
        node("Resize", ["i", "none", "none", "size"], ["h"], mode="nearest"),
        node("Flatten", ["h"], ["y"]),
    ]
    constants = {"s": np.array([1, 1, 2, 2]), "none": np.zeros(0, F32), "size": np.array([1, 1, 4, 4])}
    proto = make.model(nodes, constants, outputs=[("y", make.FLOAT, None)], opset=11)
    assert len(read_onnx(make.saved(tmp_path, proto)).nodes) == 3


def test_dead_nodes_are_checked_as_well(tmp_path: Path) -> None:
    """They are in the file that onnxruntime reads."""
    big = node("ConstantOfShape", ["s"], ["nowhere"], name="big")
    proto = make.model([*make.affine_relu(), big], {**make.weights(), "s": np.array([2**40])})
    with pytest.raises(UnsupportedModelError, match=r"ConstantOfShape node 'big' would make 4096\.0 GiB"):
        read_onnx(make.saved(tmp_path, proto))
    endless = node("Range", ["zero", "five", "zero"], ["nowhere"], name="endless")
    numbers = {"zero": I64(0), "five": I64(5)}
    with pytest.raises(UnsupportedModelError, match="Range node 'endless': the size of what it makes cannot be told"):
        read_onnx(make.saved(tmp_path, make.model([*make.affine_relu(), endless], {**make.weights(), **numbers})))
    odd = node("Concat", ["x"], ["nowhere"], name="odd")
    with pytest.raises(UnsupportedModelError, match="Concat node 'odd' lacks its attribute axis"):
        read_onnx(make.saved(tmp_path, make.model([*make.affine_relu(), odd])))


@pytest.mark.parametrize(
    ("nodes", "inputs", "expected"),
    [
        ([], make.FLOAT, "float32"),
        ([], TensorProto.DOUBLE, "float64"),
        ([], TensorProto.FLOAT16, "float16"),
        ([node("Cast", ["x"], ["h"], to=10), node("Cast", ["h"], ["z"], to=1)], make.FLOAT, "float16"),
        ([node("Cast", ["x"], ["h"], to=16), node("Cast", ["h"], ["z"], to=1)], make.FLOAT, "bfloat16"),
        ([node("Cast", ["x"], ["z"], to=11)], make.FLOAT, "float32"),
        ([node("Cast", ["w"], ["v"], to=1), node("Add", ["x", "v"], ["z"])], make.FLOAT, "float32"),
    ],
)
def test_the_arithmetic_is_the_coarsest_float_behind_the_input(
    tmp_path: Path, nodes: list[NodeProto], inputs: int, expected: str
) -> None:
    proto = make.model(
        [*nodes, node("Abs", ["z" if nodes else "x"], ["y"])],
        {"w": np.ones(4, np.float16)},
        inputs=[("x", inputs, (1, 4))],
        outputs=[("y", TensorProto.UNDEFINED, None)],
    )
    assert read_onnx(make.saved(tmp_path, proto)).arithmetic == expected


@pytest.mark.parametrize("to", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2])
def test_numbers_of_the_network_in_eight_bits_are_refused(tmp_path: Path, to: int) -> None:
    nodes = [node("Cast", ["x"], ["h"], to=to, name="narrow"), node("Cast", ["h"], ["y"], to=1)]
    proto = make.model(nodes, {}, opset=19, ir_version=9, outputs=[("y", make.FLOAT, None)])
    with pytest.raises(UnsupportedModelError, match="Cast node 'narrow' turns the network's own numbers into float8"):
        read_onnx(make.saved(tmp_path, proto))
