"""What a run says of itself for machines: metrics in a file, lines of JSON, plain lines."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from pathlib import Path

import pytest

from idl_audit.cli import console, watching
from idl_audit.cli.watching import metrics, telling, watched
from idl_audit.commands.options.common import Watching
from idl_audit.commands.shared.progress import Progress
from idl_audit.report.schema import Diagnostic
from idl_audit.values.errors import OptionError
from tests.shared.command_line import run

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
SOME = Progress(10, 40, Counter({"certified": 9, "clean_wrong": 1}))
VALUE = re.compile(r'(idl_audit_[a-z_]+)\{command="certify"(?:,verdict="([a-z_]+)")?\} ([0-9.e+-]+)')


def parsed(text: str) -> dict[tuple[str, str], float]:
    """Read OpenMetrics text strictly: families one after the other, each with its type, unit and help, then the end."""
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""]
    values: dict[tuple[str, str], float] = {}
    family, kind = "", ""
    for line in lines[:-2]:
        words = line.split(" ", 3)
        if words[0] == "#":
            if words[1] == "TYPE":
                family, kind = words[2], words[3]
                assert kind in ("gauge", "counter")
            assert words[1] in ("TYPE", "UNIT", "HELP")
            assert words[2] == family
            if words[1] == "UNIT":
                assert family.endswith(f"_{words[3]}")
            continue
        found = VALUE.fullmatch(line)
        assert found is not None, line
        assert found[1] == family + ("_total" if kind == "counter" else "")
        values[found[1], found[2] or ""] = float(found[3])
    return values


def test_metrics_are_open_metrics_of_what_is_known() -> None:
    found = parsed(metrics("certify", SOME, 60.0))
    assert found["idl_audit_verdicts_total", "certified"] == 9
    assert found["idl_audit_verdicts_total", "clean_wrong"] == 1
    assert (found["idl_audit_work", ""], found["idl_audit_work_done", ""]) == (40, 10)
    assert found["idl_audit_left_seconds", ""] == 180
    assert found["idl_audit_running", ""] == 1
    assert found["idl_audit_peak_memory_bytes", ""] > 10**7
    begun = parsed(metrics("certify", None, 0.0, running=False))
    assert begun["idl_audit_running", ""] == 0
    assert ("idl_audit_work", "") not in begun


def test_the_file_of_metrics_is_there_from_the_beginning_and_whole_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    with watched("certify", quiet=True, asked=Watching(metrics=path)) as watch:
        assert parsed(path.read_text())["idl_audit_running", ""] == 1
        watch(SOME)
    assert parsed(path.read_text())["idl_audit_running", ""] == 0
    assert parsed(path.read_text())["idl_audit_work_done", ""] == 10
    assert [one.name for one in tmp_path.iterdir()] == ["m.prom"]


def test_metrics_that_cannot_be_written_are_refused_first_and_told_once_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(OptionError, match="does not exist"),
        watched("x", quiet=True, asked=Watching(metrics=tmp_path / "a/b")),
    ):
        pytest.fail("the work began")
    real, calls = watching.write_whole, []

    def once(path: Path, write: object) -> None:
        calls.append(path)
        if len(calls) > 1:
            raise OptionError(f"{path} cannot be written (No space left on device); choose another place")
        real(path, write)  # type: ignore[arg-type]

    monkeypatch.setattr(watching, "write_whole", once)
    monkeypatch.setattr(watching, "METRICS_EVERY", 0.001)
    with watched("certify", quiet=True, asked=Watching(metrics=tmp_path / "m")) as watch:
        watch(SOME)
        event = threading.Event()
        while len(calls) < 4:
            event.wait(0.001)
    assert capsys.readouterr().err.count("warning: ") == 1


def test_progress_as_json_has_a_line_for_each_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "FIRST_LINE", 0.001)
    said, real, event = [], watching.say, threading.Event()

    def say(message: str) -> None:
        said.append(json.loads(message))
        real(message)
        if said[-1].get("done"):
            event.set()

    monkeypatch.setattr(watching, "say", say)
    monkeypatch.setattr(console, "LINES_EVERY", 0.001)
    with watched("certify", quiet=False, asked=Watching(log_json=True)) as watch:
        watch(SOME)
        assert event.wait(30)
    telling(quiet=False, asked=Watching(log_json=True))(Diagnostic(code="IDL101", level="warning", message="a\nb"))
    last = said[-1]
    assert (last["event"], last["code"], "\n" in last["message"]) == ("diagnostic", "IDL101", False)
    one = next(entry for entry in said if entry.get("done"))
    assert (one["event"], one["command"], one["done"], one["total"]) == ("progress", "certify", 10, 40)
    assert one["verdicts"] == {"certified": 9, "clean_wrong": 1}
    assert len(capsys.readouterr().err.splitlines()) == len(said)


def test_a_run_keeps_its_metrics_up_to_date(tmp_path: Path) -> None:
    model, data, path = SAMPLES / "digits_mlp.onnx", SAMPLES / "digits_mlp.npz", tmp_path / "m.prom"
    words = f"certify {model} -d {data} -e 0.02 --bounds 0,1 --limit 3 --method interval --metrics {path}".split()
    assert run(*words).code == 0
    found = parsed(path.read_text())
    assert found["idl_audit_work_done", ""] == found["idl_audit_work", ""] == 3
    assert found["idl_audit_running", ""] == 0
    mine = tmp_path / "mine.txt"
    mine.write_text("my notes")
    refused = run(*words[:-1], mine)
    assert (refused.code, mine.read_text()) == (2, "my notes")
    assert "exists and holds no metrics" in refused.err
    assert run(*words).code == 0
