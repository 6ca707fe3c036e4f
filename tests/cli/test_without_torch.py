"""What works where torch is not installed, and what is said of the rest: no command loads it before it needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.shared.command_line import ROOT

MODEL, DATA = ROOT / "sample_models/digits_mlp.onnx", ROOT / "sample_models/digits_mlp.npz"
ASKED = f"{MODEL} -d {DATA} -e 0.001 --limit 3"
WITHOUT = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Nowhere())
from idl_audit.__main__ import main
main()
"""


def run(folder, line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *line.split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_proofs_by_lines_are_made_and_checked_without_torch(tmp_path):
    asked = f"certify {ASKED} --method interval,linear --certificates proofs -o r.json"
    made = run(tmp_path, asked)
    assert made.returncode == 0, made.stderr
    checked = run(tmp_path, f"verify proofs {MODEL}")
    assert checked.returncode == 0, checked.stderr
    assert len(list((tmp_path / "proofs").iterdir())) == 3
    gated = run(tmp_path, "gate r.json --require certified_accuracy@0.001>=0.9")
    assert gated.returncode == 0, gated.stderr


@pytest.mark.parametrize("line", [f"attack {ASKED} --method pgd", f"certify {ASKED} --method branch"])
def test_what_needs_torch_says_so(tmp_path, line):
    found = run(tmp_path, line)
    assert found.returncode == 2
    assert "this needs torch, which is not installed here: pip install torch" in found.stderr
    assert "please report" not in found.stderr
