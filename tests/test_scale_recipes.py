"""The recipes of docs/scale.md for schedulers, each line run as the scheduler would, a shell in its place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idl_audit.report.reading import read_report

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
LINES = [
    re.sub(r"^\s*- (run: )?", "", line) for line in TEXT.splitlines() if "idl-audit certify" in line and "$" in line
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "sample_models/digits_mlp.onnx", tmp_path / "model.onnx")
    shutil.copy(ROOT / "sample_models/digits_mlp.onnx.data", tmp_path)
    with np.load(ROOT / "sample_models/digits_mlp.npz") as file:
        np.savez(tmp_path / "data.npz", inputs=file["inputs"][:7], labels=file["labels"][:7])
    return tmp_path


def run(line: str, folder: Path, **variables: str) -> None:
    line = re.sub(r"^idl-audit", f"{sys.executable} -m idl_audit", line)
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    subprocess.run(["bash", "-c", line], cwd=folder, env={**os.environ, "PYTHONPATH": path, **variables}, check=True)


def test_there_is_a_line_for_each_scheduler() -> None:
    assert len(LINES) == 3
    known = r"\$\{\{ matrix\.part \}\}|\$SLURM_ARRAY_TASK_(ID|COUNT)|\$\(\(JOB_COMPLETION_INDEX \+ 1\)\)"
    assert all("$" not in re.sub(known, "", line) for line in LINES)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=["slurm", "github", "kubernetes"])
def test_a_scheduler_s_parts_make_the_whole(line: str, folder: Path) -> None:
    for part in ("2", "3", "1"):
        task = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "3", "JOB_COMPLETION_INDEX": str(int(part) - 1)}
        run(line.replace("${{ matrix.part }}", part), folder, **task)
    run("idl-audit merge part-*.json -o report.json -f json", folder)
    report = read_report(folder / "report.json")
    assert report.data is not None
    assert (report.status, report.data.n, report.data.shard) == ("complete", 7, None)
    assert [sample.index for sample in report.samples] == list(range(7))
    run("idl-audit gate report.json --require 'certified_accuracy@0.02 >= 0.5' -q", folder)
