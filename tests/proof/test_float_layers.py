"""Rounding within operators of many steps: recurrent layers, LogSoftmax, attention, quantised and response-normalised.

No runtime is further off than its bound: onnxruntime without and with its optimisations, and float32 written out here
in orders that some runtime may choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from idl_audit.implicit import kernels
from idl_audit.implicit.as_written import as_written
from idl_audit.proof.bounds import Interval
from idl_audit.proof.float_errors import FloatErrors
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from tests.implicit.test_as_written import Network, runs
from tests.shared.implicit_models import node, proto

UNIT = 2.0**-24
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def f(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def bound_of(network: Network, lo: FloatArray, hi: FloatArray, *, sharp: bool = False) -> FloatArray:
    inputs = Interval(np.atleast_2d(lo).astype(float), np.atleast_2d(hi).astype(float))
    states = (backward_state_bounds if sharp else interval_bounds)(network.implicit, inputs)
    places = network.written.places_in(network.implicit)
    known = {k: states.z[own] for k, own in places.items() if own in states.z}
    found = FloatErrors(network.written, inputs, np.zeros_like(inputs.lo), known, sharp)
    return found.of_outputs(np.eye(network.implicit.n_outputs))[0]


def compared(model: onnx.ModelProto, lo: FloatArray, hi: FloatArray, n: int = 40) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of the outputs over a box, and the worst that onnxruntime does there."""
    network, rng = Network(model), np.random.default_rng(5)
    lo, hi = np.asarray(lo, np.float32), np.asarray(hi, np.float32)
    points = (lo + (hi - lo) * rng.random((n, lo.size), np.float32)).clip(lo, hi)
    points[: n // 4] = np.where(rng.random((n // 4, lo.size)) < 0.5, lo, hi)
    exact = network.implicit(points.astype(float))
    worst = np.max([np.abs(found.reshape(exact.shape) - exact).max(axis=0) for found in runs(model, points)], axis=0)
    bounds = [bound_of(network, lo, hi, sharp=sharp) for sharp in (False, True)]
    for bound in bounds:
        assert (worst <= bound + 1e-13 * np.abs(exact).max()).all()
    return np.minimum(*bounds), worst


def layer(op: str, w: Any, r: Any, b: Any, *, length: int = 1, inputs: str = "", **attributes: Any) -> onnx.ModelProto:
    """Return a layer of one direction and batch; weights are (gates, hidden, size), (gates, hidden, hidden), ..."""
    w, r, b = (np.asarray(part, np.float32) for part in (w, r, b))
    hidden = r.shape[-1]
    extra = {name: np.asarray(attributes.pop(name), np.float32) for name in ("h", "c", "p") if name in attributes}
    constants = {"w": w.reshape(1, -1, w.shape[-1]), "r": r.reshape(1, -1, hidden), "b": b.reshape(1, -1), **extra}
    constants |= {key: value.reshape(1, 1, -1) for key, value in extra.items() if key != "p"}
    nodes = [
        node("Reshape", "x long", "u"),
        node(op, f"u w r b {inputs}", "whole", hidden_size=hidden, **attributes),
        node("Reshape", "whole flat"),
    ]
    constants |= {"long": np.int64([length, 1, w.shape[-1]]), "flat": np.int64([1, -1])}
    return proto(nodes, (1, length * w.shape[-1]), constants)


# --- recurrent layers -------------------------------------------------------------------------------------------------


def drawn(op: str, seed: int, *, cancels: bool, **attributes: Any) -> onnx.ModelProto:
    """Return a layer of three steps; weights that cancel are of size 1000, in pairs of opposite sign."""
    rng = np.random.default_rng(seed)
    n, hidden, size = GATES[op], 3, 4
    w, r, b = rng.normal(size=(n, hidden, size)), rng.normal(size=(n, hidden, hidden)), rng.normal(size=(2, n, hidden))
    if cancels:
        w[..., 1::2] = -w[..., ::2] + 1e-4 * w[..., 1::2]
        w, b[0] = 1e3 * w, 1e3 * b[0]
        b[1] = -b[0] + 0.1 * b[1]
    extra = {"h": rng.normal(size=hidden)}
    inputs = "- h"
    if op == "LSTM":
        extra |= {"c": rng.normal(size=hidden), "p": rng.normal(size=(1, 3 * hidden))}
        inputs = "- h c p"
    return layer(op, w, r, b, length=3, inputs=inputs, **extra, **attributes)


@pytest.mark.parametrize("cancels", [False, True])
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("RNN", {}),
        ("RNN", {"activations": ["Relu"]}),
        ("GRU", {}),
        ("GRU", {"linear_before_reset": 1}),
        (
            "GRU",
            {
                "activations": ["HardSigmoid", "ScaledTanh"],
                "activation_alpha": [0.2, 1.7],
                "activation_beta": [0.5, 0.6],
            },
        ),
        ("LSTM", {}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"clip": 0.8}),
        ("LSTM", {"activations": ["Softsign", "Elu", "Sigmoid"], "activation_alpha": [0.7]}),
    ],
)
def test_recurrent_layers(op: str, attributes: dict[str, Any], cancels: bool) -> None:
    rng = np.random.default_rng(len(op))
    centre = rng.normal(size=12)
    if cancels:
        centre[1::2] = centre[::2]
    bound, worst = compared(drawn(op, 3, cancels=cancels, **attributes), centre - 1e-5, centre + 1e-5)
    assert np.isfinite(bound).all()
    assert bound.max() <= 3000 * worst.max() + 1e-5


def test_both_biases_of_a_gate_count() -> None:
    """relu(u + 1e8 - 1e8): onnxruntime adds the biases beforehand, others add them one by one."""
    network = Network(layer("RNN", [[[1.0]]], [[[0.0]]], [[1e8], [-1e8]], activations=["Relu"]))
    (bound,) = bound_of(network, f(1.0), f(3.0))
    u = np.float32(2.4)
    assert abs((u + np.float32(1e8)) - np.float32(1e8) - u) <= bound <= 200


def test_a_first_state_that_cancels_counts() -> None:
    """relu(u + 1e8 h - 1e8 h): exactly u, and any order of the sum is a runtime's."""
    model = layer(
        "RNN", [[[1.0], [0.0]]], [[[1e8, -1e8], [0, 0]]], np.zeros((2, 2)), inputs="- h", h=[1, 1], activations=["Relu"]
    )
    bound = bound_of(Network(model), f(1.0), f(3.0))
    u, big = np.float32(2.4), np.float32(1e8)
    assert abs((u + big) - big - u) <= bound[0] <= 300


def test_one_step_by_hand() -> None:
    """relu(2 u - h + 3 - 1), h = 4: sizes 2 |u| + 4 + 3 + 1, no more than 25 roundings."""
    model = layer("RNN", [[[2.0]]], [[[-1.0]]], [[3.0], [-1.0]], inputs="- h", h=[4.0], activations=["Relu"])
    (bound,) = bound_of(Network(model), f(5.0), f(6.0))
    assert 2 * UNIT * (2 * 6 + 4 + 3 + 1) <= bound <= 25 * UNIT * (2 * 6 + 4 + 3 + 1)


def test_a_tanh_within_a_layer_is_not_that_of_the_operator() -> None:
    """RNN's tanh(z) is off by z itself where z is small, GRU's by 6e-7 where it is 1."""
    bound, worst = compared(layer("RNN", [[[1.0]]], [[[0.0]]], np.zeros((2, 1))), f(1e-9), f(1.1e-9))
    assert 1e-10 < worst[0] <= bound[0]
    alone = Network(proto([node("Tanh", "x")], (1, 1)))
    assert bound_of(alone, f(1e-9), f(1.1e-9))[0] < worst[0]
    model = layer("GRU", [[[0.0]], [[0.0]], [[1.0]]], np.zeros((3, 1, 1)), [[-100.0], [0], [0], [0], [0], [0]])
    _, worst = compared(model, f(9.0), f(10.0), 200)
    assert worst[0] > 4e-7


@pytest.mark.parametrize("update", [0.001, 0.999, 40.0])
def test_a_step_of_gru_may_be_written_either_way(update: float) -> None:
    """(1 - z) n + z h and n + z (h - n), for z beyond [0, 1] too."""
    z = [[0.0]], [[0.0]], [[1.0]]
    bias = [[update], [0.0], [0.0], [0.0], [0.0], [0.0]]
    kind = {"activations": ["Relu", "Relu"]}
    network = Network(layer("GRU", z, np.zeros((3, 1, 1)), bias, inputs="- h", h=[1000.25], **kind))
    (bound,) = bound_of(network, f(900.0), f(1100.0))
    u, h, g = np.linspace(900, 1100, 999).astype(np.float32), np.float32(1000.25), np.float32(update)
    one, two = (np.float32(1) - g) * u + g * h, u + g * (h - u)
    exact = u.astype(float) + float(g) * (float(h) - u.astype(float))
    assert max(np.abs(one - exact).max(), np.abs(two - exact).max()) <= bound <= 4e-3 * max(1.0, update)


def test_softplus_overflows_within_a_layer() -> None:
    def of(most: float) -> FloatArray:
        model = layer("RNN", [[[1.0]]], [[[0.0]]], np.zeros((2, 1)), activations=["Softplus"])
        return bound_of(Network(model), f(0.0), f(most))

    assert np.isfinite(of(50.0)).all()
    assert np.isinf(of(90.0)).all()


def test_a_threshold_within_a_layer_is_a_comparison() -> None:
    model = layer("RNN", [[[1.0]]], [[[0.0]]], [[1e3], [-1e3]], activations=["ThresholdedRelu"], activation_alpha=[1.0])
    for ends in ((0.1, 0.2), (1.1, 1.2)):
        bound, _ = compared(model, *map(f, ends))
        assert (bound < 1e-2).all()
    bound, _ = compared(model, f(0.9), f(1.1))
    assert 1 <= bound < 1.3


def test_an_activation_of_a_layer_that_was_not_measured_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_ALIKE_IN_LAYERS", frozenset())
    model = layer("RNN", [[[1.0]]], [[[0.0]]], np.zeros((2, 1)), activations=["ThresholdedRelu"])
    with pytest.raises(UnsupportedModelError, match=r"RNN node .*activation step was not measured"):
        as_written(Network(model).graph)


def test_what_enters_a_product_twice_is_counted_once() -> None:
    """n + z (h - n), z near 1/2: half the error of n is left, of which both terms have a whole and a half."""
    nodes = [
        node("Split", "x", "u z h", axis=1, num_outputs=3),
        node("Mul", "u a", "l"),
        node("Sub", "l a", "s"),
        node("Relu", "s", "n"),
        node("Sub", "h n", "d"),
        node("Mul", "z d", "p"),
        node("Add", "n p", "whole"),
    ]
    lo = f(1.00001, 0.5, 3.0)
    networks = [proto(nodes, (1, 3), {"a": f(1e8)}, opset=18, outputs=[out]) for out in ("n", "whole")]
    alone, both = (compared(model, lo, lo + f(1e-6, 1e-6, 1e-6))[0][0] for model in networks)
    assert alone >= 4
    assert both <= 0.55 * alone


def test_a_gated_layer_of_many_steps_forgets_its_roundings() -> None:
    rng = np.random.default_rng(0)
    draw = [rng.uniform(-0.35, 0.35, shape) for shape in ((3, 8, 4), (3, 8, 8), (2, 3, 8))]
    centre = rng.normal(size=40)
    bound, _ = compared(layer("GRU", *draw, length=10), centre - 1e-3, centre + 1e-3, 8)
    assert bound.max() <= 1e-3


# --- logarithms of softmax --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "width"), [(0.0, 3), (1000.0, 3), (-300.0, 10), (5.0, 1)])
@pytest.mark.parametrize("op", ["LogSoftmax", "ReduceLogSumExp"])
def test_logarithms_of_sums(op: str, shift: float, width: int) -> None:
    rng = np.random.default_rng(width)
    centre = shift + 3 * rng.normal(size=width)
    nodes = [node(op, "x", "l", **({"axes": [1]} if op == "ReduceLogSumExp" else {})), node("Mul", "l two")]
    model = proto(nodes, (1, width), {"two": f(2.0)}, opset=13)
    bound, _ = compared(model, centre - 1e-3, centre + 1e-3, 200)
    assert bound.max() <= 2 * (60 * UNIT * (abs(shift) + 10) + 4e-6)
    z = np.asarray(centre, np.float32)
    logs = np.float32(np.log(np.exp(z - z.max()).sum(dtype=np.float32)))
    merged = z - (z.max() + logs) if op == "LogSoftmax" else z.max() + logs  # torch did it so once
    exact = Network(model).implicit(z[None].astype(float))[0]
    assert (np.abs(2 * merged - exact) <= bound).all()


def test_errors_pass_through_a_log_softmax() -> None:
    """Of logits that are off by 4: so are the results, nearly."""
    nodes = [node("Mul", "x a", "h"), node("Sub", "h a", "k"), node("LogSoftmax", "k", "l"), node("Mul", "l one")]
    bound, worst = compared(
        proto(nodes, (1, 2), {"a": f(1e8, -3e7), "one": f(1.0)}), f(1, 1), f(1 + 1e-6, 1 + 1e-6), 200
    )
    assert 1 < worst.max() <= bound.max() <= 1000


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [{}, {"softcap": 2.0}, {"is_causal": 1}, {"scale": 3.0}])
def test_attention(attributes: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        *(node("MatMul", f"x w{name}", name) for name in "qkv"),
        node("Attention", "q k v", "a", q_num_heads=2, kv_num_heads=2, **attributes),
        node("Reshape", "a flat"),
    ]
    weights = {
        f"w{name}": (scale * rng.normal(size=(6, 4))).astype("f")
        for name, scale in zip("qkv", (1, 1, 100), strict=True)
    }
    model = proto(nodes, (1, 3, 6), {**weights, "flat": np.int64([1, -1])}, opset=23)
    centre = rng.normal(size=18)
    bound, worst = compared(model, centre - 1e-5, centre + 1e-5)
    assert bound.max() <= 1000 * worst.max()


def test_scores_of_constants_have_no_bound() -> None:
    """Those of 3e5 and -3e5 cancel, and their roundings are .02 of what the values are."""
    nodes = [node("Reshape", "x s", "v"), node("Attention", "q k v", "a", q_num_heads=1, kv_num_heads=1, scale=1e-4)]
    constants = {"q": f(3e5, -3e5, 1e4).reshape(1, 1, 3), "k": f(3e5, 3e5, 1, 1, 1, 1).reshape(1, 2, 3)}
    shapes = {"s": np.int64([1, 2, 3]), "t": np.int64([1, -1])}
    model = proto([*nodes, node("Reshape", "a t")], (1, 6), {**constants, **shapes}, opset=23)
    with pytest.raises(UnsupportedModelError, match="Attention node"):
        as_written(Network(model).graph)


# --- quantised networks -----------------------------------------------------------------------------------------------


def quantised(scale: float, zero: int = 0, kind: int = TensorProto.UINT8) -> onnx.ModelProto:
    dtype = np.uint8 if kind == TensorProto.UINT8 else np.int8
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")]
    return proto(nodes, (1, 1), {"s": np.float32(scale), "z": dtype(zero)})


def test_a_grid_is_exact_between_thresholds_and_a_step_off_at_one() -> None:
    network = Network(quantised(1.0))
    assert bound_of(network, f(0.6), f(1.4))[0] <= 20 * UNIT
    for lo, hi in ((0.4, 0.6), (0.5, 0.5), (0.49999997, 0.49999997)):
        assert 1 <= bound_of(network, f(lo), f(hi))[0] <= 1 + 1e-4
    assert bound_of(network, f(0.5 - 1e-4), f(0.5 - 1e-4))[0] <= 20 * UNIT
    assert bound_of(network, f(-9.0), f(-7.0))[0] <= 20 * UNIT


def test_a_quotient_is_rounded_before_the_grid_is() -> None:
    """-12.050000190734863 / .1f is beyond -120.5, and -120.5 in float32."""
    bound, worst = compared(quantised(0.1, kind=TensorProto.INT8), f(-12.050000190734863), f(-12.050000190734863), 4)
    assert 0.09 < worst[0] <= bound[0] <= 0.11


def test_a_zero_point_may_be_added_before_the_number_is_rounded() -> None:
    """fl(u / s + 200) is a threshold where u / s is .499998."""
    (bound,) = bound_of(Network(quantised(1.0, 200)), f(0.499998), f(0.499998))
    assert np.float32(0.499998) + np.float32(200) == 200.5
    assert bound >= 1


def two_grids(scale: float, zero: int) -> onnx.ModelProto:
    nodes = [
        *(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d")),
        *(node("QuantizeLinear", "d t w", "r"), node("DequantizeLinear", "r t w")),
    ]
    constants = {"s": f(0.5)[0], "z": np.uint8(100), "t": np.float32(scale), "w": np.uint8(zero)}
    return proto(nodes, (1, 1), constants)


def test_two_grids_have_no_bound() -> None:
    """onnxruntime makes one grid of them: it is off by a step where no threshold is near."""
    points = np.linspace(-10, 10, 501, dtype=np.float32)[:, None]
    apart, merged = runs(two_grids(0.37, 128), points)
    assert np.abs(apart - merged).max() > 0.3
    with pytest.raises(UnsupportedModelError, match=r"QuantizeLinear node .* a second grid"):
        as_written(Network(two_grids(0.37, 128)).graph)
    compared(two_grids(0.5, 100), f(-3.3), f(4.4))


def test_more_steps_than_whole_numbers_have_no_bound() -> None:
    """600 * 700 is 2.5e9 steps: beyond int32, where onnxruntime's product of quantised numbers ends below all."""
    grids = {"s": f(4.0)[0], "z": np.uint8(255), "t": f(7.0)[0], "w": np.uint8(200), "u": np.float32(1.6e-4)}
    nodes = [
        *(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d")),
        *(node("QuantizeLinear", "x t w", "p"), node("DequantizeLinear", "p t w", "e")),
        node("Mul", "d e", "m"),
        *(node("QuantizeLinear", "m u w", "r"), node("DequantizeLinear", "r u w")),
    ]
    model = proto(nodes, (1, 1), grids)
    apart, fused = runs(model, f(-650)[None])
    assert np.abs(apart - fused).max() > 0.03
    assert np.isinf(bound_of(Network(model), f(-650), f(-650))).all()
    assert bound_of(Network(model), f(-200), f(-199)).max() < 1


@pytest.mark.parametrize("seed", range(4))
def test_quantised_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"),
        node("DequantizeLinear", "q sx zx", "d"),
        node("DequantizeLinear", "w sw", "v"),
        node("MatMul", "d v", "h"),
        node("DequantizeLinear", "b sb", "c"),
        node("Add", "h c", "k"),
        node("Relu", "k", "r"),
        node("QuantizeLinear", "r sr zr", "t"),
        node("DequantizeLinear", "t sr zr", "e"),
        node("MatMul", "e m"),
    ]
    constants = {
        **dict(zip(("sx", "sw", "sr"), f(0.05, 0.02, 0.03), strict=True)),
        **dict(zip(("zx", "zr"), np.uint8([100, 0]), strict=True)),
        "w": rng.integers(-60, 61, (4, 5)).astype(np.int8),
        "b": (1000 * rng.normal(size=5)).astype(np.int32),
        "sb": np.float32(0.05) * np.float32(0.02),
        "m": rng.normal(size=(5, 2)).astype("f"),
    }
    centre = rng.normal(size=4)
    compared(proto(nodes, (1, 4), constants), centre - 0.2, centre + 0.2, 200)


# --- local response normalisation -------------------------------------------------------------------------------------


def normalised(channels: int, **attributes: Any) -> onnx.ModelProto:
    nodes = [node("LRN", "x", "l", **attributes), node("Reshape", "l flat")]
    return proto(nodes, (1, channels, 1, 2), {"flat": np.int64([1, -1])})


def test_a_window_that_moves_along_the_channels_keeps_the_roundings_of_all_of_them() -> None:
    """What is left of 30^2 once it was added and taken away is of its size, not of that of .01^2."""
    centre = np.full(24, 0.01)
    centre[:2] = 30.0
    bound, worst = compared(normalised(12, size=3, alpha=1.0, beta=0.75, bias=1e-2), centre * 0.999, centre * 1.001)
    assert 1e-5 < worst[4:].max() <= bound[4:].max() <= 0.05
    far = np.full(24, 1e-3)
    far[:2] = 1e4
    model = normalised(12, size=3, alpha=1.0, beta=0.75, bias=1e-3)
    assert np.isinf(bound_of(Network(model), far, far)).all()
    assert not np.isfinite(runs(model, far[None].astype("f"))[0]).all()  # onnxruntime's sums are below 0 there


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0])
def test_response_normalisation(beta: float) -> None:
    centre = np.random.default_rng(1).normal(size=10)
    bound, worst = compared(normalised(5, size=3, alpha=0.3, beta=beta, bias=2.0), centre - 1e-4, centre + 1e-4)
    assert bound.max() <= 200 * worst.max()
