#!/usr/bin/env bash
# vnnlib.compat turns usual VNN-LIB properties into other properties.
#
# Versions: vnnlib 1.0.2 (VNN-LIB 2.0).
#
# Behaviour: vnnlib.compat.transform returns a list of cases, each a box of inputs and a list of
# polytopes of outputs. With a box in one assertion and one comparison of outputs in another, it joins
# the two into one case. These go wrong:
#   - with the box in one assertion and a conjunction or disjunction over the outputs in another, they
#     are not joined: there are two cases, one with an unbounded box and the outputs' condition, the
#     other with the box and no condition on the outputs at all;
#   - == is read as <= : half of the equality is lost, for inputs as for outputs.
# Both happen without an error. Written as one assertion, (and box condition), the first is right.
#
# Why it surprises: the assertions of a query hold together. A box first and a disjunction of
# counterexamples after it is the usual form of a property, but the cases then admit inputs and outputs
# that the query excludes: the second case alone says that any output at all is a counterexample. The
# function is documented to raise VNNLibException if a query cannot be converted, and does so for !=.
#
# Seen, with X[0] in [0, 1] in an assertion of its own unless said; cases as box: polytopes
#   Y[0] >= 1                    [0, 1]: -Y0 <= -1
#   Y[0] >= 1 or Y[1] >= 1       [-inf, inf]: -Y0 <= -1 or -Y1 <= -1    and    [0, 1]: no condition
#   Y[0] >= 1 and Y[0] <= 2      [-inf, inf]: -Y0 <= -1, Y0 <= 2        and    [0, 1]: no condition
#   Y[0] == 1                    [0, 1]: Y0 <= 1
#   X[0] == 0.5 and Y[0] >= 1    [-inf, 0.5]: -Y0 <= -1
#   the second, as one assertion [0, 1]: -Y0 <= -1 or -Y1 <= -1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check vnnlib==1.0.2 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import math

import vnnlib
import vnnlib.compat

HEAD = ("(vnnlib-version <2.0>) (declare-network f "
        "(declare-input X float32 [1]) (declare-output Y float32 [2])) ")
BOX = "(>= X[0] 0.0) (<= X[0] 1.0)"
EITHER = "(or (>= Y[0] 1.0) (>= Y[1] 1.0))"
ANY = (-math.inf, math.inf)
FIRST, SECOND, NOTHING = ([[-1, 0]], [-1]), ([[0, -1]], [-1]), ([], [])
EXPECTED = {
    f"(assert (and {BOX})) (assert (>= Y[0] 1.0))": [((0, 1), [FIRST])],
    f"(assert (and {BOX})) (assert {EITHER})": [(ANY, [FIRST, SECOND]), ((0, 1), [NOTHING])],
    f"(assert (and {BOX})) (assert (and (>= Y[0] 1.0) (<= Y[0] 2.0)))":
        [(ANY, [([[-1, 0], [1, 0]], [-1, 2])]), ((0, 1), [NOTHING])],
    f"(assert (and {BOX})) (assert (== Y[0] 1.0))": [((0, 1), [([[1, 0]], [1])])],
    "(assert (== X[0] 0.5)) (assert (>= Y[0] 1.0))": [((-math.inf, 0.5), [FIRST])],
    f"(assert (and {BOX} {EITHER}))": [((0, 1), [FIRST, SECOND])],
}
right = True
for text, cases in EXPECTED.items():
    query = vnnlib.parse_query_string(HEAD + text)
    got = [(tuple(case.input_box[0]),
            [(p.coeff_matrix, p.rhs) for p in case.output_constraints])
           for case in vnnlib.compat.transform(query)]
    print(text)
    for box, polytopes in got:
        print("    box", box, "polytopes", polytopes)
    right &= sorted(got) == sorted(cases)
if not right:
    raise SystemExit("changed: the cases are not as stated above")
EOF
