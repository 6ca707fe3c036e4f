#!/usr/bin/env bash
# ThresholdedRelu within onnxruntime's RNN, GRU and LSTM has the threshold 0 by default, not 1.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU provider.
#
# Behaviour: with activations=["ThresholdedRelu"] and no activation_alpha, an RNN whose weight is 1 maps
# 0.5 to 0.5. The operator ThresholdedRelu, without alpha, maps 0.5 to 0; so does the RNN with
# activation_alpha=[1.0]. GRU and LSTM do as RNN does.
#
# Why it surprises: the specification of activation_alpha says "Default values are the same as of
# corresponding ONNX operators", and that operator's alpha is 1.0 by default. The layer's other
# activations with parameters (Elu, LeakyRelu, HardSigmoid) keep to it.
#
# Seen:
#   operator, by default    [0.  0.  0.  1.5]
#   in RNN, by default      [0.  0.  0.5 1.5]
#   in RNN, alpha 1.0       [0.  0.  0.  1.5]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'END'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

X = np.array([-2, -0.5, 0.5, 1.5], np.float32).reshape(1, 4, 1)


def evaluate(node, **constants):
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0].reshape(-1)


def layer(**more):
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=1, activations=["ThresholdedRelu"], **more)
    return evaluate(node, w=[[[1]]], r=[[[0]]])


alone = evaluate(helper.make_node("ThresholdedRelu", ["x"], ["y"]))
default, told = layer(), layer(activation_alpha=[1.0])
for name, row in (("operator, by default", alone), ("in RNN, by default", default), ("in RNN, alpha 1.0", told)):
    print(f"{name:23} {row}")
if not (alone[2] == 0 and default[2] == 0.5 and told[2] == 0):
    raise SystemExit("changed: ThresholdedRelu within layers is not as stated above")
END
