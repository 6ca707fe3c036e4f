"""Small networks for the tests of the implicit model, and the oracle that they are compared with."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from idl_audit.graph.ir import Graph
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import onnxruntime_network
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel

Array = np.ndarray[Any, Any]
FLOAT = TensorProto.FLOAT
NEWEST = 26
"""The newest operator set that onnxruntime is asked to run; onnx itself may know newer ones."""


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> NodeProto:
    """Return a node; names are separated by blanks, and "-" leaves an input out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, ["" if name == "-" else name for name in outputs.split()], **attributes)


def proto(
    nodes: Sequence[NodeProto],
    shape: Sequence[int | str | None],
    constants: dict[str, Any] | None = None,
    *,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    dtype: int = FLOAT,
    source: str = "x",
) -> onnx.ModelProto:
    """Return a model with one input of this shape."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(source, dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        initializer=[numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)


def written(model: onnx.ModelProto) -> Path:
    """Write a model to a file, the same one each time: a folder for each would take longer than to read it."""
    path = Path(_FOLDER.name, "model.onnx")
    path.write_bytes(model.SerializeToString())
    return path


class Network:
    """An ONNX model as a file, as a graph, as an implicit model, and run by onnxruntime."""

    def __init__(self, model: onnx.ModelProto, *, output: str | None = None, max_bytes: int | None = None) -> None:
        path = written(model)
        self.graph: Graph = read_onnx(path)
        self.implicit: ImplicitModel = build_implicit(self.graph, output=output, max_bytes=max_bytes)
        self.original = onnxruntime_network(path, self.graph, output=output)
        self.n_inputs = self.implicit.n_inputs

    def samples(self, n: int = 4, seed: int = 0) -> Array:
        """Return rows with values on both sides of every kink; the first row is 0."""
        rows = np.random.default_rng(seed).normal(size=(n, self.n_inputs)).astype(np.float32)
        rows[0] = 0
        return rows

    def check(self, *, tolerance: float = 1e-5, n: int = 4, seed: int = 0) -> ImplicitModel:
        """Compare both, relative to the largest output of all samples; return the implicit model."""
        rows = self.samples(n, seed)
        expected = self.original(rows)
        found = self.implicit(rows)
        assert found.shape == expected.shape, f"{found.shape} outputs where the original has {expected.shape}"
        scale = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)
        return self.implicit


def checked(
    nodes: Sequence[NodeProto],
    shape: Sequence[int | str | None],
    constants: dict[str, Any] | None = None,
    *,
    tolerance: float = 1e-5,
    **options: Any,
) -> ImplicitModel:
    """Return the implicit model of a network after it was compared with onnxruntime."""
    return Network(proto(nodes, shape, constants, **options)).check(tolerance=tolerance)


def built(
    nodes: Sequence[NodeProto],
    shape: Sequence[int | str | None],
    constants: dict[str, Any] | None = None,
    *,
    output: str | None = None,
    max_bytes: int | None = None,
    **options: Any,
) -> ImplicitModel:
    """Return the implicit model alone: onnxruntime is not asked."""
    return build_implicit(read(proto(nodes, shape, constants, **options)), output=output, max_bytes=max_bytes)


def read(model: onnx.ModelProto) -> Graph:
    """Return the graph in a model."""
    return read_onnx(written(model))


def floats(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    """Return weights as files hold them."""
    return (scale * rng.normal(size=shape)).astype(np.float32)


def ints(*values: int) -> Array:
    """Return a shape, axes, pads: int64."""
    return np.asarray(values, np.int64)
