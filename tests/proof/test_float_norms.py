"""Rounding of unit vectors, of norms with something beside the root, of losses, gated products, and unrolled loops."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.implicit.test_as_written import Network
from tests.proof.test_float_layers import bound_of, compared, f
from tests.shared.implicit_models import node, proto

UNIT = 2.0**-24


@pytest.mark.parametrize("p", [1, 2])
def test_unit_vectors_of_numbers_that_cancel(p: int) -> None:
    """u + 8 - 8 has lost its digits before it is divided."""
    nodes = [node("Add", "x k", "a"), node("Sub", "a k", "b"), node("LpNormalization", "b", axis=1, p=p)]
    bound, worst = compared(proto(nodes, (1, 3), {"k": f(8)}), f(0.1, 0.2, 0.3), f(0.2, 0.3, 0.4))
    assert (worst > 3 * UNIT).all()
    assert (bound < 0.2).all()


@pytest.mark.parametrize("p", [1, 2])
def test_unit_vectors_next_to_0_have_no_bound(p: int) -> None:
    network = Network(proto([node("LpNormalization", "x", axis=1, p=p)], (1, 2)))
    assert np.isinf(bound_of(network, f(-0.1, -0.1), f(0.1, 0.1))).all()


def variance_of_the_squares(x: np.ndarray, *, below: bool) -> np.ndarray:
    """MeanVarianceNormalization in float32, E[x^2] - E[x]^2 as its definition has it, 1e-9 beside the root or below."""
    mean, square = (np.mean(part, dtype=np.float32, axis=1, keepdims=True) for part in (x, x * x))
    variance, small = square - mean * mean, np.float32(1e-9)
    return (x - mean) / (np.sqrt(variance + small) if below else np.sqrt(variance) + small)


@pytest.mark.parametrize("spread", [1.0, 0.03])
def test_a_variance_of_squares_less_the_square_of_the_mean(spread: float) -> None:
    network = Network(proto([node("MeanVarianceNormalization", "x", axes=[1])], (1, 4)))
    centre = f(1, 1 + spread, 1 + 2 * spread, 1 + 4 * spread)
    lo, hi = centre - np.float32(spread / 50), centre + np.float32(spread / 50)
    points = (lo + (hi - lo) * np.random.default_rng(0).random((400, 4), np.float32)).clip(lo, hi)
    exact, bound = network.implicit(points.astype(float)), bound_of(network, lo, hi)
    assert np.isfinite(bound).all()
    for below in (False, True):
        assert (np.abs(variance_of_the_squares(points, below=below) - exact) <= bound).all()


def test_a_variance_that_squares_lose_has_no_bound() -> None:
    network = Network(proto([node("MeanVarianceNormalization", "x", axes=[1])], (1, 2)))
    assert np.isinf(bound_of(network, f(1000, 1000.1), f(1000.01, 1000.11))).all()


def test_squares_of_a_norm_that_overflow_have_no_bound() -> None:
    nodes = [node("Mul", "x k", "a"), node("LayerNormalization", "a s")]
    for scale, finite in ((1e18, True), (1e19, False)):
        network = Network(proto(nodes, (1, 3), {"k": f(scale), "s": f(1, 1, 1)}))
        assert np.isfinite(bound_of(network, f(1, 2, 4), f(1.01, 2.01, 4.01))).all() == finite


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
def test_losses_of_scores_that_cancel(reduction: str) -> None:
    nodes = [
        node("Add", "x k", "a"),
        node("Sub", "a k", "b"),
        node("Reshape", "b shape", "c"),
        node("SoftmaxCrossEntropyLoss", "c t w", "l", reduction=reduction),
        node("Reshape", "l flat"),
    ]
    constants = {"k": f(500), "w": f(1, 3, 0.1), "t": np.int64([1, 0, 2, 1])}
    constants |= {"shape": np.int64([4, 3]), "flat": np.int64([1, -1])}
    centre = np.random.default_rng(3).normal(size=12).astype(np.float32)
    bound, worst = compared(proto(nodes, (1, 12), constants), centre - np.float32(0.1), centre + np.float32(0.1))
    assert worst.max() > 50 * UNIT
    assert (bound < 0.1).all()


def test_a_gated_product_whose_factors_may_be_multiplied_in_another_order() -> None:
    """a b overflows where a Sigmoid(a) b is 0: the operator does not say which two come first."""
    nodes = [node("Split", "x", "a b", axis=1, num_outputs=2), node("Mul", "a k", "c"), node("SwiGLU", "c b")]
    for scale, finite in ((10.0, True), (1e22, False)):
        network = Network(proto(nodes, (1, 2), {"k": f(scale)}, opset=28))
        assert np.isfinite(bound_of(network, f(-0.2, -0.2), f(-0.1, -0.1))).all() == finite


@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_steps_of_a_fixed_number_are_bounded_as_what_they_come_to(op: str) -> None:
    """h' = tanh(h W + 8) - 8 + u, three times: a bound, and no runtime beyond it."""
    steps = [
        node("MatMul", "h W", "a"),
        node("Tanh", "a", "t"),
        node("Add", "t k", "b"),
        node("Sub", "b k", "c"),
        node("Add", "c x", "next"),
    ]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("h", "next")}
    if op == "Loop":
        steps.append(node("Identity", "go", "on"))
        flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
        counter = helper.make_tensor_value_info("i", TensorProto.INT64, [])
        body = helper.make_graph(steps, "body", [counter, flags[0], values["h"]], [flags[1], values["next"]])
        whole = node("Loop", "n yes start", body=body)
    else:
        row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [1])
        body = helper.make_graph(steps, "body", [values["h"], row], [values["next"]])
        whole = node("Scan", "start rows", num_scan_inputs=1, body=body)
    constants = {"W": f(0.5, -0.7, 0.3, 0.9).reshape(2, 2), "k": f(8), "start": f(0, 0).reshape(1, 2)}
    constants |= {"n": np.int64(3), "yes": np.bool_(True), "rows": np.zeros((3, 1), np.float32)}
    bound, worst = compared(proto([whole], (1, 2), constants), f(0.1, 0.2), f(0.3, 0.4))
    assert (worst > 2 * UNIT).all()
    assert (bound < 1e-4).all()
