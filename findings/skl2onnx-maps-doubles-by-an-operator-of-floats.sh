#!/usr/bin/env bash
# skl2onnx puts a ZipMap, an operator of floats alone, behind the probabilities of a classifier of doubles.
#
# Versions: skl2onnx 1.20.0, scikit-learn 1.9.1, onnx 1.23.2, onnxruntime 1.31.1, numpy 2.4.6; CPU, Linux, x86-64.
#
# Behaviour: to_onnx(classifier, rows) takes the type of its inputs from the rows. With rows of float64, which
# scikit-learn computes in, LogisticRegression becomes a model whose probabilities are doubles, and the default
# options put ZipMap behind them, which takes tensor(float) by its definition. onnx's checker refuses the model, and
# onnxruntime makes no session of it. With options={"zipmap": False}, or with rows of float32, the model is valid and
# has scikit-learn's probabilities.
#
# Why it surprises: to_onnx returns without a warning, and all defaults were taken.
#
# Seen:
#   float32, defaults: valid, runs
#   float64, defaults: refused by the checker, no session
#   float64, zipmap False: valid, runs
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
from sklearn.linear_model import LogisticRegression

ort.set_default_logger_severity(4)
rows = np.array([[1, 2], [3, 4], [0, 1], [2, 0], [0, 0], [5, 1]], np.float64)
fitted = LogisticRegression().fit(rows, [0, 1, 0, 1, 0, 1])


def outcome(kind, options):
    made = to_onnx(fitted, rows[:1].astype(kind), options=options)
    try:
        onnx.checker.check_model(made, full_check=True)
        checked = "valid"
    except Exception as error:
        checked = "refused by the checker" if "ZipMap" in str(error) else "refused otherwise"
    try:
        session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        return f"{checked}, {'no session' if 'ZipMap' in str(error) else 'fails otherwise'}"
    found = session.run(None, {"X": rows.astype(kind)})[1]
    shares = np.array([[row[0], row[1]] for row in found])
    return f"{checked}, {'runs' if np.allclose(shares, fitted.predict_proba(rows), atol=1e-5) else 'runs otherwise'}"


cases = {
    "float32, defaults": (np.float32, None, "valid, runs"),
    "float64, defaults": (np.float64, None, "refused by the checker, no session"),
    "float64, zipmap False": (np.float64, {"zipmap": False}, "valid, runs"),
}
same = True
for told, (kind, options, stated) in cases.items():
    found = outcome(kind, options)
    print(f"{told}: {found}")
    same = same and found == stated
if not same:
    raise SystemExit("changed: skl2onnx maps probabilities of doubles otherwise than stated above")
PY
