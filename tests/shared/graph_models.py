"""Tiny ONNX files for the tests, good ones and hostile ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def weights(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(4, 3)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)}


def affine_relu() -> list[NodeProto]:
    """y = relu(x w + b)."""
    return [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["y"], name="second"),
    ]


def model(
    nodes: Sequence[NodeProto] | None = None,
    constants: dict[str, Any] | None = None,
    *,
    inputs: Sequence[tuple[str, int, Sequence[int | str | None] | None]] = (("x", FLOAT, (1, 4)),),
    outputs: Sequence[tuple[str, int, Sequence[int | str | None] | None]] = (("y", FLOAT, (1, 3)),),
    opset: int = 17,
    ir_version: int = 8,
    imports: Sequence[tuple[str, int]] = (),
) -> onnx.ModelProto:
    """Return a model; arrays become initializers, TensorProtos are taken as they are."""
    tensors = []
    for name, value in (weights() if constants is None else constants).items():
        tensors.append(value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name))
    graph = helper.make_graph(
        affine_relu() if nodes is None else list(nodes),
        "g",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        initializer=tensors,
    )
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(*entry) for entry in imports)]
    return helper.make_model(graph, opset_imports=versions, ir_version=ir_version, producer_name="tests")


def saved(folder: Path, proto: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def external(name: str, shape: Sequence[int], data_type: int = FLOAT, **entries: object) -> TensorProto:
    """Return a tensor whose data lies where `entries` (location, offset, length) say."""
    tensor = TensorProto(name=name, dims=shape, data_type=data_type, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def claiming(name: str, dims: Sequence[int], raw: bytes = b"", data_type: int = FLOAT) -> TensorProto:
    """Return a tensor with any dims and any bytes."""
    return TensorProto(name=name, dims=dims, data_type=data_type, raw_data=raw)
