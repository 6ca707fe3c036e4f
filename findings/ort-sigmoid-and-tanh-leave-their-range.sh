#!/usr/bin/env bash
# onnxruntime's Sigmoid and Tanh exceed 1, fall where they should rise, and Sigmoid(-18) is 0.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU provider, x86-64 with AVX-512.
#
# Behaviour: float32 Sigmoid takes the value 1.0000001, is exactly 0 at -18 and below, and is more than
# twice the true value at -17; Tanh takes values of more than 1 and less than -1. Neither is monotone:
# among 1048576 rising inputs the output falls tens of thousands of times, by up to 2e-07 and 4e-07.
#
# Why it surprises: the specification defines Sigmoid as 1 / (1 + exp(-x)), which lies in (0, 1), and
# float32 can hold its values down to 1e-38: 1.5e-08 at -18 is no underflow. Bounds on a network are
# commonly proved with these two functions as monotone and inside their range; here 1 - Sigmoid(x)
# can be negative and its logarithm NaN, and the logarithm of Sigmoid(-18) is -inf instead of -18.
#
# Seen:
#   Sigmoid  least 0.0         greatest 1.0000001  steps down 90691  largest 2.4e-07
#   Tanh     least -1.0000002  greatest 1.0000002  steps down 50586  largest 3.6e-07
#   Sigmoid at -17: 8.9e-08 (true 4.1e-08); at -18: 0.0 (true 1.5e-08); logarithm -inf (true -18)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper


def evaluate(names, x):
    nodes = [helper.make_node(name, [f"t{k}"], [f"t{k + 1}"]) for k, name in enumerate(names)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(f"t{len(names)}", TensorProto.FLOAT, ["n"])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"t0": np.asarray(x, np.float32)})[0]


right = True
rising = np.linspace(-30, 30, 1 << 20).astype(np.float32)
for name in ("Sigmoid", "Tanh"):
    y = evaluate([name], rising)
    steps = np.diff(y)
    print(f"{name:8} least {y.min()}  greatest {y.max()}  steps down {(steps < 0).sum()}  "
          f"largest {-steps.min():.1e}")
    right &= y.max() > 1 and steps.min() < 0 and (name == "Sigmoid" or y.min() < -1)
points = evaluate(["Sigmoid"], [-17, -18])
logarithm = evaluate(["Sigmoid", "Log"], [-18])[0]
print(f"Sigmoid at -17: {points[0]:.1e} (true {1 / (1 + np.exp(17.0)):.1e}); at -18: {points[1]} "
      f"(true {1 / (1 + np.exp(18.0)):.1e}); logarithm {logarithm} (true -18)")
if not (right and points[1] == 0 and logarithm == -np.inf and abs(points[0] - 4.14e-8) > 1e-8):
    raise SystemExit("changed: Sigmoid and Tanh are not as stated above")
EOF
