#!/usr/bin/env bash
# onnxruntime's Resize makes an axis one longer than its own shape inference says, so that no Gemm fits behind it.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU provider.
#
# Behaviour: with the input scales, the length of an axis is floor(length * scale). Where the exact product of the
# length with the float32 number is just below a whole number, as 5 * float32(1.4) = 6.99999988, shape inference
# says 6, and the kernel, which rounds the product to float32, makes 7 elements. Behind a Flatten, a Gemm with
# weights for 7 is refused when the model is loaded, and one with weights for 6 fails when it is run. This holds for
# the modes nearest, linear and cubic, and for the operator sets 13, 18 and 19.
#
# Why it surprises: the same library says both, and no Gemm fits behind its own kernel. The specification's
# formula, output_dimension = floor(input_dimension * scale), gives 6 for these numbers; onnx.shape_inference
# and onnx.reference have 6, too.
#
# Seen (the same for nearest, linear and cubic and for each operator set):
#   Resize of 5 columns by 1.4 alone: 7 columns; onnx infers 6, onnx.reference makes 6
#   with a Gemm for 7: Node () Op (Gemm) [ShapeInferenceError] Dimension mismatch in unification between 7 and 6
#   with a Gemm for 6: loads, and fails when it is run
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

ort.set_default_logger_severity(4)
x = np.arange(5, dtype=np.float32)[None, None, None]


def model(mode, opset, gemm):
    """A Resize of (1, 1, 1, 5) by 1.4, alone or before a Flatten and a Gemm that reads so many numbers."""
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["r"], mode=mode)]
    constants = {"scales": np.float32([1, 1, 1, 1.4])}
    if gemm:
        nodes += [helper.make_node("Flatten", ["r"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
        constants["w"] = np.ones((gemm, 2), np.float32)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y" if gemm else "r", TensorProto.FLOAT, "ab" if gemm else "abcd")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def outcome(made):
    """What becomes of a model: "loading" or "running" and a message, or the shape of what it gives."""
    try:
        session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        return "loading", str(error)
    try:
        return "gives", session.run(None, {"x": x})[0].shape
    except Exception as error:
        return "running", str(error)


right = True
for mode in ("nearest", "linear", "cubic"):
    for opset in (13, 18, 19):
        alone, seven, six = (outcome(model(mode, opset, gemm)) for gemm in (0, 7, 6))
        inferred = onnx.shape_inference.infer_shapes(model(mode, opset, 0)).graph.output[0]
        columns = inferred.type.tensor_type.shape.dim[3].dim_value
        reference = ReferenceEvaluator(model(mode, opset, 0)).run(None, {"x": x})[0].shape[-1]
        print(f"{mode}, operator set {opset}: alone {alone[1]}; onnx infers {columns}, onnx.reference makes {reference}")
        print(f"   with a Gemm for 7: {seven[0]}: {seven[1]}"[:150])
        print(f"   with a Gemm for 6: {six[0]}: {six[1]}"[:150])
        right &= alone == ("gives", (1, 1, 1, 7)) and seven[0] == "loading" and six[0] == "running"
        right &= columns == reference == 6 and "Dimension mismatch" in seven[1]
if not right:
    raise SystemExit("changed: the lengths are not as stated above")
EOF
