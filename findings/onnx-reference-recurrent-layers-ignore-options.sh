#!/usr/bin/env bash
# The ONNX reference evaluator reads recurrent layers without several of their options.
#
# Versions: onnx 1.23.2, numpy 2.4.6, and onnxruntime 1.31.1 as a second opinion.
#
# Behaviour: one layer with one state and weights of 1, a few steps. The value that the formulas of LSTM,
# GRU and RNN in the specification ask for is written out in numpy below; onnxruntime agrees with it every
# time, onnx.reference does not: `clip`, `input_forget`, `sequence_lens` and `activations` change nothing.
#
# Why it surprises: nothing warns. A model whose cells are clipped, or whose sequences end early, is
# evaluated as one without clipping and of full length, and the difference is as large as the values.
#
# Seen, last states (in every case the reference's is that of the layer without the option):
#   LSTM clip=.3            should be .1771  reference .8665
#   LSTM input_forget=1     should be .6870  reference .8665
#   LSTM activations Relu   should be .9309  reference .8665
#   GRU clip=.3             should be .2361  reference .3833
#   RNN sequence_lens=1     should be .4621  reference .9939
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

logging.disable()
ort.set_default_logger_severity(4)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
X = np.array([0.5, 1.0, 2.0], np.float32)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def lstm(clip=np.inf, coupled=False, g=np.tanh):
    h = c = 0.0
    for x in X:
        z = np.clip(x + h, -clip, clip)
        i = sigmoid(z)
        c = (1 - i if coupled else sigmoid(z)) * c + i * g(z)
        h = sigmoid(z) * np.tanh(c)
    return h


def gru(clip=np.inf):
    h = 0.0
    for x in X:
        z = r = sigmoid(np.clip(x + h, -clip, clip))
        n = np.tanh(np.clip(x + r * h, -clip, clip))
        h = (1 - z) * n + z * h
    return h


def rnn(steps=3):
    h = 0.0
    for x in X[:steps]:
        h = np.tanh(x + h)
    return h


def relu(v):
    return max(v, 0.0)


def check(what, op, truth, plain, lengths=None, **options):
    tensors = {"w": np.ones((1, GATES[op], 1), np.float32), "r": np.ones((1, GATES[op], 1), np.float32)}
    inputs = ["x", "w", "r"]
    if lengths is not None:
        tensors["l"] = np.array([lengths], np.int32)
        inputs += ["", "l"]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["", "y"], hidden_size=1, **options)], "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (3, 1, 1))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 1, 1))],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    x = X.reshape(3, 1, 1)
    second = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    try:
        got = float(ReferenceEvaluator(model).run(None, {"x": x})[0].ravel()[0])
        shown, ignored = f"{got:.4f}", abs(got - plain) < 1e-4
    except Exception as error:
        shown, ignored = type(error).__name__, False
    print(f"{what:24} should be {truth:.4f}  onnxruntime {second.ravel()[0]:.4f}  reference {shown}  plain {plain:.4f}")
    return ignored and abs(truth - plain) > 1e-2 and abs(second.ravel()[0] - truth) < 1e-4


right = [
    check("LSTM clip=.3", "LSTM", lstm(clip=0.3), lstm(), clip=0.3),
    check("LSTM input_forget=1", "LSTM", lstm(coupled=True), lstm(), input_forget=1),
    check("LSTM activations Relu", "LSTM", lstm(g=relu), lstm(), activations=["Sigmoid", "Relu", "Tanh"]),
    check("GRU clip=.3", "GRU", gru(clip=0.3), gru(), clip=0.3),
    check("RNN sequence_lens=1", "RNN", rnn(steps=1), rnn(), lengths=1),
]
if not all(right):
    raise SystemExit("changed: not every case is as stated above")
PY
