#!/usr/bin/env bash
# scipy.optimize.linprog and milp drop coefficients of up to 1e-9 and report success.
#
# Versions: scipy 1.17.1, numpy 2.4.6.
#
# Behaviour: an entry of the constraint matrix of at most 1e-9 in size is taken as 0, whatever the sizes
# of the variables. An infeasible problem is so reported as solved, with success=True, status 0 and no
# warning, and the slack returned belongs to the changed matrix and not to the one that was given.
#
# Why it surprises: scipy's documentation states the constraint A_ub @ x <= b_ub and names no smallest
# coefficient; slack is documented as b_ub - A_ub @ x. The solver inside, HiGHS, does document its
# option small_matrix_value (default 1e-9), but scipy's documentation does not name it. (The method
# addConstr of HiGHS's own Python package, highspy 1.15.1, raises an exception for such a row.) A
# program that trusts the answer "infeasible" or an optimum gets another problem's answer.
#
# Seen, minimise a + b with 1e-10 a + b <= 5, 1e11 <= a <= 1e12, 0 <= b (so 1e-10 a is at least 10):
#   linprog, highs      success True   A @ x - b = 5, reported slack 5
#   linprog, highs-ds   success True   A @ x - b = 5, reported slack 5
#   linprog, highs-ipm  success True   A @ x - b = 5, reported slack 5
#   milp                success True   A @ x - b = 5
#   the same problem with a in units of 1e10: linprog success False, status 2 (infeasible)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import warnings

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

warnings.simplefilter("error")
row, most = np.array([[1e-10, 1.0]]), np.array([5.0])
bounds = [(1e11, 1e12), (0, None)]
right = True
for method in ("highs", "highs-ds", "highs-ipm"):
    got = linprog([1, 1], A_ub=row, b_ub=most, bounds=bounds, method=method)
    over = (row @ got.x - most)[0] if got.success else np.nan
    slack = got.slack[0] if got.success else np.nan
    print(f"linprog, {method:9}  success {got.success}   A @ x - b = {over:g}, "
          f"reported slack {slack:g}")
    right &= got.success and over > 1 and slack > 1
got = milp([1, 1], constraints=LinearConstraint(row, -np.inf, most),
           bounds=Bounds([1e11, 0], [1e12, np.inf]))
over = (row @ got.x - most)[0] if got.success else np.nan
print(f"milp                success {got.success}   A @ x - b = {over:g}")
right &= got.success and over > 1
got = linprog([1e10, 1], A_ub=[[1, 1]], b_ub=most, bounds=[(10, 100), (0, None)])
print("the same problem with a in units of 1e10: linprog success", got.success, "status", got.status)
if not (right and got.status == 2):
    raise SystemExit("changed: the results are not as stated above")
EOF
