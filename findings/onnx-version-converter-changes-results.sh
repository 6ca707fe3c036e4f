#!/usr/bin/env bash
# ONNX's version converter silently changes what a model computes.
#
# Versions: onnx 1.23.2, numpy 2.4.6, onnxruntime 1.31.1 to run both models.
#
# Behaviour: a one-node model is converted to another opset, without an error, and then gives other
# results:
#   - Hardmax, opset 11 to 13: only the number changes. Before 13 all axes from `axis` on are taken
#     together; from 13 on, one axis alone. One winner becomes many.
#   - Softmax and LogSoftmax with axis=1 on 4 axes, opset 13 to 12: the same change the other way round,
#     uncorrected. (From 11 to 13 the converter does insert what is needed for Softmax.)
#   - Upsample 9 and Resize 10 in the mode linear, to opset 13: the new attribute
#     coordinate_transformation_mode is left at its default, half_pixel, whereas onnxruntime computes
#     the old operators as asymmetric.
#
# Why it surprises: convert_version is documented to raise RuntimeError when some necessary conversion
# is not supported. The texts of Hardmax and Softmax state the change of meaning at opset 13 clearly.
# (For Upsample and Resize the old text leaves the coordinates open; the results differ all the same.)
#
# Seen (largest difference between the results of the two models):
#   Hardmax {'axis': 1}, 11 -> 13: 1.0 (sum of the output: 2.0 -> 32.0)
#   Softmax {'axis': 1}, 13 -> 12: 0.8 (sum of the output: 32.0 -> 2.0)
#   LogSoftmax {'axis': 1}, 13 -> 12: 3.9 (sum of the output: -137.4 -> -412.8)
#   Upsample {'mode': 'linear'}, 9 -> 13: 1.2 (sum of the output: 54.6 -> 45.1)
#   Resize {'mode': 'linear'}, 10 -> 13: 1.2 (sum of the output: 54.6 -> 45.1)
#   Softmax {'axis': 1}, 11 -> 13: 0.0 (sum of the output: 2.0 -> 2.0)
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
from onnx import TensorProto, helper, numpy_helper, version_converter

ort.set_default_logger_severity(4)
x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)


def run(made):
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


gaps = []
for name, attributes, old, new in (
        ("Hardmax", {"axis": 1}, 11, 13), ("Softmax", {"axis": 1}, 13, 12),
        ("LogSoftmax", {"axis": 1}, 13, 12), ("Upsample", {"mode": "linear"}, 9, 13),
        ("Resize", {"mode": "linear"}, 10, 13), ("Softmax", {"axis": 1}, 11, 13)):
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")
    grows = "mode" in attributes
    graph = helper.make_graph(
        [helper.make_node(name, ["x", "s"] if grows else ["x"], ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 8, 8] if grows else x.shape)],
        [scales] * grows)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", old)], ir_version=7)
    onnx.checker.check_model(made, full_check=True)
    converted = version_converter.convert_version(made, new)
    onnx.checker.check_model(converted, full_check=True)
    before, after = run(made), run(converted)
    gaps.append(np.abs(before - after).max())
    print(f"{name} {attributes}, {old} -> {new}: {gaps[-1]:.1f} "
          f"(sum of the output: {before.sum():.1f} -> {after.sum():.1f})")
if not (min(gaps[:-1]) > 0.1 and gaps[-1] < 1e-5):
    raise SystemExit("changed: the converted models are not as stated above")
EOF
