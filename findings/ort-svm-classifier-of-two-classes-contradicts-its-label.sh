#!/usr/bin/env bash
# onnxruntime's SVMClassifier of two classes returns scores whose largest is not the class that it returns
# beside them, at any input.
#
# Versions: onnx 1.23.2, numpy 2.4.6, onnxruntime 1.31.1.
#
# Behaviour: with support vectors of two classes, z = sum_i a_i K(x, s_i) + rho is the score of the pair; the
# label is the first class where z > 0, by the vote of that pair. The scores beside it are (-z, z), whose
# larger one is then the second.
#
# Why it surprises: label and scores are two outputs of one operator, and the argmax of the scores is the
# label's opposite wherever z is not 0. A converter that hands the scores on as they are (skl2onnx's SVC of two
# classes does) gives whoever takes the argmax a classifier that errs on everything it should get right.
#
# Seen, z = 2 and -3:
#   labels [0, 1]  scores [[-2.0, 2.0], [3.0, -3.0]]
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

node = helper.make_node("SVMClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
                        classlabels_ints=[0, 1], coefficients=[0.5, -0.5], support_vectors=[1.0, -1.0],
                        vectors_per_class=[1, 1], rho=[0.0], kernel_type="LINEAR",
                        kernel_params=[0.0, 0.0, 0.0], post_transform="NONE")
graph = helper.make_graph(
    [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
    [helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
     helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])])
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
onnx.checker.check_model(made, full_check=True)
session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
label, scores = session.run(None, {"x": np.array([[2.0], [-3.0]], np.float32)})
print(f"labels {label.tolist()}  scores {scores.tolist()}")
if label.tolist() != [0, 1]:
    raise SystemExit("changed: the labels are not as stated above")
if not np.array_equal(scores, [[-2.0, 2.0], [3.0, -3.0]]):
    raise SystemExit("changed: the scores are not as stated above")
EOF
