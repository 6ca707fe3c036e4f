"""Numerical libraries use one thread unless somebody asks for more, and together no more than there are cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idl_audit.values import threads

SAMPLES = Path(__file__).parents[2] / "sample_models"
CORES = os.cpu_count() or 1


def _used(tmp_path: Path, *options: str, environment: dict[str, str] | None = None) -> int:
    """Return the threads that a report of the command line names."""
    own = {name: value for name, value in os.environ.items() if name not in threads.VARIABLES} | (environment or {})
    report = tmp_path / "report.json"
    model = str(SAMPLES / "digits_mlp.onnx")
    command = [sys.executable, "-m", "idl_audit", "bounds", model, "-d", str(SAMPLES / "digits_mlp.npz"), "-e", "0.01"]
    command += ["--limit", "1", "-q", "-o", str(report), *options]
    subprocess.run(command, check=True, env=own, capture_output=True)
    return int(json.loads(report.read_text())["environment"]["threads"])


def test_the_command_line_uses_one_thread(tmp_path: Path) -> None:
    assert _used(tmp_path) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "environment"), [(("--threads", "2"), {}), ((), dict.fromkeys(threads.VARIABLES, "2"))]
)
def test_more_threads_are_used_where_they_are_asked_for(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert _used(tmp_path, *options, environment=environment) == 2


def test_processes_side_by_side_share_the_cores() -> None:
    before = dict(os.environ)
    with threads.shared_by(2):
        assert threads.most(100 * CORES) == max(1, CORES // 2)
        with threads.shared_by(1000):
            assert threads.most(100 * CORES) == max(1, CORES // 2)  # the share of whoever started this process
    assert threads.most(7) == 7
    assert dict(os.environ) == before


def test_what_is_asked_for_is_what_is_used() -> None:
    before = threads.in_use()
    variables = {name: os.environ.get(name) for name in threads.VARIABLES}
    try:
        assert threads.use(None) == before
        assert threads.use(1) == 1
        assert threads.in_use() == 1
    finally:
        threads.use(before)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
