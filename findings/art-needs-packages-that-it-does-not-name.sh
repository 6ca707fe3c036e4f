#!/usr/bin/env bash
# The Adversarial Robustness Toolbox cannot be imported after a plain installation, and its AutoAttack not be run.
#
# Versions: adversarial-robustness-toolbox 1.20.1, numpy 1.26.4, scipy 1.15.3, scikit-learn 1.6.1,
# packaging 25.0.
#
# Behaviour: `import art` imports the package packaging, whatever is used of it; AutoAttack.generate imports
# the package multiprocess in its first line, whatever its option parallel says (False unless given).
# Neither is a dependency: the metadata name numpy, scipy, scikit-learn, six, setuptools and tqdm, and
# multiprocess for the extra "non-framework" alone. So both raise ModuleNotFoundError in an environment
# with everything that the package asks for.
#
# Why it surprises: the documentation's way to install it is pip install adversarial-robustness-toolbox,
# and that of AutoAttack names no package. Where a framework is installed as well, packaging comes with
# that, so that the first fault shows in environments without one (scikit-learn's models, black boxes).
#
# Seen, a logistic regression on 20 samples of two inputs:
#   import art                              ModuleNotFoundError: No module named 'packaging'
#   with packaging: gradient descent alone  20 points of shape (2,)
#   with packaging: AutoAttack of that      ModuleNotFoundError: No module named 'multiprocess'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check adversarial-robustness-toolbox==1.20.1 numpy==1.26.4 \
    scipy==1.15.3 scikit-learn==1.6.1 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
told=$(venv/bin/python -c "import art" 2>&1 | tail -n 1 || true)
echo "import art                              $told"
venv/bin/pip install --quiet --disable-pip-version-check packaging==25.0 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
[ "$told" = "ModuleNotFoundError: No module named 'packaging'" ] ||
    { echo "changed: the results are not as stated above" >&2; exit 1; }
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
print(f"with packaging: gradient descent alone  {len(points)} points of shape {points.shape[1:]}")
try:
    AutoAttack(classifier, eps=0.1, eps_step=0.05, attacks=[attack]).generate(inputs, np.eye(2)[labels])
    told = "no error"
except ModuleNotFoundError as error:
    told = f"{type(error).__name__}: {error}"
print(f"with packaging: AutoAttack of that      {told}")
if told != "ModuleNotFoundError: No module named 'multiprocess'":
    raise SystemExit("changed: the results are not as stated above")
EOF
