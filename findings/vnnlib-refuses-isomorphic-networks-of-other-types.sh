#!/usr/bin/env bash
# The vnnlib package refuses isomorphic networks of other element types and keeps quotation marks in names.
#
# Versions: vnnlib 1.0.2 (VNN-LIB 2.0).
#
# Behaviour: a network that is declared isomorphic-to another one must have its element types, or
# parse_query_string raises VNNLibException (TypeMismatch). The ONNX name of a hidden variable, a string in
# the query, is handed on with its quotation marks: "a/b" has five characters.
#
# Why it surprises: the standard (document 2.1, April 2026) asks the same shapes of isomorphic networks and
# says that element types may differ - a float16 copy beside its float32 original is the usual case. And a
# tensor of a model is found by its name alone: with the marks no tensor has it.
#
# Seen:
#   isomorphic, float32 and float32   read
#   isomorphic, float32 and float16   TypeMismatch
#   onnx_name of the hidden variable  '"a/b"'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check vnnlib==1.0.2 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import vnnlib


def query(kind):
    return ("(vnnlib-version <2.0>) "
            '(declare-network f (declare-input X float32 [2]) (declare-hidden H float32 [2] "a/b") '
            "(declare-output Y float32 [1])) "
            f'(declare-network g (isomorphic-to f) (declare-input Z {kind} [2]) (declare-hidden K {kind} [2] "a/b") '
            f"(declare-output W {kind} [1])) (assert (<= X[0] 1.0))")


def answer(kind):
    try:
        vnnlib.parse_query_string(query(kind))
    except vnnlib.VNNLibException as error:
        return "TypeMismatch" if "TypeMismatch" in str(error) else "another error"
    return "read"


answers = {kind: answer(kind) for kind in ("float32", "float16")}
name = vnnlib.parse_query_string(query("float32")).networks[0].hidden[0].onnx_name
for kind, found in answers.items():
    print(f"isomorphic, float32 and {kind}:", found)
print("onnx_name:", repr(name))
if answers != {"float32": "read", "float16": "TypeMismatch"} or name != '"a/b"':
    raise SystemExit("changed: isomorphic networks or names are read otherwise than stated above")
EOF
