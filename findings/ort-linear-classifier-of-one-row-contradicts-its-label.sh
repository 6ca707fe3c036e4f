#!/usr/bin/env bash
# onnxruntime's LinearClassifier with one row of coefficients for two classes returns scores whose largest
# is not the class that it returns beside them, and gives SOFTMAX back as it gives NONE.
#
# Versions: onnx 1.23.2, numpy 2.4.6, onnxruntime 1.31.1.
#
# Behaviour: with one row, z = w x + b, the label is the second class where z > 0 (and where z = 0), as
# everybody's logistic regression has it. The scores beside it are (1 - z, z), whose larger one is the
# second only where z > 1/2. post_transform SOFTMAX changes nothing of them: they are no probabilities,
# and below 0 where z is above 1. LOGISTIC alone fits its label: (1 - sigmoid(z), sigmoid(z)).
#
# Why it surprises: ONNX calls post_transform "the transform to apply to the scores vector", and label and
# scores are two outputs of one operator. Whoever takes the argmax of the scores has another classifier
# than whoever reads the label, and gets no word of it.
#
# Seen, z = 0.25 and 2:
#   NONE      labels [1, 1]  scores [[0.75, 0.25], [-1.0, 2.0]]
#   SOFTMAX   labels [1, 1]  scores [[0.75, 0.25], [-1.0, 2.0]]
#   LOGISTIC  labels [1, 1]  scores [[0.4378, 0.5622], [0.1192, 0.8808]]
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

found = {}
for how in ("NONE", "SOFTMAX", "LOGISTIC"):
    node = helper.make_node("LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
                            classlabels_ints=[0, 1], coefficients=[1.0], intercepts=[0.0],
                            post_transform=how)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
         helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    label, scores = session.run(None, {"x": np.array([[0.25], [2.0]], np.float32)})
    found[how] = scores
    print(f"{how:9} labels {label.tolist()}  scores {scores.round(4).tolist()}")
    if label.tolist() != [1, 1]:
        raise SystemExit("changed: the labels are not as stated above")
plain = np.array([[0.75, 0.25], [-1.0, 2.0]])
if not (np.allclose(found["NONE"], plain) and np.allclose(found["SOFTMAX"], plain)):
    raise SystemExit("changed: the scores are not as stated above")
if not (found["LOGISTIC"].argmax(axis=1) == 1).all():
    raise SystemExit("changed: the sigmoids do not fit the label")
EOF
