"""The first hour: a fresh environment, only the commands of the README and the first tutorial, the sample networks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import first_hour

README = (first_hour.ROOT / "README.md").read_text(encoding="utf-8")
SHORT, LONG = map(first_hour.commands, first_hour.PAGES)


def test_the_tour_goes_from_the_first_look_to_a_gate_and_a_page():
    assert [line.split()[1] for line in SHORT] == ["certify", "verify", "gate", "report"]
    asked = [line.split()[1] for line in LONG]
    assert {"inspect", "convert", "sensitivity", "attack", "certify", "verify"} < set(asked)
    assert [name for name in asked if name in ("init", "run", "gate", "report")] == ["init", "run", "gate", "report"]
    assert [name for line in LONG for _, name in first_hour.written(line)] == [
        *(
            "verdicts.json",
            "proofs",
            "adv.npz",
            "implicit.npz",
            "smaller.npz",
            "idl-audit.toml",
            "report.json",
            "report.html",
        ),
    ]


def test_ci_walks_through_the_tour_in_the_environment_of_the_first_command():
    lines = (first_hour.ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    place = lines.index(".venv/bin/python tests/first_hour.py .venv")
    installs = [number for number, line in enumerate(lines) if "pip install" in line]
    assert installs[0] < place < installs[1]
    assert lines[installs[0]].startswith(f"{first_hour.installation(README)} && ")


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("exit 3", "exit code 3"),
        ("touch idl-audit.toml", "nothing was printed"),
        ("echo written", "idl-audit.toml was not written"),
    ],
)
def test_a_stumble_is_found(tmp_path, script, fault):
    program = tmp_path / "idl-audit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    found = first_hour.walk(tmp_path, tmp_path, ["idl-audit init model.onnx data.npz"])
    assert fault in found[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b'{"status": "incomplete"}'), ("a.npz", b"no"), ("a.html", b"<p>"), ("a.json", b""), ("a.toml", b"")],
)
def test_a_wrong_file_is_found(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert first_hour.fault_of("file", tmp_path / name) is not None
    assert first_hour.fault_of("folder", tmp_path / name) is not None


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("IDL_AUDIT_FIRST_HOUR") == "done", reason="the first hour was walked through before")
def test_a_newcomer_gets_through_the_first_hour(tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("idl_audit", "sample_models"):
        shutil.copytree(first_hour.ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(first_hour.ROOT / name, checkout / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{environment['PATH']}"
    subprocess.run(first_hour.installation(README), shell=True, cwd=checkout, env=environment, check=True)
    assert first_hour.walk(checkout / ".venv" / "bin", checkout, SHORT) == []
    shutil.rmtree(checkout / "proofs")
    (checkout / "verdicts.json").unlink()
    assert first_hour.walk(checkout / ".venv" / "bin", checkout, LONG) == []
