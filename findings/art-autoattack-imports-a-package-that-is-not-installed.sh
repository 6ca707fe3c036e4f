#!/usr/bin/env bash
# AutoAttack of the Adversarial Robustness Toolbox fails on every input after a plain installation.
#
# Versions: adversarial-robustness-toolbox 1.20.1, numpy 1.26.4, scipy 1.15.3, scikit-learn 1.6.1.
#
# Behaviour: AutoAttack.generate imports the package multiprocess in its first line, whatever its option
# parallel says (False unless given). The package is no dependency of adversarial-robustness-toolbox: its
# metadata name it for the extra "non-framework" alone. So generate raises ModuleNotFoundError in an
# environment with everything that the package asks for, while the attacks that it would run work.
#
# Why it surprises: the documentation of AutoAttack names no package to be installed, parallel is
# documented as optional, and other attacks of the same module run. The package multiprocessing of the
# standard library, which the code was written with before, is always there.
#
# Seen, a logistic regression on 20 samples of two inputs:
#   projected gradient descent alone        20 points of shape (2,)
#   AutoAttack of that attack               ModuleNotFoundError: No module named 'multiprocess'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check adversarial-robustness-toolbox==1.20.1 numpy==1.26.4 \
    scipy==1.15.3 scikit-learn==1.6.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python - <<'EOF'
import numpy as np
from art.attacks.evasion import AutoAttack, ProjectedGradientDescent
from art.estimators.classification import SklearnClassifier
from sklearn.linear_model import LogisticRegression

inputs = np.random.default_rng(0).random((20, 2)).astype(np.float32)
labels = (inputs[:, 0] > inputs[:, 1]).astype(int)
classifier = SklearnClassifier(LogisticRegression().fit(inputs, labels), clip_values=(0.0, 1.0))
attack = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.05, max_iter=5, verbose=False)
points = attack.generate(inputs, np.eye(2)[labels])
print(f"projected gradient descent alone        {len(points)} points of shape {points.shape[1:]}")
try:
    AutoAttack(classifier, eps=0.1, eps_step=0.05, attacks=[attack]).generate(inputs, np.eye(2)[labels])
    told = "no error"
except ModuleNotFoundError as error:
    told = f"{type(error).__name__}: {error}"
print(f"AutoAttack of that attack               {told}")
if told != "ModuleNotFoundError: No module named 'multiprocess'":
    raise SystemExit("changed: the results are not as stated above")
EOF
