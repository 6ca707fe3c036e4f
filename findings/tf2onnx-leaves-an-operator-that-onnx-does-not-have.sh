#!/usr/bin/env bash
# tf2onnx returns a model with an operator Erfc, which ONNX does not have, for TensorFlow's and Keras's gelu.
#
# Versions: tf2onnx 1.17.0, tensorflow-cpu 2.21.0, keras 3.15.1, onnx 1.23.2, onnxruntime 1.31.1, numpy 2.4.6,
# protobuf 7.36.2; CPU, Linux, x86-64.
#
# Behaviour: tf.nn.gelu and a Keras layer with activation="gelu" are Erfc (1 - erf) in TensorFlow's graph. tf2onnx
# has a conversion of Erf and none of Erfc. tf2onnx.convert.from_function does not raise: it writes two lines to its
# log ("Tensorflow op [Erfc: Erfc] is not supported") and returns a model in whose standard domain there is a node
# Erfc. onnx's checker refuses it ("No Op registered for Erfc"), and so does onnxruntime. tf.math.erf and gelu by
# tanh (approximate=True) are converted.
#
# Why it surprises: a converter that returns a model is taken to have converted it, and 1 - Erf would have done.
# gelu's exact form is the default in both libraries.
#
# Seen:
#   erf: Erf, valid
#   erfc: Erfc, refused
#   gelu: Erfc, refused
#   gelu by tanh: Tanh, valid
#   Keras layer with gelu: Erfc, refused
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 \
    protobuf==7.36.2 keras==3.15.1 tensorflow-cpu==2.21.0 tf2onnx==1.17.0 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES="" venv/bin/python -W ignore - 2>log <<'PY' || { tail -n 3 log >&2; exit 1; }
import keras
import onnx
import onnxruntime as ort
import tensorflow as tf
import tf2onnx

ort.set_default_logger_severity(4)
inputs = keras.Input((4,))
layer = keras.Model(inputs, keras.layers.Dense(3, activation="gelu")(inputs))
cases = {
    "erf": (tf.math.erf, "Erf, valid"),
    "erfc": (tf.math.erfc, "Erfc, refused"),
    "gelu": (tf.nn.gelu, "Erfc, refused"),
    "gelu by tanh": (lambda x: tf.nn.gelu(x, approximate=True), "Tanh, valid"),
    "Keras layer with gelu": (layer, "Erfc, refused"),
}


def refused(check):
    try:
        check()
    except Exception as error:
        return "No Op registered for Erfc" in str(error)
    return False


same = True
for told, (function, stated) in cases.items():
    traced = tf.function(lambda x, function=function: function(x))
    made, _ = tf2onnx.convert.from_function(traced, [tf.TensorSpec((None, 4), tf.float32, name="x")], opset=17)
    (kind,) = {node.op_type for node in made.graph.node} & {"Erf", "Erfc", "Tanh"}
    by_both = {
        refused(lambda: onnx.checker.check_model(made, full_check=True)),
        refused(lambda: ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])),
    }
    found = f"{kind}, {'refused' if by_both == {True} else 'valid' if by_both == {False} else 'refused by one'}"
    print(f"{told}: {found}")
    same = same and found == stated
if not same:
    raise SystemExit("changed: tf2onnx converts Erfc otherwise than stated above")
PY
