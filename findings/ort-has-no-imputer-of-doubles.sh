#!/usr/bin/env bash
# onnxruntime has no Imputer of doubles: scikit-learn's SimpleImputer, exported in float64, does not run.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, scikit-learn 1.9.1, skl2onnx 1.20.0, numpy 2.4.6; CPU, Linux, x86-64.
#
# Behaviour: ai.onnx.ml's Imputer takes float, double, int64 and int32 by its definition. skl2onnx makes one of doubles
# of a SimpleImputer that is exported with rows of float64, which is what scikit-learn computes in and what pandas
# hands out. The model passes onnx's full checker; making a session raises "Could not find an implementation for
# Imputer(1)". The same imputer exported in float32 runs and is what scikit-learn computes.
#
# Why it surprises: the model is valid, float64 is what scikit-learn's users have, and the message names no type: it
# reads as if there were no Imputer at all.
#
# Seen:
#   float32: valid by the checker, as scikit-learn
#   float64: valid by the checker, no implementation
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 \
    scikit-learn==1.9.1 skl2onnx==1.20.0 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from skl2onnx import to_onnx
from sklearn.impute import SimpleImputer

ort.set_default_logger_severity(4)
rows = np.array([[1, 2], [3, 4], [np.nan, 1], [2, np.nan], [0, 0]], np.float64)
fitted = SimpleImputer().fit(rows)


def outcome(kind):
    made = to_onnx(fitted, rows[:1].astype(kind))
    assert [node.op_type for node in made.graph.node] == ["Imputer"]
    onnx.checker.check_model(made, full_check=True)
    try:
        session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        return "no implementation" if "Could not find an implementation for Imputer" in str(error) else "fails"
    found = session.run(None, {"X": rows.astype(kind)})[0]
    return "as scikit-learn" if np.allclose(found, fitted.transform(rows)) else "otherwise than scikit-learn"


found = {kind.__name__: outcome(kind) for kind in (np.float32, np.float64)}
for name, told in found.items():
    print(f"{name}: valid by the checker, {told}")
if found != {"float32": "as scikit-learn", "float64": "no implementation"}:
    raise SystemExit("changed: onnxruntime runs an Imputer otherwise than stated above")
PY
