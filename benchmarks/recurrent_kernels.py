"""The activations of recurrent layers, each at every place of a step where a layer applies one, taken out of the layer.

Layers compute them with kernels of their own. With W = 1 and R = 0 a step's gates read the input itself, and the other
activations are constants or copies, so that h' is one activation of the input:

    RNN    h' = f(u)
    GRU    h' = n + z (h - n): f(u) as z with n = 0 and h = 1; as r with n = r h or n = r b', h = b' = 1, f = 0 in z;
           and g(u) as n with z = 0
    LSTM   h' = o h(c'): f(u) as o with h = 1; g(u) as c' with i = o = 1; h(u) of c' = u

In torch, whose activations are fixed, sigmoids and tangents are held at 0 or 1 by biases of 100 and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from idl_audit.values.arrays import Float32Array

Kernel = Callable[[Float32Array], Float32Array]

WIDTH: Final = 64
"""States of the layer through which long tensors go; short ones have a layer of their own length."""
OPSET: Final = 21
GATES: Final = MappingProxyType({"RNN": 1, "GRU": 3, "LSTM": 4})
FAR: Final = 200.0
"""Where sigmoid, tanh and softplus are 0 or 1, or as good as."""

FUNCTIONS: Final = MappingProxyType(
    {"elu": "Elu", "sigmoid": "Sigmoid", "softplus": "Softplus", "softsign": "Softsign", "tanh": "Tanh"}
)
"""Activation -> ONNX's word for it within a layer: those that a library computes."""

Named = tuple[str, tuple[float, ...], tuple[float, ...]]
"""An activation of a step: its name, its alpha and its beta, where it has them."""

_ZERO: Final[Named] = ("Affine", (0.0,), (0.0,))
_CONSTANT: Final[Named] = ("Affine", (0.0,), (1.0,))
_COPY: Final[Named] = ("Affine", (1.0,), (0.0,))


def in_onnxruntime(name: str) -> Mapping[str, Kernel]:
    """Return the places at which onnxruntime's layers apply an activation."""
    f: Named = (FUNCTIONS[name], (1.0,) if name == "elu" else (), ())
    closed = {0: -FAR if name in ("sigmoid", "softplus") else 0.0}  # f = 0 in the gate z
    places: dict[str, Kernel] = {
        "RNN": _layer("RNN", (f,), "h"),
        "GRU, z": _layer("GRU", (f, _ZERO), "z", start=1.0),
        "GRU, r of h": _layer("GRU", (f, _COPY), "r", start=1.0, recurrent={"n": 1.0}, b=closed),
        "GRU, r of R h + b": _layer("GRU", (f, _COPY), "r", b={**closed, 5: 1.0}, linear_before_reset=1),
        "GRU, n": _layer("GRU", (_ZERO, f), "n"),
        "LSTM, o": _layer("LSTM", (f, _CONSTANT, _CONSTANT), "o"),
        "LSTM, g": _layer("LSTM", (_CONSTANT, f, _COPY), "g"),
        "LSTM, h": _layer("LSTM", (_CONSTANT, _COPY, f), "g"),
    }
    return {f"onnxruntime {place}": kernel for place, kernel in places.items()}


_ORDER: Final = MappingProxyType({"RNN": "h", "GRU": "zrn", "LSTM": "ioeg"})
"""The gates of a layer in the order of its weights."""


def _layer(
    op: str,
    functions: tuple[Named, ...],
    reads: str,
    *,
    start: float = 0.0,
    recurrent: Mapping[str, float] | None = None,
    b: Mapping[int, float] | None = None,
    **attributes: int,
) -> Kernel:
    """Return h' of one step whose gate `reads` has the input as its pre-activation, of any number of inputs.

    Args:
        op: the layer.
        functions: its activations.
        reads: the gate.
        start: every entry of h before the step.
        recurrent: gate -> the number in R's diagonal.
        b: block of B -> its entries.
        attributes: of the node.
    """
    parameters = {f"activation_{key}": sum((one[k] for one in functions), ()) for k, key in ((1, "alpha"), (2, "beta"))}
    given = {key: values for key, values in parameters.items() if values}

    @cache
    def session(width: int) -> onnxruntime.InferenceSession:
        n, one = GATES[op], np.eye(width, dtype=np.float32)
        w, r = np.zeros((2, 1, n, width, width), np.float32)
        w[0, _ORDER[op].index(reads)] = one
        for gate, number in (recurrent or {}).items():
            r[0, _ORDER[op].index(gate)] = number * one
        bias = np.zeros((1, 2 * n, width), np.float32)
        for block, number in (b or {}).items():
            bias[0, block] = number
        constants = {"W": w.reshape(1, -1, width), "R": r.reshape(1, -1, width), "B": bias.reshape(1, -1)}
        node = helper.make_node(
            op,
            ["x", "W", "R", "B", "", "start"],
            ["y"],
            hidden_size=width,
            activations=[one[0] for one in functions],
            **given,
            **attributes,
        )
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, None, width])
        before = helper.make_tensor_value_info("start", TensorProto.FLOAT, [1, None, width])
        last = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph([node], "g", [entry, before], [last], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(rows: Float32Array) -> Float32Array:
        before = np.full((1, *rows.shape), start, np.float32)
        return np.asarray(session(rows.shape[1]).run(None, {"x": rows[None], "start": before})[0])

    return _in_rows(run)


def _in_rows(run: Kernel) -> Kernel:
    """Return a function of a vector of one that reads rows: one row where it is short, rows of WIDTH otherwise."""

    def whole(x: Float32Array) -> Float32Array:
        width = min(len(x), WIDTH)
        padded = np.zeros(-(-len(x) // width) * width, np.float32)
        padded[: len(x)] = x
        return np.ascontiguousarray(run(padded.reshape(-1, width)).reshape(-1)[: len(x)])

    return whole


def in_torch(name: str) -> Mapping[str, Kernel]:
    """Return the places at which torch's layers apply an activation: none for those that they do not have."""
    places = _IN_TORCH.get(name, {})
    return {f"torch {place}": _in_rows(_torch_layer(*given)) for place, given in places.items()}


_IN_TORCH: Final[Mapping[str, Mapping[str, tuple[str, int, Mapping[int, float], float, float | None, bool]]]] = (
    MappingProxyType(  # layer, the gate that reads, biases of gates, h and c before (None: the input), is c' the result
        {
            "sigmoid": {
                "GRU, z": ("GRU", 1, {}, 1.0, 0.0, False),
                "LSTM, o": ("LSTM", 3, {0: -FAR, 1: FAR}, 0.0, FAR, False),
            },
            "tanh": {
                "RNN": ("RNN", 0, {}, 0.0, 0.0, False),
                "GRU, n": ("GRU", 2, {1: -FAR}, 0.0, 0.0, False),
                "LSTM, g": ("LSTM", 2, {0: FAR, 1: -FAR}, 0.0, 0.0, True),
                "LSTM, h": ("LSTM", -1, {0: -FAR, 1: FAR, 3: FAR}, 0.0, None, False),
            },
        }
    )
)


def _torch_layer(
    kind: str, reads: int, biases: Mapping[int, float], start: float, cell: float | None, inner: bool
) -> Kernel:
    """Return what one step of torch's layer gives, h' or c', as `_layer` does; gates are r z n and i e g o."""

    @cache
    def layer(width: int) -> torch.nn.RNNBase:
        made: torch.nn.RNNBase = getattr(torch.nn, kind)(width, width)
        weights, bias = torch.zeros(GATES[kind], width, width), torch.zeros(GATES[kind], width)
        if reads >= 0:
            weights[reads] = torch.eye(width)
        for gate, number in biases.items():
            bias[gate] = number
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.zero_()
            made.get_parameter("weight_ih_l0").copy_(weights.reshape(-1, width))
            made.get_parameter("bias_ih_l0").copy_(bias.reshape(-1))
        return made.eval()

    def run(rows: Float32Array) -> Float32Array:
        x = torch.from_numpy(rows)[None]
        before, c = torch.full_like(x, start), x if cell is None else torch.full_like(x, cell)
        with torch.inference_mode():
            found = layer(rows.shape[1])(x, (before, c) if kind == "LSTM" else before)
        return np.asarray((found[1][1] if inner else found[0]).numpy())

    return run
