#!/usr/bin/env bash
# The function body of MeanVarianceNormalization in ONNX gives 1.5e9 where its own formula gives 1.34.
#
# Versions: onnx 1.23.2, numpy 2.4.6, onnxruntime 1.31.1.
#
# Behaviour: the operator's text says (X - EX) / sqrt(E(X - EX)^2). Its function body, by which ONNX defines
# what the operator computes, takes E[X^2] - E[X]^2 and adds 1e-9 behind the root. In float32 the difference
# is 0 for four entries around 10000, a unit apart, so that they become multiples of 1e9. onnxruntime's
# kernel follows the text and gives 1.34. It leaves the 1e-9 out as well: for a constant channel, where the
# body gives 0, it gives NaN.
#
# Why it surprises: body, text and runtime are three functions, and neither of the two that run is safe: one
# is wrong by nine powers of ten away from 0, the other makes NaN of a blank image.
#
# Seen:
#   10000 10001 10002 10003   text -1.342 .. 1.342   body -1.5e+09 .. 1.5e+09   onnxruntime -1.342 .. 1.342
#   3 3 3 3                   text 0 / 0             body 0 .. 0                onnxruntime nan .. nan
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

shape = [1, 1, 2, 2]
graph = helper.make_graph(
    [helper.make_node("MeanVarianceNormalization", ["x"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)])
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
onnx.checker.check_model(made)
session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
found = []
for entries in ([10000, 10001, 10002, 10003], [3, 3, 3, 3]):
    x = np.array(entries, np.float32).reshape(shape)
    run = session.run(None, {"x": x})[0].ravel()
    body = ReferenceEvaluator(made).run(None, {"x": x})[0].ravel()
    print(*entries, f"  body {body[0]:.4g} .. {body[-1]:.4g}  onnxruntime {run[0]:.4g} .. {run[-1]:.4g}")
    found.append((body, run))
(far, near), (blank, missing) = found
right = abs(far[-1]) > 1e8 and abs(near[-1] - 1.3416) < 1e-3 and not blank.any() and np.isnan(missing).all()
if not right:
    raise SystemExit("changed: the results are not as stated above")
EOF
