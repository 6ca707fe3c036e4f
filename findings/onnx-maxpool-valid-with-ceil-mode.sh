#!/usr/bin/env bash
# The text of MaxPool gives a length, for auto_pad=VALID with ceil_mode=1, that ONNX does not infer.
#
# Versions: onnx 1.23.2, numpy 2.4.6, onnxruntime 1.31.1.
#
# Behaviour: the operator's text (opset 12, 19 and 22; AveragePool's at 22 is the same) asks for
#   VALID, ceil_mode: ceil((input - ((kernel - 1) * dilation + 1) + 1) / stride).
# ONNX's own shape inference and onnxruntime both use ceil((input - kernel) / stride) + 1 instead, which
# can be one more. onnx.reference follows the text for MaxPool.
#
# Why it surprises: two parts of one package, inference and reference evaluator, give one valid model
# two shapes, and the specification sides with the one that the runtime does not follow.
#
# Seen, stride 2:
#   input 5, kernel 2: text 2  inferred 3  onnxruntime 3  onnx.reference 2
#   input 6, kernel 3: text 2  inferred 3  onnxruntime 3  onnx.reference 2
#   input 7, kernel 2: text 3  inferred 4  onnxruntime 4  onnx.reference 3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import math

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

right = True
for length, kernel in ((5, 2), (6, 3), (7, 2)):
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[kernel], strides=[2],
                          auto_pad="VALID", ceil_mode=1),
         helper.make_node("Identity", ["y"], ["z"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, length])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1, "n"])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    x = np.arange(length, dtype=np.float32).reshape(1, 1, length)
    text = math.ceil((length - kernel + 1) / 2)
    shape = onnx.shape_inference.infer_shapes(made).graph.value_info[0].type.tensor_type.shape
    inferred = shape.dim[2].dim_value
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    run = session.run(None, {"x": x})[0].shape[2]
    reference = ReferenceEvaluator(made).run(None, {"x": x})[0].shape[2]
    print(f"input {length}, kernel {kernel}: text {text}  inferred {inferred}  "
          f"onnxruntime {run}  onnx.reference {reference}")
    right &= inferred == run == text + 1 and reference == text
if not right:
    raise SystemExit("changed: the lengths are not as stated above")
EOF
