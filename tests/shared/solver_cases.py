"""Small ONNX models and VNN-LIB 2 queries for tests of the solver command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Sequence[Any]] | None = None,
    outputs: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
    opset: int = 18,
    kind: int = FLOAT,
) -> onnx.ModelProto:
    """Return a model; shapes by name, of outputs (element type, shape)."""
    entries = inputs or {"x": [1]}
    results = outputs or {"y": (kind, [1])}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in entries.items()],
        [helper.make_tensor_value_info(name, *result) for name, result in results.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def one(op: str, inputs: str = "x", output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """Return one node."""
    return helper.make_node(op, inputs.split(), output.split(), name=f"{op} {output}", **attributes)


def query(assertions: str, *, declared: str = "") -> str:
    """Return a query of one network N with X [1] and Y [1], unless it is declared otherwise."""
    networks = declared or network("N")
    return f"(vnnlib-version <2.0>)\n{networks}\n{assertions}\n"


def network(name: str, *, element: str = "float32", x: str = "[1]", y: str = "[1]", more: str = "") -> str:
    """Return the declaration of a network with X and Y, for names beyond N with the name behind them."""
    tail = "" if name == "N" else name
    return (
        f"(declare-network {name} {more} (declare-input X{tail} {element} {x}) (declare-output Y{tail} {element} {y}))"
    )


def save(folder: Path, text: str, models: Mapping[str, onnx.ModelProto]) -> tuple[Path, dict[str, Path]]:
    """Write a query and its models."""
    path = folder / "query.vnnlib"
    path.write_text(text, encoding="utf-8")
    files = {name: folder / f"{name}.onnx" for name in models}
    for name, made in models.items():
        onnx.save(made, files[name])
    return path, files
