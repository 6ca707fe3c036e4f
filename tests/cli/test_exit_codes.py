"""Every exit code of every command, one case each; and that nobody who stops reading changes one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer

from idl_audit import __version__
from idl_audit.cli.app import COMMANDS, app
from idl_audit.cli.exits import MEANINGS, PARTICULAR, Exit, codes_of
from idl_audit.commands.shared import decider
from idl_audit.report.json_text import from_json
from idl_audit.report.schema import Report, ShardInfo, Tool
from tests.shared.blobs import blobs, distracted
from tests.shared.command_line import MODEL, Run, gemm, network, run
from tests.shared.gate_reports import audited, written
from tests.shared.lonely_samples import one_by_one

HARDEN = "harden bent.onnx -d bent.npz -o out/x.onnx --minutes 0.001 --holdout 20% --force"
DONE: Mapping[str, str] = {
    "certify": "certify small.onnx -d small.npz -e 0.02 --method interval",
    "attack": "attack small.onnx -d small.npz -e 0.02 --method sign",
    "sensitivity": "sensitivity small.onnx",
    "bounds": "bounds small.onnx -d small.npz -e 0.02 --method interval",
    "compare": "compare small.onnx small.onnx -d small.npz -e 0.02",
    "bench": "bench rules.csv",
    "convert": "convert small.onnx -o out/x.npz",
    "convert-property": "convert-property rule.vnnlib",
    "predict": "predict small.onnx -d small.npz",
    "reduce": "reduce small.onnx -o out/x.npz",
    "compress": "compress small.onnx --prune 0.01 -o out/x.npz",
    "compose": "compose sum small.onnx small.onnx -o out/x.npz",
    "train": "train bent.npz -o out/x.npz --states 3 --minutes 0.001 --holdout 20% --force",
    "harden": f"{HARDEN} -e 0.1 --keep-clean 99%",
    "inspect": "inspect small.onnx",
    "verify": "verify witness.npz MODEL",
    "demo": "demo out/demo",
    "init": "init small.onnx small.npz -o out/x.toml",
    "run": "run -c run.toml",
    "gate": "gate good.json --require RULE",
    "diff": "diff good.json good.json --exit-code",
    "merge": "merge part.json",
    "report": "report good.json",
    "history": "history add good.json --commit abc --database out/h.sqlite --force",
    "explain": "explain",
    "schema": "schema",
}
REFUSED: Mapping[str, str] = {
    "compress": "compress edge.onnx --quantize 16 -d edge.npz -e 0.299999 --keep-certified 1 -o out/x.npz",
    "harden": f"{HARDEN} -e 9",
    "run": "run -c fails.toml",
    "gate": "gate bad.json --require RULE",
    "diff": "diff good.json bad.json --exit-code",
    "verify": "verify witness.npz wider.onnx",
    "inspect": "inspect unknown_operator.onnx --check",
}
USAGE: Mapping[str, str] = {
    "certify": "certify missing.onnx -d small.npz -e 0.02",
    "attack": "attack small.onnx -d missing.npz -e 0.02",
    "sensitivity": "sensitivity unknown_operator.onnx",
    "bounds": "bounds small.onnx -d small.npz -e -1",
    "compare": "compare small.onnx wider.onnx -d small.npz -e 0.02",
    "bench": "bench missing.csv",
    "convert": "convert truncated.onnx -o out/x.npz",
    "convert-property": "convert-property missing.vnnlib",
    "predict": "predict small.onnx -d wrong_shape.npz",
    "reduce": "reduce text.onnx -o out/x.npz",
    "compress": "compress small.onnx -o out/x.npz",
    "compose": "compose product small.onnx small.onnx -o out/x.npz",
    "train": "train missing.npz -o out/x.npz --states 3",
    "harden": "harden small.onnx -d missing.npz -e 0.1 -o out/x.onnx",
    "inspect": "inspect empty.onnx",
    "verify": "verify good.npz MODEL",
    "demo": "demo small.onnx",
    "init": "init missing.onnx",
    "run": "run -c missing.toml",
    "gate": "gate good.json --require 'zebra >= 1'",
    "diff": "diff good.json other.json --exit-code",
    "merge": "merge good.json",
    "report": "report missing.json",
    "history": "history show --database missing.sqlite",
    "explain": "explain IDL999",
    "schema": "schema nonsense",
}

BREAKS: Mapping[str, str] = {
    "certify": "audit_robustness",
    "attack": "audit_robustness",
    "sensitivity": "audit_sensitivity",
    "bounds": "audit_bounds",
    "compare": "audit_comparison",
    "bench": "audit_bench",
    "convert": "run",
    "convert-property": "run",
    "predict": "run",
    "reduce": "run",
    "compress": "run",
    "compose": "run",
    "train": "train_model",
    "harden": "harden_model",
    "inspect": "run",
    "verify": "run",
    "demo": "audit_demo",
    "init": "starter",
    "run": "audit_all",
    "gate": "judge",
    "diff": "compare",
    "merge": "together",
    "report": "read_report",
    "history": "read_report",
    "explain": "CODES",
    "schema": "json",
}
"""Command -> a name in its module that does the work."""


class Breaking:
    """Stands for anything, and raises whatever is done with it."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *_: object, **__: object) -> object:
        raise self._error

    def __getattr__(self, name: str) -> object:
        raise self._error


def shard(report: Report) -> Report:
    """Return a report as that of the only shard of an audit, by this version."""
    assert report.data is not None
    one = ShardInfo(number=1, of=1, n=report.data.n, numbers_sha256=report.data.numbers_sha256 or "0" * 64)
    data = report.data.model_copy(update={"shard": one})
    return report.model_copy(update={"data": data, "tool": Tool(version=__version__)})


@pytest.fixture
def folder(files: Path) -> Path:
    """What the lines name."""
    written(files / "good.json", audited("c" * 9 + "u"))
    written(files / "part.json", shard(audited("c" * 9 + "u")))
    written(files / "bad.json", audited("c" * 8 + "uu"))
    written(files / "other.json", audited("c" * 9 + "u", data=None))
    constants = {"w": np.full((64, 10), 50.0), "b": np.zeros(10)}
    network(files / "wider.onnx", [gemm()], constants, inputs=(("x", (1, 64)),), outputs=(("y", (1, 10)),))
    defaults = '[defaults]\nmodel = "small.onnx"\ndata = "small.npz"\neps = 0.02\n[run]\nsteps = "certify"\n'
    defaults += '[certify]\nmethod = "interval"\n'
    (files / "run.toml").write_text(defaults)
    distracted(files / "bent.onnx")
    points, labels = blobs(60)
    np.savez(files / "bent.npz", inputs=points, labels=labels)
    # y0 - y1 = x0 + x1 / 3, and 1 / 3 is a little less in 16 bits: at eps .299999 the margin is 1e-6, then -5e-6
    edge = {"w": np.array([[1.0, 0.0], [1 / 3, 0.0]]), "b": np.zeros(2)}
    network(files / "edge.onnx", [gemm()], edge, inputs=(("x", (1, 2)),), outputs=(("y", (1, 2)),))
    np.savez(files / "edge.npz", inputs=np.array([[0.1, 0.9]], np.float32), labels=np.array([0]))
    (files / "fails.toml").write_text(f'{defaults}[gate]\nrequire = "certified_accuracy@0.02 > 100 %"\n')
    return files


def type_in(line: str) -> Run:
    names = {"MODEL": str(MODEL), "RULE": "certified_accuracy@2/255 >= 0.90"}
    return run(*(names.get(word, word) for word in shlex.split(line)))


def broken(command: str, error: BaseException) -> Callable[[Path, pytest.MonkeyPatch], Run]:
    def case(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
        module = import_module(f"idl_audit.cli.{COMMANDS[command]}")
        monkeypatch.setattr(module, BREAKS[command], Breaking(error))
        return type_in(DONE[command])

    return case


def typed(line: str) -> Callable[[Path, pytest.MonkeyPatch], Run]:
    return lambda folder, monkeypatch: type_in(line)


def a_sample_is_lost(line: str) -> Callable[[Path, pytest.MonkeyPatch], Run]:
    def case(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
        one_by_one(monkeypatch)
        monkeypatch.setattr(decider, "decide_sample", Breaking(ZeroDivisionError("one over nothing")))
        found = type_in(f"{line} -f json")
        assert found.report.why_incomplete == "not_judged"
        return found

    return case


def a_row_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (folder / "missing.csv").write_text("onnx,vnnlib,timeout\nmissing.onnx,rule.vnnlib,20\n")
    return type_in("bench missing.csv")


CASES: Mapping[tuple[str, Exit], Callable[[Path, pytest.MonkeyPatch], Run]] = {
    **{(name, Exit.DONE): typed(line) for name, line in DONE.items()},
    **{(name, Exit.REFUSED): typed(line) for name, line in REFUSED.items()},
    **{(name, Exit.USAGE): typed(line) for name, line in USAGE.items()},
    **{(name, Exit.INCOMPLETE): broken(name, MemoryError()) for name in DONE},
    **{(name, Exit.INTERRUPTED): broken(name, KeyboardInterrupt()) for name in DONE},
    **{(name, Exit.INCOMPLETE): a_sample_is_lost(DONE[name]) for name in ("certify", "attack", "run")},
    ("bench", Exit.INCOMPLETE): a_row_is_missing,
}


def test_every_code_of_every_command_has_its_case() -> None:
    commands = typer.main.get_command(app).commands
    assert set(CASES) == {(name, code) for name in commands for code in codes_of(name)}
    assert set(PARTICULAR) <= set(commands)
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize(("command", "code"), [pytest.param(*case, id=f"{case[0]}-{case[1]:d}") for case in CASES])
def test_a_command_ends_with_the_code_that_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: Exit
) -> None:
    found = CASES[command, code](folder, monkeypatch)
    assert found.code == code, found.err
    assert bool(found.err) or code in (Exit.DONE, Exit.REFUSED)
    if code is Exit.USAGE:
        assert found.err.count("\n") == 1


@pytest.mark.parametrize("command", [*COMMANDS])
def test_the_help_of_a_command_lists_its_codes(command: str) -> None:
    text = " ".join(run(command, "--help", COLUMNS="160").out.split())
    listed = text[text.index("Exit codes:") :]
    for code, meaning in codes_of(command).items():
        assert f"{code:d} {meaning}" in listed
    assert (" 1 " in listed) == (Exit.REFUSED in codes_of(command))


def test_the_help_of_all_lists_what_codes_mean() -> None:
    text = " ".join(run("--help", COLUMNS="160").out.split())
    for code, meaning in MEANINGS.items():
        assert f"{code:d} {meaning}" in text


# --- nobody reads stderr ----------------------------------------------------------------------------------------------

UNREAD = {
    "gate missing.json --require RULE": Exit.USAGE,
    "gate --no-such-option": Exit.USAGE,
    "gate bad.json --require RULE": Exit.REFUSED,
    "run -c fails.toml": Exit.REFUSED,
    "bench gone.csv": Exit.INCOMPLETE,
    "certify small.onnx -d small.npz -e 0.02 --method interval -o out/r.json": Exit.DONE,
}


def unread() -> list[object]:
    """Return the lines; those that load networks take their time."""
    return [pytest.param(line, marks=[] if line.startswith("gate") else [pytest.mark.slow]) for line in UNREAD]


@pytest.mark.parametrize("line", unread())
def test_a_reader_of_errors_that_went_away_does_not_change_the_code(folder: Path, line: str) -> None:
    """As in `idl-audit gate report.json 2>&1 | head -1` with pipefail."""
    (folder / "gone.csv").write_text("onnx,vnnlib,timeout\ngone.onnx,rule.vnnlib,20\n")
    words = [word.replace("RULE", "certified_accuracy@2/255 >= 0.90") for word in shlex.split(line)]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "idl_audit", *words]
        found = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=writing, timeout=120, check=False)
    finally:
        os.close(writing)
    assert found.returncode == UNREAD[line]
    if UNREAD[line] is Exit.DONE:
        assert from_json((folder / "out/r.json").read_text()).status == "complete"
