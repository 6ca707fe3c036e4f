#!/usr/bin/env bash
# onnxruntime rounds float activations when only the weights are quantised.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU provider, Linux, x86-64 with AVX-512.
#
# Behaviour: where int8 weights go through DequantizeLinear into MatMul (or Gemm with transB=0), the
# session, made with its default options, replaces the pair by com.microsoft.MatMulNBits with
# accuracy_level=4. That kernel rounds the float activations to 8 bits, each block of 32 with one
# scale. With session.disable_quant_qdq = "1", with session.qdq_matmulnbits_accuracy_level = "1", with
# ORT_ENABLE_BASIC or lower, or with Gemm's transB=1, the result is that of the graph.
#
# Why it surprises: the graph quantises weights only: its MatMul takes a float32 input and a float32
# matrix, and nothing in it rounds the input. The accuracy level and its default, 4, are named in a
# comment of the C header with the session options; no message tells of the change. The error is no
# rounding noise: next to one large entry, small entries of the same block are dropped altogether, so
# a network can change its answer.
#
# Seen:
#   normal inputs, largest error as a part of the largest output (numpy in float64 is the truth):
#     MatMul          default 4.4e-03  accuracy level 1 1.7e-07  no fusion 1.7e-07
#     Gemm transB=0   default 4.8e-03  accuracy level 1 2.3e-07  no fusion 2.3e-07
#     Gemm transB=1   default 2.3e-07  accuracy level 1 2.3e-07  no fusion 2.3e-07
#   x = (1000, 1, ..., 1), weights (0, 1, ..., 1), so x.w = 31: default 0.0, no fusion 31.0
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


def model(weights, scale, bias=None, trans_b=0):
    width = weights.shape[0]
    tensors = [numpy_helper.from_array(weights.T.copy() if trans_b else weights, "w"),
               numpy_helper.from_array(np.float32(scale), "s"),
               numpy_helper.from_array(np.int8(0), "z")]
    nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"])]
    if bias is None:
        nodes.append(helper.make_node("MatMul", ["x", "d"], ["y"]))
    else:
        tensors.append(numpy_helper.from_array(bias, "b"))
        nodes.append(helper.make_node("Gemm", ["x", "d", "b"], ["y"], transB=trans_b))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weights.shape[1]])],
        tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def run(data, x, **entries):
    options = ort.SessionOptions()
    for key, value in entries.items():
        options.add_session_config_entry("session." + key, value)
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


rng = np.random.default_rng(0)
weights = rng.integers(-127, 128, (64, 32)).astype(np.int8)
bias = rng.normal(size=32).astype(np.float32)
x = rng.normal(size=(16, 64)).astype(np.float32)
scale = np.float32(0.01)
product = x.astype(np.float64) @ (weights.astype(np.float64) * float(scale))
settings = {"default": {}, "accuracy level 1": {"qdq_matmulnbits_accuracy_level": "1"},
            "no fusion": {"disable_quant_qdq": "1"}}
errors = {}
for name, arguments in {"MatMul": {}, "Gemm transB=0": {"bias": bias},
                        "Gemm transB=1": {"bias": bias, "trans_b": 1}}.items():
    truth = product + arguments.get("bias", 0.0)
    data = model(weights, scale, **arguments)
    for setting, entries in settings.items():
        gap = np.abs(run(data, x, **entries) - truth).max() / np.abs(truth).max()
        errors[name, setting] = gap
    print(f"{name:15}", *(f"{key} {errors[name, key]:.1e} " for key in settings))

ones = np.full((32, 32), 64, np.int8)
ones[0] = 0
data = model(ones, 1 / 64)
spiked = np.ones((1, 32), np.float32)
spiked[0, 0] = 1000
fused, plain = run(data, spiked)[0, 0], run(data, spiked, disable_quant_qdq="1")[0, 0]
print("x.w = 31: default", fused, "no fusion", plain)

rounded = all(errors[name, "default"] > 1e-3 for name in ("MatMul", "Gemm transB=0"))
exact = all(gap < 1e-5 for key, gap in errors.items()
            if key[1] != "default" or key[0] == "Gemm transB=1")
if not (rounded and exact and abs(fused - 31) > 1 and plain == 31):
    raise SystemExit("changed: the rounding of activations is not as stated above")
EOF
