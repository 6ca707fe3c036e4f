"""Bounds on what floating-point arithmetic changes: never below what a runtime does, in adversarial networks above all.

The exact value is the implicit model's, in float64 or in fractions; the runtimes are onnxruntime with and without its
optimisations, and float32 products written out here in orders, and with mergers, that some runtime may choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.graph.ir import Graph, Node, Provenance, Value
from idl_audit.implicit.as_written import AsWritten, as_written, of_implicit_model
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.proof.bounds import Interval
from idl_audit.proof.float_errors import FloatErrors
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box

UNIT = 2.0**-24
Single = np.ndarray[Any, np.dtype[np.float32]]
Nodes = Sequence[tuple[str, str, str, Mapping[str, Any]]]


def single(*values: float) -> Single:
    return np.array(values, np.float32)


class Written:
    """A small network: its graph, its implicit model, and onnxruntime's two opinions."""

    def __init__(self, nodes: Nodes, constants: Mapping[str, Any], n_inputs: int, *, dtype: str = "float32") -> None:
        made = tuple(Node(op, f"n{i}", tuple(a.split()), (o,), dict(at)) for i, (op, a, o, at) in enumerate(nodes))
        values = {name: np.asarray(value, dtype) for name, value in constants.items()}
        values |= {name: np.asarray(v) for name, v in constants.items() if np.asarray(v).dtype == np.int64}
        entry, last = Value("u", (1, n_inputs), dtype), Value(nodes[-1][2], None, dtype)
        self.graph = Graph((entry,), (last,), made, values, Provenance(None, "onnx", "", 17, "tests"), dtype)
        self.n_inputs = n_inputs
        self.model = build_implicit(self.graph)
        self.written = as_written(self.graph)

    def bound(
        self, lo: FloatArray | float, hi: FloatArray | float, rows: FloatArray | None = None, *, sharp: bool = False
    ) -> FloatArray:
        """Return the bounds of |f y' - f y| for rows f, each output where left out."""
        box = Box.between(np.broadcast_to(lo, self.n_inputs) + 0.0, np.broadcast_to(hi, self.n_inputs) + 0.0)
        return bound_of(self.written, box, np.eye(self.model.n_outputs) if rows is None else rows, sharp=sharp)

    def runs(self, points: Single) -> list[FloatArray]:
        """Return what onnxruntime gives for each point, without and with its optimisations."""
        dtype = TensorProto.FLOAT if self.graph.inputs[0].dtype == "float32" else TensorProto.DOUBLE
        graph = helper.make_graph(
            [helper.make_node(n.op, list(n.inputs), list(n.outputs), **n.attributes) for n in self.graph.nodes],
            "g",
            [helper.make_tensor_value_info("u", dtype, [1, self.n_inputs])],
            [helper.make_tensor_value_info(self.graph.outputs[0].name, dtype, None)],
            [numpy_helper.from_array(value, name) for name, value in self.graph.constants.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return [_run(proto, level, points) for level in LEVELS]


LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def _run(proto: onnx.ModelProto, level: Any, points: Single) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = level, 1, 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    (entry,) = session.get_inputs()
    points = points.astype(np.float32 if entry.type == "tensor(float)" else np.float64)
    return np.stack([session.run(None, {entry.name: point[None]})[0].reshape(-1) for point in points]).astype(float)


def bound_of(written: AsWritten, box: Box, rows: FloatArray, *, sharp: bool = False) -> FloatArray:
    inputs = Interval.of_boxes(box)
    states = (backward_state_bounds if sharp else interval_bounds)(written.model, inputs)
    return FloatErrors(written, inputs, np.zeros_like(inputs.lo), dict(states.z), sharp).of_outputs(rows)[0]


def grid(lo: float, hi: float, n: int = 2000) -> Single:
    return np.linspace(lo, hi, n).astype(np.float32).clip(np.float32(lo), np.float32(hi))[:, None]


def exact_chain(points: Single, *steps: Callable[[Fraction], Fraction]) -> FloatArray:
    """Return the result of steps in fractions, for each point of one input."""
    results = []
    for point in points[:, 0]:
        value = Fraction(float(point))
        for step in steps:
            value = step(value)
        results.append(float(value))
    return np.array(results)


# --- adversarial networks ---------------------------------------------------------------------------------------------


def batch_norm(mean: float, bias: float) -> Written:
    constants = {"w": [[1.0]], "s": [1.0], "b": [bias], "m": [mean], "v": [1.0]}
    nodes: Nodes = [("Gemm", "u w", "h", {}), ("BatchNormalization", "h s b m v", "y", {"epsilon": 0.0})]
    return Written(nodes, constants, 1)


def test_a_batch_norm_whose_constants_cancel_pays_for_each_of_them() -> None:
    """x - 1000 + 1000: the merged constant is 0, and x loses digits all the same."""
    network, points = batch_norm(1000.0, 1000.0), grid(-1, 1)
    (bound,) = network.bound(-1, 1)
    by_hand = (points[:, 0] - np.float32(1000)) + np.float32(1000)
    worst = max(np.abs(y[:, 0] - points[:, 0]).max() for y in (by_hand[:, None], *network.runs(points)))
    assert np.abs(by_hand - points[:, 0]).max() > 2e-5  # 300 units of x itself
    assert worst <= bound <= 2e-3


def test_constants_are_never_added_to_each_other_before_they_count() -> None:
    network = Written([("Add", "u a", "h", {}), ("Sub", "h a", "y", {})], {"a": [1e8]}, 1)
    points = grid(-3, 3)
    (bound,) = network.bound(-3, 3)
    for y in network.runs(points):
        assert (np.abs(y[:, 0] - points[:, 0]) <= bound).all()
    assert np.abs((points[:, 0] + np.float32(1e8)) - np.float32(1e8) - points[:, 0]).max() <= bound <= 200


def test_a_residual_that_cancels_what_was_added() -> None:
    """(1e8 u + 1) - 1e8 u = 1 exactly, and anything up to 8 off in float32."""
    nodes: Nodes = [("Mul", "u a", "h", {}), ("Add", "h one", "k", {}), ("Sub", "k h", "y", {})]
    network = Written(nodes, {"a": [1e8], "one": [1.0]}, 1)
    points = grid(0.5, 1)
    (bound,) = network.bound(0.5, 1)
    worst = max(np.abs(y - 1).max() for y in network.runs(points))
    assert 0.5 < worst <= bound <= 200


def test_a_second_reader_of_a_linear_tensor_keeps_its_error() -> None:
    """relu(1e8 u) and 1e8 u are one number: their difference is exactly 0, and its bound must not be."""
    nodes: Nodes = [("Gemm", "u a", "h", {}), ("Relu", "h", "r", {}), ("Sub", "r h", "y", {})]
    network = Written(nodes, {"a": [[1e8], [-1e8]]}, 2)
    (bound,) = network.bound(1, 2)
    assert bound > 1e8 * UNIT


def test_an_error_that_enters_a_state_reaches_the_outputs() -> None:
    """relu(1e8 u - 1e8 + 50) - relu(...) / 2, never bent."""
    nodes: Nodes = [
        ("Mul", "u a", "h", {}),
        ("Sub", "h a", "k", {}),
        ("Add", "k b", "l", {}),
        ("Relu", "l", "r", {}),
        ("Mul", "r half", "y", {}),
    ]
    network = Written(nodes, {"a": [1e8], "b": [50.0], "half": [0.5]}, 1)
    points = grid(1, 1 + 1e-6)
    worst = max(np.abs(y - network.model(points.astype(float))).max() for y in network.runs(points))
    for sharp in (False, True):
        assert 1 < worst <= network.bound(1, 1 + 1e-6, sharp=sharp)[0]


def test_a_hidden_layer_that_is_exactly_zero() -> None:
    """2 -> 4096 -> 1 on inputs (t, t) with rows (w, -w): every state is 0, and float32 may differ."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=4096).astype(np.float32) * 100
    out = rng.normal(size=(1, 4096)).astype(np.float32)
    nodes: Nodes = [
        ("Gemm", "u w1", "h", {"transB": 1}),
        ("Relu", "h", "r", {}),
        ("Gemm", "r w2", "y", {"transB": 1}),
    ]
    network = Written(nodes, {"w1": np.stack([w, -w], axis=1), "w2": out}, 2)
    points = np.repeat(grid(0.3, 1.7, 50), 2, axis=1)
    for sharp in (False, True):
        (bound,) = network.bound(0.3, 1.7, sharp=sharp)
        assert all((np.abs(y[:, 0]) <= bound).all() for y in network.runs(points))
    rounded = (w[None] * points[:, :1]).astype(np.float32).astype(float)  # one product rounded, the other not
    fused = np.maximum(rounded - w.astype(float)[None] * points[:, 1:].astype(float), 0) @ out[0].astype(float)
    assert 0 < np.abs(fused).max() <= bound


def test_a_runtime_may_multiply_two_layers_out() -> None:
    """W2 W1 is rounded as |W2||W1|, whatever cancels in it."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=(64, 8)).astype(np.float32)
    second = (rng.normal(size=(1, 64)) @ (np.eye(64) - first @ np.linalg.pinv(first))).astype(np.float32)
    nodes: Nodes = [("Gemm", "u w1", "h", {"transB": 1}), ("Gemm", "h w2", "y", {"transB": 1})]
    network = Written(nodes, {"w1": first, "w2": second}, 8)
    points = rng.uniform(-1, 1, (200, 8)).astype(np.float32)
    (bound,) = network.bound(-1, 1)
    exact = points.astype(float) @ (second.astype(float) @ first.astype(float)).T
    orders = [rng.permutation(64) for _ in range(5)]
    for order in orders:
        merged = np.zeros((1, 8), np.float32)
        for i in order:
            merged = merged + second[:, i, None] * first[i]
        assert (np.abs((points @ merged.T).astype(float) - exact)[:, 0] <= bound).all()
    for y in network.runs(points):
        assert (np.abs(y - exact)[:, 0] <= bound).all()


@pytest.mark.parametrize("op", ["Concat", "Expand", "Gather"])
def test_numbers_that_are_read_twice_do_not_cancel_in_a_bound(op: str) -> None:
    """w t - w t, t copied: exactly 0 in the product of the maps, and not with fused multiply-add."""
    copy: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "Concat": ("u u", {"axis": 1}, {}),
        "Expand": ("u shape", {}, {"shape": np.array([1, 2])}),
        "Gather": ("u index", {"axis": 1}, {"index": np.array([0, 0])}),
    }
    inputs, attributes, constants = copy[op]
    weight = np.float32(1.1)
    nodes: Nodes = [(op, inputs, "t", attributes), ("Gemm", "t w", "y", {})]
    network = Written(nodes, {**constants, "w": np.array([[weight], [-weight]], np.float32)}, 1)
    (bound,) = network.bound(1, 2)
    points = grid(1, 2)[:, 0]
    fused = (weight * points).astype(float) - float(weight) * points.astype(float)
    assert 0 < np.abs(fused).max() <= bound


def test_constants_that_are_joined_to_a_tensor_count_beside_a_bias() -> None:
    """Gemm of Concat(u, 1000) with weights (1, 1) and bias -1000 loses the digits of u."""
    nodes: Nodes = [("Concat", "u c", "t", {"axis": 1}), ("Gemm", "t w b", "y", {})]
    network = Written(nodes, {"c": [[1000.0]], "w": [[1.0], [1.0]], "b": [-1000.0]}, 1)
    points = grid(-1, 1)[:, 0]
    lost = np.abs((points + np.float32(1000)) - np.float32(1000) - points).max()
    assert 2e-5 < lost <= network.bound(-1, 1)[0]


def test_a_clip_at_its_bound_counts_with_its_size() -> None:
    """clip(u, 0, 1000) - 1000 for u near 1000.1: the value is 1000 whatever the distance to the bound is."""
    nodes: Nodes = [("Clip", "u lo hi", "c", {}), ("Gemm", "c w b", "y", {})]
    network = Written(nodes, {"lo": 0.0, "hi": 1000.0, "w": [[1 / 3]], "b": [-1000 / 3]}, 1)
    assert network.bound(1000.1, 1000.2)[0] >= 300 * UNIT


def test_products_within_a_function_are_rounded() -> None:
    network = Written([("HardSigmoid", "u", "y", {"alpha": 0.3, "beta": 0.6})], {}, 1)
    points = grid(-2, 1.3)
    worst = max(np.abs(y - network.model(points.astype(float))).max() for y in network.runs(points))
    assert 0 < worst <= network.bound(-2, 1.3)[0]


def test_subnormal_numbers_may_be_flushed() -> None:
    """1e-38 u * 1000: a runtime that flushes subnormal numbers gives 0 in place of 1e-35."""
    network = Written([("Mul", "u a", "h", {}), ("Mul", "h b", "y", {})], {"a": [1e-38], "b": [1000.0]}, 1)
    (bound,) = network.bound(0.5, 1)
    assert 1e-35 <= bound <= 1e-33


@pytest.mark.parametrize("factors", [(1e30, 1e30, 1e-30, 1e-30), (1e30, 1e30, 1e-30), (1e-30, 1e-30, 1e30, 1e30)])
def test_a_chain_that_leaves_the_range_has_no_useful_bound(factors: tuple[float, ...]) -> None:
    nodes: Nodes = [("Mul", f"{'u' if i == 0 else f'h{i}'} c{i}", f"h{i + 1}", {}) for i in range(len(factors))]
    network = Written(nodes, {f"c{i}": np.array([factor]) for i, factor in enumerate(factors)}, 1)
    (bound,) = network.bound(1, 1)
    for y in network.runs(single(1.0)[:, None]):
        assert not abs(float(y[0, 0]) - float(network.model(np.ones((1, 1)))[0, 0])) > bound  # an overflow is no number
    assert bound >= 1  # a verdict on numbers of this size is told


def test_a_bump_between_the_samples_is_met_within_the_box() -> None:
    """relu(K g + 1) - K g with g = 0 but for 5 < u < 5.01."""
    centres = single(5.0, 5.005, 5.01)
    weights = np.array([[1.0], [-2.0], [1.0]]) * 2.0**34
    nodes: Nodes = [
        ("Gemm", "u w1 b1", "t", {}),
        ("Relu", "t", "g", {}),
        ("MatMul", "g w2", "kg", {}),
        ("Add", "kg one", "k", {}),
        ("Relu", "k", "a", {}),
        ("Sub", "a kg", "y", {}),
    ]
    network = Written(nodes, {"w1": np.ones((1, 3)), "b1": -centres, "w2": weights, "one": [1.0]}, 1)
    points = grid(4.7001, 5.0999, 4001)
    worst = max(np.abs(y - network.model(points.astype(float))).max() for y in network.runs(points))
    assert worst > 0.5
    for sharp in (False, True):
        assert worst <= network.bound(4.7, 5.1, sharp=sharp)[0]
    assert network.bound(4.7, 4.99)[0] < worst  # its size is that of the box


def test_margins_below_one_unit_are_below_the_bound() -> None:
    """y0 = u + 1 + 1e-9 against y1 = u + 1: certified in exact arithmetic, one number in float32."""
    nodes: Nodes = [
        ("Add", "u one", "h", {}),
        ("Add", "h e", "a", {}),
        ("Concat", "a h", "y", {"axis": 1}),
    ]
    network = Written(nodes, {"one": [1.0], "e": [1e-9]}, 1)
    points = grid(0, 1, 50)
    assert all((y[:, 0] == y[:, 1]).all() for y in network.runs(points))
    assert network.bound(0, 1, np.array([[1.0, -1.0]]))[0] > 1e-9


def test_saturated_probabilities_tie() -> None:
    """sigmoid(u + 30) and sigmoid(u + 18) at u = 0 are 1 both in float32."""
    network = Written([("Add", "u c", "h", {}), ("Sigmoid", "h", "y", {})], {"c": [[30.0, 18.0]]}, 1)
    point = single(0.0)[:, None]
    exact = network.model(point.astype(float))[0]
    assert exact[0] > exact[1]
    assert network.bound(0, 0, np.array([[1.0, -1.0]]))[0] > exact[0] - exact[1]


def test_chains_of_exact_powers_are_bounded_in_fractions() -> None:
    nodes: Nodes = [("Mul", "u a", "h", {}), ("Add", "h b", "k", {}), ("Mul", "k c", "y", {})]
    network = Written(nodes, {"a": [1 / 3], "b": [1e5], "c": [1 / 7]}, 1)
    a, b, c = (Fraction(float(np.float32(v))) for v in (1 / 3, 1e5, 1 / 7))
    points = grid(-1, 1, 300)
    exact = exact_chain(points, lambda v: v * a, lambda v: v + b, lambda v: v * c)
    (bound,) = network.bound(-1, 1)
    for y in network.runs(points):
        assert (np.abs(y[:, 0] - exact) <= bound).all()
    assert bound <= 40 * UNIT * 1e5 / 7


# --- laws -------------------------------------------------------------------------------------------------------------


def layered(seed: int, depth: int = 4, width: int = 12) -> Written:
    rng = np.random.default_rng(seed)
    nodes: list[tuple[str, str, str, Mapping[str, Any]]] = []
    constants: dict[str, Any] = {}
    source, n = "u", 3
    for k in range(depth):
        out = width if k < depth - 1 else 4
        constants |= {f"w{k}": rng.normal(size=(n, out)), f"b{k}": rng.normal(size=out) * 10.0 ** rng.integers(-2, 3)}
        nodes.append(("Gemm", f"{source} w{k} b{k}", f"h{k}", {}))
        source, n = f"h{k}", out
        if k < depth - 1:
            nodes.append((str(rng.choice(["Relu", "Tanh", "Sigmoid", "LeakyRelu", "Abs"])), source, f"r{k}", {}))
            source = f"r{k}"
    return Written(nodes, constants, 3)


@pytest.mark.parametrize("seed", range(12))
def test_no_runtime_is_further_off_than_the_bound(seed: int) -> None:
    network, rng = layered(seed), np.random.default_rng(seed)
    lo = rng.normal(size=3)
    hi = lo + rng.random(3) * 10.0 ** rng.integers(-3, 1)
    points = np.nextafter(rng.uniform(lo, hi, (100, 3)).astype(np.float32), single(0.0)).clip(lo, hi).astype(np.float32)
    points = points[((points >= lo) & (points <= hi)).all(axis=1)]
    exact = network.model(points.astype(float))
    rows = np.vstack([np.eye(4), rng.normal(size=(6, 4)), [[1, -1, 0, 0]]])
    coarse, sharp = (network.bound(lo, hi, rows, sharp=way) for way in (False, True))
    for y in network.runs(points):
        off = np.abs((y - exact) @ rows.T)
        assert len(off)
        assert (off <= coarse).all()
        assert (off <= sharp).all()


@pytest.mark.parametrize("seed", range(6))
def test_tighter_bounds_of_the_states_give_tighter_bounds_of_the_errors(seed: int) -> None:
    network = layered(seed)
    rows = np.vstack([np.eye(4), [[1, -1, 0, 0]]])
    coarse, sharp = (network.bound(-0.1, 0.1, rows, sharp=way) for way in (False, True))
    assert (sharp <= coarse * (1 + 1e-5)).all()
    small, large = network.bound(-0.05, 0.05, rows), network.bound(-0.5, 0.5, rows)
    assert (small <= large * (1 + 1e-5)).all()


def test_boxes_of_one_batch_do_not_meet() -> None:
    network = layered(3)
    boxes = [Box.between(np.full(3, c - 0.1), np.full(3, c + 0.1)) for c in (-1.0, 0.0, 2.0)]
    boxes.append(Box.between(np.full(3, -1e38), np.full(3, 1e38)))
    inputs = Interval.of_boxes(boxes)
    together = FloatErrors(network.written, inputs, np.zeros_like(inputs.lo), {}).of_outputs(np.eye(4))
    for box, found in zip(boxes[:3], together, strict=False):
        np.testing.assert_allclose(found, bound_of(network.written, box, np.eye(4)), rtol=1e-9)
    assert (together[3] == np.inf).all()


def test_double_precision_has_its_own_unit() -> None:
    """The same network in float64 errs 2^29 times less where nothing but products and sums is computed."""
    constants = {"w": np.arange(1.0, 7.0).reshape(2, 3) / 7, "b": np.ones(3)}
    in_single, in_double = (
        Written([("Gemm", "u w b", "y", {})], constants, 2, dtype=d) for d in ("float32", "float64")
    )
    ratio = in_single.bound(0, 1) / in_double.bound(0, 1)
    np.testing.assert_allclose(ratio, 2.0**29, rtol=1e-3)
    points = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    w, b = (constants[name] for name in ("w", "b"))
    exact = np.array(
        [
            [
                float(sum((Fraction(float(x)) * Fraction(w[i, j]) for i, x in enumerate(p)), Fraction(b[j])))
                for j in range(3)
            ]
            for p in points
        ]
    )
    for y in in_double.runs(points):
        assert (np.abs(y - exact) <= in_double.bound(0, 1)).all()


def test_an_implicit_model_is_its_own_file() -> None:
    rng = np.random.default_rng(4)
    A = np.triu(rng.normal(size=(5, 5)), 1)
    B, C, D = rng.normal(size=(5, 2)), rng.normal(size=(3, 5)), rng.normal(size=(3, 2))
    blocks = (DeclaredBlock("relu", 5, {}),)
    model = plain_model(A, B, C, D, rng.normal(size=5), rng.normal(size=3), blocks)
    box = Box.between(-np.ones(2), np.ones(2))
    bound = bound_of(of_implicit_model(model), box, np.eye(3))
    points = rng.uniform(-1, 1, (200, 2)).astype(np.float32)
    off = np.abs(_in_single(model, points) - model(points.astype(float))).max(axis=0)
    assert (off > 0).all()
    assert (off <= bound).all()


def _in_single(model: Any, points: Single) -> FloatArray:
    """Evaluate the blocks in float32."""
    states: dict[int, Single] = {}

    def row(affine: Any) -> Single:
        total = np.broadcast_to(affine.constant.astype(np.float32), (len(points), affine.size)).copy()
        for k, linear_map in affine.states.items():
            total = total + states[k] @ linear_map.to_sparse().toarray().astype(np.float32).T
        if affine.input is not None:
            total = total + points @ affine.input.to_sparse().toarray().astype(np.float32).T
        return total

    for k in model.evaluation_order:
        states[k] = (
            np.maximum(row(model.rows[k]), 0) if model.blocks[k].activation.name == "relu" else row(model.rows[k])
        )
    return row(model.output).astype(float)


OF_TWO: dict[str, tuple[Nodes, dict[str, Any]]] = {
    "a gated unit": (
        [
            ("MatMul", "u a", "h", {}),
            ("Sigmoid", "h", "s", {}),
            ("MatMul", "u b", "k", {}),
            ("Mul", "s k", "m", {}),
            ("MatMul", "m c", "y", {}),
        ],
        {},
    ),
    "a matrix by another": (
        [
            ("MatMul", "u a", "h", {}),
            ("Tanh", "h", "s", {}),
            ("Reshape", "s tall", "q", {}),
            ("Reshape", "s wide", "t", {}),
            ("MatMul", "q t", "k", {}),
            ("Reshape", "k flat", "y", {}),
        ],
        {"tall": np.array([3, 2]), "wide": np.array([2, 3]), "flat": np.array([1, 9])},
    ),
    "large factors": (
        [("MatMul", "u a", "h", {}), ("Add", "h d", "k", {}), ("Mul", "k h", "m", {}), ("Sub", "m e", "y", {})],
        {"d": np.full((1, 6), 1e4), "e": np.full((1, 6), 3e3)},
    ),
}


@pytest.mark.parametrize("what", sorted(OF_TWO))
@pytest.mark.parametrize("radius", [1e-3, 0.3])
def test_products_of_two_tensors_of_the_input_round_no_more_than_their_bound(what: str, radius: float) -> None:
    rng = np.random.default_rng(0)
    nodes, constants = OF_TWO[what]
    weights = {"a": rng.normal(size=(4, 6)), "b": rng.normal(size=(4, 6)), "c": rng.normal(size=(6, 3))}
    written = Written(
        nodes, {**{name: single(*w.ravel()).reshape(w.shape) for name, w in weights.items()}, **constants}, 4
    )
    centre = single(*rng.normal(size=4)).astype(float)
    lo, hi = centre - radius, centre + radius
    points = (lo + (hi - lo) * rng.random((400, 4))).astype(np.float32)
    points = points[((points >= lo) & (points <= hi)).all(axis=1)]
    exact_values = written.model(points.astype(float))
    for sharp in (False, True):
        bound = written.bound(lo, hi, sharp=sharp)
        assert np.isfinite(bound).all()
        for found in written.runs(points):
            assert (np.abs(found.reshape(exact_values.shape) - exact_values) <= bound).all()


# --- what runtimes make on the way ------------------------------------------------------------------------------------


def picture(nodes: Nodes, constants: Mapping[str, Any], dtype: str = "float32") -> Written:
    """A network of one pixel whose result is brought to the size of 1 behind a ReLU."""
    first = ("Reshape", "u shape", "p", {})
    ends = [("Relu", "m", "r", {}), ("Mul", "r last", "y", {})]
    values = {name: np.asarray(value, dtype) for name, value in constants.items()}
    return Written([first, *nodes, *ends], values | {"shape": np.array([1, 1, 1, 1])}, 1, dtype=dtype)


@pytest.mark.parametrize("other", ["Mul", "BatchNormalization"])
@pytest.mark.parametrize(("w", "s", "u"), [(1e30, 1e30, 1e-35), (1e-30, 1e-30, 1e30)])
def test_weights_that_runtimes_multiply_out_may_leave_the_range(other: str, w: float, s: float, u: float) -> None:
    """onnxruntime folds both into one convolution, whose weight is inf, or 0."""
    shape, reads = ((1, 1, 1), "c s") if other == "Mul" else ((1,), "c s zero zero one")
    values = {"w": np.full((1, 1, 1, 1), w), "s": np.full(shape, s), "zero": [0.0], "one": [1.0]}
    last = min(1 / (w * s * u), 1e30)
    network = picture([("Conv", "p w", "c", {}), (other, reads, "m", {})], values | {"last": [last]})
    points = grid(u, 1.2 * u, 3)
    off = np.abs(network.runs(points)[1] - network.model(points.astype(np.float64)))
    assert np.all((off <= network.bound(u, 1.2 * u)) & (network.bound(u, 1.2 * u) > 1e-3) | np.isnan(off))
    assert network.bound(u, 1.2 * u)[0] > 1e9 * 1e-7


@pytest.mark.parametrize("op", ["ReduceMean", "GlobalAveragePool", "AveragePool"])
def test_a_sum_that_leaves_the_range_before_it_is_divided_has_no_bound(op: str) -> None:
    attributes = {"kernel_shape": (2, 2)} if op == "AveragePool" else {}
    nodes = [("Mul", "u k", "a", {}), ("Reshape", "a shape", "p", {}), (op, "p", "m", attributes)]
    values = {"k": single(1.5e38), "shape": np.array([1, 1, 2, 2]), "last": single(1e-38)}
    network = Written([*nodes, ("Mul", "m last", "y", {})], values, 4)
    assert not all(np.isfinite(run).all() for run in network.runs(single(1, 1, 1, 1)[None]))
    assert network.bound(0.9, 1.0).min() == np.inf


@pytest.mark.parametrize(("alpha", "w", "u"), [(1e-10, 1e10, 1e30), (1e30, 1e-20, 1e-25)])
def test_a_product_is_made_before_it_is_scaled(alpha: float, w: float, u: float) -> None:
    network = Written([("Gemm", "u w", "y", {"alpha": alpha})], {"w": np.full((4, 2), w)}, 4)
    points = np.full((1, 4), u, np.float32)
    off = np.abs(network.runs(points)[0] - network.model(points.astype(np.float64)))
    assert (np.nan_to_num(off, nan=np.inf) <= network.bound(points[0], points[0])).all()


@pytest.mark.parametrize(("c", "u"), [(1e-22, 1e25), (1e20, 1e-20)])
def test_scalars_before_a_product_of_matrices_are_multiplied_into_one_behind_it(c: float, u: float) -> None:
    nodes = [
        ("Reshape", "u shape", "p", {}),
        ("Mul", "p c", "a", {}),
        ("Transpose", "p", "t", {"perm": (1, 0)}),
        ("Mul", "t c", "b", {}),
        ("MatMul", "a b", "m", {}),
        ("Relu", "m", "y", {}),
    ]
    network = Written(nodes, {"c": single(c).reshape(()), "shape": np.array([2, 3])}, 6)
    points = np.full((1, 6), u, np.float32)
    off = np.abs(network.runs(points)[1] - network.model(points.astype(np.float64)))
    assert (np.nan_to_num(off, nan=np.inf) <= network.bound(points[0], points[0])).all()
