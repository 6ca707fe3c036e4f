"""Constants computed from constants: the same numbers as onnxruntime's, in every version of the operator set."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from idl_audit.graph.folding import fold_node
from idl_audit.graph.ir import Node
from idl_audit.graph.schemas import operator

F32 = np.float32
NEWEST = 26  # of onnxruntime
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)).astype(F32)
IMAGE = RNG.normal(size=(1, 2, 5, 6)).astype(F32)
I64 = np.int64
A, B = np.arange(1, 7).reshape(2, 3), np.array([3, 1, 2])
TRUE = np.array([True, False, True])

Case = tuple[str, tuple[Any, ...], dict[str, Any], int, int]


def case(op: str, *inputs: Any, since: int = 7, until: int = NEWEST, **attributes: Any) -> Case:
    return op, inputs, attributes, since, until


CASES: list[Case] = [
    # elementwise
    *(case(op, X) for op in ("Abs", "Ceil", "Floor", "Neg", "Exp", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign")),
    *(case(op, X) for op in ("Elu", "Selu", "LeakyRelu", "HardSigmoid", "Identity", "Sin", "Cos", "Atan", "Not")[:-1]),
    *(case(op, X, since=9) for op in ("Erf", "Sign", "Sinh", "Cosh", "Asinh", "Shrink")),
    case("Round", X, since=11),
    case("Celu", X, since=12),
    case("HardSwish", X, since=14),
    case("Mish", X, since=18),
    case("Gelu", X, since=20),
    case("Gelu", X, since=20, approximate="tanh"),
    case("ThresholdedRelu", X, since=10, alpha=0.5),
    *(case(op, np.abs(X) + F32(0.5)) for op in ("Log", "Sqrt", "Reciprocal")),
    *(case(op, X, X[:1]) for op in ("Add", "Sub", "Mul")),
    *(case(op, A, B) for op in ("Add", "Sub", "Mul", "Div")),
    case("Div", -A, B),
    case("Div", X, np.abs(X) + F32(1)),
    case("Pow", np.abs(X), np.array(2.0, F32)),
    case("Pow", np.abs(X), np.array(2), since=12),
    case("Mod", -A, B, since=10),
    case("Mod", X, np.array(0.7, F32), since=10, fmod=1),
    *(case(op, TRUE, TRUE[::-1].copy()) for op in ("And", "Or", "Xor")),
    case("Not", TRUE),
    *(case(op, X, X[::-1].copy()) for op in ("Less", "Greater")),
    case("Equal", A, B),
    case("Equal", X, X[::-1].copy(), since=11),
    *(case(op, X, X[::-1].copy(), since=12) for op in ("LessOrEqual", "GreaterOrEqual")),
    *(case(op, X, X[::-1].copy(), X[:1], since=8) for op in ("Max", "Min", "Sum", "Mean")),
    case("Max", A, B, since=12),
    case("PRelu", X, np.array(0.1, F32)),
    case("Where", TRUE, A, B, since=9),
    case("IsNaN", X, since=9),
    case("IsInf", np.array([np.inf, -np.inf, 1], F32), since=10),
    case("BitShift", np.array([1, 2], np.uint8), np.array([1, 3], np.uint8), since=11, direction="LEFT"),
    case("Clip", X, until=10, min=-0.5, max=0.5),
    case("Clip", X, np.array(-0.5, F32), np.array(0.5, F32), since=11),
    case("Clip", X, None, np.array(np.inf, F32), since=11),
    case("Cast", X, to=7),
    case("Cast", np.array([0.0, 0.5, -2.0], F32), to=9),
    case("Cast", X, to=10),
    case("Cast", X, to=11),
    case("Cast", A, to=1),
    case("CastLike", A, X, since=15),
    # products
    case("MatMul", X, RNG.normal(size=(4, 2)).astype(F32)),
    case("MatMul", A.astype(np.int32), B.astype(np.int32), since=9),
    case("Gemm", X[0], X[1], np.zeros(3, F32), transB=1, alpha=0.5, beta=2.0),
    case("Einsum", X, X, since=12, equation="bij,bkj->bik"),
    case("Einsum", X[0], since=12, equation="ij->ji"),
    case("Conv", IMAGE, RNG.normal(size=(3, 2, 3, 3)).astype(F32), np.ones(3, F32), pads=(1, 0, 1, 2), strides=(2, 1)),
    case("Det", X[:, :, :3].copy(), since=11),
    # reductions
    *(
        case(op, np.abs(X) + F32(0.1), until=12 if op == "ReduceSum" else 17, axes=(1,), keepdims=0)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
    ),
    *(case(op, np.abs(X) + F32(0.1), until=17, axes=(0, 2)) for op in ("ReduceSumSquare", "ReduceLogSum")),
    case("ReduceLogSumExp", X, until=17, axes=(2,)),
    case("ReduceSum", X, np.array([1]), since=13),
    case("ReduceSum", X, None, since=13, keepdims=0),
    case("ReduceSum", X, np.array([], I64), since=13, noop_with_empty_axes=1),
    case("ReduceSum", A, np.array([-1]), since=13, keepdims=0),
    *(case(op, X, np.array([1, 2]), since=18) for op in ("ReduceMean", "ReduceMax", "ReduceL2", "ReduceProd")),
    case("ArgMax", X, axis=1, keepdims=0),
    case("ArgMax", np.zeros((2, 3), F32), since=12, axis=1, select_last_index=1),
    case("ArgMin", X, axis=-1, since=11),
    case("CumSum", X, np.array(1), since=11),
    case("CumSum", X, np.array(-1), since=11, exclusive=1, reverse=1),
    case("TopK", X, np.array([2]), since=10, axis=1),
    case("TopK", X, np.array([2]), since=11, axis=-1, largest=0),
    *(case(op, X, axis=1) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(case(op, X) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    # movement
    case("Concat", A, A, axis=1),
    case("Concat", X, X, X, axis=-1, since=11),
    case("Expand", B, np.array([2, 1]), since=8),
    case("Flatten", X, axis=2),
    case("Flatten", X, axis=-1, since=11),
    case("Gather", X, np.array([[1, 0]]), axis=1),
    case("Gather", A, np.array(-1), axis=1, since=11),
    case("GatherElements", A, np.array([[2, 0, 1], [0, 0, -1]]), axis=1, since=11),
    case("GatherND", X, np.array([[0, 1], [1, 2]]), since=11),
    case("GatherND", X, np.array([[1], [0]]), since=12, batch_dims=1),
    case("Reshape", X, np.array([4, -1])),
    case("Reshape", X, np.array([0, -1])),
    case("ScatterElements", A, np.array([[0, 2], [1, 0]]), np.array([[9, 8], [7, 6]]), axis=1, since=11),
    case(
        "ScatterElements", A, np.array([[0, 0], [1, 1]]), np.array([[9, 8], [7, 6]]), axis=1, since=16, reduction="add"
    ),
    case("ScatterND", X, np.array([[1], [0]]), X * F32(2), since=11),
    case("ScatterND", A, np.array([[0, 1], [0, 1]]), np.array([10, 20]), since=16, reduction="add"),
    case("Slice", X, until=9, starts=(0, 1), ends=(1, 9), axes=(0, 2)),
    case("Slice", X, np.array([0, -1]), np.array([1, -9]), np.array([0, 2]), np.array([1, -2]), since=10),
    case("Split", X, until=12, axis=2, split=(1, 3)),
    case("Split", X, np.array([1, 3]), since=13, axis=2),
    case("Split", X, since=18, axis=2, num_outputs=2),
    case("Squeeze", IMAGE, until=12, axes=(0,)),
    case("Squeeze", IMAGE, np.array([0]), since=13),
    case("Squeeze", IMAGE, since=13),
    case("Unsqueeze", X, until=12, axes=(0, 3)),
    case("Unsqueeze", X, np.array([3, 0]), since=13),
    case("Tile", A, np.array([2, 1])),
    case("Transpose", X, perm=(2, 0, 1)),
    case("Transpose", X),
    case("Pad", X, until=10, pads=(0, 1, 0, 0, 0, 2), value=3.0),
    case("Pad", X, np.array([0, 1, 0, 0, 0, 2]), np.array(3, F32), since=11),
    case("Pad", X, np.array([0, 1, 1, 0, 1, 2]), None, since=11, mode="reflect"),
    case("Pad", X, np.array([0, 1, 1, 0, 1, 2]), None, since=11, mode="edge"),
    case("Pad", X, np.array([1, 2]), None, np.array([2]), since=18),
    case("Pad", X, np.array([-1, 2]), None, np.array([2]), since=18),
    case("DepthToSpace", np.arange(16, dtype=F32).reshape(1, 8, 1, 2), blocksize=2),
    case("DepthToSpace", np.arange(16, dtype=F32).reshape(1, 8, 1, 2), blocksize=2, mode="CRD", since=11),
    case("SpaceToDepth", np.arange(16, dtype=F32).reshape(1, 1, 4, 4), blocksize=2),
    case("Compress", X, TRUE, axis=1, since=9),
    case("NonZero", A - 2, since=9),
    case("Trilu", X[0], np.array(1), since=14, upper=0),
    case("Trilu", X[0], since=14),
    case("ReverseSequence", X, np.array([3, 1]), since=10, batch_axis=0, time_axis=1),
    case("EyeLike", A.astype(F32), since=9, k=1),
    case("OneHot", np.array([1, 2]), np.array(3), np.array([2.0, 5.0], F32), since=9),
    case("OneHot", np.array([[1, -1], [7, 0]]), np.array(3), np.array([2.0, 5.0], F32), since=11),
    case("OneHot", np.array([1, 0]), np.array([3]), np.array([2, 5]), since=11, axis=0),
    case("Range", np.array(2), np.array(9), np.array(3), since=11),
    case("Range", np.array(2.0, F32), np.array(0.0, F32), np.array(-0.5, F32), since=11),
    case("ConstantOfShape", np.array([2, 3]), since=9, value=np.array([7], I64)),
    case("ConstantOfShape", np.array([2, 3]), since=9),
    case("Shape", X),
    case("Shape", X, since=15, start=1, end=-1),
    case("Size", X),
    case("Unique", np.array([3, 1, 3, 2]), since=11),
    # pooling and normalisation
    case("MaxPool", IMAGE, kernel_shape=(2, 2), strides=(2, 2), pads=(0, 1, 0, 1)),
    case("AveragePool", IMAGE, kernel_shape=(2, 2), pads=(0, 1, 0, 1)),
    case("GlobalAveragePool", IMAGE),
    case("GlobalMaxPool", IMAGE),
    case("BatchNormalization", IMAGE, *(np.array([0.5, 2.0], F32),) * 4),
    case("InstanceNormalization", IMAGE, *(np.array([0.5, 2.0], F32),) * 2),
    case("LayerNormalization", X, np.ones(4, F32), np.ones(4, F32), since=17),
    case("LRN", IMAGE, size=3),
    case("LRN", RNG.normal(size=(2, 5, 3, 3)).astype(F32), size=5, alpha=0.2, beta=0.6, bias=1.5),
    case("GroupNormalization", IMAGE, *(np.array([0.5, 2.0], F32),) * 2, since=21, num_groups=2),
    case("MeanVarianceNormalization", IMAGE, since=9),
    case("ConvTranspose", IMAGE, RNG.normal(size=(2, 3, 3, 3)).astype(F32), strides=(2, 1), output_padding=(1, 0)),
    *(
        case(
            op,
            RNG.normal(size=(4, 1, 3)).astype(F32),
            RNG.normal(size=(2, 2 * gates, 3)).astype(F32),
            RNG.normal(size=(2, 2 * gates, 2)).astype(F32),
            RNG.normal(size=(2, 4 * gates)).astype(F32),
            hidden_size=2,
            direction="bidirectional",
        )
        for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    ),
    case("RMSNormalization", X, np.ones(4, F32), since=23),
    case("HannWindow", np.array(8), since=17),
    case("LpNormalization", X, axis=1),
    case("Dropout", X, until=11, ratio=0.5),
    case("Dropout", X, np.array(0.5, F32), since=12),
    # quantisation
    case("DequantizeLinear", A.astype(np.uint8), np.array(0.1, F32), np.array(3, np.uint8), since=10),
    case("DequantizeLinear", A.astype(np.int8), np.array(0.1, F32), since=10),
    case("DequantizeLinear", A.astype(np.int32), np.array(0.1, F32), since=10),
    case("DequantizeLinear", A.astype(np.int8), np.array([0.1, 0.2, 0.3], F32), B.astype(np.int8), since=13),
    case("DequantizeLinear", A.astype(np.int8), np.array([0.1, 0.2], F32), np.array([1, 2], np.int8), since=13, axis=0),
    case(
        "DequantizeLinear", A.astype(np.int8), np.array([0.1, 0.2], F32), np.array([1, 2], np.int8), since=13, axis=-2
    ),
    case("DequantizeLinear", A.astype(np.int8), np.array([0.1], np.float16), np.array([1], np.int8), since=19),
    case("DequantizeLinear", A.astype(np.int16), np.array(0.1, F32), np.array(-7, np.int16), since=21),
    case(
        "DequantizeLinear",
        *(np.arange(12, dtype=np.int8).reshape(2, 6), np.array([[0.1, 0.2, 0.3]] * 2, F32), np.ones((2, 3), np.int8)),
        since=21,
        axis=1,
        block_size=2,
    ),
    case("QuantizeLinear", X, np.array(0.1, F32), np.array(3, np.uint8), since=10),
    case("QuantizeLinear", X * F32(100), np.array(0.1, F32), np.array(3, np.int8), since=10),
    case("QuantizeLinear", X, np.array(0.1, F32), since=10),
    case("QuantizeLinear", X, np.array([0.1, 0.2, 0.3], F32), np.array([0, 3, 5], np.uint8), since=13, axis=1),
    case("QuantizeLinear", np.array([0.5, 1.5, 2.5, -0.5], F32), np.array(1.0, F32), np.array(0, np.int8), since=10),
    case("QuantizeLinear", X, np.array(0.001, F32), np.array(0, np.int16), since=21),
    case("QuantizeLinear", X, np.array(0.1, F32), since=21, output_dtype=3),
    case("DynamicQuantizeLinear", X, since=11),
    case("MatMulInteger", A.astype(np.uint8), A.T.astype(np.uint8).copy(), np.array(1, np.uint8), since=10),
]


def versions(op: str, since: int, until: int) -> Iterator[int]:
    """Yield one version of the operator set for every meaning of the operator in the range."""
    seen = set()
    for opset in range(since, until + 1):
        known = operator(op, opset)
        if known is not None and not known.deprecated and known.since not in seen:
            seen.add(known.since)
            yield opset


ALL = [(op, inputs, attributes, opset) for op, inputs, attributes, lo, hi in CASES for opset in versions(op, lo, hi)]
N_OUTPUTS = {"TopK": 2, "Split": 2, "Unique": 4, "DynamicQuantizeLinear": 3, "LSTM": 3, "GRU": 2, "RNN": 2}


def by_onnxruntime(op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], opset: int) -> list[Any]:
    names = [f"i{k}" if value is not None else "" for k, value in enumerate(inputs)]
    outputs = [f"o{k}" for k in range(N_OUTPUTS.get(op, 1))]
    given = {key: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for key, v in attributes.items()}
    arrays = {name: np.asarray(value) for name, value in zip(names, inputs, strict=True) if name}
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **given)],
        "g",
        [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in arrays.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return list(onnxruntime.InferenceSession(model.SerializeToString()).run(None, arrays))


@pytest.mark.parametrize(("op", "inputs", "attributes", "opset"), ALL, ids=[f"{c[0]}-{c[3]}" for c in ALL])
def test_the_value_is_onnxruntimes(op: str, inputs: Any, attributes: dict[str, Any], opset: int) -> None:
    outputs = tuple(f"o{k}" for k in range(N_OUTPUTS.get(op, 1)))
    node = Node(op, "n", tuple("" if v is None else "i" for v in inputs), outputs, MappingProxyType(attributes))
    found = fold_node(node, [None if value is None else np.asarray(value) for value in inputs], opset)
    for mine, theirs in zip(found, by_onnxruntime(op, inputs, attributes, opset), strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype.kind == theirs.dtype.kind
        if theirs.dtype.kind == "f":
            np.testing.assert_allclose(mine, theirs, rtol=2e-5 if theirs.dtype != np.float16 else 1e-3, atol=1e-6)
        else:
            np.testing.assert_array_equal(mine, theirs)
