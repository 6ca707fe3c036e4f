#!/usr/bin/env bash
# An open onnxruntime session follows later edits of the model's external data file.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6; CPU provider, Linux.
#
# Behaviour: the weights of a model with external data are mapped from the file and not read into
# memory. If the file is overwritten in place while the session is open, the next run computes with
# the new bytes. This holds for a constant of Add or Mul, with optimisation on or off. It does not hold
# for the weights of MatMul, which are repacked into memory when the session is made: one session can
# so mix old weights with new ones.
#
# Why it surprises: the documentation of the Python class InferenceSession asks nobody to leave the data
# file alone once the session is made, and an open session reads as a loaded model. Two runs of one
# session on one input can differ. A file that is replaced by renaming another over it does no harm.
#
# Seen, each constant first all 1, then the file overwritten with 7, x = the identity matrix:
#   Add     before [2. 1. 1.]  after [8. 7. 7.]  another file renamed over it [2. 1. 1.]
#   Mul     before [1. 0. 0.]  after [7. 0. 0.]  another file renamed over it [1. 0. 0.]
#   MatMul  before [1. 1. 1.]  after [1. 1. 1.]  another file renamed over it [1. 1. 1.]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import os

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIDE = 256
ONES = np.ones((SIDE, SIDE), np.float32)
SEVENS = (7 * ONES).tobytes()


def opened(kind):
    """A session of a model in a fresh file, its data beside it."""
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "c"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIDE, SIDE])],
        [numpy_helper.from_array(ONES, "c")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for name in (kind + ".onnx", kind + ".bin"):
        if os.path.exists(name):
            os.remove(name)
    onnx.save(made, kind + ".onnx", save_as_external_data=True, location=kind + ".bin",
              size_threshold=0)
    return ort.InferenceSession(kind + ".onnx", providers=["CPUExecutionProvider"])


def run(session):
    return session.run(None, {"x": np.eye(SIDE, dtype=np.float32)})[0]


follows = {}
for kind in ("Add", "Mul", "MatMul"):
    session = opened(kind)
    before = run(session)
    with open(kind + ".bin", "r+b") as file:
        file.write(SEVENS)
    after = run(session)
    session = opened(kind)
    with open("other.bin", "wb") as file:
        file.write(SEVENS)
    os.replace("other.bin", kind + ".bin")
    renamed = run(session)
    print(f"{kind:7} before {before[0, :3]}  after {after[0, :3]} ",
          f"another file renamed over it {renamed[0, :3]}")
    follows[kind] = not np.array_equal(before, after), not np.array_equal(before, renamed)
if follows != {"Add": (True, False), "Mul": (True, False), "MatMul": (False, False)}:
    raise SystemExit("changed: which outputs follow the file is not as stated above")
EOF
