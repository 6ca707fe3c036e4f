"""Numbers that no tensor of a file shows: types within operators, merged norms, scalars that exporters round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from idl_audit.graph.ir import Graph
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.torch_reader import network_of
from idl_audit.implicit.as_written import as_written
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from tests.proof.test_float_errors import LEVELS, bound_of

RNG = np.random.default_rng(5)
node = helper.make_node


def proto(
    nodes: Sequence[NodeProto], constants: Mapping[str, AnyArray], shape: Sequence[int], *, opset: int = 21
) -> ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(next(iter(constants.values())).dtype) if constants else TensorProto.FLOAT
    values = [helper.make_tensor_value_info("u", kind, shape), helper.make_tensor_value_info("y", kind, None)]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def read(model: ModelProto, folder: Path) -> Graph:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return read_onnx(path)


def bound(graph: Graph, point: AnyArray, radius: float = 0.0) -> FloatArray:
    """Return the bounds of the outputs around a point."""
    written, flat = as_written(graph), point.reshape(-1).astype(float)
    box = Box.between(flat - radius, flat + radius)
    rows = np.eye(written.model.n_outputs)
    return np.minimum(*(bound_of(written, box, rows, sharp=sharp) for sharp in (False, True)))


def run(model: ModelProto, point: AnyArray) -> list[FloatArray]:
    found = []
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = level, 1, 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        found.append(session.run(None, {"u": point})[0].astype(float).reshape(-1))
    return found


def refusal(graph: Graph) -> str:
    with pytest.raises(UnsupportedModelError) as refused:
        as_written(graph)
    return str(refused.value)


# --- types within operators -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "stash"), [(np.float32, {"stash_type": TensorProto.FLOAT16}), (np.float64, {}), (np.float32, {})]
)
def test_a_norm_computes_in_its_stash_type(kind: Any, stash: dict[str, int], tmp_path: Path) -> None:
    """onnxruntime makes a GroupNormalization of the standard's function, whose numbers are of that type."""
    constants = {"s": np.ones(4, kind), "b": np.zeros(4, kind)}
    model = proto([node("GroupNormalization", ["u", "s", "b"], ["y"], num_groups=2, **stash)], constants, (1, 4, 2))
    point = RNG.uniform(-1, 1, (1, 4, 2)).astype(kind)
    groups = point.reshape(2, 4).astype(float)
    spread = np.sqrt(groups.var(axis=1, keepdims=True) + float(np.float32(1e-5)))
    exact = ((groups - groups.mean(axis=1, keepdims=True)) / spread).reshape(-1)
    allowed = bound(read(model, tmp_path), point)
    for found in run(model, point):
        assert (np.abs(found - exact) <= allowed).all()
    assert np.isfinite(allowed).all() or stash


@pytest.mark.parametrize(
    "one",
    [
        node("LayerNormalization", ["u", "s"], ["y"], stash_type=TensorProto.BFLOAT16),
        node("RMSNormalization", ["u", "s"], ["y"], stash_type=TensorProto.FLOAT16),
    ],
)
def test_a_coarser_type_within_a_norm_has_the_bound_of_its_format(one: NodeProto, tmp_path: Path) -> None:
    point = RNG.uniform(-1, 1, (1, 8)).astype(np.float32)
    allowed = bound(read(proto([one], {"s": np.ones(8, np.float32)}, (1, 8), opset=23), tmp_path), point)
    assert (allowed > 1e-3).all()


def test_a_softmax_precision_within_attention_counts(tmp_path: Path) -> None:
    constants = {name: RNG.normal(size=(1, 1, 3, 4)).astype(np.float32) for name in "kv"}
    point = RNG.normal(size=(1, 1, 3, 4)).astype(np.float32)
    bounds = {}
    for kind in (TensorProto.FLOAT, TensorProto.FLOAT16):
        one = node("Attention", ["u", "k", "v"], ["y"], softmax_precision=kind)
        bounds[kind] = bound(read(proto([one], constants, (1, 1, 3, 4), opset=23), tmp_path), point)
    assert (bounds[TensorProto.FLOAT] < 1e-4).all()
    assert (bounds[TensorProto.FLOAT16] > 1e-3).all()


def test_what_a_norm_computes_in_does_not_rename_the_networks_arithmetic(tmp_path: Path) -> None:
    one = node("LayerNormalization", ["u", "s"], ["y"])
    written = as_written(read(proto([one], {"s": np.ones(8)}, (1, 8)), tmp_path))
    assert (written.arithmetic.name, written.arithmetic.unit) == ("float64", 2.0**-24)


# --- norms that are merged --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variance", "epsilon"), [(0.0, 1e-5), (0.0, 1e-6), (3e-7, 1e-7), (1e-6, 1e-7), (0.0, 3e-7)])
def test_small_variances_that_are_merged_in_float16(variance: float, epsilon: float, tmp_path: Path) -> None:
    """onnxruntime merges the norm into the convolution in float16, where var + eps has few digits."""
    half = np.float16
    constants = {"w": np.full((1, 1, 1, 1), 0.5, half), "s": np.array([0.25], half), "b": np.zeros(1, half)}
    constants |= {"m": np.zeros(1, half), "v": np.array([variance], half)}
    norm = node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"], epsilon=epsilon)
    model = proto([node("Conv", ["u", "w"], ["c"]), norm], constants, (1, 1, 2, 2), opset=14)
    exact = 0.125 / np.sqrt(float(half(variance)) + float(np.float32(epsilon)))
    point = np.ones((1, 1, 2, 2), half)
    allowed = bound(read(model, tmp_path), point)
    for found in run(model, point):
        assert (np.abs(found - exact) <= allowed).all()


@pytest.mark.parametrize(("variance", "epsilon"), [(1.1e-39, 1.2e-38), (1.2e-38, 1e-39)])
def test_a_part_of_a_variance_that_is_flushed_has_no_bound(variance: float, epsilon: float, tmp_path: Path) -> None:
    parts = {"s": 1e-19, "b": 0.0, "m": 0.0, "v": variance}
    constants = {name: np.array([value], np.float32) for name, value in parts.items()}
    norm = node("BatchNormalization", ["u", "s", "b", "m", "v"], ["y"], epsilon=epsilon)
    assert "no inverse root" in refusal(read(proto([norm], constants, (1, 1, 2)), tmp_path))


# --- sums in the format itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (2, 2)])
def test_torch_adds_up_transposed_convolutions_in_float16(stride: int, dilation: int, tmp_path: Path) -> None:
    weights = RNG.uniform(0, 1, (2, 1, 5, 5, 5)).astype(np.float16)
    point = RNG.uniform(0.5, 1, (1, 2, 6, 6, 6)).astype(np.float16)
    how = {"strides": [stride] * 3, "dilations": [dilation] * 3}
    graph = read(proto([node("ConvTranspose", ["u", "w"], ["y"], **how)], {"w": weights}, point.shape), tmp_path)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        found, exact = (
            torch.conv_transpose3d(u, w, stride=stride, dilation=dilation).double().numpy().reshape(-1)
            for u, w in (
                (torch.from_numpy(point), torch.from_numpy(weights)),
                (torch.from_numpy(point).double(), torch.from_numpy(weights).double()),
            )
        )
    off = np.abs(found - exact)
    assert (off <= bound(graph, point)).all()
    assert stride > 1 or (off > 5 * 2.0**-11 * exact).any()  # above what accumulators of float32 leave


def test_means_over_boxes_count_each_sum_in_float16(tmp_path: Path) -> None:
    point = RNG.uniform(0.5, 1, (1, 1, 8, 8, 8)).astype(np.float16)
    pool = node("AveragePool", ["h"], ["y"], kernel_shape=[4, 4, 4], strides=[4, 4, 4])
    constants = {"z": np.zeros(1, np.float16)}
    graph = read(proto([node("Add", ["u", "z"], ["h"]), pool], constants, point.shape), tmp_path)
    one, pooled = torch.from_numpy(point), torch.nn.functional.adaptive_avg_pool3d
    off = (pooled(one, 2).double() - pooled(one.double(), 2)).abs().numpy().reshape(-1)
    assert (off <= bound(graph, point)).all()


# --- constants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["HardSigmoid", "Swish"])
def test_attributes_that_are_flushed_have_no_bound(op: str, tmp_path: Path) -> None:
    model = proto([node(op, ["u"], ["y"], alpha=1e-39)], {}, (1, 1), opset=24)
    assert "may take for 0" in refusal(read(model, tmp_path))


@pytest.mark.parametrize(("factor", "refused"), [(1.0000001, True), (2.0, False)])
def test_a_product_of_constants_that_is_added_to_may_not_be_rounded(
    factor: float, refused: bool, tmp_path: Path
) -> None:
    """A fused multiply-add leaves of a b - fl(a b) what a product and a difference do not."""
    a, b = np.full((1, 1), 1.0000001, np.float32), np.full((1, 1), factor, np.float32)
    constants = {"a": a, "b": b, "c": a * b, "k": np.full((1, 1), 1e14, np.float32)}
    nodes = [node("Mul", ["a", "b"], ["h"]), node("Sub", ["h", "c"], ["d"]), node("Mul", ["d", "k"], ["e"])]
    graph = read(proto([*nodes, node("Add", ["u", "e"], ["y"])], constants, (1, 1)), tmp_path)
    if refused:
        assert "computes a constant" in refusal(graph)
    else:
        assert np.isfinite(bound(graph, np.ones((1, 1)))).all()


@pytest.mark.parametrize(("step", "refused"), [(0.1, True), (2.0, False)])
def test_ranges_of_fractions_have_no_bound(step: float, refused: bool, tmp_path: Path) -> None:
    """onnxruntime adds the step up, as the standard's function does, and numpy multiplies it."""
    ends = {"a": 0.0, "b": 1000 * step, "c": step}
    constants = {name: np.array(value, np.float32) for name, value in ends.items()}
    model = proto([node("Range", list(ends), ["r"]), node("Add", ["u", "r"], ["y"])], constants, (1, 1000))
    graph, point = read(model, tmp_path), np.zeros((1, 1000), np.float32)
    if refused:
        assert "Range node 'r' computes a constant" in refusal(graph)
    else:
        allowed = bound(graph, point)
        for found in run(model, point):
            assert (np.abs(found - step * np.arange(1000)) <= allowed).all()


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.linear, self.factor = torch.nn.Linear(1, 1, bias=False), factor

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.linear(u) * self.factor)


@pytest.mark.parametrize(
    ("kind", "factor", "why"),
    [(torch.float64, 0.1, "round to float32"), (torch.float16, 2e-8, "float16 takes for 0")],
)
def test_scalars_that_exporters_round_have_no_bound(kind: torch.dtype, factor: float, why: str) -> None:
    """torch multiplies by 0.1, and its ONNX file by float32's 0.1, or by 0."""
    assert why in refusal(network_of(Scaled(factor).to(kind), torch.ones((1, 1), dtype=kind)).graph)
