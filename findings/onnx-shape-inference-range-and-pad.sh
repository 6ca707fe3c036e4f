#!/usr/bin/env bash
# ONNX shape inference gives wrong numbers for Range and Pad where it should refuse or say nothing.
#
# Versions: onnx 1.23.2, numpy 2.4.6; x86-64.
#
# Behaviour: a Range with more elements than a 64-bit integer can count, or with an infinite limit, a
# NaN limit or a step of 0, is inferred to have no elements. A Pad that removes more than an axis holds
# is inferred to have an axis of negative length. infer_shapes raises nothing, not even with
# strict_mode, data_prop and check_type, and the checker with full_check accepts the model.
#
# Why it surprises: the specification says that Range has max(ceil((limit - start) / delta), 0)
# elements, which is far from 0 here (or no number at all), and strict_mode is documented to throw
# errors if there are any. A reader who trusts the inferred shape takes the rest of the graph for empty.
# Nothing is run here; only shapes are inferred.
#
# Seen (the same with and without strict_mode, data_prop and check_type):
#   Range(0, 1e+20, 0.001) float64: inferred (0,)
#   Range(0, inf, 1) float64: inferred (0,)
#   Range(0, nan, 1) float64: inferred (0,)
#   Range(-4611686018427387904, 4611686018427387904, 1) int64: inferred (0,)
#   Range(0, 5, 0) int64: inferred (0,)
#   Pad of 4 elements by (-9, 2): inferred (-3,)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def inferred(node, tensors, inputs, kind):
    graph = helper.make_graph(
        [node, helper.make_node("Identity", ["y"], ["z"])], "g", inputs,
        [helper.make_tensor_value_info("z", kind, ["n"])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    shapes = set()
    for strict in (False, True):
        got = onnx.shape_inference.infer_shapes(
            made, check_type=strict, strict_mode=strict, data_prop=strict)
        shape = got.graph.value_info[0].type.tensor_type.shape
        shapes.add(tuple(d.dim_value if d.HasField("dim_value") else None for d in shape.dim))
    return shapes


right = True
cases = [(0, 1e20, 1e-3, np.float64), (0, np.inf, 1, np.float64), (0, np.nan, 1, np.float64),
         (-2**62, 2**62, 1, np.int64), (0, 5, 0, np.int64)]
for *values, kind in cases:
    node = helper.make_node("Range", ["start", "limit", "delta"], ["y"])
    tensors = {name: np.asarray(value, kind)
               for name, value in zip(("start", "limit", "delta"), values)}
    shapes = inferred(node, tensors, [], helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    print(f"Range{tuple(values)} {kind.__name__}: inferred", *shapes)
    right &= shapes == {(0,)}
node = helper.make_node("Pad", ["x", "pads"], ["y"])
four = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
shapes = inferred(node, {"pads": np.array([-9, 2])}, four, TensorProto.FLOAT)
print("Pad of 4 elements by (-9, 2): inferred", *shapes)
if not (right and shapes == {(-3,)}):
    raise SystemExit("changed: the inferred shapes are not as stated above")
EOF
