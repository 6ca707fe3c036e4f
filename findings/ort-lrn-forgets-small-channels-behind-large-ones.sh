#!/usr/bin/env bash
# onnxruntime's LRN is infinite where a window of small channels stands behind a large one.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU provider.
#
# Behaviour: the sum of squares of a window is the last window's, plus the square that comes in, minus
# the one that goes out. What was rounded when a large square was added stays when it is taken away:
# of channels 10000, 0.001, 0.001, ... with a bias of 0.001 the sum is 0 from the third channel on (bias
# and all), and the results are infinite in all channels behind, where they are finite numbers.
#
# Why it surprises: the specification gives each channel a sum over its own window alone,
# X / (bias + alpha / size * square_sum)^beta with a bias that keeps the divisor away from 0; a channel
# that is not in the window has no part in it, and float32 holds 0.001^2 and 0.001 without loss.
# A float32 evaluation of the formula, window by window, is right to seven digits.
#
# Seen:
#   channel       0          1           2          3          11
#   onnxruntime   0.0227951  2.27951e-09 inf        inf        nan
#   by formula    0.0227951  2.27951e-09 0.177695   0.177695   0.177739
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
from onnx import TensorProto, helper

node = helper.make_node("LRN", ["x"], ["y"], size=3, alpha=1.0, beta=0.75, bias=0.001)
graph = helper.make_graph(
    [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 1, 1])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 12, 1, 1])])
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])

SHOWN = [0, 1, 2, 3, 11]
x = np.full(12, 0.001, np.float32)
x[0] = 10000
found = session.run(None, {"x": x.reshape(1, 12, 1, 1)})[0].reshape(-1)
squares = np.concatenate([[0], x * x, [0]]).astype(np.float32)
sums = squares[:-2] + squares[1:-1] + squares[2:]
formula = x / (np.float32(0.001) + sums / np.float32(3)) ** np.float32(0.75)
for name, row in (("channel", SHOWN), ("onnxruntime", found[SHOWN]), ("by formula", formula[SHOWN])):
    print(f"{name:13} " + " ".join(f"{value:<10.6g}" for value in row))
if not (not np.isfinite(found[2:]).any() and np.isfinite(formula).all() and np.allclose(found[:2], formula[:2], rtol=1e-3)):
    raise SystemExit("changed: LRN is not as stated above")
END
