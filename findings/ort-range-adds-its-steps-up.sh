#!/usr/bin/env bash
# onnxruntime's Range of float32 adds its step up; onnx's reference evaluator, numpy and torch multiply it.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU, Linux, x86-64.
#
# Behaviour: Range(0, 1000, 0.1) of float32 ends with 999.803 in onnxruntime, with optimisations and without
# them, and with 999.9 in onnx's reference evaluator: every step is rounded, and the roundings add up to 0.097,
# as much as the step itself.
#
# Why it surprises: the operator's text says output[i] = start + i * delta, which is what the reference
# evaluator computes. The function that the standard gives for it is a loop which adds delta, and that is what
# onnxruntime computes: one standard, two numbers.
#
# Seen:
#   onnxruntime without optimisations: 10000 numbers, the last one 999.803
#   onnxruntime with all of them:      10000 numbers, the last one 999.803
#   the reference evaluator:           10000 numbers, the last one 999.900
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ends = {"start": 0.0, "limit": 1000.0, "delta": 0.1}
constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in ends.items()]
nodes = [helper.make_node("Range", list(ends), ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
graph = helper.make_graph(nodes, "g", [one], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
feeds, found = {"x": np.zeros(1, np.float32)}, []
levels = onnxruntime.GraphOptimizationLevel
for name, level in (
    ("onnxruntime without optimisations: ", levels.ORT_DISABLE_ALL),
    ("onnxruntime with all of them:      ", levels.ORT_ENABLE_ALL),
):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found.append((name, session.run(None, feeds)[0]))
found.append(("the reference evaluator:           ", ReferenceEvaluator(model).run(None, feeds)[0]))
for name, values in found:
    print(f"{name}{len(values)} numbers, the last one {values[-1]:.3f}")
if [f"{values[-1]:.3f}" for _, values in found] != ["999.803", "999.803", "999.900"]:
    raise SystemExit("changed: the results are not as stated above")
EOF
