"""Weights that the file computes, packs or leaves full of zeros: read as onnxruntime computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from idl_audit import load
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.errors import ModelFileError, UnsupportedModelError

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT
F32, I8, U8 = np.float32, np.int8, np.uint8
W = RNG.normal(size=(4, 3)).astype(F32)
WHOLE = RNG.integers(-7, 8, size=(4, 3))
node = helper.make_node


def saved(
    folder: Path,
    nodes: list[NodeProto],
    constants: dict[str, Any],
    *,
    opset: int = 21,
    sparse: tuple[onnx.SparseTensorProto, ...] = (),
    last: str = "MatMul",
) -> Path:
    """Return the file of y = relu(x w), where the nodes make w of the constants."""
    tensors = [
        v if isinstance(v, TensorProto) else numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()
    ]
    graph = helper.make_graph(
        [*nodes, node(last, ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        tensors,
        sparse_initializer=list(sparse),
    )
    version = 8 if opset < 19 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def weights_of(path: Path) -> np.ndarray:
    """Return the weights of the implicit model, which is checked against onnxruntime on the way."""
    model = load(path)
    (row,) = model.rows
    assert row.input is not None
    return np.asarray(row.input.to_sparse().todense()).T


def dequantised(values: np.ndarray, opset: int, *, scale: Any = 0.1, zero: Any = None, **attributes: Any) -> Any:
    inputs = ["q", "s"] if zero is None else ["q", "s", "z"]
    constants = {"q": values, "s": np.asarray(scale, F32)}
    if zero is not None:
        constants["z"] = np.asarray(zero).astype(values.dtype)
    return [node("DequantizeLinear", inputs, ["w"], **attributes)], constants, opset


SCALES = np.array([0.1, 0.2, 0.3], F32)
DEQUANTISED = {
    "int8 in version 10": (dequantised(WHOLE.astype(I8), 10), WHOLE * F32(0.1)),
    "uint8 with a zero point": (dequantised((WHOLE + 8).astype(U8), 13, zero=8), WHOLE * F32(0.1)),
    "along axis 1": (
        dequantised(WHOLE.astype(I8), 13, scale=SCALES, zero=[1, 2, 3], axis=1),
        (WHOLE - [1, 2, 3]) * SCALES,
    ),
    "along axis 0": (dequantised(WHOLE.astype(I8), 17, scale=[1, 2, 3, 4], axis=0), WHOLE * [[1], [2], [3], [4]]),
    "along the last axis": (dequantised(WHOLE.astype(I8), 19, scale=SCALES, axis=-1), WHOLE * SCALES),
    "int32": (dequantised(WHOLE.astype(np.int32), 13), WHOLE * F32(0.1)),
    "int16": (dequantised(WHOLE.astype(np.int16), 21, zero=-7), (WHOLE + 7) * F32(0.1)),
    "int4": (dequantised(WHOLE.astype(ml_dtypes.int4), 21, zero=2), (WHOLE - 2) * F32(0.1)),
    "uint4": (dequantised((WHOLE + 7).astype(ml_dtypes.uint4), 21, zero=7), WHOLE * F32(0.1)),
    "int4 in blocks": (
        dequantised(WHOLE.astype(ml_dtypes.int4), 21, scale=[SCALES, 2 * SCALES], axis=0, block_size=2),
        WHOLE * np.repeat([SCALES, 2 * SCALES], 2, axis=0),
    ),
    "float8": (dequantised((WHOLE / 2).astype(ml_dtypes.float8_e4m3fn), 19), WHOLE / 2 * F32(0.1)),
}


@pytest.mark.parametrize("name", DEQUANTISED)
def test_quantised_weights_are_read(tmp_path: Path, name: str) -> None:
    (nodes, constants, opset), expected = DEQUANTISED[name]
    np.testing.assert_allclose(weights_of(saved(tmp_path, nodes, constants, opset=opset)), expected, rtol=1e-6)


def test_weights_that_are_quantised_on_the_way_are_read(tmp_path: Path) -> None:
    nodes = [node("QuantizeLinear", ["f", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["w"])]
    constants = {"f": W, "s": F32(0.05), "z": I8(3)}
    expected = (np.clip(np.rint(W / F32(0.05)) + 3, -128, 127) - 3) * F32(0.05)
    for opset in (10, 13, 19, 21):
        found = weights_of(saved(tmp_path, nodes, constants, opset=opset))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_four_bits_are_clipped_as_four_bits(tmp_path: Path) -> None:
    """What is kept as int8 here must still be rounded and clipped as int4 is."""
    nodes = [node("QuantizeLinear", ["f", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["w"])]
    zero = numpy_helper.from_array(np.array(0, ml_dtypes.int4), "z")
    path = saved(tmp_path, nodes, {"f": W, "s": F32(0.1), "z": zero})
    np.testing.assert_allclose(weights_of(path), np.clip(np.rint(W / F32(0.1)), -8, 7) * F32(0.1), rtol=1e-6)


CHAINS: dict[str, tuple[list[NodeProto], dict[str, Any], np.ndarray]] = {
    "CumSum": ([node("CumSum", ["c", "a"], ["w"])], {"c": W, "a": np.array(0)}, W.cumsum(axis=0)),
    "Einsum": ([node("Einsum", ["c", "c"], ["w"], equation="ij,ij->ij")], {"c": W}, W * W),
    "Where": (
        [node("Greater", ["c", "z"], ["m"]), node("Where", ["m", "c", "z"], ["w"])],
        {"c": W, "z": F32(0)},
        np.maximum(W, 0),
    ),
    "ScatterND": (
        [node("ScatterND", ["c", "i", "u"], ["w"])],
        {"c": W, "i": np.array([[1]]), "u": np.zeros((1, 3), F32)},
        W * [[1], [0], [1], [1]],
    ),
    "Dropout": ([node("Dropout", ["c"], ["w"])], {"c": W}, W),
    "Identity": ([node("Identity", ["c"], ["d"]), node("Identity", ["d"], ["w"])], {"c": W}, W),
    "CastLike": ([node("CastLike", ["c", "f"], ["w"])], {"c": WHOLE, "f": F32(0)}, WHOLE),
    "Range": (
        [node("Range", ["a", "b", "s"], ["r"]), node("Reshape", ["r", "shape"], ["w"])],
        {"a": F32(0), "b": F32(6), "s": F32(0.5), "shape": np.array([4, 3])},
        np.arange(0, 6, 0.5).reshape(4, 3),
    ),
    "ConstantOfShape": (
        [node("ConstantOfShape", ["s"], ["w"], value=numpy_helper.from_array(np.array([2.0], F32)))],
        {"s": np.array([4, 3])},
        np.full((4, 3), 2.0),
    ),
    "EyeLike": ([node("EyeLike", ["c"], ["w"], dtype=FLOAT)], {"c": WHOLE}, np.eye(4, 3)),
    "Trilu": ([node("Trilu", ["c"], ["w"], upper=0)], {"c": W}, np.tril(W)),
    "Softmax": ([node("Softmax", ["c"], ["w"], axis=0)], {"c": W}, np.exp(W) / np.exp(W).sum(axis=0)),
    "the shape of the input": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "one"], ["k"]),
            node("Cast", ["k"], ["f"], to=FLOAT),
            node("Mul", ["c", "f"], ["w"]),
        ],
        {"one": np.array(1), "c": W},
        4 * W,
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_computed_weights_are_read(tmp_path: Path, name: str) -> None:
    nodes, constants, expected = CHAINS[name]
    np.testing.assert_allclose(weights_of(saved(tmp_path, nodes, constants, opset=17)), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int32, np.uint8, np.bool_])
def test_weights_of_other_types_are_cast(tmp_path: Path, dtype: Any) -> None:
    stored = np.abs(WHOLE).astype(dtype) if dtype in (np.uint8, np.bool_) else (WHOLE * 0.5).astype(dtype)
    path = saved(tmp_path, [node("Cast", ["c"], ["w"], to=FLOAT)], {"c": numpy_helper.from_array(stored, "c")})
    np.testing.assert_array_equal(weights_of(path), stored.astype(F32))


def test_a_cast_to_sixteen_bits_rounds(tmp_path: Path) -> None:
    nodes = [node("Cast", ["c"], ["half"], to=TensorProto.FLOAT16), node("Cast", ["half"], ["w"], to=FLOAT)]
    np.testing.assert_array_equal(weights_of(saved(tmp_path, nodes, {"c": W})), W.astype(np.float16).astype(F32))


def sparse(name: str, flat: bool, places: np.ndarray, shape: tuple[int, ...] = (4, 3)) -> onnx.SparseTensorProto:
    """Return ones at these flat places."""
    values = numpy_helper.from_array(np.ones(len(places), F32), name)
    indices = places if flat else np.stack(np.unravel_index(places, shape), axis=1)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64), f"{name}_i"), shape)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("attribute", [True, False])
def test_sparse_weights_are_read(tmp_path: Path, flat: bool, attribute: bool) -> None:
    places = np.array([0, 4, 11])
    given = sparse("w", flat, places)
    nodes = [node("Constant", [], ["w"], sparse_value=given)] if attribute else []
    path = saved(tmp_path, nodes, {}, sparse=() if attribute else (given,), opset=13)
    expected = np.zeros(12)
    expected[places] = 1
    np.testing.assert_array_equal(weights_of(path), expected.reshape(4, 3))


@pytest.mark.parametrize("places", [[0, 12], [-1, 3], [5, 5]])
def test_sparse_weights_with_impossible_places_are_damaged(tmp_path: Path, places: list[int]) -> None:
    with pytest.raises(ModelFileError, match="indices of the sparse tensor"):
        read_onnx(saved(tmp_path, [], {}, sparse=(sparse("w", True, np.array(places)),)))


def test_sparse_weights_of_impossible_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="too large with its zeros"):
        read_onnx(saved(tmp_path, [], {}, sparse=(sparse("w", True, np.array([0]), (2**20, 2**20)),)))


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_weights_are_refused_where_they_are_used(tmp_path: Path, bad: float) -> None:
    path = saved(tmp_path, [], {"w": np.where(W > 1, F32(bad), W)})
    with pytest.raises(UnsupportedModelError, match="infinity"):
        load(path)


@pytest.mark.parametrize("op", ["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_weights_drawn_at_random_are_refused_by_name(tmp_path: Path, op: str) -> None:
    made = node(op, [], ["w"], shape=[4, 3]) if op in ("RandomNormal", "RandomUniform") else node(op, ["c"], ["w"])
    with pytest.raises(UnsupportedModelError, match=f"w: {op} draws random numbers"):
        load(saved(tmp_path, [made], {"c": W}))
