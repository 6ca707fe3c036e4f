"""--jobs and --resume: one report whatever happens to a process on the way; nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands import certify as robustness
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions, Shard
from idl_audit.commands.robustness import keys
from idl_audit.commands.shared import decider, deciding, journal, sample_tasks, workers
from idl_audit.commands.shared.deciding import decide_all
from idl_audit.commands.shared.journal import HEAD, drop_journal, journal_beside
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import Reason, Verdict
from idl_audit.values.errors import OptionError, SolverError
from tests.shared import decider_workers
from tests.shared.lonely_samples import one_by_one

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL, DATA = SAMPLES / "digits_mlp.onnx", SAMPLES / "digits_mlp.npz"
MIXED = (14, 0, 37, 10, 3, 25)
"""Samples with every verdict at eps 0.05 where no tree is grown."""
FAST = ("interval", "sign", "pgd", "linear")


def audit(*, model=MODEL, data=DATA, eps="0.02,0.05", index=MIXED, methods=FAST, watch=None, tell=None, **more):
    data_options = DataOptions(data, index=index, preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    verdicts = Options(methods=methods, record=more.get("certificates") is not None, **more.pop("verdicts", {}))
    chosen = RobustnessOptions(eps=parse_eps(eps), data=data_options, verdicts=verdicts, **more)
    callbacks = {"watch": watch or (lambda progress: None), "tell": tell or (lambda found: None)}
    return audit_robustness("certify", model, chosen, **callbacks)


def verdicts_of(report):
    """Return everything about the samples but the time that they took."""
    samples = [sample.model_dump(mode="json") for sample in report.samples]
    for result in (result for sample in samples for result in sample["results"]):
        del result["seconds"]
    return samples, report.summary


def codes(report):
    return [entry.code for entry in report.diagnostics]


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_processes_give_the_same_report():
    seen = []
    report = audit(jobs=2, watch=lambda progress: seen.append((progress.done, progress.total)))
    assert verdicts_of(report) == verdicts_of(audit())
    assert [sample.index for sample in report.samples] == list(MIXED)
    told = [done for done, _ in seen]
    assert told == sorted(told)
    assert {2 * n for n in range(len(MIXED) + 1)} <= set(told) <= set(range(2 * len(MIXED) + 1))  # two radii a sample


def with_processes(work, monkeypatch, **more):
    """Audit four samples in processes that do `work`."""

    def in_processes(setting, subject, tasks, **options):
        return decide_all(setting, subject, tasks, **options, decider=work)

    monkeypatch.setattr(robustness, "decide_all", in_processes)
    return audit(eps="0.01,0.02", index=(0, 3, 5, 7), **more)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_costs_what_it_was_working_on(monkeypatch, jobs):
    report = with_processes(decider_workers.die_after_one_radius, monkeypatch, jobs=jobs)
    assert (report.status, report.why_incomplete) == ("incomplete", "not_judged")
    assert [sample.index for sample in report.samples] == [0, 3, 5, 7]
    verdicts = [[result.verdict.value for result in sample.results] for sample in report.samples]
    assert verdicts == [["certified"] * 2, ["certified", "unknown"], ["certified"] * 2, ["certified"] * 2]
    assert report.samples[1].results[1].reason is Reason.WORKER_FAILED
    assert report.samples[1].predicted == report.samples[1].label
    (told,) = (entry for entry in report.diagnostics if entry.code == "IDL206")
    assert "signal 9" in told.message
    assert "sample 3" in told.message
    assert from_json(to_json(report)) == report


@pytest.mark.slow
def test_the_memory_of_a_process_is_a_reason(monkeypatch):
    report = with_processes(decider_workers.run_out_of_memory, monkeypatch)
    assert [result.reason for result in report.samples[1].results] == [Reason.MEMORY_LIMIT] * 2


@pytest.mark.slow
def test_a_process_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(deciding, "GRACE", 0.5)
    report = with_processes(decider_workers.hang, monkeypatch, verdicts={"time_limit": 0.01})
    assert [result.reason for result in report.samples[1].results] == [Reason.TIME_LIMIT] * 2
    assert [len(sample.results) for sample in report.samples] == [2] * 4
    assert report.status == "complete"  # the limit is the user's


@pytest.mark.slow
def test_a_process_that_never_begins_is_ended(monkeypatch):
    monkeypatch.setattr(deciding, "GRACE", 0.5)
    monkeypatch.setattr(workers, "STARTING", 8.0)
    report = with_processes(decider_workers.read_forever, monkeypatch, verdicts={"time_limit": 0.01})
    assert [result.reason for result in report.samples[1].results] == [Reason.TIME_LIMIT] * 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ZeroDivisionError("one over nothing"), Reason.WORKER_FAILED),
        (SolverError("the solver gave up"), Reason.WORKER_FAILED),
        (MemoryError(), Reason.MEMORY_LIMIT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_fault_in_this_process_costs_one_sample(monkeypatch, fault, reason):
    real = decider.decide_sample

    def decide(model, network, sample, label, *rest, **named):
        if label == labels[1]:
            raise fault
        return real(model, network, sample, label, *rest, **named)

    with np.load(DATA) as file:
        labels = file["labels"][[0, 3, 5]]
    assert len(set(labels)) == 3
    one_by_one(monkeypatch)
    monkeypatch.setattr(decider, "decide_sample", decide)
    report = audit(index=(0, 3, 5))
    assert [result.reason for sample in report.samples for result in sample.results].count(reason) == 2
    assert [result.reason for result in report.samples[1].results] == [reason] * 2
    assert codes(report) == ["IDL206"]
    assert report.why_incomplete == "not_judged"
    assert from_json(to_json(report)) == report


@pytest.mark.parametrize("numbers", [[0.5, -0.0, 1 / 255], [np.float32(0.1), 2.0**-149, 1e300], [math.nan, 1.0, 2.0]])
def test_a_task_is_the_same_on_the_other_side(numbers):
    task = sample_tasks.SampleTask(3, 7, 1, np.array(numbers, np.float64))
    there = pickle.loads(pickle.dumps(task))
    assert (there.position, there.index, there.label, there.demand) == (3, 7, 1, None)
    assert there.centre.dtype == np.float64
    assert there.centre.tobytes() == task.centre.tobytes()


def test_a_task_of_float32_numbers_takes_half_the_bytes():
    sizes = [len(pickle.dumps(sample_tasks.SampleTask(0, 0, 0, np.full(1000, x)))) for x in (0.5, 0.1)]
    assert sizes[1] - sizes[0] == 4000


# ---- the journal -----------------------------------------------------------------------------------------------------


def interrupted_after(count, path, monkeypatch, **more):
    """Audit until so many samples are decided, then as kill -9 would end it: without a word."""
    real, calls = decider.decide_sample, iter(range(10**6))

    def decide(*arguments, **named):
        if next(calls) == 2 * count:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        one_by_one(patch)
        patch.setattr(decider, "decide_sample", decide)
        report = audit(journal=path, **more)
    assert (report.status, len(report.samples)) == ("incomplete", count)
    assert len(path.read_bytes().splitlines()) == 1 + count
    return report


def counted(monkeypatch):
    """Count the calls of `decide`."""
    calls, real = [], decider.decide_sample

    def decide(*arguments, **named):
        calls.append(arguments[3])
        return real(*arguments, **named)

    one_by_one(monkeypatch)
    monkeypatch.setattr(decider, "decide_sample", decide)
    return calls


def test_a_run_goes_on_from_its_journal(tmp_path, monkeypatch):
    path = journal_beside(tmp_path / "r.json")
    save = tmp_path / "adv.npz"
    one_by_one(monkeypatch)
    whole = audit(save=tmp_path / "whole.npz")
    interrupted_after(4, path, monkeypatch)
    calls = counted(monkeypatch)
    seen = []
    report = audit(journal=path, resume=True, save=save, watch=lambda progress: seen.append(progress.done))
    assert len(calls) <= 2 * (len(MIXED) - 4)
    assert verdicts_of(report) == verdicts_of(whole)
    assert (seen[0], seen[-1]) == (8, 2 * len(MIXED))
    assert codes(report).count("IDL207") == 1
    with np.load(tmp_path / "whole.npz") as first, np.load(save) as second:
        assert len(first["inputs"]) > 0
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])
    drop_journal(path, report)
    assert not path.exists()


def test_a_finished_journal_leaves_nothing_to_decide(tmp_path, monkeypatch):
    path = tmp_path / "j"
    first = audit(journal=path)
    calls = counted(monkeypatch)
    assert verdicts_of(audit(journal=path, resume=True)) == verdicts_of(first)
    assert calls == []


def up_to_rounding(told):
    """Return what `verdicts_of` does with bounds of 12 digits: other radii beside them make other sums of a batch."""
    samples, *others = told
    for sample in samples:
        for result in sample["results"]:
            if result["lower_bound"] is not None:
                result["lower_bound"] = f"{result['lower_bound']:.11e}"
    return samples, *others


@pytest.mark.parametrize(
    ("before", "jobs"), [("0.05", 1), ("0.05,0.02", 1), pytest.param("0.02", 2, marks=pytest.mark.slow)]
)
def test_a_run_goes_on_with_more_radii_and_keeps_what_is_decided(tmp_path, monkeypatch, before, jobs):
    path, radii = tmp_path / "j", "0.01,0.02,0.05"
    whole = audit(eps=radii)
    audit(journal=path, eps=before)
    kept = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    calls = counted(monkeypatch)
    seen = []
    report = audit(
        journal=path,
        resume=True,
        eps=radii,
        jobs=jobs,
        watch=lambda progress: seen.append((progress.done, progress.total)),
    )
    assert up_to_rounding(verdicts_of(report)) == up_to_rounding(verdicts_of(whole))
    assert seen[0] == (len(MIXED) * len(before.split(",")), 3 * len(MIXED))
    assert seen[-1] == (3 * len(MIXED), 3 * len(MIXED))
    assert len(calls) <= (3 - len(before.split(","))) * len(MIXED)
    assert any("0 of 6 samples were decided by an earlier run" in one.message for one in report.diagnostics)
    now = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    last = {entry["position"]: entry for entry in now if "position" in entry}
    for entry in kept:  # times included: nothing was decided again
        found = {one["eps"]: one for one in last[entry["position"]]["results"]}
        assert set(found) == {0.01, 0.02, 0.05}
        assert all(found[one["eps"]] == one for one in entry["results"])
    calls.clear()
    again = audit(journal=path, resume=True, eps=radii)
    assert up_to_rounding(verdicts_of(again)) == up_to_rounding(verdicts_of(whole))
    assert not calls
    with pytest.raises(OptionError, match="another set of radii"):
        audit(journal=path, resume=True, eps=before)


def test_more_radii_and_more_samples_go_together(tmp_path):
    path = tmp_path / "j"
    whole = audit(eps="0.02,0.05")
    audit(journal=path, eps="0.05", index=MIXED[:4])
    report = audit(journal=path, resume=True, eps="0.02,0.05")
    assert verdicts_of(report) == verdicts_of(whole)


def test_a_sample_that_is_lost_keeps_what_was_known(tmp_path, monkeypatch):
    path = tmp_path / "j"
    before = audit(journal=path, eps="0.02")

    def fails(*arguments, **named):
        raise ZeroDivisionError

    monkeypatch.setattr(decider, "decide_sample", fails)
    monkeypatch.setattr(decider, "decide_together", fails)
    report = audit(journal=path, resume=True, eps="0.02,0.05")
    assert report.status == "incomplete"
    for known, sample in zip(before.samples, report.samples, strict=True):
        assert sample.results[0].verdict == known.results[0].verdict
        assert sample.results[1].verdict in ("unknown", "falsified", "clean_wrong")


def test_certificates_of_an_earlier_run_stay_beside_new_ones(tmp_path):
    path, folder = tmp_path / "j", tmp_path / "c"
    audit(journal=path, eps="0.02", certificates=folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before
    report = audit(journal=path, resume=True, eps="0.02,0.03", certificates=folder)
    now = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before.items() < now.items()
    assert {Path(name).name for name in report.artifacts if name.endswith(".npz")} == set(now)


def test_a_part_takes_more_radii_and_refuses_another_number_of_samples(tmp_path):
    path, part = tmp_path / "j", Shard(2, 2)
    audit(journal=path, eps="0.02", shard=part)
    report = audit(journal=path, resume=True, eps="0.02,0.05", shard=part)
    assert verdicts_of(report) == verdicts_of(audit(eps="0.02,0.05", shard=part))
    with pytest.raises(OptionError, match=r"same part of 6 samples, and now there are 4: other ones belong .*--limit"):
        audit(journal=path, resume=True, eps="0.02,0.05", shard=part, index=MIXED[:4])


def test_a_torn_line_is_decided_again(tmp_path, monkeypatch):
    path = tmp_path / "j"
    whole = audit(journal=path)
    content = path.read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in (ends[-1], ends[-1] - 5, ends[-2] + 1, ends[-2] + 30, ends[1], ends[0] + 1):
        path.write_bytes(content[:cut])
        assert verdicts_of(audit(journal=path, resume=True)) == verdicts_of(whole)
        assert [json.loads(line).get("position") for line in path.read_bytes().splitlines()][1:] == list(range(6))
    zeros = content[: ends[-2] + 1] + bytes(40) + b"\n"  # what a file system may leave after a crash
    path.write_bytes(zeros)
    assert verdicts_of(audit(journal=path, resume=True)) == verdicts_of(whole)


def test_an_entry_that_came_twice_counts_once(tmp_path):
    path = tmp_path / "j"
    whole = audit(journal=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, *lines[2:4]]))
    assert verdicts_of(audit(journal=path, resume=True)) == verdicts_of(whole)


def test_work_of_an_earlier_run_is_not_lost_without_a_word(tmp_path):
    path = tmp_path / "j"
    audit(journal=path, index=MIXED[:2])
    before = path.read_bytes()
    with pytest.raises(OptionError, match=r"holds 2 samples .* --resume, or lose them with --force"):
        audit(journal=path, index=MIXED[:2])
    assert path.read_bytes() == before


def test_with_force_a_run_starts_anew(tmp_path, monkeypatch):
    path = tmp_path / "j"
    audit(journal=path, index=MIXED[:2])
    calls = counted(monkeypatch)
    audit(journal=path, index=MIXED[:2], force=True)
    assert calls
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": "0.02,0.04"}, "set of radii"),
        ({"index": MIXED[:-1]}, "data file"),
        ({"methods": ("interval", "sign", "linear")}, "set of options"),
        ({"verdicts": {"seed": 1}}, "set of options"),
        ({"verdicts": {"time_limit": 5.0}}, "set of options"),
        ({"model": "other"}, "model"),
        ({"data": "other"}, "data file"),
    ],
)
def test_the_journal_of_another_run_is_refused(tmp_path, change, words):
    path = tmp_path / "j"
    if "model" in change:
        for name in ("digits_mlp.onnx", "digits_mlp.onnx.data"):
            content = bytearray((SAMPLES / name).read_bytes())
            if name.endswith("data"):
                content[101] ^= 1  # one weight differs a little
            (tmp_path / name).write_bytes(content)
        change = {"model": tmp_path / "digits_mlp.onnx"}
    if "data" in change:
        with np.load(DATA) as file:
            inputs = file["inputs"].copy()
            inputs[MIXED[0], 0] += 0.01
            np.savez(tmp_path / "d.npz", inputs=inputs, labels=file["labels"])
        change = {"data": tmp_path / "d.npz"}
    audit(journal=path)
    before = path.read_bytes()
    with pytest.raises(OptionError, match=f"another {words}") as refused:
        audit(journal=path, resume=True, **change)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


def test_samples_of_another_version_are_decided_again(tmp_path, monkeypatch):
    path = tmp_path / "j"
    with monkeypatch.context() as patch:
        for module in (robustness, keys):
            patch.setattr(module, "__version__", "0.0.9")
        first = interrupted_after(3, path, monkeypatch)
    before = path.read_bytes()
    with pytest.raises(OptionError, match="another version of idl-audit and another set of radii"):
        audit(journal=path, resume=True, eps="0.02")
    assert path.read_bytes() == before
    calls, told = counted(monkeypatch), []
    whole = audit()
    n_calls = len(calls)
    calls.clear()
    report = audit(journal=path, resume=True, tell=told.append)
    assert len(calls) == n_calls
    assert codes(report).count("IDL207") == 0
    (message,) = (one.message for one in told if one.code == "IDL209")
    assert message.startswith("3 of 6 samples are decided again: version 0.0.9 of idl-audit decided them")
    assert verdicts_of(report) == verdicts_of(whole)
    assert all(sample in verdicts_of(report)[0] for sample in verdicts_of(first)[0])
    assert len(path.read_bytes().splitlines()) == 1 + len(MIXED)
    calls.clear()
    audit(journal=path, resume=True)
    assert calls == []


def test_what_is_no_journal_is_not_overwritten(tmp_path):
    path = tmp_path / "notes.txt"
    for content in (b"my notes", b"my notes\n", b'{"a": 1}\n', b"\x00" * 100):
        path.write_bytes(content)
        for resume in (False, True):
            with pytest.raises(OptionError, match="is no journal"):
                audit(journal=path, resume=resume)
        assert path.read_bytes() == content


def test_a_damaged_journal_is_refused(tmp_path):
    path = tmp_path / "j"
    audit(journal=path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0].startswith(HEAD)
    for number, line in ((2, b"nonsense\n"), (3, b'{"position": 99}\n'), (3, lines[3].replace(b'"verdict"', b'"x"'))):
        path.write_bytes(b"".join([*lines[:number], line, *lines[number + 1 :]]))
        with pytest.raises(OptionError, match=f"damaged in line {number + 1}"):
            audit(journal=path, resume=True)


def test_resume_needs_a_journal():
    with pytest.raises(OptionError, match="-o FILE"):
        audit(resume=True)
    with pytest.raises(OptionError, match="--jobs"):
        audit(jobs=0)


def test_two_runs_do_not_share_a_journal(tmp_path):
    with journal.Journal.open(tmp_path / "j", {}, resume=False), pytest.raises(OptionError, match="another run"):
        journal.Journal.open(tmp_path / "j", {}, resume=False)


def test_a_full_disk_costs_the_journal_and_not_the_run(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "j"
    opened = journal.Journal.open(path, {}, resume=False)
    opened._file.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        opened._file = full
        opened.append({"a": 1})
        assert opened.failure == os.strerror(28)
        opened.append({"a": 1})


@pytest.mark.slow
def test_kill_9_and_resume(tmp_path):
    """The command itself, killed twice: at the end the report is that of a run in peace."""
    common = [sys.executable, "-m", "idl_audit", "certify", MODEL, "-d", DATA, "-e", "0.05", "--bounds", "0,1"]
    common += ["--limit", "16", "--method", "interval,sign,pgd,linear,lp", "-f", "json"]
    out, saved = tmp_path / "r.json", tmp_path / "adv.npz"
    command = list(map(str, [*common, "-o", out, "--save", saved, "--jobs", "2"]))
    path = journal_beside(out)
    lines = 0
    for wanted in (4, 9):
        more = ["--resume"] if path.exists() else []
        with subprocess.Popen([*command, *more]) as process:
            deadline = time.monotonic() + 120
            while not path.exists() or path.read_bytes().count(b"\n") < wanted:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert not out.exists()
        found = path.read_bytes().count(b"\n")
        assert found >= lines
        lines = found
    subprocess.run([*command, "--resume"], check=True, timeout=120)
    report = from_json(out.read_text())
    assert report.status == "complete"
    assert not path.exists()
    whole = audit(eps="0.05", index=tuple(range(16)), methods=("interval", "sign", "pgd", "linear", "lp"))
    assert verdicts_of(report) == verdicts_of(whole)
    with np.load(saved) as file:
        falsified = [sample.index for sample in report.samples if sample.results[0].verdict is Verdict.FALSIFIED]
        assert file["indices"].tolist() == falsified


@pytest.mark.slow
def test_ctrl_c_leaves_a_valid_report_and_a_journal(tmp_path):
    out = tmp_path / "r.json"
    command = [sys.executable, "-m", "idl_audit", "certify", MODEL, "-d", DATA, "-e", "0.09", "--bounds", "0,1"]
    command += ["--limit", "200", "-f", "json", "-o", out, "--jobs", "2"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (path := journal_beside(out)).exists() or path.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    report = from_json(out.read_text())
    assert report.status == "incomplete"
    assert len(report.samples) == path.read_bytes().count(b"\n") - 1 >= 2
    assert sum(report.summary.per_eps[0].model_dump()[verdict.value] for verdict in Verdict) == len(report.samples)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    """Each process reads the script anew: what starts processes there must not run again in them."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import math\n"
        "from idl_audit.commands.shared.workers import work_through\n"
        "print(list(work_through([4.0, 9.0], math.sqrt, jobs=2, allowed=lambda task: 60.0)))\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1
    assert ran.stdout == ""
    last = ran.stderr.strip().splitlines()[-1]
    assert "ProcessError: the process working on it ended early with exit code 1" in last
    assert 'needs `if __name__ == "__main__":`' in last
