#!/usr/bin/env bash
# torch.onnx.export fails after the documented setting torch.backends.fp32_precision = "ieee".
#
# Versions: torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2, numpy 2.4.6; CPU, Linux, x86-64.
#
# Behaviour: torch.backends.fp32_precision = "ieee" (or torch.backends.cudnn.fp32_precision, or that of
# cudnn.conv) is the new way to say that float32 means float32. After it, reading torch.backends.cudnn.allow_tf32
# raises RuntimeError: convolutions and recurrent layers "have different TF32 flags", which "indicates that you have
# used a mix of the legacy and new APIs". torch.export reads that flag, so that torch.onnx.export of any module, one
# Linear on the CPU, fails from then on. After the setting for everything, and after setting cudnn.conv and cudnn.rnn
# by name, both read "ieee", and are called different all the same. cuda.matmul.fp32_precision does not matter.
#
# Why it surprises: only the new interface was used, and by the program only; there is no GPU and no recurrent
# layer; and torch's own exporter reads the flag by the legacy one.
#
# Seen:
#   nothing: reads, exports
#   fp32_precision: raises, fails
#   cudnn.fp32_precision: raises, fails
#   cudnn.conv.fp32_precision: raises, fails
#   cuda.matmul.fp32_precision: reads, exports
#   cudnn.conv and cudnn.rnn: raises, fails
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 torch==2.13.0 ||
    { echo "not checked: the pinned packages could not be installed" >&2; exit 2; }
cat > try.py <<'PY'
import sys

import torch

for name in sys.argv[1:]:
    place = torch.backends
    for part in name.split(".")[:-1]:
        place = getattr(place, part)
    place.fp32_precision = "ieee"
try:
    told = f"reads{'' if isinstance(torch.backends.cudnn.allow_tf32, bool) else ' oddly'}"
except RuntimeError as error:
    told = "raises" if "different TF32 flags" in str(error) else "raises otherwise"
try:
    torch.onnx.export(torch.nn.Linear(4, 3).eval(), (torch.zeros(1, 4),), "m.onnx", verbose=False)
    told += ", exports"
except Exception as error:
    while error.__cause__ is not None:
        error = error.__cause__
    told += ", fails" if "different TF32 flags" in str(error) else ", fails otherwise"
print(told)
PY
venv/bin/python -W ignore - <<'PY'
import subprocess
import sys

cases = {
    "nothing": ((), "reads, exports"),
    "fp32_precision": (("fp32_precision",), "raises, fails"),
    "cudnn.fp32_precision": (("cudnn.fp32_precision",), "raises, fails"),
    "cudnn.conv.fp32_precision": (("cudnn.conv.fp32_precision",), "raises, fails"),
    "cuda.matmul.fp32_precision": (("cuda.matmul.fp32_precision",), "reads, exports"),
    "cudnn.conv and cudnn.rnn": (("cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision"), "raises, fails"),
}
same = True
for told, (names, stated) in cases.items():
    line = [sys.executable, "-W", "ignore", "try.py", *names]
    found = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    print(f"{told}: {found}")
    same = same and found == stated
if not same:
    raise SystemExit("changed: a precision of float32 is set and read otherwise than stated above")
PY
