"""Samples decided in batches: reports, journals, processes, certificates and faults are those of single samples."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared import decider, deciding
from idl_audit.commands.shared.sample_tasks import Batch, SampleTask
from idl_audit.commands.shared.workers import work_through
from idl_audit.commands.verify import verify
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import Report, Verdict
from idl_audit.values.errors import OptionError
from tests.shared import decider_workers
from tests.shared.lonely_samples import one_by_one

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL, DATA = SAMPLES / "digits_mlp.onnx", SAMPLES / "digits_mlp.npz"
FIRST = ("interval", "quick", "linear")


def audit(*, count: int = 30, eps: str = "0.02,0.05,0.1", methods: tuple[str, ...] | None = FIRST, **more) -> Report:
    data = DataOptions(DATA, limit=count, preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    recorded = more.get("certificates") is not None
    limits = {"time_limit": math.inf, "max_nodes": 200, **more.pop("verdicts", {})}
    chosen = RobustnessOptions(
        eps=parse_eps(eps), data=data, verdicts=Options(methods=methods, record=recorded, **limits), **more
    )
    return audit_robustness("certify", MODEL, chosen)


def told(report: Report) -> list[dict]:
    """Return all that is said of the samples but what they cost: seconds, and how often the network was asked."""
    samples = [sample.model_dump(mode="json") for sample in report.samples]
    for result in (result for sample in samples for result in sample["results"]):
        del result["seconds"], result["queries"]
    return samples


def rounded(samples: list[dict]) -> list[dict]:
    for result in (result for sample in samples for result in sample["results"]):
        result["lower_bound"] = None if result["lower_bound"] is None else round(result["lower_bound"], 9)
    return samples


@pytest.mark.parametrize("methods", [FIRST, None])
def test_batches_report_what_single_samples_do(methods, monkeypatch):
    together = audit(methods=methods, count=20, eps="0.02,0.05")
    assert {Verdict.CERTIFIED, Verdict.CLEAN_WRONG} <= {r.verdict for s in together.samples for r in s.results}
    one_by_one(monkeypatch)
    alone = audit(methods=methods, count=20, eps="0.02,0.05")
    assert rounded(told(together)) == rounded(told(alone))
    assert together.summary == alone.summary


def test_seconds_are_those_of_each_sample():
    seconds = [result.seconds for sample in audit().samples for result in sample.results]
    assert all(value >= 0 for value in seconds)
    assert 0 < sum(seconds) < 60


@pytest.mark.slow
def test_several_processes_report_the_same_numbers():
    assert told(audit(jobs=2)) == told(audit())


@pytest.mark.parametrize("kept", [1, 7, 29])
def test_a_resumed_run_reports_the_same_numbers(tmp_path, kept):
    path = tmp_path / "j"
    whole = audit(journal=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: 1 + kept]))
    resumed = audit(journal=path, resume=True)
    assert told(resumed) == told(whole)
    assert len(path.read_bytes().splitlines()) == 31


def test_what_is_in_the_journal_is_not_decided_again(tmp_path, monkeypatch):
    path = tmp_path / "j"
    audit(journal=path)
    monkeypatch.setattr(decider, "decide_together", lambda *_, **__: pytest.fail("a batch was decided again"))
    assert len(audit(journal=path, resume=True).samples) == 30


def test_each_certified_sample_has_a_certificate_that_verifies(tmp_path):
    report = audit(count=8, eps="0.02,0.05", certificates=tmp_path / "proofs")
    certified = sum(result.verdict is Verdict.CERTIFIED for sample in report.samples for result in sample.results)
    files = sorted((tmp_path / "proofs").glob("*.npz"))
    assert len(files) == certified > 8
    for file in files[::4]:
        assert verify(file, MODEL, ModelOptions()).verification.accepted


def test_a_fault_in_a_batch_leaves_its_samples_to_themselves(monkeypatch):
    expected = rounded(told(audit()))

    def fail(*_, **__):
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr(decider, "decide_together", fail)
    report = audit()
    assert report.status == "complete"
    assert rounded(told(report)) == expected


def test_an_interruption_of_a_batch_leaves_a_valid_report(monkeypatch):
    real, calls = decider.decide_together, iter(range(100))

    def decide(*arguments, **named):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(deciding, "samples_at_once", lambda *_: 8)
    monkeypatch.setattr(decider, "decide_together", decide)
    report = audit()
    assert (report.status, len(report.samples)) == ("incomplete", 8)
    assert from_json(to_json(report)) == report


def test_samples_without_time_are_unknown_one_by_one():
    report = audit(verdicts={"time_limit": 1e-6}, count=6, eps="0.05")
    assert {result.verdict for sample in report.samples for result in sample.results} <= {
        Verdict.UNKNOWN,
        Verdict.CLEAN_WRONG,
    }


@pytest.mark.slow
def test_a_process_that_dies_on_a_batch_leaves_its_samples_to_others():
    tasks = tuple(SampleTask(i, i, 0, np.zeros(2)) for i in range(3))
    work = work_through(
        [Batch(tasks, tasks[1:])],
        decider_workers.die_on_batches,
        jobs=1,
        allowed=lambda _: 60.0,
        follow=deciding._left_alone,
    )
    done = list(work)
    assert f"signal {signal.SIGKILL:d}" in done[0].answer.why
    assert [one.answer.position for one in done[1:]] == [1, 2]


def test_a_resumed_run_may_have_more_samples_and_decides_those_alone(tmp_path, monkeypatch):
    path = tmp_path / "j"
    first = audit(count=7, journal=path)
    whole = audit(count=12)
    decided = []
    real = decider.decide_together

    def counted(*arguments, **named):
        found = real(*arguments, **named)
        decided.extend(found)
        return found

    monkeypatch.setattr(decider, "decide_together", counted)
    grown = audit(count=12, journal=path, resume=True)
    assert [one.results for one in grown.samples[:7]] == [one.results for one in first.samples]  # seconds included
    assert rounded(told(grown)) == rounded(told(whole))
    assert len(decided) < len(whole.samples) * 3
    assert "7 of 12 samples were decided by an earlier run" in str(grown.diagnostics)
    again = audit(count=12, journal=path, resume=True)
    assert [one.results for one in again.samples] == [one.results for one in grown.samples]
    with pytest.raises(OptionError, match="another data file and another number of samples"):
        audit(count=7, journal=path, resume=True)


def test_more_samples_of_other_data_or_asked_otherwise_are_no_continuation(tmp_path):
    path = tmp_path / "j"
    audit(count=3, journal=path)
    with pytest.raises(OptionError, match="set of radii"):
        audit(count=5, eps="0.02,0.05", journal=path, resume=True)
    with np.load(DATA) as file:
        inputs, labels = file["inputs"][:5].copy(), file["labels"][:5]
    inputs[1, 3] += 0.25
    np.savez(tmp_path / "other.npz", inputs=inputs, labels=labels)
    of_others = RobustnessOptions(
        eps=parse_eps("0.02,0.05,0.1"),
        data=DataOptions(tmp_path / "other.npz", limit=5, preprocessing=Preprocessing(bounds=(0.0, 1.0))),
        verdicts=Options(methods=FIRST, record=False, time_limit=math.inf, max_nodes=200),
        journal=path,
        resume=True,
    )
    with pytest.raises(OptionError, match="data file"):
        audit_robustness("certify", MODEL, of_others)
