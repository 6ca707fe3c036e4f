"""Layers of quantised networks that runtimes compute with whole numbers: where these do otherwise there is no bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.implicit.as_written import as_written
from idl_audit.values.errors import UnsupportedModelError
from tests.proof.test_float_errors import LEVELS, _run, single

POINTS = single(0.5, -0.25, 0.13, 0.77).reshape(1, 4)
LAST = [("QuantizeLinear", "c so zo", "q"), ("DequantizeLinear", "q so zo", "y")]
GEMM, MATMUL = ("Gemm", "xd wd bd", "c"), [("MatMul", "xd wd", "m"), ("Add", "m b", "c")]
CONSTANTS: Mapping[str, Any] = {
    **dict(zip(("sx", "sw", "sb", "so"), single(0.01, 0.02, 0.0002, 1e-4), strict=True)),
    "zx": np.uint8(128),
    "zw": np.int8(0),
    "zo": np.uint8(128),
    "w": np.array([[3, -5], [2, 1], [7, 1], [-2, 4]], np.int8),
    "wf": single(0.0603, -0.1, 0.04, 0.02, 0.1404, 0.02, -0.04, 0.08).reshape(4, 2),
    "b": single(0.00333, -0.00511),
    "bq": np.array([100, -50], np.int32),
}


def network(nodes: list[tuple[str, str, str]], opset: int = 17, **others: Any) -> onnx.ModelProto:
    """Return a network with x, quantised to xd, and dequantised weights wd and bias bd beside it."""
    before = [("QuantizeLinear", "x sx zx", "xq"), ("DequantizeLinear", "xq sx zx", "xd")]
    before += [("DequantizeLinear", "w sw zw", "wd"), ("DequantizeLinear", "bq sb", "bd")]
    made = [helper.make_node(op, inputs.split(), [out]) for op, inputs, out in [*before, *nodes]]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 4]), ("y", None)))
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**CONSTANTS, **others}.items()]
    return helper.make_model(
        helper.make_graph(made, "g", [x], [y], values), opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def written(model: onnx.ModelProto, folder: Path) -> Any:
    onnx.save(model, folder / "model.onnx")
    return as_written(read_onnx(folder / "model.onnx"))


BROKEN = {
    "wraps": ([("Gemm", "xd wd bd", "y")], {"bq": np.array([2**31 - 1, 5], np.int32)}, "wrap around"),
    "scale": ([("Gemm", "xd wd bd", "y")], {"sb": single(0.02)[0]}, "bias is not on the grid"),
    "bias": ([("Gemm", "xd wd b", "c"), *LAST], {}, "bias is not on the grid"),
    "added": ([*MATMUL, *LAST], {}, "bias is not on the grid"),
    "weights": ([("Gemm", "xd wf bd", "c"), *LAST], {}, "weights are not on the grid"),
    "alone": ([("MatMul", "x wd", "y")], {"opset": 19}, "weights alone are quantised"),
    "softmax": ([("Softmax", "xd", "c"), *LAST], {"so": single(0.004)[0], "zo": np.uint8(0)}, "between grids"),
}
"""Networks of which onnxruntime makes another function."""


@pytest.mark.parametrize("name", BROKEN)
def test_where_integer_kernels_do_otherwise_nothing_is_bounded(name: str, tmp_path: Path) -> None:
    nodes, others, why = BROKEN[name]
    with pytest.raises(UnsupportedModelError, match=why):
        written(network(nodes, **others), tmp_path)


@pytest.mark.parametrize("name", ["wraps", "scale"])
def test_onnxruntime_does_otherwise(name: str) -> None:
    """The reason of the refusals: what wraps is off by all of it, and a bias of 2 is read as one of .02."""
    nodes, others, _ = BROKEN[name]
    model = network(nodes, **others)
    plain, optimised = (_run(model, level, POINTS)[0] for level in LEVELS)
    assert np.abs(plain - optimised).max() > 0.5


@pytest.mark.parametrize(
    "nodes",
    [
        [GEMM, *LAST],
        [("Gemm", "xd wd bd", "y")],
        [("Gemm", "xd wd b", "y")],
        [("MatMul", "xd wd", "c"), *LAST],
    ],
)
def test_layers_on_one_grid_have_a_bound(nodes: list[tuple[str, str, str]], tmp_path: Path) -> None:
    model = network(nodes, so=single(0.01)[0])
    exact = written(model, tmp_path).model(POINTS.astype(float))
    for level in LEVELS:
        assert np.abs(_run(model, level, POINTS) - exact).max() < 1e-6


def test_long_sums_of_whole_numbers_may_wrap_around(tmp_path: Path) -> None:
    long = network([("Pad", "xd pads", "p"), ("MatMul", "p wd", "y")], pads=np.array([0, 0, 0, 70000 - 4]))
    values = {value.name: value for value in long.graph.initializer}
    values["w"].CopyFrom(numpy_helper.from_array(np.full((70000, 2), 127, np.int8), "w"))
    with pytest.raises(UnsupportedModelError, match="wrap around"):
        written(long, tmp_path)
