#!/usr/bin/env bash
# onnxruntime's Resize ignores the crop of an axis whose length stays the same.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU provider.
#
# Behaviour: with coordinate_transformation_mode=tf_crop_and_resize the input roi says which part of
# each axis is to be resized. Where the output's axis is as long as the input's, onnxruntime returns
# that axis as it is: it neither crops nor stretches, and extrapolation_value is not used outside. This
# holds for the modes nearest, linear and cubic, with antialias 0 and 1, when every axis keeps its
# length and when other axes change theirs. One sample more and the crop is obeyed.
#
# Why it surprises: the specification's formula for this mode,
#   x_original = start * (L - 1) + x_resized * (end - start) * (L - 1) / (length_resized - 1),
# has no exception for length_resized = L; onnx.reference follows it. A common use of the mode is just
# this: crop an image and bring it back to its own size.
#
# Seen, on the axis 0, 1, ..., 7 (all rows alike); the crop [0, 0.5] should give x_resized / 2:
#   linear, 8 columns, crop [0, 0.5]    onnxruntime 0 1 2 3 4 5 6 7  reference 0 .5 1 1.5 2 2.5 3 3.5
#   linear, 9 columns, crop [0, 0.5]    onnxruntime 0 .44 .88 ... 3.5             reference the same
#   linear, 8 columns, crop [0, 2]      onnxruntime 0 1 2 3 4 5 6 7  reference 0 2 4 6 -1 -1 -1 -1
#   the same with 4 rows made 2, and in the modes nearest and cubic and with antialias=1
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
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

np.set_printoptions(precision=2, suppress=True, linewidth=120)
x = np.tile(np.arange(8, dtype=np.float32), (4, 1))[None, None]


def resize(mode, rows, columns, end, antialias):
    node = helper.make_node(
        "Resize", ["x", "roi", "", "sizes"], ["y"], mode=mode, antialias=antialias,
        coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=-1.0)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, rows, columns])],
        [numpy_helper.from_array(np.array([0, 0, 0, 0, 1, 1, 1, end], np.float32), "roi"),
         numpy_helper.from_array(np.array([1, 1, rows, columns]), "sizes")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return (session.run(None, {"x": x})[0][0, 0, 0],
            ReferenceEvaluator(made).run(None, {"x": x})[0][0, 0, 0])


right = True
for mode, antialias in (("nearest", 0), ("linear", 0), ("cubic", 0), ("linear", 1), ("cubic", 1)):
    for rows, columns, end in ((4, 8, 0.5), (2, 8, 0.5), (4, 9, 0.5), (4, 8, 2)):
        got, asked = resize(mode, rows, columns, end, antialias)
        print(f"{mode}, antialias {antialias}, rows {rows}, columns {columns}, crop [0, {end}]")
        print("   onnxruntime   ", got)
        print("   onnx.reference", asked)
        right &= np.allclose(got, x[0, 0, 0] if columns == 8 else asked, atol=1e-4)
        right &= columns == 9 or not np.allclose(got, asked, atol=1e-1)
if not right:
    raise SystemExit("changed: the cropped axis is not as stated above")
EOF
