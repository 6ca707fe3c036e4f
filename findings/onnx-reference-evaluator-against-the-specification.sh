#!/usr/bin/env bash
# The ONNX reference evaluator departs from the text of several operators.
#
# Versions: onnx 1.23.2, numpy 2.4.6, and onnxruntime 1.31.1 as a second opinion.
#
# Behaviour: each case is a valid one-node model. The value that the specification's formula asks for is
# written out below; onnxruntime agrees with it every time, onnx.reference does not.
#
# Why it surprises: the evaluator is the package's own yardstick for what a model means. Some of its
# answers are wrong without any sign: BatchNormalization with one output (test mode) mixes in the
# statistics of the batch; LRN normalises only as many channels as the
# batch has rows;
# LpNormalization with p=1 sums values and not absolute values; Resize with align_corners and a
# fractional scale uses a length that is no whole number; MaxPool with SAME_LOWER rounds the length down
# and so contradicts ONNX's own shape inference too; GlobalMaxPool of a sequence (one spatial axis) takes
# one maximum over all channels. Others fail on valid input.
#
# Seen:
#   BatchNormalization, opset 9     should be 1, 3           reference 0.8, 2.8
#   BatchNormalization, opset 7     should be 1, 3           reference TypeError
#   LRN, 1 row, 3 channels          should be 1/3, 1/4, 1/3  reference 1/3, 1, 1
#   LpNormalization p=1             should be .25, -.75      reference -.5, 1.5
#   MaxPool SAME_LOWER, stride 2    should be 0, 2, 4        reference shape (1, 1, 2)
#   Resize linear align_corners     should be 0, 5           reference 0, 2.941
#   Resize nearest align_corners    should be 0, 5           reference 0, 3
#   OneHot with depth of shape (1)  should be 0, 1, 0        reference TypeError
#   Pad by (-1, 2)                  should be 1, 2, 0, 0     reference ValueError
#   GlobalMaxPool of a sequence     should be 5, 7           reference shape (1, 1)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import logging

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

logging.disable()
ort.set_default_logger_severity(4)


def check(name, opset, node, x, tensors, truth):
    x, truth = np.asarray(x), np.asarray(truth, np.float32)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, truth.shape)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in tensors.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    second = session.run(None, {"x": x})[0]
    agrees = second.shape == truth.shape and np.allclose(second, truth, atol=1e-4)
    try:
        got = ReferenceEvaluator(made).run(None, {"x": x})[0]
        differs = got.shape != truth.shape or not np.allclose(got, truth, atol=1e-2)
        shown = got.ravel() if got.shape == truth.shape else f"shape {got.shape}"
    except Exception as error:
        differs, shown = True, type(error).__name__
    print(f"{name:31} should be {truth.ravel()}  onnxruntime {second.ravel()}  reference {shown}")
    return differs and agrees


def f32(*values):
    return np.array(values, np.float32)


np.set_printoptions(precision=3, suppress=True)
node = helper.make_node
right = []
batch = dict(s=f32(1), b=f32(0), m=f32(0), v=f32(1))
for opset in (9, 7):
    right.append(check(f"BatchNormalization, opset {opset}", opset,
                       node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"]),
                       f32([1], [3]), batch, f32([1], [3])))
ones = np.ones((1, 3, 1, 1), np.float32)
right.append(check("LRN, 1 row, 3 channels", 13,
                   node("LRN", ["x"], ["y"], size=3, alpha=3.0, beta=1.0, bias=1.0), ones, {},
                   f32(1 / 3, 1 / 4, 1 / 3).reshape(1, 3, 1, 1)))
right.append(check("LpNormalization p=1", 17, node("LpNormalization", ["x"], ["y"], p=1),
                   f32([1, -3]), {}, f32([.25, -.75])))
right.append(check("MaxPool SAME_LOWER, stride 2", 12,
                   node("MaxPool", ["x"], ["y"], kernel_shape=[2], strides=[2],
                        auto_pad="SAME_LOWER"),
                   f32([[0, 1, 2, 3, 4]]), {}, f32([[0, 2, 4]])))
for mode in ("linear", "nearest"):
    right.append(check(f"Resize {mode} align_corners", 13,
                       node("Resize", ["x", "", "s"], ["y"], mode=mode,
                            coordinate_transformation_mode="align_corners"),
                       f32([[0, 1, 2, 3, 4, 5]]), dict(s=f32(1, 1, .45)),
                       f32([[0, 5]])))
right.append(check("OneHot with depth of shape (1)", 11, node("OneHot", ["x", "d", "v"], ["y"]),
                   np.array([1]), dict(d=np.array([3]), v=f32(0, 1)), f32([0, 1, 0])))
right.append(check("Pad by (-1, 2)", 13, node("Pad", ["x", "p"], ["y"]), f32(0, 1, 2),
                   dict(p=np.array([-1, 2])), f32(1, 2, 0, 0)))
right.append(check("GlobalMaxPool of a sequence", 22, node("GlobalMaxPool", ["x"], ["y"]),
                   f32([[1, 5, 2], [7, 3, 4]]), {}, f32([[5], [7]])))
if not all(right):
    raise SystemExit("changed: not every case is as stated above")
EOF
