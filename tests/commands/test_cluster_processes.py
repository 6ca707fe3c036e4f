"""--scheduler with a real scheduler and workers, each a process of its own: nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet import SECONDS, fleet, kill, until
from idl_audit.commands.shared.journal import journal_beside
from idl_audit.report.json_text import from_json
from idl_audit.report.schema import Report
from tests.shared.command_line import DATA, MODEL, ROOT

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "idl_audit")
SOME = ("-d", DATA, "--bounds", "0,1", "--limit", "60", "--max-nodes", "60", "--time-limit", "600", "-f", "json")
QUESTION = ("certify", MODEL, "-e", "0.02,0.06", *SOME)


def done(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS, cwd=ROOT)


def started(*arguments: object) -> Any:
    return subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True, cwd=ROOT)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def told(report: Report) -> tuple[Any, ...]:
    samples = [sample.model_dump(mode="json") for sample in report.samples]
    for result in (result for sample in samples for result in sample["results"]):
        del result["seconds"]
    return samples, report.summary


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Report:
    """The report of one process."""
    out = tmp_path_factory.mktemp("alone") / "r.json"
    assert done(*QUESTION, "-o", out).returncode == 0
    return from_json(out.read_text())


def test_a_worker_that_is_killed_in_the_middle_costs_nothing(tmp_path, alone):
    lost = []
    for turn in range(5):  # it may have just ended its last task
        out = tmp_path / f"{turn}.json"
        with (
            fleet(tmp_path / f"fleet{turn}", workers=2) as there,
            started(*QUESTION, "-o", out, "--scheduler", there.address) as process,
        ):
            until(lambda out=out, process=process: process.poll() is not None or lines(journal_beside(out)) > 1)
            kill(there.workers[0])
            _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        assert f"workers of the Dask scheduler {there.address} decide" in err
        report = from_json(out.read_text())
        assert told(report) == told(alone)
        assert report.status == "complete"
        assert not journal_beside(out).exists()
        lost = [one for one in report.diagnostics if one.code == "IDL223"]
        if lost:
            break
    (one,) = lost
    assert "1 worker ended while at work" in one.message


def test_a_scheduler_that_is_lost_leaves_a_journal_that_goes_on_elsewhere(tmp_path, alone):
    out = tmp_path / "r.json"
    with (
        fleet(tmp_path / "fleet", workers=1) as there,
        started(*QUESTION, "-o", out, "--scheduler", there.address) as process,
    ):
        until(lambda: process.poll() is not None or lines(journal_beside(out)) > 10)
        assert process.poll() is None
        kill(there.scheduler)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert err.count("error: ") == 1
    assert f"the scheduler {there.address} was lost in the middle of the work" in err
    assert "--resume goes on from here" in err
    assert "Traceback" not in err
    report = from_json(out.read_text())
    assert (report.status, report.why_incomplete) == ("incomplete", "interrupted")
    assert len(report.samples) == lines(journal_beside(out)) - 1 >= 10
    assert done(*QUESTION, "-o", out, "--resume").returncode == 0
    assert told(from_json(out.read_text())) == told(alone)


def test_workers_that_are_all_gone_are_waited_for(tmp_path, alone):
    out = tmp_path / "r.json"
    with (
        fleet(tmp_path / "fleet", workers=1) as there,
        started(*QUESTION, "-o", out, "--scheduler", there.address, "--progress", "plain") as process,
    ):
        until(lambda: process.poll() is not None or lines(journal_beside(out)) > 5)
        kill(there.workers[0])
        said = []
        for line in process.stderr:
            said.append(line)
            if "are gone" in line:
                there.add_worker()
        process.wait(timeout=SECONDS)
    assert process.returncode == 0, said
    assert sum("all workers of the Dask scheduler" in line for line in said) == 1
    assert told(from_json(out.read_text())) == told(alone)


def test_workers_that_stay_away_leave_a_journal(tmp_path, alone):
    out = tmp_path / "r.json"
    with (
        fleet(tmp_path / "fleet", workers=1) as there,
        started(*QUESTION, "-o", out, "--scheduler", there.address, "--worker-timeout", "3") as process,
    ):
        until(lambda: process.poll() is not None or lines(journal_beside(out)) > 5)
        kill(there.workers[0])
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "were gone for 3 seconds (--worker-timeout)" in err
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert len(from_json(out.read_text()).samples) == lines(journal_beside(out)) - 1
    assert done(*QUESTION, "-o", out, "--resume").returncode == 0
    assert told(from_json(out.read_text())) == told(alone)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Two authorities, each with a certificate for this machine: the settings of Dask that name them."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    found = {}
    for who in ("ours", "theirs"):
        folder = tmp_path_factory.mktemp(who)
        name = (f"/CN={who}", "-days", "2", "-newkey", "rsa:2048", "-nodes", "-keyout")
        calls = (
            ("req", "-x509", "-subj", *name, "ca.key", "-out", "ca.pem"),
            ("req", "-subj", "/CN=127.0.0.1", *name[3:], "own.key", "-out", "own.csr"),
            ("x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-out", "own.pem"),
        )
        for call in calls:
            subprocess.run([openssl, *call], cwd=folder, check=True, capture_output=True)
        files = {"CA_FILE": "ca.pem"}
        files |= {f"{part}__CERT": "own.pem" for part in ("CLIENT", "SCHEDULER", "WORKER")}
        files |= {f"{part}__KEY": "own.key" for part in ("CLIENT", "SCHEDULER", "WORKER")}
        found[who] = {f"DASK_DISTRIBUTED__COMM__TLS__{key}": str(folder / file) for key, file in files.items()}
    return found


def test_a_scheduler_behind_tls_decides_the_same(tmp_path, alone, certificates, monkeypatch):
    out = tmp_path / "r.json"
    with fleet(tmp_path / "fleet", workers=2, protocol="tls", **certificates["ours"]) as there:
        question = (*QUESTION, "-o", out, "--scheduler", there.address)
        without = done(*question)
        for name, value in certificates["theirs"].items():
            monkeypatch.setenv(name, value)
        strange = done(*question)
        for name, value in certificates["ours"].items():
            monkeypatch.setenv(name, value)
        plain = done(*QUESTION, "-o", out, "--scheduler", there.address.replace("tls", "tcp"))
        assert not out.exists()
        found = done(*question)
    for refused, sentence in ((without, "needs certificates"), (strange, "cannot be"), (plain, "cannot be reached")):
        assert refused.returncode == 2
        assert sentence in refused.stderr
        assert refused.stderr.count("error: ") == 1
        assert "Traceback" not in refused.stderr
    assert found.returncode == 0, found.stderr
    assert told(from_json(out.read_text())) == told(alone)


def test_ctrl_c_leaves_a_journal_and_nothing_on_the_workers(tmp_path, alone):
    out = tmp_path / "r.json"
    with fleet(tmp_path / "fleet", workers=1) as there:
        with started(*QUESTION, "-o", out, "--scheduler", there.address) as process:
            until(lambda: process.poll() is not None or lines(journal_beside(out)) > 10)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "--resume goes on from here" in err
        again = done(*QUESTION, "-o", out, "--resume", "--scheduler", there.address)
        assert again.returncode == 0, again.stderr
        until(lambda: not list(there.folder.rglob("idl-audit-*")))  # the folders of both runs
    assert told(from_json(out.read_text())) == told(alone)


def test_a_whole_list_of_properties_goes_to_the_workers(tmp_path):
    folder = tmp_path / "list"
    (folder / "nets").mkdir(parents=True)
    for file in (MODEL, MODEL.with_name(f"{MODEL.name}.data")):
        (folder / "nets" / file.name).write_bytes(file.read_bytes())
    names = [f"X_{i}" for i in range(64)], [f"Y_{j}" for j in range(10)]
    head = "".join(f"(declare-const {name} Real)" for part in names for name in part)
    head += "".join(f"(assert (>= {name} 0)) (assert (<= {name} 1))" for name in names[0])
    for number, condition in enumerate(("(>= Y_0 1000000)", "(>= Y_0 -1000000)", "(<= Y_1 -1000000)")):
        (folder / f"p{number}.vnnlib").write_text(f"{head}(assert {condition})")
    rows = [f"nets/digits_mlp.onnx,p{number}.vnnlib,60" for number in range(3)]
    (folder / "instances.csv").write_text("\n".join([*rows, "nets/none.onnx,p0.vnnlib,60", ""]))
    with fleet(tmp_path / "fleet", workers=2) as there:
        here = done("bench", folder / "instances.csv", "-o", tmp_path / "here.json")
        away = done("bench", folder / "instances.csv", "-o", tmp_path / "away.json", "--scheduler", there.address)
    assert (here.returncode, away.returncode) == (3, 3), away.stderr  # one network is missing
    reports = [from_json((tmp_path / name).read_text()) for name in ("here.json", "away.json")]
    found = [[(row.onnx, row.vnnlib, row.result, row.sha256) for row in one.properties] for one in reports]
    assert found[0] == found[1]
    assert [row[2] for row in found[1]] == ["unsat", "sat", "unsat", "unknown"]
    assert "there is no such file" in reports[1].properties[3].problem


def test_a_worker_with_another_version_is_refused_by_name(tmp_path):
    other = tmp_path / "other" / "idl_audit"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text('__version__ = "0.0.9"\n')
    out = tmp_path / "r.json"
    with fleet(tmp_path / "fleet", workers=0) as there:
        there.add_worker(PYTHONPATH=str(tmp_path / "other"))
        found = done(*QUESTION, "-o", out, "--scheduler", there.address)
    assert found.returncode == 2
    assert "has version 0.0.9 of idl-audit, and this is" in found.stderr
    assert found.stderr.count("error: ") == 1
    assert not out.exists()
    assert not journal_beside(out).exists()
    assert json.dumps(found.stderr).count("Traceback") == 0
