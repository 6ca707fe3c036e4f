"""Bounds of what 16-bit floats change: never below what runtimes compute, which round every step or the last alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks import half_kernels
from idl_audit.graph.ir import Graph
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.implicit.as_written import as_written
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.half_kernel_table import MEASURED_OF_HALF
from idl_audit.implicit.kernel_table import MEASURED
from idl_audit.implicit.kernels import ARITHMETICS, FLOAT16, RECURRENT, measured
from idl_audit.proof.bounds import Interval
from idl_audit.proof.float_errors import FloatErrors
from idl_audit.proof.float_margins import FloatMargins, Units
from idl_audit.proof.intervals import interval_bounds
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from tests.proof.test_float_errors import LEVELS, _run

KINDS = {"float16": (TensorProto.FLOAT16, torch.float16), "bfloat16": (TensorProto.BFLOAT16, torch.bfloat16)}
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
node = helper.make_node


def proto(
    nodes: Sequence[NodeProto], constants: Mapping[str, Any], n: int, entry: int = HALF, last: int = HALF
) -> ModelProto:
    kind = helper.tensor_dtype_to_np_dtype(entry)
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    tensors = [
        numpy_helper.from_array(value.astype(kind) if value.dtype == np.float64 else value, name)
        for name, value in arrays.items()
    ]
    values = [
        helper.make_tensor_value_info("u", entry, [1, n]),
        helper.make_tensor_value_info("y", last, None),
    ]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def read(model: ModelProto, folder: Path) -> Graph:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return read_onnx(path)


def bound(graph: Graph, points: AnyArray) -> FloatArray:
    """Return bounds of each output over the box of some points."""
    written = as_written(graph)
    inputs = Interval.of_boxes(Box.between(points.min(axis=0).astype(float), points.max(axis=0).astype(float)))
    states = interval_bounds(written.model, inputs)
    rows = np.eye(written.model.n_outputs)
    errors = [FloatErrors(written, inputs, np.zeros_like(inputs.lo), dict(states.z), sharp) for sharp in (False, True)]
    return np.minimum(*(one.of_outputs(rows)[0] for one in errors))


def off(graph: Graph, points: AnyArray, *computed: FloatArray) -> FloatArray:
    exact = build_implicit(graph)(points.astype(np.float64))
    return np.max([np.abs(one - exact[: len(one)]).max(axis=0) for one in computed], axis=0)


def runs(model: ModelProto, points: AnyArray) -> list[FloatArray]:
    return [_half_run(model, level, points) for level in LEVELS]


def _half_run(model: ModelProto, level: Any, points: AnyArray) -> FloatArray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = level, 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"u": one[None]})[0].reshape(1, -1) for one in points]).astype(float)


# --- networks ---------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(sorted(KINDS)))
def test_no_network_whose_terms_cancel_is_further_off(
    seed: int, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In onnxruntime, in torch step by step, and with accumulators of float32 in an order of their own."""
    rng, (entry, in_torch) = np.random.default_rng(seed), KINDS[kind]
    n, wide = int(rng.integers(1, 8)), int(rng.integers(2, 10))
    first, second = rng.normal(size=(n, wide)), rng.normal(size=(wide, 2))
    shift = rng.normal(size=wide) * rng.choice([1.0, 30.0])
    second[1] = -second[0] * (1 + rng.choice([0, 1e-3]))
    first[:, 1] = first[:, 0] * (1 + rng.choice([0, 1e-3]))
    activation, function = ("Relu", torch.relu) if rng.random() < 0.5 else ("Tanh", torch.tanh)
    nodes = [
        node("Gemm", ["u", "w", "b"], ["a"]),
        node("Sub", ["a", "b"], ["s"]),
        node(activation, ["s"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    model = proto(nodes, {"w": first, "b": shift, "v": second}, n, entry, entry)
    graph = read(model, tmp_path_factory.mktemp("m"))
    kind_of_points = helper.tensor_dtype_to_np_dtype(entry)
    points = (rng.normal(size=n) + rng.uniform(-1, 1, (200, n)) * rng.choice([0.01, 1])).astype(kind_of_points)
    w, b, v = (torch.tensor(part).to(in_torch) for part in (first, shift, second))
    u = torch.tensor(points.astype(np.float64)).to(in_torch)
    order = rng.permutation(n)
    sums = torch.zeros(len(u), wide)
    for place in order:
        sums = sums + u[:, place : place + 1].float() * w[place].float()
    stepwise = [function(a - b) @ v for a in (u @ w + b, (sums + b.float()).to(in_torch))]
    computed = [part.double().numpy() for part in stepwise]
    if kind == "float16":
        computed += runs(model, points[:40])
    found = bound(graph, points)
    assert (off(graph, points, *computed) <= found).all()
    assert (found < 1).all() or kind == "bfloat16" or np.abs(shift).max() > 10


def test_a_sum_of_many_terms_is_made_in_accumulators(tmp_path: Path) -> None:
    """4,096 ones: accumulators of float16 stop at 2,048, and gamma of them would be infinite."""
    n = 4096
    model = proto([node("MatMul", ["u", "w"], ["y"])], {"w": np.ones((n, 1))}, n)
    graph, points = read(model, tmp_path), np.ones((1, n), np.float16)
    found = bound(graph, points)
    assert off(graph, points, *runs(model, points)) <= found
    assert 4096 * 2.0**-11 < found < 4096 * 8 * 2.0**-11


def test_what_is_added_up_one_by_one_is_rounded_each_time(tmp_path: Path) -> None:
    """2048 + 1 + ... + 1 in float16 stays 2048: Add has no accumulator."""
    nodes = [node("Add", ["u", "k"], ["s0"]), *(node("Add", [f"s{i}", "one"], [f"s{i + 1}"]) for i in range(6))]
    nodes.append(node("Sub", ["s6", "k"], ["y"]))
    graph = read(proto(nodes, {"k": [2048.0], "one": [1.0]}, 1), tmp_path)
    points = np.array([[0.5]], np.float16)
    stays = np.float16(0.5) + np.float16(2048)
    for _ in range(6):
        stays = np.float16(stays + np.float16(1))
    assert off(graph, points, np.array([[float(stays) - 2048.0]])) == 6.5
    assert bound(graph, points) >= 6.5


def test_numbers_that_float16_does_not_have_have_no_bound(tmp_path: Path) -> None:
    model = proto([node("Mul", ["u", "k"], ["a"]), node("Mul", ["a", "l"], ["y"])], {"k": [2000.0], "l": [1e-3]}, 1)
    graph = read(model, tmp_path)
    assert np.isinf(bound(graph, np.array([[40.0]], np.float16))).all()  # 80,000 on the way
    assert np.isfinite(bound(graph, np.array([[10.0]], np.float16))).all()


def test_small_results_lose_what_float16_has_no_numbers_for(tmp_path: Path) -> None:
    """u 1e-4 1e-4 1e4: the product in between is next to 0."""
    nodes = [
        node("Mul", ["u", "k"], ["a"]),
        node("Mul", ["a", "k"], ["b"]),
        node("Relu", ["b"], ["r"]),
        node("Mul", ["r", "l"], ["y"]),
    ]
    graph = read(proto(nodes, {"k": [1e-4], "l": [1e4]}, 1), tmp_path)
    points = np.linspace(0.1, 1, 50).astype(np.float16)[:, None]
    k, large = np.float16(1e-4), np.float16(1e4)
    stepwise = ((points * k) * k * large).astype(float)
    assert (stepwise == 0).any()
    assert off(graph, points, stepwise) <= bound(graph, points)


def test_what_is_cast_to_float16_in_between_is_bounded_as_float16(tmp_path: Path) -> None:
    """The first product is rounded to 24 bits, what follows the cast to 11: bounds of the coarser one hold for both."""
    nodes = [
        node("MatMul", ["u", "w"], ["a"]),
        node("Cast", ["a"], ["h"], to=HALF),
        node("Cast", ["h"], ["f"], to=FLOAT),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    model = proto(nodes, {"w": np.float32([[0.3, 1], [2, -0.7]])}, 2, FLOAT, FLOAT)
    written = as_written(read(model, tmp_path))
    assert written.arithmetic.name == "float16"
    assert {one.arithmetic.name for one in written.roundings} == {"float16"}
    points = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    graph = read(model, tmp_path)
    assert (off(graph, points, *[_run(model, level, points[:20]) for level in LEVELS]) <= bound(graph, points)).all()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_weights_of_16_bits_that_are_cast_to_float32_are_exact_numbers(kind: int, tmp_path: Path) -> None:
    weights = np.array([[0.3, 1], [2, -0.7]]).astype(helper.tensor_dtype_to_np_dtype(kind))
    nodes = [node("Cast", ["w"], ["wide"], to=FLOAT), node("MatMul", ["u", "wide"], ["y"])]
    graph = read(proto(nodes, {"w": weights}, 2, FLOAT, FLOAT), tmp_path)
    written = as_written(graph)
    assert (graph.arithmetic, written.arithmetic.name) == ("float32", "float32")
    points = np.ones((1, 2), np.float32)
    assert (bound(graph, points) < 1e-5).all()
    assert build_implicit(graph)(points.astype(float)).tolist() == [weights.astype(float).sum(axis=0).tolist()]


def test_constants_that_are_computed_in_float16_have_no_bound(tmp_path: Path) -> None:
    """onnxruntime computes k k + k in float32 and rounds once; others round twice."""
    nodes = [node("Mul", ["k", "k"], ["a"]), node("Add", ["a", "k"], ["b"]), node("Mul", ["u", "b"], ["y"])]
    with pytest.raises(UnsupportedModelError, match="computes a constant, as each runtime does it"):
        as_written(read(proto(nodes, {"k": [0.1]}, 1), tmp_path))


def test_constants_that_are_computed_in_float16_and_cast_have_no_bound(tmp_path: Path) -> None:
    """k k is rounded to 11 bits, or not, whatever computes with it afterwards."""
    nodes = [node("Mul", ["k", "k"], ["a"]), node("Cast", ["a"], ["b"], to=FLOAT), node("Mul", ["u", "b"], ["y"])]
    with pytest.raises(UnsupportedModelError, match="Cast node 'b' computes a constant, as each runtime does it"):
        as_written(read(proto(nodes, {"k": np.float16([0.1])}, 1, FLOAT, FLOAT), tmp_path))


def test_float16_and_bfloat16_in_one_network_have_no_bound(tmp_path: Path) -> None:
    nodes = [node("Cast", ["u"], ["a"], to=HALF), node("Cast", ["a"], ["b"], to=TensorProto.BFLOAT16)]
    nodes.append(node("Cast", ["b"], ["y"], to=FLOAT))
    with pytest.raises(UnsupportedModelError, match="both float16 and bfloat16"):
        as_written(read(proto(nodes, {}, 1, FLOAT, FLOAT), tmp_path))


def test_what_a_network_of_float16_reads_behind_the_preprocessing_is_rounded(tmp_path: Path) -> None:
    graph = read(proto([node("Identity", ["u"], ["y"])], {}, 1), tmp_path)
    written, units = as_written(graph), Units(np.array([1 / 3]), np.array([-0.1]))
    margins = FloatMargins(written, build_implicit(graph), units)
    inputs = Interval.of_boxes(Box.between(np.array([0.0]), np.array([1.0])))
    found = margins.over(inputs, interval_bounds(margins.model, inputs)).of(np.eye(1))[0, 0]
    u = np.linspace(0, 1, 999).astype(np.float32)
    reads = (u * np.float32(1 / 3) - np.float32(0.1)).astype(np.float16).astype(float)
    assert np.abs(reads - (u.astype(float) / 3 - 0.1)).max() <= found < 1e-3


# --- kernels ----------------------------------------------------------------------------------------------------------


def test_the_table_has_every_function_of_float32() -> None:
    names = {name for name in MEASURED if not name.startswith(RECURRENT)}
    assert set(MEASURED_OF_HALF) == set(KINDS)
    assert all(set(of_kind) == names for of_kind in MEASURED_OF_HALF.values())


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["tanh", "gelu", "hard_swish", "power 1.5"])
def test_the_installed_kernels_are_within_what_proofs_take(name: str, kind: str) -> None:
    found = half_kernels.errors(half_kernels.measured_functions()[name], ARITHMETICS[kind])
    kernel = measured(name, ARITHMETICS[kind])
    fit = half_kernels.Fit(kernel.absolute, float(kernel.relative), kernel.of_value, kernel.within)
    assert found.above(fit) == []
    assert found.above(half_kernels.Fit(fit.absolute, 0.0, 0.0, fit.within) if fit.of_value or fit.relative else fit)


def test_files_are_made_of_what_is_measured_today() -> None:
    fits = {kind: {"tanh": half_kernels.Fit(1e-8, 0.0, 0.5, 2.0**15)} for kind in KINDS}
    scope: dict[str, Any] = {}
    exec(compile(half_kernels.table(fits), "table", "exec"), scope)
    assert scope["MEASURED_OF_HALF"]["float16"]["tanh"].of_value == 0.5
    assert "| tanh | 1e-08 | 0 | 1.02e+03 | 2^15 | w |" in half_kernels.report(fits, {k: {"tanh": "w"} for k in KINDS})


def test_gamma_keeps_accumulators_apart() -> None:
    assert FLOAT16.gamma(1000) == pytest.approx(1000 * 2.0**-24, rel=1e-3)
    assert FLOAT16.gamma(0, 1000) == pytest.approx(1000 / 2048 / (1 - 1000 / 2048))
    assert FLOAT16.gamma(0, 1025) == math.inf
    assert ARITHMETICS["float32"].gamma(3, 4) == 7 * 2.0**-24 / (1 - 7 * 2.0**-24)


def test_what_is_chosen_among_constants_of_float16_is_float16(tmp_path: Path) -> None:
    """Where(u > 0, a, b) w: no operator with a name for a type stands between the comparison and the product."""
    nodes = [
        node("Greater", ["u", "zero"], ["is"]),
        node("Where", ["is", "a", "b"], ["h"]),
        node("Mul", ["h", "w"], ["p"]),
        node("Cast", ["p"], ["y"], to=FLOAT),
    ]
    half = {name: np.float16([value]) for name, value in (("a", 0.1), ("b", 0.3), ("w", 0.7))}
    graph = read(proto(nodes, {"zero": np.float32([0]), **half}, 1, FLOAT, FLOAT), tmp_path)
    written = as_written(graph)
    assert written.arithmetic.name == "float16"
    assert {one.arithmetic.name for one in written.roundings if one.share} == {"float16"}
    points = np.array([[0.5]], np.float32)
    computed = np.array([[float(half["a"][0] * half["w"][0])]])
    assert 0 < off(graph, points, computed) <= bound(graph, points)


def test_what_is_cast_like_a_constant_of_float16_is_float16(tmp_path: Path) -> None:
    nodes = [
        node("CastLike", ["u", "k"], ["h"]),
        node("Mul", ["h", "k"], ["p"]),
        node("Cast", ["p"], ["y"], to=FLOAT),
    ]
    written = as_written(read(proto(nodes, {"k": np.float16([0.3])}, 1, FLOAT, FLOAT), tmp_path))
    assert {one.arithmetic.name for one in written.roundings} == {"float16"}


def test_small_weights_that_are_merged_lose_what_float16_has_no_numbers_for(tmp_path: Path) -> None:
    """1e-4 u 1e-4, u about 1e4: onnxruntime's one weight is 0."""
    nodes = [
        node("Reshape", ["u", "shape"], ["p"]),
        node("Conv", ["p", "w"], ["c"]),
        node("Mul", ["c", "s"], ["m"]),
        node("Relu", ["m"], ["r"]),
        node("Mul", ["r", "q"], ["y"]),
    ]
    values = {"shape": np.array([1, 1, 1, 1]), "w": np.full((1, 1, 1, 1), 1e-4), "s": np.full((1, 1, 1), 1e-4)}
    model = proto(nodes, values | {"q": np.array([1e4])}, 1)
    points = np.linspace(1e4, 1.2e4, 9).astype(np.float16)[:, None]
    graph = read(model, tmp_path)
    assert (off(graph, points, *runs(model, points)) <= bound(graph, points)).all()


@pytest.mark.parametrize(("place", "is_known"), [(0.3, False), (0.25, True)])
def test_a_threshold_that_torch_rounds_has_no_bound(place: float, is_known: bool, tmp_path: Path) -> None:
    graph = read(proto([node("Shrink", ["u"], ["y"], lambd=place, bias=0.0)], {}, 2), tmp_path)
    z = torch.tensor([np.float16(place)])
    assert bool(torch.nn.functional.hardshrink(z, place) == (z if float(z) > np.float32(place) else 0)) == is_known
    if is_known:
        as_written(graph)
        return
    with pytest.raises(UnsupportedModelError, match="round to 16 bits"):
        as_written(graph)
