#!/usr/bin/env bash
# A TorchScript module that first ran with gradients goes on making them under torch.no_grad.
#
# Versions: torch 2.13.0; CPU, Linux, x86-64.
#
# Behaviour: a traced module is saved and loaded. Run under torch.no_grad from the beginning, its outputs need no
# gradient. Run three times with gradients first, as an exporter or a check of shapes does, every later output
# under torch.no_grad needs one and holds a graph: its `requires_grad` is True, `numpy()` raises. Other batch
# sizes make no difference. Under torch.inference_mode it then does not run at all: "Inference tensors cannot be
# saved for backward", and the message advises no_grad.
#
# Why it surprises: no_grad is documented as the context in which results need no gradient whatever their inputs
# do. The plan that the executor optimised under the first mode is taken for the second.
#
# Seen:
#   no_grad from the beginning: False False False
#   no_grad after three runs with gradients: True True True
#   inference_mode from the beginning: False False False
#   inference_mode after three runs with gradients: raises raises raises
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
venv/bin/python -W ignore - <<'PY'
import torch
from torch import nn

torch.manual_seed(0)
module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
torch.jit.save(torch.jit.trace(module, torch.zeros(1, 4)), "module.pt")


def wanted(context, before):
    loaded = torch.jit.load("module.pt").eval()
    for _ in range(before):
        loaded(torch.zeros(1, 4))
    found = []
    for rows in (1, 3, 1):
        try:
            with context():
                found.append(str(loaded(torch.zeros(rows, 4)).requires_grad))
        except RuntimeError:
            found.append("raises")
    return found


cases = {
    "no_grad from the beginning": (torch.no_grad, 0, "False"),
    "no_grad after three runs with gradients": (torch.no_grad, 3, "True"),
    "inference_mode from the beginning": (torch.inference_mode, 0, "False"),
    "inference_mode after three runs with gradients": (torch.inference_mode, 3, "raises"),
}
same = True
for told, (context, before, stated) in cases.items():
    found = wanted(context, before)
    print(f"{told}: {' '.join(found)}")
    same = same and found == [stated] * 3
if not same:
    raise SystemExit("changed: TorchScript keeps to no_grad otherwise than stated above")
PY
